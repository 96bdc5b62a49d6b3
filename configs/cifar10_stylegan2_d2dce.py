"""StyleGAN2 on CIFAR-10 with the data-to-data loss of ReACGAN.

Source: Kang, Shim, Cho & Park (2021), in StudioGAN's StyleGAN2-D2DCE for CIFAR-10 (Kang et al. 2023). The networks, R1
and Adam are those of cifar10_stylegan2_ada, with flips and without augmentation. The head has unit vectors of images
and classes in place of the projection. Two discriminator updates for one of the generator.
Expected: FID 3.44, Inception score 10.43, 50,000 generated images against the 50,000 training images. StudioGAN's log
has 12.0 after 20,000 generator updates, 5.4 after 50,000 and 3.9 after 100,000: half the updates of StyleGAN2 without
this loss.
Differs from the source: as cifar10_stylegan2_ada does. The length and R1's count of discriminator updates are our
reading. 20,215,315 parameters in the generator and 20,988,417 in the discriminator, not compared with theirs.
Hardware and time: not trained here.

    cgan train --config=cifar10_stylegan2_d2dce --workdir=runs/cifar10_stylegan2_d2dce
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

    config.architecture = "stylegan2"
    config.generator.latent_dim = 512
    config.generator.style_dim = 512
    config.generator.mapping_layers = 2
    config.generator.width = 512  # channels at every size
    config.generator.style_mixing = 0.0
    config.generator.dtype = "bfloat16"  # of activations
    config.discriminator.width = 512
    config.discriminator.group = 32  # images, in the deviation of a batch
    config.discriminator.head = "class_proxies"
    config.discriminator.dtype = "bfloat16"

    config.loss.d_updates.main = {"bce_real": {"weight": 1.0}, "bce_fake": {"weight": 1.0}}
    config.loss.d_updates.main.data_to_data_real = {"weight": 0.25, "margin": 0.98, "temperature": 0.25}
    config.loss.d_updates.lazy = {"r1": {"weight": 0.01, "every": 16}}
    config.loss.g_terms.bce = {"weight": 1.0}
    config.loss.g_terms.data_to_data_fake = {"weight": 0.25, "margin": 0.98, "temperature": 0.25}

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

    config.anneal.kimg = 10000.0
    config.anneal.to.ema = {"halflife_kimg": 500.0}

    config.train.total_kimg = 25600.0  # 200,000 generator updates
    config.train.batch_size = 64
    config.train.g_batch_size = 64
    config.train.d_steps_per_g_step = 2

    config.train.log_kimg = 16.0
    config.train.sample_kimg = 320.0
    config.evaluate.metrics = "fid,intra_fid,class_accuracy,precision_recall,ms_ssim"
    config.evaluate.keep_best = "fid"
    config.evaluate.every_kimg = 1280.0
    config.evaluate.num_images = 50000
    config.checkpoint.every_kimg = 320.0
    return config
