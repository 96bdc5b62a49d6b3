"""What two or more architectures share. Activations are [N, H, W, C] or [N, F]; labels int32 [N]."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cgan_jax import convolution, replica
from cgan_jax.errors import UsageError

glorot_uniform = nn.initializers.glorot_uniform()


def leaky_relu(x: jax.Array) -> jax.Array:
    """max(x, x/5), the slope of the DCGAN family (Radford et al. 2016, section 3)."""
    return nn.leaky_relu(x, 0.2)


class Conv(nn.Module):
    """A square convolution with bias: [N, H, W, I] -> [N, H/stride, W/stride, features]."""

    features: int
    kernel_size: int
    stride: int = 1
    kernel_init: nn.initializers.Initializer = glorot_uniform

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = self.kernel_size
        kernel = self.param("kernel", self.kernel_init, (size, size, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return convolution.conv(x, kernel, self.stride) + bias.reshape(1, 1, 1, -1)


class ConvTranspose(nn.Module):
    """A square transposed convolution with bias: [N, H, W, I] -> [N, H*stride, W*stride, features]."""

    features: int
    kernel_size: int
    stride: int = 2
    kernel_init: nn.initializers.Initializer = glorot_uniform

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = self.kernel_size
        kernel = self.param("kernel", self.kernel_init, (size, size, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return convolution.conv_transpose(x, kernel, self.stride) + bias.reshape(1, 1, 1, -1)


class Dropout(nn.Module):
    """Zeroes each feature with probability `rate` when training (Srivastava et al. 2014, section 4).

    The mask of a sample depends on its place in the global batch alone, so one device and eight drop the same features.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if not 0.0 <= self.rate < 1.0:
            raise UsageError(f"dropout must be at least 0 and less than 1, given {self.rate}")
        if not train or self.rate == 0.0:
            return x
        keys = replica.sample_keys(self.make_rng("dropout"), x.shape[0])
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.rate, x.shape[1:]))(keys)
        return jnp.where(keep, x / (1 - self.rate), 0)


class LabelMap(nn.Module):
    """Labels as one more feature map: int32 [N] -> [N, side, side, 1], through an embedding and a dense layer.

    The conditioning of Mirza & Osindero (2014) in its convolutional form.
    """

    num_classes: int
    embedding_dim: int
    side: int

    @nn.compact
    def __call__(self, labels: jax.Array) -> jax.Array:
        embedding = nn.Embed(self.num_classes, self.embedding_dim)(labels)
        label_map = nn.Dense(self.side * self.side, kernel_init=glorot_uniform)(embedding)
        return label_map.reshape(-1, self.side, self.side, 1)
