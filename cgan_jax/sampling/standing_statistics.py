"""Standing statistics: batch normalisation by statistics of images that the generator draws.

Brock, Donahue & Simonyan (2019), appendix D: the running averages of training lag behind the weights and know nothing
of truncated latents. Here the statistics of batches are averaged, each batch having the same weight.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cgan_jax import compilation
from cgan_jax.train_state import Tree

COLLECTION = "batch_stats"
_BATCHES, _BATCH_SIZE = 16, 128


def measured(
    generator: nn.Module, variables: Tree, inputs: Callable[[jax.Array, int], tuple[jax.Array, jax.Array]]
) -> Tree:
    """The variables with the mean statistics of 16 batches of 128; inputs(start, n) -> (latents, labels) of n samples.

    A layer keeps momentum * running + (1 - momentum) * batch, with a momentum that is not known here. Its results for
    running statistics 0 and 1 differ by the momentum (the median, because large statistics round), which gives batch.
    """

    @compilation.jit
    def of_batch(variables: Tree, start: jax.Array) -> Tree:
        latents, labels = inputs(start, _BATCH_SIZE)

        def after(before: float) -> Tree:
            running = jax.tree.map(lambda x: jnp.full_like(x, before), variables[COLLECTION])
            _, moved = generator.apply(
                {**variables, COLLECTION: running}, latents, labels, train=True, mutable=[COLLECTION]
            )
            return moved[COLLECTION]

        from_zero, from_one = after(0.0), after(1.0)
        return jax.tree.map(lambda zero, one: zero / (1 - jnp.median(one - zero)), from_zero, from_one)

    total = jax.tree.map(jnp.zeros_like, variables[COLLECTION])
    for batch in range(_BATCHES):
        statistics = of_batch(variables, jnp.int32(batch * _BATCH_SIZE))
        total = jax.tree.map(jnp.add, total, statistics)
    return {**variables, COLLECTION: jax.tree.map(lambda x: x / _BATCHES, total)}
