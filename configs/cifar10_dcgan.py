"""The Keras classic on CIFAR-10: an unconditional pair as published, two epochs of 390 steps of 64 real images.

Source: Radford et al. (2016) as Keras tutorials have it. The discriminator takes two separate updates, on 64 real and
on 64 generated images; the generator one on 128 new latents. Adam(2e-4, b1 0.5, eps 1e-7), Glorot-uniform kernels, no
averaged generator, no mirrored images. A test compares outputs, gradients and Adam with Keras 3.
Expected: blurred patches of plausible colours, as published after two epochs; no number was reported.
Differs from the original: real images come in shuffled order, each once an epoch, where it draws with replacement; its
discriminator learns, as was meant; under Keras 3 the published program leaves it as it was initialised (same test).
embedding_dim is read with --config.dataset.conditional=True only.
Hardware and time: 26 of 50 kimg on two processor cores, in README.md.

    cgan train --config=configs/cifar10_dcgan.py --workdir=runs/cifar10_dcgan
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    optimizer = {
        "name": "keras_adam",
        "learning_rate": 2e-4,
        "b1": 0.5,
        "b2": 0.999,
        "eps": 1e-7,
        "schedule": "constant",
    }
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
                "latent_dim": 100,
                "width": 128,
                "embedding_dim": 50,
                "output_kernel_size": 8,
                "dtype": "float32",
            },
            "discriminator": {"width": 128, "embedding_dim": 50, "dropout": 0.4, "dtype": "float32"},
            "loss": {
                "d_updates": {"first": {"bce_real": {"weight": 1.0}}, "second": {"bce_fake": {"weight": 1.0}}},
                "g_terms": {"bce": {"weight": 1.0}},
            },
            "g_optimizer": {**optimizer},
            "d_optimizer": {**optimizer},
            "ema": {"halflife_kimg": 0.0, "start_kimg": 0.0},
            "augment": {"policy": "", "probability": 1.0},
            "anneal": {"kimg": 0.0, "to": {}},
            "train": {
                "total_kimg": 49.92,
                "max_minutes": 0.0,
                "batch_size": 64,
                "g_batch_size": 128,
                "d_steps_per_g_step": 1,
                "steps_per_call": 0,
                "parallelism": "shard_map",
                "log_kimg": 1.28,
                "sample_kimg": 12.48,
            },
            "evaluate": {
                "metrics": "",
                "features": "classifier",
                "every_kimg": 12.48,
                "num_images": 1000,
                "keep_best": "",
            },
            "checkpoint": {"every_kimg": 12.48, "max_to_keep": 3},
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
