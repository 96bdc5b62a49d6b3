"""Regularizers of discriminators whose gradient is known by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from cgan_jax import parallel
from cgan_jax.data.batches import Batch
from cgan_jax.errors import UsageError
from cgan_jax.losses import regularizers
from cgan_jax.losses.terms import Pass
from cgan_jax.networks.heads import Output
from tests.replicas import FEW_WAYS, on_replicas

N, SHAPE = 5, (3, 2, 2)
REAL = np.random.default_rng(1).normal(size=(N, *SHAPE)).astype(np.float32)
FAKE = np.random.default_rng(2).normal(size=(N, *SHAPE)).astype(np.float32)
SLOPES = np.random.default_rng(3).normal(size=SHAPE).astype(np.float32)
LABELS = np.array([0, 1, 2, 1, 0], np.int32)


def linear(images, labels):
    """Gradient: SLOPES (label + 1)."""
    return Output(jnp.sum(images * SLOPES[None], axis=(1, 2, 3)) * (labels + 1), {})


def quadratic(images, labels):
    """Gradient: SLOPES images (label + 1)."""
    return Output(jnp.sum(SLOPES[None] * jnp.square(images), axis=(1, 2, 3)) / 2 * (labels + 1), {})


def dead(images, labels):
    return Output(jnp.sum(0 * images, axis=(1, 2, 3)), {})


def value(term, discriminate, real=REAL, fake=FAKE, labels=LABELS, key=None):
    batches = {"real": Batch(jnp.asarray(real), jnp.asarray(labels)), "fake": Batch(jnp.asarray(fake), labels)}
    batches = {name: batches[name] for name in term.images}
    key = jax.random.key(0) if key is None else key
    values, memory = term.value(Pass(batches, {}, discriminate, None, (), key, jnp.int32(0)))
    assert memory == ()
    return values


def squared_norms(gradients):
    return np.sum(gradients.astype(np.float64) ** 2, axis=(1, 2, 3))


def expand(labels):
    return (labels + 1)[:, None, None, None].astype(np.float64)


@pytest.mark.parametrize(("name", "images", "reads"), [("r1", REAL, ("real",)), ("r2", FAKE, ("fake",))])
def test_r1_and_r2_are_half_the_squared_gradient_on_their_own_batch(name, images, reads):
    term = regularizers.DISCRIMINATOR[name]()
    assert term.images == reads
    expected = squared_norms(SLOPES * images * expand(LABELS)) / 2
    np.testing.assert_allclose(value(term, quadratic), expected, rtol=2e-6)  # a float32 sum of twelve squares
    expected = squared_norms(SLOPES * np.ones_like(images) * expand(LABELS)) / 2
    np.testing.assert_allclose(value(term, linear), expected, rtol=2e-6)


def test_r1_can_be_differentiated_with_respect_to_the_discriminators_parameters():
    """With D scaled by t, R1 is t^2 times as large, so its slope at t is 2 t times R1 at 1."""

    def penalty(t):
        return jnp.sum(value(regularizers.r1(), lambda x, y: Output(t * quadratic(x, y).logits, {})))

    expected = 2 * 0.7 * np.sum(squared_norms(SLOPES * REAL * expand(LABELS))) / 2
    np.testing.assert_allclose(jax.grad(penalty)(0.7), expected, rtol=2e-6)


@pytest.mark.parametrize("target", [1.0, 0.0, 2.5])
def test_the_gradient_penalty_is_the_squared_distance_of_the_gradients_norm_from_its_target(target):
    term = regularizers.gradient_penalty(target)
    assert set(term.images) == {"real", "fake"}
    norms = np.sqrt(squared_norms(SLOPES * np.ones_like(REAL) * expand(LABELS)))
    np.testing.assert_allclose(value(term, linear), (norms - target) ** 2, rtol=5e-6)  # a difference, squared


def test_the_gradient_penalty_is_1_by_default():
    np.testing.assert_allclose(value(regularizers.gradient_penalty(), dead), np.ones(N), rtol=1e-5)  # |0| is 1e-6


def test_the_gradient_penalty_of_a_dead_discriminator_has_a_finite_slope():
    def penalty(t):
        return jnp.sum(value(regularizers.gradient_penalty(), lambda x, y: Output(t * linear(x, y).logits, {})))

    # Its norm is t |slope|, which has no derivative at 0; no NaN must enter the weights.
    assert jax.grad(penalty)(0.0) == 0.0
    norms = np.sqrt(squared_norms(SLOPES * np.ones_like(REAL) * expand(LABELS)))
    np.testing.assert_allclose(jax.grad(penalty)(0.5), np.sum(2 * (0.5 * norms - 1) * norms), rtol=1e-5)


def coefficients(n, pixel, channel, way=("alone", 1)):
    """The share of the real image at one pixel of the points that the penalty takes, [n].

    Real images are 1, fakes 0; D is half the square of that one pixel, so its gradient there is the pixel itself.
    """
    local = n // way[1]

    def discriminate(images, labels):
        return Output(jnp.square(images[:, pixel, 0, channel]) / 2, {})

    def run():
        # With target 0 the penalty is the squared gradient.
        term, ones = regularizers.gradient_penalty(0.0), jnp.ones((local, *SHAPE))
        ones = parallel.varying(ones)
        return jnp.sqrt(value(term, discriminate, ones, 0 * ones, jnp.zeros(local, jnp.int32)))

    return np.concatenate(on_replicas(way, run))


def test_the_gradient_penalty_mixes_all_of_an_image_by_one_coefficient():
    first = coefficients(64, 0, 0)
    for pixel, channel in [(1, 0), (2, 1)]:
        np.testing.assert_allclose(coefficients(64, pixel, channel), first, rtol=1e-6)
    assert len(np.unique(first)) == 64, "every sample has its own"


def test_the_coefficients_of_the_gradient_penalty_are_uniform():
    assert scipy.stats.kstest(coefficients(2048, 0, 0), "uniform").pvalue > 0.01


@pytest.mark.parametrize("way", FEW_WAYS[1:], ids=str)
def test_the_coefficients_do_not_depend_on_the_number_of_replicas(way):
    np.testing.assert_allclose(coefficients(16, 0, 0, way), coefficients(16, 0, 0), rtol=1e-6)


def test_the_gradient_penalty_is_taken_between_the_images_of_a_pair_with_the_reals_labels():
    """A quadratic D of slope 1 has the point itself as its gradient: |u|^2 of the point at coefficient c."""
    shares = coefficients(N, 0, 0).astype(np.float64)[:, None, None, None]

    def discriminate(images, labels):
        return Output(jnp.sum(jnp.square(images), axis=(1, 2, 3)) / 2 * (labels + 1), {})

    term, key = regularizers.gradient_penalty(0.0), jax.random.key(0)
    points = shares * REAL + (1 - shares) * FAKE
    expected = squared_norms(points * expand(LABELS))
    np.testing.assert_allclose(value(term, discriminate, key=key), expected, rtol=5e-6)


@pytest.mark.parametrize("way", [("alone", 1), ("shard_map", 4)], ids=str)
def test_dragans_penalty_is_near_real_images(way):
    """A quadratic D of slope 1 has the point itself as its gradient: real images of 0 show the noise alone."""
    term = regularizers.dragan(target=0.5, sigma=0.3)
    assert term.images == ("real",)
    n, shape = 256, (10, 10, 1)

    def run():
        def discriminate(images, labels):
            return Output(jnp.sum(jnp.square(images), axis=(1, 2, 3)) / 2 * (labels + 1), {})

        n_own = n // way[1]
        images = parallel.varying(jnp.zeros((n_own, *shape)))
        return value(term, discriminate, images, images, jnp.ones(n_own, jnp.int32))

    # The norm is 2 sigma chi of 100 degrees of freedom, and here above the target.
    norms = np.sqrt(np.concatenate(on_replicas(way, run))) + 0.5
    assert scipy.stats.kstest(norms / (2 * 0.3), scipy.stats.chi(100).cdf).pvalue > 0.01


def test_dragans_penalty_without_noise_is_that_of_the_real_images():
    norms = np.sqrt(squared_norms(SLOPES * REAL * expand(LABELS)))
    np.testing.assert_allclose(value(regularizers.dragan(sigma=0.0), quadratic), (norms - 1) ** 2, rtol=2e-5)
    with pytest.raises(UsageError, match=r"^the target and sigma of dragan must be at least 0, given 1.0 and -0.1"):
        regularizers.dragan(sigma=-0.1)


def test_l2_is_the_mean_squared_difference_of_each_pair():
    term = regularizers.GENERATOR["l2"]()
    assert set(term.images) == {"real", "fake"}
    expected = np.mean((FAKE.astype(np.float64) - REAL) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(value(term, None), expected, rtol=1e-6)
    gradient = jax.grad(lambda fake: jnp.sum(value(term, None, fake=fake)))(FAKE)
    np.testing.assert_allclose(gradient, 2 * (FAKE - REAL) / np.prod(SHAPE), rtol=1e-6)


def ssim_by_hand(x, y):
    """Wang et al. 2004, eq. 13 to 17, window by window in float64; for one image [H, W, C] in [-1, 1]."""
    sizes = [min(11, side) for side in x.shape[:2]]
    window = np.outer(*(scipy.stats.norm.pdf(np.arange(n), (n - 1) / 2, 1.5) for n in sizes))
    window /= window.sum()
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    values = []
    for i in range(x.shape[0] - sizes[0] + 1):
        for j in range(x.shape[1] - sizes[1] + 1):
            for c in range(x.shape[2]):
                p, q = (a[i : i + sizes[0], j : j + sizes[1], c].astype(np.float64) for a in (x, y))
                mean_p, mean_q = np.sum(window * p), np.sum(window * q)
                var_p, var_q = np.sum(window * (p - mean_p) ** 2), np.sum(window * (q - mean_q) ** 2)
                covariance = np.sum(window * (p - mean_p) * (q - mean_q))
                bright_p, bright_q = mean_p + 1, mean_q + 1  # of intensities from 0 to 2
                luminance = (2 * bright_p * bright_q + c1) / (bright_p**2 + bright_q**2 + c1)
                values.append(luminance * (2 * covariance + c2) / (var_p + var_q + c2))
    return np.mean(values)


def photographs(shape, seed=0):
    """Smooth images with some noise, so that neighbouring pixels agree; the second of a pair is like the first."""
    rng = np.random.default_rng(seed)
    n, height, width, channels = shape
    waves = (
        np.sin(np.linspace(0, 5, height))[None, :, None, None] * np.cos(np.linspace(1, 4, width))[None, None, :, None]
    )
    x = 0.5 * waves * rng.uniform(-1, 1, (n, 1, 1, channels)) + 0.1 * rng.normal(size=shape)
    y = 0.8 * x + 0.1 + 0.1 * rng.normal(size=shape)
    return np.clip(x, -1, 1).astype(np.float32), np.clip(y, -1, 1).astype(np.float32)


@pytest.mark.parametrize("shape", [(3, 16, 13, 3), (2, 11, 11, 1), (2, 8, 20, 2), (2, 5, 4, 1)], ids=str)
def test_ssim_is_its_definition_with_a_window_no_larger_than_the_image(shape):
    x, y = photographs(shape)
    expected = [ssim_by_hand(a, b) for a, b in zip(x, y, strict=True)]
    assert np.ptp(expected) > 0.01 and np.max(np.abs(expected)) < 0.95
    # Variances of 0.01 are differences of float32 means of squares; the constant added to them is 0.0036.
    np.testing.assert_allclose(jax.jit(regularizers.ssim)(x, y), expected, rtol=1e-5, atol=1e-5)


def test_ssim_of_an_image_with_itself_is_1_and_of_flat_images_compares_their_means():
    x, _ = photographs((2, 12, 12, 3))
    np.testing.assert_allclose(jax.jit(regularizers.ssim)(x, x), [1, 1], rtol=1e-5)
    flat = jax.jit(regularizers.ssim)(jnp.full((1, 12, 12, 1), 0.5), jnp.full((1, 12, 12, 1), -0.25))
    np.testing.assert_allclose(flat, [(2 * 1.5 * 0.75 + 0.0004) / (1.5**2 + 0.75**2 + 0.0004)], rtol=1e-4)


def test_ssim_of_flat_images_grows_as_they_come_near_whatever_their_sign():
    def of(level, target=0.03):
        return float(regularizers.ssim(jnp.full((1, 12, 12, 1), level), jnp.full((1, 12, 12, 1), target))[0])

    values = [of(level) for level in (-1.0, -0.5, -0.1, -0.03, 0.0, 0.03)]
    assert values == sorted(values) and of(-0.03) > 0.99


def test_the_ssim_term_is_the_dissimilarity_of_each_pair_and_its_gradient_the_slope():
    term = regularizers.GENERATOR["ssim"]()
    assert set(term.images) == {"real", "fake"}
    real, fake = photographs((2, 13, 12, 2))
    labels = np.zeros(2, np.int32)
    expected = [1 - ssim_by_hand(a, b) for a, b in zip(fake, real, strict=True)]
    np.testing.assert_allclose(value(term, None, real, fake, labels), expected, rtol=1e-5, atol=1e-5)
    gradient = np.asarray(jax.jit(jax.grad(lambda fake: jnp.sum(value(term, None, real, fake, labels))))(fake))
    for direction in np.random.default_rng(1).normal(size=(4, *fake.shape)):
        ahead, behind = (fake.astype(np.float64) + sign * 1e-5 * direction for sign in (1, -1))
        slope = sum(ssim_by_hand(b, r) - ssim_by_hand(a, r) for a, b, r in zip(ahead, behind, real, strict=True)) / 2e-5
        scale = np.linalg.norm(gradient) * np.linalg.norm(direction)
        assert abs(np.sum(gradient * direction) - slope) < 1e-5 * scale


def test_every_regularizer_is_tested_here():
    assert set(regularizers.DISCRIMINATOR) == {"gradient_penalty", "dragan", "r1", "r2"}
    assert set(regularizers.GENERATOR) == {"l2", "ssim"}
