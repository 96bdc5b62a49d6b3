"""A set as TensorFlow Datasets prepares them, read back by TFDS itself and by our own reader."""

import socket

import numpy as np
import pytest
import tensorflow_datasets as tfds

from cgan_jax.data import sources
from cgan_jax.files import tfrecord
from tests.sampling.formats.small_set import PLAN, all_images, written


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was touched")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


def test_a_data_source_has_every_image_with_its_label_and_name(tmp_path):
    written("tfds", tmp_path)
    source = tfds.data_source(PLAN.name, data_dir=tmp_path, split="train")
    assert len(source) == 11
    np.testing.assert_array_equal(np.stack([source[i]["image"] for i in range(11)]), all_images())
    assert [source[i]["label"] for i in range(11)] == PLAN.labels.tolist()
    assert source[0]["id"].decode() == "cat/000000"
    builder = tfds.builder(PLAN.name, data_dir=tmp_path)
    assert builder.info.features["label"].names == list(PLAN.class_names)
    assert builder.info.supervised_keys == ("image", "label")
    assert builder.info.splits["train"].num_shards == 3


def test_tf_data_has_the_same(tmp_path):
    pytest.importorskip("tensorflow", reason="reading tfrecord through tf.data takes TensorFlow")
    written("tfds", tmp_path)
    examples = list(tfds.as_numpy(tfds.load(PLAN.name, data_dir=tmp_path, split="train")))
    np.testing.assert_array_equal(np.stack([example["image"] for example in examples]), all_images())
    assert [example["label"] for example in examples] == PLAN.labels.tolist()


def test_it_can_be_trained_on(tmp_path):
    images, labels, names, _ = sources.load("tfds", PLAN.name, "train", str(written("tfds", tmp_path)), 4)
    np.testing.assert_array_equal(images, all_images())
    np.testing.assert_array_equal(labels, PLAN.labels)
    assert names == PLAN.class_names


def test_both_files_of_a_shard_hold_the_same_records(tmp_path):
    from array_record.python.array_record_module import ArrayRecordReader

    inside = written("tfds", tmp_path) / PLAN.name / "1.0.0"
    for shard in range(3):
        reader = ArrayRecordReader(str(inside / f"{PLAN.name}-train.array_record-{shard:05d}-of-00003"))
        records = reader.read_all()
        reader.close()
        assert records == tfrecord.read(inside / f"{PLAN.name}-train.tfrecord-{shard:05d}-of-00003")


@pytest.mark.parametrize("names", [("a", "a", "b", "c"), ("", "a", "b", "c"), ("a\nb", "a", "b", "c")])
def test_names_that_cannot_be_lines_of_a_file_are_replaced(names, tmp_path):
    plan = PLAN._replace(class_names=names)
    builder = tfds.builder(plan.name, data_dir=written("tfds", tmp_path, plan))
    assert len(set(builder.info.features["label"].names)) == 4
