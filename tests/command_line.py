"""Runs of `cgan` for tests, in process or as real processes, on a recipe file that the test writes."""

import os
import subprocess
import sys
from pathlib import Path

from cgan_jax.__main__ import run


def write_recipe(folder: Path, recipe: dict) -> Path:
    path = folder / "recipe.py"
    path.write_text(
        f"from ml_collections import ConfigDict\n\n\ndef get_config():\n    return ConfigDict({recipe!r})\n"
    )
    return path


def cgan(*argv: object) -> int:
    """The exit code of a command line run in this process."""
    return run([str(argument) for argument in argv])


def start(*argv: object, devices: int = 1, program: str | None = None, **environment: str) -> subprocess.Popen:
    """A real process of `cgan`, or of a Python program in its place."""
    return subprocess.Popen(
        [sys.executable, *(["-m", "cgan_jax"] if program is None else ["-c", program]), *map(str, argv)],
        env={**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
