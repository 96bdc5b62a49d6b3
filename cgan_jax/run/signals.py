"""Requests to stop: a first SIGINT, SIGTERM or SIGHUP is granted at the end of a call, a second SIGINT obeyed at once.

SIGHUP is a terminal that has gone, by which nohup's programs are not to be moved.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType

from cgan_jax.errors import Interrupted

_SECOND_INTERRUPT = 130
_GRACE = 3.0  # seconds for the main thread to leave by itself
_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """A context in which `requested` tells whether the process was asked to stop.

    Python runs signal handlers in the main thread between two instructions, so not while a program compiles. What has
    to end the process meanwhile is done by a thread that the system tells of each signal.
    """

    _insists = True

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, object] = {}
        self._farewell: str | None = None

    def __enter__(self) -> "StopRequest":
        for number in _NUMBERS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._handle)
        self._told, self._tells = os.pipe()
        os.set_blocking(self._tells, False)
        self._previous_fd = signal.set_wakeup_fd(self._tells, warn_on_full_buffer=False)
        self._watcher = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_fd)
        os.close(self._tells)
        self._watcher.join()
        os.close(self._told)

    @contextlib.contextmanager
    def at_once(self, farewell: str) -> Iterator[None]:
        """A request, even one made before, ends what is done inside by Interrupted(farewell): nothing there is lost.

        Where the main thread does not come back to Python within seconds, the process is ended for it. Of several
        processes each that is asked ends by itself: whoever stops a run asks all of them.
        """
        if self.requested:
            raise Interrupted(farewell, together=False)
        before, self._farewell = self._farewell, farewell
        try:
            yield
        finally:
            self._farewell = before

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            os._exit(_SECOND_INTERRUPT)
        self.requested = True
        if self._farewell is not None:
            raise Interrupted(self._farewell, together=False)
        # A print that a signal has interrupted cannot be begun again; whoever read it may have been stopped too.
        with contextlib.suppress(RuntimeError, OSError, ValueError):
            print(
                f"\n{signal.Signals(number).name}: finishing this call and saving;"
                " Ctrl-C again leaves at once without saving",
                file=sys.stderr,
                flush=True,
            )

    def _watch(self) -> None:
        """Ends the process where the main thread, busy outside of Python, does not do what `_handle` would."""
        asked, deadline = False, None
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if select.select([self._told], [], [], left)[0]:
                numbers = os.read(self._told, 64)
                if not numbers:
                    return
                for number in numbers if self._insists else ():
                    if asked and number == signal.SIGINT:
                        os._exit(_SECOND_INTERRUPT)
                    asked = asked or number in _NUMBERS
                deadline = time.monotonic() + _GRACE if asked else None
            else:
                deadline, farewell = None, self._farewell
                if farewell is not None:
                    os.write(2, f"cgan: {farewell}\n".encode())
                    os._exit(Interrupted.exit_code)


class RelayedRequests(StopRequest):
    """A context in which every request to stop goes on to the process that is being waited for."""

    _insists = False

    def __init__(self) -> None:
        super().__init__()
        self.requests = 0
        self._process: subprocess.Popen | None = None

    def run(self, command: Sequence[str]) -> int:
        """Runs a command to its end and returns its exit code; -9 is "killed by signal 9".

        It has a process group of its own, which the terminal's Ctrl-C does not reach: a request that came twice, from
        the terminal and from here, would be the second one, which is obeyed at once. The first arrives as SIGTERM,
        which also ends a process that is only starting; it may ignore SIGINT, as one started in the background does.
        """
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
        try:
            return self._process.wait()
        finally:
            self._process = None

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.requested = True
        self.requests += 1
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM if self.requests == 1 else number)
