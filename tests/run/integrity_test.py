"""Damage to a file of a checkpoint never gives wrong numbers, a lost older step, or a traceback."""

import hashlib
import json
import os
import shutil

import jax
import numpy as np
import pytest

from cgan_jax import train, train_state
from cgan_jax.build import ImageSpec, build
from cgan_jax.errors import UsageError
from cgan_jax.parallel import make_mesh, replicated
from cgan_jax.run import integrity
from cgan_jax.run.checkpoint import Checkpoints
from tests.command_line import cgan
from tests.conftest import small_recipe, strip_runs
from tests.run.checkpoint_test import bits

SPEC = ImageSpec(image_size=8, channels=1, num_classes=10)
ONE = replicated(make_mesh(jax.devices()[:1]))


def states():
    """The states of steps 5 and 9; every number differs between them."""
    first = train_state.create(build(small_recipe(), SPEC), SPEC, jax.random.key(7))
    moved = jax.tree.map(lambda x: x + 1, (first.g_params, first.d_params, first.ema_params))
    second = first.replace(g_params=moved[0], d_params=moved[1], ema_params=moved[2])
    return {5: first.replace(step=first.step + 5), 9: second.replace(step=first.step + 9)}


STATES = states()
SHAPES = jax.eval_shape(lambda: STATES[5])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A workdir with two checkpoints."""
    workdir = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(workdir, max_to_keep=2)
    for state in STATES.values():
        checkpoints.save(state)
    checkpoints.close()
    return workdir


def restored(workdir):
    """Returns (the newest state that can be restored, the steps that are left)."""
    checkpoints = Checkpoints(workdir, max_to_keep=2)
    try:
        return checkpoints.restore_newest(SHAPES, ONE), checkpoints.steps()
    finally:
        checkpoints.close()


def test_a_manifest_holds_the_sha256_of_every_file(saved):
    folder = saved / "checkpoints" / "9"
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    manifest = json.loads((saved / "integrity" / "9.json").read_text())
    assert manifest["files"] == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    assert len(files) > 5 and manifest["cost"] is None


@pytest.mark.parametrize("name", ["9/_CHECKPOINT_METADATA", "9/ema/manifest.ocdbt", "5/state/_METADATA"])
@pytest.mark.parametrize("put", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_what_is_no_file_in_a_checkpoint_is_refused_before_orbax_waits_for_it(saved, tmp_path, name, put):
    workdir = shutil.copytree(saved, tmp_path / "run")
    path = workdir / "checkpoints" / name
    path.unlink()
    put(path)
    with pytest.raises(UsageError, match=f"^{path} is not a regular file; move it away$"):
        restored(workdir)


def test_a_manifest_that_outlives_its_checkpoint_says_nothing_of_the_next(saved, tmp_path, monkeypatch):
    workdir = shutil.copytree(saved, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / "9")
    shutil.copy(workdir / "integrity" / "5.json", workdir / "integrity" / "9.json")
    monkeypatch.setattr(Checkpoints, "_seal", lambda self, step: self._manager.wait_until_finished())  # then a kill
    checkpoints = Checkpoints(workdir, max_to_keep=2)
    checkpoints.save(STATES[9])
    checkpoints.close()
    state, steps = restored(workdir)
    assert bits(state) == bits(STATES[9]) and steps == [5, 9]


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
    "one bit flipped": flip_a_bit,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_is_found_and_an_older_step_is_restored(saved, tmp_path, damage, capsys):
    folder = saved / "checkpoints" / "9"
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    for number, name in enumerate(names):
        workdir = shutil.copytree(saved, tmp_path / str(number))
        path = workdir / "checkpoints" / "9" / name
        if damage != "deleted" and not path.stat().st_size:
            continue
        DAMAGES[damage](path)
        left = path.read_bytes() if path.exists() else None
        state, steps = restored(workdir)
        assert bits(state) == bits(STATES[5]) and steps == [5], name
        told = capsys.readouterr().out
        assert f"{workdir}/checkpoints/9 is damaged: {name} is " in told and "set aside" in told, name
        # It is moved, not deleted, with its manifest.
        aside = workdir / "set_aside" / "9" / name
        assert (aside.read_bytes() if aside.exists() else None) == left
        assert (workdir / "set_aside" / "9.json").is_file() and not (workdir / "integrity" / "9.json").exists()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_saves_again_at_a_step_that_was_set_aside(saved, tmp_path, damage):
    workdir = shutil.copytree(saved, tmp_path / "run")
    for _ in range(2):  # The second time, set_aside/ holds the step already.
        DAMAGES[damage](next(path for path in (workdir / "checkpoints" / "9" / "state" / "d").iterdir()))
        checkpoints = Checkpoints(workdir, max_to_keep=2)
        assert int(checkpoints.restore_newest(SHAPES, ONE).step) == 5
        checkpoints.save(STATES[9])
        checkpoints.close()
        state, steps = restored(workdir)
        assert bits(state) == bits(STATES[9]) and steps == [5, 9]
    assert (workdir / "set_aside" / "9.again").is_dir()


def test_a_step_without_a_manifest_is_restored_with_a_warning(saved, tmp_path, capsys):
    workdir = shutil.copytree(saved, tmp_path / "run")
    for text in (None, "", '{"files"', "{}", '{"files": {}, "cost": 1}', "[1]"):
        path = workdir / "integrity" / "9.json"
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
        state, steps = restored(workdir)
        assert bits(state) == bits(STATES[9]) and steps == [5, 9]
        assert "checkpoints/9 has no manifest to compare it with" in capsys.readouterr().out


def test_a_score_that_was_changed_or_lost_is_not_believed(saved, tmp_path, capsys):
    workdir = shutil.copytree(saved, tmp_path / "run")
    checkpoints = Checkpoints(workdir)
    for step, cost in ((5, 0.5), (9, 0.25)):
        checkpoints.rate(step, cost, "fid")
    assert checkpoints.chosen("best") == 9 and "warning" not in capsys.readouterr().out
    path = workdir / "integrity" / "9.json"
    path.write_text(path.read_text().replace("0.25", "0.75"))
    assert checkpoints.chosen("best") == 5
    assert "warning: no manifest says how good step 9 is; taking the best of the others" in capsys.readouterr().out
    checkpoints.close()


@pytest.mark.parametrize("damage", ["truncated", "emptied", "deleted"])
def test_a_step_without_a_manifest_is_skipped_if_orbax_cannot_read_it(saved, tmp_path, damage, capfd):
    workdir = shutil.copytree(saved, tmp_path / "run")
    (workdir / "integrity" / "9.json").unlink()
    for path in (workdir / "checkpoints" / "9" / "ema").rglob("*"):
        if path.is_file():
            DAMAGES[damage](path)
    state, steps = restored(workdir)
    assert bits(state) == bits(STATES[5]) and steps == [5]
    out, error = capfd.readouterr()
    assert "checkpoints/9 cannot be read, and it has no manifest" in out and "Traceback" not in out + error


def test_empty_and_partial_folders_are_skipped(saved, tmp_path):
    workdir = shutil.copytree(saved, tmp_path / "run")
    (workdir / "checkpoints" / "16").mkdir()
    shutil.rmtree(workdir / "checkpoints" / "9" / "ema")
    state, steps = restored(workdir)
    assert bits(state) == bits(STATES[5]) and steps == [5]
    assert sorted(path.name for path in (workdir / "set_aside").iterdir()) == ["16", "9", "9.json"]


def test_if_all_steps_are_damaged_no_run_starts_and_nothing_moves(saved, tmp_path):
    workdir = shutil.copytree(saved, tmp_path / "run")
    for step in (5, 9):
        flip_a_bit(workdir / "checkpoints" / str(step) / "_CHECKPOINT_METADATA")
    with pytest.raises(UsageError, match=r"no checkpoint can be restored: .*/9 is damaged.*/5 is damaged.*start again"):
        restored(workdir)
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["5", "9"]
    assert not (workdir / "set_aside").exists()


def test_a_whole_checkpoint_of_other_networks_is_not_called_damaged(saved, tmp_path, capfd):
    """A checkpoint of another version is neither moved nor skipped."""
    workdir = shutil.copytree(saved, tmp_path / "run")
    recipe = small_recipe()
    recipe["generator"]["width"] = 5
    shapes = jax.eval_shape(lambda: train_state.create(build(recipe, SPEC), SPEC, jax.random.key(0)))
    checkpoints = Checkpoints(workdir, max_to_keep=2)
    with pytest.raises(UsageError, match="checkpoints/9 is whole, but this version cannot read it"):
        checkpoints.restore_newest(shapes, ONE)
    assert checkpoints.steps() == [5, 9]
    checkpoints.close()
    assert "Traceback" not in capfd.readouterr().err


def test_an_older_step_is_deleted_only_after_the_manifest_of_the_newer_is_written(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, max_to_keep=2)
    for step in (1, 2):
        checkpoints.save(STATES[5].replace(step=np.int32(step)))
    checkpoints.wait()
    with monkeypatch.context() as patch:
        patch.setattr(integrity, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        checkpoints.save(STATES[5].replace(step=np.int32(3)))
        with pytest.raises(UsageError, match=r"step 3 could not be written .*No space left .*unchanged: 1, 2$"):
            checkpoints.wait()
    assert checkpoints.steps() == [1, 2, 3]
    checkpoints.save(STATES[5].replace(step=np.int32(4)))
    checkpoints.close()
    # Step 3 has no manifest, so it is not one of the two that are kept.
    assert Checkpoints(tmp_path, read_only=True).steps() == [2, 3, 4]


def test_manifests_are_deleted_with_their_steps(tmp_path):
    checkpoints = Checkpoints(tmp_path, max_to_keep=2)
    for step in (1, 2, 3, 4):
        checkpoints.save(STATES[5].replace(step=np.int32(step)))
    (tmp_path / "integrity" / ".9.json.partial").write_text("{")
    checkpoints.close()
    assert sorted(path.name for path in (tmp_path / "integrity").iterdir()) == ["3.json", "4.json"]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["3", "4"]


def test_a_deletion_that_a_kill_cut_short_is_finished(saved, tmp_path):
    workdir = shutil.copytree(saved, tmp_path / "run")
    shutil.copytree(workdir / "checkpoints" / "5", workdir / "checkpoints" / "3.discarded")
    assert restored(workdir)[1] == [5, 9]
    assert not (workdir / "checkpoints" / "3.discarded").exists()


def test_the_best_checkpoint_is_kept_and_known_after_a_restart(tmp_path):
    costs = {1: 3.0, 2: 1.0, 3: 2.0, 4: 2.5, 5: 4.0}
    for step, cost in costs.items():
        checkpoints = Checkpoints(tmp_path, max_to_keep=2)
        checkpoints.save(STATES[5].replace(step=np.int32(step)))
        checkpoints.rate(step, cost, "cfd1k_train")
        assert checkpoints.best() == min(range(1, step + 1), key=costs.get)
        checkpoints.close()
    assert Checkpoints(tmp_path, read_only=True).steps() == [2, 4, 5]


def test_costs_of_two_metrics_are_not_compared(tmp_path):
    checkpoints = Checkpoints(tmp_path, max_to_keep=2)
    costs = {
        1: (-7.0, "inception_score1k"),
        2: (40.0, "cfd1k_train"),
        3: (12.0, "cfd1k_train"),
        4: (30.0, "cfd1k_train"),
    }
    best = []
    for step, (cost, cost_of) in {**costs, 5: (35.0, "cfd1k_train")}.items():
        checkpoints.save(STATES[5].replace(step=np.int32(step)))
        checkpoints.rate(step, cost, cost_of)
        best.append(checkpoints.best())
    checkpoints.close()
    assert best == [1, 2, 3, 3, 3]
    assert Checkpoints(tmp_path, read_only=True).steps() == [3, 4, 5]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two checkpoints, 4 and 8."""
    workdir = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        strip_runs(patch)
        train.train_and_evaluate(small_recipe(), workdir)
    return workdir


