"""The house: imports point strictly down, files are named for what they do, and help comes at once."""

import ast
import configparser
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import cgan_jax

ROOT = Path(cgan_jax.__file__).parent

# From the top. A file may import from its own room and from floors below it.
FLOORS = [
    ["__main__"],
    ["commands"],
    ["api"],
    ["train"],
    ["evaluation", "serving", "transfer"],
    ["sampling"],
    ["run"],
    ["train_step"],
    ["train_state"],
    ["build"],
    ["losses"],
    ["data", "networks"],
    ["augment", "augment_probability", "optimizers", "recipe_files"],
    ["exported", "models", "recipe"],
    ["files"],
    ["augment_affine", "averages", "jax_environment", "lookup", "recipe_fields"],
    ["annealing", "heap", "names", "parallel"],
    ["compilation", "errors"],
    ["__init__"],
]
ROOMS = {"commands", "data", "evaluation", "files", "losses", "models", "networks", "run", "sampling", "serving"}

BANNED = ("utils", "misc", "common", "helpers", "base", "manager")
ADVICE = (
    "Move what both need to a lower file that it belongs to, or give the file another floor in FLOORS"
    " (tests/layering_test.py) if the house itself has changed."
)


def module_of(path: Path) -> str:
    """The entry of FLOORS that a file belongs to."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0]


def floor_of(module: str) -> int:
    (number,) = [number for number, floor in enumerate(FLOORS) if module in floor]
    return number


def imported(path: Path) -> set[str]:
    """The entries of FLOORS that a file imports from, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, *inner = name.split(".")
            if package == "cgan_jax":
                is_module = inner and ((ROOT / inner[0]).is_dir() or (ROOT / f"{inner[0]}.py").is_file())
                found.add(inner[0] if is_module else "__init__")
    return found


FILES = sorted(ROOT.rglob("*.py"))


def test_every_file_has_one_floor_and_every_floor_only_files_that_exist():
    listed = [module for floor in FLOORS for module in floor]
    assert len(listed) == len(set(listed))
    missing = {module_of(path) for path in FILES} - set(listed)
    assert not missing, f"give {missing} a floor in FLOORS, as low as what they import allows"
    gone = set(listed) - {module_of(path) for path in FILES}
    assert not gone, f"take {gone} out of FLOORS"


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_imports_point_strictly_down(path):
    module = module_of(path)
    for name in imported(path) - ({module} & ROOMS):
        assert floor_of(name) > floor_of(module), f"{module} imports {name}, which is not below it. {ADVICE}"


def test_imports_are_found_wherever_they_stand(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(
        "import cgan_jax.train\nfrom cgan_jax import data, __version__\n"
        "def f():\n    from cgan_jax.losses.terms import X\n"
        "import numpy\nfrom cgan_jax.networks.architectures.dcgan import Y\n"
    )
    assert imported(path) == {"train", "data", "__init__", "losses", "networks"}


BESIDE = sorted([*(ROOT.parent / "benchmarks").glob("*.py"), *(ROOT.parent / "launch").glob("*.py")])


@pytest.mark.parametrize("path", BESIDE, ids=[path.name for path in BESIDE])
def test_what_stands_beside_the_package_imports_what_the_package_has(path):
    """Their imports stand in functions, so that no other test would see a name that is gone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "cgan_jax":
            for alias in node.names:
                if not hasattr(importlib.import_module(node.module), alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


def test_architectures_know_nothing_of_each_other():
    """One can be read, copied and deleted alone."""
    for path in (ROOT / "networks" / "architectures").glob("*.py"):
        assert "networks.architectures" not in path.read_text(), path


def test_each_room_says_what_it_is_for_and_what_it_may_import():
    assert {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"} == ROOMS
    for room in ROOMS - {"commands"}:
        purpose, blank, rule = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text())).split("\n")
        assert purpose and not blank and rule.startswith("May import "), room


def test_no_file_is_named_for_nothing():
    for path in FILES:
        assert not any(word in path.stem.split("_") for word in BANNED), f"{path.name} does not say what it is for"


def test_the_package_itself_imports_of_the_standard_library_alone():
    tree = ast.parse((ROOT / "__init__.py").read_text())
    imports = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports == ["import importlib", "import sys", "import time", "from types import ModuleType"]


COMMANDS = sorted(path.stem.replace("_", "-") for path in (ROOT / "commands").glob("[!_]*.py"))


HELP = [["--help"], ["--version"], *([command, "--help"] for command in COMMANDS)]


@pytest.mark.parametrize("argv", HELP, ids=" ".join)
def test_help_comes_before_anything_heavy_is_imported(argv):
    code = f"""
import sys
from cgan_jax.__main__ import run
code = run({argv!r})
heavy = [name for name in ("jax", "numpy", "tensorflow", "flax", "matplotlib", "PIL") if name in sys.modules]
print("exit code", code, "imported", heavy)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    *text, last = done.stdout.splitlines()
    assert last == "exit code 0 imported []", done.stderr
    assert len(text) >= 1 and done.stderr == ""
    if argv == ["--help"]:
        assert all(any(line.startswith(f"  {command}") for line in text) for command in COMMANDS)


def test_the_wheel_carries_every_file_of_the_package():
    settings = configparser.ConfigParser()
    settings.read(ROOT.parent / "setup.cfg")
    carried = {
        path
        for package, patterns in settings["options.package_data"].items()
        for pattern in patterns.split(", ")
        for path in ROOT.parent.joinpath(*package.split(".")).glob(pattern)
    }
    others = {path for path in ROOT.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert carried == others, "give the file's kind a line of options.package_data in setup.cfg"
