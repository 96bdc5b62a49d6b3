"""A folder of your own pictures: one sub-folder per class, the class named as the folder.

    pictures/cat/1.jpg  pictures/cat/2.png  pictures/dog/1.webp  ...

or, with splits, one more level: pictures/train/cat/1.jpg, pictures/test/cat/7.jpg.
"""

import collections
import os
from collections.abc import Iterable
from pathlib import Path

from cgan_jax.data import pictures
from cgan_jax.data.sources import Dataset
from cgan_jax.data.sources._decoded import Pictures, decoded, of_files
from cgan_jax.errors import MissingData, UsageError
from cgan_jax.lookup import unknown
from cgan_jax.names import on_disk, printable

SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "all"}
"""What folders of splits are called."""
UNLABELLED = ("image",)
"""The classes of pictures that lie in no class folder."""


def load(
    name: str,
    split: str,
    data_dir: str,
    image_size: int,
    fit: str = "crop",
    channels: str = "auto",
    background: str = "black",
    stored: bool = False,
) -> Dataset:
    """The pictures as images uint8 [N, image_size, image_size, 3], cut to their centred square and resized.

    `name` is a folder in `data_dir`, or "" for `data_dir` itself. `split` is a folder in that; without such folders the
    splits "train" and "all" are the folder itself. Classes are in the order of their sorted names, files too; a class
    may have sub-folders. Every picture becomes RGB: grey is repeated, transparency is composited on black, the EXIF
    orientation is followed. Hidden files and files that Pillow does not read are passed over.

    `fit`, `channels`, `background` and `stored` are those of the source images.

    Raises UsageError, with the path, for a folder or split that does not exist, a class folder without pictures, or a
    file that is not a whole picture.
    """
    if not name and not data_dir:
        raise UsageError("image_folder needs to know where the pictures are: give data_dir, or name, or both")
    found = find(place(name, data_dir), split)
    return decoded(found, image_size, fit, channels, background, stored, usual="rgb")


def place(name: str, data_dir: str) -> Path:
    """DATA_DIR/NAME on this machine. Raises UsageError for a bucket."""
    if "://" in data_dir:
        raise UsageError(
            f"dataset.data_dir={printable(data_dir)}: images cannot be read from a bucket; copy them to this machine"
        )
    return on_disk(Path(data_dir, name).expanduser())


def find(root: Path, split: str) -> Pictures:
    """The pictures of a split, not yet decoded; all of one class if there are no class folders."""
    folder, class_names = _split_folder(root, split)
    paths, labels, skipped = [], [], collections.Counter()
    for class_folder in _folders_in(folder):
        of_class = pictures.in_folder(class_folder, skipped)
        if not of_class:
            raise UsageError(f"{printable(str(class_folder))}: the class folder holds no picture that Pillow reads")
        name = printable(class_folder.name)
        if name not in class_names:
            raise UsageError(f"{class_folder.parent}/{name}: the train split has no class {name!r}")
        paths += of_class
        labels += [class_names.index(name)] * len(of_class)
    beside = [path for path in pictures.directly_in(folder) if pictures.is_picture(path)]
    if paths and beside:
        skipped["beside the class folders"] += len(beside)
    elif beside:
        paths, labels, class_names = beside, [0] * len(beside), UNLABELLED
    return of_files(paths, labels, class_names, skipped)


def _split_folder(root: Path, split: str) -> tuple[Path, tuple[str, ...]]:
    """The folder whose sub-folders are the classes of `split`, and the names that number them.

    If there is a split "train", its classes number those of every split, so a missing class moves no number.
    """
    folders = _folders_in(root)
    if not folders and not any(map(pictures.is_picture, pictures.directly_in(root))):
        raise MissingData(f"{printable(str(root))}: no folder with one sub-folder per class, or of pictures")
    # A folder with folders inside is a split if it is asked for or called as one; else it is a class.
    named = {folder.name: folder for folder in folders if folder.name.lower() in SPLITS}
    splits = named if len(named) == len(folders) else {folder.name: folder for folder in folders if _folders_in(folder)}
    if split in splits:
        return splits[split], _class_names(splits.get("train", splits[split]))
    if split in ("train", "all") and not splits.keys() & named:
        return root, _class_names(root)
    raise unknown(f"split of {printable(str(root))}", split, sorted(splits.keys() & named) or ("train", "all"))


def _class_names(folder: Path) -> tuple[str, ...]:
    return class_order(printable(path.name) for path in _folders_in(folder))


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """The distinct names, sorted, by value if all are numbers."""
    distinct = set(names)
    if all(name.isdecimal() for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


def _folders_in(folder: Path) -> list[Path]:
    """The sub-folders that are not hidden, in the order of classes; none if the folder does not exist."""
    if not folder.is_dir():
        return []
    found = [Path(entry) for entry in os.scandir(folder) if entry.is_dir() and not pictures.is_hidden(entry.name)]
    place = {name: i for i, name in enumerate(class_order(printable(path.name) for path in found))}
    return sorted(found, key=lambda path: (place[printable(path.name)], path.name))
