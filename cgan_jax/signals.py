"""Requests to stop: a first SIGINT or SIGTERM is granted at the end of a call, a second SIGINT is obeyed at once."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

_SECOND_INTERRUPT = 130


class StopRequest:
    """A context in which `requested` tells whether the process was asked to stop."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            os._exit(_SECOND_INTERRUPT)
        self.requested = True
        name = signal.Signals(number).name
        print(
            f"\n{name}: finishing this call and saving; Ctrl-C again leaves at once without saving",
            file=sys.stderr,
            flush=True,
        )


class RelayedRequests(StopRequest):
    """A context in which every request to stop goes on to the process that is being waited for."""

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
