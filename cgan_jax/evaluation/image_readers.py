"""Images in files, read for scoring: the counterpart of image_writers.py."""

import collections
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cgan_jax.data import archives, pictures
from cgan_jax.errors import UsageError
from cgan_jax.files import storage
from cgan_jax.names import on_disk, printable
from cgan_jax.sampling.image_writers import folder_names

_NO_CLASS = ("image",)  # what cgan sample calls the images of an unconditional run


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
    path = on_disk(path)
    if not path.exists():
        raise UsageError(f"--images={path}: no such file or folder")
    found = _read_folder(path, shape, class_names) if path.is_dir() else _read_npz(path, class_names)
    images, labels = found
    if images.shape[1:] != shape:
        raise UsageError(f"{path}: images are {list(images.shape[1:])} and the dataset's are {list(shape)}")
    if labels is not None:
        labels = archives.checked_labels(path, labels, len(class_names))
    return Images(images, labels)


def _read_npz(path: Path, class_names: Sequence[str]) -> Images:
    images, labels, names = archives.read(path)
    if names == _NO_CLASS:
        return Images(images, None)
    if names is not None and labels is not None and names != tuple(map(printable, class_names)):
        raise UsageError(f"{path} is of the classes {', '.join(names[:5])}..., the dataset of others")
    return Images(images, labels)


def _read_folder(path: Path, shape: tuple[int, int, int], class_names: Sequence[str]) -> Images:
    of_class = {printable(name): label for label, name in enumerate(class_names)}
    of_class |= {name: label for label, name in enumerate(folder_names(class_names))}
    images, labels = [], []
    for file in pictures.in_folder(path, skipped := collections.Counter()):
        inside = [printable(part) for part in file.relative_to(path).parts]
        if len(inside) > 1 and (inside[0] in of_class or (inside[0],) != _NO_CLASS):
            if inside[0] not in of_class:
                raise UsageError(f"{path}/{inside[0]}: the dataset has no class of that name")
            labels.append(of_class[inside[0]])
        images.append(_read_picture(file, shape))
    if labels and len(labels) != len(images):
        raise UsageError(f"{path} holds pictures both beside and inside of class folders")
    if not images:
        raise UsageError(f"{path} holds no pictures that Pillow reads{pictures.told(skipped)}")
    return Images(np.stack(images), np.int32(labels) if labels else None)


def _read_picture(file: Path, shape: tuple[int, int, int]) -> np.ndarray:
    name = printable(str(file))
    try:
        content = storage.read_bytes(file)
        seen = pictures.facts(content)
        if (seen.height, seen.width) != shape[:2]:  # before the pixels are unpacked
            raise UsageError(f"{name}: {seen.width}x{seen.height} pixels, the dataset has {shape[1]}x{shape[0]}")
        return np.asarray(pictures.in_mode(pictures.opened(content), shape[2])).reshape(shape)
    except pictures.Unreadable as error:
        raise UsageError(f"{name} is not a whole picture: {error}") from error
