"""Checkpoints restore every bit, on any number of devices, and list their steps."""

import shutil
import subprocess

import jax
import numpy as np
import pytest

from cgan_jax import train_state
from cgan_jax.build import ImageSpec, build
from cgan_jax.errors import UsageError
from cgan_jax.parallel import make_mesh, replicate, replicated
from cgan_jax.run.checkpoint import Checkpoints
from tests.command_line import cgan, write_recipe

SPEC = ImageSpec(image_size=8, channels=1, num_classes=10)


@pytest.fixture
def state(recipe):
    state = train_state.create(build(recipe, SPEC), SPEC, jax.random.key(7))
    # The average differs from the generator, as it does after some updates.
    return state.replace(step=state.step + 5, ema_params=jax.tree.map(lambda x: x / 2, state.ema_params))


def bits(tree) -> list[bytes]:
    raw = jax.tree.map(
        lambda x: jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x, tree
    )
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


def test_the_averaged_generator_is_a_separate_item(tmp_path, state):
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


def test_the_checkpoint_that_a_guard_would_go_back_to_is_kept_too(tmp_path, state):
    checkpoints = Checkpoints(tmp_path, max_to_keep=2)
    for step, good_until in ((1, None), (2, 2), (3, 2), (4, 3), (5, 3), (6, 3), (7, 6)):
        checkpoints.good_until = good_until
        checkpoints.save(state.replace(step=state.step * 0 + step))
        checkpoints.wait()
        if step == 6:
            assert checkpoints.steps() == [3, 5, 6]
    assert checkpoints.steps() == [6, 7]


def test_saving_a_step_twice_is_no_error(tmp_path, state):
    checkpoints = saved(tmp_path, state)
    checkpoints.save(state)
    assert checkpoints.steps() == [5]


def test_the_latest_is_chosen_unless_a_step_is_given(tmp_path, state):
    checkpoints = saved(tmp_path, state)
    checkpoints.save(state.replace(step=state.step + 4))
    checkpoints.wait()
    assert checkpoints.chosen(None) == 9 and checkpoints.chosen(5) == 5
    with pytest.raises(UsageError, match="no checkpoint at step 6; there are: 5, 9"):
        checkpoints.chosen(6)


def test_a_folder_without_checkpoints_is_reported(tmp_path):
    with pytest.raises(UsageError, match="holds no checkpoint yet"):
        Checkpoints(tmp_path).chosen(None)


def test_a_checkpoint_that_cannot_be_written_is_one_line_and_the_older_ones_are_unchanged(
    tmp_path, state, small_files, capfd
):
    checkpoints = saved(tmp_path, state)
    with small_files(), pytest.raises(UsageError, match=r"step 6 could not be written to .*; older checkpoints .*: 5$"):
        checkpoints.save(state.replace(step=state.step + 1))
        checkpoints.wait()
    checkpoints.close()
    assert "Traceback" not in capfd.readouterr().err
    again = Checkpoints(tmp_path, max_to_keep=2)
    shapes = jax.eval_shape(lambda: state)
    assert bits(again.restore_newest(shapes, replicated(make_mesh(jax.devices()[:1])))) == bits(state)
    again.save(state.replace(step=state.step + 1))
    again.close()
    assert Checkpoints(tmp_path, read_only=True).steps() == [5, 6]


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 1 MiB. Skips the test if this machine does not let it be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def told(capfd) -> list[str]:
    """The lines of standard error, but for those that say how long something takes on a slow machine."""
    return [line for line in capfd.readouterr().err.splitlines() if not line.endswith(" so far")]


@pytest.mark.slow  # a run, and a file system
def test_a_run_on_a_full_disk_ends_with_a_line_and_resumes_when_there_is_room(bare, tiny_disk, recipe, capfd):
    recipe["train"]["total_kimg"] = 0.192
    run, config = tiny_disk / "run", write_recipe(tiny_disk, recipe)
    command = ("train", f"--config={config}", f"--workdir={run}", "--nocache")
    assert cgan(*command, "--config.train.total_kimg=0.064") == 0
    filler = tiny_disk / "filler"
    left = shutil.disk_usage(tiny_disk).free
    filler.write_bytes(bytes(max(0, left - 40_000)))
    assert cgan(*command) == 2
    (error,) = told(capfd)
    assert error.startswith("cgan: error: "), error
    filler.unlink()
    assert Checkpoints(run, read_only=True).steps() == [4]
    assert cgan(*command) == 0
    assert "resuming at step 4 of 12" in capfd.readouterr().out


@pytest.mark.slow  # a run, and a file system
def test_a_folder_that_becomes_read_only_ends_a_command_with_one_line(bare, tiny_disk, recipe, capfd):
    config = write_recipe(tiny_disk, recipe)
    command = ("train", f"--config={config}", f"--workdir={tiny_disk / 'run'}", "--nocache")
    assert cgan(*command) == 0
    subprocess.run(["mount", "-o", "remount,ro", tiny_disk], check=True)
    assert cgan(*command, "--config.train.total_kimg=1.0") == 2
    assert told(capfd) == [f"cgan: error: --workdir={tiny_disk / 'run'} cannot be written: Read-only file system"]
    assert cgan("sample", f"--workdir={tiny_disk / 'run'}", f"--out={tiny_disk.parent / 'a.png'}", "--nocache") == 0
