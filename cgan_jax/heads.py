"""What ends a discriminator: features float [N, F] and labels int32 [N] -> Output."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cgan_jax.layers import glorot_uniform
from cgan_jax.terms import Output


class Unconditional(nn.Module):
    """One dense unit; the labels are not read (a discriminator may have seen them earlier, as a label map)."""

    @nn.compact
    def __call__(self, features: jax.Array, labels: jax.Array) -> Output:
        logits = nn.Dense(1, kernel_init=glorot_uniform)(features)
        return Output(logits[:, 0].astype(jnp.float32), {})


class Projection(nn.Module):
    """A dense unit plus the inner product with the label's embedding (Miyato & Koyama 2018, eq. 6)."""

    num_classes: int

    @nn.compact
    def __call__(self, features: jax.Array, labels: jax.Array) -> Output:
        logits = nn.Dense(1, kernel_init=glorot_uniform)(features)[:, 0]
        embedding = nn.Embed(self.num_classes, features.shape[-1], embedding_init=glorot_uniform)(labels)
        return Output((logits + jnp.sum(embedding * features, axis=-1)).astype(jnp.float32), {})
