"""Neighbours and confidence, against distances and probabilities worked out one by one."""

import numpy as np
import pytest

from cgan_jax.errors import UsageError
from cgan_jax.evaluation import likeness
from cgan_jax.evaluation.features import Features, Network

RNG = np.random.default_rng(0)


def test_the_nearest_are_those_of_all_distances():
    features, real = RNG.normal(size=(300, 5)).astype(np.float32), RNG.normal(size=(70, 5)).astype(np.float32) + 3
    found = likeness.nearest(features, real, 4)
    distances = np.sqrt(((features[:, None].astype(np.float64) - real[None]) ** 2).sum(axis=-1))
    np.testing.assert_array_equal(found.places, np.argsort(distances, axis=1)[:, :4])
    np.testing.assert_allclose(found.distances, np.sort(distances, axis=1)[:, :4], rtol=1e-12)


def test_a_copy_is_found_at_no_distance():
    real = RNG.normal(size=(50, 6)).astype(np.float32) + 100
    found = likeness.nearest(real[[7, 31]], real, 1)
    assert found.places.tolist() == [[7], [31]] and np.all(found.distances == 0)


def test_the_typical_distance_leaves_an_image_itself_out():
    real = np.float32([[0.0], [1.0], [3.0], [6.0], [10.0]])
    assert likeness.typical_distance(real) == np.median([1, 1, 2, 3, 4])
    assert likeness.typical_distance(np.zeros((4, 2), np.float32)) == 0


def test_more_neighbours_than_there_are_images_are_refused():
    with pytest.raises(UsageError, match="--nearest=3 is more than the 2 training images"):
        likeness.nearest(np.zeros((1, 2), np.float32), np.zeros((2, 2), np.float32), 3)


def test_a_confidence_is_the_probability_of_the_class_asked_for():
    def extract(variables, images):
        values = images.reshape(images.shape[0], -1)[:, :3].astype(np.float32)
        return Features(values, values)

    network = Network("", "c", "", "", (1,), 2, ("a", "b", "c"), {}, extract)
    images = np.uint8([[0, 1, 2, 0], [200, 1, 0, 0]]).reshape(2, 2, 2, 1)
    expected = [np.exp(1) / (1 + np.exp(1) + np.exp(2)), 1.0]
    np.testing.assert_allclose(likeness.confidences(network, images, np.int32([1, 0])), expected, rtol=1e-6)


def test_each_class_begins_with_its_surest_image_and_classes_stay_in_order():
    labels, confidence = np.int32([7, 7, 7, 3, 3]), np.array([0.1, 0.9, 0.5, 0.2, 0.3])
    assert likeness.most_confident_first(labels, confidence).tolist() == [1, 2, 0, 4, 3]
