"""What a folder does by renaming and appending, a bucket does without; what is read is the same."""

import errno
import os
import subprocess
import sys

import pytest

from cgan_jax.errors import UsageError
from cgan_jax.files import storage
from cgan_jax.run import workdir as workdirs


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path):
    """A folder, and a prefix of a bucket."""
    return tmp_path / "run" if request.param == "folder" else request.getfixturevalue("remote")


def names(folder):
    return storage.files_below(folder)


def test_a_flag_names_a_folder_or_a_prefix_of_a_bucket(remote):
    assert str(remote) == "gs://bucket/runs/digits" and storage.is_remote(remote)
    assert str(remote / "samples" / "a.png") == "gs://bucket/runs/digits/samples/a.png"
    assert remote.name == "digits" and storage.resolved(remote) == remote
    local = storage.place("runs/digits")
    assert not storage.is_remote(local) and str(storage.resolved(local)) == f"{os.getcwd()}/runs/digits"


@pytest.mark.parametrize("text", ["s3://bucket/run", "gs://", "gs://bucket", "gs://bucket/", "gs:///run", "://run"])
def test_what_is_neither_is_refused(text):
    with pytest.raises(UsageError, match=f"^--workdir={text} must be a folder, or gs://BUCKET/FOLDER$"):
        storage.place(text)


def test_without_what_reaches_buckets_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(storage.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"needs the package gcsfs, which the extra \[tpu\] brings: pip install gcsfs"):
        storage.place("gs://bucket/run")


def test_what_is_written_whole_is_read_again_and_leaves_nothing_beside(place):
    storage.make_folder(place)
    for content in ("old", "neu: ü", b"\x00\xff"):
        storage.write_whole(place / "file", content)
        expected = content.encode() if isinstance(content, str) else content
        assert (place / "file").read_bytes() == expected
    assert names(place) == ["file"]


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    storage.write_whole(path, "old")

    def fail(*_):
        raise OSError("the power went out")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="power"):
        storage.write_whole(path, "new and longer")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_log_is_read_in_the_order_it_was_written(place):
    storage.make_folder(place)
    log = place / "metrics.jsonl"
    assert storage.read_log(log) == ""
    for number in range(12):
        storage.append_line(log, f"line {number}")
    assert storage.read_log(log) == "".join(f"line {number}\n" for number in range(12))


def test_a_log_that_version_0_1_wrote_in_parts_is_read_and_goes_on(remote):
    log = remote / "metrics.jsonl"
    for number in (999_998, 1_000_000, 999_999):
        storage.write_whole(remote / "metrics" / f"{number}-ab12.jsonl", f"line {number}\n")
    assert storage.read_log(log) == "line 999998\nline 999999\nline 1000000\n"
    storage.write_whole(remote / "metrics" / "1000001-ab12.anew.jsonl", "line 1\n")
    storage.write_whole(remote / "metrics" / "1000002-ab12.jsonl", "line 2\n")
    assert storage.read_log(log) == "line 1\nline 2\n"
    storage.append_line(log, "line 3")
    assert storage.read_log(log) == (remote / "metrics.jsonl").read_text() == "line 1\nline 2\nline 3\n"
    storage.rewrite_log(log, "line 1\n")
    assert storage.read_log(log) == "line 1\n"


def test_two_processes_that_add_to_one_log_in_turn_lose_no_line(remote):
    log = remote / "evaluations.jsonl"
    for _ in range(2):
        storage.append_line(log, "of training")
        log.write_text(log.read_text() + "of cgan evaluate\n")
    assert storage.read_log(log) == "of training\nof cgan evaluate\n" * 2


def test_a_log_that_is_rewritten_holds_that_alone_and_grows_again(place):
    storage.make_folder(place)
    log = place / "metrics.jsonl"
    storage.rewrite_log(log, "")
    assert not names(place), "there was none to rewrite"
    for number in range(5):
        storage.append_line(log, f"line {number}")
    storage.rewrite_log(log, "line 0\nline 1\n")
    assert storage.read_log(log) == "line 0\nline 1\n" and len(names(place)) == 1
    storage.append_line(log, "line 2")
    assert storage.read_log(log) == "line 0\nline 1\nline 2\n"


def test_a_kill_before_a_log_is_rewritten_leaves_the_old_lines(remote, monkeypatch):
    log = remote / "metrics.jsonl"
    storage.append_line(log, "line 0")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "write_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        storage.rewrite_log(log, "line 1\n")
    assert storage.read_log(log) == "line 0\n"


