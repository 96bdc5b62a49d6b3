"""BigGAN on CIFAR-10, as the StudioGAN benchmark trains it.

Source: Brock, Donahue & Simonyan (2019), in StudioGAN's BigGAN for CIFAR-10 (Kang et al. 2023).
Expected: FID 4.16, Inception score 9.96, precision 0.74, recall 0.65, FID within classes 14.29. The protocol of
StudioGAN's table is 50k generated against the 50k training images, with TensorFlow's Inception. The same model has FID
8.1 with 10k generated against the 10k test images.
Differs from StudioGAN, and the effect of each difference is unknown:
- Activations are bfloat16; set generator.dtype and discriminator.dtype to float32 for theirs.
- Spectral norm takes one power iteration per update of a network; PyTorch takes one per forward pass.
- In a discriminator update, generated images have the labels of the real ones; StudioGAN draws other labels.
- The discriminator's shortcuts carry what the papers draw. In StudioGAN's later blocks they carry it rectified,
  because its ReLU works in place; discriminator.rectified_shortcuts=True does the same.
- Precision and recall follow their authors, with k = 3. StudioGAN takes prdc's, which use one k for all four numbers.
Hardware and time: not trained here. StudioGAN publishes 0.41 s a generator update, and 12 h 50 for all 100,000.

    cgan train --config=cifar10_biggan --workdir=runs/cifar10_biggan
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
    config.loss.g_terms.hinge = {"weight": 1.0}

    config.g_optimizer.name = "adam"
    config.g_optimizer.learning_rate = 2e-4
    config.g_optimizer.b1 = 0.5
    config.g_optimizer.b2 = 0.999
    config.g_optimizer.eps = 1e-6
    config.d_optimizer.update(config.g_optimizer)
    config.ema.halflife_kimg = 2218.0  # 0.9999 an update, of 5 x 64 real images
    config.ema.start_kimg = 320.0  # 1,000 generator updates

    config.train.total_kimg = 32000.0  # 100,000 generator updates
    config.train.batch_size = 64
    config.train.g_batch_size = 64
    config.train.d_steps_per_g_step = 5

    config.train.log_kimg = 16.0
    config.train.sample_kimg = 320.0
    config.evaluate.metrics = "fid,intra_fid,class_accuracy,precision_recall,ms_ssim"
    config.evaluate.every_kimg = 1600.0
    config.evaluate.num_images = 10000
    config.checkpoint.every_kimg = 320.0
    return config
