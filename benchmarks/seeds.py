"""Trains, scores and draws the first CIFAR-10 recipes, each on the same number of images.

    python -m benchmarks.seeds --kimg=25.6 --folder=runs/seeds --out=docs/seeds.png

Runs `cgan train` in a sub-folder per recipe, then `cgan evaluate`. After an interruption the same command resumes. One
seed per recipe does not resolve small differences.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from cgan_jax.data import sources
from cgan_jax.run import workdir
from cgan_jax.sampling import grids
from cgan_jax.sampling.request import spread
from cgan_jax.sampling.sampling import Sampler, gathered

RECIPES = ("dcgan", "cgan", "cgan_embedding", "cgan_deep", "gan_upsample", "wgan_gp")
METRICS = {False: "fid,pixel_mse", True: "fid,pixel_mse,class_accuracy"}
_CONFIGS = Path(__file__).parents[1] / "configs"
_DRAWN = 20


def trained(recipe: str, folder: Path, kimg: float) -> Path:
    """Trains `recipe` to its end and returns the folder of the run."""
    run = folder / recipe
    overrides = {
        "train.total_kimg": kimg,
        "train.log_kimg": kimg / 20,
        "train.sample_kimg": kimg / 4,
        "checkpoint.every_kimg": kimg / 2,
        "evaluate.metrics": "",
        "evaluate.keep_best": "",
    }
    flags = [f"--config.{name}={value}" for name, value in overrides.items()]
    _cgan("train", f"--config={_CONFIGS / f'cifar10_{recipe}.py'}", f"--workdir={run}", *flags)
    return run


def scored(run: Path, num_images: int) -> dict[str, float]:
    """The scores of a run at its end, without those of single classes."""
    scores, conditional = run / "scores.json", workdir.read_info(run).recipe["dataset"]["conditional"]
    if not scores.exists():
        flags = [f"--metrics={METRICS[conditional]}", f"--num_images={num_images}", f"--json={scores}"]
        _cgan("evaluate", f"--workdir={run}", *flags)
    return {name: value for name, [value] in json.loads(scores.read_text())["scores"].items() if "/" not in name}


def drawn(run: Path) -> np.ndarray:
    """Images of a run at its end, by class if it is conditional; uint8 [_DRAWN, 32, 32, 3]."""
    sampler = Sampler(run, batch_size=_DRAWN)
    classes = range(len(sampler.info.class_names)) if sampler.info.recipe["dataset"]["conditional"] else [0]
    return gathered(sampler.images(0, *spread(_DRAWN, list(classes))))


def real() -> np.ndarray:
    """The first real images of each class, in the same order."""
    images, labels, names, _ = sources.load("tfds", "cifar10", "train", "", 32)
    return np.concatenate([images[labels == label][: _DRAWN // len(names)] for label in range(len(names))])


def _cgan(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "cgan_jax", *arguments], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kimg", type=float, default=25.6, help="thousands of real images per recipe")
    parser.add_argument("--num_images", type=int, default=2000, help="generated images for the scores")
    parser.add_argument("--folder", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--out", type=Path, required=True, help="the picture")
    given = parser.parse_args()
    rows, scores = {"real": list(real())}, {}
    for recipe in RECIPES:
        run = trained(recipe, given.folder, given.kimg)
        end = workdir.read_metrics(run)[-1]
        scores[recipe] = {"kimg": end["kimg"], "steps": end["step"], "minutes": end["seconds"] / 60}
        scores[recipe] |= scored(run, given.num_images)
        rows[recipe] = list(drawn(run))
    grids.save(grids.grid(list(rows.values()), list(rows)), given.out)
    columns = list(dict.fromkeys(name for row in scores.values() for name in row))
    print(f"\n| recipe | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for recipe, row in scores.items():
        print(f"| {recipe} | {' | '.join(f'{row[name]:.4g}' if name in row else '' for name in columns)} |")


if __name__ == "__main__":
    main()
