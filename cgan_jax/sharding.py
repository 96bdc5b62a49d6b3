"""How a step of one replica becomes a step over all devices: the mesh, and `shard_map` or `pmap` around it."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cgan_jax.replica import AXIS

PARALLELISMS = ("shard_map", "pmap")


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """All devices, or those given, along the one axis "data"."""
    devices = jax.devices() if devices is None else devices
    # Auto axes: with Explicit ones, the default, gradients of resized and transposed convolutions are refused.
    return Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device of the mesh holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree, mesh: Mesh):
    """A copy of a tree of arrays, whole on every device of the mesh, that shares no buffer with the original."""
    return jax.jit(lambda t: t, out_shardings=replicated(mesh))(tree)


def distribute(step: Callable, mesh: Mesh, parallelism: str = "shard_map") -> Callable:
    """The compiled step over a mesh: (state, data) -> (state, scalars), all of them replicated, the state donated.

    `step` describes one replica and returns values that are the same on every one.
    """
    if parallelism == "pmap":
        devices = list(mesh.devices.flat)
        mapped = jax.pmap(
            lambda state, data, _: step(state, data),
            AXIS,
            in_axes=(None, None, 0),
            out_axes=(None, None),
            devices=devices,
            donate_argnums=0,
        )
        # pmap insists on one argument with a part for each local device.
        places = np.arange(mesh.local_mesh.size)
        return lambda state, data: mapped(state, data, places)
    spec = PartitionSpec()
    mapped = jax.shard_map(step, mesh=mesh, in_specs=(spec, spec), out_specs=(spec, spec))
    return jax.jit(mapped, donate_argnums=0)


def per_sample(function: Callable, mesh: Mesh) -> Callable:
    """(variables, x [N, ...]) -> arrays [N, ...], compiled, every device doing its share of the N.

    For functions in which samples do not meet. N must be a multiple of the number of devices.
    """
    share = PartitionSpec(AXIS)
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=(PartitionSpec(), share), out_specs=share))
