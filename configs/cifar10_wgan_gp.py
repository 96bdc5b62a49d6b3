"""The Wasserstein loss with gradient penalty, without classes.

Source: Gulrajani et al. (2017), algorithm 1. The critic has no batch normalisation (their section 4) and no dropout.
The networks are those of cifar10_dcgan, without classes.
Expected: unknown for this code. StudioGAN's benchmark reports FID 53.98 for another WGAN-GP, 50k generated against the
50k training images. Here 500 kimg gave textures without objects, and a Fréchet distance of 238 (packaged classifier,
2,000 images, one seed).
Only the difference of the critic's means shows progress: -(d_wasserstein_real + d_wasserstein_fake) estimates a
distance. There is no d_accuracy, because a critic's output has no natural zero.
Differs from the paper: smaller networks, no averaged generator, and 5,000 kimg = 15,625 generator updates. The paper
takes more than 100,000.
Hardware and time: 26 of 5,000 kimg took 4.0 min on two shared cores of a Xeon.

    cgan train --config=cifar10_wgan_gp --workdir=runs/cifar10_wgan_gp
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
    config.generator.latent_dim = 128
    config.generator.width = 128
    config.generator.embedding_dim = 50  # read if dataset.conditional is True
    config.generator.output_kernel_size = 8
    config.generator.dtype = "float32"
    config.discriminator.width = 128
    config.discriminator.embedding_dim = 50  # read if dataset.conditional is True
    config.discriminator.dropout = 0.0
    config.discriminator.dtype = "float32"

    config.loss.d_updates.both = {"wasserstein_real": {"weight": 1.0}, "wasserstein_fake": {"weight": 1.0}}
    config.loss.d_updates.both.gradient_penalty = {"weight": 10.0, "target": 1.0}  # towards slope 1
    config.loss.g_terms.wasserstein = {"weight": 1.0}

    config.g_optimizer.name = "adam"
    config.g_optimizer.learning_rate = 1e-4
    config.g_optimizer.b1 = 0.0
    config.g_optimizer.b2 = 0.9
    config.g_optimizer.eps = 1e-8
    config.d_optimizer.update(config.g_optimizer)
    config.ema.halflife_kimg = 0.0  # no averaged generator
    config.ema.start_kimg = 0.0

    config.train.total_kimg = 5000.0  # 15,625 generator updates
    config.train.batch_size = 64
    config.train.g_batch_size = 64
    config.train.d_steps_per_g_step = 5

    config.guard.d_perfect_kimg = 0.0  # off: a critic has no accuracy
    return config
