"""Pictures in Parquet files, in the columns that Hugging Face's datasets have: image {bytes, path} and label."""

import bisect
import collections
import functools
import itertools
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from cgan_jax.data.sources._decoded import Pictures, digest
from cgan_jax.data.sources.image_folder import SPLITS, UNLABELLED, class_order
from cgan_jax.errors import UsageError
from cgan_jax.files import json_text
from cgan_jax.files.storage import reason
from cgan_jax.lookup import unknown
from cgan_jax.names import printable

_IMAGES = ("image", "img")
_LABELS = ("label", "labels", "fine_label", "class")
_GROUPS_IN_MEMORY = 4


def of_split(folder: Path, found: Sequence[Path], split: str) -> Sequence[Path]:
    """Those of a folder's files that are of a split, such as train-00000-of-00002.parquet; all if there are no splits.

    Raises UsageError for a split that is not there.
    """
    split_of = {path: re.split(r"[-_.]", path.name)[0].lower() for path in found}
    splits = sorted({name for name in split_of.values() if name in SPLITS})
    if not splits and split in ("train", "all"):
        return found
    if split not in splits:
        raise unknown(f"split of {folder}", split, splits or ("train", "all"))
    return [path for path in found if split_of[path] == split]


def find(paths: Sequence[Path]) -> Pictures:
    """The pictures of Parquet files, in their order. Raises UsageError for files of other columns."""
    files = [_opened(path) for path in paths]
    columns = {file: _column(path, file, _IMAGES) for path, file in zip(paths, files, strict=True)}
    label = next((name for name in _LABELS if name in files[0].schema_arrow.names), None)
    groups = [(file, group) for file in files for group in range(file.num_row_groups)]
    lengths = [file.metadata.row_group(group).num_rows for file, group in groups]
    starts = [0, *itertools.accumulate(lengths)]

    lock = threading.Lock()  # a reader is for one thread at a time

    @functools.lru_cache(_GROUPS_IN_MEMORY)
    def contents(place: int) -> list[Any]:
        file, group = groups[place]
        return file.read_row_group(group, columns=[columns[file]]).column(columns[file]).to_pylist()

    def read(i: int) -> bytes:
        place = bisect.bisect(starts, i) - 1
        try:
            with lock:
                held = contents(place)[i - starts[place]]
        except (pyarrow.ArrowException, OSError) as error:
            raise OSError(reason(error)) from error
        content = held.get("bytes") if isinstance(held, dict) else held
        if not isinstance(content, bytes):
            raise OSError("its bytes are not in the file")
        return content

    count = starts[-1]
    labels, class_names = [0] * count, UNLABELLED
    if label is not None:
        labels, class_names = _labels(paths, files, label)
    stats = [path.stat() for path in paths]
    stamp = digest(*(f"{path.absolute()} {s.st_size} {s.st_mtime_ns}" for path, s in zip(paths, stats, strict=True)))
    names = [f"{printable(str(path))} row {i}" for path, file in zip(paths, files, strict=True) for i in _rows(file)]
    size = sum(s.st_size for s in stats) // max(1, count)
    return Pictures(names, labels, class_names, read, [size] * count, stamp, collections.Counter())


def _rows(file: pyarrow.parquet.ParquetFile) -> range:
    return range(file.metadata.num_rows)


def _opened(path: Path) -> pyarrow.parquet.ParquetFile:
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise UsageError(f"{path}: not a whole Parquet file ({reason(error)})") from error


def _column(path: Path, file: pyarrow.parquet.ParquetFile, names: Sequence[str]) -> str:
    for name in names:
        if name in file.schema_arrow.names:
            return name
    held = ", ".join(map(printable, file.schema_arrow.names))
    raise UsageError(f"{path} has no column of images ({' or '.join(names)}); it has {held}")


def _labels(
    paths: Sequence[Path], files: Sequence[pyarrow.parquet.ParquetFile], column: str
) -> tuple[list[int], tuple[str, ...]]:
    """The label of each row and the class names: those that the file names, else the labels themselves."""
    held = []
    for path, file in zip(paths, files, strict=True):
        try:
            held += file.read(columns=[column]).column(column).to_pylist()
        except (pyarrow.ArrowException, OSError, KeyError) as error:
            raise UsageError(f"{path}: cannot read its column {column} ({reason(error)})") from error
    odd = next((value for value in held if not isinstance(value, str | int)), "")
    if odd != "":
        raise UsageError(f"{paths[0]}: a {column} is a name or a whole number, given {odd!r}")
    names = _named(files[0], column)
    if names and all(isinstance(value, int) and 0 <= value < len(names) for value in held):
        return held, names
    texts = [printable(str(value)) for value in held]
    order = class_order(texts)
    place = {name: label for label, name in enumerate(order)}
    return [place[text] for text in texts], order


def _named(file: pyarrow.parquet.ParquetFile, column: str) -> tuple[str, ...]:
    """The class names that Hugging Face's description of the columns gives, or none."""
    try:
        described = json_text.parsed((file.schema_arrow.metadata or {})[b"huggingface"])
        return tuple(map(str, described["info"]["features"][column]["names"]))
    except (KeyError, TypeError, ValueError):
        return ()
