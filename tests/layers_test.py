"""Shared layers against NumPy loops; dropout against what its masks must be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax import layers, replica
from cgan_jax.errors import UsageError
from tests import by_hand
from tests.replicas import FEW_WAYS, on_replicas


def random_params(layer, x):
    """Parameters of the shapes that the layer makes, with a bias that is not 0."""
    shapes, rng = jax.eval_shape(layer.init, jax.random.key(0), x)["params"], np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) / 4, shapes)


@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 2), (4, 1), (5, 1), (4, 2)])
def test_a_convolution_is_its_definition(kernel_size, stride):
    x = np.random.default_rng(0).normal(size=(2, 8, 6, 3)).astype(np.float32)
    layer = layers.Conv(5, kernel_size, stride)
    params = random_params(layer, x)
    assert params["kernel"].shape == (kernel_size, kernel_size, 3, 5)
    expected = by_hand.conv(x, params["kernel"], params["bias"], stride)
    # float32 sums of up to 75 products.
    np.testing.assert_allclose(jax.jit(layer.apply)({"params": params}, x), expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(("kernel_size", "stride"), [(4, 2), (2, 2), (5, 1)])
def test_a_transposed_convolution_is_its_definition(kernel_size, stride):
    x = np.random.default_rng(0).normal(size=(2, 4, 3, 3)).astype(np.float32)
    layer = layers.ConvTranspose(5, kernel_size, stride)
    params = random_params(layer, x)
    expected = by_hand.conv_transpose(x, params["kernel"], params["bias"], stride)
    assert expected.shape == (2, 4 * stride, 3 * stride, 5)
    np.testing.assert_allclose(jax.jit(layer.apply)({"params": params}, x), expected, rtol=1e-5, atol=2e-6)


def test_layers_start_with_glorot_uniform_kernels_and_no_bias():
    params = jax.jit(layers.Conv(64, 5).init)(jax.random.key(0), jnp.zeros((1, 2, 2, 32)))["params"]
    limit = np.sqrt(6 / (25 * 32 + 25 * 64))  # Glorot & Bengio 2010, eq. 16
    kernel = np.asarray(params["kernel"])
    assert 0.99 * limit < np.abs(kernel).max() <= limit
    assert abs(kernel.std() - limit / np.sqrt(3)) < 0.01 * limit
    np.testing.assert_array_equal(params["bias"], np.zeros(64))


def test_the_leak_is_a_fifth():
    x = np.float32([-10.0, -0.5, 0.0, 0.5, 10.0])
    np.testing.assert_allclose(layers.leaky_relu(x), np.float32([-2.0, -0.1, 0.0, 0.5, 10.0]), rtol=1e-6)


def dropped(rate, x, key=0, train=True):
    return layers.Dropout(rate).apply({}, x, train, rngs={"dropout": jax.random.key(key)})


def test_dropout_zeroes_its_share_and_keeps_the_mean():
    y = np.asarray(dropped(0.3, jnp.ones((100, 1000))))
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.7], rtol=1e-6)
    five_sigmas = 5 * np.sqrt(0.3 * 0.7 / y.size)
    assert abs(np.mean(y == 0) - 0.3) < five_sigmas
    assert abs(np.mean(y) - 1) < five_sigmas / 0.7


def test_dropout_draws_every_sample_and_every_key_anew():
    y = np.asarray(dropped(0.5, jnp.ones((8, 64))))
    assert len({row.tobytes() for row in y}) == 8
    assert np.any(y != np.asarray(dropped(0.5, jnp.ones((8, 64)), key=1)))


def test_dropout_is_off_when_not_training_and_needs_no_key_then():
    x = jnp.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(layers.Dropout(0.9).apply({}, x, False), x)
    np.testing.assert_array_equal(layers.Dropout(0.0).apply({}, x, True), x)


@pytest.mark.parametrize("way", FEW_WAYS[1:], ids=str)
def test_a_sample_drops_the_same_features_however_many_replicas_there_are(way):
    x = np.random.default_rng(0).normal(size=(16, 32)).astype(np.float32)

    def run(x):
        share = 16 // way[1]
        return dropped(0.3, jax.lax.dynamic_slice_in_dim(x, replica.index() * share, share))

    np.testing.assert_array_equal(np.concatenate(on_replicas(way, run, x)), dropped(0.3, jnp.asarray(x)))


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
@pytest.mark.parametrize("train", [True, False])
def test_a_rate_that_is_no_share_is_refused(rate, train):
    with pytest.raises(UsageError, match=f"dropout must be at least 0 and less than 1, given {rate}"):
        dropped(rate, jnp.ones((2, 3)), train=train)


def test_a_label_map_is_an_embedding_and_a_dense_layer_as_one_feature_map():
    layer, labels = layers.LabelMap(10, 4, 3), np.array([7, 7, 2, 0, 9], np.int32)
    params = random_params(layer, labels)
    maps = layer.apply({"params": params}, labels)
    assert maps.shape == (5, 3, 3, 1)
    np.testing.assert_allclose(maps, by_hand.label_map(labels, params, 3), rtol=1e-5, atol=1e-6)


def test_a_label_map_hangs_on_the_label_alone():
    layer, labels = layers.LabelMap(10, 4, 3), np.array([7, 7, 2], np.int32)
    variables = layer.init(jax.random.key(0), labels)
    maps = np.asarray(layer.apply(variables, labels))
    np.testing.assert_array_equal(maps[0], maps[1])
    assert np.abs(maps[0] - maps[2]).min() > 0
    np.testing.assert_allclose(layer.apply(variables, labels[2:])[0], maps[2], rtol=1e-6)
