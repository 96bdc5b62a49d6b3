"""What a recipe's training costs on this machine: the call that training makes, its parts, and sampling, timed."""

import datetime
import functools
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import optax
from jax.sharding import Mesh

from cgan_jax import STARTED, parallel
from cgan_jax import recipe as recipes
from cgan_jax.build import Algorithm, ImageSpec, build, images_per_step
from cgan_jax.data import placement, sources
from cgan_jax.data.batches import Data, draw, on_host
from cgan_jax.errors import MissingData
from cgan_jax.evaluation import trace
from cgan_jax.parallel import distribute, make_mesh, replicate
from cgan_jax.run import throughput
from cgan_jax.run.throughput import Spread, ceiling, layer_flop_by_dtype, most_of, seconds_of, steps_per_call
from cgan_jax.sampling.request import spread
from cgan_jax.sampling.sampling import make_sampler
from cgan_jax.train_state import TrainState, create_quickly
from cgan_jax.train_step import averaged, discriminator_step, generator_step, repeated, train_steps

_WARM_UP = 2  # calls
_SAMPLES = 64  # images a call, as `cgan sample` draws them


def measure(recipe: dict[str, Any], calls: int, with_parts: bool = True, num_operations: int = 0) -> dict[str, Any]:
    """The numbers of the recipe, each time the spread over `calls` calls, as JSON takes them.

    `with_parts` also times the parts of a step, each of which is compiled alone. With `num_operations` a call is
    traced, and so many of its costliest operations are named.

    Raises UsageError for a recipe that cannot work.
    """
    recipes.check(recipe)
    recipes.check_devices(recipe, jax.device_count())
    dataset, source = load_or_make_up(recipe["dataset"])
    spec = ImageSpec(recipe["dataset"]["image_size"], dataset.images.shape[-1], len(dataset.class_names))
    algorithm, mesh = build(recipe, spec), make_mesh()
    per_call = steps_per_call(recipe, algorithm, spec, mesh)
    state = replicate(create_quickly(algorithm, spec, recipe["seed"]), mesh)
    where = "replicated" if recipe["dataset"]["placement"] == "stream" else recipe["dataset"]["placement"]
    data = placement.place(where, on_host(np.asarray(dataset.images), dataset.labels), mesh)
    over_devices = functools.partial(
        distribute, mesh=mesh, parallelism=recipe["train"]["parallelism"], data_spec=placement.SPECS[where]
    )

    call = over_devices(functools.partial(train_steps, algorithm, per_call))
    images = per_call * images_per_step(recipe)
    state, numbers = _training(call, state, data, mesh, images, per_call, calls)
    sampled = _sampling_speed(algorithm, state, spec, calls)  # before the parts, to which the state is donated
    traced = {}
    if num_operations:
        state, traced = _traced(call, state, data, per_call, num_operations)
    seconds = _parts_seconds(algorithm, over_devices, per_call, state, data, calls) if with_parts else {}
    return {
        "data": source,
        "placement": where,
        **_machine(),
        "parallelism": recipe["train"]["parallelism"],
        "steps_per_call": per_call,
        "calls": calls,
        "seconds_per_step": _divided(numbers.pop("seconds_per_call"), per_call),
        **numbers,
        "sampled_images_per_sec": sampled._asdict(),
        "part_seconds": {name: _divided(spread, per_call) for name, spread in seconds.items()},
        **({"operations": traced} if traced else {}),
    }


def _traced(call: Callable, state: TrainState, data: Data, per_call: int, count: int) -> tuple[TrainState, dict]:
    """The state after a traced call, and the time of its operations in one step (trace.operations).

    On processors without the options of compilation.py: Eigen's convolutions have no events.
    """
    separately = trace.SEPARATELY.get(jax.default_backend(), {})
    compiled = jax.jit(call, donate_argnums=0).lower(state, data).compile(compiler_options=separately)
    state, _ = seconds_of(compiled, state, data, _WARM_UP)
    run = functools.partial(compiled, state, data)
    (state, _), traced = trace.operations(compiled, run, per_call, jax.device_count(), count)
    return state, traced


def _training(
    call: Callable, state: TrainState, data: Data, mesh: Mesh, images: int, per_call: int, calls: int
) -> tuple[TrainState, dict[str, Any]]:
    """The numbers of training's call of `per_call` steps on `images` real images, and the state after it."""
    began = time.perf_counter()
    # A call by pmap cannot be lowered alone.
    compiled = (call if hasattr(call, "lower") else jax.jit(call, donate_argnums=0)).lower(state, data).compile()
    compilation = time.perf_counter() - began
    state, _ = seconds_of(compiled, state, data, 1)
    first_step = time.perf_counter() - STARTED
    # Of training alone: what is measured later may need more.
    memory, whose = throughput.peak_bytes()
    state, _ = seconds_of(compiled, state, data, _WARM_UP)
    by_dtype = layer_flop_by_dtype(call, state, data)
    dtype, flop = most_of(by_dtype), by_dtype.total() / images
    best = ceiling(mesh, dtype)
    state, seconds = seconds_of(compiled, state, data, calls)
    best = max(best, ceiling(mesh, dtype))
    speed, counted = _speed(images, seconds), compiled_flop(compiled)
    return state, {
        "seconds_per_call": seconds,
        "images_per_sec": speed._asdict(),
        "gflop_per_image_layers": flop / 1e9,
        # XLA counts a loop once, so of several steps one.
        "gflop_per_image_compiled": None if counted is None else counted * mesh.size * per_call / images / 1e9,
        "gflop_per_sec": flop * speed.median / 1e9,
        "ceiling_gflop_per_sec": best / 1e9,
        "ceiling_dtype": dtype,
        "share_of_ceiling": flop * speed.median / best,
        "compile_seconds": compilation,
        "first_step_seconds": first_step,
        "peak_gigabytes": memory / 1e9,
        "peak_of": whose,
    }


