"""SNGAN with projection on CIFAR-10, as StudioGAN trains it.

Source: Miyato et al. (2018) and Miyato & Koyama (2018), in StudioGAN's SNGAN for CIFAR-10 (Kang et al. 2023).
Expected: FID 9.01, Inception score 8.83, precision 0.70, recall 0.62, FID within classes 22.85. The protocol of
StudioGAN's table is 50k generated against the 50k training images, with TensorFlow's Inception.
The paper's training is another, and reports FID 17.5. It has Glorot weights, b1 0, b2 0.9 and
rates that fall to 0 from the start. A generator update has 128 images, and there are 50,000. Images are dequantised and
not mirrored.
Differs from StudioGAN, and the effect of each difference is unknown:
- The generator is averaged, as in StudioGAN's BigGAN; --config.ema.halflife_kimg=0.0 turns this off.
- Activations are bfloat16; set generator.dtype and discriminator.dtype to float32 for theirs.
- Power iterations, labels, shortcuts, precision and recall differ as in cifar10_biggan.
Hardware and time: not trained here at this width. StudioGAN publishes 0.28 s a generator update.

    cgan train --config=cifar10_sngan --workdir=runs/cifar10_sngan
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
    config.generator.width = 64  # 256 channels in every block
    config.generator.dtype = "bfloat16"  # of activations
    config.discriminator.width = 64  # 128 channels in every block
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

    config.train.total_kimg = 32000.0  # 100,000 generator updates
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
