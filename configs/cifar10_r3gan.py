"""R3GAN on CIFAR-10: no normalisation, a relativistic loss, R1 and R2.

Source: Huang, Gokaslan, Kuleshov & Tompkin (2024), the CIFAR-10 preset of their code. Eight numbers move along half a
cosine over the first 20,000 kimg, as `anneal` lists them. Each update of a network draws
new real images.
Expected: FID 1.96 after about 250,000 kimg, 50,000 generated against the 50,000 training images.
Differs from the source: R1 and R2 augment their images separately. Cut-outs are centred on whole pixels.
Hardware and time: not trained here. Their code trained at about 90 images/s on an L40; a real image takes 309 GFLOP
here.

    cgan train --config=cifar10_r3gan --workdir=runs/cifar10_r3gan
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
    config.generator.width = 768
    config.generator.blocks = 2
    config.generator.embedding_dim = 64
    config.generator.dtype = "bfloat16"  # of activations
    config.discriminator.width = 768
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
    config.anneal.kimg = 20000.0
    config.anneal.to.augment = {"probability": 0.55}
    config.anneal.to.d_optimizer = {"b2": 0.99, "learning_rate": 5e-5}
    config.anneal.to.ema = {"halflife_kimg": 5000.0}
    config.anneal.to.g_optimizer = {"b2": 0.99, "learning_rate": 5e-5}
    config.anneal.to.loss = {"d_updates": {"both": {"r1": {"weight": 0.005}, "r2": {"weight": 0.005}}}}

    config.train.total_kimg = 250000.0
    config.train.batch_size = 512
    config.train.g_batch_size = 512
    config.train.d_steps_per_g_step = 1

    config.train.log_kimg = 50.0
    config.train.sample_kimg = 500.0
    config.evaluate.metrics = "fid,intra_fid,class_accuracy,ms_ssim"
    config.evaluate.keep_best = "fid"
    config.evaluate.every_kimg = 5000.0
    config.evaluate.num_images = 50000
    config.checkpoint.every_kimg = 1000.0
    config.guard.d_perfect_kimg = 0.0  # off: a relativistic loss compares images, and has no accuracy
    return config
