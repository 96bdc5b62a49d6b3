"""Shared layers against NumPy loops; dropout against the properties of its masks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax import parallel
from cgan_jax.errors import UsageError
from cgan_jax.networks import layers
from tests import by_hand
from tests.lowerings import lower_as_for
from tests.replicas import FEW_WAYS, WAYS, on_replicas


def random_params(layer, *inputs):
    """Random parameters of the layer's shapes, with a bias that is not 0."""
    shapes, rng = jax.eval_shape(layer.init, jax.random.key(0), *inputs)["params"], np.random.default_rng(1)
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


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_a_convolution_of_repeated_pixels_is_its_definition(kernel_size):
    x = np.random.default_rng(0).normal(size=(2, 4, 3, 3)).astype(np.float32)
    layer = layers.UpsampledConv(5, kernel_size)
    params = random_params(layer, x)
    expected = by_hand.conv(by_hand.upsample(x), params["kernel"], params["bias"], 1)
    np.testing.assert_allclose(jax.jit(layer.apply)({"params": params}, x), expected, rtol=1e-5, atol=4e-6)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_the_mean_of_a_convolutions_blocks_is_its_definition(kernel_size):
    x = np.random.default_rng(0).normal(size=(2, 8, 6, 3)).astype(np.float32)
    layer = layers.PooledConv(5, kernel_size)
    params = random_params(layer, x)
    expected = by_hand.halve(by_hand.conv(x, params["kernel"], params["bias"], 1))
    np.testing.assert_allclose(jax.jit(layer.apply)({"params": params}, x), expected, rtol=1e-5, atol=2e-6)


def test_a_layer_computes_in_the_type_of_what_it_is_given_and_keeps_float32_weights():
    x = jnp.ones((2, 4, 4, 3), jnp.bfloat16)
    convolutions = layers.Conv(2, 3), layers.ConvTranspose(2, 3), layers.UpsampledConv(2, 3), layers.PooledConv(2, 3)
    for layer in (*convolutions, layers.Dense(2)):
        y, variables = layer.init_with_output(jax.random.key(0), x)
        assert y.dtype == jnp.bfloat16
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_a_type_that_no_network_computes_in_is_one_line():
    assert layers.activation_dtype("bfloat16") == jnp.bfloat16
    with pytest.raises(UsageError, match=r"^unknown dtype 'float16'; there are: float32, bfloat16 .did you"):
        layers.activation_dtype("float16")


@pytest.mark.parametrize("shape", [(3, 3, 4, 6), (8, 5), (3, 50)], ids=str)
def test_orthogonal_kernels_keep_lengths(shape):
    kernel = np.asarray(jax.jit(layers.orthogonal, static_argnums=1)(jax.random.key(0), shape))
    matrix = kernel.reshape(-1, shape[-1])
    product = matrix @ matrix.T if matrix.shape[0] < matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(product, np.eye(len(product)), atol=1e-5)


def test_a_spectral_layers_linear_map_has_norm_1():
    """After the estimate has converged. The images of unit vectors give the linear map."""
    layer, x = layers.Dense(6, spectral_epsilon=1e-6), np.eye(4, dtype=np.float32)
    variables = layer.init(jax.random.key(0), x)
    turn = jax.jit(lambda variables: layer.apply(variables, x, mutable=["spectral"]))
    for _ in range(60):
        y, moved = turn(variables)
        variables = {**variables, **moved}
    np.testing.assert_allclose(np.linalg.svd(np.asarray(y), compute_uv=False)[0], 1, rtol=1e-5)


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
        return dropped(0.3, jax.lax.dynamic_slice_in_dim(x, parallel.index() * share, share))

    np.testing.assert_array_equal(np.concatenate(on_replicas(way, run, x)), dropped(0.3, jnp.asarray(x)))


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
@pytest.mark.parametrize("train", [True, False])
def test_a_rate_that_is_no_share_is_refused(rate, train):
    with pytest.raises(UsageError, match=f"dropout must be at least 0 and less than 1, given {rate}"):
        dropped(rate, jnp.ones((2, 3)), train=train)


def test_a_label_map_is_an_embedding_and_a_dense_layer_as_one_feature_map():
    layer, labels = layers.LabelMap(10, 4), np.array([7, 7, 2, 0, 9], np.int32)
    x = np.random.default_rng(0).normal(size=(5, 3, 3, 2)).astype(np.float32)
    params = random_params(layer, x, labels)
    y = layer.apply({"params": params}, x, labels)
    assert y.shape == (5, 3, 3, 3)
    np.testing.assert_array_equal(y[..., :2], x)
    np.testing.assert_allclose(y[..., 2:], by_hand.label_map(labels, params, 3), rtol=1e-5, atol=1e-6)


