"""A thread that notices a run that stands still: it prints every thread's stack and the hosts that are behind.

A collective waits for ever for a lost peer or a dead device, and the process looks as if it worked.
"""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator

import jax

from cgan_jax.errors import Interrupted

PATIENCE = 10.0
"""Compilation, pictures and evaluations may take this many times as long as a step."""
_LOOKS = 20  # in the time that a step may take
_STEPS_OF_HOSTS = "cgan/steps/"


class Watchdog:
    """A context in which `beat` must be called every `minutes`; 0 switches it off.

    If `exits`, a run that stands still ends with exit code 75, so that a scheduler starts it again from its latest
    checkpoint; else it prints a message whenever the minutes have passed again.
    """

    def __init__(self, minutes: float, exits: bool, step: int = 0):
        self._seconds, self._exits = 60 * minutes, exits
        self._allowed = PATIENCE * self._seconds
        self._step, self._since = step, time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self.rest()
        if self._seconds:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._seconds:
            self._thread.join()

    def beat(self, step: int) -> None:
        """A step was finished."""
        self._step, self._since, self._allowed = step, time.monotonic(), self._seconds

    def rest(self) -> None:
        """The next step may take `PATIENCE` times as long."""
        self._since, self._allowed = time.monotonic(), PATIENCE * self._seconds

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """A context that may take `PATIENCE` times as long as a step."""
        self.rest()
        yield
        self.beat(self._step)

    def _watch(self) -> None:
        while not self._over.wait(self._seconds / _LOOKS):
            report_step(self._step)
            still = time.monotonic() - self._since
            if still > self._allowed:
                with contextlib.suppress(OSError):  # stderr is closed
                    self._tell(still)
                if self._exits:
                    os._exit(Interrupted.exit_code)
                self._since = time.monotonic()

    def _tell(self, seconds: float) -> None:
        told = f"no step has ended for {seconds / 60:.1f} minutes; the last was step {self._step}"
        behind = hosts_behind(self._step)
        waits = f"; waiting for {', '.join(behind)}" if behind else ""
        ends = "; leaving, run the same command again to go on" if self._exits else ""
        print(f"cgan: {told}{waits}{ends}; every thread:", file=sys.__stderr__, flush=True)
        faulthandler.dump_traceback(file=sys.__stderr__, all_threads=True)


def report_step(step: int) -> None:
    """Tells the other hosts, if there are any, the step of this one."""
    client = _client()
    if client is not None:
        with contextlib.suppress(RuntimeError):  # the coordinator may be the lost host
            client.key_value_set(f"{_STEPS_OF_HOSTS}{jax.process_index()}", str(step), allow_overwrite=True)


def hosts_behind(step: int) -> list[str]:
    """The hosts that have reported no step or an earlier one than `step`, each with its last step."""
    client = _client()
    if client is None:
        return []
    try:
        steps = {int(key.rsplit("/", 1)[-1]): int(told) for key, told in client.key_value_dir_get(_STEPS_OF_HOSTS)}
    except RuntimeError as error:
        return [f"the coordinator ({' '.join(str(error).split())[:100]})"]
    others = [host for host in range(jax.process_count()) if host != jax.process_index()]
    # Either all hosts finish a call or none does, so a host at the same step may not have begun the next.
    least = min((steps.get(host, -1) for host in others), default=step)
    return [f"host {host} (at step {steps.get(host, 'unknown')})" for host in others if steps.get(host, -1) == least]


def _client():
    """jax's own store of keys and values between hosts, None on a single one. There is no public name for it."""
    from jax._src import distributed

    return distributed.global_state.client if jax.process_count() > 1 else None
