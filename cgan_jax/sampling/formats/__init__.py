"""Labelled datasets as other tools load them. One file here = one format:

    files(plan) -> paths                        all that the dataset consists of, relative to its folder
    write_shard(folder, plan, shard, batches)   writes shard number `shard`, whose images come in `batches`
    finish(folder, plan)                        what can only be written after all shards
    loading(plan) -> code                       the lines that load it from `folder`, for its card

Shards are written in order, each whole or again from its beginning, so writing one twice is writing it once; so is
finishing. A shard is all that is in memory, and of a shard a batch.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np


class Plan(NamedTuple):
    """Which images a dataset has, in its order."""

    name: str
    """Of [a-z0-9_]."""
    class_names: tuple[str, ...]
    labels: np.ndarray
    """int32 [N]."""
    indices: np.ndarray
    """int32 [N]: the number of each image within its class."""
    image_shape: tuple[int, int, int]
    """[H, W, C]; C is 1 (grey) or 3 (RGB)."""
    shard_size: int = 5120

    @property
    def num_shards(self) -> int:
        return -(-len(self.labels) // self.shard_size)

    def places(self, shard: int) -> slice:
        """Where the images of a shard are in the order of all."""
        return slice(shard * self.shard_size, min((shard + 1) * self.shard_size, len(self.labels)))


class Labelled(NamedTuple):
    """One image of a shard."""

    image: np.ndarray
    """uint8 [H, W, C]."""
    label: int
    index: int


def labelled(plan: Plan, shard: int, batches: Iterable[np.ndarray]) -> Iterator[list[Labelled]]:
    """The batches of a shard, each image with its label and index."""
    place = plan.places(shard).start
    for batch in batches:
        part = slice(place, place + len(batch))
        triples = zip(batch, plan.labels[part].tolist(), plan.indices[part].tolist(), strict=True)
        yield [Labelled(*triple) for triple in triples]
        place += len(batch)
