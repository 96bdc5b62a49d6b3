"""`cgan sweep`: every variation trained once, whatever ends the others, and a table that says what became of each."""

import csv
import json
import math
import shutil
import signal

import jax
import pytest
from PIL import Image

from cgan_jax import train
from cgan_jax.commands import sweep
from cgan_jax.run import signals
from tests.command_line import cgan, start, write_recipe

CHANGE = "generator.latent_dim+generator.embedding_dim=2"
NAMES = ["baseline", CHANGE]


def in_process(self, command) -> int:
    """Stands in for a process."""
    return cgan(*command[command.index("train") :])


@pytest.fixture(autouse=True)
def started(monkeypatch) -> list[str]:
    """Runs are trained in this process; the names of those that were started, in order."""
    names = []

    def run(self, command):
        names.append(command[-1].rpartition("/")[2])
        return in_process(self, command)

    monkeypatch.setattr(signals.RelayedRequests, "run", run)
    monkeypatch.setattr(sweep, "_count_devices", jax.device_count)
    return names


def arguments(folder, recipe, *varied) -> list[str]:
    recipe["evaluate"]["metrics"] = "pixel_mse"
    recipe["train"]["total_kimg"] = 0.064
    return [
        "sweep",
        f"--config={write_recipe(folder, recipe)}",
        f"--workdir={folder / 'study'}",
        *(varied or [f"--vary={CHANGE}"]),
    ]


