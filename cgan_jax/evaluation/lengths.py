"""Scores of several averages of a run against their half-lives: the work of `cgan evaluate --ema=all`."""

import contextlib
import io
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cgan_jax import averages, models
from cgan_jax.errors import UsageError
from cgan_jax.evaluation import scoring
from cgan_jax.files import storage
from cgan_jax.run import curves
from cgan_jax.run.checkpoint import Checkpoints
from cgan_jax.sampling import reconstruction, trained
from cgan_jax.sampling.request import parse_step

ALL, PICTURE = "all", "averages.png"
_MOST = 4  # scores in the table and the picture
_LEVEL = {"color": "#8a8f98", "linestyle": "--", "linewidth": 1}
_LINES = {"color": "#0072B2", "linewidth": 1, "marker": "o", "markersize": 4}


def score_each(
    place: Path, lengths: str, options: scoring.Options, step: str | None, *drawn: Any
) -> dict[str, scoring.Scored]:
    """What `scoring.score_model` says of each average at one step, by name. Draws the picture into the run's folder.

    `lengths` is "all", what the run keeps, or half-lives such as "1,5,25". `drawn` is what `score_model` takes after
    its `step`. Raises UsageError if the place holds one average alone.
    """
    info = trained.info_at(place)
    there = trained.averages_at(place, info)
    if len(there) == 1:
        raise UsageError(f"--ema={lengths} compares the averages of a run, and {models.shown(place)} holds one alone")
    asked = there if lengths == ALL else [averages.chosen(there, part, or_new=True) for part in lengths.split(",")]
    with contextlib.closing(Checkpoints(place, read_only=True)) as checkpoints:
        at = checkpoints.chosen(parse_step(step))
        for name in set(asked).difference(there):
            reconstruction.planned(checkpoints, info.recipe, at, name)  # what cannot be made is said before all work
    scored: dict[str, scoring.Scored] = {}
    for name in dict.fromkeys(asked):
        scored[name] = scoring.score_model(place, options, step, *drawn, ema=name)
        step = str(scored[name].protocol["step"])  # a run in training may save another meanwhile
    storage.write_whole(place / PICTURE, _picture(scored, f"{models.shown(place)} at step {step}"))
    return scored


def chief(scores: Mapping[str, Any]) -> list[str]:
    """The names of the first scores of all images together."""
    return [name for name in scores if "/" not in name and "_std" not in name][:_MOST]


def table(scored: Mapping[str, scoring.Scored]) -> str:
    """A line for each average, from the shortest, with its chief scores and their deviations over seeds."""
    shown = chief(next(iter(scored.values())).scores)
    rows = [["half-life, kimg", *shown]]
    for name in sorted(scored, key=_length):
        values = [scored[name].scores[score] for score in shown]
        spreads = [f" ± {statistics.stdev(each):.2g}" if len(each) > 1 else "" for each in values]
        numbers = [f"{statistics.fmean(each):.5g}{spread}" for each, spread in zip(values, spreads, strict=True)]
        rows.append([name, *numbers])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _picture(scored: Mapping[str, scoring.Scored], title: str) -> bytes:
    """A panel for each chief score. What has no single half-life above 0 is a level across the panel."""
    from matplotlib.figure import Figure

    shown = chief(next(iter(scored.values())).scores)
    figure = Figure(figsize=(4.2 * len(shown), 3.6), layout="constrained")
    figure.suptitle(curves.literal(title))
    for axes, score in zip(figure.subplots(1, len(shown), squeeze=False).flat, shown, strict=True):
        means = {name: statistics.fmean(one.scores[score]) for name, one in scored.items()}
        points = sorted((_length(name), mean) for name, mean in means.items() if 0 < _length(name) < float("inf"))
        if points:
            axes.plot(*zip(*points, strict=True), label="averages", **_LINES)
            axes.set_xscale("log")
            axes.set_xticks([length for length, _ in points], [f"{length:g}" for length, _ in points])
            axes.minorticks_off()
        for name, mean in means.items():
            if name == averages.LAST:
                axes.axhline(mean, label="weights of the step", **_LEVEL)
            elif _length(name) == float("inf"):
                axes.axhline(mean, label=f"half-life {name}", **{**_LEVEL, "linestyle": ":"})
        axes.set(title=score, xlabel="half-life, kimg")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()


def _length(name: str) -> float:
    """A half-life by its name: 0 for the last weights, and infinity for one that is annealed."""
    if name == averages.LAST:
        return 0.0
    return float("inf") if " to " in name else float(name)
