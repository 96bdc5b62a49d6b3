"""The Inception Score against torch-fidelity, and where it is known."""

import numpy as np
import pytest

from cgan_jax.evaluation.metrics import Sample, inception_score

RNG = np.random.default_rng(0)
LOGITS = {
    "random": np.float32(3 * RNG.standard_normal((237, 12))),
    "one class": np.float32(np.eye(12)[np.zeros(40, int)] * 5),
    "constant": np.zeros((30, 4), np.float32),
    "certain": np.float32(80 * np.eye(7)[RNG.integers(0, 7, 100)]),
    "fewer images than classes": np.float32(RNG.standard_normal((11, 1008))),
}


def sample(logits):
    return Sample(np.zeros(len(logits), np.int32), logits=logits)


@pytest.mark.parametrize("name", LOGITS)
def test_it_agrees_with_torch_fidelity(name):
    pytest.importorskip("torch_fidelity", reason="the extra [reference] and torch-fidelity are there to compare with")
    import torch
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    expected = isc_features_to_metric(torch.from_numpy(LOGITS[name]), splits=10, shuffle=False)
    found = inception_score.scores(LOGITS[name], 10)
    assert np.mean(found) == pytest.approx(expected[KEY_METRIC_ISC_MEAN], rel=1e-10)
    assert np.std(found) == pytest.approx(expected[KEY_METRIC_ISC_STD], rel=1e-7, abs=1e-12)


def test_it_is_torch_fidelitys_default():
    pytest.importorskip("torch_fidelity", reason="the extra [reference] and torch-fidelity are there to compare with")
    import torch
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    found = inception_score.compute(sample(LOGITS["random"]), None, ("all",))
    expected = isc_features_to_metric(torch.from_numpy(LOGITS["random"]))
    assert found["inception_score"] == pytest.approx(expected[KEY_METRIC_ISC_MEAN], rel=1e-10)
    assert found["inception_score_std"] == pytest.approx(expected[KEY_METRIC_ISC_STD], rel=1e-10)


def test_a_perfect_generator_scores_the_number_of_classes_and_a_collapsed_one_1():
    certain = np.float32(60 * np.eye(5)[np.arange(50) % 5])
    np.testing.assert_allclose(inception_score.scores(certain, 10), 5, rtol=1e-12)
    np.testing.assert_allclose(inception_score.scores(certain[:1].repeat(50, axis=0), 10), 1, rtol=1e-12)


def test_classes_that_no_image_can_be_are_no_nan():
    """Their probability is 0 in float64, and their logarithm is not."""
    logits = np.float32([[0, -2000], [0, -2000]])
    assert inception_score.scores(logits, 1) == pytest.approx(1, rel=1e-12)


def test_images_that_come_sorted_by_class_are_shuffled_first():
    certain = np.float32(60 * np.eye(5)[np.repeat(np.arange(5), 200)])
    found = inception_score.compute(sample(certain), None, ("all",))
    assert found["inception_score"] > 4.8 and 0 < found["inception_score_std"] < 0.1
    assert found == inception_score.compute(sample(certain), None, ("all",))
    assert inception_score.scores(certain, 10) == pytest.approx(1), "each split alone is one class"
