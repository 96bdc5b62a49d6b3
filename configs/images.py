"""Your own images: a small SNGAN with augmentation.

Source: the networks and losses of cifar10_sngan with the augmentation of Zhao et al. (2020), as in
cifar10_biggan_diffaug. The widths and rates are those of cifar10_sngan_narrow.
Expected: depends on the images; a tenth of a run was made (docs/images.md), and no whole one.
Differs from cifar10_sngan: as cifar10_sngan_narrow does; augmentation, because a discriminator soon knows few images by
heart; 64 pixels.
Data: a folder of class folders, a list, a ZIP or arrays; docs/images.md. Images of 32, 64, 128 or 256 pixels.
Hardware and time: docs/images.md. With an accelerator take wider networks: --config.generator.width=64
--config.discriminator.width=64.

    cgan train --config=images --workdir=runs/images
"""

from ml_collections import ConfigDict

from cgan_jax.recipe import defaults


def get_config() -> ConfigDict:
    config = defaults()

    config.dataset.source = "images"
    config.dataset.name = ""  # data_dir itself
    config.dataset.split = "train"  # all, if there are no splits
    config.dataset.image_size = 64
    config.dataset.conditional = True
    config.dataset.flip = True  # off for what has a left and a right, as text

    config.architecture = "sngan"
    config.generator.latent_dim = 128
    config.generator.width = 16  # 256 channels at 4 pixels, half as many at each doubling
    config.generator.dtype = "float32"
    config.discriminator.width = 16
    config.discriminator.head = "projection"
    config.discriminator.dtype = "float32"

    config.loss.d_updates.both = {"hinge_real": {"weight": 1.0}, "hinge_fake": {"weight": 1.0}}
    config.loss.g_terms.hinge = {"weight": 1.0}

    config.g_optimizer.name = "adam"
    config.g_optimizer.learning_rate = 3e-4
    config.g_optimizer.b1 = 0.0
    config.g_optimizer.b2 = 0.9
    config.g_optimizer.eps = 1e-6
    config.d_optimizer.update(config.g_optimizer)
    config.d_optimizer.learning_rate = 4e-4
    config.ema.halflife_kimg = 5.0
    config.ema.start_kimg = 5.0
    config.augment.policy = "color,translation,cutout"

    config.train.total_kimg = 300.0
    config.train.batch_size = 32
    config.train.g_batch_size = 32
    config.train.d_steps_per_g_step = 1

    config.train.sample_kimg = 10.0
    config.checkpoint.every_kimg = 20.0
    return config
