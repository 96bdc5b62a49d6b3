"""Distances in blocks, against SciPy's differences of all pairs."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from cgan_jax.evaluation.metrics import _neighbours
from tests.feature_sets import PAIRS


def distances(points, others, centre=None):
    centre = others.mean(axis=0, dtype=np.float64) if centre is None else centre
    blocks = _neighbours.over_blocks(points, others, centre, lambda rows, squared: (rows, squared.copy()))
    assert [row for rows, _ in blocks for row in range(len(points))[rows]] == list(range(len(points)))
    return np.concatenate([squared for _, squared in blocks])


@pytest.fixture(params=[2**22, 777], ids=["one block", "many blocks"])
def block(request, monkeypatch):
    monkeypatch.setattr(_neighbours, "_BLOCK", request.param)


@pytest.mark.parametrize("name", PAIRS)
def test_distances_are_scipys(name, block):
    points, others = PAIRS[name]
    for one, other in ((points, others), (others, points), (points, points), (others, others)):
        expected = cdist(one.astype(np.float64), other.astype(np.float64), "sqeuclidean")
        found = distances(one, other)
        assert found.dtype == np.float32
        # float32 holds the result to 6e-8. Clusters are 1000 radii apart: 1e6 * 2e-16 and some more are left of theirs.
        np.testing.assert_allclose(found, expected, rtol=1e-7 if name != "clusters" else 1e-6)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("name", PAIRS)
def test_radii_reach_the_kth_other(name, k, block):
    for points in PAIRS[name]:
        expected = np.sort(cdist(points.astype(np.float64), points.astype(np.float64), "sqeuclidean"), axis=1)[:, k]
        found = _neighbours.squared_radii(points, points.mean(axis=0, dtype=np.float64), k)
        np.testing.assert_allclose(found, expected, rtol=1e-7 if name != "clusters" else 1e-6)


@pytest.mark.parametrize("width", [1, 192, 2048])
def test_equal_points_are_at_no_distance_and_float32s_next_ones_are(width):
    """However long they are; in float32 the same formula is wrong by a hundred units of distance here."""
    rng = np.random.default_rng(width)
    points = np.float32(1000 * rng.standard_normal((40, width)))
    twice = np.concatenate([points, points])
    assert np.all(np.diagonal(distances(points, points)) == 0)
    assert np.all(_neighbours.squared_radii(twice, np.zeros(width), 1) == 0)
    apart = points + np.float32(0.01)
    np.testing.assert_allclose(
        np.diagonal(distances(points, apart)), np.sum((np.float64(points) - apart) ** 2, axis=1), rtol=1e-3
    )


def test_distances_that_are_equal_are_found_equal():
    points = np.float32(np.random.default_rng(0).integers(0, 5, (300, 4)))
    centre = points.mean(axis=0, dtype=np.float64)
    found = distances(points, points, centre)
    assert np.array_equal(found, cdist(points, points, "sqeuclidean"))
    assert np.array_equal(_neighbours.squared_radii(points, centre, 4), np.sort(found, axis=1)[:, 4])
