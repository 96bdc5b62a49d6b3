"""What a recipe's training will cost on devices that are not here: compiled for them, and never run.

XLA compiles the call that training makes for a TPU slice or NVIDIA devices, from a description of them. What it
reports is a prediction. The compiler for TPUs is libtpu, that for NVIDIA's devices a CUDA plugin of jax.
"""

import contextlib
import datetime
import functools
import importlib.metadata
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding

from cgan_jax import recipe as recipes
from cgan_jax.build import PLAYERS, Algorithm, ImageSpec, images_per_step
from cgan_jax.errors import UsageError
from cgan_jax.evaluation.classifier_training import widths_for
from cgan_jax.evaluation.evaluation import BATCH_PER_DEVICE
from cgan_jax.evaluation.features import classifier
from cgan_jax.evaluation.program import Program
from cgan_jax.evaluation.speed import load_or_make_up
from cgan_jax.parallel import PARTS, make_mesh, per_sample, replicated
from cgan_jax.run import memory
from cgan_jax.run.devices import DEVICES, Device
from cgan_jax.run.throughput import layer_flop_by_dtype, most_of
from cgan_jax.sampling.sampling import make_sampler

_PUBLISHED = {
    "cifar10": (50_000, 3, 10),
    "cifar100": (50_000, 3, 100),
    "fashion_mnist": (60_000, 1, 10),
    "imagenet_resized/64x64": (1_281_167, 3, 1000),
}
"""(images, channels, classes) of training splits, so that none has to be prepared to compile for it."""
_COSTLY = 10
_DRAWN = 64  # images of a device in a call

# libtpu asks a cloud's metadata server and locks the chips, unless these say that there are none.
_NO_TPU_HERE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# What XLA's compiler for NVIDIA's devices must know of one, from NVIDIA's whitepapers and deviceQuery: (compute
# capability, multiprocessors, float32 units and shared memory of each, level 2 cache, GHz).
_TARGETS = {
    "h100": ("9.0", 132, 128, 233_472, 52_428_800, 1.98),
    "h200": ("9.0", 132, 128, 233_472, 62_914_560, 1.98),
    "a100": ("8.0", 108, 64, 167_936, 41_943_040, 1.41),
    "l4": ("8.9", 58, 128, 102_400, 50_331_648, 2.04),
    "rtx4090": ("8.9", 128, 128, 102_400, 75_497_472, 2.52),
}


class Topology(NamedTuple):
    """Devices to compile for."""

    name: str
    mesh: Mesh
    device: Device
    compiler: str
    """Its name and version."""


def open_topology(name: str) -> Topology:
    """The devices of "v5e:2x4", a TPU slice, or "h100:8", so many NVIDIA devices of one host ("h100" for one).

    Raises UsageError for an unknown device or shape, and if the compiler for it is not installed.
    """
    kind, _, shape = name.partition(":")
    if kind not in DEVICES:
        raise UsageError(f"--topology={name}: unknown device {kind!r}; there are: {', '.join(DEVICES)}")
    is_tpu = kind not in _TARGETS
    pattern, example = (r"\d+(x\d+){1,2}", f"{kind}:2x2") if is_tpu else (r"(\d+)?", f"{kind}:8")
    if not re.fullmatch(pattern, shape) or 0 in [int(side) for side in re.findall(r"\d+", shape)]:
        raise UsageError(f"--topology={name}: {kind} takes a shape such as {example}")
    jax.config.update("jax_platforms", "cpu")  # or jax looks for the devices themselves
    try:
        devices, compiler = _tpus(kind, shape) if is_tpu else _gpus(kind, int(shape or 1))
    except jax.errors.JaxRuntimeError as error:
        raise UsageError(f"--topology={name}: {str(error).splitlines()[0]}") from error
    return Topology(name, make_mesh(devices), DEVICES[kind], compiler)


