"""Tiny prepared sets, written here in both formats, come back pixel for pixel with their labels, offline."""

import io
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets
from array_record.python.array_record_module import ArrayRecordReader
from PIL import Image

from cgan_jax.data import sources
from cgan_jax.errors import UsageError
from cgan_jax.files import tfrecord

SHAPES = {
    "cifar10": (32, 32, 3),
    "cifar100": (32, 32, 3),
    "mnist": (28, 28, 1),
    "fashion_mnist": (28, 28, 1),
    "svhn_cropped": (32, 32, 3),
}
NAMES = {"cifar10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was touched")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def prepare(name, data_dir, file_format="array_record", counts=(("train", 23), ("test", 7))):
    """Writes a small set as TFDS would; returns {split: {pixels as bytes: label}}."""
    rng = np.random.default_rng(0)
    builder = tensorflow_datasets.builder(name, data_dir=data_dir)
    features = builder.info.features
    if name in NAMES:
        features["label"].names = NAMES[name]
    written = {}

    def examples(split, count):
        for i in range(count):
            pixels = rng.integers(0, 256, SHAPES[name], np.uint8)
            label = int(rng.integers(features["label"].num_classes))
            written.setdefault(split, {})[pixels.tobytes()] = label
            example = {"image": io.BytesIO(png(pixels)), "label": label}
            if "id" in features:
                example["id"] = f"{split}_{i}"
            if "coarse_label" in features:
                example["coarse_label"] = (label + 1) % 20
            yield i, example

    builder._split_generators = lambda dl_manager: {split: examples(split, count) for split, count in counts}
    builder.download_and_prepare(file_format="array_record")
    folder = Path(builder.data_dir)
    if file_format == "tfrecord":
        to_tfrecord(folder)
    return written, folder


