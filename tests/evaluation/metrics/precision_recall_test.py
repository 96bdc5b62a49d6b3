"""Precision and recall against torch-fidelity, prdc, SciPy's distances and a line of points."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from cgan_jax.evaluation.metrics import Sample, precision_recall
from cgan_jax.evaluation.metrics.precision_recall import precision_and_recall
from tests.feature_sets import PAIRS

REASON = "the extra [reference] brings it, to compare with"


def line(*points):
    return np.float32(points)[:, None]


def by_hand(features, real_features, k):
    """The definition on SciPy's squared differences; equal ones are equal there, which whole numbers make exact."""
    features, real_features = features.astype(np.float64), real_features.astype(np.float64)
    between = cdist(features, real_features, "sqeuclidean")
    radii, real_radii = (np.sort(cdist(one, one, "sqeuclidean"), axis=1)[:, k] for one in (features, real_features))
    return np.mean((between <= real_radii[None]).any(axis=1)), np.mean((between <= radii[:, None]).any(axis=0))


def test_points_on_a_line():
    """With k = 1 real balls are [0, 2], [0, 2] with the middle 1, and [5, 15]; generated ones [4, 6] and [5, 7]."""
    real, fake = line(0, 1, 10), line(5, 6)
    # Balls around 0, 1 and 10 have radii 1, 1 and 9, around 5 and 6 both 1.
    assert precision_and_recall(fake, real, 1) == (1.0, 0.0)
    assert precision_and_recall(line(-2, -1, 2, 30), line(0, 1, 10), 1) == (0.5, 2 / 3 + 1 / 3)
    # The boundary belongs to a ball: 11 is 1 of 10, whose neighbour is 9.
    assert precision_and_recall(line(11, 11.5), line(9, 10), 1) == (0.5, 0.0)


@pytest.mark.parametrize("name", PAIRS)
def test_it_is_the_definition(name):
    found = precision_and_recall(*PAIRS[name], 3)
    assert found == pytest.approx(by_hand(*PAIRS[name], 3), abs=1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_it_agrees_with_torch_fidelity(name):
    pytest.importorskip("torch_fidelity", reason=REASON)
    import torch
    from torch_fidelity.metric_prc import prc_features_to_metric

    # Up to 25 points torch takes differences; above, products whose rounding moves copies off each other.
    rows = None if name in ("random", "fewer_images_than_dimensions", "clusters", "far_from_zero") else 25
    ours, theirs = (features[:rows] for features in PAIRS[name])
    tensors = [torch.from_numpy(features.astype(np.float64)) for features in (ours, theirs)]
    for save_cpu_ram in (False, True):
        options = {"prc_neighborhood": 3, "prc_batch_size": 100, "save_cpu_ram": save_cpu_ram, "verbose": False}
        expected = prc_features_to_metric(*tensors, **options)
        # The means there are float32.
        assert precision_and_recall(ours, theirs, 3) == pytest.approx(
            (expected["precision"], expected["recall"]), rel=1e-6
        )


@pytest.mark.parametrize("name", ["random", "fewer_images_than_dimensions", "clusters", "far_from_zero"])
def test_it_agrees_with_prdc_where_no_distances_are_equal(name):
    """Its balls have no boundary."""
    prdc = pytest.importorskip("prdc", reason=REASON)
    ours, theirs = PAIRS[name]
    expected = prdc.compute_prdc(theirs.astype(np.float64), ours.astype(np.float64), nearest_k=3)
    found = precision_and_recall(ours, theirs, 3)
    assert found == pytest.approx((expected["precision"], expected["recall"]), abs=1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_a_set_covers_itself_in_any_order(name):
    for features in PAIRS[name]:
        assert precision_and_recall(np.random.default_rng(0).permutation(features), features, 3) == (1.0, 1.0)


def test_compute_names_them():
    fake, real = (Sample(np.zeros(len(x), np.int32), features=x) for x in PAIRS["random"])
    found = precision_recall.compute(fake, real, ("all",))
    assert tuple(found.values()) == precision_and_recall(*PAIRS["random"], 3) and list(found) == ["precision", "recall"]
