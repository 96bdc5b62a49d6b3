"""The data axis seen from inside (means, keys per sample) and from outside (the mesh, `shard_map` or `pmap`).

A step runs once per device on that device's share of the batch, under the named axis "data". Outside of it (sampling,
initialisation, tests) the same code is the only replica there is, so a network needs no twin for each use.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"
# Numbers must not depend on how many are drawn at once, which jax's other generators do not promise.
PRNG = "threefry2x32"

Tree = TypeVar("Tree")


def is_mapped() -> bool:
    """Whether this code is being traced under the data axis."""
    try:
        lax.axis_index(AXIS)
    except NameError:
        return False
    return True


def count() -> int:
    """The number of replicas."""
    return lax.axis_size(AXIS) if is_mapped() else 1


def index() -> jax.Array:
    """This replica's number, an int32 scalar."""
    return lax.axis_index(AXIS) if is_mapped() else jnp.int32(0)


def mean(tree: Tree) -> Tree:
    """The mean over all replicas of every array of a tree, the same on each; of whole numbers the largest."""
    if not is_mapped():
        return tree
    return jax.tree.map(
        lambda x: lax.pmean(x, AXIS) if jnp.issubdtype(x.dtype, jnp.floating) else lax.pmax(x, AXIS), tree
    )


def gathered(x: jax.Array) -> jax.Array:
    """The arrays [n, ...] of all replicas one after the other, [replicas * n, ...], the same on each."""
    return lax.all_gather(x, AXIS, tiled=True) if is_mapped() else x


def own_part_of_sum(x: jax.Array) -> jax.Array:
    """Of the sum over all replicas of arrays [replicas * n, ...] the n rows that are this one's, [n, ...]."""
    return lax.psum_scatter(x, AXIS, scatter_dimension=0, tiled=True) if is_mapped() else x


def varying(tree: Tree) -> Tree:
    """Marks replicated arrays as each replica's own, to be differentiated by its own loss.

    Without it `shard_map` sums the gradient over the replicas by itself, and the mean taken afterwards is silently too
    large by their number.
    """
    if not is_mapped():
        return tree
    return jax.tree.map(lambda x: x if _varies(x) else lax.pcast(x, AXIS, to="varying"), tree)


def _varies(x: jax.Array) -> bool:
    return AXIS in jax.typeof(x).manual_axis_type.varying


def sample_indices(n: int) -> jax.Array:
    """The places in the global batch of this replica's n samples, int32 [n]."""
    return index() * n + jnp.arange(n, dtype=jnp.int32)


def sample_keys(key: jax.Array, n: int) -> jax.Array:
    """One key for each of this replica's n samples, [n]: the same for a sample whatever the number of replicas."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, sample_indices(n))


# From outside: what a step of one replica becomes over all devices.

PARALLELISMS = ("shard_map", "pmap")
WHOLE, PARTS = PartitionSpec(), PartitionSpec(AXIS)


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """All devices, or those given, along the one axis "data"."""
    devices = jax.devices() if devices is None else devices
    # Auto axes: with Explicit ones, the default, gradients of resized and transposed convolutions are refused.
    return Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device of the mesh holds the whole array."""
    return NamedSharding(mesh, WHOLE)


def replicate(tree, mesh: Mesh):
    """A copy of a tree of arrays, whole on every device of the mesh, that shares no buffer with the original."""
    return jax.jit(lambda t: t, out_shardings=replicated(mesh))(tree)


def everywhere(number: float, mesh: Mesh) -> jax.Array:
    """A float32 scalar on every device of the mesh, for which nothing is compiled."""
    return jax.make_array_from_callback((), replicated(mesh), lambda _: np.float32(number))


def over_all(tree, mesh: Mesh):
    """Arrays that this process has whole on each of its devices, and every other process too, as ones of the mesh."""
    if mesh.local_mesh.size == mesh.size or any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(tree)):
        return tree
    sharding = replicated(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_single_device_arrays(
            x.shape, sharding, [shard.data for shard in x.addressable_shards]
        ),
        tree,
    )


def on_one_device(tree):
    """A replicated tree as this process's first device has it: to be read there without the other processes."""
    return jax.tree.map(lambda x: x.addressable_data(0), tree)


def in_parts(shape: tuple[int, ...], part: Callable[[slice], np.ndarray], mesh: Mesh) -> jax.Array:
    """An array of which every device has its share of the first axis; `part` makes those of this process."""
    return jax.make_array_from_callback(shape, NamedSharding(mesh, PARTS), lambda place: part(place[0]))


def own_parts(tree, spec, mesh: Mesh):
    """Of arrays over the mesh what this process has, as pmap takes it: what is in parts, without the other parts."""
    if mesh.local_mesh.size == mesh.size:
        return tree
    local = NamedSharding(mesh.local_mesh, PARTS)

    def own(spec: PartitionSpec, x: jax.Array) -> jax.Array:
        if spec == WHOLE:
            return x
        if isinstance(x, jax.core.Tracer):  # to count arithmetic, for which any parts will do
            return x[: mesh.local_mesh.size]
        shards = [shard.data for shard in x.addressable_shards]
        return jax.make_array_from_single_device_arrays((len(shards), *x.shape[1:]), local, shards)

    return jax.tree.map(lambda spec, x: jax.tree.map(lambda leaf: own(spec, leaf), x), spec, tree, is_leaf=_is_spec)


def _is_spec(x) -> bool:
    return isinstance(x, PartitionSpec)


def distribute(step: Callable, mesh: Mesh, parallelism: str = "shard_map", data_spec=WHOLE) -> Callable:
    """The compiled step over a mesh: (state, data) -> (state, scalars), replicated, the state donated.

    `step` describes one replica and returns values that are the same on every one. The data are replicated too, but
    for what `data_spec`, a tree above them, has in PARTS: of that a replica sees its share of the first axis.
    """
    if parallelism == "pmap":
        devices = list(mesh.devices.flat)
        axes = jax.tree.map(lambda spec: None if spec == WHOLE else 0, data_spec, is_leaf=_is_spec)
        mapped = jax.pmap(
            lambda state, data, _: step(state, data),
            AXIS,
            in_axes=(None, axes, 0),
            out_axes=(None, None),
            devices=devices,
            donate_argnums=0,
        )
        # pmap insists on one argument with a part for each local device.
        places = jax.device_put(np.arange(mesh.local_mesh.size), NamedSharding(mesh.local_mesh, PARTS))
        return lambda state, data: over_all(mapped(state, own_parts(data, data_spec, mesh), places), mesh)
    mapped = jax.shard_map(step, mesh=mesh, in_specs=(WHOLE, data_spec), out_specs=(WHOLE, WHOLE))
    return jax.jit(mapped, donate_argnums=0)


def per_sample(function: Callable, mesh: Mesh) -> Callable:
    """(variables, x [N, ...]) -> arrays [N, ...], compiled, every device doing its share of the N.

    For functions in which samples do not meet. N must be a multiple of the number of devices.
    """
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=(WHOLE, PARTS), out_specs=PARTS))
