"""The order of the data, its values, and the labels drawn from it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from cgan_jax.data import batches
from tests.replicas import FEW_WAYS, WAYS, on_replicas

KEY = jax.random.key(0)
KEYS = jax.random.split(jax.random.key(1), 4096)


def orders(keys, n):
    """The whole permutation of 0..n-1 of each key, [keys, n]."""
    order = jax.vmap(jax.vmap(batches.shuffled, (None, 0, None)), (0, None, None))
    return np.asarray(jax.jit(order, static_argnums=2)(keys, jnp.arange(n, dtype=jnp.uint32), n))


@functools.cache
def stream(n, batch_size, count):
    """The rows of the first `count` batches of a run, [count, batch_size]."""
    rows = jax.jit(jax.vmap(lambda i: batches.rows(KEY, i, batch_size, n)))
    return np.asarray(rows(jnp.arange(count, dtype=jnp.int32)))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 64, 65, 100, 1000, 1797])
def test_the_shuffle_is_a_bijection_for_every_key(n):
    for order in orders(KEYS[:5], n):
        np.testing.assert_array_equal(np.sort(order), np.arange(n))


def test_different_keys_give_different_orders():
    found = orders(KEYS[:50], 1797)
    assert len({order.tobytes() for order in found}) == 50
    # Two independent orders agree at one position on average.
    agreements = [np.sum(found[i] == found[i + 1]) for i in range(49)]
    assert np.mean(agreements) < 1 + 5 / np.sqrt(49)


@pytest.mark.parametrize("n", [7, 100])
def test_every_image_is_equally_likely_at_every_place(n):
    """Chi-square of where 4,096 keys send a position; Fisher's method combines the p-values of all positions."""
    found = orders(KEYS, n)
    p_values = [scipy.stats.chisquare(np.bincount(found[:, i], minlength=n)).pvalue for i in range(0, n, 7)]
    assert scipy.stats.combine_pvalues(p_values).pvalue > 0.001


def test_neighbours_are_sent_to_unrelated_places():
    """Chi-square of the pair of positions to which two neighbours go, in tenths of the range."""
    found = orders(KEYS, 1000) // 100
    table = np.histogram2d(found[:, 500], found[:, 501], bins=10)[0]
    assert scipy.stats.chi2_contingency(table).pvalue > 0.001


