"""Finds the file or table entry for a name in a recipe or on the command line, or lists the names that exist."""

import difflib
import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import TypeVar

from cgan_jax.errors import UsageError

Entry = TypeVar("Entry")


def names_in(package: str) -> list[str]:
    """The sorted names of a package's files but private ones, e.g. `names_in("cgan_jax.networks.architectures")`."""
    path = importlib.import_module(package).__path__
    return sorted(info.name for info in pkgutil.iter_modules(path) if not info.name.startswith("_"))


def module_named(package: str, name: str, what: str) -> ModuleType:
    """The module `package.name`, imported. Raises UsageError if there is none; its message calls the name a `what`."""
    if name not in names_in(package):
        raise unknown(what, name, names_in(package))
    return importlib.import_module(f"{package}.{name}")


def entry_named(table: Mapping[str, Entry], name: str, what: str) -> Entry:
    """`table[name]`. Raises UsageError if there is none; its message calls the name a `what`."""
    if name not in table:
        raise unknown(what, name, table)
    return table[name]


def unknown(what: str, given: object, allowed: Iterable[object]) -> UsageError:
    """The error for an unknown name: one line that lists the `allowed` names, and the closest one again."""
    names = [str(name) for name in allowed]
    close = difflib.get_close_matches(str(given), names, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return UsageError(f"unknown {what} {given!r}; there are: {', '.join(names)}{hint}")
