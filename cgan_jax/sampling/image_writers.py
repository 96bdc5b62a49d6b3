"""Labelled images as files: a grid, a NumPy archive or PNGs by class. Nothing unfinished bears its final name."""

import io
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from cgan_jax import pictures
from cgan_jax.errors import UsageError

_COLUMNS, _UNCONDITIONAL_COLUMNS, _BESIDE_COLUMNS = 50, 8, 24
_LONGEST_NAME = 100


def folder_names(class_names: Sequence[str]) -> list[str]:
    """Class names reduced to [A-Za-z0-9_-], since they can come from foreign files.

    Where two of them would meet, also on a disk that takes "Cat" for "cat", or one is empty, all begin with their class
    id.
    """
    reduced = [re.sub(r"[^A-Za-z0-9_-]", "_", name)[:_LONGEST_NAME] for name in class_names]
    if all(reduced) and len({name.lower() for name in reduced}) == len(reduced):
        return reduced
    return [f"{label}_{name}" for label, name in enumerate(reduced)]


def image_paths(folder: Path, labels: np.ndarray, indices: np.ndarray, class_names: Sequence[str]) -> Iterator[Path]:
    """FOLDER/CLASS/000017.png for image 17 of a class."""
    names = folder_names(class_names)
    for label, index in zip(labels, indices, strict=True):
        yield folder / names[label] / f"{index:06d}.png"


def png(image: np.ndarray) -> bytes:
    """uint8 [H, W, 1 or 3] as a PNG, always the same bytes for the same pixels."""
    file = io.BytesIO()
    pictures.to_pillow(image).save(file, format="PNG")
    return file.getvalue()


def check_free(paths: Iterable[Path], force: bool) -> None:
    """Raises UsageError for the first path that exists already, unless `force`, or that cannot be written."""
    for path in paths:
        if path.is_dir():
            raise UsageError(f"{path} is a folder, not a file that could be replaced")
        if path.exists() and not force:
            raise UsageError(f"{path} exists already; --force replaces it")
        above = path.parent
        while not above.exists():
            above = above.parent
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise UsageError(f"{path} cannot be written: {above} is not a folder that may be written to")


def write_grid(
    path: Path, images: np.ndarray, labels: np.ndarray, class_names: Sequence[str], conditional: bool
) -> None:
    """One picture, a row per class in the order of `labels`, or several where a class does not fit into one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures.save(pictures.grid(*rows_by_class(images, labels, class_names, conditional)), path)


def rows_by_class(
    images: np.ndarray, labels: np.ndarray, class_names: Sequence[str], conditional: bool
) -> tuple[list[np.ndarray], Sequence[str]]:
    """The rows of a grid and their names; an unconditional grid has rows of eight without names."""
    columns = _COLUMNS if conditional else _UNCONDITIONAL_COLUMNS
    rows, names = [], []
    for label in dict.fromkeys(labels.tolist()):
        of_class = images[labels == label]
        for start in range(0, len(of_class), columns):
            rows.append(of_class[start : start + columns])
            names.append(class_names[label] if start == 0 else "")
    return rows, names if conditional else ()


def rows_of_ways(frames: np.ndarray, names: Sequence[str]) -> tuple[list[np.ndarray], Sequence[str]]:
    """Frames uint8 [F, N, H, W, C] as the rows of a grid, a row for each of the N ways; alike names stand once."""
    return list(frames.swapaxes(0, 1)), [name if name not in names[:row] else "" for row, name in enumerate(names)]


def rows_beside(
    images: np.ndarray, others: np.ndarray, names: Sequence[str]
) -> tuple[list[list[np.ndarray]], Sequence[str]]:
    """Images uint8 [N, H, W, C], each with its own others [N, K, H, W, C] behind it, as the rows of a grid.

    Several to a row where they are few, with a white cell between them; images of one name begin a new row.
    """
    per_row = max(1, _BESIDE_COLUMNS // (others.shape[1] + 2))
    white, rows, row_names = np.full(images.shape[1:], 255, np.uint8), [], []
    for name in dict.fromkeys(names):
        of_name = [place for place, given in enumerate(names) if given == name]
        for start in range(0, len(of_name), per_row):
            cells = [[images[place], *others[place], white] for place in of_name[start : start + per_row]]
            rows.append([cell for group in cells for cell in group][:-1])
            row_names.append(name if start == 0 else "")
    return rows, row_names


def write_npz(path: Path, images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> None:
    """images uint8 [N, H, W, C], labels int32 [N], class_names; readable with `allow_pickle=False`.

    Images that are mapped into memory are copied a piece at a time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "wb") as file:
        np.savez_compressed(file, images=images, labels=labels.astype(np.int32), class_names=np.asarray(class_names))
    os.replace(partial, path)


def write_folder(folder: Path, batches: Iterable[np.ndarray], paths: Sequence[Path]) -> None:
    """One PNG per image, under `paths` inside `folder`; a folder that is new appears when it is complete."""
    target = folder if folder.exists() else folder.with_name(f".{folder.name}.partial")
    if target != folder:
        shutil.rmtree(target, ignore_errors=True)  # what a killed command left
    images = (image for batch in batches for image in batch)
    try:
        for image, path in zip(images, paths, strict=True):
            place = target / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            pictures.save(pictures.to_pillow(image), place)
        if target != folder:
            os.replace(target, folder)
    finally:
        if target != folder:
            shutil.rmtree(target, ignore_errors=True)
