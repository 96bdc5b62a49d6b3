"""Archives made here, and a host that is this process, become prepared sets; wrong use is one line and leaves nothing.

No test leaves the machine: a connection to anything but 127.0.0.1 fails it.
"""

import gzip
import hashlib
import io
import socket
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import requests
import scipy.io
from absl import flags as flags_module
from tensorflow_datasets.image_classification import cifar, mnist

from cgan_jax.commands import prepare_data
from cgan_jax.data import sources
from cgan_jax.errors import UsageError
from cgan_jax.evaluation.features import inception
from tests.files.download_test import serving

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CIFAR_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"


@pytest.fixture(autouse=True)
def only_this_machine(monkeypatch):
    connect, lookup = socket.socket.connect, socket.getaddrinfo

    def connect_here(self, address):
        assert address[0] == "127.0.0.1", f"a connection to {address}"
        return connect(self, address)

    def lookup_here(host, *args, **kwargs):
        assert host == "127.0.0.1", f"a look-up of {host}"
        return lookup(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", connect_here)
    monkeypatch.setattr(socket, "getaddrinfo", lookup_here)


def run(*arguments):
    flags = flags_module.FlagValues()
    prepare_data.define_flags(flags, [])
    flags(["cgan prepare-data", *arguments])
    prepare_data.main(flags)


def refused(*arguments):
    with pytest.raises(UsageError) as caught:
        run(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tar(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def cifar10_files(per_file=4):
    """The members of a small cifar-10-binary.tar.gz; records of a label byte and 3,072 pixels, channel by channel."""
    rng = np.random.default_rng(0)
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    records = {name: rng.integers(0, 256, (per_file, 3073), np.uint8) for name in names}
    for array in records.values():
        array[:, 0] %= 10
    files = {f"cifar-10-batches-bin/{name}": array.tobytes() for name, array in records.items()}
    files["cifar-10-batches-bin/batches.meta.txt"] = ("\n".join(CIFAR10) + "\n\n").encode()
    return files, records


def assert_holds(dataset, images, labels):
    """The same images with the same labels, in any order: TFDS shuffles."""
    found = {image.tobytes(): label for image, label in zip(dataset.images, dataset.labels.tolist(), strict=True)}
    assert found == {image.tobytes(): label for image, label in zip(images, labels.tolist(), strict=True)}
    assert len(dataset.images) == len(images)


def assert_is_the_small_cifar10(data_dir, records):
    for split, files in {"train": list(records)[:5], "test": list(records)[5:]}.items():
        array = np.concatenate([records[file] for file in files])
        dataset = sources.load("tfds", "cifar10", split, str(data_dir), 32)
        assert_holds(dataset, array[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), array[:, 0])
        assert dataset.class_names == tuple(CIFAR10)


@pytest.mark.parametrize("name", ["cifar-10-binary.tar.gz", "renamed.bin"])
def test_cifar10_from_an_archive(name, tmp_path, capsys):
    files, records = cifar10_files()
    archive = tar(tmp_path / name, files)
    data_dir = tmp_path / "data"
    run("--dataset=cifar10", f"--data_dir={data_dir}", f"--archive={archive}")
    output = capsys.readouterr().out
    assert f"note: {archive} is not the very file published at {CIFAR_URL}" in output
    assert output.endswith(f"cifar10 is prepared in {data_dir}/cifar10/3.0.2\n")
    assert_is_the_small_cifar10(data_dir, records)
    assert sorted(path.name for path in data_dir.iterdir()) == ["cifar10"]
    assert sorted(path.name for path in (data_dir / "cifar10").iterdir()) == ["3.0.2"]


def test_prepared_once_is_prepared(tmp_path, capsys, monkeypatch):
    files, records = cifar10_files()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    run("--dataset=cifar10", f"--archive={tar(tmp_path / 'a.tar.gz', files)}")
    capsys.readouterr()
    run("--dataset=cifar10")
    assert capsys.readouterr().out == f"cifar10 is already prepared in {tmp_path}/data/cifar10/3.0.2\n"
    assert_is_the_small_cifar10(tmp_path / "data", records)


def test_cifar100_from_an_archive(tmp_path):
    rng = np.random.default_rng(0)
    records = {split: rng.integers(0, 256, (6, 3074), np.uint8) for split in ("train", "test")}
    for array in records.values():
        array[:, 0] %= 20
        array[:, 1] %= 100
    files = {f"cifar-100-binary/{split}.bin": array.tobytes() for split, array in records.items()}
    files["cifar-100-binary/coarse_label_names.txt"] = "\n".join(f"coarse_{c}" for c in range(20)).encode()
    files["cifar-100-binary/fine_label_names.txt"] = "\n".join(f"fine_{c}" for c in range(100)).encode()
    run("--dataset=cifar100", f"--data_dir={tmp_path}", f"--archive={tar(tmp_path / 'a.tar.gz', files)}")
    for split, array in records.items():
        dataset = sources.load("tfds", "cifar100", split, str(tmp_path), 32)
        assert_holds(dataset, array[:, 2:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), array[:, 1])
        assert dataset.class_names[42] == "fine_42"


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_sets_of_several_files_from_a_folder(name, tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "_TRAIN_EXAMPLES", 5)
    monkeypatch.setattr(mnist, "_TEST_EXAMPLES", 3)
    rng = np.random.default_rng(0)
    expected = {}
    for split, prefix, count in (("train", "train", 5), ("test", "t10k", 3)):
        images, labels = rng.integers(0, 256, (count, 28, 28, 1), np.uint8), rng.integers(0, 10, count, np.uint8)
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(16) + images.tobytes()))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8) + labels.tobytes()))
        expected[split] = (images, labels)
    one = tmp_path / "t10k-labels-idx1-ubyte.gz"
    assert "comes in several files; fetch" in refused(
        f"--dataset={name}", f"--data_dir={tmp_path / 'data'}", f"--archive={one}"
    )
    run(f"--dataset={name}", f"--data_dir={tmp_path / 'data'}", f"--archive={tmp_path}")
    for split, (images, labels) in expected.items():
        assert_holds(sources.load("tfds", name, split, str(tmp_path / "data"), 28), images, labels)


