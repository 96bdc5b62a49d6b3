"""Fréchet distance between the features of generated and real images, as if both were Gaussian.

Heusel, Ramsauer, Unterthiner, Nessler & Hochreiter (2017), eq. 6, after Fréchet (1957) and Dowson & Landau (1982):

    d^2 = |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^1/2)

with means m and unbiased covariances C. "FID" is this number with the features of the original Inception network only;
with a classifier's it is called `cfd` here. It falls as the number of images grows, so it says how many there were.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from cgan_jax.errors import UsageError
from cgan_jax.evaluation.metrics import Sample, check
from cgan_jax.files.npz import arrays_in
from cgan_jax.files.storage import reason

READS = ("features",)
MIN_IMAGES, MIN_PER_CLASS = 2, 0
BETTER = "lower"
NAMES = {"c": "cfd"}

_ROWS = 8192


class Moments(NamedTuple):
    """All that the distance needs of a set of features."""

    mean: np.ndarray
    """float64 [F]."""
    covariance: np.ndarray
    """float64 [F, F], divided by count - 1."""
    count: int | None
    """The number of images; None if a file does not say."""


def compute(fake: Sample, real: Sample, class_names: tuple[str, ...]) -> dict[str, float]:
    """Raises UsageError for fewer than two images of either kind."""
    check("fid", fake, real, class_names, READS, MIN_IMAGES)
    return {"fid": frechet_distance(moments(fake.features), moments(real.features))}


def compute_against(fake: Sample, published: Moments, class_names: tuple[str, ...]) -> dict[str, float]:
    """As `compute`, with statistics of the real images that `load_moments` read."""
    check("fid", fake, None, class_names, READS, MIN_IMAGES)
    return {"fid": frechet_distance(moments(fake.features), published)}


def moments(features: np.ndarray) -> Moments:
    """Mean and unbiased covariance of features [N, F], N > 1, in float64."""
    mean = features.mean(axis=0, dtype=np.float64)
    scatter = np.zeros((len(mean), len(mean)))
    for start in range(0, len(features), _ROWS):
        # Centred first: E[x x'] - m m' cancels if the mean is large. By rows, without a float64 copy of all.
        centred = features[start : start + _ROWS] - mean
        scatter += centred.T @ centred
    return Moments(mean, scatter / (len(features) - 1), len(features))


def frechet_distance(one: Moments, other: Moments) -> float:
    """d^2 above, never negative. Raises UsageError if the features have different widths.

    With C = R R', the eigenvalues of C_1 C_2 are the squared singular values of R_1' R_2, so the trace of the root is
    the sum of these. Nothing here can become complex, and no root is taken of the zeros of a singular product, which
    would lift their rounding errors of 1e-16 to 1e-8.
    """
    if one.mean.shape != other.mean.shape:
        raise UsageError(
            f"Fréchet distance: features of width {len(one.mean)} and {len(other.mean)} cannot be compared"
        )
    singular_values = np.linalg.svd(_root(one.covariance).T @ _root(other.covariance), compute_uv=False)
    traces = np.trace(one.covariance) + np.trace(other.covariance)
    difference = one.mean - other.mean
    return max(float(difference @ difference + traces - 2 * singular_values.sum()), 0.0)


def _root(covariance: np.ndarray) -> np.ndarray:
    """R [F, rank] with R R' = C; eigenvalues that are zero but for rounding, as after few images, are left out."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > len(values) * np.finfo(np.float64).eps * values[-1]
    return vectors[:, kept] * np.sqrt(values[kept])


def load_moments(path: str | Path) -> Moments:
    """Published statistics: a .npz with `mu` [F] and `sigma` [F, F]. Raises UsageError for any other file."""
    try:
        arrays = arrays_in(path)
        mean, covariance = (np.asarray(arrays[name], np.float64) for name in ("mu", "sigma"))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path} is no .npz file with the numbers mu and sigma ({reason(error)})") from error
    if mean.ndim != 1 or not mean.size or covariance.shape != 2 * mean.shape:
        raise UsageError(f"{path}: mu {mean.shape} and sigma {covariance.shape} are not of shapes (F,) and (F, F)")
    if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(covariance))):
        raise UsageError(f"{path}: mu or sigma is not finite")
    # Statistics are published in float32 too.
    if np.max(np.abs(covariance - covariance.T)) > 1e-5 * np.max(np.abs(covariance)):
        raise UsageError(f"{path}: sigma is not symmetric, so it is no covariance")
    return Moments(mean, covariance, None)
