"""A run that is killed and started again ends where its undisturbed twin ends, bit for bit."""

import functools
import json
import os
import pickle
import signal
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import kills
from cgan_jax import train, train_state
from cgan_jax.build import ImageSpec, build
from cgan_jax.data import batches
from cgan_jax.errors import Interrupted
from cgan_jax.parallel import distribute, make_mesh, replicate, replicated
from cgan_jax.run import integrity
from cgan_jax.run.checkpoint import Checkpoints
from cgan_jax.run.workdir import EVALUATIONS, read_metrics
from cgan_jax.sampling.sampling import make_sampler
from cgan_jax.train_step import train_steps
from tests.command_line import start, write_recipe
from tests.conftest import small_recipe, strip_runs

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


@pytest.mark.slow  # nine processes, each of which starts jax
def test_kills_at_chosen_and_random_moments_leave_no_trace(tmp_path):
    """`python -m benchmarks.kills` is the same with more of them."""
    done, _ = kills.suffer(kills.Ordeal(tmp_path, kimg=6.4, seed=1), len(kills.AIMS))
    assert len(done) == len(kills.AIMS)


def test_an_evaluation_that_is_cut_short_is_made_up_for(bare, recipe, tmp_path, monkeypatch):
    recipe["evaluate"] |= {"metrics": "pixel_mse", "keep_best": "pixel_mse", "every_kimg": 0.064}
    real, run, whole = train.Evaluator.__call__, tmp_path / "run", []

    def evaluate(*arguments):
        if not whole.pop(0):
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("the evaluation went on")
        return real(*arguments)

    monkeypatch.setattr(train.Evaluator, "__call__", evaluate)
    for stopped_at, plan in ((4, [False]), (8, [True, False])):
        whole[:] = plan
        with pytest.raises(Interrupted, match=f"stopped in an evaluation, saved at step {stopped_at}; run the same"):
            train.train_and_evaluate(recipe, run)
        assert [line["step"] for line in read_metrics(run, EVALUATIONS)] == [4][: len(plan) - 1]
        assert Checkpoints(run, read_only=True).steps()[-1] == stopped_at
    whole[:] = [True]
    train.train_and_evaluate(recipe, run)
    assert [line["step"] for line in read_metrics(run, EVALUATIONS)] == [4, 8]
    assert all(integrity.read(run, step).cost is not None for step in (4, 8))


@pytest.mark.slow  # real processes, which compile
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_does_not_wait_for_compilation_or_evaluation(tmp_path, recipe, number):
    recipe["train"]["total_kimg"] = 64.0
    recipe["evaluate"] |= {"metrics": "ms_ssim", "every_kimg": 0.064, "num_images": 20_000}
    arguments = ("train", f"--config={write_recipe(tmp_path, recipe)}", f"--workdir={tmp_path / 'run'}", "--nocache")
    moments = {
        "stopped before": lambda: (tmp_path / "run" / "config.json").exists(),
        "stopped in an evaluation, saved at step 4": lambda: (tmp_path / "run" / "integrity" / "4.json").exists(),
    }
    for told, moment in moments.items():
        process = start(*arguments)
        wait_for(process, moment, seconds=900)
        process.send_signal(number)
        began = time.monotonic()
        code, _, error = finished(process)
        assert code == 75 and told in error and "run the same command again" in error, error
        assert "Traceback" not in error and time.monotonic() - began < 30
    assert read_metrics(tmp_path / "run", EVALUATIONS) == []


def trained_on(devices: int, parallelism: str, workdir: Path, recipe: dict) -> tuple[list[dict], np.ndarray, int]:
    """(scalars of ten steps from the checkpoint of a run, images of its averaged generator, the step it began at)."""
    algorithm, mesh = build(recipe, SPEC), make_mesh(jax.devices()[:devices])
    shapes = jax.eval_shape(lambda: train_state.create(algorithm, SPEC, jax.random.key(0)))
    checkpoints = Checkpoints(workdir, read_only=True)
    state = checkpoints.restore(checkpoints.chosen(None), shapes, replicated(mesh))
    checkpoints.close()
    began, labels = int(state.step), np.arange(10, dtype=np.int32)
    images = np.asarray(make_sampler(algorithm.generator)(state.average, np.uint32(3), labels, labels * 0))
    dataset = train.load_dataset(recipe)
    real = replicate(batches.on_host(dataset.images, dataset.labels), mesh)
    call, losses = distribute(functools.partial(train_steps, algorithm, 1), mesh, parallelism), []
    for _ in range(10):
        state, scalars = call(state, real)
        losses.append(jax.device_get(scalars))
    return losses, images, began


def assert_same_course(one, other) -> None:
    """The same step and images, and losses of ten steps within 1e-3."""
    for ours, theirs in zip(one[0], other[0], strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-3, err_msg=name)
    # A pixel may fall on the other side of a rounding.
    assert np.max(np.abs(one[1].astype(int) - other[1].astype(int))) <= 1
    assert one[2] == other[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(the workdir of a run, its recipe, its course on one device)."""
    workdir, recipe = tmp_path_factory.mktemp("trained") / "run", small_recipe()
    with pytest.MonkeyPatch.context() as patch:
        strip_runs(patch)
        train.train_and_evaluate(recipe, workdir)
    return workdir, recipe, trained_on(1, "shard_map", workdir, recipe)


@pytest.mark.slow  # a program to compile for each
@pytest.mark.parametrize(
    ("devices", "parallelism"), [(8, "pmap"), (2, "shard_map"), (4, "pmap"), (8, "shard_map"), (1, "pmap")]
)
def test_a_run_goes_on_on_any_number_of_devices_and_by_pmap_as_on_one(trained, devices, parallelism):
    workdir, recipe, one = trained
    assert one[2] == 8 and len({losses["g_loss"].item() for losses in one[0]}) == 10
    assert_same_course(trained_on(devices, parallelism, workdir, recipe), one)


OTHER_PYTHON = """
import json, pickle, sys
from pathlib import Path
from tests.resume_test import trained_on
recipe, workdir, target = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
target.write_bytes(pickle.dumps(trained_on(1, "shard_map", workdir, recipe)))
"""


@pytest.mark.slow  # another Python starts jax and compiles
def test_a_run_goes_on_under_another_python_and_jax_as_under_this_one(trained, tmp_path):
    other = os.environ.get("CGAN_OTHER_PYTHON")
    if not other:
        pytest.skip("CGAN_OTHER_PYTHON names no second Python with the project's requirements")
    workdir, recipe, one = trained
    command = [other, "-c", OTHER_PYTHON, json.dumps(recipe), str(workdir), str(tmp_path / "course")]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert_same_course(pickle.loads((tmp_path / "course").read_bytes()), one)
