"""`cgan recipes`: the list, one recipe, and what it refuses."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cgan_jax import recipe_files, train
from cgan_jax.commands import recipes
from cgan_jax.recipe import check, flattened
from tests.command_line import cgan, write_recipe

ROOT = Path(__file__).parents[2]


def test_the_list_has_a_line_for_each_recipe_under_its_dataset(capsys):
    assert cgan("recipes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 100 for line in lines)
    rows = [line for line in lines if line.startswith("  ")]
    assert [row.split()[0] for row in rows] == recipe_files_by_dataset()
    assert len({re.match(r"  \S+ +", row).end() for row in rows}) == 1, "aligned"
    assert not any(row.endswith(("...", ".")) for row in rows)
    under = lines[lines.index("digits") + 1]
    assert under == "  digits                        Handwritten digits by class, in minutes on a laptop's processor"


def recipe_files_by_dataset() -> list[str]:
    return sorted(recipe_files.names(), key=lambda name: (recipe_files.load(name).dataset.name, name))


def test_the_list_as_json(capsys):
    assert cgan("recipes", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [recipe["name"] for recipe in listed] == recipe_files.names()
    assert {"name": "digits", "dataset": "digits"}.items() <= listed[recipe_files.names().index("digits")].items()


def test_a_summary_that_is_too_long_is_cut():
    long = {"name": "a", "dataset": "d", "summary": "x" * 200}
    line = recipes.listing([long]).splitlines()[1]
    assert len(line) == 100 and line.endswith("xxx...")


@pytest.mark.parametrize("name", recipe_files.names())
def test_the_flags_of_a_recipe_give_the_recipe_again(name, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(train, "train_and_evaluate", lambda recipe, *_, **__: seen.append(recipe))
    assert cgan("recipes", name) == 0
    out = capsys.readouterr().out
    assert out.startswith(recipe_files.about(recipe_files.find(name)))
    flags = shlex.split(out.split("Every value, as flags of cgan train:")[1])
    assert len(flags) == len(list(flattened(recipe_files.load(name).to_dict())))
    assert cgan("train", f"--config={name}", "--workdir=unused", "--nocache", *flags) == 0
    assert seen == [recipe_files.load(name).to_dict()]


@pytest.mark.parametrize("argv", [["digits", "--json"], ["--json", "digits"], ["--name=digits", "--json"]], ids=str)
def test_one_recipe_as_json(argv, capsys):
    assert cgan("recipes", *argv) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["name"] == "digits" and shown["about"].startswith("Handwritten digits")
    assert check(shown["recipe"]) is None and shown["recipe"] == recipe_files.load("digits").to_dict()


def test_a_file_is_shown_and_checked_as_training_does(recipe, tmp_path, capsys):
    assert cgan("recipes", write_recipe(tmp_path, recipe), "--json") == 0
    assert json.loads(capsys.readouterr().out)["recipe"] == recipe
    recipe["train"]["batchsize"] = 3
    assert cgan("recipes", write_recipe(tmp_path, recipe)) == 2
    assert "unknown key train.batchsize; did you mean train.batch_size?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["digit"], "unknown recipe 'digit'; did you mean digits or digits_sngan or digits_stylegan2?"),
        (["digits", "digits_sngan"], "unexpected argument 'digits_sngan'"),
        (["--name=digits", "digits_sngan"], "unexpected argument 'digits_sngan'"),
    ],
    ids=str,
)
def test_wrong_use_is_one_line(argv, message, capsys):
    assert cgan("recipes", *argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("cgan: error: ") and message in error and error.count("\n") == 1


def test_a_recipe_that_is_not_there_is_told_by_the_commands_that_take_one(tmp_path, capsys):
    assert cgan("train", "--config=digit", f"--workdir={tmp_path}/run") == 2
    error = capsys.readouterr().err
    assert error.startswith("cgan: error: unknown recipe 'digit'; did you mean digits") and error.count("\n") == 1


@pytest.mark.parametrize("argv", [[], ["cifar10_r3gan"]], ids=str)
def test_nothing_heavy_is_imported(argv):
    code = f"""
import sys
from cgan_jax.__main__ import run
assert run(["recipes", *{argv!r}]) == 0
heavy = [name for name in ("jax", "numpy", "tensorflow", "flax", "matplotlib", "PIL") if name in sys.modules]
print("imported", heavy)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.endswith("imported []\n")


def test_a_name_with_overrides_trains(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(train, "train_and_evaluate", lambda recipe, workdir, *_, **__: seen.append((recipe, workdir)))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    overrides = ["--config.train.total_kimg=10", "--config.loss.g_terms.hinge={'weight': 1}"]
    flags = ["--nocache", "--config.dataset.data_dir=~/data"]
    assert cgan("train", "--config=digits", "--workdir=~/run", *overrides, *flags) == 0
    [(recipe, workdir)] = seen
    assert workdir == tmp_path / "run"
    assert (
        repr(recipe["train"]["total_kimg"]) == "10.0" and repr(recipe["loss"]["g_terms"]["hinge"]) == "{'weight': 1.0}"
    )
    assert recipe["dataset"]["data_dir"] == f"{tmp_path}/data"


@pytest.mark.slow  # builds a wheel
def test_a_wheel_carries_the_recipes(tmp_path):
    pytest.importorskip("setuptools", "70.1")
    source = tmp_path / "source"
    for name in ("cgan_jax", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "from setuptools.build_meta import build_wheel; build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True, timeout=300)
    [wheel] = tmp_path.glob("*.whl")
    carried = zipfile.ZipFile(wheel).namelist()
    found = {Path(name).stem for name in carried if name.startswith("cgan_jax/configs/")}
    assert found == set(recipe_files.names())
    assert {name.split("/")[0].split("-")[0] for name in carried} == {"cgan_jax"}, "no top-level configs"
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-c", "from cgan_jax import recipe_files as f; print(f.FOLDER, f.load('digits').seed)"],
        env={"PYTHONPATH": str(tmp_path / "site")}, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"{tmp_path}/site/cgan_jax/configs 0\n"
