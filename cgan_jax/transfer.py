"""Begins a run with the weights of another model: what fits by name and shape, with rows of classes by their names."""

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from cgan_jax import models, parallel
from cgan_jax.build import Algorithm, build
from cgan_jax.errors import UsageError
from cgan_jax.files import storage
from cgan_jax.networks.anatomy import class_axes, named
from cgan_jax.run import packed, processes, workdir
from cgan_jax.run.checkpoint import Checkpoints
from cgan_jax.run.progress import say
from cgan_jax.run.workdir import RunInfo
from cgan_jax.sampling import trained
from cgan_jax.train_state import TrainState, Tree, create, parted

Arrays = dict[str, np.ndarray]
_NAMED = 4
_EQUALIZED = ".embedding.linear.kernel"
"""stylegan2's ClassVector, which divides by the root of the number of classes."""


class Source(NamedTuple):
    """Another model. Its arrays have names such as params.Conv_0.kernel."""

    place: Path
    info: RunInfo
    step: int
    generator: Arrays
    average: Arrays
    discriminator: Arrays | None
    """None if the model is without."""

    @property
    def record(self) -> dict[str, Any]:
        """What the run keeps of it: its place, its step and the SHA-256 of the arrays."""
        digest = hashlib.sha256()
        for arrays in (self.generator, self.average, self.discriminator or {}):
            for name, array in sorted(arrays.items()):
                digest.update(f"{name} {array.dtype} {array.shape}\n".encode() + array.tobytes())
        return {"model": models.shown(self.place), "step": self.step, "sha256": digest.hexdigest()}


def read(given: str, architecture: str, sharding: jax.sharding.Sharding) -> Source:
    """The model of that name, file or folder, at its latest step; a model without its training has the average alone.

    Raises UsageError if there is none, or if it is of another architecture.
    """
    place = models.find(given)
    info = trained.info_at(place)
    if info.recipe["architecture"] != architecture:
        raise UsageError(
            f"--init_from={given} is of the architecture {info.recipe['architecture']}, the recipe of {architecture}"
        )
    spec = trained.spec_of(info)
    if trained.is_exported(place) or packed.is_packed(place):
        model, discriminator = trained.load(place, None, sharding), None
        if trained.has_discriminator(place):
            algorithm = build(info.recipe, spec)
            discriminator = _arrays(trained.load_discriminator(place, info, algorithm, model.step, sharding))
        average = _arrays(model.variables)
        return Source(place, info, model.step, average, average, discriminator)
    key = jax.random.key(0, impl=parallel.PRNG)
    shapes = jax.eval_shape(lambda: create(build(info.recipe, spec), spec, key))
    with contextlib.closing(Checkpoints(place, read_only=True)) as checkpoints:
        state = checkpoints.restore(checkpoints.chosen(None), shapes, sharding)
    generator, discriminator = {"params": state.g_params, **state.g_stats}, {"params": state.d_params, **state.d_stats}
    average = _arrays(state.average)
    return Source(place, info, int(state.step), _arrays(generator), average, _arrays(discriminator))


