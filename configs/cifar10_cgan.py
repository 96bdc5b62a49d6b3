"""CIFAR-10 by class: the conditional default, the classic pair with the label as a further feature map.

Source: the pair of cifar10_dcgan.py (Radford et al. 2016, as in Keras tutorials) with the labels of Mirza & Osindero
(2014). Differs from the original: one discriminator update on real and generated images together, mirrored real images,
an averaged generator, 64 images a batch for both networks.

    cgan train --config=configs/cifar10_cgan.py --workdir=runs/cifar
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    optimizer = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5, "b2": 0.999, "eps": 1e-8, "schedule": "constant"}
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
                "flip": True,
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
                "d_updates": {"both": {"bce_real": {"weight": 1.0}, "bce_fake": {"weight": 1.0}}},
                "g_terms": {"bce": {"weight": 1.0}},
            },
            "g_optimizer": {**optimizer},
            "d_optimizer": {**optimizer},
            "ema": {"halflife_kimg": 20.0, "start_kimg": 20.0},
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
                "sample_kimg": 50.0,
            },
            "evaluate": {
                "metrics": "fid,intra_fid,class_accuracy,ms_ssim",
                "features": "classifier",
                "every_kimg": 250.0,
                "num_images": 5000,
                "keep_best": "fid",
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
