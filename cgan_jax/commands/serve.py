"""Serve a trained model as a web page and a JSON interface.

    cgan serve --model=digits
    cgan serve --workdir=runs/digits
    cgan serve --model=digits.cgan --host=0.0.0.0 --allowed_hosts=gan.example.org

Needs the extra [demo] (pip install 'cgan_jax[demo]'). The page draws classes by name, morphs between two of them or
between two seeds, and tells the story of the training; GET /api says how programs ask. It works without any network.
No file can be sent to it or asked of it. All who can reach --host may draw images; there are no accounts. Ctrl-C or
SIGTERM ends it within 3 seconds, with exit code 0.
"""

import contextlib
import importlib.util
import os
import signal
import socket
import sys
from pathlib import Path

from absl import flags as absl_flags

from cgan_jax.commands import _flags, _model_flags
from cgan_jax.errors import UsageError
from cgan_jax.files import storage


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    _model_flags.define(flags)
    _flags.define(flags, "ema")
    absl_flags.DEFINE_string(
        "step", None, "The checkpoint's generator step, or best; the latest if left out.", flag_values=flags
    )
    absl_flags.DEFINE_string("host", "127.0.0.1", "The address to listen on; 0.0.0.0 for all.", flag_values=flags)
    absl_flags.DEFINE_integer("port", 7860, "The port to listen on; 0 for any that is free.", flag_values=flags)
    absl_flags.DEFINE_list(
        "allowed_hosts", [], "More names, next to localhost, that browsers may call this server.", flag_values=flags
    )
    absl_flags.DEFINE_bool(
        "cache", True, "Do not keep compiled programs in $CGAN_CACHE_DIR (~/.cache/cgan_jax).", flag_values=flags
    )


def main(flags: absl_flags.FlagValues) -> None:
    place = _model_flags.given(flags)
    _flags.need("serve", {_model_flags.WORDS: place})
    if not 0 <= flags.port < 2**16:
        raise UsageError(f"--port must be 0 to {2**16 - 1}, given {flags.port}")
    if None in map(importlib.util.find_spec, ("starlette", "uvicorn")):
        raise UsageError("cgan serve needs the extra [demo]: pip install 'cgan_jax[demo]'")
    with contextlib.closing(_listen(flags.host, flags.port)) as listening:
        if flags.cache:
            from cgan_jax.files import compilation_cache

            compilation_cache.enable()
        _serve(place, listening, flags)


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket, before anything slow: an address in use is said at once."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise UsageError(f"--host={host} --port={port} cannot be listened on: {error.strerror}") from error
    return listening


def _serve(place: Path, listening: socket.socket, flags: absl_flags.FlagValues) -> None:
    from cgan_jax.run import report
    from cgan_jax.sampling import trained
    from cgan_jax.sampling.request import parse_step
    from cgan_jax.serving import connections, http, models, page, story, studio

    model = models.Served(place, parse_step(flags.step), flags.ema)
    drawer, queue = studio.Studio(model, model.about), studio.Queue()
    is_file = trained.is_exported(place)
    title = place.stem if is_file else storage.resolved(place).name
    training = None if is_file else story.Story(place, lambda: report.page([place]))
    told = {"conditional": drawer.conditional, "has_report": training is not None, "most_images": studio.MOST_IMAGES}
    files = page.build(title, drawer.about, drawer.class_names, **told)
    is_everywhere = flags.host in ("0.0.0.0", "::")
    hosts = (*(() if is_everywhere else (_in_address(flags.host),)), *flags.allowed_hosts)
    app = http.Guard(http.application(drawer, queue, files, training), hosts)
    server = connections.server(app, http.HEADERS)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, server.handle_exit)
    where = f"http://{'127.0.0.1' if is_everywhere else _in_address(flags.host)}:{listening.getsockname()[1]}/"
    listening.listen()  # before it is told: what comes early waits
    print(f"serving {title} at {where} (Ctrl-C ends)", flush=True)
    server.run(sockets=[listening])
    _end(queue)


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _end(queue) -> None:
    """Ends the process at once. Nothing is to be saved; Python's own end takes a second, and waits for a drawing."""
    queue.close()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)
