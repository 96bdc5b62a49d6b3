"""A whole run in this process: the files it leaves, what it refuses, and that the host never makes the devices wait."""

import functools
import itertools
import json
import math
import shutil
import signal

import jax
import numpy as np
import pytest
from PIL import Image

from cgan_jax import train
from cgan_jax.build import ImageSpec, build
from cgan_jax.data.batches import Data
from cgan_jax.errors import GuardError, Interrupted, UsageError
from cgan_jax.parallel import distribute, make_mesh
from cgan_jax.run import journal, throughput
from cgan_jax.run import workdir as workdirs
from cgan_jax.run.checkpoint import Checkpoints
from cgan_jax.run.throughput import layer_flop
from cgan_jax.train import train_and_evaluate
from cgan_jax.train_state import create
from tests.command_line import start, write_recipe


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of 8 steps on 8 devices."""
    from tests.conftest import small_recipe

    workdir = tmp_path_factory.mktemp("finished") / "run"
    train_and_evaluate(small_recipe(), workdir)
    return workdir


def test_a_run_leaves_the_files_that_are_promised(finished):
    for name in ("config.json", "model.txt", "metrics.jsonl", "curves.png", "samples/real.png", ".lock"):
        assert (finished / name).is_file(), name
    assert sorted(p.name for p in (finished / "checkpoints").iterdir()) == ["4", "8"]
    assert (finished / "checkpoints" / "8" / "ema").is_dir()
    assert list(finished.glob("events.out.tfevents.*"))
    assert not list(finished.rglob("*.partial"))
    text = (finished / "model.txt").read_text()
    assert "ConvTranspose_1" in text and "LabelMap" in text and "Total" in text


def test_metrics_say_how_far_and_how_well(finished):
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["kimg"]) for line in lines] == [(2, 0.032), (4, 0.064), (6, 0.096), (8, 0.128)]
    for line in lines:
        assert {"train/d_loss", "train/g_loss", "train/d_bce_real", "train/d_bce_fake", "train/g_bce"} <= line.keys()
        assert 0 <= line["train/d_accuracy_real"] <= 1 and 0 <= line["train/d_accuracy_fake"] <= 1
        assert math.isclose(line["train/d_loss"], line["train/d_bce_real"] + line["train/d_bce_fake"], rel_tol=1e-5)
        assert line["time/images_per_sec"] > 0
        assert 0 < line["time/share_of_ceiling"] < 1
    assert lines == sorted(lines, key=lambda line: line["seconds"])


def test_grids_have_a_row_per_class(finished):
    real = Image.open(finished / "samples" / "real.png")
    grids = sorted(p.name for p in (finished / "samples").glob("kimg_*.png"))
    assert grids == ["kimg_000000.000.png", "kimg_000000.064.png", "kimg_000000.128.png"]
    for name in grids:
        assert Image.open(finished / "samples" / name).size == real.size
    # 8x8 images are shown at 64x64, 10 classes in rows.
    assert real.size[1] >= 10 * 64


def test_a_finished_run_started_again_changes_nothing(finished, recipe):
    def written():
        return {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}

    before = written()
    train_and_evaluate(recipe, finished)
    assert written() == before


def test_a_finished_run_goes_on_when_asked_for_more(finished, recipe, tmp_path):
    workdir = shutil.copytree(finished, tmp_path / "run")
    recipe["train"]["total_kimg"] = 0.16
    recipe["train"]["parallelism"] = "pmap"
    train_and_evaluate(recipe, workdir)
    steps = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 6, 8, 10]


def test_a_run_ends_when_its_minutes_are_used_and_tells_its_schedules_how_many_are(
    recipe, tmp_path, monkeypatch, capsys
):
    """By a clock that says 20 seconds more after every call."""
    ticks, seen = itertools.count(1), []
    monkeypatch.setattr(journal.Clock, "total", property(lambda clock: 20.0 * next(ticks)))
    real_distribute = train.distribute

    def watched(*arguments):
        inner = real_distribute(*arguments)

        def call(state, data):
            if not isinstance(state.step, jax.core.Tracer):
                seen.append(float(state.time_share))
            return inner(state, data)

        return call

    monkeypatch.setattr(train, "distribute", watched)
    recipe["train"]["max_minutes"] = 1.0
    train_and_evaluate(recipe, tmp_path / "run")
    np.testing.assert_allclose(seen, [0, 1 / 3, 2 / 3], rtol=1e-6)
    assert Checkpoints(tmp_path / "run", read_only=True).steps() == [3]
    out = capsys.readouterr().out
    assert "0.0 of 1 minutes of training are used; schedules follow the clock" in out and "done: " in out


def test_minutes_used_before_count_and_where_all_are_used_nothing_happens(finished, recipe, tmp_path, capsys):
    workdir = shutil.copytree(finished, tmp_path / "run")
    *lines, last = workdirs.read_metrics(workdir)
    (workdir / "metrics.jsonl").unlink()
    for line in [*lines, {**last, "seconds": 61.0}]:
        workdirs.append_metrics(workdir, line)
    recipe["train"] |= {"total_kimg": 0.16, "max_minutes": 1.0}
    train_and_evaluate(recipe, workdir)
    assert Checkpoints(workdir, read_only=True).steps() == [4, 8]
    assert "1.0 of 1 minutes of training are used" in capsys.readouterr().out


def test_another_recipe_in_the_same_workdir_is_refused(finished, recipe):
    recipe["generator"]["width"] = 5
    recipe["seed"] = 1
    with pytest.raises(UsageError, match=r"generator.width: 4 -> 5; seed: 0 -> 1"):
        train_and_evaluate(recipe, finished)


def test_an_unconditional_run_draws_five_by_five(recipe, tmp_path):
    recipe["dataset"]["conditional"] = False
    recipe["train"]["total_kimg"] = 0.016
    train_and_evaluate(recipe, tmp_path / "run")
    assert Image.open(tmp_path / "run" / "samples" / "real.png").size == (5 * 66 + 2, 5 * 66 + 2)
    assert "LabelMap" not in (tmp_path / "run" / "model.txt").read_text()


def test_a_loss_that_is_not_finite_stops_the_run_with_its_name(recipe, tmp_path, monkeypatch):
    real_steps = train.train_steps

    def poisoned(algorithm, steps, state, data):
        state, scalars = real_steps(algorithm, steps, state, data)
        poison = jax.numpy.where(state.step == 3, np.nan, 0.0)
        return state, {**scalars, "g_bce": scalars["g_bce"] + poison}

    monkeypatch.setattr(train, "train_steps", poisoned)
    with pytest.raises(GuardError, match=r"train/g_bce is nan at step 3 \(0.0 kimg\)"):
        train_and_evaluate(recipe, tmp_path / "run")


def test_a_batch_that_the_devices_cannot_share_is_refused_before_anything_is_written(recipe, tmp_path):
    recipe["train"]["batch_size"] = 12
    with pytest.raises(UsageError, match=r"train\.batch_size=12 cannot be shared evenly by 8 devices"):
        train_and_evaluate(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("placement", "parallelism"), [("replicated", "shard_map"), ("stream", "shard_map"), ("replicated", "pmap")]
)
def test_the_loop_moves_nothing_between_host_and_devices_unasked_and_traces_once(
    recipe, tmp_path, monkeypatch, placement, parallelism
):
    recipe["dataset"]["placement"], recipe["train"]["parallelism"] = placement, parallelism
    calls, traces = [], []
    real_distribute, real_steps = train.distribute, train.train_steps

    def counted(*arguments):
        traces.append(1)
        return real_steps(*arguments)

    def guarded(step, mesh, *more):
        inner = real_distribute(step, mesh, *more)

        def call(state, data):
            if not isinstance(state.step, jax.core.Tracer):  # it is traced once more to count its arithmetic
                calls.append(1)
            with jax.transfer_guard("disallow"):
                return inner(state, data)

        return call

    monkeypatch.setattr(train, "train_steps", counted)
    monkeypatch.setattr(train, "distribute", guarded)
    train_and_evaluate(recipe, tmp_path / "run")
    assert len(calls) == 8 and len(traces) == 1


def test_a_call_is_as_many_steps_as_take_a_second_of_an_accelerator(recipe, monkeypatch):
    spec, mesh = ImageSpec(8, 1, 10), make_mesh()
    algorithm = build(recipe, spec)
    recipe["train"]["steps_per_call"] = 0
    assert throughput.steps_per_call(recipe, algorithm, spec, mesh) == 1, "a processor"
    monkeypatch.setattr(throughput, "platform_of", lambda mesh: "gpu")
    assert throughput.steps_per_call(recipe, algorithm, spec, mesh) == 32
    shapes = jax.eval_shape(lambda: create(algorithm, spec, jax.random.key(0)))
    data = Data(jax.ShapeDtypeStruct((16, 8, 8, 1), np.uint8), jax.ShapeDtypeStruct((16,), np.int32))
    step = distribute(functools.partial(train.train_steps, algorithm, 1), mesh)
    monkeypatch.setattr(throughput, "_FLOP_PER_CALL", 5.5 * layer_flop(step, shapes, data) / 8)
    assert throughput.steps_per_call(recipe, algorithm, spec, mesh) == 5
    monkeypatch.setattr(throughput, "_FLOP_PER_CALL", 1)
    assert throughput.steps_per_call(recipe, algorithm, spec, mesh) == 1
    recipe["train"]["steps_per_call"] = 7
    assert throughput.steps_per_call(recipe, algorithm, spec, mesh) == 7


@pytest.mark.parametrize(
    ("before", "now", "interval", "due"),
    [(0.0, 1.9, 2.0, False), (1.9, 2.0, 2.0, True), (2.0, 2.1, 2.0, False), (1.0, 9.0, 2.0, True)],
)
def test_an_interval_ends_at_the_next_whole_call(before, now, interval, due):
    assert train.is_due(before, now, interval) == due


def test_parameters_that_are_not_finite_are_never_saved(recipe, tmp_path, monkeypatch):
    real_steps = train.train_steps

    def poisoned(algorithm, steps, state, data):
        state, scalars = real_steps(algorithm, steps, state, data)
        poison = jax.numpy.where(state.step == 8, np.nan, 0.0)
        return state.replace(g_params=jax.tree.map(lambda x: x + poison, state.g_params)), scalars

    monkeypatch.setattr(train, "train_steps", poisoned)
    with pytest.raises(GuardError, match=r"not finite at step 8 .*; the checkpoint at step 4 is kept"):
        train_and_evaluate(recipe, tmp_path / "run")
    assert Checkpoints(tmp_path / "run", read_only=True).steps() == [4]


def test_a_request_to_stop_during_maintenance_is_granted_with_the_state_saved(recipe, tmp_path, monkeypatch):
    recipe["checkpoint"]["every_kimg"] = 1.0
    real_grid = train.grids.grid

    def interrupted(*arguments):
        if (tmp_path / "run" / "metrics.jsonl").exists():  # not that of the real images, before training
            signal.raise_signal(signal.SIGTERM)
        return real_grid(*arguments)

    monkeypatch.setattr(train.grids, "grid", interrupted)
    with pytest.raises(Interrupted, match="stopped and saved at step 5;"):
        train_and_evaluate(recipe, tmp_path / "run")
    assert Checkpoints(tmp_path / "run", read_only=True).steps() == [5]
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 5]


def test_a_run_that_goes_on_makes_the_folder_of_pictures_again(finished, recipe, tmp_path):
    workdir = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(workdir / "samples")
    recipe["train"]["total_kimg"] = 0.144
    train_and_evaluate(recipe, workdir)
    assert [path.name for path in (workdir / "samples").iterdir()] == ["kimg_000000.144.png"]


def test_a_dataset_that_has_changed_is_refused_by_name(finished, recipe, monkeypatch):
    real_load = train.sources.load

    def fewer(*arguments, **options):
        dataset = real_load(*arguments, **options)
        return dataset._replace(images=dataset.images[:-1], labels=dataset.labels[:-1])

    monkeypatch.setattr(train.sources, "load", fewer)
    with pytest.raises(UsageError, match="its num_images were 1797, now 1796"):
        train_and_evaluate(recipe, finished)


def test_a_step_folder_that_is_not_whole_is_no_checkpoint(finished, recipe, tmp_path):
    workdir = shutil.copytree(finished, tmp_path / "run")
    (workdir / "checkpoints" / "16").mkdir()
    shutil.rmtree(workdir / "checkpoints" / "8" / "ema")
    assert Checkpoints(workdir, read_only=True).steps() == [4]


@pytest.mark.slow  # a real process, which starts jax
def test_a_wish_of_other_programs_for_64_bits_changes_nothing(recipe, tmp_path):
    recipe["train"]["total_kimg"] = 0.016
    for x64 in ("0", "1"):
        process = start(
            "train", f"--config={write_recipe(tmp_path, recipe)}", f"--workdir={tmp_path / x64}", JAX_ENABLE_X64=x64
        )
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
    losses = [json.loads((tmp_path / x64 / "metrics.jsonl").read_text())["train/d_loss"] for x64 in ("0", "1")]
    assert losses[0] == losses[1]


def test_a_recipe_that_was_refused_is_corrected_in_the_same_folder(bare, recipe, tmp_path):
    update = recipe["loss"]["d_updates"]["both"]
    update["class_real"] = {"weight": 1.0}
    with pytest.raises(UsageError, match="class"):
        train_and_evaluate(recipe, tmp_path / "run")
    del update["class_real"]
    train_and_evaluate(recipe, tmp_path / "run")
    recipe["seed"] = 3
    with pytest.raises(UsageError, match="holds a run of another recipe, which differs in seed: 0 -> 3"):
        train_and_evaluate(recipe, tmp_path / "run")


@pytest.mark.parametrize("left", ["evaluations.jsonl", "averages.jsonl", "integrity/8.json"])
def test_the_logs_of_a_run_whose_checkpoints_were_deleted_are_not_erased(finished, recipe, tmp_path, left):
    workdir = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints")
    if not left.startswith("integrity"):
        shutil.rmtree(workdir / "integrity")
        workdirs.append_metrics(workdir, {"step": 8, "kimg": 0.128}, left)
    before = (workdir / "metrics.jsonl").read_text()
    with pytest.raises(UsageError, match=r"run holds the logs of a run whose checkpoints are gone, .* move it away"):
        train_and_evaluate(recipe, workdir)
    assert (workdir / "metrics.jsonl").read_text() == before


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_anew_with_its_recipe_alone(bare, recipe, tmp_path):
    recipe["checkpoint"]["every_kimg"] = 1.0
    train_and_evaluate(recipe, tmp_path / "run")
    once = [line["train/d_loss"] for line in workdirs.read_metrics(tmp_path / "run")]
    for folder in ("checkpoints", "integrity"):
        shutil.rmtree(tmp_path / "run" / folder)
    with pytest.raises(UsageError, match="holds a run of another recipe, which differs in seed: 0 -> 3"):
        train_and_evaluate({**recipe, "seed": 3}, tmp_path / "run")
    train_and_evaluate(recipe, tmp_path / "run")
    assert [line["train/d_loss"] for line in workdirs.read_metrics(tmp_path / "run")] == once
