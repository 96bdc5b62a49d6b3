"""The error of pixels over all pairs, against the pairs written out."""

import itertools

import numpy as np
import pytest

from cgan_jax.errors import UsageError
from cgan_jax.evaluation.metrics import Sample, pixel_mse

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (7, 4, 3, 2), dtype=np.uint8)
REAL = RNG.integers(0, 256, (11, 4, 3, 2), dtype=np.uint8)
LABELS, REAL_LABELS = np.int32([0, 1, 2, 0, 1, 2, 0]), np.int32([2, 1, 0, 2, 1, 0, 0, 0, 0, 1, 2])
NAMES = ("cat", "dog", "ship")


def by_hand(label):
    pairs = itertools.product(IMAGES[label == LABELS], REAL[label == REAL_LABELS])
    return np.mean([np.mean((x / 255 - y / 255) ** 2) for x, y in pairs])


def test_it_is_the_mean_over_all_pairs_of_a_class_and_then_over_classes():
    found = pixel_mse.compute(Sample(LABELS, IMAGES), Sample(REAL_LABELS, REAL), NAMES)
    expected = {f"pixel_mse/{name}": by_hand(label) for label, name in enumerate(NAMES)}
    mean = np.mean(list(expected.values()))
    assert found == pytest.approx({**expected, "pixel_mse": mean, "pixel_accuracy": 1 - mean}, rel=1e-12)


def test_one_class_is_its_own_mean():
    zeros = np.zeros(7, np.int32), np.zeros(11, np.int32)
    found = pixel_mse.compute(Sample(zeros[0], IMAGES), Sample(zeros[1], REAL), ("all",))
    assert found.keys() == {"pixel_mse", "pixel_accuracy"}


def test_black_and_white_are_as_far_apart_as_can_be():
    black, white = np.zeros((300, 8, 8, 1), np.uint8), np.full((200, 8, 8, 1), 255, np.uint8)
    labels = np.zeros(300, np.int32), np.zeros(200, np.int32)
    assert pixel_mse.compute(Sample(labels[0], black), Sample(labels[1], white), ("all",)) == {
        "pixel_mse": 1.0,
        "pixel_accuracy": 0.0,
    }
    assert pixel_mse.compute(Sample(labels[1], white), Sample(labels[1], white), ("all",))["pixel_mse"] == 0.0


def test_a_class_without_images_of_both_kinds_is_left_out():
    found = pixel_mse.compute(
        Sample(LABELS, IMAGES), Sample(REAL_LABELS[REAL_LABELS != 1], REAL[REAL_LABELS != 1]), NAMES
    )
    assert "pixel_mse/dog" not in found
    assert found["pixel_mse"] == pytest.approx((by_hand(0) + by_hand(2)) / 2, rel=1e-12)
    with pytest.raises(UsageError, match="no class has both"):
        pixel_mse.compute(Sample(LABELS % 2, IMAGES), Sample(REAL_LABELS % 1 + 2, REAL), NAMES)


def test_images_of_other_shapes_are_refused():
    with pytest.raises(UsageError, match="differ"):
        pixel_mse.compute(Sample(LABELS, IMAGES), Sample(REAL_LABELS, REAL[..., :1]), NAMES)
