"""A DCGAN whose generator has batch normalisation and doubles once by transposed convolution, once by upsampling.

After Radford, Metz & Chintala (2016), who normalise both networks. Here the discriminator has dropout after each layer
instead, so that it treats each sample alone. A strided transposed convolution may leave a checkerboard; a convolution
after upsampling does not (Odena, Dumoulin & Olah 2016).
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
    leaky_relu,
)


class Generator(nn.Module):
    """Latents -> a quarter-size feature map (and label map) -> transposed convolution -> upsampled -> convolutions.

    Every layer but the last has batch normalisation and leaky ReLU.
    """

    image_size: int
    channels: int
    num_classes: int
    latent_dim: int
    width: int
    """Channels of the first feature map; the last has half as many."""
    embedding_dim: int
    batch_norm_momentum: float
    dtype: str
    """Of the activations: float32 or bfloat16."""

    @nn.compact
    def __call__(self, latents: jax.Array, labels: jax.Array, train: bool) -> jax.Array:
        if self.image_size % 4:
            raise UsageError(
                f"dcgan_upsample draws images whose side is a multiple of 4, given image_size {self.image_size}"
            )

        def activated(x):
            return leaky_relu(BatchNorm(self.batch_norm_momentum)(x, train))

        side = self.image_size // 4
        x = Dense(side * side * self.width)(latents.astype(activation_dtype(self.dtype)))
        x = activated(x.reshape(-1, side, side, self.width))
        if self.num_classes:
            x = LabelMap(self.num_classes, self.embedding_dim)(x, labels)
        x = activated(ConvTranspose(self.width, 4)(x))
        x = activated(UpsampledConv(max(1, self.width // 2), 3)(x))
        return jnp.tanh(Conv(self.channels, 3)(x).astype(jnp.float32))


class Discriminator(nn.Module):
    """Image (and label map) -> three strided convolutions, dropout after each -> one logit."""

    image_size: int
    channels: int
    num_classes: int
    width: int
    """Channels of the first feature map; each further one has twice as many."""
    embedding_dim: int
    dropout: float
    dtype: str

    couples_samples = False

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array, train: bool) -> Output:
        x = images.astype(activation_dtype(self.dtype))
        if self.num_classes:
            x = LabelMap(self.num_classes, self.embedding_dim)(x, labels)
        for layer in range(3):
            x = Dropout(self.dropout)(leaky_relu(Conv(self.width * 2**layer, 3, stride=2)(x)), train)
        return Unconditional()(x.reshape(x.shape[0], -1), labels)
