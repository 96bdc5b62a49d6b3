"""The made-up images: the same everywhere, of the wanted numbers, and with classes that can be learned."""

import hashlib

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from cgan_jax.data import sources
from cgan_jax.errors import UsageError


def load(name, split="train", image_size=16):
    return sources.load("synthetic", name, split, "", image_size)


def test_the_name_says_what_to_make():
    dataset = load("classes3_images7_channels1")
    assert dataset.images.shape == (7, 16, 16, 1) and dataset.images.dtype == np.uint8
    assert dataset.labels.tolist() == [0, 1, 2, 0, 1, 2, 0] and dataset.labels.dtype == np.int32
    assert dataset.class_names == ("class_0", "class_1", "class_2")
    assert load("images40").images.shape == (40, 16, 16, 3)
    assert load("").images.shape == (1024, 16, 16, 3) and len(load("").class_names) == 10
    assert load("classes30_images4").labels.tolist() == [0, 1, 2, 3]
    assert load("images3", image_size=1).images.shape == (3, 1, 1, 3)


def test_the_same_bytes_on_every_machine():
    digest = hashlib.sha256(load("classes4_images64").images.tobytes()).hexdigest()
    # Update it only with a change that is meant to change what "synthetic" looks like.
    assert digest[:16] == "48caf2cf649a19ad"


def test_splits_differ():
    train, test = load("images20"), load("images20", "test")
    np.testing.assert_array_equal(train.labels, test.labels)
    assert all((a != b).any() for a, b in zip(train.images, test.images, strict=True))
    assert len(np.unique(train.images.reshape(20, -1), axis=0)) == 20


@pytest.mark.parametrize("channels", [1, 3])
def test_a_classifier_learns_the_classes(channels):
    train, test = (load(f"classes10_images400_channels{channels}", split) for split in ("train", "test"))
    neighbours = KNeighborsClassifier(3).fit(train.images.reshape(400, -1), train.labels)
    assert neighbours.score(test.images.reshape(400, -1), test.labels) > 0.98


@pytest.mark.parametrize("name", ["10x1024", "classes", "classes0", "colours3", "classes-2", "classes3__images4"])
def test_names_that_cannot_be_read(name):
    with pytest.raises(UsageError, match="an example: classes10_images1024_channels3"):
        load(name)


def test_other_wrong_use():
    with pytest.raises(UsageError, match="there are: 1, 3"):
        load("channels2")
    with pytest.raises(UsageError, match="'all'; there are: train, test"):
        load("", "all")
    with pytest.raises(UsageError, match="image_size 0"):
        load("", image_size=0)
    with pytest.raises(UsageError, match=r"there may be at most 65536 classes, given 4000000000$"):
        load("classes4000000000_images4")
