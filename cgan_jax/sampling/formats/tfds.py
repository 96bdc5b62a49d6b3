"""A prepared set of TensorFlow Datasets, written without TensorFlow: NAME/1.0.0/ with the split "train".

Every record stands in two files, tfrecord for `tfds.load` and array_record for `tfds.data_source`: neither reads the
other's (tensorflow-datasets 4.9.10), and the set's description may name both.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from cgan_jax.files import tfrecord
from cgan_jax.sampling.formats import Labelled, Plan, labelled
from cgan_jax.sampling.grids import png
from cgan_jax.sampling.image_writers import folder_names

_VERSION, _SPLIT = "1.0.0", "train"
_FORMATS = ("tfrecord", "array_record")
_DESCRIBED_BY = ("dataset_info.json", "features.json", "label.labels.txt")


def files(plan: Plan) -> list[Path]:
    folder = Path(plan.name, _VERSION)
    shards = [_shard(folder, plan, kind, shard) for kind in _FORMATS for shard in range(plan.num_shards)]
    return shards + [folder / name for name in _DESCRIBED_BY]


def _shard(folder: Path, plan: Plan, kind: str, shard: int) -> Path:
    return folder / f"{plan.name}-{_SPLIT}.{kind}-{shard:05d}-of-{plan.num_shards:05d}"


def write_shard(folder: Path, plan: Plan, shard: int, batches: Iterable[np.ndarray]) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter  # has no build for some systems

    inside = folder / plan.name / _VERSION
    inside.mkdir(parents=True, exist_ok=True)
    names = folder_names(plan.class_names)
    writer = ArrayRecordWriter(str(_shard(inside, plan, "array_record", shard)), "group_size:1")
    try:
        with open(_shard(inside, plan, "tfrecord", shard), "wb") as file:
            for batch in labelled(plan, shard, batches):
                records = [_record(one, names[one.label]) for one in batch]
                file.write(tfrecord.framed(records))
                for record in records:
                    writer.write(record)
    finally:
        writer.close()


def _record(one: Labelled, class_folder: str) -> bytes:
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature["id"].bytes_list.value.append(f"{class_folder}/{one.index:06d}".encode())
    feature["image"].bytes_list.value.append(png(one.image))
    feature["label"].int64_list.value.append(one.label)
    return example.SerializeToString(deterministic=True)  # a map has no order


def finish(folder: Path, plan: Plan) -> None:
    """Writes what describes the set."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_info, naming

    inside = folder / plan.name / _VERSION
    where = {"data_dir": str(inside), "dataset_name": plan.name, "filetype_suffix": _FORMATS[0]}
    sizes = [_shard(inside, plan, _FORMATS[0], shard).stat().st_size for shard in range(plan.num_shards)]
    counts = [len(plan.labels[plan.places(shard)]) for shard in range(plan.num_shards)]
    split = tfds.core.SplitInfo(
        name=_SPLIT,
        shard_lengths=counts,
        num_bytes=sum(sizes),
        filename_template=naming.ShardedFileTemplate(**where, split=_SPLIT),
    )
    identity = dataset_info.DatasetIdentity(
        name=plan.name, version=tfds.core.Version(_VERSION), data_dir=str(inside), module_name=""
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        description="Images drawn by cgan_jax; README.md says from which run.",
        features=_features(plan),
        supervised_keys=("image", "label"),
        alternative_file_formats=list(_FORMATS[1:]),
    )
    info.set_file_format(_FORMATS[0])
    info.set_splits(tfds.core.splits.SplitDict([split]))
    info.write_to_directory(str(inside))


def _features(plan: Plan) -> "tfds.features.FeaturesDict":  # noqa: F821 (imported late)
    import tensorflow_datasets as tfds

    names = plan.class_names
    if len(set(names)) < len(names) or not all(name.strip() == name != "" and name.isprintable() for name in names):
        names = folder_names(names)  # TFDS keeps names as lines of a file, each once
    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=plan.image_shape),
            "label": tfds.features.ClassLabel(names=list(names)),
        }
    )


def loading(plan: Plan) -> str:
    return (
        "import tensorflow_datasets as tfds\n\n"
        f'dataset = tfds.load("{plan.name}", data_dir=folder, split="train")  # a tf.data.Dataset\n'
        f'source = tfds.data_source("{plan.name}", data_dir=folder, split="train")  # a sequence, without TensorFlow'
    )
