"""Folders of pictures, written here in every accepted form."""

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
    (tmp_path / "a" / ".2.png").write_bytes(b"not a picture")
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


def test_a_class_may_be_called_train(tmp_path):
    write(tmp_path / "car" / "1.png", noise())
    write(tmp_path / "train" / "1.png", noise())
    assert load(tmp_path).class_names == ("car", "train")


def test_many_large_pictures_stay_in_order(tmp_path):
    # Beyond the size from which several threads decode.
    for i in range(130):
        write(tmp_path / "a" / f"{i:03d}.bmp", np.full((96, 96, 3), i, np.uint8))
    assert load(tmp_path, image_size=1).images[:, 0, 0, 0].tolist() == list(range(130))