def load_or_make_up(section: dict[str, Any]) -> tuple[sources.Dataset, str]:
    """The recipe's dataset, or made-up images of its size if it is not on this machine; and which, in words."""
    try:
        dataset = sources.load_section(section)
        source = f"{section['name'] or section['source']} {section['split']}"
    except MissingData as error:
        dataset = sources.load("synthetic", "", "train", "", section["image_size"])
        source = f"made up, 10 classes in 3 channels, since {error}"
    n, height, width, channels = dataset.images.shape
    return dataset, f"{n} images of {height}x{width}x{channels}, {source}"


def compiled_flop(compiled: jax.stages.Compiled) -> float | None:
    """XLA's own count for one device, if it keeps one: loops once, nothing of what it hands to libraries."""
    return (compiled.cost_analysis() or {}).get("flops")


def parts(algorithm: Algorithm, data: Data) -> dict[str, Callable[[TrainState, jax.Array], tuple[TrainState, dict]]]:
    """The parts of a train step, each (state, i) -> (state, scalars).

    Both players' parts draw their own data, and move by next to nothing in place of their optimizer's step, which XLA
    would otherwise leave out together with the gradient.
    """
    still = optax.scale(-1e-12)
    bound = algorithm._replace(g_optimizer=still, d_optimizer=still)
    n = algorithm.d_steps_per_g_step

    def drawn(state, i):
        batch = draw(data, state.key, state.step * n + i, algorithm.batch_size, algorithm.flip)
        return state, {"image": parallel.mean(jnp.mean(batch.images)), "label": parallel.mean(jnp.max(batch.labels))}

    def discriminated(state, i):
        moved, scalars = discriminator_step(
            bound, state.replace(d_opt_state=still.init(state.d_params)), data, state.step * n + i
        )
        return moved.replace(d_opt_state=state.d_opt_state), scalars

    def generated(state, i):
        moved, scalars = generator_step(bound, state.replace(g_opt_state=still.init(state.g_params)), data)
        return moved.replace(g_opt_state=state.g_opt_state), scalars

    def optimized(state, i):
        for _ in range(n * len(algorithm.d_updates)):
            updates, d_opt_state = algorithm.d_optimizer.update(state.d_params, state.d_opt_state, state.d_params)
            d_params = optax.apply_updates(state.d_params, updates)
            state = state.replace(d_params=d_params, d_opt_state=d_opt_state)
        updates, g_opt_state = algorithm.g_optimizer.update(state.g_params, state.g_opt_state, state.g_params)
        state = state.replace(g_params=optax.apply_updates(state.g_params, updates), g_opt_state=g_opt_state)
        return averaged(algorithm, state), {}

    return {
        "data": lambda state, i: repeated(drawn, state, n),
        "discriminator": lambda state, i: repeated(discriminated, state, n),
        "generator": generated,
        "optimizers": optimized,
    }


def turns(algorithm: Algorithm, name: str, count: int, state: TrainState, data: Data) -> tuple[TrainState, dict]:
    """The state after `count` turns of a part, each at another step, and the means of their scalars."""

    def turn(state, i):
        # Were the step the same, XLA would draw the batch of all turns once.
        moved, scalars = parts(algorithm, data)[name](state.replace(step=state.step + i), i)
        return moved.replace(step=state.step), scalars

    return repeated(turn, state, count)


def _parts_seconds(
    algorithm: Algorithm, over_devices: Callable, per_call: int, state: TrainState, data: Data, calls: int
) -> dict[str, Spread]:
    """Seconds of `per_call` turns of each part, each compiled alone."""
    seconds = {}
    for name in parts(algorithm, data):
        call = over_devices(functools.partial(turns, algorithm, name, per_call))
        state, _ = seconds_of(call, state, data, _WARM_UP)
        state, seconds[name] = seconds_of(call, state, data, calls)
    return seconds


def _sampling_speed(algorithm: Algorithm, state: TrainState, spec: ImageSpec, calls: int) -> Spread:
    """Images/s of the averaged generator, uint8 on the host, on one device."""
    sampler = make_sampler(algorithm.generator)
    average = jax.device_put(state.average, jax.local_devices()[0])
    labels, indices = spread(_SAMPLES, list(range(spec.num_classes)))

    def call(average, _):
        return average, np.asarray(sampler(average, np.uint32(0), labels, indices))

    average, _ = seconds_of(call, average, None, _WARM_UP)
    _, seconds = seconds_of(call, average, None, calls)
    return _speed(_SAMPLES, seconds)


def _speed(images: int, seconds: Spread) -> Spread:
    return Spread(images / seconds.median, images / seconds.high, images / seconds.low)


def _divided(spread: Spread, turns: int) -> dict[str, float]:
    return {name: value / turns for name, value in spread._asdict().items()}


def _machine() -> dict[str, Any]:
    """What the numbers depend on."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
    return {
        "devices": jax.device_count(),
        "device": f"{jax.default_backend()} ({jax.devices()[0].device_kind})",
        "cores": len(usable),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "date": datetime.date.today().isoformat(),
    }
