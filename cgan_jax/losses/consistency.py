"""Consistency regularizers: a discriminator should agree on an image and its twin, on near latents, and over time.

A twin is its image, mirrored or not, moved by a few pixels; it has the same label. Weights in the papers: 10 for
images, 20 (discriminator) and 0.5 (generator) for latents, 0.3 for LeCam.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cgan_jax import parallel
from cgan_jax.data.batches import Batch
from cgan_jax.errors import UsageError
from cgan_jax.losses.terms import Batches, Pass, Term, Views


def twins(key: jax.Array, images: jax.Array, shift: float) -> jax.Array:
    """Each image of [N, H, W, C] mirrored with probability 1/2 and moved, with its border reflected.

    An image moves by whole pixels, uniformly, by up to the share `shift` of each side.
    """
    height, width = images.shape[1:3]

    def read_from(key):
        flip_key, row_key, column_key = jax.random.split(key, 3)
        rows = _reflected(jnp.arange(height) + _offset(row_key, height, shift), height)
        columns = _reflected(jnp.arange(width) + _offset(column_key, width, shift), width)
        return rows, jnp.where(jax.random.bernoulli(flip_key), columns[::-1], columns)

    rows, columns = jax.vmap(read_from)(parallel.sample_keys(key, images.shape[0]))
    return jax.vmap(lambda image, row, column: image[row][:, column])(images, rows, columns)


def _offset(key: jax.Array, side: int, shift: float) -> jax.Array:
    """A random number of pixels, at most the share `shift` of the side in either direction."""
    most = int(shift * side)
    return jax.random.randint(key, (), -most, most + 1)


def _reflected(pixels: jax.Array, side: int) -> jax.Array:
    """Pixel numbers up to one side beyond the border, mirrored at the border's pixel."""
    return (side - 1) - jnp.abs((side - 1) - jnp.abs(pixels))


def consistency(shift: float = 0.125) -> Term:
    """(D(x) - D(T(x)))^2, x real and T(x) its twin (CR; Zhang et al. 2020, algorithm 1)."""
    return _consistency("real", shift)


def consistency_fake(shift: float = 0.125) -> Term:
    """The same on generated images; with `consistency` it is bCR (balanced; Zhao et al. 2021, algorithm 1)."""
    return _consistency("fake", shift)


def _consistency(batch: str, shift: float) -> Term:
    if not 0.0 <= shift < 1.0:
        raise UsageError(f"the shift of a consistency must be at least 0 and less than 1, given {shift}")
    twin = f"{batch}/twin"

    def views(key: jax.Array, batches: Batches, generate: Callable) -> dict[str, Batch]:
        return {twin: batches[batch]._replace(images=twins(key, batches[batch].images, shift))}

    def value(passed: Pass):
        return jnp.square(passed.outputs[batch].logits - passed.outputs[twin].logits), ()

    return Term(value, reads=(batch, twin), views=views)


def _near(sigma: float) -> Views:
    """Adds the view "fake/near": images from the fakes' latents plus N(0, sigma^2). Raises UsageError if sigma <= 0."""
    if sigma <= 0:
        raise UsageError(f"the sigma of near latents must be more than 0, given {sigma}")

    def views(key: jax.Array, batches: Batches, generate: Callable) -> dict[str, Batch]:
        fake = batches["fake"]
        keys = parallel.sample_keys(key, fake.latents.shape[0])
        noise = jax.vmap(lambda key: jax.random.normal(key, fake.latents.shape[1:]))(keys)
        latents = fake.latents + sigma * noise
        return {"fake/near": Batch(generate(latents, fake.labels), fake.labels, latents)}

    return views


def latent_consistency(sigma: float = 0.05) -> Term:
    """(D(G(z)) - D(G(z + e)))^2, e from N(0, sigma^2) (zCR of the discriminator; Zhao et al. 2021, algorithm 2)."""

    def value(passed: Pass):
        return jnp.square(passed.outputs["fake"].logits - passed.outputs["fake/near"].logits), ()

    return Term(value, reads=("fake", "fake/near"), views=_near(sigma))


def latent_diversity(sigma: float = 0.05) -> Term:
    """-|G(z) - G(z + e)|^2 / (H W C) for the generator (zCR; Zhao et al. 2021, algorithm 2).

    The paper writes the squared norm; its weight of 0.5 belongs to the mean over an image's pixels and colours.
    """

    def value(passed: Pass):
        fake, near = passed.batches["fake"].images, passed.batches["fake/near"].images
        return -jnp.mean(jnp.square(fake - near), axis=(1, 2, 3)), ()

    return Term(value, images=("fake", "fake/near"), views=_near(sigma))


def lecam(decay: float = 0.99, start_kimg: float = 0.0) -> Term:
    """max(0, D(x) - a_fake)^2 + max(0, a_real - D(G(z)))^2 (LeCam; Tseng et al. 2021).

    a_real and a_fake are moving averages of the mean logits up to the last update. The term is one-sided as in the
    authors' code, which averages in the logits of this update first. Up to `start_kimg` the term is 0 and the averages
    are the last update's means. Raises UsageError for a decay outside [0, 1).
    """
    if not 0 <= decay < 1:
        raise UsageError(f"the decay of lecam must be at least 0 and less than 1, given {decay}")

    def value(passed: Pass):
        real = passed.outputs["real"].logits
        fake = passed.outputs["fake"].logits
        averages = passed.memory
        kimg = passed.step.astype(jnp.float32) * (real.shape[0] * parallel.count()) / 1000
        started = (kimg > start_kimg).astype(jnp.float32)
        excess = jnp.square(jax.nn.relu(real - averages["fake"])) + jnp.square(jax.nn.relu(averages["real"] - fake))

        def moved(average, logits):
            current = jnp.mean(logits)
            return current + started * decay * (average - current)

        memory = {"real": moved(averages["real"], real), "fake": moved(averages["fake"], fake)}
        return started * excess, memory

    return Term(value, reads=("real", "fake"), init_memory={"real": jnp.zeros(()), "fake": jnp.zeros(())})


DISCRIMINATOR = {
    "consistency": consistency,
    "consistency_fake": consistency_fake,
    "latent_consistency": latent_consistency,
    "lecam": lecam,
}
GENERATOR = {"latent_diversity": latent_diversity}
