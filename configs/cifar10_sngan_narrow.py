"""SNGAN at a quarter of the width, for minutes on a processor.

Source: the networks, losses and initial weights of cifar10_sngan, with a quarter of its channels.
Expected: Fréchet distances of 141, 150 and 171 for seeds 0 to 2, with the packaged classifier and 2,000 images. The
classifier sees the class that was asked for in 34, 28 and 27% of the images. After as many images, cifar10_cgan has a
distance of 300 or more, and 10%, which is chance.
Differs from cifar10_sngan: one discriminator update in place of five, smaller batches, other betas, higher rates, a
short average. The reason is that few images are shown.
Hardware and time: 50 kimg in 9 min on two cores of an AMD EPYC.

    cgan train --config=cifar10_sngan_narrow --workdir=runs/cifar10_sngan_narrow
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
    config.dataset.flip = True

    config.architecture = "sngan"
    config.generator.latent_dim = 128
    config.generator.width = 16  # 64 channels in every block
    config.generator.dtype = "float32"
    config.discriminator.width = 16  # 32 channels in every block
    config.discriminator.head = "projection"
    config.discriminator.dtype = "float32"

    config.loss.d_updates.both = {"hinge_real": {"weight": 1.0}, "hinge_fake": {"weight": 1.0}}
    config.loss.g_terms.hinge = {"weight": 1.0}

    config.g_optimizer.name = "adam"
    # With 1e-3 for both networks, the discriminator returns one number for all images within 25 kimg.
    config.g_optimizer.learning_rate = 3e-4
    config.g_optimizer.b1 = 0.0  # as in the paper; StudioGAN has 0.5 and 0.999
    config.g_optimizer.b2 = 0.9
    config.g_optimizer.eps = 1e-6
    config.d_optimizer.update(config.g_optimizer)
    config.d_optimizer.learning_rate = 4e-4
    config.ema.halflife_kimg = 2.0  # 2,218 in the full recipe, which shows 640 times the images
    config.ema.start_kimg = 2.0

    config.train.total_kimg = 50.0
    config.train.batch_size = 32
    config.train.g_batch_size = 32
    config.train.d_steps_per_g_step = 1

    config.train.log_kimg = 2.5
    config.train.sample_kimg = 12.5
    config.evaluate.metrics = "fid,intra_fid,class_accuracy,precision_recall"
    config.evaluate.every_kimg = 12.5
    config.evaluate.num_images = 2000
    config.checkpoint.every_kimg = 12.5
    return config
