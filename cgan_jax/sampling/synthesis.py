"""A labelled synthetic dataset on disk: how many images of which class, what was done before an interruption, the card.

A dataset grows in `.NAME.partial` beside its folder and moves there when it is whole. Its state is the number of whole
shards; a shard that was not finished is drawn again. Nothing that is written depends on the time or on where it was
interrupted.
"""

import html
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cgan_jax import __version__
from cgan_jax.build import images_per_step
from cgan_jax.errors import Interrupted, UsageError
from cgan_jax.files.storage import write_whole
from cgan_jax.lookup import module_named
from cgan_jax.run import workdir
from cgan_jax.run.signals import StopRequest
from cgan_jax.sampling import image_writers
from cgan_jax.sampling.formats import Plan
from cgan_jax.sampling.request import parse_labels

FORMATS = "cgan_jax.sampling.formats"
README, CARD = "README.md", "card.json"
_DATASET, _STATE = "dataset", "state.json"
MOST = 20_000_000
"""Images of a dataset: the order of all is in memory, 40 bytes for each while it is made."""

_README = """# {name}

Generated images. No picture of this dataset was ever taken, and a label is the class that the generator was asked for,
which it may have missed.

{facts}

## Classes

{classes}

## Metrics of the run at this step

{measured}

## Loading

```python
folder = "."  # where this file is
{loading}
```
"""


def counts_for(
    balance: str, num_images: int, class_names: Sequence[str], real_labels: Callable[[], np.ndarray]
) -> list[int]:
    """Images of each class: "uniform", "dataset" (as in `real_labels()`), or counts as in "cat=5000,dog=1000".

    Raises UsageError for anything else, for a class that does not exist or is named twice, and for no images at all.
    """
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
        if not count.strip().isdecimal() or not 1 <= int(count) <= MOST:
            raise UsageError(f"--balance: the count of {name.strip()!r} must be 1 to {MOST}, given {count.strip()!r}")
        counts[label] = int(count)
    if sum(counts) > MOST:
        raise UsageError(f"--balance asks for {sum(counts)} images, more than {MOST}")
    return counts


def _proportional(frequencies: np.ndarray, total: int) -> list[int]:
    """`total` shared in proportion to `frequencies`, whole numbers by the largest remainders (Hare's quota)."""
    quotas = frequencies * (total / frequencies.sum())
    counts = np.floor(quotas).astype(int)
    largest = np.argsort(counts - quotas, kind="stable")[: total - counts.sum()]
    counts[largest] += 1
    return counts.tolist()


