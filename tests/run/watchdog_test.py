"""A run that stands still is noticed, and one that only takes its time is not."""

import socket
import subprocess
import sys
import time

import pytest

from cgan_jax.run import watchdog
from cgan_jax.run.watchdog import Watchdog

HALF_A_SECOND = 0.5 / 60


def run_python(program: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, **options)


def test_a_step_that_does_not_end_shows_every_thread_and_can_end_the_process():
    done = run_python(f"""
import threading, time
from cgan_jax.run.watchdog import Watchdog
def a_place_to_wait_in(): time.sleep(60)
threading.Thread(target=a_place_to_wait_in, daemon=True).start()
with Watchdog({HALF_A_SECOND}, exits=True) as watchdog:
    watchdog.beat(41)
    watchdog.beat(42)
    time.sleep(60)
""")
    assert done.returncode == 75
    first = done.stderr.splitlines()[0]
    assert first.startswith(
        "cgan: no step has ended for 0.0 minutes; the last was step 42; leaving, run the same command"
    )
    assert "in a_place_to_wait_in" in done.stderr and done.stderr.count("Thread 0x") >= 2


def test_it_ends_the_process_even_where_nobody_reads_what_it_tells():
    program = f"""
import time
from cgan_jax.run.watchdog import Watchdog
with Watchdog({HALF_A_SECOND}, exits=True, step=7) as watchdog:
    watchdog.beat(7)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE) as process:
        process.stderr.close()
        assert process.wait(60) == 75


def test_without_leave_to_exit_it_tells_and_goes_on():
    done = run_python(f"""
import time
from cgan_jax.run.watchdog import Watchdog
with Watchdog({HALF_A_SECOND}, exits=False) as watchdog:
    watchdog.beat(1)
    time.sleep(1.7)
print("done")
""")
    assert done.returncode == 0 and done.stdout == "done\n"
    assert 2 <= done.stderr.count("no step has ended for") <= 3


@pytest.fixture
def told(monkeypatch):
    """What a watchdog in this process tells."""
    told = []
    monkeypatch.setattr(Watchdog, "_tell", lambda self, seconds: told.append(seconds))
    return told


def test_steps_that_end_in_time_keep_it_quiet(told):
    with Watchdog(HALF_A_SECOND, exits=False) as dog:
        for step in range(8):
            dog.beat(step)
            time.sleep(0.1)
    assert told == []


def test_compilation_and_evaluations_may_take_ten_times_as_long(told):
    with Watchdog(HALF_A_SECOND, exits=False) as dog:
        time.sleep(0.8)  # before the first step
        dog.beat(1)
        with dog.resting():
            time.sleep(0.8)
        assert told == []
        time.sleep(0.8)
    assert len(told) == 1 and told[0] > 0.5


def test_a_run_that_goes_on_begins_at_its_step():
    assert Watchdog(0.0, exits=False, step=7)._step == 7


def test_no_minutes_are_no_watchdog(told):
    with Watchdog(0.0, exits=True) as dog:
        dog.beat(1)
        time.sleep(0.2)
        assert not dog._thread.is_alive()


class Store:
    """What jax keeps for all hosts of a run."""

    def __init__(self, steps):
        self.values = {f"cgan/steps/{host}": str(step) for host, step in steps.items()}

    def key_value_set(self, key, value, allow_overwrite):
        assert allow_overwrite
        self.values[key] = value

    def key_value_dir_get(self, prefix):
        return [(key, value) for key, value in self.values.items() if key.startswith(prefix)]


def test_the_hosts_that_are_behind_are_named(monkeypatch):
    store = Store({0: 7, 1: 8, 3: 7})
    monkeypatch.setattr(watchdog, "_client", lambda: store)
    monkeypatch.setattr(watchdog.jax, "process_count", lambda: 4)
    monkeypatch.setattr(watchdog.jax, "process_index", lambda: 1)
    watchdog.report_step(9)
    assert store.values["cgan/steps/1"] == "9"
    assert watchdog.hosts_behind(9) == ["host 2 (at step unknown)"]
    watchdog.report_step(9)
    store.values["cgan/steps/2"] = "9"
    assert watchdog.hosts_behind(9) == ["host 0 (at step 7)", "host 3 (at step 7)"]


def test_a_single_host_waits_for_nobody():
    watchdog.report_step(3)
    assert watchdog.hosts_behind(3) == []


@pytest.mark.slow  # two processes, each of which starts jax
def test_real_hosts_name_the_one_that_stands_still():
    program = """
import sys, time
import jax
index, port = int(sys.argv[1]), sys.argv[2]
jax.distributed.initialize(f"127.0.0.1:{port}", 2, index)
from cgan_jax.run.watchdog import Watchdog
with Watchdog(1 / 60, exits=True) as dog:
    for step in range(1, 40 if index == 0 else 4):
        dog.beat(step)
        time.sleep(0.1)
    print("still", flush=True)
    time.sleep(30)
"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(index), str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert "the last was step 3" in errors[1] and processes[1].returncode == 75
    assert "waiting for host 1 (at step 3)" in errors[0], errors[0]
