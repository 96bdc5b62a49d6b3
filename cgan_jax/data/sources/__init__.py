"""Where images come from. One file here = one source: `load(name, split, data_dir, image_size) -> Dataset`.

`load` may take more fields of a recipe's section `dataset`: fit, channels, background, and `stored`, whether the images
may stay in a file. It has defaults for these.
"""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cgan_jax import recipe
from cgan_jax.data.stored import StoredImages
from cgan_jax.errors import UsageError
from cgan_jax.lookup import module_named, unknown
from cgan_jax.names import listed, printable

_OPTIONS = ("fit", "channels", "background")
COLOURS = {1: "grey", 3: "RGB", 4: "RGBA"}
"""What images of so many channels are called."""
MOST_CLASSES = 2**16
"""A file may state any number of them, or any label. A name for each class would take all memory."""
_FEW = 100
"""Images below which a class is small."""
_LISTED = 20


class Dataset(NamedTuple):
    """Labelled images in host memory."""

    images: np.ndarray | StoredImages
    """uint8 [N, H, W, C], C is 1 (grey), 3 (RGB) or 4 (RGB and opacity)."""
    labels: np.ndarray
    """int32 [N], each in 0..len(class_names)-1."""
    class_names: tuple[str, ...]
    about: tuple[str, ...] = ()
    """Lines on what was found and what was made of it."""


def load(source: str, name: str, split: str, data_dir: str, image_size: int, **options: Any) -> Dataset:
    """Loads `split` of the dataset `name` by data/sources/SOURCE.py, with images of `image_size` pixels a side.

    `options` are further fields of a recipe's section, which not every source takes. Raises UsageError for a source,
    name, split or size that does not exist, data that is not there, or an option that the source does not take.
    """
    load_split = module_named(__name__, source, "dataset source").load
    taken = inspect.signature(load_split).parameters
    for option in _OPTIONS:
        usual = recipe.SECTIONS["dataset"][option].before
        if options.get(option, usual) != usual and option not in taken:
            raise UsageError(f"the source {source} gives its images as they are; dataset.{option} can only be {usual}")
    options = {option: value for option, value in options.items() if option in taken}
    dataset = load_split(name, split, data_dir, image_size, **options)
    return dataset._replace(class_names=tuple(map(printable, dataset.class_names)))


def load_section(section: Mapping[str, Any]) -> Dataset:
    """The dataset that a recipe's section `dataset` names. Raises UsageError as `load`."""
    options = {option: section[option] for option in _OPTIONS if option in section}
    options["stored"] = section.get("placement") == "stream"
    keys = ("source", "name", "split", "data_dir", "image_size")
    dataset = load(*(section[key] for key in keys), **options)
    dataset = _of_classes(dataset, section.get("classes", ""))
    return dataset._replace(about=(*_counts(dataset), *dataset.about)) if dataset.about else dataset


def check_count(num_classes: int, where: object) -> None:
    """Raises UsageError, which begins with `where`, for more classes than are allowed."""
    if num_classes > MOST_CLASSES:
        raise UsageError(f"{where}: there may be at most {MOST_CLASSES} classes, given {num_classes}")


def _of_classes(dataset: Dataset, wanted: str) -> Dataset:
    """The images of some classes, "cat,dog", in the dataset's order. Raises UsageError for a class it does not have."""
    if not wanted.strip():
        return dataset
    names = listed(wanted, dataset.class_names)
    for name in names:
        if name not in dataset.class_names:
            raise unknown("class in dataset.classes", name, dataset.class_names)
    kept = [label for label, name in enumerate(dataset.class_names) if name in names]
    rows = np.flatnonzero(np.isin(dataset.labels, kept))
    if not len(rows):
        raise UsageError(f"dataset.classes={wanted}: the split holds no image of them")
    images = dataset.images.taken(rows) if isinstance(dataset.images, StoredImages) else dataset.images[rows]
    labels = np.searchsorted(kept, dataset.labels[rows]).astype(np.int32)
    return dataset._replace(images=images, labels=labels, class_names=tuple(dataset.class_names[i] for i in kept))


def _counts(dataset: Dataset) -> list[str]:
    """Lines on how many images the classes have."""
    counts = np.bincount(dataset.labels, minlength=len(dataset.class_names)).tolist()
    told = [f"{name} {count}" for name, count in zip(dataset.class_names, counts, strict=True)]
    more = f" and {len(told) - _LISTED} more" if len(told) > _LISTED else ""
    if len(told) == 1:
        return [f"found {counts[0]} images without classes"]
    lines = [f"found {len(dataset.labels)} images in {len(told)} classes: {', '.join(told[:_LISTED])}{more}"]
    small = [text for text, count in zip(told, counts, strict=True) if count < _FEW]
    if small:
        more = f" and {len(small) - _LISTED} more" if len(small) > _LISTED else ""
        lines.append(f"small, with fewer than {_FEW} images: {', '.join(small[:_LISTED])}{more}")
    return lines
