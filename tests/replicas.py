"""Runs a function as every number of replicas that the tests simulate, by both ways of mapping it."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec

from cgan_jax.parallel import AXIS

WAYS = [("alone", 1)] + [(kind, n) for kind in ("shard_map", "pmap") for n in (1, 2, 4, 8)]
"""What `on_replicas` takes: "alone" is outside of any mapping."""
FEW_WAYS = [("alone", 1), ("shard_map", 8), ("pmap", 8)]


def on_replicas(way: tuple[str, int], function: Callable, *shared):
    """`function(*shared)` on each replica, `shared` whole on each; their results stacked along a new first axis."""
    kind, n = way
    if kind == "alone":
        return jax.tree.map(lambda x: x[None], jax.jit(function)(*shared))
    places, devices = np.arange(n), jax.devices()[:n]
    if kind == "pmap":
        mapped = jax.pmap(
            lambda _, *given: function(*given), AXIS, in_axes=(0,) + (None,) * len(shared), devices=devices
        )
        return mapped(places, *shared)
    mesh = Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))
    whole, parted = PartitionSpec(), PartitionSpec(AXIS)
    mapped = jax.shard_map(
        lambda _, *given: jax.tree.map(lambda x: x[None], function(*given)),
        mesh=mesh,
        in_specs=(parted,) + (whole,) * len(shared),
        out_specs=parted,
    )
    return jax.jit(mapped)(places, *shared)
