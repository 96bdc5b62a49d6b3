"""The HTTP side over real sockets: answers, refusals, headers, floods, and that no file can be had."""

import base64
import concurrent.futures
import contextlib
import http.client
import io
import itertools
import json
import resource
import socket
import threading
import time
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from cgan_jax.serving import studio as studios
from cgan_jax.serving.story import Page
from cgan_jax.serving.studio import Queue, Studio
from tests.browser import opened
from tests.serving.studio_test import NAMES, Painter

pytest.importorskip("starlette", reason="needs the extra [demo]")
pytest.importorskip("uvicorn", reason="needs the extra [demo]")

from cgan_jax.serving import connections, page
from cgan_jax.serving import http as web

JSON = {"Content-Type": "application/json"}


class Story:
    """A report that changes each time it is asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def page(self) -> Page:
        self.asked += 1
        return Page(b"<!doctype html><title>r</title><p>the story", "default-src 'none'; frame-ancestors 'self'")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def told(self) -> Any:
        return json.loads(self.content)


class Client:
    """Asks a server, by default as a program on this machine does."""

    def __init__(self, port: int):
        self.port = port
        self.address = f"http://127.0.0.1:{port}"

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(connection):
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, given: Any) -> Answer:
        return self.ask("POST", "/api/images", given if isinstance(given, bytes) else json.dumps(given), **JSON)


@contextlib.contextmanager
def served(studio: Studio, queue: Queue | None = None, limits=None, hosts=(), report=None):
    """A real server with the page on a free port."""
    told = {"conditional": studio.conditional, "has_report": report is not None, "most_images": 256}
    files = page.build("painted", studio.about, studio.class_names, **told)
    app = web.Guard(web.application(studio, queue or Queue(), files, report), hosts)
    server = connections.server(app, web.HEADERS, limits)
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    with contextlib.closing(listening):
        while not server.started:
            time.sleep(0.01)
        try:
            yield Client(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(30)


@pytest.fixture(scope="module")
def studio() -> Studio:
    return Studio(Painter(), {"run": "painted", "step": 7})


@pytest.fixture(scope="module")
def client(studio):
    with served(studio, report=Story(), hosts=("GAN.example",)) as client:
        yield client


def image_of(answer: dict) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["png"]))))


def test_what_is_served_is_told(client):
    told = client.get("/api").told
    assert told["run"] == "painted" and told["class_names"] == NAMES
    assert told["limits"] == {"count": 256, "bytes": 65536}
    assert "POST /api/images" in told["interface"]


def test_images_come_as_json_as_a_grid_and_as_an_archive(client):
    answer = client.post({"classes": ["5"], "count": 3, "seed": 7}).told["images"]
    assert [(one["class"], one["label"]) for one in answer] == [("5", 2)] * 3
    assert [image_of(one)[0, 0].tolist() for one in answer] == [[2, i, 7] for i in range(3)]
    assert client.get("/api/images?classes=2&count=3&seed=7").told["images"] == answer
    grid = client.get("/api/grid.png?classes=0,1&count=4&seed=1&truncation=0.5")
    assert grid.headers["content-type"] == "image/png" and grid.content.startswith(b"\x89PNG")
    archive = client.get("/api/images.zip?count=2")
    assert "attachment" in archive.headers["content-disposition"] and archive.content.startswith(b"PK")


def test_a_morph_is_one_image_between_two(client):
    query = "from_class=cat&from_seed=10&to_class=dog%2C+wet&to_seed=20&share=0.5"
    answer = client.get(f"/api/morph.png?{query}")
    assert answer.headers["content-type"] == "image/png"
    assert np.asarray(Image.open(io.BytesIO(answer.content)))[0, 0].tolist() == [0, 15, 0]
    assert client.get("/api/morph.png").status == 200
    for wrong in ("share=2", "share=x", "from_class=bird", "to_seed=-1", "path=a"):
        assert client.get(f"/api/morph.png?{wrong}").status == 400


@pytest.mark.parametrize(
    "body, message",
    [
        (b"{", "the body is not JSON"),
        (b"[1]", "must be a JSON object"),
        (b"\xff\xfe", "the body is not JSON"),
        (b"[" * 60_000, "the body is not JSON"),
        (b'{"count": 1000000}', "from 1 to 256, given 1000000"),
        (b'{"seed": -1}', "seed must be"),
        (b'{"seed": ' + b"9" * 5000 + b"}", ""),
        (b'{"truncation": NaN}', "given nan"),
        (b'{"classes": ["bird"]}', "unknown class 'bird'"),
        (b'{"classes": "' + b"9" * 5000 + b'"}', "unknown class"),
    ],
)
def test_wrong_input_is_answered_with_a_line(client, body, message):
    answer = client.post(body)
    assert answer.status == 400
    assert message in answer.told["error"] and b"Traceback" not in answer.content
    assert client.post({"count": 1}).status == 200


@pytest.mark.parametrize("query", ["count=many", "seed=1e400", "truncation=x", "classes=7", "size=4"])
def test_wrong_queries_are_answered_with_a_line(client, query):
    answer = client.get(f"/api/grid.png?{query}")
    assert answer.status == 400 and set(answer.told) == {"error"}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::2]"])
def test_other_hosts_are_not_answered(client, host):
    for path in ("/", "/api", "/report", "/page.js"):
        answer = client.get(path, Host=host)
        assert answer.status == 421 and "--allowed_hosts" in answer.told["error"]
        assert not host or host.encode() not in answer.content


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:7860", "[::1]", "[::1]:7860", "gan.example"])
def test_own_names_are_answered(client, host):
    assert client.get("/api", Host=host).status == 200


def chunks(size: int):
    yield from (b" " * 1024 for _ in range(size // 1024))


@pytest.mark.parametrize("content", [b" " * 65537, chunks(66 * 1024)], ids=["told length", "untold length"])
def test_large_bodies_are_refused(client, content):
    assert client.ask("POST", "/api/images", content, **JSON).status == 413


@pytest.mark.parametrize("length", ["-1", "many", "1e3", "9" * 30])
def test_lengths_that_are_no_numbers_are_refused(client, length):
    answer = client.ask("POST", "/api/images", **JSON, Content_Length=length)
    assert answer.status in (400, 413) and answer.headers["x-content-type-options"] == "nosniff"


ORIGINS = """
http://evil.example null https://127.0.0.1 http://127.0.0.1 http://127.0.0.1:1 http://localhost:{port} file://
http://127.0.0.1:{port}.evil.example http://127.0.0.1:{port}/ http://evil.example@127.0.0.1:{port}
"""


@pytest.mark.parametrize("origin", ["", *ORIGINS.split()])
def test_pages_of_other_origins_are_not_answered(client, origin):
    origin = origin.format(port=client.port)
    for method, path in (("POST", "/api/images"), ("GET", "/api"), ("GET", "/"), ("GET", "/report")):
        answer = client.ask(method, path, b"{}" if method == "POST" else None, **JSON, Origin=origin)
        assert answer.status == 403 and not any(name.startswith("access-control") for name in answer.headers)


def test_the_own_page_is_answered(client):
    for site in ("same-origin", "none"):
        answer = client.ask("POST", "/api/images", b"{}", **JSON, Origin=client.address, Sec_Fetch_Site=site)
        assert answer.status == 200
    assert client.get("/api", Host="gan.example:80", Origin="http://gan.example").status == 200
    behind_https = {"Host": "gan.example", "Origin": "https://gan.example"}
    assert client.ask("POST", "/api/images", b"{}", **JSON, **behind_https).status == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "something"])
def test_other_sites_may_send_a_person_to_a_page_and_ask_for_nothing(client, site):
    visit = {"Sec_Fetch_Site": site, "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert client.get("/", **visit).status == 200 and client.get("/report", **visit).status == 200
    assert client.get("/api", **visit).status == client.get("/api/grid.png", **visit).status == 403
    framed = visit | {"Sec_Fetch_Dest": "iframe"}
    assert client.get("/", **framed).status == client.get("/page.js", Sec_Fetch_Site=site).status == 403


@pytest.mark.parametrize("path", ["/", "/api", "/api/images", "/report", "/nothing"])
def test_a_preflight_is_given_no_permission(client, path):
    named = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "content-type"}
    for origin in ("http://evil.example", client.address):
        answer = client.ask("OPTIONS", path, **named, Origin=origin)
        assert answer.status in (403, 404, 405)
        assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json"])
def test_a_body_that_a_form_could_send_is_refused(client, kind):
    headers = {"Content_Type": kind} if kind else {}
    assert client.ask("POST", "/api/images", b"{}", **headers).status == 415
    assert client.ask("POST", "/api/images", b"{}", Content_Type="Application/JSON; charset=utf-8").status == 200


SECRET = "a secret that lies in a file"
DOORS = """
/{} /file={} /gradio_api/file={} /gradio_api/file/{} /gradio_api/proxy={} /proxy={} /page.js/{} /page.js?path={}
/api/{} /static/{} /report/{} //{} /..{} /../..{} /%2e%2e/%2e%2e{} /..%2f..%2f{} /.%00./{} /page.js/../..{}
/cgan_jax/serving/{} /file/{}
"""


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    path = tmp_path_factory.mktemp("secret") / "secret.txt"
    path.write_text(SECRET)
    return path


def spelled(path: str) -> list[str]:
    """A path, the same percent-encoded once and twice, and as an address."""
    once = "".join(f"%{ord(letter):02x}" for letter in path)
    return [path, once, once.replace("%", "%25"), f"file://{path}", f"http://127.0.0.1{path}"]


@pytest.mark.parametrize("door", DOORS.split())
def test_no_path_is_a_way_to_a_file(client, secret, door):
    for path in itertools.chain(*map(spelled, (str(secret), "/etc/passwd", "/proc/self/environ"))):
        answer = client.get(door.format(path))
        if door.startswith("/page.js?"):
            assert answer.content == client.get("/page.js").content
            continue
        assert answer.status in (400, 404) and set(answer.told) == {"error"}
        assert SECRET.encode() not in answer.content and b"root:" not in answer.content


def carried(path: str) -> list[Any]:
    """What once made a server copy a file: plain, listed, nested, with its marks and without."""
    data = {"path": path, "meta": {"_type": "gradio.FileData"}}
    url = {"path": path, "url": f"file://{path}", "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}
    return [data, url, [data], {"value": data}, {"value": [{"a": [data]}]}, path, f"file://{path}", [path, data]]


def test_no_field_is_a_way_to_a_file(client, secret):
    for given in itertools.chain(*map(carried, (str(secret), "/etc/passwd"))):
        fields = [{name: given} for name in ("classes", "count", "seed", "truncation", "data")]
        for body in (given, {"classes": [given]}, *fields):
            answer = client.post(body)
            assert answer.status == 400 and SECRET.encode() not in answer.content and b"root:" not in answer.content


OTHER_DOORS = """
/queue/join /queue/data?session_hash=a /run/predict /call/predict /upload /api/predict /config /info /component_server
/stream/a/b/c/playlist.m3u8 /cancel /reset /heartbeat/a /startup-events /login_check /theme.css /robots.txt /mcp/
/openapi.json /docs /redoc /static/js/a.js
"""


@pytest.mark.parametrize("prefix", ["/gradio_api", ""])
@pytest.mark.parametrize("door", OTHER_DOORS.split())
def test_doors_of_other_servers_are_not_here(client, secret, prefix, door):
    body = json.dumps({"data": carried(str(secret)), "fn_index": 0, "session_hash": "a"})
    for method in ("GET", "POST", "PUT", "DELETE"):
        answer = client.ask(method, prefix + door, body if method != "GET" else None, **JSON)
        assert answer.status in (404, 405) and set(answer.told) == {"error"} and SECRET.encode() not in answer.content


FILES = ["/", "/page.js", "/page.css"]
ELSEWHERE = """
/api /api/grid.png /api/morph.png /api/images.zip /nothing /api/grid.png?count=x /api/images/ /report
"""
LIES = {
    "X_Forwarded_Host": "evil.example",
    "Forwarded": "host=evil.example",
    "X_Forwarded_Proto": "https",
    "X_Forwarded_Prefix": "/evil.example",
    "X_Original_URL": "/evil.example",
    "Referer": "http://evil.example/",
}


@pytest.mark.parametrize("path", [*FILES, *ELSEWHERE.split()])
def test_every_answer_has_careful_headers_and_believes_no_proxy(client, path):
    for answer in (client.get(path, **LIES), client.ask("DELETE", path), client.get(path, Host="evil.example")):
        assert b"evil.example" not in answer.content and "evil.example" not in str(answer.headers)
        assert "server" not in answer.headers and "location" not in answer.headers
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "frame-ancestors '" in policy and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        is_file = answer.status == 200 and path in FILES
        assert answer.headers["cache-control"] == ("no-cache" if is_file else "no-store")


def test_a_bug_is_told_to_no_client(studio, monkeypatch):
    with served(studio) as client:
        monkeypatch.setattr(studio._model, "images", lambda *_: 1 / 0)
        answer = client.get("/api/grid.png")
        assert answer.status == 500 and "zero" not in answer.told["error"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_no_report_is_there_where_there_is_no_run(studio, client):
    assert b"the story" in client.get("/report").content
    with served(studio) as other:
        assert other.get("/report").status == 404


def answer_to(client: Client, number: int) -> list[list[int]]:
    given = client.post({"classes": [number % 3], "count": 5, "seed": number})
    return [image_of(one)[0, 0].tolist() for one in given.told["images"]]


def test_200_requests_from_16_clients_are_all_answered_rightly_in_flat_memory(client):
    for number in range(20):
        answer_to(client, number)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with concurrent.futures.ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda number: answer_to(client, number), range(200)))
    assert answers == [[[number % 3, i, number % 256] for i in range(5)] for number in range(200)]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB, of 200 answers of 16 clients


def slowly(studio: Studio, monkeypatch) -> threading.Event:
    """Lets the model draw only once the event is set."""
    free, draw = threading.Event(), studio._model.images

    def slow(*given):
        free.wait(30)
        return draw(*given)

    monkeypatch.setattr(studio._model, "images", slow)
    return free


def test_a_flood_is_answered_too(studio, monkeypatch):
    free = slowly(studio, monkeypatch)
    codes: list[int] = []

    def ask(number: int) -> None:
        answer = client.post({"count": 1})
        codes.append(answer.status)
        if answer.status == 503:
            assert answer.headers["retry-after"] == "2" and "are waiting already" in answer.told["error"]
            free.set()

    with served(studio, Queue(most_waiting=20)) as client, concurrent.futures.ThreadPoolExecutor(60) as clients:
        list(clients.map(ask, range(60)))
    assert codes.count(503) >= 1 and codes.count(200) >= 20 and codes.count(503) + codes.count(200) == 60


def test_while_hundreds_wait_the_page_is_there(studio, monkeypatch):
    free = slowly(studio, monkeypatch)
    before = threading.active_count()
    with served(studio) as client, contextlib.ExitStack() as stack:
        for _ in range(300):
            waiting = stack.enter_context(socket.create_connection(("127.0.0.1", client.port)))
            waiting.sendall(b"GET /api/grid.png HTTP/1.1\r\nHost: localhost\r\n\r\n")
        began = time.monotonic()
        assert client.get("/").status == client.get("/api").status == 200
        assert time.monotonic() - began < 5 and threading.active_count() - before < 5
        free.set()
        waiting.settimeout(60)
        assert waiting.recv(12) == b"HTTP/1.1 200"


def test_what_nobody_waits_for_any_longer_is_not_drawn(studio, monkeypatch):
    free = slowly(studio, monkeypatch)
    with served(studio, Queue(most_waiting=5)) as client:
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", client.port)) as leaving:
                leaving.sendall(b"GET /api/grid.png HTTP/1.1\r\nHost: localhost\r\n\r\n")
                time.sleep(0.005)
        drawn, draw = [], studio._model.images
        monkeypatch.setattr(studio._model, "images", lambda *given: drawn.append(1) or draw(*given))
        free.set()
        assert client.get("/api/grid.png?count=1").status == 200
    assert len(drawn) <= 2


def test_waiting_ends(studio, monkeypatch):
    free = slowly(studio, monkeypatch)
    with served(studio, Queue(patience=0.1)) as client, concurrent.futures.ThreadPoolExecutor(2) as clients:
        first = clients.submit(client.get, "/api/grid.png")
        time.sleep(0.05)
        answer = client.get("/api/grid.png")
        assert answer.status == 503 and "no turn came" in answer.told["error"] and "retry-after" in answer.headers
        free.set()
        assert first.result().status == 200


@pytest.mark.slow  # a browser starts
def test_in_a_browser_a_person_draws_morphs_and_reads_the_story(client):
    with opened(client.address + "/") as page:
        page.locator("#pictures img").first.wait_for(timeout=30_000)
        first = page.locator("#pictures").inner_html()
        assert page.locator("#pictures h2").all_inner_texts() == NAMES
        page.get_by_label("cat", exact=True).uncheck()
        page.get_by_label("Seed", exact=True).fill("5")
        page.get_by_role("button", name="Draw", exact=True).click()
        page.wait_for_function("before => document.getElementById('pictures').innerHTML !== before", arg=first)
        assert page.locator("#pictures h2").all_inner_texts() == NAMES[1:]
        with page.expect_download() as download:
            page.get_by_role("link", name="PNG").click()
        assert Image.open(download.value.path()).size[1] == 2 * 66 + 2  # two classes are left
        page.get_by_label("Seed", exact=True).fill("-3")
        page.get_by_role("button", name="Draw", exact=True).click()
        page.get_by_role("alert").wait_for()
        assert "must be a whole number from 0" in page.get_by_role("alert").inner_text()
        page.get_by_role("button", name="None").click()
        page.get_by_label("Seed", exact=True).fill("3")
        page.get_by_label("Seed", exact=True).press("Enter")
        page.get_by_text("Pick at least one class").wait_for()
        page.get_by_role("tab", name="Draw").focus()
        page.keyboard.press("ArrowRight")
        between = page.locator("#between[src^=blob]")
        between.wait_for()
        half = between.get_attribute("src")
        page.get_by_label("To seed").fill("100")
        page.wait_for_function("before => document.getElementById('between').src !== before", arg=half)
        page.get_by_role("button", name="Play").click()
        page.wait_for_function("() => document.getElementById('share').value === '40'")
        page.get_by_role("button", name="Stop").click()
        page.get_by_role("tab", name="Training").click()
        page.frame_locator("iframe").get_by_text("the story").wait_for(timeout=10_000)


@pytest.mark.slow  # a browser starts
def test_in_a_browser_a_class_whose_name_is_a_number_is_drawn_by_its_name():
    painter = Painter()
    painter.class_names = ["1", "2", "3"]
    with served(Studio(painter, {})) as client, opened(client.address + "/") as page:
        page.locator("#pictures img").first.wait_for(timeout=30_000)
        assert page.locator("#pictures h2").all_inner_texts() == ["1", "2", "3"]
        page.get_by_role("button", name="None").click()
        page.get_by_label("2", exact=True).check()
        page.get_by_role("button", name="Draw", exact=True).click()
        page.wait_for_function("() => document.querySelectorAll('#pictures h2').length === 1")
        assert page.locator("#pictures h2").all_inner_texts() == ["2"]
        page.get_by_role("tab", name="Morph").click()
        with page.expect_response(lambda answer: "to_class=%232" in answer.url) as answer:
            page.get_by_label("To class").select_option(label="3")
        assert answer.value.status == 200


@pytest.mark.slow  # a browser starts
def test_class_names_are_text_in_the_page(monkeypatch):
    painter = Painter()
    painter.class_names = ["<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "a & b"]
    with served(Studio(painter, {})) as client, opened(client.address + "/") as page:
        page.locator("#pictures img").first.wait_for(timeout=30_000)
        assert page.locator("#pictures h2").all_inner_texts() == painter.class_names


def test_the_names_of_the_limits_are_todays():
    assert studios.MOST_WAITING >= 300 and studios.PATIENCE == 20
