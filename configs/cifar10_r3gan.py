"""CIFAR-10 by class with R3GAN: residual networks without normalisation, a relativistic loss, R1 and R2 at every step.

Source: Huang, Gokaslan, Kuleshov & Tompkin (2024), the CIFAR-10 preset of their code: 768 channels, two blocks a stage,
latents of 64, batch 512, Adam with b1 0, mirrored images; over the first 20,000 kimg along half a cosine learning rate
2e-4 -> 5e-5, b2 0.9 -> 0.99, weight of R1 and R2 0.05 -> 0.005, half-life of the averaged generator 0 -> 5,000 kimg,
probability of augmentation 0 -> 0.55. Both players draw real images of their own.
Expected: FID 1.96, 50,000 generated against the 50,000 training images, after about 250,000 kimg.
Differs from the source: augmentation is colour, translation and cutout, where theirs also turns, scales and stretches
images and applies its colour operations half as often; R1 and R2 see an augmentation of their own.
Hardware and time: theirs trained at about 90 images/s on an L40; 309 GFLOP a real image here; not trained here.

    cgan train --config=configs/cifar10_r3gan.py --workdir=runs/cifar10_r3gan
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
            "generator": {"latent_dim": 64, "width": 768, "blocks": 2, "embedding_dim": 64, "dtype": "bfloat16"},
            "discriminator": {"width": 768, "blocks": 2, "dtype": "bfloat16"},
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
                "kimg": 20000.0,
                "to": {
                    "loss": {"d_updates": {"both": {"r1": {"weight": 0.005}, "r2": {"weight": 0.005}}}},
                    "g_optimizer": {**annealed},
                    "d_optimizer": {**annealed},
                    "ema": {"halflife_kimg": 5000.0},
                    "augment": {"probability": 0.55},
                },
            },
            "train": {
                "total_kimg": 250000.0,
                "max_minutes": 0.0,
                "batch_size": 512,
                "g_batch_size": 512,
                "d_steps_per_g_step": 1,
                "steps_per_call": 0,
                "parallelism": "shard_map",
                "log_kimg": 50.0,
                "sample_kimg": 500.0,
            },
            "evaluate": {
                "metrics": "fid,intra_fid,class_accuracy,ms_ssim",
                "features": "classifier",
                "every_kimg": 5000.0,
                "num_images": 50000,
                "keep_best": "fid",
            },
            "checkpoint": {"every_kimg": 1000.0, "max_to_keep": 3},
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
