"""How the classifier sees drawn images: the confidence in their class, and the real images nearest to each."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from cgan_jax.data import sources
from cgan_jax.data.sources import Dataset
from cgan_jax.errors import UsageError
from cgan_jax.evaluation import evaluation
from cgan_jax.evaluation.features import Network
from cgan_jax.run.workdir import RunInfo
from cgan_jax.sampling import grids

_BLOCK = 256
_TYPICAL = 500


class Nearest(NamedTuple):
    """The real images nearest to each of N, nearest first."""

    places: np.ndarray
    """int64 [N, K]: their rows in the dataset."""
    distances: np.ndarray
    """float64 [N, K]: Euclidean, between features."""


def classifier_for(info: RunInfo) -> Network:
    """The classifier of a run's dataset. Raises UsageError if none was trained."""
    return evaluation.find_network("classifier", info.recipe["dataset"], info.channels, tuple(info.class_names))


def training_images(info: RunInfo) -> Dataset:
    """The images that the run has learned from. Raises UsageError if they are not on this machine."""
    return sources.load_section(info.recipe["dataset"])


def confidences(network: Network, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The probability float64 [N] that the classifier gives the class that each image was asked for."""
    _, logits = evaluation.features_of(network, images, "confidences")
    logits = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.exp(logits[np.arange(len(labels)), labels]) / np.exp(logits).sum(axis=1)


def most_confident_first(labels: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """The order int64 [N] that keeps the order of the classes and begins each with its surest image."""
    rank = {label: place for place, label in enumerate(dict.fromkeys(labels.tolist()))}
    return np.lexsort((-confidence, [rank[label] for label in labels.tolist()]))


def nearest(features: np.ndarray, real: np.ndarray, k: int) -> Nearest:
    """The k of `real` [M, F] nearest to each of `features` [N, F]. Raises UsageError for fewer than k."""
    if k > len(real):
        raise UsageError(f"--nearest={k} is more than the {len(real)} training images")
    real = real.astype(np.float64)
    places = np.empty((len(features), k), np.int64)
    for start in range(0, len(features), _BLOCK):
        block = features[start : start + _BLOCK].astype(np.float64)
        # Without |x|^2, which is the same for all of a row.
        squared = np.sum(real * real, axis=1)[None] - 2 * block @ real.T
        places[start : start + _BLOCK] = np.argpartition(squared, k - 1, axis=1)[:, :k]
    distances = np.linalg.norm(real[places] - features[:, None].astype(np.float64), axis=2)
    order = np.argsort(distances, axis=1, kind="stable")
    return Nearest(np.take_along_axis(places, order, 1), np.take_along_axis(distances, order, 1))


def typical_distance(real: np.ndarray) -> float:
    """The median distance of training images, at most 500 of them, to the nearest other one."""
    chosen = np.linspace(0, len(real) - 1, min(_TYPICAL, len(real))).astype(int)
    found = nearest(real[chosen], real, 2)
    others = np.where(found.places[:, 0] == chosen, found.distances[:, 1], found.distances[:, 0])
    return float(np.median(others))


def write_nearest(
    path: Path, k: int, info: RunInfo, network: Network, images: np.ndarray, labels: np.ndarray
) -> tuple[float, float]:
    """Writes a grid of images uint8 [N, H, W, C], each before its k nearest training images.

    Returns the median distances of the images to the nearest training image and of training images to the nearest
    other. Raises UsageError for data that are not there.
    """
    dataset = training_images(info)
    real, _ = evaluation.cached_features(network, dataset.images)
    features, _ = evaluation.features_of(network, images, "features")
    found = nearest(features, real, k)
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [info.classes[label] for label in labels]
    grids.save(grids.grid(*grids.rows_beside(images, dataset.images[found.places], names)), path)
    return float(np.median(found.distances[:, 0])), typical_distance(real)
