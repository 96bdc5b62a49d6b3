"""BigGAN on ImageNet at 64 pixels: a thousand classes.

Source: StudioGAN's BigGAN for Tiny ImageNet (Kang et al. 2023), which has this size and 200 classes.
Expected: we know no number of such a BigGAN for this data.
Differs from StudioGAN in the data, and as cifar10_biggan does.
Data: TFDS's imagenet_resized/64x64 (Chrabaszcz et al. 2017), 15.7 GB as pixels. A folder per class is read by
--config.dataset.source=image_folder --config.dataset.name= --config.dataset.data_dir=FOLDER.
Hardware and time: not trained here.

    cgan train --config=imagenet64_biggan --workdir=runs/imagenet64_biggan
"""

from ml_collections import ConfigDict

from cgan_jax.recipe import defaults


def get_config() -> ConfigDict:
    config = defaults()

    config.dataset.source = "tfds"
    config.dataset.name = "imagenet_resized/64x64"
    config.dataset.split = "train"
    config.dataset.image_size = 64
    config.dataset.conditional = True
    config.dataset.flip = True
    config.dataset.placement = "stream"  # 1.28 million images, 15.7 GB, stay in host memory

    config.architecture = "biggan"
    config.generator.latent_dim = 100  # 20 for the first layer and for each of four blocks
    config.generator.width = 80  # 1280 to 80 channels
    config.generator.embedding_dim = 128
    config.generator.dtype = "bfloat16"  # of activations
    config.discriminator.width = 80  # 80 to 1280 channels
    config.discriminator.head = "projection"
    config.discriminator.dtype = "bfloat16"

    config.loss.d_updates.both = {"hinge_real": {"weight": 1.0}, "hinge_fake": {"weight": 1.0}}
    config.loss.g_terms.hinge = {"weight": 1.0}

    config.g_optimizer.name = "adam"
    config.g_optimizer.learning_rate = 1e-4
    config.g_optimizer.b1 = 0.0
    config.g_optimizer.b2 = 0.999
    config.g_optimizer.eps = 1e-6
    config.d_optimizer.update(config.g_optimizer)
    config.d_optimizer.learning_rate = 4e-4
    config.ema.halflife_kimg = 7098.0  # 0.9999 an update of 1,024 images
    config.ema.start_kimg = 20480.0  # 20,000 generator updates

    config.train.total_kimg = 102400.0  # 100,000 generator updates
    config.train.batch_size = 1024
    config.train.g_batch_size = 1024
    config.train.d_steps_per_g_step = 1

    config.train.log_kimg = 102.4
    config.train.sample_kimg = 1024.0
    config.evaluate.every_kimg = 10240.0
    config.evaluate.num_images = 10000
    config.checkpoint.every_kimg = 1024.0
    return config
