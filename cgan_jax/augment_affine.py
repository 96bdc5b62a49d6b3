"""Augmentation by affine maps, of where pixels are and of their colours.

The operations, their ranges and their order are those of Karras et al. (2020, "Training Generative Adversarial Networks
with Limited Data", appendix B, and their code). Each happens with its probability. The geometric ones become one warp,
so that an image is resampled once; those of colour become one change of colours.

The warp doubles the resolution by the wavelet sym6, takes points at twice the density of the result between the four
nearest pixels, and halves the resolution by sym6 again. So no frequency that the result cannot show folds back into it.
Outside, an image is its mirror image, as often as needed. (Theirs is black beyond the first mirror image.)
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Number = jax.Array | float
Shares = Mapping[str, float]
"""Names of operations -> the factor of each on the probability."""

SYM6 = np.array(
    [
        *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
        *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
        *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
    ]
)
"""The low-pass filter of the orthogonal wavelet sym6 (Daubechies 1992, table 6.3)."""
_BEFORE = 5  # taps before the heaviest, which is the middle; and pixels of the dense result before the image


def _map(xx: Number, xy: Number, x: Number, yx: Number, yy: Number, y: Number) -> jax.Array:
    return jnp.array([[xx, xy, x], [yx, yy, y], [0.0, 0.0, 1.0]], jnp.float32)


def _scaling(x: Number, y: Number) -> jax.Array:
    return _map(x, 0.0, 0.0, 0.0, y, 0.0)


def _rotation(angle: jax.Array) -> jax.Array:
    return _map(jnp.cos(angle), -jnp.sin(angle), 0.0, jnp.sin(angle), jnp.cos(angle), 0.0)


def _shift(by: jax.Array) -> jax.Array:
    return _map(1.0, 0.0, by[0], 0.0, 1.0, by[1])


def _xflip(key: jax.Array, size: np.ndarray) -> jax.Array:
    return _scaling(jnp.where(jax.random.bernoulli(key), -1.0, 1.0), 1.0)


def _rotate90(key: jax.Array, size: np.ndarray) -> jax.Array:
    return jnp.round(_rotation(jnp.pi / 2 * jax.random.randint(key, (), 0, 4)))


def _xint(key: jax.Array, size: np.ndarray) -> jax.Array:
    return _shift(jnp.round(size * jax.random.uniform(key, (2,), minval=-0.125, maxval=0.125)))


def _scale(key: jax.Array, size: np.ndarray) -> jax.Array:
    factor = jnp.exp2(0.2 * jax.random.normal(key))
    return _scaling(factor, factor)


def _rotate(key: jax.Array, size: np.ndarray) -> jax.Array:
    return _rotation(jax.random.uniform(key, minval=-jnp.pi, maxval=jnp.pi))


def _aniso(key: jax.Array, size: np.ndarray) -> jax.Array:
    factor = jnp.exp2(0.2 * jax.random.normal(key))
    return _scaling(factor, 1 / factor)


def _xfrac(key: jax.Array, size: np.ndarray) -> jax.Array:
    return _shift(size * 0.125 * jax.random.normal(key, (2,)))


_STEPS: list[tuple[str, Callable[[jax.Array, np.ndarray], jax.Array]]] = [
    ("xflip", _xflip),
    ("rotate90", _rotate90),
    ("xint", _xint),
    ("scale", _scale),
    ("rotate", _rotate),
    ("aniso", _aniso),
    ("rotate", _rotate),
    ("xfrac", _xfrac),
]
"""In order: (name, (key, [width, height]) -> its inverse map). A draw is as likely as its inverse."""
GEOMETRY = tuple(dict(_STEPS))
COLORS = ("brightness", "contrast", "lumaflip", "hue", "saturation")


def moved(shares: Shares, key: jax.Array, image: jax.Array, probability: Number) -> jax.Array:
    """The image [H, W, C] after the geometric operations of `shares`. If none happens, its bits do not change."""
    inverse = inverse_map(shares, key, image.shape, probability)
    return jnp.where(jnp.all(inverse == jnp.eye(3)), image, warped(image, inverse))


def inverse_map(shares: Shares, key: jax.Array, shape: tuple[int, ...], probability: Number) -> jax.Array:
    """Where the operations take each place from: the map [3, 3] of (x, y, 1), in pixels from the image's centre.

    An operation draws the same with and without the others.
    """
    size = np.array([shape[1], shape[0]], np.float32)
    inverse = jnp.eye(3)
    for number, (name, draw) in enumerate(_STEPS):
        if name in shares:
            chance = shares[name] * probability
            if name == "rotate":  # before the stretch and after: the chance that either happens is the probability
                chance = 1 - jnp.sqrt(1 - chance)
            happens, draw_key = _happens(key, number, chance)
            step = jnp.where(happens, draw(draw_key, size), jnp.eye(3))
            inverse = jnp.matmul(inverse, step, precision=lax.Precision.HIGHEST)
    return inverse


def recolored(shares: Shares, key: jax.Array, image: jax.Array, probability: Number) -> jax.Array:
    """The image [H, W, C] after the operations of colour of `shares`. If none happens, its bits do not change.

    All but brightness turn and stretch colours about the grey axis, so they are a factor along it and a factor and an
    angle across it. A fourth channel, opacity, stays.
    """

    def drawn(name: str, draw: Callable[[jax.Array], jax.Array], otherwise: float) -> Number:
        if name not in shares:
            return otherwise
        happens, draw_key = _happens(key, COLORS.index(name), shares[name] * probability)
        return jnp.where(happens, draw(draw_key), otherwise)

    brightness = drawn("brightness", lambda key: 0.2 * jax.random.normal(key), 0.0)
    contrast = drawn("contrast", lambda key: jnp.exp2(0.5 * jax.random.normal(key)), 1.0)
    flip = drawn("lumaflip", lambda key: jnp.where(jax.random.bernoulli(key), -1.0, 1.0), 1.0)
    angle = drawn("hue", lambda key: jax.random.uniform(key, minval=-jnp.pi, maxval=jnp.pi), 0.0)
    saturation = drawn("saturation", lambda key: jnp.exp2(jax.random.normal(key)), 1.0)
    colors, rest = image[..., :3].astype(jnp.float32), image[..., 3:]
    grey = jnp.mean(colors, axis=-1, keepdims=True)
    along, across = jnp.broadcast_to(grey, colors.shape), colors - grey
    if colors.shape[-1] == 3:
        # The cross product with the unit vector of grey is a quarter turn about it.
        turned = (jnp.roll(across, 1, axis=-1) - jnp.roll(across, -1, axis=-1)) / np.sqrt(3)
        across = saturation * (jnp.cos(angle) * across + jnp.sin(angle) * turned)
    changed = contrast * (flip * (along + brightness) + across)
    changed = jnp.concatenate([changed.astype(image.dtype), rest], axis=-1)
    values = jnp.stack([brightness, contrast, flip, angle, saturation])
    return jnp.where(jnp.all(values == jnp.array([0.0, 1.0, 1.0, 0.0, 1.0])), image, changed)


def _happens(key: jax.Array, number: int, chance: Number) -> tuple[jax.Array, jax.Array]:
    """Whether operation `number` happens, and the key of its other draws."""
    chance_key, draw_key = jax.random.split(jax.random.fold_in(key, number))
    return jax.random.uniform(chance_key) < chance, draw_key


def warped(image: jax.Array, inverse: jax.Array) -> jax.Array:
    """The image [H, W, C] that shows at each place what the given one has at `inverse` of the place (see inverse_map).

    Computed in float32.
    """
    height, width, _ = image.shape
    down, right = _dense_places(height)[:, None], _dense_places(width)[None, :]
    # Where the dense result looks, in pixels of the doubled image.
    (x_of_x, x_of_y, x_shift), (y_of_x, y_of_y, y_shift), _ = inverse
    x = 2 * (x_of_x * right + x_of_y * down + x_shift) + (width - 1)
    y = 2 * (y_of_x * right + y_of_y * down + y_shift) + (height - 1)
    dense = lax.platform_dependent(image.astype(jnp.float32), x, y, tpu=_looked_up_by_products, default=_looked_up)
    return _separably(dense, _halving(height), _halving(width)).astype(image.dtype)


def _dense_places(side: int) -> np.ndarray:
    """Where the pixels of the dense result are, from the image's centre: two a pixel, and what the filter needs."""
    return ((np.arange(2 * side + 2 * _BEFORE) - _BEFORE - (side - 1)) / 2).astype(np.float32)


