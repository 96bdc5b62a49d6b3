"""Self-attention over the places of a feature map."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cgan_jax.layers import Conv, halve_to_largest, orthogonal


class SelfAttention(nn.Module):
    """Every place plus a gated sum over all places, by their likeness: [N, 2H, 2W, C] -> the same shape.

    Zhang et al. (2019), eq. 1 to 3, as BigGAN has it: 1x1 convolutions without bias of spectral norm 1, to C/8 features
    for queries and keys and C/2 for values; keys and values are the largest of each block of 2x2, which leaves a
    quarter of the places to sum over; the gate starts at 0. Likenesses are float32 and not scaled.
    """

    spectral_epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n, height, width, channels = x.shape

        def projected(y, features):
            features = max(1, features)
            return Conv(features, 1, 1, orthogonal, use_bias=False, spectral_epsilon=self.spectral_epsilon)(y)

        queries = projected(x, channels // 8).reshape(n, height * width, -1)
        keys = halve_to_largest(projected(x, channels // 8)).reshape(n, height * width // 4, -1)
        values = halve_to_largest(projected(x, channels // 2)).reshape(n, height * width // 4, -1)
        likenesses = jnp.einsum("nqc,nkc->nqk", queries, keys, preferred_element_type=jnp.float32)
        seen = jnp.einsum("nqk,nkc->nqc", jax.nn.softmax(likenesses).astype(x.dtype), values)
        gate = self.param("gate", nn.initializers.zeros, ())
        return x + gate.astype(x.dtype) * projected(seen.reshape(n, height, width, -1), channels)
