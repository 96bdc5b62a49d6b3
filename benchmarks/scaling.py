"""Measures a step on more and more simulated devices, and predicts it for accelerators from published numbers.

    python -m benchmarks.scaling measure [--config=configs/digits.py] [--calls=20] [override ...]
    python -m benchmarks.scaling predict
    python -m benchmarks.scaling host

`measure` runs a process for each number of simulated devices (1, 2, 4, 8), and a pair of processes of two devices. All
share the same cores, so what grows is the cost of distribution. The share of the collectives is the time of one mean of
all gradients over the replicas, run alone, relative to the whole step.

`predict` counts the FLOP of a step and the bytes that it averages over replicas, in the traced program of each recipe.
`host` measures the processor time that a stream needs on this machine.
"""

import argparse
import functools
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from cgan_jax import train_step
from cgan_jax.losses.terms import seldom_of

ROOT = Path(__file__).resolve().parent.parent
DEVICES = (1, 2, 4, 8)
FLOATS = 4  # bytes
SHARE_OF_PEAK = 0.3  # assumed share of a chip's peak that these layers reach at the recipe's batch size
LEAST_BATCH = 8  # images per chip; a smaller batch is assumed to save no time


class Machine(NamedTuple):
    """The number of chips, and published numbers of one chip."""

    chips: int
    peak: float
    """FLOP/s in bfloat16, in which these chips by default also multiply float32."""
    link: float
    """Bytes/s out of a chip: half of the published sum of both directions."""
    hops: int
    """Sequential steps between chips in an all-reduce."""
    hop: float
    """Assumed seconds per step."""


# v5litepod-8 has 2x4 chips, v5litepod-64 8x8; v5p-256 has 256 cores in 128 chips, 4x4x8. An all-reduce takes 2 (n - 1)
# steps around a ring of n, for one ring after the other. NCCL's start-up counts as one step of 20 microseconds.
MACHINES = {
    "v5e-8": Machine(8, 197e12, 200e9, 2 * (1 + 3), 1e-6),
    "v5e-64": Machine(64, 197e12, 200e9, 2 * (7 + 7), 1e-6),
    "v5p-256": Machine(128, 459e12, 600e9, 2 * (3 + 3 + 7), 1e-6),
    "8xH200": Machine(8, 494e12, 450e9, 1, 20e-6),  # dense TF32
}


class Cost(NamedTuple):
    """The cost of one train step over all devices."""

    flop: int
    batch: int
    """The smaller of the two networks' batch sizes."""
    bytes: float
    """Bytes that a replica averages with the others. What runs at every k-th step counts by a k-th of it."""
    rounds: float
    """Averages that depend on one another, so that no fusion can join them; likewise."""


def loaded(path: str, overrides: list[str] = ()) -> dict[str, Any]:
    """The recipe of a file, with overrides such as --config.section.field=value."""
    from absl import flags as absl_flags

    from cgan_jax.commands import _recipe_flags

    flags = absl_flags.FlagValues()
    argv = [f"--config={path}", *overrides]
    _recipe_flags.define(flags, argv)
    flags(["scaling", *argv])
    return _recipe_flags.given(flags)


def cost_of(recipe: dict[str, Any]) -> Cost:
    """The cost of a recipe's step, counted in the program of two replicas, which is traced in shapes alone."""
    import jax
    import numpy as np

    from cgan_jax import train_state
    from cgan_jax.build import ImageSpec, build
    from cgan_jax.data.batches import Data
    from cgan_jax.parallel import distribute, make_mesh
    from cgan_jax.run.throughput import layer_flop
    from cgan_jax.train_step import train_steps

    channels = 1 if recipe["dataset"]["name"] in ("digits", "fashion_mnist") else 3
    spec = ImageSpec(recipe["dataset"]["image_size"], channels, 10)
    algorithm = build(recipe, spec)
    state = jax.eval_shape(lambda: train_state.create(algorithm, spec, jax.random.key(0)))
    size = recipe["dataset"]["image_size"]
    shape = jax.ShapeDtypeStruct((50_000, size, size, channels), np.uint8)
    data = Data(shape, jax.ShapeDtypeStruct((50_000,), np.int32))
    call = distribute(functools.partial(train_steps, algorithm, 1), make_mesh(jax.devices()[:2]))
    sent, rounds = averages(jax.make_jaxpr(call)(state, data).jaxpr)
    batch = min(algorithm.batch_size, algorithm.g_batch_size)
    return Cost(layer_flop(call, state, data), batch, sent, rounds)


