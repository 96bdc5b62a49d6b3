"""What a recipe contains: its sections, the type and range of each value, and what may change on resuming."""

import math
from typing import NamedTuple


class Value(NamedTuple):
    """What a field may hold."""

    kind: type
    low: float = -math.inf
    """The least allowed number."""
    high: float = math.inf
    choices: tuple[str, ...] = ()
    positive: bool = False
    """Whether 0 is refused too."""
    below: bool = False
    """Whether `high` is refused too."""
    may_change: bool = False
    """Whether a resumed run may differ here from what it was started with."""
    may_move: bool = False
    """Whether the number may be annealed."""
    is_path: bool = False
    """Whether the text is a folder or a file."""
    before: str | float | None = None
    """What holds for a recipe without this field, as one from before there was such a field."""
    limit: int = 2**63 - 1
    """What no whole number exceeds: far above what a machine trains. Beyond, commands are busy before they fail."""


_MANY = 1 << 24
_LARGEST_SIZE, _LARGEST_KERNEL, _LARGEST_IMAGE = 1 << 16, 255, 4096
_RATE = Value(float, low=0.0, high=1.0)
_DECAY = _RATE._replace(below=True)  # with 1 a moment never begins, and its correction is 0 / 0
KIMG = Value(float, low=0.0)
_INTERVAL = Value(float, low=1e-6, may_change=True)
COUNT = Value(int, low=1, limit=_MANY)
_OPTIMIZER = {
    "name": Value(str),
    "learning_rate": Value(float, low=0.0, positive=True, may_move=True),
    "b1": _DECAY,
    "b2": _DECAY._replace(may_move=True),
    "eps": Value(float, low=0.0),
    "schedule": Value(str),
}

# "generator" and "discriminator" belong to the architecture, "loss" to the terms: those check what stands in them. What
# "anneal" moves stands in the other sections.
FREE = ("generator", "discriminator", "loss", "anneal")
# Of no use but in training, so that a run from before there were such sections can still be drawn from.
LATER = ("augment", "anneal", "guard")
# What holds where a run of an earlier version lacks a field that its architecture has by now.
LATER_OF_PLAYERS = {"generator.batch_norm_momentum": 0.0}
SECTIONS: dict[str, dict[str, Value]] = {
    "dataset": {
        "source": Value(str),
        "name": Value(str),
        "split": Value(str),
        "data_dir": Value(str, may_change=True, is_path=True),
        "image_size": Value(int, low=1, limit=_LARGEST_IMAGE),
        "conditional": Value(bool),
        "flip": Value(bool),
        "placement": Value(str, choices=("replicated", "sharded", "stream"), may_change=True),
        "fit": Value(str, choices=("crop", "pad", "stretch"), before="crop"),
        "channels": Value(str, choices=("auto", "grey", "rgb", "rgba"), before="auto"),
        "background": Value(str, choices=("black", "white"), before="black"),
        "classes": Value(str, before=""),
        "balance": Value(str, choices=("none", "sqrt", "uniform"), before="none"),
    },
    "g_optimizer": _OPTIMIZER,
    "d_optimizer": _OPTIMIZER,
    "ema": {
        "halflife_kimg": KIMG._replace(may_move=True),
        "halflives_kimg": Value(str, before=""),
        "start_kimg": KIMG,
    },
    "augment": {
        "policy": Value(str),
        "probability": _RATE._replace(may_move=True),
        "target": _RATE._replace(before=0.0),
        "target_kimg": KIMG._replace(before=0.0),
    },
    "train": {
        "total_kimg": Value(float, low=0.001, high=2**32 / 1000, may_change=True),
        "max_minutes": Value(float, low=0.0, may_change=True),
        "batch_size": COUNT,
        "g_batch_size": COUNT,
        "d_steps_per_g_step": COUNT,
        "accumulate": Value(int, low=1, limit=_MANY, may_change=True, before=1),
        "batch_norm_groups": Value(int, low=1, limit=_MANY, before=1),
        "freeze": Value(str, before=""),
        "steps_per_call": Value(int, low=0, limit=_MANY, may_change=True),
        "parallelism": Value(str, choices=("shard_map", "pmap"), may_change=True),
        "log_kimg": _INTERVAL,
        "sample_kimg": _INTERVAL,
    },
    "evaluate": {
        "metrics": Value(str, may_change=True),
        "features": Value(str, choices=("classifier", "inception"), may_change=True),
        "keep_best": Value(str, may_change=True),
        "every_kimg": _INTERVAL,
        "num_images": COUNT._replace(may_change=True),
    },
    "checkpoint": {
        "every_kimg": _INTERVAL,
        "max_to_keep": Value(int, low=2, limit=_MANY, may_change=True),
    },
    "guard": {
        "action": Value(str, choices=("raise", "rollback"), may_change=True),
        "max_rollbacks": Value(int, low=0, limit=_MANY, may_change=True),
        "d_perfect_kimg": Value(float, low=0.0, may_change=True),
        "collapse": Value(float, low=0.0, high=1.0, may_change=True),
        "watchdog_minutes": Value(float, low=0.0, may_change=True),
        "watchdog_exits": Value(bool, may_change=True),
    },
}
TOP = {"architecture": Value(str), "seed": Value(int, low=0, high=2**31 - 1)}


def field(key: str) -> Value | None:
    """What the field of that dotted name may hold; None for one that is unknown or that an architecture checks."""
    section, _, name = key.partition(".")
    if section in ("loss", "anneal"):
        return COUNT if name.endswith(".every") else Value(float)
    return TOP.get(key) or SECTIONS.get(section, {}).get(name)


def of_player(name: str, kind: type) -> Value:
    """What a generator's or discriminator's field may hold, whatever the architecture."""
    if kind is int:
        return Value(int, low=1, limit=_LARGEST_KERNEL if name.endswith("kernel_size") else _LARGEST_SIZE)
    return Value(kind, low=0.0)


def moves(key: str) -> Value | None:
    """What an annealed number of that name may be, None where none may move."""
    if key.startswith("loss.") and key.endswith((".weight", ".top")):
        return Value(float)
    section, _, name = key.partition(".")
    value = SECTIONS.get(section, {}).get(name)
    return value if value is not None and value.may_move else None


def may_change(key: str) -> bool:
    """Whether a resumed run may differ in the field of that dotted name."""
    section, _, name = key.partition(".")
    value = SECTIONS.get(section, {}).get(name)
    # Rematerialisation changes no number.
    return name == "remat" if section in ("generator", "discriminator") else value is not None and value.may_change
