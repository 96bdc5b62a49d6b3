"""CIFAR-10 with BigGAN, as the StudioGAN benchmark trains it: attention, split latents, spectral norm 1 in both.

Source: Brock, Donahue & Simonyan (2019) in StudioGAN's BigGAN for CIFAR-10 (Kang et al. 2023): 384 channels in the
generator, 192 against it, attention at 16 pixels, hinge loss, Adam(2e-4, b1 0.5, b2 0.999, eps 1e-6), 64 images a
batch, five discriminator updates, mirrored real images, an average of 0.9999 an update after the 1,000th (a half-life
of 2,218 kimg), 100,000 generator updates = 32,000 kimg.
Expected: FID 4.16, Inception score 9.96, precision 0.74, recall 0.65, FID within classes 14.29 (StudioGAN's table: 50k
generated against the 50k training images, TensorFlow's Inception); the same model has 8.1 with 10k generated against
the 10k test images.
Differs from it: activations in bfloat16 (--config.generator.dtype and discriminator.dtype); one power iteration per
update of a network where PyTorch makes one per forward pass; generated images of a discriminator's update have the
labels of its real ones, where StudioGAN draws others; shortcuts of the discriminator carry what the papers draw, where
in StudioGAN's later blocks they carry it rectified (its ReLU works in place). Which of these matter has not been tried.
Its precision and recall are prdc's, by one k for all four of its numbers; here they are those of their authors, k 3.
Hardware and time: not trained here; StudioGAN publishes 0.41 s a generator update, 100,000 in 12 h 50.

    cgan train --config=configs/cifar10_biggan.py --workdir=runs/cifar10_biggan
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
                "d_updates": {"both": {"hinge_real": {"weight": 1.0}, "hinge_fake": {"weight": 1.0}}},
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
                "metrics": "fid,intra_fid,class_accuracy,precision_recall,ms_ssim",
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