def test_a_resumed_run_forgets_the_lines_after_its_checkpoint(remote):
    lines = [{"step": step, "kimg": 0.1 * step, "seconds": 1.0} for step in (10, 20, 30, 40)]
    for line in lines:
        workdirs.append_metrics(remote, line)
    assert workdirs.read_metrics_until(remote, 25) == lines[:2]
    assert workdirs.forget_metrics_after(remote, 25) == lines[:2]
    workdirs.append_metrics(remote, {**lines[2], "again": 1})
    assert workdirs.read_metrics(remote) == [*lines[:2], {**lines[2], "again": 1}]


def test_files_below_are_listed_with_their_ways(place):
    for name in ("b/c/d", "a", "b/e"):
        storage.make_folder((place / name).parent)
        storage.write_whole(place / name, name)
    assert names(place) == ["a", "b/c/d", "b/e"]


def test_a_folder_is_moved_with_all_that_is_in_it(place):
    for name in ("5/state/a", "5/commit_success.txt"):
        storage.make_folder((place / name).parent)
        storage.write_whole(place / name, name)
    storage.make_folder(place / "set_aside")
    storage.move(place / "5", place / "set_aside" / "5")
    assert names(place) == ["set_aside/5/commit_success.txt", "set_aside/5/state/a"]
    assert (place / "set_aside/5/state/a").read_text() == "5/state/a"
    storage.move(place / "set_aside/5/state/a", place / "a")
    assert names(place) == ["a", "set_aside/5/commit_success.txt"]
    with pytest.raises(FileNotFoundError):
        storage.move(place / "nothing", place / "b")


def test_what_a_reader_holds_open_is_left_for_the_next_start(tmp_path, monkeypatch):
    (tmp_path / "5" / "state").mkdir(parents=True)

    def busy(*_, **__):
        raise OSError(errno.EBUSY, "held open")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", busy)
        storage.discard(tmp_path / "5")
        storage.finish_discarding(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["5.discarded"]
    storage.finish_discarding(tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_checkpoint_is_discarded_with_its_commit_first(place, monkeypatch):
    for name in ("5/state/a", "5/commit_success.txt", "6/state/a"):
        storage.make_folder((place / name).parent)
        storage.write_whole(place / name, name)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(storage.shutil if not storage.is_remote(place) else type(place), "rmtree", killed)
        storage.discard(place / "5")
    # A folder that orbax takes for no step, or one that it takes for one that was not finished.
    assert not (place / "5" / "commit_success.txt").exists()
    storage.finish_discarding(place)
    if (place / "5").exists():
        storage.discard(place / "5")
    assert names(place) == ["6/state/a"]


def test_a_file_for_what_cannot_read_buckets_has_the_same_content(place):
    storage.make_folder(place)
    storage.write_whole(place / "a.array_record", b"abc")
    with storage.as_file(place / "a.array_record") as file:
        assert file.read_bytes() == b"abc" and file.name == "a.array_record"
    assert file.exists() == (not storage.is_remote(place))


def test_trouble_on_the_way_to_a_bucket_is_an_oserror_that_names_the_path(remote, monkeypatch):
    def unreachable(*_, **__):
        raise RuntimeError("Anonymous caller does not have\nstorage.objects.get access")

    monkeypatch.setattr(type(remote), "open", unreachable)

    def digest(path):
        with storage.opened(path) as file:
            return file.read()

    for act in (storage.read_text, lambda path: storage.write_whole(path, "a"), digest):
        with pytest.raises(OSError, match="Anonymous caller does not have storage") as raised:
            act(remote / "config.json")
        assert raised.value.filename == "gs://bucket/runs/digits/config.json"
    says = "^--workdir=gs://bucket/runs/digits cannot be written: Anonymous caller"
    with pytest.raises(UsageError, match=says), workdirs.locked(remote):
        pytest.fail("a lock that could not be written")


def test_what_is_not_there_is_said_to_be_no_run(remote):
    with pytest.raises(UsageError, match=r"^gs://bucket/runs/digits holds no run: there is no gs://.*/config.json$"):
        workdirs.read_info(remote)


def test_a_folder_needs_nothing_that_reaches_buckets():
    code = "import sys; from cgan_jax.files import storage; storage.place('runs'); print('fsspec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
