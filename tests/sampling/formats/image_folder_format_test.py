"""Folders by class, as torchvision's ImageFolder reads them: our own reader follows the same rule."""

import numpy as np
from PIL import Image

from cgan_jax.data import sources
from tests.sampling.formats.small_set import PLAN, image_of, written


def test_every_image_is_a_picture_in_the_folder_of_its_class(tmp_path):
    folder = written("image_folder", tmp_path)
    for label, index in zip(PLAN.labels.tolist(), PLAN.indices.tolist(), strict=True):
        name = ["cat", "dog", None, "tree_frog"][label]
        with Image.open(folder / name / f"{index:06d}.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), image_of(label, index))
    assert sorted(path.name for path in folder.iterdir()) == ["cat", "dog", "tree_frog"], "no folder of a class without"


def test_it_can_be_trained_on(tmp_path):
    images, labels, names, _ = sources.load("image_folder", "", "all", str(written("image_folder", tmp_path)), 4)
    assert names == ("cat", "dog", "tree_frog") and np.bincount(labels).tolist() == [5, 4, 2]
    np.testing.assert_array_equal(images[-1], image_of(3, 1))
