"""`cgan train-classifier`: it learns, its file is found by evaluate, and an interrupted training goes on."""

import re

import numpy as np
import pytest
from PIL import Image

from cgan_jax import recipe_files
from cgan_jax.data import sources
from cgan_jax.errors import UsageError
from cgan_jax.evaluation import classifier_training as training
from cgan_jax.evaluation import evaluation
from cgan_jax.evaluation.features import classifier
from cgan_jax.run import signals
from cgan_jax.sampling import image_writers
from tests.command_line import cgan

ARGUMENTS = ("train-classifier", "--dataset=digits", "--image_size=8")
SECTION = {"source": "digits", "name": "digits", "image_size": 8, "data_dir": ""}


@pytest.fixture(autouse=True)
def _narrow(monkeypatch):
    """Networks of a few channels: the programs of tests are not optimised."""
    monkeypatch.setattr(training, "_NARROW", (8, 16))


def test_it_learns_the_digits_and_evaluate_finds_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CGAN_CACHE_DIR", str(tmp_path))
    assert cgan(*ARGUMENTS, "--epochs=6") == 0
    digits = sources.load("digits", "", "test", "", 8)
    network = evaluation.find_network("classifier", SECTION, 1, digits.class_names)
    found = np.argmax(np.asarray(network.extract(network.variables, digits.images).logits), axis=1)
    accuracy = np.mean(found == digits.labels)
    [path] = (tmp_path / "classifiers").iterdir()
    description = classifier.read(path)[0]
    assert accuracy > 0.4 and description.accuracy == pytest.approx(accuracy, abs=0.003)
    assert f"{100 * description.accuracy:.2f}% of 359 test images" in capsys.readouterr().out
    assert "digits train, 1438 images" in description.dataset and "test, 359 images" in description.tested_on
    assert cgan(*ARGUMENTS) == 2
    assert "exists; --force" in capsys.readouterr().err


def test_a_folder_of_ones_own_pictures_has_a_classifier_that_is_found(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CGAN_CACHE_DIR", str(tmp_path / "cache"))
    digits = sources.load("digits", "", "test", "", 8)
    images, labels = np.repeat(digits.images[:60], 3, axis=-1), digits.labels[:60] % 2
    paths = list(image_writers.image_paths(tmp_path / "pictures", labels, np.arange(60), ("even", "odd")))
    image_writers.write_folder(tmp_path / "pictures", [images], paths)
    section = {"source": "image_folder", "name": "", "data_dir": str(tmp_path / "pictures"), "image_size": 8}
    with pytest.raises(UsageError) as raised:
        evaluation.find_network("classifier", section, 3, ("even", "odd"))
    command = re.search(r"cgan (train-classifier [^(]*) \(", str(raised.value))[1].split()
    assert cgan(*command, "--epochs=1") == 0
    assert evaluation.find_network("classifier", section, 3, ("even", "odd")).class_names == ("even", "odd")


def test_a_recipe_says_how_its_images_are_made(monkeypatch, tmp_path, capsys):
    """Some classes of wide pictures, padded: the classifier is that of the recipe, and a tenth is not learned."""
    monkeypatch.setenv("CGAN_CACHE_DIR", str(tmp_path / "cache"))
    for name, grey in (("dark", 0), ("light", 255), ("other", 100)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(20):
            Image.new("L", (16, 8), abs(grey - i)).save(tmp_path / "pictures" / name / f"{i}.png")
    made = {"data_dir": str(tmp_path / "pictures"), "image_size": 8, "fit": "pad", "classes": "dark,light"}
    section = {**recipe_files.load("images").dataset.to_dict(), **made}
    with pytest.raises(UsageError) as raised:
        evaluation.find_network("classifier", section, 1, ("dark", "light"))
    command = re.search(r"cgan (train-classifier [^(]*) \(", str(raised.value))[1].split()
    assert cgan(*command, "--epochs=1") == 0
    assert "of 4 held-out images are right" in capsys.readouterr().out
    assert evaluation.find_network("classifier", section, 1, ("dark", "light")).class_names == ("dark", "light")


def test_a_tenth_is_held_out_of_the_training():
    digits = sources.load("digits", "", "test", "", 8)
    learned, kept = training.held_out(digits)
    assert (len(learned.labels), len(kept.labels)) == (324, 35)
    together = np.concatenate([learned.images, kept.images]).reshape(359, -1)
    assert sorted(map(bytes, together)) == sorted(map(bytes, digits.images.reshape(359, -1)))
    assert len(set(kept.labels)) > 5, "drawn at random, not from an end"


def test_the_packaged_classifier_stays_in_use(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CGAN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(classifier, "is_packaged", lambda *_: True)
    assert cgan(*ARGUMENTS, "--epochs=1") == 0
    assert "the packaged classifier stays in use; cgan evaluate --classifier=" in capsys.readouterr().out


def test_interrupted_it_goes_on_to_the_same_weights(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CGAN_CACHE_DIR", str(tmp_path))
    assert cgan(*ARGUMENTS, "--epochs=1", f"--out={tmp_path / 'whole.npz'}") == 0

    class Soon(signals.StopRequest):
        asked = 0

        @property
        def requested(self):
            Soon.asked += 1
            return Soon.asked == 4

        @requested.setter
        def requested(self, _):
            pass

    monkeypatch.setattr(signals, "StopRequest", Soon)
    halves = (*ARGUMENTS, "--epochs=1", f"--out={tmp_path / 'halves.npz'}")
    assert cgan(*halves) == 75
    assert "kept step 4 of 11; run the same command again" in capsys.readouterr().err
    assert not (tmp_path / "halves.npz").exists()
    assert cgan(*halves) == 0
    assert sorted(path.name for path in tmp_path.glob("*.npz*")) == ["halves.npz", "whole.npz"]
    whole, halves = (classifier.read(tmp_path / f"{name}.npz")[1] for name in ("whole", "halves"))
    for layer in whole["params"]:
        for name, value in whole["params"][layer].items():
            assert np.array_equal(value, halves["params"][layer][name])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "--dataset=NAME or --config=RECIPE is needed"),
        (["--dataset=digits", "--image_size=4"], "image_size must be at least 8"),
        (["--dataset=digits", "--image_size=30"], "30"),
        (["--dataset=digits", "--epochs=0"], "--epochs=0: 0 is not a positive integer"),
        (["--dataset=digits", "--split=half"], "'half'"),
        (["--dataset=digits", "--out=c.pt"], "ends in .npz"),
        (["--dataset=cifar10", "--data_dir=none"], "cgan prepare-data --dataset=cifar10"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_one_line(arguments, line, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CGAN_CACHE_DIR", str(tmp_path))
    assert cgan("train-classifier", *arguments) == 2
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1
    assert not any(tmp_path.iterdir())
