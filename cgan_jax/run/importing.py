"""Makes a run of networks that PyTorch-StudioGAN has trained, from the files of its checkpoints."""

import contextlib
import hashlib
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from cgan_jax import parallel
from cgan_jax import recipe as recipes
from cgan_jax.build import ImageSpec, build, kimg_after
from cgan_jax.data import sources
from cgan_jax.errors import UsageError
from cgan_jax.files import storage, torch_file
from cgan_jax.networks import studiogan
from cgan_jax.run import checkpoint, environment, workdir
from cgan_jax.run.progress import say
from cgan_jax.run.workdir import RunInfo
from cgan_jax.train_state import TrainState, Tree, create, parted

_ARCHITECTURES = ("biggan", "sngan")


def write_run(recipe: dict[str, Any], folder: Path, generator: Path, discriminator: Path | None) -> None:
    """Writes a run into `folder` whose only checkpoint holds the networks of these files. Says what was read.

    The average equals the generator. Without a file, the discriminator has its initial weights. The step is the one in
    the name of the generator's file, or else 0. Raises UsageError if the files hold other networks than the recipe's,
    and if `folder` is not free.
    """
    recipe = _with_fields(recipe)
    if checkpoint.exist(folder) or (folder / workdir.CONFIG).exists():
        raise UsageError(f"{folder} holds a run already; use another --workdir")
    files = {"generator": generator} | ({"discriminator": discriminator} if discriminator else {})
    contents = {player: _content(player, file) for player, file in files.items()}
    theirs = {player: torch_file.read(contents[player], str(file), "state_dict") for player, file in files.items()}
    dataset = sources.load_section(recipe["dataset"])
    info = RunInfo(recipe, dataset.images.shape[-1], list(dataset.class_names), len(dataset.labels))
    spec = ImageSpec(recipe["dataset"]["image_size"], info.channels, len(info.class_names))
    algorithm = build(recipe, spec)
    key = jax.random.key(recipe["seed"], impl=parallel.PRNG)
    shapes = jax.eval_shape(lambda: create(algorithm, spec, key))
    ours = {"generator": shapes.average, "discriminator": {"params": shapes.d_params, **shapes.d_stats}}
    found = {player: studiogan.converted(theirs[player], ours[player], player, str(files[player])) for player in files}
    # Compiled, so that initial weights that no one needs are not drawn.
    state = jax.jit(lambda found: _with_networks(create(algorithm, spec, key), **found))(found)
    step = re.search(r"step=(\d{1,9})(?!\d)", generator.name)
    state = state.replace(step=jnp.int32(step[1] if step else 0))
    with workdir.locked(folder), contextlib.closing(checkpoint.Checkpoints(folder)) as checkpoints:
        checkpoints.save(state)
        checkpoints.wait()
        # The recipe comes last: until then, as after a full disk, the folder is free for the same command.
        digests = {player: hashlib.sha256(content).hexdigest() for player, content in contents.items()}
        workdir.append_environment(folder, {**environment.describe(), "imported": digests})
        workdir.write_info(folder, info)
    for player, file in files.items():
        say(f"{player}: {len(theirs[player])} tensors of {file}")
    if not discriminator:
        say("discriminator: initial weights, for --discriminator is not given")
    fields = [f"{name}={value}" for name, value in recipes.flattened(studiogan.FIELDS)]
    say(f"recipe: {', '.join(fields)}, as in StudioGAN")
    say(f"wrote step {int(state.step)}, {kimg_after(recipe, int(state.step)):g} kimg, to {folder}")


def _with_networks(state: TrainState, generator: Tree, discriminator: Tree | None = None) -> TrainState:
    params, stats = parted(generator)
    state = state.replace(g_params=params, g_stats=stats, ema_params=params, ema_stats=stats)
    if discriminator:
        params, stats = parted(discriminator)
        state = state.replace(d_params=params, d_stats=stats)
    return state


def _with_fields(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with what StudioGAN's networks need. Raises UsageError if it has no such networks."""
    if recipe["architecture"] not in _ARCHITECTURES:
        raise UsageError(
            f"cgan import reads the architectures {' and '.join(_ARCHITECTURES)}, the recipe is of"
            f" {recipe['architecture']!r}"
        )
    recipe = {**recipe, **{player: {**recipe[player], **fields} for player, fields in studiogan.FIELDS.items()}}
    recipes.check(recipe)
    head, conditional = recipe["discriminator"].get("head"), recipe["dataset"]["conditional"]
    if head != "projection" or not conditional:
        raise UsageError(
            "cgan import reads networks with dataset.conditional=True and discriminator.head=projection, the recipe has"
            f" {conditional} and {head}"
        )
    return recipe


def _content(player: str, file: Path) -> bytes:
    try:
        return storage.read_bytes(file)
    except OSError as error:
        raise UsageError(f"cannot read the {player} in {file}: {error.strerror}") from error
