"""How alike generated images of one class are: the mean MS-SSIM of random pairs; 1 is a class of a single image.

Odena, Olah & Shlens (2017), section 4.2, as a sign of collapse within classes; it says nothing of quality, and is to be
read beside the same number of real images. Multi-scale structural similarity is Wang, Simoncelli & Bovik (2003), eq. 7,
of means, variances and covariance under a Gaussian window (Wang, Bovik, Sheikh & Simoncelli 2004, eq. 6, 9, 10):

    l_M^w_M  prod over scales j of (contrast * structure)_j^w_j,    scale j + 1 = means of 2x2 pixels of scale j

with l, contrast and structure averaged over the places in which the window fits. Theirs are five scales of at least
11 pixels; smaller images get as many as have 11 pixels (two at 32), with the paper's first weights divided by their
sum, and below 11 pixels one scale and the largest odd window. A negative mean, which has no root, counts as 0. Each
channel is an image by itself, and their mean is taken. 2,000 pairs of two images per class, always the same; all pairs
if there are no more.
"""

import itertools

import numpy as np

from cgan_jax.evaluation.metrics import Sample, check

READS = ("images",)
MIN_IMAGES, MIN_PER_CLASS = 2, 2
BETTER = "lower"
USES_REAL = False

_PAIRS, _AT_ONCE = 2000, 250
SETTINGS = f"{_PAIRS} pairs a class"
_WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def compute(fake: Sample, real: Sample | None, class_names: tuple[str, ...]) -> dict[str, float]:
    """Mean over classes, and each. Raises UsageError for a class of fewer than two images."""
    check("ms_ssim", fake, None, class_names, READS, MIN_IMAGES, MIN_PER_CLASS)
    values = {}
    for label, name in enumerate(class_names):
        images = fake.images[fake.labels == label]
        first, second = pairs(len(images), np.random.default_rng([0, label]))
        chunks = [slice(start, start + _AT_ONCE) for start in range(0, len(first), _AT_ONCE)]
        similarities = [ms_ssim(images[first[chunk]], images[second[chunk]]) for chunk in chunks]
        values[f"ms_ssim/{name}"] = float(np.mean(np.concatenate(similarities)))
    return {"ms_ssim": float(np.mean(list(values.values()))), **(values if len(class_names) > 1 else {})}


def pairs(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two places each among `count` > 1, never the same: all pairs, or 2,000 random ones if there are more."""
    if count * (count - 1) // 2 <= _PAIRS:
        first, second = zip(*itertools.combinations(range(count), 2), strict=True)
        return np.array(first), np.array(second)
    first = rng.integers(count, size=_PAIRS)
    return first, (first + rng.integers(1, count, size=_PAIRS)) % count


def ms_ssim(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of pairs of images: two uint8 [N, H, W, C] -> float64 [N]."""
    x, y = (np.moveaxis(np.asarray(side, np.float64), -1, 1) for side in (images, others))
    weights = _WEIGHTS[: _scales(min(x.shape[2:]))]
    weights = weights / weights.sum()
    product = np.ones(x.shape[:2])
    for weight in weights[:-1]:
        _, contrasts = ssim_maps(x, y)
        product *= np.maximum(np.mean(contrasts, axis=(2, 3)), 0) ** weight
        x, y = _halved(x), _halved(y)
    luminances, contrasts = ssim_maps(x, y)
    product *= np.maximum(np.mean(luminances * contrasts, axis=(2, 3)), 0) ** weights[-1]
    return np.mean(product, axis=1)


def ssim_maps(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Luminance, and contrast times structure: two float64 [N, C, H, W] of 0 to 255 -> two [N, C, h, w].

    Their product is the map of SSIM.
    """
    size = min(_WINDOW, *(side - (side + 1) % 2 for side in x.shape[2:]))
    rows, columns = _windows(x.shape[2], size), _windows(x.shape[3], size)
    mean_x, mean_y, square_x, square_y, product = (rows @ z @ columns.T for z in (x, y, x * x, y * y, x * y))
    variances = square_x + square_y - mean_x * mean_x - mean_y * mean_y
    covariance = product - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x * mean_x + mean_y * mean_y + _C1)
    return luminance, (2 * covariance + _C2) / (variances + _C2)


def _scales(side: int) -> int:
    """As many as have at least the window's number of pixels, one at least."""
    return max(sum(side // 2**scale >= _WINDOW for scale in range(len(_WEIGHTS))), 1)


def _windows(side: int, size: int) -> np.ndarray:
    """One row per place of the window along a side: its weights, which sum to 1; float64 [places, side]."""
    weights = np.exp(-np.square((np.arange(size) - size // 2) / _SIGMA) / 2)
    places = side - size + 1
    return np.stack([np.pad(weights / weights.sum(), (at, places - 1 - at)) for at in range(places)])


def _halved(images: np.ndarray) -> np.ndarray:
    """Means of 2x2 pixels of [N, C, H, W]; the last of an odd number of rows or columns is left out."""
    count, channels, height, width = images.shape
    even = images[:, :, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(count, channels, height // 2, 2, width // 2, 2).mean(axis=(3, 5))
