"""The folder of what can be computed or fetched again: compiled programs, published weights."""

import os
from pathlib import Path


def cache_path() -> Path:
    """$CGAN_CACHE_DIR, else ~/.cache/cgan_jax, whether it is there or not."""
    return Path(os.environ.get("CGAN_CACHE_DIR") or Path.home() / ".cache" / "cgan_jax")


def cache_folder() -> Path:
    """The folder itself, made if need be, for its owner alone. Raises OSError where it cannot be."""
    folder = cache_path()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
