"""The HTTP side: answers, refusals and the gate, against the application itself and against a real server."""

import base64
import concurrent.futures
import contextlib
import io
import json
import resource
import socket
import threading
import time
import urllib.request

import numpy as np
import pytest
from PIL import Image

from cgan_jax.serving.studio import Studio
from tests.browser import opened
from tests.serving.studio_test import NAMES, Painter

pytest.importorskip("gradio", reason="needs the extra [demo]")

from starlette.testclient import TestClient

from cgan_jax.serving import http, page


@pytest.fixture(scope="module")
def studio() -> Studio:
    return Studio(Painter(), {"run": "painted"})


@pytest.fixture(scope="module")
def client(studio) -> TestClient:
    return TestClient(http.Gate(http.application(studio)), base_url="http://localhost")


@pytest.fixture(scope="module")
def address(studio):
    """A real server with the page on a free port."""
    import uvicorn

    app = page.mount(http.application(studio, lambda: "<p>the story</p>"), page.build(studio, "painted", True))
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(http.Gate(app), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    with contextlib.closing(listening):
        while not server.started:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(30)


def image_of(answer: dict) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["png"]))))


def test_what_is_served_is_told(client):
    told = client.get("/api").json()
    assert told["run"] == "painted" and told["class_names"] == NAMES
    assert told["limits"] == {"count": 256, "bytes": 65536}


def test_images_come_as_json_as_a_grid_and_as_an_archive(client):
    answer = client.post("/api/images", json={"classes": ["5"], "count": 3, "seed": 7}).json()["images"]
    assert [(one["class"], one["label"]) for one in answer] == [("5", 2)] * 3
    assert [image_of(one)[0, 0].tolist() for one in answer] == [[2, i, 7] for i in range(3)]
    grid = client.get("/api/grid.png?classes=0,1&count=4&seed=1&truncation=0.5")
    assert grid.headers["content-type"] == "image/png" and grid.content.startswith(b"\x89PNG")
    archive = client.get("/api/images.zip?count=2")
    assert "attachment" in archive.headers["content-disposition"] and archive.content.startswith(b"PK")


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
    answer = client.post("/api/images", content=body)
    assert answer.status_code == 400
    assert message in answer.json()["error"] and "Traceback" not in answer.text
    assert client.post("/api/images", json={"count": 1}).status_code == 200


@pytest.mark.parametrize("query", ["count=many", "seed=1e400", "truncation=x", "classes=7", "size=4"])
def test_wrong_queries_are_answered_with_a_line(client, query):
    answer = client.get(f"/api/grid.png?{query}")
    assert answer.status_code == 400 and set(answer.json()) == {"error"}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::2]"])
def test_other_hosts_are_not_answered(client, host):
    answer = client.get("/api", headers={"host": host})
    assert answer.status_code == 421 and "--allowed_hosts" in answer.json()["error"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:7860", "[::1]", "[::1]:7860"])
def test_this_machine_is_answered(client, host):
    assert client.get("/api", headers={"host": host}).status_code == 200


def test_hosts_that_are_named_are_answered(studio):
    client = TestClient(http.Gate(http.application(studio), ("GAN.example",)), base_url="http://gan.example")
    assert client.get("/api").status_code == 200


def chunks(size: int):
    yield from (b" " * 1024 for _ in range(size // 1024))


@pytest.mark.parametrize("content", [b" " * 65537, chunks(66 * 1024)], ids=["told length", "untold length"])
def test_large_bodies_are_refused(client, content):
    assert client.post("/api/images", content=content).status_code == 413


@pytest.mark.parametrize("length", ["-1", "many", "1e3"])
def test_lengths_that_are_no_numbers_are_refused(client, length):
    assert client.post("/api/images", content=b"", headers={"content-length": length}).status_code == 413


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/upload",
        "/gradio_api/proxy=http://a.example",
        "/gradio_api/file=http://a.example/x.png",
        "/gradio_api/file=http%3A%2F%2Fa.example",
        "/gradio_api/file=%68ttps://a.example/x.png",
        "/gradio_api/file/http://a.example/x.png",
        "/file=https://a.example",
    ],
)
def test_doors_that_nobody_needs_are_closed(address, path):
    """By this server, before Gradio looks at what is behind them."""
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(address + path)
    assert raised.value.code == 403 and json.load(raised.value) == {"error": "closed"}


def test_the_interface_does_not_describe_itself_elsewhere(address):
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(address + "/docs")
    assert raised.value.code == 404


@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/self/environ", __file__])
def test_no_file_of_this_machine_is_given_out(address, path):
    for door in ("/gradio_api/file=", "/file="):
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(address + door + path)
        assert raised.value.code in (403, 404)


def ask(address: str, number: int) -> list[list[int]]:
    body = json.dumps({"classes": [number % 3], "count": 5, "seed": number}).encode()
    with urllib.request.urlopen(f"{address}/api/images", body) as answer:
        return [image_of(one)[0, 0].tolist() for one in json.load(answer)["images"]]


def test_200_requests_from_16_clients_are_all_answered_rightly_in_flat_memory(address):
    for number in range(20):
        ask(address, number)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with concurrent.futures.ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda number: ask(address, number), range(200)))
    assert answers == [[[number % 3, i, number % 256] for i in range(5)] for number in range(200)]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB, of 200 answers of 16 clients


def test_a_flood_is_answered_too(studio, address, monkeypatch):
    free, draw = threading.Event(), studio._model.images

    def slow(*given):
        free.wait(30)
        return draw(*given)

    def code(number: int) -> int:
        try:
            ask(address, number)
        except urllib.error.HTTPError as error:
            free.set()
            return error.code
        return 200

    monkeypatch.setattr(studio._model, "images", slow)
    with concurrent.futures.ThreadPoolExecutor(60) as clients:
        codes = list(clients.map(code, range(60)))
    assert codes.count(503) >= 1 and codes.count(200) >= 32 and len(codes) == codes.count(503) + codes.count(200)


@pytest.mark.slow  # a browser starts
def test_in_a_browser_a_person_draws_morphs_and_reads_the_story(address):
    with opened(address + "/") as page:
        drawn = page.locator("img[alt='16 generated images']")
        drawn.wait_for(timeout=30_000)
        first = drawn.get_attribute("src")
        page.get_by_label("cat", exact=True).click()
        page.get_by_label("seed", exact=True).fill("5")
        page.get_by_role("button", name="Draw").click()
        page.wait_for_function("before => document.querySelector('img[alt*=generated]').src !== before", arg=first)
        with page.expect_download() as download:
            page.get_by_role("link", name="PNG").click()
        assert Image.open(download.value.path()).size[1] == 2 * 66 + 2  # two classes are left
        page.get_by_label("seed", exact=True).fill("-3")
        page.get_by_role("button", name="Draw").click()
        page.get_by_role("alert").wait_for()
        assert "seed must be a whole number from 0" in page.get_by_role("alert").inner_text()
        page.get_by_role("tab", name="Morph").click()
        between = page.locator("img[alt='between the two']")
        half = between.get_attribute("src")
        page.get_by_label("to seed").fill("100")
        page.wait_for_function("before => document.querySelector('img[alt^=between]').src !== before", arg=half)
        page.get_by_role("tab", name="Training").click()
        assert page.frame_locator("iframe").get_by_text("the story").is_visible(timeout=10_000)