def _separably(image: jax.Array, vertical: np.ndarray, horizontal: np.ndarray) -> jax.Array:
    # One product after the other, and columns and channels as one axis of the narrower of the two images: XLA finds no
    # tiles for other forms on an H100, where R1 differentiates twice (jax 0.10.2, 64 images of 32x32x3).
    def down(image):
        height, width, channels = image.shape
        rows = image.reshape(height, width * channels)
        rows = jnp.einsum("hk,yh->yk", rows, vertical, precision=lax.Precision.HIGHEST)
        return rows.reshape(-1, width, channels)

    def across(image):
        return jnp.einsum("hwc,xw->hxc", image, horizontal, precision=lax.Precision.HIGHEST)

    return across(down(image)) if len(horizontal) > image.shape[1] else down(across(image))


def _halving(side: int) -> np.ndarray:
    """The matrix [side, 2 side + 10] that filters the dense result and takes every other pixel."""
    matrix = np.zeros((side, 2 * side + 2 * _BEFORE), np.float32)
    for pixel in range(side):
        matrix[pixel, 2 * pixel : 2 * pixel + len(SYM6)] = SYM6 / np.sqrt(2)
    return matrix


def _doubling(side: int) -> np.ndarray:
    """The matrix [2 period, side] that doubles a row of pixels and its mirror image, which repeat with this period."""
    period = max(1, 2 * (side - 1))
    matrix = np.zeros((2 * period, side), np.float32)
    for pixel in range(period):
        for tap, weight in enumerate(SYM6 * np.sqrt(2)):
            matrix[(2 * pixel + tap - _BEFORE) % (2 * period), min(pixel, period - pixel)] += weight
    return matrix


