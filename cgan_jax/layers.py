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


class BatchNorm(nn.Module):
    """Each feature to mean 0 and variance 1, then scaled and shifted (Ioffe & Szegedy 2015, algorithm 1).

    When training, by the statistics of the global batch: one device and eight compute the same. The running statistics
    (collection "batch_stats"), which replace them when not training, move exactly when that collection is mutable:

        running = momentum * running + (1 - momentum) * batch's

    with the batch's variance divided by its size, as in Keras and Flax; PyTorch divides by one less, and its momentum
    is our 1 - momentum. Statistics are float32 whatever the activations are.
    """

    momentum: float = 0.99
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        features, wide = x.shape[-1:], x.astype(jnp.float32)
        scale = self.param("scale", nn.initializers.ones, features)
        bias = self.param("bias", nn.initializers.zeros, features)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features)
        running_variance = self.variable("batch_stats", "variance", jnp.ones, features)
        mean, variance = running_mean.value, running_variance.value
        if train:
            every_sample = tuple(range(x.ndim - 1))
            mean = replica.mean(jnp.mean(wide, every_sample))
            # Not E[x^2] - mean^2, which saves an exchange and is no variance at all where the mean is large.
            variance = replica.mean(jnp.mean(jnp.square(wide - _as_last(mean, x)), every_sample))
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                running_mean.value = _towards(running_mean.value, mean, self.momentum)
                running_variance.value = _towards(running_variance.value, variance, self.momentum)
        factor = scale * jax.lax.rsqrt(variance + self.epsilon)
        return ((wide - _as_last(mean, x)) * _as_last(factor, x) + _as_last(bias, x)).astype(x.dtype)


def _as_last(vector: jax.Array, x: jax.Array) -> jax.Array:
    """[F] with as many axes as x, to meet its last."""
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))


def _towards(running: jax.Array, now: jax.Array, momentum: float) -> jax.Array:
    return momentum * running + (1 - momentum) * now


def upsample(x: jax.Array) -> jax.Array:
    """Each pixel twice in both directions (nearest neighbour): [N, H, W, C] -> [N, 2H, 2W, C]."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


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
