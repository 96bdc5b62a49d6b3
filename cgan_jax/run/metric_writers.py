"""TensorBoard event files: by CLU if TensorFlow is installed, else by the package `tensorboard` alone.

clu.metric_writers and clu.periodic_actions import TensorFlow, 1.4 GB. Both writers take the same calls.
"""

import functools
import importlib.util
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cgan_jax.files import storage
from cgan_jax.run.processes import is_first


def has_tensorflow() -> bool:
    """Whether TensorFlow could be imported; does not import it."""
    return importlib.util.find_spec("tensorflow") is not None


class MetricWriter:
    """The event files of a run. The first of several processes writes them, from the first number on.

    A bucket gets the files whole at every flush, because its objects do not grow.
    """

    def __init__(self, workdir: Path):
        self._workdir, self._sizes = workdir, {}
        self._writer = self._folder = None

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._write("scalars", step, scalars)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Images uint8 [N, H, W, C] each."""
        self._write("images", step, images)

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        self._write("hparams", {name: _writable(value) for name, value in hparams.items()})

    def _write(self, kind: str, *arguments: Any) -> None:
        if self._writer is None and is_first():
            if storage.is_remote(self._workdir):
                self._folder = tempfile.TemporaryDirectory(prefix="cgan-")
            self._writer = _make_writer(Path(self._folder.name) if self._folder else self._workdir)
        if self._writer is not None:
            getattr(self._writer, f"write_{kind}")(*arguments)

    def flush(self) -> None:
        """Writes what is buffered, if there is anything."""
        if self._writer is not None:
            self._writer.flush()
        for name in storage.files_below(Path(self._folder.name)) if self._folder else ():
            content = Path(self._folder.name, name).read_bytes()
            if len(content) != self._sizes.get(name):
                storage.write_whole(self._workdir / name, content)
                self._sizes[name] = len(content)

    def close(self) -> None:
        """Flushes and closes the files, if there are any."""
        self.flush()
        if self._writer is not None:
            self._writer.close()
        if self._folder:
            self._folder.cleanup()


make_writer = MetricWriter


def _writable(value: Any) -> Any:
    """The value without lone surrogates, which names of folders may hold and UTF-8 cannot write."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def _make_writer(folder: Path) -> Any:
    if not has_tensorflow():
        return EventFileWriter(folder)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # TensorFlow would take the accelerator's memory
    from clu import metric_writers

    return metric_writers.create_default_writer(str(folder), asynchronous=True)


def make_hooks(writer: MetricWriter, workdir: Path, total_steps: int, profile: bool) -> list[Callable[[int], None]]:
    """Called with the step after every call: progress in the log and event files and, if asked for, a profile."""
    if not has_tensorflow():
        return [Profile(workdir, total_steps)] if profile else []
    from clu import periodic_actions

    hooks = [periodic_actions.ReportProgress(num_train_steps=total_steps, writer=writer)]
    if profile:
        hooks.append(periodic_actions.Profile(logdir=str(workdir), num_profile_steps=5, profile_duration_ms=0))
    return hooks


class EventFileWriter:
    """Event files through the package `tensorboard` alone. Takes the calls of clu.metric_writers.MetricWriter."""

    def __init__(self, folder: Path):
        from tensorboard.summary.writer.event_file_writer import EventFileWriter as Writer

        _silence_writer()
        self._writer = Writer(str(folder), filename_suffix=f".{socket.gethostname()}")
        self.flush, self.close = self._writer.flush, self._writer.close

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._add(step, [{"tag": tag, "simple_value": float(value)} for tag, value in scalars.items()])

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Images uint8 [N, H, W, C] each."""
        named = [(f"{tag}/{i}", image) for tag, batch in images.items() for i, image in enumerate(batch)]
        self._add(step, [{"tag": name, "image": _summary_of(image)} for name, image in named])

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        shown = {"metadata": {"plugin_data": {"plugin_name": "text"}}}
        tensors = {tag: {"dtype": "DT_STRING", "string_val": [text.encode()]} for tag, text in texts.items()}
        self._add(step, [{"tag": tag, "tensor": tensor, **shown} for tag, tensor in tensors.items()])

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        rows = "\n".join(f"| {name} | {value} |" for name, value in hparams.items())
        self.write_texts(0, {"hparams": f"| name | value |\n|---|---|\n{rows}"})

    def _add(self, step: int, values: list[dict[str, Any]]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=time.time(), step=step, summary={"value": values}))


@functools.cache
def _silence_writer() -> None:
    """Keeps the traceback of a full disk off the terminal. tensorboard's thread prints it, and `flush` raises it."""
    previous = threading.excepthook

    def hook(told: Any) -> None:
        if type(told.thread).__name__ != "_AsyncWriterThread" or not isinstance(told.exc_value, OSError):
            previous(told)

    threading.excepthook = hook


def _summary_of(image: np.ndarray) -> dict[str, Any]:
    """The fields of TensorBoard's Summary.Image for an image uint8 [H, W, C]."""
    from cgan_jax.files.png import png

    height, width, channels = image.shape
    return {"height": height, "width": width, "colorspace": channels, "encoded_image_string": png(image)}


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
