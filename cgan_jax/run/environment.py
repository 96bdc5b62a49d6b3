"""The environment of a run: the versions, devices and command that its numbers depend on."""

import importlib.metadata
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from cgan_jax import __version__

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def describe(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """The versions, the devices and the command line of this process, or the program that calls the library.

    `argv` is sys.argv by default.
    """
    argv = sys.argv if argv is None else argv
    program = Path(argv[0]).name
    is_command = program in ("cgan", "__main__.py")
    devices = jax.devices()
    return {
        "command": shlex.join(["cgan", *argv[1:]]) if is_command else f"cgan_jax.train in {program}",
        "cgan_jax": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        "backend": jax.default_backend(),
        "devices": len(devices),
        "device_kind": devices[0].device_kind,
        "processes": jax.process_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }
