"""Kernel distance: the squared maximum mean discrepancy of features under a cubic kernel, estimated without bias.

Bińkowski, Sutherland, Arbel & Gretton (2018), section 4, "KID", with k(x, y) = (x'y / F + 1)^3; the estimate is that of
Gretton, Borgwardt, Rasch, Schölkopf & Smola (2012), lemma 6. Its mean does not depend on the number of images, and near
0 it may be negative. Mean and standard deviation over 100 random subsets of 1,000 images of each kind, or of as many as
there are of the fewer kind: those that torch-fidelity draws. Where that is all of both, there is one subset and no
deviation.
"""

import numpy as np

from cgan_jax.evaluation.metrics import Sample, check

READS = ("features",)
MIN_IMAGES, MIN_PER_CLASS = 2, 0
BETTER = "lower"

_SUBSETS, _SUBSET_SIZE, _SEED = 100, 1000, 2020
SETTINGS = f"{_SUBSETS} subsets of at most {_SUBSET_SIZE} of each kind"


def compute(fake: Sample, real: Sample, class_names: tuple[str, ...]) -> dict[str, float]:
    """Raises UsageError for fewer than two images of either kind."""
    check("kid", fake, real, class_names, READS, MIN_IMAGES)
    smaller, larger = sorted((len(fake.features), len(real.features)))
    subsets = 1 if smaller == larger <= _SUBSET_SIZE else _SUBSETS
    estimates = subset_distances(fake.features, real.features, subsets, _SUBSET_SIZE)
    spread = {"kid_std": float(np.std(estimates))} if subsets > 1 else {}
    return {"kid": float(np.mean(estimates)), **spread}


def subset_distances(features: np.ndarray, others: np.ndarray, subsets: int, subset_size: int) -> np.ndarray:
    """`squared_mmd` of random subsets, always the same ones; no image is in a subset twice. float64 [subsets]."""
    rng = np.random.RandomState(_SEED)
    size = min(subset_size, len(features), len(others))

    def subset(rows):
        return rows[rng.choice(len(rows), size, replace=False)]

    return np.array([squared_mmd(subset(features), subset(others)) for _ in range(subsets)])


def squared_mmd(features: np.ndarray, others: np.ndarray) -> float:
    """E k(x, x') + E k(y, y') - 2 E k(x, y), x and x' never the same image: features [N, F], [M, F], N, M > 1."""
    # In float64: the three means are of order 1 or far above, and what is left of them is of order 1e-4.
    x, y = features.astype(np.float64), others.astype(np.float64)
    return _mean_of_pairs(_kernel(x, x)) + _mean_of_pairs(_kernel(y, y)) - 2 * float(np.mean(_kernel(x, y)))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(x'y / F + 1)^3 for all pairs, [N, M]."""
    root = x @ y.T / x.shape[1] + 1
    return root * root * root


def _mean_of_pairs(kernel: np.ndarray) -> float:
    """Mean of a square matrix without its diagonal."""
    count = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))
