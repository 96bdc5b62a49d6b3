"""What a recipe must contain: its sections, the type and range of each value, and what may change on resuming.

`defaults()` is what the files of configs/ begin with. It is a ConfigDict, so that a recipe sets one value a line; all
other functions take a recipe as a plain nested dict.
"""

import difflib
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from cgan_jax.errors import UsageError


class Value(NamedTuple):
    """What a field may hold."""

    kind: type
    low: float = -math.inf
    """The least allowed number."""
    high: float = math.inf
    choices: tuple[str, ...] = ()
    positive: bool = False
    """Whether 0 is refused too."""
    may_change: bool = False
    """Whether a resumed run may differ here from what it was started with."""
    may_move: bool = False
    """Whether the number may be annealed."""
    is_path: bool = False
    """Whether the text is a folder or a file."""
    may_lack: bool = False
    """Whether a recipe may lack it, as those of earlier versions do."""


_RATE = Value(float, low=0.0, high=1.0)
_KIMG = Value(float, low=0.0)
_INTERVAL = Value(float, low=1e-6, may_change=True)
_COUNT = Value(int, low=1)
_OPTIMIZER = {
    "name": Value(str),
    "learning_rate": Value(float, low=0.0, positive=True, may_move=True),
    "b1": _RATE,
    "b2": _RATE._replace(may_move=True),
    "eps": Value(float, low=0.0),
    "schedule": Value(str),
}

