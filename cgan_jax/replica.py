"""What one replica of the training step knows of the others: its place among them, means over all, keys per sample.

A step runs once per device on that device's share of the batch, under the named axis "data". Outside of it (sampling,
initialisation, tests) the same code is the only replica there is, so a network needs no twin for each use.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

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
    """The whole global batch's [N, ...] on every replica, from its own [n, ...]; gradients find their way back."""
    return lax.all_gather(x, AXIS, tiled=True) if is_mapped() else x


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
