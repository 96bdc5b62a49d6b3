"""Your own images in every form that the source takes: the same pixels, labels and names come out."""

import csv
import io
import json
import os
import zipfile

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image, ImageOps

from cgan_jax import recipe as recipes
from cgan_jax.data import pictures, sources
from cgan_jax.errors import UsageError
from cgan_jax.names import printable

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (4, 8, 8, 3), np.uint8)
NAMES = ["cat", "cat", "dog", "dog"]
SECTION = recipes.defaults().dataset.to_dict() | {"source": "images", "name": "", "split": "train", "image_size": 8}


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def load(path, **changed):
    return sources.load_section(SECTION | {"data_dir": str(path)} | changed)


def refused(path, **changed):
    with pytest.raises(UsageError) as caught:
        load(path, **changed)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def files(folder, images=IMAGES, names=NAMES):
    for number, (image, name) in enumerate(zip(images, names, strict=True)):
        path = folder / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(image))
    return folder


def table(folder, rows, name="list.csv", header=("path", "label")):
    files(folder)
    with open(folder / name, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows] if header else rows)
    return folder / name


def zipped(path, contents):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


ROWS = [(f"{name}/{number}.png", name) for number, name in enumerate(NAMES)]
ENTRIES = {f"00000/img{number}.png": png(image) for number, image in enumerate(IMAGES)}
LABELS = {"labels": [[name, number // 2] for number, name in enumerate(ENTRIES)]}


def json_lines(folder):
    files(folder)
    lines = [json.dumps({"file_name": path, "label": name}) for path, name in ROWS]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def arrays(folder, **more):
    labels = np.int64([0, 0, 1, 1])
    np.savez(folder / "train.npz", images=IMAGES, labels=labels, **more)


def parquet(path, first=0, last=4, label="label", labels=(0, 0, 1, 1), names=None, group=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = slice(first, last)
    columns = {"image": [{"bytes": png(image), "path": None} for image in IMAGES[rows]], label: list(labels[rows])}
    table = pyarrow.table(columns)
    if names:
        described = {"info": {"features": {label: {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(described)})
    pyarrow.parquet.write_table(table, path, row_group_size=group)
    return path


def split_parquet(folder):
    """As Hugging Face's hub has it."""
    parquet(folder / "data" / "test-00000-of-00001.parquet", 1, 2, names=["cat", "dog"])
    parquet(folder / "data" / "train-00000-of-00002.parquet", 0, 3, names=["cat", "dog"], group=2)
    parquet(folder / "data" / "train-00001-of-00002.parquet", 3, 4, names=["cat", "dog"])
    return folder


FORMS = {
    "folder": files,
    "splits": lambda folder: files(folder / "train").parent,
    "csv": lambda folder: table(folder, ROWS),
    "csv with a BOM and other names": lambda folder: table(folder, ROWS, header=("\ufeffImage", "Class")),
    "csv without a header": lambda folder: table(folder, ROWS, header=None),
    "csv of a split": lambda folder: table(
        folder, [(*row, "train") for row in ROWS] + [("cat/0.png", "eel", "val")], header=("path", "label", "split")
    ),
    "csv in the folder": lambda folder: table(folder, ROWS, "metadata.csv").parent,
    "json lines": json_lines,
    "zip of folders": lambda folder: zipped(
        folder / "a.zip",
        {f"pets/{path}": png(image) for (path, _), image in zip(ROWS, IMAGES, strict=True)}
        | {"pets/cat/._0.png": b"", "__MACOSX/pets/cat/0.png": b"", "pets/notes.txt": b""},
    ),
    "zip with splits": lambda folder: zipped(
        folder / "a.zip",
        {f"train/{path}": png(image) for (path, _), image in zip(ROWS, IMAGES, strict=True)}
        | {"val/cat/1.png": png(IMAGES[0])},
    ),
    "zip of StyleGAN": lambda folder: zipped(folder / "a.zip", ENTRIES | {"dataset.json": json.dumps(LABELS)}),
    "parquet": lambda folder: parquet(folder / "a.parquet", labels=["cat", "cat", "dog", "dog"]),
    "parquet of Hugging Face": split_parquet,
    "npz": lambda folder: arrays(folder, class_names=["cat", "dog"]) or folder / "train.npz",
    "npz of a split": lambda folder: arrays(folder) or folder,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_images(form, tmp_path):
    dataset = load(FORMS[form](tmp_path))
    np.testing.assert_array_equal(dataset.images, IMAGES)
    assert dataset.labels.tolist() == [0, 0, 1, 1] and dataset.labels.dtype == np.int32
    names = ("cat", "dog") if form not in ("zip of StyleGAN", "npz of a split") else ("0", "1")
    assert dataset.class_names == (*names, "eel") if form == "csv of a split" else names
    assert dataset.about[0].startswith("found 4 images in ")


@pytest.mark.parametrize(
    "form",
    [
        lambda folder: zipped(folder / "a.zip", ENTRIES),
        lambda folder: zipped(folder / "a.zip", ENTRIES | {"dataset.json": '{"labels": null}'}),
        lambda folder: zipped(folder / "a.zip", {name.split("/")[1]: content for name, content in ENTRIES.items()}),
        lambda folder: table(folder, [row[:1] for row in ROWS], header=("path",)),
        lambda folder: np.savez(folder / "a.npz", images=IMAGES) or folder / "a.npz",
    ],
    ids=["one folder in a zip", "StyleGAN without labels", "flat zip", "csv", "npz"],
)
def test_images_without_classes_are_of_one(form, tmp_path):
    dataset = load(form(tmp_path))
    np.testing.assert_array_equal(dataset.images, IMAGES)
    assert dataset.labels.tolist() == [0] * 4 and len(dataset.class_names) == 1
    assert dataset.about[0] == "found 4 images without classes"


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.csv", "path,label\ncat/0.png,cat\ncat/9.png,cat\ncat/8.png,cat\n", r"line 3: no file .*9.png, and 1 more"),
        ("a.csv", "path,label\ncat/0.png,cat\ncat/1.png,\n", "line 3 has no class, and line 2 has one"),
        ("a.csv", "path,split\ncat/0.png,test\n", "unknown split of .*'train'; there are: test"),
        ("a.csv", "", "no pictures"),
        ("a.csv", 'path,label\n"cat/0.png,cat\n' + 9999 * "cat/1.png,cat\n", r"line \d+ is no CSV; is a quote open"),
        ("a.csv", b"\xff\xfe\x00", "not a list in UTF-8"),
        ("a.jsonl", '{"path": "cat/0.png", "label": [1, 2]}', "line 1: a class is a name or a whole number"),
        ("a.jsonl", '{"image_id": 7}', "line 1 names no file; it has image_id"),
        ("a.jsonl", "[" * 100_000, "line 1 is no JSON"),
        ("a.zip", b"PK\x03\x04", "not a whole ZIP"),
        ("a.npy", b"", "is a single array"),
        ("a.parquet", b"PAR1", "not a whole Parquet file"),
        ("a.tar", b"", "expected is a folder, or a file in .zip, .parquet, .csv"),
    ],
)
def test_what_is_no_such_form_is_one_line(name, content, line, tmp_path):
    files(tmp_path)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=line) as caught:
        load(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("label", [2**16, 10**18, 2**64 - 1])
def test_a_large_label_makes_no_class_for_each_number_below(label, tmp_path):
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=np.array([0, 1, 2**16 - 1, label], np.uint64))
    assert refused(tmp_path / "a.npz").endswith(f"there may be at most 65536 classes, given {label + 1}")


@pytest.mark.parametrize("sign", ["\u2028", "\x85", "\x0b", "\x1c"])
def test_a_row_ends_where_its_line_does(sign, tmp_path):
    files(tmp_path, names=[f"a{sign}b", *NAMES[1:]])
    rows = [(f"a{sign}b/0.png", f"a{sign}b"), *ROWS[1:]]
    (tmp_path / "list.csv").write_bytes("\r\n".join(map(",".join, [("path", "label"), *rows])).encode())
    dataset = load(tmp_path / "list.csv")
    np.testing.assert_array_equal(dataset.images, IMAGES)
    assert dataset.class_names == (printable(f"a{sign}b"), "cat", "dog")


def test_a_damaged_zip_names_its_picture(tmp_path):
    path = zipped(tmp_path / "a.zip", ENTRIES | {"dataset.json": json.dumps(LABELS)})
    content = path.read_bytes()
    at = content.index(b"IDAT", content.index(b"IDAT") + 4) + 8  # of the second picture
    path.write_bytes(content[:at] + bytes(8) + content[at + 8 :])
    assert "a.zip: 00000/img1.png: not a picture that can be read (Bad CRC-32" in refused(path)


def test_a_parquet_file_of_other_columns_is_one_line(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "label": [0]}), tmp_path / "a.parquet")
    assert "no column of images (image or img); it has text, label" in refused(tmp_path / "a.parquet")
    parquet(tmp_path / "b.parquet", labels=[0.5] * 4)
    assert "a label is a name or a whole number, given 0.5" in refused(tmp_path / "b.parquet")
    assert "'val'; there are: test, train" in refused(split_parquet(tmp_path / "c"), split="val")
    path = parquet(tmp_path / "d.parquet")
    content = path.read_bytes()
    at = content.index(b"IDAT") + 20
    path.write_bytes(content[:at] + bytes(8) + content[at + 8 :])
    assert "d.parquet row 0: not a picture that can be read" in refused(path)


def test_hidden_parquet_files_are_passed_over(tmp_path):
    parquet(files(tmp_path / "pictures") / ".cache" / "x.parquet", labels=["owl"] * 4)
    assert load(tmp_path / "pictures").class_names == ("cat", "dog")
    parquet(tmp_path / "rows" / "DATA.PARQUET", labels=NAMES)
    (tmp_path / "rows" / "._DATA.PARQUET").write_bytes(b"macOS")
    np.testing.assert_array_equal(load(tmp_path / "rows").images, IMAGES)


def test_each_parquet_file_has_a_column_of_images(tmp_path):
    parquet(tmp_path / "a.parquet", 0, 2)
    table = pyarrow.parquet.read_table(parquet(tmp_path / "b.parquet", 2, 4))
    pyarrow.parquet.write_table(table.rename_columns(["img", "label"]), tmp_path / "b.parquet")
    np.testing.assert_array_equal(load(tmp_path).images, IMAGES)
    pyarrow.parquet.write_table(table.rename_columns(["photo", "label"]), tmp_path / "b.parquet")
    assert "b.parquet has no column of images (image or img); it has photo, label" in refused(tmp_path)
    pyarrow.parquet.write_table(table.rename_columns(["image", "kind"]), tmp_path / "b.parquet")
    assert "b.parquet: cannot read its column label" in refused(tmp_path)


def test_paths_that_are_not_there(tmp_path):
    assert "dataset.data_dir must name a folder" in refused("")
    assert "none: no such file or folder" in refused(tmp_path / "none")
    for source in ("images", "image_folder"):
        assert "dataset.data_dir=gs://bucket/pets: images cannot be read" in refused("gs://bucket/pets", source=source)
    assert load(files(tmp_path / "pets").parent, name="pets").class_names == ("cat", "dog")


def saved(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("error", [RuntimeError, NotImplementedError, TypeError, KeyError, RecursionError])
def test_whatever_pillow_raises_names_the_picture(error, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise error("words of a decoder")

    monkeypatch.setenv("CGAN_CACHE_DIR", str(tmp_path / "cache"))  # other tests have decoded these images
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", broken)
    assert "cat/0.png: not a picture that can be read" in refused(files(tmp_path / "pictures"))


def test_colours_that_pillow_cannot_convert_name_the_picture(tmp_path):
    (tmp_path / "b.tif").write_bytes(saved(Image.new("LAB", (8, 8)), "TIFF"))
    assert "b.tif: not a picture that can be read (conversion from LAB" in refused(tmp_path, channels="grey")


@pytest.mark.parametrize(("last", "is_read"), [(255, True), (2**16 - 1, True), (2**16, False), (-1, False)])
def test_whole_numbers_of_32_bits_are_read_if_they_fit_into_16(last, is_read, tmp_path):
    levels = np.linspace(0, last, 64).astype(np.int32).reshape(8, 8)
    (tmp_path / "a.tif").write_bytes(saved(Image.fromarray(levels), "TIFF"))
    if is_read:
        assert (load(tmp_path).images[0, ..., 0] == levels >> 8).all()
    else:
        assert "a.tif: not a picture that can be read (its pixels are whole numbers beyond 0" in refused(tmp_path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright_by_its_orientation_whatever_its_other_tags_are(orientation, tmp_path):
    picture = Image.fromarray(WIDE.repeat(2, axis=0).repeat(2, axis=1))
    tags = picture.getexif()
    tags[0x112], tags[0x11A] = orientation, 72.0
    whole = saved(picture, "JPEG", exif=tags)
    turned = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(whole))))
    for content in (whole, whole.replace(b"\x01\x1a\0\5", b"\x01\x1a\0\1")):  # a byte, and no ratio
        np.testing.assert_array_equal(pictures.opened(content), turned)


# Four bands in a wide image, which `bands` tells again: red, green, blue, black; and white.
COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)], np.uint8)
WIDE = np.broadcast_to(COLOURS[:4].repeat(2, axis=0), (4, 8, 3))


