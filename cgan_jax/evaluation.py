"""Draws images from the averaged generator and hands them to the metrics that a recipe names."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import jax
import numpy as np

from cgan_jax import datasets
from cgan_jax.errors import UsageError
from cgan_jax.lookup import module_named
from cgan_jax.metrics import Sample
from cgan_jax.sampling import draw_images, gathered, spread
from cgan_jax.train_state import Tree

_BATCH_SIZE = 100


def metrics_of(recipe: Mapping[str, Any], dataset: datasets.Dataset) -> dict[str, ModuleType]:
    """The metrics that `evaluate.metrics` lists ("" is none, "pixel_mse,..." one or more), by name.

    Raises UsageError for one that does not exist and for fewer images than classes.
    """
    section = recipe["evaluate"]
    names = [name.strip() for name in section["metrics"].split(",") if name.strip()]
    metrics = {name: module_named("cgan_jax.metrics", name, "metric") for name in names}
    classes = len(dataset.class_names) if recipe["dataset"]["conditional"] else 1
    if metrics and section["num_images"] < classes:
        raise UsageError(f"evaluate.num_images={section['num_images']} is fewer than the {classes} classes")
    return metrics


def evaluate(
    metrics: Mapping[str, ModuleType],
    recipe: Mapping[str, Any],
    dataset: datasets.Dataset,
    sampler: Callable[..., jax.Array],
    variables: Tree,
) -> dict[str, float]:
    """What the metrics say of `evaluate.num_images` images, spread evenly over the classes, against all real ones."""
    names, real_labels = dataset.class_names, dataset.labels
    if not recipe["dataset"]["conditional"]:
        names, real_labels = ("all",), np.zeros_like(dataset.labels)
    labels, indices = spread(recipe["evaluate"]["num_images"], list(range(len(names))))
    images = gathered(draw_images(sampler, variables, recipe["seed"], labels, indices, _BATCH_SIZE))
    fake, real = Sample(labels, images), Sample(real_labels, dataset.images)
    numbers = {}
    for metric in metrics.values():
        numbers |= metric.compute(fake, real, names)
    return numbers
