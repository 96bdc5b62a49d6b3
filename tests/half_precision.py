"""What a network's bfloat16 must leave as it is."""

import jax
import jax.numpy as jnp
import numpy as np


def assert_nearly_the_same(make, inputs, labels):
    """`make(dtype)`'s result in bfloat16 is float32, as its variables are, and nearly that of float32."""
    wide, narrow = make("float32"), make("bfloat16")
    shapes = jax.eval_shape(lambda: narrow.init(jax.random.key(0), inputs, labels, False))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: np.abs(rng.normal(size=leaf.shape)).astype(np.float32) / 4, shapes)
    full, half = (
        jax.tree.leaves(jax.jit(network.apply, static_argnums=3)(variables, inputs, labels, False))[0]
        for network in (wide, narrow)
    )
    assert half.dtype == jnp.float32
    # 8 bits of mantissa, through a handful of layers.
    assert 0 < np.abs(full - half).mean() < 0.02 * np.abs(full).mean()
