"""Attacks `cgan serve` on this machine with real sockets, and counts what came of it.

    python -m benchmarks.attack

A small run is trained and served at 127.0.0.1 on a free port. Each row is an attack: how many requests were answered as
they ask for, how many were refused in a line, and how many ended in a traceback, in silence, or in the content of a
file. A connection that is closed counts as refused. After each attack an honest client asks for images; where it gets
none, that counts as a hang. The exit code is 1 unless the last three columns are 0.
"""

import argparse
import concurrent.futures
import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

OUTCOMES = ("survived", "refused", "traceback", "hang", "leaked")
_RECIPE = Path(__file__).parents[1] / "configs" / "digits.py"
_SMALL = {
    "dataset.image_size": 8,
    "generator.latent_dim": 4,
    "generator.width": 4,
    "discriminator.width": 4,
    "train.batch_size": 16,
    "train.g_batch_size": 16,
    "train.total_kimg": 0.32,
    "train.log_kimg": 0.16,
    "train.sample_kimg": 0.16,
    "guard.collapse": 0.0,
}
_SECRET = b"what no client may read"
_PATIENCE = 30.0  # seconds for any answer: more than a request waits for its turn
_MOST_SECONDS = 3.0  # for a server to end in


class Target:
    """A server that is attacked, and what it says meanwhile."""

    def __init__(self, folder: Path):
        self.folder, self.secret = folder, folder / "secret.txt"
        self.secret.write_bytes(_SECRET)
        environment = {**os.environ, "CGAN_CACHE_DIR": str(folder / "cache"), "JAX_NUM_CPU_DEVICES": "1"}
        overrides = [f"--config.{key}={value}" for key, value in _SMALL.items()]
        command = [sys.executable, "-m", "cgan_jax"]
        run = folder / "run"
        train = [*command, "train", f"--config={_RECIPE}", f"--workdir={run}", *overrides]
        subprocess.run(train, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._said = open(folder / "said.txt", "wb+")  # noqa: SIM115 (the process writes to it)
        proxied = {**environment, "ALL_PROXY": "socks5://127.0.0.1:9"}
        self.process = subprocess.Popen(
            [*command, "serve", f"--workdir={run}", "--port=0"], env=proxied, stdout=subprocess.PIPE, stderr=self._said
        )
        line = next(line for line in self.process.stdout if b"serving" in line).decode()
        self.port = int(re.search(r":(\d+)/", line)[1])
        self.own = f"127.0.0.1:{self.port}"

    def connect(self, text: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=_PATIENCE)
        connection.sendall(text)
        return connection

    def tracebacks(self) -> int:
        """How many it has written so far."""
        return (self.folder / "said.txt").read_bytes().count(b"Traceback")


class Request(NamedTuple):
    """What is sent, as it is sent."""

    method: str = "GET"
    path: str = "/api"
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()

    def bytes(self, own: str) -> bytes:
        given = {"Host": own, "Connection": "close"} | dict(self.headers)
        if self.method == "POST":
            given = {"Content-Type": "application/json", "Content-Length": str(len(self.body))} | given
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


def outcome(target: Target, text: bytes) -> str:
    """What comes of some bytes sent to the server: one of OUTCOMES."""
    answer = b""
    try:
        with target.connect() as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(text)
            with contextlib.suppress(ConnectionError):
                while part := connection.recv(65536):
                    answer += part
    except TimeoutError:
        return "hang"
    except ConnectionError:
        return "refused"
    return judged(answer)


def judged(answer: bytes) -> str:
    """The same, of an answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if _SECRET in body or b"root:" in body or b"CGAN_CACHE_DIR" in body:
        return "leaked"
    if b"Traceback" in body or b'File "' in body or head.startswith(b"HTTP/1.1 500"):
        return "traceback"
    if head.startswith((b"HTTP/1.1 2", b"HTTP/1.1 304")):
        return "leaked" if b"access-control-allow" in head.lower() else "survived"
    return "refused"  # an error in a line, or a connection that was closed


def spelled(path: str) -> list[str]:
    once = "".join(f"%{ord(letter):02x}" for letter in path)
    return [path, once, once.replace("%", "%25"), path.replace("/", "%2f"), f"file://{path}", f"http://127.0.0.1{path}"]


DOORS = """
/{} /file={} /gradio_api/file={} /gradio_api/file/{} /gradio_api/proxy={} /proxy={} /page.js/{} /api/{} /static/{}
/report/{} //{} /..{} /../..{} /%2e%2e/%2e%2e{} /..%2f..%2f{} /.%00./{} /page.js/../..{} /report?path={}
/api/grid.png?f={} /gradio_api/stream/{} /assets/{} /custom_component/a/client/component/{}
"""
OTHER_DOORS = """
/gradio_api/queue/join /gradio_api/run/predict /gradio_api/call/predict /gradio_api/upload /queue/join /run/predict
/api/predict /upload /config /info /component_server /openapi.json /docs /redoc /mcp/
"""


def carried(path: str) -> list[Any]:
    """What once made a server copy a file into its cache."""
    data = {"path": path, "meta": {"_type": "gradio.FileData"}}
    url = {"path": path, "url": f"file://{path}", "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}
    return [data, url, [data], [[data]], {"value": data}, {"a": {"b": [url]}}, path, f"file://{path}"]


def paths(target: Target) -> Iterator[bytes]:
    """Addresses that would name a file."""
    files = (str(target.secret), "/etc/passwd", "/proc/self/environ")
    for door, path in itertools.product(DOORS.split(), itertools.chain(*map(spelled, files))):
        yield Request(path=door.format(path)).bytes(target.own)


def fields(target: Target) -> Iterator[bytes]:
    """Fields that would name a file, at the interface and where Gradio had its own."""
    for given in itertools.chain(*map(carried, (str(target.secret), "/etc/passwd"))):
        bodies = [{name: given} for name in ("classes", "count", "seed", "truncation")]
        for body in (given, {"classes": [given]}, *bodies):
            yield Request("POST", "/api/images", json.dumps(body).encode()).bytes(target.own)
        event = json.dumps({"data": [given], "fn_index": 0, "session_hash": "a", "trigger_id": 1}).encode()
        for door in OTHER_DOORS.split():
            yield Request("POST", door, event).bytes(target.own)


def strangers(target: Target) -> Iterator[bytes]:
    """Hosts that this server has not, pages of other origins, and the forms and preflights they could send."""
    origins = (
        "http://evil.example",
        "null",
        f"https://{target.own}",
        "http://127.0.0.1:1",
        f"http://{target.own}.a.example",
    )
    for path, method in itertools.product(("/", "/api", "/api/images", "/report"), ("GET", "POST", "OPTIONS")):
        for origin in origins:
            asks = (("Origin", origin), ("Access-Control-Request-Method", "POST"))
            yield Request(method, path, b"{}" * (method == "POST"), asks).bytes(target.own)
        for host in ("evil.example", "127.0.0.1.evil.example", "", "[::2]"):
            yield Request(method, path, b"{}" * (method == "POST"), (("Host", host),)).bytes(target.own)
        for site in ("cross-site", "same-site"):
            yield Request(method, path, b"{}" * (method == "POST"), (("Sec-Fetch-Site", site),)).bytes(target.own)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a"):
        yield Request("POST", "/api/images", b"{}", (("Content-Type", kind),)).bytes(target.own)


def noise(target: Target) -> Iterator[bytes]:
    """What is no request, or one that is wrong in itself."""
    head = f"Host: {target.own}\r\nContent-Type: application/json\r\n".encode()
    post = b"POST /api/images HTTP/1.1\r\n" + head
    yield from (b"\0" * 1000, b"\x16\x03\x01\x02\x00\x01\x00\x01", b"GET\r\n\r\n", b"A" * 300_000)
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    yield from (post + b"Content-Length: -1\r\n\r\n", post + b"Content-Length: 9\r\nContent-Length: 8\r\n\r\n")
    large = (b"1000\r\n" + b" " * 4096 + b"\r\n") * 40 + b"0\r\n\r\n"
    yield post + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + large
    yield post + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n"
    yield b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: a\r\n" + head + b"\r\n"
    for body in (b"{", b"[1]", b"\xff\xfe", b"[" * 60_000, b'{"seed": ' + b"9" * 5000 + b"}", b'{"truncation": NaN}'):
        yield Request("POST", "/api/images", body).bytes(target.own)
    for query in ("count=1e9", "seed=-1", "classes=" + "9" * 5000, "truncation=inf", "a=b", "count=%00", "classes=%ff"):
        for path in ("grid.png", "images.zip", "images", "morph.png"):
            yield Request(path=f"/api/{path}?{query}").bytes(target.own)


def lies(target: Target) -> Iterator[bytes]:
    """What a proxy could say."""
    names = "X-Forwarded-Host X-Forwarded-Proto X-Forwarded-For Forwarded X-Original-URL X-Rewrite-URL"
    for name in names.split():
        for path in ("/", "/api", "/report"):
            yield Request(path=path, headers=((name, "/etc/passwd"),)).bytes(target.own)


def together(target: Target, requests: list[bytes], at_once: int) -> Counter:
    """The outcomes of requests of which so many are under way at a time."""
    with concurrent.futures.ThreadPoolExecutor(at_once) as clients:
        return Counter(clients.map(lambda text: outcome(target, text), requests))


def flood(path: str) -> Callable[[Target], Counter]:
    """1,000 requests at once, all sent before any answer is read."""

    def attack(target: Target) -> Counter:
        with contextlib.ExitStack() as stack:
            text = Request(path=path).bytes(target.own)
            return read_all(target, [stack.enter_context(target.connect(text)) for _ in range(1000)])

    return attack


def read_all(target: Target, connections: list[socket.socket]) -> Counter:
    """The outcomes of answers that are read at leisure."""

    def read(connection: socket.socket) -> str:
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except TimeoutError:
            return "hang"
        except ConnectionError:
            pass
        return judged(answer)

    with concurrent.futures.ThreadPoolExecutor(50) as readers:
        return Counter(readers.map(read, connections))


def silent(text: bytes, seconds: float = 2.0) -> Callable[[Target], Counter]:
    """250 connections that begin and do not go on; meanwhile an honest client asks."""

    def attack(target: Target) -> Counter:
        with contextlib.ExitStack() as stack:
            connections = [
                stack.enter_context(target.connect(text.replace(b"OWN", target.own.encode()))) for _ in range(250)
            ]
            deadline, found = time.monotonic() + seconds, Counter()
            while time.monotonic() < deadline:
                found[honest(target)] += 1
            return found + read_all(target, connections)

    return attack


def deaf(target: Target) -> Counter:
    """250 clients that ask for much and never read it; meanwhile an honest client asks."""
    with contextlib.ExitStack() as stack:
        text = Request(path="/api/images?count=256").bytes(target.own)
        for _ in range(250):
            stack.enter_context(target.connect(text))
        return Counter(honest(target) for _ in range(5))


def gone(target: Target) -> Counter:
    """500 clients that ask and leave; then an honest client asks."""
    for _ in range(500):
        target.connect(Request(path="/api/images?count=256").bytes(target.own)).close()
    return Counter(honest(target) for _ in range(5))


def honest(target: Target) -> str:
    """The outcome of a proper request, which may only be "survived"."""
    body = json.dumps({"classes": ["3"], "count": 2}).encode()
    found = outcome(target, Request("POST", "/api/images", body).bytes(target.own))
    return "hang" if found == "refused" else found


def ending(target: Target) -> Counter:
    """SIGTERM while a tab is open, a request unfinished and another being answered."""
    begun = f"POST /api/images HTTP/1.1\r\nHost: {target.own}\r\nContent-Length: 9\r\n".encode()
    work = Request(path="/api/images?count=256").bytes(target.own)
    with target.connect(), target.connect(begun), target.connect(work):
        time.sleep(0.1)
        began = time.monotonic()
        target.process.send_signal(signal.SIGTERM)
        try:
            code = target.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            return Counter(hang=1)
    is_well = code == 0 and time.monotonic() - began < _MOST_SECONDS
    return Counter(survived=1) if is_well else Counter(hang=1)


def of(requests: Callable[[Target], Iterator[bytes]]) -> Callable[[Target], Counter]:
    return lambda target: together(target, list(requests(target)), 8)


POST = b"POST /api/images HTTP/1.1\r\nHost: OWN\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
ATTACKS = {
    "paths to files": of(paths),
    "fields and events that name files": of(fields),
    "other hosts, origins, forms, preflights": of(strangers),
    "noise and wrong requests": of(noise),
    "lies of a proxy": of(lies),
    "250 silent connections": silent(b""),
    "250 unfinished headers": silent(b"GET / HTTP/1.1\r\nHost: OWN\r\n"),
    "250 unfinished bodies": silent(POST),
    "250 clients that do not read": deaf,
    "500 clients that leave": gone,
    "1,000 grids at once": flood("/api/grid.png?count=16"),
    "1,000 reports at once": flood("/report"),
    "SIGTERM in the midst": ending,
}


def main() -> int:
    """Prints the table; 1 where anything broke, hung or leaked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a regular expression: attacks whose names it finds")
    options = parser.parse_args()
    total = Counter()
    print("| attack | seconds | survived | refused in a line | traceback | hang | file leaked |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        target = Target(Path(folder))
        try:
            for name, attack in ATTACKS.items():
                if not re.search(options.only, name):
                    continue
                began, before = time.monotonic(), target.tracebacks()
                found = attack(target)
                seconds = time.monotonic() - began
                if target.process.poll() is None and honest(target) != "survived":
                    found["hang"] += 1
                found["traceback"] += target.tracebacks() - before
                total += found
                cells = " | ".join(str(found[outcome]) for outcome in OUTCOMES)
                print(f"| {name} | {seconds:.1f} | {cells} |", flush=True)
        finally:
            target.process.kill()
            target.process.wait()
    print(f"| all | | {' | '.join(str(total[outcome]) for outcome in OUTCOMES)} |")
    return int(any(total[outcome] for outcome in OUTCOMES[2:]))


if __name__ == "__main__":
    sys.exit(main())
