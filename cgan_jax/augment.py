"""Differentiable augmentation of the real and generated images that the discriminator sees in training.

Three operations and their ranges are those of Zhao, Liu, Lin, Zhu & Han (2020, "Differentiable Augmentation for
Data-Efficient GAN Training", and their code); augment_affine.py has the others. Each applies to an image with a
probability, as in Karras et al. (2020, "Training Generative Adversarial Networks with Limited Data", section 2.2):
while enough images stay unaugmented, the generator does not learn to draw augmented ones.
"""

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cgan_jax import augment_affine, parallel
from cgan_jax.errors import UsageError
from cgan_jax.lookup import entry_named

Operation = Callable[[jax.Array, jax.Array], jax.Array]
"""(key, image [H, W, C] in [-1, 1]) -> image."""
Augment = Callable[[jax.Array, jax.Array, jax.Array | float], jax.Array]
"""(key, images [N, H, W, C], probability) -> images."""


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
# Operations of one of these kinds that stand side by side in a policy are computed as one.
TOGETHER = {name: augment_affine.moved for name in augment_affine.GEOMETRY} | {
    name: augment_affine.recolored for name in augment_affine.COLORS
}


def from_recipe(section: Mapping[str, Any]) -> Augment:
    """{"policy": "name,name:share,...", ...} -> the augmentation; the identity for "".

    An operation happens with its share, 1 if none is given, of the probability. Raises UsageError for an unknown
    operation and for a share that is not a number above 0 and up to 1.
    """
    listed = [_named(entry) for entry in section["policy"].split(",") if entry.strip()]
    if not listed:
        return lambda key, images, probability: images
    operations = []
    for together, group in itertools.groupby(listed, key=lambda entry: TOGETHER.get(entry[0])):
        if together:
            operations.append(functools.partial(together, dict(group)))
        else:
            operations += [functools.partial(_perhaps, OPERATIONS[name], share) for name, share in group]

    def of_image(key: jax.Array, image: jax.Array, probability: jax.Array | float) -> jax.Array:
        for number, operation in enumerate(operations):
            image = operation(jax.random.fold_in(key, number), image, probability)
        return image

    def augment(key: jax.Array, images: jax.Array, probability: jax.Array | float) -> jax.Array:
        if isinstance(probability, float) and probability == 0.0:
            return images
        keys = parallel.sample_keys(key, images.shape[0])
        return jax.vmap(of_image, (0, 0, None))(keys, images, probability)

    return augment


def _named(entry: str) -> tuple[str, float]:
    """ "name" or "name:share" -> (name, share)."""
    name, colon, share = (part.strip() for part in entry.partition(":"))
    entry_named({**OPERATIONS, **TOGETHER}, name, "operation in augment.policy")
    try:
        number = float(share) if colon else 1.0
    except ValueError:
        number = 0.0
    if not 0 < number <= 1:
        raise UsageError(f"the share of {name} in augment.policy must be above 0 and at most 1, given {share!r}")
    return name, number


def _perhaps(
    operation: Operation, share: float, key: jax.Array, image: jax.Array, probability: jax.Array | float
) -> jax.Array:
    """The image, after the operation if that happens; if not, its bits do not change."""
    chance_key, draw_key = jax.random.split(key)
    happens = jax.random.uniform(chance_key) < share * probability
    return jnp.where(happens, operation(draw_key, image), image)
