"""Where the files of a run lie: in a folder, or under a prefix of a bucket (`gs://BUCKET/FOLDER`).

A file of a folder can be renamed into place and appended to. An object of a bucket can only be put, whole, which is
atomic by itself; so a log is there a series of numbered parts, and a folder is moved object by object. Local paths are
`pathlib.Path`, those of buckets `etils.epath.Path`, which have the same methods; only this file, locks.py, the writer
of event files and what refuses buckets ask which of the two a path is.
"""

import contextlib
import errno
import importlib.util
import logging
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from cgan_jax.errors import UsageError

_PART = re.compile(r"(\d{6,})-\w+(\.anew)?\.jsonl")
_ANEW = ".anew"
_DISCARDED = ".discarded"
_LAST_PARTS: dict[Path, int] = {}
"""The numbers of the last parts that this process has written, by log."""
_ATTEMPTS = 5
_COMMITTED = "commit_success.txt"
"""The object by which orbax knows a whole checkpoint in a bucket."""


def place(text: str, flag: str = "--workdir") -> Path:
    """The folder, or the prefix of a bucket, that a flag names.

    Raises UsageError for what is neither, and where what reaches buckets is not installed.
    """
    scheme, is_remote_one, rest = text.partition("://")
    if not is_remote_one:
        return Path(text)
    bucket, _, folder = rest.partition("/")
    if scheme != "gs" or not bucket or not folder.strip("/"):
        raise UsageError(f"{flag}={text} must be a folder, or gs://BUCKET/FOLDER")
    if importlib.util.find_spec("gcsfs") is None:
        raise UsageError(f"{flag}={text} needs the package gcsfs, which the extra [tpu] brings: pip install gcsfs")
    return _in_bucket(text)


def _in_bucket(text: str) -> Path:
    # epath would reach buckets by TensorFlow where that happens to be installed: other errors, and 1.4 GB.
    os.environ.setdefault("EPATH_USE_TF", "false")
    import fsspec
    from etils import epath

    # Checkpoints are written by tensorstore, past what gcsfs remembers of a listing.
    fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it tells, with a traceback, of errors that it raises
    return epath.Path(text)


def is_remote(path: Path) -> bool:
    """Whether a path is one of a bucket."""
    return not isinstance(path, Path)


def resolved(path: Path) -> Path:
    """The path from the root, wherever this process stands; one of a bucket is that already."""
    return path if is_remote(path) else path.resolve()


def make_folder(path: Path) -> None:
    """Makes a folder, and those above it, where there is none; a bucket needs none."""
    if not is_remote(path):
        path.mkdir(parents=True, exist_ok=True)


