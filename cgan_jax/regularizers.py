"""Further terms of a player's loss: what keeps it smooth, close to the data, or honest. Same shape as the losses."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cgan_jax import replica
from cgan_jax.terms import Pass, Term


def _squared_gradient_norms(passed: Pass, images: jax.Array, labels: jax.Array) -> jax.Array:
    """|d D(x) / d x|^2 for each image, [N]."""
    gradients = jax.grad(lambda x: jnp.sum(passed.discriminate(x, labels).logits))(images)
    return jnp.sum(jnp.square(gradients), axis=(1, 2, 3))


def gradient_penalty(target: float = 1.0) -> Term:
    """(|d D(u) / d u| - target)^2 at points between a real and a generated image (Gulrajani et al. 2017, eq. 3)."""

    def value(passed: Pass):
        real, fake = passed.batches["real"], passed.batches["fake"]
        keys = replica.sample_keys(passed.key, real.images.shape[0])
        mix = jax.vmap(jax.random.uniform)(keys)[:, None, None, None]
        between = mix * real.images + (1 - mix) * fake.images
        # The root's slope is infinite at 0, which a dead discriminator reaches.
        norms = jnp.sqrt(_squared_gradient_norms(passed, between, real.labels) + 1e-12)
        return jnp.square(norms - target), ()

    return Term(value, images=("real", "fake"))


def _zero_centred(name: str) -> Callable[[], Term]:
    def make() -> Term:
        def value(passed: Pass):
            batch = passed.batches[name]
            return _squared_gradient_norms(passed, batch.images, batch.labels) / 2, ()

        return Term(value, images=(name,))

    return make


r1 = _zero_centred("real")
r1.__doc__ = "|d D(x) / d x|^2 / 2 on real images; the weight is gamma (Mescheder et al. 2018, eq. 9)."
r2 = _zero_centred("fake")
r2.__doc__ = "|d D(x) / d x|^2 / 2 on generated images; the weight is gamma (Mescheder et al. 2018, eq. 10)."


def l2() -> Term:
    """Mean squared difference of a generated image and a real one of its class."""

    def value(passed: Pass):
        real, fake = passed.batches["real"].images, passed.batches["fake"].images
        return jnp.mean(jnp.square(fake - real), axis=(1, 2, 3)), ()

    return Term(value, images=("real", "fake"))


DISCRIMINATOR = {"gradient_penalty": gradient_penalty, "r1": r1, "r2": r2}
GENERATOR = {"l2": l2}