def test_a_label_map_depends_on_the_label_alone():
    layer, x, labels = layers.LabelMap(10, 4), np.zeros((3, 3, 3, 0), np.float32), np.array([7, 7, 2], np.int32)
    variables = layer.init(jax.random.key(0), x, labels)
    maps = np.asarray(layer.apply(variables, x, labels))
    np.testing.assert_array_equal(maps[0], maps[1])
    assert np.abs(maps[0] - maps[2]).min() > 0
    np.testing.assert_allclose(layer.apply(variables, x[2:], labels[2:])[0], maps[2], rtol=1e-6)


def normalized_by_hand(x, scale, bias, mean=None, variance=None, epsilon=1e-5):
    """Ioffe & Szegedy 2015, algorithm 1, in float64: over all axes but the last."""
    x = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
    mean = x.mean(axis=0) if mean is None else mean
    variance = np.mean((x - mean) ** 2, axis=0) if variance is None else variance
    return (x - mean) / np.sqrt(variance + epsilon) * scale + bias


def batch_norm_variables(features=3):
    rng = np.random.default_rng(4)
    scale, bias, mean = rng.normal(size=(3, features)).astype(np.float32)
    variance = rng.uniform(0.5, 2, size=features).astype(np.float32)
    return {"params": {"scale": scale, "bias": bias}, "batch_stats": {"mean": mean, "variance": variance}}


