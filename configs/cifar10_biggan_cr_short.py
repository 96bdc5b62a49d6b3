"""CIFAR-10 with BigGAN and consistency regularisation in 20 minutes of one accelerator: cifar10_biggan_cr.py, budgeted.

Source: cifar10_biggan_cr.py. train.max_minutes ends the run, and what moves follows the share of the minutes used:
learning rates fall to 0, the average's half-life grows from 10 to 200 kimg, so that a run of any length ends annealed.
train.total_kimg is the most that it takes.
Expected: unknown. StudioGAN's log of the recipe at its own rates has FID 25.2 after 3,200 kimg and 13.6 after 6,400
(10k generated against the 10k test images, TensorFlow's Inception).
Differs from it, each untried: rates that fall, the shorter average, two discriminator updates at twice the rate where
it has five, which about halves a generator update's arithmetic.
Not bit for bit repeatable: the clock moves the rates.
Hardware and time: meant for one H200 or its like; not trained here.

    cgan train --config=configs/cifar10_biggan_cr_short.py --workdir=runs/cifar10_biggan_cr_short
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    optimizer = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5, "b2": 0.999, "eps": 1e-6, "schedule": "linear"}
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
                "d_updates": {
                    "both": {
                        "hinge_real": {"weight": 1.0},
                        "hinge_fake": {"weight": 1.0},
                        "consistency": {"weight": 10.0, "shift": 0.125},
                    }
                },
                "g_terms": {"hinge": {"weight": 1.0}},
            },
            "g_optimizer": {**optimizer},
            "d_optimizer": {**optimizer, "learning_rate": 4e-4},
            "ema": {"halflife_kimg": 10.0, "start_kimg": 10.0},
            "augment": {"policy": "", "probability": 1.0},
            "anneal": {"kimg": 32000.0, "to": {"ema": {"halflife_kimg": 200.0}}},
            "train": {
                "total_kimg": 32000.0,
                "max_minutes": 20.0,
                "batch_size": 64,
                "g_batch_size": 64,
                "d_steps_per_g_step": 2,
                "steps_per_call": 0,
                "parallelism": "shard_map",
                "log_kimg": 16.0,
                "sample_kimg": 160.0,
            },
            "evaluate": {
                "metrics": "fid,intra_fid,class_accuracy,precision_recall,ms_ssim",
                "features": "classifier",
                "every_kimg": 640.0,
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
