"""The conditional default: DCGAN with the label as a feature map.

Source: the pair of cifar10_dcgan (Radford et al. 2016, as in Keras tutorials), with the labels of Mirza & Osindero
(2014).
Expected: images of the class that is asked for; no number was reported. Here 500 kimg gave a class accuracy of 26% and
a Fréchet distance of 161 (packaged classifier, 2,000 images, one seed).
Differs from the source: there is one discriminator update, on real and generated images together. Real images are
mirrored, the generator is averaged, and both networks see 64 images a batch.
Hardware and time: 26 of 2,500 kimg took 8.9 min on two shared cores of a Xeon. 500 kimg took 81 s on an H100 that five
other runs shared.

    cgan train --config=cifar10_cgan --workdir=runs/cifar10_cgan
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

    config.architecture = "dcgan"
    config.generator.latent_dim = 100
    config.generator.width = 128
    config.generator.embedding_dim = 50
    config.generator.output_kernel_size = 8
    config.generator.dtype = "float32"
    config.discriminator.width = 128
    config.discriminator.embedding_dim = 50
    config.discriminator.dropout = 0.4
    config.discriminator.dtype = "float32"

    config.loss.d_updates.both = {"bce_real": {"weight": 1.0}, "bce_fake": {"weight": 1.0}}
    config.loss.g_terms.bce = {"weight": 1.0}

    config.g_optimizer.name = "adam"
    config.g_optimizer.learning_rate = 2e-4
    config.g_optimizer.b1 = 0.5
    config.g_optimizer.b2 = 0.999
    config.g_optimizer.eps = 1e-8
    config.d_optimizer.update(config.g_optimizer)
    config.ema.halflife_kimg = 20.0
    config.ema.start_kimg = 20.0

    config.train.total_kimg = 2500.0
    config.train.batch_size = 64
    config.train.g_batch_size = 64
    config.train.d_steps_per_g_step = 1

    config.evaluate.metrics = "fid,intra_fid,class_accuracy,ms_ssim"
    config.evaluate.keep_best = "fid"
    config.evaluate.every_kimg = 250.0
    config.evaluate.num_images = 5000
    return config
