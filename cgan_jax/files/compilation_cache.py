"""Compiled programs kept on disk, so that a second run of a command starts at once."""

import jax

from cgan_jax.files.cache import cache_folder


def enable() -> None:
    """Keeps compiled programs, separately for each version and backend. Does nothing if the folder is not writable."""
    try:
        folder = cache_folder() / "xla" / f"{jax.__version__}-{jax.default_backend()}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
