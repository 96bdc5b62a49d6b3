"""Grids of images, still or moving, as picture files, and the rows that they consist of."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from cgan_jax.files.png import png, to_pillow
from cgan_jax.files.storage import write_whole

_GAP = 2
_COLUMNS, _BESIDE_COLUMNS = 10, 24
_MANY, _COLUMNS_OF_MANY = 500, 50  # so that a picture of thousands is not a ribbon
_INK = (60, 60, 60)
_PAPER = (255, 255, 255)


def grid(
    rows: Sequence[Sequence[np.ndarray] | np.ndarray], names: Sequence[str] = (), scale: int | None = None
) -> Image.Image:
    """One picture of rows of images uint8 [H, W, C], each row beside its name.

    A pixel becomes `scale` x `scale` pixels; without it images are enlarged to about 64 pixels.
    """
    height, width, _ = rows[0][0].shape
    zoom = scale or max(1, 64 // height)
    height, width = height * zoom, width * zoom
    margin = max((int(ImageDraw.Draw(Image.new("RGB", (1, 1))).textlength(name)) for name in names), default=-8) + 8
    columns = max(len(row) for row in rows)
    picture = Image.new("RGB", (margin + columns * (width + _GAP) + _GAP, len(rows) * (height + _GAP) + _GAP), _PAPER)
    draw = ImageDraw.Draw(picture)
    for y, row in enumerate(rows):
        top = _GAP + y * (height + _GAP)
        if names:
            draw.text((4, top + height // 2), names[y], fill=_INK, anchor="lm")
        for x, image in enumerate(row):
            cell = to_pillow(image).resize((width, height), Image.Resampling.NEAREST)
            picture.paste(cell, (margin + _GAP + x * (width + _GAP), top), cell if cell.mode == "RGBA" else None)
    return picture


def save(picture: Image.Image, path: Path) -> None:
    """Writes a PNG; a reader never finds half a file."""
    write_whole(path, png(picture))


def save_animation(frames: Sequence[Image.Image], path: Path, seconds: float) -> None:
    """Writes a GIF or a WebP, by the suffix of `path`, which loops through the frames and back in `seconds`."""
    there_and_back = [*frames, *frames[-2:0:-1]]
    first, *others = there_and_back
    content = io.BytesIO()
    milliseconds = max(20, round(1000 * seconds / len(there_and_back)))
    options = {"lossless": True} if path.suffix.lower() == ".webp" else {}
    kind = path.suffix[1:].upper()
    first.save(content, kind, save_all=True, append_images=others, duration=milliseconds, loop=0, **options)
    write_whole(path, content.getvalue())


def rows_by_class(
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    conditional: bool,
    columns: int | None = None,
) -> tuple[list[np.ndarray], Sequence[str]]:
    """The rows of a grid and their names: one row or more per class, in the order of `labels`.

    A row has `columns` images; without it 10, or 50 if there are more than 500 images. An unconditional grid has no
    names.
    """
    columns = columns or (_COLUMNS if len(images) <= _MANY else _COLUMNS_OF_MANY)
    rows, names = [], []
    for label in dict.fromkeys(labels.tolist()):
        of_class = images[labels == label]
        for start in range(0, len(of_class), columns):
            rows.append(of_class[start : start + columns])
            names.append(class_names[label] if start == 0 else "")
    return rows, names if conditional else ()


def rows_of_ways(frames: np.ndarray, names: Sequence[str]) -> tuple[list[np.ndarray], Sequence[str]]:
    """Frames uint8 [F, N, H, W, C] as the N rows of a grid; a name stands beside its first row."""
    return list(frames.swapaxes(0, 1)), [name if name not in names[:row] else "" for row, name in enumerate(names)]


def rows_beside(
    images: np.ndarray, others: np.ndarray, names: Sequence[str]
) -> tuple[list[list[np.ndarray]], Sequence[str]]:
    """Images uint8 [N, H, W, C], each followed by its K of others [N, K, H, W, C], as the rows of a grid.

    If K is small, a row holds several groups with a white cell between them. Each name begins a new row.
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
