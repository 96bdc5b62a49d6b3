"""Encoded pictures with their classes, decoded to a Dataset, and what is said of them before training."""

import collections
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cgan_jax.data import pictures
from cgan_jax.data.sources import Dataset, _pixels
from cgan_jax.errors import UsageError
from cgan_jax.files.storage import reason
from cgan_jax.names import printable

_NAMED = 5
_FEW = 100
"""Images below which a class is small."""


class Pictures(NamedTuple):
    """N encoded pictures."""

    names: Sequence[str]
    """For messages."""
    labels: Sequence[int]
    class_names: tuple[str, ...]
    read: Callable[[int], bytes]
    """The content of a picture. It may raise OSError."""
    sizes: Sequence[int]
    """In bytes."""
    skipped: collections.Counter[str]
    """How many files were passed over, by reason."""


def of_files(
    paths: Sequence[Path], labels: Sequence[int], class_names: tuple[str, ...], skipped: collections.Counter
) -> Pictures:
    """Pictures that are files."""
    sizes = [path.stat().st_size for path in paths]
    names = [printable(str(path)) for path in paths]
    return Pictures(names, labels, class_names, lambda i: paths[i].read_bytes(), sizes, skipped)


def decoded(found: Pictures, image_size: int, channels: int, fit: str, background: str, stored: bool) -> Dataset:
    """The pictures in one form; with 0 channels grey if all are grey, else RGB.

    Raises UsageError, which names the first ones, if pictures cannot be read.
    """
    if image_size < 1:
        raise UsageError(f"image_size {image_size} is not a size: it must be at least 1")
    if not found.names:
        raise UsageError("there are no pictures")
    form = _pixels.Form(image_size, channels, fit, background)
    images = np.empty((len(found.names), image_size, image_size, form.channels), np.uint8)
    broken = {}
    made = _in_order(found, functools.partial(_pixels.decode, form=form), broken, "decoded")
    for i, image in enumerate(made):
        if image is not None:
            images[i] = image
    _refuse(broken, found)
    return Dataset(images, np.array(found.labels, np.int32), found.class_names)


def _in_order(found: Pictures, make: Callable, broken: dict[int, str], what: str) -> Iterator:
    """make(content) of each picture; None for those that cannot be read, with the reason in `broken`."""

    def made(i: int):
        try:
            return make(found.read(i))
        except (pictures.Unreadable, OSError) as error:
            broken[i] = reason(error)

    return _pixels.in_order(made, len(found.names), sum(found.sizes) / len(found.names), what)


def _refuse(broken: dict[int, str], found: Pictures) -> None:
    if broken:
        first, *others = sorted(broken)
        more = f"; nor can {len(others)} more: {', '.join(found.names[i] for i in others[:_NAMED])}" if others else ""
        raise UsageError(f"{found.names[first]}: not a picture that can be read ({broken[first]}){more}")
