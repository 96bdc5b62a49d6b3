"""A discriminator that sees images through a fixed network, for short trainings, at 32, 64, 128, ... pixels.

Projected GANs (Sauer, Chitta, Müller & Geiger 2021), smaller and simpler. The features are those of
networks/pretrained.py at four sizes. A small network judges each of them in patches, and another one the image itself:
without it the generator draws a fine grid that the features do not show. There are no random projections. The generator
has SNGAN's residual blocks, with half of the channels at each doubling of the sides.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from cgan_jax.networks import blocks, pretrained
from cgan_jax.networks.heads import Output
from cgan_jax.networks.layers import (
    BatchNorm,
    ClassBatchNorm,
    Conv,
    Dense,
    Embed,
    activation_dtype,
    leaky_relu,
    orthogonal,
)

_FIRST = 4  # pixels
_NORMED = {"kernel_init": orthogonal, "spectral_epsilon": 1e-6}


class Generator(nn.Module):
    """Latents -> a 4x4 feature map -> residual blocks, each twice as large -> batch norm, ReLU, a convolution."""

    image_size: int
    channels: int
    num_classes: int
    latent_dim: int
    width: int
    """The channels of the last feature map; twice as many with each halving of the sides, up to 8 times."""
    dtype: str
    """Of the activations: float32 or bfloat16."""

    @nn.compact
    def __call__(self, latents: jax.Array, labels: jax.Array, train: bool) -> jax.Array:
        widths = [self.width * min(8, 2**i) for i in reversed(range(blocks.doublings(self.image_size) + 1))]
        batch_norm = {"momentum": blocks.MOMENTUM, "epsilon": blocks.EPSILON}
        # Without classes, all images have one class.
        labels = labels if self.num_classes else jnp.zeros_like(labels)
        norm = functools.partial(ClassBatchNorm, num_classes=max(1, self.num_classes), **batch_norm)
        x = Dense(_FIRST**2 * widths[0], kernel_init=orthogonal)(latents.astype(activation_dtype(self.dtype)))
        x = x.reshape(-1, _FIRST, _FIRST, widths[0])
        for features in widths[1:]:
            x = blocks.GeneratorBlock(features, norm)(x, labels, train)
        x = nn.relu(BatchNorm(**batch_norm)(x, train))
        return jnp.tanh(Conv(self.channels, 3, kernel_init=orthogonal)(x).astype(jnp.float32))


class Discriminator(nn.Module):
    """Image -> fixed features at four sizes, and the image -> a small network for each -> logits of patches.

    extras: "patches" [N, 80], for the terms patch_hinge_real and patch_hinge_fake; the logit is their mean.
    """

    image_size: int
    channels: int
    num_classes: int
    width: int
    """The channels of all convolutions after the fixed ones."""
    dtype: str

    couples_samples = False

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array, train: bool) -> Output:
        images = images.astype(activation_dtype(self.dtype))
        maps = [*pretrained.feature_maps(pretrained.weights(), images), images]
        patches = [PatchDiscriminator(self.num_classes, self.width)(x, labels) for x in maps]
        patches = jnp.concatenate(patches, axis=1)
        return Output(jnp.mean(patches, axis=1), {"patches": patches})


class PatchDiscriminator(nn.Module):
    """Features [N, H, W, C], labels [N] -> logits [N, 16]: convolutions of stride 2 to 4x4 pixels, each projected.

    Every kernel has spectral norm 1.
    """

    num_classes: int
    width: int

    @nn.compact
    def __call__(self, x: jax.Array, labels: jax.Array) -> jax.Array:
        while x.shape[1] > _FIRST:
            x = leaky_relu(Conv(self.width, 4, 2, **_NORMED)(x))
        x = leaky_relu(Conv(self.width, 3, **_NORMED)(x)).astype(jnp.float32)
        logits = Conv(1, 1, **_NORMED)(x)[..., 0]
        if self.num_classes:
            direction = Embed(self.num_classes, self.width, **_NORMED)(labels)
            logits += jnp.einsum("nhwc,nc->nhw", x, direction)
        return logits.reshape(len(x), -1)
