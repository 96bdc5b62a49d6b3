"""The data axis from inside and from outside, under both mappings and under none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax import parallel
from cgan_jax.parallel import PARALLELISMS, distribute, make_mesh, replicate
from tests.replicas import FEW_WAYS, WAYS, on_replicas


def test_the_mesh_has_every_device_on_one_axis():
    mesh = make_mesh()
    assert mesh.axis_names == ("data",) and mesh.size == jax.device_count() == 8


def test_a_replicated_tree_is_whole_everywhere_and_shares_no_buffer():
    original = {"a": jnp.arange(3.0), "key": jax.random.key(0)}
    copy = replicate(original, make_mesh())
    assert copy["a"].sharding.is_fully_replicated and len(copy["a"].devices()) == 8
    jax.tree.map(lambda x: x.delete(), copy)
    assert original["a"].tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("parallelism", PARALLELISMS)
@pytest.mark.parametrize("devices", [1, 2, 8])
def test_a_step_sees_its_place_and_its_state_is_donated(parallelism, devices):
    mesh = make_mesh(jax.devices()[:devices])
    state, data = replicate(jnp.float32(1.0), mesh), replicate(jnp.arange(8.0), mesh)

    def step(state, data):
        mine = data[parallel.sample_indices(8 // parallel.count())]
        return state + parallel.mean(jnp.sum(mine)), {"largest": parallel.mean(jnp.max(mine))}

    after, scalars = distribute(step, mesh, parallelism)(state, data)
    np.testing.assert_allclose(after, 1.0 + 28.0 / devices)
    np.testing.assert_allclose(scalars["largest"], np.arange(8.0).reshape(devices, -1).max(axis=1).mean())
    assert state.is_deleted() and not data.is_deleted()


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_the_gradient_of_a_replicated_parameter_is_the_mean_over_replicas(way):
    """And not their sum: with the loss (w . x)^2 / 2 on each replica's own x it is the mean of (w . x) x."""
    n = way[1]
    weights = np.float32([0.5, -2.0])
    inputs = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)

    def gradient(weights, inputs):
        own = inputs[parallel.index()]
        return parallel.mean(jax.grad(lambda w: jnp.square(w @ own) / 2)(parallel.varying(weights)))

    expected = np.mean((inputs.astype(float) @ weights)[:, None] * inputs, axis=0)
    for on_one in on_replicas(way, gradient, weights, inputs):
        np.testing.assert_allclose(on_one, expected, rtol=2e-6)  # a float32 sum of eight products


@pytest.mark.parametrize("way", FEW_WAYS, ids=str)
def test_marking_twice_is_marking_once(way):
    def function(x):
        return parallel.varying(parallel.varying({"x": x}))["x"]

    np.testing.assert_array_equal(on_replicas(way, function, np.float32([3, 4])), [[3, 4]] * way[1])


@pytest.mark.parametrize("way", FEW_WAYS, ids=str)
def test_every_replica_knows_its_number_and_how_many_there_are(way):
    kind, n = way
    numbers = on_replicas(way, lambda: jnp.stack([parallel.index(), jnp.int32(parallel.count())]))
    np.testing.assert_array_equal(numbers, [[i, n] for i in range(n)])
    assert not parallel.is_mapped()
    mapped = on_replicas(way, lambda: jnp.int32(parallel.is_mapped()) + 0 * parallel.index())
    np.testing.assert_array_equal(mapped, [kind != "alone"] * n)


@pytest.mark.parametrize("way", FEW_WAYS, ids=str)
def test_the_mean_of_a_tree_is_the_same_on_every_replica(way):
    n = way[1]
    means = on_replicas(
        way, lambda: parallel.mean({"a": parallel.index() * 1.0, "b": jnp.stack([parallel.index() ** 2 * 1.0] * 3)})
    )
    np.testing.assert_allclose(means["a"], [np.mean(np.arange(n))] * n, rtol=1e-6)
    np.testing.assert_allclose(means["b"], [[np.mean(np.arange(n) ** 2)] * 3] * n, rtol=1e-6)


@pytest.mark.parametrize("way", FEW_WAYS, ids=str)
def test_the_places_of_all_replicas_are_the_global_batch_in_order(way):
    places = on_replicas(way, lambda: parallel.sample_indices(8 // way[1]))
    np.testing.assert_array_equal(np.concatenate(places), np.arange(8))


@pytest.mark.parametrize("way", FEW_WAYS, ids=str)
def test_a_samples_key_is_the_run_key_folded_with_its_place(way):
    key = jax.random.key(3)
    words = on_replicas(way, lambda: jax.random.key_data(parallel.sample_keys(key, 8 // way[1])))
    expected = [jax.random.key_data(jax.random.fold_in(key, place)) for place in range(8)]
    np.testing.assert_array_equal(np.concatenate(words), expected)
