"""The process reuses freed memory, unless the user has set it otherwise."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, sys
from cgan_jax.heap import keep_freed_memory

done = keep_freed_memory() if sys.argv[1] == "keep" else None
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]


def touch(size):
    block = c.malloc(size)
    ctypes.memset(block, 1, size)
    c.free(block)


size = 48 << 20
touch(size)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    touch(size)
print(done, (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / (10 * size))
"""


def faults(argument: str, **environment: str) -> tuple[str, float]:
    """The answer of `keep_freed_memory`, and how often each byte of a freed block was mapped again."""
    command = [sys.executable, "-c", PROGRAM, argument]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    done, share = run.stdout.split()
    return done, float(share)


@pytest.fixture(autouse=True)
def glibc():
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("the C library is not glibc")


def test_freed_memory_is_used_again():
    done, share = faults("keep")
    assert done == "True"
    assert share < 0.05
    assert faults("leave")[1] > 0.5  # else this measures nothing


@pytest.mark.parametrize(
    "environment",
    [{"MALLOC_MMAP_MAX_": "7"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=7"}],
    ids=["MALLOC_", "GLIBC_TUNABLES"],
)
def test_who_has_set_the_allocator_keeps_it_so(environment):
    done, share = faults("keep", **environment)
    assert done == "False"
    assert share > 0.5


def test_huge_pages_go_along_with_it():
    assert faults("keep", GLIBC_TUNABLES="glibc.malloc.hugetlb=1")[0] == "True"
