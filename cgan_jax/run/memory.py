"""The memory of a device that a call of training takes, known before it runs, and the settings with which it fits."""

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from cgan_jax import parallel
from cgan_jax.build import PLAYERS, Algorithm, ImageSpec, build
from cgan_jax.data import placement
from cgan_jax.data.batches import Data, Share, Window, row_shape
from cgan_jax.errors import UsageError
from cgan_jax.parallel import PARTS, distribute, platform_of, replicated
from cgan_jax.recipe import flattened
from cgan_jax.run.throughput import steps_per_call
from cgan_jax.train_state import TrainState, create
from cgan_jax.train_step import g_draws_real, train_steps

_COUNTS = ("argument_size", "temp_size", "peak_memory")


class Call(NamedTuple):
    """The call of training, and the shapes and places of what it takes."""

    algorithm: Algorithm
    steps: int
    function: Callable
    state: TrainState
    data: Data | Share | Window

    def works(self) -> bool:
        """Whether no layer or loss refuses it, as some refuse a batch in parts. Compiles nothing."""
        try:
            jax.eval_shape(self.function, self.state, self.data)
        except UsageError:
            return False
        return True

    def compiled(self) -> jax.stages.Compiled:
        """The call, compiled for the devices of its mesh."""
        return self.function.lower(self.state, self.data).compile()


class Taken(NamedTuple):
    """Bytes of one device."""

    arguments: int
    temporaries: int
    peak: int


def call_of(recipe: Mapping[str, Any], count: int, spec: ImageSpec, mesh: Mesh) -> Call:
    """The call with which a checked recipe trains on `count` images. Neither images nor weights are made."""
    where = recipe["dataset"]["placement"]
    algorithm = build(recipe, spec)
    steps = steps_per_call(recipe, algorithm, spec, mesh)
    state, data = _abstract(where, algorithm, spec, count, steps, mesh)
    # pmap needs the devices themselves; both compile the same step.
    function = distribute(functools.partial(train_steps, algorithm, steps), mesh, data_spec=placement.SPECS[where])
    return Call(algorithm, steps, function, state, data)


def _abstract(
    where: str, algorithm: Algorithm, spec: ImageSpec, count: int, steps: int, mesh: Mesh
) -> tuple[TrainState, Data | Share | Window]:
    whole, parts = replicated(mesh), NamedSharding(mesh, PARTS)
    shapes = jax.eval_shape(lambda: create(algorithm, spec, jax.random.key(0, impl=parallel.PRNG)))
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), shapes)
    one = row_shape((count, spec.image_size, spec.image_size, spec.channels))
    labels = jax.ShapeDtypeStruct((count,), np.int32, sharding=whole)

    def images(*leading: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*leading, *one), np.uint8, sharding=parts if len(leading) == 2 else whole)

    if where == "replicated":
        return state, Data(images(count), labels)
    if where == "sharded":
        return state, Share(images(mesh.size, -(-count // mesh.size)), labels)
    drawn = steps * algorithm.d_steps_per_g_step * algorithm.batch_size
    drawn += steps * algorithm.g_batch_size * g_draws_real(algorithm)
    rows = jax.ShapeDtypeStruct((mesh.size, drawn // mesh.size), np.int32, sharding=parts)
    return state, Window(images(*rows.shape), rows, labels)


def taken(compiled: jax.stages.Compiled, mesh: Mesh) -> Taken:
    """What a call takes that was compiled for this mesh, by its compiler."""
    counted = compiled.memory_analysis()
    arguments, temporaries, peak = (getattr(counted, f"{name}_in_bytes") for name in _COUNTS)
    if platform_of(mesh) == "cpu":  # its peak leaves the temporaries out
        peak = arguments + temporaries
    return Taken(arguments, temporaries, max(peak, arguments) + counted.generated_code_size_in_bytes)


def needed(error: jax.errors.JaxRuntimeError) -> float | None:
    """Bytes that the compiler says a program needs that does not fit; None if it does not say.

    Raises UsageError if it refuses the program for another reason.
    """
    if "RESOURCE_EXHAUSTED" not in str(error):
        raise UsageError(f"this compiler cannot compile it: {str(error).splitlines()[0]}") from error
    sizes = [float(size) for size in re.findall(r"([\d.]+)G\b", str(error))]
    return max(sizes) * 2**30 if sizes else None


def fitted(
    recipe: Mapping[str, Any], count: int, spec: ImageSpec, mesh: Mesh, gigabytes: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """The recipe with the least change of remat and train.accumulate whose call takes at most `gigabytes` of a device.

    Compiles one call after the other and says what each takes. The numbers of training stay the same up to rounding.
    Raises UsageError if none fits.
    """
    least = math.inf
    for changes in _changes(recipe, spec, mesh):
        changed = {**recipe, **{section: {**recipe[section], **values} for section, values in changes.items()}}
        call = call_of(changed, count, spec, mesh)
        if "train" in changes and not call.works():
            break
        try:
            peak = taken(call.compiled(), mesh).peak
        except jax.errors.JaxRuntimeError as error:
            peak = needed(error) or math.inf
        flags = [f"--config.{name}={value}" for name, value in flattened(changes)]
        say(f"{peak / 1e9:.3g} GB of a device with {' '.join(flags) or 'the recipe as it is'}")
        if peak <= gigabytes * 1e9:
            return changed
        least = min(least, peak)
    raise UsageError(
        f"--memory_gigabytes={gigabytes:g} is too little: training takes at least {least / 1e9:.3g} GB of a device; it"
        " needs more devices or smaller batches (train.batch_size, train.g_batch_size)"
    )


def _changes(recipe: Mapping[str, Any], spec: ImageSpec, mesh: Mesh) -> Iterator[dict[str, dict[str, Any]]]:
    """What to change of which section: nothing, recomputed activations, and with them a batch in ever more parts."""
    yield {}
    algorithm = build(recipe, spec)
    changes: dict[str, dict[str, Any]] = {player: {"remat": True} for player in can_recompute(algorithm)}
    if changes:
        yield changes
    for parts in _parts(recipe, mesh):
        yield {**changes, "train": {"accumulate": parts}}


def _parts(recipe: Mapping[str, Any], mesh: Mesh) -> Iterator[int]:
    """The numbers of further parts in which each device may take its share of both batches, ascending."""
    now = recipe["train"].get("accumulate", 1)
    share = math.gcd(*(recipe["train"][name] // mesh.size for name in ("batch_size", "g_batch_size")))
    return (parts for parts in range(2 * now, share + 1, now) if share % parts == 0)


def can_recompute(algorithm: Algorithm) -> list[str]:
    """The networks that could recompute activations and do not."""
    return [player for player in PLAYERS if getattr(getattr(algorithm, player), "remat", None) is False]


def can_be_cut(recipe: Mapping[str, Any], count: int, spec: ImageSpec, mesh: Mesh) -> bool:
    """Whether a batch may be taken in more parts: layers and losses of a whole batch refuse it."""
    parts = next(_parts(recipe, mesh), None)
    if parts is None:
        return False
    return call_of({**recipe, "train": {**recipe["train"], "accumulate": parts}}, count, spec, mesh).works()
