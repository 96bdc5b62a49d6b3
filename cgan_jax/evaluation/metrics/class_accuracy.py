"""How often a classifier of real images sees the class that was asked for: does a generated cat look like a cat?

Top-1 and, with more than five classes, top-5 accuracy of generated images, and top-1 of each class. This is
the evaluation of conditional generators with a classifier of real images (Shmelkov, Schmid & Alahari 2018, section 3,
"GAN-test"). It grows with fidelity alone: a generator that repeats one good image per class is perfect by it.
"""

import numpy as np

from cgan_jax.errors import UsageError
from cgan_jax.evaluation.metrics import Sample, check

READS = ("logits",)
MIN_IMAGES, MIN_PER_CLASS = 1, 1
BETTER = "higher"
USES_REAL, OF_CLASSES, MIN_CLASSES = False, True, 2
NAMES = {"c": "class_accuracy"}


def compute(fake: Sample, real: Sample | None, class_names: tuple[str, ...]) -> dict[str, float]:
    """Raises UsageError if the logits are not one for each class, or a class has no image."""
    check("class_accuracy", fake, None, class_names, READS, MIN_IMAGES, MIN_PER_CLASS)
    width, classes = fake.logits.shape[1], len(class_names)
    if width != classes:
        raise UsageError(f"class_accuracy: logits for {width} classes cannot judge images of {classes}")
    ranks = ranks_of_asked(fake.logits, fake.labels)
    top5 = {"top5_class_accuracy": float(np.mean(ranks < 5))} if classes > 5 else {}
    each = {f"class_accuracy/{name}": float(np.mean(ranks[fake.labels == k] < 1)) for k, name in enumerate(class_names)}
    return {"class_accuracy": float(np.mean(ranks < 1)), **top5, **(each if classes > 1 else {})}


def ranks_of_asked(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes come before the one that was asked for, int [N]; of equal logits the first comes first."""
    asked = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier = np.arange(logits.shape[1])[None] < labels[:, None]
    return np.sum((logits > asked) | ((logits == asked) & earlier), axis=1)