@pytest.mark.parametrize(("n", "batch_size"), [(7, 16), (100, 8), (1797, 128)])
def test_an_image_comes_once_an_epoch_also_where_batches_straddle_epochs(n, batch_size):
    epochs = 3
    rows = stream(n, batch_size, -(-epochs * n // batch_size)).ravel()
    for epoch in range(epochs):
        np.testing.assert_array_equal(np.sort(rows[epoch * n : (epoch + 1) * n]), np.arange(n))


def test_consecutive_epochs_come_in_different_orders():
    first, second, third = stream(100, 100, 3)
    assert np.mean(first == second) < 0.1 and np.mean(second == third) < 0.1 and np.mean(first == third) < 0.1


def test_epochs_stay_whole_where_sample_numbers_pass_two_to_the_31():
    """Batches of 50 from the last epoch of 100 images that begins below 2^31."""
    first = 2**31 // 100 * 2
    rows = jax.jit(jax.vmap(lambda i: batches.rows(KEY, i, 50, 100)))(jnp.arange(first, first + 6, dtype=jnp.int32))
    for epoch in np.asarray(rows).reshape(3, 100):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(100))


@pytest.mark.parametrize("way", WAYS[1:], ids=str)
def test_the_rows_of_a_batch_do_not_depend_on_the_number_of_replicas(way):
    found = on_replicas(way, lambda i: batches.rows(KEY, i, 16, 100), jnp.int32(6))
    np.testing.assert_array_equal(np.concatenate(found), stream(100, 16, 7)[6])


def test_pixels_become_the_numbers_from_minus_1_to_1():
    pixels = np.arange(256, dtype=np.uint8)
    expected = pixels.astype(np.float64) / 127.5 - 1
    np.testing.assert_allclose(batches.normalized(jnp.asarray(pixels)), expected, rtol=1e-6, atol=1e-7)


def test_every_grey_level_survives_the_way_there_and_back():
    pixels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(batches.to_uint8(batches.normalized(jnp.asarray(pixels))), pixels)
    assert batches.to_uint8(jnp.zeros(1)).dtype == jnp.uint8


def test_numbers_become_the_nearest_grey_level_and_do_not_wrap():
    numbers = np.float32([-3.0, -1.0001, -1.0, -1 + 0.9 / 255, -1 + 1.1 / 255, 0.999, 1.0, 1.0001, 50.0])
    np.testing.assert_array_equal(batches.to_uint8(jnp.asarray(numbers)), [0, 0, 0, 0, 1, 255, 255, 255, 255])


def marked(n):
    """Image i is a row of two pixels, i and 255, which shows whether it is mirrored."""
    images = np.full((n, 1, 2, 1), 255, np.uint8)
    images[:, 0, 0, 0] = np.arange(n)
    return batches.Data(jnp.asarray(images), jnp.arange(n, dtype=jnp.int32) * 3)


@functools.cache
def drawn(way, flip, n=100, batch_size=64, count=8):
    """Pixels [batches, batch_size, 2] and labels [batches, batch_size] of the first batches of a run."""

    def run(given):
        draw = jax.vmap(lambda index: batches.draw(given, KEY, index, batch_size, flip)[:2])
        return draw(jnp.arange(count, dtype=jnp.int32))

    images, labels = (np.concatenate(part, axis=1) for part in on_replicas(way, run, marked(n)))
    return np.round(images[:, :, 0, :, 0] * 127.5 + 127.5).astype(int), labels


def test_a_drawn_image_has_its_label_and_without_flips_its_pixels():
    pixels, labels = drawn(("alone", 1), flip=False)
    np.testing.assert_array_equal(pixels[:, :, 0] * 3, labels)
    np.testing.assert_array_equal(pixels[:, :, 1], 255)
    assert all(len(set(batch.tolist())) > 36 for batch in labels), "a batch of 64 spans two epochs of 100 at most"


def test_a_flip_mirrors_about_half_of_the_images_each_by_itself():
    pixels, labels = drawn(("alone", 1), flip=True)
    np.testing.assert_array_equal(pixels.min(axis=2) * 3, labels)
    np.testing.assert_array_equal(pixels.max(axis=2), 255)
    mirrored = pixels[:, :, 0] == 255
    assert scipy.stats.binomtest(int(np.sum(mirrored)), mirrored.size).pvalue > 0.001
    assert len({row.tobytes() for row in mirrored}) == len(mirrored), "every batch has its own flips"


def test_a_flip_changes_no_order():
    np.testing.assert_array_equal(drawn(("alone", 1), flip=True)[1], drawn(("alone", 1), flip=False)[1])


@pytest.mark.parametrize("way", FEW_WAYS[1:], ids=str)
def test_a_drawn_batch_does_not_depend_on_the_number_of_replicas(way):
    for ours, alone in zip(drawn(way, flip=True), drawn(("alone", 1), flip=True), strict=True):
        np.testing.assert_array_equal(ours, alone)


def test_drawn_labels_are_as_frequent_as_in_the_dataset():
    labels = np.repeat(np.int32([4, 0, 9]), [700, 200, 100])
    given = batches.Data(jnp.zeros((1000, 1, 1, 1), jnp.uint8), jnp.asarray(labels))
    drawn_labels = np.asarray(batches.draw_labels(given, KEYS))
    counts = [np.sum(drawn_labels == label) for label in (4, 0, 9)]
    assert sum(counts) == len(KEYS)
    assert scipy.stats.chisquare(counts, np.array([0.7, 0.2, 0.1]) * len(KEYS)).pvalue > 0.001


COUNTS = [400, 100, 25, 3]


@pytest.mark.parametrize(
    ("balance", "shown"),
    # sqrt(400 n): 400, 200, 100, and 34.6
    [("none", COUNTS), ("sqrt", [400, 200, 100, 35]), ("uniform", [400] * 4)],
)
def test_rare_classes_are_drawn_more_often(balance, shown):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(4, dtype=np.int32), COUNTS))
    order = batches.balanced(labels, balance)
    images = np.zeros((len(labels), 1, 1, 1), np.uint8)
    given = jax.tree.map(jnp.asarray, batches.on_host(images, labels, order))
    epoch = sum(shown)
    drawn = jax.jit(lambda index: batches.draw(given, KEY, index, epoch, False).labels)(jnp.int32(2))
    assert np.bincount(drawn).tolist() == shown, "an epoch"
    times = np.bincount(np.arange(len(labels)) if order is None else order, minlength=len(labels))
    for label in range(4):
        of_class = times[labels == label]
        assert of_class.min() >= 1 and np.ptp(of_class) <= 1, "each image, and none twice more often than another"
    generated = np.bincount(batches.draw_labels(given, KEYS), minlength=4)
    assert scipy.stats.chisquare(generated, np.array(shown) / epoch * len(KEYS)).pvalue > 0.001


def test_a_class_without_images_is_not_drawn():
    assert batches.balanced(np.int32([0, 2, 2, 2]), "uniform").tolist() == [0, 0, 0, 1, 2, 3]


def test_a_drawn_label_depends_on_its_samples_key_alone():
    drawn_labels = np.asarray(batches.draw_labels(marked(100), KEYS[:6]))
    assert len(set(drawn_labels.tolist())) > 1
    np.testing.assert_array_equal(batches.draw_labels(marked(100), KEYS[3:5]), drawn_labels[3:5])


def test_a_dataset_on_the_host_is_uint8_images_and_int32_labels():
    images, labels = np.zeros((3, 2, 2, 1), np.uint8), np.array([0, 1, 2], np.int64)
    given = batches.on_host(images, labels)
    assert given.labels.dtype == np.int32 and given.images is images
    np.testing.assert_array_equal(given.labels, labels)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((3, 2, 2, 1), np.float32), np.zeros(3)),
        (np.zeros((3, 2, 2), np.uint8), np.zeros(3)),
        (np.zeros((3, 2, 2, 1), np.uint8), np.zeros(4)),
        (np.zeros((3, 2, 2, 1), np.uint8), np.zeros((3, 10))),
    ],
)
def test_arrays_that_are_no_labelled_images_are_refused(images, labels):
    with pytest.raises(ValueError, match="need uint8"):
        batches.on_host(images, labels)


def test_the_last_batch_is_padded_with_zeros():
    images, labels = np.ones((5, 2, 2, 1), np.uint8), np.arange(1, 6, dtype=np.int32)
    whole = list(batches.whole_batches((images, labels), 3))
    assert [n for _, n in whole] == [3, 2]
    assert [part[0].shape for part, _ in whole] == [(3, 2, 2, 1)] * 2
    assert [part[1].tolist() for part, _ in whole] == [[1, 2, 3], [4, 5, 0]]
    assert whole[1][0][0][2].max() == 0 and whole[1][0][0].dtype == np.uint8
