"""Spectral norm against PyTorch's module and a singular value decomposition, and when its vector changes."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax import parallel, train_state, train_step
from cgan_jax.build import build
from cgan_jax.networks import heads, layers
from cgan_jax.networks.spectral_norm import SpectralNorm
from tests.replicas import on_replicas
from tests.train_step_test import SPEC, assert_close, keep_gradients, make_data, run

KERNEL = np.random.default_rng(0).normal(size=(3, 3, 5, 7)).astype(np.float32)
LAYER = SpectralNorm(1e-12)


def first(kernel=KERNEL, key=0):
    return jax.jit(LAYER.init)(jax.random.key(key), kernel)


def unit(vector):
    return vector / np.linalg.norm(vector)


@jax.jit
def turn(variables, kernel=KERNEL):
    """One evaluation in which the vector may change."""
    return LAYER.apply(variables, kernel, mutable=["spectral"])


def test_four_turns_and_the_gradient_are_those_of_pytorchs_module():
    torch = pytest.importorskip("torch", reason="the extra [reference] brings PyTorch, to compare with")
    module = torch.nn.utils.spectral_norm(torch.nn.Conv2d(5, 7, 3, bias=False), eps=1e-12)
    weights = np.random.default_rng(1).normal(size=KERNEL.shape).astype(np.float32)
    variables = first()
    with torch.no_grad():
        module.weight_orig.copy_(torch.from_numpy(KERNEL.transpose(3, 2, 0, 1).copy()))
        module.weight_u.copy_(torch.from_numpy(np.array(variables["spectral"]["u"])))
    gradient = jax.jit(jax.grad(lambda k, v: jnp.sum(weights * LAYER.apply(v, k, mutable=["spectral"])[0])))
    for _ in range(4):
        ours = gradient(KERNEL, variables)
        normalized, variables = turn(variables)
        module.weight_orig.grad = None
        module(torch.zeros(1, 5, 4, 4))
        theirs = module.weight
        torch.sum(theirs * torch.from_numpy(weights.transpose(3, 2, 0, 1).copy())).backward()
        np.testing.assert_allclose(normalized, theirs.detach().numpy().transpose(2, 3, 1, 0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(variables["spectral"]["u"], module.weight_u.numpy(), rtol=1e-4, atol=1e-6)
        expected = module.weight_orig.grad.numpy().transpose(2, 3, 1, 0)
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_after_some_turns_the_largest_singular_value_is_1():
    variables = first()
    for _ in range(100):
        normalized, variables = turn(variables)
    singular = np.linalg.svd(KERNEL.reshape(-1, 7).astype(np.float64), compute_uv=False)
    np.testing.assert_allclose(normalized, KERNEL / singular[0], rtol=1e-5)
    np.testing.assert_allclose(LAYER.apply(variables, KERNEL), normalized, rtol=1e-5)


def test_where_it_may_not_move_the_vector_stays_and_sigma_is_the_length_of_its_image():
    variables = first()
    matrix, u = KERNEL.reshape(-1, 7).astype(np.float64), np.float64(variables["spectral"]["u"])
    normalized = jax.jit(LAYER.apply)(variables, KERNEL)
    np.testing.assert_allclose(normalized, KERNEL / np.linalg.norm(matrix @ u), rtol=1e-5)
    _, moved = turn(variables)
    np.testing.assert_allclose(moved["spectral"]["u"], unit(matrix.T @ matrix @ u), rtol=1e-4, atol=1e-6)


def test_a_vector_that_an_average_has_shortened_does_as_well():
    variables = first()
    shorter = jax.tree.map(lambda u: 0.9 * u, variables)
    np.testing.assert_allclose(LAYER.apply(shorter, KERNEL), LAYER.apply(variables, KERNEL), rtol=1e-6)


def test_a_wide_matrix_is_not_taken_for_a_small_one_at_first():
    """All singular values of orthonormal rows are 1, though most vectors go almost to 0."""
    kernel = jax.jit(layers.orthogonal, static_argnums=1)(jax.random.key(1), (4, 4096))
    np.testing.assert_allclose(LAYER.apply(first(kernel), kernel), kernel, rtol=1e-4)


def test_a_kernel_of_nothing_but_0_stays_one():
    zeros = np.zeros((4, 3), np.float32)
    normalized, _ = LAYER.apply(first(zeros), zeros, mutable=["spectral"])
    np.testing.assert_array_equal(normalized, zeros)


@pytest.mark.parametrize("way", [("shard_map", 1), ("shard_map", 4), ("pmap", 4)], ids=str)
def test_every_replica_has_the_vector_gradient_and_weights_of_one(way):
    variables = first()
    inputs = np.random.default_rng(2).normal(size=(8, 45)).astype(np.float32)

    def run(variables, kernel, inputs):
        share = 8 // parallel.count()
        x = jax.lax.dynamic_slice_in_dim(inputs, parallel.index() * share, share)

        def loss(kernel):
            normalized, moved = LAYER.apply(variables, kernel, mutable=["spectral"])
            return jnp.mean(jnp.square(x @ normalized.reshape(45, 7))), (moved, normalized)

        gradient, (moved, normalized) = jax.grad(loss, has_aux=True)(parallel.varying(kernel))
        return parallel.mean((gradient, normalized)), parallel.varying(moved)

    (expected, vector), ((gradient, normalized), moved) = (
        on_replicas(each, run, variables, KERNEL, inputs) for each in (("alone", 1), way)
    )
    for leaf in jax.tree.leaves((gradient, normalized, moved)):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
    np.testing.assert_allclose(gradient[0], expected[0][0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(moved["spectral"]["u"][0], vector["spectral"]["u"][0], rtol=1e-6)


def test_the_vector_is_float32_and_so_is_what_a_layer_of_bfloat16_divides():
    layer = layers.Conv(4, 3, spectral_epsilon=1e-6)
    x = jnp.ones((2, 4, 4, 3), jnp.bfloat16)
    variables = layer.init(jax.random.key(0), x)
    y, moved = layer.apply(variables, x, mutable=["spectral"])
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, moved))} == {jnp.dtype("float32")}


class Discriminator(nn.Module):
    """The smallest one whose kernels have spectral norm 1."""

    couples_samples = False

    @nn.compact
    def __call__(self, images, labels, train):
        x = nn.relu(layers.Conv(3, 3, 2, spectral_epsilon=1e-6)(images))
        return heads.Projection(10, spectral_epsilon=1e-6)(x.reshape(x.shape[0], -1), labels)


@pytest.fixture
def algorithm(recipe):
    recipe["train"]["d_steps_per_g_step"] = 2
    return build(recipe, SPEC)._replace(discriminator=Discriminator())


def test_the_vectors_move_in_the_discriminators_step_alone_once_each(algorithm):
    state = train_state.create(algorithm, SPEC, jax.random.key(0))
    after_g, _ = jax.jit(functools.partial(train_step.generator_step, algorithm))(state, make_data())
    jax.tree.map(np.testing.assert_array_equal, after_g.d_stats, state.d_stats)
    after_d, _ = jax.jit(functools.partial(train_step.discriminator_step, algorithm))(state, make_data(), jnp.int32(0))
    matrix = np.float64(state.d_params["Conv_0"]["kernel"]).reshape(-1, 3)
    u = state.d_stats["spectral"]["Conv_0"]["SpectralNorm_0"]["u"]
    moved = after_d.d_stats["spectral"]["Conv_0"]["SpectralNorm_0"]["u"]
    np.testing.assert_allclose(moved, unit(matrix.T @ matrix @ u), rtol=1e-5)
    assert len(jax.tree.leaves(after_d.d_stats)) == 3


def test_eight_devices_see_the_gradients_and_vectors_of_one(algorithm):
    bound = algorithm._replace(g_optimizer=keep_gradients(), d_optimizer=keep_gradients())
    (expected, _), (actual, _) = run(bound, 1), run(bound, 8)
    for one, eight in ((expected.d_opt_state, actual.d_opt_state), (expected.d_stats, actual.d_stats)):
        assert_close(eight, one, 1e-5)
