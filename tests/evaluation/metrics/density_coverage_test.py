"""Density and coverage against prdc, SciPy's distances and a line of points."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from cgan_jax.evaluation.metrics import Sample, density_coverage
from cgan_jax.evaluation.metrics.density_coverage import density_and_coverage
from tests.feature_sets import PAIRS


def line(*points):
    return np.float32(points)[:, None]


def by_hand(features, real_features, k):
    features, real_features = features.astype(np.float64), real_features.astype(np.float64)
    radii = np.sort(cdist(real_features, real_features, "sqeuclidean"), axis=1)[:, k]
    inside = cdist(features, real_features, "sqeuclidean") < radii[None]
    return np.mean(np.sum(inside, axis=1)) / k, np.mean(np.any(inside, axis=0))


def test_points_on_a_line():
    """With k = 1 the balls around 0, 1 and 10 have radii 1, 1 and 9, and no boundary."""
    assert density_and_coverage(line(0.5), line(0, 1, 10), 1) == (2.0, 2 / 3)
    assert density_and_coverage(line(1, 2), line(0, 1, 10), 1) == (1.0, 2 / 3)
    assert density_and_coverage(line(0.5, -5, 40, 1.5), line(0, 1, 10), 1) == (1.0, 1.0)
    assert density_and_coverage(line(0.5), line(0, 1, 10), 2) == (1.5, 1.0)


@pytest.mark.parametrize("name", PAIRS)
def test_it_is_the_definition(name):
    assert density_and_coverage(*PAIRS[name], 5) == pytest.approx(by_hand(*PAIRS[name], 5), rel=1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_it_agrees_with_prdc(name):
    prdc = pytest.importorskip("prdc", reason="the extra [reference] brings it, to compare with")
    ours, theirs = PAIRS[name]
    expected = prdc.compute_prdc(theirs.astype(np.float64), ours.astype(np.float64), nearest_k=5)
    found = density_and_coverage(ours, theirs, 5)
    assert found == pytest.approx((expected["density"], expected["coverage"]), rel=1e-9)


def test_a_set_fills_its_own_balls_exactly():
    """Each holds its centre and the k - 1 nearest others, whatever rounding says of the boundary."""
    ours, _ = PAIRS["random"]
    assert density_and_coverage(np.random.default_rng(0).permutation(ours), ours, 5) == (1.0, 1.0)


def test_independent_draws_are_at_the_expected_values():
    """1 and 1 - 2^-k (Naeem et al. 2020, section 3), the latter for as many of both kinds."""
    features, real = np.random.default_rng(0).standard_normal((2, 3000, 4), dtype=np.float32)
    density, coverage = density_and_coverage(features, real, 5)
    assert density == pytest.approx(1, abs=0.05) and coverage == pytest.approx(1 - 2**-5, abs=0.01)


def test_compute_names_them():
    fake, real = (Sample(np.zeros(len(x), np.int32), features=x) for x in PAIRS["random"])
    found = density_coverage.compute(fake, real, ("all",))
    assert tuple(found.values()) == density_and_coverage(*PAIRS["random"], 5)
    assert list(found) == ["density", "coverage"]
