"""Measures of generated images. One file here = one metric:

    READS = ("features",)                            the fields of a Sample that it reads, and the labels
    MIN_IMAGES, MIN_PER_CLASS = 2, 0                 the fewest images it can do with, in all and of every class
    compute(fake, real, class_names) -> {name: number}

and, if they apply,

    USES_REAL = False                                it says something of generated images alone; `real` may be None
    OF_CLASSES = True                                it needs logits of the very classes that were asked for
    MIN_CLASSES = 2                                  the fewest classes it can do with
    BETTER = "lower"                                 or "higher": it ranks checkpoints by the number with its name
    SETTINGS = "k 3"                                 what its number also depends on, for the protocol
    NAMES = {"c": "cfd"}                             what its name becomes with the features of that prefix

A name with a slash is a part of the whole, e.g. `pixel_mse/cat`. An unconditional run has a single class, "all".
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cgan_jax.errors import UsageError


class Sample(NamedTuple):
    """N images as a metric sees them; what the metric does not read may be absent."""

    labels: np.ndarray
    """int32 [N]."""
    images: np.ndarray | None = None
    """uint8 [N, H, W, C]."""
    features: np.ndarray | None = None
    """float32 [N, F]."""
    logits: np.ndarray | None = None
    """float32 [N, K]."""
    verdicts: np.ndarray | None = None
    """float32 [N]: the logits of a run's discriminator, above 0 for what it takes for real."""
    held_out_verdicts: np.ndarray | None = None
    """float32 [M]: those of real images that training did not show."""


def check(
    name: str,
    fake: Sample,
    real: Sample | None,
    class_names: tuple[str, ...],
    reads: tuple[str, ...],
    min_images: int,
    min_per_class: int = 0,
) -> None:
    """Raises UsageError, one line that names the metric, for samples that it cannot measure.

    That is: something that it reads is missing, has another number of rows than there are labels, or is not finite;
    labels that are no class; too few images; features of two widths.
    """
    _check("generated", name, fake, class_names, reads, min_images, min_per_class)
    if real is None:
        return
    _check("real", name, real, class_names, reads, min_images, min_per_class)
    for read in set(reads) & {"features", "logits"}:
        width, real_width = getattr(fake, read).shape[1], getattr(real, read).shape[1]
        if width != real_width:
            raise UsageError(f"{name}: generated images have {read} of width {width} and real ones {real_width}")


def _check(
    kind: str,
    name: str,
    sample: Sample,
    class_names: tuple[str, ...],
    reads: tuple[str, ...],
    min_images: int,
    min_per_class: int,
) -> None:
    check_labels(kind, name, sample.labels, class_names, min_images, min_per_class)
    for read in reads:
        _check_rows(f"{name}: {read} of {kind} images", getattr(sample, read), len(sample.labels))


def check_labels(
    kind: str, name: str, labels: np.ndarray, class_names: Sequence[str], min_images: int, min_per_class: int
) -> None:
    """Raises UsageError, as `check`, for too few images of a kind and for labels that are no class."""
    classes = len(class_names)
    if len(labels) < min_images:
        raise UsageError(f"{name}: it needs at least {min_images} {kind} images and there are {len(labels)}")
    for label in labels[(labels < 0) | (labels >= classes)][:1]:
        raise UsageError(f"{name}: a label of {kind} images is {label}; there are classes 0 to {classes - 1}")
    counts = np.bincount(labels, minlength=classes)
    fewest = int(np.argmin(counts))
    if counts[fewest] < min_per_class:
        class_name, count = class_names[fewest], counts[fewest]
        raise UsageError(
            f"{name}: it needs at least {min_per_class} {kind} images of {class_name!r}, there are {count}"
        )


def _check_rows(what: str, values: np.ndarray | None, rows: int) -> None:
    """That `values` are one row for each label, all of them finite; integers always are."""
    if values is None:
        raise UsageError(f"{what} are needed and there are none")
    if len(values) != rows:
        raise UsageError(f"{what} are {len(values)} for {rows} labels")
    if values.dtype.kind == "f":
        broken = np.flatnonzero(~np.all(np.isfinite(values).reshape(rows, -1), axis=1))
        if len(broken):
            raise UsageError(f"{what} are not finite for {len(broken)} of {rows}, first for number {broken[0]}")
