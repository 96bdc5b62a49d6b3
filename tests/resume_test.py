"""A run that is killed and started again ends where its undisturbed twin ends, bit for bit."""

import json
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from cgan_jax import train_state
from cgan_jax.algorithm import ImageSpec, build
from cgan_jax.checkpoint import Checkpoints
from cgan_jax.sharding import make_mesh, replicated
from tests.command_line import start, write_recipe

SPEC = ImageSpec(image_size=8, channels=1, num_classes=10)


@pytest.fixture
def long_recipe(recipe) -> dict:
    """Eighty steps with a checkpoint every four: enough to be killed in between."""
    recipe["train"] |= {"total_kimg": 1.28, "sample_kimg": 0.64}
    recipe["checkpoint"] = {"every_kimg": 0.064, "max_to_keep": 3}
    return recipe


def final_bits(workdir: Path, recipe: dict) -> dict[str, bytes]:
    """Every array of the last checkpoint."""
    algorithm = build(recipe, SPEC)
    shapes = jax.eval_shape(lambda: train_state.create(algorithm, SPEC, jax.random.key(0)))
    checkpoints = Checkpoints(workdir)
    state = checkpoints.restore(checkpoints.chosen(None), shapes, replicated(make_mesh(jax.devices()[:1])))
    checkpoints.close()
    state = state.replace(key=jax.random.key_data(state.key))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}


def metrics(workdir: Path) -> list[dict]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k.startswith("train/") or k in ("step", "kimg")} for line in lines]


def last_step(workdir: Path) -> int:
    """The newest complete checkpoint's, or 0."""
    return max((int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdigit()), default=0)


def wait_for(process, condition, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def finished(process) -> tuple[int, str, str]:
    out, error = process.communicate(timeout=300)
    return process.returncode, out, error


@pytest.mark.slow  # six processes, each of which starts jax and compiles
@pytest.mark.parametrize("devices", [1, 2])
def test_a_killed_run_ends_bit_identical_to_its_undisturbed_twin(tmp_path, long_recipe, devices):
    config = write_recipe(tmp_path, long_recipe)
    twin, killed = tmp_path / "twin", tmp_path / "killed"
    code, _, error = finished(start("train", f"--config={config}", f"--workdir={twin}", devices=devices))
    assert code == 0, error

    for after_steps in (4, 20):
        process = start("train", f"--config={config}", f"--workdir={killed}", devices=devices)
        wait_for(process, lambda after_steps=after_steps: last_step(killed) >= after_steps)
        process.kill()
        assert finished(process)[0] == -signal.SIGKILL
        assert last_step(killed) < 80, "it finished before it could be killed"
    code, out, error = finished(start("train", f"--config={config}", f"--workdir={killed}", devices=devices))
    assert code == 0 and "resuming at step" in out, error
    assert final_bits(killed, long_recipe) == final_bits(twin, long_recipe)
    assert metrics(killed) == metrics(twin)


@pytest.mark.slow  # three processes, each of which starts jax and compiles
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_stop_saves_and_says_how_to_go_on(tmp_path, long_recipe, number):
    config = write_recipe(tmp_path, long_recipe)
    process = start("train", f"--config={config}", f"--workdir={tmp_path / 'run'}")
    wait_for(process, lambda: (tmp_path / "run" / "metrics.jsonl").exists())
    process.send_signal(number)
    code, _, error = finished(process)
    assert code == 75 and "run the same command again" in error and "Traceback" not in error
    steps = Checkpoints(tmp_path / "run").steps()
    assert f"saved at step {steps[-1]}" in error and steps[-1] < 80
    code, out, _ = finished(start("train", f"--config={config}", f"--workdir={tmp_path / 'run'}"))
    assert code == 0 and f"resuming at step {steps[-1]} of 80" in out
