"""A deeper conditional pair: four convolutional layers per network.

Source: a student project. Its generator has 7x7 kernels and ReLU. Its discriminator has 5x5 kernels, LeakyReLU 0.01 and
dropout on the flattened layer. It trains for 100 epochs.
Its author's wishes are flags: generator.latent_dim, skips and kernel_size of both networks, and two losses against real
images of the class. The losses are listed with weight 0; --config.loss.g_terms.l2.weight=1.0 turns one on.
Expected: the original reports an "accuracy" of 82%. It is 1 minus the mean squared error of normalised pixels between
generated and real images of a class. It measures colours and brightness, not quality: a generator that draws the mean
image of its class would have a higher one. Here the pair does not learn: after 254 kimg it has 88% and one pattern for
all latents. With generator.batch_norm_momentum=0.9, batches of 64 and rates of 2e-4 it draws different shapes
(docs/recipes.md).
Our choice, because the source does not say: widths, the label as a feature map, b1, eps, no averaged generator. There
is one discriminator update, on real and generated images together.
Hardware and time: 26 of 5,000 kimg took 12.5 min on two shared cores of a Xeon.

    cgan train --config=cifar10_cgan_deep --workdir=runs/cifar10_cgan_deep
"""

from ml_collections import ConfigDict

from cgan_jax.recipe import defaults


def get_config() -> ConfigDict:
    config = defaults()

    config.dataset.source = "tfds"
    config.dataset.name = "cifar10"
    config.dataset.split = "train"
    config.dataset.image_size = 32
    config.dataset.conditional = True
    config.dataset.flip = False

    config.architecture = "dcgan_deep"
    config.generator.latent_dim = 100
    config.generator.width = 64  # 256, 128, 64 and 64 features
    config.generator.embedding_dim = 50
    config.generator.kernel_size = 7
    config.generator.skips = False
    config.generator.batch_norm_momentum = 0.0  # without batch normalisation; 0.9 is the variant
    config.generator.dtype = "float32"
    config.discriminator.width = 64  # 64, 128, 256 and 512 features
    config.discriminator.embedding_dim = 50
    config.discriminator.kernel_size = 5
    config.discriminator.dropout = 0.4  # of the flattened layer
    config.discriminator.skips = False
    config.discriminator.dtype = "float32"

    config.loss.d_updates.both = {"bce_real": {"weight": 1.0}, "bce_fake": {"weight": 1.0}}
    config.loss.g_terms.bce = {"weight": 1.0}
    config.loss.g_terms.l2 = {"weight": 0.0}  # off
    config.loss.g_terms.ssim = {"weight": 0.0}  # off

    config.g_optimizer.name = "keras_adam"
    config.g_optimizer.learning_rate = 1e-4
    config.g_optimizer.b1 = 0.5
    config.g_optimizer.b2 = 0.999
    config.g_optimizer.eps = 1e-7  # Keras's default
    config.d_optimizer.update(config.g_optimizer)
    config.ema.halflife_kimg = 0.0  # no averaged generator
    config.ema.start_kimg = 0.0

    config.train.total_kimg = 5000.0  # 100 epochs
    config.train.batch_size = 128
    config.train.g_batch_size = 128
    config.train.d_steps_per_g_step = 1

    config.evaluate.metrics = "pixel_mse"
    return config
