"""Samples that no metric can measure are one line, the same for all of them."""

import importlib

import numpy as np
import pytest

from cgan_jax import lookup
from cgan_jax.errors import UsageError
from cgan_jax.evaluation.metrics import Sample

RNG = np.random.default_rng(0)
NAMES = ("cat", "dog", "ship")
# These have tests of their own: one passes over classes without images, one asks a discriminator, one trains.
APART = ("pixel_mse", "discriminator_accuracy", "classification_accuracy_score")
METRICS = {
    name: importlib.import_module(f"cgan_jax.evaluation.metrics.{name}")
    for name in lookup.names_in("cgan_jax.evaluation.metrics")
    if name not in APART
}
OF_FEATURES = [name for name, metric in METRICS.items() if metric.READS == ("features",)]
OF_VECTORS = [name for name, metric in METRICS.items() if metric.READS != ("images",)]
PER_CLASS = [name for name, metric in METRICS.items() if metric.MIN_PER_CLASS]


def good(count=30):
    return Sample(
        np.int32(np.arange(count) % 3),
        RNG.integers(0, 256, (count, 12, 12, 3), dtype=np.uint8),
        RNG.standard_normal((count, 4), dtype=np.float32),
        RNG.standard_normal((count, 3), dtype=np.float32),
    )


def refused(name, fake, real, line):
    with pytest.raises(UsageError, match=f"^{name}: {line}") as caught:
        METRICS[name].compute(fake, real, NAMES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", METRICS)
def test_good_ones_give_finite_numbers_under_the_names_of_their_classes(name):
    metric = METRICS[name]
    real = good() if getattr(metric, "USES_REAL", True) else None
    numbers = metric.compute(good(), real, NAMES)
    assert all(type(number) is float and np.isfinite(number) for number in numbers.values())
    parts = {key.partition("/")[2] for key in numbers} - {""}
    assert parts == (set(NAMES) if metric.MIN_PER_CLASS else set())


@pytest.mark.parametrize("name", METRICS)
def test_each_reads_only_what_it_says(name):
    metric = METRICS[name]
    only = {read: getattr(good(), read) for read in metric.READS}
    metric.compute(Sample(good().labels, **only), Sample(good().labels, **only), NAMES)
    for read in metric.READS:
        refused(name, good()._replace(**{read: None}), good(), f"{read} of generated images are needed")


@pytest.mark.parametrize("name", METRICS)
def test_the_fewest_images_are_enough_and_fewer_are_not(name):
    metric = METRICS[name]
    fewest = max(metric.MIN_IMAGES, 3 * metric.MIN_PER_CLASS)
    metric.compute(good(fewest), good(fewest), NAMES)
    line = f"it needs at least {metric.MIN_IMAGES} generated images and there are {metric.MIN_IMAGES - 1}$"
    refused(name, good(metric.MIN_IMAGES - 1), good(), line)
    if name in OF_FEATURES:
        refused(name, good(), good(metric.MIN_IMAGES - 1), line.replace("generated", "real"))


@pytest.mark.parametrize("name", PER_CLASS)
def test_a_class_of_too_few_is_named(name):
    fewest = METRICS[name].MIN_PER_CLASS
    labels = np.int32([0] * 20 + [2] * (11 - fewest) + [1] * (fewest - 1))
    given = good(30)._replace(labels=labels)
    line = f"it needs at least {fewest} {{}} images of 'dog', there are {fewest - 1}$"
    refused(name, given, good(), line.format("generated"))
    if name in OF_FEATURES:
        refused(name, good(), given, line.format("real"))


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("label", [-1, 3])
def test_labels_that_are_no_class(name, label):
    labels = good().labels.copy()
    labels[7] = label
    refused(
        name,
        good()._replace(labels=labels),
        good(),
        f"a label of generated images is {label}; there are classes 0 to 2$",
    )


@pytest.mark.parametrize("name", OF_VECTORS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite(name, value):
    (read,) = METRICS[name].READS
    values = getattr(good(), read).copy()
    values[[4, 9], 1] = value
    line = f"{read} of {{}} images are not finite for 2 of 30, first for number 4$"
    refused(name, good()._replace(**{read: values}), good(), line.format("generated"))
    if name in OF_FEATURES:
        refused(name, good(), good()._replace(**{read: values}), line.format("real"))


@pytest.mark.parametrize("name", METRICS)
def test_rows_without_labels(name):
    (read,) = METRICS[name].READS
    refused(
        name, good()._replace(**{read: getattr(good(), read)[:-1]}), good(), f"{read} of generated images are 29 for 30"
    )


@pytest.mark.parametrize("name", OF_FEATURES)
def test_features_of_two_networks(name):
    real = good()._replace(features=np.zeros((30, 5), np.float32))
    refused(name, good(), real, "generated images have features of width 4 and real ones 5$")
