"""Images from files: what is written is read back, and what is not of the dataset's kind is one line."""

import unicodedata

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cgan_jax.errors import UsageError
from cgan_jax.evaluation import image_readers
from cgan_jax.sampling import image_writers

RNG = np.random.default_rng(0)
NAMES = ("cat", "big dog")
IMAGES = RNG.integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
LABELS = np.int32([1, 0, 0, 1, 1])
SHAPE = (4, 4, 3)


def test_an_archive_is_read_back(tmp_path):
    image_writers.write_npz(tmp_path / "a.npz", IMAGES, LABELS, NAMES)
    found = image_readers.read(tmp_path / "a.npz", SHAPE, NAMES)
    assert np.array_equal(found.images, IMAGES) and np.array_equal(found.labels, LABELS)
    np.savez(tmp_path / "b.npz", images=IMAGES)
    assert image_readers.read(tmp_path / "b.npz", SHAPE, NAMES).labels is None


def test_a_folder_is_read_back_with_classes_by_name_or_reduced_name(tmp_path):
    paths = list(image_writers.image_paths(tmp_path / "out", LABELS, np.arange(5), NAMES))
    image_writers.write_folder(tmp_path / "out", [IMAGES], paths)
    found = image_readers.read(tmp_path / "out", SHAPE, NAMES)
    order = np.argsort(1 - LABELS, kind="stable")  # big_dog before cat
    assert np.array_equal(found.images, IMAGES[order]) and np.array_equal(found.labels, LABELS[order])
    (tmp_path / "out" / "big_dog").rename(tmp_path / "out" / "big dog")
    assert len(image_readers.read(tmp_path / "out", SHAPE, NAMES).images) == 5


def test_pictures_without_class_folders_have_no_labels(tmp_path):
    for i, image in enumerate(IMAGES):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    found = image_readers.read(tmp_path, SHAPE, NAMES)
    assert np.array_equal(found.images, IMAGES) and found.labels is None


def test_images_of_an_unconditional_run_have_no_labels(tmp_path):
    image_writers.write_npz(tmp_path / "a.npz", IMAGES, np.zeros(5, np.int32), ("image",))
    paths = list(image_writers.image_paths(tmp_path / "out", np.zeros(5, np.int32), np.arange(5), ("image",)))
    image_writers.write_folder(tmp_path / "out", [IMAGES], paths)
    for path in (tmp_path / "a.npz", tmp_path / "out"):
        found = image_readers.read(path, SHAPE, NAMES)
        assert np.array_equal(found.images, IMAGES) and found.labels is None
    labelled = image_readers.read(tmp_path / "out", SHAPE, ("cat", "image"))
    assert labelled.labels.tolist() == [1] * 5


@pytest.mark.parametrize(
    ("arrays", "line"),
    [
        ({"images": IMAGES / np.float32(127.5) - 1}, r"images must be uint8 \[N, H, W, C\] .*given float"),
        ({"images": IMAGES[0]}, r"given uint8 \[4, 4, 3\]"),
        ({"images": IMAGES[:, :2]}, r"images are \[2, 4, 3\] and the dataset's are \[4, 4, 3\]"),
        ({"images": IMAGES[..., :1]}, r"images are \[4, 4, 1\]"),
        ({"images": IMAGES[:0]}, "holds no images"),
        (
            {"pictures": IMAGES, "y": LABELS},
            r"no array named images; it holds pictures uint8 \[5, 4, 4, 3\], y int32 \[5\]",
        ),
        ({"images": IMAGES, "labels": LABELS[:3]}, r"labels must be whole numbers \[5\]"),
        ({"images": IMAGES, "labels": LABELS * 0.5}, "labels must be whole numbers"),
        ({"images": IMAGES, "labels": LABELS + 1}, "labels go from 1 to 2, classes to 1"),
        ({"images": IMAGES, "labels": LABELS, "class_names": np.array(["x", "y"])}, "of the classes x, y"),
        ({"images": np.array([None])}, r"is no \.npz of arrays"),
    ],
    ids=range(11),
)
def test_an_archive_of_another_kind_is_one_line(arrays, line, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UsageError, match=line) as error:
        image_readers.read(tmp_path / "a.npz", SHAPE, NAMES)
    assert "\n" not in str(error.value)


def test_a_single_array_is_one_line(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    with pytest.raises(UsageError, match=r"a single array; in a \.npz expected are images uint8 \[N, H, W, C\]"):
        image_readers.read(tmp_path / "a.npy", SHAPE, NAMES)


def test_folders_are_read_by_the_rules_of_training(tmp_path):
    """Hidden files, composed names, upper case and long texts: the same reader."""
    names = (unicodedata.normalize("NFC", "café"), "tea")
    folder = tmp_path / unicodedata.normalize("NFD", "café") / "more"
    folder.mkdir(parents=True)
    Image.fromarray(IMAGES[0]).save(folder / "1.TIF", format="TIFF")
    info = PngInfo()
    info.add_text("prompt", "x" * 3_000_000, zip=True)
    Image.fromarray(IMAGES[1]).save(folder / "2.png", pnginfo=info)
    (folder / "._2.png").write_bytes(b"AppleDouble")
    found = image_readers.read(tmp_path, SHAPE, names)
    assert np.array_equal(found.images, IMAGES[:2]) and found.labels.tolist() == [0, 0]


def test_files_of_another_kind_are_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"--images=.*none: no such file or folder"):
        image_readers.read(tmp_path / "none", SHAPE, NAMES)
    (tmp_path / "a.npz").write_bytes(b"hello")
    with pytest.raises(UsageError, match=r"a\.npz is no \.npz of arrays"):
        image_readers.read(tmp_path / "a.npz", SHAPE, NAMES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="empty holds no pictures"):
        image_readers.read(tmp_path / "empty", SHAPE, NAMES)
    folder = tmp_path / "pictures"
    (folder / "horse").mkdir(parents=True)
    Image.fromarray(IMAGES[0]).save(folder / "horse" / "1.png")
    with pytest.raises(UsageError, match=r"pictures/horse: the dataset has no class of that name"):
        image_readers.read(folder, SHAPE, NAMES)
    (folder / "horse").rename(folder / "cat")
    Image.fromarray(IMAGES[0][:3]).save(folder / "cat" / "2.png")
    with pytest.raises(UsageError, match=r"2\.png: 4x3 pixels, the dataset has 4x4"):
        image_readers.read(folder, SHAPE, NAMES)
    (folder / "cat" / "2.png").write_bytes((folder / "cat" / "1.png").read_bytes()[:40])
    with pytest.raises(UsageError, match=r"2\.png is not a whole picture"):
        image_readers.read(folder, SHAPE, NAMES)
    (folder / "cat" / "2.png").unlink()
    Image.fromarray(IMAGES[1]).save(folder / "3.png")
    with pytest.raises(UsageError, match="both beside and inside of class folders"):
        image_readers.read(folder, SHAPE, NAMES)
