"""How fast a program runs and how fast it could: seconds, arithmetic, the machine's own ceiling, memory."""

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
from cgan_jax.parallel import AXIS, distribute, replicated
from cgan_jax.train_state import create
from cgan_jax.train_step import train_steps

_LONG_ENOUGH = 0.01  # seconds: beside it the cost of starting a program is nothing
_SMALLEST, _LARGEST = 512, 16384
_PRODUCTS = 5


class Spread(NamedTuple):
    """The median of many measurements, and the quartiles between which half of them lie."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, measured: list[float]) -> "Spread":
        low, median, high = np.percentile(measured, (25, 50, 75))
        return cls(float(median), float(low), float(high))


def seconds_of(call: Callable[[Any, Any], tuple[Any, Any]], state: Any, data: Any, times: int) -> tuple[Any, Spread]:
    """Seconds of one of `times` calls (state, data) -> (state, results), each waited for; and the state after them."""
    measured = []
    for _ in range(times):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(call(state, data))
        measured.append(time.perf_counter() - began)
    return state, Spread.of(measured)


def layer_flop(function: Callable, *arguments: Any) -> int:
    """Floating-point operations of the matrix products and convolutions in a call, over all devices; pmap and jit too.

    What the layers and their gradients ask for, however they are lowered: a multiplication and an addition are 2; the
    zeros between the pixels of a transposed convolution do not count, those beyond the border do; derivatives that
    nothing reads do not, nor does anything elementwise. A scan counts all its turns, a while loop one; of two branches
    the dearer counts, so that a term of every k-th step is counted at each.
    """
    return layer_flop_by_dtype(function, *arguments).total()


def layer_flop_by_dtype(function: Callable, *arguments: Any) -> collections.Counter[str]:
    """`layer_flop` apart by the type of the numbers that are multiplied, such as "bfloat16"."""
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    read, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return _flop(read)


def _flop(jaxpr: Jaxpr) -> collections.Counter[str]:
    return sum((_flop_of(equation) for equation in jaxpr.eqns), collections.Counter())


def _flop_of(equation: JaxprEqn) -> collections.Counter[str]:
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
    inner = [_flop(jaxpr) for jaxpr in jaxprs_in_params(params)]
    if name == "cond":
        # Lowerings per platform end with the default, which is lax's and adds nothing to the arithmetic.
        return inner[-1] if params.get("branches_platforms") else max(inner, key=collections.Counter.total)
    times = params["mesh"].size if name == "shard_map" else params["length"] if name == "scan" else 1
    total = sum(inner, collections.Counter())
    return collections.Counter({dtype: times * flop for dtype, flop in total.items()})


def ceiling(mesh: Mesh, dtype: str) -> float:
    """FLOP/s of a large matrix product in `dtype` on all devices of the mesh at once, the best of several.

    Takes well under a second. The product has the precision that layers have, which on accelerators is not always the
    full one: what is reached is compared with what could be. Of several processes each measures its own devices, since
    they need not settle on one size.
    """
    size = _SMALLEST
    while True:
        seconds = min(_product_seconds(mesh.local_mesh, size, dtype))
        if seconds >= _LONG_ENOUGH or size >= _LARGEST:
            return 2 * size**3 * mesh.size / seconds
        size *= 2


def calls_per_sec_at_ceiling(call: Callable, state: Any, data: Any, mesh: Mesh) -> float:
    """How often a call (state, data) could be made in a second if its layers ran as fast as the `ceiling` of the type
    that most of their arithmetic is in."""
    flop = layer_flop_by_dtype(call, state, data)
    return ceiling(mesh, most_of(flop)) / flop.total()


def most_of(flop: collections.Counter[str]) -> str:
    """The type that most of the arithmetic is in."""
    ((dtype, _),) = flop.most_common(1)
    return dtype


def _product_seconds(mesh: Mesh, size: int, dtype: str) -> list[float]:
    """Seconds of each of several products [size, size] x [size, size], one on each device."""
    rows = NamedSharding(mesh, PartitionSpec(AXIS))

    def wave(height: int) -> jax.Array:
        # Numbers of all sizes: accelerators clock higher on constant ones.
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
    """The most memory in use at once so far, and whose: the "device"'s where it keeps count, else the "process"'s."""
    counts = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in counts:
        return counts["peak_bytes_in_use"], "device"
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "process"


_MOST_STEPS_PER_CALL = 32


_FLOP_PER_CALL = 1e14  # of a device: about a second, for which whoever asks to stop has to wait


def platform_of(mesh: Mesh) -> str:
    """ "cpu", "gpu" or "tpu": what the devices of a mesh are, attached or not."""
    return mesh.devices.flat[0].platform


def steps_per_call(recipe: Mapping[str, Any], algorithm: Algorithm, spec: ImageSpec, mesh: Mesh) -> int:
    """Generator steps in one dispatch: `train.steps_per_call`, or where that is 0 what suits the devices of the mesh.

    On a CPU a convolution inside a loop is slower than outside of one; elsewhere many steps hide the host's work, as
    many as take about a second.
    """
    if recipe["train"]["steps_per_call"] or platform_of(mesh) == "cpu":
        return recipe["train"]["steps_per_call"] or 1
    shapes = jax.eval_shape(lambda: create(algorithm, spec, jax.random.key(0, impl=parallel.PRNG)))
    n, size = max(algorithm.batch_size, algorithm.g_batch_size), spec.image_size
    data = Data(jax.ShapeDtypeStruct((n, size, size, spec.channels), np.uint8), jax.ShapeDtypeStruct((n,), np.int32))
    step = distribute(functools.partial(train_steps, algorithm, 1), mesh)
    flop = layer_flop(step, shapes, data) / mesh.size
    return min(_MOST_STEPS_PER_CALL, max(1, int(_FLOP_PER_CALL / flop)))
