"""Drawing images for the metrics that a recipe names, and a run that logs what they say."""

import json

import numpy as np
import pytest

from cgan_jax import datasets, evaluation, workdir
from cgan_jax.errors import UsageError
from cgan_jax.train import train_and_evaluate

DATASET = datasets.Dataset(
    np.random.default_rng(0).integers(0, 256, (9, 2, 2, 1), dtype=np.uint8), np.int32([0, 1, 2] * 3), ("a", "b", "c")
)


class Recorded:
    """A metric that keeps what it was given."""

    def compute(self, *given):
        self.given = given
        return {"answer": 42.0}


def sampler(variables, seed, labels, indices):
    """An image of the numbers that it hangs on."""
    values = variables + 100 * seed + 10 * labels + indices
    return np.broadcast_to(values.astype(np.uint8)[:, None, None, None], (len(labels), 2, 2, 1))


@pytest.mark.parametrize("conditional", [True, False])
def test_images_are_spread_evenly_over_the_classes_and_compared_with_all_real_ones(recipe, conditional):
    recipe["dataset"]["conditional"] = conditional
    recipe["evaluate"]["num_images"] = 7
    recipe["seed"] = 1
    metric = Recorded()
    assert evaluation.evaluate({"m": metric}, recipe, DATASET, sampler, 5) == {"answer": 42.0}
    fake, real, names = metric.given
    images, labels, real_labels = fake.images, fake.labels, real.labels
    assert np.array_equal(real.images, DATASET.images)
    if conditional:
        assert names == DATASET.class_names and np.array_equal(real_labels, DATASET.labels)
        assert labels.tolist() == [0, 0, 0, 1, 1, 2, 2]
        assert images[:, 0, 0, 0].tolist() == [105, 106, 107, 115, 116, 125, 126]
    else:
        assert names == ("all",) and not np.any(real_labels) and not np.any(labels)
        assert images[:, 0, 0, 0].tolist() == list(range(105, 112))


@pytest.mark.parametrize(
    ("text", "names"), [("", []), (" ", []), ("pixel_mse", ["pixel_mse"]), (" pixel_mse ,", ["pixel_mse"])]
)
def test_metrics_are_named_as_their_files(recipe, text, names):
    recipe["evaluate"]["metrics"] = text
    assert list(evaluation.metrics_of(recipe, DATASET)) == names


def test_a_metric_that_does_not_exist_is_one_line(recipe):
    recipe["evaluate"]["metrics"] = "pixel_mse,fidd"
    with pytest.raises(UsageError, match=r"^unknown metric 'fidd'; there are: .*pixel_mse"):
        evaluation.metrics_of(recipe, DATASET)


def test_fewer_images_than_classes_are_one_line(recipe):
    recipe["evaluate"].update(metrics="pixel_mse", num_images=2)
    with pytest.raises(UsageError, match=r"^evaluate\.num_images=2 is fewer than the 3 classes$"):
        evaluation.metrics_of(recipe, DATASET)
    recipe["dataset"]["conditional"] = False
    recipe["evaluate"]["num_images"] = 1
    assert list(evaluation.metrics_of(recipe, DATASET)) == ["pixel_mse"]


def test_a_run_logs_its_evaluations_and_writes_them_once_however_often_it_is_resumed(recipe, tmp_path):
    recipe["evaluate"].update(metrics="pixel_mse", every_kimg=0.064, num_images=20)
    recipe["checkpoint"]["every_kimg"] = 0.128
    run = tmp_path / "run"
    train_and_evaluate(recipe, run)
    lines = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert [(line["step"], line["kimg"]) for line in lines] == [(4, 0.064), (8, 0.128)]
    for line in lines:
        assert {"eval/pixel_mse", "eval/pixel_accuracy", "eval/pixel_mse/3"} <= line.keys()
        assert line["eval/pixel_accuracy"] == pytest.approx(1 - line["eval/pixel_mse"])
        assert 0 < line["eval/pixel_mse"] < 1 and line["seconds"] >= 0
    # What was logged after the checkpoint that a run goes on from is forgotten, as in metrics.jsonl.
    workdir.append_metrics(run, {"step": 9, "kimg": 0.144}, workdir.EVALUATIONS)
    recipe["train"]["total_kimg"] = 0.16
    train_and_evaluate(recipe, run)
    assert [line["step"] for line in workdir.read_metrics(run, workdir.EVALUATIONS)] == [4, 8, 10]


def test_a_run_without_metrics_evaluates_nothing(recipe, tmp_path):
    recipe["train"]["total_kimg"] = 0.016
    train_and_evaluate(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "evaluations.jsonl").exists()
