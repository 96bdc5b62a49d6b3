"""Names that stand for files and table entries."""

import sys

import pytest

from cgan_jax import lookup
from cgan_jax.errors import UsageError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of the files small.py, big.py, _private.py and broken.py."""
    folder = tmp_path / "zoo_of_names"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "small.py").write_text("SIZE = 1")
    (folder / "big.py").write_text("SIZE = 9")
    (folder / "_private.py").write_text("SIZE = 0")
    (folder / "broken.py").write_text("import a_module_that_is_not_installed")
    (folder / "notes.txt").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield "zoo_of_names"
    for name in [name for name in sys.modules if name.startswith("zoo_of_names")]:
        del sys.modules[name]


def test_names_are_the_files_that_are_not_private_in_order(package):
    assert lookup.names_in(package) == ["big", "broken", "small"]


def test_a_name_gives_its_file(package):
    assert lookup.module_named(package, "big", "animal").SIZE == 9
    assert lookup.module_named(package, "small", "animal").SIZE == 1


@pytest.mark.parametrize("name", ["tiny", "_private", "big.SIZE", "../zoo", ""])
def test_an_unknown_file_is_one_line_that_lists_what_there_is(package, name):
    with pytest.raises(UsageError) as caught:
        lookup.module_named(package, name, "animal")
    assert str(caught.value) == f"unknown animal {name!r}; there are: big, broken, small"


def test_an_unknown_file_is_answered_with_the_closest_one(package):
    with pytest.raises(UsageError) as caught:
        lookup.module_named(package, "smal", "animal")
    assert str(caught.value) == "unknown animal 'smal'; there are: big, broken, small (did you mean small?)"


def test_a_file_that_cannot_be_imported_is_not_called_unknown(package):
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_installed"):
        lookup.module_named(package, "broken", "animal")


def test_a_name_gives_its_entry():
    assert lookup.entry_named({"a": 1, "b": 2}, "b", "letter") == 2


def test_an_unknown_entry_is_one_line_that_lists_what_there_is():
    with pytest.raises(UsageError) as caught:
        lookup.entry_named({"a": 1, "b": 2}, "c", "letter")
    assert str(caught.value) == "unknown letter 'c'; there are: a, b"
