"""Runs side by side: a table of their last numbers, and their curves."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cgan_jax.files.storage import write_whole
from cgan_jax.run import curves
from cgan_jax.run import workdir as workdirs


def write(folder: Path, fields: Mapping[str, Mapping[str, Any]], endings: Mapping[str, str]) -> str:
    """Writes summary.csv, summary.md and curves.png of the runs in sub-folders of `folder`; returns the table.

    `fields` has the values of each run, by its name, that differ between the runs; `endings` how each run ended.
    """
    metrics = {name: workdirs.read_metrics(folder / name) for name in fields}
    evaluations = {name: workdirs.read_metrics(folder / name, workdirs.EVALUATIONS) for name in fields}
    measured = list(dict.fromkeys(name for lines in evaluations.values() for line in lines for name in line))
    # eval/pixel_mse is a number of the run, eval/pixel_mse/cat a part of it, spread/pixel_mse its deviation over seeds.
    measured = [name for name in measured if name.startswith("eval/") and name.count("/") == 1]
    rows, full = [], []
    for name, values in fields.items():
        numbers = {**_numbers(metrics[name], evaluations[name], measured), "ending": endings[name]}
        rows.append({"run": name, **numbers})
        full.append({"run": name, **values, **numbers})
    write_whole(folder / "summary.csv", _csv(full))
    table = _table(rows)
    write_whole(folder / "summary.md", table)
    both = {name: [*metrics[name], *evaluations[name]] for name in fields}
    curves.save_overlaid_curves(both, ["train/d_loss", "train/g_loss", *measured], folder / "curves.png")
    return table


def _numbers(
    metrics: Sequence[Mapping[str, float]], evaluations: Sequence[Mapping[str, float]], measured: Sequence[str]
) -> dict[str, float | None]:
    """A run's last numbers, None for what it did not measure; the losses are means over the last log interval."""
    last = metrics[-1] if metrics else {}
    evaluated = evaluations[-1] if evaluations else {}
    speeds = [line["time/images_per_sec"] for line in metrics if "time/images_per_sec" in line]
    scalars = ("train/d_loss", "train/g_loss", "train/d_accuracy_real", "train/d_accuracy_fake")
    return {
        "kimg": last.get("kimg"),
        **{name.partition("/")[2]: last.get(name) for name in scalars},
        **{name.partition("/")[2]: evaluated.get(name) for name in measured},
        "images/s": float(np.median(speeds)) if speeds else None,
        "seconds": last.get("seconds"),
    }


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown that reads well on a terminal too."""

    def shown(value: Any) -> str:
        return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

    cells = [list(rows[0]), *([shown(value) for value in row.values()] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines) + "\n"
