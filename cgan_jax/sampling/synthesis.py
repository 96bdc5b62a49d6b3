"""A labelled synthetic dataset on disk: how many images of which class, and what an interrupted command has written.

A dataset grows in `.NAME.partial` beside its folder and moves there when it is whole. Its state is the number of whole
shards; an unfinished shard is drawn again. The files depend neither on the time nor on interruptions.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cgan_jax.data import sources
from cgan_jax.errors import Interrupted, UsageError
from cgan_jax.files import json_text
from cgan_jax.files.storage import read_text, write_whole
from cgan_jax.lookup import module_named
from cgan_jax.run import workdir
from cgan_jax.run.signals import StopRequest
from cgan_jax.sampling import card
from cgan_jax.sampling.formats import Plan
from cgan_jax.sampling.request import parse_labels

FORMATS = "cgan_jax.sampling.formats"
README, CARD = "README.md", "card.json"
_DATASET, _STATE = "dataset", "state.json"
MOST = 20_000_000
"""Images of a dataset: the order of all is in memory, 40 bytes for each while it is made."""


def counts_for(
    balance: str, num_images: int, class_names: Sequence[str], real_labels: Callable[[], np.ndarray]
) -> list[int]:
    """Images of each class: "uniform", "dataset" (as `real_labels()`), or counts such as "cat=5000,dog=1000".

    Raises UsageError for anything else, for a class that does not exist or is named twice, and for no images at all.
    """
    if balance in ("uniform", "dataset") and num_images > MOST:
        raise UsageError(f"--num_images must be at most {MOST}, given {num_images}")
    if balance == "uniform":
        share, rest = divmod(num_images, len(class_names))
        return [share + (label < rest) for label in range(len(class_names))]
    if balance == "dataset":
        return _proportional(np.bincount(real_labels(), minlength=len(class_names)), num_images)
    counts = [0] * len(class_names)
    given = [part.rpartition("=") for part in balance.split(",")]
    if not all(equals for _, equals, _ in given):
        raise UsageError(f"--balance must be uniform, dataset or counts such as cat=5000,dog=1000, given {balance!r}")
    labels = parse_labels(",".join(name for name, _, _ in given), class_names)
    for label, (name, _, count) in zip(labels, given, strict=False):
        count = count.strip()
        if not count.isdecimal() or len(count) > len(str(MOST)) or not 1 <= int(count) <= MOST:
            raise UsageError(f"--balance: the count of {name.strip()!r} must be 1 to {MOST}, given {count[:40]!r}")
        counts[label] = int(count)
    if sum(counts) > MOST:
        raise UsageError(f"--balance asks for {sum(counts)} images, more than {MOST}")
    return counts


def _proportional(frequencies: np.ndarray, total: int) -> list[int]:
    """Integers in proportion to `frequencies` with the sum `total`, by the largest remainders (Hare's quota)."""
    quotas = frequencies * (total / frequencies.sum())
    counts = np.floor(quotas).astype(int)
    largest = np.argsort(counts - quotas, kind="stable")[: total - counts.sum()]
    counts[largest] += 1
    return counts.tolist()


def interleaved(counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """(labels int32 [N], index within the class int32 [N]), the classes mixed as evenly as possible.

    Image j of n of a class lies at (j + 1/2) / n of the dataset, so that any part of it has all classes in about their
    shares.
    """
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    indices = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
    order = np.argsort((indices + 0.5) / np.repeat(counts, counts), kind="stable")
    return labels[order], indices[order]


def plan_for(info: workdir.RunInfo, balance: str, num_images: int, name: str | None) -> Plan:
    """The images of a dataset drawn from a run; without a `name` that of the run's data, with _synthetic.

    Raises UsageError for classes or counts that cannot be.
    """
    section = info.recipe["dataset"]
    if not section["conditional"] and balance != "uniform":
        raise UsageError("this run is unconditional: it has no classes to balance, leave --balance out")
    counts = counts_for(balance, num_images, info.classes, lambda: sources.load_section(section).labels)
    labels, indices = interleaved(counts)
    learned_from = re.sub("[^a-z0-9]+", "_", section["name"].lower()).strip("_")
    name = name or f"{learned_from or section['source']}_synthetic"
    return Plan(
        name=name if name[0].isalpha() else f"set_{name}",
        class_names=tuple(info.classes),
        labels=labels,
        indices=indices,
        image_shape=(section["image_size"], section["image_size"], info.channels),
    )


class Unfinished:
    """The part of a dataset that is written, in a folder beside its final place."""

    def __init__(
        self, out: Path, origin: Mapping[str, Any], plan: Plan, format_name: str, seed: int, truncation: float | None
    ):
        """`origin` is what card.origin says. Raises UsageError if the folder holds the beginning of another dataset."""
        self._out, self._plan = out, plan
        self._format = module_named(FORMATS, format_name, "format")
        self._card = card.of_dataset(origin, plan, format_name, seed, truncation)
        self.folder = out.with_name(f".{out.name}.partial")
        # An evaluation may add metrics meanwhile.
        decisive = {name: value for name, value in self._card.items() if name != "metrics"}
        self._state = {"of": decisive, "shards": 0, "whole": False}
        try:
            self._state, _ = json_text.unsealed(read_text(self.folder / _STATE))
            if not isinstance(self._state["of"], dict) or type(self._state["whole"]) is not bool:
                raise ValueError("it is no state of a dataset")
            if type(self._state["shards"]) is not int or not 0 <= self._state["shards"] <= plan.num_shards:
                raise ValueError(f"it is of another number of shards than {plan.num_shards}")
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError) as error:
            raise UsageError(f"{self.folder / _STATE} cannot be read: {error}; remove {self.folder}") from error
        for name, value in decisive.items():
            if (before := self._state["of"].get(name)) != value:
                raise UsageError(
                    f"{self.folder} holds the beginning of another dataset: its {name} is {before}, now {value};"
                    f" give what was given then to finish it, or another --out, or remove it"
                )

    @property
    def images(self) -> int:
        """The number of images in whole shards."""
        return min(self._state["shards"] * self._plan.shard_size, len(self._plan.labels))

    @property
    def whole(self) -> bool:
        """Whether all is written, so that it can move to its place."""
        return self._state["whole"]

    def write(self, draw: Callable[[slice], Iterator[np.ndarray]]) -> None:
        """Writes the missing shards, each from the batches of `draw(places)`, and the card.

        Raises Interrupted if a signal asks to stop.
        """
        if self.whole:
            return
        inside, plan = self.folder / _DATASET, self._plan
        inside.mkdir(exist_ok=True)
        self._keep()
        with StopRequest() as stop:
            for shard in range(self._state["shards"], plan.num_shards):
                self._format.write_shard(inside, plan, shard, self._watched(stop, draw(plan.places(shard))))
                self._keep(shards=shard + 1)
        self._format.finish(inside, plan)
        write_whole(inside / CARD, json.dumps(self._card, indent=2) + "\n")
        write_whole(inside / README, card.readme(self._card, self._format.loading(plan)))
        self._keep(whole=True)

    def _keep(self, **state: object) -> None:
        self._state |= state
        write_whole(self.folder / _STATE, json_text.sealed(self._state) + "\n")

    def _watched(self, stop: StopRequest, batches: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for batch in batches:
            yield batch
            if stop.requested:
                total = len(self._plan.labels)
                raise Interrupted(f"stopped and kept {self.images} of {total} images; run the same command to go on")

    def move(self) -> None:
        """Moves the whole dataset to its place: a new folder in one step, else file by file."""
        inside = self.folder / _DATASET
        if inside.exists() and not self._out.exists():
            os.replace(inside, self._out)
        elif inside.exists():
            for above, folders, names in os.walk(inside, topdown=False):
                target = self._out / Path(above).relative_to(inside)
                target.mkdir(parents=True, exist_ok=True)
                for name in names:
                    os.replace(Path(above, name), target / name)
                for name in folders:
                    Path(above, name).rmdir()
            inside.rmdir()
        (self.folder / _STATE).unlink(missing_ok=True)
        (self.folder / workdir.LOCK).unlink(missing_ok=True)
        self.folder.rmdir()


def check_unmixed(out: Path, files: Iterable[Path]) -> None:
    """Raises UsageError for a picture of others in a folder of pictures, which readers would take for one of these."""
    others, folders = {path.relative_to(out) for path in out.glob("*/*.png")}, set()
    for file in files:
        others.discard(file)
        folders.add(file.parent)
    if mixed := sorted(path for path in others if path.parent in folders):
        raise UsageError(f"{out / mixed[0]} is not of this dataset; move it away, or give another --out")


def files_of(format_name: str, plan: Plan) -> Iterable[Path]:
    """All files of a dataset, relative to its folder."""
    yield Path(README)
    yield Path(CARD)
    yield from module_named(FORMATS, format_name, "format").files(plan)
