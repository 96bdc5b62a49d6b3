"""Speed of a program and of the machine: seconds, FLOP of the layers, the ceiling of a matrix product, memory."""

import collections
import functools
import math
import resource
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, jaxprs_in_params
from jax.interpreters.partial_eval import dce_jaxpr
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cgan_jax import parallel
from cgan_jax.build import Algorithm, ImageSpec
from cgan_jax.data.batches import Data
from cgan_jax.losses.terms import seldom_of
from cgan_jax.parallel import AXIS, distribute, platform_of, replicated
from cgan_jax.run import devices
from cgan_jax.train_state import create
from cgan_jax.train_step import train_steps

_LONG_ENOUGH = 0.01  # seconds; the start of a program is negligible against it
_SMALLEST, _LARGEST = 512, 16384
_PRODUCTS = 5
_MOST_STEPS_PER_CALL = 32
_FLOP_PER_CALL = 1e14  # per device: about a second, which a request to stop must wait


class Spread(NamedTuple):
    """The median and the quartiles of many measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, measured: list[float]) -> "Spread":
        low, median, high = np.percentile(measured, (25, 50, 75))
        return cls(float(median), float(low), float(high))


def seconds_of(call: Callable[[Any, Any], tuple[Any, Any]], state: Any, data: Any, times: int) -> tuple[Any, Spread]:
    """Returns the state after `times` calls (state, data) -> (state, results), and the seconds of one call.

    Waits for each call.
    """
    measured = []
    for _ in range(times):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(call(state, data))
        measured.append(time.perf_counter() - began)
    return state, Spread.of(measured)


def layer_flop(function: Callable, *arguments: Any) -> int:
    """Floating-point operations of the matrix products and convolutions of a call, over all devices.

    Counts the layers and their gradients, independent of the lowering. A multiplication and an addition are 2. The
    padding of a convolution counts; the zeros between the pixels of a transposed one do not. Unused derivatives and
    elementwise operations do not count. A scan counts all iterations, a while loop one. Of two branches the dearer
    counts; a term of every k-th step counts by a k-th of it.
    """
    return layer_flop_by_dtype(function, *arguments).total()


def layer_flop_by_dtype(function: Callable, *arguments: Any) -> collections.Counter[str]:
    """`layer_flop` by the dtype of the multiplied numbers, such as "bfloat16"."""
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    read, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return _flop(read)


def _flop(jaxpr: Jaxpr, period: int = 1) -> collections.Counter[str]:
    """Of a program that runs at every `period`-th step."""
    return sum((_flop_of(equation, period) for equation in jaxpr.eqns), collections.Counter())


def _flop_of(equation: JaxprEqn, period: int) -> collections.Counter[str]:
    name, params = equation.primitive.name, equation.params
    dtype = equation.invars[0].aval.dtype.name if name in ("dot_general", "conv_general_dilated") else ""
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return collections.Counter({dtype: 2 * equation.outvars[0].aval.size * math.prod(shape[a] for a in contracted)})
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval
        products = kernel.size // kernel.shape[params["dimension_numbers"].rhs_spec[0]]
        zeros = math.prod(params["lhs_dilation"])
        return collections.Counter({dtype: 2 * equation.outvars[0].aval.size * products // zeros})
    own = seldom_of(str(equation.source_info.name_stack)) if name == "cond" else 1
    both = math.lcm(period, own)
    inner = [_flop(jaxpr, both) for jaxpr in jaxprs_in_params(params)]
    if name == "cond":
        # Branches per platform end with the default, which is plain lax and adds no arithmetic.
        if params.get("branches_platforms"):
            return inner[-1]
        dearest, k = max(inner, key=collections.Counter.total), both // period
        return collections.Counter({dtype: flop // k for dtype, flop in dearest.items()})
    times = params["mesh"].size if name == "shard_map" else params["length"] if name == "scan" else 1
    total = sum(inner, collections.Counter())
    return collections.Counter({dtype: times * flop for dtype, flop in total.items()})


def ceiling(mesh: Mesh, dtype: str) -> float:
    """FLOP/s of a large matrix product in `dtype` on all devices of the mesh at once, the best of several.

    Takes well under a second. The product has the default precision, as the layers have, which on accelerators may be
    below that of `dtype`. Each process measures only its devices, because processes may choose different sizes.
    """
    size = _SMALLEST
    while True:
        seconds = min(_product_seconds(mesh.local_mesh, size, dtype))
        if seconds >= _LONG_ENOUGH or size >= _LARGEST:
            return 2 * size**3 * mesh.size / seconds
        size *= 2


def calls_per_sec_at_most(call: Callable, state: Any, data: Any, mesh: Mesh) -> dict[str, float]:
    """Calls (state, data) per second if all layers ran at the `ceiling` of the dtype of most of their arithmetic.

    Also at the "peak" of the datasheet, if the devices are known.
    """
    flop = layer_flop_by_dtype(call, state, data)
    dtype, device = most_of(flop), devices.known(mesh.devices.flat[0].device_kind)
    rates = {"ceiling": ceiling(mesh, dtype) / flop.total()}
    return rates | ({"peak": device.peak(dtype) * mesh.size / flop.total()} if device else {})


def most_of(flop: collections.Counter[str]) -> str:
    """The dtype of most of the arithmetic."""
    ((dtype, _),) = flop.most_common(1)
    return dtype


def _product_seconds(mesh: Mesh, size: int, dtype: str) -> list[float]:
    """Seconds of several products [size, size] x [size, size], each on all devices at once."""
    rows = NamedSharding(mesh, PartitionSpec(AXIS))

    def wave(height: int) -> jax.Array:
        # Not a constant: accelerators clock higher on constant inputs.
        return jnp.cos(jnp.arange(height * size, dtype=jnp.float32)).reshape(height, size).astype(dtype)

    left = jax.jit(lambda: wave(mesh.size * size), out_shardings=rows)()
    right = jax.jit(lambda: wave(size), out_shardings=replicated(mesh))()
    product = jax.jit(jnp.matmul, out_shardings=rows)
    jax.block_until_ready(product(left, right))
    measured = []
    for _ in range(_PRODUCTS):
        began = time.perf_counter()
        jax.block_until_ready(product(left, right))
        measured.append(time.perf_counter() - began)
    return measured


def peak_bytes() -> tuple[int, str]:
    """Returns (peak bytes in use so far, "device"), or (..., "process") if the device does not count its memory."""
    counts = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in counts:
        return counts["peak_bytes_in_use"], "device"
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "process"


def steps_per_call(recipe: Mapping[str, Any], algorithm: Algorithm, spec: ImageSpec, mesh: Mesh) -> int:
    """Generator steps in one dispatch: `train.steps_per_call`, or if that is 0 a number that suits the devices.

    1 on a CPU, because a convolution is slower inside a loop there. On accelerators many steps hide the host's work:
    at most 32, and about a second's worth.
    """
    if recipe["train"]["steps_per_call"] or platform_of(mesh) == "cpu":
        return recipe["train"]["steps_per_call"] or 1
    shapes = jax.eval_shape(lambda: create(algorithm, spec, jax.random.key(0, impl=parallel.PRNG)))
    n, size = max(algorithm.batch_size, algorithm.g_batch_size), spec.image_size
    data = Data(jax.ShapeDtypeStruct((n, size, size, spec.channels), np.uint8), jax.ShapeDtypeStruct((n,), np.int32))
    step = distribute(functools.partial(train_steps, algorithm, 1), mesh)
    flop = layer_flop(step, shapes, data) / mesh.size
    return min(_MOST_STEPS_PER_CALL, max(1, int(_FLOP_PER_CALL / flop)))
