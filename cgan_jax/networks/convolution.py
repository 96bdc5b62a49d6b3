"""Convolutions with lax's semantics and faster lowerings for CPUs (convolution_cpu.py) and TPUs.

A strided convolution, its transpose, and the gradient of either with respect to the kernel are the three contractions
of one trilinear form. x is the larger image, y the smaller one, t a tap of the kernel, q a position in y:

    form(x, kernel, y) = sum over n, q, t, i, o of  x[n, stride * q + t - low, i] * kernel[t, i, o] * y[n, q, o]

    _shrink(x, kernel) = d form / dy        a convolution, or the input gradient of a transposed one
    _grow(y, kernel)   = d form / dx        a transposed convolution, or the input gradient of a convolution
    _weigh(x, y)       = d form / dkernel   the kernel gradient of both

The derivatives of each contraction are the other two, to any order. So only three operations need to be fast.
`jax.custom_vjp` has reverse mode only.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from cgan_jax import parallel
from cgan_jax.networks import convolution_cpu

_NHWC = ("NHWC", "HWIO", "NHWC")
_KERNEL_GRADIENT = ("CHWN", "IHWO", "HWNC")
_MATRIX_UNIT = 128  # channels of a TPU's
_CPU_UNIT = 32  # channels to which groups are merged on a CPU
_SMALL = 2**24  # multiplications of a grouped convolution that is not worth compiling for speed
_FEW = 4  # channels
_BLOCK = 4  # positions a side
_PLACES = [divmod(place, _BLOCK) for place in range(_BLOCK * _BLOCK)]


def conv(x, kernel, stride=1, padding="SAME"):
    """A convolution with the semantics of `lax.conv_general_dilated`, NHWC by HWIO.

    x [N, H, W, I] and kernel [kh, kw, I, O] of one dtype -> [N, H', W', O]; with padding "SAME", H' = ceil(H / stride).
    Raises ValueError for arguments that do not fit.
    """
    _check(x, kernel, stride, padding)
    if padding == "VALID" and (x.shape[1] < kernel.shape[0] or x.shape[2] < kernel.shape[1]):
        raise ValueError(f"VALID needs images {x.shape} no smaller than the kernel {kernel.shape}")
    pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride, stride), padding)
    axes = [
        _Axis(large, (large + low + high - taps) // stride + 1, taps, low, stride)
        for large, taps, (low, high) in zip(x.shape[1:3], kernel.shape[:2], pads, strict=True)
    ]
    return _shrink(_Form(*axes), *parallel.varying_alike(x, kernel))


def conv_transpose(x, kernel, stride=2, padding="SAME"):
    """A transposed convolution with the semantics of `lax.conv_transpose` (transpose_kernel=False), NHWC by HWIO.

    x [N, H, W, I] and kernel [kh, kw, I, O] of one dtype -> [N, H', W', O]. The kernel is not flipped; it applies to x
    with stride - 1 zeros between pixels. H' = H * stride with padding "SAME", + max(kh - stride, 0) with "VALID".
    Raises ValueError for arguments that do not fit.
    """
    _check(x, kernel, stride, padding)
    axes = []
    for small, taps in zip(x.shape[1:3], kernel.shape[:2], strict=True):
        # lax._conv_transpose_padding, in positions of the larger image.
        low = min(taps - 1, (taps - stride) // 2) if padding == "SAME" and stride < taps else 0
        large = small * stride + (max(taps - stride, 0) if padding == "VALID" else 0)
        axes.append(_Axis(large, small, taps, low, stride))
    return _grow(_Form(*axes, transposed=True), *parallel.varying_alike(x, convolution_cpu.adjoint(kernel)))


def grouped_conv(x, kernel):
    """A grouped convolution with the semantics of `lax.conv_general_dilated`, stride 1, padding "SAME".

    x [N, H, W, C] and kernel [kh, kw, C / groups, C], of odd sides and one dtype -> [N, H, W, C].
    Raises ValueError for arguments that do not fit.
    """
    height, width, size, channels = kernel.shape
    if x.ndim != 4 or x.shape[3] != channels or channels % size or not height % 2 or not width % 2:
        raise ValueError(f"need x [N, H, W, C] and kernel [odd, odd, C / groups, C], got {x.shape} and {kernel.shape}")
    if x.dtype != kernel.dtype:
        raise ValueError(f"x and kernel must have one dtype, got {x.dtype} and {kernel.dtype}")
    return _group(*parallel.varying_alike(x, kernel))


def _check(x, kernel, stride, padding):
    if x.ndim != 4 or kernel.ndim != 4 or x.shape[3] != kernel.shape[2]:
        raise ValueError(f"need x [N, H, W, I] and kernel [kh, kw, I, O], got {x.shape} and {kernel.shape}")
    if x.dtype != kernel.dtype:
        raise ValueError(f"x and kernel must have one dtype, got {x.dtype} and {kernel.dtype}")
    if stride < 1:
        raise ValueError(f"stride must be at least 1, got {stride}")
    if padding not in ("SAME", "VALID"):
        raise ValueError(f"padding must be 'SAME' or 'VALID', got {padding!r}")


class _Axis(NamedTuple):
    """One spatial axis of the form: large position = stride * small position + tap - low."""

    large: int
    small: int
    taps: int
    low: int
    stride: int

    @property
    def padding(self):
        """(low, high) padding of the large side for a convolution; high is negative if it stops short."""
        return self.low, self.reach + self.taps - 1 - self.low - self.large

    @property
    def reach(self):
        """The distance from the first large position that one tap multiplies to the last, plus 1."""
        return self.stride * (self.small - 1) + 1

    @property
    def transpose_padding(self):
        """(low, high) padding of the small side, dilated by the stride, for a transposed convolution."""
        return self.taps - 1 - self.low, self.large - self.reach + self.low

    @property
    def mirrored(self):
        """For stride 1: the axis with the large and the small side exchanged and the taps reversed."""
        return _Axis(self.small, self.large, self.taps, self.taps - 1 - self.low, 1)

    @property
    def span(self):
        """The largest number of taps that contribute to one large position."""
        return -(-self.taps // self.stride)

    def phase(self, number):
        """For the large positions number, number + stride, ...: (the first tap that contributes to them, padding).

        padding is the (low, high) padding of the small side for the convolution that computes these positions.
        """
        first, tap = divmod(number + self.low, self.stride)
        span = -(-(self.taps - tap) // self.stride)
        return tap, (span - 1 - first, first - (-self.large // self.stride) - self.small)

    @property
    def blocks(self):
        """(first, count) of the blocks of `stride` positions, counted from -low, that cover the large side."""
        first = self.low // self.stride
        return first, -(-(self.large + self.low) // self.stride) - first

    @property
    def waste(self):
        """Multiplications made, if whole blocks meet whole spans of taps, over the multiplications needed."""
        return self.blocks[1] * self.span * self.stride / (self.small * self.taps)


class _Form(NamedTuple):
    """The static part of a trilinear form, and lax's lowerings of its three contractions.

    lax's lowerings suit TPUs, and all cases for which no other is measured to be faster. One differs from autodiff's:
    the kernel gradient of a transposed convolution. Autodiff dilates its small operand on the left (1 GFLOP/s on a
    CPU, and reported slow on CUDA). `weigh` dilates it on the right, as for a strided convolution and as XLA expects.
    """

    height: _Axis
    width: _Axis
    transposed: bool = False
    """Whether the form comes from a transposed convolution."""

    @property
    def strides(self):
        return self.height.stride, self.width.stride

    @property
    def mirrored(self):
        """For stride 1: the form with x and y exchanged."""
        return self._replace(height=self.height.mirrored, width=self.width.mirrored)

    def shrink(self, x, kernel):
        """x [N, *large, I], kernel [*taps, I, O] -> [N, *small, O]."""
        pads = [self.height.padding, self.width.padding]
        return lax.conv_general_dilated(x, kernel, self.strides, pads, dimension_numbers=_NHWC)

    def grow(self, y, kernel):
        """y [N, *small, O], kernel [*taps, I, O] -> [N, *large, I]."""
        pads = [self.height.transpose_padding, self.width.transpose_padding]
        kernel = convolution_cpu.adjoint(kernel)
        return lax.conv_general_dilated(y, kernel, (1, 1), pads, lhs_dilation=self.strides, dimension_numbers=_NHWC)

    def weigh(self, x, y):
        """x [N, *large, I], y [N, *small, O] -> [*taps, I, O]."""
        pads = [self.height.padding, self.width.padding]
        numbers = _KERNEL_GRADIENT
        return lax.conv_general_dilated(x, y, (1, 1), pads, rhs_dilation=self.strides, dimension_numbers=numbers)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _shrink(form, x, kernel):
    cpu, tpu = (functools.partial(way, form) for way in (convolution_cpu.shrink, _shrink_tpu))
    return lax.platform_dependent(x, kernel, cpu=cpu, tpu=tpu, default=form.shrink)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _grow(form, y, kernel):
    return lax.platform_dependent(y, kernel, cpu=functools.partial(convolution_cpu.grow, form), default=form.grow)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _weigh(form, x, y):
    cpu, tpu = (functools.partial(way, form) for way in (convolution_cpu.weigh, _weigh_tpu))
    return lax.platform_dependent(x, y, cpu=cpu, tpu=tpu, default=form.weigh)


# To fill the width of a TPU's matrix unit, a large kernel to few channels computes blocks of 4x4 positions at once: as
# 16 times the channels of one convolution of stride 4, whose kernel holds the 16 shifted ones. Compiled for a v5e, 8x8
# from 128 to 3 channels at 32x32, 64 images, float32, in million cycles: 0.589 -> 0.330, kernel gradient 0.564 ->
# 0.329. The input gradient would be slower, and so would a 3x3 kernel.


def _in_blocks(form, channels):
    """The form whose small positions are blocks of the given form's, or None if it is better left as it is."""
    fits = all(axis.stride == 1 and axis.taps >= 5 and axis.small % _BLOCK == 0 for axis in form[:2])
    if channels > _FEW or not fits:
        return None
    axes = (axis._replace(small=axis.small // _BLOCK, taps=axis.taps + _BLOCK - 1, stride=_BLOCK) for axis in form[:2])
    return _Form(*axes)


def _shrink_tpu(form, x, kernel):
    blocks = _in_blocks(form, kernel.shape[3])
    if blocks is None:
        return form.shrink(x, kernel)
    last = _BLOCK - 1
    shifts = [((row, last - row), (column, last - column), (0, 0), (0, 0)) for row, column in _PLACES]
    y = blocks.shrink(x, jnp.concatenate([jnp.pad(kernel, shift) for shift in shifts], 3))
    y = y.reshape(*y.shape[:3], _BLOCK, _BLOCK, kernel.shape[3]).swapaxes(2, 3)
    return y.reshape(x.shape[0], form.height.small, form.width.small, kernel.shape[3])


def _weigh_tpu(form, x, y):
    channels = y.shape[3]
    blocks = _in_blocks(form, channels)
    if blocks is None:
        return form.weigh(x, y)
    y = y.reshape(y.shape[0], blocks.height.small, _BLOCK, blocks.width.small, _BLOCK, channels).swapaxes(2, 3)
    kernels = jnp.split(blocks.weigh(x, y.reshape(*y.shape[:3], -1)), len(_PLACES), 3)
    height, width = form.height.taps, form.width.taps
    parts = zip(_PLACES, kernels, strict=True)
    return sum(kernel[row : row + height, column : column + width] for (row, column), kernel in parts)


def _keep(operation):
    return lambda form, a, b: (operation(form, a, b), (a, b))


_shrink.defvjp(_keep(_shrink), lambda form, kept, y: (_grow(form, y, kept[1]), _weigh(form, kept[0], y)))
_grow.defvjp(_keep(_grow), lambda form, kept, x: (_shrink(form, x, kept[1]), _weigh(form, x, kept[0])))
_weigh.defvjp(_keep(_weigh), lambda form, kept, kernel: (_grow(form, kept[1], kernel), _shrink(form, kept[0], kernel)))


# A grouped convolution needs two operations: x and y have one shape, so that shrink and grow are one. On a CPU, XLA's
# gradients of a grouped convolution are a thousand times slower than the convolution (3x3, 16 groups of 16 channels, 4
# images of 8x8: 1.5 ms; both gradients 1504 ms, here 5 ms). Narrow groups are slow, so they are merged with zeros
# between them: to 32 channels on a CPU, to the 128 of the matrix unit on a TPU. In ms on 2 cores of an EPYC (3x3, 48
# groups of 16, 16 images of 16x16): convolution 17.6 -> 8.5; kernel gradient by taps 53, here 11. In million cycles,
# compiled for a v5e (bfloat16, 96 groups, 64 images): convolution 2.29 -> 1.35; kernel gradient by taps 5.39, by lax
# 2.28, here 1.42.


@jax.custom_vjp
def _group(x, kernel):
    """x [N, H, W, C], kernel [*taps, C / groups, C] -> [N, H, W, C]."""
    cpu, tpu = (functools.partial(_group_merged, unit) for unit in (_CPU_UNIT, _MATRIX_UNIT))
    return lax.platform_dependent(x, kernel, cpu=cpu, tpu=tpu, default=_group_lax)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _weigh_groups(shape, x, y):
    """The kernel gradient, of that shape, from x and y [N, H, W, C]."""
    is_small = math.prod(x.shape[:3]) * math.prod(shape) < _SMALL
    on_cpu = _weigh_by_taps if is_small else functools.partial(_weigh_merged, _CPU_UNIT)
    ways = (on_cpu, functools.partial(_weigh_merged, _MATRIX_UNIT), _weigh_groups_lax)
    cpu, tpu, default = (functools.partial(way, shape) for way in ways)
    return lax.platform_dependent(x, y, cpu=cpu, tpu=tpu, default=default)


def _group_lax(x, kernel):
    groups = x.shape[3] // kernel.shape[2]
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=_NHWC, feature_group_count=groups)


def _weigh_groups_lax(shape, x, y):
    pads = [(taps // 2, taps // 2) for taps in shape[:2]]
    groups = shape[3] // shape[2]
    numbers = _KERNEL_GRADIENT
    return lax.conv_general_dilated(x, y, (1, 1), pads, dimension_numbers=numbers, batch_group_count=groups)


def _weigh_by_taps(shape, x, y):
    """For each tap a matrix product of all groups."""
    height, width, size, channels = shape
    top, left = height // 2, width // 2
    padded = jnp.pad(x, ((0, 0), (top, top), (left, left), (0, 0)))
    x, y = (a.reshape(*a.shape[:3], channels // size, size) for a in (padded, y))
    taps = [
        jnp.einsum(
            "nhwgi,nhwgo->igo",
            x[:, row : row + y.shape[1], column : column + y.shape[2]],
            y,
            preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
        )
        for row in range(height)
        for column in range(width)
    ]
    return jnp.stack(taps).reshape(shape).astype(x.dtype)


def _merged(unit, size, channels):
    """How many groups of `size` channels to merge into one of `unit` channels."""
    return max(1, math.gcd(unit // size, channels // size))


def _group_merged(unit, x, kernel):
    """`_group` with kernels of several groups side by side, and zeros between them."""
    height, width, size, channels = kernel.shape
    n = _merged(unit, size, channels)
    kernel = kernel.reshape(height, width, size, channels // (n * size), n, size)
    kernel = jnp.einsum("hwigno,mn->hwmigno", kernel, jnp.eye(n, dtype=kernel.dtype))
    return _group_lax(x, kernel.reshape(height, width, n * size, channels))


def _weigh_merged(unit, shape, x, y):
    """The dense kernel gradient of several groups at once, of which the groups' blocks are kept."""
    height, width, size, channels = shape
    n = _merged(unit, size, channels)
    wide = n * size
    pads = [(taps // 2, taps // 2) for taps in shape[:2]]
    kernels = []
    for first in range(0, channels, wide):
        parts = (a[..., first : first + wide] for a in (x, y))
        dense = lax.conv_general_dilated(*parts, (1, 1), pads, dimension_numbers=_KERNEL_GRADIENT)
        blocks = dense.reshape(height, width, n, size, n, size)
        kernels.append(jnp.moveaxis(jnp.diagonal(blocks, axis1=2, axis2=4), -1, 3).reshape(height, width, size, wide))
    return jnp.concatenate(kernels, 3)


def _group_adjoint(kernel):
    """The kernel with its taps reversed and, in each group, input and output channels exchanged."""
    height, width, size, channels = kernel.shape
    kernel = jnp.flip(kernel, (0, 1)).reshape(height, width, size, channels // size, size)
    return jnp.swapaxes(kernel, 2, 4).reshape(height, width, size, channels)


_group.defvjp(
    lambda x, kernel: (_group(x, kernel), (x, kernel)),
    lambda kept, y: (_group(y, _group_adjoint(kept[1])), _weigh_groups(kept[1].shape, kept[0], y)),
)
_weigh_groups.defvjp(
    lambda shape, x, y: (_weigh_groups(shape, x, y), (x, y)),
    lambda shape, kept, kernel: (_group(kept[1], _group_adjoint(kernel)), _group(kept[0], kernel)),
)
