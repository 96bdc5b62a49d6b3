"""Trackers that get the numbers and pictures of a run too, and the hooks that every call runs.

clu.metric_writers and clu.periodic_actions import TensorFlow, 1.4 GB. All writers take the calls of the former.
"""

import hashlib
import importlib.util
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

from cgan_jax.errors import UsageError
from cgan_jax.files import storage
from cgan_jax.lookup import module_named
from cgan_jax.run.processes import is_first
from cgan_jax.run.writers.tensorboard import has_tensorflow

DEFAULT = ("tensorboard",)


class MetricWriter:
    """The writers of a run, each a file of writers/. The first of several processes writes, from the first number on.

    A bucket gets the files whole at every flush, because its objects do not grow.
    """

    def __init__(self, workdir: Path, names: Sequence[str] = DEFAULT):
        self._workdir, self._names, self._sizes = workdir, names, {}
        self._writers: list[Any] | None = None
        self._folder = None

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Scalars by name; "kimg" is the second axis of the writers that have one."""
        self._write("scalars", step, scalars)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Images uint8 [N, H, W, C] each."""
        self._write("images", step, images)

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        self._write("hparams", {name: _writable(value) for name, value in hparams.items()})

    def _write(self, kind: str, *arguments: Any) -> None:
        if self._writers is None and is_first():
            if storage.is_remote(self._workdir):
                self._folder = tempfile.TemporaryDirectory(prefix="cgan-")
            folder = Path(self._folder.name) if self._folder else self._workdir
            self._writers = [_module(writer).Writer(folder, _unique_name(self._workdir)) for writer in self._names]
        for writer in self._writers or ():
            getattr(writer, f"write_{kind}")(*arguments)

    def flush(self) -> None:
        """Writes what is buffered, if there is anything."""
        for writer in self._writers or ():
            writer.flush()
        for name in storage.files_below(Path(self._folder.name)) if self._folder else ():
            content = Path(self._folder.name, name).read_bytes()
            if len(content) != self._sizes.get(name):
                storage.write_whole(self._workdir / name, content)
                self._sizes[name] = len(content)

    def close(self) -> None:
        """Flushes and closes the files, if there are any."""
        self.flush()
        for writer in self._writers or ():
            writer.close()
        if self._folder:
            self._folder.cleanup()


def _unique_name(workdir: Path) -> str:
    """The folder's name, and six digits of its path: trackers have one list for runs of all folders."""
    path = storage.resolved(workdir)
    return f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:6]}"


def check(names: Sequence[str]) -> None:
    """Raises UsageError for a writer that does not exist or whose package is not installed."""
    for name in names:
        _module(name)
        if importlib.util.find_spec(name) is None:
            raise UsageError(f"--writers={name} needs its package: pip install 'cgan_jax[{name}]'")


def _module(name: str) -> ModuleType:
    return module_named("cgan_jax.run.writers", name, "writer")


def _writable(value: Any) -> Any:
    """The value without lone surrogates, which names of folders may hold and UTF-8 cannot write."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def make_hooks(writer: MetricWriter, workdir: Path, total_steps: int, profile: bool) -> list[Callable[[int], None]]:
    """Called with the step after every call: progress in the log and event files and, if asked for, a profile."""
    if not has_tensorflow():
        return [Profile(workdir, total_steps)] if profile else []
    from clu import periodic_actions

    hooks = [periodic_actions.ReportProgress(num_train_steps=total_steps, writer=writer)]
    if profile:
        hooks.append(periodic_actions.Profile(logdir=str(workdir), num_profile_steps=5, profile_duration_ms=0))
    return hooks


class Profile:
    """A trace of the third to sixth call, for TensorBoard's profile page: clu's Profile without TensorFlow."""

    first, last = 2, 6

    def __init__(self, logdir: Path, total_steps: int):
        self._logdir, self._total_steps = str(logdir), total_steps
        self._calls, self._traces = 0, False

    def __call__(self, step: int) -> None:
        """After a call that ended at `step`; the last call of a run ends the trace too."""
        self._calls += 1
        if self._traces and (self._calls == self.last or step >= self._total_steps):
            self.close()
        elif self._calls == self.first and step < self._total_steps:
            jax.profiler.start_trace(self._logdir)
            self._traces = True

    def close(self) -> None:
        """Ends and writes the trace, if one is being taken."""
        if self._traces:
            jax.profiler.stop_trace()
            self._traces = False
