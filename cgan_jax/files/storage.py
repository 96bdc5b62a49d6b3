"""Where the files of a run lie: in a folder, or under a prefix of a bucket (`gs://BUCKET/FOLDER`).

A file of a folder can be renamed into place and appended to. An object of a bucket can only be put, whole, which is
atomic; so a log is put again with every line, and a folder is moved object by object. Local paths are `pathlib.Path`,
those of buckets `etils.epath.Path`, which have the same methods. Only this file, locks.py, the writer of event files
and what refuses buckets ask which of the two a path is.
"""

import contextlib
import errno
import importlib.util
import logging
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from cgan_jax.errors import UsageError

_PART = re.compile(r"(\d{6,})-\w+(\.anew)?\.jsonl")
_DISCARDED = ".discarded"
_COMMITTED = "commit_success.txt"
"""The object by which orbax knows a whole checkpoint in a bucket."""


def place(text: str, flag: str = "--workdir") -> Path:
    """The folder, or the prefix of a bucket, that a flag names.

    Raises UsageError if it is neither, or if the package that reaches buckets is not installed.
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
    # epath would use TensorFlow if that is installed: other errors, and 1.4 GB.
    os.environ.setdefault("EPATH_USE_TF", "false")
    import fsspec
    from etils import epath

    # tensorstore writes checkpoints, so a listing that gcsfs has cached is out of date.
    fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it logs each error that it raises, with a traceback
    return epath.Path(text)


def is_remote(path: Path) -> bool:
    """Whether a path lies in a bucket."""
    return not isinstance(path, Path)


def resolved(path: Path) -> Path:
    """The absolute path; a path in a bucket is absolute already."""
    return path if is_remote(path) else path.resolve()


def make_folder(path: Path) -> None:
    """Makes a folder and its parents if they do not exist; a bucket has no folders."""
    if not is_remote(path):
        path.mkdir(parents=True, exist_ok=True)


def regular(path: str | os.PathLike, flags: int) -> int:
    """Opens a regular file: an `opener` for `open`. Raises OSError for anything else; a named pipe would wait."""
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def check_regular_below(folder: Path) -> None:
    """Raises OSError for a pipe, a device or the like below a folder, for readers that would wait for it."""
    for above, _, names in [] if is_remote(folder) else os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # a link to nothing, or deleted meanwhile
                if not stat.S_ISREG(os.stat(path := os.path.join(above, name)).st_mode):
                    raise OSError(errno.EINVAL, "not a regular file", path)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file, to read its bytes. Raises OSError, also if a folder, a pipe or a device has its name."""
    with _reaching(path), path.open("rb") if is_remote(path) else open(path, "rb", opener=regular) as file:
        yield file


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises OSError."""
    with opened(path) as file:
        return file.read()


def read_text(path: Path) -> str:
    """The text of a file. Raises OSError, and ValueError if it is not UTF-8."""
    return read_bytes(path).decode()


def read_damaged_text(path: Path) -> str:
    """The text of a file, in which a replacement character stands for bytes that are not UTF-8. Raises OSError."""
    return read_bytes(path).decode(errors="replace")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which replaces `path` at the end. An exception leaves `path` as it was."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file of which a reader finds the old content or all of the new. Raises OSError."""
    # Names of files and folders may hold lone surrogates, which UTF-8 cannot write.
    content = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    with _reaching(path):
        if is_remote(path):
            path.write_bytes(content)
            return
        with replacing(path) as partial:
            partial.write_bytes(content)


def append_line(path: Path, line: str) -> None:
    """Adds a line to the log `NAME.jsonl`, after a line break if a kill has torn the last line. Raises OSError.

    In a bucket this reads the log and puts it again, 0.1 to 0.3 s. A line is lost if another process does so at the
    same moment.
    """
    if is_remote(path):
        write_whole(path, f"{read_log(path)}{line}\n")
        return
    with open(path, "ab+", opener=regular) as file:
        is_torn = False
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            is_torn = file.read(1) != b"\n"
        file.write(b"\n" * is_torn + line.encode() + b"\n")


def read_log(path: Path) -> str:
    """All lines of a log, "" if there is none. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        return read_damaged_text(path)
    return _read_parts(path.with_suffix("")) if is_remote(path) else ""


def rewrite_log(path: Path, text: str) -> None:
    """Replaces all lines of a log, if there is one. Raises OSError."""
    if read_log(path):
        write_whole(path, text)


def _read_parts(folder: Path) -> str:
    """The log of a bucket as version 0.1 wrote it: a part per line, `NAME/000017-3fa9.jsonl`.

    A part `NAME/000018-3fa9.anew.jsonl` holds all lines up to it.
    """
    with _reaching(folder), contextlib.suppress(FileNotFoundError):
        parts = [(int(match[1]), match[2], path) for path in folder.iterdir() if (match := _PART.fullmatch(path.name))]
        parts.sort(key=lambda part: part[0])
        begins = max((i for i, (_, anew, _) in enumerate(parts) if anew), default=0)
        with ThreadPoolExecutor(16) as pool:
            return "".join(pool.map(read_damaged_text, [path for _, _, path in parts[begins:]]))
    return ""


def files_below(folder: Path) -> list[str]:
    """The files below a folder, as sorted paths relative to it."""
    # The glob of a bucket knows no "**", and its walk forgets the bucket.
    found = _objects_below(folder) if is_remote(folder) else (path for path in folder.rglob("*") if path.is_file())
    with _reaching(folder):
        return [path.relative_to(folder).as_posix() for path in sorted(found)]


def _objects_below(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):  # a prefix without objects
        for path in folder.iterdir():
            if path.is_dir():
                yield from _objects_below(path)
            else:
                yield path


def move(source: Path, target: Path) -> None:
    """Renames a file or a folder; in a bucket copies it and deletes the source. Raises OSError."""
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
    """Deletes a checkpoint. What a kill leaves does not look like a damaged checkpoint. Raises OSError."""
    with _reaching(folder):
        if is_remote(folder):
            (folder / _COMMITTED).unlink(missing_ok=True)  # without it orbax clears the rest away
            folder.rmtree(missing_ok=True)
            return
        renamed = folder.with_name(f"{folder.name}{_DISCARDED}")
        folder.rename(renamed)
        # A network drive keeps files that a reader has open; the next start deletes them.
        shutil.rmtree(renamed, ignore_errors=True)


def finish_discarding(folder: Path) -> None:
    """Deletes the rest of checkpoints in `folder` whose deletion was interrupted."""
    with _reaching(folder):
        if not is_remote(folder):
            for path in folder.glob(f"*{_DISCARDED}"):
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def as_file(path: Path) -> Iterator[Path]:
    """A local file with the content of `path`, for readers that know no buckets. Raises OSError."""
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        copy = Path(folder, path.name)
        with _reaching(path):
            copy.write_bytes(path.read_bytes())
        yield copy


def reason(error: Exception) -> str:
    """An error's message on one line of at most 200 characters; its type if it has no message."""
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextlib.contextmanager
def _reaching(path: Path) -> Iterator[None]:
    """Turns any error about a bucket into an OSError that names the path, as for a folder."""
    try:
        yield
    except Exception as error:
        # gcsfs, aiohttp and google-auth do not list what they raise.
        if not is_remote(path) or (isinstance(error, OSError) and error.strerror):
            raise
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(errno.ENOENT, "no such bucket or object", str(path)) from error
        raise OSError(errno.EIO, reason(error), str(path)) from error
