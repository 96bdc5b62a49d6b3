"""BigGAN for 32, 64, 128, ... pixels: wider residual networks than SNGAN's, spectral norm 1 in both, self-attention.

Brock, Donahue & Simonyan (2019), appendix B, in the form of the StudioGAN benchmark (Kang et al. 2023). The latents are
split into a part for the first feature map and one for each block. A block's part and the class's embedding, which all
blocks share, condition its normalisation. Both networks have self-attention at half the image's size.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from cgan_jax.errors import UsageError
from cgan_jax.networks import blocks, heads
from cgan_jax.networks.blocks import SelfAttention
from cgan_jax.networks.heads import Output
from cgan_jax.networks.layers import BatchNorm, ConditionalBatchNorm, Conv, Dense, Embed, activation_dtype, orthogonal

_SPECTRAL_EPSILON = 1e-6
_OPTIONS = {"kernel_init": orthogonal, "spectral_epsilon": _SPECTRAL_EPSILON}


class Generator(nn.Module):
    """Latents -> a 4x4 feature map -> residual blocks, each twice as large -> batch norm, ReLU, a convolution."""

    image_size: int
    channels: int
    num_classes: int
    latent_dim: int
    """A multiple of the number of blocks plus 1: of 4 for 32 pixels, of 5 for 64."""
    width: int
    """For images of 32 pixels a quarter of the channels; for larger images the channels of the last feature map."""
    embedding_dim: int
    dtype: str
    """Of the activations: float32 or bfloat16."""
    remat: bool = False
    """Whether the backward pass computes each block's activations again, which saves memory and takes time."""

    @nn.compact
    def __call__(self, latents: jax.Array, labels: jax.Array, train: bool) -> jax.Array:
        widths = blocks.generator_widths(self.image_size, self.width)
        if self.latent_dim % len(widths):
            raise UsageError(
                f"biggan splits its latents into {len(widths)} parts for {self.image_size} pixels, given latent_dim"
                f" {self.latent_dim}"
            )
        batch_norm = {"momentum": blocks.MOMENTUM, "epsilon": blocks.EPSILON}
        norm = functools.partial(ConditionalBatchNorm, spectral_epsilon=_SPECTRAL_EPSILON, **batch_norm)
        first, *parts = jnp.split(latents.astype(activation_dtype(self.dtype)), len(widths), axis=1)
        if self.num_classes:
            embedding = Embed(self.num_classes, self.embedding_dim, orthogonal)(labels).astype(first.dtype)
            parts = [jnp.concatenate([part, embedding], axis=1) for part in parts]
        x = Dense(16 * widths[0], **_OPTIONS)(first).reshape(-1, 4, 4, widths[0])
        for part, features in zip(parts, widths[1:], strict=True):
            x = blocks.recomputed(blocks.GeneratorBlock, self.remat, 3)(features, norm, _SPECTRAL_EPSILON)(
                x, part, train
            )
            if 2 * x.shape[1] == self.image_size:
                x = SelfAttention(_SPECTRAL_EPSILON)(x)
        x = nn.relu(BatchNorm(**batch_norm)(x, train))
        return jnp.tanh(Conv(self.channels, 3, **_OPTIONS)(x).astype(jnp.float32))


class Discriminator(nn.Module):
    """Image -> residual blocks -> ReLU, sum over all pixels -> the head."""

    image_size: int
    channels: int
    num_classes: int
    width: int
    """For images of 32 pixels half of the channels; for larger images the channels of the first feature map."""
    head: str
    """How the head uses classes: a name in heads.OF_CLASSES."""
    dtype: str
    remat: bool = False
    rectified_shortcuts: bool = False
    """Whether the blocks' shortcuts carry what their ReLU gives, as in StudioGAN, whose ReLU works in place."""

    couples_samples = False

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array, train: bool) -> Output:
        x = images.astype(activation_dtype(self.dtype))
        for number, (features, halves) in enumerate(blocks.discriminator_blocks(self.image_size, self.width)):
            block = blocks.recomputed(blocks.DiscriminatorBlock, self.remat)
            x = block(features, halves, _SPECTRAL_EPSILON, number == 0, rectified_shortcut=self.rectified_shortcuts)(x)
            if number == 0:
                x = SelfAttention(_SPECTRAL_EPSILON)(x)
        features = jnp.sum(nn.relu(x).astype(jnp.float32), axis=(1, 2))
        return heads.make(self.head, self.num_classes, **_OPTIONS)(features, labels)
