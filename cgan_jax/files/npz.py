"""NumPy archives that others wrote: all of their arrays, or one error."""

import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cgan_jax.files.storage import reason

# What NumPy and zipfile raise for a file that is no whole archive; RuntimeError for an encrypted one.
_DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    AttributeError,
    TypeError,
    KeyError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def arrays_in(file: Path | BinaryIO) -> dict[str, np.ndarray]:
    """The arrays of a .npz by name; nothing is unpickled.

    Raises FileNotFoundError if there is no file, and ValueError, in one line, if it is no whole archive.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            return dict(archive)
    except FileNotFoundError:
        raise
    except _DAMAGED as error:
        raise ValueError(reason(error)) from error