def averages(jaxpr) -> tuple[float, float]:
    """Returns (bytes, rounds) of the sums over replicas in a program."""
    sent, depths = _walked(jaxpr, [0] * len(jaxpr.invars))
    return sent, max(depths, default=0)


def _walked(jaxpr, depths: list[float]) -> tuple[float, list[float]]:
    """Returns (bytes summed over replicas, the number of sequential sums that each output waits for).

    `depths` holds that number for each input.
    """
    from jax.extend.core import Literal, jaxprs_in_params

    known, sent = dict(zip(jaxpr.invars, depths, strict=True)), 0
    for equation in jaxpr.eqns:
        waits = [0 if isinstance(variable, Literal) else known.get(variable, 0) for variable in equation.invars]
        deepest, inner = max(waits, default=0), list(jaxprs_in_params(equation.params))
        if equation.primitive.name.startswith(("psum", "all_gather", "reduce_scatter", "pmax")):
            sent += sum(variable.aval.size * variable.aval.dtype.itemsize for variable in equation.invars)
            outs = [deepest + 1] * len(equation.outvars)
        elif len(inner) == 1 and len(inner[0].invars) == len(waits):
            more, outs = _walked(inner[0], waits)
            sent += more * equation.params.get("length", 1)
            added = max(outs, default=0) - deepest
            outs = [out + max(0, added) * (equation.params.get("length", 1) - 1) for out in outs]
        else:
            walked = [_walked(one, [deepest] * len(one.invars)) for one in inner]
            share = 1 / seldom_of(str(equation.source_info.name_stack))  # of the steps that take the longer branch
            sent += share * max((more for more, _ in walked), default=0)
            longest = max((max(depth, default=0) for _, depth in walked), default=deepest)
            outs = [deepest + share * max(0, longest - deepest)] * len(equation.outvars)
        known.update(zip(equation.outvars, outs, strict=True))
    return sent, [0 if isinstance(variable, Literal) else known.get(variable, 0) for variable in jaxpr.outvars]


def seconds_on(cost: Cost, machine: Machine, batch_per_chip: float) -> tuple[float, float]:
    """Returns (arithmetic, collectives) of a step with `batch_per_chip` images on each chip, in seconds."""
    images = max(batch_per_chip, LEAST_BATCH)
    arithmetic = cost.flop / cost.batch * images / (machine.peak * SHARE_OF_PEAK)
    around = 2 * (machine.chips - 1) / machine.chips * cost.bytes / machine.link
    return arithmetic, around + cost.rounds * machine.hops * machine.hop


