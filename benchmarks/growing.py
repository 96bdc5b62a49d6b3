"""Compares transposed convolution and upsampling in the classic generator, in speed and in quality.

    python -m benchmarks.growing --config=configs/digits.py --calls=40 [--train=runs/growing]

Times the recipe's training step in alternation with three ways to double an image's sides: the recipe's transposed 4x4
convolution, a 3x3 convolution of repeated pixels in the merged form of `UpsampledConv`, and the same one pixel by
pixel. With --train (digits only) it also trains the first two, and a classifier of real digits scores them.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax

from benchmarks.digits_agreement import agreement
from benchmarks.scaling import ROOT, loaded
from cgan_jax import heap, train
from cgan_jax.build import ImageSpec, build
from cgan_jax.data.batches import on_host
from cgan_jax.evaluation.speed import load_or_make_up
from cgan_jax.networks.architectures import dcgan
from cgan_jax.networks.layers import Conv, ConvTranspose, UpsampledConv, upsample
from cgan_jax.parallel import distribute, make_mesh, replicate
from cgan_jax.train_state import create_quickly
from cgan_jax.train_step import train_steps

_JUDGED = 2000  # generated digits


class Repeated(nn.Module):
    """A 3x3 convolution of repeated pixels."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return Conv(self.features, 3)(upsample(x))


WAYS: dict[str, Callable[[int, int], nn.Module]] = {
    "transposed 4x4": ConvTranspose,
    "upsampled 3x3, merged": lambda features, _: UpsampledConv(features, 3),
    "upsampled 3x3, pixel by pixel": lambda features, _: Repeated(features),
}


def stepper(recipe: dict[str, Any], way: str) -> Callable[[], float]:
    """Returns a function that makes one step of the recipe with this way to upsample, and returns its seconds."""
    dcgan.ConvTranspose = WAYS[way]
    dataset, _ = load_or_make_up(recipe["dataset"])
    spec = ImageSpec(recipe["dataset"]["image_size"], dataset.images.shape[-1], len(dataset.class_names))
    algorithm, mesh = build(recipe, spec), make_mesh()
    data = replicate(on_host(dataset.images, dataset.labels), mesh)
    state = replicate(create_quickly(algorithm, spec, recipe["seed"]), mesh)
    compiled = distribute(functools.partial(train_steps, algorithm, 1), mesh).lower(state, data).compile()

    def step() -> float:
        nonlocal state
        began = time.perf_counter()
        state, _ = jax.block_until_ready(compiled(state, data))
        return time.perf_counter() - began

    return step


def timed(recipe: dict[str, Any], calls: int) -> None:
    """Prints the median step of each way, and the median ratio to the first in the same turn."""
    steps = {way: stepper(recipe, way) for way in WAYS}
    turns = [{way: step() for way, step in steps.items()} for _ in range(calls + 2)][2:]
    print("| the generator grows by | ms a step | times the first |\n|---|---|---|")
    for way in WAYS:
        times = statistics.median(1000 * turn[way] for turn in turns)
        ratio = statistics.median(turn[way] / turn["transposed 4x4"] for turn in turns)
        print(f"| {way} | {times:.4g} | {ratio:.3f} |", flush=True)


def trained(recipe: dict[str, Any], folder: Path) -> None:
    """Trains the first two ways, and prints the share of their digits that show the requested class."""
    for way in list(WAYS)[:2]:
        dcgan.ConvTranspose, workdir = WAYS[way], folder / way.split()[0]
        train.train_and_evaluate(recipe, workdir)
        print(f"{way}: {agreement(workdir, _JUDGED, 0):.2%} of {_JUDGED} digits", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=str(ROOT / "configs/digits.py"), help="a recipe of the classic pair")
    parser.add_argument("--calls", type=int, default=20, help="turns for the median")
    parser.add_argument("--train", type=Path, help="train the digits too, in runs in this folder")
    options, overrides = parser.parse_known_args()
    heap.keep_freed_memory()  # as `cgan train` does
    recipe = loaded(options.config, overrides)
    timed(recipe, options.calls)
    if options.train:
        trained(recipe, options.train)


if __name__ == "__main__":
    main()
