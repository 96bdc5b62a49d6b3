"""ImageNet at 64 pixels with BigGAN: a thousand classes, 1.28 million images.

Source: StudioGAN's BigGAN for Tiny ImageNet (Kang et al. 2023), which has this size and 200 classes: 1280 to 80
channels in the generator, 80 to 1280 against it, attention at 32 pixels, latents of 5 x 20, hinge loss, Adam(b1 0, b2
0.999, eps 1e-6) at 1e-4 and 4e-4, 1,024 images a batch, one discriminator update, mirrored real images, an average of
0.9999 an update (a half-life of 7,098 kimg) after the 20,000th, 100,000 generator updates = 102,400 kimg.
Expected: for this data no number of such a BigGAN is known to us.
Differs from it: the data; and as cifar10_biggan.py says.
Data: TFDS's imagenet_resized/64x64 (Chrabaszcz et al. 2017), 15.7 GB as pixels; or a folder per class, by
--config.dataset.source=image_folder --config.dataset.name= --config.dataset.data_dir=FOLDER.
Hardware and time: not trained here.

    cgan train --config=configs/imagenet64_biggan.py --workdir=runs/imagenet64_biggan
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    optimizer = {"name": "adam", "learning_rate": 1e-4, "b1": 0.0, "b2": 0.999, "eps": 1e-6, "schedule": "constant"}
    return ConfigDict(
        {
            "architecture": "biggan",
            "seed": 0,
            "dataset": {
                "source": "tfds",
                "name": "imagenet_resized/64x64",
                "split": "train",
                "data_dir": "",
                "image_size": 64,
                "conditional": True,
                "flip": True,
                "placement": "stream",
            },
            "generator": {"latent_dim": 100, "width": 80, "embedding_dim": 128, "dtype": "bfloat16"},
            "discriminator": {"width": 80, "head": "projection", "dtype": "bfloat16"},
            "loss": {
                "d_updates": {"both": {"hinge_real": {"weight": 1.0}, "hinge_fake": {"weight": 1.0}}},
                "g_terms": {"hinge": {"weight": 1.0}},
            },
            "g_optimizer": {**optimizer},
            "d_optimizer": {**optimizer, "learning_rate": 4e-4},
            "ema": {"halflife_kimg": 7098.0, "start_kimg": 20480.0},
            "augment": {"policy": "", "probability": 1.0},
            "anneal": {"kimg": 0.0, "to": {}},
            "train": {
                "total_kimg": 102400.0,
                "max_minutes": 0.0,
                "batch_size": 1024,
                "g_batch_size": 1024,
                "d_steps_per_g_step": 1,
                "steps_per_call": 0,
                "parallelism": "shard_map",
                "log_kimg": 102.4,
                "sample_kimg": 1024.0,
            },
            "evaluate": {
                "metrics": "",
                "features": "classifier",
                "every_kimg": 10240.0,
                "num_images": 10000,
                "keep_best": "",
            },
            "checkpoint": {"every_kimg": 1024.0, "max_to_keep": 3},
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
