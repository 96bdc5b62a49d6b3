"""How this process holds the memory that it has freed.

On a CPU, XLA asks the C library anew at every call for the buffers of a step. Blocks of their size glibc maps from the
system and gives back at once, so that each call pays for every page again: a page fault, and 4 KiB of zeros. In a
step of the digits recipe that was a quarter of the time (benchmarks/README.md).
"""

import ctypes
import os

# Names and numbers of glibc's malloc.h, and what they are set to.
_SETTINGS = {
    "mmap_max": (-4, 0),
    "trim_threshold": (-1, -1),  # never
    "top_pad": (-2, 64 << 20),  # bytes by which the heap grows
}


def keep_freed_memory() -> bool:
    """Lets freed memory stay with the process and be used again: its peak is what it was, but lasts until it ends.

    Does nothing where the environment has an opinion (`MALLOC_MMAP_MAX_`, `GLIBC_TUNABLES=glibc.malloc.mmap_max=...`
    and so on) or where the C library has no such settings (macOS, musl). Returns whether it was done.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if any(f"MALLOC_{name.upper()}_" in os.environ or f"glibc.malloc.{name}" in tunables for name in _SETTINGS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:
        return False
    return all([mallopt(number, value) for number, value in _SETTINGS.values()])  # 1 where glibc agrees
