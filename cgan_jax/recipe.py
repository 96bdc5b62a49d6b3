"""Recipes: where they begin, how they are checked, and what may change on resuming.

`defaults()` is what the files of configs/ begin with. It is a ConfigDict, so that a recipe sets one value a line; all
other functions take a recipe as a plain nested dict. recipe_fields.py lists what each value may be.
"""

import difflib
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from cgan_jax import averages
from cgan_jax import recipe_fields as fields
from cgan_jax.errors import UsageError
from cgan_jax.recipe_fields import FREE, LATER, LATER_OF_PLAYERS, SECTIONS, TOP, Value


def defaults() -> ConfigDict:
    """What a recipe begins with: all that does not define the method.

    An empty section is the recipe's to fill. A method that the recipe does not name is off. Intervals are in kimg.
    """
    return ConfigDict(
        {
            "seed": 0,
            "dataset": {
                "data_dir": "",  # for tfds $TFDS_DATA_DIR, then ~/tensorflow_datasets
                "placement": "replicated",  # every device holds all images
                "fit": "crop",  # what makes a rectangle a square
                "channels": "auto",  # the source decides
                "background": "black",  # behind transparent pixels
                "classes": "",  # all
                "balance": "none",  # classes are drawn as often as they are there
            },
            "generator": {},
            "discriminator": {},
            "loss": {"d_updates": {}, "g_terms": {}},
            "g_optimizer": {"schedule": "constant"},
            "d_optimizer": {"schedule": "constant"},
            "ema": {"halflives_kimg": ""},  # one average
            "augment": {
                "policy": "",  # off
                "probability": 1.0,
                "target": 0.0,  # the probability does not adapt
                "target_kimg": 0.0,
            },
            "anneal": {"kimg": 0.0, "to": {}},  # off
            "train": {
                "max_minutes": 0.0,  # no limit
                "accumulate": 1,  # parts of a device's batch, to save memory
                "batch_norm_groups": 1,  # statistics over the whole batch
                "freeze": "",  # no layer
                "steps_per_call": 0,  # as many as suit the devices
                "parallelism": "shard_map",
                "log_kimg": 5.0,
                "sample_kimg": 50.0,
            },
            "evaluate": {
                "metrics": "",  # none
                "features": "classifier",  # inception is the network of the published FID
                "keep_best": "",  # no metric, so only the latest checkpoints are kept
                "every_kimg": 50.0,
                "num_images": 1000,
            },
            "checkpoint": {"every_kimg": 50.0, "max_to_keep": 3},
            "guard": {
                "action": "raise",
                "max_rollbacks": 3,
                "d_perfect_kimg": 100.0,  # of a discriminator that is always right
                "collapse": 0.1,  # share of the best diversity, or class accuracy, that must be left
                "watchdog_minutes": 30.0,
                "watchdog_exits": False,
            },
        }
    )


