"""A trained generator by its place: the folder of a run, a packed model, or a file of cgan export."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jax.sharding import Sharding

from cgan_jax import averages, exported, models, parallel
from cgan_jax import recipe as recipes
from cgan_jax.build import Algorithm, ImageSpec, build, network
from cgan_jax.data.batches import normalized
from cgan_jax.errors import UsageError
from cgan_jax.files import storage
from cgan_jax.names import printable
from cgan_jax.run import packed, workdir
from cgan_jax.run.checkpoint import Checkpoints
from cgan_jax.run.workdir import RunInfo
from cgan_jax.sampling import reconstruction
from cgan_jax.train_state import TrainState, Tree, create, init_generator


class Trained(NamedTuple):
    """A generator and its variables at a step."""

    info: RunInfo
    """The recipe's default average is the one that was loaded."""
    step: int
    generator: "nn.Module | Program"
    variables: Tree
    average: str
    """Its name in averages.py; "" for the default one of the place."""
    batch_stats: str = "ema"
    """What it normalises by: "ema", or "standing" if it was exported so."""


class Program:
    """The generator in an exported file, as a network: it has `latent_dim` and `apply`."""

    def __init__(self, model: exported.Model):
        self.latent_dim = model.latent_dim
        self._images = model.program

    def apply(self, variables: Tree, latents: jax.Array, labels: jax.Array, train: bool = False) -> jax.Array:
        """Images float32 [N, H, W, C] in [-1, 1]."""
        return normalized(self._images(jax.tree.leaves(variables), latents, labels))


def is_exported(place: Path) -> bool:
    """Whether the place is a file, of cgan export."""
    return not storage.is_remote(place) and place.is_file()


def info_at(place: Path) -> RunInfo:
    """The recipe, channels and classes. Raises UsageError if the place holds no model."""
    return _info_of(place, exported.load(place).metadata) if is_exported(place) else workdir.read_info(place)


def logged_as(average: str, batch_stats: str) -> str:
    """The name of a generator in averages.jsonl; "" for the one whose scores are in evaluations.jsonl."""
    return average if batch_stats == "ema" else f"{average} {batch_stats}".strip()


def metrics_at(place: Path, step: int, average: str = "") -> dict[str, float]:
    """The scores of a step by name, of the default average or the one logged under the name `average`.

    A later line replaces an earlier one.
    """
    if is_exported(place):
        return dict(exported.load(place).metadata.get("metrics", {}))
    scores: dict[str, float] = {}
    for line in workdir.read_metrics(place, workdir.AVERAGES if average else workdir.EVALUATIONS):
        if line.get("step") == step and line.get("average", "") == average:
            scores |= {name.removeprefix("eval/"): value for name, value in line.items() if name.startswith("eval/")}
    return scores


def averages_at(place: Path, info: RunInfo) -> list[str]:
    """The names of the averages to choose from, the default one first; only runs have others."""
    holds_one = is_exported(place) or packed.is_packed(place)
    return [averages.default(info.recipe)] if holds_one else averages.names(info.recipe)


def load(place: Path, step: int | str | None, sharding: Sharding, ema: float | str | None = None) -> Trained:
    """The averaged generator at `step`, the "best", or for None the latest.

    `ema` chooses among the averages of a run: a half-life in kimg, "last", or None for the default one. Another
    half-life is made of those in the checkpoints (reconstruction.py). Raises UsageError if the place holds no model,
    not that step or not that average.
    """
    if is_exported(place):
        model = exported.load(place)
        info, found = _info_of(place, model.metadata), _only_step(place, model.metadata["step"], step)
        averages.chosen(averages_at(place, info), ema)
        variables = jax.device_put(_nested(model.weights), sharding)
        return Trained(info, found, Program(model), variables, "", model.metadata.get("batch_stats", "ema"))
    info = workdir.read_info(place)
    there = averages_at(place, info)
    name = averages.chosen(there, ema, or_new=not packed.is_packed(place))
    generator = network(info.recipe, "generator", spec_of(info))
    shapes = jax.eval_shape(lambda: init_generator(generator, jax.random.key(0, impl=parallel.PRNG)))
    if packed.is_packed(place):
        found = _only_step(place, packed.read_card(place).step, step)
        variables = packed.restored(packed.read_weights(place), "generator", shapes)
        return Trained(info, found, generator, jax.device_put(variables, sharding), "")
    average = "" if name == there[0] else name
    with contextlib.closing(Checkpoints(place, read_only=True)) as checkpoints:
        found = checkpoints.chosen(step)
        if average == averages.LAST:
            recipes.check(info.recipe)  # drawing from an average does not need a complete recipe
            state = checkpoints.restore(found, _shapes(info, build(info.recipe, spec_of(info))), sharding)
            variables = {"params": state.g_params, **state.g_stats}
        elif name not in there:
            variables = reconstruction.made(checkpoints, info.recipe, found, name, shapes, sharding)
        else:
            variables = checkpoints.restore_average(found, shapes, sharding, average)
    info = info._replace(recipe=averages.with_default(info.recipe, name))
    return Trained(info, found, generator, variables, average)


