"""What ends a discriminator: features float [N, F] and labels int32 [N] -> Output.

Heads compute in float32, whatever the features are. With `spectral_epsilon` their weights are of spectral norm 1.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cgan_jax.layers import Dense, Embed, glorot_uniform
from cgan_jax.terms import Output


class Unconditional(nn.Module):
    """One dense unit; the labels are not read (a discriminator may have seen them earlier, as a label map)."""

    kernel_init: nn.initializers.Initializer = glorot_uniform
    spectral_epsilon: float = 0.0

    @nn.compact
    def __call__(self, features: jax.Array, labels: jax.Array) -> Output:
        options = {"kernel_init": self.kernel_init, "spectral_epsilon": self.spectral_epsilon}
        return Output(Dense(1, **options)(features.astype(jnp.float32))[:, 0], {})


class Projection(nn.Module):
    """A dense unit plus the inner product with the label's embedding (Miyato & Koyama 2018, eq. 6)."""

    num_classes: int
    kernel_init: nn.initializers.Initializer = glorot_uniform
    spectral_epsilon: float = 0.0

    @nn.compact
    def __call__(self, features: jax.Array, labels: jax.Array) -> Output:
        options = {"kernel_init": self.kernel_init, "spectral_epsilon": self.spectral_epsilon}
        features = features.astype(jnp.float32)
        embedding = Embed(self.num_classes, features.shape[-1], **options)(labels)
        return Output(Dense(1, **options)(features)[:, 0] + jnp.sum(embedding * features, axis=-1), {})
