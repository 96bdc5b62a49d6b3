"""CIFAR-10 with BigGAN and differentiable augmentation: the discriminator sees real and generated images changed alike.

Source: Zhao et al. (2020) in StudioGAN's BigGAN-DiffAug for CIFAR-10 (Kang et al. 2023): cifar10_biggan.py with colour,
translation by up to 1/8 and a cut-out of half of each side, 200,000 generator updates = 64,000 kimg.
Expected: FID 3.35, Inception score 10.03, FID within classes 12.63 (StudioGAN's table: 50k generated against the 50k
training images, TensorFlow's Inception). Its log (10k against the 10k test images: 28.0 after 3,200 kimg, 8.1 after
32,000, 7.3 after 64,000; 28.6 and 8.1 without) says that augmentation pays after 32,000 kimg and costs before.
Differs from it: as cifar10_biggan.py says. --config.augment.probability, and anneal.to, leave images as they are more
often.
Hardware and time: not trained here.

    cgan train --config=configs/cifar10_biggan_diffaug.py --workdir=runs/cifar10_biggan_diffaug
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    optimizer = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5, "b2": 0.999, "eps": 1e-6, "schedule": "constant"}
    return ConfigDict(
        {
            "architecture": "biggan",
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
            "generator": {"latent_dim": 80, "width": 96, "embedding_dim": 128, "dtype": "bfloat16"},
            "discriminator": {"width": 96, "head": "projection", "dtype": "bfloat16"},
            "loss": {
                "d_updates": {"both": {"hinge_real": {"weight": 1.0}, "hinge_fake": {"weight": 1.0}}},
                "g_terms": {"hinge": {"weight": 1.0}},
            },
            "g_optimizer": {**optimizer},
            "d_optimizer": {**optimizer},
            "ema": {"halflife_kimg": 2218.0, "start_kimg": 320.0},
            "augment": {"policy": "color,translation,cutout", "probability": 1.0},
            "anneal": {"kimg": 0.0, "to": {}},
            "train": {
                "total_kimg": 64000.0,
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