@pytest.mark.parametrize("shape", [(16, 3), (8, 4, 2, 3)], ids=str)
def test_batch_norm_is_its_definition_and_moves_its_running_statistics_when_they_are_mutable(shape):
    x = (np.random.default_rng(0).normal(size=shape) * [1, 5, 0.1] + [0, 3, -1]).astype(np.float32)
    layer, variables = layers.BatchNorm(momentum=0.9, epsilon=1e-3), batch_norm_variables()
    expected = normalized_by_hand(x, **variables["params"], epsilon=1e-3).reshape(shape)
    y, moved = layer.apply(variables, x, True, mutable=["batch_stats"])
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(layer.apply(variables, x, True), expected, rtol=1e-5, atol=2e-6)
    rows, old = x.reshape(-1, 3).astype(np.float64), variables["batch_stats"]
    stats = moved["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.9 * old["mean"] + 0.1 * rows.mean(axis=0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(stats["variance"], 0.9 * old["variance"] + 0.1 * rows.var(axis=0), rtol=1e-5)


def test_batch_norm_uses_its_running_statistics_when_not_training_and_leaves_them_as_they_are():
    x = np.random.default_rng(0).normal(size=(4, 2, 2, 3)).astype(np.float32)
    layer, variables = layers.BatchNorm(), batch_norm_variables()
    stats = variables["batch_stats"]
    expected = normalized_by_hand(x, **variables["params"], **stats).reshape(x.shape)
    y, kept = layer.apply(variables, x, False, mutable=["batch_stats"])
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(kept["batch_stats"]["mean"], stats["mean"])
    np.testing.assert_array_equal(kept["batch_stats"]["variance"], stats["variance"])


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_starts_as_a_standard_normal_whatever_it_is_first_shown(train):
    variables = layers.BatchNorm().init(jax.random.key(0), 7 + jnp.arange(12.0).reshape(4, 3), train)
    expected = {"params": {"scale": [1] * 3, "bias": [0] * 3}, "batch_stats": {"mean": [0] * 3, "variance": [1] * 3}}
    jax.tree.map(
        np.testing.assert_array_equal, variables, jax.tree.map(np.float32, expected, is_leaf=list.__instancecheck__)
    )


@pytest.mark.parametrize("momentum", [-0.1, 1.0, float("nan")])
def test_batch_norm_refuses_a_momentum_that_is_no_share(momentum):
    line = f"the momentum of batch statistics must be at least 0 and less than 1, given {momentum}"
    with pytest.raises(UsageError, match=line):
        layers.BatchNorm(momentum).init(jax.random.key(0), jnp.ones((2, 3)), True)


def test_the_gradients_of_batch_norm_are_the_slopes_of_its_definition():
    """Central differences of the definition in float64, along a random direction each for x, scale and bias."""
    rng = np.random.default_rng(5)
    x, weights = rng.normal(size=(2, 6, 3)).astype(np.float32)
    layer, variables = layers.BatchNorm(), batch_norm_variables()

    def loss(params, x):
        return jnp.sum(weights * layer.apply({**variables, "params": params}, x, True) ** 2)

    def by_hand_loss(scale, bias, x):
        return np.sum(weights.astype(np.float64) * normalized_by_hand(x, scale, bias) ** 2)

    params = {name: np.float64(value) for name, value in variables["params"].items()}
    gradients, in_x = jax.jit(jax.grad(loss, argnums=(0, 1)))(variables["params"], x)
    for name, gradient in {**gradients, "x": in_x}.items():
        at = {**params, "x": x.astype(np.float64)}
        for direction in rng.normal(size=(5, *gradient.shape)):
            ahead, behind = ({**at, name: at[name] + sign * 1e-5 * direction} for sign in (1, -1))
            slope = (by_hand_loss(**ahead) - by_hand_loss(**behind)) / 2e-5
            np.testing.assert_allclose(np.sum(np.float64(gradient) * direction), slope, rtol=1e-4, atol=1e-4)


def test_batch_norm_of_large_numbers_has_their_variance():
    """A mean of squares less a squared mean would have lost it: 1e4 squared has no room for 1 in float32."""
    x = (1e4 + np.random.default_rng(0).normal(size=(64, 3))).astype(np.float32)
    y = layers.BatchNorm().apply(layers.BatchNorm().init(jax.random.key(0), x, True), x, True)
    np.testing.assert_allclose(y, normalized_by_hand(x, 1.0, 0.0), atol=2e-3)  # the inputs are 1e-3 apart


def test_the_statistics_of_batch_norm_are_float32_and_its_result_is_of_its_inputs_type():
    x = (100 + np.random.default_rng(0).normal(size=(64, 3))).astype(jnp.bfloat16)
    layer, variables = layers.BatchNorm(momentum=0.0), batch_norm_variables()
    y, moved = layer.apply(variables, x, True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16 and layer.apply(variables, x, False).dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(moved)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(moved["batch_stats"]["mean"], np.mean(np.float64(x), axis=0), rtol=1e-6)


@pytest.mark.parametrize("mean", [0, 3, 30])
def test_the_variance_of_bfloat16_numbers_rounds_less_than_the_numbers(mean):
    exact = mean + np.random.default_rng(0).normal(size=(4096, 3))
    x = exact.astype(jnp.bfloat16)
    variance = np.var(np.float64(x), axis=0)
    _, (actual,) = parallel.moments(x)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, variance, rtol=1e-6 + 2e-7 * mean**2)
    if mean == 30:  # the numbers are 1/8 apart
        assert np.all(np.abs(actual - variance) < np.abs(variance - np.var(exact, axis=0)))


@pytest.mark.parametrize("constant", [30, 100, 101.5])
def test_the_variance_of_equal_bfloat16_numbers_is_0_or_rounds_above_it(constant):
    x = jnp.full((60, 64), constant, jnp.bfloat16)  # the mean of 60 numbers rounds
    _, variance = parallel.moments(x)
    assert np.all(variance >= 0) and np.all(variance <= 1e-6 * constant**2)
    assert np.all(np.isfinite(layers.BatchNorm().apply(batch_norm_variables(64), x, True)))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 1e-2)])
@pytest.mark.parametrize("way", WAYS[1:], ids=str)
def test_batch_norm_has_the_values_gradients_and_statistics_of_the_global_batch(way, dtype, tolerance):
    rng = np.random.default_rng(6)
    x, weights = rng.normal(size=(2, 16, 2, 2, 3)).astype(np.float32)
    x += np.arange(16, dtype=np.float32)[:, None, None, None]  # replicas differ in their means
    layer, variables = layers.BatchNorm(momentum=0.5), batch_norm_variables()

    def run(params, x, weights):
        share = 16 // parallel.count()
        x, weights = (jax.lax.dynamic_slice_in_dim(a, parallel.index() * share, share) for a in (x, weights))

        def loss(params, x):
            y, moved = layer.apply({**variables, "params": params}, x.astype(dtype), True, mutable=["batch_stats"])
            y = y.astype(jnp.float32)
            return jnp.mean(weights * y**2), (y, moved["batch_stats"])

        (in_params, in_x), (y, stats) = jax.grad(loss, argnums=(0, 1), has_aux=True)(parallel.varying(params), x)
        # An input's gradient is that of the sum of the replicas' losses; their mean is what the step minimises.
        return *parallel.mean((in_params, stats)), in_x / parallel.count(), y

    expected = on_replicas(("alone", 1), run, variables["params"], x, weights)
    actual = on_replicas(way, run, variables["params"], x, weights)
    # Parameters and statistics are equal on all replicas; inputs and outputs are shares of the batch.
    whole = [*jax.tree.map(lambda a: a[:1], actual[:2]), *(a.reshape(1, *x.shape) for a in actual[2:])]
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(expected), strict=True):
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max()
    for leaf in jax.tree.leaves(actual[:2]):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("way", [("alone", 1), ("shard_map", 2), ("shard_map", 8), ("pmap", 8)], ids=str)
