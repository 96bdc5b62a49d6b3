"""Slow clients, over real sockets: each thing that a server waits for has an end, and the silent lock no one out."""

import asyncio
import contextlib
import socket
import threading
import time

import pytest

pytest.importorskip("uvicorn", reason="needs the extra [demo]")

from cgan_jax.serving import connections
from cgan_jax.serving.connections import Limits

QUICK = Limits(headers=0.3, body=0.4, rest=0.3, answer=0.4, silent=5, grace=0.2, client=20, total=30, end=1)
LARGE = 8 * 1024 * 1024
ASK, SLOW = (b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path for path in (b"/", b"/slow"))


async def app(scope, receive, send) -> None:
    """Reads a body that /read has, sends much for /large, waits for a second at /slow, else says hello at once."""
    if scope["path"] == "/read":
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            if not message.get("more_body"):
                break
    if scope["path"] == "/slow":
        await asyncio.sleep(0.7)
    body = b"x" * LARGE if scope["path"] == "/large" else b"hello"
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextlib.contextmanager
def served(limits: Limits = QUICK):
    server = connections.server(app, {"X-Careful": "yes"}, limits)
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield listening.getsockname()[1], server
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()


@pytest.fixture
def port():
    with served() as (port, _):
        yield port


def connect(port: int, text: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.sendall(text)
    return connection


def read(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            found += part
    return found


@pytest.mark.parametrize("text", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n"])
def test_headers_that_never_end_are_not_waited_for(port, text):
    began = time.monotonic()
    with connect(port, text) as connection:
        answer = read(connection)
    assert 0.2 < time.monotonic() - began < 2
    assert answer.startswith(b"HTTP/1.1 408 ") and b"X-Careful: yes" in answer and b"did not arrive in time" in answer


def test_a_byte_now_and_then_buys_no_time(port):
    began = time.monotonic()
    with connect(port, b"GET / HTTP/1.1\r\nHost: a\r\n") as connection, contextlib.suppress(ConnectionError):
        while time.monotonic() - began < 3:
            connection.sendall(b"A: b\r\n")
            time.sleep(0.05)
    assert time.monotonic() - began < 2


BODIES = [
    b"Content-Length: 10\r\n\r\nabc",
    b"Content-Length: 5\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
]
POST = b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"


@pytest.mark.parametrize("body", BODIES)
def test_bodies_that_never_end_are_not_waited_for(port, body):
    began = time.monotonic()
    with connect(port, b"POST /read HTTP/1.1\r\nHost: a\r\n" + body) as connection:
        answer = read(connection)
    assert 0.3 < time.monotonic() - began < 2 and answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("body", BODIES)
def test_the_rest_of_a_body_is_not_waited_for_when_the_request_has_been_answered(port, body):
    began = time.monotonic()
    with connect(port, b"POST / HTTP/1.1\r\nHost: a\r\n" + body) as connection:
        answer = read(connection)
    assert time.monotonic() - began < 2 and answer.startswith(b"HTTP/1.1 200 ") and b"408" not in answer


def test_an_answer_has_to_be_taken(port):
    with connect(port, b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n") as connection:
        time.sleep(1)
        assert len(read(connection)) < LARGE
    with connect(port, b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") as connection:
        assert len(read(connection)) > LARGE


def test_a_request_that_is_worked_on_is_not_cut_off(port):
    with connect(port, b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") as connection:
        assert read(connection).endswith(b"hello")


@pytest.mark.parametrize("text", [b"", b"GET / HTTP/1.1\r\n", POST])
def test_250_silent_connections_lock_no_one_out(text):
    """Not even one of the same address, although none of them would ever be closed by the clock."""
    with served(QUICK._replace(headers=60, body=60)) as (port, server), contextlib.ExitStack() as stack:
        for _ in range(250):
            with contextlib.suppress(ConnectionError):
                stack.enter_context(connect(port, text))
        began = time.monotonic()
        for _ in range(10):
            with connect(port, ASK) as connection:
                assert connection.recv(12) == b"HTTP/1.1 200"
        assert time.monotonic() - began < 2
        deadline = time.monotonic() + 5
        while len(server.server_state.connections) > 6 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(server.server_state.connections) <= 6


def test_idle_browsers_make_room_too(port):
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            connection = stack.enter_context(connect(port, ASK))
            assert connection.recv(12) == b"HTTP/1.1 200"


def test_one_client_has_so_many_connections_answered_and_no_more(port):
    with contextlib.ExitStack() as stack:
        answers = [stack.enter_context(connect(port, SLOW)).recv for _ in range(25)]
        codes = [receive(12) for receive in answers]
        assert codes.count(b"HTTP/1.1 200") == 20 and codes.count(b"HTTP/1.1 503") == 5
    with connect(port, ASK) as connection:
        assert connection.recv(12) == b"HTTP/1.1 200"


def test_what_is_beyond_all_room_is_closed_at_once_and_room_comes_back():
    with served(QUICK._replace(client=100)) as (port, _):
        with contextlib.ExitStack() as stack:
            taken = [stack.enter_context(connect(port, SLOW)) for _ in range(30)]
            time.sleep(0.2)
            late = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            assert read(late) == b""
            assert all(one.recv(12) == b"HTTP/1.1 200" for one in taken)
        time.sleep(0.2)
        with connect(port, ASK) as connection:
            assert connection.recv(12) == b"HTTP/1.1 200"


NOISE = [
    b"\0" * 100,
    b"\x16\x03\x01\x02\x00\x01\x00\x01",
    b"GET\r\n\r\n",
    b"GET / HTTP/1.1\r\nA b\r\n\r\n",
    b"A" * 200_000,
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
]


@pytest.mark.parametrize("noise", NOISE)
def test_noise_is_refused_in_a_line_and_told_to_no_one(port, noise, capfd, caplog):
    with connect(port, noise) as connection:
        answer = read(connection)
    assert not answer or answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 200 "))
    assert b"400" not in answer or b"X-Careful: yes" in answer
    assert "Traceback" not in capfd.readouterr().err and "Traceback" not in caplog.text
    with connect(port, ASK) as connection:
        assert connection.recv(12) == b"HTTP/1.1 200"


def test_requests_that_come_together_are_answered_one_after_the_other(port):
    with connect(port, 3 * ASK + b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") as connection:
        assert read(connection).count(b"hello") == 4


@pytest.mark.parametrize("text", [b"", ASK, b"GET / HTT", POST])
def test_a_server_that_is_told_to_end_ends_and_answers_what_it_can(text):
    patient = QUICK._replace(headers=60, body=60)
    with served(patient) as (port, server), connect(port, text), connect(port, SLOW) as slow:
        time.sleep(0.1)
        began = time.monotonic()
        server.should_exit = True
        assert read(slow).endswith(b"hello")
        while server.server_state.connections and time.monotonic() - began < 5:
            time.sleep(0.01)
        assert time.monotonic() - began < 3
