"""A packed model: the folder of a run in which one file of weights stands in the place of the checkpoints.

Matrices are in half precision. The networks are rebuilt from the recipe in config.json, so that a packed model is tied
to no version of jax.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from cgan_jax import exported
from cgan_jax.errors import UsageError
from cgan_jax.files import json_text, storage
from cgan_jax.networks.anatomy import named
from cgan_jax.run import workdir
from cgan_jax.train_state import Tree

WEIGHTS, CARD = "weights.safetensors", "model.json"
_SCORES = (workdir.EVALUATIONS, workdir.AVERAGES)


class Card(NamedTuple):
    """What model.json says."""

    step: int
    sha256: str
    """Of the file of weights."""
    off_by: int
    """By how many of 255 grey levels images differ at most from those of the weights in single precision."""
    made_by: str


def is_packed(folder: Path) -> bool:
    """Whether a folder holds a packed model."""
    return (folder / CARD).exists()


def replaced_in(folder: Path) -> list[Path]:
    """The files that `write` replaces or deletes. Raises UsageError if they are those of a run."""
    if (folder / workdir.CONFIG).exists() and not is_packed(folder):
        raise UsageError(f"{folder} holds a run, and a packed model would replace its logs; give --out another folder")
    names = (WEIGHTS, CARD, workdir.CONFIG, workdir.METRICS, workdir.ENVIRONMENTS, *_SCORES)
    return [folder / name for name in names]


def read_card(folder: Path) -> Card:
    """The content of model.json. Raises UsageError if it cannot be read."""
    try:
        return Card(**json_text.parsed(storage.read_text(folder / CARD)))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{folder / CARD} cannot be read: {error}") from error


def read_weights(folder: Path) -> dict[str, np.ndarray]:
    """The arrays by their names, as they are stored. Raises UsageError if they are not what was packed."""
    content = storage.read_bytes(folder / WEIGHTS)
    if hashlib.sha256(content).hexdigest() != read_card(folder).sha256:
        raise UsageError(f"{folder / WEIGHTS} is damaged: it was cut short or altered since it was packed")
    return exported.unpack_arrays(content)[0]


def restored(arrays: Mapping[str, np.ndarray], player: str, shapes: Tree) -> Tree:
    """The variables of `player`, "generator" or "discriminator", in the types of `shapes`.

    Raises UsageError if the network has other variables.
    """
    wanted = named(shapes, player)
    found = {name: array for name, array in arrays.items() if name.startswith(f"{player}.")}
    if {name: array.shape for name, array in found.items()} != {name: leaf.shape for name, leaf in wanted.items()}:
        raise UsageError(f"the packed {player} is not of the recipe's architecture")
    leaves = [found[name].astype(leaf.dtype) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def halved(tree: Tree) -> Tree:
    """The tree with its matrices in half precision; vectors, which are small, stay as they are."""
    return jax.tree.map(lambda x: np.asarray(x, np.float16 if np.ndim(x) > 1 else None), tree)


def pack_weights(generator: Tree, discriminator: Tree | None) -> bytes:
    """The content of the file of weights, from halved variables."""
    arrays = named(generator, "generator")
    if discriminator is not None:
        arrays |= named(discriminator, "discriminator")
    return exported.pack_arrays(arrays, {})


def write(folder: Path, run: Path, info: workdir.RunInfo, card: Card, weights: bytes) -> None:
    """Writes a packed model of the run, with the logs up to its step that say how it was trained.

    The scores of the run are not copied: they are of weights in single precision. Nor do those of a model stay that was
    packed here before.
    """
    storage.make_folder(folder)
    for scores in _SCORES:
        (folder / scores).unlink(missing_ok=True)
    workdir.write_info(folder, portable(info))
    for log, lines in (
        (workdir.METRICS, workdir.read_metrics_until(run, card.step)),
        (workdir.ENVIRONMENTS, workdir.read_environments(run)),
    ):
        storage.write_whole(folder / log, "".join(json.dumps(line) + "\n" for line in lines))
    storage.write_whole(folder / WEIGHTS, weights)
    storage.write_whole(folder / CARD, json.dumps(card._asdict(), indent=2) + "\n")


def portable(info: workdir.RunInfo) -> workdir.RunInfo:
    """The same without the folder of the images, a path of this machine."""
    return info._replace(recipe={**info.recipe, "dataset": {**info.recipe["dataset"], "data_dir": ""}})
