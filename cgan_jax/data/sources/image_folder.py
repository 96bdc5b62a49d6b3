"""A folder of your own pictures: one sub-folder per class, the class named as the folder.

    pictures/cat/1.jpg  pictures/cat/2.png  pictures/dog/1.webp  ...

or, with splits, one more level: pictures/train/cat/1.jpg, pictures/test/cat/7.jpg.
"""

import os
from pathlib import Path

import numpy as np

from cgan_jax.data.sources import Dataset, _pixels
from cgan_jax.errors import MissingData, UsageError
from cgan_jax.files.storage import reason
from cgan_jax.lookup import unknown

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def load(name: str, split: str, data_dir: str, image_size: int) -> Dataset:
    """The pictures as images uint8 [N, image_size, image_size, 3], cut to their centred square and resized.

    `name` is a folder in `data_dir`, or "" for `data_dir` itself. `split` is a folder in that; without such folders the
    splits "train" and "all" are the folder itself. Classes are in the order of their sorted names, files too. Every
    picture becomes RGB: grey is repeated, transparency is composited on black, the EXIF orientation is followed. Hidden
    files and files of other kinds are passed over.

    Raises UsageError, with the path, for a folder or split that does not exist, a class folder without pictures, or a
    file that is not a whole picture.
    """
    if not name and not data_dir:
        raise UsageError("image_folder needs to know where the pictures are: give data_dir, or name, or both")
    if image_size < 1:
        raise UsageError(f"image_size {image_size} is not a size: it must be at least 1")
    folder, class_names = _split_folder(Path(data_dir, name).expanduser(), split)
    paths, labels = [], []
    for class_folder in _folders_in(folder):
        pictures = _pictures_in(class_folder)
        if class_folder.name not in class_names:
            raise UsageError(f"{class_folder}: the train split has no class {class_folder.name!r}")
        paths += pictures
        labels += [class_names.index(class_folder.name)] * len(pictures)
    images = np.empty((len(paths), image_size, image_size, 3), np.uint8)
    bytes_per_image = sum(path.stat().st_size for path in paths) / len(paths)
    _pixels.fill(images, lambda i: _decode(paths[i], image_size), bytes_per_image)
    return Dataset(images, np.array(labels, np.int32), class_names)


def _split_folder(root: Path, split: str) -> tuple[Path, tuple[str, ...]]:
    """The folder whose sub-folders are the classes of `split`, and the names that number them.

    If there is a split "train", its classes number those of every split, so a missing class moves no number.
    """
    folders = _folders_in(root)
    if not folders:
        raise MissingData(f"{root}: no folder with one sub-folder per class")
    # A class may have the name of a split; a folder without folders inside is a class.
    splits = {folder.name: folder for folder in folders if _folders_in(folder)}
    if split not in splits:
        if split in ("train", "all") and len(splits) < len(folders):
            return root, tuple(folder.name for folder in folders)
        raise unknown(f"split of {root}", split, splits or ("train", "all"))
    counted = splits.get("train", splits[split])
    return splits[split], tuple(folder.name for folder in _folders_in(counted))


def _folders_in(folder: Path) -> list[Path]:
    """The sub-folders that are not hidden, sorted, by value if all are numbers; none if the folder does not exist."""
    if not folder.is_dir():
        return []
    found = sorted(Path(entry) for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if all(path.name.isdecimal() for path in found):
        found.sort(key=lambda path: int(path.name))
    return found


def _pictures_in(folder: Path) -> list[Path]:
    """The pictures of one class, sorted. Raises UsageError if there are none."""
    pictures = sorted(
        Path(entry)
        for entry in os.scandir(folder)
        if entry.is_file() and not entry.name.startswith(".") and entry.name.lower().endswith(SUFFIXES)
    )
    if not pictures:
        raise UsageError(f"{folder}: the class folder holds no picture ({', '.join(SUFFIXES)})")
    return pictures


def _decode(path: Path, size: int) -> np.ndarray:
    try:
        return _pixels.decode(path, size, channels=3, upright=True)
    except _pixels.UNDECODABLE as error:
        raise UsageError(f"{path}: not a picture that can be read ({reason(error)})") from error