def _tpus(kind: str, shape: str) -> tuple[list[jax.Device], str]:
    compiler = _installed("libtpu")
    if not compiler:
        raise UsageError("TPUs need their compiler: pip install 'jax[tpu]' (libtpu, 0.6 GB; no TPU is needed)")
    os.environ.update({name: value for name, value in _NO_TPU_HERE.items() if name not in os.environ})
    chips = [int(side) for side in shape.split("x")]
    # A host has 2x2 chips; fewer are a part of one.
    options = {} if math.prod(chips) >= 4 else {"chips_per_host_bounds": [*chips, *[1] * (3 - len(chips))]}
    if kind == "v4":
        options["chip_config_name"] = "megacore"  # or each of a chip's two cores is a device, as on no machine of today
    found = topologies.get_topology_desc(platform="tpu", topology_name=f"{kind}:{shape}", **options)
    return list(found.devices), compiler


def _gpus(kind: str, count: int) -> tuple[list[jax.Device], str]:
    plugin = _installed("jax-cuda13-pjrt", "jax-cuda12-pjrt")
    if not plugin:
        raise UsageError(
            "NVIDIA's devices need jax's CUDA compiler: pip install --no-deps jax-cuda13-pjrt jax-cuda13-plugin"
            " nvidia-cuda-nvcc nvidia-nvvm nvidia-nvjitlink nvidia-cuda-runtime nvidia-cuda-crt nvidia-cuda-nvrtc"
            " (1 GB; no device is needed)"
        )
    found = topologies.get_topology_desc(
        platform="cuda", topology_name="t", target_config=_target(kind), topology=f"1x1x{count}"
    )
    return list(found.devices), f"XLA of {plugin}, without autotuning"


def _installed(*packages: str) -> str:
    """The first of the packages that is installed, with its version; "" if none is."""
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return f"{package} {importlib.metadata.version(package)}"
    return ""


def _target(kind: str) -> str:
    """XLA's description of an NVIDIA device (a GpuTargetConfigProto as text)."""
    capability, cores, units, shared, cache, clock = _TARGETS[kind]
    device = DEVICES[kind]
    major, minor = capability.split(".")
    feature = " feature_extension: ACCELERATED_FEATURES" if major == "9" else ""
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: {shared} shared_memory_per_block_optin: {shared - 1024}
  threads_per_core_limit: {1536 if capability == "8.9" else 2048} core_count: {cores} fpus_per_core: {units}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  memory_bandwidth: {int(device.bytes_per_sec)} l2_cache_size: {cache} clock_rate_ghz: {clock}
  device_memory_size: {device.memory} device_vendor: "NVIDIA Corporation" device_address_bits: 64
  cuda_compute_capability {{ major: {major} minor: {minor}{feature} }}
  name: "{device.kinds[0]}" driver_version: "13.0.0" runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0" dnn_version: "9.12.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 12 patch: 0 }}