def predict() -> None:
    """Prints the costs, and the efficiency with the recipe's batch shared by all chips and with it on each chip."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)  # the replicas of `cost_of`
    costs = {path.stem: cost_of(loaded(str(path))) for path in sorted((ROOT / "configs").glob("*.py"))}
    print("| recipe | GFLOP a step | batch | averaged MB a step | rounds |\n|---|---|---|---|---|")
    for name, cost in costs.items():
        print(f"| `{name}` | {cost.flop / 1e9:.3g} | {cost.batch} | {cost.bytes / 1e6:.3g} | {cost.rounds:.3g} |")
    heads = " | ".join(MACHINES)
    print(f"\n| recipe | {heads} |\n|---|{'---|' * len(MACHINES)}")
    for name, cost in costs.items():
        cells = []
        for machine in MACHINES.values():
            whole, shared = (seconds_on(cost, machine, batch) for batch in (cost.batch, cost.batch / machine.chips))
            fixed, growing = whole[0] / (machine.chips * sum(shared)), whole[0] / sum(whole)
            cells.append(f"{100 * fixed:.0f} %, {100 * growing:.0f} %")
        print(f"| `{name}` | {' | '.join(cells)} |")


def host() -> None:
    """Prints the processor time that the host needs for one call of a stream of 50,000 images."""
    import jax
    import numpy as np

    from cgan_jax import parallel
    from cgan_jax.build import ImageSpec, build
    from cgan_jax.data import placement

    algorithm = build(loaded(str(ROOT / "configs/cifar10_cgan.py")), ImageSpec(32, 3, 10))
    images, key = np.zeros((50_000, 32, 32, 3), np.uint8), jax.random.key(0, impl=parallel.PRNG)
    for steps in (1, 32):
        drawn = placement.on_processor(functools.partial(train_step.drawn_rows, algorithm, steps, len(images)), key)
        seconds = []
        for call in range(31):
            began = time.process_time()
            rows = placement.sorted_shares(*drawn(call * steps), 1)
            jax.block_until_ready(jax.device_put(images[rows]))
            seconds.append(time.process_time() - began)
        # The first call includes compilation.
        print(f"{rows.size} images: {1000 * statistics.median(seconds[1:]):.2g} ms of processor time")


def work(options: argparse.Namespace) -> None:
    """Runs one process of a measurement. The first process prints {devices, step, waited, collectives} in seconds."""
    from cgan_jax.run import processes

    with processes.joined(options.coordinator_address, options.num_processes, options.process_id):
        numbers = timed(loaded(options.config, options.overrides), options.calls)
        if processes.is_first():
            print("NUMBERS " + json.dumps(numbers), flush=True)


def timed(recipe: dict[str, Any], calls: int) -> dict[str, float]:
    """Median seconds of a step, of the wait for data, and of a mean of all gradients, over `calls` calls."""
    import jax
    import numpy as np

    from cgan_jax import parallel
    from cgan_jax.build import ImageSpec, build
    from cgan_jax.data import placement
    from cgan_jax.data.batches import Data
    from cgan_jax.parallel import WHOLE, distribute, make_mesh, replicate
    from cgan_jax.train import load_dataset
    from cgan_jax.train_state import create_quickly
    from cgan_jax.train_step import train_steps

    dataset, mesh = load_dataset(recipe), make_mesh()
    spec = ImageSpec(recipe["dataset"]["image_size"], dataset.images.shape[-1], len(dataset.class_names))
    algorithm, where = build(recipe, spec), recipe["dataset"]["placement"]
    state = replicate(create_quickly(algorithm, spec, recipe["seed"]), mesh)
    draws = functools.partial(train_step.drawn_rows, algorithm, 1)
    feed = placement.feed(where, Data(dataset.images, dataset.labels), mesh, draws, state.key, 1, 0)
    steps = functools.partial(train_steps, algorithm, 1)
    call = distribute(steps, mesh, recipe["train"]["parallelism"], placement.SPECS[where])
    gradients = replicate((state.d_params, state.g_params), mesh)

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=WHOLE, out_specs=WHOLE)
    def averaged(tree):
        return parallel.mean(parallel.varying(tree))

    measured = {"step": [], "collectives": [], "waited": []}
    for number in range(calls + 2):
        began = time.perf_counter()
        data = next(feed)
        waited = time.perf_counter() - began
        state, scalars = jax.block_until_ready(call(state, data))
        middle = time.perf_counter()
        jax.block_until_ready(averaged(gradients))
        if number >= 2:
            measured["step"].append(middle - began)
            measured["waited"].append(waited)
            measured["collectives"].append(time.perf_counter() - middle)
    feed.close()
    assert all(np.isfinite(jax.device_get(scalar)) for scalar in scalars.values())
    return {"devices": jax.device_count(), **{name: statistics.median(times) for name, times in measured.items()}}


def run(options: argparse.Namespace, processes: int, devices: int) -> dict[str, float]:
    """Runs `processes` processes of `devices` devices each, and returns the numbers of the first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    line = [sys.executable, "-m", "benchmarks.scaling", "work", f"--config={options.config}"]
    lines = [[*line, f"--calls={options.calls}", *options.overrides] for _ in range(processes)]
    if processes > 1:
        place = [f"--coordinator_address={address}", f"--num_processes={processes}"]
        lines = [[*line, *place, f"--process_id={number}"] for number, line in enumerate(lines)]
    running = [subprocess.Popen(line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) for line in lines]
    outputs = [process.communicate()[0] for process in running]
    (found,) = [line for line in outputs[0].splitlines() if line.startswith("NUMBERS ")]
    return json.loads(found.removeprefix("NUMBERS "))


def measure(options: argparse.Namespace) -> None:
    """Prints the table of measurements."""
    print("| processes x devices | step | of it collectives | waited for data |\n|---|---|---|---|")
    for processes, devices in [(1, count) for count in DEVICES] + [(2, 2)]:
        found = run(options, processes, devices)
        share = 100 * found["collectives"] / found["step"] if found["devices"] > 1 else 0.0
        times = f"{1000 * found['step']:.4g} ms | {share:.1f} % | {1000 * found['waited']:.2g} ms"
        print(f"| {processes} x {devices} | {times} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("measure", "predict", "host", "work"))
    parser.add_argument("--config", default="configs/digits.py")
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--coordinator_address")
    parser.add_argument("--num_processes", type=int)
    parser.add_argument("--process_id", type=int)
    options, options.overrides = parser.parse_known_args()
    commands = {"measure": lambda: measure(options), "predict": predict, "host": host, "work": lambda: work(options)}
    commands[options.command]()


if __name__ == "__main__":
    main()
