"""optax chains from the names and numbers of a recipe."""

from collections.abc import Callable, Mapping

import optax

from cgan_jax.lookup import entry_named

SCHEDULES: dict[str, Callable[[float, float], Callable]] = {
    "constant": lambda start, total: lambda done: start,
    "linear": lambda start, total: optax.linear_schedule(start, 0.0, total),
    "cosine": lambda start, total: optax.cosine_decay_schedule(start, total),
}

OPTIMIZERS = {
    "adam": lambda rate, section: optax.adam(rate, b1=section["b1"], b2=section["b2"], eps=section["eps"]),
}


def make(section: Mapping[str, object], total_updates: int) -> optax.GradientTransformation:
    """The optimizer of a recipe's section {name, learning_rate, b1, b2, eps, schedule}.

    "linear" and "cosine" bring the learning rate to 0 over `total_updates`; Adam is Kingma & Ba (2015), algorithm 1.
    """
    schedule = entry_named(SCHEDULES, section["schedule"], "learning rate schedule")
    optimizer = entry_named(OPTIMIZERS, section["name"], "optimizer")
    return optimizer(schedule(section["learning_rate"], max(1, total_updates)), section)
