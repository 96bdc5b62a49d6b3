"""Names that a terminal or a file cannot encode end no run."""

import os
import subprocess
import sys

import pytest

from cgan_jax.__main__ import run
from cgan_jax.files import storage
from tests.run.report_test import write_run

LATIN = os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_that_cannot_show_a_name_gets_it_escaped(encoding, tmp_path):
    write_run(tmp_path / "猫é")
    command = [sys.executable, "-m", "cgan_jax", "report", f"--workdir={tmp_path / '猫é'}"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding}, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "/猫é/".encode(encoding, errors="backslashreplace") in done.stdout


@pytest.mark.parametrize("command", ["train", "sample", "report"])
def test_a_workdir_that_cannot_be_decoded_is_refused(command, tmp_path, capsys):
    assert run([command, f"--workdir={tmp_path / LATIN}"]) == 2
    assert "a name that is not utf-8; rename the folder" in capsys.readouterr().err


def test_a_text_with_such_a_name_is_written(tmp_path):
    storage.write_whole(tmp_path / "card.md", f"classes: {LATIN}")
    assert (tmp_path / "card.md").read_bytes() == b"classes: caf\\udce9"