def begun(source: Source, algorithm: Algorithm, classes: Sequence[str], state: TrainState) -> TrainState:
    """The initial state with the source's weights in all that fits. Says in a few lines what was taken.

    Raises UsageError if nothing of the generator fits.
    """
    place, there = models.shown(source.place), source.info.classes
    lines = [f"from {place} at step {source.step}:"]
    generator = {"params": state.g_params, **state.g_stats}
    g, told = _fitted(source.generator, generator, class_axes(algorithm.generator), there, classes)
    if not told.there:
        raise UsageError(f"nothing of {place} fits the generator of the recipe: no array has the same name and shape")
    average, _ = _fitted(source.average, state.average, class_axes(algorithm.generator), there, classes)
    further = {name: jax.tree.map(np.copy, average) for name in state.further}
    lines.append(f"  generator and its average: {told.text(algorithm.g_frozen)}")
    d = {"params": state.d_params, **state.d_stats}
    if source.discriminator is None:
        lines.append(f"  discriminator: begins anew, for {place} holds the generator alone")
    else:
        d, told = _fitted(source.discriminator, d, class_axes(algorithm.discriminator), there, classes)
        lines.append(f"  discriminator: {told.text(algorithm.d_frozen)}")
    if list(there) != list(classes):
        same = [name for name in classes if name in there]
        lines.append(
            f"  classes: {', '.join(same) or 'none'} by name;"
            f" {len(classes) - len(same)} of {len(classes)} begin as the mean of all {len(there)}"
        )
    lines.append("  optimizers, and what losses remember, begin anew")
    for line in lines if processes.is_first() else ():
        say(line)
    (g_params, g_stats), (d_params, d_stats), (ema_params, ema_stats) = map(parted, (g, d, average))
    return state.replace(
        g_params=g_params,
        g_stats=g_stats,
        d_params=d_params,
        d_stats=d_stats,
        ema_params=ema_params,
        ema_stats=ema_stats,
        further=further,
    )


class _Told(NamedTuple):
    """The names of a network's arrays by what became of them."""

    taken: list[str]
    adapted: list[str]
    anew: list[str]

    @property
    def there(self) -> int:
        return len(self.taken) + len(self.adapted)

    def text(self, frozen: frozenset[str]) -> str:
        parts = [f"{len(self.taken)} of {self.there + len(self.anew)} arrays taken"]
        parts += [f"adapted to the classes: {_few(self.adapted)}"] if self.adapted else []
        parts += [f"anew: {_few(self.anew)}"] if self.anew else []
        random = sorted(frozen.intersection(self.anew))
        parts += [f"warning: train.freeze keeps at random values: {', '.join(random)}"] if random else []
        return "; ".join(parts)


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _fitted(
    theirs: Arrays, ours: Tree, axes: Mapping[str, int], there: Sequence[str], here: Sequence[str]
) -> tuple[Tree, _Told]:
    """Our variables with their values where name and shape agree, but for the number of classes."""
    told, leaves = _Told([], [], []), []
    for name, leaf in named(ours).items():
        given, fits = theirs.get(name), told.taken
        if given is not None and name in axes and list(there) != list(here) and given.ndim == leaf.ndim:
            scale = (len(here) / len(there)) ** 0.5 if name.endswith(_EQUALIZED) else 1.0
            given, fits = scale * _by_class(given, axes[name], there, here), told.adapted
        if given is None or given.shape != leaf.shape:
            given, fits = leaf, told.anew
        leaves.append(np.asarray(given, leaf.dtype))
        fits.append(name)
    return jax.tree.unflatten(jax.tree.structure(ours), leaves), told


def _by_class(array: np.ndarray, axis: int, there: Sequence[str], here: Sequence[str]) -> np.ndarray:
    """The array with the entries of classes `here` along an axis: of the same name, or else the mean of all.

    A class may have several entries in a row. An array without room for each class stays as it is.
    """
    before, size, after = array.shape[:axis], array.shape[axis], array.shape[axis + 1 :]
    if size % len(there):
        return array
    entries = array.reshape(*before, len(there), -1, *after)
    mean = np.mean(entries, axis=axis, dtype=np.float32).astype(array.dtype)
    rows = [entries.take(there.index(name), axis) if name in there else mean for name in here]
    return np.stack(rows, axis).reshape(*before, -1, *after)


def _arrays(variables: Tree) -> Arrays:
    return {name: np.asarray(array) for name, array in named(parallel.on_one_device(variables)).items()}


def check_resumed(folder: Path, given: str) -> None:
    """Raises UsageError if the run in `folder`, which goes on, did not begin from the model `given`."""
    shown = given if given in models.names() else str(storage.place(given, "--init_from"))
    began = [start["init_from"]["model"] for start in workdir.read_environments(folder) if "init_from" in start]
    if began != [shown]:
        how = f"began from {began[0]}" if began else "did not begin from another model"
        raise UsageError(
            f"the run in {folder} {how}, given --init_from={given}; leave it out, or use another --workdir"
        )
