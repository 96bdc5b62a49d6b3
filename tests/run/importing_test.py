"""`cgan import`: a run of StudioGAN's networks that other commands take; files of anything else are one line."""

import json

import numpy as np
import pytest
from PIL import Image

import cgan_jax
from cgan_jax.run import workdir
from tests.command_line import cgan, write_recipe
from tests.conftest import small_recipe
from tests.torch_files import pickled, zipped

torch = pytest.importorskip("torch", reason="the extra [reference] brings PyTorch, to compare with")
theirs = pytest.importorskip("tests.studiogan_networks")

CLASSES = ["cat", "dog", "ox"]
Y = torch.tensor([0, 2, 1, 2])
Z, X = (
    torch.tensor(np.random.default_rng(0).uniform(-1, 1, size), dtype=torch.float32)
    for size in ((4, 12), (4, 3, 32, 32))
)
GENERATOR, DISCRIMINATOR = "model=G_ema-best-weights-step=98000.pth", "model=D-best-weights-step=98000.pth"


@pytest.fixture(scope="module")
def networks():
    generator = theirs.trained(theirs.Generator("sngan", 12, 2, len(CLASSES)), Z, Y)
    return generator, theirs.trained(theirs.Discriminator("sngan", 4, len(CLASSES)), X, Y)


@pytest.fixture
def folder(networks, tmp_path, monkeypatch):
    """The current folder, with both files as StudioGAN saves them, a recipe and its images."""
    monkeypatch.chdir(tmp_path)
    for network, name, beside in zip(
        networks, (GENERATOR, DISCRIMINATOR), ({}, {"best_fid": np.float64(4)}), strict=True
    ):
        torch.save({"state_dict": network.state_dict(), **beside}, tmp_path / name)
    for name in CLASSES:
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "images" / name / "0.png")
    write_recipe(tmp_path, recipe_of("sngan", str(tmp_path / "images")))
    return tmp_path


def recipe_of(architecture, images):
    recipe = small_recipe()
    recipe["architecture"] = architecture
    recipe["dataset"] |= {"source": "images", "name": "", "split": "train", "data_dir": images, "image_size": 32}
    recipe["generator"] = {"latent_dim": 12, "width": 2, "embedding_dim": 5, "dtype": "bfloat16"}
    recipe["discriminator"] = {"width": 4, "head": "projection", "dtype": "bfloat16"}
    if architecture == "sngan":
        del recipe["generator"]["embedding_dim"]
    return recipe


def imported(*others, generator=GENERATOR, recipe="recipe.py"):
    return cgan("import", generator, f"--config={recipe}", "--workdir=run", *others)


def test_a_run_of_the_files_draws_and_scores_as_pytorch(networks, folder, capsys):
    assert imported(f"--discriminator={DISCRIMINATOR}") == 0
    assert "wrote step 98000, " in capsys.readouterr().out
    model = cgan_jax.load("run")
    assert model.class_names == tuple(CLASSES)
    with torch.no_grad():
        images = networks[0](Z, Y).permute(0, 2, 3, 1).numpy()
        drawn = model.sample(Y.tolist(), latents=Z.numpy()).images
        assert np.abs(drawn / 127.5 - 1 - images).max() < 1.01 / 127.5
        expected = networks[1](torch.tensor(drawn.astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2), Y).numpy()
    np.testing.assert_allclose(model.logits(drawn, Y.tolist()), expected, rtol=1e-3)
    start, *_ = workdir.read_environments(folder / "run")
    assert set(start["imported"]) == {"generator", "discriminator"} and len(start["imported"]["generator"]) == 64


def test_without_a_discriminator_it_says_so(folder, capsys):
    assert imported() == 0
    assert "discriminator: initial weights" in capsys.readouterr().out


def test_a_folder_that_is_not_free_is_left_alone(folder, capsys):
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_text(json.dumps({}))
    assert imported() == 2
    assert "run holds a run already; use another --workdir" in capsys.readouterr().err
    assert [path.name for path in (folder / "run").iterdir()] == ["config.json"]


FILES = {
    "no such file": ("No such file or directory", None),
    "text": ("is not a whole file of PyTorch tensors", b"hello"),
    "a web page": ("is not a whole file of PyTorch tensors", b"<!DOCTYPE html>"),
    "nothing": ("is not a whole file of PyTorch tensors", b""),
    "a call": (
        "asks for 'posix.system', which is refused",
        zipped(pickled(a=b"cposix\nsystem\nX\x01\x00\x00\x00a\x85R")),
    ),
    "no tensors": ("holds something else than named tensors", zipped(b"\x80\x02K\x01.")),
    "none of them": ("bn4.bias is missing; it holds nothing", zipped(pickled())),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_anything_else(name, folder, capsys):
    told, content = FILES[name]
    if content is not None:
        (folder / "w.pth").write_bytes(content)
    assert imported(generator="w.pth") == 2
    error = capsys.readouterr().err
    assert told in error and "w.pth" in error and error.count("\n") == 1 and not (folder / "run").exists()


RECIPES = {
    "is not the recipe's generator: conv2d5.weight_orig is missing": ("biggan", "--config.seed=0"),
    "bn4.bias is float32 [8], and must be float32 [12]": ("sngan", "--config.generator.width=3"),
    "the recipe has True and class_proxies": ("sngan", "--config.discriminator.head=class_proxies"),
    "the recipe has False and projection": ("sngan", "--config.dataset.conditional=False"),
    "cgan import reads the architectures biggan and sngan, the recipe is of 'dcgan'": ("dcgan", "--config.seed=0"),
}


@pytest.mark.parametrize("told", RECIPES)
def test_recipes_of_other_networks(told, folder, capsys):
    architecture, override = RECIPES[told]
    write_recipe(folder, recipe_of(architecture, str(folder / "images")))
    assert imported(override) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1 and not (folder / "run").exists()


def test_after_a_full_disk_the_same_command_imports(folder, small_files, capfd):
    with small_files():
        assert imported() == 2
    assert imported() == 0, capfd.readouterr().err
    assert len(workdir.read_environments(folder / "run")) == 1
