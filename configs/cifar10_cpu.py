"""Draft."""

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

    config.architecture = "projected"
    config.generator.latent_dim = 64
    config.generator.width = 32
    config.generator.excitation = False
    config.generator.dtype = "float32"
    config.discriminator.width = 64
    config.discriminator.maps = "0123"
    config.discriminator.dtype = "float32"

    config.loss.d_updates.both = {"patch_hinge_real": {"weight": 1.0}, "patch_hinge_fake": {"weight": 1.0}}
    config.loss.g_terms.hinge = {"weight": 1.0}
    config.augment.policy = "color,translation,cutout"

    config.g_optimizer.name = "adam"
    config.g_optimizer.learning_rate = 5e-4
    config.g_optimizer.b1 = 0.0
    config.g_optimizer.b2 = 0.99
    config.g_optimizer.eps = 1e-8
    config.d_optimizer.update(config.g_optimizer)
    config.d_optimizer.learning_rate = 5e-4
    config.ema.halflife_kimg = 5.0
    config.ema.start_kimg = 2.0

    config.train.total_kimg = 50.0
    config.train.batch_size = 32
    config.train.g_batch_size = 32
    config.train.d_steps_per_g_step = 1

    config.train.log_kimg = 2.5
    config.train.sample_kimg = 12.5
    config.evaluate.metrics = "fid,class_accuracy,precision_recall"
    config.evaluate.every_kimg = 25.0
    config.evaluate.num_images = 2000
    config.checkpoint.every_kimg = 25.0
    return config