def widened(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A copy of the recipe in which whole numbers are floats if the field is one, and ~ is the home folder in paths.

    A float is never made a whole number. The generator's and discriminator's numbers stay as they are: their types are
    the architecture's.
    """
    result = {}
    for name, given in recipe.items():
        value = fields.field(prefix + name)
        if isinstance(given, Mapping):
            given = widened(given, f"{prefix}{name}.")
        elif value and value.kind is float and type(given) is int and abs(given) <= 2**53:  # floats are exact so far
            given = float(given)
        elif value and value.is_path and isinstance(given, str):
            given = os.path.expanduser(given)
        result[name] = given
    return result


def check(recipe: Mapping[str, Any], stored: bool = False) -> None:
    """Raises UsageError for the first key that is unknown or missing, and the first value of a wrong type or size.

    One that was `stored` with a run may lack what may change on resuming, or differ there, and lack LATER sections: an
    earlier version may not have known them, or have allowed more.
    """
    absent = [name for name in LATER if stored and name not in recipe]
    _check_keys("", recipe, [name for name in (*TOP, *SECTIONS, *FREE) if name not in absent])
    for name, value in TOP.items():
        _check_value(name, recipe[name], value)
    for section, listed in SECTIONS.items():
        if section in absent:
            continue
        _check_section(section, recipe[section])
        there = {name: v for name, v in listed.items() if name in recipe[section] or not _may_lack(v, stored)}
        _check_keys(section + ".", recipe[section], there)
        for name, value in there.items():
            if stored and value.may_change:
                value = Value(value.kind)
            _check_value(f"{section}.{name}", recipe[section][name], value)
    for player in ("generator", "discriminator"):
        _check_section(player, recipe[player])
        for name, number in recipe[player].items():
            if type(number) not in (bool, int, float, str):
                raise UsageError(f"{player}.{name} must be a number, a text or a truth value, given {_shown(number)}")
            _check_value(f"{player}.{name}", number, fields.of_player(name, type(number)))
    _check_losses(recipe["loss"])
    if "anneal" not in absent:
        _check_annealed(recipe)
    averages.further(recipe)


def complete(stored: dict[str, Any]) -> None:
    """Gives a recipe that was stored with a run what all had that an earlier version did not let choose."""
    for player in ("generator", "discriminator"):
        stored[player].setdefault("dtype", "float32")
    for key, value in _unsaid().items():
        section, _, name = key.partition(".")
        if section in stored:  # but for LATER ones
            stored[section].setdefault(name, value)


def _unsaid() -> dict[str, str | float]:
    """What holds where a recipe does not say it, by "section.field"."""
    return {
        f"{section}.{name}": value.before
        for section, listed in SECTIONS.items()
        for name, value in listed.items()
        if value.before is not None
    }


def _may_lack(value: Value, stored: bool) -> bool:
    return value.before is not None or (stored and value.may_change)


def check_devices(recipe: Mapping[str, Any], devices: int) -> None:
    """Raises UsageError where a batch cannot be shared evenly by this many devices."""
    parts = recipe["train"].get("accumulate", 1)
    for name in ("batch_size", "g_batch_size"):
        size = recipe["train"][name]
        if not size % devices and size // devices % parts:
            raise UsageError(
                f"train.accumulate={parts} must divide the {size // devices} images of train.{name} on each device"
            )
        if size % devices:
            raise UsageError(
                f"train.{name}={size} cannot be shared evenly by {devices} devices; give a multiple of {devices}"
            )
        _check_groups(name, size, recipe["train"].get("batch_norm_groups", 1), devices)


def _check_groups(name: str, size: int, groups: int, devices: int) -> None:
    if size % groups:
        raise UsageError(f"train.batch_norm_groups={groups} must divide the {size} images of train.{name}")
    if groups % devices and devices % groups:
        raise UsageError(f"train.batch_norm_groups={groups} must divide the {devices} devices or be a multiple of them")


def flattened(recipe: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("section.field", value) for every leaf, in order."""
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def check_same_run(started: Mapping[str, Any], given: Mapping[str, Any], where: str) -> None:
    """Raises UsageError, listing every key, where `given` changes what a run in `where` cannot change on resuming."""
    before, after = ({**_unsaid(), **LATER_OF_PLAYERS, **dict(flattened(one))} for one in (started, given))
    changed = [
        f"{key}: {before.get(key, 'absent')!r} -> {after.get(key, 'absent')!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key, ...) != after.get(key, ...) and not fields.may_change(key)
    ]
    if changed:
        raise UsageError(
            f"{where} holds a run of another recipe, which differs in {'; '.join(changed)}; use another --workdir"
        )


def warn_of_schedules(started: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Says so where another length bends the learning rates of a run that goes on."""
    for field in ("total_kimg", "max_minutes"):
        before, after = started["train"].get(field, 0.0), given["train"][field]
        for name in ("g_optimizer", "d_optimizer"):
            if before != after and given[name]["schedule"] != "constant":
                print(
                    f"note: {name} has a {given[name]['schedule']} schedule over the whole run; with train.{field}"
                    f" {before:g} -> {after:g} its learning rate changes at once"
                )
        if before != after and given["anneal"]["to"] and given["train"]["max_minutes"]:
            print(f"note: with train.{field} {before:g} -> {after:g} what anneal.to lists changes at once")


def _check_keys(prefix: str, given: Mapping[str, Any], allowed) -> None:
    for name in given:
        if name not in allowed:
            close = difflib.get_close_matches(str(name), allowed, n=1)
            hint = f"did you mean {prefix}{close[0]}?" if close else f"there are: {', '.join(allowed)}"
            raise UsageError(f"the recipe has an unknown key {prefix}{name}; {hint}")
    missing = [prefix + name for name in allowed if name not in given]
    if missing:
        raise UsageError(f"the recipe lacks {', '.join(missing)}")


def _check_section(name: str, given: Any) -> None:
    if not isinstance(given, Mapping):
        raise UsageError(f"{name} must be a section, given {_shown(given)}")


def _check_value(name: str, given: Any, value: Value) -> None:
    if type(given) is not value.kind:
        raise UsageError(f"{name} must be of type {value.kind.__name__}, given {_shown(given)}")
    if value.choices and given not in value.choices:
        raise UsageError(f"{name} must be one of {', '.join(value.choices)}, given {_shown(given)}")
    if value.kind is str and not is_text(given):
        raise UsageError(f"{name} must be text that can be written to a file, given {_shown(given)}")
    if value.kind in (int, float):
        # Not math.isfinite, which fails for a whole number of 400 digits.
        if not abs(given) < math.inf:
            raise UsageError(f"{name} must be a finite number, given {given!r}")
        is_end = (value.positive and given == 0) or (value.below and given == value.high)
        if is_end or not value.low <= given <= value.high:
            least = f"more than {value.low:.12g}" if value.positive else f"at least {value.low:.12g}"
            bound = "less than" if value.below else "at most"
            most = f" and {bound} {value.high:.12g}" if math.isfinite(value.high) else ""
            raise UsageError(f"{name} must be {least}{most}, given {_shown(given)}")
        if value.kind is int and abs(given) > value.limit:
            raise UsageError(f"{name} must be at most {value.limit}, given {_shown(given)}")


def is_text(given: Any) -> bool:
    """Whether it is text without the zero character and without halves of a pair of UTF-16."""
    return isinstance(given, str) and "\0" not in given and not any("\ud800" <= char <= "\udfff" for char in given)


def _shown(given: Any) -> str:
    """A value in a message, of at most 80 characters."""
    try:
        shown = repr(given)
    except (ValueError, RecursionError):  # more digits than Python prints, or nested too deep
        shown = f"a very large {type(given).__name__}"
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def _check_losses(loss: Any) -> None:
    _check_section("loss", loss)
    _check_keys("loss.", loss, ("d_updates", "g_terms"))
    _check_section("loss.d_updates", loss["d_updates"])
    listings = {f"loss.d_updates.{name}": listing for name, listing in loss["d_updates"].items()}
    for name, listing in {**listings, "loss.g_terms": loss["g_terms"]}.items():
        _check_section(name, listing)
        for term, entry in listing.items():
            _check_section(f"{name}.{term}", entry)
            if "weight" not in entry:
                raise UsageError(f"{name}.{term} lacks its weight")
            for field, number in entry.items():
                _check_value(f"{name}.{term}.{field}", number, fields.COUNT if field == "every" else Value(float))


def _check_annealed(recipe: Mapping[str, Any]) -> None:
    _check_section("anneal", recipe["anneal"])
    _check_keys("anneal.", recipe["anneal"], ("kimg", "to"))
    _check_value("anneal.kimg", recipe["anneal"]["kimg"], fields.KIMG)
    _check_section("anneal.to", recipe["anneal"]["to"])
    numbers = {key: fields.moves(key) for key, _ in flattened(recipe) if fields.moves(key)}
    ends = dict(flattened(recipe["anneal"]["to"]))
    for key, end in ends.items():
        if key not in numbers:
            raise UsageError(f"anneal.to.{key} cannot be annealed; there are: {', '.join(sorted(numbers))}")
        _check_value(f"anneal.to.{key}", end, numbers[key])
    if ends and recipe["anneal"]["kimg"] == 0.0:
        raise UsageError("anneal.kimg must be more than 0 where anneal.to lists numbers, given 0.0")