def test_svhn_cropped_from_a_folder(tmp_path):
    rng = np.random.default_rng(0)
    expected = {}
    for split in ("train", "test", "extra"):
        images, labels = rng.integers(0, 256, (4, 32, 32, 3), np.uint8), rng.integers(1, 11, (4, 1), np.uint8)
        scipy.io.savemat(tmp_path / f"{split}_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": labels})
        expected[split] = (images, labels[:, 0] % 10)
    run("--dataset=svhn_cropped", f"--data_dir={tmp_path / 'data'}", f"--archive={tmp_path}")
    for split, (images, labels) in expected.items():
        assert_holds(sources.load("tfds", "svhn_cropped", split, str(tmp_path / "data"), 32), images, labels)
    (tmp_path / "test_32x32.mat").unlink()
    message = refused("--dataset=svhn_cropped", f"--data_dir={tmp_path / 'more'}", f"--archive={tmp_path}")
    assert "test_32x32.mat is missing; fetch http://ufldl.stanford.edu" in message


def test_a_download(tmp_path, monkeypatch, capsys):
    files, records = cifar10_files()
    (tmp_path / "served").mkdir()
    tar(tmp_path / "served" / "small.tar.gz", files)
    with serving(tmp_path / "served") as host:
        published = cifar.Cifar10._cifar_info.fget
        url = f"{host}/small.tar.gz"
        monkeypatch.setattr(cifar.Cifar10, "_cifar_info", property(lambda self: published(self)._replace(url=url)))
        run("--dataset=cifar10", f"--data_dir={tmp_path / 'data'}")
        missing = url.replace("small", "none")
        monkeypatch.setattr(cifar.Cifar10, "_cifar_info", property(lambda self: published(self)._replace(url=missing)))
        message = refused("--dataset=cifar10", f"--data_dir={tmp_path / 'other'}")
    assert_is_the_small_cifar10(tmp_path / "data", records)
    assert "404" in message and f"fetch {CIFAR_URL} by hand" in message


def unreachable(url, **kwargs):
    raise requests.ConnectionError


def silence(url, **kwargs):
    time.sleep(30)
    return overloaded(url)


def overloaded(url, **kwargs):
    response = requests.Response()
    response.status_code = 503
    return response


@pytest.mark.parametrize("answer", [unreachable, silence, overloaded])
def test_a_host_that_cannot_be_reached(answer, tmp_path, monkeypatch):
    monkeypatch.setattr(requests, "head", answer)
    start = time.monotonic()
    message = refused("--dataset=cifar10", f"--data_dir={tmp_path / 'data'}")
    assert time.monotonic() - start < 5
    assert message.startswith("cannot reach www.cs.toronto.edu (")
    assert message.endswith(f"fetch {CIFAR_URL} by hand and give the file by --archive")
    assert not (tmp_path / "data").exists()


def damaged(name, content):
    files, _ = cifar10_files()
    if content is None:
        del files[f"cifar-10-batches-bin/{name}"]
    else:
        files[f"cifar-10-batches-bin/{name}"] = content
    return files


