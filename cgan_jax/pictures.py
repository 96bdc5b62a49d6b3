"""Grids of images and curves of scalars, as PNG files."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

_GAP = 2
_INK = (60, 60, 60)
_PAPER = (255, 255, 255)


def grid(rows: Sequence[Sequence[np.ndarray]], names: Sequence[str] = ()) -> Image.Image:
    """Rows of images uint8 [H, W, C], each beside its name, as one picture; small images are enlarged."""
    height, width, _ = rows[0][0].shape
    zoom = max(1, 64 // height)
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
            picture.paste(
                to_pillow(image).resize((width, height), Image.Resampling.NEAREST),
                (margin + _GAP + x * (width + _GAP), top),
            )
    return picture


def to_pillow(image: np.ndarray) -> Image.Image:
    """uint8 [H, W, 1] or [H, W, 3] -> a grey or an RGB picture."""
    return Image.fromarray(image[:, :, 0] if image.shape[-1] == 1 else image)


def save(picture: Image.Image, path: Path) -> None:
    """Writes a PNG under a temporary name and renames it, so that nobody reads half a file."""
    partial = path.with_name(f".{path.name}.partial")
    picture.save(partial, format="PNG")
    os.replace(partial, path)


_PANELS = {
    "losses": ("train/d_loss", "train/g_loss"),
    "discriminator accuracy": ("train/d_accuracy_real", "train/d_accuracy_fake"),
}


def save_curves(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Losses of both networks and the discriminator's accuracies over kimg, from the lines of metrics.jsonl."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(1, len(_PANELS)), _PANELS.items(), strict=True):
        for name in names:
            points = [(line["kimg"], line[name]) for line in history if name in line]
            axes.plot(
                *zip(*points, strict=True) if points else ((), ()), label=name.removeprefix("train/"), linewidth=1
            )
        axes.set(title=title, xlabel="kimg (thousand real images shown)")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.axes[1].set_ylim(0, 1)
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, format="png", dpi=110)
    os.replace(partial, path)
