"""CIFAR-10 without classes: batch normalisation in a generator that grows by transposed convolution and upsampling.

Source: a seed of the DCGAN family (Radford et al. 2016): transposed convolutions, upsampling, batch normalisation and
LeakyReLU in the generator; convolutions, LeakyReLU and dropout against it; pictures at regular intervals.
Expected: coloured shapes without a class; no number was reported.
Our choice where the source is silent: widths, dropout 0.25, momentum 0.9, Adam(2e-4, b1 0.5, eps 1e-7), 64 images a
batch, one discriminator update on real and generated images together, no averaged generator, 2,500 kimg to compare with
cifar10_cgan.py at equal kimg. Pictures and samples are drawn with the running statistics, discriminator and generator
see those of the batch. --config.dataset.conditional=True gives both networks the label as a feature map.
Hardware and time: 26 of 2,500 kimg on two processor cores, in README.md.

    cgan train --config=configs/cifar10_gan_upsample.py --workdir=runs/cifar10_gan_upsample
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
            "architecture": "dcgan_upsample",
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
                "batch_norm_momentum": 0.9,
                "dtype": "float32",
            },
            "discriminator": {"width": 64, "embedding_dim": 50, "dropout": 0.25, "dtype": "float32"},
            "loss": {
                "d_updates": {"both": {"bce_real": {"weight": 1.0}, "bce_fake": {"weight": 1.0}}},
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
                "g_batch_size": 64,
                "d_steps_per_g_step": 1,
                "steps_per_call": 0,
                "parallelism": "shard_map",
                "log_kimg": 5.0,
                "sample_kimg": 25.0,
            },
            "evaluate": {
                "metrics": "",
                "features": "classifier",
                "every_kimg": 25.0,
                "num_images": 1000,
                "keep_best": "",
            },
            "checkpoint": {"every_kimg": 25.0, "max_to_keep": 3},
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