def bands(pixels):
    distances = np.abs(pixels[:, None].astype(int) - COLOURS).sum(axis=-1)
    return "".join("rgbkw"[place] for place in distances.argmin(axis=1))


@pytest.mark.parametrize(
    ("fit", "across", "down"), [("crop", "ggbb", "gggg"), ("stretch", "rgbk", "gggg"), ("pad", "rgbk", "wggw")]
)
def test_a_rectangle_becomes_a_square_by_name(fit, across, down, tmp_path):
    files(tmp_path, [WIDE], ["a"])
    files(tmp_path / "tall", [WIDE.transpose(1, 0, 2)], ["a"])
    image = load(tmp_path, image_size=4, fit=fit, background="white", name="a").images[0]
    assert (bands(image[1]), bands(image[:, 1])) == (across, down)
    tall = load(tmp_path / "tall", image_size=4, fit=fit, background="white").images[0]
    np.testing.assert_array_equal(tall, image.transpose(1, 0, 2))


@pytest.mark.parametrize(
    ("channels", "background", "clear"),
    [("auto", "black", [0, 0, 0]), ("rgb", "white", [255] * 3), ("rgba", "black", None), ("grey", "white", [255])],
)
def test_transparency_is_kept_or_composed(channels, background, clear, tmp_path):
    pixels = np.dstack([IMAGES[0], np.full((8, 8), 255, np.uint8)])
    pixels[:4, :, 3] = 0
    files(tmp_path, [pixels], ["a"])
    image = load(tmp_path, channels=channels, background=background).images[0]
    if clear is None:
        assert image.shape == (8, 8, 4) and (image[:4, :, 3] == 0).all() and (image[4:] == pixels[4:]).all()
    else:
        assert (image[:4] == clear).all() and image.shape[-1] == len(clear)


