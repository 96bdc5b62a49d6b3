"""Curves of a run's scalars as pictures. A thread draws them during training."""

import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from cgan_jax.files.storage import write_whole

_PANELS = {
    "losses": ("train/d_loss", "train/g_loss"),
    "discriminator accuracy": ("train/d_accuracy_real", "train/d_accuracy_fake"),
}
# Okabe & Ito (2008), "Color Universal Design", without yellow, which is faint on white.
_COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7")
_STROKES = ("-", (0, (4, 1.5)), (0, (1, 1)))


def save_curves(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Writes `png_of` the lines of metrics.jsonl."""
    write_whole(path, png_of(history))


def png_of(history: Sequence[Mapping[str, float]]) -> bytes:
    """A picture of both losses and the discriminator's accuracies over kimg, from the lines of metrics.jsonl."""
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
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()


def save_overlaid_curves(runs: Mapping[str, Sequence[Mapping[str, float]]], scalars: Sequence[str], path: Path) -> None:
    """Draws a panel per scalar with a curve per run over kimg. A number at its end links each curve to the legend.

    `runs` holds the lines of metrics.jsonl, of evaluations.jsonl, or both, by the name of the run. A line without the
    scalar adds no point.
    """
    from matplotlib.figure import Figure

    columns = min(2, len(scalars))
    rows = -(-len(scalars) // columns)
    figure = Figure(figsize=(5 * columns + 3.5, max(2.6 * rows, 0.25 * len(runs))), layout="constrained")
    for axes, scalar in zip(figure.subplots(rows, columns, squeeze=False).flat, scalars, strict=False):
        curves = [[(line["kimg"], line[scalar]) for line in lines if scalar in line] for lines in runs.values()]
        for number, curve in enumerate(curves):
            axes.plot(
                *(zip(*curve, strict=True) if curve else ((), ())),
                color=_COLOURS[number % len(_COLOURS)],
                linestyle=_STROKES[number // len(_COLOURS) % len(_STROKES)],
                linewidth=1.3,
                marker="o" if len(curve) == 1 else "",
                markersize=3,
                label=f"{number + 1}  {list(runs)[number]}",
            )
        axes.set_title(scalar.partition("/")[2], fontsize=10)
        axes.set_xlabel("kimg", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        _limit(axes, curves)
        _number_ends(axes, curves)
    for axes in figure.axes[len(scalars) :]:
        axes.remove()
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8, frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=90)
    write_whole(path, content.getvalue())


def _limit(axes, curves: Sequence[Sequence[tuple[float, float]]]) -> None:
    """Cuts a diverging curve off at the top, so that the other curves stay readable."""
    values = [value for curve in curves for _, value in curve]
    top = 2 * float(np.median([max(value for _, value in curve) for curve in curves if curve] or [0.0]))
    if values and max(values) > 2 * top > 0:
        bottom = min(values)
        axes.set_ylim(bottom - 0.05 * (top - bottom), top)


def _number_ends(axes, curves: Sequence[Sequence[tuple[float, float]]]) -> None:
    """Writes the number of each curve at the right edge, as near to the curve's end as the other numbers allow."""
    low, high = axes.get_ylim()
    ends = {i: np.clip((curve[-1][1] - low) / (high - low), 0, 1) for i, curve in enumerate(curves) if curve}
    order = sorted(ends, key=ends.get)
    gap = min(0.065, 1 / max(1, len(order) - 1))
    heights = np.array([ends[i] for i in order])
    steps = gap * np.arange(len(order))
    # Push the numbers up until none overlap, then down those that left the panel.
    heights = np.maximum.accumulate(heights - steps) + steps
    heights = np.minimum(heights, 1 - steps[::-1])
    for i, height in zip(order, heights, strict=True):
        colour = _COLOURS[i % len(_COLOURS)]
        axes.text(1.06, height, i + 1, transform=axes.transAxes, color=colour, fontsize=8, va="center", weight="bold")
        axes.annotate(
            "",
            (1.05, height),
            (curves[i][-1][0], float(np.clip(curves[i][-1][1], low, high))),
            xycoords="axes fraction",
            textcoords="data",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.6},
            annotation_clip=False,
        )


class Painter:
    """Saves pictures in a thread, one after the other. It skips a picture that comes while it is busy.

    If a picture cannot be written, `say` prints a warning and training goes on.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._pool = say, ThreadPoolExecutor(1, thread_name_prefix="painter")
        self._last: Future | None = None

    def paint(self, draw: Callable[..., None], *arguments: Any, wait: bool = False) -> None:
        """Starts `draw(*arguments)` in the thread. A busy painter skips it, or with `wait` first ends its picture."""
        if wait or self._last is None or self._last.done():
            self._settle()
            self._last = self._pool.submit(draw, *arguments)

    def close(self) -> None:
        """Waits for the picture that is being drawn."""
        self._settle()
        self._pool.shutdown()

    def _settle(self) -> None:
        """Waits for the last picture, and warns if it could not be written."""
        last, self._last = self._last, None
        try:
            if last is not None:
                last.result()
        except OSError as error:
            self._say(f"warning: a picture could not be written: {error}")
