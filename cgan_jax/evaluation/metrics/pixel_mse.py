"""The mean squared error of pixels between generated and real images of a class, and its complement, the "accuracy".

With pixels in [0, 1], for a class c of generated images g and real images r,

    pixel_mse/c = mean over all pairs (g, r) of c, and over pixels, of (g - r)^2;    pixel_accuracy = 1 - mean over c

This is what one seed of this project reports of a single pairing, without the chance of the pairing. It says whether
colours and brightness are about right and nothing more: the best images by it are all their class's mean, and real
images against others of their class do worse.
"""

import numpy as np

from cgan_jax.errors import UsageError
from cgan_jax.evaluation.metrics import Sample, check

READS = ("images",)
MIN_IMAGES, MIN_PER_CLASS = 1, 0
BETTER = "lower"


def compute(fake: Sample, real: Sample, class_names: tuple[str, ...]) -> dict[str, float]:
    """Over the classes that have images of both kinds; raises UsageError if there is none."""
    check("pixel_mse", fake, real, class_names, READS, MIN_IMAGES)
    if fake.images.shape[1:] != real.images.shape[1:]:
        raise UsageError(f"pixel_mse: images {fake.images.shape[1:]} and real ones {real.images.shape[1:]} differ")
    errors = {}
    for label, name in enumerate(class_names):
        of_fake, of_real = fake.images[fake.labels == label], real.images[real.labels == label]
        if len(of_fake) and len(of_real):
            errors[name] = _error(of_fake, of_real)
    if not errors:
        raise UsageError("pixel_mse: no class has both generated and real images")
    mean = float(np.mean(list(errors.values())))
    of_classes = {f"pixel_mse/{name}": error for name, error in errors.items()} if len(class_names) > 1 else {}
    return {"pixel_mse": mean, "pixel_accuracy": 1 - mean, **of_classes}


def _error(images: np.ndarray, others: np.ndarray) -> float:
    """Mean over all pairs of |x - y|^2, as E|x|^2 - 2 E[x] E[y] + E|y|^2, which needs no pairs."""
    (mean_x, square_x), (mean_y, square_y) = _moments(images), _moments(others)
    return float(np.mean(square_x - 2 * mean_x * mean_y + square_y))


def _moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each pixel's mean and mean square over uint8 [N, H, W, C] taken to [0, 1]; exact integer sums, then float64."""
    sums = images.sum(axis=0, dtype=np.int64), np.square(images, dtype=np.uint16).sum(axis=0, dtype=np.int64)
    return sums[0] / (255 * len(images)), sums[1] / (255**2 * len(images))
