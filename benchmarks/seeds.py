"""Trains the first CIFAR-10 recipes and draws how their images evolve: 50 to 500 thousand real images each.

    python -m benchmarks.seeds --folder=runs/seeds --out=docs/pictures/seeds.png
    python -m benchmarks.seeds --folder=runs/seeds --out=seeds.png --only='^cgan$' --kimg=25

Runs `cgan train` in a sub-folder per recipe, all at once with --together, which a GPU has room for. After an
interruption the same command resumes. A run scores 2,000 images after each fifth of its length. One seed per recipe
does not resolve small differences.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from cgan_jax.run import workdir
from cgan_jax.sampling import grids

# Thousands of real images. The classic's are its source's; the other sources train longer.
LENGTHS = {"dcgan": 49.92, "cgan": 500, "cgan_embedding": 250, "cgan_deep": 250, "gan_upsample": 500, "wgan_gp": 500}
METRICS = {False: "fid", True: "fid,class_accuracy,pixel_mse"}
MOMENTS = 10
_CONFIGS = Path(__file__).parents[1] / "configs"
_CELL, _SIDE = 66, 64  # pixels of a trainer's picture from image to image, and of an image
_DRAWN = (0, 1, 3)  # rows: airplane, automobile, cat where there are classes


def command(recipe: str, folder: Path, kimg: float) -> list[str]:
    """What trains `recipe` to its end."""
    overrides = {
        "train.total_kimg": kimg,
        "train.log_kimg": kimg / 50,
        "train.sample_kimg": kimg / MOMENTS,
        "checkpoint.every_kimg": kimg,
        "evaluate.metrics": METRICS[recipe.startswith("cgan")],
        "evaluate.num_images": 2000,
        "evaluate.every_kimg": kimg / 5,
        "evaluate.keep_best": "",
    }
    flags = [f"--config.{name}={value}" for name, value in overrides.items()]
    config = _CONFIGS / f"cifar10_{recipe}.py"
    return [sys.executable, "-m", "cgan_jax", "train", f"--config={config}", f"--workdir={folder / recipe}", *flags]


def trained(lengths: dict[str, float], folder: Path, together: bool) -> None:
    """Trains all recipes, one after the other or all at once, each with its share of a GPU's memory."""
    if together:
        shared = {**os.environ, "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.8 / len(lengths):.2f}"}
        running = [subprocess.Popen(command(recipe, folder, kimg), env=shared) for recipe, kimg in lengths.items()]
        if any([one.wait() for one in running]):
            raise SystemExit("a recipe failed; the same command goes on with all")
        return
    for recipe, kimg in lengths.items():
        subprocess.run(command(recipe, folder, kimg), check=True)


def evolution(run: Path, kimg: float) -> list[list[np.ndarray]]:
    """The same few images before training and after each tenth of it, cut from the trainer's pictures.

    Rows of uint8 [64, 64, 3]. A run that was interrupted has more pictures, of which the first after a tenth counts.
    """
    pictures = {float(path.stem.removeprefix("kimg_")): path for path in (run / "samples").glob("kimg_*.png")}
    last = max(pictures)
    moments = [min(kimg * i / MOMENTS, last) for i in range(MOMENTS + 1)]
    chosen = [pictures[min(k for k in pictures if k >= moment - 0.05)] for moment in moments]
    opened = [Image.open(path).convert("RGB") for path in chosen]
    left = (opened[0].width - 2) % _CELL  # the names of classes
    corners = [(left + 2, 2 + row * _CELL) for row in _DRAWN]
    return [[np.asarray(p.crop((x, y, x + _SIDE, y + _SIDE))) for p in opened] for x, y in corners]


def scores(run: Path) -> dict[str, float]:
    """Where the run ended, and its scores there without those of single classes."""
    end = workdir.read_metrics(run)[-1]
    *_, last = (json.loads(line) for line in (run / workdir.EVALUATIONS).read_text().splitlines())
    found = {name.removeprefix("eval/"): value for name, value in last.items() if re.fullmatch(r"eval/\w+", name)}
    players = {name: end[f"train/{name}"] for name in ("d_loss", "g_loss")}
    return {"kimg": end["kimg"], "steps": end["step"], "minutes": end["seconds"] / 60, **players, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kimg", type=float, help="thousands of real images, the same for each recipe")
    parser.add_argument("--only", default="", help="a regular expression that the names of the recipes must match")
    parser.add_argument("--together", action="store_true", help="train all recipes at once")
    parser.add_argument("--folder", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--out", type=Path, required=True, help="the picture")
    given = parser.parse_args()
    lengths = {recipe: given.kimg or kimg for recipe, kimg in LENGTHS.items() if re.search(given.only, recipe)}
    trained(lengths, given.folder, given.together)
    rows = {recipe: evolution(given.folder / recipe, kimg) for recipe, kimg in lengths.items()}
    names = [recipe if number == 0 else "" for recipe, own in rows.items() for number in range(len(own))]
    grids.save(grids.grid([row for own in rows.values() for row in own], names), given.out)
    found = {recipe: scores(given.folder / recipe) for recipe in lengths}
    columns = list(dict.fromkeys(name for row in found.values() for name in row))
    print(f"\n| recipe | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for recipe, row in found.items():
        print(f"| {recipe} | {' | '.join(f'{row[name]:.4g}' if name in row else '' for name in columns)} |")


if __name__ == "__main__":
    main()
