"""TensorBoard event files: by CLU if TensorFlow is installed, else by the package `tensorboard` alone."""

import functools
import importlib.util
import os
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_BY_KIMG = "by_kimg"
_METRICS = ("train/d_loss", "train/g_loss")


def has_tensorflow() -> bool:
    """Whether TensorFlow could be imported; does not import it."""
    return importlib.util.find_spec("tensorflow") is not None


class Writer:
    """The event files of a run over steps, and in by_kimg/ over kimg, which TensorBoard shows as a second run."""

    def __init__(self, folder: Path, name: str):
        self._folder, self._by_kimg = folder, None
        self._writer = _of_clu(folder) if has_tensorflow() else EventFileWriter(folder)
        self.write_images, self.write_hparams = self._writer.write_images, self._writer.write_hparams

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._writer.write_scalars(step, scalars)
        if "kimg" in scalars:
            self._by_kimg = self._by_kimg or EventFileWriter(self._folder / _BY_KIMG)
            others = {name: value for name, value in scalars.items() if name != "kimg"}
            self._by_kimg.write_scalars(round(scalars["kimg"]), others)

    def flush(self) -> None:
        for writer in filter(None, (self._writer, self._by_kimg)):
            writer.flush()

    def close(self) -> None:
        for writer in filter(None, (self._writer, self._by_kimg)):
            writer.close()


def _of_clu(folder: Path) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # TensorFlow would take the accelerator's memory
    from clu import metric_writers

    return metric_writers.create_default_writer(str(folder), asynchronous=True)


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
        named = [
            (tag if len(batch) == 1 else f"{tag}/{i}", image)
            for tag, batch in images.items()
            for i, image in enumerate(batch)
        ]
        self._add(step, [{"tag": name, "image": _summary_of(image)} for name, image in named])

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        shown = {"metadata": {"plugin_data": {"plugin_name": "text"}}}
        tensors = {tag: {"dtype": "DT_STRING", "string_val": [text.encode()]} for tag, text in texts.items()}
        self._add(step, [{"tag": tag, "tensor": tensor, **shown} for tag, tensor in tensors.items()])

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        rows = "\n".join(f"| {name} | {value} |" for name, value in hparams.items())
        self.write_texts(0, {"hparams": f"| name | value |\n|---|---|\n{rows}"})
        self._add(0, _session(hparams))

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


def _session(hparams: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What TensorBoard's page of hyperparameters lists a run by: which numbers there are, and this run's."""
    from tensorboard.compat.proto.summary_pb2 import SummaryMetadata
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    experiment = api_pb2.Experiment(
        hparam_infos=[api_pb2.HParamInfo(name=name, type=_kind(value)[0]) for name, value in hparams.items()],
        metric_infos=[api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in _METRICS],
    )
    start = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
    for name, value in hparams.items():
        setattr(start.hparams[name], _kind(value)[1], value if isinstance(value, bool | int | float) else str(value))
    contents = {
        metadata.EXPERIMENT_TAG: {"experiment": experiment},
        metadata.SESSION_START_INFO_TAG: {"session_start_info": start},
    }
    values = []
    for tag, content in contents.items():
        data = plugin_data_pb2.HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, **content).SerializeToString()
        plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=data)
        values.append({"tag": tag, "metadata": SummaryMetadata(plugin_data=plugin), "tensor": metadata.NULL_TENSOR})
    return values


def _kind(value: Any) -> tuple[int, str]:
    """TensorBoard's type of a value, and the field of its protocol buffer."""
    from tensorboard.plugins.hparams import api_pb2

    if isinstance(value, bool):
        return api_pb2.DATA_TYPE_BOOL, "bool_value"
    if isinstance(value, int | float):
        return api_pb2.DATA_TYPE_FLOAT64, "number_value"
    return api_pb2.DATA_TYPE_STRING, "string_value"
