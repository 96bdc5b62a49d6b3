"""Differentiable augmentation of the real and generated images that the discriminator sees in training.

The operations and their ranges are those of Zhao, Liu, Lin, Zhu & Han (2020, "Differentiable Augmentation for
Data-Efficient GAN Training", and their code). Each applies to an image with a probability, as in Karras et al. (2020,
"Training Generative Adversarial Networks with Limited Data", section 2.2): while enough images stay unaugmented, the
generator does not learn to draw augmented ones.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cgan_jax import parallel
from cgan_jax.annealing import at
from cgan_jax.lookup import entry_named

Operation = Callable[[jax.Array, jax.Array], jax.Array]
"""(key, image [H, W, C] in [-1, 1]) -> image."""
Augment = Callable[[jax.Array, jax.Array, jax.Array | float], jax.Array]
"""(key, images [N, H, W, C], how far annealing is, 0 to 1) -> images."""


def color(key: jax.Array, image: jax.Array) -> jax.Array:
    """The image with its brightness changed by U(-1/2, 1/2), its saturation by U(0, 2), its contrast by U(1/2, 3/2)."""
    brightness, saturation, contrast = jax.random.uniform(key, (3,))
    image = image + (brightness - 0.5)
    image = _stretched(image, jnp.mean(image, axis=2, keepdims=True), 2 * saturation)
    return _stretched(image, jnp.mean(image, keepdims=True), contrast + 0.5)


def _stretched(image: jax.Array, about: jax.Array, factor: jax.Array) -> jax.Array:
    about = jnp.broadcast_to(about, image.shape)
    return about + factor * (image - about)


def translation(key: jax.Array, image: jax.Array) -> jax.Array:
    """The image moved by whole pixels, by up to 1/8 of each side; pixels from outside are 0."""
    moves = [_move(k, side) for k, side in zip(jax.random.split(key), image.shape[:2], strict=True)]
    # In full float32, so that moved pixels keep their values.
    return jnp.einsum("hwc,ih,jw->ijc", image, *moves, precision=jax.lax.Precision.HIGHEST)


def _move(key: jax.Array, side: int) -> jax.Array:
    """The matrix [side, side] that moves a row of pixels. The gradient of a product needs no scatter."""
    most = int(side / 8 + 0.5)
    offset = jax.random.randint(key, (), -most, most + 1)
    pixels = jnp.arange(side)
    return (pixels[None, :] == pixels[:, None] + offset).astype(jnp.float32)


def cutout(key: jax.Array, image: jax.Array) -> jax.Array:
    """The image with a box set to 0: half of each side, centred anywhere in the image, clipped at its border."""
    inside = [_box(k, side) for k, side in zip(jax.random.split(key), image.shape[:2], strict=True)]
    box = inside[0][:, None, None] & inside[1][None, :, None]
    return jnp.where(box, 0, image)


def _box(key: jax.Array, side: int) -> jax.Array:
    """Whether the box covers each pixel of a side, bool [side]."""
    size = int(side / 2 + 0.5)
    first = jax.random.randint(key, (), 0, side + 1 - size % 2) - size // 2
    pixels = jnp.arange(side)
    return (pixels >= first) & (pixels < first + size)


OPERATIONS: dict[str, Operation] = {"color": color, "translation": translation, "cutout": cutout}


def from_recipe(section: Mapping[str, Any]) -> Augment:
    """{"policy": operations separated by commas, "probability": of each} -> the augmentation; the identity for "".

    Raises UsageError for an unknown operation.
    """
    names = [name.strip() for name in section["policy"].split(",") if name.strip()]
    operations = [entry_named(OPERATIONS, name, "operation in augment.policy") for name in names]
    probability = section["probability"]
    if not operations or probability == 0.0:
        return lambda key, images, annealed: images

    def augment(key: jax.Array, images: jax.Array, annealed: jax.Array | float) -> jax.Array:
        keys = parallel.sample_keys(key, images.shape[0])
        return jax.vmap(lambda key, image: _applied(operations, at(probability, annealed), key, image))(keys, images)

    return augment


def _applied(
    operations: list[Operation], probability: jax.Array | float, key: jax.Array, image: jax.Array
) -> jax.Array:
    """The image after each operation in turn, applied with the probability; at 0 its bits do not change."""
    for number, operation in enumerate(operations):
        chance_key, draw_key = jax.random.split(jax.random.fold_in(key, number))
        happens = jax.random.uniform(chance_key) < probability
        image = jnp.where(happens, operation(draw_key, image), image)
    return image
