"""CIFAR-100 with BigGAN and consistency regularisation: the recipe of cifar10_biggan_cr.py on a hundred classes.

Source: StudioGAN's BigGAN-CR for CIFAR-100 (Kang et al. 2023), which differs from that for CIFAR-10 in the data alone.
Expected: for this recipe no number is known to us. Zhao et al. (2020) publish FID 11.26 (10k generated against the 10k
test images, TensorFlow's Inception) for a BigGAN with consistency regularisation of their own: without attention and
shared embeddings, 64 base channels, 50 images a batch, four discriminator updates, b1 0.
Differs from it: as cifar10_biggan.py says.
Hardware and time: not trained here.

    cgan prepare-data --dataset=cifar100

    cgan train --config=configs/cifar100_biggan_cr.py --workdir=runs/cifar100_biggan_cr
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
                "name": "cifar100",
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
                "metrics": "",
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
