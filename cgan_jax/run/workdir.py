"""The files of a run besides its checkpoints: config.json, its logs, and the lock against a second process."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cgan_jax import recipe as recipes
from cgan_jax.errors import UsageError
from cgan_jax.files import locks, storage

CONFIG, METRICS, EVALUATIONS, ENVIRONMENTS, LOCK = (
    "config.json",
    "metrics.jsonl",
    "evaluations.jsonl",
    "environments.jsonl",
    ".lock",
)


class RunInfo(NamedTuple):
    """What config.json says of a run: all that is needed to rebuild its networks without its dataset."""

    recipe: dict[str, Any]
    channels: int
    class_names: list[str]
    num_images: int
    """Real images in the training split."""

    @property
    def classes(self) -> list[str]:
        """What can be asked for: the classes, or the only one, "image", of a run without."""
        return self.class_names if self.recipe["dataset"]["conditional"] else ["image"]


def read_info(workdir: Path) -> RunInfo:
    """Raises UsageError where `workdir` holds no run."""
    path = workdir / CONFIG
    try:
        info = RunInfo(**json.loads(storage.read_text(path)))
        recipes.check(info.recipe, stored=True)
        recipes.complete(info.recipe)
    except FileNotFoundError:
        raise UsageError(f"{workdir} holds no run: there is no {path}") from None
    except (OSError, ValueError, TypeError, UsageError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    return info


def check_same_dataset(started: RunInfo, given: RunInfo, workdir: Path) -> None:
    """Raises UsageError where the data of a run in `workdir` are not what it was started with."""
    for name in ("channels", "num_images", "class_names"):
        before, after = getattr(started, name), getattr(given, name)
        if before != after:
            raise UsageError(
                f"the dataset has changed since the run in {workdir} was started: its {name} were {before}, now {after}"
            )


def write_info(workdir: Path, info: RunInfo) -> None:
    """Writes config.json."""
    storage.write_whole(workdir / CONFIG, json.dumps(info._asdict(), indent=2) + "\n")


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Creates `workdir` where needed and holds its lock, which is free again however the process ends.

    Raises UsageError where the folder cannot be written or another process holds the lock.
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
    """Adds one line to metrics.jsonl or evaluations.jsonl: {step, kimg, seconds, scalars}."""
    storage.append_line(workdir / log, json.dumps(line))


def read_metrics(workdir: Path, log: str = METRICS) -> list[dict[str, float]]:
    """The whole lines of a log; a torn last line, which a kill leaves, is no line."""
    lines = []
    for text in storage.read_log(workdir / log).splitlines():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(text))
    return lines


def read_metrics_until(workdir: Path, step: int, log: str = METRICS) -> list[dict[str, float]]:
    """As `read_metrics`, the lines up to a step."""
    return [line for line in read_metrics(workdir, log) if line["step"] <= step]


def append_environment(workdir: Path, environment: Mapping[str, Any]) -> None:
    """Adds what this start of the run is made with to environments.jsonl, unless that is what the last one said."""
    if read_metrics(workdir, ENVIRONMENTS)[-1:] != [environment]:
        append_metrics(workdir, environment, ENVIRONMENTS)


def read_environments(workdir: Path) -> list[dict[str, Any]]:
    """What the starts of a run were made with, oldest first; none for a run that did not say."""
    return read_metrics(workdir, ENVIRONMENTS)


def forget_metrics_after(workdir: Path, step: int, log: str = METRICS) -> list[dict[str, float]]:
    """Drops the lines that a resumed run is about to write again, and returns the others."""
    kept = read_metrics_until(workdir, step, log)
    storage.rewrite_log(workdir / log, "".join(json.dumps(line) + "\n" for line in kept))
    return kept
