"""A narrow R3GAN on CIFAR-10 for a single accelerator.

Source: cifar10_r3gan (Huang, Gokaslan, Kuleshov & Tompkin 2024) with a third of the width, 2.7M parameters a network.
Batches have half the images, the run has a 25th. The schedules end after 6,000 kimg in place of 20,000.
Expected: unknown; we know no published run of this size.
Differs from the source as cifar10_r3gan does.
Hardware and time: about an eighth of the arithmetic of cifar10_r3gan; not trained here. With
--config.train.max_minutes=20.0 the schedules end as far through 20 minutes as they do through 10,000 kimg.

    cgan train --config=cifar10_r3gan_lite --workdir=runs/cifar10_r3gan_lite
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

    config.architecture = "r3gan"
    config.generator.latent_dim = 64
    config.generator.width = 256
    config.generator.blocks = 2
    config.generator.embedding_dim = 64
    config.generator.dtype = "bfloat16"  # of activations
    config.discriminator.width = 256
    config.discriminator.blocks = 2
    config.discriminator.dtype = "bfloat16"

    config.loss.d_updates.both = {"relativistic": {"weight": 1.0}}
    config.loss.d_updates.both.r1 = {"weight": 0.05}  # R1 and R2 at every step; both fall, see anneal
    config.loss.d_updates.both.r2 = {"weight": 0.05}
    config.loss.g_terms.relativistic = {"weight": 1.0}

    config.g_optimizer.name = "adam"
    config.g_optimizer.learning_rate = 2e-4  # falls, see anneal
    config.g_optimizer.b1 = 0.0
    config.g_optimizer.b2 = 0.9  # grows, see anneal
    config.g_optimizer.eps = 1e-8
    config.d_optimizer.update(config.g_optimizer)
    config.ema.halflife_kimg = 0.0  # grows, see anneal
    config.ema.start_kimg = 0.0
    config.augment.policy = "xflip,rotate90,xint,scale,rotate,aniso,xfrac,"
    config.augment.policy += "brightness:0.5,contrast:0.5,lumaflip:0.5,hue:0.5,saturation:0.5,cutout"  # half as likely
    config.augment.probability = 0.0  # grows, see anneal

    # Half a cosine from the values above to these.
    config.anneal.kimg = 6000.0
    config.anneal.to.augment = {"probability": 0.55}
    config.anneal.to.d_optimizer = {"b2": 0.99, "learning_rate": 5e-5}
    config.anneal.to.ema = {"halflife_kimg": 500.0}  # 5% of the run
    config.anneal.to.g_optimizer = {"b2": 0.99, "learning_rate": 5e-5}
    config.anneal.to.loss = {"d_updates": {"both": {"r1": {"weight": 0.005}, "r2": {"weight": 0.005}}}}

    config.train.total_kimg = 10000.0
    config.train.batch_size = 256
    config.train.g_batch_size = 256
    config.train.d_steps_per_g_step = 1

    config.train.log_kimg = 10.0
    config.train.sample_kimg = 100.0
    config.evaluate.metrics = "fid,intra_fid,class_accuracy,ms_ssim"
    config.evaluate.keep_best = "fid"
    config.evaluate.every_kimg = 1000.0
    config.evaluate.num_images = 10000
    config.checkpoint.every_kimg = 200.0
    config.guard.d_perfect_kimg = 0.0  # off: a relativistic loss compares images, and has no accuracy
    return config
