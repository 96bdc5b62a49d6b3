"""The HTTP side of `cgan serve`: a page, a JSON interface, and what keeps strangers and floods out.

    GET  /api              what is served: classes, image size, limits, this list
    POST /api/images       {"classes": ["cat", 5], "count": 16, "seed": 0, "truncation": 0} -> PNGs in JSON
    GET  /api/images       the same fields in the query (classes=cat,dog) -> PNGs in JSON
    GET  /api/grid.png     likewise -> one labelled picture
    GET  /api/images.zip   likewise -> an archive, CLASS/000000.png
    GET  /api/morph.png    from_class, from_seed, to_class, to_seed, share (0 to 1) -> one image between two
    GET  /report           the training story, where a run is served

A POST has the content type application/json. Wrong input is answered with status 400 and {"error": "one line"}, a full
queue with 503 and Retry-After.
"""

import asyncio
import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cgan_jax.errors import UsageError
from cgan_jax.files.png import png
from cgan_jax.serving import page, story
from cgan_jax.serving.studio import MOST_IMAGES, Answer, Busy, Drawing, Queue, Studio, grid_png, images_zip

MOST_BYTES = 64 * 1024  # of a request's body
_LOCAL = ("127.0.0.1", "localhost", "[::1]")
_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "frame-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""What every answer says, unless it says something else under the same name."""


def application(
    studio: Studio, queue: Queue, files: Mapping[str, page.File], report: story.Story | None = None
) -> Callable:
    """The ASGI application of a studio, unguarded: its page's `files` by path, the JSON interface, the report."""
    desk = Desk(studio, queue, report)
    routes = [
        Route("/api", desk.about),
        Route("/api/images", desk.images, methods=["GET", "POST"]),
        Route("/api/grid.png", desk.grid),
        Route("/api/images.zip", desk.archive),
        Route("/api/morph.png", desk.morph),
        *(Route(path, _sending(file)) for path, file in files.items()),
        *([Route("/report", desk.report)] if report is not None else []),
    ]
    answers = {
        TooLarge: lambda _, error: _refused(413, str(error)),
        UsageError: lambda _, error: _refused(400, str(error)),
        Busy: lambda _, error: _refused(503, str(error), {"Retry-After": "2"}),
        ClientDisconnect: lambda *_: Response(status_code=400),  # to a client that is no longer there
        HTTPException: _not_here,
        Exception: lambda *_: _refused(500, "something is broken here; the server's own output says what"),
    }
    app = Starlette(routes=routes, exception_handlers=answers)
    app.router.redirect_slashes = False  # a redirect would repeat the Host header
    return app


class Json(JSONResponse):
    """JSON in ASCII: class names may hold lone surrogates, which UTF-8 cannot write."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode()


class Desk:
    """What answers each request. All work that takes time is done by the queue."""

    def __init__(self, studio: Studio, queue: Queue, report: story.Story | None):
        self._studio, self._queue, self._report = studio, queue, report

    async def about(self, _: Request) -> Response:
        """What is served."""
        limits = {"count": MOST_IMAGES, "bytes": MOST_BYTES}
        told = {**self._studio.about, "class_names": self._studio.class_names, "limits": limits, "interface": __doc__}
        return Json(told)

    async def images(self, request: Request) -> Response:
        """PNGs in JSON."""
        given = _json_object(await _body(request)) if request.method == "POST" else _of_query(request)
        content = await self._drawn(request, given, _described)
        return Response(content, media_type="application/json")

    async def grid(self, request: Request) -> Response:
        """One labelled picture."""
        return Response(await self._drawn(request, _of_query(request), grid_png), media_type="image/png")

    async def archive(self, request: Request) -> Response:
        """One file an image."""
        content = await self._drawn(request, _of_query(request), images_zip)
        name = {"Content-Disposition": 'attachment; filename="images.zip"'}
        return Response(content, media_type="application/zip", headers=name)

    async def morph(self, request: Request) -> Response:
        """One image between two."""
        way = self._studio.way(*_way_of(_of_query(request)))
        image = await self._turn(request, lambda: png(self._studio.between(way)))
        return Response(image, media_type="image/png")

    async def report(self, request: Request) -> Response:
        """The training story."""
        try:
            found = await self._turn(request, self._report.page)
        except OSError:
            return _refused(503, "the run's files cannot be read", {"Retry-After": "10"})
        headers = {"Content-Security-Policy": found.policy}
        return Response(found.content, media_type="text/html", headers=headers)

    async def _drawn(self, request: Request, given: Mapping[str, Any], encode: Callable[..., bytes]) -> bytes:
        asked = self._studio.request(given)
        return await self._turn(request, lambda: encode(self._studio, self._studio.draw(asked)))

    async def _turn(self, request: Request, work: Callable[[], Answer]) -> Answer:
        """What comes of `work`. Raises ClientDisconnect, and gives up the place in the queue, where the client goes."""
        working, leaving = asyncio.create_task(self._queue.run(work)), asyncio.create_task(_has_gone(request))
        try:
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise ClientDisconnect
        finally:
            working.cancel()
            leaving.cancel()


def _described(studio: Studio, drawing: Drawing) -> bytes:
    images = [
        {
            "class": studio.class_names[label],
            "label": label,
            "png": base64.b64encode(png(image)).decode(),
        }
        for image, label in zip(drawing.images, drawing.labels.tolist(), strict=True)
    ]
    return json.dumps({"images": images}).encode()


async def _has_gone(request: Request) -> None:
    """Returns when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _sending(file: page.File) -> Callable:
    async def send(_: Request) -> Response:
        return Response(file.content, media_type=file.kind, headers={"Cache-Control": "no-cache"})

    return send