def interleaved(counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """(labels int32 [N], index within the class int32 [N]), the classes as evenly mixed as they can be.

    Image j of n of a class stands at (j + 1/2) / n of the way, so that any stretch of the dataset has all classes in
    about their shares.
    """
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    indices = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
    order = np.argsort((indices + 0.5) / np.repeat(counts, counts), kind="stable")
    return labels[order], indices[order]


class Source(NamedTuple):
    """Where the images of a dataset come from: all that decides them."""

    workdir: Path
    info: workdir.RunInfo
    step: int
    seed: int
    truncation: float | None
    batch_stats: str


def card_of(source: Source, plan: Plan, format_name: str) -> dict[str, Any]:
    """What the dataset says of itself, the same whenever it is made."""
    recipe, shape = source.info.recipe, plan.image_shape
    counts = np.bincount(plan.labels, minlength=len(plan.class_names)).tolist()
    return {
        "name": plan.name,
        "run": str(source.workdir),
        "architecture": recipe["architecture"],
        "trained_on": f"{recipe['dataset']['name']} {recipe['dataset']['split']}".strip(),
        "step": source.step,
        "kimg": round(source.step * images_per_step(recipe) / 1000, 6),
        "seed": source.seed,
        "truncation": source.truncation,
        "batch_stats": source.batch_stats,
        "format": format_name,
        "num_images": len(plan.labels),
        "image_shape": list(shape),
        "classes": [
            {"label": label, "name": name, "folder": folder, "images": count}
            for label, (name, folder, count) in enumerate(
                zip(plan.class_names, image_writers.folder_names(plan.class_names), counts, strict=True)
            )
        ],
        "metrics": metrics_at(source.workdir, source.step),
        "made_by": f"cgan_jax {__version__}",
    }


def metrics_at(run: Path, step: int) -> dict[str, float]:
    """What evaluations.jsonl says of a step, by the names of the metrics; the latest line where several do."""
    scores: dict[str, float] = {}
    for line in workdir.read_metrics(run, workdir.EVALUATIONS):
        if line.get("step") == step:
            scores |= {name.removeprefix("eval/"): value for name, value in line.items() if name.startswith("eval/")}
    return scores


def readme(card: Mapping[str, Any], loading: str) -> str:
    """The card for people; class names come from foreign files and cannot break out of their cells."""
    height, width, channels = card["image_shape"]
    truncation = "none" if card["truncation"] is None else f"latents drawn again outside of ±{card['truncation']:g}"
    facts = {
        "run": card["run"],
        "generator": f"{card['architecture']}, averaged weights, trained on {card['trained_on']}",
        "step": f"{card['step']} ({card['kimg']:g} kimg)",
        "seed": card["seed"],
        "truncation": truncation,
        "batch statistics": card["batch_stats"],
        "images": f"{card['num_images']:,} of {width}x{height} pixels, {'grey' if channels == 1 else 'RGB'}, 8 bits",
        "format": card["format"],
        "made by": f"{card['made_by']}, cgan synthesize",
    }
    classes = [[one["label"], one["name"], one["folder"], f"{one['images']:,}"] for one in card["classes"]]
    metrics = [[name, f"{value:.6g}"] for name, value in card["metrics"].items()]
    measured = (
        _table(["metric, of untruncated images", "value"], metrics)
        if metrics
        else "None: the run was not evaluated at this step."
    )
    return _README.format(
        name=card["name"],
        facts=_table(["", ""], list(facts.items())),
        classes=_table(["label", "class", "in paths", "images"], classes),
        measured=measured,
        loading=loading,
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows of cells as a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(content: object) -> str:
    """One line that is neither HTML nor Markdown."""
    text = html.escape(" ".join(str(content).split()), quote=False)
    return "".join(f"&#{ord(sign)};" if sign in "|[]`\\" else sign for sign in text)


class Unfinished:
    """The dataset as far as it is written, beside the folder it will be."""

    def __init__(self, out: Path, source: Source, plan: Plan, format_name: str):
        """Raises UsageError where the beginning of another dataset is there."""
        self._out, self._plan = out, plan
        self._format = module_named(FORMATS, format_name, "format")
        self._card = card_of(source, plan, format_name)
        self.folder = out.with_name(f".{out.name}.partial")
        # What an evaluation adds meanwhile is welcome.
        decisive = {name: value for name, value in self._card.items() if name != "metrics"}
        self._state = {"of": decisive, "shards": 0, "whole": False}
        try:
            self._state = json.loads((self.folder / _STATE).read_text())
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.folder / _STATE} cannot be read: {error}; remove {self.folder}") from error
        for name, value in decisive.items():
            if (before := self._state["of"].get(name)) != value:
                raise UsageError(
                    f"{self.folder} holds the beginning of another dataset: its {name} is {before}, now {value};"
                    f" give what was given then to finish it, or another --out, or remove it"
                )

    @property
    def images(self) -> int:
        """How many are written, in whole shards."""
        return min(self._state["shards"] * self._plan.shard_size, len(self._plan.labels))

    @property
    def whole(self) -> bool:
        """Whether nothing is left but to move it to its place."""
        return self._state["whole"]

    def write(self, draw: Callable[[slice], Iterator[np.ndarray]]) -> None:
        """Writes the shards that are left, each of the batches of `draw(places)`, and the card.

        Raises Interrupted where asked to stop.
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
        write_whole(inside / README, readme(self._card, self._format.loading(plan)))
        self._keep(whole=True)

    def _keep(self, **state: object) -> None:
        self._state |= state
        write_whole(self.folder / _STATE, json.dumps(self._state) + "\n")

    def _watched(self, stop: StopRequest, batches: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for batch in batches:
            yield batch
            if stop.requested:
                total = len(self._plan.labels)
                raise Interrupted(f"stopped and kept {self.images} of {total} images; run the same command to go on")

    def move(self) -> None:
        """Moves what is whole to its place: the folder at once where it is new, else file by file."""
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


def files_of(format_name: str, plan: Plan) -> Iterable[Path]:
    """All files of a dataset, relative to its folder."""
    yield Path(README)
    yield Path(CARD)
    yield from module_named(FORMATS, format_name, "format").files(plan)