device_description_str: "{device.kinds[0]}"
"""


def predict(
    recipe: Mapping[str, Any], topology: Topology, gigabytes: float | None = None, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """What training `recipe` takes on the devices of `topology`, as JSON takes it.

    With `gigabytes` the recipe is changed until a device's call takes no more (memory.fitted), which `say` tells.
    Where it does not fit, "fits" is false and "advice" says what would take less. Raises UsageError for a recipe that
    cannot work.
    """
    recipes.check(recipe)
    mesh, device = topology.mesh, topology.device
    recipes.check_devices(recipe, mesh.size)
    count, spec = _size_of(recipe["dataset"])
    if gigabytes is not None:
        recipe = memory.fitted(recipe, count, spec, mesh, gigabytes, say)
    call = memory.call_of(recipe, count, spec, mesh)
    flop = layer_flop_by_dtype(call.function, call.state, call.data)
    numbers = {
        "topology": topology.name,
        "devices": mesh.size,
        "device": mesh.devices.flat[0].device_kind,
        "compiler": topology.compiler,
        "jax": jax.__version__,
        "date": datetime.date.today().isoformat(),
        "placement": recipe["dataset"]["placement"],
        "accumulate": recipe["train"].get("accumulate", 1),
        "remat": [name for name in PLAYERS if recipe[name].get("remat", False)],
        "images": count,
        "steps_per_call": call.steps,
        "batch_per_device": call.algorithm.batch_size // mesh.size,
        "dtype": most_of(flop),
        "gflop_per_step": flop.total() / call.steps / mesh.size / 1e9,
    }
    began = time.perf_counter()
    try:
        compiled = call.compiled()
    except jax.errors.JaxRuntimeError as error:
        peak = memory.needed(error)
        numbers["memory_gigabytes"] = {"peak": peak and peak / 1e9, **_of_device(device)}
        return {**numbers, "fits": False, "advice": _advice(recipe, call.algorithm, count, spec, mesh)}
    numbers["compile_seconds"] = time.perf_counter() - began
    taken = memory.taken(compiled, mesh)
    numbers["memory_gigabytes"] = {name: size / 1e9 for name, size in taken._asdict().items()} | _of_device(device)
    numbers["fits"] = taken.peak <= device.share * device.memory
    if not numbers["fits"]:
        numbers["advice"] = _advice(recipe, call.algorithm, count, spec, mesh)
    program, images = Program(compiled.as_text()), call.data.images
    leaves, size = len(jax.tree.leaves(call.state)), math.prod(images.sharding.shard_shape(images.shape))
    return {
        **numbers,
        "state_leaves": leaves,
        "donated_leaves": program.donated,
        "products": program.products(),
        "copies_images": program.makes("u8", size),
        **_time(program, numbers, topology, recipe),
        "drawing": _drawing(call, topology),
        "features": _features(recipe["dataset"], count, spec, topology),
    }


def _drawing(call: memory.Call, topology: Topology) -> dict[str, Any]:
    """What it takes to draw images from the trained generator, as `cgan sample` and evaluations do."""
    mesh, generator = topology.mesh, call.algorithm.generator
    count = _DRAWN * mesh.size
    places = jax.ShapeDtypeStruct((count,), np.int32, sharding=NamedSharding(mesh, PARTS))
    seed = jax.ShapeDtypeStruct((), np.uint32, sharding=replicated(mesh))
    given = (call.state.average, seed, places, places)
    return _of_call(jax.jit(make_sampler(generator, mesh=mesh)), given, count, topology)


def _features(section: Mapping[str, Any], num_images: int, spec: ImageSpec, topology: Topology) -> dict[str, Any]:
    """What it takes to compute the features of images that evaluations compare, by the classifier of such a dataset.

    Without the bound of arithmetic: features are computed in full precision, and the datasheet's peaks are of less.
    """
    widths = widths_for(num_images, spec.image_size)
    mesh, network = topology.mesh, classifier.Classifier(max(1, spec.num_classes), widths, mirrored=section["flip"])
    count = BATCH_PER_DEVICE * mesh.size
    shape = (count, spec.image_size, spec.image_size, spec.channels)
    images = jax.ShapeDtypeStruct(shape, np.uint8, sharding=NamedSharding(mesh, PARTS))
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, *shape[1:]), np.uint8), False))
    whole = replicated(mesh)
    variables = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), variables)
    extract = per_sample(functools.partial(classifier.extracted, network), mesh)
    told = _of_call(extract, (variables, images), count, topology)
    del told["images_per_sec"]["arithmetic"]
    return told


def _of_call(call: Callable, given: tuple[Any, ...], count: int, topology: Topology) -> dict[str, Any]:
    """Memory and images/s at most of a compiled call that makes or reads `count` images."""
    mesh = topology.mesh
    compiled, flop = call.lower(*given).compile(), layer_flop_by_dtype(call, *given)
    seconds, *_ = _bounds(Program(compiled.as_text()), flop.total() / mesh.size, most_of(flop), topology.device)
    return {
        "images": count,
        "peak_gigabytes": memory.taken(compiled, mesh).peak / 1e9,
        "images_per_sec": {name: count / s for name, s in seconds.items() if s},
    }


def arithmetic(recipe: Mapping[str, Any]) -> tuple[float, str]:
    """FLOP of the layers for one real image of training, and the dtype of most of it. Nothing is compiled."""
    recipes.check(recipe)
    call = memory.call_of(recipe, *_size_of(recipe["dataset"]), make_mesh(jax.devices("cpu")[:1]))
    flop = layer_flop_by_dtype(call.function, call.state, call.data)
    return flop.total() / call.steps / images_per_step(recipe), most_of(flop)


def _size_of(section: Mapping[str, Any]) -> tuple[int, ImageSpec]:
    """The number of images of the recipe's dataset, and what networks must know of it."""
    if section["source"] == "tfds" and section["name"] in _PUBLISHED and section["split"] == "train":
        count, channels, classes = _PUBLISHED[section["name"]]
        return count, ImageSpec(section["image_size"], channels, classes)
    dataset, _ = load_or_make_up(dict(section))
    return len(dataset.labels), ImageSpec(section["image_size"], dataset.images.shape[-1], len(dataset.class_names))


