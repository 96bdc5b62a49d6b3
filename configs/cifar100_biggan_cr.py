"""BigGAN with consistency regularisation on CIFAR-100.

Source: StudioGAN's BigGAN-CR for CIFAR-100 (Kang et al. 2023). It differs from cifar10_biggan_cr in the data only.
Expected: we know no number for this recipe. Zhao et al. (2020) publish FID 11.26 for another BigGAN with consistency
regularisation, 10k generated against the 10k test images, with TensorFlow's Inception. Theirs has no attention, no
shared embeddings, 64 base channels, 50 images a batch, four discriminator updates and b1 0.
Differs from StudioGAN as cifar10_biggan does.
Data: run `cgan prepare-data --dataset=cifar100` first.
Hardware and time: not trained here.

    cgan train --config=cifar100_biggan_cr --workdir=runs/cifar100_biggan_cr
"""

from ml_collections import ConfigDict

from cgan_jax.recipe import defaults


def get_config() -> ConfigDict:
    config = defaults()

    config.dataset.source = "tfds"
    config.dataset.name = "cifar100"
    config.dataset.split = "train"
    config.dataset.image_size = 32
    config.dataset.conditional = True
    config.dataset.flip = True

    config.architecture = "biggan"
    config.generator.latent_dim = 80  # 20 for the first layer and for each of three blocks
    config.generator.width = 96  # 384 channels in every block
    config.generator.embedding_dim = 128
    config.generator.dtype = "bfloat16"  # of activations
    config.discriminator.width = 96  # 192 channels in every block
    config.discriminator.head = "projection"
    config.discriminator.dtype = "bfloat16"

    config.loss.d_updates.both = {"hinge_real": {"weight": 1.0}, "hinge_fake": {"weight": 1.0}}
    config.loss.d_updates.both.consistency = {"weight": 10.0, "shift": 0.125}  # a twin shifts by up to 1/8 of the side
    config.loss.g_terms.hinge = {"weight": 1.0}

    config.g_optimizer.name = "adam"
    config.g_optimizer.learning_rate = 2e-4
    config.g_optimizer.b1 = 0.5
    config.g_optimizer.b2 = 0.999
    config.g_optimizer.eps = 1e-6
    config.d_optimizer.update(config.g_optimizer)
    config.ema.halflife_kimg = 2218.0  # 0.9999 an update, of 5 x 64 real images
    config.ema.start_kimg = 320.0  # 1,000 generator updates

    config.train.total_kimg = 32000.0  # 100,000 generator updates
    config.train.batch_size = 64
    config.train.g_batch_size = 64
    config.train.d_steps_per_g_step = 5

    config.train.log_kimg = 16.0
    config.train.sample_kimg = 320.0
    config.evaluate.every_kimg = 1600.0
    config.evaluate.num_images = 10000
    config.checkpoint.every_kimg = 320.0
    return config
