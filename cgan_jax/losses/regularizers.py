"""Regularizers: gradient penalties of the discriminator, and distances of generated images from real ones.

Each returns one value per sample.
"""

import jax
import jax.numpy as jnp
import numpy as np

from cgan_jax import parallel
from cgan_jax.errors import UsageError
from cgan_jax.losses.terms import Pass, Term


def _squared_gradient_norms(passed: Pass, images: jax.Array, labels: jax.Array) -> jax.Array:
    """|d D(x) / d x|^2 for each image, [N]."""
    gradients = jax.grad(lambda x: jnp.sum(passed.discriminate(x, labels).logits))(images)
    return jnp.sum(jnp.square(gradients), axis=(1, 2, 3))


def _squared_distances(passed: Pass, images: jax.Array, labels: jax.Array, target: float) -> jax.Array:
    """(|d D(x) / d x| - target)^2 for each image, [N]."""
    # 1e-12: the slope of the root is infinite at 0, and the gradient of a dead discriminator is 0.
    return jnp.square(jnp.sqrt(_squared_gradient_norms(passed, images, labels) + 1e-12) - target)


def gradient_penalty(target: float = 1.0) -> Term:
    """(|d D(u) / d u| - target)^2 (Gulrajani et al. 2017, eq. 3).

    u is drawn uniformly on the line between a real and a generated image of one label. The weight is their lambda. The
    discriminator must not couple samples: the penalty is on the gradient of each sample's logit (their section 4).
    Raises UsageError for a negative target, which no norm reaches.
    """
    if target < 0:
        raise UsageError(f"the target of gradient_penalty must be at least 0, given {target}")

    def value(passed: Pass):
        real, fake = passed.batches["real"], passed.batches["fake"]
        keys = parallel.sample_keys(passed.key, real.images.shape[0])
        mix = jax.vmap(jax.random.uniform)(keys)[:, None, None, None]
        between = mix * real.images + (1 - mix) * fake.images
        return _squared_distances(passed, between, real.labels, target), ()

    return Term(value, images=("real", "fake"), is_per_sample=True)


def dragan(target: float = 1.0, sigma: float = 0.1) -> Term:
    """(|d D(u) / d u| - target)^2 for u = x + e, x real and e from N(0, sigma^2) (DRAGAN; Kodali et al. 2017).

    The weight is their lambda, 10. Their code draws e uniformly, up to half of the batch's standard deviation. Raises
    UsageError for a negative target or sigma.
    """
    if min(target, sigma) < 0:
        raise UsageError(f"the target and sigma of dragan must be at least 0, given {target} and {sigma}")

    def value(passed: Pass):
        real = passed.batches["real"]
        keys = parallel.sample_keys(passed.key, real.images.shape[0])
        noise = jax.vmap(lambda key: jax.random.normal(key, real.images.shape[1:]))(keys)
        return _squared_distances(passed, real.images + sigma * noise, real.labels, target), ()

    return Term(value, images=("real",), is_per_sample=True)


def r1() -> Term:
    """|d D(x) / d x|^2 / 2 on real images; the weight is gamma (Mescheder et al. 2018, eq. 9)."""
    return _zero_centred("real")


def r2() -> Term:
    """|d D(x) / d x|^2 / 2 on generated images; the weight is gamma (Mescheder et al. 2018, eq. 10)."""
    return _zero_centred("fake")


def _zero_centred(batch: str) -> Term:
    def value(passed: Pass):
        images, labels, _ = passed.batches[batch]
        return _squared_gradient_norms(passed, images, labels) / 2, ()

    return Term(value, images=(batch,))


def l2() -> Term:
    """The mean squared difference of a generated image from a real one of its class."""

    def value(passed: Pass):
        real, fake = passed.batches["real"].images, passed.batches["fake"].images
        return jnp.mean(jnp.square(fake - real), axis=(1, 2, 3)), ()

    return Term(value, images=("real", "fake"))


_WINDOW, _SIGMA = 11, 1.5


def ssim(images: jax.Array, others: jax.Array) -> jax.Array:
    """Structural similarity of pairs of images in [-1, 1]: two float [N, H, W, C] -> [N], 1 for an image with itself.

    Wang, Bovik, Sheikh & Simoncelli (2004), eq. 13 with their K1 = 0.01, K2 = 0.03. Theirs is for intensities from 0 to
    L: here 1 is added, and L = 2. A Gaussian window of 11x11 with deviation 1.5 weighs the means, variances and
    covariance (eq. 14 to 16). The result is the mean over all positions at which the window lies inside the image (eq.
    17). Our choices: a smaller image cuts the window to its size, and the result is the mean over colours.
    """
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    rows, columns = _windows(images.shape[1]), _windows(images.shape[2])

    def local(x):
        # In full float32: the variance is a small difference of large numbers.
        return jnp.einsum("nhwc,ih,jw->nijc", x, rows, columns, precision=jax.lax.Precision.HIGHEST)

    mean_x, mean_y = local(images), local(others)
    variances = local(jnp.square(images)) + local(jnp.square(others)) - jnp.square(mean_x) - jnp.square(mean_y)
    covariance = local(images * others) - mean_x * mean_y
    mean_x, mean_y = mean_x + 1, mean_y + 1  # Variances do not depend on it, and are more exact without.
    similar_means = (2 * mean_x * mean_y + c1) / (jnp.square(mean_x) + jnp.square(mean_y) + c1)
    return jnp.mean(similar_means * (2 * covariance + c2) / (variances + c2), axis=(1, 2, 3))


def _windows(side: int) -> np.ndarray:
    """The weights of the window at each of its positions along a side; a row sums to 1. float32 [positions, side]."""
    size = min(_WINDOW, side)
    weights = np.exp(-np.square((np.arange(size) - (size - 1) / 2) / _SIGMA) / 2)
    weights /= weights.sum()
    last = side - size
    return np.stack([np.pad(weights, (first, last - first)) for first in range(last + 1)]).astype(np.float32)


def structural_dissimilarity() -> Term:
    """1 - ssim of a generated image and a real one of its class."""

    def value(passed: Pass):
        return 1 - ssim(passed.batches["fake"].images, passed.batches["real"].images), ()

    return Term(value, images=("real", "fake"))


DISCRIMINATOR = {"gradient_penalty": gradient_penalty, "dragan": dragan, "r1": r1, "r2": r2}
GENERATOR = {"l2": l2, "ssim": structural_dissimilarity}
