"""Pictures in a ZIP: with labels in dataset.json, as StyleGAN's tools write it, or in class folders."""

import collections
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from cgan_jax.data import pictures
from cgan_jax.data.sources._decoded import Pictures, digest
from cgan_jax.data.sources.image_folder import SPLITS, UNLABELLED, class_order
from cgan_jax.errors import UsageError
from cgan_jax.files import json_text, storage, unpacking
from cgan_jax.lookup import unknown
from cgan_jax.names import printable

LABELS = "dataset.json"
_LARGEST = 2**30
"""Bytes that an entry may unpack to."""
# RuntimeError is zipfile's word for an encrypted entry, NotImplementedError for an unknown compression.
_DAMAGED = (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)


def find(path: Path, split: str) -> Pictures:
    """The pictures of a ZIP, in the order of their names. Raises UsageError if it is not whole."""
    try:
        with storage.opened(path) as file:
            unpacking.check_zip(file)
        archive = zipfile.ZipFile(path)
        entries = {entry.filename: entry for entry in archive.infolist() if not entry.is_dir()}
        if LABELS in entries and entries[LABELS].file_size > _LARGEST:
            raise OSError(f"{LABELS} unpacks to more than 1 GiB")
        labels = _labels(archive.read(LABELS)) if LABELS in entries else None
    except _DAMAGED as error:
        raise UsageError(f"{path}: not a whole ZIP ({storage.reason(error)})") from error
    skipped, names = collections.Counter(), []
    for name in sorted(entries):
        if any(map(pictures.is_hidden, PurePosixPath(name).parts)) or name == LABELS:
            continue
        if pictures.is_named_as_picture(name):
            names.append(name)
        else:
            skipped[PurePosixPath(name).suffix.lower() or name] += 1
    if labels is None:
        names, labels = _by_folder(path, names, split, skipped)
    elif split not in ("train", "all"):
        raise unknown(f"split of {path}", split, ("train", "all"))
    without = [name for name in names if labels and name not in labels]
    if without:
        raise UsageError(f"{path}: {LABELS} has no label for {printable(without[0])}")
    class_names = class_order(labels[name] for name in names) if labels else UNLABELLED
    number_of = {name: number for number, name in enumerate(class_names)}

    def read(i: int) -> bytes:
        if entries[names[i]].file_size > _LARGEST:
            raise OSError("it unpacks to more than 1 GiB")
        try:
            return archive.read(names[i])
        except _DAMAGED as error:
            raise OSError(storage.reason(error)) from error

    stat = path.stat()
    return Pictures(
        [f"{path}: {printable(name)}" for name in names],
        [number_of[labels[name]] if labels else 0 for name in names],
        class_names,
        read,
        [entries[name].file_size for name in names],
        digest(path.absolute(), stat.st_size, stat.st_mtime_ns, *names),
        skipped,
    )


def _labels(content: bytes) -> dict[str, str]:
    """{name: class} of a dataset.json: {"labels": [["00000/img00000000.png", 6], ...]}; none for null."""
    listed = json_text.parsed(content.decode())
    listed = listed.get("labels") if isinstance(listed, dict) else listed
    try:
        labels = {name: label for name, label in listed or ()}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{LABELS} holds no pairs of a name and a label") from error
    if not all(isinstance(label, str | int) for label in labels.values()):
        raise ValueError(f"{LABELS}: a label must be a whole number or a name")
    return {name: printable(str(label)) for name, label in labels.items()}


def _by_folder(
    path: Path, names: list[str], split: str, skipped: collections.Counter[str]
) -> tuple[list[str], dict[str, str]]:
    """The pictures of a split and their classes by the folders that they lie in; no classes if there are none.

    Counts in `skipped` those that lie beside the folders.
    """
    parts = {name: PurePosixPath(name).parts for name in names}
    while names and len({of_one[0] for of_one in parts.values()}) == 1 and all(len(p) > 2 for p in parts.values()):
        parts = {name: of_one[1:] for name, of_one in parts.items()}  # a folder around all
    tops = {of_one[0] for of_one in parts.values() if len(of_one) > 1}
    if tops and all(top.lower() in SPLITS for top in tops):
        if split not in tops:
            raise unknown(f"split of {path}", split, sorted(tops))
        parts = {name: of_one[1:] for name, of_one in parts.items() if of_one[0] == split}
    elif split not in ("train", "all"):
        raise unknown(f"split of {path}", split, ("train", "all"))
    inside = {name: printable(of_one[0]) for name, of_one in parts.items() if len(of_one) > 1}
    if inside and len(inside) < len(parts):
        skipped["beside the class folders"] += len(parts) - len(inside)
    return (list(inside), inside) if inside else (list(parts), {})
