"""cgan_jax: class-conditional image GANs in JAX. Imports nothing heavy, so that `cgan --help` answers at once."""

import time

__version__ = "0.1.0"
STARTED = time.perf_counter()
"""When this program began, but for Python's own start: by time.perf_counter()."""
