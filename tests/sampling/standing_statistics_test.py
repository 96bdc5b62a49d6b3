"""Standing statistics, against means and variances of the activations themselves."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax.networks.layers import BatchNorm
from cgan_jax.sampling import standing_statistics


class Network(nn.Module):
    norm: type[nn.Module]

    @nn.compact
    def __call__(self, latents, labels, train):
        x = nn.Dense(5, name="dense")(latents)
        x = self.norm(name="norm")(x, train) if self.norm is BatchNorm else self.norm(not train, name="norm")(x)
        return x.reshape(-1, 1, 5, 1)


def inputs(start, n):
    indices = start + jnp.arange(n)
    latents = jax.vmap(lambda i: 3 + 2 * jax.random.normal(jax.random.fold_in(jax.random.key(0), i), (4,)))(indices)
    return latents, jnp.zeros(n, jnp.int32)


@pytest.mark.parametrize("norm", [BatchNorm, nn.BatchNorm])
def test_they_are_the_means_over_batches_whatever_the_layer_and_its_momentum(norm, monkeypatch):
    monkeypatch.setattr(standing_statistics, "_BATCHES", 3)
    network = Network(norm)
    with jax.numpy_rank_promotion("allow"):  # Flax's own layer broadcasts between ranks
        variables = network.init(jax.random.key(1), *inputs(0, 2), train=False)
        measured = standing_statistics.measured(network, variables, inputs)
    batches = [np.asarray(inputs(128 * batch, 128)[0], np.float64) for batch in range(3)]
    dense = variables["params"]["dense"]
    x = [batch @ np.asarray(dense["kernel"], np.float64) + np.asarray(dense["bias"]) for batch in batches]
    expected = [np.mean([part.mean(axis=0) for part in x], axis=0), np.mean([part.var(axis=0) for part in x], axis=0)]
    found = jax.tree.leaves(measured["batch_stats"])  # mean, then var or variance
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert measured["params"] is variables["params"]
