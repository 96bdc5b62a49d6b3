"""Requests to stop are noted, not obeyed, until a second Ctrl-C."""

import signal
import subprocess
import sys

import pytest

from cgan_jax.signals import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_is_noted_and_the_handlers_come_back(number, capsys):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested
        signal.raise_signal(signal.SIGTERM)  # a second SIGTERM changes nothing
    assert signal.getsignal(number) is before
    assert "finishing this call and saving" in capsys.readouterr().err


def test_a_second_interrupt_leaves_at_once():
    program = """
import signal
from cgan_jax.signals import StopRequest
with StopRequest():
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    print("still here")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 130 and "still here" not in done.stdout
