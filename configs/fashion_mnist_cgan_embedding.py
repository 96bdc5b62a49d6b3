"""Fashion-MNIST by class: the label is embedded.

Source: Mirza & Osindero (2014) as in Brownlee's Keras tutorial (2019), for grey images of 28x28. The pair is that of
cifar10_cgan_embedding. The label's map is 7x7 in the generator, beside the first feature map. It is 28x28 in the
discriminator, beside the image.
Expected: clothes, a class in each row; no number was reported.
Differs from the original: real images come in shuffled order, each once an epoch. The generated images of a
discriminator update have the labels of its real images; the original draws labels evenly.
Data: run `cgan prepare-data --dataset=fashion_mnist` first.
Hardware and time: not trained on Fashion-MNIST here. Most of ten letters, enlarged to 28 pixels, can be read after 60
kimg, which took 22 min on two shared cores of an AMD EPYC.

    cgan train --config=fashion_mnist_cgan_embedding --workdir=runs/fashion_mnist_cgan_embedding
"""

from ml_collections import ConfigDict

from cgan_jax.recipe import defaults


def get_config() -> ConfigDict:
    config = defaults()

    config.dataset.source = "tfds"
    config.dataset.name = "fashion_mnist"
    config.dataset.split = "train"
    config.dataset.image_size = 28
    config.dataset.conditional = True
    config.dataset.flip = False

    config.architecture = "dcgan"
    config.generator.latent_dim = 100
    config.generator.width = 128
    config.generator.embedding_dim = 50
    config.generator.output_kernel_size = 7
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

    config.train.total_kimg = 2500.0  # about 42 epochs
    config.train.batch_size = 64
    config.train.g_batch_size = 128  # as many as both discriminator updates see together
    config.train.d_steps_per_g_step = 1
    return config
