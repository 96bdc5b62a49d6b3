"""Requests to stop: SIGINT, SIGTERM or SIGHUP stops the run at the end of a call, a second SIGINT at once.

SIGHUP comes when the terminal closes. A program under nohup ignores it.
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

    Python runs signal handlers in the main thread between two instructions, so never while XLA compiles. A thread that
    learns of each signal through a pipe (signal.set_wakeup_fd) can end the process meanwhile.
    """

    def __init__(self, exits: bool = True) -> None:
        """With `exits`, the thread may end the process, and so does a second SIGINT: for a command.

        Without, a second SIGINT raises KeyboardInterrupt, and SIGTERM and SIGHUP are left as they are: for a library.
        Python handles signals in the main thread alone, so in another thread there are no requests.
        """
        self.requested = False
        in_main = threading.current_thread() is threading.main_thread()
        self._exits, self._numbers = exits, _NUMBERS if exits else (signal.SIGINT,) if in_main else ()
        self._previous: dict[int, object] = {}
        self._farewell: str | None = None

    def __enter__(self) -> "StopRequest":
        for number in self._numbers:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._handle)
        if self._exits:
            self._start_watching()
        return self

    def _start_watching(self) -> None:
        self._told, self._tells = os.pipe()
        os.set_blocking(self._tells, False)
        self._previous_fd = signal.set_wakeup_fd(self._tells, warn_on_full_buffer=False)
        self._watcher = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._watcher.start()

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if not self._exits:
            return
        signal.set_wakeup_fd(self._previous_fd)
        os.close(self._tells)
        self._watcher.join()
        os.close(self._told)

    @contextlib.contextmanager
    def at_once(self, farewell: str) -> Iterator[None]:
        """A request, even an earlier one, raises Interrupted(farewell) inside. Use it for work that may be dropped.

        If the main thread of a command does not return to Python within 3 s, the watching thread ends the process with
        exit code 75.
        Each of several processes ends by itself: a launcher signals all of them.
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
            if not self._exits:
                raise KeyboardInterrupt
            os._exit(_SECOND_INTERRUPT)
        self.requested = True
        if self._farewell is not None:
            raise Interrupted(self._farewell, together=False)
        # A print inside an interrupted print raises RuntimeError. Ctrl-C may have stopped the reader of a pipe too.
        with contextlib.suppress(RuntimeError, OSError, ValueError):
            print(
                f"\n{signal.Signals(number).name}: finishing this call and saving;"
                " Ctrl-C again leaves at once without saving",
                file=sys.stderr,
                flush=True,
            )

    def _watch(self) -> None:
        """Ends the process if the main thread is busy outside of Python and cannot run `_handle`."""
        asked, deadline = False, None
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if select.select([self._told], [], [], left)[0]:
                numbers = os.read(self._told, 64)
                if not numbers:
                    return
                for number in numbers:
                    if asked and number == signal.SIGINT:
                        os._exit(_SECOND_INTERRUPT)
                    asked = asked or number in _NUMBERS
                deadline = time.monotonic() + _GRACE if asked else None
            else:
                deadline, farewell = None, self._farewell
                if farewell is not None:
                    with contextlib.suppress(OSError):  # a pipe without a reader, a terminal that is closed
                        os.write(2, f"cgan: {farewell}\n".encode())
                    os._exit(Interrupted.exit_code)


class RelayedRequests(StopRequest):
    """A context that passes every request to stop on to the process started by `run`."""

    def __init__(self) -> None:
        super().__init__()
        self._exits = False
        self.requests = 0
        self._process: subprocess.Popen | None = None

    def run(self, command: Sequence[str]) -> int:
        """Runs a command to its end and returns its exit code; -9 is "killed by signal 9".

        The command has a separate process group, which the terminal's Ctrl-C does not reach. Otherwise one Ctrl-C
        would arrive twice, and a second SIGINT ends a run at once. The first request arrives as SIGTERM, which also
        ends a process that is still starting. A process started in the background may ignore SIGINT.
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
