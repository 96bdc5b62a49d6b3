"""How the console script ends: at once where a command ended early, whatever is still being computed."""

import subprocess
import sys

import pytest

SCRIPT = """
import atexit, sys
from cgan_jax import __main__

def run(argv):
    atexit.register(print, "Python's own end")
    print("said", end=" ")
    print("warned", end=" ", file=sys.stderr)
    {body}

__main__.run = run
__main__.main()
"""


@pytest.mark.parametrize(
    ("body", "code", "said", "warned"),
    [
        ("return 0", 0, "said Python's own end\n", "warned "),
        ("return 75", 75, "said ", "warned "),
        ("raise ValueError('unforeseen')", 1, "said ", "ValueError: unforeseen\n"),
        ("sys.stdout.close(); return 2", 2, "said ", "warned "),
    ],
)
def test_only_a_command_that_succeeded_ends_as_python_does(body, code, said, warned):
    # A program that XLA still runs crashes at Python's own end, after having held it up: exit code 139.
    ended = subprocess.run([sys.executable, "-c", SCRIPT.format(body=body)], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (code, said)
    assert ended.stderr.endswith(warned)


def test_the_code_is_told_where_nobody_reads_the_words_any_more():
    body = "import os; os.close(2); raise ValueError('unforeseen')"
    ended = subprocess.run([sys.executable, "-c", SCRIPT.format(body=body)], capture_output=True, timeout=60)
    assert ended.returncode == 1
    command = f"{sys.executable} -m cgan_jax tarin"
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        assert subprocess.run(["sh", "-c", f"{command} {closed}"], capture_output=True, timeout=60).returncode == 2


WRITES = """
    with open("report", "w") as file:
        file.write(f"{file.fileno() > 2} {sys.stdin.read() == ''} {sys.stderr.isatty()}")
        file.flush()
        import os; os.write(2, b"words of a library")
"""


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_the_caller_closed_is_empty_and_no_file_gets_its_number(tmp_path, closed):
    command = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, SCRIPT.format(body=WRITES)]
    assert subprocess.run(command, cwd=tmp_path, stdin=subprocess.DEVNULL, timeout=60).returncode == 0
    assert (tmp_path / "report").read_text() == "True True False"
