"""`cgan serve`: what it refuses, and a server that really listens."""

import importlib.util
import json
import re
import signal
import socket
import urllib.request

import pytest

from tests.command_line import cgan, start
from tests.conftest import small_recipe
from tests.random_run import write_random_run

needs_gradio = pytest.mark.skipif(not importlib.util.find_spec("gradio"), reason="needs the extra [demo]")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "either --workdir=FOLDER or --model=FILE"),
        (["--workdir=a", "--model=b"], "either --workdir=FOLDER or --model=FILE"),
        (["--model=b", "--step=3"], "--step belongs to --workdir"),
        (["--workdir=a", "--port=65536"], "--port must be 0 to 65535, given 65536"),
        (["--workdir=a", "--port=-1"], "--port must be 0 to 65535, given -1"),
    ],
)
def test_wrong_use_is_one_line(capsys, arguments, message):
    assert cgan("serve", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@needs_gradio
def test_an_address_in_use_and_one_that_is_not_here_are_said_before_anything_slow(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        taken.listen()
        assert cgan("serve", f"--workdir={tmp_path}", f"--port={port}") == 2
    assert f"--port={port} cannot be listened on" in capsys.readouterr().err
    assert cgan("serve", f"--workdir={tmp_path}", "--host=192.0.2.1", "--port=0") == 2
    assert "--host=192.0.2.1" in capsys.readouterr().err


@needs_gradio
@pytest.mark.slow  # a process of its own
def test_a_run_is_served_until_it_is_told_to_stop(tmp_path):
    write_random_run(tmp_path / "run", small_recipe())
    process = start("serve", f"--workdir={tmp_path / 'run'}", "--port=0")
    address = re.search(r"http://\S+/", next(line for line in process.stdout if "serving" in line))[0]
    with urllib.request.urlopen(f"{address}api/images", b'{"count": 3}') as answer:
        assert len(json.load(answer)["images"]) == 3
    with urllib.request.urlopen(f"{address}report") as answer:
        assert b"cgan_jax report" in answer.read()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode in (0, 130)
