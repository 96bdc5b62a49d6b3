"""Recipes by name and by file; what a broken one says."""

import sys
from pathlib import Path

import pytest

from cgan_jax import recipe_files
from cgan_jax.errors import UsageError
from cgan_jax.recipe import check
from tests.command_line import cgan

MINIMAL = """
from cgan_jax.recipe import defaults

def get_config():
    config = defaults()
    {line}
    return config
"""


def written(folder: Path, text: str, name: str = "mine.py") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def refusal(given: str, function=recipe_files.load) -> str:
    with pytest.raises(UsageError) as caught:
        function(given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_name_and_a_path_are_the_same_recipe_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_name = recipe_files.load("digits")
    assert check(by_name.to_dict()) is None and by_name.train.total_kimg == 60.0
    for given in ("configs/digits.py", str(recipe_files.FOLDER / "digits.py")):
        assert recipe_files.load(given) == by_name


def test_a_file_is_taken_before_what_comes_with_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    written(tmp_path / "configs", MINIMAL.format(line="config.seed = 7"), "digits.py")
    assert recipe_files.load("configs/digits.py").seed == 7
    assert recipe_files.load("digits").seed == 0, "a name is that of the package"


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    written(tmp_path, MINIMAL.format(line="config.dataset.data_dir = '~/data'"))
    assert recipe_files.load("~/mine.py").dataset.data_dir == f"{tmp_path}/data"


def test_an_unknown_name_is_told_the_closest_and_all():
    assert refusal("digit") == (
        "unknown recipe 'digit'; did you mean digits or digits_sngan or digits_stylegan2? There are: "
        + ", ".join(recipe_files.names())
        + "; or give a file, FILE.py"
    )
    assert "; did you mean cifar10_biggan or " in refusal("biggan")
    assert refusal("").startswith("unknown recipe ''. There are: cifar100_biggan_cr, ")
    assert refusal("xyzzy").startswith("unknown recipe 'xyzzy'. There are: cifar100_biggan_cr, ")
    assert refusal("configs/digts.py") == "no such recipe file: configs/digts.py; did you mean digits?"
    assert refusal("/none/xyzzy.py") == "no such recipe file: /none/xyzzy.py"


def test_a_text_after_a_colon_is_the_argument(tmp_path):
    text = MINIMAL.replace("get_config()", "get_config(seed='3')").format(line="config.seed = int(seed)")
    config = written(tmp_path, text)
    assert (recipe_files.load(config).seed, recipe_files.load(f"{config}:11").seed) == (3, 11)


def test_a_path_may_hold_colons(tmp_path, capsys):
    folder = tmp_path / "sweep_12:30"
    folder.mkdir()
    text = MINIMAL.replace("get_config()", "get_config(seed='3')").format(line="config.seed = int(seed)")
    config = written(folder, text, "my:own.py")
    assert (recipe_files.load(config).seed, recipe_files.load(f"{config}:11").seed) == (3, 11)
    for given in (f"{folder}/none.py", f"{folder}/none.py:11"):
        assert refusal(given) == f"no such recipe file: {folder}/none.py"
    assert refusal("digts:3").startswith("unknown recipe 'digts'; did you mean digits")
    assert cgan("recipes", written(folder, (recipe_files.FOLDER / "digits.py").read_text())) == 0
    assert recipe_files.about(recipe_files.FOLDER / "digits.py") in capsys.readouterr().out


def test_a_dict_will_do_and_is_widened(tmp_path):
    config = written(tmp_path, "def get_config():\n    return {'loss': {'g_terms': {'bce': {'weight': 1}}}}\n")
    weight = recipe_files.load(config).loss.g_terms.bce.weight
    assert type(weight) is float and weight == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "{file} has no get_config(); a recipe is: def get_config():"),
        ("get_config = 3", "{file} has no get_config()"),
        ("def get_config(:\n", "{file}, line 1: invalid syntax"),
        ("x = 1\n  y = 2\n", "{file}, line 2: unexpected indent"),
        ("x = 1\0", "{file}"),
        ("def get_config():\n    return 3\n", "{file}: get_config() must return a ConfigDict, as defaults()"),
        ("def get_config():\n    pass\n", "{file}: get_config() must return its ConfigDict, and returns nothing"),
        (
            "def get_config(size):\n    return {}\n",
            "{file}: get_config(size): missing a required argument: 'size'; give it a default, or a text as in FILE:",
        ),
        (
            MINIMAL.format(line="config.trian.total_kimg = 3.0"),
            "{file}, line 6: AttributeError: 'trian' Did you mean \"train\"",
        ),
        (MINIMAL.format(line="config.seed = 1.5"), "{file}, line 6: TypeError: Could not override field 'seed'"),
        ("import nothing_there", "{file}, line 1: ModuleNotFoundError: No module named 'nothing_there'; a"),
        (
            "def get_config():\n    return defaults()\n",
            "{file}, line 2: NameError: name 'defaults' is not defined; begin the file with: from cgan_jax",
        ),
        ("def get_config():\n    return {'a': 1 / 0}\n", "{file}, line 2: ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line_and_its_mend(tmp_path, text, message):
    config = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        recipe_files.load(config)
    assert " ".join(str(caught.value).split()).startswith(message.format(file=config))


def test_an_argument_that_is_not_taken_is_told():
    assert refusal("digits:3").endswith(
        "get_config(): too many positional arguments; take the text after the colon away"
    )


BESIDE = """
from cgan_jax.recipe import defaults as ours

def defaults():
    config = ours()
    config.seed = {seed}
    return config
"""


def test_files_beside_a_recipe_are_imported_and_forgotten(tmp_path):
    """Two folders may each have a my_defaults."""
    path, modules, seeds = list(sys.path), set(sys.modules), []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        written(folder, BESIDE.format(seed=seed), "my_defaults.py")
        written(folder, "", "late.py")
        text = "from my_defaults import defaults\ndef get_config():\n    import late\n    return defaults()\n"
        seeds.append(recipe_files.load(written(folder, text)).seed)
    assert seeds == [1, 2]
    assert sys.path == path and not {"my_defaults", "late"} & (set(sys.modules) - modules)


def test_the_path_is_restored_after_a_failure(tmp_path):
    path = list(sys.path)
    refusal(written(tmp_path, "import beside"))
    written(tmp_path, "1 / 0", "beside.py")
    assert refusal(f"{tmp_path}/mine.py") == f"{tmp_path}/beside.py, line 1: ZeroDivisionError: division by zero"
    assert sys.path == path and "beside" not in sys.modules


def test_the_library_is_not_forgotten_if_a_recipe_lies_beside_it(tmp_path, monkeypatch):
    root = Path(recipe_files.__file__).parent.parent
    monkeypatch.delitem(sys.modules, "cgan_jax.annealing", raising=False)
    with recipe_files._importing_beside(root / "mine.py"):
        import cgan_jax.annealing  # noqa: F401
    assert "cgan_jax.annealing" in sys.modules


def test_a_recipe_that_changes_is_read_anew_and_leaves_nothing_beside_it(tmp_path):
    for seed in (1, 2, 3):
        assert recipe_files.load(written(tmp_path, MINIMAL.format(line=f"config.seed = {seed}"))).seed == seed
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


def test_the_docstring_is_read_without_running_the_file(tmp_path):
    config = written(tmp_path, '"""What it is."""\nraise SystemExit\n')
    assert recipe_files.about(Path(config)) == "What it is."
    assert recipe_files.about(Path(written(tmp_path, "raise SystemExit\n"))) == ""


def test_an_installed_package_is_not_forgotten_if_a_folder_beside_has_its_name(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    (tmp_path / "colorsys").mkdir()  # without __init__.py it is not what is imported
    recipe_files.load(written(tmp_path, "import colorsys\n" + MINIMAL.format(line="pass")))
    assert "colorsys" in sys.modules
