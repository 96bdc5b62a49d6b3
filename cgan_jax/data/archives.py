"""Labelled images in a NumPy archive, as `cgan sample --out=FILE.npz` and many others write them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from cgan_jax.errors import UsageError
from cgan_jax.files.npz import arrays_in
from cgan_jax.names import printable

_EXPECTED = "expected are images uint8 [N, H, W, C] and, if there are classes, labels [N] and class_names"


class Archive(NamedTuple):
    """The arrays of an archive, as they are."""

    images: np.ndarray
    """uint8 [N, H, W, C]."""
    labels: np.ndarray | None
    class_names: tuple[str, ...] | None


def read(path: Path) -> Archive:
    """The images of a .npz. Raises UsageError, which says what the file holds, for arrays of other names or kinds."""
    if path.suffix.lower() == ".npy":
        raise UsageError(f"{path} is a single array; in a .npz {_EXPECTED}: np.savez(FILE, images=ARRAY) writes one")
    try:
        arrays = arrays_in(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no .npz of arrays: {error}") from error
    if "images" not in arrays:
        held = ", ".join(f"{printable(name)} {array.dtype} {list(array.shape)}" for name, array in arrays.items())
        raise UsageError(f"{path} has no array named images; it holds {held or 'none'}; {_EXPECTED}")
    images, labels, names = arrays["images"], arrays.get("labels"), arrays.get("class_names")
    if images.ndim != 4 or images.dtype != np.uint8:
        kind = f"{images.dtype} {list(images.shape)}"
        raise UsageError(f"{path}: images must be uint8 [N, H, W, C] with values 0 to 255, given {kind}")
    if not len(images):
        raise UsageError(f"{path} holds no images")
    if labels is not None and (labels.shape != (len(images),) or labels.dtype.kind not in "iu"):
        raise UsageError(f"{path}: labels must be whole numbers [{len(images)}], given {labels.dtype} {labels.shape}")
    if names is not None:
        names = tuple(printable(_text(name)) for name in np.atleast_1d(names))
    return Archive(images, labels, names)


def _text(name: object) -> str:
    """A class name. NumPy keeps names of ASCII as bytes if they were given so."""
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def checked_labels(path: Path, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The labels as int32. Raises UsageError for labels outside of the classes."""
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UsageError(f"{path}: labels go from {labels.min()} to {labels.max()}, classes to {num_classes - 1}")
    return labels.astype(np.int32)
