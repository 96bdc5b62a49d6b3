"""The files of a run: whole when written, readable when torn, and locked."""

import json
import os
import signal
import subprocess
import sys

import pytest

from cgan_jax.errors import UsageError
from cgan_jax.run import workdir as workdirs
from tests.conftest import small_recipe


def line_of(step: int) -> dict[str, float]:
    return {"step": step, "kimg": step / 10, "seconds": 1.5 * step}


def log_of(*steps: int) -> str:
    return "".join(json.dumps(line_of(step)) + "\n" for step in steps)


INFO = workdirs.RunInfo(small_recipe(), 3, ["cat", "köter"], 50_000)


def test_the_info_of_a_run_is_read_as_written(tmp_path):
    workdirs.write_info(tmp_path, INFO)
    assert workdirs.read_info(tmp_path) == INFO
    assert json.loads((tmp_path / "config.json").read_text())["channels"] == 3
    assert os.listdir(tmp_path) == ["config.json"]


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match=f"^{tmp_path} holds no run: there is no {tmp_path}/config.json$"):
        workdirs.read_info(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", "{}", '{"recipe": {}, "shoe_size": 44}', "\x00\x00"])
def test_a_broken_config_is_wrong_use_and_names_the_file(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=f"{tmp_path}/config.json cannot be read"):
        workdirs.read_info(tmp_path)


def hold(folder):
    """Another process that holds the lock of `folder` until it is killed."""
    code = f"""
import pathlib, time
from cgan_jax.run.workdir import locked
with locked(pathlib.Path({str(folder)!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_is_refused_while_another_process_holds_it_and_free_after_a_kill(tmp_path):
    folder = tmp_path / "new" / "run"
    holder = hold(folder)
    try:
        with pytest.raises(UsageError, match=f"^{folder} is in use by process {holder.pid}$"), workdirs.locked(folder):
            pytest.fail("two processes hold one lock")
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with workdirs.locked(folder):
        assert (folder / ".lock").read_text() == str(os.getpid())


def test_a_process_can_take_a_lock_again(tmp_path):
    for _ in range(2):
        with workdirs.locked(tmp_path):
            assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_a_folder_that_cannot_be_made_is_wrong_use(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "run", tmp_path / "file"):
        with pytest.raises(UsageError, match=f"^--workdir={folder} cannot be written: "), workdirs.locked(folder):
            pytest.fail("a folder below a file")


def test_metrics_are_read_as_they_were_written(tmp_path):
    assert workdirs.read_metrics(tmp_path) == []
    lines = [{**line_of(step), "train/d_loss": 1 / 3} for step in (10, 20)]
    for line in lines:
        workdirs.append_metrics(tmp_path, line)
    assert workdirs.read_metrics(tmp_path) == lines
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == lines


@pytest.mark.parametrize("torn", ['{"step": 30, "kim', '{"step": 30', "{", '"step', "\x00\x00\x00"])
def test_a_torn_last_line_is_skipped(tmp_path, torn, capsys):
    (tmp_path / "metrics.jsonl").write_text(log_of(10, 20) + torn)
    assert workdirs.read_metrics(tmp_path) == [line_of(10), line_of(20)]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "damage",
    [b'"stfp"', b'"st\xf3p"', b'"step', b"", b"[", b"\x00" * 6, b'"kimg":1}{'],
    ids=["a key", "no UTF-8", "a quote", "nothing", "a bracket", "zeros", "two objects"],
)
def test_a_damaged_line_is_skipped_and_told_of_once(tmp_path, capsys, damage):
    content = log_of(10, 20, 30).encode()
    second = content.index(b'"step"', 20)
    (tmp_path / "metrics.jsonl").write_bytes(content[:second] + damage + content[second + 6 :])
    for _ in range(2):
        assert workdirs.read_metrics(tmp_path) == [line_of(10), line_of(30)]
    told = capsys.readouterr().out
    assert told == f"warning: skipping damaged lines of {tmp_path / 'metrics.jsonl'}: 2\n"
    assert workdirs.forget_metrics_after(tmp_path, 30) == [line_of(10), line_of(30)]
    assert (tmp_path / "metrics.jsonl").read_text() == log_of(10, 30)


@pytest.mark.parametrize(("step", "kept"), [(0, []), (19, [10]), (20, [10, 20]), (99, [10, 20, 30])])
def test_lines_after_the_checkpoint_are_dropped_from_the_file_too(tmp_path, step, kept):
    (tmp_path / "metrics.jsonl").write_text(log_of(10, 20, 30) + '{"st')
    assert workdirs.forget_metrics_after(tmp_path, step) == [line_of(s) for s in kept]
    workdirs.append_metrics(tmp_path, {"step": 1000})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [*kept, 1000]


def test_a_new_run_has_no_lines_to_drop(tmp_path):
    assert workdirs.forget_metrics_after(tmp_path, 0) == []
    assert os.listdir(tmp_path) == []
