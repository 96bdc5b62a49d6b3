"""Shows the evaluations that runs made during training, as a table and as curves.

    python -m benchmarks.learning runs/digits runs/digits_sngan --out=docs/learning.png

Reads each run's evaluations.jsonl, which a recipe with `evaluate.metrics` writes. Runs whose names differ only after
the last "-" are seeds of one recipe: they share a colour, and the table gives their mean.
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np

from benchmarks.metrics import COLOURS, SHOWN
from cgan_jax.run import workdir

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Curves = dict[str, list[float]]


def curves(run: Path) -> Curves:
    """The evaluations of a run by name: "kimg", "seconds", and the metrics without count and split."""
    lines = workdir.read_metrics(run, workdir.EVALUATIONS)
    found: Curves = {"kimg": [line["kimg"] for line in lines], "seconds": [line["seconds"] for line in lines]}
    for name in lines[0]:
        metric = next((shown for shown in SHOWN if _bare(name, shown)), None)
        if metric:
            found[metric] = [line[name] for line in lines]
    return found


def _bare(name: str, metric: str) -> bool:
    """Whether a scalar such as "eval/cfd2k_train" is a metric such as "cfd". A count of images may follow the name."""
    rest = name.removeprefix(f"eval/{metric}")
    return rest != name and (not rest or rest[0].isdigit()) and "/" not in rest


def recipe_of(run: Path) -> str:
    return run.name.rpartition("-")[0] or run.name


def table(runs: dict[Path, Curves]) -> str:
    """A Markdown table: a row per recipe and kimg, with the mean over the seeds."""
    metrics = [name for name in SHOWN if all(name in found for found in runs.values())]
    rows = [f"| recipe | kimg | {' | '.join(metrics)} |", f"|---|---|{'---|' * len(metrics)}"]
    for recipe in dict.fromkeys(map(recipe_of, runs)):
        seeds = [found for run, found in runs.items() if recipe_of(run) == recipe]
        for i, kimg in enumerate(seeds[0]["kimg"]):
            numbers = [np.mean([found[name][i] for found in seeds]) for name in metrics]
            rows.append(f"| {recipe} | {kimg:g} | {' | '.join(f'{number:.3g}' for number in numbers)} |")
    return "\n".join(rows)


def draw(runs: dict[Path, Curves], path: Path) -> None:
    """Draws a panel per metric and a line per run."""
    metrics = [name for name in SHOWN if all(name in found for found in runs.values())]
    colours = dict(zip(dict.fromkeys(map(recipe_of, runs)), COLOURS, strict=False))
    columns = min(3, len(metrics))
    rows = -(-len(metrics) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.7 * columns, 2.7 * rows), layout="constrained", squeeze=False)
    for axis, name in zip(axes.flat, metrics, strict=False):
        for run, found in runs.items():
            axis.plot(found["kimg"], found[name], "o-", color=colours[recipe_of(run)], markersize=3, linewidth=1.2)
        axis.set_title(f"{name} ({SHOWN[name]})", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.flat[len(metrics) - columns : len(metrics)]:
        axis.set_xlabel("thousands of real images shown", fontsize=8)
    for axis in axes.flat[len(metrics) :]:
        axis.set_axis_off()
    lines = [plt.Line2D([], [], color=colour, marker="o", markersize=3) for colour in colours.values()]
    figure.legend(lines, list(colours), loc="outside lower center", ncols=len(colours), frameon=False)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--out", type=Path, required=True, help="the picture")
    given = parser.parse_args()
    runs = {run: curves(run) for run in given.runs}
    draw(runs, given.out)
    print(table(runs))


if __name__ == "__main__":
    main()
