"""Event files, read back by TensorBoard's own reader."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cgan_jax.errors import UsageError
from cgan_jax.files import storage
from cgan_jax.run import metric_writers
from cgan_jax.run.writers import tensorboard
from cgan_jax.run.writers.tensorboard import EventFileWriter


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    return events.Reload()


@pytest.fixture
def writer(tmp_path):
    writer = EventFileWriter(tmp_path)
    yield writer
    writer.close()


def test_scalars_are_read_back_at_their_steps(writer, tmp_path):
    writer.write_scalars(3, {"train/d_loss": 1.5, "train/g_loss": np.float32(0.25)})
    writer.write_scalars(7, {"train/d_loss": np.array(2.5)})
    writer.flush()
    events = read(tmp_path)
    assert sorted(events.Tags()["scalars"]) == ["train/d_loss", "train/g_loss"]
    assert [(event.step, event.value) for event in events.Scalars("train/d_loss")] == [(3, 1.5), (7, 2.5)]
    assert [(event.step, event.value) for event in events.Scalars("train/g_loss")] == [(3, 0.25)]


FULL_DISK = """
import pathlib, resource, sys
from cgan_jax.run.writers import tensorboard
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
writer = tensorboard.EventFileWriter(pathlib.Path(sys.argv[1]))
try:
    for step in range(1000):
        writer.write_scalars(step, {"train/d_loss": 1.0})
        writer.flush()
except OSError as error:
    print("raised", error.strerror)
"""


def test_a_full_disk_is_raised_to_the_caller_and_prints_nothing(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.stdout == "raised File too large\n" and done.stderr == ""


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_read_back_pixel_by_pixel(writer, tmp_path, channels):
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 7, channels), dtype=np.uint8)
    writer.write_images(11, {"samples": images})
    writer.close()
    events = read(tmp_path)
    assert sorted(events.Tags()["images"]) == ["samples/0", "samples/1"]
    for number, image in enumerate(images):
        (event,) = events.Images(f"samples/{number}")
        assert (event.step, event.height, event.width) == (11, 5, 7)
        pixels = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
        np.testing.assert_array_equal(pixels.reshape(5, 7, channels), image)


def test_event_files_of_a_bucket_are_put_whole_at_every_flush(remote, tmp_path):
    writer = metric_writers.MetricWriter(remote)
    for step in (3, 7):
        writer.write_scalars(step, {"train/d_loss": step / 2})
        writer.flush()
        (name,) = storage.files_below(remote)
        (tmp_path / name).write_bytes((remote / name).read_bytes())
        events = read(tmp_path).Scalars("train/d_loss")
        assert [event.step for event in events] == [3, 7][: len(events)] and events[-1].step == step
    writer.write_scalars(9, {"train/d_loss": 4.5})
    writer.close()
    (tmp_path / name).write_bytes((remote / name).read_bytes())
    assert [event.step for event in read(tmp_path).Scalars("train/d_loss")] == [3, 7, 9]


def test_texts_are_read_back_and_marked_for_the_text_page(writer, tmp_path):
    writer.write_texts(2, {"note": "zwölf *cats*"})
    writer.close()
    events = read(tmp_path)
    (event,) = events.Tensors("note")
    assert (event.step, event.tensor_proto.string_val[0].decode()) == (2, "zwölf *cats*")
    assert events.SummaryMetadata("note").plugin_data.plugin_name == "text"


def test_the_recipe_is_read_back_as_a_table(writer, tmp_path):
    writer.write_hparams({"seed": 0, "train.total_kimg": 1.5})
    writer.close()
    (event,) = read(tmp_path).Tensors("hparams")
    text = event.tensor_proto.string_val[0].decode()
    assert text == "| name | value |\n|---|---|\n| seed | 0 |\n| train.total_kimg | 1.5 |"


def test_the_page_of_hyperparameters_lists_the_run(tmp_path):
    """By TensorBoard's own backend of that page."""
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    writer = EventFileWriter(tmp_path / "run")
    writer.write_hparams({"seed": 3, "dataset.flip": True, "architecture": "dcgan"})
    writer.write_scalars(5, {"train/d_loss": 1.25})
    writer.close()
    events = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    provider = data_provider.MultiplexerDataProvider(events, str(tmp_path))
    context = backend_context.Context(TBContext(data_provider=provider, logdir=str(tmp_path)))
    asked = api_pb2.ListSessionGroupsRequest(start_index=0, slice_size=9, allowed_statuses=[api_pb2.STATUS_UNKNOWN])
    (group,) = list_session_groups.Handler(RequestContext(), context, "", asked).run().session_groups
    found = {name: getattr(value, value.WhichOneof("kind")) for name, value in group.hparams.items()}
    assert found == {"seed": 3.0, "dataset.flip": True, "architecture": "dcgan"}


