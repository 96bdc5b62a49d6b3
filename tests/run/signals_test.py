"""Requests to stop are recorded; only a second Ctrl-C ends the process at once."""

import signal
import subprocess
import sys
import time

import pytest

from cgan_jax.errors import Interrupted
from cgan_jax.run.signals import RelayedRequests, StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_request_is_recorded_and_the_handlers_are_restored(number, capsys):
    before = signal.signal(number, signal.SIG_DFL)  # If the tests run under nohup, SIGHUP is ignored.
    try:
        with StopRequest() as stop:
            assert not stop.requested
            signal.raise_signal(number)
            assert stop.requested
            signal.raise_signal(signal.SIGTERM)  # a second SIGTERM changes nothing
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert "finishing this call and saving" in capsys.readouterr().err


@pytest.mark.parametrize("error", [BrokenPipeError, OSError, ValueError])
def test_a_closed_stderr_does_not_stop_a_request(error, monkeypatch):
    """Ctrl-C also ends the tee that a run is piped into."""

    class Gone:
        def write(self, _):
            raise error

        flush = write

    monkeypatch.setattr(sys, "stderr", Gone())
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested


def test_sighup_stays_ignored_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_interrupt_exits_at_once():
    program = """
import signal
from cgan_jax.run.signals import RelayedRequests, StopRequest
with StopRequest():
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    print("still here")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 130 and "still here" not in done.stdout


def test_a_child_process_gets_every_request():
    """It has a separate group, so that a terminal's Ctrl-C does not reach it a second time."""
    program = """
import os, signal, sys, time
assert os.getpgid(0) == os.getpid() != os.getpgid(os.getppid())
got = []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: got.append(number))
for count in (1, 2):
    os.kill(os.getppid(), signal.SIGINT)
    while len(got) < count: time.sleep(0.01)
sys.exit(10 * (got == [signal.SIGTERM, signal.SIGINT]))
"""
    with RelayedRequests() as stop:
        assert stop.run([sys.executable, "-c", program]) == 10
    assert stop.requested and stop.requests == 2


def test_the_exit_code_of_a_child_is_returned():
    with RelayedRequests() as stop:
        assert stop.run([sys.executable, "-c", "raise SystemExit(3)"]) == 3
        assert stop.run([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]) == -9
    assert not stop.requested


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_droppable_work_ends_at_once(number, capsys):
    with StopRequest() as stop:
        with pytest.raises(Interrupted, match=r"^nothing lost$"), stop.at_once("nothing lost"):
            signal.raise_signal(number)
            pytest.fail("the request was not obeyed")
        assert stop.requested
        with pytest.raises(Interrupted, match=r"^nor here$"), stop.at_once("nor here"):
            pytest.fail("a request made before was forgotten")
    assert capsys.readouterr().err == ""


def test_a_reader_that_takes_every_error_for_damage_does_not_swallow_a_request():
    with StopRequest() as stop, pytest.raises(Interrupted, match="nothing lost"), stop.at_once("nothing lost"):
        try:
            signal.raise_signal(signal.SIGINT)
        except Exception:
            pytest.fail("taken for damage")


BUSY = """
import ctypes
from cgan_jax.run.signals import StopRequest
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
with StopRequest() as stop, stop.at_once("nothing lost"):
    libc.pthread_mutex_lock(mutex)
    print("busy", flush=True)
    libc.pthread_mutex_lock(mutex)  # blocks for ever outside of Python, also after signals
"""


@pytest.mark.parametrize(
    ("numbers", "code", "told"),
    [
        ([signal.SIGTERM], 75, "cgan: nothing lost\n"),
        ([signal.SIGINT], 75, "cgan: nothing lost\n"),
        ([signal.SIGTERM, signal.SIGTERM], 75, "cgan: nothing lost\n"),
        ([signal.SIGINT, signal.SIGINT], 130, ""),
    ],
)
def test_a_main_thread_that_blocks_outside_python_is_ended(numbers, code, told):
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "busy\n"
    time.sleep(1)  # It prints before it blocks.
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.1)
    began = time.monotonic()
    assert (process.communicate(timeout=60)[1], process.returncode) == (told, code)
    assert time.monotonic() - began < 10


def test_a_main_thread_that_blocks_is_ended_without_a_reader_of_its_words():
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout.readline() == b"busy\n"
    time.sleep(1)  # It prints before it blocks.
    process.stdout.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 75
