"""A list of pictures and their classes: a CSV or TSV file, or JSON lines."""

import collections
import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cgan_jax.data.sources._decoded import Pictures, of_files
from cgan_jax.data.sources.image_folder import UNLABELLED, class_order
from cgan_jax.errors import UsageError
from cgan_jax.files import json_text, storage
from cgan_jax.lookup import unknown
from cgan_jax.names import on_disk, printable

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
_PATHS = ("path", "file", "filename", "file_name", "image", "image_path")
_LABELS = ("label", "class", "class_name", "category")
_NAMED = 5


def find(path: Path, split: str) -> Pictures:
    """The pictures of a list, whose paths begin at the list's folder.

    A row has a path (path, file, filename, ...), its class (label, class, ...) if there are classes and, if it is of
    one split alone, `split`. A CSV without such a header has the path and the class in its first two columns. Raises
    UsageError, with the line, for what is missing.
    """
    rows = [(number, _of_row(row, path, number)) for number, row in _rows(path)]
    splits = sorted({row_split for _, (_, _, row_split) in rows if row_split})
    if split not in splits and (splits or split not in ("train", "all")):
        raise unknown(f"split of {path}", split, splits or ("train", "all"))
    labelled = [number for number, (_, label, _) in rows if label]
    without = [number for number, (_, label, _) in rows if not label]
    if labelled and without:
        raise UsageError(f"{path}: line {without[0]} has no class, and line {labelled[0]} has one")
    class_names = class_order(label for _, (_, label, _) in rows) if labelled else UNLABELLED
    number_of = {name: number for number, name in enumerate(class_names)}
    chosen = [(number, *row[:2]) for number, row in rows if row[2] in ("", split)]
    missing = [(number, file) for number, file, _ in chosen if not file.is_file()]
    if missing:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UsageError(f"{path}: line {missing[0][0]}: no file {printable(str(missing[0][1]))}{more}")
    labels = [number_of[label or UNLABELLED[0]] for _, _, label in chosen]
    return of_files([file for _, file, _ in chosen], labels, class_names, collections.Counter())


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line, row by lower-case names) for each row of a list."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a list in UTF-8 ({storage.reason(error)})") from error
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield number, _json_row(line, path, number)
        return
    # Not splitlines(): a name may hold other signs that break a line, such as U+2028.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    try:
        lines = [(reader.line_num, row) for row in reader if any(row)]
    except csv.Error as error:
        raise UsageError(f"{path}: line {reader.line_num} is no CSV; is a quote open? ({error})") from error
    header = [name.strip().lower() for name in lines[0][1]] if lines else []
    if not set(header) & set(_PATHS):
        header = ["path", "label"]
    else:
        del lines[0]
    for number, row in lines:
        yield number, dict(zip(header, row, strict=False))


def _json_row(line: str, path: Path, number: int) -> Mapping[str, Any]:
    try:
        row = json_text.parsed(line)
    except ValueError as error:
        raise UsageError(f"{path}: line {number} is no JSON ({storage.reason(error)})") from error
    if not isinstance(row, dict):
        raise UsageError(f"{path}: line {number} is no object of a path and a label")
    return {name.lower(): value for name, value in row.items()}


def _of_row(row: Mapping[str, Any], path: Path, number: int) -> tuple[Path, str, str]:
    """(file, class or "", split or "")."""
    file = next((row[name] for name in _PATHS if row.get(name)), None)
    if not isinstance(file, str):
        raise UsageError(f"{path}: line {number} names no file; it has {', '.join(row)}, expected is {_PATHS[0]}")
    label = next((row[name] for name in _LABELS if row.get(name) not in (None, "")), "")
    if not isinstance(label, str | int):
        raise UsageError(f"{path}: line {number}: a class is a name or a whole number, given {label!r}")
    return on_disk(path.parent / file.strip()), printable(str(label).strip()), str(row.get("split") or "").strip()