def test_padding_keeps_its_transparency(tmp_path):
    files(tmp_path, [WIDE], ["a"])
    image = load(tmp_path, channels="rgba", fit="pad").images[0]
    assert image[:2, :, 3].max() == 0 and image[2:6, :, 3].min() == 255


@pytest.mark.parametrize(("others", "channels"), [([], 1), ([IMAGES[0]], 3)])
def test_channels_are_as_in_the_images(others, channels, tmp_path):
    grey = [IMAGES[0, ..., 0], IMAGES[1, ..., 0]]
    files(tmp_path, [*grey, *others], ["a", "b", "c"][: 2 + len(others)])
    assert load(tmp_path).images.shape[-1] == channels


def test_it_says_what_was_found_and_what_it_makes_of_it(tmp_path):
    files(tmp_path, [WIDE, *IMAGES], ["owl", *NAMES])
    for name in ("a.heic", "b.heic", "c.txt"):
        (tmp_path / "cat" / name).write_bytes(b"x")
    assert load(tmp_path).about == (
        "found 5 images in 3 classes: cat 2, dog 2, owl 1",
        "small, with fewer than 100 images: cat 2, dog 2, owl 1",
        "sizes: 8x8 4, 8x4 1; modes: RGB 5; passed over: 2 .heic, 1 .txt",
        "each becomes 8x8 rgb, cut to the centred square and resized; 1 are smaller and are enlarged",
    )


