"""The kernel distance against torch-fidelity and the sums written out."""

import itertools

import numpy as np
import pytest

from cgan_jax.evaluation.metrics import Sample, kid
from tests.feature_sets import PAIRS

RNG = np.random.default_rng(0)


def sample(features):
    return Sample(np.zeros(len(features), np.int32), features=features)


def test_it_is_the_means_over_pairs_by_hand():
    x, y = RNG.standard_normal((5, 3)), RNG.standard_normal((4, 3)) + 1

    def mean(pairs):
        return np.mean([(a @ b / 3 + 1) ** 3 for a, b in pairs])

    expected = (
        mean(itertools.permutations(x, 2)) + mean(itertools.permutations(y, 2)) - 2 * mean(itertools.product(x, y))
    )
    assert kid.squared_mmd(x, y) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_it_agrees_with_torch_fidelity(name):
    """On all images, and as many of both kinds, as their subsets and ours are drawn from other generators."""
    pytest.importorskip("torch_fidelity", reason="the extra [reference] and torch-fidelity are there to compare with")
    import torch
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    size = min(len(features) for features in PAIRS[name])
    ours, theirs = (features[:size] for features in PAIRS[name])
    # In float64, since their float32 sums are wrong by more than the distance where features are large.
    tensors = [torch.from_numpy(features.astype(np.float64)) for features in (ours, theirs)]
    expected = kid_features_to_metric(
        *tensors,
        kid_subsets=1,
        kid_subset_size=size,
        kid_kernel="poly",
        kid_kernel_poly_degree=3,
        kid_kernel_poly_gamma=None,
        kid_kernel_poly_coef0=1,
        rng_seed=2020,
        verbose=False,
    )[KEY_METRIC_KID_MEAN]
    found = kid.compute(sample(ours), sample(theirs), ("all",))
    assert found["kid"] == pytest.approx(expected, rel=1e-5)
    assert "kid_std" not in found  # all of both in every subset


def test_of_many_images_it_is_torch_fidelitys_default():
    pytest.importorskip("torch_fidelity", reason="the extra [reference] and torch-fidelity are there to compare with")
    import torch
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    features, others = np.float32(RNG.standard_normal((1200, 8)) + 0.2), np.float32(RNG.standard_normal((1100, 8)))
    found = kid.compute(sample(features), sample(others), ("all",))
    expected = kid_features_to_metric(*(torch.from_numpy(x.astype(np.float64)) for x in (features, others)))
    assert found["kid"] == pytest.approx(expected[KEY_METRIC_KID_MEAN], rel=1e-9)
    assert found["kid_std"] == pytest.approx(expected[KEY_METRIC_KID_STD], rel=1e-9)


def test_a_few_images_against_more_are_subsets_too():
    features = np.float32(RNG.standard_normal((60, 4)))
    assert kid.compute(sample(features), sample(features[:40] + 1), ("all",))["kid_std"] > 0


def test_it_is_mean_and_spread_over_subsets():
    features, others = np.arange(40, dtype=np.float32)[:, None], np.arange(30, dtype=np.float32)[:, None] / 7
    values = kid.subset_distances(features, others, 6, 5)
    assert values.shape == (6,) and len(set(values)) == 6
    assert np.array_equal(values, kid.subset_distances(features, others, 6, 5)), "always the same subsets"
    assert len(set(kid.subset_distances(features, others, 6, 1000))) > 1, "the larger set still has subsets"


def test_no_image_is_in_a_subset_twice(monkeypatch):
    seen = []
    monkeypatch.setattr(kid, "squared_mmd", lambda x, y: seen.append((x[:, 0], y[:, 0])) or 0.0)
    features = np.arange(1200, dtype=np.float32)[:, None]
    kid.compute(sample(features), sample(features[:1100]), ("all",))
    assert len(seen) == 100
    for x, y in seen:
        assert len(set(x)) == len(set(y)) == 1000


def test_independent_draws_of_one_distribution_are_about_0_apart_and_others_are_not():
    features, others = RNG.standard_normal((2, 1000, 8))
    # A subset of 100 is off by its own spread, and the mean over 50 that overlap by a fifth of that or less.
    values = kid.subset_distances(features, others, 50, 100)
    assert abs(values.mean()) < values.std() / 2 and values.min() < 0 < values.max()
    assert kid.subset_distances(features, others + 0.5, 50, 100).mean() > 5 * values.std()
