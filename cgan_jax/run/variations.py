"""Variations of a recipe: fields that take other values, and the named recipes of a sweep that follow."""

import copy
import difflib
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cgan_jax import recipe as recipes
from cgan_jax.errors import UsageError

BASELINE = "baseline"
_UNSAFE = re.compile(r"[^A-Za-z0-9._=+-]")
_LONGEST_NAME = 200
_TRUTH = {"true": True, "false": False}


class Variation(NamedTuple):
    """Fields of a recipe that change together, and the values that they take."""

    fields: tuple[str, ...]
    settings: tuple[dict[str, Any], ...]
    """{field: value} with all fields, one for each step of the variation."""


class NamedRecipe(NamedTuple):
    """One recipe of a sweep."""

    name: str
    """The name of the run's folder too."""
    recipe: dict[str, Any]


def parse(text: str, recipe: Mapping[str, Any]) -> Variation:
    """The variation in "section.field=a,b,c" or "section.field+section.field=a,b,c", with the types of `recipe`.

    Raises UsageError if a field is not in the recipe, or if a value is empty, repeated or of another type.
    """
    left, _, right = text.partition("=")
    fields, values = tuple(left.split("+")), right.split(",")
    if not all(fields) or not all(value.strip() for value in values):
        raise UsageError(f"--vary={text}: give a field and at least one value, as in generator.kernel_size=3,5")
    leaves = dict(recipes.flattened(recipe))
    for field in fields:
        if field not in leaves:
            raise UsageError(f"--vary={text}: {_unknown(field, leaves)}")
    settings = []
    for value in values:
        setting = {field: _typed(field, value.strip(), type(leaves[field])) for field in fields}
        if setting in settings:
            raise UsageError(f"--vary={text}: the value {value.strip()} is given twice")
        settings.append(setting)
    return Variation(fields, tuple(settings))


def expand(recipe: Mapping[str, Any], variations: Sequence[Variation], grid: bool) -> list[NamedRecipe]:
    """The recipe and one change at a time, or with `grid` the product of all settings.

    Equal recipes are listed once. Raises UsageError if the product would set a field twice, or if names are equal or
    too long.
    """
    if grid:
        fields = [field for variation in variations for field in variation.fields]
        if twice := sorted({field for field in fields if fields.count(field) > 1}):
            raise UsageError(f"--grid: {', '.join(twice)} is varied twice")
        chosen = list(itertools.product(*(variation.settings for variation in variations)))
    else:
        chosen = [(), *((setting,) for variation in variations for setting in variation.settings)]
    named: list[NamedRecipe] = []
    for settings in chosen:
        changed = _changed(recipe, settings)
        if all(changed != other.recipe for other in named):
            named.append(NamedRecipe(_name(settings), changed))
    _check_names([each.name for each in named])
    return named


def _unknown(field: str, leaves: Mapping[str, Any]) -> str:
    inside = [leaf for leaf in leaves if leaf.startswith(field + ".")]
    if inside:
        return f"{field} is a section; vary a field of it: {', '.join(inside)}"
    close = difflib.get_close_matches(field, leaves, n=1, cutoff=0.0)
    return f"the recipe has no field {field}; did you mean {close[0]}?"


def _typed(field: str, text: str, kind: type) -> Any:
    try:
        return _TRUTH[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise UsageError(f"--vary: {field} must be of type {kind.__name__}, given {text!r}") from None


def _changed(recipe: Mapping[str, Any], settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    changed = copy.deepcopy(dict(recipe))
    for setting in settings:
        for field, value in setting.items():
            *sections, name = field.split(".")
            section = changed
            for part in sections:
                section = section[part]
            section[name] = value
    return changed


def _name(settings: Sequence[Mapping[str, Any]]) -> str:
    """The name of some settings: [{"a.b": 3}, {"c.d": 0.1, "e.d": 0.1}] -> "a.b=3__c.d+e.d=0.1"."""
    parts = ["+".join(setting) + f"={next(iter(setting.values()))}" for setting in settings]
    return _UNSAFE.sub("_", "__".join(parts)) or BASELINE


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two variations would have the folder {name}")
        if len(name) > _LONGEST_NAME:
            raise UsageError(f"{name} is longer than a folder's name may be; vary fewer fields at a time")
