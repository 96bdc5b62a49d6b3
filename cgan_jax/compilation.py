"""`jax.jit` with the compiler options that suit the devices.

XLA for CPUs leaves convolutions to one of two libraries. The one that it prefers, YNNPACK, computes those of up to 64
channels in one thread, and is slower for the others too. Eigen uses all cores. In ms on two, float32, YNNPACK -> Eigen:
3x3 from 64 to 64 channels, 32 images of 16x16: 2.6 -> 1.6; from 256 to 256, 8x8: 6.1 -> 5.2; 5x5 of stride 2 from 128
to 128, 64 images of 16x16: 11.0 -> 7.8 (an EPYC with AVX-512, jax 0.10.2, 2026-11-27). Products of matrices stay with
YNNPACK: neither library was faster in all tries.
"""

import functools
import os
from collections.abc import Callable, Mapping

import jax

_LIBRARY = "xla_cpu_experimental_ynn_fusion_type"
_PRODUCTS_ALONE = {_LIBRARY: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}


def jit(function: Callable, platform: str | None = None, **settings) -> Callable:
    """`jax.jit` with `options(platform)`, by default the platform of the default devices.

    Inside another compiled function, that one's options count.
    """
    chosen = options(platform or jax.default_backend())
    compiled = jax.jit(function, compiler_options=chosen, **settings)
    return compiled if chosen is None else _WithOptions(compiled, jax.jit(function, **settings))


class _WithOptions:
    """A function compiled with options, and without them for use inside another, where jax accepts none."""

    def __init__(self, compiled: Callable, inner: Callable):
        self._compiled, self._inner = compiled, inner

    def __call__(self, *arguments):
        is_inside = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments))
        return (self._inner if is_inside else self._compiled)(*arguments)

    def lower(self, *arguments) -> jax.stages.Lowered:
        """As `lower` of jax.jit's functions."""
        return self._compiled.lower(*arguments)


@functools.cache
def options(platform: str) -> Mapping[str, str] | None:
    """The compiler options of a platform, or None for those of XLA.

    None on accelerators, if XLA_FLAGS chooses a library, and with an XLA that does not know the option.
    """
    if platform != "cpu" or _LIBRARY in os.environ.get("XLA_FLAGS", ""):
        return None
    try:
        jax.jit(lambda: 0, compiler_options=_PRODUCTS_ALONE)()
    except jax.errors.JaxRuntimeError:
        return None
    return _PRODUCTS_ALONE
