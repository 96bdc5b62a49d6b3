"""NumPy archives that others wrote: all of their arrays, or one error."""

import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cgan_jax.files import storage, unpacking

# What NumPy and zipfile raise for a file that is no whole archive; RuntimeError for an encrypted one, MemoryError for a
# header that asks for more than there is.
_DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    AttributeError,
    TypeError,
    KeyError,
    RuntimeError,
    MemoryError,
    OverflowError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def arrays_in(file: Path | BinaryIO) -> dict[str, np.ndarray]:
    """The arrays of a .npz by name; nothing is unpickled.

    Raises FileNotFoundError if there is no file, and ValueError, in one line, if it is no whole archive or unpacks to
    far more than its size.
    """
    if isinstance(file, str | Path):
        with storage.opened(Path(file)) as opened:
            return arrays_in(opened)
    try:
        unpacking.check_zip(file)
        with np.load(file, allow_pickle=False) as archive:
            return dict(archive)
    except _DAMAGED as error:
        raise ValueError(storage.reason(error)) from error
