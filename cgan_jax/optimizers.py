"""optax chains from the names and numbers of a recipe."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from cgan_jax.lookup import entry_named

SCHEDULES: dict[str, Callable[[float, float], Callable]] = {
    "constant": lambda start, total: lambda done: start,
    "linear": lambda start, total: optax.linear_schedule(start, 0.0, total),
    "cosine": lambda start, total: optax.cosine_decay_schedule(start, total),
}


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


def make(section: Mapping[str, object], total_updates: int) -> optax.GradientTransformation:
    """The optimizer of a recipe's section {name, learning_rate, b1, b2, eps, schedule}.

    "linear" and "cosine" bring the learning rate to 0 over `total_updates`; Adam is Kingma & Ba (2015), algorithm 1.
    """
    schedule = entry_named(SCHEDULES, section["schedule"], "learning rate schedule")
    optimizer = entry_named(OPTIMIZERS, section["name"], "optimizer")
    return optimizer(schedule(section["learning_rate"], max(1, total_updates)), section)