@pytest.mark.parametrize("above", ["", "train/"])
def test_pictures_beside_the_class_folders_of_a_zip_are_counted(above, tmp_path):
    inside = {f"{above}{path}": png(image) for (path, _), image in zip(ROWS, IMAGES, strict=True)}
    dataset = load(zipped(tmp_path / "a.zip", inside | {f"{above}b.png": png(IMAGES[0])}))
    np.testing.assert_array_equal(dataset.images, IMAGES)
    assert any(line.endswith("; passed over: 1 beside the class folders") for line in dataset.about)


def test_a_zip_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/0.bmp", bytes(100 << 20))
    assert "104857600, more than 100 times as many; this is refused" in refused(tmp_path / "a.zip")


def test_class_names_of_an_archive_may_be_bytes_and_two_classes_may_share_one(tmp_path):
    """ImageNet has two classes called crane."""
    arrays(tmp_path, class_names=np.array(["caf\u00e9".encode(), b"dog"]))
    assert load(tmp_path).class_names == ("caf\u00e9", "dog")
    arrays(tmp_path, class_names=["crane", "crane"])
    assert load(tmp_path).class_names == ("crane", "crane")


def test_some_classes_are_taken_by_name(tmp_path):
    files(tmp_path, IMAGES, ["cat", "salt, pepper", "dog", "dog"])
    dataset = load(tmp_path, classes="salt, pepper,dog")
    assert dataset.class_names == ("dog", "salt, pepper") and dataset.labels.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(dataset.images, IMAGES[[2, 3, 1]])
    assert "unknown class in dataset.classes 'owl'; there are: cat, dog" in refused(tmp_path, classes="owl")


def test_classes_of_any_source_are_taken():
    section = SECTION | {"source": "digits", "data_dir": "", "image_size": 8, "split": "all", "classes": "3,8"}
    dataset = sources.load_section(section)
    assert dataset.class_names == ("3", "8") and np.bincount(dataset.labels).tolist() == [183, 174]
    with pytest.raises(UsageError, match=r"the source digits gives its images as they are; dataset\.fit"):
        sources.load_section(section | {"fit": "pad"})


@pytest.mark.parametrize("name", ["a.zip", "a.csv", "a.npz", "a.parquet"])
def test_a_pipe_in_place_of_a_file_is_refused(name, tmp_path):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UsageError, match="is neither a file nor a folder"):
        sources.load("images", name, "train", str(tmp_path), 8)
