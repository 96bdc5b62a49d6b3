"""The mesh, replication, and that pmap and shard_map are one function here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax import replica
from cgan_jax.sharding import PARALLELISMS, distribute, make_mesh, replicate


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
        mine = data[replica.sample_indices(8 // replica.count())]
        return state + replica.mean(jnp.sum(mine)), {"largest": replica.mean(jnp.max(mine))}

    after, scalars = distribute(step, mesh, parallelism)(state, data)
    np.testing.assert_allclose(after, 1.0 + 28.0 / devices)
    np.testing.assert_allclose(scalars["largest"], np.arange(8.0).reshape(devices, -1).max(axis=1).mean())
    assert state.is_deleted() and not data.is_deleted()
