"""Batch norm, transposed convolution and upsampling, without classes.

Source: a project of the DCGAN family (Radford et al. 2016). Its generator has transposed convolutions, upsampling,
batch normalisation and LeakyReLU. Its discriminator has convolutions, LeakyReLU and dropout.
Expected: coloured shapes without a class; no number was reported. Here 500 kimg gave a Fréchet distance of 122
(packaged classifier, 2,000 images, one seed).
Our choice, because the source does not say: widths, dropout, momentum, Adam and its numbers, batches, no averaged
generator. There is one discriminator update, on real and generated images together. The length is cifar10_cgan's, so
that both can be compared at equal kimg.
Samples are drawn with the running statistics of batch norm. Both networks train with those of the batch.
Hardware and time: 26 of 2,500 kimg took 7.7 min on two shared cores of a Xeon.

    cgan train --config=cifar10_gan_upsample --workdir=runs/cifar10_gan_upsample
"""

from ml_collections import ConfigDict

from cgan_jax.recipe import defaults


def get_config() -> ConfigDict:
    config = defaults()

    config.dataset.source = "tfds"
    config.dataset.name = "cifar10"
    config.dataset.split = "train"
    config.dataset.image_size = 32
    config.dataset.conditional = False  # True gives both networks the label as a feature map
    config.dataset.flip = False

    config.architecture = "dcgan_upsample"
    config.generator.latent_dim = 100
    config.generator.width = 128
    config.generator.embedding_dim = 50  # read if dataset.conditional is True
    config.generator.batch_norm_momentum = 0.9
    config.generator.dtype = "float32"
    config.discriminator.width = 64
    config.discriminator.embedding_dim = 50  # read if dataset.conditional is True
    config.discriminator.dropout = 0.25
    config.discriminator.dtype = "float32"

    config.loss.d_updates.both = {"bce_real": {"weight": 1.0}, "bce_fake": {"weight": 1.0}}
    config.loss.g_terms.bce = {"weight": 1.0}

    config.g_optimizer.name = "keras_adam"
    config.g_optimizer.learning_rate = 2e-4
    config.g_optimizer.b1 = 0.5
    config.g_optimizer.b2 = 0.999
    config.g_optimizer.eps = 1e-7  # Keras's default
    config.d_optimizer.update(config.g_optimizer)
    config.ema.halflife_kimg = 0.0  # no averaged generator
    config.ema.start_kimg = 0.0

    config.train.total_kimg = 2500.0
    config.train.batch_size = 64
    config.train.g_batch_size = 64
    config.train.d_steps_per_g_step = 1

    config.train.sample_kimg = 25.0
    config.evaluate.every_kimg = 25.0
    config.checkpoint.every_kimg = 25.0
    return config