def test_images_are_drawn_from_the_newest_whole_checkpoint(run, tmp_path, capsys):
    workdir, out = shutil.copytree(run, tmp_path / "run"), tmp_path / "out.png"
    flip_a_bit(next((workdir / "checkpoints" / "8" / "ema" / "d").iterdir()))
    sample = ("sample", f"--workdir={workdir}", f"--out={out}", "--num_images=10", "--nocache")
    evaluate = ("evaluate", f"--workdir={workdir}", "--metrics=pixel_mse", "--num_images=10")
    for command in (sample, evaluate):
        assert cgan(*command, "--step=8") == 2
        told = capsys.readouterr()
        assert told.err.startswith(f"cgan: error: {workdir}/checkpoints/8 is damaged: ema/d/")
        assert told.err.count("\n") == 1 and not out.exists()
    assert cgan(*sample) == 0
    told = capsys.readouterr()
    assert f"warning: {workdir}/checkpoints/8 is damaged" in told.out and "images of step 4 to" in told.out
    flip_a_bit(workdir / "checkpoints" / "4" / "state" / "_METADATA")
    for command in ((*sample, "--force"), evaluate):
        assert cgan(*command) == 2
        assert f"every checkpoint in {workdir}/checkpoints is damaged: 4, 8" in capsys.readouterr().err


def test_training_goes_on_from_the_newest_whole_checkpoint_to_the_same_bits(bare, run, tmp_path, capsys):
    workdir = shutil.copytree(run, tmp_path / "run")
    flip_a_bit(next((workdir / "checkpoints" / "8" / "state" / "d").iterdir()))
    train.train_and_evaluate(small_recipe(), workdir)
    out = capsys.readouterr().out
    assert "checkpoints/8 is damaged" in out and "resuming at step 4 of 8" in out
    shapes = jax.eval_shape(lambda: train_state.create(build(small_recipe(), SPEC), SPEC, jax.random.key(0)))
    again, twin = (Checkpoints(folder, read_only=True) for folder in (workdir, run))
    assert bits(again.restore(8, shapes, ONE)) == bits(twin.restore(8, shapes, ONE))
