"""The layers that two or more architectures share. Activations are [N, H, W, C] or [N, F]; labels int32 [N]."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from cgan_jax import parallel
from cgan_jax.errors import UsageError
from cgan_jax.lookup import entry_named
from cgan_jax.networks import convolution
from cgan_jax.networks.spectral_norm import SpectralNorm

glorot_uniform = nn.initializers.glorot_uniform()
orthogonal = nn.initializers.orthogonal()
"""The columns of a kernel's [-1, features] form are orthonormal, or its rows if it is wide (Saxe et al. 2014)."""

_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def activation_dtype(name: str) -> jnp.dtype:
    """The dtype of a network's activations, "float32" or "bfloat16"; its parameters are always float32.

    A layer computes in the dtype of its input. Raises UsageError for another name.
    """
    return jnp.dtype(entry_named(_DTYPES, name, "dtype"))


def leaky_relu(x: jax.Array) -> jax.Array:
    """max(x, x/5), with the slope of DCGAN (Radford et al. 2016, section 3)."""
    return nn.leaky_relu(x, 0.2)


def _weights(layer: nn.Module, name: str, shape: tuple[int, ...]) -> jax.Array:
    """A layer's parameter, drawn by its kernel_init; divided by its spectral norm if spectral_epsilon is not 0."""
    weights = layer.param(name, layer.kernel_init, shape)
    return SpectralNorm(layer.spectral_epsilon)(weights) if layer.spectral_epsilon else weights


