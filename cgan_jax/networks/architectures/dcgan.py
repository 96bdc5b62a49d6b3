"""A small DCGAN for 28 to 64 pixels: two transposed convolutions, and two strided ones.

After Radford, Metz & Chintala (2016) in the form of common Keras tutorials: no batch normalisation, Glorot-uniform
weights. With num_classes > 0 both networks receive the label as a feature map (Mirza & Osindero 2014).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cgan_jax.errors import UsageError
from cgan_jax.networks.heads import Output, Unconditional
from cgan_jax.networks.layers import Conv, ConvTranspose, Dense, Dropout, LabelMap, activation_dtype, leaky_relu


class Generator(nn.Module):
    """Latents -> a quarter-size feature map (and label map) -> two transposed convolutions -> a convolution."""

    image_size: int
    channels: int
    num_classes: int
    latent_dim: int
    width: int
    embedding_dim: int
    output_kernel_size: int
    dtype: str
    """Of the activations: float32 or bfloat16."""

    @nn.compact
    def __call__(self, latents: jax.Array, labels: jax.Array, train: bool) -> jax.Array:
        if self.image_size % 4:
            raise UsageError(f"dcgan draws images whose side is a multiple of 4, given image_size {self.image_size}")
        side = self.image_size // 4
        x = leaky_relu(Dense(side * side * self.width)(latents.astype(activation_dtype(self.dtype))))
        x = x.reshape(-1, side, side, self.width)
        if self.num_classes:
            x = LabelMap(self.num_classes, self.embedding_dim)(x, labels)
        for _ in range(2):
            x = leaky_relu(ConvTranspose(self.width, 4)(x))
        return jnp.tanh(Conv(self.channels, self.output_kernel_size)(x).astype(jnp.float32))


class Discriminator(nn.Module):
    """Image (and label map) -> two strided convolutions -> dropout -> one logit."""

    image_size: int
    channels: int
    num_classes: int
    width: int
    embedding_dim: int
    dropout: float
    dtype: str

    couples_samples = False

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array, train: bool) -> Output:
        x = images.astype(activation_dtype(self.dtype))
        if self.num_classes:
            x = LabelMap(self.num_classes, self.embedding_dim)(x, labels)
        for _ in range(2):
            x = leaky_relu(Conv(self.width, 3, stride=2)(x))
        x = Dropout(self.dropout)(x.reshape(x.shape[0], -1), train)
        return Unconditional()(x, labels)