def test_batch_norm_in_groups_treats_every_group_as_a_batch(way, dtype, tolerance):
    rng = np.random.default_rng(6)
    x, weights = rng.normal(size=(2, 16, 2, 2, 3)).astype(np.float32)
    x += np.arange(16, dtype=np.float32)[:, None, None, None]
    layer, variables = layers.BatchNorm(momentum=0.5), batch_norm_variables()

    def loss(x, weights):
        y, moved = layer.apply(variables, x.astype(dtype), True, mutable=["batch_stats"])
        y = y.astype(jnp.float32)
        return jnp.sum(weights * y**2), (y, moved["batch_stats"])

    def run(x, weights):
        share = 16 // parallel.count()
        x, weights = (jax.lax.dynamic_slice_in_dim(a, parallel.index() * share, share) for a in (x, weights))
        with parallel.in_groups(4):
            in_x, (y, stats) = jax.grad(loss, has_aux=True)(x, weights)
        return in_x, y, parallel.mean(stats)

    groups = [jax.grad(loss, has_aux=True)(*group) for group in zip(np.split(x, 4), np.split(weights, 4), strict=True)]
    in_x, y, stats = on_replicas(way, run, x, weights)
    assert_close = functools.partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance / 10)
    assert_close(in_x.reshape(x.shape), np.concatenate([gradient for gradient, _ in groups]))
    assert_close(y.reshape(x.shape), np.concatenate([y for _, (y, _) in groups]))
    for name, replicas in stats.items():
        assert_close(replicas, np.broadcast_to(np.mean([s[name] for _, (_, s) in groups], axis=0), replicas.shape))


def conditional_norm(kind, condition):
    """A layer, the condition it takes, and variables that all differ from their initial values."""
    rng = np.random.default_rng(7)
    layer = layers.ClassBatchNorm(num_classes=5, epsilon=1e-4, momentum=0.9)
    if kind == "vector":
        layer = layers.ConditionalBatchNorm(spectral_epsilon=1e-6, epsilon=1e-4, momentum=0.9)
    x = jnp.zeros((len(condition), 2, 2, 3))
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), x, condition, True))
    return layer, jax.tree.map(lambda leaf: rng.uniform(0.2, 1, leaf.shape).astype(np.float32), shapes)


CONDITIONS = {
    "class": np.int32([0, 4, 4, 2] * 4),
    "vector": np.random.default_rng(8).normal(size=(16, 6)).astype(np.float32),
}


