"""Accuracy of the asked class, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from cgan_jax.errors import UsageError
from cgan_jax.evaluation.metrics import Sample, class_accuracy

RNG = np.random.default_rng(0)
NAMES = tuple("abcdefgh")


def test_it_is_scikit_learns():
    labels = np.int32(np.arange(200) % 8)
    logits = np.float32(RNG.standard_normal((200, 8)) + 2 * np.eye(8)[labels])
    found = class_accuracy.compute(Sample(labels, logits=logits), None, NAMES)
    assert found["class_accuracy"] == pytest.approx(top_k_accuracy_score(labels, logits, k=1), rel=1e-12)
    assert found["top5_class_accuracy"] == pytest.approx(top_k_accuracy_score(labels, logits, k=5), rel=1e-12)
    for label, name in enumerate(NAMES):
        expected = np.mean(np.argmax(logits[labels == label], axis=1) == label)
        assert found[f"class_accuracy/{name}"] == pytest.approx(expected, rel=1e-12)


def test_three_images_by_hand():
    logits = np.float32([[3, 2, 1], [3, 2, 1], [0, 1, 2]])
    found = class_accuracy.compute(Sample(np.int32([0, 1, 2]), logits=logits), None, ("cat", "dog", "ship"))
    by_class = {"class_accuracy/cat": 1.0, "class_accuracy/dog": 0.0, "class_accuracy/ship": 1.0}
    assert found == pytest.approx({"class_accuracy": 2 / 3, **by_class})
    assert class_accuracy.ranks_of_asked(logits, np.int32([1, 2, 0])).tolist() == [1, 2, 2]


def test_logits_that_say_nothing_are_at_chance():
    labels = np.int32(np.arange(80) % 8)
    found = class_accuracy.compute(Sample(labels, logits=np.zeros((80, 8), np.float32)), None, NAMES)
    assert found["class_accuracy"] == 1 / 8 and found["top5_class_accuracy"] == 5 / 8


def test_logits_of_other_classes_are_one_line():
    labels = np.int32(np.arange(8))
    with pytest.raises(UsageError, match=r"^class_accuracy: logits for 1008 classes cannot judge images of 8$"):
        class_accuracy.compute(Sample(labels, logits=np.zeros((8, 1008), np.float32)), None, NAMES)
