"""One process at a time: a file that the system locks or, in a bucket, an object that its holder renews.

The system frees a file however its holder ends; a bucket frees nothing, so there a lock whose holder has been silent
for a minute is free; who finds one that has been heard of lately listens whether it is heard of again. The clocks of
machines that share a bucket are taken to agree to within seconds. A holder that was cut off for longer, and finds
another in its place, ends at once: it has lost no more than a killed one does.
"""

import contextlib
import fcntl
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cgan_jax.errors import UsageError
from cgan_jax.files.storage import is_remote, read_text, write_whole

RENEWED, DEAD = 20.0, 60.0
"""Seconds between two signs of life, and without any."""
LISTENING = 1.0
"""Seconds between two looks for a sign of life."""
SETTLED = 2.0
"""Seconds after which of several that found a lock free at once all see the last to take it."""


class Beat(NamedTuple):
    """A sign of life."""

    host: str
    process: int
    token: str
    """Tells this holder from a later process of the same number."""
    time: float

    @property
    def age(self) -> float:
        """Seconds since."""
        return time.time() - self.time


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Holds the lock at `path`. Raises UsageError, with who has it, where another process does; OSError."""
    with (_beating if is_remote(path) else _flocked)(path):
        yield


def is_held(path: Path) -> bool:
    """Whether any process holds the lock at `path`."""
    if is_remote(path):
        return last_beat(path) is not None
    try:
        with open(path) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


@contextlib.contextmanager
def _flocked(path: Path) -> Iterator[None]:
    with open(path, "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise UsageError(f"{path.parent} is in use by process {lock.read().strip() or 'unknown'}") from None
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def last_beat(path: Path) -> Beat | None:
    """The last sign of life at `path`; None where there is none that can be read, or it is too old."""
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
        beat = Beat(**json.loads(read_text(path)))
        return beat if beat.age < DEAD else None
    return None


@contextlib.contextmanager
def _beating(path: Path) -> Iterator[None]:
    mine = Beat(socket.gethostname(), os.getpid(), secrets.token_hex(8), 0.0)
    _listen(path, mine)
    _beat(path, mine)
    time.sleep(SETTLED)
    _refuse_another(path, mine)
    done = threading.Event()
    renewal = threading.Thread(target=_renew, args=(path, mine, done), name="heartbeat", daemon=True)
    renewal.start()
    try:
        yield
    finally:
        done.set()
        renewal.join()
        with contextlib.suppress(OSError, UsageError):  # in a minute it is free all the same
            _refuse_another(path, mine)
            path.unlink()


def _listen(path: Path, mine: Beat) -> None:
    """Returns once the holder there may have been has been silent for long enough; refuses one that lives."""
    first = last_beat(path)
    if first is not None:
        print(
            f"{path.parent} was in use by process {first.process} on {first.host} {max(0.0, first.age):.0f} s ago;"
            f" listening for it, up to {DEAD:.0f} s",
            flush=True,
        )
    while (beat := last_beat(path)) is not None:
        if beat != first:
            _refuse_another(path, mine)
        time.sleep(LISTENING)


def _renew(path: Path, mine: Beat, done: threading.Event) -> None:
    while not done.wait(RENEWED):
        try:
            _refuse_another(path, mine)
            _beat(path, mine)
        except OSError:
            continue  # tried again: others wait for a minute
        except UsageError as error:
            print(f"cgan: error: {error}", file=sys.stderr, flush=True)
            os._exit(error.exit_code)


def _beat(path: Path, mine: Beat) -> None:
    write_whole(path, json.dumps(mine._replace(time=time.time())._asdict()))


def _refuse_another(path: Path, mine: Beat) -> None:
    beat = last_beat(path)
    if beat is not None and beat.token != mine.token:
        raise UsageError(
            f"{path.parent} is in use by process {beat.process} on {beat.host}, which gave a sign of life"
            f" {max(0.0, beat.age):.0f} s ago; {DEAD:.0f} s without one and it is free"
        )
