"""Handwritten digits by class: the embedded default, trained in minutes on a laptop's processor.

Data: scikit-learn's 1,797 8x8 digits (Alpaydin & Kaynak, UCI 1998), each pixel repeated 4x4. Nothing is downloaded.
Networks: the classic DCGAN pair with a label map, narrowed; learning rates above the classic 2e-4 (1e-3 for the
generator, 5e-4 for the discriminator), since so few images are shown.

    cgan train --config=configs/digits.py --workdir=runs/digits
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    optimizer = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5, "b2": 0.999, "eps": 1e-8, "schedule": "constant"}
    return ConfigDict(
        {
            "architecture": "dcgan",
            "seed": 0,
            "dataset": {
                "source": "digits",
                "name": "digits",
                "split": "all",
                "data_dir": "",
                "image_size": 32,
                "conditional": True,
                "flip": False,
                "placement": "replicated",
            },
            "generator": {
                "latent_dim": 32,
                "width": 32,
                "embedding_dim": 16,
                "output_kernel_size": 4,
                "dtype": "float32",
            },
            "discriminator": {"width": 32, "embedding_dim": 16, "dropout": 0.3, "dtype": "float32"},
            "loss": {
                "d_updates": {"both": {"bce_real": {"weight": 1.0}, "bce_fake": {"weight": 1.0}}},
                "g_terms": {"bce": {"weight": 1.0}},
            },
            "g_optimizer": {**optimizer, "learning_rate": 1e-3},
            "d_optimizer": {**optimizer, "learning_rate": 5e-4},
            "ema": {"halflife_kimg": 5.0, "start_kimg": 5.0},
            "augment": {"policy": "", "probability": 1.0},
            "anneal": {"kimg": 0.0, "to": {}},
            "train": {
                "total_kimg": 60.0,
                "max_minutes": 0.0,
                "batch_size": 64,
                "g_batch_size": 64,
                "d_steps_per_g_step": 1,
                "steps_per_call": 0,
                "parallelism": "shard_map",
                "log_kimg": 2.0,
                "sample_kimg": 10.0,
            },
            "evaluate": {
                "metrics": "",
                "features": "classifier",
                "every_kimg": 10.0,
                "num_images": 1000,
                "keep_best": "",
            },
            "checkpoint": {"every_kimg": 50.0, "max_to_keep": 3},
            "guard": {
                "action": "raise",
                "max_rollbacks": 3,
                "d_perfect_kimg": 20.0,
                "collapse": 0.1,
                "watchdog_minutes": 30.0,
                "watchdog_exits": False,
            },
        }
    )