WRONG = {
    "another archive": lambda path: tar(path, {"hostname": b"x"}),
    "not an archive": lambda path: path.write_bytes(b"hello" * 1000),
    "an empty file": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(tar(path, cifar10_files()[0]).read_bytes()[:-5000]),
    "a missing batch": lambda path: tar(path, damaged("data_batch_5.bin", None)),
    "half a record": lambda path: tar(path, damaged("test_batch.bin", bytes(3073 + 1000))),
    "a label that is no class": lambda path: tar(path, damaged("data_batch_3.bin", b"\x0a" + bytes(3072))),
    "a way out": lambda path: tar(path, cifar10_files()[0] | {"../../../escaped": b"x"}),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_archive_is_one_line_and_leaves_nothing(wrong, tmp_path):
    archive = tmp_path / "cifar-10-binary.tar.gz"
    WRONG[wrong](archive)
    message = refused("--dataset=cifar10", f"--data_dir={tmp_path / 'data'}", f"--archive={archive}")
    assert message.startswith(f"--archive={archive} does not hold cifar10: ")
    assert "unpacking_" not in message and CIFAR_URL in message
    assert [path.name for path in tmp_path.iterdir()] == [archive.name]


def test_a_failure_leaves_what_was_there(tmp_path):
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(b"")
    (tmp_path / "data").mkdir()
    refused("--dataset=cifar10", f"--data_dir={tmp_path / 'data'}", f"--archive={archive}")
    assert list((tmp_path / "data").iterdir()) == []


def test_wrong_names(tmp_path):
    data_dir = f"--data_dir={tmp_path / 'data'}"
    assert refused(data_dir).startswith("--dataset is missing; for example: cgan prepare-data")
    assert "has no dataset 'cifar1O'; did you mean cifar10 or" in refused("--dataset=cifar1O", data_dir)
    assert "has no dataset 'qqqqqqq'; see https://" in refused("--dataset=qqqqqqq", data_dir)
    assert "BuilderConfig none not found" in refused("--dataset=emnist/none", data_dir)
    assert "cannot be loaded at version 1.0.0, only: 3.0.2" in refused("--dataset=cifar10:1.0.0", data_dir)
    assert "lsun is not an image classification set" in refused("--dataset=lsun", data_dir)
    missing = tmp_path / "none.tar.gz"
    assert f"--archive={missing}: no such file" in refused("--dataset=cifar10", data_dir, f"--archive={missing}")
    assert not (tmp_path / "data").exists()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for data_dir in (tmp_path / "file", tmp_path / "file" / "data"):
        message = refused("--dataset=cifar10", f"--data_dir={data_dir}")
        assert message.startswith(f"cannot write to {data_dir}: ") and "--data_dir" in message


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """The folder of a host that has the Inception network's file, with other content; and the cache folder."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / inception.FILE).write_bytes(b"weights" * 1000)
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(b"weights" * 1000).hexdigest())
    monkeypatch.setenv("CGAN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "served", tmp_path / "cache" / inception.FILE


@pytest.mark.parametrize("there", [None, b"cut sh"])
def test_the_inception_network_is_fetched_once_to_where_it_is_looked_for(there, weights, monkeypatch, capsys):
    served, cached = weights
    if there is not None:
        cached.parent.mkdir()
        cached.write_bytes(there)
    with serving(served) as host:
        monkeypatch.setattr(inception, "URL", f"{host}/{inception.FILE}")
        run("--inception")
    assert capsys.readouterr().out == f"the Inception network is prepared in {cached}\n"
    assert cached.read_bytes() == b"weights" * 1000 and cached == inception.cached_file()
    assert [path.name for path in cached.parent.iterdir()] == [inception.FILE]
    run("--inception")  # from a host that is no more
    assert capsys.readouterr().out == f"the Inception network is already prepared in {cached}\n"


@pytest.mark.parametrize("answer", [unreachable, silence])
def test_the_inception_network_without_a_network(answer, weights, monkeypatch):
    monkeypatch.setattr(requests, "head", answer)
    start = time.monotonic()
    message = refused("--inception")
    assert time.monotonic() - start < 5
    assert message.startswith("cannot reach github.com (")
    assert message.endswith(f"; fetch {inception.URL} by hand and put it in {weights[1].parent}")
    assert not weights[1].exists()


def test_the_inception_network_and_a_cache_that_cannot_be_written(weights, tmp_path, monkeypatch):
    for folder in (tmp_path / "served" / inception.FILE, tmp_path / "served" / inception.FILE / "below"):
        monkeypatch.setenv("CGAN_CACHE_DIR", str(folder))
        message = refused("--inception")
        assert message.startswith(f"cannot use {folder}: ") and "CGAN_CACHE_DIR" in message


def test_the_inception_network_stands_alone():
    for other in ("--dataset=cifar10", "--data_dir=here", "--archive=file"):
        assert refused("--inception", other).startswith("--inception stands alone: ")


def test_help_waits_for_nothing():
    source = Path(prepare_data.__file__).read_text()
    top = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert not any("tensorflow_datasets" in line or "cgan_jax.data.sources" in line for line in top)
    assert "cgan prepare-data --dataset=cifar10" in prepare_data.__doc__
