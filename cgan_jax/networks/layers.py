"""What two or more architectures share. Activations are [N, H, W, C] or [N, F]; labels int32 [N]."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cgan_jax import parallel
from cgan_jax.errors import UsageError
from cgan_jax.lookup import entry_named
from cgan_jax.networks import convolution
from cgan_jax.networks.spectral_norm import SpectralNorm

glorot_uniform = nn.initializers.glorot_uniform()
orthogonal = nn.initializers.orthogonal()
"""Of a kernel's [-1, features] form the columns, or where there are more columns than rows the rows, are orthonormal
(Saxe et al. 2014)."""

_AFFINE = ("scale", "bias")
_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def activation_dtype(name: str) -> jnp.dtype:
    """The type that a network computes in, "float32" or "bfloat16"; its parameters are float32 all the same.

    A layer computes in the type of what it is given. Raises UsageError for another name.
    """
    return jnp.dtype(entry_named(_DTYPES, name, "dtype"))


def leaky_relu(x: jax.Array) -> jax.Array:
    """max(x, x/5), the slope of the DCGAN family (Radford et al. 2016, section 3)."""
    return nn.leaky_relu(x, 0.2)


def _weights(layer: nn.Module, name: str, shape: tuple[int, ...]) -> jax.Array:
    """A layer's parameter, drawn by its kernel_init; over its spectral norm where spectral_epsilon is not 0."""
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

    Computed as one transposed convolution: where a pixel stands twice in a row, the taps that meet it are added first.
    For a 3x3 kernel that takes 16 multiplications a pixel of x where there were 36.
    """

    def _convolved(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolution.conv_transpose(x, _doubled(kernel).astype(x.dtype), 2)


class PooledConv(Conv):
    """`halve` of a convolution: [N, H, W, I] -> [N, H/2, W/2, features].

    Computed as one convolution of stride 2 with the mean of the four kernels that it adds up, of 16 taps where 3x3
    kernels at four places had 36.
    """

    def _convolved(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolution.conv(x, (_doubled(kernel) / 4).astype(x.dtype), 2)


def _doubled(kernel: jax.Array) -> jax.Array:
    """The sum of a kernel at the four places of a 2x2 block: [k, k, I, O] -> [k+1, k+1, I, O]."""
    places = [((y, 1 - y), (x, 1 - x), (0, 0), (0, 0)) for y in (0, 1) for x in (0, 1)]
    return sum(jnp.pad(kernel, place) for place in places)


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
        keys = parallel.sample_keys(self.make_rng("dropout"), x.shape[0])
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
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return self._normalized(x, _as_last(scale, x), _as_last(bias, x), train)

    def _normalized(self, x: jax.Array, scale: jax.Array, bias: jax.Array, train: bool) -> jax.Array:
        """`scale` and `bias` have the shape of x, or 1 where they are alike."""
        features, wide = x.shape[-1:], x.astype(jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features)
        running_variance = self.variable("batch_stats", "variance", jnp.ones, features)
        mean, variance = running_mean.value, running_variance.value
        if train:
            every_sample = tuple(range(x.ndim - 1))
            mean = parallel.mean(jnp.mean(wide, every_sample))
            # Not E[x^2] - mean^2, which saves an exchange and is no variance at all where the mean is large.
            variance = parallel.mean(jnp.mean(jnp.square(wide - _as_last(mean, x)), every_sample))
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                running_mean.value = _towards(running_mean.value, mean, self.momentum)
                running_variance.value = _towards(running_variance.value, variance, self.momentum)
        factor = scale * _as_last(jax.lax.rsqrt(variance + self.epsilon), x)
        return ((wide - _as_last(mean, x)) * factor + bias).astype(x.dtype)


class ClassBatchNorm(BatchNorm):
    """BatchNorm whose scale and bias belong to the class: x [N, H, W, C], labels int32 [N] -> [N, H, W, C].

    The scale is 1 + the class's (Dumoulin et al. 2017, eq. 5, centred as by Miyato & Koyama 2018, who start from 1).
    """

    num_classes: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, labels: jax.Array, train: bool) -> jax.Array:
        scale, bias = (Embed(self.num_classes, x.shape[-1], orthogonal, name=name)(labels) for name in _AFFINE)
        return self._normalized(x, 1 + _of_sample(scale, x), _of_sample(bias, x), train)


class ConditionalBatchNorm(BatchNorm):
    """BatchNorm whose scale and bias come of a vector: x [N, H, W, C], vectors [N, F] -> [N, H, W, C].

    The scale is 1 + a linear map of the vector and the bias another, without a bias of their own, both of spectral norm
    1 (Brock, Donahue & Simonyan 2019, appendix B.1).
    """

    spectral_epsilon: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, vectors: jax.Array, train: bool) -> jax.Array:
        scale, bias = (
            Dense(x.shape[-1], orthogonal, use_bias=False, spectral_epsilon=self.spectral_epsilon, name=name)(vectors)
            for name in _AFFINE
        )
        return self._normalized(x, 1 + _of_sample(scale, x), _of_sample(bias, x), train)


def _of_sample(vectors: jax.Array, x: jax.Array) -> jax.Array:
    """[N, C] with as many axes as x [N, ..., C], to meet its first and last; float32."""
    return vectors.reshape(x.shape[:1] + (1,) * (x.ndim - 2) + x.shape[-1:]).astype(jnp.float32)


def _as_last(vector: jax.Array, x: jax.Array) -> jax.Array:
    """[F] with as many axes as x, to meet its last."""
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))


def _towards(running: jax.Array, now: jax.Array, momentum: float) -> jax.Array:
    return momentum * running + (1 - momentum) * now


def upsample(x: jax.Array) -> jax.Array:
    """Each pixel twice in both directions (nearest neighbour): [N, H, W, C] -> [N, 2H, 2W, C]."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def halve(x: jax.Array) -> jax.Array:
    """The mean of every block of 2x2 pixels: [N, 2H, 2W, C] -> [N, H, W, C]."""
    return jnp.mean(_blocks(x), axis=(2, 4))


def halve_to_largest(x: jax.Array) -> jax.Array:
    """The largest of every block of 2x2 pixels: [N, 2H, 2W, C] -> [N, H, W, C]."""
    return jnp.max(_blocks(x), axis=(2, 4))


def _blocks(x: jax.Array) -> jax.Array:
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels)


class LabelMap(nn.Module):
    """Adds labels as one more feature map: x [N, S, S, C], labels int32 [N] -> [N, S, S, C + 1].

    Through an embedding and a dense layer: the conditioning of Mirza & Osindero (2014) in its convolutional form.
    """

    num_classes: int
    embedding_dim: int

    @nn.compact
    def __call__(self, x: jax.Array, labels: jax.Array) -> jax.Array:
        embedding = nn.Embed(self.num_classes, self.embedding_dim)(labels)
        label_map = nn.Dense(x.shape[1] * x.shape[2], kernel_init=glorot_uniform)(embedding)
        return jnp.concatenate([x, label_map.reshape(*x.shape[:3], 1).astype(x.dtype)], axis=-1)
