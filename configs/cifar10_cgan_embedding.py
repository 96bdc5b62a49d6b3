"""CIFAR-10 by class as tutorials condition it: the label through an embedding as one more feature map in both networks.

Source: Mirza & Osindero (2014) as in Brownlee's Keras tutorial (2019), moved to 32x32 colours: an embedding of 50, a
dense layer to 8x8 beside the generator's first feature map, one to 32x32 beside the discriminator's image. Two
separate discriminator updates, Adam(2e-4, b1 0.5, eps 1e-7), no averaged generator, no mirrored images; these are what
cifar10_cgan.py does otherwise. 2,500 kimg is that recipe's length, to compare with it at equal kimg.
Expected: classes that differ in colour and coarse shape; no number was reported.
Differs from the original: real images come in shuffled order, each once an epoch; the fakes of a discriminator update
have the labels of its real images, where the original draws labels evenly.
Hardware and time: 26 of 2,500 kimg on two processor cores, in README.md.

    cgan train --config=configs/cifar10_cgan_embedding.py --workdir=runs/cifar10_cgan_embedding
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
                "conditional": True,
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
                "total_kimg": 2500.0,
                "max_minutes": 0.0,
                "batch_size": 64,
                "g_batch_size": 128,
                "d_steps_per_g_step": 1,
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
                "d_perfect_kimg": 100.0,
                "collapse": 0.1,
                "watchdog_minutes": 30.0,
                "watchdog_exits": False,
            },
        }
    )
