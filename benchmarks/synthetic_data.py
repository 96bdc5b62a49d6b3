"""Tests classifiers trained on few real images, with and without generated images.

    python -m benchmarks.synthetic_data --model=runs/digits_train --num_synthetic=1000
    python -m benchmarks.synthetic_data --model=cifar10 --num_synthetic=45000 --shown=100000 --seeds=3

Trains four classifiers like `cgan train-classifier`: on the whole training split, on a tenth of it, on that tenth with
the generated images, and on generated images alone. All have the same network, are shown equally many images, and are
tested on the real test split. The model must not have seen the test split (dataset.split=train). It has seen all
training images, so the comparison shows what a generator keeps of images that are no longer available.
"""

from collections import deque
from pathlib import Path

import numpy as np
from absl import app, flags

from cgan_jax import models
from cgan_jax.data import sources
from cgan_jax.data.sources import Dataset
from cgan_jax.evaluation import classifier_training as training
from cgan_jax.files import compilation_cache
from cgan_jax.sampling.request import spread
from cgan_jax.sampling.sampling import Sampler, gathered

_MODEL = flags.DEFINE_string("model", "runs/digits_train", "A model that was trained on the training split.")
_IMAGES = flags.DEFINE_string("images", "", "A .npz of images and labels, which replace those that the model draws.")
_SHARE = flags.DEFINE_float("share", 0.1, "The share of the real training images, chosen at random.")
_NUM_SYNTHETIC = flags.DEFINE_integer("num_synthetic", 1000, "Generated images, spread evenly over the classes.")
_TRUNCATION = flags.DEFINE_float("truncation", None, "The truncation, as in cgan synthesize.")
_SHOWN = flags.DEFINE_integer("shown", 30_000, "Images that each classifier is shown.")
_SEEDS = flags.DEFINE_integer("seeds", 1, "Classifiers of each kind; each seed takes another tenth.")


def accuracy(dataset: Dataset, few: Dataset, test: Dataset, shown: int, flip: bool, seed: int) -> float:
    """The test accuracy of a classifier trained on `dataset`. Its size and its batch are those that suit the `few`."""
    plan = training.plan_for(few, max(1, round(shown / len(dataset.labels))), flip, seed)
    description = training.describe(plan, dataset, "")._replace(widths=training.describe(plan, few, "").widths)
    start = training.create(description, plan, dataset.images)
    [(state, _)] = deque(training.fit(plan, description.network, dataset, start), maxlen=1)
    return float(np.mean(training.predicted(description.network, state.variables, test.images) == test.labels))


def synthetic(place: Path, num_images: int, truncation: float | None, seed: int) -> tuple[Dataset, dict]:
    """Returns (generated images of a model, the dataset section of its recipe)."""
    sampler = Sampler(place, batch_size=256, truncation=truncation)
    if _IMAGES.value:
        with np.load(_IMAGES.value) as stored:
            found = Dataset(stored["images"], stored["labels"].astype(np.int32), tuple(sampler.info.class_names))
        return found, sampler.info.recipe["dataset"]
    labels, indices = spread(num_images, list(range(len(sampler.info.class_names))))
    images = gathered(sampler.images(seed, labels, indices))
    return Dataset(images, labels, tuple(sampler.info.class_names)), sampler.info.recipe["dataset"]


def joined(one: Dataset, other: Dataset) -> Dataset:
    """Both datasets, one after the other."""
    pairs = zip(one[:2], other[:2], strict=True)
    return Dataset(*(np.concatenate(pair) for pair in pairs), one.class_names)


def main(_: list[str]) -> None:
    compilation_cache.enable()
    results: dict[str, list[float]] = {}
    for seed in range(_SEEDS.value):
        made, section = synthetic(models.find(_MODEL.value), _NUM_SYNTHETIC.value, _TRUNCATION.value, seed)
        if section["split"] != "train":
            raise SystemExit(f"the model was trained on the split {section['split']}, which may hold the test images")
        real, test = (
            sources.load(section["source"], section["name"], split, section["data_dir"], section["image_size"])
            for split in ("train", "test")
        )
        chosen = np.random.default_rng(seed).permutation(len(real.labels))[: round(_SHARE.value * len(real.labels))]
        part = Dataset(real.images[chosen], real.labels[chosen], real.class_names)
        kinds = {
            f"all {len(real.labels)} real": real,
            f"{len(part.labels)} real": part,
            f"{len(part.labels)} real and {len(made.labels)} synthetic": joined(part, made),
            f"{len(made.labels)} synthetic": made,
        }
        for name, dataset in kinds.items():
            results.setdefault(name, []).append(accuracy(dataset, part, test, _SHOWN.value, section["flip"], seed))
            print(f"seed {seed}: {name}: {results[name][-1]:.4f}", flush=True)
    print(f"\n| trained on | accuracy on {len(test.labels)} test images |\n|---|---|")
    for name, values in results.items():
        print(f"| {name} | {np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f}) |")


if __name__ == "__main__":
    app.run(main)
