"""From encoded bytes to square uint8 arrays: what every source that reads image files shares."""

import collections
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
from absl import logging
from PIL import Image
from tqdm import tqdm

from cgan_jax.data import pictures

_CHUNK = 64
_WORTH_A_THREAD = 16 * 1024
_SECONDS_BETWEEN_LINES = 5.0
Made = TypeVar("Made")


class Form(NamedTuple):
    """What every image becomes: uint8 [size, size, channels]."""

    size: int
    channels: int
    """1 (grey), 3 (RGB) or 4 (RGB and opacity)."""
    fit: str = "crop"
    """What a rectangle becomes a square by: crop, pad or stretch."""
    background: str = "black"
    """What lies behind transparent pixels and around a padded image: black or white."""


def decode(content: bytes, form: Form, upright: bool = True) -> np.ndarray:
    """Decodes one image to `form`. An image that has it already keeps its pixels. Raises pictures.Unreadable."""
    return shaped(pictures.in_mode(pictures.opened(content, upright), form.channels, form.background), form)


def shaped(image: Image.Image, form: Form) -> np.ndarray:
    """The pixels of an image that has the channels of `form`."""
    if image.size != (form.size, form.size):
        image = _FITS[form.fit](image, form)
    return np.asarray(image).reshape(form.size, form.size, form.channels)


def _crop(image: Image.Image, form: Form) -> Image.Image:
    """The largest centred square, resized."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))  # resize(box=...) would look beyond the edge
    return _resized(square, form.size, form.size)


def _pad(image: Image.Image, form: Form) -> Image.Image:
    """The whole image, resized to fit into the square; transparent borders if there is opacity."""
    width, height = (max(1, round(form.size * side / max(image.size))) for side in image.size)
    square = Image.new(image.mode, (form.size, form.size), 0 if form.channels == 4 else form.background)
    square.paste(_resized(image, width, height), ((form.size - width) // 2, (form.size - height) // 2))
    return square


def _stretch(image: Image.Image, form: Form) -> Image.Image:
    return _resized(image, form.size, form.size)


_FITS = {"crop": _crop, "pad": _pad, "stretch": _stretch}


def _resized(image: Image.Image, width: int, height: int) -> Image.Image:
    """The image at that size, antialiased when it shrinks; untouched if it has the size."""
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.BICUBIC)


def in_order(make: Callable[[int], Made], count: int, bytes_per_image: float, what: str) -> Iterator[Made]:
    """make(0), ..., make(count - 1), made ahead by threads. Raises what `make` raises.

    Shows a bar on a terminal, and logs a line every 5 s. Several threads read large images (16 KiB encoded). Decoding
    small ones is mostly Python code, which runs in one thread at a time.
    """
    threads = (os.cpu_count() or 1) if bytes_per_image >= _WORTH_A_THREAD else 1

    def chunk(start: int) -> list[Made]:
        return [make(i) for i in range(start, min(start + _CHUNK, count))]

    told, done = time.monotonic(), 0
    pool, coming = ThreadPoolExecutor(threads), collections.deque()
    bar = tqdm(total=count, desc=what, unit=" images", delay=2, disable=not sys.stderr.isatty(), leave=False)
    starts = iter(range(0, count, _CHUNK))
    try:
        while True:
            # Few chunks wait, because the images may not fit into memory.
            while len(coming) < 2 * threads and (start := next(starts, None)) is not None:
                coming.append(pool.submit(chunk, start))
            if not coming:
                return
            made = coming.popleft().result()
            yield from made
            bar.update(len(made))
            done += len(made)
            if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
                told = time.monotonic()
                logging.info("%s: %d of %d images", what, done, count)
    finally:
        bar.close()
        pool.shutdown(cancel_futures=True)
