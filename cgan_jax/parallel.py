"""The data axis, from inside a step (means, keys per sample) and from outside (the mesh, `shard_map` or `pmap`).

A step runs once per device on the device's share of the batch, under the named axis "data". Outside this axis
(sampling, initialisation, tests) the same code is the only replica, so a network needs no second version.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cgan_jax import compilation
from cgan_jax.errors import UsageError

AXIS = "data"
# With this generator a random number does not depend on how many are drawn at once. JAX's others do not promise that.
PRNG = "threefry2x32"

Tree = TypeVar("Tree")

_PART: contextvars.ContextVar[tuple[jax.Array | int, int]] = contextvars.ContextVar("part", default=(0, 1))
_GROUPS: contextvars.ContextVar[int] = contextvars.ContextVar("groups", default=1)


def is_mapped() -> bool:
    """Whether this code is traced under the data axis."""
    try:
        lax.axis_index(AXIS)
    except NameError:
        return False
    return True


def count() -> int:
    """The number of replicas. Inside `part`, each of their parts counts as one."""
    _, parts = _PART.get()
    return parts * (lax.axis_size(AXIS) if is_mapped() else 1)


def index() -> jax.Array:
    """This replica's number, an int32 scalar. Inside `part`, that of the part."""
    number, parts = _PART.get()
    return parts * (lax.axis_index(AXIS) if is_mapped() else jnp.int32(0)) + number


@contextlib.contextmanager
def part(number: jax.Array, parts: int) -> Iterator[None]:
    """Code traced inside works on part `number` of a replica's batch, which is cut into equal `parts`."""
    token = _PART.set((number, parts))
    try:
        yield
    finally:
        _PART.reset(token)


def need_whole_batch(what: str) -> None:
    """Raises UsageError inside `part`: `what` is a function of all samples of a batch together."""
    if _PART.get()[1] > 1:
        raise UsageError(f"train.accumulate must be 1 with {what}, which depends on the whole batch")


@contextlib.contextmanager
def in_groups(groups: int) -> Iterator[None]:
    """Code traced inside takes statistics over equal groups of the global batch, in order, instead of all of it.

    The groups must divide the batch, and the number of replicas or be a multiple of it.
    """
    token = _GROUPS.set(groups)
    try:
        yield
    finally:
        _GROUPS.reset(token)


def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean and the variance of each feature over the group of a sample: x [n, ..., F] -> [1 or n, 1, ..., F].

    Without groups, that is over the global batch: [1, ..., 1, F]. If several groups share a replica, each of its n
    samples has a row. Both are float32.
    """
    own = max(1, _GROUPS.get() // count())
    parts = x.astype(jnp.float32).reshape(own, -1, *x.shape[1:])
    axes = tuple(range(1, parts.ndim - 1))
    if x.dtype == jnp.bfloat16:
        # One pass and one collective. If the mean is k standard deviations from 0, the difference of the squares rounds
        # by a few 1e-7 k^2 of the variance. The rounding of x to 8 bits has cost 1e-6 k^2 or more already.
        means, squares = _over_replicas((jnp.mean(parts, axes), jnp.mean(jnp.square(parts), axes)))
        variances = jnp.maximum(0, squares - jnp.square(means))
    else:
        means = _over_replicas(jnp.mean(parts, axes))
        distances = parts - means.reshape(own, *[1] * (parts.ndim - 2), -1)
        variances = _over_replicas(jnp.mean(jnp.square(distances), axes))

    def rows(moment):
        moment = jnp.repeat(moment, len(x) // own, axis=0) if own > 1 else moment
        return moment.reshape(-1, *[1] * (x.ndim - 2), x.shape[-1])

    return rows(means), rows(variances)


def _over_replicas(means: Tree) -> Tree:
    """Every array of a tree, all of one shape, as its mean over the replicas that share a group."""
    groups, replicas = _GROUPS.get(), count()
    if groups == 1:
        return mean(means)
    if groups >= replicas:
        return means
    first = range(0, replicas, replicas // groups)
    members = [list(range(i, i + replicas // groups)) for i in first]
    leaves, structure = jax.tree.flatten(means)
    gathered = lax.all_gather(jnp.stack(leaves), AXIS, axis_index_groups=members)  # XLA would not merge several
    return jax.tree.unflatten(structure, list(jnp.mean(gathered, axis=0)))


def mean(tree: Tree) -> Tree:
    """Every array of a tree as its mean over replicas, the same on each; the maximum for integer arrays."""
    if not is_mapped():
        return tree
    return jax.tree.map(
        lambda x: lax.pmean(x, AXIS) if jnp.issubdtype(x.dtype, jnp.floating) else lax.pmax(x, AXIS), tree
    )


def gathered(x: jax.Array) -> jax.Array:
    """The arrays [n, ...] of all replicas, concatenated: [replicas * n, ...], the same on each."""
    return lax.all_gather(x, AXIS, tiled=True) if is_mapped() else x


def own_part_of_sum(x: jax.Array) -> jax.Array:
    """This replica's n rows of the sum over replicas of arrays [replicas * n, ...] (a reduce-scatter): [n, ...]."""
    return lax.psum_scatter(x, AXIS, scatter_dimension=0, tiled=True) if is_mapped() else x


