"""Pairs of generated and real features that metrics must bear, float32 [N, F] and [M, F]."""

import numpy as np


def _random(rng):
    return rng.standard_normal((300, 16)) + 0.3, 1.5 * rng.standard_normal((250, 16))


def _fewer_images_than_dimensions(rng):
    return rng.standard_normal((20, 64)), rng.standard_normal((24, 64)) + 0.2


def _duplicates(rng):
    """Whole numbers in three dimensions: most points are there several times, and most distances too."""
    return rng.integers(0, 4, (150, 3)), rng.integers(0, 3, (120, 3))


def _constant(rng):
    """A generator that has collapsed to one image, and features that never move."""
    real = rng.standard_normal((60, 8))
    real[:, 5:] = 2
    return np.ones((50, 8)), real


def _clusters(rng):
    """Ten tight clusters, a thousand of their radii apart."""
    centres = 1000 * rng.standard_normal((10, 12))
    return centres[np.arange(200) % 7] + rng.standard_normal((200, 12)), centres[
        np.arange(150) % 10
    ] + rng.standard_normal((150, 12))


def _far_from_zero(rng):
    return rng.standard_normal((100, 6)) + 1000.1, rng.standard_normal((80, 6)) + 1000


PAIRS = {
    make.__name__.strip("_"): tuple(np.float32(features) for features in make(np.random.default_rng(7)))
    for make in (_random, _fewer_images_than_dimensions, _duplicates, _constant, _clusters, _far_from_zero)
}
