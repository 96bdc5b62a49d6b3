"""The embedded digits: their pixels, their splits."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from cgan_jax.data import sources
from cgan_jax.errors import UsageError


def test_every_pixel_becomes_a_block():
    dataset = sources.load("digits", "", "all", "", 32)
    assert dataset.images.shape == (1797, 32, 32, 1) and dataset.images.dtype == np.uint8
    assert dataset.labels.dtype == np.int32 and dataset.class_names == tuple("0123456789")
    stored = load_digits()
    np.testing.assert_array_equal(dataset.labels, stored.target)
    # By hand, the 4x4 block of one stored pixel; then that every block is flat; then all of them.
    assert stored.images[0, 0, 2] == 5
    np.testing.assert_array_equal(dataset.images[0, 0:4, 8:12, 0], np.full((4, 4), 80))  # 5 * 255 / 16 is 79.7
    blocks = dataset.images[..., 0].reshape(-1, 8, 4, 8, 4)
    assert (blocks.min((2, 4)) == blocks.max((2, 4))).all()
    np.testing.assert_allclose(blocks.mean((2, 4)) * 16 / 255, stored.images, atol=0.04)
    assert dataset.images.min() == 0 and dataset.images.max() == 255


def test_every_fifth_is_for_testing():
    whole = sources.load("digits", "", "all", "", 8)
    train = sources.load("digits", "", "train", "", 8)
    test = sources.load("digits", "", "test", "", 8)
    assert (len(train.images), len(test.images)) == (1438, 359)
    np.testing.assert_array_equal(test.images, whole.images[4::5])
    np.testing.assert_array_equal(test.labels, whole.labels[4::5])
    np.testing.assert_array_equal(train.images[:6], whole.images[[0, 1, 2, 3, 5, 6]])
    np.testing.assert_array_equal(train.labels[:6], whole.labels[[0, 1, 2, 3, 5, 6]])


@pytest.mark.parametrize("image_size", [0, -8, 4, 28])
def test_sizes_that_do_not_suit(image_size):
    with pytest.raises(UsageError, match="multiple of 8"):
        sources.load("digits", "", "all", "", image_size)


def test_unknown_split():
    with pytest.raises(UsageError, match="'validation'; there are: all, train, test"):
        sources.load("digits", "", "validation", "", 32)
