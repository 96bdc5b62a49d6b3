"""CIFAR-10 with SNGAN and projection, as the StudioGAN benchmark trains it: hinge loss, five discriminator updates.

Source: Miyato et al. (2018) and Miyato & Koyama (2018), in StudioGAN's SNGAN for CIFAR-10 (Kang et al. 2023): 256
channels in the generator, 128 against it, orthogonal weights, Adam(2e-4, b1 0.5, b2 0.999, eps 1e-6), 64 images a
batch, mirrored real images, 100,000 generator updates = 32,000 kimg.
Expected: FID 9.01, Inception score 8.83, precision 0.70, recall 0.62, FID within classes 22.85 (StudioGAN's table: 50k
generated against the 50k training images, TensorFlow's Inception).
Not the paper's own training, which reports FID 17.5: there Glorot weights, b1 0, b2 0.9, rates falling to 0 from the
start, 128 images in the generator's update, 50,000 updates, dequantised and not mirrored images.
Differs from StudioGAN: an averaged generator of 0.9999 an update from the 1,000th on (--config.ema.halflife_kimg=0.0
is without), as its BigGAN has; activations in bfloat16 (--config.generator.dtype and discriminator.dtype); and as
cifar10_biggan.py says of power iterations, labels, shortcuts, and of precision and recall. Which of these matter has
not been tried.
Hardware and time: not trained here at this width; StudioGAN publishes 0.28 s a generator update.

    cgan train --config=configs/cifar10_sngan.py --workdir=runs/cifar10_sngan
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    optimizer = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5, "b2": 0.999, "eps": 1e-6, "schedule": "constant"}
    return ConfigDict(
        {
            "architecture": "sngan",
            "seed": 0,
            "dataset": {
                "source": "tfds",
                "name": "cifar10",
                "split": "train",
                "data_dir": "",
                "image_size": 32,
                "conditional": True,
                "flip": True,
                "placement": "replicated",
            },
            "generator": {"latent_dim": 128, "width": 64, "dtype": "bfloat16"},
            "discriminator": {"width": 64, "head": "projection", "dtype": "bfloat16"},
            "loss": {
                "d_updates": {"both": {"hinge_real": {"weight": 1.0}, "hinge_fake": {"weight": 1.0}}},
                "g_terms": {"hinge": {"weight": 1.0}},
            },
            "g_optimizer": {**optimizer},
            "d_optimizer": {**optimizer},
            "ema": {"halflife_kimg": 2218.0, "start_kimg": 320.0},
            "augment": {"policy": "", "probability": 1.0},
            "anneal": {"kimg": 0.0, "to": {}},
            "train": {
                "total_kimg": 32000.0,
                "max_minutes": 0.0,
                "batch_size": 64,
                "g_batch_size": 64,
                "d_steps_per_g_step": 5,
                "steps_per_call": 0,
                "parallelism": "shard_map",
                "log_kimg": 16.0,
                "sample_kimg": 320.0,
            },
            "evaluate": {
                "metrics": "fid,intra_fid,class_accuracy,precision_recall,ms_ssim",
                "features": "classifier",
                "every_kimg": 1600.0,
                "num_images": 10000,
                "keep_best": "",
            },
            "checkpoint": {"every_kimg": 320.0, "max_to_keep": 3},
            "guard": {
                "action": "raise",
                "max_rollbacks": 3,
                "d_perfect_kimg": 100.0,
                "collapse": 0.1,
                "watchdog_minutes": 30.0,
                "watchdog_exits": False,
            },
        }
    )