def table(workdir) -> list[dict[str, str]]:
    return list(csv.DictReader((workdir / "summary.csv").open()))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The folder of a finished sweep of two runs, and what it said."""
    import contextlib
    import io

    from tests.conftest import small_recipe

    folder, said = tmp_path_factory.mktemp("sweep"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(signals.RelayedRequests, "run", in_process)
        patch.setattr(sweep, "_count_devices", jax.device_count)
        assert cgan(*arguments(folder, small_recipe())) == 0
    return folder / "study", said.getvalue()


def test_every_run_has_its_folder_its_line_and_its_row(study):
    workdir, said = study
    assert sorted(p.name for p in workdir.iterdir() if p.is_dir()) == sorted(NAMES)
    for number, name in enumerate(NAMES, 1):
        assert f"run {number} of 2: {name}\n" in said and f"run {number} of 2: {name} finished after " in said
        assert sum(line.startswith(f"| {name} ") for line in said.splitlines()) == 1
    assert (workdir / "summary.md").read_text() in said


def test_the_table_says_what_the_runs_logged(study):
    workdir, _ = study
    rows = table(workdir)
    assert [row["run"] for row in rows] == NAMES and {row["ending"] for row in rows} == {"finished"}
    assert [(row["generator.latent_dim"], row["generator.embedding_dim"]) for row in rows] == [("4", "3"), ("2", "2")]
    for row in rows:
        last = json.loads((workdir / row["run"] / "metrics.jsonl").read_text().splitlines()[-1])
        for name in ("d_loss", "g_loss", "d_accuracy_real", "d_accuracy_fake"):
            assert float(row[name]) == last[f"train/{name}"]
        assert (float(row["kimg"]), float(row["seconds"])) == (0.064, last["seconds"])
        evaluated = json.loads((workdir / row["run"] / "evaluations.jsonl").read_text().splitlines()[-1])
        assert float(row["pixel_accuracy"]) == evaluated["eval/pixel_accuracy"]
        assert float(row["images/s"]) > 0
    assert len({row["d_loss"] for row in rows}) == 2, "the variation reached the networks"
    with Image.open(workdir / "curves.png") as picture:
        assert picture.format == "PNG"


def test_a_run_has_its_whole_recipe_as_a_file(study, recipe):
    workdir, _ = study
    for name in NAMES:
        space = {}
        exec((workdir / name / "recipe.py").read_text(), space)
        written = space["get_config"]().to_dict()
        assert written == json.loads((workdir / name / "config.json").read_text())["recipe"]
        dims = written["generator"]["latent_dim"], written["generator"]["embedding_dim"]
        assert dims == ((4, 3) if name == "baseline" else (2, 2))
        written["generator"] |= {"latent_dim": 4, "embedding_dim": 3}
        written["train"]["total_kimg"], written["evaluate"]["metrics"] = 0.128, ""
        assert written == recipe


def test_where_nothing_is_left_it_only_prints_and_draws(study, recipe, tmp_path, started, monkeypatch, capsys):
    workdir = shutil.copytree(study[0], tmp_path / "study")
    for name in ("summary.md", "summary.csv", "curves.png"):
        (workdir / name).unlink()
    monkeypatch.setattr(train, "load_dataset", lambda recipe: pytest.fail("the data are not needed"))
    assert cgan(*arguments(tmp_path, recipe)) == 0
    assert started == []
    assert all(f"{name} finished before" in capsys.readouterr().out for name in NAMES[:1])
    assert (workdir / "summary.csv").read_text() == (study[0] / "summary.csv").read_text()
    assert (workdir / "summary.md").exists() and (workdir / "curves.png").exists()


def test_only_what_is_new_is_started(study, recipe, tmp_path, monkeypatch, capsys):
    shutil.copytree(study[0], tmp_path / "study")
    started = []
    monkeypatch.setattr(signals.RelayedRequests, "run", lambda self, command: started.append(command[-1]) or 1)
    assert cgan(*arguments(tmp_path, recipe, f"--vary={CHANGE},5")) == 2
    assert "generator.embedding_dim=5 did not finish" in capsys.readouterr().err
    assert started == [f"--workdir={tmp_path}/study/generator.latent_dim+generator.embedding_dim=5"]


def test_a_run_whose_last_evaluation_is_missing_makes_up_for_it(study, recipe, tmp_path, started):
    workdir = shutil.copytree(study[0], tmp_path / "study")
    (workdir / CHANGE / "evaluations.jsonl").unlink()
    assert cgan(*arguments(tmp_path, recipe)) == 0
    assert started == [CHANGE]
    assert (workdir / "summary.csv").read_text() == (study[0] / "summary.csv").read_text()


def test_a_run_that_has_used_its_minutes_is_over(recipe, tmp_path, started):
    recipe["train"]["max_minutes"] = 1e-4
    argv = arguments(tmp_path, recipe)
    recipe["train"]["total_kimg"] = 1e6
    write_recipe(tmp_path, recipe)
    assert cgan(*argv) == 0
    assert cgan(*argv) == 0
    assert started == NAMES
    assert cgan(*argv, "--config.train.max_minutes=0.01") == 0
    assert started == NAMES + NAMES, "there are more minutes"


def test_a_finished_run_is_over_without_its_checkpoints_too(study, recipe, tmp_path, started, capsys):
    workdir = shutil.copytree(study[0], tmp_path / "study")
    for name in NAMES:
        shutil.rmtree(workdir / name / "checkpoints")
    assert cgan(*arguments(tmp_path, recipe)) == 0
    assert started == [] and "baseline finished before" in capsys.readouterr().out
    assert (workdir / "summary.csv").read_text() == (study[0] / "summary.csv").read_text()


def test_another_recipe_in_the_same_folder_is_refused(study, recipe, tmp_path, started, capsys):
    shutil.copytree(study[0], tmp_path / "study")
    recipe["seed"] = 7
    assert cgan(*arguments(tmp_path, recipe)) == 2
    assert "study/baseline holds a run of another recipe, which differs in seed: 0 -> 7" in capsys.readouterr().err
    assert started == []


def test_ctrl_c_saves_and_the_same_command_goes_on(study, recipe, tmp_path, started, monkeypatch, capsys):
    shutil.copytree(study[0] / "baseline", tmp_path / "study" / "baseline")
    interrupted = []

    def interrupt_once(step):
        if not interrupted:
            interrupted.append(step)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(train, "make_hooks", lambda *_: [interrupt_once])
    argv = arguments(tmp_path, recipe)
    assert cgan(*argv) == 75
    assert capsys.readouterr().err.rstrip().endswith("stopped at run 2 of 2; run the same command again to go on")
    assert json.loads((tmp_path / "study/outcomes.json").read_text()) == {CHANGE: 75}
    assert not (tmp_path / "study/summary.md").exists()
    assert cgan(*argv) == 0
    assert started == [CHANGE, CHANGE]
    said = capsys.readouterr().out
    assert "run 1 of 2: baseline finished before" in said and "resuming at step" in said
    assert {row["ending"] for row in table(tmp_path / "study")} == {"finished"}


def test_a_run_that_diverges_has_its_row_and_ends_nothing_else(study, recipe, tmp_path, started, monkeypatch):
    real_steps = train.train_steps

    def poisoned(algorithm, steps, state, data):
        state, scalars = real_steps(algorithm, steps, state, data)
        poison = jax.numpy.where(state.step == 3, math.nan, 0.0)
        return state, {**scalars, "g_loss": scalars["g_loss"] + poison}

    monkeypatch.setattr(train, "train_steps", poisoned)
    workdir = tmp_path / "study"
    for name in NAMES:
        shutil.copytree(study[0] / name, workdir / name)
    argv = arguments(tmp_path, recipe, "--vary=generator.latent_dim=3", f"--vary={CHANGE}")
    assert cgan(*argv) == 0
    names = ["baseline", "generator.latent_dim=3", CHANGE]
    rows = {row["run"]: row for row in table(workdir)}
    assert [rows[name]["ending"] for name in names] == ["finished", "stopped by a guard", "finished"]
    diverged = rows["generator.latent_dim=3"]
    assert diverged["kimg"] == "0.032" and diverged["d_loss"] and diverged["pixel_accuracy"] == ""
    assert cgan(*argv) == 0
    assert started == names[1:2], "a run that a guard has stopped is over"
    shutil.rmtree(workdir / "generator.latent_dim=3")
    monkeypatch.setattr(signals.RelayedRequests, "run", lambda self, command: started.append("again") or 3)
    assert cgan(*argv) == 2
    assert started == [*names[1:2], "again"], "unless its folder is gone"


def test_a_run_that_crashes_ends_nothing_else(recipe, tmp_path, monkeypatch, capsys):
    codes = [1, -9]
    monkeypatch.setattr(signals.RelayedRequests, "run", lambda self, command: codes.pop(0))
    assert cgan(*arguments(tmp_path, recipe)) == 2
    assert [row["ending"] for row in table(tmp_path / "study")] == ["ended with exit code 1", "was killed by SIGKILL"]
    said = capsys.readouterr()
    assert f"run 2 of 2: {CHANGE} was killed by SIGKILL after " in said.out
    assert said.err.endswith(f"cgan: error: baseline, {CHANGE} did not finish; run the same command again to go on\n")


def test_one_combination_that_cannot_work_stops_all_before_the_first(recipe, tmp_path, started, capsys):
    for vary, complaint in (
        ("generator.latent_dim=3,0", "generator.latent_dim=0: generator.latent_dim must be at least 1, given 0"),
        ("train.batch_size=8,12", "train.batch_size=12: train.batch_size=12 cannot be shared evenly by 8 devices"),
        ("architecture=dcgan,dcgna", "architecture=dcgna: unknown architecture 'dcgna'; there are:"),
        ("architecture=dcgan_deep", "architecture=dcgan_deep: generator of dcgan_deep takes"),
        ("dataset.image_size=6", "dataset.image_size=6: "),
        ("evaluate.num_images=3", "evaluate.num_images=3: evaluate.num_images=3 is fewer than the 10 classes"),
    ):
        assert cgan(*arguments(tmp_path, recipe, f"--vary={vary}")) == 2
        error = capsys.readouterr().err
        assert complaint in error and error.count("\n") == 1
        assert started == [] and not (tmp_path / "study").exists()


def test_the_folder_of_a_plain_run_is_left_alone(study, recipe, tmp_path, started, capsys):
    shutil.copytree(study[0] / "baseline", tmp_path / "study")
    before = sorted(tmp_path.rglob("*"))
    assert cgan(*arguments(tmp_path, recipe)) == 2
    assert "study holds a run, not a sweep; use another --workdir" in capsys.readouterr().err
    assert started == [] and set(before) | {tmp_path / "recipe.py"} == set(tmp_path.rglob("*")) - {
        p for p in tmp_path.rglob("__pycache__/*")
    } - set(tmp_path.rglob("__pycache__"))


def test_a_broken_list_of_outcomes_is_wrong_use(study, recipe, tmp_path, capsys):
    shutil.copytree(study[0], tmp_path / "study")
    (tmp_path / "study" / "outcomes.json").write_text("{")
    assert cgan(*arguments(tmp_path, recipe)) == 2
    assert "outcomes.json cannot be read" in capsys.readouterr().err


@pytest.mark.slow  # seven processes that start jax
def test_a_real_sweep_is_interrupted_in_the_middle_of_a_run_and_goes_on(recipe, tmp_path):
    from tests.resume_test import finished, wait_for

    for section, interval in (("train", "sample_kimg"), ("evaluate", "every_kimg"), ("checkpoint", "every_kimg")):
        recipe[section][interval] = 10.0
    argv = arguments(tmp_path, recipe, "--vary=generator.latent_dim=3", "--config.train.total_kimg=1.28")
    log = tmp_path / "study" / "generator.latent_dim=3" / "metrics.jsonl"
    process = start(*argv)
    wait_for(process, log.exists)
    process.send_signal(signal.SIGINT)
    code, out, error = finished(process)
    assert code == 75 and "run 1 of 2: baseline finished after" in out, error
    assert error.rstrip().endswith("cgan: stopped at run 2 of 2; run the same command again to go on")
    assert "stopped and saved at step" in error and "Traceback" not in error
    code, out, error = finished(start(*argv))
    assert code == 0 and "resuming at step" in out and "run 1 of 2: baseline finished before" in out, error
    assert [row["kimg"] for row in table(tmp_path / "study")] == ["1.28", "1.28"]