def varying(tree: Tree) -> Tree:
    """The tree with replicated arrays marked as varying, so that each replica differentiates its loss alone.

    Without the mark, `shard_map` sums the gradient over the replicas. A mean taken afterwards is then too large by the
    number of replicas, without an error.
    """
    if not is_mapped():
        return tree
    return jax.tree.map(lambda x: x if _varies(x) else lax.pcast(x, AXIS, to="varying"), tree)


def varying_alike(*arrays: jax.Array) -> list[jax.Array]:
    """The arrays, each marked as varying over every mesh axis over which one of them varies.

    Inside shard_map, a replicated kernel then gets the summed gradient that lax gives it. jax.custom_vjp cannot insert
    that sum.
    """
    axes = [jax.typeof(array).manual_axis_type.varying for array in arrays]
    union = frozenset().union(*axes)
    return [lax.pcast(array, tuple(union - own), to="varying") for array, own in zip(arrays, axes, strict=True)]


def _varies(x: jax.Array) -> bool:
    return AXIS in jax.typeof(x).manual_axis_type.varying


def sample_indices(n: int) -> jax.Array:
    """The indices of this replica's n samples in the global batch, int32 [n]."""
    return index() * n + jnp.arange(n, dtype=jnp.int32)


def sample_keys(key: jax.Array, n: int) -> jax.Array:
    """One key for each of this replica's n samples, [n]. A sample's key does not depend on the number of replicas."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, sample_indices(n))


# From outside: a step of one replica becomes a step over all devices.

PARALLELISMS = ("shard_map", "pmap")
WHOLE, PARTS = PartitionSpec(), PartitionSpec(AXIS)


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh of all devices, or of those given, with the one axis "data"."""
    devices = jax.devices() if devices is None else devices
    # Auto axes: with Explicit axes, the default, JAX refuses gradients of resized and transposed convolutions.
    return Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding in which every device of the mesh holds the whole array."""
    return NamedSharding(mesh, WHOLE)


def replicate(tree, mesh: Mesh):
    """A copy of a tree of arrays on every device of the mesh. It shares no buffer with the original."""
    return jax.jit(lambda t: t, out_shardings=replicated(mesh))(tree)


def everywhere(number: float, mesh: Mesh) -> jax.Array:
    """A float32 scalar on every device of the mesh. This compiles nothing."""
    return jax.make_array_from_callback((), replicated(mesh), lambda _: np.float32(number))


def over_all(tree, mesh: Mesh):
    """A tree of arrays that every process holds whole on each of its devices, as replicated arrays of the mesh."""
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
    """A replicated tree on this process's first device, which can be read without the other processes."""
    return jax.tree.map(lambda x: x.addressable_data(0), tree)


def in_parts(shape: tuple[int, ...], part: Callable[[slice], np.ndarray], mesh: Mesh) -> jax.Array:
    """An array split over the devices along its first axis; `part` makes the shares of this process, by slice."""
    return jax.make_array_from_callback(shape, NamedSharding(mesh, PARTS), lambda index: part(index[0]))


def own_parts(tree, spec, mesh: Mesh):
    """This process's part of arrays over the mesh, as pmap takes it. `spec` says which of them are in PARTS."""
    if mesh.local_mesh.size == mesh.size:
        return tree
    local = NamedSharding(mesh.local_mesh, PARTS)

    def own(spec: PartitionSpec, x: jax.Array) -> jax.Array:
        if spec == WHOLE:
            return x
        if isinstance(x, jax.core.Tracer):  # to count arithmetic, for which any parts do
            return x[: mesh.local_mesh.size]
        shards = [shard.data for shard in x.addressable_shards]
        return jax.make_array_from_single_device_arrays((len(shards), *x.shape[1:]), local, shards)

    return jax.tree.map(lambda spec, x: jax.tree.map(lambda leaf: own(spec, leaf), x), spec, tree, is_leaf=_is_spec)


def _is_spec(x) -> bool:
    return isinstance(x, PartitionSpec)


def platform_of(mesh: Mesh) -> str:
    """The platform of a mesh, "cpu", "gpu" or "tpu". Its devices need not be attached."""
    return mesh.devices.flat[0].platform


def distribute(step: Callable, mesh: Mesh, parallelism: str = "shard_map", data_spec=WHOLE) -> Callable:
    """The compiled step over a mesh: (state, data) -> (state, scalars), all replicated; it donates the state.

    `step` describes one replica and returns the same values on each. `data_spec`, a prefix tree of the data, has PARTS
    for the arrays that are split: of these a replica sees its share of the first axis.
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
        # pmap needs one argument with a part for each local device.
        per_device = jax.device_put(np.arange(mesh.local_mesh.size), NamedSharding(mesh.local_mesh, PARTS))
        return lambda state, data: over_all(mapped(state, own_parts(data, data_spec, mesh), per_device), mesh)
    mapped = jax.shard_map(step, mesh=mesh, in_specs=(WHOLE, data_spec), out_specs=(WHOLE, WHOLE))
    return compilation.jit(mapped, platform_of(mesh), donate_argnums=0)


def per_sample(function: Callable, mesh: Mesh) -> Callable:
    """The compiled (variables, x [N, ...]) -> arrays [N, ...], in which every device computes its share of the N.

    Samples must not depend on each other. N must be a multiple of the number of devices.
    """
    mapped = jax.shard_map(function, mesh=mesh, in_specs=(WHOLE, PARTS), out_specs=PARTS)
    return compilation.jit(mapped, platform_of(mesh))