def test_one_picture_is_one_slider_and_kimg_a_second_axis(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "has_tensorflow", lambda: False)
    writer = metric_writers.MetricWriter(tmp_path)
    for step, kimg in ((100, 6.4), (200, 12.8)):
        writer.write_scalars(step, {"kimg": kimg, "train/d_loss": kimg})
        writer.write_images(step, {"samples": np.zeros((1, 4, 4, 3), np.uint8)})
    writer.close()
    assert [event.step for event in read(tmp_path).Images("samples")] == [100, 200]
    assert [event.step for event in read(tmp_path / "by_kimg").Scalars("train/d_loss")] == [6, 13]


def test_an_unknown_writer_is_one_line():
    with pytest.raises(UsageError, match="unknown writer 'wandbb'; there are: mlflow, tensorboard, trackio, wandb"):
        metric_writers.check(["wandbb"])


@pytest.mark.parametrize("name", ["mlflow", "trackio", "wandb"])
def test_a_tracker_takes_a_run_and_goes_on_in_it(name, tmp_path, monkeypatch):
    pytest.importorskip(name)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    for start in (0, 2):
        writer = metric_writers.MetricWriter(tmp_path / "run", [name])
        writer.write_hparams({"seed": 0, "dataset.flip": False})
        writer.write_images(start, {"samples": np.zeros((1, 8, 8, 1), np.uint8)})
        for step in (start + 1, start + 2):
            writer.write_scalars(step, {"kimg": step / 2, "train/d_loss": float(step)})
        writer.close()
    if name == "mlflow":
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{tmp_path / 'run' / 'mlflow.db'}")
        number = client.get_experiment_by_name("cgan_jax").experiment_id
        (found,) = client.search_runs([number])
        assert found.data.params == {"seed": "0", "dataset.flip": "False"}
        assert [one.value for one in client.get_metric_history(found.info.run_id, "train/d_loss")] == [1, 2, 3, 4]


def test_without_tensorflow_the_writer_needs_only_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setattr(metric_writers, "has_tensorflow", lambda: False)
    monkeypatch.setattr(tensorboard, "has_tensorflow", lambda: False)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    writer = metric_writers.MetricWriter(tmp_path)
    writer.write_scalars(1, {"a": 1.0})
    writer.close()
    assert [event.value for event in read(tmp_path).Scalars("a")] == [1.0]
    assert metric_writers.make_hooks(writer, tmp_path, 10, profile=False) == []


def test_looking_for_tensorflow_does_not_import_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    assert metric_writers.has_tensorflow() in (True, False)
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(("total_steps", "last"), [(2000, 6), (400, 4)])
def test_a_profile_traces_from_the_second_call_to_the_sixth_or_the_last(tmp_path, monkeypatch, total_steps, last):
    calls, number = [], 0
    monkeypatch.setattr(
        metric_writers.jax.profiler, "start_trace", lambda where: calls.append(("start", number, where))
    )
    monkeypatch.setattr(metric_writers.jax.profiler, "stop_trace", lambda: calls.append(("stop", number)))
    monkeypatch.setattr(metric_writers, "has_tensorflow", lambda: False)
    (hook,) = metric_writers.make_hooks(None, tmp_path, total_steps, profile=True)
    for number in range(1, total_steps // 100 + 1):
        hook(100 * number)
    assert calls == [("start", 2, str(tmp_path)), ("stop", last)]


def test_a_run_that_is_stopped_ends_its_trace_too(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(metric_writers.jax.profiler, "start_trace", lambda where: calls.append("start"))
    monkeypatch.setattr(metric_writers.jax.profiler, "stop_trace", lambda: calls.append("stop"))
    (hook,) = metric_writers.make_hooks(None, tmp_path, 100, profile=True)
    hook.close()
    for step in (1, 2, 3):
        hook(step)
    assert calls == ["start"]
    hook.close()
    hook.close()
    assert calls == ["start", "stop"]
