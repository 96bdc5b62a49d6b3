"""Optimizers: optax chains made from the names and numbers of a recipe."""

from collections.abc import Callable, Mapping, Set
from typing import Any

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
"""The share of the run that is done -> the factor of the learning rate."""


def scale_by_keras_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Adam in Keras' order of operations, which ends section 2 of Kingma & Ba (2015).

    It adds eps to the root of the second moment before it corrects the bias of that moment. So small gradients move
    parameters less than in algorithm 1 during the first 1 / (1 - b2) updates: with b2 = 0.999, eps counts 32-fold at
    first.
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
    """The optimizer of a recipe's section {name, learning_rate, b1, b2, eps, schedule}. Its numbers may be annealed.

    "linear" and "cosine" bring the learning rate to 0 over `total_updates`. "adam" is Kingma & Ba (2015), algorithm 1.
    `update` also takes `annealed`, how far annealing is, and `time_share`, the share of the run's minutes that is used.
    The schedule follows `time_share` if it is further than the updates. Raises UsageError for unknown names.
    """
    schedule = entry_named(SCHEDULES, section["schedule"], "learning rate schedule")
    optimizer = entry_named(OPTIMIZERS, section["name"], "optimizer")

    def at_rate(factor, annealed):
        numbers = {name: at(value, annealed) for name, value in section.items()}
        return optimizer(factor * numbers["learning_rate"], numbers)

    def init(params):
        return at_rate(1.0, 0.0).init(params)

    def update(gradients, state, params=None, *, annealed=0.0, time_share=0.0):
        count = state[0].count  # The first part of each optimizer's state holds Adam's moments.
        share = jnp.maximum(count / max(1, total_updates), time_share)
        return at_rate(schedule(share), annealed).update(gradients, state, params)

    return optax.GradientTransformationExtraArgs(init, update)


def freezing(optimizer: optax.GradientTransformation, frozen: Set[str]) -> optax.GradientTransformation:
    """The optimizer for all parameters but the `frozen` ones, such as params.Conv_0.kernel, which stay as they are."""
    if not frozen:
        return optimizer

    def kind(path, _):
        return "frozen" if f"params.{_name(path)}" in frozen else "trained"

    def kinds(params):
        return jax.tree_util.tree_map_with_path(kind, params)

    return optax.partition({"trained": optimizer, "frozen": optax.set_to_zero()}, kinds)


def keeping(before: Any, after: Any, frozen: Set[str]) -> Any:
    """A network's statistics `after` an update, but the `frozen` ones, such as batch_stats.Norm_0.mean, of `before`."""
    return jax.tree_util.tree_map_with_path(lambda path, a, b: b if _name(path) in frozen else a, after, before)


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
