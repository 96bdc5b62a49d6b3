"""Precision, how many generated images lie where real ones do, and recall, how many real ones lie where generated do.

Kynkäänniemi, Karras, Laine, Lehtinen & Aila (2019), eq. 1 and 2: a set of features covers the balls around each of them
that reach to its k-th nearest neighbour in the set, boundary included; precision is the share of generated features
that the real set covers, recall that of real features which the generated set covers. Their k = 3.
"""

import numpy as np

from cgan_jax.evaluation.metrics import Sample, check
from cgan_jax.evaluation.metrics._neighbours import over_blocks, squared_radii

READS = ("features",)
_K = 3
MIN_IMAGES, MIN_PER_CLASS = _K + 1, 0
SETTINGS = f"k {_K}"


def compute(fake: Sample, real: Sample, class_names: tuple[str, ...]) -> dict[str, float]:
    """Raises UsageError for fewer than k + 1 images of either kind."""
    check("precision_recall", fake, real, class_names, READS, MIN_IMAGES)
    precision, recall = precision_and_recall(fake.features, real.features, _K)
    return {"precision": precision, "recall": recall}


def precision_and_recall(features: np.ndarray, real_features: np.ndarray, k: int) -> tuple[float, float]:
    """Of generated features [N, F] and real ones [M, F]; N, M > k."""
    centre = real_features.mean(axis=0, dtype=np.float64)
    radii = squared_radii(features, centre, k)
    real_radii = squared_radii(real_features, centre, k)

    def covered(rows: slice, squared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.any(squared <= real_radii[None], axis=1), np.any(squared <= radii[rows, None], axis=0)

    of_fake, of_real = zip(*over_blocks(features, real_features, centre, covered), strict=True)
    return float(np.mean(np.concatenate(of_fake))), float(np.mean(np.any(of_real, axis=0)))
