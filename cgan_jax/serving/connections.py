"""Slow clients: a connection may be silent for a while, so many of one client at a time, and is then closed.

uvicorn waits without end for the rest of a request, and for a client to take its answer. This is its protocol with
clocks. What is silent longest is closed for what comes new, so that silence locks no one out, not even those who share
an address with it, as all do behind a proxy.
"""

import asyncio
import contextlib
import json
import resource
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

_SPARE_FILES = 128  # open ones that are no connections


class Limits(NamedTuple):
    """Seconds and numbers of connections."""

    headers: float = 10.0
    body: float = 20.0
    rest: float = 2.0
    """Of a body that is still coming although its request has been answered."""
    answer: float = 30.0
    """Until a client has taken what was sent to it."""
    silent: int = 64
    """Connections of one client that have been silent for `grace`."""
    grace: float = 1.0
    """Of many that come at once, what they have sent is read only after all have been let in."""
    client: int = 512
    """Connections of one client that are being answered: what it asks for beyond is refused with 503."""
    total: int = 2048
    end: float = 1.5
    """For running requests to be answered in when the server ends."""


class Crowd:
    """All connections, by their clients' addresses."""

    def __init__(self, limits: Limits, headers: Mapping[str, str]):
        """`headers` are sent with what is refused here, before the application is asked."""
        self.limits, self.headers = limits, headers
        self._open: Counter[str] = Counter()
        self._silent: dict[Connection, asyncio.TimerHandle] = {}  # in the order in which they fell silent

    def enter(self, connection: "Connection") -> bool:
        """Whether there is room for one more, made by closing a silent one where needed."""
        if self._open.total() >= self.limits.total:
            if not self._silent:
                return False
            next(iter(self._silent)).hang_up()
        self._open[connection.address] += 1
        return True

    def leave(self, connection: "Connection") -> None:
        """Forgets a connection that has been closed."""
        self.speaks(connection)
        self._open[connection.address] -= 1
        self._open += Counter()  # drops those at zero

    def is_crowded(self, address: str) -> bool:
        """Whether as many connections of a client are being answered as may be."""
        silent = sum(one.address == address for one in self._silent)
        return self._open[address] - silent >= self.limits.client

    def is_silent(self, connection: "Connection") -> None:
        """Counts a connection among those that are waited for, of which a client has so many and no more."""
        if connection not in self._silent:
            clock = connection.loop.call_later(self.limits.grace, self._thin, connection)
            self._silent[connection] = clock

    def speaks(self, connection: "Connection") -> None:
        """The opposite."""
        clock = self._silent.pop(connection, None)
        if clock is not None:
            clock.cancel()

    def _thin(self, connection: "Connection") -> None:
        """Closes a connection that has been silent for a while where its client has too many: the oldest come first."""
        if sum(one.address == connection.address for one in self._silent) > self.limits.silent:
            connection.hang_up()


class Connection(H11Protocol):
    """uvicorn's protocol with a clock for each thing that a client can make a server wait for."""

    def __init__(self, *arguments: Any, crowd: Crowd, **named: Any):
        self._crowd = crowd
        super().__init__(*arguments, **named)
        self._phase, self._clock, self._taking = "", None, None
        self.address = ""

    @property
    def app(self) -> Callable:
        """What a request that has just come is answered by, for which uvicorn asks once."""
        return self._too_many if self._crowd.is_crowded(self.address) else self._app

    @app.setter
    def app(self, app: Callable) -> None:
        self._app = app

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        self._is_in = self._crowd.enter(self)
        if not self._is_in:
            transport.abort()
            return
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        for clock in filter(None, (self._clock, self._taking)):
            clock.cancel()
        if self._is_in:
            self._crowd.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        self._wait_for_taking(anew=True)
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_taking(anew=False)

    def shutdown(self) -> None:
        """The server ends: what has asked for nothing yet is not waited for."""
        if self._phase:
            self._close()
        else:
            super().shutdown()

    def hang_up(self) -> None:
        """Closes a silent connection for one that may have more to say."""
        self._crowd.speaks(self)
        self._close()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "this is no request that HTTP knows")

    def _look(self) -> None:
        """Starts the clock of what is now waited for. One that runs is not started anew by a byte that trickles in."""
        phase = self._waited_for()
        if phase == self._phase:
            return
        self._phase = phase
        self._crowd.speaks(self)
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        if not phase:
            return
        self._crowd.is_silent(self)
        if phase != "idle":  # for which uvicorn has a clock
            self._clock = self.loop.call_later(getattr(self._crowd.limits, phase), self._too_slow)

    def _waited_for(self) -> str:
        """headers, body, the rest of a body, nothing in particular (idle), or "": it is the server's turn."""
        if self.transport.is_closing():
            return ""
        if self.conn.their_state is h11.IDLE:
            return "headers" if self.cycle is None or self.conn.trailing_data[0] else "idle"
        if self.conn.their_state is h11.SEND_BODY:
            return "rest" if self.cycle.response_complete else "body"
        return ""

    def _too_slow(self) -> None:
        self._refuse(408, "the request did not arrive in time")

    def _refuse(self, status: int, why: str) -> None:
        """Answers in place of the application where nothing has been answered yet, and closes."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps({"error": why}).encode()
            headers = {
                **self._crowd.headers,
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                "Connection": "close",
            }
            answer = h11.Response(status_code=status, headers=list(headers.items()))
            for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
        self._close()

    def _close(self) -> None:
        if self.cycle is not None:
            self.cycle.disconnected = True  # what the application still says is not sent
            self.cycle.message_event.set()
        self.transport.close()
        self._wait_for_taking(anew=False)

    def _wait_for_taking(self, anew: bool) -> None:
        if anew and self._taking is not None:
            self._taking.cancel()
            self._taking = None
        if self._taking is None:
            self._taking = self.loop.call_later(self._crowd.limits.answer, self._not_taken)

    def _not_taken(self) -> None:
        self._taking = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    async def _too_many(self, scope: dict, receive: Callable, send: Callable) -> None:
        why = {"error": f"{self._crowd.limits.client} requests of one client are being answered; try again in a moment"}
        body = json.dumps(why).encode()
        headers = {
            **self._crowd.headers,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Retry-After": "2",
            "Connection": "close",
        }
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 503, "headers": pairs})
        await send({"type": "http.response.body", "body": body})


class Server(uvicorn.Server):
    """uvicorn's server, whose signals are the caller's: by itself it would send them to the process a second time."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server(app: Callable, headers: Mapping[str, str], limits: Limits | None = None) -> Server:
    """A server of an ASGI application that believes no header of a proxy, and says nothing of itself.

    `headers` are sent with what is refused before the application is asked. `run(sockets=[...])` serves until
    `handle_exit` is called, and then for `limits.end` seconds at most.
    """
    limits = limits or Limits()
    limits = limits._replace(total=min(limits.total, _room_for(limits.total)))
    crowd = Crowd(limits, headers)
    config = uvicorn.Config(
        app,
        http=lambda *arguments, **named: Connection(*arguments, crowd=crowd, **named),
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=limits.end,
    )
    return Server(config)


def _room_for(connections: int) -> int:
    """How many connections the system lets this process hold, up to `connections`, for which it is asked first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return connections if soft == resource.RLIM_INFINITY else max(1, soft - _SPARE_FILES)
