"""The residual blocks of SNGAN and BigGAN, their widths (Miyato et al. 2018, figures 9 and 10), and self-attention.

A 1x1 convolution commutes with upsampling and with averaging, so shortcuts apply it to the smaller image
except on TPUs (layers.py).
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cgan_jax.errors import UsageError
from cgan_jax.networks.layers import Conv, PooledConv, UpsampledConv, halve_to_largest, orthogonal

MOMENTUM, EPSILON = 0.9, 1e-4
"""Of the batch normalisation in generators that have these blocks."""


def doublings(image_size: int) -> int:
    """The number of doublings from 4 to image_size pixels. Raises UsageError unless image_size is 32, 64, 128, ..."""
    count = (image_size // 4).bit_length() - 1
    if count < 3 or image_size != 4 << count:
        raise UsageError(f"residual networks draw images of 32 times a power of two pixels, given {image_size}")
    return count


def generator_widths(image_size: int, width: int) -> list[int]:
    """Channels at 4, 8, ..., image_size pixels: 4 x width each for images of 32 pixels.

    For larger images `width` at image_size, and twice as many with each halving, up to 16 x width.
    """
    sides = doublings(image_size) + 1
    return [4 * width] * sides if image_size == 32 else [width * min(16, 2**i) for i in reversed(range(sides))]


def discriminator_blocks(image_size: int, width: int) -> list[tuple[int, bool]]:
    """(channels, whether it halves) per block: 2 x width and two halvings for 32 pixels, else doubling down to 4."""
    if image_size == 32:
        return [(2 * width, True), (2 * width, True), (2 * width, False), (2 * width, False)]
    sides = doublings(image_size) + 1
    return [(width * min(16, 2**i), i < sides - 1) for i in range(sides)]


def recomputed(block: type[nn.Module], remat: bool, *static: int) -> type[nn.Module]:
    """The module class, if `remat` with activations that the backward pass computes again instead of keeping them.

    Parameters keep their names and values. `static` are the places of arguments that are no arrays; self is 0.
    """
    if not remat:
        return block
    again = nn.remat(block, static_argnums=static)
    again.__name__ = block.__name__
    return again


class GeneratorBlock(nn.Module):
    """A residual block that doubles the sides: [N, H, W, I] -> [N, 2H, 2W, features].

    Norm, ReLU, upsampling, 3x3 convolution, norm, ReLU, 3x3 convolution. The shortcut is a 1x1 convolution, upsampled.
    """

    features: int
    norm: Callable[[], nn.Module]
    """Makes a normalisation layer: (x, condition, train) -> x."""
    spectral_epsilon: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array, train: bool) -> jax.Array:
        options = {"kernel_init": orthogonal, "spectral_epsilon": self.spectral_epsilon}
        y = nn.relu(self.norm()(x, condition, train))
        y = UpsampledConv(self.features, 3, **options)(y)
        y = nn.relu(self.norm()(y, condition, train))
        return Conv(self.features, 3, **options)(y) + UpsampledConv(self.features, 1, name="Conv_1", **options)(x)


class DiscriminatorBlock(nn.Module):
    """ReLU, 3x3, ReLU, 3x3, plus a shortcut; both halved if it `halves`: [N, H, W, I] -> [N, H', W', features].

    The shortcut has a 1x1 convolution if the block halves or the channels differ. The `first` block reads images and
    begins without a ReLU. With `rectified_shortcut`, the shortcut of another block begins after its ReLU.
    """

    features: int
    halves: bool
    spectral_epsilon: float
    first: bool = False
    rectified_shortcut: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        options = {"kernel_init": orthogonal, "spectral_epsilon": self.spectral_epsilon}
        y = x if self.first else nn.relu(x)
        x = y if self.rectified_shortcut else x
        y = Conv(self.features, 3, **options)(y)
        second, name = (PooledConv, "Conv_1") if self.halves else (Conv, "Conv_2")
        y = second(self.features, 3, **options)(nn.relu(y))
        if self.halves or x.shape[-1] != self.features:
            x = second(self.features, 1, name=name, **options)(x)
        return x + y


class SelfAttention(nn.Module):
    """The input plus a gated attention over all pixels: [N, 2H, 2W, C] -> the same shape.

    Zhang et al. (2019), eq. 1 to 3, in BigGAN's form. 1x1 convolutions without bias, of spectral norm 1, give C/8
    features for queries and keys, and C/2 for values. Keys and values are max-pooled by 2x2, so that attention sums
    over a quarter of the pixels. The gate starts at 0. The attention logits are float32 and not scaled.
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
        logits = jnp.einsum("nqc,nkc->nqk", queries, keys, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(logits).astype(x.dtype)
        attended = jnp.einsum("nqk,nkc->nqc", weights, values)
        gate = self.param("gate", nn.initializers.zeros, ())
        return x + gate.astype(x.dtype) * projected(attended.reshape(n, height, width, -1), channels)
