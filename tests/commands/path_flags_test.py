"""~ in flags that name a file or a folder is the home folder, in every command."""

import pytest
from absl import flags as absl_flags

from cgan_jax import __main__, train
from cgan_jax.commands import __name__ as commands
from cgan_jax.lookup import module_named, names_in
from tests.command_line import cgan, write_recipe
from tests.conftest import small_recipe
from tests.random_run import write_random_run
from tests.run.report_test import write_run

# Texts that name neither a file nor a folder.
OTHER_TEXTS = {
    "allowed_hosts",
    "balance",
    "batch_stats",
    "coordinator_address",
    "dataset",
    "ema",
    "features",
    "format",
    "host",
}
OTHER_TEXTS |= {
    "interpolate",
    "labels",
    "metrics",
    "name",
    "sort_by",
    "source",
    "split",
    "step",
    "test_split",
    "topology",
    "vary",
    "shell",
    "writers",
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The home folder; commands run elsewhere."""
    (tmp_path / "home").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    yield tmp_path / "home"
    assert list((tmp_path / "elsewhere").iterdir()) == [], "such as a folder called ~"


@pytest.mark.parametrize("command", names_in(commands))
def test_every_flag_is_known_to_be_a_path_or_not(command):
    flags = absl_flags.FlagValues()
    module_named(commands, command, "command").define_flags(flags, [])
    own = {flag.name: flag for module in flags.flags_by_module_dict().values() for flag in module}
    texts = {name for name, flag in own.items() if flag.flag_type() not in ("bool", "int", "float")}
    texts.discard("config")  # expands ~ when it loads the recipe
    unknown = texts - set(__main__.PATHS) - OTHER_TEXTS
    assert set(__main__.IN_BUCKETS) <= set(__main__.PATHS)
    assert not unknown, f"add {unknown} to PATHS in __main__.py if it names a file or a folder, or to OTHER_TEXTS here"


@pytest.mark.parametrize(
    "argv",
    [
        ["report", "--workdir=~/run", "--out=gs://bucket/a.html"],
        ["sample", "--workdir=~/run", "--out=gs://bucket/a.png"],
        ["synthesize", "--workdir=~/run", "--out=s3://bucket/a"],
        ["export", "--workdir=~/run", "--out=gs://bucket/a.safetensors"],
        ["train-classifier", "--source=digits", "--out=gs://bucket/a.npz"],
        ["evaluate", "--workdir=~/run", "--json=gs://bucket/a.json"],
        ["evaluate", "--images=gs://bucket/a"],
    ],
)
def test_a_bucket_is_refused_where_none_is_reached(home, capsys, argv):
    write_run(home / "run")
    assert cgan(*argv) == 2
    error = capsys.readouterr().err
    assert f"cgan: error: {argv[-1]} must be on this machine; in a bucket may be: --data_dir, " in error
    assert [path.name for path in home.iterdir()] == ["run"]


def test_training(home, monkeypatch):
    workdirs = []
    monkeypatch.setattr(train, "train_and_evaluate", lambda recipe, workdir, *_, **__: workdirs.append(workdir))
    write_recipe(home, small_recipe())
    assert cgan("train", "--config=~/recipe.py", "--workdir=~/run", "--nocache") == 0
    assert workdirs == [home / "run"]


def test_several_paths_in_one_flag(home):
    write_run(home / "run")
    assert cgan("report", "--workdir=~/run,~/run", "--out=~/r.html") == 0 and (home / "r.html").is_file()


def test_commands_that_read_a_run(home):
    write_random_run(home / "run", small_recipe())
    assert cgan("sample", "--workdir=~/run", "--out=~/a.png", "--labels=3", "--num_images=1", "--nocache") == 0
    assert cgan("export", "--workdir=~/run", "--out=~/b.safetensors", "--format=safetensors") == 0
    flags = ["--num_images=10", "--nocache"]
    assert cgan("synthesize", "--workdir=~/run", "--out=~/c.npz", "--format=npz", *flags) == 0
    assert {"a.png", "b.safetensors", "c.npz"} <= {path.name for path in home.iterdir()}


def test_a_path_that_is_not_there_is_told_in_full(home, capsys):
    assert cgan("sample", "--workdir=~/none", "--out=~/a.png") == 2
    assert f"{home}/none holds no run" in capsys.readouterr().err


def test_only_a_beginning_is_expanded(home, capsys):
    assert cgan("sample", f"--workdir={home}/~", "--out=~/a.png") == 2
    assert f"{home}/~ holds no run" in capsys.readouterr().err