def _refused(status: int, why: str, headers: Mapping[str, str] | None = None) -> Response:
    return Json({"error": why}, status, dict(headers or {}))


def _not_here(_: Request, error: HTTPException) -> Response:
    words = {404: "there is nothing at this address; GET /api says what there is", 405: "this address is not asked so"}
    return _refused(error.status_code, words.get(error.status_code, "refused"), error.headers)


async def _body(request: Request) -> bytes:
    """The whole body. Raises TooLarge, also where its length was not told beforehand."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise TooLarge
    return body


class TooLarge(UsageError):
    """A body of too many bytes."""

    def __init__(self) -> None:
        super().__init__(f"a request's body may have {MOST_BYTES} bytes")


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        given = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the body is not JSON: {str(error)[:100]}") from error
    if not isinstance(given, dict):
        raise UsageError('the body must be a JSON object, as in {"classes": ["cat"], "count": 16}')
    return given


def _of_query(request: Request) -> dict[str, Any]:
    """The fields of a request from its query: numbers where a number is meant."""
    kinds = {"count": int, "seed": int, "from_seed": int, "to_seed": int, "truncation": float, "share": float}

    def read(name: str, text: str) -> Any:
        try:
            return kinds[name](text) if name in kinds else text
        except (ValueError, OverflowError):
            return text  # what checks it says what it should have been

    return {name: read(name, text) for name, text in request.query_params.items()}


def _way_of(given: Mapping[str, Any]) -> tuple[tuple[dict[str, Any], dict[str, Any]], Any]:
    """Two ends and the share between them, as a studio takes them."""
    names = ("from_class", "from_seed", "to_class", "to_seed", "share")
    unknown = set(given) - set(names)
    if unknown:
        raise UsageError(f"unknown field {sorted(unknown)[0][:60]!r}; there are: {', '.join(names)}")
    start, end = (
        {name: given[f"{end}_{name}"] for name in ("class", "seed") if f"{end}_{name}" in given}
        for end in ("from", "to")
    )
    return (start, end), given.get("share", 0.5)


class Guard:
    """Around an ASGI application: own hosts alone, own pages alone, small bodies, careful headers.

    The Host header is checked because a page of another site can point its own name at this machine (DNS rebinding) and
    would then read what is served here as if it were its own.
    """

    def __init__(self, app: Callable, hosts: Sequence[str] = ()):
        """`hosts` are names of this server; those of this machine are known."""
        self._app, self._hosts = app, {host.lower() for host in (*_LOCAL, *hosts)}

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        begun = False

        async def careful(message: dict) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                told = {name.lower() for name, _ in message["headers"]}
                more = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *((name, value) for name, value in more if name not in told)]
            await send(message)

        refusal = self.refusal(scope)
        if refusal is not None:
            await _refused(*refusal)(scope, receive, careful)
            return
        try:
            await self._app(scope, receive, careful)
        except asyncio.CancelledError:  # the server ends, and has waited
            if not begun:
                await _refused(503, "the server is ending", {"Connection": "close"})(scope, receive, careful)

    def refusal(self, scope: dict) -> tuple[int, str] | None:
        """The status and the reason for which a request is not even looked at, None for one that is."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        host = ",".join(headers.get("host", [])).lower()
        name = host if host.endswith("]") or ":" not in host else host.rpartition(":")[0]
        if name not in self._hosts:
            return 421, "this server does not answer for that host; --allowed_hosts names those it does"
        # A server in front of this one may speak https with the reader and http with this one.
        own = {_without_default_port(f"{scheme}://{host}") for scheme in ("http", "https")}
        if any(_without_default_port(origin) not in own for origin in headers.get("origin", [])):
            return 403, "pages of other sites are not answered"
        sites = headers.get("sec-fetch-site", [])
        if any(site not in ("same-origin", "none") for site in sites) and not _is_visit(scope, headers):
            return 403, "pages of other sites are not answered"
        length = headers.get("content-length", ["0"])[0]
        if not length.isdecimal() or len(length) > 12 or int(length) > MOST_BYTES:
            return 413, f"a request's body may have {MOST_BYTES} bytes"
        kind = headers.get("content-type", [""])[0].partition(";")[0].strip().lower()
        if scope["method"] == "POST" and kind != "application/json":
            return 415, "a request's body is JSON: send Content-Type: application/json"
        return None


def _without_default_port(origin: str) -> str:
    return origin.removesuffix(":80" if origin.startswith("http:") else ":443")


def _is_visit(scope: dict, headers: Mapping[str, list[str]]) -> bool:
    """Whether a person has followed a link to a page, which shows it to that person and to no other site."""
    return (
        scope["method"] == "GET"
        and not scope["path"].startswith("/api")
        and headers.get("sec-fetch-mode") == ["navigate"]
        and headers.get("sec-fetch-dest") == ["document"]
    )