# "generator" and "discriminator" belong to the architecture, "loss" to the terms: those check what stands in them. What
# "anneal" moves stands in the other sections.
FREE = ("generator", "discriminator", "loss", "anneal")
# Of no use but in training, so that a run from before there were such sections can still be drawn from.
LATER = ("augment", "anneal", "guard")
SECTIONS: dict[str, dict[str, Value]] = {
    "dataset": {
        "source": Value(str),
        "name": Value(str),
        "split": Value(str),
        "data_dir": Value(str, may_change=True, is_path=True),
        "image_size": _COUNT,
        "conditional": Value(bool),
        "flip": Value(bool),
        "placement": Value(str, choices=("replicated", "sharded", "stream"), may_change=True),
    },
    "g_optimizer": _OPTIMIZER,
    "d_optimizer": _OPTIMIZER,
    "ema": {"halflife_kimg": _KIMG._replace(may_move=True), "start_kimg": _KIMG},
    "augment": {"policy": Value(str), "probability": _RATE._replace(may_move=True)},
    "train": {
        "total_kimg": Value(float, low=0.001, high=2**32 / 1000, may_change=True),
        "max_minutes": Value(float, low=0.0, may_change=True),
        "batch_size": _COUNT,
        "g_batch_size": _COUNT,
        "d_steps_per_g_step": _COUNT,
        "accumulate": Value(int, low=1, may_change=True, may_lack=True),
        "steps_per_call": Value(int, low=0, may_change=True),
        "parallelism": Value(str, choices=("shard_map", "pmap"), may_change=True),
        "log_kimg": _INTERVAL,
        "sample_kimg": _INTERVAL,
    },
    "evaluate": {
        "metrics": Value(str, may_change=True),
        "features": Value(str, choices=("classifier", "inception"), may_change=True),
        "keep_best": Value(str, may_change=True),
        "every_kimg": _INTERVAL,
        "num_images": Value(int, low=1, may_change=True),
    },
    "checkpoint": {
        "every_kimg": _INTERVAL,
        "max_to_keep": Value(int, low=2, may_change=True),
    },
    "guard": {
        "action": Value(str, choices=("raise", "rollback"), may_change=True),
        "max_rollbacks": Value(int, low=0, may_change=True),
        "d_perfect_kimg": Value(float, low=0.0, may_change=True),
        "collapse": Value(float, low=0.0, high=1.0, may_change=True),
        "watchdog_minutes": Value(float, low=0.0, may_change=True),
        "watchdog_exits": Value(bool, may_change=True),
    },
}
TOP = {"architecture": Value(str), "seed": Value(int, low=0, high=2**31 - 1)}


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
            },
            "generator": {},
            "discriminator": {},
            "loss": {"d_updates": {}, "g_terms": {}},
            "g_optimizer": {"schedule": "constant"},
            "d_optimizer": {"schedule": "constant"},
            "ema": {},
            "augment": {"policy": "", "probability": 1.0},  # off
            "anneal": {"kimg": 0.0, "to": {}},  # off
            "train": {
                "max_minutes": 0.0,  # no limit
                "accumulate": 1,  # parts of a device's batch, to save memory
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
        value = _field(prefix + name)
        if isinstance(given, Mapping):
            given = widened(given, f"{prefix}{name}.")
        elif value and value.kind is float and type(given) is int and abs(given) <= 2**53:  # floats are exact so far
            given = float(given)
        elif value and value.is_path and isinstance(given, str):
            given = os.path.expanduser(given)
        result[name] = given
    return result


def _field(key: str) -> Value | None:
    """What the field of that dotted name may hold; None for one that is unknown or that an architecture checks."""
    section, _, name = key.partition(".")
    if section in ("loss", "anneal"):
        return _COUNT if name.endswith(".every") else Value(float)
    return TOP.get(key) or SECTIONS.get(section, {}).get(name)


def check(recipe: Mapping[str, Any], stored: bool = False) -> None:
    """Raises UsageError for the first key that is unknown or missing, and the first value of a wrong type or size.

    One that was `stored` with a run may lack what may change on resuming, or differ there, and lack LATER sections: an
    earlier version may not have known them, or have allowed more.
    """
    absent = [name for name in LATER if stored and name not in recipe]
    _check_keys("", recipe, [name for name in (*TOP, *SECTIONS, *FREE) if name not in absent])
    for name, value in TOP.items():
        _check_value(name, recipe[name], value)
    for section, fields in SECTIONS.items():
        if section in absent:
            continue
        _check_section(section, recipe[section])
        there = {
            name: v
            for name, v in fields.items()
            if name in recipe[section] or not (v.may_lack or (stored and v.may_change))
        }
        _check_keys(section + ".", recipe[section], there)
        for name, value in there.items():
            if not (stored and value.may_change):
                _check_value(f"{section}.{name}", recipe[section][name], value)
    for player in ("generator", "discriminator"):
        _check_section(player, recipe[player])
        for name, number in recipe[player].items():
            if type(number) not in (bool, int, float, str):
                raise UsageError(f"{player}.{name} must be a number, a text or a truth value, given {number!r}")
            _check_value(f"{player}.{name}", number, Value(type(number), low=1 if type(number) is int else 0.0))
    _check_losses(recipe["loss"])
    if "anneal" not in absent:
        _check_annealed(recipe)


def complete(stored: dict[str, Any]) -> None:
    """Gives a recipe that was stored with a run what all had that an earlier version did not let choose."""
    for player in ("generator", "discriminator"):
        stored[player].setdefault("dtype", "float32")


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


def flattened(recipe: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("section.field", value) for every leaf, in order."""
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def check_same_run(started: Mapping[str, Any], given: Mapping[str, Any], where: str) -> None:
    """Raises UsageError, listing every key, where `given` changes what a run in `where` cannot change on resuming."""
    before, after = dict(flattened(started)), dict(flattened(given))
    changed = [
        f"{key}: {before.get(key, 'absent')!r} -> {after.get(key, 'absent')!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key, ...) != after.get(key, ...) and not _may_change(key)
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


def _may_change(key: str) -> bool:
    section, _, name = key.partition(".")
    value = SECTIONS.get(section, {}).get(name)
    # Rematerialisation changes no number.
    return name == "remat" if section in ("generator", "discriminator") else value is not None and value.may_change


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
        raise UsageError(f"{name} must be a section, given {given!r}")


def _check_value(name: str, given: Any, value: Value) -> None:
    if type(given) is not value.kind:
        raise UsageError(f"{name} must be of type {value.kind.__name__}, given {given!r}")
    if value.choices and given not in value.choices:
        raise UsageError(f"{name} must be one of {', '.join(value.choices)}, given {given!r}")
    if value.kind in (int, float):
        if not math.isfinite(given):
            raise UsageError(f"{name} must be a finite number, given {given!r}")
        if not value.low <= given <= value.high or (value.positive and given == 0):
            least = f"more than {value.low:.12g}" if value.positive else f"at least {value.low:.12g}"
            most = f" and at most {value.high:.12g}" if math.isfinite(value.high) else ""
            raise UsageError(f"{name} must be {least}{most}, given {given!r}")


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
                kind = int if field == "every" else float
                _check_value(f"{name}.{term}.{field}", number, Value(kind, low=1 if kind is int else -math.inf))


def _check_annealed(recipe: Mapping[str, Any]) -> None:
    _check_section("anneal", recipe["anneal"])
    _check_keys("anneal.", recipe["anneal"], ("kimg", "to"))
    _check_value("anneal.kimg", recipe["anneal"]["kimg"], _KIMG)
    _check_section("anneal.to", recipe["anneal"]["to"])
    numbers = {key: _moves(key) for key, _ in flattened(recipe) if _moves(key)}
    ends = dict(flattened(recipe["anneal"]["to"]))
    for key, end in ends.items():
        if key not in numbers:
            raise UsageError(f"anneal.to.{key} cannot be annealed; there are: {', '.join(sorted(numbers))}")
        _check_value(f"anneal.to.{key}", end, numbers[key])
    if ends and recipe["anneal"]["kimg"] == 0.0:
        raise UsageError("anneal.kimg must be more than 0 where anneal.to lists numbers, given 0.0")


def _moves(key: str) -> Value | None:
    """What an annealed number of that name may be, None where none may move."""
    if key.startswith("loss.") and key.endswith(".weight"):
        return Value(float)
    section, _, name = key.partition(".")
    value = SECTIONS.get(section, {}).get(name)
    return value if value is not None and value.may_move else None
