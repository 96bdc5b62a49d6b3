"""BigGAN with differentiable augmentation on CIFAR-10.

Source: Zhao et al. (2020), in StudioGAN's BigGAN-DiffAug for CIFAR-10 (Kang et al. 2023). It is cifar10_biggan, trained
twice as long, with real and generated images augmented alike before the discriminator sees them.
Expected: FID 3.35, Inception score 10.03, FID within classes 12.63. The protocol of StudioGAN's table is 50k generated
against the 50k training images, with TensorFlow's Inception.
StudioGAN's log has 10k generated against the 10k test images. With augmentation FID is 28.0 after 3,200 kimg, 8.1 after
32,000 and 7.3 after 64,000. Without, it is 28.6 and 8.1. Augmentation pays after 32,000 kimg and costs before.
Differs from StudioGAN as cifar10_biggan does.
Hardware and time: not trained here.

    cgan train --config=cifar10_biggan_diffaug --workdir=runs/cifar10_biggan_diffaug
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

    config.architecture = "biggan"
    config.generator.latent_dim = 80  # 20 for the first layer and for each of three blocks
    config.generator.width = 96  # 384 channels in every block
    config.generator.embedding_dim = 128
    config.generator.dtype = "bfloat16"  # of activations
    config.discriminator.width = 96  # 192 channels in every block
    config.discriminator.head = "projection"
    config.discriminator.dtype = "bfloat16"

    config.loss.d_updates.both = {"hinge_real": {"weight": 1.0}, "hinge_fake": {"weight": 1.0}}
    config.loss.g_terms.hinge = {"weight": 1.0}

    config.g_optimizer.name = "adam"
    config.g_optimizer.learning_rate = 2e-4
    config.g_optimizer.b1 = 0.5
    config.g_optimizer.b2 = 0.999
    config.g_optimizer.eps = 1e-6
    config.d_optimizer.update(config.g_optimizer)
    config.ema.halflife_kimg = 2218.0  # 0.9999 an update, of 5 x 64 real images
    config.ema.start_kimg = 320.0  # 1,000 generator updates
    config.augment.policy = "color,translation,cutout"  # shifts by up to 1/8; cuts out half of each side
    config.augment.probability = 1.0  # of augmenting an image; a lower one leaves more of them unchanged

    config.train.total_kimg = 64000.0  # 200,000 generator updates
    config.train.batch_size = 64
    config.train.g_batch_size = 64
    config.train.d_steps_per_g_step = 5

    config.train.log_kimg = 16.0
    config.train.sample_kimg = 320.0
    config.evaluate.metrics = "fid,intra_fid,class_accuracy,precision_recall,ms_ssim"
    config.evaluate.every_kimg = 1600.0
    config.evaluate.num_images = 10000
    config.checkpoint.every_kimg = 320.0
    return config