def to_tfrecord(folder):
    for path in folder.glob("*.array_record*"):
        reader = ArrayRecordReader(str(path))
        records = reader.read_all()
        reader.close()
        path.with_name(path.name.replace("array_record", "tfrecord")).write_bytes(b"".join(map(framed, records)))
        path.unlink()
    info = json.loads((folder / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    (folder / "dataset_info.json").write_text(json.dumps(info))


def framed(record):
    length = struct.pack("<Q", len(record))
    return length + struct.pack("<I", masked(length)) + record + struct.pack("<I", masked(record))


def masked(data):
    """The checksum of the TFRecord format, one bit at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def test_an_empty_split_is_one_line(tmp_path):
    prepare("mnist", tmp_path)
    assert refused("mnist", "train[:1%]", str(tmp_path), 28) == "split 'train[:1%]' of mnist holds no images"


def refused(*arguments):
    with pytest.raises(UsageError) as caught:
        sources.load("tfds", *arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
@pytest.mark.parametrize("name", SHAPES)
def test_every_set_comes_back_pixel_for_pixel_with_its_labels(name, file_format, tmp_path):
    written, _ = prepare(name, tmp_path, file_format)
    for split, expected in written.items():
        dataset = sources.load("tfds", name, split, str(tmp_path), SHAPES[name][0])
        assert dataset.images.dtype == np.uint8 and dataset.labels.dtype == np.int32
        assert dataset.images.shape == (len(expected), *SHAPES[name])
        assert {
            image.tobytes(): label for image, label in zip(dataset.images, dataset.labels.tolist(), strict=True)
        } == expected
    assert len(dataset.class_names) == (100 if name == "cifar100" else 10)


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_a_set_in_a_bucket_is_the_set_in_a_folder(file_format, tmp_path, remote):
    prepare("cifar10", tmp_path / "buckets" / "bucket" / "data", file_format)
    here = sources.load("tfds", "cifar10", "train", str(tmp_path / "buckets" / "bucket" / "data"), 32)
    there = sources.load("tfds", "cifar10", "train", "gs://bucket/data", 32)
    np.testing.assert_array_equal(there.images, here.images)
    np.testing.assert_array_equal(there.labels, here.labels)
    assert there.class_names == here.class_names
    assert "the dataset mnist is not prepared in gs://bucket/data" in refused("mnist", "train", "gs://bucket/data", 28)


def test_the_order_is_that_of_the_files(tmp_path):
    prepare("cifar10", tmp_path)
    expected = tensorflow_datasets.data_source("cifar10", data_dir=tmp_path, split="train")
    dataset = sources.load("tfds", "cifar10", "train", str(tmp_path), 32)
    np.testing.assert_array_equal(dataset.images, [example["image"] for example in expected])
    np.testing.assert_array_equal(dataset.labels, [example["label"] for example in expected])


def test_class_names_are_the_sets(tmp_path):
    prepare("cifar10", tmp_path)
    prepare("fashion_mnist", tmp_path)
    prepare("svhn_cropped", tmp_path)
    assert sources.load("tfds", "cifar10", "test", str(tmp_path), 32).class_names == tuple(NAMES["cifar10"])
    assert sources.load("tfds", "fashion_mnist", "test", str(tmp_path), 28).class_names[9] == "Ankle boot"
    assert sources.load("tfds", "svhn_cropped", "test", str(tmp_path), 32).class_names == tuple("0123456789")


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_split_expressions(file_format, tmp_path):
    prepare("mnist", tmp_path, file_format)
    whole = sources.load("tfds", "mnist", "train", str(tmp_path), 28)
    part = sources.load("tfds", "mnist", "train[4:9]+test", str(tmp_path), 28)
    assert len(part.images) == 5 + 7
    np.testing.assert_array_equal(part.images[:5], whole.images[4:9])
    np.testing.assert_array_equal(part.labels[:5], whole.labels[4:9])


def test_other_sizes_are_resized(tmp_path):
    prepare("mnist", tmp_path)
    stored = sources.load("tfds", "mnist", "test", str(tmp_path), 28).images
    small = sources.load("tfds", "mnist", "test", str(tmp_path), 7).images
    assert small.shape == (7, 7, 7, 1)
    # Antialiased: every pixel is near the mean of the 4x4 it covers, though the stored pixels are noise.
    means = stored.reshape(7, 7, 4, 7, 4).mean((2, 4))
    assert np.abs(small[..., 0] - means).mean() < 12
    assert sources.load("tfds", "mnist", "test", str(tmp_path), 32).images.shape == (7, 32, 32, 1)


def test_the_folder_without_data_dir(tmp_path, monkeypatch):
    prepare("mnist", tmp_path / "variable")
    prepare("mnist", tmp_path / "home" / "tensorflow_datasets", counts=(("train", 3),))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "variable"))
    assert len(sources.load("tfds", "mnist", "train", "", 28).images) == 23
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert len(sources.load("tfds", "mnist", "train", "", 28).images) == 3


def test_the_newest_version_unless_one_is_asked_for(tmp_path):
    _, folder = prepare("mnist", tmp_path, counts=(("train", 3),))
    folder.rename(folder.with_name("3.0.9"))
    _, folder = prepare("mnist", tmp_path, counts=(("train", 5),))
    folder.rename(folder.with_name("3.0.10"))
    (folder.parent / "incomplete.ABC_3.0.11").mkdir()
    assert len(sources.load("tfds", "mnist", "train", str(tmp_path), 28).images) == 5
    assert len(sources.load("tfds", "mnist:3.0.9", "train", str(tmp_path), 28).images) == 3
    assert "not prepared" in refused("mnist:3.0.1", "train", str(tmp_path), 28)


def test_configurations(tmp_path):
    _, folder = prepare("mnist", tmp_path, counts=(("train", 3),))
    (folder.parent / "plain").mkdir()
    folder.rename(folder.parent / "plain" / folder.name)
    assert len(sources.load("tfds", "mnist/plain", "train", str(tmp_path), 28).images) == 3
    assert len(sources.load("tfds", "mnist", "train", str(tmp_path), 28).images) == 3
    assert "not prepared" in refused("mnist/fancy", "train", str(tmp_path), 28)
    _, folder = prepare("mnist", tmp_path, counts=(("train", 5),))
    (folder.parent / "fancy").mkdir()
    folder.rename(folder.parent / "fancy" / folder.name)
    assert "several configurations" in refused("mnist", "train", str(tmp_path), 28)


def test_neither_tensorflow_nor_the_network_is_needed(tmp_path):
    prepare("mnist", tmp_path, "tfrecord")
    code = """
import sys

sys.addaudithook(lambda event, _: sys.exit(event) if event in ("socket.connect", "socket.getaddrinfo") else None)
from cgan_jax.data import sources as datasets

print(len(datasets.load("tfds", "mnist", "train", sys.argv[1], 28).images), "tensorflow" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("23 False\n", 0), done.stderr


def test_missing_data_names_the_folder_and_the_command(tmp_path, monkeypatch):
    missing = str(tmp_path / "no data")
    assert refused("cifar10", "train", missing, 32) == (
        f"the dataset cifar10 is not prepared in {missing}; "
        f"run: cgan prepare-data --dataset=cifar10 --data_dir='{missing}'"
    )
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert refused("cifar10", "train", "", 32).endswith("run: cgan prepare-data --dataset=cifar10")
    assert "cannot read the dataset name" in refused("cifar 10", "train", "", 32)


def test_unknown_split_lists_the_splits(tmp_path):
    prepare("mnist", tmp_path)
    assert refused("mnist", "validation", str(tmp_path), 28) == (
        "unknown split of mnist 'validation'; there are: train, test"
    )
    assert "there are: train, test" in refused("mnist", "train[:x]", str(tmp_path), 28)


def test_a_size_below_one_is_refused(tmp_path):
    prepare("mnist", tmp_path)
    assert "image_size 0" in refused("mnist", "train", str(tmp_path), 0)


def flip(content, position):
    return content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :]


def first_record_end(content):
    return 12 + struct.unpack_from("<Q", content)[0] + 4


DAMAGES = {
    "empty": (lambda content: b"", "holds 0 records"),
    "cut in a header": (lambda content: content[: first_record_end(content) + 5], "cut short"),
    "cut in the data": (lambda content: content[:-9], "cut short"),
    "a record less": (lambda content: content[first_record_end(content) :], "holds 22 records, not 23"),
    "another length": (lambda content: flip(content, 0), "header of the record at byte 0 fails"),
    "a huge length": (lambda content: flip(content, 6), "header of the record at byte 0 fails"),
    "another pixel": (lambda content: flip(content, 200), "data of the record at byte 0 fails"),
    "another checksum": (lambda content: flip(content, len(content) - 1), "data of the record at byte"),
    "no example": (lambda content: framed(b"\xff" * 40) * 23, "record 0 holds no 'image'"),
    "no features": (lambda content: framed(b"") * 23, "record 0 holds no 'image'"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_tfrecord_is_named(damage, tmp_path):
    _, folder = prepare("mnist", tmp_path, "tfrecord")
    path = folder / "mnist-train.tfrecord-00000-of-00001"
    change, reason = DAMAGES[damage]
    path.write_bytes(change(path.read_bytes()))
    message = refused("mnist", "train", str(tmp_path), 28)
    assert message.startswith(f"{path}: damaged: ") and reason in message


@pytest.mark.parametrize("damage", ["cut in half", "cut at the end", "empty", "another pixel"])
def test_a_damaged_array_record_is_named(damage, tmp_path):
    _, folder = prepare("mnist", tmp_path)
    path = folder / "mnist-train.array_record-00000-of-00001"
    content = path.read_bytes()
    half = len(content) // 2
    changed = {
        "cut in half": content[:half],
        "cut at the end": content[:-10],
        "empty": b"",
        "another pixel": flip(content, 2000),
    }
    path.write_bytes(changed[damage])
    assert refused("mnist", "train", str(tmp_path), 28).startswith(f"{path}: damaged: ")


@pytest.mark.parametrize("kept", [0, 60])
def test_an_image_that_cannot_be_decoded_is_named(kept, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, SHAPES["mnist"], np.uint8)
    builder = tensorflow_datasets.builder("mnist", data_dir=tmp_path)
    examples = [(i, {"image": io.BytesIO(png(pixels)[:kept]), "label": 0}) for i in range(3)]
    builder._split_generators = lambda dl_manager: {"train": iter(examples)}
    builder.download_and_prepare(file_format="array_record")
    message = refused("mnist", "train", str(tmp_path), 28)
    assert message.startswith(str(Path(builder.data_dir) / "mnist-train.array_record")) and "decoded" in message


def test_images_without_a_class_are_refused(tmp_path):
    builder = tensorflow_datasets.builder("mnist", data_dir=tmp_path)
    example = {"image": io.BytesIO(png(np.zeros(SHAPES["mnist"], np.uint8))), "label": -1}
    builder._split_generators = lambda dl_manager: {"test": iter([(0, example)])}
    builder.download_and_prepare(file_format="array_record")
    assert "'test' of mnist holds images without a class" in refused("mnist", "test", str(tmp_path), 28)


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
def test_a_folder_that_is_not_whole_is_named(file, tmp_path):
    _, folder = prepare("mnist", tmp_path)
    (folder / file).write_text("{")
    assert refused("mnist", "train", str(tmp_path), 28).startswith(f"{folder}: not a whole prepared dataset")
    (folder / file).unlink()
    assert refused("mnist", "train", str(tmp_path), 28).startswith(f"{folder}: not a whole prepared dataset")


def test_a_features_file_of_too_many_classes_is_refused(tmp_path):
    _, folder = prepare("mnist", tmp_path)
    features = json.loads((folder / "features.json").read_text())
    features["featuresDict"]["features"]["label"]["classLabel"] = {"numClasses": str(10**12)}
    (folder / "features.json").write_text(json.dumps(features))
    said = refused("mnist", "train", str(tmp_path), 28)
    assert said == "mnist: there may be at most 65536 classes, given 1000000000000"


@pytest.mark.parametrize("key", ["pythonClassName", "python_class_name", "type"])
def test_a_features_file_imports_nothing(key, tmp_path, monkeypatch):
    _, folder = prepare("mnist", tmp_path)
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'was here')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    features = json.loads((folder / "features.json").read_text())
    inner = features["featuresDict"]["features"]["image"]
    inner.pop("pythonClassName")
    inner[key] = "evil.Image"
    (folder / "features.json").write_text(json.dumps(features))
    said = refused("mnist", "train", str(tmp_path), 28)
    assert "its feature 'evil.Image' is none of TensorFlow Datasets" in said
    assert not (tmp_path / "was here").exists()


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json", "label.labels.txt"])
def test_a_pipe_or_a_deep_file_in_a_set_is_named(file, tmp_path):
    _, folder = prepare("mnist", tmp_path)
    if file.endswith(".json"):
        (folder / file).write_text(100_000 * "[")
        assert "nested too deep" in refused("mnist", "train", str(tmp_path), 28)
    (folder / file).unlink(missing_ok=True)
    os.mkfifo(folder / file)
    assert "not a regular file" in refused("mnist", "train", str(tmp_path), 28)


def test_a_missing_file_is_named(tmp_path):
    _, folder = prepare("mnist", tmp_path)
    (folder / "mnist-train.array_record-00000-of-00001").unlink()
    assert "mnist-train.array_record-00000-of-00001: the file is missing" in refused("mnist", "train", tmp_path, 28)


def test_crc32c_by_the_values_of_rfc_3720():
    # RFC 3720, B.4: 32 bytes of zeros, of ones, and 0..31; and the check value of the polynomial's catalogue.
    contents = bytes(32), b"\xff" * 32, bytes(range(32)), b"123456789"
    crc = [hex(tfrecord.crc32c(content)) for content in contents]
    assert crc == ["0x8a9136aa", "0x62a8ab43", "0x46dd794e", "0xe3069283"]


REAL = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser() / "cifar10"


@pytest.mark.skipif(not REAL.is_dir(), reason="needs CIFAR-10; run: cgan prepare-data --dataset=cifar10")
def test_real_cifar10():
    dataset = sources.load("tfds", "cifar10", "test", "", 32)
    assert dataset.images.shape == (10000, 32, 32, 3) and dataset.class_names == tuple(NAMES["cifar10"])
    np.testing.assert_array_equal(np.bincount(dataset.labels), 1000)
    # The published means of the test images' channels, 0.4942, 0.4851, 0.4504.
    np.testing.assert_allclose(dataset.images.mean((0, 1, 2)) / 255, [0.4942, 0.4851, 0.4504], atol=5e-4)
