"""BigGAN-CR on CIFAR-10 in 20 minutes of one accelerator.

Source: cifar10_biggan_cr, with a budget. train.max_minutes ends the run, and the schedules follow the share of the
minutes used. At the end of any budget all schedules have reached their last values.
Expected: unknown for 20 minutes. After 3.6 minutes on one H100, 10k images by the packaged classifier have
class_accuracy 0.79 and cfd10k_train 27.6 (docs/performance.md). StudioGAN's log of BigGAN-CR has FID 25.2 after 3,200
kimg and 13.6 after 6,400 kimg. Its protocol is 10k generated against the 10k test images, with TensorFlow's Inception.
Differs from cifar10_biggan_cr, and no difference has been tested alone:
- The learning rates fall to 0.
- The average is shorter, and grows during the run.
- Two discriminator updates at twice the rate replace five. A train step takes about half the arithmetic.
The run cannot be repeated bit for bit, because the clock moves the rates.
Hardware and time: 20 minutes of one accelerator. An H100 has trained 3.6 minutes of it.

    cgan train --config=cifar10_biggan_cr_short --workdir=runs/cifar10_biggan_cr_short
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
    config.loss.d_updates.both.consistency = {"weight": 10.0, "shift": 0.125}  # a twin shifts by up to 1/8 of the side
    config.loss.g_terms.hinge = {"weight": 1.0}

    config.g_optimizer.name = "adam"
    config.g_optimizer.learning_rate = 2e-4
    config.g_optimizer.b1 = 0.5
    config.g_optimizer.b2 = 0.999
    config.g_optimizer.eps = 1e-6
    config.g_optimizer.schedule = "linear"  # falls to 0
    config.d_optimizer.update(config.g_optimizer)
    config.d_optimizer.learning_rate = 4e-4  # twice the generator's, for two updates
    config.ema.halflife_kimg = 10.0  # grows to 200, see anneal
    config.ema.start_kimg = 10.0

    config.anneal.kimg = 32000.0  # all of total_kimg, so all of the minutes
    config.anneal.to.ema = {"halflife_kimg": 200.0}

    config.train.total_kimg = 32000.0  # the most that a run takes
    config.train.max_minutes = 20.0  # ends the run
    config.train.batch_size = 64
    config.train.g_batch_size = 64
    config.train.d_steps_per_g_step = 2  # 5 in cifar10_biggan_cr

    config.train.log_kimg = 16.0
    config.train.sample_kimg = 160.0
    config.evaluate.metrics = "fid,intra_fid,class_accuracy,precision_recall,ms_ssim"
    config.evaluate.every_kimg = 640.0
    config.evaluate.num_images = 10000
    config.checkpoint.every_kimg = 320.0
    return config
