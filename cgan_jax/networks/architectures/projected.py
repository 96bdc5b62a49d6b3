"""A discriminator that sees images through a fixed network, for short trainings (Sauer, Chitta, Müller & Geiger 2021).

The features are those of networks/pretrained.py at four sizes. A small network judges each size, in patches. The
generator has the residual blocks of SNGAN, with half of the channels at each doubling of the sides.
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

_SPECTRAL_EPSILON = 1e-6
_FIRST = 4  # pixels
_NORMED = {"kernel_init": orthogonal, "spectral_epsilon": _SPECTRAL_EPSILON}


class Generator(nn.Module):
    """Latents -> a 4x4 feature map -> residual blocks, each twice as large -> batch norm, ReLU, a convolution."""

    image_size: int
    channels: int
    num_classes: int
    latent_dim: int
    width: int
    """The channels of the last feature map; twice as many with each halving of the sides, up to 8 times."""
    excitation: bool
    dtype: str
    """Of the activations: float32 or bfloat16."""

    @nn.compact
    def __call__(self, latents: jax.Array, labels: jax.Array, train: bool) -> jax.Array:
        doublings = (self.image_size // _FIRST).bit_length() - 1
        widths = [self.width * min(8, 2**i) for i in reversed(range(doublings + 1))]
        batch_norm = {"momentum": blocks.MOMENTUM, "epsilon": blocks.EPSILON}
        labels = labels if self.num_classes else jnp.zeros_like(labels)
        norm = functools.partial(ClassBatchNorm, num_classes=max(1, self.num_classes), **batch_norm)
        x = Dense(_FIRST**2 * widths[0], kernel_init=orthogonal)(latents.astype(activation_dtype(self.dtype)))
        x = x.reshape(-1, _FIRST, _FIRST, widths[0])
        earlier = [x]
        for features in widths[1:]:
            x = blocks.GeneratorBlock(features, norm)(x, labels, train)
            if self.excitation and len(earlier) > 1:
                x = x * Excitation(features)(earlier[-2])[:, None, None, :]
            earlier.append(x)
        x = nn.relu(BatchNorm(**batch_norm)(x, train))
        return jnp.tanh(Conv(self.channels, 3, kernel_init=orthogonal)(x).astype(jnp.float32))


class Excitation(nn.Module):
    """[N, H, W, C] -> factors in (0, 1) [N, features] (Liu et al. 2021)."""

    features: int

    @nn.compact
    def __call__(self, x):
        n, h, w, c = x.shape
        x = x.reshape(n, _FIRST, h // _FIRST, _FIRST, w // _FIRST, c).mean((2, 4)).reshape(n, -1)
        x = leaky_relu(Dense(self.features, kernel_init=orthogonal)(x))
        return 2 * nn.sigmoid(Dense(self.features, kernel_init=orthogonal)(x))


class Discriminator(nn.Module):
    """Image -> fixed features at four sizes -> for each size convolutions to 4x4 and a logit at each of its pixels.

    extras: "patches" [N, 64], which the losses judge one by one; the logit is their mean.
    """

    image_size: int
    channels: int
    num_classes: int
    width: int
    maps: str
    dtype: str

    couples_samples = False

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array, train: bool) -> Output:
        images = images.astype(activation_dtype(self.dtype))
        maps = [*pretrained.feature_maps(pretrained.weights(), images), images]
        maps = [maps[int(i)] for i in self.maps]
        patches = jnp.concatenate([Judge(self.num_classes, self.width)(x, labels) for x in maps], axis=1)
        return Output(jnp.mean(patches, axis=1), {"patches": patches})


class Judge(nn.Module):
    """Features [N, H, W, C], labels [N] -> logits [N, 16]: convolutions of stride 2 down to 4x4, a projection."""

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
