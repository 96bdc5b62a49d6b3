"""Serve a trained run as a web page and a JSON interface, on this machine alone unless told otherwise.

    cgan serve --workdir=runs/digits
    cgan serve --workdir=runs/digits --host=0.0.0.0 --allowed_hosts=gan.example.org

Needs the extra [demo] (pip install 'cgan_jax[demo]'). The page draws classes by name, morphs between two of them or
between two seeds, and tells the story of the training; GET /api says how programs ask. It works without any network.
Whoever can reach --host and names one of --allowed_hosts can draw images; there are no accounts.
"""

import importlib.util
import socket
from pathlib import Path

from absl import flags as absl_flags

from cgan_jax.errors import UsageError


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    absl_flags.DEFINE_string("workdir", None, "The folder of a run.", flag_values=flags)
    absl_flags.DEFINE_string(
        "step", None, "The checkpoint's generator step, or best; the latest if left out.", flag_values=flags
    )
    absl_flags.DEFINE_string("host", "127.0.0.1", "The address to listen on; 0.0.0.0 for all.", flag_values=flags)
    absl_flags.DEFINE_integer("port", 7860, "The port to listen on; 0 for any that is free.", flag_values=flags)
    absl_flags.DEFINE_list(
        "allowed_hosts", [], "Names besides localhost that browsers may call this server.", flag_values=flags
    )
    absl_flags.DEFINE_bool(
        "cache", True, "Do not keep compiled programs in $CGAN_CACHE_DIR (~/.cache/cgan_jax).", flag_values=flags
    )


def main(flags: absl_flags.FlagValues) -> None:
    if not flags.workdir:
        raise UsageError("--workdir=FOLDER is needed (see cgan serve --help)")
    if not 0 <= flags.port < 2**16:
        raise UsageError(f"--port must be 0 to {2**16 - 1}, given {flags.port}")
    if importlib.util.find_spec("gradio") is None:
        raise UsageError("cgan serve needs the extra [demo]: pip install 'cgan_jax[demo]'")
    listening = _listen(flags.host, flags.port)

    from cgan_jax import compilation_cache, report
    from cgan_jax.sampling import parse_step

    workdir = Path(flags.workdir)
    step = parse_step(flags.step)
    if flags.cache:
        compilation_cache.enable()
    studio = _studio(workdir, step)
    print("the model is compiled; the page is being built", flush=True)
    _serve(studio, listening, flags.host, flags.allowed_hosts, lambda: report.page([workdir]), workdir.resolve().name)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, before anything slow: an address in use is said at once."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise UsageError(f"--host={host} --port={port} cannot be listened on: {error.strerror}") from error
    return listening


def _studio(workdir: Path, step: int | str | None):
    from cgan_jax.sampling import Sampler
    from cgan_jax.serving import Studio

    sampler = Sampler(workdir, step, batch_size=16)
    recipe = sampler.info.recipe
    about = {"run": workdir.resolve().name, "step": sampler.step, "architecture": recipe["architecture"]}
    return Studio(sampler, recipe["dataset"]["conditional"], about)


def _serve(studio, listening: socket.socket, host: str, allowed_hosts: list[str], story, title: str) -> None:
    import uvicorn

    from cgan_jax import web, web_page

    app = web_page.mount(web.application(studio, story), web_page.build(studio, title, story is not None))
    named = () if host in ("0.0.0.0", "::") else (host,)
    config = uvicorn.Config(
        web.Gate(app, (*named, *allowed_hosts)), log_level="warning", limit_concurrency=200, timeout_keep_alive=30
    )
    shown = "127.0.0.1" if host == "0.0.0.0" else host
    print(f"serving {title} at http://{shown}:{listening.getsockname()[1]}/ (Ctrl-C ends)", flush=True)
    uvicorn.Server(config).run(sockets=[listening])
