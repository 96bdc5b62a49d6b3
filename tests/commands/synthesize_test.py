"""`cgan synthesize`: the images of `cgan sample`, as many of a class as asked for, through a kill, once and again."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.command_line import cgan, start
from tests.random_run import write_random_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from tests.conftest import small_recipe

    return write_random_run(tmp_path_factory.mktemp("synthesize") / "run", small_recipe())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def arrays(path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def test_the_images_are_those_of_sample(run, tmp_path):
    options = (f"--workdir={run}", "--num_images=20", "--seed=5", "--step=4")
    assert cgan("sample", *options, "--labels=all", f"--out={tmp_path / 'a.npz'}") == 0
    assert cgan("synthesize", *options, "--format=npz", f"--out={tmp_path / 'b'}") == 0
    sampled, made = arrays(tmp_path / "a.npz"), arrays(tmp_path / "b" / "images.npz")
    for label in range(10):
        both = [set_of["images"][set_of["labels"] == label].astype(int) for set_of in (sampled, made)]
        assert len(both[0]) == 2 and np.abs(both[0] - both[1]).max() <= 1


@pytest.mark.parametrize(
    ("balance", "counts"),
    [("uniform", [2, 2, 2, 1, 1, 1, 1, 1, 1, 1]), ("3=4,7=1", [0, 0, 0, 4, 0, 0, 0, 1, 0, 0]), ("dataset", None)],
)
def test_there_are_as_many_of_a_class_as_asked_for(run, tmp_path, balance, counts):
    out = tmp_path / "out"
    num = 13 if counts else 1797  # as many as there are digits
    total = [] if balance[0].isdigit() else [f"--num_images={num}"]
    assert cgan("synthesize", f"--workdir={run}", f"--balance={balance}", "--format=npz", f"--out={out}", *total) == 0
    expected = counts or [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # sklearn's load_digits().target
    assert np.bincount(arrays(out / "images.npz")["labels"], minlength=10).tolist() == expected
    card = json.loads((out / "card.json").read_text())
    assert [one["images"] for one in card["classes"]] == expected and card["step"] == 8


@pytest.mark.parametrize("form", ["image_folder", "tar", "tfds", "npz"])
def test_done_twice_it_is_the_same_bytes_and_another_seed_is_not(run, tmp_path, form):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        options = (f"--format={form}", "--num_images=12", f"--seed={seed}", f"--out={tmp_path / name}")
        assert cgan("synthesize", f"--workdir={run}", *options) == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a").keys() == contents(tmp_path / "c").keys()
    assert contents(tmp_path / "a") != contents(tmp_path / "c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


@pytest.mark.parametrize("force", [[], ["--force"]], ids=["without force", "by force"])
def test_pictures_of_others_are_not_mixed_in(run, tmp_path, capsys, force):
    """A photograph of yours, or what an earlier and larger dataset has more."""
    (tmp_path / "out" / "7").mkdir(parents=True)
    (tmp_path / "out" / "7" / "000001.png").write_text("mine")
    asked = ("synthesize", f"--workdir={run}", f"--out={tmp_path / 'out'}", *force)
    assert cgan(*asked, "--num_images=10") == 2
    assert "out/7/000001.png is not of this dataset; move it away" in capsys.readouterr().err
    assert [path.read_text() for path in (tmp_path / "out").rglob("*.png")] == ["mine"]
    assert cgan(*asked, "--num_images=10", "--format=npz") == 0


def test_nothing_is_replaced_without_force_and_with_it_only_what_is_written(run, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ("synthesize", f"--workdir={run}", "--num_images=10", f"--out={out}")
    assert cgan(*arguments) == 0
    (out / "3" / "mine.txt").write_text("mine")
    before = contents(tmp_path)
    assert cgan(*arguments, "--seed=1") == 2
    assert "README.md exists already; --force replaces it" in capsys.readouterr().err
    assert contents(tmp_path) == before
    assert cgan(*arguments, "--seed=1", "--force") == 0
    after = contents(tmp_path)
    assert after.keys() == before.keys() and after["out/3/mine.txt"] == b"mine"
    assert after["out/3/000000.png"] != before["out/3/000000.png"]


def test_an_unconditional_run_has_one_class(tmp_path, recipe, capsys):
    recipe["dataset"]["conditional"] = False
    write_random_run(tmp_path / "run", recipe)
    arguments = ("synthesize", f"--workdir={tmp_path / 'run'}", "--num_images=3", f"--out={tmp_path / 'out'}")
    assert cgan(*arguments, "--balance=dataset") == 2
    assert "this run is unconditional" in capsys.readouterr().err
    assert cgan(*arguments) == 0
    assert np.asarray(Image.open(tmp_path / "out" / "image" / "000002.png")).shape == (8, 8)


def test_unknown_formats_and_classes_are_one_line(run, tmp_path, capsys):
    for option, message in (
        ("--format=zip", "unknown format 'zip'; there are: image_folder, npz, tar, tfds"),
        ("--balance=cat=3", "unknown class 'cat'; there are 10: 0 to 9"),
        ("--balance=some", "--balance must be uniform, dataset or counts such as cat=5000,dog=1000, given 'some'"),
        ("--batch_stats=standing", "the generator of dcgan has no batch normalisation"),
    ):
        assert cgan("synthesize", f"--workdir={run}", option, f"--out={tmp_path / 'out'}") == 2
        assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow  # three real processes, one of which is killed
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_or_interrupted_it_goes_on_to_the_same_bytes(run, tmp_path, number):
    def process(name):
        options = ("--num_images=16000", "--format=image_folder", f"--out={tmp_path / name}")
        return start("synthesize", f"--workdir={run}", *options)

    first, state = process("out"), tmp_path / ".out.partial" / "state.json"
    while not (state.exists() and json.loads(state.read_text())["shards"] >= 1):
        assert first.poll() is None, first.communicate()
        time.sleep(0.01)
    first.send_signal(number)
    out, error = first.communicate(timeout=60)
    assert first.returncode == (-9 if number == signal.SIGKILL else 75), (out, error)
    assert not (tmp_path / "out").exists()
    second, whole = process("out"), process("whole")
    for one in (second, whole):
        out, error = one.communicate(timeout=400)
        assert one.returncode == 0, error
        assert ("going on after" in out) == (one is second)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
