"""Any image classification set that TensorFlow Datasets has prepared, read without TensorFlow and without a network.

`cgan prepare-data --dataset=NAME` makes the folder read here: DATA_DIR/NAME[/CONFIG]/VERSION, in either of the two
formats that TFDS writes, tfrecord and array_record.
"""

import contextlib
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

from cgan_jax.data import pictures
from cgan_jax.data.sources import Dataset, _pixels, check_count
from cgan_jax.data.sources._decoded import CHANNELS
from cgan_jax.errors import MissingData, UsageError
from cgan_jax.files import json_text, storage, tfrecord
from cgan_jax.lookup import unknown

_FEATURES = {f"{kind.__module__}.{kind.__name__}" for kind in vars(tfds.features).values() if isinstance(kind, type)}
_FEATURES.add("tensorflow_datasets.core.features.feature.Tensor")  # of older sets
"""The names by which a features.json means the features of TFDS."""


class Keys(NamedTuple):
    """The features of a set that a class-conditional GAN learns from."""

    image: str
    label: str


class _Shard(NamedTuple):
    """The part of one file that belongs to a split: `take` records (-1: all) after the first `skip`, of `total`."""

    path: Path
    skip: int
    take: int
    total: int


def load(
    name: str,
    split: str,
    data_dir: str,
    image_size: int,
    fit: str = "crop",
    channels: str = "auto",
    background: str = "black",
) -> Dataset:
    """The images of a prepared set, uint8 [N, image_size, image_size, C], in the order of its files.

    `name` is NAME, NAME/CONFIG, NAME:VERSION or NAME/CONFIG:VERSION; without a version the newest that is there.
    `split` is one of the set's, or an expression of TFDS ("train+test", "train[:10%]"). `data_dir` "" means
    $TFDS_DATA_DIR, then ~/tensorflow_datasets. Images of the stored size keep their exact pixels; others become squares
    by `fit` and are resized. `channels` "auto" are those of the set, grey or rgb.

    Raises UsageError, in one line that says what to do, for data that is not there, an unknown split, a set that is not
    one of labelled images, and a file that is cut short or damaged.
    """
    folder = find(name, data_dir)
    if folder is None:
        raise _missing(name, data_dir)
    return read(folder, name, split, image_size, fit, channels, background)


def read(folder: Path, name: str, split: str, image_size: int, fit: str, channels: str, background: str) -> Dataset:
    """The images of the prepared set in `folder`, as `load`; `name` is for messages."""
    if image_size < 1:
        raise UsageError(f"image_size {image_size} is not a size: it must be at least 1")
    builder = _builder(folder)
    keys = keys_of(name, builder.info)
    shards = _shards(name, builder.info, split)
    encoded, labels, owners = [], [], []
    for shard in shards:
        records = _records(shard, builder.info.file_format)
        shard_encoded, shard_labels = _parse(records, keys, shard.path)
        encoded += shard_encoded
        labels += shard_labels
        owners += [shard.path] * len(records)
    classes = builder.info.features[keys.label]
    check_count(classes.num_classes or 0, name)
    class_names = tuple(classes.names or map(str, range(classes.num_classes)))
    _check_labels(labels, len(class_names), name, split)
    if not encoded:
        raise UsageError(f"split {split!r} of {name} holds no images")
    usual = "grey" if builder.info.features[keys.image].shape[-1] == 1 else "rgb"
    form = _pixels.Form(image_size, CHANNELS[usual if channels == "auto" else channels], fit, background)
    images = np.empty((len(encoded), image_size, image_size, form.channels), np.uint8)
    bytes_per_image = sum(map(len, encoded)) / len(encoded)
    made = _pixels.in_order(lambda i: _decode(encoded[i], form, owners[i]), len(encoded), bytes_per_image, "decoding")
    for i, image in enumerate(made):
        images[i] = image
    return Dataset(images, np.array(labels, np.int32), class_names)


def root(data_dir: str) -> Path:
    """The folder that holds all prepared sets: `data_dir`, or $TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    given = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return storage.place(str(given), "data_dir").expanduser()


def find(name: str, data_dir: str) -> Path | None:
    """The folder of the prepared set, or None if there is none. Raises UsageError for a name of another form."""
    match = re.fullmatch(r"([\w.-]+)(?:/([\w.-]+))?(?::(\d+\.\d+\.\d+))?", name)
    if not match:
        raise UsageError(f"cannot read the dataset name {name!r}: it is NAME, NAME/CONFIG or NAME/CONFIG:VERSION")
    base, config, version = match.groups()
    folder = root(data_dir) / base
    versions = _versions(folder / config) if config else _versions(folder) or _versions(folder / _only_config(folder))
    if version:
        versions = [v for v in versions if v.name == version]
    return max(versions, key=lambda v: tuple(map(int, v.name.split("."))), default=None)


def keys_of(name: str, info: tfds.core.DatasetInfo) -> Keys:
    """Which features are the image and its class. Raises UsageError if the set is not one of labelled 8-bit images."""
    supervised = info.supervised_keys
    if not (isinstance(supervised, tuple) and len(supervised) == 2 and all(isinstance(k, str) for k in supervised)):
        raise UsageError(f"{name} is not an image classification set: it names no pair of an image and its class")
    keys = Keys(*supervised)
    image, label = info.features[keys.image], info.features[keys.label]
    if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        raise UsageError(f"{name} is not an image classification set: its {keys.image!r} is not an 8-bit image")
    if not isinstance(label, tfds.features.ClassLabel):
        raise UsageError(f"{name} is not an image classification set: its {keys.label!r} is not a class")
    return keys


def _versions(folder: Path) -> list[Path]:
    """The prepared versions in a folder; what an interrupted preparation left behind is named otherwise."""
    if not folder.is_dir():
        return []
    return [v for v in folder.iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", v.name) and v.is_dir()]


def _only_config(folder: Path) -> str:
    """The configuration meant by a name without one: the set's default, or the only one that is there."""
    try:
        default = json_text.parsed(storage.read_text(folder / ".config" / "metadata.json"))["default_config_name"]
    except (OSError, ValueError, KeyError, TypeError):
        default = ""
    if default and _versions(folder / default):
        return default
    configs = [c.name for c in folder.iterdir() if _versions(c)] if folder.is_dir() else []
    if len(configs) > 1:
        raise UsageError(f"{folder} holds several configurations; name one: {folder.name}/{{{','.join(configs)}}}")
    return configs[0] if configs else ""


