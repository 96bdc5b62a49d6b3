"""StyleGAN2-ADA on CIFAR-10: styles, R1, and augmentation that adapts.

Source: Karras et al. (2020, "Training Generative Adversarial Networks with Limited Data"), the CIFAR-10 preset of their
code. No path length regularisation, no style mixing, no flips. R1 is a separate update at every 16th step. Adam's
numbers are corrected for such updates: the rate times k / (k + 1), and b2 to that power. k is 16 for the discriminator
and 4 for the generator, which has such updates in their other presets.
Expected: FID 2.42 after 100,000 kimg, 50,000 generated images against the 50,000 training images. StudioGAN's log of
the same recipe has 22.4 after 1,280 kimg, 8.0 after 3,200, 3.39 after 12,800. The generator has 20,215,315 parameters
and the discriminator 23,089,664, as published (20.2 and 23.1 million).
Differs from the source: bfloat16 in place of clipped float16. The average's half-life grows along half a cosine, theirs
along a line. Drawing and scoring use one noise for all images. The discriminator's updates come first, and of them that
of R1. The mean style follows the generator's updates alone.
Hardware and time: not trained here. StudioGAN's took 10 days on two GPUs.

    cgan train --config=cifar10_stylegan2_ada --workdir=runs/cifar10_stylegan2_ada
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
    config.dataset.flip = False

    config.architecture = "stylegan2"
    config.generator.latent_dim = 512
    config.generator.style_dim = 512
    config.generator.mapping_layers = 2
    config.generator.width = 512  # channels at every size
    config.generator.style_mixing = 0.0
    config.generator.dtype = "bfloat16"  # of activations
    config.discriminator.width = 512
    config.discriminator.group = 32  # images, in the deviation of a batch
    config.discriminator.head = "mapped_projection"  # of 8 layers
    config.discriminator.dtype = "bfloat16"

    config.loss.d_updates.main = {"bce_real": {"weight": 1.0}, "bce_fake": {"weight": 1.0}}
    config.loss.d_updates.lazy = {"r1": {"weight": 0.01, "every": 16}}
    config.loss.g_terms.bce = {"weight": 1.0}

    config.g_optimizer.name = "adam"
    config.g_optimizer.learning_rate = 2.5e-3 * 4 / 5
    config.g_optimizer.b1 = 0.0
    config.g_optimizer.b2 = 0.99 ** (4 / 5)
    config.g_optimizer.eps = 1e-8
    config.d_optimizer.update(config.g_optimizer)
    config.d_optimizer.learning_rate = 2.5e-3 * 16 / 17
    config.d_optimizer.b2 = 0.99 ** (16 / 17)
    config.ema.halflife_kimg = 0.0  # grows, see anneal
    config.ema.start_kimg = 0.0
    config.augment.policy = "xflip,rotate90,xint,scale,rotate,aniso,xfrac,brightness,contrast,lumaflip,hue,saturation"
    config.augment.probability = 0.0  # adapts
    config.augment.target = 0.6
    config.augment.target_kimg = 500.0

    config.anneal.kimg = 10000.0
    config.anneal.to.ema = {"halflife_kimg": 500.0}

    config.train.total_kimg = 100000.0
    config.train.batch_size = 64
    config.train.g_batch_size = 64
    config.train.d_steps_per_g_step = 1

    config.train.log_kimg = 16.0
    config.train.sample_kimg = 320.0
    config.evaluate.metrics = "fid,intra_fid,class_accuracy,precision_recall,ms_ssim"
    config.evaluate.keep_best = "fid"
    config.evaluate.every_kimg = 3200.0
    config.evaluate.num_images = 50000
    config.checkpoint.every_kimg = 320.0
    return config
