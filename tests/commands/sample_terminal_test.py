"""`cgan sample` at a terminal, a real process at a real pseudo-terminal: it lists the classes and asks for some."""

import os
import pty
import select
import subprocess
import sys
import time

import numpy as np
import pytest

from cgan_jax.train import train_and_evaluate

PROMPT = "classes, by number or name (Enter for all): "
CTRL_C, CTRL_D = "\x03", "\x04"
# A session's leader makes the pseudo-terminal its own, so that Ctrl-C typed there becomes a signal. A shell that runs
# the tests in the background lets their processes ignore it.
PROGRAM = """
import fcntl, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.default_int_handler)
from cgan_jax.__main__ import run
sys.exit(run(sys.argv[1:]))
"""


class Terminal:
    """A command line at a terminal; what it shows is read as it comes."""

    def __init__(self, *argv: object):
        self._keyboard, screen = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *map(str, argv)],
            env={**os.environ, "JAX_NUM_CPU_DEVICES": "1"},
            stdin=screen,
            stdout=screen,
            stderr=screen,
            start_new_session=True,
        )
        os.close(screen)

    def shown(self, until: str | None = None, seconds: float = 120) -> str:
        """What appears next, up to the text `until`, or to the end of the process."""
        deadline, text = time.monotonic() + seconds, ""
        while until is None or until not in text:
            assert time.monotonic() < deadline, f"waited too long for {until!r} after {text!r}"
            if select.select([self._keyboard], [], [], 1.0)[0]:
                try:
                    text += os.read(self._keyboard, 4096).decode()
                except OSError:  # Linux raises this when the other end has closed
                    assert until is None, f"ended before {until!r}: {text!r}"
                    break
        return text.replace("\r\n", "\n")

    def type(self, text: str) -> None:
        os.write(self._keyboard, text.encode())

    def ended(self) -> tuple[int, str]:
        """The exit code, and what else was shown."""
        rest = self.shown()
        os.close(self._keyboard)
        return self._process.wait(timeout=60), rest


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from tests.conftest import small_recipe

    recipe = small_recipe()
    recipe["train"]["total_kimg"] = 0.016
    workdir = tmp_path_factory.mktemp("terminal") / "run"
    train_and_evaluate(recipe, workdir)
    return workdir


@pytest.mark.slow  # a real process, which starts jax and compiles
def test_the_classes_are_listed_and_asked_for_until_they_are_some(run, tmp_path):
    terminal = Terminal("sample", f"--workdir={run}", "--num_images=6", f"--out={tmp_path / 'a.npz'}")
    shown = terminal.shown(until=PROMPT)
    assert [line.split() for line in shown.splitlines()[:10]] == [[str(i), str(i)] for i in range(10)]
    for wrong, complaint in (("cat", "unknown class 'cat'"), ("11", "unknown class '11'")):
        terminal.type(f"{wrong}\n")
        assert complaint in terminal.shown(until=PROMPT)
    terminal.type("7, 3\n")
    code, rest = terminal.ended()
    assert code == 0 and f"wrote 6 images of step 1 to {tmp_path / 'a.npz'}" in rest
    with np.load(tmp_path / "a.npz") as archive:
        assert archive["labels"].tolist() == [7, 7, 7, 3, 3, 3]


@pytest.mark.slow  # a real process, which starts jax
@pytest.mark.parametrize(
    ("key", "code", "line"), [(CTRL_D, 2, "cgan: error: no class was asked for"), (CTRL_C, 130, "cgan: interrupted")]
)
def test_leaving_without_an_answer_is_one_line_and_draws_nothing(run, tmp_path, key, code, line):
    terminal = Terminal("sample", f"--workdir={run}", f"--out={tmp_path / 'a.npz'}")
    terminal.shown(until=PROMPT)
    terminal.type(key)
    ended, rest = terminal.ended()
    assert (ended, rest.replace("^C", "").splitlines()) == (code, ["", line])
    assert list(tmp_path.iterdir()) == []