def read_text(path: Path) -> str:
    """The text of a file. Raises OSError."""
    with _reaching(path):
        return path.read_text()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file, to read its bytes. Raises OSError."""
    with _reaching(path), path.open("rb") as file:
        yield file


def write_whole(path: Path, content: str | bytes) -> None:
    """A reader finds what was there before, or all of `content`: a file is written under a temporary name and renamed.

    Raises OSError.
    """
    content = content.encode() if isinstance(content, str) else content
    with _reaching(path):
        if is_remote(path):
            path.write_bytes(content)
            return
        partial = path.with_name(f".{path.name}.partial")
        partial.write_bytes(content)
        os.replace(partial, path)


def append_line(path: Path, line: str) -> None:
    """Adds a line to the log `NAME.jsonl`; in a bucket as a part of its own, `NAME/000017-3fa9.jsonl`.

    The letters keep two processes from writing one part. Raises OSError.
    """
    with _reaching(path):
        if is_remote(path):
            _put_part(path, f"{line}\n")
            return
        with open(path, "a") as file:
            file.write(f"{line}\n")


def read_log(path: Path) -> str:
    """All lines of a log, "" where there is none. Raises OSError."""
    with _reaching(path):
        if is_remote(path):
            return _read_parts(path)
        with contextlib.suppress(FileNotFoundError):
            return path.read_text()
    return ""


def rewrite_log(path: Path, text: str) -> None:
    """Makes `text` all that a log holds, where there is one. Raises OSError.

    In a bucket it becomes a part that says that the log begins anew with it, so that a kill at any moment leaves the
    old lines or the new; the parts before it go after.
    """
    with _reaching(path):
        if not is_remote(path):
            if path.exists():
                write_whole(path, text)
        elif older := _parts(path):
            _LAST_PARTS[path] = _number(older[-1])
            _put_part(path, text, _ANEW)
            for part in older:
                part.unlink(missing_ok=True)


def _parts(path: Path) -> list[Path]:
    """The parts of a log, in order."""
    with contextlib.suppress(FileNotFoundError):
        return sorted((part for part in path.with_suffix("").iterdir() if _PART.fullmatch(part.name)), key=_number)
    return []


def _number(part: Path) -> int:
    return int(_PART.fullmatch(part.name)[1])


def _put_part(path: Path, text: str, kind: str = "") -> None:
    # Listed once: a long log would take longer to list than to add to.
    last = _LAST_PARTS.get(path) or max(map(_number, _parts(path)), default=0)
    write_whole(path.with_suffix("") / f"{last + 1:06d}-{secrets.token_hex(2)}{kind}.jsonl", text)
    _LAST_PARTS[path] = last + 1


def _joined(parts: list[Path]) -> str:
    """The text of the parts from where the log last began anew."""
    begins = max((i for i, part in enumerate(parts) if _PART.fullmatch(part.name)[2]), default=0)
    with ThreadPoolExecutor(16) as pool:
        return "".join(pool.map(read_text, parts[begins:]))


def _read_parts(path: Path) -> str:
    """The text of a log in a bucket."""
    for _ in range(_ATTEMPTS):
        # All processes of a run that is resumed read it, while the first begins it anew and deletes the older parts.
        with contextlib.suppress(FileNotFoundError):
            return _joined(_parts(path))
    return _joined(_parts(path))


def files_below(folder: Path) -> list[str]:
    """The files below a folder, by their paths within it, in order."""
    # The glob of a bucket knows no "**", and its walk forgets the bucket.
    found = _objects_below(folder) if is_remote(folder) else (path for path in folder.rglob("*") if path.is_file())
    with _reaching(folder):
        return [path.relative_to(folder).as_posix() for path in sorted(found)]


def _objects_below(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):  # which nothing below is
        for path in folder.iterdir():
            if path.is_dir():
                yield from _objects_below(path)
            else:
                yield path


def move(source: Path, target: Path) -> None:
    """Gives a file or a folder another name, in a bucket by copying it. Raises OSError."""
    with _reaching(source):
        if not is_remote(source):
            source.rename(target)
        elif source.is_dir():
            for name in files_below(source):
                (source / name).copy(target / name)
            discard(source)
        else:
            source.copy(target)
            source.unlink()


def discard(folder: Path) -> None:
    """Deletes a checkpoint so that a kill in between leaves no part that looks like a damaged one. Raises OSError."""
    with _reaching(folder):
        if is_remote(folder):
            (folder / _COMMITTED).unlink(missing_ok=True)  # without it orbax clears the rest away
            folder.rmtree(missing_ok=True)
            return
        renamed = folder.with_name(f"{folder.name}{_DISCARDED}")
        folder.rename(renamed)
        # A reader may hold its files open, on a network drive: what is left goes at the next start.
        shutil.rmtree(renamed, ignore_errors=True)


def finish_discarding(folder: Path) -> None:
    """Deletes what a kill left of checkpoints in `folder` that were being discarded."""
    with _reaching(folder):
        if not is_remote(folder):
            for path in folder.glob(f"*{_DISCARDED}"):
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def as_file(path: Path) -> Iterator[Path]:
    """A file of this machine with the content of `path`, for what cannot read buckets. Raises OSError."""
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        copy = Path(folder, path.name)
        with _reaching(path):
            copy.write_bytes(path.read_bytes())
        yield copy


@contextlib.contextmanager
def _reaching(path: Path) -> Iterator[None]:
    """What goes wrong on the way to a bucket becomes an OSError that names the path, as for a folder."""
    try:
        yield
    except Exception as error:
        # gcsfs, aiohttp and google-auth have no list of what they raise.
        if not is_remote(path) or (isinstance(error, OSError) and error.strerror):
            raise
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(errno.ENOENT, "no such bucket or object", str(path)) from error
        told = " ".join(str(error).split())[:200] or type(error).__name__
        raise OSError(errno.EIO, told, str(path)) from error
