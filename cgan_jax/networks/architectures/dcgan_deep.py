"""A deeper DCGAN: four convolutional layers in each network, large kernels, labels as feature maps.

The layout of Radford, Metz & Chintala (2016, figure 1) for images half as large. They normalise the layers of both
networks; here the generator does if `batch_norm_momentum` is not 0. With `skips` every layer but the generator's last
adds a shortcut: its input, resampled, through a 1x1 convolution (the projection shortcut of He et al. 2016, eq. 2).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cgan_jax.errors import UsageError
from cgan_jax.networks.heads import Output, Unconditional
from cgan_jax.networks.layers import (
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    LabelMap,
    UpsampledConv,
    activation_dtype,
)


class Generator(nn.Module):
    """Latents -> an eighth-size feature map (and label map) -> three transposed convolutions -> a convolution."""

    image_size: int
    channels: int
    num_classes: int
    latent_dim: int
    width: int
    """Channels of the last feature map."""
    embedding_dim: int
    kernel_size: int
    skips: bool
    dtype: str
    """Of the activations: float32 or bfloat16."""
    batch_norm_momentum: float = 0.0
    """Of the running statistics; 0 is without batch normalisation."""

    @nn.compact
    def __call__(self, latents: jax.Array, labels: jax.Array, train: bool) -> jax.Array:
        if self.image_size % 8:
            raise UsageError(
                f"dcgan_deep draws images whose side is a multiple of 8, given image_size {self.image_size}"
            )

        def activated(x):
            return nn.relu(BatchNorm(self.batch_norm_momentum)(x, train) if self.batch_norm_momentum else x)

        side = self.image_size // 8
        x = Dense(side * side * 4 * self.width)(latents.astype(activation_dtype(self.dtype)))
        x = activated(x.reshape(-1, side, side, 4 * self.width))
        if self.num_classes:
            x = LabelMap(self.num_classes, self.embedding_dim)(x, labels)
        for number, features in enumerate((2 * self.width, self.width, self.width)):
            y = ConvTranspose(features, self.kernel_size)(x)
            if self.skips:
                y += UpsampledConv(features, 1, name=f"Conv_{number}")(x)
            x = activated(y)
        last = Conv(self.channels, self.kernel_size, name="Conv_3" if self.skips else "Conv_0")
        return jnp.tanh(last(x).astype(jnp.float32))


class Discriminator(nn.Module):
    """Image (and label map) -> four strided convolutions -> dropout -> one logit."""

    image_size: int
    channels: int
    num_classes: int
    width: int
    """Channels of the first feature map; each further one has twice as many."""
    embedding_dim: int
    kernel_size: int
    dropout: float
    skips: bool
    dtype: str

    couples_samples = False

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array, train: bool) -> Output:
        x = images.astype(activation_dtype(self.dtype))
        if self.num_classes:
            x = LabelMap(self.num_classes, self.embedding_dim)(x, labels)
        for layer in range(4):
            y = Conv(self.width * 2**layer, self.kernel_size, stride=2)(x)
            if self.skips:
                y += Conv(self.width * 2**layer, 1)(nn.avg_pool(x, (2, 2), (2, 2), "SAME", count_include_pad=False))
            x = nn.leaky_relu(y, 0.01)
        x = Dropout(self.dropout)(x.reshape(x.shape[0], -1), train)
        return Unconditional()(x, labels)
