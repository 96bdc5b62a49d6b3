"""The cache folder, of files that can be computed or fetched again: compiled programs, published weights."""

import os
from pathlib import Path


def cache_path() -> Path:
    """$CGAN_CACHE_DIR, else ~/.cache/cgan_jax; the folder need not exist."""
    return Path(os.environ.get("CGAN_CACHE_DIR") or Path.home() / ".cache" / "cgan_jax")


def cache_folder() -> Path:
    """The cache folder, made if needed, readable by its owner alone. Raises OSError."""
    folder = cache_path()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
