"""Two processes train as one does, and resume exactly, together."""

import json
import signal
import socket
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from cgan_jax import train_state
from cgan_jax.build import build
from cgan_jax.parallel import make_mesh, replicated
from cgan_jax.run import recovery
from cgan_jax.run.checkpoint import Checkpoints
from tests.command_line import start, write_recipe
from tests.resume_test import SPEC, final_bits, last_step, metrics, wait_for

STEPS = 24
B1 = 0.5


@pytest.fixture
def every_step(recipe) -> dict:
    """Every step has its line and its checkpoint."""
    kimg = recipe["train"]["batch_size"] / 1000
    recipe["train"] |= {"total_kimg": STEPS * kimg, "log_kimg": kimg, "sample_kimg": STEPS * kimg}
    recipe["checkpoint"] = {"every_kimg": kimg, "max_to_keep": STEPS}
    return recipe


def start_pair(*argv: object, program: str | None = None, **environment: str) -> list:
    """The same command as two processes of two devices each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    where = [f"--coordinator_address={address}", "--num_processes=2"]
    return [
        start(*argv, *where, f"--process_id={number}", devices=2, program=program, **environment) for number in (0, 1)
    ]


def ended(pair: list) -> list[tuple[int, str, str]]:
    outputs = [process.communicate(timeout=1200) for process in pair]
    return [(process.returncode, *output) for process, output in zip(pair, outputs, strict=True)]


def first_gradients(workdir: Path, recipe: dict) -> dict[str, np.ndarray]:
    """Adam's first moments after one step are (1 - b1) times the gradients (Kingma & Ba 2015, algorithm 1)."""
    algorithm = build(recipe, SPEC)
    shapes = jax.eval_shape(lambda: train_state.create(algorithm, SPEC, jax.random.key(0)))
    checkpoints = Checkpoints(workdir, read_only=True)
    state = checkpoints.restore(1, shapes, replicated(make_mesh(jax.devices()[:1])))
    checkpoints.close()
    moments = {"g": state.g_opt_state[0].mu, "d": state.d_opt_state[0].mu}
    leaves = jax.tree_util.tree_leaves_with_path(moments)
    return {jax.tree_util.keystr(path): np.asarray(leaf) / (1 - B1) for path, leaf in leaves}


ROLLS_BACK = """
import sys, time
from cgan_jax.files import storage
from cgan_jax.run import recovery
from cgan_jax.__main__ import main
from cgan_jax.errors import GuardError

fired = []


def check(lines, kimg, since):
    if lines[-1]["step"] == 8 and not fired:
        fired.append(8)
        raise GuardError("made up", good_until=4)


def slowly(*paths, move=storage.move):
    time.sleep(0.5)
    move(*paths)


recovery.check_discriminator, storage.move = check, slowly
main()
"""


@pytest.mark.slow  # three processes, each of which starts jax and compiles
def test_two_processes_go_back_to_one_checkpoint(tmp_path, every_step):
    """Also where the second sees late what the first has moved, as on a network drive."""
    every_step["guard"] |= {"action": "rollback", "d_perfect_kimg": 1.0}
    every_step["checkpoint"]["every_kimg"] *= 2
    config, cache = write_recipe(tmp_path, every_step), str(tmp_path / "cache")

    def command(run: str) -> tuple:
        return ("train", f"--config={config}", f"--workdir={tmp_path / run}")

    for code, _, error in ended(start_pair(*command("two"), program=ROLLS_BACK, CGAN_CACHE_DIR=cache)):
        assert code == 0, error
    alone = start(*command("one"), program=ROLLS_BACK, devices=4, CGAN_CACHE_DIR=cache)
    _, error = alone.communicate(timeout=1200)
    assert alone.returncode == 0, error
    for run in ("one", "two"):
        assert [(line["step"], line["to"]) for line in recovery.rollbacks(tmp_path / run)] == [(8, 4)]
        assert [line["step"] for line in metrics(tmp_path / run)] == list(range(1, STEPS + 1))
    losses = [
        [[line["train/d_loss"], line["train/g_loss"]] for line in metrics(tmp_path / run)[:14]]
        for run in ("one", "two")
    ]
    np.testing.assert_allclose(*losses, rtol=0, atol=1e-3)


SLOW_EVALUATION = """
import sys, time
from cgan_jax.evaluation import evaluation
from cgan_jax.__main__ import main


def slowly(self, sampler, variables):
    print("evaluating", file=sys.stderr, flush=True)
    time.sleep(300)


evaluation.Evaluator.__call__ = slowly
main()
"""


@pytest.mark.slow  # two processes, each of which starts jax and compiles
def test_a_request_during_an_evaluation_is_granted_by_both_processes_at_once(tmp_path, every_step):
    """Also by the one that waits, outside of Python, for what the other finds."""
    every_step["evaluate"] |= {"metrics": "pixel_mse", "every_kimg": every_step["checkpoint"]["every_kimg"]}
    config, run = write_recipe(tmp_path, every_step), tmp_path / "run"
    pair = start_pair("train", f"--config={config}", f"--workdir={run}", "--nocache", program=SLOW_EVALUATION)
    assert any(line == "evaluating\n" for line in pair[0].stderr)
    time.sleep(2)  # until the other waits
    began = time.monotonic()
    for process in pair:
        process.send_signal(signal.SIGTERM)
    for code, _, error in ended(pair):
        assert code == 75 and "stopped in an evaluation, saved at step 1;" in error, error
    assert time.monotonic() - began < 30 and last_step(run) == 1


