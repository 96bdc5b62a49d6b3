"""Training on generated images: what they teach is what real images are named."""

import numpy as np
import pytest

from cgan_jax.errors import UsageError
from cgan_jax.evaluation import classifier_training as training
from cgan_jax.evaluation.metrics import Sample, classification_accuracy_score

RNG = np.random.default_rng(0)
NAMES = ("standing", "lying")


@pytest.fixture(autouse=True)
def _little(monkeypatch):
    """Narrow networks, few epochs: what is tested is what they are trained and tested on."""
    monkeypatch.setattr(training, "_NARROW", (8, 8))
    monkeypatch.setattr(training, "_SHOWN", 4000)


def bars(count: int, swapped: bool = False) -> Sample:
    """Lying and standing bars in noise, or each called the other."""
    labels = np.arange(count) % 2
    images = RNG.integers(0, 100, (count, 8, 8, 1))
    for image, label in zip(images, labels, strict=True):
        (image if label else image.transpose(1, 0, 2))[RNG.integers(1, 7)] += 150
    return Sample(np.int32(1 - labels if swapped else labels), images.astype(np.uint8))


def test_good_images_teach_the_classes_and_swapped_ones_their_opposite():
    real = bars(60)
    good = classification_accuracy_score.compute(bars(128), real, NAMES)
    assert good["classification_accuracy_score"] > 0.9
    parts = [good[f"classification_accuracy_score/{name}"] for name in NAMES]
    assert np.mean(parts) == pytest.approx(good["classification_accuracy_score"])
    swapped = classification_accuracy_score.compute(bars(128, swapped=True), real, NAMES)
    assert swapped["classification_accuracy_score"] < 0.1


def test_what_cannot_be_learned_is_one_line():
    one = Sample(np.zeros(20, np.int32), bars(20).images)
    with pytest.raises(UsageError, match="there is a single class"):
        classification_accuracy_score.compute(one, one, ("all",))
    small = bars(20)._replace(images=bars(20).images[:, :4, :4])
    with pytest.raises(UsageError, match="must be alike, from 8 pixels"):
        classification_accuracy_score.compute(small, small, NAMES)
