"""Checks that the metrics follow the damage done to real images, kind by kind and strength by strength.

    python -m benchmarks.metrics --out=docs/metrics.png

Test images of CIFAR-10 stand for generated ones, training images for real ones. The damage is blur, noise, shuffled
labels, missing classes, or a few images repeated. Needs the prepared dataset ($TFDS_DATA_DIR); the classifier's
features need no download. Prints a table in Markdown and draws it.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageFilter

from cgan_jax.data import sources
from cgan_jax.data.sources import Dataset
from cgan_jax.evaluation import evaluation
from cgan_jax.files import compilation_cache

matplotlib.use("Agg")
import matplotlib.pyplot as plt

METRICS = "fid,kid,inception_score,precision_recall,density_coverage,intra_fid,class_accuracy,ms_ssim"
SHOWN = {
    "cfd": "lower is better",
    "intra_cfd": "lower is better",
    "ckid": "lower is better",
    "class_accuracy": "higher is better",
    "cprecision": "higher is better",
    "crecall": "higher is better",
    "cdensity": "higher is better",
    "ccoverage": "higher is better",
    "ms_ssim": "lower is more diverse",
}
STRENGTHS = {
    "blur, radius in pixels": (0.5, 1.0, 2.0),
    "noise, share of 255": (0.03, 0.1, 0.3),
    "labels shuffled, share": (0.1, 0.5, 1.0),
    "classes missing": (1, 3, 5),
    "images per class, repeated": (100, 30, 10),
}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")


def damaged(kind: str, strength: float, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Returns (images, labels) of the dataset, damaged."""
    images, labels, rng = dataset.images, dataset.labels, np.random.default_rng(0)
    if kind.startswith("blur"):
        blurred = (Image.fromarray(image).filter(ImageFilter.GaussianBlur(strength)) for image in images)
        return np.stack([np.asarray(image) for image in blurred]), labels
    if kind.startswith("noise"):
        noisy = images + 255 * strength * rng.standard_normal(images.shape, np.float32)
        return np.clip(np.round(noisy), 0, 255).astype(np.uint8), labels
    if kind.startswith("labels"):
        chosen = rng.permutation(len(labels))[: round(strength * len(labels))]
        shuffled = labels.copy()
        shuffled[chosen] = labels[rng.permutation(chosen)]
        return images, shuffled
    if kind.startswith("classes"):
        # An image of a missing class shows another class.
        shown = np.where(labels < strength, (labels + strength) % len(dataset.class_names), labels).astype(np.int32)
        return _one_for_each(images, labels, shown, rng), labels
    few = np.concatenate([np.flatnonzero(labels == label)[:strength] for label in np.unique(labels)])
    return _one_for_each(images[few], labels[few], labels, rng), labels


def _one_for_each(images: np.ndarray, labels: np.ndarray, wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random image of each wanted class."""
    return images[[rng.choice(np.flatnonzero(labels == label)) for label in wanted]]


def measured(train: Dataset, test: Dataset, first: int) -> Iterator[dict]:
    """Yields a row of scores for each damage."""
    network = evaluation.find_network("classifier", {"image_size": 32}, 3, train.class_names)
    section = {"source": "tfds", "name": "cifar10", "data_dir": "", "split": "train", "conditional": True}
    metrics = evaluation.metrics_named(METRICS)
    reference = evaluation.make_reference(train, section, metrics, network)
    test = test._replace(images=test.images[:first], labels=test.labels[:first])
    cases = [("test images as they are", 0.0), *((kind, s) for kind, of in STRENGTHS.items() for s in of)]
    for kind, strength in cases:
        images, labels = damaged(kind, strength, test) if strength else (test.images, test.labels)
        scores = evaluation.score(metrics, images, labels, reference)
        row = {"kind": kind, "strength": strength}
        yield row | {
            name.split(f"{len(labels) / 1000:g}k")[0]: value for name, value in scores.items() if "/" not in name
        }


def draw(rows: list[dict], path: Path) -> None:
    """Draws a panel per metric and a line per damage."""
    figure, axes = plt.subplots(3, 3, figsize=(11, 8.5), layout="constrained")
    (start, *_) = rows
    for axis, (name, meaning) in zip(axes.flat, SHOWN.items(), strict=True):
        for kind, colour in zip(STRENGTHS, COLOURS, strict=True):
            values = [start[name], *(row[name] for row in rows if row["kind"] == kind)]
            axis.plot(range(len(values)), values, "o-", color=colour, label=kind, markersize=4)
        axis.axhline(start[name], color="#888888", linewidth=0.8, linestyle=":")
        axis.set_title(f"{name} ({meaning})", fontsize=10)
        axis.set_xticks(range(4), ["as it is", "little", "more", "much"], fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("metrics.png"), help="the picture")
    parser.add_argument("--json", type=Path, help="a JSON file for the rows")
    parser.add_argument("--images", type=int, default=5_000, help="test images")
    parser.add_argument("--real_images", type=int, default=10_000, help="training images to compare with")
    arguments = parser.parse_args()
    compilation_cache.enable()
    train, test = (sources.load("tfds", "cifar10", split, "", 32) for split in ("train", "test"))
    n = arguments.real_images
    train = train._replace(images=train.images[:n], labels=train.labels[:n])
    rows = []
    print(f"| damage | strength | {' | '.join(SHOWN)} |\n|---|---|{'---|' * len(SHOWN)}", flush=True)
    for row in measured(train, test, arguments.images):
        numbers = " | ".join(f"{row[name]:.3g}" for name in SHOWN)
        print(f"| {row['kind']} | {row['strength']:g} | {numbers} |", flush=True)
        rows.append(row)
    draw(rows, arguments.out)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
