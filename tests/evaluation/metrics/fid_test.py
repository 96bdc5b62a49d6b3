"""The Fréchet distance against torch-fidelity, the classic formula by SciPy, and covariances worked out by hand."""

import numpy as np
import pytest
import scipy.linalg

from cgan_jax.errors import UsageError
from cgan_jax.evaluation.metrics import Sample, fid
from tests.feature_sets import PAIRS

RNG = np.random.default_rng(0)


def distance(features, others):
    return fid.frechet_distance(fid.moments(features), fid.moments(others))


def numpy_moments(features):
    features = features.astype(np.float64)
    return features.mean(axis=0), np.cov(features, rowvar=False)


@pytest.mark.parametrize("name", PAIRS)
def test_moments_are_numpys(name):
    for features in PAIRS[name]:
        found, (mean, covariance) = fid.moments(features), numpy_moments(features)
        assert found.count == len(features) and found.covariance.dtype == np.float64
        np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
        np.testing.assert_allclose(found.covariance, covariance, rtol=1e-9, atol=1e-9 * np.trace(covariance))


def test_moments_are_summed_over_many_rows(monkeypatch):
    features = RNG.standard_normal((50, 4), dtype=np.float32)
    monkeypatch.setattr(fid, "_ROWS", 7)
    np.testing.assert_allclose(fid.moments(features).covariance, numpy_moments(features)[1], rtol=1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_it_agrees_with_torch_fidelity(name):
    reason = "the extra [reference] and torch-fidelity are there to compare with"
    pytest.importorskip("torch_fidelity", reason=reason)
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    ours, theirs = PAIRS[name]
    (mu_1, sigma_1), (mu_2, sigma_2) = numpy_moments(ours), numpy_moments(theirs)
    statistics = {"mu": mu_1, "sigma": sigma_1}, {"mu": mu_2, "sigma": sigma_2}
    (expected,) = fid_statistics_to_metric(*statistics, verbose=False).values()
    assert distance(ours, theirs) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["random", "duplicates", "clusters", "far_from_zero"])
def test_it_is_the_classic_formula_where_covariances_are_regular(name):
    (mu_1, sigma_1), (mu_2, sigma_2) = (numpy_moments(features) for features in PAIRS[name])
    root = scipy.linalg.sqrtm(sigma_1 @ sigma_2).real
    expected = np.sum((mu_1 - mu_2) ** 2) + np.trace(sigma_1 + sigma_2 - 2 * root)
    assert distance(*PAIRS[name]) == pytest.approx(expected, rel=1e-7)


def test_diagonal_covariances_by_hand():
    one = fid.Moments(np.array([1.0, 2.0, 3.0]), np.diag([4.0, 9.0, 0.0]), 10)
    other = fid.Moments(np.array([1.0, 0.0, 0.0]), np.diag([1.0, 25.0, 36.0]), 10)
    assert fid.frechet_distance(one, other) == pytest.approx(4 + 9 + (2 - 1) ** 2 + (3 - 5) ** 2 + 6**2, rel=1e-14)