def has_discriminator(place: Path) -> bool:
    """Whether the model holds more than its generator."""
    if is_exported(place):
        return False
    return not packed.is_packed(place) or any(name.startswith("discriminator.") for name in packed.read_weights(place))


def load_discriminator(place: Path, info: RunInfo, algorithm: Algorithm, step: int, sharding: Sharding) -> Tree:
    """The discriminator's variables at a step. Raises UsageError if the model is without its discriminator."""
    if not has_discriminator(place):
        raise UsageError(f"{models.shown(place)} holds the generator alone, without its discriminator")
    shapes = _shapes(info, algorithm)
    if packed.is_packed(place):
        variables = packed.restored(
            packed.read_weights(place), "discriminator", {"params": shapes.d_params, **shapes.d_stats}
        )
        return jax.device_put(variables, sharding)
    with contextlib.closing(Checkpoints(place, read_only=True)) as checkpoints:
        state = checkpoints.restore(step, shapes, sharding)
    return {"params": state.d_params, **state.d_stats}


def _shapes(info: RunInfo, algorithm: Algorithm) -> TrainState:
    return jax.eval_shape(lambda: create(algorithm, spec_of(info), jax.random.key(0, impl=parallel.PRNG)))


def spec_of(info: RunInfo) -> ImageSpec:
    """What the networks know of the dataset."""
    return ImageSpec(info.recipe["dataset"]["image_size"], info.channels, len(info.class_names))


def _only_step(place: Path, there: int, asked: int | str | None) -> int:
    if asked not in (None, there):
        raise UsageError(f"{models.shown(place)} holds step {there} alone, given --step={asked}")
    return there


def _info_of(place: Path, metadata: Mapping[str, Any]) -> RunInfo:
    """What an exported file says of its run. Raises UsageError if that is not what it says of its images."""
    try:
        info = workdir.checked(metadata["info"]) if "info" in metadata else _info_of_old(metadata)
        size, names = info.recipe["dataset"]["image_size"], [printable(name) for name in metadata["class_names"]]
        if [size, size, info.channels] != list(metadata["image_shape"]) or len(info.classes) != len(names):
            raise ValueError("its images are of another shape or of other classes than those of its run")
    except (UsageError, TypeError, KeyError, ValueError, AttributeError) as error:
        reason = storage.reason(error)
        raise UsageError(f"{models.shown(place)}: what it says of its run cannot be used: {reason}") from error
    return info._replace(class_names=names)


def _info_of_old(metadata: Mapping[str, Any]) -> RunInfo:
    """The same of a file of version 0.1, which does not have the recipe."""
    names = metadata["class_names"]
    size, _, channels = metadata["image_shape"]
    name, _, split = metadata["trained_on"].partition(" ")
    section = {"source": "", "name": name, "split": split, "data_dir": "", "image_size": size}
    section["conditional"] = len(names) > 1
    shown = {"batch_size": round(1000 * metadata["kimg"] / max(metadata["step"], 1)), "d_steps_per_g_step": 1}
    recipe = {"architecture": metadata["architecture"], "dataset": section, "train": shown}
    return RunInfo(recipe, channels, names, 0)


def _nested(weights: Mapping[str, Any]) -> dict[str, Any]:
    """{"params.Dense_0.kernel": array} -> {"params": {"Dense_0": {"kernel": array}}}."""
    tree: dict[str, Any] = {}
    for name, array in weights.items():
        *above, last = name.split(".")
        node = tree
        for part in above:
            node = node.setdefault(part, {})
        node[last] = array
    return tree
