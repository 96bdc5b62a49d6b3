"""The environment of a run: the versions, devices and command that its numbers depend on."""

import importlib.metadata
import platform
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import jax

from cgan_jax import __version__

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def describe(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """The versions, the devices and the command line of this process. `argv` is sys.argv by default."""
    argv = sys.argv if argv is None else argv
    devices = jax.devices()
    return {
        "command": shlex.join(["cgan", *argv[1:]]),
        "cgan_jax": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        "backend": jax.default_backend(),
        "devices": len(devices),
        "device_kind": devices[0].device_kind,
        "processes": jax.process_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }
