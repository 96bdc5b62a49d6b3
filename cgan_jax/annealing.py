"""Annealing: numbers of a recipe that move during the run, from their value in the recipe to that in `anneal.to`.

All move together along half a cosine, from 0 at the first step to 1 after `anneal.kimg`; then they stay.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Annealed(NamedTuple):
    """A number that moves from `start` to `end`."""

    start: float
    end: float


Number = float | Annealed


def at(number: Number, annealed: jax.Array | float) -> jax.Array | float:
    """The number when annealing is at `annealed`, 0 to 1. A number that does not move stays a plain float."""
    if isinstance(number, Annealed):
        return number.start + annealed * (number.end - number.start)
    return number


def half_cosine(share: jax.Array) -> jax.Array:
    """How far annealing is after a share of its time: (1 - cos(pi share)) / 2, and 1 if share > 1."""
    return (1 - jnp.cos(jnp.pi * jnp.clip(share, 0, 1))) / 2


def moving(config: Mapping[str, Any], to: Mapping[str, Any]) -> dict[str, Any]:
    """The config with an Annealed instead of each number that the partial config `to` also has."""
    annealed = dict(config)
    for name, value in config.items():
        if isinstance(value, Mapping):
            annealed[name] = moving(value, to.get(name, {}))
        elif name in to:
            annealed[name] = Annealed(value, to[name])
    return annealed
