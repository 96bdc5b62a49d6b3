"""Manifests: `integrity/<step>.json` holds the sha256 of every file of `checkpoints/<step>`.

orbax keeps no sum of what it writes: it restores a flipped bit without a word. A step whose files are what its manifest
says holds the numbers that were saved. In a bucket too every file is read back for that, once beside the training after
it was saved and once before it is restored.
"""

import contextlib
import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from cgan_jax.files import storage

FOLDER = "integrity"


class Manifest(NamedTuple):
    """What is known of a step once it has been written."""

    files: dict[str, str]
    """The sha256 of every file, by its path within the step's folder."""
    cost: float | None = None
    """What the best checkpoint has least of, where that was measured."""
    cost_of: str = ""
    """What was measured: costs of one name can be compared."""


def path_of(workdir: Path, step: int) -> Path:
    """Where the manifest of a step is."""
    return workdir / FOLDER / f"{step}.json"


def measure(folder: Path) -> dict[str, str]:
    """The sha256 of every file below `folder`, by its path within."""
    return {name: _sha256(folder / name) for name in storage.files_below(folder)}


def write(workdir: Path, step: int, manifest: Manifest) -> None:
    """A reader finds the old manifest or the new one, never a part."""
    path = path_of(workdir, step)
    storage.make_folder(path.parent)
    storage.write_whole(path, json.dumps(manifest._asdict(), indent=1) + "\n")


def read(workdir: Path, step: int) -> Manifest | None:
    """None where a step has no manifest, or none that can be read, which vouches for nothing either."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        manifest = Manifest(**json.loads(storage.read_text(path_of(workdir, step))))
        is_cost = manifest.cost is None or isinstance(manifest.cost, int | float)
        is_cost = is_cost and isinstance(manifest.cost_of, str)
        if isinstance(manifest.files, dict) and manifest.files and is_cost:
            return manifest
    return None


def damage(folder: Path, manifest: Manifest) -> str:
    """How the files of a step differ from its manifest, "" where they do not."""
    for name, sha256 in manifest.files.items():
        try:
            found = _sha256(folder / name)
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
        if found != sha256:
            return f"{name} is not what was saved"
    return ""


def prune(workdir: Path, steps: Collection[int]) -> None:
    """Deletes the manifests of all but these steps, and what a kill left of one that was being written."""
    for path in (workdir / FOLDER).glob("*"):
        if path.suffix == ".partial" or (path.stem.isdecimal() and int(path.stem) not in steps):
            path.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with storage.opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
