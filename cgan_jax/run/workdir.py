"""The files of a run except checkpoints: config.json, the logs, and the lock against a second process."""

import contextlib
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cgan_jax import recipe as recipes
from cgan_jax.errors import UsageError
from cgan_jax.files import json_text, locks, storage
from cgan_jax.names import printable
from cgan_jax.run.progress import say

CONFIG, METRICS, EVALUATIONS, AVERAGES, ENVIRONMENTS, ROLLBACKS, LOCK = (
    "config.json",
    "metrics.jsonl",
    "evaluations.jsonl",
    "averages.jsonl",
    "environments.jsonl",
    "rollbacks.jsonl",
    ".lock",
)
_NUMBERS = {
    METRICS: ("step", "kimg", "seconds"),
    EVALUATIONS: ("step", "kimg"),
    AVERAGES: ("step", "kimg"),
    ROLLBACKS: ("step", "kimg", "to"),
}
"""The numbers that every line of a log has. A line of these logs holds other numbers too, and what _OTHERS names."""
_OTHERS = {"protocol": dict, "why": str, "average": str}
_CHECKSUM = "crc32"
"""The checksum of the rest of a line; lines of version 0.1 have none."""
_TOLD: set[Path] = set()
"""The files of which this process has said that they are damaged or have no checksum."""


class RunInfo(NamedTuple):
    """The content of config.json, which is enough to rebuild the networks without the dataset."""

    recipe: dict[str, Any]
    channels: int
    class_names: list[str]
    num_images: int
    """Real images in the training split."""

    @property
    def classes(self) -> list[str]:
        """The classes that a person can choose: the class names, or ["image"] for an unconditional run."""
        return self.class_names if self.recipe["dataset"]["conditional"] else ["image"]


def read_info(workdir: Path) -> RunInfo:
    """The content of config.json. Raises UsageError if `workdir` holds no run or the file cannot be used.

    Says once if the file has no checksum, as in runs of version 0.1.
    """
    path = workdir / CONFIG
    try:
        fields, is_sealed = json_text.unsealed(storage.read_text(path))
        info = checked(fields)
    except FileNotFoundError:
        raise UsageError(f"{workdir} holds no run: there is no {path}") from None
    except json_text.SealBroken:
        raise UsageError(
            f"{path} is not what the run wrote; if you changed it, check its values and remove its {json_text.SEAL!r};"
            " if not, move it away, and cgan train with the run's recipe writes it again"
        ) from None
    except (OSError, ValueError, TypeError, UsageError) as error:
        raise UsageError(f"{path} cannot be read: {storage.reason(error)}") from error
    if not is_sealed:
        _say_once(path, f"warning: {path} has no checksum, so damage to it would not be noticed")
    return info


def checked(fields: Mapping[str, Any]) -> RunInfo:
    """What was written of a run, complete. Raises UsageError, TypeError or ValueError if it cannot be used."""
    info = RunInfo(**fields)
    recipes.check(info.recipe, stored=True)
    _check_images(info)
    recipes.complete(info.recipe)
    return info._replace(class_names=[printable(name) for name in info.class_names])


def _check_images(info: RunInfo) -> None:
    """Raises ValueError for what no dataset has."""
    if type(info.channels) is not int or info.channels not in (1, 3, 4):
        raise ValueError("channels must be 1, 3 or 4")
    names = info.class_names
    if not isinstance(names, list) or not names or not all(recipes.is_text(name) for name in names):
        raise ValueError("class_names must list at least one name, each text that can be written to a file")
    if type(info.num_images) is not int or not 0 < info.num_images < 2**63:
        raise ValueError("num_images must be a whole number of at least 1")


def check_same_dataset(started: RunInfo, given: RunInfo, workdir: Path) -> None:
    """Raises UsageError if the dataset differs from the one that the run in `workdir` started with."""
    for name in ("channels", "num_images", "class_names"):
        before, after = getattr(started, name), getattr(given, name)
        if before != after:
            raise UsageError(
                f"the dataset has changed since the run in {workdir} started: its {name} were {before}, now {after}"
            )


