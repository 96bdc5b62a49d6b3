"""Numbers of a recipe that move as its run goes on: from what the recipe says to what its `anneal.to` says.

All move together along half a cosine, from 0 at the first step to 1 after `anneal.kimg`, where they stay.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Annealed(NamedTuple):
    """A number that moves."""

    start: float
    end: float


Number = float | Annealed


def at(number: Number, annealed: jax.Array | float) -> jax.Array | float:
    """The number where a run's annealing is at `annealed`, 0 to 1; one that does not move stays a plain float."""
    if isinstance(number, Annealed):
        return number.start + annealed * (number.end - number.start)
    return number


def half_cosine(share: jax.Array) -> jax.Array:
    """How far annealing is after a share of its time: (1 - cos(pi share)) / 2, and 1 from there on."""
    return (1 - jnp.cos(jnp.pi * jnp.clip(share, 0, 1))) / 2


def moving(config: Mapping[str, Any], to: Mapping[str, Any]) -> dict[str, Any]:
    """The config with an Annealed in the place of each number that the partial config `to` has too."""
    return {
        name: moving(value, to.get(name, {}))
        if isinstance(value, Mapping)
        else Annealed(value, to[name])
        if name in to
        else value
        for name, value in config.items()
    }
