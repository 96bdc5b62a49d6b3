"""Models of the package, packed ones, files and runs: one flag names them, and all draw the images of their run."""

import json
import shutil

import numpy as np
import pytest

from cgan_jax import models
from cgan_jax.errors import UsageError
from cgan_jax.evaluation import evaluation
from cgan_jax.files import json_text
from cgan_jax.run import packed, workdir
from cgan_jax.sampling.request import spread
from cgan_jax.sampling.sampling import Sampler, gathered
from cgan_jax.serving.models import Served
from tests.command_line import cgan, write_recipe
from tests.conftest import small_recipe
from tests.random_run import write_random_run

LABELS, INDICES = spread(40, list(range(10)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of random weights, with its checkpoints, its log, and its images in another folder of this machine."""
    recipe = small_recipe()
    recipe["dataset"]["data_dir"] = "/home/me"
    folder = write_random_run(tmp_path_factory.mktemp("models") / "run", recipe)
    for step in (4, 8):
        workdir.append_metrics(folder, {"step": step, "kimg": step * 0.016, "seconds": 60.0 * step})
    workdir.append_environment(folder, {"command": "cgan train", "device_kind": "cpu", "jax": "0.10"})
    return folder


@pytest.fixture(scope="module")
def places(run):
    """The same model in three kinds of place."""
    for form in ("packed", "cgan"):
        assert cgan("export", f"--workdir={run}", f"--format={form}", f"--out={run.parent / form}") == 0
    return {"run": run, "packed": run.parent / "packed", "file": run.parent / "cgan"}


def images_of(place) -> np.ndarray:
    return gathered(Sampler(place).images(5, LABELS, INDICES)).astype(int)


@pytest.mark.parametrize("kind", ["packed", "file"])
def test_each_kind_draws_the_images_of_its_run(places, kind):
    expected = images_of(places["run"])
    assert expected.std() > 5, "an image with nothing on it proves nothing"
    most = {"packed": 2, "file": 1}[kind]
    assert np.abs(images_of(places[kind]) - expected).max() <= most
    assert np.abs(Served(places[kind]).images(5, LABELS, INDICES, 0.0) - expected).max() <= most


def test_a_packed_model_has_half_matrices_the_discriminator_and_the_log_but_no_path(places):
    run, folder = places["run"], places["packed"]
    arrays = packed.read_weights(folder)
    assert {array.dtype for array in arrays.values() if array.ndim > 1} == {np.dtype(np.float16)}
    logits = [
        evaluation.logits_of(*Sampler(place).discriminator(), np.full((10, 8, 8, 1), 99, np.uint8), np.arange(10))
        for place in (run, folder)
    ]
    np.testing.assert_allclose(logits[1], logits[0], rtol=0.02)
    assert workdir.read_metrics(folder) == workdir.read_metrics(run)
    assert workdir.read_info(folder).recipe["dataset"]["data_dir"] == ""


def test_an_earlier_step_is_packed_with_the_log_up_to_it(run, tmp_path):
    assert cgan("export", f"--workdir={run}", "--step=4", "--format=packed", f"--out={tmp_path}") == 0
    assert [line["step"] for line in workdir.read_metrics(tmp_path)] == [4]
    assert Sampler(tmp_path).step == 4
    assert np.abs(images_of(tmp_path) - gathered(Sampler(run, 4).images(5, LABELS, INDICES))).max() <= 2


def test_a_model_packed_over_another_does_not_keep_the_scores_of_that_one(run, tmp_path):
    arguments = ["export", f"--workdir={run}", "--format=packed", f"--out={tmp_path}", "--force"]
    assert cgan(*arguments) == 0
    for scores in (workdir.EVALUATIONS, workdir.AVERAGES):
        (tmp_path / scores).write_text("{}\n")
    assert cgan(*arguments) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        packed.WEIGHTS,
        packed.CARD,
        workdir.CONFIG,
        workdir.METRICS,
        workdir.ENVIRONMENTS,
    }


@pytest.mark.parametrize("force", [[], ["--force"]], ids=["without force", "by force"])
def test_a_packed_model_never_replaces_a_run(run, tmp_path, capsys, force):
    shutil.copytree(run, tmp_path / "mine")
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for source in (run, tmp_path / "mine"):
        arguments = ["export", f"--workdir={source}", "--format=packed", f"--out={tmp_path / 'mine'}", *force]
        assert cgan(*arguments) == 2
        assert "mine holds a run" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


@pytest.mark.parametrize("name", [packed.CARD, workdir.METRICS, workdir.EVALUATIONS])
def test_a_packed_model_replaces_no_file_without_force(run, tmp_path, capsys, name):
    (tmp_path / name).write_text("mine")
    assert cgan("export", f"--workdir={run}", "--format=packed", f"--out={tmp_path}") == 2
    assert f"{name} exists already" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("kind", ["run", "packed", "file"])
def test_every_command_takes_every_kind(places, kind, tmp_path, capsys):
    model = f"--model={places[kind]}"
    assert cgan("sample", model, "--labels=3", "--num_images=2", f"--out={tmp_path / 'a.npz'}") == 0
    assert cgan("synthesize", model, "--num_images=20", "--format=npz", f"--out={tmp_path / 'b'}") == 0
    assert cgan("export", model, "--format=safetensors", f"--out={tmp_path / 'c.safetensors'}") == 0
    assert cgan("export", model, f"--out={tmp_path / 'd.cgan'}") == 0
    scored = ("evaluate", model, "--metrics=pixel_mse", "--num_images=20", f"--json={tmp_path / 'e.json'}")
    assert cgan(*scored) == 0
    with np.load(tmp_path / "a.npz") as drawn:
        assert (
            np.abs(drawn["images"].astype(int) - gathered(Sampler(places["run"]).images(0, *spread(2, [3])))).max() <= 2
        )
    assert np.abs(images_of(tmp_path / "d.cgan") - images_of(places["run"])).max() <= 2
    capsys.readouterr()


def test_scores_go_into_a_folder_and_never_into_the_package(places, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    shutil.copytree(places["packed"], tmp_path / "toy", ignore=shutil.ignore_patterns(workdir.EVALUATIONS))
    asked = ("--metrics=pixel_mse", "--num_images=20")
    assert cgan("evaluate", "--model=toy", *asked) == 0
    assert not (tmp_path / "toy" / workdir.EVALUATIONS).exists()
    assert cgan("evaluate", f"--workdir={tmp_path / 'toy'}", *asked) == 0
    (line,) = workdir.read_metrics(tmp_path / "toy", workdir.EVALUATIONS)
    assert line["step"] == 8 and line["protocol"]["workdir"] == "toy"
    capsys.readouterr()
    assert cgan("models") == 0
    assert capsys.readouterr().out.startswith("toy  8x8 grey, 10 classes of digits")
    assert cgan("models", "toy") == 0
    card = capsys.readouterr().out
    for fact in ("cgan train", "8 steps, 8 min", "cpu, jax 0.10", f"{line['eval/pixel_mse']:.5g}", "generated_images"):
        assert fact in card, fact
    assert cgan("models", "tory") == 2
    assert "did you mean toy" in capsys.readouterr().err


def test_a_name_wins_over_a_path_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert models.find("digits") == models.FOLDER / "digits" and capsys.readouterr().out == ""
    (tmp_path / "digits").mkdir()
    assert models.find("digits") == models.FOLDER / "digits"
    assert capsys.readouterr().out == "note: digits is the packaged model; ./digits is the folder of that name here\n"
    assert models.find("./digits").resolve() == tmp_path / "digits"
    with pytest.raises(UsageError, match=r"unknown model 'digit'; there are: .*did you mean digits"):
        models.find("digit")


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("packed", ["sample", "--step=4"], "holds step 8 alone, given --step=4"),
        ("file", ["sample", "--step=best"], "holds step 8 alone, given --step=best"),
        ("file", ["sample", "--batch_stats=standing"], "holds the statistics that it was exported with"),
        ("file", ["export", "--format=packed"], "--format=packed takes the folder of a run"),
        ("run", ["export", "--format=packed", "--batch_stats=standing"], "keeps the averages of training"),
        ("file", ["evaluate", "--metrics=discriminator_accuracy"], "holds the generator alone"),
        ("packed", ["train"], "holds a packed model, whose training is over"),
        ("run", ["sample", "--workdir=a"], "either --model=NAME or --workdir=FOLDER names the model, given both"),
    ],
)
def test_what_a_kind_cannot_do_is_one_line(places, kind, arguments, message, tmp_path, capsys):
    given = [f"--model={places[kind]}", f"--out={tmp_path / 'a.png'}"]
    if arguments == ["train"]:
        given = [f"--workdir={places[kind]}", f"--config={write_recipe(tmp_path, small_recipe())}"]
    assert cgan(*arguments, *(given[:1] if arguments[0] == "evaluate" else given)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("damage", ["weights", "card", "network"])
def test_a_damaged_packed_model_is_refused_in_one_line(places, damage, tmp_path):
    folder = shutil.copytree(places["packed"], tmp_path / "damaged")
    if damage == "weights":
        content = bytearray((folder / packed.WEIGHTS).read_bytes())
        content[-1] ^= 1
        (folder / packed.WEIGHTS).write_bytes(content)
    elif damage == "card":
        (folder / packed.CARD).write_text("{}")
    else:
        info = json.loads((folder / workdir.CONFIG).read_text())
        info["recipe"]["generator"]["width"] = 8
        (folder / workdir.CONFIG).write_text(json_text.sealed({k: v for k, v in info.items() if k != json_text.SEAL}))
    message = {"weights": "altered since it was packed", "card": "cannot be read", "network": "not of the recipe's"}
    with pytest.raises(UsageError, match=message[damage]):
        Sampler(folder)


@pytest.mark.parametrize("name", models.names())
def test_a_packaged_model_is_within_its_limits_and_draws(name, capsys):
    folder = models.FOLDER / name
    assert sum(path.stat().st_size for path in folder.iterdir()) < 3_000_000
    assert packed.read_card(folder).off_by <= 2
    scores = workdir.read_metrics(folder, workdir.EVALUATIONS)
    assert scores and all(line["step"] == packed.read_card(folder).step for line in scores)
    sampler = Sampler(folder, batch_size=40)
    images = gathered(sampler.images(0, *spread(40, list(range(len(sampler.info.classes))))))
    assert images.std() > 20
    assert cgan("models", name) == 0 and "trained by" in capsys.readouterr().out
