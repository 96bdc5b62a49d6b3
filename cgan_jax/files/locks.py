"""One process at a time: a file that the system locks or, in a bucket, an object that its holder renews.

The system frees a file lock however its holder ends. A bucket lock expires after 60 s without a heartbeat. A process
that finds a younger heartbeat waits for the next one: if it comes, the lock is held, else it expires. The clocks of
machines that share a bucket must agree to within seconds. A holder that finds another in its place ends at once, as if
it had been killed.
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
from cgan_jax.files import json_text
from cgan_jax.files.storage import is_remote, read_text, reason, regular, write_whole

RENEWED, DEAD = 20.0, 60.0
"""Seconds between two heartbeats, and without one until the lock expires."""
LISTENING = 1.0
"""Seconds between two looks for a heartbeat."""
SETTLED = 2.0
"""Seconds until all that took a free lock at the same time see the last of them."""


class Beat(NamedTuple):
    """A heartbeat."""

    host: str
    process: int
    token: str
    """Differs for a later process of the same number."""
    time: float

    @property
    def age(self) -> float:
        """Seconds since the heartbeat."""
        return max(0.0, time.time() - self.time)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Holds the lock at `path`. Raises UsageError, which names the holder, if another process has it; OSError.

    Raises UsageError, too, if the file system knows no locks.
    """
    with (_beating if is_remote(path) else _flocked)(path):
        yield


def is_held(path: Path) -> bool:
    """Whether any process holds the lock at `path`."""
    if is_remote(path):
        return last_beat(path) is not None
    try:
        with open(path, opener=regular) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such file, or a file system that cannot lock any
        return False
    return False


@contextlib.contextmanager
def _flocked(path: Path) -> Iterator[None]:
    with open(path, "a+", opener=regular) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UsageError(f"{path.parent} is in use by process {lock.read().strip() or 'unknown'}") from None
        except OSError as error:
            raise UsageError(
                f"{path.parent} is on a file system that cannot lock files ({reason(error)}); use another folder"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def last_beat(path: Path) -> Beat | None:
    """The last heartbeat at `path`; None if there is none that can be read, or it has expired."""
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError, OverflowError):
        beat = Beat(**json_text.parsed(read_text(path)))
        return beat if beat.age < DEAD else None
    return None


@contextlib.contextmanager
def _beating(path: Path) -> Iterator[None]:
    token, done = secrets.token_hex(8), threading.Event()
    _wait_until_free(path)
    _beat(path, token)
    time.sleep(SETTLED)
    _refuse_another(path, token)
    renewal = threading.Thread(target=_renew, args=(path, token, done), name="heartbeat", daemon=True)
    renewal.start()
    try:
        yield
    finally:
        done.set()
        renewal.join()
        with contextlib.suppress(OSError, UsageError):  # the lock expires in a minute anyway
            _refuse_another(path, token)
            path.unlink()


def _wait_until_free(path: Path) -> None:
    """Returns when the last heartbeat has expired. Raises UsageError if another one follows it."""
    first = last_beat(path)
    if first is not None:
        print(
            f"{path.parent} was in use by process {first.process} on {first.host} {first.age:.0f} s ago;"
            f" listening for it, up to {DEAD:.0f} s",
            flush=True,
        )
        while last_beat(path) is not None:
            _refuse_another(path, first.token, first.time)
            time.sleep(LISTENING)


def _renew(path: Path, token: str, done: threading.Event) -> None:
    while not done.wait(RENEWED):
        try:
            _refuse_another(path, token)
            _beat(path, token)
        except OSError:
            continue  # the next attempt comes before the lock expires
        except UsageError as error:
            with contextlib.suppress(OSError, ValueError):  # stderr is closed
                print(f"cgan: error: {error}", file=sys.stderr, flush=True)
            os._exit(error.exit_code)


def _beat(path: Path, token: str) -> None:
    write_whole(path, json.dumps(Beat(socket.gethostname(), os.getpid(), token, time.time())._asdict()))


def _refuse_another(path: Path, token: str, sent: float | None = None) -> None:
    """Raises UsageError for a heartbeat of another token or, if `sent` is given, of another time."""
    beat = last_beat(path)
    if beat is not None and (beat.token != token or sent not in (None, beat.time)):
        raise UsageError(
            f"{path.parent} is in use by process {beat.process} on {beat.host}, which gave a sign of life"
            f" {beat.age:.0f} s ago; {DEAD:.0f} s without one and it is free"
        )
