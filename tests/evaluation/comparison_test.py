"""Runs side by side: what of their logs becomes a column."""

import csv

from cgan_jax.evaluation import comparison
from cgan_jax.run import workdir


def test_a_column_is_a_score_and_not_its_deviation_or_a_part_of_it(tmp_path):
    scores = {"eval/pixel_mse": 0.5, "spread/pixel_mse": 0.1, "eval/pixel_mse/cat": 0.7}
    (tmp_path / "a").mkdir()
    workdir.append_metrics(tmp_path / "a", {"step": 1, "kimg": 0.1, "train/d_loss": 1.0, "train/g_loss": 2.0})
    workdir.append_metrics(tmp_path / "a", {"step": 1, "kimg": 0.1, **scores}, workdir.EVALUATIONS)
    comparison.write(tmp_path, {"a": {"seed": 0}}, {"a": "finished"})
    [row] = csv.DictReader((tmp_path / "summary.csv").open())
    assert row["pixel_mse"] == "0.5"
    assert not [name for name in row if "cat" in name or "spread" in name]
