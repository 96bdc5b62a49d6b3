"""The conditional pair of tutorials: the label is embedded.

Source: Mirza & Osindero (2014) as in Brownlee's Keras tutorial (2019), moved to colour images of 32x32. Each network
has an embedding and a dense layer, which make one more feature map. The generator's is 8x8, beside its first feature
map. The discriminator's is 32x32, beside the image.
Expected: classes that differ in colour and coarse shape; no number was reported. Here 250 kimg gave a class accuracy of
18% and a Fréchet distance of 224 (packaged classifier, 2,000 images, one seed).
Differs from the original: real images come in shuffled order, each once an epoch. The generated images of a
discriminator update have the labels of its real images; the original draws labels evenly.
Differs from cifar10_cgan: two separate discriminator updates, Keras's Adam, twice the images in a generator update, no
averaged generator, no mirrored images.
Hardware and time: 26 of 2,500 kimg took 18.3 min on two shared cores of a Xeon.

    cgan train --config=cifar10_cgan_embedding --workdir=runs/cifar10_cgan_embedding
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

    # Two updates, each on 64 images.
    config.loss.d_updates.first = {"bce_real": {"weight": 1.0}}
    config.loss.d_updates.second = {"bce_fake": {"weight": 1.0}}
    config.loss.g_terms.bce = {"weight": 1.0}

    config.g_optimizer.name = "keras_adam"
    config.g_optimizer.learning_rate = 2e-4
    config.g_optimizer.b1 = 0.5
    config.g_optimizer.b2 = 0.999
    config.g_optimizer.eps = 1e-7  # Keras's default
    config.d_optimizer.update(config.g_optimizer)
    config.ema.halflife_kimg = 0.0  # no averaged generator
    config.ema.start_kimg = 0.0

    config.train.total_kimg = 2500.0
    config.train.batch_size = 64
    config.train.g_batch_size = 128  # as many as both discriminator updates see together
    config.train.d_steps_per_g_step = 1
    return config
