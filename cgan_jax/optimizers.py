"""optax chains from the names and numbers of a recipe."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from cgan_jax.annealing import at, half_cosine
from cgan_jax.lookup import entry_named

SCHEDULES: dict[str, Callable[[jax.Array], jax.Array | float]] = {
    "constant": lambda share: 1.0,
    "linear": lambda share: 1 - jnp.clip(share, 0, 1),
    "cosine": lambda share: 1 - half_cosine(share),
}
"""The learning rate's factor after a share of the run."""


def scale_by_keras_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Adam as Keras has it, in the order that ends section 2 of Kingma & Ba (2015).

    eps is added to the root of the second moment before that is corrected for its start at 0, so that in the first
    1 / (1 - b2) updates small gradients move less than by algorithm 1: with b2 = 0.999, eps counts 32-fold at first.
    """
    moments = optax.scale_by_adam(b1, b2)

    def update(gradients, state, params=None):
        _, state = moments.update(gradients, state, params)
        count = state.count.astype(jnp.float32)
        correction = jnp.sqrt(1 - b2**count) / (1 - b1**count)
        return jax.tree.map(lambda m, v: correction * m / (jnp.sqrt(v) + eps), state.mu, state.nu), state

    return optax.GradientTransformation(moments.init, update)


OPTIMIZERS = {
    "adam": lambda rate, section: optax.adam(rate, b1=section["b1"], b2=section["b2"], eps=section["eps"]),
    "keras_adam": lambda rate, section: optax.chain(
        scale_by_keras_adam(section["b1"], section["b2"], section["eps"]), optax.scale_by_learning_rate(rate)
    ),
}


def make(section: Mapping[str, object], total_updates: int) -> optax.GradientTransformationExtraArgs:
    """The optimizer of a recipe's section {name, learning_rate, b1, b2, eps, schedule}, whose numbers may be annealed.

    "linear" and "cosine" bring the learning rate to 0 over `total_updates`; Adam is Kingma & Ba (2015), algorithm 1.
    Its `update` takes besides how far annealing is, `annealed`, and the `time_share` of a run whose minutes are
    limited, which may be further than its updates are.
    """
    schedule = entry_named(SCHEDULES, section["schedule"], "learning rate schedule")
    optimizer = entry_named(OPTIMIZERS, section["name"], "optimizer")

    def at_rate(factor, annealed):
        numbers = {name: at(value, annealed) for name, value in section.items()}
        return optimizer(factor * numbers["learning_rate"], numbers)

    def init(params):
        return at_rate(1.0, 0.0).init(params)

    def update(gradients, state, params=None, *, annealed=0.0, time_share=0.0):
        count = state[0].count  # both optimizers begin with Adam's moments
        share = jnp.maximum(count / max(1, total_updates), time_share)
        return at_rate(schedule(share), annealed).update(gradients, state, params)

    return optax.GradientTransformationExtraArgs(init, update)
