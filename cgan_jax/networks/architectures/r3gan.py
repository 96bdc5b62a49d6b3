"""R3GAN: residual networks without normalisation, for a relativistic loss with R1 and R2 (Huang et al. 2024).

Both networks have stages of one width at 4, 8, 16, ... pixels. A stage has a few blocks:

    x + W3 act(b2 + W2 act(b1 + W1 x))        W1 and W3 1x1, W2 3x3 in groups of 16 channels, twice as wide inside

This is an inverted bottleneck of grouped convolutions, in the order of ConvNeXt. act is LeakyReLU 0.2. Weights are
normal with deviation gain / sqrt(fan in). Inside blocks the gain is sqrt(2 / 1.04) L^(-1/4) for the L blocks of a
network, and W3 starts at 0: fixup initialisation (Zhang, Dauphin & Ma 2019) for three layers a block.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cgan_jax.errors import UsageError
from cgan_jax.networks import convolution
from cgan_jax.networks.blocks import recomputed
from cgan_jax.networks.heads import Output
from cgan_jax.networks.layers import activation_dtype, leaky_relu

_GROUP = 16
_EXPANSION = 2
_FIRST = 4  # pixels


class Generator(nn.Module):
    """Latents and label -> 4x4 -> blocks, upsampling, blocks, ... -> a 1x1 convolution to unbounded colours."""

    image_size: int
    channels: int
    num_classes: int
    latent_dim: int
    width: int
    blocks: int
    """In each stage."""
    embedding_dim: int
    dtype: str
    """Of the activations at more than 4 pixels; parameters and the first stage are float32."""
    remat: bool = False
    """Whether the backward pass computes each block's activations again, which saves memory and takes time."""

    @nn.compact
    def __call__(self, latents: jax.Array, labels: jax.Array, train: bool) -> jax.Array:
        stages, dtype = _stages(self.image_size, self.width), activation_dtype(self.dtype)
        block_class = recomputed(Block, self.remat)
        if self.num_classes:
            embedding = Linear(self.embedding_dim, name="embedding")(jax.nn.one_hot(labels, self.num_classes))
            latents = jnp.concatenate([latents, embedding], axis=-1)
        basis = self.param("basis", nn.initializers.normal(1.0), (_FIRST, _FIRST, self.width))
        x = Linear(self.width, name="weights")(latents)[:, None, None, :] * basis[None]
        for stage in range(stages):
            if stage:
                x = upsample(x).astype(dtype)
            for block in range(self.blocks):
                x = block_class(stages * self.blocks, name=f"block{_FIRST << stage}_{block}")(x)
        return Linear(self.channels, name="colours")(x).astype(jnp.float32)


class Discriminator(nn.Module):
    """A 1x1 convolution of colours -> blocks, downsampling, blocks, ... -> features -> times the label's embedding."""

    image_size: int
    channels: int
    num_classes: int
    width: int
    blocks: int
    """In each stage."""
    dtype: str
    """Of the activations at more than 4 pixels; parameters and the last stage are float32."""
    remat: bool = False

    couples_samples = False

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array, train: bool) -> Output:
        stages, dtype = _stages(self.image_size, self.width), activation_dtype(self.dtype)
        block_class = recomputed(Block, self.remat)
        x = Linear(self.width, name="colours")(images.astype(dtype if stages > 1 else jnp.float32))
        for stage in reversed(range(stages)):
            for block in range(self.blocks):
                x = block_class(stages * self.blocks, name=f"block{_FIRST << stage}_{block}")(x)
            if stage:
                x = downsample(x).astype(dtype if stage > 1 else jnp.float32)
        basis = self.param("basis", _scaled(1.0, _FIRST * _FIRST), (_FIRST, _FIRST, self.width))
        features = Linear(self.width if self.num_classes else 1, name="weights")(jnp.sum(x * basis[None], axis=(1, 2)))
        if not self.num_classes:
            return Output(features[:, 0], {})
        gain = self.width**-0.5
        direction = Linear(self.width, gain, name="embedding")(jax.nn.one_hot(labels, self.num_classes))
        return Output(jnp.sum(features * direction, axis=-1), {})


class Block(nn.Module):
    """The residual block of a network with `depth` of them: [N, H, W, C] -> [N, H, W, C]."""

    depth: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width, inside = x.shape[-1], _EXPANSION * x.shape[-1]
        gain = (2 / 1.04) ** 0.5 * self.depth**-0.25
        bias1 = self.param("bias1", nn.initializers.zeros, (1, 1, 1, inside)).astype(x.dtype)
        bias2 = self.param("bias2", nn.initializers.zeros, (1, 1, 1, inside)).astype(x.dtype)
        kernel = self.param("grouped", _scaled(gain, 9 * _GROUP), (3, 3, _GROUP, inside))
        y = leaky_relu(Linear(inside, gain, name="widen")(x) + bias1)
        y = leaky_relu(convolution.grouped_conv(y, kernel.astype(x.dtype)) + bias2)
        return x + Linear(width, 0.0, name="narrow")(y)


class Linear(nn.Module):
    """A 1x1 convolution or a dense layer without bias, in the dtype of x."""

    features: int
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", _scaled(self.gain, x.shape[-1]), (x.shape[-1], self.features))
        return x @ kernel.astype(x.dtype)


def _scaled(gain: float, fan_in: int) -> nn.initializers.Initializer:
    return nn.initializers.normal(gain / fan_in**0.5)


def downsample(x: jax.Array) -> jax.Array:
    """Filters with [1, 2, 1] / 4 along both sides and keeps every other pixel: [N, H, W, C] -> [N, H/2, W/2, C].

    Pixels outside the image are 0.
    """
    for axis in (1, 2):
        even, odd = (jax.lax.slice_in_dim(x, first, None, 2, axis) for first in (0, 1))
        x = (_one_later(odd, axis) + 2 * even + odd) / 4
    return x


def upsample(x: jax.Array) -> jax.Array:
    """Inserts the means of neighbours between pixels: [N, H, W, C] -> [N, 2H, 2W, C]; four times downsample's adjoint.

    The filter is [1, 2, 1] / 2 along both sides. Pixels outside the image are 0.
    """
    for axis in (1, 2):
        between = (x + _one_earlier(x, axis)) / 2
        shape = [2 * side if a == axis else side for a, side in enumerate(x.shape)]
        x = jnp.stack([x, between], axis + 1).reshape(shape)
    return x


def _one_later(x: jax.Array, axis: int) -> jax.Array:
    """x[i - 1] at index i, and 0 at the first."""
    return jnp.pad(jax.lax.slice_in_dim(x, 0, -1, 1, axis), [(int(a == axis), 0) for a in range(x.ndim)])


def _one_earlier(x: jax.Array, axis: int) -> jax.Array:
    """x[i + 1] at index i, and 0 at the last."""
    return jnp.pad(jax.lax.slice_in_dim(x, 1, None, 1, axis), [(0, int(a == axis)) for a in range(x.ndim)])


def _stages(image_size: int, width: int) -> int:
    """The number of stages. Raises UsageError for an image size or width that the networks cannot have."""
    stages = max(1, (image_size // _FIRST).bit_length())
    if _FIRST << (stages - 1) != image_size:
        raise UsageError(f"r3gan draws images of 4 times a power of two pixels, given image_size {image_size}")
    if _EXPANSION * width % _GROUP:
        raise UsageError(f"the width of r3gan must be a multiple of {_GROUP // _EXPANSION}, given {width}")
    return stages
