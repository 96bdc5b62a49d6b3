"""The files of a run except checkpoints: config.json, the logs, and the lock against a second process."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cgan_jax import recipe as recipes
from cgan_jax.errors import UsageError
from cgan_jax.files import locks, storage
from cgan_jax.names import printable
from cgan_jax.run.progress import say

CONFIG, METRICS, EVALUATIONS, ENVIRONMENTS, LOCK = (
    "config.json",
    "metrics.jsonl",
    "evaluations.jsonl",
    "environments.jsonl",
    ".lock",
)
_NUMBERS = {
    METRICS: ("step", "kimg", "seconds"),
    EVALUATIONS: ("step", "kimg"),
}
"""What every line of a log has."""
_TOLD: set[Path] = set()
"""The logs whose damaged lines this process has reported."""


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
    """The content of config.json. Raises UsageError if `workdir` holds no run or the file cannot be read."""
    path = workdir / CONFIG
    try:
        info = RunInfo(**json.loads(storage.read_text(path)))
        recipes.check(info.recipe, stored=True)
        recipes.complete(info.recipe)
        info = info._replace(class_names=[printable(name) for name in info.class_names])
    except FileNotFoundError:
        raise UsageError(f"{workdir} holds no run: there is no {path}") from None
    except (OSError, ValueError, TypeError, UsageError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    return info


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
    storage.write_whole(workdir / CONFIG, json.dumps(info._asdict(), indent=2) + "\n")


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
    storage.append_line(workdir / log, json.dumps(line))


def read_metrics(workdir: Path, log: str = METRICS) -> list[dict[str, float]]:
    """The whole lines of a log. Skips damaged lines, and says so once.

    A kill leaves a torn last line, which is skipped in silence.
    """
    *texts, torn = storage.read_log(workdir / log).split("\n")
    lines = [_parsed(text, log) for text in texts]
    damaged = [str(number) for number, line in enumerate(lines, 1) if line is None]
    if damaged and (workdir / log) not in _TOLD:
        _TOLD.add(workdir / log)
        say(f"warning: skipping damaged lines of {workdir / log}: {', '.join(damaged[:10])}")
    last = _parsed(torn, log) if torn else None
    return [line for line in [*lines, last] if line is not None]


def _parsed(text: str, log: str) -> dict[str, Any] | None:
    """The line, or None if it is no JSON object or lacks a number that every line of that log has."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict):
        return None
    needed = _NUMBERS.get(log, ())
    return line if all(type(line.get(name)) in (int, float) for name in needed) else None


def read_metrics_until(workdir: Path, step: int, log: str = METRICS) -> list[dict[str, float]]:
    """The lines of a log up to a step."""
    return [line for line in read_metrics(workdir, log) if line["step"] <= step]


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
    storage.rewrite_log(workdir / log, "".join(json.dumps(line) + "\n" for line in kept))
    return kept
