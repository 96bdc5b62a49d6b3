"""What a dataset or a model that leaves the project says of itself: the run, the step, the metrics."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cgan_jax import __version__, averages, models
from cgan_jax.build import kimg_after
from cgan_jax.data.sources import COLOURS
from cgan_jax.sampling import trained
from cgan_jax.sampling.formats import Plan
from cgan_jax.sampling.image_writers import folder_names
from cgan_jax.sampling.sampling import Sampler

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


def origin(place: Path, sampler: Sampler) -> dict[str, Any]:
    """Where images of a model come from: architecture, data, step, weights, statistics, and the scores of these."""
    info, step = sampler.info, sampler.step
    section = info.recipe["dataset"]
    return {
        "run": models.shown(place),
        "architecture": info.recipe["architecture"],
        "trained_on": f"{section['name']} {section['split']}".strip(),
        "step": step,
        "kimg": kimg_after(info.recipe, step),
        "generator_weights": averages.described(info.recipe),
        "batch_stats": sampler.batch_stats,
        "image_shape": [section["image_size"], section["image_size"], info.channels],
        "metrics": trained.metrics_at(place, step, sampler.logged_as),
    }


def of_dataset(
    origin: Mapping[str, Any], plan: Plan, format_name: str, seed: int, truncation: float | None
) -> dict[str, Any]:
    """The card of a dataset, the same whenever it is made."""
    counts = np.bincount(plan.labels, minlength=len(plan.class_names)).tolist()
    classes = zip(plan.class_names, folder_names(plan.class_names), counts, strict=True)
    return {
        "name": plan.name,
        **origin,
        "seed": seed,
        "truncation": truncation,
        "format": format_name,
        "num_images": len(plan.labels),
        "classes": [
            {"label": label, "name": name, "folder": folder, "images": count}
            for label, (name, folder, count) in enumerate(classes)
        ],
        "made_by": f"cgan_jax {__version__}",
    }


def readme(card: Mapping[str, Any], loading: str) -> str:
    """The card as Markdown; `loading` is the code that loads the dataset."""
    height, width, channels = card["image_shape"]
    truncation = "none" if card["truncation"] is None else f"latents drawn again outside of ±{card['truncation']:g}"
    facts = {
        "run": card["run"],
        "generator": f"{card['architecture']}, trained on {card['trained_on']}; weights: {card['generator_weights']}",
        "step": f"{card['step']} ({card['kimg']:g} kimg)",
        "seed": card["seed"],
        "truncation": truncation,
        "batch statistics": card["batch_stats"],
        "images": f"{card['num_images']:,} of {width}x{height} pixels, {COLOURS[channels]}, 8 bits",
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
    """The content on one line, with HTML and Markdown escaped: class names come from files of others."""
    text = html.escape(" ".join(str(content).split()), quote=False)
    return "".join(f"&#{ord(sign)};" if sign in "|[]`\\" else sign for sign in text)
