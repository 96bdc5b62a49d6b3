"""Labelled images as files: a grid, a NumPy archive or PNGs by class. Only whole files have their final name."""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from cgan_jax.errors import UsageError
from cgan_jax.files import storage
from cgan_jax.sampling import grids

_LONGEST_NAME = 100


def folder_names(class_names: Sequence[str]) -> list[str]:
    """Class names reduced to [A-Za-z0-9_-], because they can come from files of others.

    If two become equal, also on a disk that takes "Cat" for "cat", or one is empty, all begin with their class id.
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
    path: Path,
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    conditional: bool,
    columns: int | None = None,
    scale: int | None = None,
) -> None:
    """One picture, a row per class in the order of `labels`, or more if a class has more images than a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = grids.rows_by_class(images, labels, class_names, conditional, columns)
    grids.save(grids.grid(*rows, scale), path)


def write_npz(path: Path, images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> None:
    """images uint8 [N, H, W, C], labels int32 [N], class_names; readable with `allow_pickle=False`.

    Memory-mapped images are copied a piece at a time.
    """
    storage.make_folder(path.parent)
    with storage.replacing(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, images=images, labels=labels.astype(np.int32), class_names=np.asarray(class_names))


def write_folder(folder: Path, batches: Iterable[np.ndarray], paths: Sequence[Path]) -> None:
    """One PNG per image, under `paths` inside `folder`; a folder that is new appears when it is complete."""
    if folder.exists():
        _write_images(folder, batches, [path.relative_to(folder) for path in paths])
        return
    storage.make_folder(folder.parent)
    # Not .NAME.partial, which may hold the beginning of a synthetic dataset.
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent) as partial:
        whole = Path(partial, folder.name)
        _write_images(whole, batches, [path.relative_to(folder) for path in paths])
        os.replace(whole, folder)


def _write_images(folder: Path, batches: Iterable[np.ndarray], paths: Sequence[Path]) -> None:
    images = (image for batch in batches for image in batch)
    for image, path in zip(images, paths, strict=True):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        grids.save(grids.to_pillow(image), folder / path)
