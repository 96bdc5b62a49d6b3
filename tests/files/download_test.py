"""From a host that is this process: a file arrives whole and as published, or nothing changes and one line says why."""

import contextlib
import functools
import hashlib
import http.server
import threading

import pytest
import requests

from cgan_jax.errors import UsageError
from cgan_jax.files import download

CONTENT = bytes(range(256)) * 10_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class CutShort(http.server.SimpleHTTPRequestHandler):
    """Promises the whole file and hangs up halfway."""

    def copyfile(self, source, outputfile):
        outputfile.write(source.read()[: len(CONTENT) // 2])


@contextlib.contextmanager
def serving(folder, handler=http.server.SimpleHTTPRequestHandler):
    """The address of a folder's files."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def served(tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "weights").write_bytes(CONTENT)
    return tmp_path / "served"


@pytest.fixture
def path(tmp_path):
    """Where the file is to go, in a folder with nothing else."""
    (tmp_path / "here").mkdir()
    return tmp_path / "here" / "weights"


def refused(url, path, sha256=SHA256):
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()} if path.parent.is_dir() else {}
    with pytest.raises(UsageError) as caught:
        download.fetch(url, path, sha256, "fetch it by hand")
    assert "\n" not in str(caught.value)
    after = {file.name: file.read_bytes() for file in path.parent.iterdir()} if path.parent.is_dir() else {}
    assert after == before
    return str(caught.value)


def test_a_file_arrives_whole_and_under_another_name_until_then(served, path, monkeypatch):
    iter_content, seen = requests.Response.iter_content, []

    def watched(self, size):
        for chunk in iter_content(self, size):
            seen.append([file.name for file in path.parent.iterdir()])
            yield chunk

    monkeypatch.setattr(requests.Response, "iter_content", watched)
    with serving(served) as host:
        download.fetch(f"{host}/weights", path, SHA256, "fetch it by hand")
    assert path.read_bytes() == CONTENT
    assert len(seen) > 1 and all(len(names) == 1 and names[0].endswith(".partial") for names in seen)
    assert [file.name for file in path.parent.iterdir()] == ["weights"]


@pytest.mark.parametrize("there", [None, b"what was there"])
def test_what_goes_wrong_is_one_line_and_changes_nothing(there, served, path):
    if there is not None:
        path.write_bytes(there)
    with serving(served) as host:
        url = f"{host}/weights"
        message = refused(url, path, "0" * 64)
        assert message.startswith(f"{url} sent another file than the one published: its sha256 is {SHA256}; ")
        message = refused(f"{host}/none", path)
        assert message.startswith(f"downloading {host}/none failed: 404") and message.endswith("; fetch it by hand")
    with serving(served, CutShort) as host:
        assert refused(f"{host}/weights", path).endswith("; fetch it by hand")
    assert refused(url, path).startswith("cannot reach 127.0.0.1:")  # the server has gone


def test_a_folder_that_is_not_there(served, tmp_path):
    with serving(served) as host:
        message = refused(f"{host}/weights", tmp_path / "none" / "weights")
    assert message == f"cannot write {tmp_path / 'none' / 'weights'}: No such file or directory"


def test_an_interrupt_leaves_nothing(served, path, monkeypatch):
    def interrupted(self, size):
        if self.request.method == "GET":
            yield CONTENT[:1000]
            raise KeyboardInterrupt

    monkeypatch.setattr(requests.Response, "iter_content", interrupted)
    with serving(served) as host, pytest.raises(KeyboardInterrupt):
        download.fetch(f"{host}/weights", path, SHA256, "fetch it by hand")
    assert list(path.parent.iterdir()) == []
