"""Decoded images in a file of the cache folder, read by their rows: for later starts, and for sets beyond memory.

The file is an ArrayRecord with one image a record, uncompressed. Grain reads it too.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cgan_jax.errors import UsageError
from cgan_jax.files.storage import reason

_AT_ONCE = 4096
"""Images whose records are in memory beside the array that they go to."""
_ABANDONED = 3600.0
"""Seconds without a write after which a partial file belongs to no process, of this machine or of another one."""


class StoredImages:
    """Images uint8 [N, H, W, C] in a file. Indexed by rows as an array is; an index reads them."""

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, path: Path, image_shape: tuple[int, int, int], rows: np.ndarray, reader: Any):
        self._path, self._image_shape, self._rows, self._reader = path, image_shape, rows, reader

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self._rows), *self._image_shape)

    def __len__(self) -> int:
        return len(self._rows)

    def taken(self, rows: np.ndarray) -> "StoredImages":
        """These rows alone, not yet read."""
        return StoredImages(self._path, self._image_shape, self._rows[rows], self._reader)

    def __getitem__(self, index: Any) -> np.ndarray:
        """The images at an index of rows: an integer, a slice, or an array of integers or truth values."""
        rows = self._rows[index]
        wanted, places = np.unique(rows, return_inverse=True)
        images = np.empty((len(wanted), *self._image_shape), np.uint8)
        for start in range(0, len(wanted), _AT_ONCE):
            try:
                records = self._reader.read(wanted[start : start + _AT_ONCE].tolist())
            except RuntimeError as error:
                raise UsageError(f"{self._path}: damaged, delete it ({reason(error)})") from error
            for i, record in enumerate(records, start):
                images[i] = np.frombuffer(record, np.uint8).reshape(self._image_shape)
        is_in_order = len(wanted) == rows.size and np.all(places.ravel() == np.arange(rows.size))
        images = images if is_in_order else images[places.ravel()]
        return images.reshape(*rows.shape, *self._image_shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)


def opened(path: Path, shape: tuple[int, int, int, int]) -> StoredImages | None:
    """The images of a file; None if there is no whole file of that many images."""
    from array_record.python.array_record_module import ArrayRecordReader  # has no build for some systems

    if not path.is_file():
        return None
    try:
        reader = ArrayRecordReader(str(path), options="readahead_buffer_size:0", file_reader_buffer_size=32768)
        if reader.num_records() != shape[0] or len(reader.read([0])[0]) != np.prod(shape[1:]):
            return None
    except RuntimeError:  # no ArrayRecord
        return None
    return StoredImages(path, shape[1:], np.arange(shape[0]), reader)


def _discard_partials(folder: Path) -> None:
    """Deletes the files of processes that were killed while they wrote. One that writes does so every few seconds."""
    for partial in folder.glob(".*.partial"):
        with contextlib.suppress(OSError):  # another process has deleted it
            if time.time() - partial.stat().st_mtime > _ABANDONED:
                partial.unlink()


@contextlib.contextmanager
def storing(path: Path) -> Iterator[Callable[[np.ndarray], None]]:
    """Yields what adds an image to the file, which has its name when it is whole. Raises OSError."""
    from array_record.python.array_record_module import ArrayRecordWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    _discard_partials(path.parent)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    writer = None
    try:
        writer = ArrayRecordWriter(str(partial), "group_size:1,uncompressed")
        yield lambda image: writer.write(image.tobytes())
        writer.close()
        os.replace(partial, path)
    except RuntimeError as error:  # what ArrayRecord raises for a full disk
        raise OSError(f"{path} cannot be written: {reason(error)}") from error
    finally:
        if writer is not None and writer.is_open():
            writer.close()
        partial.unlink(missing_ok=True)
