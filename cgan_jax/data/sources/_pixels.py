"""From encoded bytes to square uint8 arrays: what every source that reads image files shares."""

import os
import struct
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import numpy as np
from absl import logging
from PIL import Image, ImageOps

UNDECODABLE = (OSError, EOFError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError)
"""What Pillow raises for bytes that are not a whole image (SyntaxError is its word for a broken PNG chunk)."""

_CHUNK = 64
_WORTH_A_THREAD = 16 * 1024
_SECONDS_BETWEEN_LINES = 5.0


def decode(file: BinaryIO | str | os.PathLike, size: int, channels: int, upright: bool = False) -> np.ndarray:
    """Decodes one image, cut and resized to uint8 [size, size, channels]; channels is 1 (grey) or 3 (RGB).

    Transparency is composited on black, 16-bit grey keeps its upper 8 bits, and `upright` turns the image as its EXIF
    tag says. Raises one of UNDECODABLE if the bytes are not a whole image.
    """
    with Image.open(file) as image:
        if upright:
            image = ImageOps.exif_transpose(image)
        pixels = np.asarray(_square(_opaque(image, "L" if channels == 1 else "RGB"), size))
    return pixels.reshape(size, size, channels)


def fill(images: np.ndarray, decode_at: Callable[[int], np.ndarray], bytes_per_image: float) -> None:
    """Sets images[i] = decode_at(i) for every i; logs a line every 5 s.

    Several threads decode large images (16 KiB encoded). Decoding small ones is mostly Python code, which runs in one
    thread at a time. Raises what `decode_at` raises, for the smallest such i.
    """
    threads = (os.cpu_count() or 1) if bytes_per_image >= _WORTH_A_THREAD else 1

    def fill_chunk(start: int) -> int:
        end = min(start + _CHUNK, len(images))
        for i in range(start, end):
            images[i] = decode_at(i)
        return end

    told = time.monotonic()
    pool = ThreadPoolExecutor(threads)
    try:
        for end in pool.map(fill_chunk, range(0, len(images), _CHUNK)):
            if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
                told = time.monotonic()
                logging.info("decoded %d of %d images", end, len(images))
    finally:
        pool.shutdown(cancel_futures=True)


def _opaque(image: Image.Image, mode: str) -> Image.Image:
    """The image in `mode`, "L" or "RGB", with nothing transparent."""
    if image.mode.startswith("I"):  # Pillow's own conversion from 16 bits clips at 255
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image if image.mode == mode else image.convert(mode)


def _square(image: Image.Image, size: int) -> Image.Image:
    """The largest centred square, resized to `size` pixels a side; the pixels are untouched if it is that size."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    if image.size != (side, side):
        image = image.crop((left, top, left + side, top + side))  # resize(box=...) would look beyond the edge
    if side != size:
        image = image.resize((size, size), Image.Resampling.BICUBIC)  # antialiased when it shrinks
    return image
