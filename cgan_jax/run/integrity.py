"""Manifests: `integrity/<step>.json` holds the sha256 of every file of `checkpoints/<step>`.

orbax keeps no checksum: it restores a flipped bit without an error. A step whose files match its manifest holds the
numbers that were saved. Every file is read back twice, also from a bucket: in a thread after a save, and before a
restore.
"""

import contextlib
import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from cgan_jax.files import json_text, storage

FOLDER = "integrity"


class Manifest(NamedTuple):
    """The checksums of a step and, once it is evaluated, its cost."""

    files: dict[str, str]
    """The sha256 of every file, by its path in the step's folder."""
    cost: float | None = None
    """A score, lower is better; None if the step was not evaluated."""
    cost_of: str = ""
    """The name of the metric. Only costs of one metric can be compared."""


def path_of(workdir: Path, step: int) -> Path:
    """The path of the manifest of a step."""
    return workdir / FOLDER / f"{step}.json"


def measure(folder: Path) -> dict[str, str]:
    """The sha256 of every file below `folder`, by its path in it."""
    return {name: _sha256(folder / name) for name in storage.files_below(folder)}


def write(workdir: Path, step: int, manifest: Manifest) -> None:
    """Writes a manifest. A reader finds the old one or the new one, never a part."""
    path = path_of(workdir, step)
    storage.make_folder(path.parent)
    storage.write_whole(path, json_text.sealed(manifest._asdict(), indent=1) + "\n")


def read(workdir: Path, step: int) -> Manifest | None:
    """The manifest of a step, or None if it is missing or cannot be read."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        manifest = Manifest(**json_text.unsealed(storage.read_text(path_of(workdir, step)))[0])
        is_cost = manifest.cost is None or isinstance(manifest.cost, int | float)
        is_cost = is_cost and isinstance(manifest.cost_of, str)
        if isinstance(manifest.files, dict) and manifest.files and is_cost:
            return manifest
    return None


def damage(folder: Path, manifest: Manifest) -> str:
    """How the files of a step differ from its manifest, "" if they do not."""
    for name, sha256 in manifest.files.items():
        try:
            found = _sha256(folder / name)
        except FileNotFoundError:
            return f"{name} is missing"
        except (OSError, ValueError) as error:  # ValueError for a name that no file can have
            return f"{name} cannot be read: {storage.reason(error)}"
        if found != sha256:
            return f"{name} is not what was saved"
    return ""


def prune(workdir: Path, steps: Collection[int]) -> None:
    """Deletes the manifests of all steps but these, and partial ones that a kill left."""
    for path in (workdir / FOLDER).glob("*"):
        if path.suffix == ".partial" or (path.stem.isdecimal() and int(path.stem) not in steps):
            path.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with storage.opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
