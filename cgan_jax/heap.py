"""Keeps freed memory in this process, which makes steps on a CPU faster.

On a CPU, XLA asks the C library for the buffers of a step at every call. glibc maps blocks of their size from the
system and returns them at once. So each call pays for every page again: a page fault, and 4 KiB of zeros. In a step of
the digits recipe that was a quarter of the time (docs/measurements.md).
"""

import ctypes
import os

# name: (number in glibc's malloc.h, value)
_SETTINGS = {
    "mmap_max": (-4, 0),
    "trim_threshold": (-1, -1),  # never
    "top_pad": (-2, 64 << 20),  # bytes by which the heap grows
}


def keep_freed_memory() -> bool:
    """Makes the C library keep freed memory and reuse it. Returns whether it does.

    The peak of memory does not change, but lasts until the process ends. Nothing is set if the environment sets one of
    these values (`MALLOC_MMAP_MAX_`, `GLIBC_TUNABLES=glibc.malloc.mmap_max=...` and so on), or if the C library has no
    such settings (macOS, musl).
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if any(f"MALLOC_{name.upper()}_" in os.environ or f"glibc.malloc.{name}" in tunables for name in _SETTINGS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:
        return False
    return all([mallopt(number, value) for number, value in _SETTINGS.values()])  # mallopt returns 1 for success
