"""Requests to stop: a first SIGINT or SIGTERM is granted at the end of a call, a second SIGINT is obeyed at once."""

import os
import signal
import sys
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
