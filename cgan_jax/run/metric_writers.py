"""Where numbers go besides the terminal: TensorBoard event files, through CLU or, without TensorFlow, without it.

clu.metric_writers and clu.periodic_actions import TensorFlow, 1.4 GB that nobody wants beside JAX on a GPU; the package
`tensorboard` alone can write the same files. Both writers take the same calls.
"""

import importlib.util
import io
import os
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from cgan_jax.files import storage
from cgan_jax.run.processes import is_first


class MetricWriter(Protocol):
    """The part of clu.metric_writers.MetricWriter that training uses."""

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None: ...

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None: ...

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None: ...

    def write_hparams(self, hparams: Mapping[str, Any]) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


def has_tensorflow() -> bool:
    """Whether TensorFlow could be imported; it is not imported to find out."""
    return importlib.util.find_spec("tensorflow") is not None


def make_writer(workdir: Path) -> MetricWriter:
    """The writer of a run's event files, which are created once there is something to write.

    Of several processes the first writes them, the others none.
    """
    if not is_first():
        return NoWriter()
    return Deferred(lambda: Uploaded(workdir) if storage.is_remote(workdir) else _make_writer(workdir))


class Deferred:
    """A writer that is made at its first use: a run that is at its end already leaves no empty file."""

    def __init__(self, make: Callable[[], MetricWriter]):
        self._make, self._writer = make, None

    def __getattr__(self, name: str) -> Any:
        if self._writer is None:
            self._writer = self._make()
        return getattr(self._writer, name)

    def flush(self) -> None:
        """Where it was never used there is nothing to flush."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Where it was never used there is nothing to close."""
        if self._writer is not None:
            self._writer.close()


class Uploaded:
    """A writer of files of this machine, which at every flush are put whole into a bucket: its objects do not grow."""

    def __init__(self, workdir: Path):
        self._workdir, self._folder = workdir, tempfile.TemporaryDirectory(prefix="cgan-")
        self._local, self._sizes = Path(self._folder.name), {}
        self._writer = _make_writer(self._local)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def flush(self) -> None:
        self._writer.flush()
        for name in storage.files_below(self._local):
            content = (self._local / name).read_bytes()
            if len(content) != self._sizes.get(name):
                storage.write_whole(self._workdir / name, content)
                self._sizes[name] = len(content)

    def close(self) -> None:
        self.flush()
        self._writer.close()
        self._folder.cleanup()


def _make_writer(workdir: Path) -> MetricWriter:
    if not has_tensorflow():
        return EventFileWriter(workdir)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    # TensorFlow would otherwise take the accelerator's memory.
    tf.config.set_visible_devices([], "GPU")
    from clu import metric_writers

    return metric_writers.create_default_writer(str(workdir), asynchronous=True)


def make_hooks(writer: MetricWriter, workdir: Path, total_steps: int, profile: bool) -> list[Callable[[int], None]]:
    """Called with the step after every call: progress in the log and event files and, if asked for, a profile."""
    if not has_tensorflow():
        return [Profile(workdir, total_steps)] if profile else []
    from clu import periodic_actions

    hooks = [periodic_actions.ReportProgress(num_train_steps=total_steps, writer=writer)]
    if profile:
        hooks.append(periodic_actions.Profile(logdir=str(workdir), num_profile_steps=5, profile_duration_ms=0))
    return hooks


class NoWriter:
    """Writes nothing."""

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        pass

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        pass

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        pass

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


class EventFileWriter:
    """Event files through the package `tensorboard` alone."""

    def __init__(self, logdir: Path):
        from tensorboard.summary.writer.event_file_writer import EventFileWriter as Writer

        self._writer = Writer(str(logdir), filename_suffix=f".{socket.gethostname()}")

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._add(step, [{"tag": tag, "simple_value": float(value)} for tag, value in scalars.items()])

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """uint8 [N, H, W, C] each."""
        self._add(
            step, [self._image(f"{tag}/{i}", image) for tag, batch in images.items() for i, image in enumerate(batch)]
        )

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        self._add(step, [self._text(tag, text) for tag, text in texts.items()])

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        rows = "\n".join(f"| {name} | {value} |" for name, value in hparams.items())
        self.write_texts(0, {"hparams": f"| name | value |\n|---|---|\n{rows}"})

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _add(self, step: int, values: list[dict[str, Any]]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(**value) for value in values])
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))

    @staticmethod
    def _image(tag: str, image: np.ndarray) -> dict[str, Any]:
        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary

        buffer = io.BytesIO()
        height, width, channels = image.shape
        Image.fromarray(image[:, :, 0] if channels == 1 else image).save(buffer, format="PNG")
        return {
            "tag": tag,
            "image": Summary.Image(
                height=height, width=width, colorspace=channels, encoded_image_string=buffer.getvalue()
            ),
        }

    @staticmethod
    def _text(tag: str, text: str) -> dict[str, Any]:
        from tensorboard.compat.proto.summary_pb2 import SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING

        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        return {"tag": tag, "metadata": metadata, "tensor": TensorProto(dtype=DT_STRING, string_val=[text.encode()])}


class Profile:
    """A trace of the third to sixth call, for TensorBoard's profile page: clu's Profile without TensorFlow."""

    first, last = 2, 6

    def __init__(self, logdir: Path, total_steps: int):
        self._logdir = str(logdir)
        self._total_steps = total_steps
        self._calls = 0
        self._traces = False

    def __call__(self, step: int) -> None:
        """After a call that ended at `step`; a run that ends early ends its trace too."""
        self._calls += 1
        if self._traces and (self._calls == self.last or step >= self._total_steps):
            self.close()
        elif self._calls == self.first and step < self._total_steps:
            jax.profiler.start_trace(self._logdir)
            self._traces = True

    def close(self) -> None:
        """Ends and writes a trace that is being taken."""
        if self._traces:
            jax.profiler.stop_trace()
            self._traces = False
