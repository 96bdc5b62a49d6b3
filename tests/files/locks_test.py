"""Locks of buckets: who holds one renews it, who finds one that is not renewed takes it, and never two hold one."""

import errno
import json
import os
import socket
import sys
import threading
import time

import pytest

from cgan_jax.errors import UsageError
from cgan_jax.files import locks
from cgan_jax.run import workdir as workdirs


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    for name, seconds in {"RENEWED": 0.05, "LISTENING": 0.01, "SETTLED": 0.02}.items():
        monkeypatch.setattr(locks, name, seconds)


def leave(remote, age, **changed):
    """What another run left behind so many seconds ago."""
    beat = {"host": "elsewhere", "process": 77, "token": "theirs", "time": time.time() - age, **changed}
    (remote / ".lock").write_text(json.dumps(beat))


def beat_of(remote):
    return json.loads((remote / ".lock").read_text())


def test_a_lock_says_who_holds_it_is_renewed_and_is_gone_at_the_end(remote):
    with workdirs.locked(remote):
        first = beat_of(remote)
        assert (first["host"], first["process"]) == (socket.gethostname(), os.getpid())
        deadline = time.monotonic() + 10
        while beat_of(remote)["time"] == first["time"]:
            assert time.monotonic() < deadline, "no second sign of life"
            time.sleep(0.01)
        assert workdirs.is_locked(remote)
    assert not (remote / ".lock").exists() and not workdirs.is_locked(remote)


def test_of_two_runs_at_once_the_second_is_refused(remote):
    with workdirs.locked(remote):
        says = f"^{remote} is in use by process {os.getpid()} on .* sign of life 0 s ago"
        with pytest.raises(UsageError, match=says), workdirs.locked(remote):
            pytest.fail("two hold one lock")
        assert workdirs.is_locked(remote)


@pytest.mark.parametrize("age", [-5, 0, 40])
def test_a_young_lock_that_is_renewed_is_refused_with_its_host_and_age(remote, age, capsys):
    leave(remote, age)
    renewal = threading.Timer(0.3, leave, (remote, 0))
    renewal.start()
    says = f"^{remote} is in use by process 77 on elsewhere, which gave a sign of life 0 s ago; 60 s without"
    with pytest.raises(UsageError, match=says), workdirs.locked(remote):
        pytest.fail("another's lock was taken")
    assert f"process 77 on elsewhere {max(0, age)} s ago; listening for it, up to 60 s" in capsys.readouterr().out
    assert beat_of(remote)["token"] == "theirs"


def test_a_young_lock_of_a_dead_holder_is_waited_for_and_taken_over(remote):
    leave(remote, locks.DEAD - 0.5)
    began = time.monotonic()
    with workdirs.locked(remote):
        assert time.monotonic() - began > 0.4
        assert beat_of(remote)["process"] == os.getpid()


@pytest.mark.parametrize("age", [61, 10_000])
def test_a_stale_lock_is_taken_over(remote, age):
    leave(remote, age)
    assert not workdirs.is_locked(remote)
    with workdirs.locked(remote):
        assert beat_of(remote)["process"] == os.getpid()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"shoe_size": 44}'])
def test_what_is_no_sign_of_life_locks_nothing(remote, text):
    (remote / ".lock").write_text(text)
    with workdirs.locked(remote):
        assert beat_of(remote)["process"] == os.getpid()


def test_of_many_that_find_it_free_at_once_one_holds_it(remote, monkeypatch):
    monkeypatch.setattr(locks, "SETTLED", 0.5)
    held, refused, beat = [], [], locks._beat
    all_found_it_free = threading.Barrier(8)

    def beat_together(path, token):
        if threading.current_thread().name != "heartbeat":
            all_found_it_free.wait()
        beat(path, token)

    def take():
        try:
            with workdirs.locked(remote):
                held.append(beat_of(remote)["token"])
                time.sleep(1)
        except UsageError as error:
            refused.append(str(error))

    monkeypatch.setattr(locks, "_beat", beat_together)
    monkeypatch.setattr(locks.os, "_exit", lambda _: None)  # how a second holder would end, and this process with it
    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1 and len(refused) == 7


@pytest.mark.parametrize("is_read", [True, False])
def test_who_was_cut_off_and_finds_another_in_its_place_ends_and_leaves_the_lock_alone(
    remote, monkeypatch, capfd, is_read
):
    if not is_read:
        into, out_of = os.pipe()[::-1]
        os.close(out_of)
        monkeypatch.setattr(sys, "stderr", os.fdopen(into, "w"))
    ended = threading.Event()

    def leave_the_process(code):
        assert code == 2
        ended.set()

    monkeypatch.setattr(locks.os, "_exit", leave_the_process)
    with workdirs.locked(remote):
        leave(remote, 0)
        assert ended.wait(10)
    assert ("in use by process 77 on elsewhere" in capfd.readouterr().err) == is_read
    assert beat_of(remote)["token"] == "theirs"


def test_a_network_that_fails_for_a_while_costs_nothing(remote, monkeypatch):
    with workdirs.locked(remote):
        first = beat_of(remote)
        with monkeypatch.context() as patch:
            failed = threading.Event()

            def unreachable(*_):
                failed.set()
                raise OSError("no route to host")

            patch.setattr(locks, "write_whole", unreachable)
            assert failed.wait(10)
        deadline = time.monotonic() + 10
        while beat_of(remote)["time"] == first["time"]:
            assert time.monotonic() < deadline, "it gave up"
            time.sleep(0.01)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EACCES])
def test_a_file_system_that_cannot_lock_is_no_run_in_use(tmp_path, monkeypatch, code):
    def unable(*_):
        raise OSError(code, os.strerror(code))

    with workdirs.locked(tmp_path):
        assert workdirs.is_locked(tmp_path)
        with pytest.raises(UsageError, match=f"is in use by process {os.getpid()}"), workdirs.locked(tmp_path):
            pytest.fail("two hold one lock")
    monkeypatch.setattr(locks.fcntl, "flock", unable)
    with pytest.raises(UsageError, match=f"cannot lock files .*{os.strerror(code)}"), workdirs.locked(tmp_path):
        pytest.fail("it is not locked")
    assert not workdirs.is_locked(tmp_path)
