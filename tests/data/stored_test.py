"""Decoded once to a file, read by rows: the pixels are those of memory, and what changed is decoded anew."""

import os
import shutil
import time

import jax
import numpy as np
import pytest
from PIL import Image

from cgan_jax import recipe as recipes
from cgan_jax.data import pictures, placement, sources, stored
from cgan_jax.data.batches import Data, balanced, order_key, rows
from cgan_jax.errors import UsageError
from cgan_jax.parallel import PRNG, make_mesh

SECTION = recipes.defaults().dataset.to_dict() | {"source": "images", "name": "", "split": "train", "image_size": 8}
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), np.uint8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CGAN_CACHE_DIR", str(tmp_path / "cache"))
    for number, image in enumerate(IMAGES):
        path = tmp_path / "pictures" / ("cat" if number < 3 else "dog") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "pictures"


def load(folder, placement="stream", **changed):
    return sources.load_section(SECTION | {"data_dir": str(folder), "placement": placement} | changed)


@pytest.fixture
def decodings(monkeypatch):
    """Counts the pictures that are decoded, and those that are looked at."""
    counts = {"opened": 0, "facts": 0}

    def counted(name, function):
        def call(*arguments):
            counts[name] += 1
            return function(*arguments)

        return call

    for name in counts:
        monkeypatch.setattr(pictures, name, counted(name, getattr(pictures, name)))
    return counts


@pytest.mark.parametrize(
    "index",
    [
        slice(None),
        slice(2, 5),
        3,
        -1,
        np.array([6, 0, 0, 3]),
        np.array([[1, 2], [2, 1]]),
        np.arange(7) % 2 == 0,
        np.zeros(0, int),
    ],
    ids=range(8),
)
def test_an_index_reads_what_it_means_for_an_array(index, folder):
    images = load(folder).images
    assert isinstance(images, stored.StoredImages) and images.shape == IMAGES.shape and len(images) == 7
    np.testing.assert_array_equal(images[index], IMAGES[index])
    np.testing.assert_array_equal(np.asarray(images), IMAGES)


def test_a_later_start_decodes_nothing_and_a_changed_picture_is_decoded(folder, decodings):
    in_memory = load(folder, "replicated").images
    assert decodings == {"opened": 7, "facts": 7} and isinstance(in_memory, np.ndarray)
    np.testing.assert_array_equal(load(folder).images[:], in_memory)
    np.testing.assert_array_equal(load(folder, "replicated").images, in_memory)
    assert decodings == {"opened": 7, "facts": 7}
    copied = shutil.copytree(folder, folder.with_name("copy"))  # other files of the same content
    np.testing.assert_array_equal(load(copied).images[:], in_memory)
    assert decodings == {"opened": 7, "facts": 14}
    Image.fromarray(IMAGES[1]).save(folder / "cat" / "0.png")
    os.utime(folder / "cat" / "0.png", ns=(1, 1))
    np.testing.assert_array_equal(load(folder).images[0], IMAGES[1])
    assert decodings == {"opened": 14, "facts": 21}
    load(folder, image_size=4)
    assert decodings == {"opened": 21, "facts": 21}


def test_some_classes_are_read_without_the_others(folder):
    dataset = load(folder, classes="dog")
    assert isinstance(dataset.images, stored.StoredImages) and dataset.labels.tolist() == [0] * 4
    np.testing.assert_array_equal(dataset.images[np.array([3, 0])], IMAGES[[6, 3]])


@pytest.mark.parametrize("kept", [0, 100, 1000])
def test_a_file_that_is_cut_short_is_written_anew(kept, folder):
    load(folder)
    (file,) = (folder.parent / "cache" / "images").glob("*.array_record")
    file.write_bytes(file.read_bytes()[:kept])
    np.testing.assert_array_equal(load(folder).images[:], IMAGES)


def test_a_flipped_bit_is_no_image(folder):
    images = load(folder).images
    (file,) = (folder.parent / "cache" / "images").glob("*.array_record")
    content = bytearray(file.read_bytes())
    content[content.index(IMAGES[4].tobytes()) + 5] ^= 1
    file.write_bytes(content)
    with pytest.raises(UsageError, match="damaged, delete it"):
        images[4]
    np.testing.assert_array_equal(load(folder, "replicated").images, IMAGES)
    np.testing.assert_array_equal(load(folder).images[:], IMAGES)


def test_without_a_cache_folder_the_images_are_decoded_into_memory(folder, monkeypatch):
    (folder.parent / "file").write_text("no folder")
    monkeypatch.setenv("CGAN_CACHE_DIR", str(folder.parent / "file" / "cache"))
    np.testing.assert_array_equal(load(folder, "replicated").images, IMAGES)
    with pytest.raises(UsageError, match="choose another folder by CGAN_CACHE_DIR"):
        load(folder)


def test_an_interrupted_decoding_leaves_no_file_that_looks_whole(folder):
    (folder / "dog" / "6.png").write_bytes((folder / "dog" / "5.png").read_bytes()[:60])
    with pytest.raises(UsageError, match=r"6\.png: not a picture"):
        load(folder)
    assert not list((folder.parent / "cache" / "images").glob("*array_record*"))


@pytest.mark.parametrize("first", [0, 3])
def test_a_stream_from_a_file_sends_what_one_from_memory_sends(first, folder):
    """From any step on, which is what resuming asks."""
    dataset, mesh = load(folder), make_mesh(jax.devices()[:2])
    order = balanced(dataset.labels, "uniform")

    def draws(epoch, key, step):
        places = jax.vmap(lambda index: rows(order_key(key), index, 4, epoch))(step + np.arange(2, dtype=np.int32))
        return places, places[:1]

    def windows(images):
        data = Data(images, dataset.labels, order)
        feed = placement.feed("stream", data, mesh, draws, jax.random.key(5, impl=PRNG), 2, first)
        found = [jax.tree.map(np.asarray, next(feed)) for _ in range(3)]
        feed.close()
        return found

    for ours, expected in zip(windows(dataset.images), windows(IMAGES), strict=True):
        jax.tree.map(np.testing.assert_array_equal, ours, expected)
        np.testing.assert_array_equal(ours.images.reshape(*ours.rows.shape, *IMAGES.shape[1:]), IMAGES[ours.rows])


def test_grain_reads_the_file(folder):
    grain = pytest.importorskip("grain")
    load(folder)
    (file,) = (folder.parent / "cache" / "images").glob("*.array_record")
    source = grain.sources.ArrayRecordDataSource(str(file))
    assert len(source) == 7 and source[4] == IMAGES[4].tobytes()


def test_what_a_killed_decoding_left_is_deleted_when_it_is_old(folder):
    cache = folder.parent / "cache" / "images"
    cache.mkdir(parents=True)
    old, young = cache / ".a.array_record.1.partial", cache / ".b.array_record.2.partial"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 4000,) * 2)
    load(folder)
    assert young.exists() and not old.exists()
