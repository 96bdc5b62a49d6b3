"""The recipe's step as training runs it, with data, dropout and the averaged generator. A worker.

The images are random. tests/train_step_test.py checks that an update changes only one network.
"""

import functools
import importlib.util
from pathlib import Path

import flax
import jax
import jaxlib
import numpy as np

from benchmarks import worker
from cgan_jax.build import ImageSpec, build
from cgan_jax.data.batches import on_host
from cgan_jax.data.sources import load
from cgan_jax.heap import keep_freed_memory
from cgan_jax.parallel import distribute, make_mesh, replicate
from cgan_jax.run.throughput import steps_per_call
from cgan_jax.sampling.request import spread
from cgan_jax.sampling.sampling import draw_images, gathered, make_sampler
from cgan_jax.train_state import create_quickly
from cgan_jax.train_step import train_steps


def recipe_named(name):
    path = Path(__file__).parent.parent / "configs" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config().to_dict()


def main():
    flags = worker.parser("float32", "bfloat16").parse_args()
    keep_freed_memory()  # as `cgan train` does
    recipe = recipe_named(flags.recipe)
    for player in ("generator", "discriminator"):
        recipe[player]["dtype"] = flags.variant
    spec, mesh = ImageSpec(32, 3, 10), make_mesh(jax.devices()[:1])  # the others use one device too
    algorithm = build(recipe, spec)
    per_call = steps_per_call(recipe, algorithm, spec, mesh)
    state = replicate(create_quickly(algorithm, spec, 0), mesh)
    made_up = load("synthetic", "", "train", "", 32)
    data = replicate(on_host(made_up.images, made_up.labels), mesh)
    call = distribute(functools.partial(train_steps, algorithm, per_call), mesh)
    sampler = make_sampler(algorithm.generator)

    def step(times):
        nonlocal state
        for _ in range(-(-times // per_call)):
            state, _ = call(state, data)
        jax.block_until_ready(state)

    def sample(times):
        labels, indices = spread(times, list(range(10)))
        average = jax.device_put(state.average, jax.devices()[0])
        images = gathered(draw_images(sampler, average, 0, labels, indices, worker.SAMPLING_BATCH))
        assert images.shape == (times, 32, 32, 3) and images.dtype == np.uint8

    versions = {"jax": jax.__version__, "jaxlib": jaxlib.__version__, "flax": flax.__version__}
    worker.serve(versions, {"step": step, "sample": sample}, per_call)


if __name__ == "__main__":
    main()