@pytest.mark.slow  # two processes, each of which starts jax
def test_processes_that_do_not_share_their_folder_are_refused(tmp_path, every_step, monkeypatch):
    config = write_recipe(tmp_path, every_step)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = [f"--coordinator_address=127.0.0.1:{free.getsockname()[1]}", "--num_processes=2"]
    program = "import sys\nfrom cgan_jax.run import processes\nfrom cgan_jax.__main__ import main\n"
    program += "processes._DELAY = 1\nmain()"
    command = ("train", f"--config={config}", "--nocache", *where)
    pair = [
        start(*command, f"--workdir={tmp_path / name}", f"--process_id={number}", devices=2, program=program)
        for number, name in enumerate(("run", "elsewhere"))
    ]
    (first, _, told), (second, _, says) = ended(pair)
    assert first == second == 2, told + says
    assert f"{tmp_path / 'elsewhere'} is not the folder that process 0 writes to" in says
    assert "process 1 cannot go on" in told
    assert not (tmp_path / "elsewhere").exists() and not (tmp_path / "run" / ".shared").exists()


@pytest.mark.slow  # four processes, each of which starts jax and compiles
@pytest.mark.parametrize("placement", ["sharded", "stream"])
def test_one_process_goes_on_from_the_checkpoint_of_two_whatever_the_placement(tmp_path, every_step, placement):
    every_step["dataset"]["placement"] = placement
    config, cache = write_recipe(tmp_path, every_step), str(tmp_path / "cache")
    kimg, begun, whole = every_step["train"]["total_kimg"], tmp_path / "begun", tmp_path / "whole"

    def command(workdir: Path, share: float) -> tuple:
        return ("train", f"--config={config}", f"--workdir={workdir}", f"--config.train.total_kimg={share * kimg}")

    for code, _, error in ended(start_pair(*command(begun, 0.5), CGAN_CACHE_DIR=cache)):
        assert code == 0, error
    assert last_step(begun) == STEPS // 2
    for workdir in (begun, whole):
        alone = start(*command(workdir, 1.0), devices=4, CGAN_CACHE_DIR=cache)
        out, error = alone.communicate(timeout=1200)
        assert alone.returncode == 0, error
        assert (f"resuming at step {STEPS // 2}" in out) == (workdir == begun)
    losses = [
        [[line["train/d_loss"], line["train/g_loss"]] for line in metrics(run)[: STEPS // 2 + 4]]
        for run in (begun, whole)
    ]
    np.testing.assert_allclose(*losses, rtol=0, atol=1e-3)


@pytest.mark.slow  # nine processes, each of which starts jax and compiles
@pytest.mark.parametrize("parallelism", ["shard_map", "pmap"])
def test_two_processes_train_as_one_does_and_resume_exactly(tmp_path, every_step, parallelism):
    every_step["train"]["parallelism"] = parallelism
    config, cache = write_recipe(tmp_path, every_step), str(tmp_path / "cache")
    one, twin, disturbed = tmp_path / "one", tmp_path / "twin", tmp_path / "disturbed"

    alone = start("train", f"--config={config}", f"--workdir={one}", devices=4, CGAN_CACHE_DIR=cache)
    _, error = alone.communicate(timeout=1200)
    assert alone.returncode == 0, error
    for code, _, error in ended(start_pair("train", f"--config={config}", f"--workdir={twin}", CGAN_CACHE_DIR=cache)):
        assert code == 0, error
    ours, theirs = first_gradients(twin, every_step), first_gradients(one, every_step)
    for name, gradient in ours.items():
        np.testing.assert_allclose(gradient, theirs[name], rtol=0, atol=1e-5 * np.abs(theirs[name]).max(), err_msg=name)
    losses = [[[line["train/d_loss"], line["train/g_loss"]] for line in metrics(run)[:10]] for run in (twin, one)]
    np.testing.assert_allclose(*losses, rtol=0, atol=1e-3)

    command = ("train", f"--config={config}", f"--workdir={disturbed}")
    pair = start_pair(*command, CGAN_CACHE_DIR=cache)
    wait_for(pair[0], lambda: last_step(disturbed) >= 4, seconds=900)
    for process in pair:
        process.kill()
    assert [code for code, _, _ in ended(pair)] == [-signal.SIGKILL] * 2
    assert last_step(disturbed) < STEPS, "it finished before it could be killed"

    pair, killed_at = start_pair(*command, CGAN_CACHE_DIR=cache), last_step(disturbed)
    wait_for(pair[0], lambda: last_step(disturbed) > killed_at, seconds=900)
    pair[1].send_signal(signal.SIGTERM)
    for code, _, error in ended(pair):
        assert code == 75 and f"stopped and saved at step {last_step(disturbed)};" in error, error
    assert last_step(disturbed) < STEPS, "it finished before it could be stopped"

    first, second = ended(start_pair(*command, CGAN_CACHE_DIR=cache))
    assert first[0] == second[0] == 0, first[2] + second[2]
    assert "resuming at step" in first[1] and "resuming at step" not in second[1]
    assert final_bits(disturbed, every_step) == final_bits(twin, every_step)
    assert metrics(disturbed) == metrics(twin)
    assert [json.loads(line)["step"] for line in (twin / "metrics.jsonl").read_text().splitlines()] == [
        *range(1, STEPS + 1)
    ]
