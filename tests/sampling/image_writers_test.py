"""Labelled images as files."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cgan_jax.errors import UsageError
from cgan_jax.sampling import grids, image_writers

NAMES = ["cat", "dog", "tree frog"]
LABELS, INDICES = np.int32([2, 2, 0]), np.int32([0, 1, 0])
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("class_names", "folders"),
    [
        (["cat", "Great-Dane_2"], ["cat", "Great-Dane_2"]),
        (["tree frog", "köter", "a.b"], ["tree_frog", "k_ter", "a_b"]),
        (["..", "."], ["__", "_"]),
        (["/etc/passwd", "../up"], ["_etc_passwd", "___up"]),
        (["a/b", "a:b", "c"], ["0_a_b", "1_a_b", "2_c"]),
        (["a/b", "a:b", "0_a_b"], ["0_a_b", "1_a_b", "2_0_a_b"]),
        (["Cat", "cat"], ["0_Cat", "1_cat"]),
        (["", "dog"], ["0_", "1_dog"]),
        (["x" * 300], ["x" * 100]),
        (["x" * 300, "x" * 301], ["0_" + "x" * 100, "1_" + "x" * 100]),
    ],
)
def test_a_class_has_a_folder_of_its_own_with_a_harmless_name(class_names, folders):
    assert image_writers.folder_names(class_names) == folders


def test_an_image_is_filed_by_class_and_index(tmp_path):
    paths = list(image_writers.image_paths(tmp_path, LABELS, INDICES + 17, NAMES))
    assert paths == [
        tmp_path / "tree_frog" / "000017.png",
        tmp_path / "tree_frog" / "000018.png",
        tmp_path / "cat" / "000017.png",
    ]


def test_a_file_that_exists_is_refused_unless_forced(tmp_path):
    taken, free = tmp_path / "taken.png", tmp_path / "new" / "free.png"
    taken.write_text("precious")
    assert image_writers.check_free([free], force=False) is None
    with pytest.raises(UsageError, match=f"^{taken} exists already; --force replaces it$"):
        image_writers.check_free([free, taken], force=False)
    assert image_writers.check_free([free, taken], force=True) is None
    assert taken.read_text() == "precious" and files_below(tmp_path) == ["taken.png"]


@pytest.mark.parametrize("force", [True, False])
def test_what_can_never_be_written_is_refused_even_if_forced(tmp_path, force):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UsageError, match=r"folder.png is a folder, not a file that could be replaced$"):
        image_writers.check_free([tmp_path / "folder.png"], force)
    with pytest.raises(UsageError, match=r"file/a/b.png cannot be written: .*/file is not a folder"):
        image_writers.check_free([tmp_path / "file" / "a" / "b.png"], force)


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def write_folder(folder, batches):
    image_writers.write_folder(folder, batches, list(image_writers.image_paths(folder, LABELS, INDICES, NAMES)))


def test_a_folder_holds_every_image_once_whatever_the_batches(tmp_path):
    places = ["tree_frog/000000.png", "tree_frog/000001.png", "cat/000000.png"]
    for name, batches in (("one", [IMAGES]), ("many", [IMAGES[:1], IMAGES[1:]])):
        folder = tmp_path / "deep" / name
        write_folder(folder, iter(batches))
        assert files_below(folder) == sorted(places)
        for place, image in zip(places, IMAGES, strict=True):
            np.testing.assert_array_equal(read(folder / place), image)
    assert sorted(os.listdir(tmp_path / "deep")) == ["many", "one"]


def failing():
    yield IMAGES[:2]
    raise RuntimeError("the device went away")


def test_a_new_folder_that_cannot_be_finished_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="went away"):
        write_folder(tmp_path / "out", failing())
    assert os.listdir(tmp_path) == []


def test_too_few_images_are_no_finished_folder(tmp_path):
    with pytest.raises(ValueError, match="longer"):
        write_folder(tmp_path / "out", [IMAGES[:2]])
    assert os.listdir(tmp_path) == []


def test_in_a_folder_that_exists_only_the_images_own_files_are_replaced(tmp_path):
    folder = tmp_path / "out"
    (folder / "cat").mkdir(parents=True)
    for name in ("notes.txt", "cat/000000.png", "cat/000009.png"):
        (folder / name).write_text("old")
    write_folder(folder, [IMAGES])
    assert files_below(tmp_path) == [
        "out/cat/000000.png",
        "out/cat/000009.png",
        "out/notes.txt",
        "out/tree_frog/000000.png",
        "out/tree_frog/000001.png",
    ]
    np.testing.assert_array_equal(read(folder / "cat" / "000000.png"), IMAGES[2])
    assert (folder / "notes.txt").read_text() == (folder / "cat" / "000009.png").read_text() == "old"


def test_the_beginning_of_a_synthetic_dataset_of_the_same_name_stays(tmp_path):
    begun = tmp_path / ".out.partial" / "state.json"
    begun.parent.mkdir()
    begun.write_text("half")
    write_folder(tmp_path / "out", [IMAGES])
    assert len(files_below(tmp_path / "out")) == 3 and begun.read_text() == "half"
    with pytest.raises(RuntimeError, match="went away"):
        write_folder(tmp_path / "other", failing())
    assert sorted(os.listdir(tmp_path)) == [".out.partial", "out"]


def test_an_archive_is_read_back_without_pickle(tmp_path):
    path = tmp_path / "new" / "a.npz"
    image_writers.write_npz(path, IMAGES, LABELS.astype(np.int64), ["cat", "köter", "tree frog"])
    with np.load(path, allow_pickle=False) as archive:
        assert sorted(archive) == ["class_names", "images", "labels"]
        np.testing.assert_array_equal(archive["images"], IMAGES)
        np.testing.assert_array_equal(archive["labels"], LABELS)
        assert archive["class_names"].tolist() == ["cat", "köter", "tree frog"]
        assert (archive["images"].dtype, archive["labels"].dtype) == (np.uint8, np.int32)
    assert os.listdir(tmp_path / "new") == ["a.npz"]


def levels(picture, rows, columns, margin=0):
    """The grey level in the middle of every cell of a grid of 64-pixel images."""
    return [[int(picture[2 + 66 * y + 32, margin + 2 + 66 * x + 32, 0]) for x in range(columns)] for y in range(rows)]


def flat(*values):
    return np.stack([np.full((32, 32, 1), value, np.uint8) for value in values])


def test_a_conditional_grid_has_a_row_per_class_in_the_order_asked_for(tmp_path):
    path = tmp_path / "new" / "grid.png"
    image_writers.write_grid(path, flat(10, 20, 30), LABELS, NAMES, conditional=True)
    picture = read(path)
    margin = picture.shape[1] - 2 * 66 - 2
    assert margin > 0 and picture.shape[0] == 2 * 66 + 2
    assert levels(picture, 2, 2, margin) == [[10, 20], [30, 255]]
    assert os.listdir(tmp_path / "new") == ["grid.png"]


def test_an_unconditional_grid_has_rows_of_ten_and_no_names(tmp_path):
    image_writers.write_grid(tmp_path / "grid.png", flat(*range(11)), np.zeros(11, np.int32), NAMES, conditional=False)
    picture = read(tmp_path / "grid.png")
    assert picture.shape[:2] == (2 * 66 + 2, 10 * 66 + 2)
    assert levels(picture, 2, 10) == [list(range(10)), [10] + 9 * [255]]


def test_ways_are_rows_and_alike_names_stand_once():
    frames = np.arange(6, dtype=np.uint8).reshape(3, 2, 1, 1, 1)
    rows, names = grids.rows_of_ways(frames, ["3 to 7", "3 to 7"])
    assert [row.ravel().tolist() for row in rows] == [[0, 2, 4], [1, 3, 5]] and names == ["3 to 7", ""]


def test_images_stand_before_their_others_with_white_between():
    images, others = flat(1, 2, 3)[:, :1, :1], np.arange(10, 16, dtype=np.uint8).reshape(3, 2, 1, 1, 1)
    rows, names = grids.rows_beside(images, others, ["cat", "dog", "cat"])
    assert [np.ravel(row).tolist() for row in rows] == [[1, 10, 11, 255, 3, 14, 15], [2, 12, 13]]
    assert names == ["cat", "dog"]
    many = np.zeros((7, 1, 1, 1), np.uint8)
    rows, names = grids.rows_beside(many, np.zeros((7, 2, 1, 1, 1), np.uint8), ["cat"] * 7)
    assert [len(row) for row in rows] == [23, 3] and names == ["cat", ""]


def test_a_png_is_always_the_same_bytes():
    assert grids.png(IMAGES[0]) == grids.png(IMAGES[0].copy())
    np.testing.assert_array_equal(read(io.BytesIO(grids.png(IMAGES[0]))), IMAGES[0])
