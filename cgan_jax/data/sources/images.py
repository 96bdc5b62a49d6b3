"""Your own images, in whatever form they are: the source finds out which.

a folder of class folders, with splits above them or not      pictures/cat/1.jpg, pictures/train/cat/1.jpg
a folder of pictures without classes                          pictures/1.jpg
a list of paths and classes, .csv, .tsv or .jsonl             pictures/list.csv
a .zip of class folders, or with StyleGAN's dataset.json      pictures.zip
arrays, .npz with images, labels and class_names              pictures.npz, or one per split in a folder
a set that TensorFlow Datasets prepared                       tensorflow_datasets/mnist/3.0.1
"""

from pathlib import Path

import numpy as np

from cgan_jax.data import archives, pictures
from cgan_jax.data.sources import Dataset, _decoded, _list, _pixels, _zip, check_count, image_folder
from cgan_jax.errors import MissingData, UsageError
from cgan_jax.files.png import to_pillow
from cgan_jax.lookup import unknown
from cgan_jax.names import printable

_LISTS = ("metadata.csv", "metadata.jsonl", "labels.csv")
"""What a list inside of a folder of pictures is called."""


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
    """The images of DATA_DIR/NAME, or of DATA_DIR if `name` is "", uint8 [N, image_size, image_size, C].

    `fit` is what makes a rectangle a square: crop, pad or stretch. `channels` is grey, rgb, rgba or auto: grey if all
    images are, else rgb. Transparent pixels and padding become `background`, black or white; rgba keeps transparency.
    `stored` images stay in a file of the cache folder and are read by their rows.

    Raises UsageError, in one line, for images that are not there or cannot be read.
    """
    if not name and not data_dir:
        raise UsageError(
            "dataset.data_dir must name a folder of images, or a .csv, .jsonl, .zip, .parquet or .npz, as in"
            " --config.dataset.data_dir=~/pictures"
        )
    path = image_folder.place(name, data_dir)
    options = (image_size, fit, channels, background, stored)
    if not path.exists():
        raise MissingData(f"{printable(str(path))}: no such file or folder")
    if path.is_dir():
        if (path / "dataset_info.json").is_file():
            from cgan_jax.data.sources import tfds  # takes a second

            dataset = tfds.read(path, str(path), split, *options[:-1])
            return dataset._replace(about=("the set was prepared by TensorFlow Datasets",))
        if (path / f"{split}.npz").is_file():
            return _of_arrays(path / f"{split}.npz", *options[:-1])
        return _decoded.decoded(_in_folder(path, split), *options)
    if not path.is_file():
        raise UsageError(f"{printable(str(path))} is neither a file nor a folder")
    suffix = path.suffix.lower()
    if suffix in (".npz", ".npy"):
        if split not in ("train", "all"):
            raise unknown(f"split of {path}", split, ("train", "all"))
        return _of_arrays(path, *options[:-1])
    finders = {".zip": _zip.find, ".parquet": _in_parquet, **dict.fromkeys(_list.SUFFIXES, _list.find)}
    if suffix not in finders:
        raise UsageError(f"{printable(str(path))}: expected is a folder, or a file in {', '.join(finders)} or .npz")
    return _decoded.decoded(finders[suffix](path, split), *options)


def _in_folder(folder: Path, split: str) -> _decoded.Pictures:
    """The pictures of a folder: those that a list or Parquet files hold, else its picture files."""
    for listing in (folder / name for name in _LISTS):
        if listing.is_file():
            return _list.find(listing, split)
    if any(map(_is_parquet, pictures.below(folder))):
        return _in_parquet(folder, split)
    return image_folder.find(folder, split)


def _in_parquet(path: Path, split: str) -> _decoded.Pictures:
    from cgan_jax.data.sources import _parquet  # takes a moment

    if path.is_file():
        return _parquet.find([path])
    return _parquet.find(_parquet.of_split(path, [file for file in pictures.below(path) if _is_parquet(file)], split))


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _of_arrays(path: Path, image_size: int, fit: str, channels: str, background: str) -> Dataset:
    """The images of an archive in the wanted form; those that have it keep their pixels."""
    images, labels, class_names = archives.read(path)
    n, height, width, depth = images.shape
    if depth not in (1, 3, 4):
        raise UsageError(f"{path}: images must have 1, 3 or 4 channels, given {depth}")
    if labels is None:
        labels, class_names = np.zeros(n, np.int32), image_folder.UNLABELLED
    elif class_names is None:
        check_count(int(labels.max()) + 1, path)
        class_names = tuple(map(str, range(int(labels.max()) + 1)))
    labels = archives.checked_labels(path, labels, len(class_names))
    usual = "grey" if depth == 1 else "rgb"
    form = _pixels.Form(image_size, _decoded.CHANNELS[usual if channels == "auto" else channels], fit, background)
    if (height, width, depth) != (image_size, image_size, form.channels):
        shaped = np.empty((n, image_size, image_size, form.channels), np.uint8)
        for i, image in enumerate(images):
            shaped[i] = _pixels.shaped(pictures.in_mode(to_pillow(image), form.channels, background), form)
        images = shaped
    about = f"{height}x{width} with {depth} channels become {image_size}x{image_size} with {form.channels}"
    return Dataset(images, labels, class_names, (about,))
