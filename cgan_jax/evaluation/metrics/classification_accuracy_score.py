"""Classification accuracy score: how well a classifier names real images that has learned from generated ones alone.

Ravuri & Vinyals (2019), "Classification Accuracy Score for Conditional Generative Models", section 3: it falls where
the generator lacks a class's variety or draws the wrong class, which distances between features may not show. Its
authors test on the held-out split: score against --split=test for their number. The classifier is the one of
features/classifier.py, trained as `cgan train-classifier --noflip` does, since not every class is its mirror image's.
That takes as long: with 50,000 images of 32 pixels an hour on two processor cores.
"""

from collections import deque

import numpy as np

from cgan_jax.data.sources import Dataset
from cgan_jax.errors import UsageError
from cgan_jax.evaluation import classifier_training as training
from cgan_jax.evaluation.metrics import Sample, check

READS = ("images",)
MIN_IMAGES, MIN_PER_CLASS, MIN_CLASSES = 10, 1, 2
BETTER = "higher"

_SEED = 0


def compute(fake: Sample, real: Sample, class_names: tuple[str, ...]) -> dict[str, float]:
    """In all and per class. Raises UsageError for a single class, or images below 8 pixels a side."""
    name = "classification_accuracy_score"
    check(name, fake, real, class_names, READS, MIN_IMAGES, MIN_PER_CLASS)
    if len(class_names) < 2:
        raise UsageError(f"{name}: there is a single class")
    if min(fake.images.shape[1:3]) < 8 or fake.images.shape[1:] != real.images.shape[1:]:
        raise UsageError(
            f"{name}: images {fake.images.shape[1:]} and {real.images.shape[1:]} must be alike, from 8 pixels"
        )
    dataset = Dataset(fake.images, fake.labels, class_names)
    plan = training.plan_for(dataset, None, False, _SEED)
    description = training.describe(plan, dataset, "generated")
    state = training.create(description, plan, dataset.images)
    [(state, _)] = deque(training.fit(plan, description.network, dataset, state), maxlen=1)
    right = training.predicted(description.network, state.variables, real.images) == real.labels
    parts = {f"{name}/{c}": float(np.mean(right[real.labels == i])) for i, c in enumerate(class_names)}
    return {name: float(np.mean(right)), **parts}
