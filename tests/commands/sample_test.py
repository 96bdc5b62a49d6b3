"""`cgan sample`: which images, in which form, and never over somebody's files."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from cgan_jax.commands import sample
from tests.command_line import cgan
from tests.random_run import write_random_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from tests.conftest import small_recipe

    return write_random_run(tmp_path_factory.mktemp("sample") / "run", small_recipe())


def arrays(path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def test_an_archive_holds_images_labels_and_names_in_the_order_asked_for(run, tmp_path):
    assert cgan("sample", f"--workdir={run}", "--labels=7,3", "--num_images=5", f"--out={tmp_path / 'a.npz'}") == 0
    result = arrays(tmp_path / "a.npz")
    assert result["images"].shape == (5, 8, 8, 1) and result["images"].dtype == np.uint8
    assert result["labels"].tolist() == [7, 7, 7, 3, 3] and result["labels"].dtype == np.int32
    assert result["class_names"].tolist() == [str(i) for i in range(10)]


def test_an_image_hangs_on_seed_class_and_place_alone(run, tmp_path):
    few, many, other = (tmp_path / f"{name}.npz" for name in ("few", "many", "other"))
    assert cgan("sample", f"--workdir={run}", "--labels=3", "--num_images=3", f"--out={few}") == 0
    assert cgan("sample", f"--workdir={run}", "--labels=all", "--num_images=200", f"--out={many}") == 0
    assert cgan("sample", f"--workdir={run}", "--labels=3", "--num_images=3", "--seed=1", f"--out={other}") == 0
    few, many, other = arrays(few), arrays(many), arrays(other)
    threes = many["images"][many["labels"] == 3][:3]
    assert np.abs(few["images"].astype(int) - threes.astype(int)).max() <= 1
    assert np.abs(few["images"].astype(int) - other["images"].astype(int)).max() > 1


def test_a_grid_has_a_row_per_class(run, tmp_path):
    assert cgan("sample", f"--workdir={run}", "--labels=1,2,3", "--num_images=12", f"--out={tmp_path / 'a.png'}") == 0
    width, height = Image.open(tmp_path / "a.png").size
    assert height == 3 * 66 + 2 and 4 * 66 < width < 4 * 66 + 40


def test_a_grid_wraps_and_is_as_wide_and_large_as_asked_for(run, tmp_path):
    options = ("sample", f"--workdir={run}", "--labels=3,7", "--num_images=64")
    assert cgan(*options, f"--out={tmp_path / 'a.png'}") == 0
    width, height = Image.open(tmp_path / "a.png").size
    assert height == 8 * 66 + 2 and 10 * 66 < width < 10 * 66 + 40
    assert cgan(*options, "--columns=16", "--scale=2", f"--out={tmp_path / 'b.png'}") == 0
    width, height = Image.open(tmp_path / "b.png").size
    assert height == 4 * (2 * 8 + 2) + 2 and 16 * (2 * 8 + 2) < width < 16 * (2 * 8 + 2) + 40


@pytest.mark.parametrize("option", ["--columns=3", "--scale=2"])
def test_what_belongs_to_grids_is_refused_elsewhere(run, tmp_path, option, capsys):
    assert cgan("sample", f"--workdir={run}", "--labels=3", option, f"--out={tmp_path / 'a.npz'}") == 2
    assert "is for a .png" in capsys.readouterr().err


def test_a_folder_has_a_sub_folder_per_class(run, tmp_path):
    out = tmp_path / "pictures"
    assert cgan("sample", f"--workdir={run}", "--labels=1,2", "--num_images=3", f"--out={out}") == 0
    files = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    assert files == ["1/000000.png", "1/000001.png", "2/000000.png"]
    assert np.asarray(Image.open(out / "1" / "000000.png")).shape == (8, 8)
    assert [p.name for p in tmp_path.iterdir()] == ["pictures"]


@pytest.mark.parametrize("name", ["a.png", "a.npz", "folder"])
def test_nothing_is_replaced_without_force(run, tmp_path, capsys, name):
    arguments = ("sample", f"--workdir={run}", "--labels=1", "--num_images=2", f"--out={tmp_path / name}")
    assert cgan(*arguments) == 0
    other = tmp_path / "folder" / "mine.txt"
    if name == "folder":
        other.write_text("mine")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert cgan(*arguments, "--seed=9") == 2
    assert "--force" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert cgan(*arguments, "--seed=9", "--force") == 0
    after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert after.keys() == before.keys() and after != before
    assert name != "folder" or other.read_text() == "mine"


def test_an_older_checkpoint_can_be_asked_for(run, tmp_path, capsys):
    assert cgan("sample", f"--workdir={run}", "--step=4", f"--out={tmp_path / 'a.png'}") == 0
    assert "of step 4" in capsys.readouterr().out
    assert cgan("sample", f"--workdir={run}", "--step=5", f"--out={tmp_path / 'b.png'}") == 2
    assert "no checkpoint at step 5; there are: 4, 8" in capsys.readouterr().err


def test_on_a_terminal_the_class_is_asked_for_until_it_is_one(run, tmp_path, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

        def fileno(self):
            return always_ready.fileno()

    with open(os.devnull) as always_ready:
        monkeypatch.setattr("sys.stdin", Terminal("cat\n11\n4\n"))
        assert cgan("sample", f"--workdir={run}", "--num_images=2", f"--out={tmp_path / 'a.npz'}") == 0
        shown = capsys.readouterr().out
        assert "    9  9" in shown and "unknown class 'cat'" in shown and "unknown class '11'" in shown
        assert arrays(tmp_path / "a.npz")["labels"].tolist() == [4, 4]
        monkeypatch.setattr("sys.stdin", Terminal(""))  # Ctrl-D
        assert cgan("sample", f"--workdir={run}", f"--out={tmp_path / 'b.npz'}") == 2
        assert not (tmp_path / "b.npz").exists()


def test_elsewhere_all_classes_are_drawn(run, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert cgan("sample", f"--workdir={run}", "--num_images=10", f"--out={tmp_path / 'a.npz'}") == 0
    assert arrays(tmp_path / "a.npz")["labels"].tolist() == list(range(10))


def test_the_limit_of_pictures_in_memory_is_the_documented_one():
    assert sample._MOST_IN_MEMORY == 10_000


def test_truncated_images_are_of_latents_drawn_again(run, tmp_path):
    options = ("sample", f"--workdir={run}", "--labels=3", "--num_images=4")
    for name, truncation in (("none", []), ("wide", ["--truncation=30"]), ("narrow", ["--truncation=0.1"])):
        assert cgan(*options, *truncation, f"--out={tmp_path / name}.npz") == 0
    plain, wide, narrow = (
        arrays(tmp_path / f"{name}.npz")["images"].astype(int) for name in ("none", "wide", "narrow")
    )
    assert np.abs(plain - wide).max() <= 1
    assert narrow.std(axis=0).mean() < plain.std(axis=0).mean() / 2, "latents near 0 are alike"


def test_a_way_between_latents_has_a_row_per_class(run, tmp_path):
    options = ("sample", f"--workdir={run}", "--labels=1,2,3", "--interpolate=latents", "--frames=4")
    assert cgan(*options, f"--out={tmp_path / 'a.png'}") == 0
    width, height = Image.open(tmp_path / "a.png").size
    assert height == 3 * 66 + 2 and 4 * 66 < width < 4 * 66 + 40


def test_a_way_between_two_classes_moves_there_and_back(run, tmp_path, capsys):
    options = ("sample", f"--workdir={run}", "--interpolate=labels", "--num_images=2", "--frames=5")
    assert cgan(*options, "--labels=1,2,3", f"--out={tmp_path / 'a.gif'}") == 2
    assert "--interpolate=labels goes between two classes, such as --labels=3,7; given 3" in capsys.readouterr().err
    assert cgan(*options, "--labels=1,2", f"--out={tmp_path / 'a.gif'}") == 0
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.n_frames == 8 and animation.size == (2 * 66 + 2, 66 + 2)
    assert "wrote 10 images of step 8" in capsys.readouterr().out


def test_a_question_to_a_classifier_that_is_not_there_is_one_line(run, tmp_path, tmp_path_factory, monkeypatch, capsys):
    monkeypatch.setenv("CGAN_CACHE_DIR", str(tmp_path_factory.mktemp("empty")))
    for option in ("--nearest=2", "--sort_by=confidence"):
        assert cgan("sample", f"--workdir={run}", "--labels=1", option, f"--out={tmp_path / 'a.png'}") == 2
        assert "train one with cgan train-classifier --dataset=digits" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def judged(run, tmp_path, monkeypatch):
    """The run, with a classifier of random numbers for its digits."""
    import jax

    from cgan_jax.data import sources
    from cgan_jax.evaluation import classifier_training as training
    from cgan_jax.evaluation.features import classifier

    dataset = sources.load("digits", "digits", "all", "", 8)
    description = training.describe(training.plan_for(dataset, 1, False, 0), dataset, "digits")
    shapes = jax.eval_shape(lambda: classifier.init(description, jax.random.key(0)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: np.abs(rng.normal(size=x.shape)).astype(np.float32), shapes)
    # Small and of both signs, or it would be certain of everything.
    variables["params"] = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32) / 10, shapes["params"])
    monkeypatch.setenv("CGAN_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "cache" / classifier.place("digits", "digits", "", 8, 1, dataset.class_names)
    path.parent.mkdir(parents=True)
    classifier.save(path, description, variables)
    return run


def test_each_image_stands_before_its_nearest_in_the_order_of_confidence(judged, tmp_path, capsys):
    options = ("sample", f"--workdir={judged}", "--labels=1,2", "--num_images=6", "--sort_by=confidence")
    assert cgan(*options, "--nearest=2", f"--out={tmp_path / 'a.png'}") == 0
    width, height = Image.open(tmp_path / "a.png").size
    assert height == 2 * 66 + 2 and (3 * 4 - 1) * 66 < width < (3 * 4 - 1) * 66 + 40
    told = capsys.readouterr().out
    assert "each before its 2 nearest training images" in told and "of training images to the nearest other" in told
    assert cgan(*options, f"--out={tmp_path / 'sorted.npz'}") == 0
    assert cgan(*options[:-1], f"--out={tmp_path / 'plain.npz'}") == 0
    ordered, plain = arrays(tmp_path / "sorted.npz"), arrays(tmp_path / "plain.npz")
    assert ordered["labels"].tolist() == plain["labels"].tolist() == [1, 1, 1, 2, 2, 2]
    assert np.any(ordered["images"] != plain["images"])
    assert sorted(image.tobytes() for image in ordered["images"]) == sorted(
        image.tobytes() for image in plain["images"]
    )
