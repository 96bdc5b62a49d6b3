"""`import cgan_jax as cgan`: what its docstrings show runs, and it does what the commands do."""

import doctest
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from PIL import Image

import cgan_jax as cgan
from cgan_jax import api
from cgan_jax.data import sources
from cgan_jax.errors import MissingData, UsageError
from cgan_jax.run import workdir
from tests.command_line import cgan as command
from tests.command_line import write_recipe
from tests.conftest import small_recipe
from tests.random_run import write_random_run

DIGITS = sources.load("digits", "", "all", "", 8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_random_run(tmp_path_factory.mktemp("api") / "run", small_recipe())


@pytest.fixture(scope="module")
def model(run):
    return cgan.load(run)


EXAMPLES = [example for example in doctest.DocTestFinder().find(api, "cgan") if example.examples]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_examples_of_docstrings_run(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.DocTestRunner().run(example)
    assert tried and not failed


def test_every_public_function_has_an_example_or_needs_none():
    public = [getattr(api, name) for name in cgan.__all__]
    assert all(inspect.getdoc(item) for item in public)
    shown = {example.name.split(".")[-1] for example in EXAMPLES}
    assert {"load", "train", "recipe", "recipes", "sample", "latents", "interpolate", "logits", "evaluate"} <= shown


def test_the_package_is_imported_in_no_time_and_a_file_of_a_functions_name_can_be_called():
    code = """
import sys, time
began = time.perf_counter()
import cgan_jax as cgan
print(time.perf_counter() - began, [name for name in ("jax", "numpy", "absl") if name in sys.modules])
import cgan_jax.train, cgan_jax.recipe
print(cgan.recipe("digits").architecture, cgan.train.train_and_evaluate.__name__, callable(cgan.train))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    first, second = done.stdout.splitlines()
    assert float(first.split()[0]) < 0.2 and first.endswith(" []")
    assert second == "dcgan train_and_evaluate True"


def test_its_images_are_those_of_the_command(run, model, tmp_path):
    options = ("--labels=7,3", "--num_images=5", "--seed=9", "--truncation=0.7")
    assert command("sample", f"--workdir={run}", *options, f"--out={tmp_path / 'a.npz'}") == 0
    drawn = model.sample([7, "3"], num_images=5, seed=9, truncation=0.7)
    with np.load(tmp_path / "a.npz") as expected:
        assert np.abs(drawn.images.astype(int) - expected["images"]).max() <= 1 and drawn.images.std() > 5
        np.testing.assert_array_equal(drawn.labels, expected["labels"])
        assert list(drawn.class_names) == expected["class_names"].tolist()


def test_a_class_or_a_step_is_a_number_in_any_form(model):
    drawn = model.sample(3, num_images=2).images
    for label in (np.array(3), np.int64(3), np.array([3]), "3", ["3"], (3,)):
        np.testing.assert_array_equal(model.sample(label, num_images=np.int64(2), seed=np.uint32(0)).images, drawn)
    assert cgan.load("digits", step="3125").step == cgan.load("digits", step=3125).step == 3125


def test_latents_of_ones_own_draw_the_images_that_they_stand_for(model):
    drawn = model.sample([3, 7], num_images=40, seed=5)
    again = model.sample(drawn.labels, latents=model.latents(drawn.labels, seed=5))
    assert np.abs(again.images.astype(int) - drawn.images).max() <= 1
    of_another = model.sample("4", latents=model.latents([3] * 2, seed=5))
    assert of_another.labels.tolist() == [4, 4]
    assert np.abs(of_another.images.astype(int) - drawn.images[:2]).max() > 5


def test_the_ends_of_a_way_are_images_of_its_classes(model):
    ways = model.interpolate(3, "7", steps=4, num_ways=2, seed=5)
    assert ways.images.shape == (2, 4, 8, 8, 1) and ways.names == ("3 to 7", "3 to 7")
    latents = model.latents([3, 3], seed=5)
    for place, label in ((0, 3), (-1, 7)):
        end = model.sample(label, latents=latents).images.astype(int)
        assert np.abs(ways.images[:, place] - end).max() <= 1
    other = model.interpolate(3, steps=3, seed=5, to_seed=6, num_ways=2)
    assert np.abs(other.images[:, -1] - model.sample(3, latents=model.latents([3, 3], 6)).images.astype(int)).max() <= 1


def test_what_it_saves_is_read_again(model, tmp_path):
    drawn = model.sample([3, 7], num_images=5)
    assert drawn.save(tmp_path / "new" / "a.png") == tmp_path / "new" / "a.png"
    assert Image.open(tmp_path / "new" / "a.png").size == drawn.grid().size
    drawn.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["images"], drawn.images)
    drawn.save(tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.glob("folder/7/*")) == ["000000.png", "000001.png"]
    np.testing.assert_array_equal(Image.open(tmp_path / "folder" / "7" / "000001.png"), drawn.images[4, ..., 0])
    moving = Image.open(model.interpolate(3, 7, steps=4).save(tmp_path / "a.gif"))
    assert moving.n_frames == 6
    assert drawn._repr_png_()[1:4] == b"PNG"


def test_scores_are_those_of_the_command(run, model, tmp_path):
    asked = ("--metrics=pixel_mse", "--num_images=20", f"--json={tmp_path / 'a.json'}")
    assert command("evaluate", f"--workdir={run}", *asked) == 0
    scored = model.evaluate(["pixel_mse"], num_images=20)
    assert scored.scores == json.loads((tmp_path / "a.json").read_text())["scores"]
    assert model.scores == {name: value for name, (value,) in scored.scores.items()}, "of the command alone"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.sample("cat"), "unknown class 'cat'; there are 10: 0 to 9"),
        (lambda model: model.sample(10), "unknown class '#10'"),
        (lambda model: model.sample([1.5]), "a class is given by its name or number, given 1.5"),
        (lambda model: model.sample([]), "labels names no class"),
        (lambda model: model.sample(num_images=0), "num_images must be a whole number of at least 1, given 0"),
        (lambda model: model.sample(seed=-1), "a seed must be a whole number from 0 to 4294967295, given -1"),
        (lambda model: model.sample(truncation=0), "truncation must be a number above 0"),
        (lambda model: model.sample(3, latents=np.zeros((2, 5))), r"latents must be \[N, 4\], given float32 \[2, 5\]"),
        (lambda model: model.sample(3, latents=np.zeros((2, 4)), truncation=1.0), "truncation belongs to a seed"),
        (lambda model: model.sample(-1), "unknown class '#-1'"),
        (lambda model: model.sample(True), "by its name or number, given True"),
        (lambda model: model.sample([3, 4, 5], latents=np.zeros((2, 4))), "one for each of 2, given 3"),
        (lambda model: model.interpolate(3), "give the class to go to"),
        (lambda model: model.interpolate(3, 4, steps=1), "steps must be a whole number of at least 2, given 1"),
        (lambda model: model.interpolate(3, "3"), "nothing changes on the way"),
        (lambda model: model.interpolate(3, to_seed=0), "nothing changes on the way"),
        (lambda model: model.interpolate("3,8", 5), "one class is needed, given '3,8'"),
        (lambda model: model.interpolate("all", 5), "one class is needed, given 'all'"),
        (lambda model: model.sample(1.5), "by its name or number, given 1.5"),
        (lambda model: model.sample(num_images=2.5), "num_images must be a whole number of at least 1, given 2.5"),
        (lambda model: model.sample(num_images="5"), "num_images must be a whole number of at least 1, given '5'"),
        (lambda model: model.sample(seed=None), "a seed must be a whole number .* given None"),
        (lambda model: model.sample(seed="x"), "a seed must be a whole number .* given 'x'"),
        (lambda model: model.logits(np.zeros((0, 8, 8, 1), np.uint8), 0), r"given uint8 \[0, 8, 8, 1\]"),
        (lambda model: model.evaluate("ms_ssim", seeds=0), "seeds must be a whole number of at least 1, given 0"),
        (lambda model: cgan.load("digits").evaluate("ms_ssim", record=True), "digits keeps the scores that it came"),
        (lambda model: cgan.load("digits", step="last"), "must be a generator step or best, given 'last'"),
        (lambda model: cgan.load("digits", step="9" * 5000), "must be a generator step or best, given '9999"),
        (lambda model: model.logits(np.zeros((1, 8, 8, 3), np.uint8), 0), r"uint8 \[N, 8, 8, 1\], given uint8 \[1, 8"),
        (lambda model: model.evaluate("fidd"), "unknown metric 'fidd'"),
        (lambda model: model.sample(3).save("a.jpg"), "not .jpg"),
        (lambda model: model.interpolate(3, 4).save("a.npz"), "not .npz"),
        (lambda model: model.sample(3).save("gs://bucket/a.png"), "gs://bucket/a.png must be on this machine"),
        (lambda model: cgan.load("digit"), "did you mean digits"),
        (lambda model: cgan.load("digits", step=7), "holds step 3125 alone"),
        (lambda model: cgan.recipe("digit"), "did you mean digits"),
        (lambda model: cgan.Run("none"), "none holds no run"),
        (lambda model: cgan.train({"seed": 1}, "none"), "the recipe lacks"),
    ],
)
def test_wrong_use_is_one_line(model, call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message) as raised:
        call(model)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_float64_is_refused(recipe, tmp_path):
    with jax.enable_x64(True):
        for call in (lambda: cgan.load("digits"), lambda: cgan.train(recipe, tmp_path / "run")):
            with pytest.raises(UsageError, match="jax_enable_x64 is on"):
                call()


def test_a_training_is_that_of_the_command(recipe, tmp_path, bare, capsys):
    lines, began = [], time.perf_counter()
    by_call = cgan.train(recipe, tmp_path / "call", on_log=lines.append)
    (waited,) = re.findall(r"first call done ([\d.]+) s after", capsys.readouterr().out)
    assert float(waited) < time.perf_counter() - began
    config = write_recipe(tmp_path, recipe)
    assert command("train", f"--config={config}", f"--workdir={tmp_path / 'command'}") == 0
    ours, theirs = (jax.tree.leaves(cgan.load(tmp_path / name)._sampler.variables) for name in ("call", "command"))
    for mine, its in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, its)
    assert lines == workdir.read_metrics(by_call.workdir)
    assert by_call.metrics["kimg"].tolist() == [0.032, 0.064, 0.096, 0.128]
    assert np.isfinite(by_call.metrics["train/d_loss"]).all()
    with pytest.raises(KeyError, match=r"unknown name 'd_loss'; there are: step, .*did you mean train/d_loss\?"):
        by_call.metrics["d_loss"]
    assert by_call.load(step=4).step == 4


def test_a_training_tells_its_pictures_and_shows_its_curves(recipe, tmp_path):
    pictures = []
    run = cgan.train(recipe, tmp_path, on_sample=lambda picture, kimg: pictures.append((picture.size, kimg)))
    assert [kimg for _, kimg in pictures] == [0.0, 0.064, 0.128]
    assert run.samples().size == pictures[-1][0] and run.curves().width > 500


def batches(images, labels, names, size):
    for start in range(0, len(images), size):
        yield images[start : start + size], labels[start : start + size], names


@pytest.mark.parametrize("form", ["arrays", "batches"])
def test_images_are_given_as_arrays_or_batches(recipe, tmp_path, bare, form):
    images = np.stack([np.full((8, 8, 3), level, np.uint8) for level in range(200)])
    labels = np.arange(200) % 2
    given = (images, labels, ["dark", "light"])
    run = cgan.train(recipe, tmp_path / "run", given if form == "arrays" else batches(*given, 64))
    info = workdir.read_info(run.workdir)
    assert (info.channels, info.class_names, info.num_images) == (3, ["dark", "light"], 200)
    assert run.load().sample("dark", num_images=3).images.shape == (3, 8, 8, 3)
    cgan.train(recipe, tmp_path / "run", given)  # goes on: all is done
    with pytest.raises(UsageError, match="the dataset has changed"):
        cgan.train(recipe, tmp_path / "run", (images[:100], labels[:100], ["dark", "light"]))
    with pytest.raises(MissingData, match="were given as arrays"):
        run.load().evaluate("pixel_mse", num_images=10)


IMAGES = np.zeros((4, 8, 8, 1), np.uint8)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ((IMAGES.astype(float), [0] * 4, ["a"]), r"images must be uint8 .*given float64"),
        ((IMAGES[:, :4], [0] * 4, ["a"]), r"given uint8 \[4, 4, 8, 1\]"),
        ((IMAGES, [0] * 3, ["a"]), r"labels must be whole numbers \[4\], given int64 \[3\]"),
        ((IMAGES, [0, 1, 2, 0], ["a", "b"]), "labels must be 0 to 1"),
        ((IMAGES, [0] * 4, []), "the same class_names, one or more"),
        ([(IMAGES, [0] * 4, ["a"]), (IMAGES, [0] * 4, ["b"])], "the same class_names"),
        ([IMAGES], "dataset must be a name"),
        ([(IMAGES, [0] * 4, ["a"]), (IMAGES[:, :4, :4], [0] * 4, ["a"])], "images of one shape"),
        ("cifar11", "cifar11"),
    ],
)
def test_wrong_arrays_are_refused_in_one_line(recipe, tmp_path, dataset, message):
    with pytest.raises(UsageError, match=message):
        cgan.train(recipe, tmp_path / "run", dataset)
    assert not (tmp_path / "run").exists()


def interrupting(times: int):
    """A callback that sends SIGINT to this process at the first line of the log."""

    def on_log(line):
        for _ in range(times if line["step"] == 2 else 0):
            os.kill(os.getpid(), signal.SIGINT)

    return on_log


def test_ctrl_c_saves_and_raises_and_the_next_call_goes_on(recipe, tmp_path, bare):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(cgan.Interrupted, match="stopped and saved at step"):
        cgan.train(recipe, tmp_path, on_log=interrupting(1))
    assert signal.getsignal(signal.SIGINT) is before
    assert 0 < cgan.load(tmp_path).step < 8
    cgan.train(recipe, tmp_path)
    assert cgan.load(tmp_path).step == 8


def test_a_second_ctrl_c_raises_at_once(recipe, tmp_path, bare):
    with pytest.raises(KeyboardInterrupt):
        cgan.train(recipe, tmp_path, on_log=interrupting(2))


def test_a_training_runs_in_a_thread(recipe, tmp_path, bare):
    thread = threading.Thread(target=cgan.train, args=(recipe, tmp_path / "run"))
    thread.start()
    thread.join()
    assert cgan.load(tmp_path / "run").step == 8
