"""CIFAR-10 by class with a narrow R3GAN: a third of the width and a 25th of the images, for a single accelerator.

Source: cifar10_r3gan.py (Huang, Gokaslan, Kuleshov & Tompkin 2024) with 256 channels, 2.7M parameters a network,
batches of 256, 10,000 kimg. Its schedules end after 6,000 kimg in place of 20,000, and the half-life of the averaged
generator reaches 500 kimg, 5% of the run.
Expected: unknown; nobody has published a run of this size. What differs from the source there differs here too.
Hardware and time: about an eighth of the arithmetic of the full one; not trained here. With
--config.train.max_minutes=20.0 the schedules end as far through 20 minutes as they do through 10,000 kimg.

    cgan train --config=configs/cifar10_r3gan_lite.py --workdir=runs/cifar10_r3gan_lite
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    optimizer = {"name": "adam", "learning_rate": 2e-4, "b1": 0.0, "b2": 0.9, "eps": 1e-8, "schedule": "constant"}
    annealed = {"learning_rate": 5e-5, "b2": 0.99}
    return ConfigDict(
        {
            "architecture": "r3gan",
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
            "generator": {"latent_dim": 64, "width": 256, "blocks": 2, "embedding_dim": 64, "dtype": "bfloat16"},
            "discriminator": {"width": 256, "blocks": 2, "dtype": "bfloat16"},
            "loss": {
                "d_updates": {
                    "both": {"relativistic": {"weight": 1.0}, "r1": {"weight": 0.05}, "r2": {"weight": 0.05}}
                },
                "g_terms": {"relativistic": {"weight": 1.0}},
            },
            "g_optimizer": {**optimizer},
            "d_optimizer": {**optimizer},
            "ema": {"halflife_kimg": 0.0, "start_kimg": 0.0},
            "augment": {"policy": "color,translation,cutout", "probability": 0.0},
            "anneal": {
                "kimg": 6000.0,
                "to": {
                    "loss": {"d_updates": {"both": {"r1": {"weight": 0.005}, "r2": {"weight": 0.005}}}},
                    "g_optimizer": {**annealed},
                    "d_optimizer": {**annealed},
                    "ema": {"halflife_kimg": 500.0},
                    "augment": {"probability": 0.55},
                },
            },
            "train": {
                "total_kimg": 10000.0,
                "max_minutes": 0.0,
                "batch_size": 256,
                "g_batch_size": 256,
                "d_steps_per_g_step": 1,
                "steps_per_call": 0,
                "parallelism": "shard_map",
                "log_kimg": 10.0,
                "sample_kimg": 100.0,
            },
            "evaluate": {
                "metrics": "fid,intra_fid,class_accuracy,ms_ssim",
                "features": "classifier",
                "every_kimg": 1000.0,
                "num_images": 10000,
                "keep_best": "fid",
            },
            "checkpoint": {"every_kimg": 200.0, "max_to_keep": 3},
            "guard": {
                "action": "raise",
                "max_rollbacks": 3,
                "d_perfect_kimg": 0.0,
                "collapse": 0.1,
                "watchdog_minutes": 30.0,
                "watchdog_exits": False,
            },
        }
    )