def test_features_that_vary_in_different_directions_share_nothing():
    """The root of the product is zero exactly, and its eigenvalues' rounding errors would be most of what is found."""
    basis, _ = np.linalg.qr(RNG.standard_normal((200, 200)))
    first, second = basis[:, :9] @ np.diag(np.arange(1.0, 10)), basis[:, 9:100]
    one, other = (fid.Moments(np.zeros(200), root @ root.T, None) for root in (first, second))
    assert fid.frechet_distance(one, other) == pytest.approx(np.sum(np.arange(1.0, 10) ** 2) + 91, rel=1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_a_set_is_at_no_distance_of_itself(name):
    for features in PAIRS[name]:
        assert 0 <= distance(features, features) <= 1e-6 * max(1, np.trace(fid.moments(features).covariance) / 1e3)


def test_it_depends_on_neither_the_order_nor_the_direction():
    ours, theirs = PAIRS["random"]
    assert distance(RNG.permutation(ours), theirs) == pytest.approx(distance(ours, theirs), rel=1e-10)
    assert distance(theirs, ours) == pytest.approx(distance(ours, theirs), rel=1e-10)


def test_a_doubled_set_differs_by_the_divisor_of_the_covariance_only():
    ours, theirs = PAIRS["random"]
    mean, covariance, count = fid.moments(ours)
    doubled = fid.Moments(mean, covariance * (2 * (count - 1) / (2 * count - 1)), 2 * count)
    expected = fid.frechet_distance(doubled, fid.moments(theirs))
    assert distance(np.concatenate([ours, ours]), theirs) == pytest.approx(expected, rel=1e-10)
    assert expected != distance(ours, theirs)


def test_a_shift_adds_its_square():
    ours, theirs = PAIRS["random"]
    mean, covariance, count = fid.moments(theirs)
    nearby = fid.Moments(fid.moments(ours).mean, covariance, count)
    moved = fid.frechet_distance(fid.moments(ours), nearby._replace(mean=nearby.mean + 2))
    assert moved - fid.frechet_distance(fid.moments(ours), nearby) == pytest.approx(4 * len(mean), rel=1e-10)


def test_compute_names_it():
    ours, theirs = PAIRS["random"]
    fake, real = Sample(np.zeros(300, np.int32), features=ours), Sample(np.zeros(250, np.int32), features=theirs)
    assert fid.compute(fake, real, ("all",)) == {"fid": distance(ours, theirs)}
    assert fid.NAMES == {"c": "cfd"}


def test_widths_that_differ_are_one_line():
    moments = fid.moments(np.eye(3)), fid.moments(np.eye(4))
    with pytest.raises(UsageError, match="features of width 3 and 4 cannot be compared"):
        fid.frechet_distance(*moments)


def test_published_statistics_are_read(tmp_path):
    ours, theirs = PAIRS["random"]
    mean, covariance = numpy_moments(theirs)
    np.savez(tmp_path / "real.npz", mu=mean, sigma=covariance.astype(np.float32))
    read = fid.load_moments(tmp_path / "real.npz")
    assert read.count is None and read.mean.dtype == read.covariance.dtype == np.float64
    assert fid.frechet_distance(fid.moments(ours), read) == pytest.approx(distance(ours, theirs), rel=1e-5)


BROKEN = {
    "no mu": ({"mean": np.zeros(2), "sigma": np.eye(2)}, "is no .npz file with the numbers mu and sigma"),
    "words": ({"mu": np.array(["a", "b"]), "sigma": np.eye(2)}, "is no .npz file with the numbers mu and sigma"),
    "objects": ({"mu": np.array([None, {}]), "sigma": np.eye(2)}, "is no .npz file with the numbers mu and sigma"),
    "shapes": ({"mu": np.zeros(3), "sigma": np.eye(2)}, r"mu \(3,\) and sigma \(2, 2\) are not of shapes"),
    "empty": ({"mu": np.zeros(0), "sigma": np.zeros((0, 0))}, "are not of shapes"),
    "matrix": ({"mu": np.eye(2), "sigma": np.eye(2)}, "are not of shapes"),
    "nan": ({"mu": np.zeros(2), "sigma": np.full((2, 2), np.nan)}, "mu or sigma is not finite"),
    "infinite": ({"mu": np.array([0, np.inf]), "sigma": np.eye(2)}, "mu or sigma is not finite"),
    "asymmetric": ({"mu": np.zeros(2), "sigma": np.array([[1, 2], [0, 1]])}, "sigma is not symmetric"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_other_files_are_one_line(tmp_path, name):
    arrays, line = BROKEN[name]
    np.savez(tmp_path / "real.npz", **arrays)
    with pytest.raises(UsageError, match=line) as caught:
        fid.load_moments(tmp_path / "real.npz")
    assert "real.npz" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"mu, sigma", b"PK\x03\x04 and nothing more"])
def test_what_is_no_archive_is_one_line(tmp_path, content):
    path = tmp_path / "real.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"is no \.npz file with the numbers mu and sigma"):
        fid.load_moments(path)
    np.save(tmp_path / "array.npy", np.eye(3))
    with pytest.raises(UsageError, match=r"is no \.npz file with the numbers mu and sigma"):
        fid.load_moments(tmp_path / "array.npy")
