"""Archives that others made: none unpacks to far more than its size, as a file that is meant to fill a disk does."""

import gzip
import os
import tarfile
import zipfile
from pathlib import Path
from typing import BinaryIO

from cgan_jax.files import storage

LARGEST_RATIO, ALWAYS_ALLOWED = 100, 1 << 26
"""An archive may unpack to so many times its size, and to 64 MiB in any case. Pictures reach a ratio of 20."""
_CHUNK = 1 << 20


def check(packed: int, unpacked: int) -> None:
    """Raises ValueError if so many bytes may not unpack to so many."""
    if unpacked > max(ALWAYS_ALLOWED, LARGEST_RATIO * packed):
        raise ValueError(
            f"its {packed} bytes unpack to {unpacked}, more than {LARGEST_RATIO} times as many; this is refused"
        )


def check_zip(file: BinaryIO) -> None:
    """Checks the sizes that the directory of a zip states. Raises ValueError. Reading stops at these sizes.

    A file of another kind is left to its reader.
    """
    packed = file.seek(0, os.SEEK_END)
    file.seek(0)
    if zipfile.is_zipfile(file):
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            check(packed, sum(member.file_size for member in archive.infolist()))
    file.seek(0)


def unpack_zip(path: Path, into: Path) -> None:
    """Unpacks a zip. Raises ValueError if it is too large."""
    with storage.opened(path) as file:
        check_zip(file)
        with zipfile.ZipFile(file) as archive:
            archive.extractall(into)


def unpack_tar(path: Path, into: Path) -> None:
    """Unpacks a tar of any compression. Raises ValueError at the first member that makes it too large."""
    packed, unpacked = path.stat().st_size, 0

    def counted(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
        nonlocal unpacked
        unpacked += member.size
        check(packed, unpacked)
        return tarfile.data_filter(member, folder)

    with storage.opened(path) as file, tarfile.open(fileobj=file) as tar:
        tar.extractall(into, filter=counted)


def unpack_gzip(path: Path, into: Path) -> None:
    """Unpacks a gzip to the file `into`. Raises ValueError when it has become too large."""
    packed, unpacked = path.stat().st_size, 0
    with storage.opened(path) as file, gzip.open(file) as content, into.open("wb") as plain:
        while chunk := content.read(_CHUNK):
            unpacked += len(chunk)
            check(packed, unpacked)
            plain.write(chunk)
