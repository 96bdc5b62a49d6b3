"""Measures the share of generated digits that a classifier of real digits assigns to the requested class.

    python benchmarks/digits_agreement.py --workdir=runs/digits

The classifier is that of scikit-learn's example, SVC(gamma=0.001, C=10), trained on all 1,797 real 8x8 digits in 0..16.
"""

from pathlib import Path

import numpy as np
from absl import app, flags
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from cgan_jax.sampling.request import spread
from cgan_jax.sampling.sampling import Sampler

_WORKDIR = flags.DEFINE_string("workdir", "runs/digits", "A run of configs/digits.py.")
_NUM_IMAGES = flags.DEFINE_integer("num_images", 500, "Generated digits, spread evenly over the classes.")
_SEED = flags.DEFINE_integer("seed", 0, "The seed of the generated images.")


def agreement(workdir: Path, num_images: int, seed: int) -> float:
    """The share, in 0..1, of generated digits that the classifier assigns to their class."""
    labels, indices = spread(num_images, list(range(10)))
    images = np.concatenate(list(Sampler(workdir).images(seed, labels, indices)))
    means = images.reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4)) * (16 / 255)
    digits = load_digits()
    judge = SVC(gamma=0.001, C=10).fit(digits.data, digits.target)
    return float(np.mean(judge.predict(means.reshape(-1, 64)) == labels))


def main(_: list[str]) -> None:
    share = agreement(Path(_WORKDIR.value), _NUM_IMAGES.value, _SEED.value)
    print(f"agreement on {_NUM_IMAGES.value} digits: {share:.1%}")


if __name__ == "__main__":
    app.run(main)
