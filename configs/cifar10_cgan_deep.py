"""CIFAR-10 by class with a deeper pair: four convolutional layers each, 7x7 kernels in the generator, 5x5 against it.

Source: a student project: ReLU against LeakyReLU 0.01, dropout 0.4 on the flattened layer, Adam(1e-4), 128 images a
batch, 100 epochs = 5,000 kimg. Its author's wishes are flags: --config.generator.latent_dim,
--config.{generator,discriminator}.skips and kernel_size, and terms against real images of the class, listed with weight
0: --config.loss.g_terms.l2.weight=1.0, --config.loss.g_terms.ssim.weight=1.0.
Expected: the original reports an "accuracy" of 82%, 1 - the mean squared error of normalised pixels between generated
and real images of a class. A generator that draws its class's mean image would have a better one: it measures colours
and brightness, not whether the images are any good.
Our choice where the source is silent: widths (256 to 64 features in the generator, 64 to 512 against it), the label as
a feature map, b1 0.5, eps 1e-7, one discriminator update on real and generated images together, no averaged generator.
Hardware and time: 26 of 5,000 kimg on two processor cores, and a study at a quarter of the width by cgan sweep, both in
README.md.

    cgan train --config=configs/cifar10_cgan_deep.py --workdir=runs/cifar10_cgan_deep
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    optimizer = {
        "name": "keras_adam",
        "learning_rate": 1e-4,
        "b1": 0.5,
        "b2": 0.999,
        "eps": 1e-7,
        "schedule": "constant",
    }
    return ConfigDict(
        {
            "architecture": "dcgan_deep",
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
                "width": 64,
                "embedding_dim": 50,
                "kernel_size": 7,
                "skips": False,
                "dtype": "float32",
            },
            "discriminator": {
                "width": 64,
                "embedding_dim": 50,
                "kernel_size": 5,
                "dropout": 0.4,
                "skips": False,
                "dtype": "float32",
            },
            "loss": {
                "d_updates": {"both": {"bce_real": {"weight": 1.0}, "bce_fake": {"weight": 1.0}}},
                "g_terms": {"bce": {"weight": 1.0}, "l2": {"weight": 0.0}, "ssim": {"weight": 0.0}},
            },
            "g_optimizer": {**optimizer},
            "d_optimizer": {**optimizer},
            "ema": {"halflife_kimg": 0.0, "start_kimg": 0.0},
            "augment": {"policy": "", "probability": 1.0},
            "anneal": {"kimg": 0.0, "to": {}},
            "train": {
                "total_kimg": 5000.0,
                "max_minutes": 0.0,
                "batch_size": 128,
                "g_batch_size": 128,
                "d_steps_per_g_step": 1,
                "steps_per_call": 0,
                "parallelism": "shard_map",
                "log_kimg": 5.0,
                "sample_kimg": 50.0,
            },
            "evaluate": {
                "metrics": "pixel_mse",
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
