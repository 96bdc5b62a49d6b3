"""CIFAR-10 on two processor cores: images judged by fixed features.

Source: projected GANs (Sauer, Chitta, Müller & Geiger 2021), made small; see networks/architectures/projected.py.
Expected: a Fréchet distance of 12.8 with the packaged classifier and 10,000 images, the requested class in 89% of them
and recall 0.60 after 522 kimg (seed 0, the JPEG copy). The model cifar10 of the package is that. After 87 kimg they
were 15, 91% and 0.43. The best checkpoint is kept.
Differs: the fixed network is small and knows CIFAR-10's own classes; no random projections; no augmentation, because
few epochs are shown; SNGAN's residual blocks in the generator; five and ten times their rates.
Hardware and time: 190 images/s on two cores of an AMD EPYC, so 87 kimg in 8 min and 522 in 46.

    cgan train --config=cifar10_cpu --workdir=runs/cifar10_cpu
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

    config.architecture = "projected"
    config.generator.latent_dim = 64
    config.generator.width = 32  # channels at 32 pixels; 256 at 4
    config.generator.dtype = "float32"
    config.discriminator.width = 64
    config.discriminator.dtype = "float32"

    config.loss.d_updates.both = {"patch_hinge_real": {"weight": 1.0}, "patch_hinge_fake": {"weight": 1.0}}
    config.loss.g_terms.hinge = {"weight": 1.0}

    config.g_optimizer.name = "adam"
    # With 2e-3 the generator learns faster for 60 kimg, and then draws one image of each class.
    config.g_optimizer.learning_rate = 1e-3
    config.g_optimizer.b1 = 0.0
    config.g_optimizer.b2 = 0.99
    config.g_optimizer.eps = 1e-8
    config.d_optimizer.update(config.g_optimizer)
    config.d_optimizer.learning_rate = 2e-3
    # The rates stay constant: the average of different weights draws well, and falling rates make them alike.
    config.ema.halflife_kimg = 5.0
    config.ema.start_kimg = 2.0

    config.train.total_kimg = 522.0
    config.train.batch_size = 32
    config.train.g_batch_size = 32
    config.train.d_steps_per_g_step = 1

    config.train.log_kimg = 2.5
    config.train.sample_kimg = 30.0
    config.evaluate.metrics = "fid,class_accuracy,precision_recall"
    config.evaluate.every_kimg = 30.0
    config.evaluate.num_images = 2000
    config.evaluate.keep_best = "fid"
    config.checkpoint.every_kimg = 30.0
    return config
