"""Density, how deep in the midst of real images generated ones lie, and coverage, how many real ones have one nearby.

Naeem, Oh, Uh, Choi & Yoo (2020), section 3, with balls around real features that reach to the k-th nearest other real
one: density is the number of balls that a generated feature lies in, divided by k, on average over these, about 1 where
both are alike and not bounded by it; coverage is the share of balls with a generated feature in them, 1 - 2^-k where
both are alike. Unlike precision and recall, neither builds balls around generated outliers. Their k = 5; a ball is
without its boundary, as the authors count.
"""

import numpy as np

from cgan_jax.evaluation.metrics import Sample, check
from cgan_jax.evaluation.metrics._neighbours import over_blocks, squared_radii

READS = ("features",)
_K = 5
MIN_IMAGES, MIN_PER_CLASS = _K + 1, 0
SETTINGS = f"k {_K}"


def compute(fake: Sample, real: Sample, class_names: tuple[str, ...]) -> dict[str, float]:
    """Raises UsageError for fewer than k + 1 images of either kind."""
    check("density_coverage", fake, real, class_names, READS, MIN_IMAGES)
    density, coverage = density_and_coverage(fake.features, real.features, _K)
    return {"density": density, "coverage": coverage}


def density_and_coverage(features: np.ndarray, real_features: np.ndarray, k: int) -> tuple[float, float]:
    """Of generated features [N, F] and real ones [M, F]; M > k."""
    centre = real_features.mean(axis=0, dtype=np.float64)
    radii = squared_radii(real_features, centre, k)

    def inside(rows: slice, squared: np.ndarray) -> tuple[int, np.ndarray]:
        within = squared < radii[None]
        return np.count_nonzero(within), np.any(within, axis=0)

    counts, covered = zip(*over_blocks(features, real_features, centre, inside), strict=True)
    return float(sum(counts)) / (k * len(features)), float(np.mean(np.any(covered, axis=0)))
