"""Wrong use: exit code 2, one line that says what was given and what is allowed, and nothing written."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from cgan_jax import train
from tests.command_line import cgan, start, write_recipe


def sample(out: str, *options: str) -> list[str]:
    return ["sample", "--workdir={tmp}/none", f"--out={{tmp}}/{out}", *options]


def synthesize(*options: str) -> list[str]:
    return ["synthesize", "--workdir={tmp}", "--out={tmp}/a", *options]


def sweep(*options: str) -> list[str]:
    return ["sweep", "--config={config}", "--workdir={run}", *options]


CASES = {
    "no command": ([], None),
    "unknown command": (["tarin"], "unknown command 'tarin'; there are:"),
    "unknown flag": (["train", "--confg=x"], "Unknown command line flag 'confg'"),
    "stray argument": (["train", "digits"], "unexpected argument 'digits'"),
    "train without a recipe": (["train", "--workdir={run}"], "error: --config=NAME must be given"),
    "train without a workdir": (["train", "--config={config}"], "error: --workdir=FOLDER must be given"),
    "two recipes": (["benchmark", "--config=digits", "--config={config}"], "--config names one recipe, given twice"),
    "a recipe that is not there": (["train", "--config={tmp}/none.py", "--workdir={run}"], "none.py"),
    "a recipe that does not parse": (["train", "--config={tmp}/broken.py", "--workdir={run}"], "broken.py"),
    "unknown section": (["train", "--config.trian.total_kimg=1.0"], 'Did you mean "train" instead of "trian"'),
    "unknown key": (["train", "--config.train.total_kim=1.0"], "did you mean train.total_kimg?"),
    "text for a number": (["train", "--config.train.batch_size=many"], "batch_size"),
    "a section for a value": (["train", "--config.train=3"], "train"),
    "zero batch": (["train", "--config.train.batch_size=0"], "train.batch_size must be at least 1, given 0"),
    "negative batch": (["train", "--config.train.g_batch_size=-4"], "must be at least 1, given -4"),
    "zero length": (["train", "--config.train.total_kimg=0.0"], "train.total_kimg must be at least 0.001"),
    "endless": (["train", "--config.train.total_kimg=inf"], "train.total_kimg must be"),
    "not a number": (["train", "--config.ema.halflife_kimg=nan"], "ema.halflife_kimg must be"),
    "zero interval": (["train", "--config.checkpoint.every_kimg=0.0"], "checkpoint.every_kimg must be at least 1e-06"),
    "negative rate": (["train", "--config.g_optimizer.learning_rate=-1.0"], "g_optimizer.learning_rate must be"),
    "negative seed": (["train", "--config.seed=-1"], "seed must be at least 0"),
    "zero width": (["train", "--config.generator.width=0"], "generator.width must be at least 1, given 0"),
    "certain dropout": (["train", "--config.discriminator.dropout=1.0"], "dropout"),
    "unknown number of a network": (["train", "--config.generator.depth=3"], "generator of dcgan takes"),
    "unknown architecture": (["train", "--config.architecture=dcgna"], "unknown architecture 'dcgna'; there are:"),
    "unknown source": (["train", "--config.dataset.source=web"], "unknown dataset source 'web'; there are:"),
    "unknown split": (["train", "--config.dataset.split=half"], "'half'"),
    "odd image size": (["train", "--config.dataset.image_size=30"], "30"),
    "unknown loss": (["train", "--config.loss.g_terms.bec={'weight': 1.0}"], "unknown loss 'bec'; there are:"),
    "a loss without weight": (
        ["train", "--config.loss.g_terms.hinge={'every': 2}"],
        "loss.g_terms.hinge lacks its weight",
    ),
    "unknown number of a loss": (["train", "--config.loss.g_terms.bce.slope=1.0"], "slope"),
    "a LeCam that forgets nothing": (
        ["train", "--config.loss.d_updates.both.lecam={'weight': 0.3, 'decay': 1.0}"],
        "the decay of lecam must be at least 0 and less than 1, given 1.0",
    ),
    "near latents that are the same": (
        ["train", "--config.loss.g_terms.latent_diversity={'weight': 0.5, 'sigma': 0.0}"],
        "the sigma of near latents must be more than 0, given 0.0",
    ),
    "a norm below 0": (
        ["train", "--config.loss.d_updates.both.gradient_penalty={'weight': 10.0, 'target': -1.0}"],
        "the target of gradient_penalty must be at least 0, given -1.0",
    ),
    "no loss at all": (["train", "--config.loss.g_terms.bce.weight=0.0"], "at least one loss"),
    "unknown parallelism": (["train", "--config.train.parallelism=pjit"], "must be one of shard_map, pmap"),
    "a single checkpoint to keep": (["train", "--config.checkpoint.max_to_keep=1"], "max_to_keep must be at least 2"),
    "unknown guard": (["train", "--config.guard.action=panic"], "guard.action must be one of raise, rollback"),
    "more collapse than all": (["train", "--config.guard.collapse=1.5"], "collapse must be at least 0 and at most 1"),
    "a watchdog of the past": (["train", "--config.guard.watchdog_minutes=-1.0"], "minutes must be at least 0"),
    "rollbacks without end": (["train", "--config.guard.max_rollbacks=-1"], "must be at least 0, given -1"),
    "unknown optimizer": (
        ["train", "--config.d_optimizer.name=adm"],
        "unknown optimizer 'adm'; there are: adam, keras_adam",
    ),
    "unknown schedule": (["train", "--config.d_optimizer.schedule=step"], "unknown learning rate schedule 'step'"),
    "a batch that 8 devices cannot share": (["train", "--config.train.batch_size=12"], "shared evenly by 8 devices"),
    "missing data": (
        [
            "train",
            "--config.dataset.source=tfds",
            "--config.dataset.name=cifar10",
            "--config.dataset.data_dir={tmp}/no",
        ],
        "cgan prepare-data --dataset=cifar10",
    ),
    "prepare-data without a dataset": (["prepare-data"], "--dataset is missing"),
    "the Inception network and a dataset": (["prepare-data", "--inception", "--dataset=cifar10"], "stands alone"),
    "the Inception network from an archive": (["prepare-data", "--inception", "--archive={config}"], "stands alone"),
    "a name for the Inception network": (["prepare-data", "--inception=v3"], "inception"),
    "a workdir below a file": (["train", "--workdir={tmp}/recipe.py/run"], "recipe.py/run"),
    "sample without a run": (sample("a.png"), "none holds no run"),
    "sample without out": (["sample", "--workdir={tmp}"], "error: --out=FILE must be given"),
    "sample without anything": (["sample"], "error: --model=NAME or --workdir=FOLDER, and --out=FILE must be given"),
    "evaluate of nothing": (
        ["evaluate"],
        "error: --model=NAME or --workdir=FOLDER, or --images=FOLDER_OR_NPZ, must be",
    ),
    "evaluate of two": (["evaluate", "--model=digits", "--images={tmp}"], "is scored, given both"),
    "import of nothing": (["import", "--config={config}"], "error: FILE, and --workdir=FOLDER must be given"),
    "a report of nothing": (["report"], "error: --workdir=FOLDER[,FOLDER...] must be given"),
    "a server of nothing": (["serve"], "error: --model=NAME or --workdir=FOLDER must be given"),
    "no images": (sample("a.png", "--num_images=0"), "--num_images=0: 0 is not a positive integer"),
    "too many images": (sample("a.npz", "--num_images=10001"), "1 to 10000"),
    "a seed below zero": (sample("a.png", "--seed=-1"), "in the range [0, 4294967295]"),
    "a kind of file that is not written": (sample("a.jpg"), "holds no run"),
    "a name that is too long": (["sample", "--workdir={tmp}/" + 300 * "a", "--out={tmp}/a.png"], "too long"),
    "a moving picture of nothing that moves": (sample("a.gif"), ".gif moves, which needs --interpolate"),
    "frames without a way": (sample("a.png", "--frames=3"), "--frames belongs to --interpolate"),
    "a seed to go to without a way": (sample("a.png", "--to_seed=3"), "--to_seed belongs to --interpolate"),
    "a seed below zero to go to": (
        sample("a.png", "--interpolate=latents", "--to_seed=-3"),
        "--to_seed=-3: -3 is not an integer in the range [0, 4294967295]",
    ),
    "a seed to go to between labels": (
        sample("a.png", "--interpolate=labels", "--to_seed=3"),
        "between labels the latents stay",
    ),
    "an unknown way": (sample("a.png", "--interpolate=colours"), "should be one of <latents|labels>"),
    "a way in an archive": (sample("a.npz", "--interpolate=latents"), "--interpolate writes .png, .gif or .webp"),
    "neighbours of a way": (sample("a.png", "--interpolate=latents", "--nearest=2"), "not for --interpolate"),
    "neighbours in an archive": (sample("a.npz", "--nearest=2"), "--nearest writes .png, given"),
    "too many ways": (
        sample("a.png", "--interpolate=latents", "--num_images=201"),
        "--num_images must be 1 to 200 with --interpolate, given 201",
    ),
    "a way of one frame": (
        sample("a.png", "--interpolate=latents", "--frames=1"),
        "--frames=1: 1 is not an integer in the range [2, 500]",
    ),
    "neighbours below zero": (
        sample("a.png", "--nearest=-2"),
        "--nearest=-2: -2 is not an integer in the range [0, 20]",
    ),
    "a folder in an order": (sample("a", "--sort_by=confidence"), "--sort_by=confidence writes .png or .npz"),
    "sample with a truncation below zero": (
        sample("a.png", "--truncation=-1"),
        "--truncation must be a number above 0",
    ),
    "export without a run": (["export", "--workdir={tmp}/none", "--out={tmp}/a.cgan"], "none holds no run"),
    "export without out": (["export", "--workdir={tmp}"], "error: --out=FILE must be given"),
    "export in an unknown format": (
        ["export", "--workdir={tmp}", "--out={tmp}/a", "--format=onnx"],
        "should be one of <cgan|safetensors|packed>",
    ),
    "synthesize without a run": (["synthesize", "--workdir={tmp}/none", "--out={tmp}/a"], "none holds no run"),
    "synthesize without out": (["synthesize", "--workdir={tmp}"], "error: --out=FOLDER must be given"),
    "no synthetic images": (synthesize("--num_images=0"), "--num_images=0: 0 is not a positive integer"),
    "a synthetic set with a strange name": (synthesize("--name=My Set"), "--name must be of a-z, 0-9 and _"),
    "a truncation of nothing": (
        synthesize("--truncation=0"),
        "--truncation must be a number above 0, such as 0.7, given 0.0",
    ),
    "a balance that is counted twice": (
        synthesize("--balance=3=2", "--num_images=1000"),
        "--balance=3=2 says how many images, given --num_images too",
    ),
    "a dataset for a model": (
        ["evaluate", "--model=digits", "--dataset=cifar10"],
        "--dataset belongs to --images; a model is compared with what it learned from",
    ),
    "an image size for a model": (["evaluate", "--model=digits", "--image_size=64"], "--image_size belongs to"),
    "a classifier that is not asked": (
        ["evaluate", "--model=digits", "--features=inception", "--classifier=c.npz"],
        "--classifier belongs to --features=classifier, given --features=inception",
    ),
    "Inception weights that are not read": (
        ["evaluate", "--model=digits", "--inception_weights=i.npz"],
        "--inception_weights belongs to --features=inception, given --features=classifier",
    ),
    "a recipe's classifier of another dataset": (
        ["train-classifier", "--config={config}", "--dataset=cifar10"],
        "the images are the recipe's: --config.dataset.name in place of --dataset",
    ),
    "unknown statistics": (synthesize("--batch_stats=batch"), "should be one of <ema|standing>"),
    "part of a loss that is not listed": (["train", "--config.loss.g_terms.hinge.weight=1.0"], "is given whole"),
    "what is not annealed": (["train", "--config.anneal.to.ema.halflife_kimg=1.0"], "--config.anneal.to.ema=\"{'half"),
    "sweep without variations": (sweep(), "error: --vary=FIELD=VALUES must be given"),
    "sweep without a recipe": (["sweep", "--workdir={run}", "--vary=seed=1"], "error: --config=NAME must be given"),
    "sweep over an unknown field": (sweep("--vary=generator.widht=3"), "did you mean generator.width?"),
    "sweep over text for a number": (
        sweep("--vary=train.batch_size=8,many"),
        "train.batch_size must be of type int, given 'many'",
    ),
    "sweep over nothing": (sweep("--vary=train.batch_size="), "at least one value"),
    "sweep over the same twice": (sweep("--vary=ema.start_kimg=1,1.0"), "the value 1.0 is given twice"),
    "sweep over a value out of range": (sweep("--vary=seed=3,-1"), "seed=-1: seed must be at least 0"),
    "a step that is no number": (sample("a.png", "--step=last"), "step"),
    "a recipe without get_config": (["train", "--config={tmp}/empty.py", "--workdir={run}"], "get_config"),
    "a recipe that is no ConfigDict": (
        ["train", "--config={tmp}/three.py", "--workdir={run}"],
        "get_config() must return",
    ),
}

REAL = ["unknown command", "unknown key", "missing data", "zero batch", "unknown loss", "unknown guard", "no images"]


def _filled(argument: str, **values: object) -> str:
    for name, value in values.items():
        argument = argument.replace("{" + name + "}", str(value))
    return argument


def completed(argv: list[str], tmp_path, recipe: dict) -> list[str]:
    """The case's arguments with the recipe and workdir that it does not name itself."""
    config = write_recipe(tmp_path, recipe)
    (tmp_path / "broken.py").write_text("def get_config(:\n")
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "three.py").write_text("def get_config():\n    return 3\n")
    filled = [_filled(argument, tmp=tmp_path, run=tmp_path / "run", config=config) for argument in argv]
    if any(argument.startswith("--config.") for argument in filled) or any("/recipe.py/run" in a for a in filled):
        defaults = [f"--config={config}", f"--workdir={tmp_path / 'run'}"]
        filled = [
            filled[0],
            *(d for d in defaults if not any(a.startswith(d.split("=")[0] + "=") for a in filled)),
            *filled[1:],
        ]
    return filled


