"""The Keras classic: DCGAN without classes, as published.

Source: Radford et al. (2016) as Keras tutorials have it: two epochs of 390 steps of 64 real images. The discriminator
takes two separate updates, on 64 real and on 64 generated images. The generator takes one, on 128 new latents. A test
compares outputs, gradients and Adam with Keras 3.
Expected: blurred patches of plausible colours, as published after two epochs; no number was reported. Here the whole
length ended at a Fréchet distance of 330 (packaged classifier, 2,000 images, one seed).
Differs from the original: real images come in shuffled order, each once an epoch; the original draws with replacement.
The discriminator learns, as was meant. Under Keras 3 the published program leaves it as it was initialised (same test).
Hardware and time: 26 of 50 kimg took 12.5 min on two shared cores of a Xeon.

    cgan train --config=cifar10_dcgan --workdir=runs/cifar10_dcgan
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

    config.architecture = "dcgan"
    config.generator.latent_dim = 100
    config.generator.width = 128
    config.generator.embedding_dim = 50  # read if dataset.conditional is True
    config.generator.output_kernel_size = 8
    config.generator.dtype = "float32"
    config.discriminator.width = 128
    config.discriminator.embedding_dim = 50  # read if dataset.conditional is True
    config.discriminator.dropout = 0.4
    config.discriminator.dtype = "float32"

    # Two updates, each on 64 images.
    config.loss.d_updates.first = {"bce_real": {"weight": 1.0}}
    config.loss.d_updates.second = {"bce_fake": {"weight": 1.0}}
    config.loss.g_terms.bce = {"weight": 1.0}

    config.g_optimizer.name = "keras_adam"
    config.g_optimizer.learning_rate = 2e-4
    config.g_optimizer.b1 = 0.5
    config.g_optimizer.b2 = 0.999
    config.g_optimizer.eps = 1e-7  # Keras's default
    config.d_optimizer.update(config.g_optimizer)
    config.ema.halflife_kimg = 0.0  # no averaged generator
    config.ema.start_kimg = 0.0

    config.train.total_kimg = 49.92  # 2 epochs of 390 steps of 64 images
    config.train.batch_size = 64
    config.train.g_batch_size = 128  # as many as both discriminator updates see together
    config.train.d_steps_per_g_step = 1

    config.train.log_kimg = 1.28
    config.train.sample_kimg = 12.48
    config.evaluate.every_kimg = 12.48
    config.checkpoint.every_kimg = 12.48
    return config