def _of_device(device: Device) -> dict[str, float]:
    return {"device": device.memory / 1e9, "share": device.share}


def _advice(recipe: Mapping[str, Any], algorithm: Algorithm, count: int, spec: ImageSpec, mesh: Mesh) -> list[str]:
    """What would take less memory, the least change of the method first."""
    players = memory.can_recompute(algorithm)
    batches = [f"--config.train.{name}={recipe['train'][name] // 2}" for name in ("batch_size", "g_batch_size")]
    advice = [" ".join(f"--config.{name}.remat=True" for name in players)] if players else []
    if memory.can_be_cut(recipe, count, spec, mesh):
        advice.append(f"--config.train.accumulate={2 * algorithm.accumulate}")
    return [*advice, f"more than {mesh.size} device(s), which share the batch", " ".join(batches)]


def _time(
    program: Program, numbers: Mapping[str, Any], topology: Topology, recipe: Mapping[str, Any]
) -> dict[str, Any]:
    """What the program moves, and the images/s that this allows. Empty if its loop over steps cannot be told."""
    device, per_call = topology.device, numbers["steps_per_call"]
    runs = list(program.runs())
    if per_call > 1 and max(times for *_, times in runs) < per_call:
        return {}
    flop, dtype = 1e9 * numbers["gflop_per_step"], numbers["dtype"]
    seconds, moved, costs = _bounds(program, flop, dtype, device, per_call)
    slowest = max(seconds, key=seconds.get)
    collectives: dict[str, dict[str, float]] = {}
    for (kind, size), times in program.collectives().items():
        entry = collectives.setdefault(kind, {"count": 0.0, "megabytes": 0.0})
        entry["count"] += times / per_call
        entry["megabytes"] += size * times / per_call / 1e6

    def of_one(cost: tuple[float, float, Any]) -> float:
        return max(cost[0] / device.bytes_per_sec, cost[1] / device.clock if device.clock else 0.0)

    costly = sorted(costs, key=of_one, reverse=True)[:_COSTLY]
    return {
        "collectives_per_step": collectives,
        "operations_per_step": sum(times for c, i, times in runs if program.bytes_of(c, i)) / per_call,
        "gigabytes_per_step": moved / 1e9,
        "images_per_sec": {name: images_per_step(recipe) / s for name, s in seconds.items() if s},
        "bound": slowest,
        "share_of_peak": flop / seconds[slowest] / device.peak(dtype),
        "costly": [
            {
                "milliseconds": 1e3 * of_one(cost),
                "megabytes": cost[0] / 1e6,
                "operation": cost[2].target or cost[2].op,
                "line": program.line_of(cost[2]),
            }
            for cost in costly
        ],
    }


def _bounds(
    program: Program, flop: float, dtype: str, device: Device, turns: int = 1
) -> tuple[dict[str, float], float, list[tuple[float, float, Any]]]:
    """(seconds of a turn by what may bound it, bytes of a turn, (bytes, cycles, instruction) of each operation).

    The program makes `turns` turns; `flop` are those of the layers in one, in `dtype`.
    """
    costs = [(program.bytes_of(c, i) * times / turns, i.cycles * times / turns, i) for c, i, times in program.runs()]
    moved, cycles = sum(cost[0] for cost in costs), sum(cost[1] for cost in costs)
    seconds = {"arithmetic": flop / device.peak(dtype), "bytes": moved / device.bytes_per_sec}
    if device.clock:
        seconds["compiler"] = cycles / device.clock
    return seconds, moved, costs
