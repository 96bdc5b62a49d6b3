"""Affine augmentation against its definitions, stated again in float64 with NumPy and SciPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from cgan_jax import augment_affine
from tests.lowerings import lower_as_for

SHAPE = (10, 14, 3)
IMAGES = np.random.default_rng(0).uniform(-1, 1, (6, *SHAPE)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(7), 2000)
SYM6 = augment_affine.SYM6
LUMA = np.full((3, 3), 1 / 3)


def test_the_filter_is_the_wavelet_of_its_name():
    """Its double shifts are orthogonal, six moments of its high-pass filter vanish, and its phase is straight."""
    assert SYM6.sum() == pytest.approx(np.sqrt(2), abs=1e-10)
    np.testing.assert_allclose(np.convolve(SYM6, SYM6[::-1])[1::2], np.eye(11)[5], atol=1e-10)
    taps = np.arange(12)
    np.testing.assert_allclose([np.sum((-1.0) ** taps * taps**k * SYM6) for k in range(6)], 0, atol=1e-6)
    frequencies = np.linspace(0, 0.9 * np.pi)
    phase = np.unwrap(np.angle(np.exp(-1j * np.outer(frequencies, taps)) @ SYM6))
    straight = np.polyval(np.polyfit(frequencies, phase, 1), frequencies)
    assert np.ptp(phase - straight) < 0.3  # radians; the others bend by 0.69 at least


STRAIGHT = ("xflip", "rotate90", "xint", "scale", "aniso", "xfrac")
ALONE = [(name,) for name in augment_affine.GEOMETRY]


@functools.cache
def drawn_maps() -> dict[tuple[str, ...], np.ndarray]:
    """The inverse maps that operations draw with each key. One program, because compiling takes longest."""

    def of(names, key):
        return augment_affine.inverse_map(dict.fromkeys(names, 1.0), key, SHAPE, 1.0)

    drawn = [*ALONE, STRAIGHT, ("rotate", "aniso"), augment_affine.GEOMETRY]
    maps = jax.jit(jax.vmap(lambda key: [of(names, key) for names in drawn]))(KEYS)
    return dict(zip(drawn, np.asarray(maps, np.float64), strict=True))


def stated(image: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """The warp of Karras et al. 2020, appendix B.1: mirror, double, look up two points a pixel, halve."""
    height, width, _ = image.shape
    far = 4 * max(height, width)
    mirrored = np.pad(np.asarray(image, np.float64), [(far, far), (far, far), (0, 0)], "reflect")
    doubled = np.zeros((2 * mirrored.shape[0], 2 * mirrored.shape[1], 3))
    doubled[::2, ::2] = 4 * mirrored
    for axis in (0, 1):
        doubled = scipy.ndimage.convolve1d(doubled, SYM6 / np.sqrt(2), axis, origin=-1)
    # Two points a pixel, from six pixels before the image to six pixels behind it. The even ones are on pixels.
    x, y = (np.arange(2 * side + 24) / 2 - 6 - (side - 1) / 2 for side in (width, height))
    places = np.stack([*np.meshgrid(x, y), np.ones((len(y), len(x)))])
    x, y, _ = np.tensordot(inverse, places, 1)
    at = [2 * (y + (height - 1) / 2 + far), 2 * (x + (width - 1) / 2 + far)]
    dense = np.stack([scipy.ndimage.map_coordinates(channel, at, order=1) for channel in doubled.transpose(2, 0, 1)], 2)
    for axis in (0, 1):
        dense = scipy.ndimage.correlate1d(dense, SYM6 / np.sqrt(2), axis, origin=-1)
    return dense[12:-12:2, 12:-12:2]


@functools.cache
def warp_and_gradient(platform: str):
    """(images, inverses, weights) -> the warped images, and the gradient of their sum by weights."""

    def both(images, inverses, weights):
        warped, back = jax.vjp(lambda images: jax.vmap(augment_affine.warped)(images, inverses), images)
        return warped, back(weights)[0]

    with pytest.MonkeyPatch.context() as patched:
        lower_as_for(patched, platform)
        return jax.jit(both).lower(IMAGES, jnp.zeros((len(IMAGES), 3, 3)), IMAGES).compile()


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("names", [*ALONE, augment_affine.GEOMETRY], ids=str)
def test_a_warp_and_its_gradient_are_those_of_its_statement(names, platform):
    weights, direction = np.random.default_rng(1).normal(size=(2, *IMAGES.shape)).astype(np.float32)
    inverses = drawn_maps()[names][: len(IMAGES)]
    warped, gradients = warp_and_gradient(platform)(IMAGES, inverses.astype(np.float32), weights)
    slopes = np.sum(np.asarray(gradients, np.float64) * direction, axis=(1, 2, 3))
    for number, inverse in enumerate(inverses):
        np.testing.assert_allclose(warped[number], stated(IMAGES[number], inverse), atol=2e-5)
        # A warp is linear in the image.
        slope = np.sum(weights[number] * stated(direction[number], inverse))
        np.testing.assert_allclose(slopes[number], slope, atol=1e-3)


def test_a_shift_by_whole_pixels_keeps_them_and_brings_in_the_mirror_image():
    inverse = np.array([[1.0, 0, 2], [0, 1, -1], [0, 0, 1]], np.float32)
    expected = np.pad(IMAGES, [(0, 0), (1, 0), (0, 2), (0, 0)], "reflect")[:, :10, 2:]
    warped, _ = warp_and_gradient("cpu")(IMAGES, np.tile(inverse, (len(IMAGES), 1, 1)), IMAGES)
    np.testing.assert_allclose(warped, expected, atol=2e-6)


def is_uniform(values, low, high) -> bool:
    return scipy.stats.kstest(values, scipy.stats.uniform(low, high - low).cdf).pvalue > 0.01


def is_normal(values, deviation) -> bool:
    return scipy.stats.kstest(values, scipy.stats.norm(0, deviation).cdf).pvalue > 0.01


def angles(drawn):
    return np.arctan2(drawn[:, 1, 0], drawn[:, 0, 0])


def test_geometric_operations_draw_as_published():
    """Ranges of Karras et al. 2020, appendix B, read from the maps."""
    sides = np.array([14, 10])
    flips = drawn_maps()["xflip",]
    assert np.allclose(np.abs(flips), np.eye(3)) and abs(np.mean(flips[:, 0, 0])) < 0.1
    quarters = angles(drawn_maps()["rotate90",]) / (np.pi / 2)
    assert scipy.stats.chisquare(np.bincount(np.round(quarters).astype(int) % 4)).pvalue > 0.01
    whole = drawn_maps()["xint",][:, :2, 2]
    assert np.array_equal(whole, np.round(whole)) and np.array_equal(np.abs(whole).max(axis=0), np.round(sides / 8))
    scales = drawn_maps()["scale",]
    assert np.allclose(scales[:, 0, 0], scales[:, 1, 1]) and is_normal(np.log2(scales[:, 0, 0]), 0.2)
    turns = drawn_maps()["rotate",]
    assert np.allclose(turns[:, :2, :2] @ turns[:, :2, :2].transpose(0, 2, 1), np.eye(2), atol=1e-6)
    assert is_uniform(angles(turns), -np.pi, np.pi)
    stretches = drawn_maps()["aniso",]
    assert np.allclose(stretches[:, 0, 0] * stretches[:, 1, 1], 1) and is_normal(np.log2(stretches[:, 0, 0]), 0.2)
    fractions = drawn_maps()["xfrac",][:, :2, 2] / sides
    assert is_normal(fractions[:, 0], 0.125) and is_normal(fractions[:, 1], 0.125)


def test_geometric_operations_follow_each_other_in_the_published_order():
    expected = np.eye(3)
    for name in STRAIGHT:
        expected = expected @ drawn_maps()[name,]
    np.testing.assert_allclose(drawn_maps()[STRAIGHT], expected, atol=1e-5)
    # One rotation comes before the stretch and one after: the stretch keeps its factors and has any direction.
    left, factors, _ = np.linalg.svd(drawn_maps()["rotate", "aniso"][:, :2, :2])
    stretch = drawn_maps()["aniso",][:, 0, 0]
    np.testing.assert_allclose(factors[:, 0], np.maximum(stretch, 1 / stretch), rtol=1e-5)
    assert is_uniform(np.arctan2(left[:, 1, 0], left[:, 0, 0]) % np.pi, 0, np.pi)


def test_an_operation_happens_with_its_share_of_the_probability():
    expected = {"scale": 0.3, "rotate": 0.3, "xflip": 0.15, "rotate90": 0.225}  # half of flips do nothing

    def of(name, key):
        return jnp.any(augment_affine.inverse_map({name: 0.5}, key, SHAPE, 0.6) != jnp.eye(3))

    happens = jax.jit(jax.vmap(lambda key: [of(name, key) for name in expected]))(KEYS)
    for happened, share in zip(np.sum(happens, axis=1), expected.values(), strict=True):
        assert scipy.stats.binomtest(int(happened), len(KEYS), share).pvalue > 0.01


@functools.cache
def drawn_colors() -> dict[str, np.ndarray]:
    """The maps [N, 4, 4] of (red, green, blue, 1), read from the colours that the primaries and black become."""
    pixels = np.concatenate([np.eye(3), np.zeros((1, 3))])[None].astype(np.float32)

    def of(name, key):
        return augment_affine.recolored({name: 1.0}, key, pixels, 1.0)[0]

    seen = jax.jit(jax.vmap(lambda key: [of(name, key) for name in augment_affine.COLORS]))(KEYS)
    maps = {}
    for name, colors in zip(augment_affine.COLORS, np.asarray(seen, np.float64), strict=True):
        maps[name] = np.tile(np.eye(4), (len(KEYS), 1, 1))
        maps[name][:, :3, :3] = (colors[:, :3] - colors[:, 3:]).transpose(0, 2, 1)
        maps[name][:, :3, 3] = colors[:, 3]
    return maps


def test_operations_of_colour_draw_as_published():
    """Ranges of Karras et al. 2020, appendix B, read from what becomes of colours."""
    brightness = drawn_colors()["brightness"]
    assert np.allclose(brightness[:, :, :3], np.eye(4)[:, :3], atol=1e-6) and is_normal(brightness[:, 0, 3], 0.2)
    others = {name: drawn[:, :3, :3] for name, drawn in drawn_colors().items()}
    assert all(np.allclose(drawn_colors()[name][:, :3, 3], 0) for name in others if name != "brightness")
    contrast = others["contrast"]
    assert np.allclose(contrast, contrast[:, :1, :1] * np.eye(3), atol=1e-5)
    assert is_normal(np.log2(contrast[:, 0, 0]), 0.5)
    flipped = np.trace(others["lumaflip"].T) < 2
    assert abs(np.mean(flipped) - 0.5) < 0.05
    assert np.allclose(others["lumaflip"], np.eye(3) - 2 * flipped[:, None, None] * LUMA, atol=1e-6)
    hue = others["hue"]
    assert np.allclose(hue @ hue.transpose(0, 2, 1), np.eye(3), atol=1e-5) and np.allclose(hue @ LUMA, LUMA, atol=1e-6)
    sine, cosine = np.sqrt(3) / 2 * (hue[:, 1, 0] - hue[:, 0, 1]), (np.trace(hue.T) - 1) / 2
    assert is_uniform(np.arctan2(sine, cosine), -np.pi, np.pi)
    saturation = others["saturation"]
    factors = (np.trace(saturation.T) - 1) / 2
    assert np.allclose(saturation, LUMA + factors[:, None, None] * (np.eye(3) - LUMA), atol=1e-5)
    assert is_normal(np.log2(factors), 1.0)


def test_colours_and_their_gradients_are_those_of_the_published_order():
    """Brightness, contrast, luma flip, hue, saturation: the product of their matrices (appendix B.2)."""
    keys, shares = KEYS[: len(IMAGES)], dict.fromkeys(augment_affine.COLORS, 1.0)
    weights = np.random.default_rng(2).normal(size=IMAGES.shape).astype(np.float32)

    def recolor(images):
        return jax.vmap(lambda key, image: augment_affine.recolored(shares, key, image, 1.0))(keys, images)

    @jax.jit
    def both(images):
        seen, back = jax.vjp(recolor, images)
        return seen, back(weights)[0]

    seen, gradients = both(IMAGES)
    expected = np.eye(4)
    for name in ("brightness", "contrast", "lumaflip", "hue", "saturation"):
        expected = drawn_colors()[name][: len(IMAGES)] @ expected
    linear, offset = expected[:, :3, :3], expected[:, :3, 3]
    stated = np.einsum("nij,nhwj->nhwi", linear, IMAGES.astype(np.float64)) + offset[:, None, None]
    np.testing.assert_allclose(seen, stated, atol=5e-5)
    np.testing.assert_allclose(gradients, np.einsum("nij,nhwi->nhwj", linear, weights), atol=1e-4)


def test_grey_images_change_as_coloured_ones_and_opacity_stays():
    shares = dict.fromkeys(augment_affine.COLORS, 1.0)
    recolor = jax.jit(lambda image: augment_affine.recolored(shares, KEYS[0], image, 1.0))
    grey = IMAGES[0][..., :1]
    np.testing.assert_allclose(np.repeat(recolor(grey), 3, axis=2), recolor(np.repeat(grey, 3, axis=2)), atol=1e-5)
    opaque = recolor(IMAGES[0][..., [0, 1, 2, 0]])
    np.testing.assert_array_equal(opaque[..., 3], IMAGES[0][..., 0])
    np.testing.assert_array_equal(opaque[..., :3], recolor(IMAGES[0]))


def test_images_in_half_precision_are_computed_in_single():
    inverses = drawn_maps()[augment_affine.GEOMETRY][: len(IMAGES)].astype(np.float32)
    halves = jnp.asarray(IMAGES, jnp.bfloat16)
    seen = jax.jit(jax.vmap(augment_affine.warped))(halves, inverses)
    exact, _ = warp_and_gradient("cpu")(np.asarray(halves, np.float32), inverses, IMAGES)
    assert seen.dtype == jnp.bfloat16
    np.testing.assert_allclose(seen.astype(jnp.float32), exact, rtol=2**-8, atol=1e-6)
