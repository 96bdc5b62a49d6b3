"""The HTTP side of `cgan serve`: a JSON interface and, around a Gradio page, what keeps strangers and floods out.

    GET  /api              what is served: classes, image size, limits, this list
    POST /api/images       {"classes": ["cat", 5], "count": 16, "seed": 0, "truncation": 0} -> PNGs in JSON
    GET  /api/grid.png     the same fields in the query (classes=cat,dog) -> one labelled picture
    GET  /api/images.zip   likewise -> an archive, CLASS/000000.png
    GET  /report           the training story, where a run is served

Wrong input is answered with status 400 and {"error": "one line"}, a full queue with 503.
"""

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from cgan_jax.errors import UsageError
from cgan_jax.serving.studio import Busy, Drawing, Studio

MOST_BYTES = 64 * 1024  # of a request's body
_LOCAL = ("127.0.0.1", "localhost", "[::1]")
_CLOSED = re.compile(r"(/gradio_api)?/(upload|proxy|file/|file=(?!/))")
"""Paths of Gradio that take files from a browser or fetch from elsewhere (`file=` of an address in place of a path):
nothing here needs them."""


def application(studio: Studio, story: Callable[[], str] | None = None) -> FastAPI:
    """The JSON interface of a studio; `story` writes the page of /report anew whenever that is asked for."""
    app = FastAPI(title="cgan_jax", docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(UsageError)
    def wrong(_: Request, error: UsageError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    @app.exception_handler(Busy)
    def busy(_: Request, error: Busy) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 503, {"Retry-After": "1"})

    @app.get("/api")
    def about() -> dict[str, Any]:
        limits = {"count": studio.MOST_IMAGES, "bytes": MOST_BYTES}
        return {**studio.about, "class_names": studio.class_names, "limits": limits, "interface": __doc__}

    @app.post("/api/images")
    async def images(request: Request) -> JSONResponse:
        given = _json_object(await request.body())
        drawing = await run_in_threadpool(lambda: studio.draw(studio.request(given)))
        return JSONResponse({"images": _described(studio, drawing)})

    @app.get("/api/grid.png")
    def grid(request: Request) -> Response:
        drawing = studio.draw(studio.request(_of_query(request.query_params)))
        return Response(studio.grid_png(studio, drawing), media_type="image/png")

    @app.get("/api/images.zip")
    def archive(request: Request) -> Response:
        drawing = studio.draw(studio.request(_of_query(request.query_params)))
        name = {"Content-Disposition": 'attachment; filename="images.zip"'}
        return Response(studio.images_zip(studio, drawing), media_type="application/zip", headers=name)

    if story is not None:

        @app.get("/report")
        def report() -> HTMLResponse:
            return HTMLResponse(story())

    return app


def _described(studio: Studio, drawing: Drawing) -> list[dict[str, Any]]:
    return [
        {"class": studio.class_names[label], "label": label, "png": base64.b64encode(studio.image_png(image)).decode()}
        for image, label in zip(drawing.images, drawing.labels.tolist(), strict=True)
    ]


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        given = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the body is not JSON: {str(error)[:100]}") from error
    if not isinstance(given, dict):
        raise UsageError('the body must be a JSON object, as in {"classes": ["cat"], "count": 16}')
    return given


def _of_query(query: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a request from text: numbers where a number is meant."""

    def number(name: str, kind: type) -> Any:
        try:
            return kind(query[name])
        except (ValueError, OverflowError):
            return query[name]  # whoever checks it says what it should have been

    kinds = {"count": int, "seed": int, "truncation": float}
    return {name: number(name, kinds[name]) if name in kinds else text for name, text in query.items()}


class Gate:
    """Around an ASGI application: own hosts alone, small bodies, closed doors.

    The Host header is checked because a page of another site can point its own name at this machine (DNS rebinding) and
    would then read what is served here as if it were its own.
    """

    def __init__(self, app: Callable, hosts: tuple[str, ...] = ()):
        self._app, self._hosts = app, {host.lower() for host in (*_LOCAL, *hosts)}

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope["path"], headers)
        if refusal is None and scope["type"] == "http":
            body = await _body(receive)
            if body is None:
                refusal = (413, f"a request's body may have {MOST_BYTES} bytes")
            else:
                receive = _replayed(body, receive)
        if refusal is not None:
            status, why = refusal
            await JSONResponse({"error": why}, status)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, path: str, headers: Mapping[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        name = host if host.endswith("]") or ":" not in host else host.rpartition(":")[0]
        if name.lower() not in self._hosts:
            return 421, f"this server does not answer for {host[:100]!r}; --allowed_hosts names those it does"
        if _CLOSED.match(path):
            return 403, "closed"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            return 413, f"a request's body may have {MOST_BYTES} bytes"
        return None


async def _body(receive: Callable) -> bytes | None:
    """The whole body, None where it is more than is allowed: its length need not be told beforehand."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body
        body += message.get("body", b"")
        if len(body) > MOST_BYTES:
            return None
        if not message.get("more_body"):
            return body


def _replayed(body: bytes, receive: Callable) -> Callable:
    """A `receive` that gives a body that has been read already, then what comes after it."""
    given = False

    async def again() -> dict[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
