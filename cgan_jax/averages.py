"""The averages of the generator that a run keeps, and which of them is asked for.

Each is an exponential moving average; its name is its half-life in kimg. Training draws and evaluates the default one,
of `ema.halflife_kimg`. `ema.halflives_kimg`, such as "1,25", lists further ones. "last" names the weights of the last
step, an average of half-life 0.
"""

from collections.abc import Mapping
from typing import Any

from cgan_jax.errors import UsageError

LAST = "last"


def further(recipe: Mapping[str, Any]) -> dict[str, float]:
    """The half-lives that the recipe lists beside the default one, by name.

    Raises UsageError for what is no list of different numbers above 0.
    """
    text = recipe.get("ema", {}).get("halflives_kimg", "")
    found: dict[str, float] = {}
    for halflife in map(_number, text.split(",") if text else ()):
        if not 0 < halflife < float("inf"):
            raise UsageError(f"ema.halflives_kimg must be numbers above 0, such as 1,25, given {text!r}")
        if _name(halflife) in (*found, default(recipe)):
            raise UsageError(f"ema.halflives_kimg={text} lists {_name(halflife)}, of which there is an average already")
        found[_name(halflife)] = halflife
    return found


def constant(recipe: Mapping[str, Any]) -> dict[str, float]:
    """The half-lives above 0 that do not move, by name; that of the default average first."""
    name = default(recipe)
    return further(recipe) if name == LAST or " to " in name else {name: float(name), **further(recipe)}


def default(recipe: Mapping[str, Any]) -> str:
    """The name of the default average: "10 to 200" if its half-life is annealed, "" if the recipe does not say it."""
    first = recipe.get("ema", {}).get("halflife_kimg")
    end = recipe.get("anneal", {}).get("to", {}).get("ema", {}).get("halflife_kimg", first)
    if first is None:
        return ""
    return _name(first) if first == end else f"{first:.12g} to {end:.12g}"


def names(recipe: Mapping[str, Any]) -> list[str]:
    """All that a run of the recipe keeps, the default one first."""
    return list(dict.fromkeys([default(recipe), *further(recipe), LAST]))


def chosen(there: list[str], asked: float | str | None, or_new: bool = False) -> str:
    """The one of the names `there` that is asked for: by a half-life in kimg, "last", or None for the first.

    Raises UsageError, listing the names, for any other; with `or_new` the name of another half-life may be new.
    """
    if asked is None:
        return there[0]
    halflife = _number(asked)
    for name in (str(asked), _name(halflife)):
        if name in there:
            return name
    if or_new and 0 < halflife < float("inf"):
        return _name(halflife)
    raise UsageError(refusal(there, asked))


def refusal(there: list[str], asked: float | str) -> str:
    """A line that says which averages there are."""
    listed = ", ".join([f"{there[0]} (the default)".strip(), *there[1:]])
    return f"--ema={asked}: no such average; there are: {listed}"


def with_default(recipe: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The recipe of the same training whose default average is the one of that name, and its only one."""
    if name == default(recipe):
        return recipe
    ema = {**recipe["ema"], "halflife_kimg": 0.0 if name == LAST else float(name), "halflives_kimg": ""}
    changed = {**recipe, "ema": ema}
    if "anneal" in recipe:
        to = {section: ends for section, ends in recipe["anneal"]["to"].items() if section != "ema"}
        changed["anneal"] = {**recipe["anneal"], "to": to}
    return changed


def described(recipe: Mapping[str, Any]) -> str:
    """The weights of the default average, in words."""
    name = default(recipe)
    if name == LAST:
        return "the last step's, not averaged"
    return f"averaged, half-life {name} kimg" if name else "averaged"


def _number(given: float | str) -> float:
    """The number, or NaN for what is none."""
    try:
        return float(given)
    except (ValueError, TypeError, OverflowError):
        return float("nan")


def _name(halflife: float) -> str:
    return f"{halflife:.12g}" if halflife else LAST
