"""Handwritten digits by class with a narrow StyleGAN2, on a processor.

Source: the networks, losses and Adam of cifar10_stylegan2_ada, with 32 and 64 channels.
Expected: a classifier of the real digits sees the class that was asked for in 99.4% of 500 generated images. The
digits of a class resemble each other more than real ones do. One seed; the settings were
chosen from eight by their pictures.
Differs from cifar10_stylegan2_ada: no augmentation, a larger weight of R1, two layers in the head's mapping, half the
batch, one group of it, and a short average.
Data: scikit-learn's 1,797 8x8 digits, as in the recipe digits, not enlarged.
Hardware and time: 100 kimg took 3 min 21 s, or 92 s of one core, on two busy cores of an AMD EPYC.

    cgan train --config=digits_stylegan2 --workdir=runs/digits_stylegan2
"""

from ml_collections import ConfigDict

from cgan_jax.recipe import defaults


def get_config() -> ConfigDict:
    config = defaults()

    config.dataset.source = "digits"
    config.dataset.name = "digits"
    config.dataset.split = "all"
    config.dataset.image_size = 8  # as they are stored
    config.dataset.conditional = True
    config.dataset.flip = False

    config.architecture = "stylegan2"
    config.generator.latent_dim = 32
    config.generator.style_dim = 32
    config.generator.mapping_layers = 2
    config.generator.width = 32  # channels at every size
    config.generator.style_mixing = 0.0
    config.generator.dtype = "float32"
    config.discriminator.width = 64
    config.discriminator.group = 32  # images, in the deviation of a batch
    config.discriminator.head = "mapped_projection"
    config.discriminator.mapping_layers = 2
    config.discriminator.dtype = "float32"

    config.loss.d_updates.main = {"bce_real": {"weight": 1.0}, "bce_fake": {"weight": 1.0}}
    config.loss.d_updates.lazy = {"r1": {"weight": 0.03, "every": 16}}
    config.loss.g_terms.bce = {"weight": 1.0}

    config.g_optimizer.name = "adam"
    config.g_optimizer.learning_rate = 2.5e-3 * 4 / 5
    config.g_optimizer.b1 = 0.0
    config.g_optimizer.b2 = 0.99 ** (4 / 5)
    config.g_optimizer.eps = 1e-8
    config.d_optimizer.update(config.g_optimizer)
    config.d_optimizer.learning_rate = 2.5e-3 * 16 / 17
    config.d_optimizer.b2 = 0.99 ** (16 / 17)
    config.ema.halflife_kimg = 2.0
    config.ema.start_kimg = 2.0

    config.train.total_kimg = 100.0
    config.train.batch_size = 32
    config.train.g_batch_size = 32
    config.train.d_steps_per_g_step = 1

    config.train.log_kimg = 2.0
    config.train.sample_kimg = 20.0
    config.evaluate.every_kimg = 20.0
    config.guard.d_perfect_kimg = 20.0  # the run is short
    return config