def assert_one_line(error: str, expected: str) -> None:
    lines = error.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("cgan: error: "), error
    assert expected in lines[0]


@pytest.mark.parametrize("case", CASES)
def test_wrong_use_is_one_line_and_leaves_nothing(case, recipe, tmp_path, capsys):
    argv, expected = CASES[case]
    argv = completed(argv, tmp_path, recipe)
    before = sorted(tmp_path.rglob("*"))
    assert cgan(*argv) == 2
    if expected is not None:
        assert_one_line(capsys.readouterr().err, expected)
    assert [p for p in sorted(tmp_path.rglob("*")) if "__pycache__" not in p.parts] == before


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--config.train.batch_size=0", "--config=digits"], "train.batch_size must be at least 1, given 0"),
        (
            ["--config.train.batch_size=0", "--json", "--config", "digits"],
            "train.batch_size must be at least 1, given 0",
        ),
        (["--config.seed=1"], "--config.seed changes a recipe; --config=NAME must be given too"),
    ],
)
def test_a_recipe_may_be_named_behind_its_fields(argv, expected, capsys):
    assert cgan("benchmark", *argv) == 2
    assert_one_line(capsys.readouterr().err, expected)


@pytest.mark.slow  # real processes
@pytest.mark.parametrize("case", REAL)
def test_wrong_use_of_a_real_process(case, recipe, tmp_path):
    argv, expected = CASES[case]
    process = start(*completed(argv, tmp_path, recipe), devices=8)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 2 and not out
    assert_one_line(error, expected)


