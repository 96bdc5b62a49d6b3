"""Whatever stands in a file, its reader returns or refuses it in one line: no traceback, no hang, no gigabytes."""

import gzip
import hashlib
import io
import json
import os
import signal
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from google_crc32c import value as crc32c
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cgan_jax import exported
from cgan_jax.commands import sweep
from cgan_jax.errors import UsageError
from cgan_jax.evaluation import image_readers
from cgan_jax.evaluation.features import classifier
from cgan_jax.evaluation.metrics import fid
from cgan_jax.files import json_text, locks, npz, storage, tfrecord, torch_file, unpacking
from cgan_jax.files.png import png
from cgan_jax.run import integrity, report, workdir
from tests.conftest import small_recipe
from tests.torch_files import pickled, row, tensor, zipped

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
INFO = workdir.RunInfo(small_recipe(), 3, ["cat", "köter"], 50_000)
SECONDS = 20


def npz_of(**arrays) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def text_of(value) -> bytes:
    return json.dumps(value).encode()


def load_inside(path: Path) -> exported.Model:
    """Loads a model with these bytes after the checksum, which is right."""
    inside, model = storage.read_bytes(path), path.with_suffix(".model")
    model.write_bytes(b"cganjax1" + hashlib.sha256(inside).digest() + inside)
    return exported.load(model)


DESCRIBED = {"class_names": ["a"], "weights": ["w"], "latent_dim": 4, "image_shape": [2, 2, 1], "metrics": {"fid": 1.0}}
MODEL = exported.packed({"latents": b"none", "images": b"none"}, {"w": np.zeros(1)}, DESCRIBED)
LINE = {"step": 1, "kimg": 1.0, "seconds": 1.0, "to": 0, "why": "", "protocol": {}}
# Reader of a path -> a whole content.
READERS = {
    "config.json": (lambda path: workdir.read_info(path.parent), json_text.sealed(INFO._asdict()).encode()),
    **{
        log: (lambda path: workdir.read_metrics(path.parent, path.name), 2 * (text_of(LINE) + b"\n"))
        for log in ("metrics.jsonl", "evaluations.jsonl", "environments.jsonl", "rollbacks.jsonl")
    },
    "integrity/3.json": (lambda path: integrity.read(path.parents[1], 3), text_of({"files": {"a": "b"}, "cost": 1.0})),
    "outcomes.json": (lambda path: sweep._outcomes(path.parent), text_of({"baseline": 0})),
    ".lock": (locks.last_beat, text_of(locks.Beat("host", 1, "a", 0.0)._asdict())),
    "held": (locks.is_held, b"12"),
    "a.npz": (npz.arrays_in, npz_of(a=np.arange(5), b=np.zeros((2, 3), np.float32))),
    "images.npz": (lambda path: image_readers.read(path, (4, 4, 3), ("a",)), npz_of(images=IMAGES)),
    "in/1.png": (lambda path: image_readers.read(path.parent, (4, 4, 3), ("a",)), png(IMAGES[0])),
    "samples/real.png": (report._encoded, png(IMAGES[0])),
    "moments.npz": (fid.load_moments, npz_of(mu=np.zeros(2), sigma=np.eye(2))),
    "classifier.npz": (classifier.read, npz_of(description=np.frombuffer(b'{"image_size": 8}', np.uint8))),
    "a.tfrecord": (tfrecord.read, tfrecord.framed([b"one", b"two"])),
    "a.safetensors": (
        lambda path: exported.unpack_arrays(storage.read_bytes(path)),
        exported.pack_arrays({"a": np.zeros((2, 3), np.float32)}, {"b": "c"}),
    ),
    **{
        name: (
            lambda path: torch_file.read(storage.read_bytes(path), path.name),
            file(pickled(a=tensor()), _0=bytes(24)),
        )
        for name, file in (("row.pth", row), ("zip.pth", zipped))
    },
    "a.cgan": (exported.load, MODEL),
    "inside.cgan": (load_inside, MODEL[40:]),
}
BYTES = st.binary(max_size=24) | st.sampled_from(
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 400,
        b"\xff",
        b"NaN",
        b"null",
        b'"\\ud800"',
        b"-1",
        b"1e999",
        b"\0\0\0\xff",
    ]
)


@pytest.fixture(autouse=True)
def in_time():
    """Ends a reader that hangs."""

    def late(*_: object) -> None:
        raise AssertionError(f"not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10 * SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def refused(read, path: Path) -> str:
    """The line in which a reader refuses a file; "" if it reads it. Anything but a line is an error."""
    try:
        read(path)
    except (UsageError, OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        assert said and "\n" not in said and len(said) < 1000, said
        return said
    return ""


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
@pytest.mark.parametrize("name", READERS)
def test_a_changed_file_is_read_or_refused_in_a_line(name, tmp_path_factory, data):
    read, whole = READERS[name]
    path = tmp_path_factory.mktemp("files") / name
    path.parent.mkdir(exist_ok=True)
    begin, end = sorted(data.draw(st.tuples(*2 * [st.integers(0, len(whole))])))
    path.write_bytes(whole[:begin] + data.draw(BYTES) + whole[end if data.draw(st.booleans()) else begin :])
    refused(read, path)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from([10**400, "\ud800"]),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=4), inside, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
@pytest.mark.parametrize("name", [name for name in READERS if ".json" in name or name == ".lock"])
def test_a_json_of_other_values_is_read_or_refused_in_a_line(name, tmp_path_factory, data):
    """One value of the file, however deep, is another."""
    read, whole = READERS[name]
    value = json.loads(whole.splitlines()[0])
    value.pop("sha256", None)
    section = value
    while True:
        key = data.draw(st.sampled_from(sorted(section)))
        if not isinstance(section[key], dict) or not section[key] or data.draw(st.booleans()):
            break
        section = section[key]
    section[key] = data.draw(JSON)
    path = tmp_path_factory.mktemp("files") / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text_of(value) + b"\n")
    refused(read, path)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "dangling link"])
