"""Images in files, read for scoring: the counterpart of image_writers.py."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from cgan_jax.data.sources._pixels import UNDECODABLE
from cgan_jax.data.sources.image_folder import SUFFIXES
from cgan_jax.errors import UsageError
from cgan_jax.files import storage
from cgan_jax.files.npz import arrays_in
from cgan_jax.sampling.image_writers import folder_names

_NO_CLASS = ["image"]  # what cgan sample calls the images of an unconditional run


class Images(NamedTuple):
    """Images of one size, with their classes if the files say them."""

    images: np.ndarray
    """uint8 [N, H, W, C]."""
    labels: np.ndarray | None
    """int32 [N]."""


def read(path: Path, shape: tuple[int, int, int], class_names: Sequence[str]) -> Images:
    """The images of a .npz (images, labels, class_names) or of a folder, in sub-folders by class or in none.

    Raises UsageError, which names the file, for images of another shape than `shape` [H, W, C] and for classes that are
    not in `class_names`.
    """
    if not path.exists():
        raise UsageError(f"--images={path}: no such file or folder")
    found = _read_folder(path, shape, class_names) if path.is_dir() else _read_npz(path, class_names)
    images, labels = found
    if images.ndim != 4 or images.dtype != np.uint8:
        kind = f"{images.dtype} {list(images.shape)}"
        raise UsageError(f"{path}: images must be uint8 [N, H, W, C] with values 0 to 255, given {kind}")
    if images.shape[1:] != shape:
        raise UsageError(f"{path}: images are {list(images.shape[1:])} and the dataset's are {list(shape)}")
    if not len(images):
        raise UsageError(f"{path} holds no images")
    if labels is not None:
        if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
            raise UsageError(
                f"{path}: labels must be whole numbers [{len(images)}], given {labels.dtype} {labels.shape}"
            )
        if labels.min() < 0 or labels.max() >= len(class_names):
            raise UsageError(
                f"{path}: labels go from {labels.min()} to {labels.max()}, classes to {len(class_names) - 1}"
            )
        labels = labels.astype(np.int32)
    return Images(images, labels)


def _read_npz(path: Path, class_names: Sequence[str]) -> Images:
    try:
        arrays = arrays_in(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no .npz of arrays: {error}") from error
    if "images" not in arrays:
        raise UsageError(f"{path} has no array named images")
    names = arrays.get("class_names")
    if names is not None and names.tolist() == _NO_CLASS:
        return Images(arrays["images"], None)
    if names is not None and "labels" in arrays and names.tolist() != list(class_names):
        raise UsageError(f"{path} is of the classes {', '.join(map(str, names[:5]))}..., the dataset of others")
    return Images(arrays["images"], arrays.get("labels"))


def _read_folder(path: Path, shape: tuple[int, int, int], class_names: Sequence[str]) -> Images:
    of_class = {name: label for label, name in enumerate(class_names)}
    of_class |= {name: label for label, name in enumerate(folder_names(class_names))}
    images, labels = [], []
    for file in sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES):
        inside = file.relative_to(path).parts
        if len(inside) > 1 and (inside[0] in of_class or [inside[0]] != _NO_CLASS):
            if inside[0] not in of_class:
                raise UsageError(f"{path / inside[0]}: the dataset has no class of that name")
            labels.append(of_class[inside[0]])
        images.append(_read_picture(file, shape))
    if labels and len(labels) != len(images):
        raise UsageError(f"{path} holds pictures both beside and inside of class folders")
    if not images:
        raise UsageError(f"{path} holds no pictures ({', '.join(SUFFIXES)})")
    return Images(np.stack(images), np.int32(labels) if labels else None)


def _read_picture(file: Path, shape: tuple[int, int, int]) -> np.ndarray:
    try:
        with storage.opened(file) as content, Image.open(content) as image:
            if image.size != (shape[1], shape[0]):  # before the pixels are unpacked
                raise UsageError(f"{file}: {image.width}x{image.height} pixels, the dataset has {shape[1]}x{shape[0]}")
            pixels = np.asarray(image.convert("L" if shape[2] == 1 else "RGB"))
    except UNDECODABLE as error:
        raise UsageError(f"{file} is not a whole picture: {error}") from error
    return pixels.reshape(shape)
