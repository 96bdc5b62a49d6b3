"""What version 0.1 wrote still opens, resumes and gives the same images: a run, an exported model, synthetic datasets.

tests/stored/version_0_1.zip holds them: digits at 8x8 pixels, four channels wide, checkpoints at steps 4 and 8.
"""

import json
import shutil
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

from cgan_jax import exported
from cgan_jax.data.sources import load
from cgan_jax.run.checkpoint import Checkpoints
from cgan_jax.sampling.sampling import Sampler, gathered
from cgan_jax.train import train_and_evaluate
from tests.command_line import cgan

# Processors with other vector units round otherwise: a pixel may differ by a level, a weight by some last bits.
LEVELS, RELATIVE = 1, 1e-4


@pytest.fixture
def stored(tmp_path) -> Path:
    with zipfile.ZipFile(Path(__file__).with_name("stored") / "version_0_1.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path


def expected(stored: Path) -> dict[str, np.ndarray]:
    with np.load(stored / "images.npz") as arrays:
        return dict(arrays)


def assert_same_images(images: np.ndarray, others: np.ndarray) -> None:
    assert images.shape == others.shape and images.dtype == others.dtype == np.uint8
    assert np.abs(images.astype(int) - others).max() <= LEVELS


def test_a_run_is_drawn_from(stored):
    images = expected(stored)
    drawn = gathered(Sampler(stored / "run").images(5, images["labels"], np.tile(np.arange(2, dtype=np.int32), 10)))
    assert_same_images(drawn, images["images"])


def test_a_run_resumes_to_the_weights_it_had(stored, bare):
    before = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(Sampler(stored / "run").variables)])
    shutil.rmtree(stored / "run" / "checkpoints" / "8")
    (stored / "run" / "integrity" / "8.json").unlink()
    train_and_evaluate(json.loads((stored / "run" / "config.json").read_text())["recipe"], stored / "run")
    sampler = Sampler(stored / "run")
    after = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(sampler.variables)])
    assert sampler.step == 8
    np.testing.assert_allclose(after, before, rtol=RELATIVE, atol=RELATIVE * np.abs(before).max())
    checkpoints = Checkpoints(stored / "run", read_only=True)
    assert checkpoints.steps() == [4, 8]
    checkpoints.close()


def test_an_exported_model_is_drawn_from(stored):
    images = expected(stored)
    model = exported.load(stored / "model.cgan")
    assert_same_images(model(images["labels"], seed=5), images["images"])
    assert list(model.class_names) == images["class_names"].tolist()


@pytest.mark.parametrize(
    "arguments", [("tfds", "digits_synthetic", "train", "tfds"), ("image_folder", "", "train", "folder")]
)
def test_a_synthetic_dataset_is_read(stored, arguments):
    source, name, split, folder = arguments
    dataset = load(source, name, split, str(stored / folder), 8)
    images = expected(stored)
    assert np.bincount(dataset.labels).tolist() == [2] * 10
    for label in range(10):
        mine, its = (sorted(map(bytes, of["images"][of["labels"] == label])) for of in (dataset._asdict(), images))
        found = np.frombuffer(b"".join(mine), np.uint8).reshape(2, 8, 8, -1)
        assert_same_images(found[..., :1], np.frombuffer(b"".join(its), np.uint8).reshape(2, 8, 8, 1))


def test_the_commands_open_them(stored, capsys):
    assert cgan("sample", f"--workdir={stored / 'run'}", "--labels=3", f"--out={stored / 'out.png'}") == 0
    assert cgan("export", f"--workdir={stored / 'run'}", f"--out={stored / 'again.cgan'}") == 0
    model = f"--model={stored / 'model.cgan'}"
    assert cgan("synthesize", model, "--num_images=10", f"--out={stored / 'drawn'}") == 0
    assert cgan("evaluate", model, "--metrics=pixel_mse") == 2
    assert "an export of version 0.1, which does not name the dataset; export it again" in capsys.readouterr().err
    assert cgan("report", f"--workdir={stored / 'run'}", f"--out={stored / 'report.html'}") == 0