@pytest.mark.parametrize("kind", CONDITIONS)
def test_conditional_batch_norm_is_pytorchs_with_a_scale_centred_on_1(kind):
    torch = pytest.importorskip("torch", reason="the extra [reference] brings PyTorch, to compare with")
    from tests import torch_networks

    condition = CONDITIONS[kind]
    layer, variables = conditional_norm(kind, condition)
    x, weights = np.random.default_rng(6).normal(size=(2, 16, 2, 2, 3)).astype(np.float32)
    module = torch.nn.BatchNorm2d(3, eps=1e-4, momentum=0.1, affine=False).double()
    theirs = torch_networks.tensors({"variables": variables, "x": x.transpose(0, 3, 1, 2)})
    params, spectral = theirs["variables"]["params"], theirs["variables"].get("spectral", {})
    if kind == "class":
        chosen = torch.tensor(condition)
        scale, bias = (torch.nn.functional.embedding(chosen, params[n]["embedding"]) for n in ("scale", "bias"))
    else:
        vectors = torch.tensor(condition, dtype=torch.float64)
        scale, bias = (torch_networks.dense(params[n], spectral[n], vectors) for n in ("scale", "bias"))
    module.running_mean.copy_(torch.tensor(variables["batch_stats"]["mean"]))
    expected = module(theirs["x"]) * (1 + scale)[:, :, None, None] + bias[:, :, None, None]
    (expected * torch.tensor(weights.transpose(0, 3, 1, 2))).sum().backward()

    def loss(params, x):
        y, moved = layer.apply({**variables, "params": params}, x, condition, True, mutable=["batch_stats"])
        return jnp.sum(weights * y), (y, moved["batch_stats"])

    (in_params, in_x), (y, stats) = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(variables["params"], x)
    np.testing.assert_allclose(y, expected.detach().numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stats["mean"], module.running_mean, rtol=1e-5)
    np.testing.assert_allclose(in_x, theirs["x"].grad.numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
    wanted = torch_networks.gradients(params)
    for ours, its in zip(jax.tree.leaves(in_params), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(ours, its, rtol=1e-4, atol=1e-5 * np.abs(its).max())


def test_a_class_that_starts_without_scale_and_bias_has_them_of_batch_norm():
    x = np.random.default_rng(0).normal(size=(4, 2, 2, 3)).astype(np.float32)
    layer, labels = layers.ClassBatchNorm(num_classes=2), np.int32([0, 1, 1, 0])
    zeros = jax.tree.map(np.zeros_like, layer.init(jax.random.key(0), x, labels, True))
    np.testing.assert_allclose(
        layer.apply(zeros, x, labels, True), normalized_by_hand(x, 1.0, 0.0).reshape(x.shape), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("way", [("shard_map", 4), ("pmap", 4)], ids=str)
@pytest.mark.parametrize("kind", CONDITIONS)
def test_conditional_batch_norm_has_the_values_gradients_and_statistics_of_the_global_batch(kind, way):
    layer, variables = conditional_norm(kind, CONDITIONS[kind])
    x, weights = np.random.default_rng(6).normal(size=(2, 16, 2, 2, 3)).astype(np.float32)
    x += np.arange(16, dtype=np.float32)[:, None, None, None]  # replicas differ in their means

    def run(variables, x, weights, condition):
        share = 16 // parallel.count()
        x, weights, condition = (
            jax.lax.dynamic_slice_in_dim(a, parallel.index() * share, share) for a in (x, weights, condition)
        )

        def loss(params):
            given = {**variables, "params": params}
            y, moved = layer.apply(given, x, condition, True, mutable=["batch_stats", "spectral"])
            return jnp.mean(weights * y**2), (y, moved)

        gradient, (y, moved) = jax.grad(loss, has_aux=True)(parallel.varying(variables["params"]))
        return *parallel.mean((gradient, moved)), y

    expected = on_replicas(("alone", 1), run, variables, x, weights, CONDITIONS[kind])
    actual = on_replicas(way, run, variables, x, weights, CONDITIONS[kind])
    whole = [*jax.tree.map(lambda a: a[:1], actual[:2]), actual[2].reshape(1, *x.shape)]
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(expected), strict=True):
        assert np.abs(a - b).max() <= 1e-5 * np.abs(b).max()
    for leaf in jax.tree.leaves(actual[:2]):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))


def test_upsampling_shows_every_pixel_four_times():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    y = np.asarray(layers.upsample(x))
    assert y.shape == (2, 6, 8, 5)
    for i in range(6):
        for j in range(8):
            np.testing.assert_array_equal(y[:, i, j], x[:, i // 2, j // 2])


@pytest.mark.parametrize("layer", [layers.UpsampledConv, layers.PooledConv])
def test_other_platforms_compute_the_same_with_the_same_gradient(monkeypatch, layer):
    layer = layer(7, kernel_size=1)
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 5)).astype(np.float32)
    params = random_params(layer, x)
    here, pull = jax.vjp(lambda params, x: layer.apply({"params": params}, x), params, x)
    lower_as_for(monkeypatch, "tpu")
    there, pull_there = jax.vjp(lambda params, x: layer.apply({"params": params}, x), params, x)
    np.testing.assert_allclose(there, here, rtol=1e-5, atol=1e-6)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), pull_there(here), pull(here))


def test_halving_is_the_mean_or_the_largest_of_each_block():
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    np.testing.assert_allclose(layers.halve(x), by_hand.halve(x), rtol=1e-6)
    largest = np.asarray(layers.halve_to_largest(x))
    for i in range(2):
        for j in range(3):
            np.testing.assert_array_equal(largest[:, i, j], x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max(axis=(1, 2)))
