"""`cgan serve`: what it refuses, and a server that really listens."""

import importlib.util
import json
import re
import signal
import socket
import subprocess
import time
import urllib.request

import pytest

from tests.command_line import cgan, start
from tests.conftest import small_recipe
from tests.random_run import write_random_run

needs_demo = pytest.mark.skipif(
    None in map(importlib.util.find_spec, ("starlette", "uvicorn")), reason="needs the extra [demo]"
)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "error: --model=NAME or --workdir=FOLDER must be given"),
        (["--workdir=a", "--model=b"], "either --model=NAME or --workdir=FOLDER"),
        (["--model=digit"], "unknown model 'digit'"),
        (["--workdir=a", "--port=65536"], "--port must be 0 to 65535, given 65536"),
        (["--workdir=a", "--port=-1"], "--port must be 0 to 65535, given -1"),
    ],
)
def test_wrong_use_is_one_line(capsys, arguments, message):
    assert cgan("serve", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@needs_demo
def test_an_address_in_use_and_one_that_is_not_here_are_said_before_anything_slow(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        taken.listen()
        assert cgan("serve", f"--workdir={tmp_path}", f"--port={port}") == 2
    assert f"--port={port} cannot be listened on" in capsys.readouterr().err
    assert cgan("serve", f"--workdir={tmp_path}", "--host=192.0.2.1", "--port=0") == 2
    assert "--host=192.0.2.1" in capsys.readouterr().err


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_random_run(tmp_path_factory.mktemp("run") / "run", small_recipe())


def serving(run, **environment: str) -> tuple[subprocess.Popen, str]:
    """A server and its address."""
    process = start("serve", f"--workdir={run}", "--port=0", **environment)
    return process, re.search(r"http://\S+/", next(line for line in process.stdout if "serving" in line))[0]


def asked(address: str, given: bytes) -> urllib.request.Request:
    return urllib.request.Request(f"{address}api/images", given, {"Content-Type": "application/json"})


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cgan("serve", "--workdir=a") == 2
    assert "pip install 'cgan_jax[demo]'" in capsys.readouterr().err


@needs_demo
@pytest.mark.slow  # starts a process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_is_served_until_it_is_told_to_stop_behind_whatever_proxy(run, number):
    proxy = "socks5://127.0.0.1:9"
    process, address = serving(run, ALL_PROXY=proxy, HTTPS_PROXY=proxy, http_proxy=proxy)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(asked(address, b'{"count": 3}')) as answer:
        assert len(json.load(answer)["images"]) == 3
    with opener.open(f"{address}report") as answer:
        assert b"cgan_jax report" in answer.read()
        assert "sandbox allow-scripts" in answer.headers["Content-Security-Policy"]
    with opener.open(address) as answer:
        assert b"<h1>run</h1>" in answer.read()
    port = int(address.rstrip("/").rpartition(":")[2])
    tabs = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
    tabs[0].sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    tabs[1].sendall(b"POST /api/images HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
    tabs[1].sendall(b"Content-Length: 9\r\n\r\n{")
    tabs[2].sendall(b"GET /api/images?count=256 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    time.sleep(0.1)
    began = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - began < 3
    assert process.returncode == 0 and "Traceback" not in errors
    assert tabs[2].recv(12) == b"HTTP/1.1 200"
    for tab in tabs:
        tab.close()


LONG = """
import sys, time
from cgan_jax.__main__ import main
from cgan_jax.serving import models
draw = models.Served.images
def slow(self, seed, *rest):
    if seed == 7:
        print("drawing", flush=True)
        time.sleep(30)
    return draw(self, seed, *rest)
models.Served.images = slow
main()
"""


@needs_demo
@pytest.mark.slow  # starts a process
def test_it_ends_although_a_drawing_takes_longer(run):
    process = start("serve", f"--workdir={run}", "--port=0", program=LONG)
    port = int(re.search(r":(\d+)/", next(line for line in process.stdout if "serving" in line))[1])
    with socket.create_connection(("127.0.0.1", port)) as tab:
        tab.sendall(b"GET /api/grid.png?seed=7 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert "drawing" in process.stdout.readline()
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert time.monotonic() - began < 3
        assert process.returncode == 0 and "Traceback" not in errors
        assert tab.recv(1000).startswith(b"HTTP/1.1 503")
