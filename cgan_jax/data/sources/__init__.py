"""Where images come from. One file here = one source: `load(name, split, data_dir, image_size) -> Dataset`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cgan_jax.lookup import module_named
from cgan_jax.names import printable


class Dataset(NamedTuple):
    """Labelled images in host memory."""

    images: np.ndarray
    """uint8 [N, H, W, C], C is 1 (grey) or 3 (RGB)."""
    labels: np.ndarray
    """int32 [N], each in 0..len(class_names)-1."""
    class_names: tuple[str, ...]


def load(source: str, name: str, split: str, data_dir: str, image_size: int) -> Dataset:
    """Loads `split` of the dataset `name` by data/sources/SOURCE.py, with images of `image_size` pixels a side.

    Raises UsageError for a source, name, split or size that does not exist, or data that is not there.
    """
    dataset = module_named(__name__, source, "dataset source").load(name, split, data_dir, image_size)
    return dataset._replace(class_names=tuple(map(printable, dataset.class_names)))


def load_section(section: Mapping[str, Any]) -> Dataset:
    """The dataset that a recipe's section `dataset` names. Raises UsageError as `load`."""
    return load(*(section[key] for key in ("source", "name", "split", "data_dir", "image_size")))
