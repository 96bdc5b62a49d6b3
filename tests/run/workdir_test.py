"""The files of a run: whole when written, readable when torn, and locked."""

import json
import os
import signal
import subprocess
import sys
import zlib

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


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1]",
        "{}",
        "null",
        '{"recipe": {}, "shoe_size": 44}',
        "\x00\x00",
        100_000 * "[",
        100_000 * '{"a":',
        "9" * 5000,
    ],
    ids=lambda text: text[:12],
)
def test_a_broken_config_is_wrong_use_and_names_the_file(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=f"{tmp_path}/config.json cannot be read") as caught:
        workdirs.read_info(tmp_path)
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


def without_checksum(folder) -> dict:
    """The content of the run's config.json, as version 0.1 wrote it."""
    fields = json.loads((folder / "config.json").read_text())
    del fields["sha256"]
    return fields


def test_no_flipped_bit_of_a_config_is_believed(tmp_path):
    workdirs.write_info(tmp_path, INFO)
    content = (tmp_path / "config.json").read_bytes()
    refused = 0
    for bit in range(0, 8 * len(content), 7):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "config.json").write_bytes(flipped)
        try:
            assert workdirs.read_info(tmp_path) == INFO, bit  # 1e-05 and 1E-05 are one number
        except UsageError:
            refused += 1
    assert refused > 0.95 * 8 * len(content) / 7


def test_an_edited_config_is_refused_in_a_line_that_says_what_to_do(tmp_path, capsys):
    workdirs.write_info(tmp_path, INFO)
    fields = json.loads((tmp_path / "config.json").read_text())
    fields["class_names"] = ["dog", "köter"]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(UsageError, match=r"^.*config.json is not what the run wrote; .* remove its 'sha256'; .*again$"):
        workdirs.read_info(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**without_checksum(tmp_path)}))
    for _ in range(2):
        assert workdirs.read_info(tmp_path).class_names == ["dog", "köter"]
    assert capsys.readouterr().out.count("config.json has no checksum") == 1
    workdirs.write_info(tmp_path, workdirs.read_info(tmp_path))
    assert workdirs.read_info(tmp_path).class_names == ["dog", "köter"]


def test_another_layout_of_the_same_values_is_no_damage(tmp_path):
    workdirs.write_info(tmp_path, INFO)
    fields = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(dict(reversed(fields.items())), ensure_ascii=False))
    assert workdirs.read_info(tmp_path) == INFO


FOREIGN = {
    "channels": [0, -1, 2, "1", None, True, 10**400, [1]],
    "class_names": [[], None, "cat", ["a", 3], ["\ud800"], ["a\0"], {}],
    "num_images": [0, -3, 1.5, None, 10**400],
    "recipe": [None, 3, "recipe", [], {}],
    "recipe.train.total_kimg": ["abc", None, float("inf"), float("nan"), [], 10**400],
    "recipe.train.batch_size": [0, 10**9, 10**400, 16.0],
    "recipe.guard.action": [3, "\ud800", "\0"],
    "recipe.dataset.name": ["\udfff", "a\0b", 3],
    "recipe.dataset.image_size": [0, 10**6, 10**400],
    "recipe.seed": [10**400, -1],
    "recipe.generator.width": [10**9, 10**400, -1, None, [], {"a": 1}],
    "recipe.generator.latent_dim": [10**9, 0],
    "recipe.generator.output_kernel_size": [10**9, 1000],
    "recipe.loss.d_updates.both.bce_real.every": [0, 10**400, 10**9],
}


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key, values in FOREIGN.items() for value in values],
    ids=lambda value: str(value).encode("ascii", "backslashreplace").decode()[:40],
)
def test_values_that_no_run_has_are_refused_in_a_line(tmp_path, key, value):
    fields = json.loads(json.dumps(INFO._asdict()))
    *path, last = key.split(".")
    section = fields
    for name in path:
        section = section[name]
    section[last] = value
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(UsageError, match=r"config.json cannot be read: ") as caught:
        workdirs.read_info(tmp_path)
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


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
    written = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for line, whole in zip(lines, written, strict=True):
        assert whole.pop("crc32") == zlib.crc32(json.dumps(line).encode())
        assert whole == line


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
    assert workdirs.read_metrics(tmp_path) == [line_of(10), line_of(30)] and capsys.readouterr().out == ""


def test_no_flipped_bit_of_a_log_gives_another_number(tmp_path):
    line = {**line_of(10), "train/d_loss": 1 / 3}
    workdirs.append_metrics(tmp_path, line)
    content = (tmp_path / "metrics.jsonl").read_bytes()
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "metrics.jsonl").write_bytes(flipped)
        for found in workdirs.read_metrics(tmp_path):
            assert found.items() >= line.items(), bit  # a flip in the name of the checksum adds a number


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("metrics.jsonl", {"step": float("nan"), "kimg": 1.0, "seconds": 1.0}),
        ("metrics.jsonl", {"step": 10**400, "kimg": 1.0, "seconds": 1.0}),
        ("metrics.jsonl", {**line_of(1), "train/d_loss": "low"}),
        ("evaluations.jsonl", {"step": 1, "kimg": 1.0, "eval/fid": [1.0]}),
        ("evaluations.jsonl", {"step": 1, "kimg": 1.0, "protocol": "usual"}),
        ("evaluations.jsonl", {"step": 1, "kimg": 1.0, "seconds": 10**400}),
        ("rollbacks.jsonl", {"step": 1, "kimg": 1.0, "why": "a loss is nan"}),
        ("rollbacks.jsonl", {"step": 1, "kimg": 1.0, "to": 0, "why": None}),
    ],
)
def test_a_line_that_no_run_writes_is_skipped(tmp_path, log, line):
    (tmp_path / log).write_text(json.dumps(line) + "\n")
    assert workdirs.read_metrics(tmp_path, log) == []


def test_a_line_after_a_torn_one_is_whole(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(log_of(10) + '{"step": 20, "ki')
    workdirs.append_metrics(tmp_path, line_of(30))
    assert workdirs.read_metrics(tmp_path) == [line_of(10), line_of(30)]


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