@pytest.mark.slow  # a real process that holds the workdir
def test_a_second_process_in_one_workdir_is_refused_and_a_killed_one_frees_it(recipe, tmp_path, capsys):
    recipe["train"]["total_kimg"] = 1000.0
    config = write_recipe(tmp_path, recipe)
    arguments = ("train", f"--config={config}", f"--workdir={tmp_path / 'run'}")
    holder = start(*arguments)
    try:
        assert "starting from step 0" in holder.stdout.readline()
        assert cgan(*arguments) == 2
        assert_one_line(capsys.readouterr().err, f"is in use by process {holder.pid}")
    finally:
        holder.kill()
        holder.communicate()
    assert cgan(*arguments, "--config.train.total_kimg=0.016") == 0


@pytest.mark.parametrize("command", ["", "train", "sample", "synthesize", "export", "sweep", "prepare-data"])
def test_help_is_no_error(command, capsys):
    assert cgan(*command.split(), "--help") == 0
    assert "cgan" in capsys.readouterr().out


def test_a_reader_that_has_gone_is_not_worth_a_line():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "cgan_jax", "--help"], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 141 and done.stderr == ""


@pytest.mark.parametrize("asks_for", [lambda: jax.numpy.zeros(1 << 47, "uint8"), lambda: np.zeros(1 << 47, np.uint8)])
def test_more_memory_than_there_is_is_one_line(asks_for, recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train, "train_and_evaluate", lambda *_, **__: asks_for().sum())
    config = write_recipe(tmp_path, recipe)
    assert cgan("train", f"--config={config}", f"--workdir={tmp_path / 'run'}", "--nocache") == 2
    error = capsys.readouterr().err
    assert error.startswith("cgan: error: more memory was needed than there is; fewer images in a batch"), error
    assert error.count("\n") == 1
