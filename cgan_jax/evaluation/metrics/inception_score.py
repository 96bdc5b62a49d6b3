"""Inception Score: each generated image looks like one class, and all together like many.

Salimans, Goodfellow, Zaremba, Cheung, Radford & Chen (2016), section 4: exp(E_x KL(p(y|x) | p(y))), where p(y|x) is the
softmax of the logits and p(y) its mean. Mean and standard deviation over 10 splits of the images, which come sorted by
class, in a random order that is always the same: torch-fidelity's. It never looks at real images, and a generator that
repeats one perfect image per class cannot do better.
"""

import itertools

import numpy as np

from cgan_jax.evaluation.metrics import Sample, check

READS = ("logits",)
_SPLITS, _SEED = 10, 2020
MIN_IMAGES, MIN_PER_CLASS = _SPLITS, 0
SETTINGS = f"{_SPLITS} splits"
BETTER = "higher"
USES_REAL = False


def compute(fake: Sample, real: Sample | None, class_names: tuple[str, ...]) -> dict[str, float]:
    """Raises UsageError for fewer images than splits."""
    check("inception_score", fake, None, class_names, READS, MIN_IMAGES)
    order = np.random.RandomState(_SEED).permutation(len(fake.logits))
    values = scores(fake.logits[order], _SPLITS)
    return {"inception_score": float(np.mean(values)), "inception_score_std": float(np.std(values))}


def scores(logits: np.ndarray, splits: int) -> np.ndarray:
    """The score of each of `splits` runs of consecutive images, as equal as they can be: [N, K] -> float64 [splits]."""
    ends = np.arange(splits + 1) * len(logits) // splits
    return np.array([_score(logits[start:end]) for start, end in itertools.pairwise(ends)])


def _score(logits: np.ndarray) -> float:
    """exp(mean over images of sum_y p(y|x) (log p(y|x) - log p(y))).

    All in logarithms: a class that no image is given has p(y) > 0 still, however small.
    """
    log_p = logits.astype(np.float64)
    log_p -= np.logaddexp.reduce(log_p, axis=1, keepdims=True)
    log_mean = np.logaddexp.reduce(log_p, axis=0) - np.log(len(log_p))
    return float(np.exp(np.mean(np.sum(np.exp(log_p) * (log_p - log_mean[None]), axis=1))))
