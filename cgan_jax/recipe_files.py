"""Recipe files: those of configs/ by their names, and any other by its path.

A recipe is a Python file with `get_config()`, which returns a ConfigDict. Its docstring says where it comes from.
"""

import ast
import contextlib
import difflib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from cgan_jax.errors import UsageError
from cgan_jax.recipe import widened

_PACKAGE = Path(__file__).parent
# A wheel carries the recipes in the package; in the repository they lie beside it.
FOLDER = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"
_MEANT = re.compile(r".*?\.py(?=:|$)|[^:]*", re.DOTALL)
"""The file in a text that names none."""


def names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


def find(given: str) -> Path:
    """The file of a recipe's name or path. configs/NAME.py is found from any folder, as documents spell it so.

    Raises UsageError, with the closest names, if there is none.
    """
    path = Path(os.path.expanduser(given))
    if given in names():
        return FOLDER / f"{given}.py"
    if path.is_file():
        return path
    if path.parts[:-1] == ("configs",) and path.suffix == ".py" and path.stem in names():
        return FOLDER / path.name
    close = [
        *difflib.get_close_matches(path.stem, names()),
        *(name for name in names() if path.stem and path.stem in name),
    ]
    hint = f"; did you mean {' or '.join(list(dict.fromkeys(close))[:3])}?" if close else "."
    if path.suffix == ".py" or os.sep in given:
        raise UsageError(f"no such recipe file: {given}{hint if close else ''}")
    raise UsageError(f"unknown recipe {given!r}{hint} There are: {', '.join(names())}; or give a file, FILE.py")


def parted(given: str) -> tuple[Path] | tuple[Path, str]:
    """The file of a recipe and, for `FILE:TEXT`, the text. A path may hold colons, as in sweep_12:30/mine.py.

    Raises UsageError, with the closest names, if there is no such file.
    """
    for colon in [match.start() for match in re.finditer(":|$", given)][::-1]:
        with contextlib.suppress(UsageError):
            path = find(given[:colon])
            return (path,) if colon == len(given) else (path, given[colon + 1 :])
    return (find(_MEANT.match(given)[0]),)


def about(path: Path) -> str:
    """The docstring of a recipe file, which is not run."""
    with _told(path):
        return ast.get_docstring(ast.parse(path.read_bytes())) or ""


def load(given: str) -> ConfigDict:
    """The recipe of a name or path; `FILE:TEXT` calls get_config("TEXT").

    Whole numbers are widened where a float is meant. Raises UsageError with the file, the line and what mends it.
    """
    path, *arguments = parted(given)
    with _told(path), _importing_beside(path):
        get_config = _get_config(path)
        _check_arguments(path, get_config, arguments)
        config = get_config(*arguments)
    if config is None:
        raise UsageError(
            f"{path}: get_config() must return its ConfigDict, and returns nothing; end it with: return config"
        )
    if not isinstance(config, ConfigDict | dict):
        raise UsageError(
            f"{path}: get_config() must return a ConfigDict, as defaults() makes it; it returned {config!r}"
        )
    return ConfigDict(widened(ConfigDict(config).to_dict()))


def _get_config(path: Path) -> Callable[..., Any]:
    """Runs a recipe file. No bytecode is written: a file that changes twice a second is read anew each time."""
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    exec(compile(path.read_bytes(), path, "exec"), vars(module))
    if not callable(vars(module).get("get_config")):
        raise UsageError(
            f"{path} has no get_config(); a recipe is: def get_config(): config = defaults(), its values, return config"
        )
    return module.get_config


def _check_arguments(path: Path, get_config: Callable[..., Any], arguments: list[str]) -> None:
    signature = inspect.signature(get_config)
    try:
        signature.bind(*arguments)
    except TypeError as error:
        mend = "take the text after the colon away" if arguments else "give it a default, or a text as in FILE:TEXT"
        raise UsageError(f"{path}: get_config({', '.join(signature.parameters)}): {error}; {mend}") from error


@contextlib.contextmanager
def _importing_beside(path: Path) -> Iterator[None]:
    """A recipe may import files that lie beside it; these are forgotten, as another folder may have the same names."""
    folder, known = str(path.resolve().parent), set(sys.modules)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        for name in set(sys.modules) - known:
            top = name.partition(".")[0]
            file = Path(getattr(sys.modules[name], "__file__", None) or "")
            lies_beside = file == Path(folder, f"{top}.py") or file.is_relative_to(Path(folder, top))
            if lies_beside and top != __package__:
                del sys.modules[name]


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Raises UsageError with the file and the line for whatever a recipe raises."""
    try:
        yield
    except UsageError:
        raise
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        raise UsageError(f"{error.filename or path}{line}: {error.msg}") from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f"{frame.filename}, line {frame.lineno}" for frame in frames if _is_beside(frame.filename, path)]
        raise UsageError(f"{(lines or [path])[-1]}: {type(error).__name__}: {_words(error)}{_mend(error)}") from error


def _is_beside(file: str, path: Path) -> bool:
    return Path(file).resolve().parent == path.resolve().parent


def _words(error: Exception) -> str:
    """What an error says. ConfigDict wraps a KeyError, whose text is quoted, in an AttributeError."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    return str(error.args[0] if isinstance(error, KeyError) and error.args else error)


def _mend(error: Exception) -> str:
    if isinstance(error, NameError) and error.name == "defaults":
        return "; begin the file with: from cgan_jax.recipe import defaults"
    if isinstance(error, ModuleNotFoundError):
        return "; a recipe can import what is installed and the files that lie beside it"
    return ""