class Conv(nn.Module):
    """A square convolution and a bias: [N, H, W, I] -> [N, H/stride, W/stride, features]."""

    features: int
    kernel_size: int
    stride: int = 1
    kernel_init: nn.initializers.Initializer = glorot_uniform
    use_bias: bool = True
    spectral_epsilon: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = _weights(self, "kernel", (self.kernel_size, self.kernel_size, x.shape[-1], self.features))
        y = self._convolved(x, kernel)
        if self.use_bias:
            y += _as_last(self.param("bias", nn.initializers.zeros, (self.features,)), y).astype(y.dtype)
        return y

    def _convolved(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolution.conv(x, kernel.astype(x.dtype), self.stride)


class UpsampledConv(Conv):
    """A convolution of `upsample(x)`: [N, H, W, I] -> [N, 2H, 2W, features].

    Unless the kernel is 1x1 (see `_resampled`), it is a transposed convolution. Its kernel adds the taps that multiply
    one pixel: for 3x3, 16 multiplications per pixel of x instead of 36.
    """

    def _convolved(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return _resampled(self._in_one, self._in_two, x, kernel)

    def _in_one(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolution.conv_transpose(x, _doubled(kernel).astype(x.dtype), 2)

    def _in_two(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return upsample(convolution.conv(x, kernel.astype(x.dtype)))


class PooledConv(Conv):
    """`halve` of a convolution: [N, H, W, I] -> [N, H/2, W/2, features].

    Unless the kernel is 1x1 (see `_resampled`), it is one convolution of stride 2 whose kernel is the mean of the four
    shifted kernels: for 3x3, 16 taps instead of 36.
    """

    def _convolved(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return _resampled(self._in_one, self._in_two, x, kernel)

    def _in_one(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolution.conv(x, (_doubled(kernel) / 4).astype(x.dtype), 2)

    def _in_two(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolution.conv(halve(x), kernel.astype(x.dtype))


def _resampled(in_one: Callable, in_two: Callable, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution that also doubles or halves sides, in one operation or in two.

    A 1x1 kernel commutes with both, so two operations take a quarter of the multiplications. But a TPU moves whole rows
    of channels, and repeats pixels slowly. Compiled for a v5e in bfloat16, two -> one, in million cycles: a generator's
    block of 64 images from 16 to 32 pixels, 256 channels: 2.17 -> 1.72; a discriminator's of 128 images from 16 to 8,
    128 channels, with its gradient: 0.79 -> 0.67.
    """
    if kernel.shape[0] > 1:
        return in_one(x, kernel)
    return lax.platform_dependent(x, kernel, tpu=in_one, default=in_two)


def _doubled(kernel: jax.Array) -> jax.Array:
    """The sum of a kernel shifted to the four pixels of a 2x2 block: [k, k, I, O] -> [k+1, k+1, I, O]."""
    paddings = [((y, 1 - y), (x, 1 - x), (0, 0), (0, 0)) for y in (0, 1) for x in (0, 1)]
    return sum(jnp.pad(kernel, padding) for padding in paddings)


class Dense(nn.Module):
    """A matrix product and a bias: [N, F] -> [N, features]."""

    features: int
    kernel_init: nn.initializers.Initializer = glorot_uniform
    use_bias: bool = True
    spectral_epsilon: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = x @ _weights(self, "kernel", (x.shape[-1], self.features)).astype(x.dtype)
        if self.use_bias:
            y += _as_last(self.param("bias", nn.initializers.zeros, (self.features,)), y).astype(y.dtype)
        return y


class Embed(nn.Module):
    """A vector per class: int32 [N] -> float32 [N, features]."""

    num_classes: int
    features: int
    kernel_init: nn.initializers.Initializer = glorot_uniform
    spectral_epsilon: float = 0.0

    @nn.compact
    def __call__(self, labels: jax.Array) -> jax.Array:
        return _weights(self, "embedding", (self.num_classes, self.features))[labels]


class ConvTranspose(nn.Module):
    """A square transposed convolution and a bias: [N, H, W, I] -> [N, H*stride, W*stride, features]."""

    features: int
    kernel_size: int
    stride: int = 2
    kernel_init: nn.initializers.Initializer = glorot_uniform

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = self.kernel_size
        kernel = self.param("kernel", self.kernel_init, (size, size, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        y = convolution.conv_transpose(x, kernel.astype(x.dtype), self.stride)
        return y + _as_last(bias, y).astype(y.dtype)


class Dropout(nn.Module):
    """Sets each feature to 0 with probability `rate` in training (Srivastava et al. 2014, section 4).

    A sample's mask depends only on its index in the global batch, so one device and eight drop the same features.
    Raises UsageError for a rate outside [0, 1).
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if not 0.0 <= self.rate < 1.0:
            raise UsageError(f"dropout must be at least 0 and less than 1, given {self.rate}")
        if not train or self.rate == 0.0:
            return x
        keys = parallel.sample_keys(self.make_rng("dropout"), x.shape[0])
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.rate, x.shape[1:]))(keys)
        return jnp.where(keep, x / (1 - self.rate), 0)


class BatchNorm(nn.Module):
    """Normalises each feature to mean 0 and variance 1, scales and shifts it (Ioffe & Szegedy 2015, algorithm 1).

    Training uses the statistics of the global batch, or of a sample's group of it (parallel.in_groups), so one device
    and eight compute the same. Otherwise the layer uses the running statistics (collection "batch_stats"). They change
    exactly when training with that collection mutable:

        running = momentum * running + (1 - momentum) * batch's

    The batch's variance is the mean squared deviation, as in Keras and Flax. PyTorch divides by the size less one, and
    its momentum is our 1 - momentum. Statistics are float32 for every dtype of activations. Raises UsageError for a
    momentum below 0, and for 1 or more.
    """

    momentum: float = 0.99
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return self._normalized(x, _as_last(scale, x), _as_last(bias, x), train)

    def _normalized(self, x: jax.Array, scale: jax.Array, bias: jax.Array, train: bool) -> jax.Array:
        """x normalised; `scale` and `bias` broadcast to its shape and have as many axes."""
        if not 0 <= self.momentum < 1:
            raise UsageError(
                f"the momentum of batch statistics must be at least 0 and less than 1, given {self.momentum}"
            )
        features = x.shape[-1:]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features)
        running_variance = self.variable("batch_stats", "variance", jnp.ones, features)
        mean, variance = _as_last(running_mean.value, x), _as_last(running_variance.value, x)
        if train:
            parallel.need_whole_batch("batch normalisation")
            mean, variance = parallel.moments(x)
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                running_mean.value = self._moved(running_mean.value, mean)
                running_variance.value = self._moved(running_variance.value, variance)
        factor = scale * jax.lax.rsqrt(variance + self.epsilon)
        return ((x.astype(jnp.float32) - mean) * factor + bias).astype(x.dtype)

    def _moved(self, running: jax.Array, current: jax.Array) -> jax.Array:
        """`running` [F], moved towards the mean over groups of `current` [1 or N, 1, ..., F]."""
        current = (
            jnp.mean(current.reshape(-1, *running.shape), 0) if len(current) > 1 else current.reshape(running.shape)
        )
        return self.momentum * running + (1 - self.momentum) * current


class ClassBatchNorm(BatchNorm):
    """BatchNorm with a scale and a bias per class: x [N, H, W, C], labels int32 [N] -> [N, H, W, C].

    The scale is 1 + the class's embedding (Dumoulin et al. 2017, eq. 5; Miyato & Koyama 2018 also start from 1).
    """

    num_classes: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, labels: jax.Array, train: bool) -> jax.Array:
        scale = Embed(self.num_classes, x.shape[-1], orthogonal, name="scale")(labels)
        bias = Embed(self.num_classes, x.shape[-1], orthogonal, name="bias")(labels)
        return self._normalized(x, 1 + _of_sample(scale, x), _of_sample(bias, x), train)


class ConditionalBatchNorm(BatchNorm):
    """BatchNorm with a scale and a bias from a vector: x [N, H, W, C], vectors [N, F] -> [N, H, W, C].

    The scale is 1 + a linear map of the vector; the bias is another linear map. Both maps have spectral norm 1 and no
    bias (Brock, Donahue & Simonyan 2019, appendix B.1).
    """

    spectral_epsilon: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, vectors: jax.Array, train: bool) -> jax.Array:
        linear = functools.partial(
            Dense, x.shape[-1], orthogonal, use_bias=False, spectral_epsilon=self.spectral_epsilon
        )
        scale = linear(name="scale")(vectors)
        bias = linear(name="bias")(vectors)
        return self._normalized(x, 1 + _of_sample(scale, x), _of_sample(bias, x), train)


def _of_sample(vectors: jax.Array, x: jax.Array) -> jax.Array:
    """[N, C] reshaped to broadcast along the first and last axes of x [N, ..., C]; float32."""
    return vectors.reshape(x.shape[:1] + (1,) * (x.ndim - 2) + x.shape[-1:]).astype(jnp.float32)


def _as_last(vector: jax.Array, x: jax.Array) -> jax.Array:
    """[F] reshaped to broadcast along the last axis of x."""
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))


def upsample(x: jax.Array) -> jax.Array:
    """Repeats each pixel twice along both sides (nearest neighbour): [N, H, W, C] -> [N, 2H, 2W, C]."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def halve(x: jax.Array) -> jax.Array:
    """The mean of each block of 2x2 pixels: [N, 2H, 2W, C] -> [N, H, W, C]."""
    return jnp.mean(_blocks(x), axis=(2, 4))


def halve_to_largest(x: jax.Array) -> jax.Array:
    """The maximum of each block of 2x2 pixels: [N, 2H, 2W, C] -> [N, H, W, C]."""
    return jnp.max(_blocks(x), axis=(2, 4))


def _blocks(x: jax.Array) -> jax.Array:
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels)


class LabelMap(nn.Module):
    """Adds the labels as one more feature map: x [N, S, S, C], labels int32 [N] -> [N, S, S, C + 1].

    The map is an embedding and a dense layer: the conditioning of Mirza & Osindero (2014) in convolutional form.
    """

    num_classes: int
    embedding_dim: int

    @nn.compact
    def __call__(self, x: jax.Array, labels: jax.Array) -> jax.Array:
        embedding = nn.Embed(self.num_classes, self.embedding_dim)(labels)
        label_map = nn.Dense(x.shape[1] * x.shape[2], kernel_init=glorot_uniform)(embedding)
        return jnp.concatenate([x, label_map.reshape(*x.shape[:3], 1).astype(x.dtype)], axis=-1)
