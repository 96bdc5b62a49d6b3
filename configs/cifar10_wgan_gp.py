"""CIFAR-10 under the Wasserstein loss with gradient penalty: the next step that one of the seeds names.

Source: Gulrajani et al. (2017), algorithm 1: penalty 10 towards slope 1, five critic updates per generator update,
Adam(1e-4, b1 0, b2 0.9), 64 images a batch, latents of 128 for CIFAR-10; a critic without batch normalisation (their
section 4) and without dropout. The pair is the classic one of cifar10_dcgan.py, unconditional.
Expected: for this code unknown; StudioGAN's benchmark reports FID 53.98 for a WGAN-GP of its own, 50k generated against
the 50k training images. Only the difference of the critic's means says something of progress:
-(d_wasserstein_real + d_wasserstein_fake) estimates a distance. There is no d_accuracy, since a critic's output has no
natural zero.
Differs from the paper: smaller networks, 5,000 kimg = 15,625 generator updates where the paper takes more than
100,000, no averaged generator. --config.dataset.conditional=True gives both networks the label as a feature map.
Hardware and time: 26 of 5,000 kimg on two processor cores, in README.md.

    cgan train --config=configs/cifar10_wgan_gp.py --workdir=runs/cifar10_wgan_gp
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    optimizer = {"name": "adam", "learning_rate": 1e-4, "b1": 0.0, "b2": 0.9, "eps": 1e-8, "schedule": "constant"}
    return ConfigDict(
        {
            "architecture": "dcgan",
            "seed": 0,
            "dataset": {
                "source": "tfds",
                "name": "cifar10",
                "split": "train",
                "data_dir": "",
                "image_size": 32,
                "conditional": False,
                "flip": False,
                "placement": "replicated",
            },
            "generator": {
                "latent_dim": 128,
                "width": 128,
                "embedding_dim": 50,
                "output_kernel_size": 8,
                "dtype": "float32",
            },
            "discriminator": {"width": 128, "embedding_dim": 50, "dropout": 0.0, "dtype": "float32"},
            "loss": {
                "d_updates": {
                    "both": {
                        "wasserstein_real": {"weight": 1.0},
                        "wasserstein_fake": {"weight": 1.0},
                        "gradient_penalty": {"weight": 10.0, "target": 1.0},
                    }
                },
                "g_terms": {"wasserstein": {"weight": 1.0}},
            },
            "g_optimizer": {**optimizer},
            "d_optimizer": {**optimizer},
            "ema": {"halflife_kimg": 0.0, "start_kimg": 0.0},
            "augment": {"policy": "", "probability": 1.0},
            "anneal": {"kimg": 0.0, "to": {}},
            "train": {
                "total_kimg": 5000.0,
                "max_minutes": 0.0,
                "batch_size": 64,
                "g_batch_size": 64,
                "d_steps_per_g_step": 5,
                "steps_per_call": 0,
                "parallelism": "shard_map",
                "log_kimg": 5.0,
                "sample_kimg": 50.0,
            },
            "evaluate": {
                "metrics": "",
                "features": "classifier",
                "every_kimg": 50.0,
                "num_images": 1000,
                "keep_best": "",
            },
            "checkpoint": {"every_kimg": 50.0, "max_to_keep": 3},
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
