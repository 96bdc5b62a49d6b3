"""Folders of pictures, written here in every accepted form."""

import os
import struct
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cgan_jax.data import sources
from cgan_jax.errors import UsageError


def noise(height=8, width=8, channels=3, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


def write(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def load(folder, split="train", image_size=8, name=""):
    return sources.load("image_folder", name, split, str(folder), image_size)


def refused(*arguments, **options):
    with pytest.raises(UsageError) as caught:
        load(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_class_per_folder_in_sorted_order(tmp_path):
    pictures = {"dog/2.png": 0, "dog/1.PNG": 1, "cat/b.bmp": 2, "cat/a.webp": 3, "ant/x.png": 4}
    for path, seed in pictures.items():
        write(tmp_path / path, noise(seed=seed), **({"lossless": True} if path.endswith("webp") else {}))
    dataset = load(tmp_path)
    assert dataset.class_names == ("ant", "cat", "dog")
    assert dataset.labels.tolist() == [0, 1, 1, 2, 2] and dataset.labels.dtype == np.int32
    assert dataset.images.dtype == np.uint8
    np.testing.assert_array_equal(dataset.images, [noise(seed=seed) for seed in (4, 3, 2, 1, 0)])
    np.testing.assert_array_equal(load(tmp_path, "all").images, dataset.images)


def test_folders_that_are_numbers_are_in_their_order(tmp_path):
    for number in range(12):
        write(tmp_path / str(number) / "1.png", noise(seed=number))
    assert load(tmp_path).class_names == tuple(map(str, range(12)))


@pytest.mark.parametrize("suffix", ["jpg", "jpeg"])
def test_jpeg(suffix, tmp_path):
    write(tmp_path / "a" / f"1.{suffix}", np.full((8, 8, 3), [200, 100, 50], np.uint8), quality=95)
    assert np.abs(load(tmp_path).images[0].astype(int) - [200, 100, 50]).max() <= 3


def test_grey_is_repeated_and_transparency_is_black(tmp_path):
    grey = noise(channels=1)
    write(tmp_path / "a" / "1.png", grey)
    write(tmp_path / "a" / "2.png", grey.astype(np.uint16) * 256 + 7)  # 16 bits
    rgba = np.concatenate([noise(), np.zeros((8, 8, 1), np.uint8)], axis=-1)
    rgba[:4, :, 3] = 255
    write(tmp_path / "a" / "3.png", rgba)
    Image.fromarray(grey).convert("1").save(tmp_path / "a" / "4.png")
    images = load(tmp_path).images
    np.testing.assert_array_equal(images[0], np.stack([grey] * 3, axis=-1))
    np.testing.assert_array_equal(images[1], images[0])
    np.testing.assert_array_equal(images[2][:4], rgba[:4, :, :3])
    np.testing.assert_array_equal(images[2][4:], 0)
    assert set(np.unique(images[3])) == {0, 255}


def test_a_palette_keeps_its_colours_and_its_transparency(tmp_path):
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([255, 0, 0, 10, 20, 30])
    palette.paste(0, (0, 0, 4, 8))
    (tmp_path / "a").mkdir()
    palette.save(tmp_path / "a" / "1.png")
    palette.save(tmp_path / "a" / "2.png", transparency=0)
    images = load(tmp_path).images
    assert images[0][0, 0].tolist() == [255, 0, 0] and images[0][0, 7].tolist() == [10, 20, 30]
    assert images[1][0, 0].tolist() == [0, 0, 0] and images[1][0, 7].tolist() == [10, 20, 30]


def test_the_exif_orientation_is_followed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the picture is to be shown a quarter turn clockwise
    write(tmp_path / "a" / "1.png", noise(), exif=exif)
    np.testing.assert_array_equal(load(tmp_path).images[0], np.rot90(noise(), k=-1))


def test_the_centre_is_cut_out(tmp_path):
    wide, tall = noise(8, 13), noise(15, 8)
    write(tmp_path / "a" / "1.png", wide)
    write(tmp_path / "a" / "2.png", tall)
    images = load(tmp_path).images
    np.testing.assert_array_equal(images[0], wide[:, 2:10])
    np.testing.assert_array_equal(images[1], tall[3:11])


def test_resizing_is_antialiased_and_comes_after_the_cut(tmp_path):
    # One-pixel stripes average to grey; the bars left and right of the centre must not bleed in.
    stripes = np.zeros((64, 128, 3), np.uint8)
    stripes[:, ::2] = 255
    stripes[:, :32], stripes[:, 96:] = (255, 0, 0), (0, 0, 255)
    write(tmp_path / "a" / "1.png", stripes)
    image = load(tmp_path).images[0].astype(int)
    assert image.shape == (8, 8, 3) and np.abs(image[:, 1:7] - 127.5).max() <= 3
    assert np.ptp(image, axis=-1).max() == 0
    assert load(tmp_path, image_size=96).images.shape == (1, 96, 96, 3)


def test_hidden_and_other_files_are_passed_over(tmp_path):
    write(tmp_path / "a" / "1.png", noise())
    (tmp_path / "a" / "._1.png").write_bytes(b"not a picture")  # of macOS on other disks
    write(tmp_path / "__MACOSX" / "a" / "1.png", noise())
    (tmp_path / "a" / "3.heic").write_bytes(b"not a picture")
    (tmp_path / "a" / "4.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    (tmp_path / "a" / "Thumbs.db").write_bytes(b"not a picture")
    (tmp_path / "readme.txt").write_text("not a class")
    (tmp_path / ".cache").mkdir()
    dataset = load(tmp_path)
    assert dataset.class_names == ("a",) and len(dataset.images) == 1


@pytest.mark.parametrize("kept", [0, 20, 150])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_a_broken_file_stops_with_its_path(suffix, kept, tmp_path):
    write(tmp_path / "a" / f"1.{suffix}", noise())
    broken = write(tmp_path / "b" / f"2.{suffix}", noise(32, 32))
    broken.write_bytes(broken.read_bytes()[:kept])
    assert refused(tmp_path).startswith(f"{broken}: not a picture that can be read")


def test_a_picture_broken_in_the_middle_stops_with_its_path(tmp_path):
    broken = write(tmp_path / "a" / "1.png", noise(200, 200))
    content = broken.read_bytes()
    second_chunk = content.index(b"IDAT", content.index(b"IDAT") + 4)
    broken.write_bytes(content[:second_chunk] + bytes(4) + content[second_chunk + 4 :])
    assert refused(tmp_path).startswith(f"{broken}: not a picture that can be read")


@pytest.mark.parametrize(
    "name", ["1.tif", "1.TIFF", "1.gif", "1.jfif", "1.JPE", "1.ppm", "1.avif", "1.jp2", "1.qoi", "1"]
)
def test_every_format_of_pillow_is_read(name, tmp_path):
    if Path(name).suffix.lower() not in {"", *Image.registered_extensions()}:
        pytest.skip("this Pillow was built without it")
    grey = np.full((8, 8, 3), 120, np.uint8)
    kind = {"": "PNG"}.get(Path(name).suffix) or Image.registered_extensions()[Path(name).suffix.lower()]
    if kind not in Image.SAVE:
        pytest.skip("this Pillow reads it alone")
    write(tmp_path / "a" / name, grey, format=kind)
    assert np.abs(load(tmp_path).images.astype(int) - 120).max() <= 2


def test_of_several_frames_the_first_is_read(tmp_path):
    (tmp_path / "a").mkdir()
    frames = [Image.fromarray(np.full((8, 8), level, np.uint8)) for level in (10, 200)]
    for name in ("1.gif", "2.tif", "3.webp"):
        frames[0].save(tmp_path / "a" / name, save_all=True, append_images=frames[1:], lossless=True)
    assert load(tmp_path).images[..., 0].max() == 10


def test_sub_folders_of_a_class_are_read_and_links_end(tmp_path):
    write(tmp_path / "a" / "x" / "y" / "1.png", noise(seed=1))
    write(tmp_path / "b" / "x" / "2.png", noise(seed=2))
    (tmp_path / "b" / "x" / "loop").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "linked.png").symlink_to(tmp_path / "b" / "x" / "2.png")
    os.mkfifo(tmp_path / "b" / "pipe.png")
    dataset = load(tmp_path)
    assert dataset.class_names == ("a", "b") and dataset.labels.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(dataset.images[2], noise(seed=2))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("place", ["before", "after"])
def test_a_picture_with_a_long_text_is_read(compressed, place, tmp_path):
    """Image generators write their settings, 2 MB and more, into a PNG."""
    path = write(tmp_path / "a" / "1.png", noise())
    content, text = path.read_bytes(), b"x" * 3_000_000
    body = b"prompt\0" + (b"\0" + zlib.compress(text) if compressed else text)
    chunk = struct.pack(">I", len(body)) + (b"zTXt" if compressed else b"tEXt") + body
    chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
    cut = 33 if place == "before" else len(content) - 12  # after the header; before the end
    path.write_bytes(content[:cut] + chunk * 30 + content[cut:])
    np.testing.assert_array_equal(load(tmp_path).images[0], noise())


def test_pictures_whose_range_is_unknown_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(tmp_path / "a" / "1.tif")
    assert "its pixels are floats" in refused(tmp_path)


def test_all_broken_pictures_are_counted_at_once(tmp_path):
    write(tmp_path / "a" / "1.png", noise())
    for number in range(2, 9):
        (tmp_path / "a" / f"{number}.png").write_bytes(b"no")
    line = refused(tmp_path)
    assert line.startswith(f"{tmp_path}/a/2.png: not a picture that can be read") and "nor can 6 more" in line


def test_names_that_look_alike_are_one_class_and_those_that_terminals_obey_are_escaped(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    for number, name in enumerate([composed, decomposed, "a\nb", "\x1b[31mred", "salt, pepper"]):
        write(tmp_path / name / f"{number}.png", noise(seed=number))
    dataset = load(tmp_path)
    assert sorted(dataset.class_names) == sorted([composed, r"a\nb", r"\x1b[31mred", "salt, pepper"])
    assert sorted(np.bincount(dataset.labels)) == [1, 1, 1, 2]
    (tmp_path / "a\nb" / "x.png").write_bytes(b"no")
    assert r"a\nb/x.png: not a picture" in refused(tmp_path)


def test_an_empty_class_is_refused(tmp_path):
    write(tmp_path / "a" / "1.png", noise())
    (tmp_path / "b").mkdir()
    assert refused(tmp_path).startswith(f"{tmp_path / 'b'}: the class folder holds no picture")


def test_folders_that_are_not_there(tmp_path):
    assert refused(tmp_path).startswith(f"{tmp_path}: no folder with one sub-folder per class")
    assert refused(tmp_path / "none").startswith(f"{tmp_path / 'none'}: no folder")
    assert "give data_dir" in refused("")
    write(tmp_path / "a" / "1.png", noise())
    assert "'test'; there are: train, all" in refused(tmp_path, "test")
    assert "image_size 0" in refused(tmp_path, image_size=0)


def test_name_is_a_folder_in_data_dir(tmp_path):
    write(tmp_path / "pets" / "a" / "1.png", noise())
    assert load(tmp_path, name="pets").class_names == ("a",)


def test_splits_count_by_the_classes_of_train(tmp_path):
    for path in ("train/ant", "train/bee", "train/cow", "test/cow"):
        write(tmp_path / path / "1.png", noise())
    assert load(tmp_path).labels.tolist() == [0, 1, 2]
    test = load(tmp_path, "test")
    assert test.class_names == ("ant", "bee", "cow") and test.labels.tolist() == [2]
    assert "'all'; there are: test, train" in refused(tmp_path, "all")
    write(tmp_path / "test" / "dog" / "1.png", noise())
    assert refused(tmp_path, "test").startswith(f"{tmp_path / 'test' / 'dog'}: the train split has no class")


def test_classes_with_sub_folders_are_no_splits(tmp_path):
    for path in ("cat/indoors", "cat/outdoors", "dog/indoors"):
        write(tmp_path / path / "1.png", noise())
    assert load(tmp_path).class_names == ("cat", "dog") and load(tmp_path).labels.tolist() == [0, 0, 1]
    assert load(tmp_path, "cat").class_names == ("indoors", "outdoors")


def test_pictures_in_no_class_folder_are_of_one_class(tmp_path):
    write(tmp_path / "train" / "1.png", noise(seed=1))
    write(tmp_path / "val" / "2.png", noise(seed=2))
    for split, seed in (("train", 1), ("val", 2)):
        dataset = load(tmp_path, split)
        assert dataset.class_names == ("image",) and dataset.labels.tolist() == [0]
        np.testing.assert_array_equal(dataset.images[0], noise(seed=seed))
    assert "'test'; there are: train, val" in refused(tmp_path, "test")
    assert load(tmp_path / "val").class_names == ("image",)


def test_a_class_may_be_called_train(tmp_path):
    write(tmp_path / "car" / "1.png", noise())
    write(tmp_path / "train" / "1.png", noise())
    assert load(tmp_path).class_names == ("car", "train")


def test_many_large_pictures_stay_in_order(tmp_path):
    # Beyond the size from which several threads decode.
    for i in range(130):
        write(tmp_path / "a" / f"{i:03d}.bmp", np.full((96, 96, 3), i, np.uint8))
    assert load(tmp_path, image_size=1).images[:, 0, 0, 0].tolist() == list(range(130))
