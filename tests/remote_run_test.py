"""A run in a bucket is the run in a folder: the same numbers, the same images, resumed as exactly."""

import numpy as np
import pytest

from cgan_jax.files import locks, storage
from cgan_jax.run import journal
from cgan_jax.run import workdir as workdirs
from cgan_jax.run.checkpoint import Checkpoints
from cgan_jax.serving import models, studio
from tests.command_line import cgan, write_recipe
from tests.resume_test import final_bits
from tests.run.checkpoint_test import bits
from tests.run.integrity_test import ONE, SHAPES, STATES


@pytest.fixture(autouse=True)
def _quick(bare, monkeypatch):
    monkeypatch.setattr(locks, "SETTLED", 0.0)


def trained(config, workdir) -> int:
    return cgan("train", f"--config={config}", f"--workdir={workdir}", "--nocache")


def numbers(workdir) -> list[dict]:
    lines = workdirs.read_metrics(workdir)
    return [{k: v for k, v in line.items() if k.startswith("train/") or k in ("step", "kimg")} for line in lines]


@pytest.mark.slow  # three runs, each of which compiles
def test_a_killed_run_in_a_bucket_goes_on_to_the_bits_of_its_twin_in_a_folder(
    remote, recipe, tmp_path, monkeypatch, capsys
):
    config, twin = write_recipe(tmp_path, recipe), tmp_path / "twin"
    assert trained(config, twin) == 0
    log = journal.Journal.log

    def killed(told, step, *rest):
        log(told, step, *rest)
        if step == 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "log", killed)
        assert trained(config, remote) == 130
    assert [line["step"] for line in workdirs.read_metrics(remote)] == [2, 4, 6]
    assert trained(config, remote) == 0
    assert "resuming at step 4 of 8" in capsys.readouterr().out
    assert numbers(remote) == numbers(twin) and [line["step"] for line in numbers(remote)] == [2, 4, 6, 8]
    assert final_bits(remote, recipe) == final_bits(twin, recipe)
    assert not workdirs.is_locked(remote)
    written = {name.split("/")[0] for name in storage.files_below(remote)}
    assert written >= {"config.json", "metrics.jsonl", "environments.jsonl", "checkpoints", "integrity"}
    assert any(name.startswith("events.out.tfevents") for name in written)
    pictures = [tmp_path / "remote.npz", tmp_path / "twin.npz"]
    for workdir, out in zip((remote, twin), pictures, strict=True):
        assert cgan("sample", f"--workdir={workdir}", "--num_images=20", f"--out={out}", "--nocache") == 0
    np.testing.assert_array_equal(*(np.load(out)["images"] for out in pictures))
    served = [studio.Studio(models.Served(workdir), {}) for workdir in (remote, twin)]
    np.testing.assert_array_equal(*(one.draw(one.request({"count": 20})).images for one in served))
    assert cgan("report", f"--workdir={remote}") == 0
    for command, out in (("export", "model.cgan"), ("synthesize", "synthetic")):
        options = ["--num_images=20", "--nocache"] if command == "synthesize" else []
        assert cgan(command, f"--workdir={remote}", f"--out={tmp_path / out}", *options) == 0
        assert (tmp_path / out).exists()
    assert '"name": "digits", "status": "finished"' in (remote / "report.html").read_text()


def test_checkpoints_in_a_bucket_are_kept_discarded_and_set_aside_as_in_a_folder(remote, capsys):
    checkpoints = Checkpoints(remote, max_to_keep=2)
    states = {**STATES, 12: STATES[9].replace(step=STATES[9].step + 3)}
    for state in states.values():
        checkpoints.save(state)
    checkpoints.close()
    assert Checkpoints(remote, read_only=True).steps() == [9, 12]
    assert not (remote / "checkpoints" / "5").exists() and not (remote / "integrity" / "5.json").exists()
    data = [name for name in storage.files_below(remote / "checkpoints" / "12") if "/d/" in name]
    content = bytearray((remote / "checkpoints" / "12" / data[0]).read_bytes())
    content[len(content) // 2] ^= 1
    (remote / "checkpoints" / "12" / data[0]).write_bytes(bytes(content))
    again = Checkpoints(remote, max_to_keep=2)
    assert bits(again.restore_newest(SHAPES, ONE)) == bits(states[9])
    assert "is not what was saved; it is set aside in gs://bucket/runs/digits/set_aside" in capsys.readouterr().out
    assert {name.split("/")[0] for name in storage.files_below(remote / "set_aside")} == {"12", "12.json"}
    again.save(states[12])
    again.close()
    assert Checkpoints(remote, read_only=True).steps() == [9, 12]


def test_a_checkpoint_in_a_bucket_without_its_commit_is_none_and_can_be_saved_again(remote):
    checkpoints = Checkpoints(remote, max_to_keep=2)
    for state in STATES.values():
        checkpoints.save(state)
    checkpoints.close()
    (remote / "checkpoints" / "9" / "commit_success.txt").unlink()
    assert Checkpoints(remote, read_only=True).steps() == [5]
    again = Checkpoints(remote, max_to_keep=2)
    assert bits(again.restore_newest(SHAPES, ONE)) == bits(STATES[5])
    again.save(STATES[9])
    again.close()
    again = Checkpoints(remote, max_to_keep=2)
    assert bits(again.restore_newest(SHAPES, ONE)) == bits(STATES[9]) and again.steps() == [5, 9]
    again.close()


def test_a_second_run_in_the_same_place_is_refused(remote, recipe, tmp_path, capsys):
    config = write_recipe(tmp_path, recipe)
    with workdirs.locked(remote):
        assert trained(config, remote) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"cgan: error: {remote} is in use by process ") and error.count("\n") == 1
    assert not storage.files_below(remote)


def test_a_profile_and_a_sweep_need_a_folder(remote, recipe, tmp_path, capsys):
    config = f"--config={write_recipe(tmp_path, recipe)}"
    assert cgan("train", config, f"--workdir={remote}", "--profile") == 2
    assert "--profile writes into a folder of this machine, given --workdir=gs://" in capsys.readouterr().err
    assert cgan("sweep", config, f"--workdir={remote}", "--vary=seed=1,2") == 2
    assert "a sweep needs a folder" in capsys.readouterr().err