def write_info(workdir: Path, info: RunInfo) -> None:
    """Writes config.json."""
    storage.write_whole(workdir / CONFIG, json_text.sealed(info._asdict(), indent=2) + "\n")


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Creates `workdir` if needed and holds its lock. The lock is freed even if the process is killed.

    Raises UsageError if the folder cannot be written or another process holds the lock.
    """
    with contextlib.ExitStack() as stack:
        try:
            storage.make_folder(workdir)
            stack.enter_context(locks.held(workdir / LOCK))
        except OSError as error:
            raise UsageError(f"--workdir={workdir} cannot be written: {error.strerror}") from error
        yield


def is_locked(workdir: Path) -> bool:
    """Whether a process holds the lock of a run."""
    return locks.is_held(workdir / LOCK)


def append_metrics(workdir: Path, line: Mapping[str, float], log: str = METRICS) -> None:
    """Appends a line to a log: metrics.jsonl by default. `line` holds step, kimg, seconds and scalars."""
    storage.append_line(workdir / log, _written(line))


def read_metrics(workdir: Path, log: str = METRICS) -> list[dict[str, float]]:
    """The whole lines of a log. Skips damaged lines, and says so once.

    A kill leaves a torn last line, which is skipped in silence.
    """
    path = workdir / log
    *texts, torn = storage.read_log(path).split("\n")
    lines = [_parsed(text, log) for text in texts]
    damaged = [str(number) for number, line in enumerate(lines, 1) if line is None]
    if damaged:
        _say_once(path, f"warning: skipping damaged lines of {path}: {', '.join(damaged[:10])}")
    last = _parsed(torn, log) if torn else None
    return [line for line in [*lines, last] if line is not None]


def _say_once(path: Path, text: str) -> None:
    if path not in _TOLD:
        _TOLD.add(path)
        say(text)


def _written(line: Mapping[str, Any]) -> str:
    """The line as text, with its checksum at the end."""
    text = json.dumps(line)
    return f'{text[:-1]}, "{_CHECKSUM}": {zlib.crc32(text.encode())}}}' if line else text


def _parsed(text: str, log: str) -> dict[str, Any] | None:
    """The line without its checksum; None if it is damaged, or lacks or holds what no line of that log does."""
    try:
        line = json_text.parsed(text)
    except ValueError:
        return None
    if not isinstance(line, dict):
        return None
    if _CHECKSUM in line and line.pop(_CHECKSUM) != zlib.crc32(json.dumps(line).encode()):
        return None
    if log not in _NUMBERS:
        return line
    has_all = all(_is_number(line.get(name)) for name in _NUMBERS[log])
    has_nothing_else = all(
        isinstance(value, _OTHERS[name]) if name in _OTHERS else _is_number(value) or type(value) is float
        for name, value in line.items()
    )
    return line if has_all and has_nothing_else else None


def _is_number(value: Any) -> bool:
    """Whether it is a finite number that fits 64 bits. A metric may be infinite too."""
    return type(value) in (int, float) and abs(value) < 2**63


def read_metrics_until(workdir: Path, step: int, log: str = METRICS) -> list[dict[str, float]]:
    """The lines of a log up to a step."""
    return [line for line in read_metrics(workdir, log) if line["step"] <= step]


def is_at_end(last: Mapping[str, float], section: Mapping[str, Any]) -> bool:
    """Whether the last line of metrics.jsonl says that all images are shown or all minutes used.

    `section` is the recipe's section train.
    """
    is_out_of_time = section["max_minutes"] > 0 and last["seconds"] >= 60 * section["max_minutes"]
    return is_out_of_time or last["kimg"] >= round(section["total_kimg"], 6)


def append_environment(workdir: Path, environment: Mapping[str, Any]) -> None:
    """Appends the environment of this start to environments.jsonl, unless it equals the last line."""
    if read_metrics(workdir, ENVIRONMENTS)[-1:] != [environment]:
        append_metrics(workdir, environment, ENVIRONMENTS)


def read_environments(workdir: Path) -> list[dict[str, Any]]:
    """The environments of the starts of a run, oldest first; empty if the run recorded none."""
    return read_metrics(workdir, ENVIRONMENTS)


def forget_metrics_after(workdir: Path, step: int, log: str = METRICS) -> list[dict[str, float]]:
    """Drops the lines after `step`, which a resumed run writes again, and returns the others."""
    kept = read_metrics_until(workdir, step, log)
    storage.rewrite_log(workdir / log, "".join(_written(line) + "\n" for line in kept))
    return kept
