"""The classifier: its pieces by hand, its file whole or refused, and what the packaged weights reach."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax.data import sources
from cgan_jax.data.sources import tfds
from cgan_jax.errors import UsageError
from cgan_jax.evaluation.features import classifier

RNG = np.random.default_rng(0)
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SMALL = classifier.Description(("a", "b", "c"), 8, 1, (4, 6), "none", 0.5, "none", "none")


@pytest.fixture(scope="module")
def variables():
    start = jax.jit(lambda: classifier.init(SMALL, jax.random.key(0)))()
    images = RNG.integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    return {**start, "fixed": {"_Whitening_0": {"kernel": classifier.whitening(images)}}}


def test_pooling_is_the_largest_of_every_two_by_two():
    x = RNG.normal(size=(2, 5, 7, 3)).astype(np.float32)
    expected = [
        [[x[n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((0, 1)) for j in range(3)] for i in range(2)] for n in (0, 1)
    ]
    assert np.array_equal(classifier.pooled(jnp.asarray(x)), expected)


def test_whitened_patches_are_uncorrelated_and_of_one_size():
    images = np.clip(RNG.normal(128, 40, (50, 9, 9, 3)) + RNG.normal(0, 30, (50, 1, 1, 3)), 0, 255).astype(np.uint8)
    kernel = classifier.whitening(images)
    assert kernel.shape == (2, 2, 3, 24)
    assert np.array_equal(kernel[..., 12:], -kernel[..., :12])
    x = images.astype(np.float64) / 64 - 2
    outputs = [
        np.einsum("nijc,ijco->no", x[:, i : i + 2, j : j + 2], kernel[..., :12]) for i in range(8) for j in range(8)
    ]
    covariance = np.cov(np.concatenate(outputs), rowvar=False)
    assert np.allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-3)
    assert np.all((np.diag(covariance) > 0.8) & (np.diag(covariance) < 1.01))


def test_a_convolution_starts_as_the_identity():
    kernel = classifier._identity(jax.random.key(0), (3, 3, 4, 6))
    assert np.array_equal(kernel[1, 1, :, :4], np.eye(4))
    assert np.count_nonzero(kernel[..., :4]) == 4
    assert 0 < np.abs(kernel[..., 4:]).max() <= 36**-0.5


def test_shapes_and_that_images_do_not_meet(variables):
    images = RNG.integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    features, logits = SMALL.network.apply(variables, images, False)
    assert features.shape == (5, 6) and logits.shape == (5, 3)
    alone = SMALL.network.apply(variables, images[3:4], False)
    assert np.allclose(alone[0], features[3:4], rtol=1e-5, atol=1e-6)


def test_an_image_and_its_mirror_image_have_the_same_features_where_they_are_of_one_class(variables):
    images = RNG.integers(0, 256, (4, 8, 8, 1), dtype=np.uint8)
    network = SMALL._replace(mirrored=True).network
    features, logits = network.apply(variables, images, False)
    of_images, of_mirrored = (SMALL.network.apply(variables, x, False) for x in (images, images[:, :, ::-1]))
    assert not np.allclose(of_images[0], of_mirrored[0])
    np.testing.assert_allclose(features, (of_images[0] + of_mirrored[0]) / 2, rtol=1e-5)
    np.testing.assert_allclose(logits, (of_images[1] + of_mirrored[1]) / 2, rtol=1e-4, atol=1e-5)
    again, _ = network.apply(variables, images[:, :, ::-1], False)
    np.testing.assert_allclose(again, features, rtol=1e-5)
    plain, _ = SMALL.network.apply(variables, images, True, mutable=["batch_stats"])
    trained, _ = network.apply(variables, images, True, mutable=["batch_stats"])
    np.testing.assert_array_equal(trained[0], plain[0])


def test_training_moves_the_running_statistics_and_nothing_else(variables):
    images = RNG.integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    _, moved = SMALL.network.apply(variables, images, True, mutable=["batch_stats"])
    assert moved.keys() == {"batch_stats"}
    before, after = jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(moved)
    assert all(np.any(a != b) for a, b in zip(before, after, strict=True))


def test_a_file_is_read_as_it_was_written(variables, tmp_path):
    classifier.save(tmp_path / "c.npz", SMALL, variables)
    assert [path.name for path in tmp_path.iterdir()] == ["c.npz"]
    description, read, digest = classifier.read(tmp_path / "c.npz")
    assert description == SMALL and len(digest) == 64
    for a, b in zip(jax.tree.leaves(read), jax.tree.leaves(variables), strict=True):
        assert a.dtype == np.float32 and np.array_equal(a, np.asarray(b, np.float16))
    images = RNG.integers(0, 256, (2, 8, 8, 1), dtype=np.uint8)
    network = classifier.load(tmp_path / "c.npz")
    found = network.extract(network.variables, images)
    assert np.allclose(found.logits, SMALL.network.apply(read, images, False)[1], rtol=1e-5, atol=1e-6)
    assert (network.prefix, network.channels, network.image_size) == ("c", (1,), 8)


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "other weights", "not finite", "no description"])
def test_a_file_that_is_no_classifier_is_one_line(damage, variables, tmp_path):
    path = tmp_path / "c.npz"
    if damage == "other weights":
        classifier.save(path, SMALL._replace(widths=(4, 7)), variables)
    elif damage == "not finite":
        classifier.save(path, SMALL, jax.tree.map(lambda x: x * np.nan, variables))
    elif damage == "no description":
        np.savez(path, a=np.zeros(3))
    else:
        classifier.save(path, SMALL, variables)
        path.write_bytes({"empty": b"", "cut": path.read_bytes()[:-200], "text": b"hello"}[damage])
    with pytest.raises(UsageError, match=r"c\.npz is no classifier: ") as error:
        classifier.read(path)
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match=r"there is no classifier .*none\.npz"):
        classifier.read(tmp_path / "none.npz")


def test_a_damaged_byte_is_refused_or_was_of_no_consequence(variables, tmp_path):
    classifier.save(tmp_path / "c.npz", SMALL, variables)
    whole = (tmp_path / "c.npz").read_bytes()
    weights = jax.tree.leaves(classifier.read(tmp_path / "c.npz")[1])
    refused = 0
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        (tmp_path / "d.npz").write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            description, read, _ = classifier.read(tmp_path / "d.npz")
        except UsageError:
            refused += 1
            continue
        assert description == SMALL
        assert all(np.array_equal(a, b) for a, b in zip(weights, jax.tree.leaves(read), strict=True))
    assert refused > 30


def test_a_place_in_the_cache_is_a_datasets_own():
    names = ("a", "b")
    places = {
        classifier.place("tfds", "mnist", "", 28, 1, names),
        classifier.place("tfds", "mnist", "", 32, 1, names),
        classifier.place("tfds", "mnist", "", 28, 3, names),
        classifier.place("tfds", "mnist", "", 28, 1, ("a", "c")),
        classifier.place("image_folder", "mnist", "", 28, 1, names),
        classifier.place("image_folder", "", "mine/mnist", 28, 1, names),
        classifier.place("image_folder", "", "yours/mnist", 28, 1, names),
    }
    assert len(places) == 7
    assert classifier.place("tfds", "mnist", "/data", 28, 1, names) in places
    assert "/" not in classifier.place("tfds", "../../etc/x:1.0.0", "", 28, 1, names).name


def test_the_packaged_weights_are_small_and_say_what_they_are_of():
    assert classifier.PACKAGED.stat().st_size < 3 * 2**20
    description, _, _ = classifier.read(classifier.PACKAGED)
    assert description.class_names == CIFAR10
    assert (description.image_size, description.channels) == (32, 3)
    assert description.accuracy >= 0.9 and "cifar10" in description.dataset and "epochs" in description.training


@pytest.mark.slow  # 10,000 images through the network
def test_the_packaged_weights_name_what_they_say_they_name():
    if tfds.find("cifar10", "") is None:
        pytest.skip("cifar10 is not prepared on this machine")
    from cgan_jax.evaluation.classifier_training import predicted

    description, variables, _ = classifier.read(classifier.PACKAGED)
    test = sources.load("tfds", "cifar10", "test", "", 32)
    accuracy = np.mean(predicted(description.network, variables, test.images) == test.labels)
    # Another copy of CIFAR-10 may be decoded or compressed otherwise.
    assert accuracy == pytest.approx(description.accuracy, abs=0.02)
