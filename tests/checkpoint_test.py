"""Checkpoints give back every bit, on any number of devices, and say what there is."""

import jax
import numpy as np
import pytest

from cgan_jax import train_state
from cgan_jax.algorithm import ImageSpec, build
from cgan_jax.checkpoint import Checkpoints
from cgan_jax.errors import UsageError
from cgan_jax.sharding import make_mesh, replicate, replicated

SPEC = ImageSpec(image_size=8, channels=1, num_classes=10)


@pytest.fixture
def state(recipe):
    state = train_state.create(build(recipe, SPEC), SPEC, jax.random.key(7))
    # The average differs from the generator, as it does after a while.
    return state.replace(step=state.step + 5, ema_params=jax.tree.map(lambda x: x / 2, state.ema_params))


def bits(tree) -> list[bytes]:
    raw = jax.tree.map(lambda x: jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x, tree)
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(raw)]


def saved(workdir, state, **options) -> Checkpoints:
    checkpoints = Checkpoints(workdir, **options)
    checkpoints.save(state)
    checkpoints.wait()
    return checkpoints


@pytest.mark.parametrize(("before", "after"), [(1, 8), (8, 1), (4, 2)])
def test_a_state_comes_back_bit_for_bit_on_another_number_of_devices(tmp_path, state, before, after):
    saved(tmp_path, replicate(state, make_mesh(jax.devices()[:before]))).close()
    mesh = make_mesh(jax.devices()[:after])
    shapes = jax.eval_shape(lambda: state)
    restored = Checkpoints(tmp_path).restore(5, shapes, replicated(mesh))
    assert bits(restored) == bits(state)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert all(leaf.sharding.num_devices == after for leaf in jax.tree.leaves(restored))


def test_the_averaged_generator_is_an_item_of_its_own(tmp_path, state):
    saved(tmp_path, state).close()
    shapes = jax.eval_shape(lambda: state.average)
    average = Checkpoints(tmp_path).restore_average(5, shapes, replicated(make_mesh(jax.devices()[:1])))
    assert bits(average) == bits(state.average) != bits({"params": state.g_params})


def test_only_the_newest_are_kept(tmp_path, state):
    checkpoints = Checkpoints(tmp_path, max_to_keep=2)
    for step in (1, 2, 3):
        checkpoints.save(state.replace(step=state.step * 0 + step))
        checkpoints.wait()
    assert checkpoints.steps() == [2, 3]


def test_saving_a_step_twice_is_no_error(tmp_path, state):
    checkpoints = saved(tmp_path, state)
    checkpoints.save(state)
    assert checkpoints.steps() == [5]


def test_the_latest_is_chosen_unless_another_is_asked_for(tmp_path, state):
    checkpoints = saved(tmp_path, state)
    checkpoints.save(state.replace(step=state.step + 4))
    checkpoints.wait()
    assert checkpoints.chosen(None) == 9 and checkpoints.chosen(5) == 5
    with pytest.raises(UsageError, match="no checkpoint at step 6; there are: 5, 9"):
        checkpoints.chosen(6)


def test_a_folder_without_checkpoints_is_said_to_be_one(tmp_path):
    with pytest.raises(UsageError, match="holds no checkpoint yet"):
        Checkpoints(tmp_path).chosen(None)
