"""What shells complete, by bash itself."""

import shutil
import subprocess

import pytest

from tests.command_line import cgan

ASK = """
compopt() { :; }
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_cgan
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["swe"], ["sweep"]),
        (["train", "--config", "=", "digits_"], ["digits_sngan", "digits_stylegan2"]),
        (["recipes", "digits_"], ["digits_sngan", "digits_stylegan2"]),
        (["sample", "--num"], ["--num_images="]),
        (["sample", "--no"], ["--nocache"]),
        (["report", "--force"], ["--force"]),
    ],
)
def test_bash_completes_commands_flags_and_recipes(words, found, capsys):
    assert cgan("completion", "bash") == 0
    script = capsys.readouterr().out + ASK
    done = subprocess.run(["bash", "-c", script, "bash", "cgan", *words], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == found, done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_theirs(shell, tmp_path, capsys):
    assert cgan("completion", shell) == 0
    script = capsys.readouterr().out
    assert "digits_sngan" in script and "train-classifier" in script
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        done = subprocess.run([shell, "-n", str(tmp_path / "script")], capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr


def test_another_shell_is_one_line(capsys):
    assert cgan("completion", "ksh") == 2
    assert "unknown shell 'ksh'; there are: bash, zsh, fish" in capsys.readouterr().err