def test_what_is_no_file_is_not_waited_for(name, kind, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    makes = {
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "folder": path.mkdir,
        "dangling link": lambda: path.symlink_to("nothing"),
    }
    makes[kind]()
    said = refused(READERS[name][0], path)
    reads_nothing = name.endswith((".jsonl", ".lock", "3.json", "held", "real.png", "outcomes.json"))
    assert said or reads_nothing or (kind == "folder" and name.endswith((".png", ".npz")))


@pytest.mark.parametrize("write", [storage.append_line, lambda path, _: locks.held(path).__enter__()])
def test_a_pipe_is_not_written_to(write, tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(OSError, match=r"not a regular file|No such device"):
        write(tmp_path / "metrics.jsonl", "{}")


# --- archives that unpack to far more than their size

LARGE = 1 << 27
TWO_GIB = 1 << 31


def zipped_zeros(path: Path, name: str, header: bytes, size: int) -> None:
    """A zip whose one member is the header and then zeros, written without holding them."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w", force_zip64=True) as file:
        file.write(header)
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))


def npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    return header.getvalue()


def test_an_npz_that_unpacks_to_much_more_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    zipped_zeros(tmp_path / "a.npz", "images.npy", npy_header((LARGE,), "|u1"), LARGE)
    assert (tmp_path / "a.npz").stat().st_size < LARGE / 900
    monkeypatch.setattr(zlib, "decompressobj", lambda *_: pytest.fail("it is unpacked"))
    for read in (READERS["a.npz"][0], READERS["images.npz"][0], fid.load_moments, classifier.read):
        assert "more than 100 times as many" in refused(read, tmp_path / "a.npz")


def test_an_npz_whose_header_asks_for_more_than_it_holds_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", npy_header((1 << 50,), "|u1") + b"few")
    assert refused(npz.arrays_in, tmp_path / "a.npz")


def test_an_archive_of_usual_pictures_is_unpacked(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((1 << 26) - 1000, np.uint8))  # black, 64 MiB
    assert len(npz.arrays_in(tmp_path / "a.npz")["images"]) == (1 << 26) - 1000


def test_a_png_of_another_size_is_refused_from_its_header(tmp_path, monkeypatch):
    chunk = struct.pack(">II5B", 8000, 8000, 8, 2, 0, 0, 0)
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", chunk), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    )
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("its pixels are unpacked"))
    assert "8000x8000 pixels, the dataset has 4x4" in refused(READERS["in/1.png"][0], tmp_path / "1.png")
    assert report._encoded(tmp_path / "1.png") == ""


def test_a_tfrecord_whose_length_is_beyond_the_file_is_refused(tmp_path):
    length = struct.pack("<Q", TWO_GIB)
    crc = crc32c(length)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    (tmp_path / "a.tfrecord").write_bytes(length + struct.pack("<I", masked) + b"few bytes")
    assert "cut short" in refused(tfrecord.read, tmp_path / "a.tfrecord")


def tar_of_zeros(path: Path) -> None:
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("zeros")
        member.size = LARGE
        tar.addfile(member, io.BytesIO(bytes(LARGE)))


def gzip_of_zeros(path: Path) -> None:
    path.write_bytes(gzip.compress(bytes(LARGE), 6))


ARCHIVES = {
    "a.zip": (lambda path: zipped_zeros(path, "zeros", b"", LARGE), unpacking.unpack_zip),
    "a.tar.gz": (tar_of_zeros, unpacking.unpack_tar),
    "a.gz": (gzip_of_zeros, unpacking.unpack_gzip),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_unpacks_to_much_more_does_not_fill_the_disk(name, tmp_path):
    make, unpack = ARCHIVES[name]
    make(tmp_path / name)
    with pytest.raises(ValueError, match="more than 100 times as many"):
        unpack(tmp_path / name, tmp_path / "out")
    written = [path.stat().st_size for path in [tmp_path / "out", *(tmp_path / "out").rglob("*")] if path.is_file()]
    assert sum(written) <= unpacking.ALWAYS_ALLOWED + (1 << 20)


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_usual_archive_is_unpacked(name, tmp_path):
    content = np.random.default_rng(0).bytes(1000)
    (tmp_path / "file").write_bytes(content)
    if name == "a.zip":
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.write(tmp_path / "file", "file")
    elif name == "a.tar.gz":
        with tarfile.open(tmp_path / name, "w:gz") as tar:
            tar.add(tmp_path / "file", "file")
    else:
        (tmp_path / name).write_bytes(gzip.compress(content))
    ARCHIVES[name][1](tmp_path / name, tmp_path / "out")
    out = tmp_path / "out"
    assert (out if name == "a.gz" else out / "file").read_bytes() == content
