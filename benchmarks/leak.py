"""Counts turned digits among generated ones: do quarter turns of the augmentation leak into the generator?

    python -m benchmarks.leak runs/turned-0.6 runs/turned-1.0

A support vector machine that knows an image's class says how it is turned. It learns from the training split, turned in
all directions. The test split says how good it is.
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.svm import SVC

from cgan_jax.data import sources
from cgan_jax.sampling.request import spread
from cgan_jax.sampling.sampling import Sampler, gathered

NUM_IMAGES = 1000


def features(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The digits in 8x8 pixels, and their classes: float [N, 74]."""
    block = images.shape[1] // 8
    small = images[..., 0].reshape(-1, 8, block, 8, block).mean(axis=(2, 4)) / 255
    return np.concatenate([small.reshape(-1, 64), 2 * np.eye(10)[labels]], axis=1)


def in_all_directions(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The features of a split's digits, turned by 0 to 3 quarter turns, and these numbers."""
    real = sources.load("digits", "digits", split, "", 8)
    turned = [features(np.rot90(real.images, turns, axes=(1, 2)), real.labels) for turns in range(4)]
    return np.concatenate(turned), np.arange(4).repeat(len(real.labels))


def main(runs: list[str]) -> None:
    judge = SVC(C=10).fit(*in_all_directions("train"))
    test, turns = in_all_directions("test")
    seen = {"real test digits": test[turns == 0], "the same in all four directions": test}
    labels, indices = spread(NUM_IMAGES, list(range(10)))
    for run in runs:
        seen[run] = features(gathered(Sampler(Path(run)).images(0, labels, indices)), labels)
    print("| images | turned |\n|---|---|")
    for name, given in seen.items():
        print(f"| {name} | {np.mean(judge.predict(given) != 0):.1%} |")


if __name__ == "__main__":
    main(sys.argv[1:])
