"""Fréchet distances of classes, against torch-fidelity's of their parts."""

import numpy as np
import pytest

from cgan_jax.evaluation.metrics import Sample, fid, intra_fid

RNG = np.random.default_rng(0)
NAMES = ("cat", "dog", "ship")
CENTRES = 3 * RNG.standard_normal((3, 5))


def sample(counts):
    labels = RNG.permutation(np.repeat(np.int32([0, 1, 2]), counts))
    return Sample(labels, features=np.float32(CENTRES[labels] + RNG.standard_normal((len(labels), 5))))


FAKE, REAL = sample((40, 3, 60)), sample((50, 50, 50))


def test_it_is_the_distance_of_each_class_and_their_mean():
    pytest.importorskip("torch_fidelity", reason="the extra [reference] and torch-fidelity are there to compare with")
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    def statistics(sample, label):
        features = sample.features[sample.labels == label].astype(np.float64)
        return {"mu": features.mean(axis=0), "sigma": np.cov(features, rowvar=False)}

    expected = {}
    for label, name in enumerate(NAMES):
        both = statistics(FAKE, label), statistics(REAL, label)
        (expected[f"intra_fid/{name}"],) = fid_statistics_to_metric(*both, verbose=False).values()
    expected["intra_fid"] = sum(expected.values()) / 3
    assert intra_fid.compute(FAKE, REAL, NAMES) == pytest.approx(expected, rel=1e-5)


def test_it_sees_that_labels_were_shuffled_and_the_total_does_not():
    shuffled = FAKE._replace(labels=(FAKE.labels + 1) % 3)
    before, after = (intra_fid.compute(fake, REAL, NAMES)["intra_fid"] for fake in (FAKE, shuffled))
    assert after > 5 * before
    assert fid.compute(shuffled, REAL, NAMES) == fid.compute(FAKE, REAL, NAMES)


def test_one_class_is_the_total():
    fake, real = (sample._replace(labels=np.zeros_like(sample.labels)) for sample in (FAKE, REAL))
    assert intra_fid.compute(fake, real, ("all",)) == {"intra_fid": fid.compute(fake, real, ("all",))["fid"]}
    assert intra_fid.NAMES == {"c": "intra_cfd"}