def _missing(name: str, data_dir: str) -> MissingData:
    option = f" --data_dir={shlex.quote(data_dir)}" if data_dir else ""
    return MissingData(
        f"the dataset {name} is not prepared in {root(data_dir)}; run: cgan prepare-data --dataset={name}{option}"
    )


def _builder(folder: Path) -> tfds.core.DatasetBuilder:
    """The builder that the folder describes. Looking up its name could ask the network, so this does not."""
    try:
        storage.check_regular_below(folder)
        json_text.parsed(storage.read_text(folder / "dataset_info.json"))
        _check_features(json_text.parsed(storage.read_text(folder / "features.json")))
        return tfds.builder_from_directory(folder)
    except ImportError:  # says nothing about the folder
        raise
    except Exception as error:  # TFDS passes on what its JSON and its features raise
        raise UsageError(f"{folder}: not a whole prepared dataset ({storage.reason(error)})") from error


def _check_features(value: Any) -> None:
    """Raises ValueError for a class that is no feature of TFDS: TFDS would import the module that the file names."""
    if isinstance(value, Mapping):
        for key in ("pythonClassName", "python_class_name", "type"):  # both spellings of a message, and the older form
            named = value.get(key)
            if isinstance(named, str) and "." in named and named not in _FEATURES:
                raise ValueError(f"its feature {named[:80]!r} is none of TensorFlow Datasets")
    for part in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        _check_features(part)


def _shards(name: str, info: tfds.core.DatasetInfo, split: str) -> list[_Shard]:
    """The files of a split. Raises UsageError that lists the splits, or names the file that is not there."""
    try:
        instructions = info.splits[split].file_instructions
    except (KeyError, ValueError) as error:
        raise unknown(f"split of {name}", split, info.splits) from error
    shards = [_Shard(storage.place(str(i.filename)), i.skip, i.take, i.examples_in_shard) for i in instructions]
    for shard in shards:
        if not shard.path.is_file():
            raise UsageError(f"{shard.path}: the file is missing")
    return shards


def _records(shard: _Shard, file_format: tfds.core.FileFormat) -> list[bytes]:
    """The serialized examples of a shard. Raises UsageError, with the path, if the file is not whole."""
    if file_format == tfds.core.FileFormat.TFRECORD:
        records = tfrecord.read(shard.path)
    elif file_format == tfds.core.FileFormat.ARRAY_RECORD:
        records = _read_array_record(shard.path)
    else:
        raise UsageError(f"{shard.path}: cannot read the format {file_format.value}; there are: tfrecord, array_record")
    if len(records) != shard.total:
        raise UsageError(f"{shard.path}: damaged: holds {len(records)} records, not {shard.total}")
    return records[shard.skip :] if shard.take == -1 else records[shard.skip : shard.skip + shard.take]


def _read_array_record(path: Path) -> list[bytes]:
    from array_record.python.array_record_module import ArrayRecordReader  # has no build for some systems

    try:
        with storage.as_file(path) as file, contextlib.closing(ArrayRecordReader(str(file))) as reader:
            return reader.read_all()
    except RuntimeError as error:
        raise UsageError(f"{path}: damaged: {storage.reason(error)}") from error


def _parse(records: Sequence[bytes], keys: Keys, path: Path) -> tuple[list[bytes], list[int]]:
    """The encoded images and the labels of some records. Raises UsageError, with the path, for a record without."""
    encoded, labels = [], []
    for i, record in enumerate(records):
        try:
            feature = tf_example_pb2.Example.FromString(record).features.feature
            encoded.append(feature[keys.image].bytes_list.value[0])
            labels.append(feature[keys.label].int64_list.value[0])
        except (DecodeError, IndexError) as error:
            raise UsageError(f"{path}: damaged: record {i} holds no {keys.image!r} with its {keys.label!r}") from error
    return encoded, labels


def _decode(encoded: bytes, form: _pixels.Form, path: Path) -> np.ndarray:
    try:
        return _pixels.decode(encoded, form, upright=False)
    except pictures.Unreadable as error:
        raise UsageError(f"{path}: damaged: holds an image that cannot be decoded ({storage.reason(error)})") from error


def _check_labels(labels: Sequence[int], num_classes: int, name: str, split: str) -> None:
    """Raises UsageError for labels outside the classes; TFDS gives -1 to images whose class is not published."""
    strays = sorted({label for label in labels if not 0 <= label < num_classes})
    if strays:
        raise UsageError(f"split {split!r} of {name} holds images without a class (label {strays[0]})")
