"""SNGAN for 32, 64, 128, ... pixels: residual networks; the discriminator's kernels have spectral norm 1.

Miyato et al. (2018) and Miyato & Koyama (2018), in the form of the StudioGAN benchmark (Kang et al. 2023). Each class
has a scale and a bias in every normalisation of the generator's blocks, and a vector in the discriminator's head.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from cgan_jax.networks import blocks, heads
from cgan_jax.networks.heads import Output
from cgan_jax.networks.layers import BatchNorm, ClassBatchNorm, Conv, Dense, activation_dtype, orthogonal

_SPECTRAL_EPSILON = 1e-6


class Generator(nn.Module):
    """Latents -> a 4x4 feature map -> residual blocks, each twice as large -> batch norm, ReLU, a convolution."""

    image_size: int
    channels: int
    num_classes: int
    latent_dim: int
    width: int
    """For images of 32 pixels a quarter of the channels; for larger images the channels of the last feature map."""
    dtype: str
    """Of the activations: float32 or bfloat16."""
    remat: bool = False
    """Whether the backward pass computes each block's activations again, which saves memory and takes time."""

    @nn.compact
    def __call__(self, latents: jax.Array, labels: jax.Array, train: bool) -> jax.Array:
        widths = blocks.generator_widths(self.image_size, self.width)
        batch_norm = {"momentum": blocks.MOMENTUM, "epsilon": blocks.EPSILON}
        # Without classes, all images have one class.
        labels = labels if self.num_classes else jnp.zeros_like(labels)
        norm = functools.partial(ClassBatchNorm, num_classes=max(1, self.num_classes), **batch_norm)
        x = Dense(16 * widths[0], kernel_init=orthogonal)(latents.astype(activation_dtype(self.dtype)))
        x = x.reshape(-1, 4, 4, widths[0])
        for features in widths[1:]:
            x = blocks.recomputed(blocks.GeneratorBlock, self.remat, 3)(features, norm)(x, labels, train)
        x = nn.relu(BatchNorm(**batch_norm)(x, train))
        return jnp.tanh(Conv(self.channels, 3, kernel_init=orthogonal)(x).astype(jnp.float32))


class Discriminator(nn.Module):
    """Image -> residual blocks -> ReLU, sum over all pixels -> the head. Every kernel has spectral norm 1."""

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
        features = jnp.sum(nn.relu(x).astype(jnp.float32), axis=(1, 2))
        options = {"kernel_init": orthogonal, "spectral_epsilon": _SPECTRAL_EPSILON}
        return heads.make(self.head, self.num_classes, **options)(features, labels)
