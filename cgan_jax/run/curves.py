"""Curves of a run's scalars as pictures. A thread draws them during training."""

import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from cgan_jax.files.storage import reason, write_whole
from cgan_jax.losses import adversarial, patches, terms
from cgan_jax.names import printable
from cgan_jax.networks.heads import Output

_PANELS = {
    "losses": ("train/d_loss", "train/g_loss"),
    "discriminator accuracy": ("train/d_accuracy_real", "train/d_accuracy_fake"),
}
_UNITS = {"losses": "loss, mean over the interval", "discriminator accuracy": "share of images judged right"}
# Okabe & Ito (2008), "Color Universal Design", without yellow, which is faint on white.
_COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7")
_STROKES = ("-", (0, (4, 1.5)), (0, (1, 1)))


def chance_levels(recipe: Mapping[str, Any]) -> dict[str, float]:
    """{scalar: level} of both losses and accuracies of a discriminator that cannot tell real from generated.

    Then all logits are at its boundary (Goodfellow et al. 2014, theorem 1): 2 ln 2 for the cross-entropies, 2 for the
    hinge loss. Regularizers and other terms are not counted.
    """
    of_discriminator = adversarial.DISCRIMINATOR | patches.DISCRIMINATOR
    updates = [
        terms.from_recipe({name: entry for name, entry in listed.items() if name in table}, table)
        for table, listed in [
            *((of_discriminator, listed) for listed in recipe["loss"]["d_updates"].values()),
            (adversarial.GENERATOR, recipe["loss"]["g_terms"]),
        ]
    ]
    *of_d, of_g = updates
    boundary = terms.boundary_of(term for listed in of_d for term in listed) or 0.0
    logits = np.full(1, boundary, np.float32)
    output = Output(logits, {"patches": logits[:, None]})
    passed = terms.Pass({}, {"real": output, "fake": output}, None, None, (), None, np.int32(0))

    def loss(listed: Sequence[terms.Weighted]) -> float:
        # A term of every k-th step is logged by its mean over steps, and is k times as large at this one.
        return sum(weight * float(term.value(passed)[0][0]) / term.period for _, weight, term in listed)

    return {
        "train/d_loss": sum(map(loss, of_d)),
        "train/g_loss": loss(of_g),
        "train/d_accuracy_real": 0.5,
        "train/d_accuracy_fake": 0.5,
    }


def literal(name: str) -> str:
    r"""A name as matplotlib draws it letter by letter: a text between two signs $ would be a formula, or an error."""
    return printable(name).replace("$", r"\$")


def save_curves(
    history: Sequence[Mapping[str, float]], path: Path, name: str = "", levels: Mapping[str, float] | None = None
) -> None:
    """Writes `png_of` the lines of metrics.jsonl."""
    write_whole(path, png_of(history, name, levels))


def png_of(history: Sequence[Mapping[str, float]], name: str = "", levels: Mapping[str, float] | None = None) -> bytes:
    """A picture of both losses and the discriminator's accuracies over kimg, from the lines of metrics.jsonl.

    `name` is the run's. `levels` are those of `chance_levels`, drawn as dashed lines.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(literal(name))
    for axes, (title, scalars) in zip(figure.subplots(1, len(_PANELS)), _PANELS.items(), strict=True):
        found: dict[float, list[str]] = {}
        for scalar in scalars:
            points = [(line["kimg"], line[scalar]) for line in history if scalar in line]
            label = scalar.removeprefix("train/")
            marker = "o" if len(points) == 1 else ""
            axes.plot(*zip(*points, strict=True) if points else ((), ()), label=label, linewidth=1, marker=marker)
            if points and scalar in (levels or {}):
                found.setdefault(levels[scalar], []).append(label)
        for stroke, (level, labels) in zip(_STROKES[1:], found.items(), strict=False):
            label = f"{' and '.join(labels)} of a D that cannot tell: {level:.3g}"
            axes.axhline(level, label=label, color="#8a8f98", linestyle=stroke, linewidth=1)
        axes.set(title=title, xlabel="kimg (thousand real images shown)", ylabel=_UNITS[title])
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
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
                label=f"{number + 1}  {literal(list(runs)[number])}",
            )
        axes.set_title(literal(scalar.partition("/")[2]), fontsize=10)
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
        except Exception as error:  # matplotlib does not list what it raises, and no picture is worth a run of days
            self._say(f"warning: a picture could not be written: {reason(error)}")