def _looked_up(image: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """The doubled image at the points (x, y) [P, Q], linearly between the four nearest pixels: [P, Q, C]."""
    height, width, channels = image.shape
    doubled = _separably(image, _doubling(height), _doubling(width))
    left, top = jnp.floor(x), jnp.floor(y)
    column, row = left.astype(jnp.int32) % doubled.shape[1], top.astype(jnp.int32) % doubled.shape[0]
    # Each pixel beside its three neighbours, so that one look-up finds all four.
    four = [jnp.roll(doubled, (-down, -right), axis=(0, 1)) for down in (0, 1) for right in (0, 1)]
    fours = jnp.concatenate(four, axis=2).reshape(-1, 4 * channels)
    found = fours.at[row * doubled.shape[1] + column].get(mode="promise_in_bounds").reshape(*x.shape, 4, channels)
    right, low = x - left, y - top
    weights = jnp.stack([(1 - low) * (1 - right), (1 - low) * right, low * (1 - right), low * right], axis=-1)
    return jnp.einsum("pqnc,pqn->pqc", found, weights, precision=lax.Precision.HIGHEST)


def _looked_up_by_products(image: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """The same by products of matrices. Their gradients need no scatter, which TPUs do slowly.

    A product takes three bfloat16 passes, which keep 16 bits or more.
    """

    def weights(place: jax.Array, side: int) -> jax.Array:
        """How much each pixel of a row counts at each point: [P, Q, side]."""
        doubling = _doubling(side)
        period = len(doubling)
        pixels = jnp.arange(period, dtype=jnp.float32)[None, None, :]
        # The remainder before the large array: as an operation on that, it takes a quarter of the warp on a v5e.
        apart = jnp.abs((place % period)[..., None] - pixels)
        nearest = jnp.minimum(apart, period - apart)
        return jnp.matmul(jnp.maximum(0, 1 - nearest), doubling, precision=lax.Precision.HIGH)

    rows, columns = weights(y, image.shape[0]), weights(x, image.shape[1])
    return jnp.einsum("hwc,pqw,pqh->pqc", image, columns, rows, precision=lax.Precision.HIGH)
