"""Convolutions that are fast wherever they run: lax's semantics, other lowerings.

A strided convolution, its transpose, and the gradient of either with respect to the kernel are the three contractions
of one trilinear form. With x on the large side, y on the small side, and taps t of the kernel,

    form(x, kernel, y) = sum over n, q, t, i, o of  x[n, stride * q + t - low, i] * kernel[t, i, o] * y[n, q, o]

    _shrink(x, kernel) = d form / dy        a convolution, or the input gradient of a transposed one
    _grow(y, kernel)   = d form / dx        a transposed convolution, or the input gradient of a convolution
    _weigh(x, y)       = d form / dkernel   the kernel gradient of both

The derivatives of each are the other two, to any order, so there are three operations to make fast and no more.
Reverse mode only: `jax.custom_vjp` knows no forward mode.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

_NHWC = ("NHWC", "HWIO", "NHWC")
_KERNEL_GRADIENT = ("CHWN", "IHWO", "HWNC")
_OVER_POSITIONS = (((0, 1, 2), (0, 1, 2)), ((), ()))
_OVER_CHANNELS = (((3,), (0,)), ((), ()))
_THIN = 4  # channels: too few to fill a matrix product, so their taps are stacked beside them
_NARROW = 64  # channels: still few enough that the taps of a row are
_SMALL = 2**24  # multiplications
_WASTEFUL = 160  # times the multiplications that are needed, times channels
_SLICE = 2**20  # numbers: what a CPU copies at a time, for a part of the batch, should stay in its cache


def conv(x, kernel, stride=1, padding="SAME"):
    """Convolution with the semantics of `lax.conv_general_dilated`, NHWC by HWIO.

    x [N, H, W, I] and kernel [kh, kw, I, O] of one dtype -> [N, H', W', O]; with padding "SAME", H' = ceil(H / stride).
    """
    _check(x, kernel, stride, padding)
    if padding == "VALID" and (x.shape[1] < kernel.shape[0] or x.shape[2] < kernel.shape[1]):
        raise ValueError(f"VALID needs images {x.shape} no smaller than the kernel {kernel.shape}")
    pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride, stride), padding)
    axes = [
        _Axis(large, (large + low + high - taps) // stride + 1, taps, low, stride)
        for large, taps, (low, high) in zip(x.shape[1:3], kernel.shape[:2], pads, strict=True)
    ]
    return _shrink(_Form(*axes), *_vary_together(x, kernel))


def conv_transpose(x, kernel, stride=2, padding="SAME"):
    """Transposed convolution with the semantics of `lax.conv_transpose` (transpose_kernel=False), NHWC by HWIO.

    x [N, H, W, I] and kernel [kh, kw, I, O] of one dtype -> [N, H', W', O]; the kernel is applied unflipped to x with
    stride - 1 zeros between its pixels. H' = H * stride with padding "SAME", + max(kh - stride, 0) with "VALID".
    """
    _check(x, kernel, stride, padding)
    axes = []
    for small, taps in zip(x.shape[1:3], kernel.shape[:2], strict=True):
        # lax._conv_transpose_padding, seen from the large side.
        low = min(taps - 1, (taps - stride) // 2) if padding == "SAME" and stride < taps else 0
        large = small * stride + (max(taps - stride, 0) if padding == "VALID" else 0)
        axes.append(_Axis(large, small, taps, low, stride))
    return _grow(_Form(*axes, transposed=True), *_vary_together(x, _adjoint(kernel)))


def grouped_conv(x, kernel):
    """Convolution of channels in groups, with the semantics of `lax.conv_general_dilated`, stride 1, padding "SAME".

    x [N, H, W, C] and kernel [kh, kw, C / groups, C], odd sides, of one dtype -> [N, H, W, C].
    """
    height, width, size, channels = kernel.shape
    if x.ndim != 4 or x.shape[3] != channels or channels % size or not height % 2 or not width % 2:
        raise ValueError(f"need x [N, H, W, C] and kernel [odd, odd, C / groups, C], got {x.shape} and {kernel.shape}")
    if x.dtype != kernel.dtype:
        raise ValueError(f"x and kernel must have one dtype, got {x.dtype} and {kernel.dtype}")
    return _group(*_vary_together(x, kernel))


def _check(x, kernel, stride, padding):
    if x.ndim != 4 or kernel.ndim != 4 or x.shape[3] != kernel.shape[2]:
        raise ValueError(f"need x [N, H, W, I] and kernel [kh, kw, I, O], got {x.shape} and {kernel.shape}")
    if x.dtype != kernel.dtype:
        raise ValueError(f"x and kernel must have one dtype, got {x.dtype} and {kernel.dtype}")
    if stride < 1:
        raise ValueError(f"stride must be at least 1, got {stride}")
    if padding not in ("SAME", "VALID"):
        raise ValueError(f"padding must be 'SAME' or 'VALID', got {padding!r}")


def _vary_together(*arrays):
    """Inside shard_map: what varies over a mesh axis for one varies for all, so that replicated kernels get the summed
    gradient that lax gives them (custom_vjp cannot insert that sum itself)."""
    axes = [jax.typeof(array).manual_axis_type.varying for array in arrays]
    union = frozenset().union(*axes)
    return [lax.pcast(array, tuple(union - own), to="varying") for array, own in zip(arrays, axes, strict=True)]


class _Axis(NamedTuple):
    """One spatial axis of the form: large position = stride * small position + tap - low."""

    large: int
    small: int
    taps: int
    low: int
    stride: int

    @property
    def padding(self):
        """(low, high) with which a convolution reads the large side; high is negative where it stops short."""
        return self.low, self.reach + self.taps - 1 - self.low - self.large

    @property
    def reach(self):
        """From the first to behind the last large position that one tap multiplies."""
        return self.stride * (self.small - 1) + 1

    @property
    def mirrored(self):
        """The axis with large and small side exchanged and the taps reversed; for stride 1."""
        return _Axis(self.small, self.large, self.taps, self.taps - 1 - self.low, 1)

    @property
    def transpose_padding(self):
        """(low, high) with which the transpose reads the small side once zeros lie between its positions."""
        return self.taps - 1 - self.low, self.large - self.reach + self.low

    @property
    def blocks(self):
        """(first, count) of the blocks of `stride` places, counted from -low, that the large side lies in."""
        first = self.low // self.stride
        return first, -(-(self.large + self.low) // self.stride) - first

    @property
    def waste(self):
        """How many times the multiplications that are needed are made where whole blocks meet whole spans of taps."""
        return self.blocks[1] * self.span * self.stride / (self.small * self.taps)

    @property
    def span(self):
        """The most taps that meet at one place."""
        return -(-self.taps // self.stride)

    def phase(self, number):
        """Of the large positions number, number + stride, ...: the first tap that meets them, and the (low, high) with
        which they read the small side."""
        first, tap = divmod(number + self.low, self.stride)
        span = -(-(self.taps - tap) // self.stride)
        return tap, (span - 1 - first, first - (-self.large // self.stride) - self.small)


class _Form(NamedTuple):
    """All that is static of a trilinear form. `transposed` says that it came from a transposed convolution."""

    height: _Axis
    width: _Axis
    transposed: bool = False

    @property
    def strides(self):
        return self.height.stride, self.width.stride


def _on(form, a, b, **lowerings):
    return lax.platform_dependent(a, b, **{name: functools.partial(f, form) for name, f in lowerings.items()})


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _shrink(form, x, kernel):
    """x [N, *large, I], kernel [*taps, I, O] -> [N, *small, O]."""
    return _on(form, x, kernel, cpu=_shrink_cpu, default=_shrink_lax)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _grow(form, y, kernel):
    """y [N, *small, O], kernel [*taps, I, O] -> [N, *large, I]."""
    return _on(form, y, kernel, cpu=_grow_cpu, cuda=_grow_cuda, default=_grow_lax)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _weigh(form, x, y):
    """x [N, *large, I], y [N, *small, O] -> [*taps, I, O]."""
    return _on(form, x, y, cpu=_weigh_cpu, default=_weigh_lax)


def _keep(operation):
    return lambda form, a, b: (operation(form, a, b), (a, b))


_shrink.defvjp(_keep(_shrink), lambda form, kept, y: (_grow(form, y, kept[1]), _weigh(form, kept[0], y)))
_grow.defvjp(_keep(_grow), lambda form, kept, x: (_shrink(form, x, kept[1]), _weigh(form, x, kept[0])))
_weigh.defvjp(_keep(_weigh), lambda form, kept, kernel: (_grow(form, kept[1], kernel), _shrink(form, kept[0], kernel)))


def _adjoint(kernel):
    """[kh, kw, I, O] -> [kh, kw, O, I], taps in reverse."""
    return jnp.swapaxes(jnp.flip(kernel, (0, 1)), 2, 3)


# In groups, the form's sides are alike, so that two operations do, each differentiated by the two. XLA's own gradients
# of a grouped convolution are a thousand times slower than the convolution on a CPU (3x3, 16 groups of 16 channels, 4
# images of 8x8: 1.5 ms, both gradients 1504, here 5), and reported slow on CUDA.


@jax.custom_vjp
def _group(x, kernel):
    """x [N, H, W, C], kernel [*taps, C / groups, C] -> [N, H, W, C]."""
    groups = x.shape[3] // kernel.shape[2]
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=_NHWC, feature_group_count=groups)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _weigh_groups(shape, x, y):
    """x and y [N, H, W, C] -> the kernel of that shape: for each tap one matrix product of all groups at once."""
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


def _group_adjoint(kernel):
    """Taps in reverse, and in each group what goes in exchanged with what comes out."""
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


# What lax does: right for TPUs, and elsewhere where nothing else is measured to be faster. Even so the kernel gradient
# of a transposed convolution is not autodiff's, which dilates the small operand on the left (1 GFLOP/s on a CPU, and
# reported slow on CUDA), but that of a strided convolution, which dilates it on the right as XLA expects.


def _shrink_lax(form, x, kernel):
    pads = [axis.padding for axis in form[:2]]
    return lax.conv_general_dilated(x, kernel, form.strides, pads, dimension_numbers=_NHWC)


def _grow_lax(form, y, kernel):
    pads = [axis.transpose_padding for axis in form[:2]]
    kernel = _adjoint(kernel)
    return lax.conv_general_dilated(y, kernel, (1, 1), pads, lhs_dilation=form.strides, dimension_numbers=_NHWC)


def _weigh_lax(form, x, y):
    pads = [axis.padding for axis in form[:2]]
    return lax.conv_general_dilated(x, y, (1, 1), pads, rhs_dilation=form.strides, dimension_numbers=_KERNEL_GRADIENT)


# Lowerings. Times in ms, lax -> here, in turns: float32, batch 128, jax 0.10.2, 2 cores of a 2.5 GHz Xeon with AVX-512
# on which a matrix product runs at 107 GFLOP/s (python -m benchmarks.convolutions --rounds=2, 2026-11-22); "EPYC":
# 2 cores of one, 202 GFLOP/s, 2026-11-25. The choices for CUDA are by reasoning and have not been timed, nor has what a
# processor finds wasteful been on one.


def _grow_cuda(form, y, kernel):
    # XLA turns a dilated convolution by a reversed kernel, the input gradient of a strided convolution, into cuDNN's
    # backward pass. A transposed convolution's kernel is not reversed (or reversed twice), and would run over zeros.
    return _grow_by_phases(form, y, kernel) if form.transposed else _grow_lax(form, y, kernel)


def _is_small(form, batch, kernel_size):
    """Whether a CPU is done so soon that a lowering would cost more to compile than it ever saves."""
    return isinstance(batch, int) and batch * form.height.small * form.width.small * kernel_size < _SMALL


def _covers(form):
    """Whether the kernel is larger than the image, for which XLA leaves its fast convolution on a CPU."""
    return any(axis.taps > axis.large for axis in form[:2])


def _shrink_cpu(form, x, kernel):
    if _is_small(form, x.shape[0], kernel.size):
        return _shrink_lax(form, x, kernel)
    if _covers(form):  # 5x5, stride 2, 256 to 512 channels, 4x4 to 2x2: 1792 -> 36
        return _shrink_by_patches(form, x, kernel)
    if form.strides != (1, 1):
        # EPYC: 4x4, 128 channels, 32x32 to 16x16: 159 -> 108; 3x3, 16x16 to 8x8: 19 -> 16.
        y = _by_slices(lambda part: _shrink_lax(form, part, kernel), x, size=2 * x.size)
    elif kernel.shape[3] > _THIN:
        return _shrink_lax(form, x, kernel)
    else:  # 8x8 from 128 to 3 channels at 32x32: 261 -> 133; 3x3: 79 -> 35.
        y = _by_slices(lambda part: _shrink_to_thin(form, part, kernel), x, size=x.size)
    return y.reshape(-1, *y.shape[2:]).astype(x.dtype)


def _grow_cpu(form, y, kernel):
    if _is_small(form, y.shape[0], kernel.size):
        return _grow_lax(form, y, kernel)
    if _covers(form):  # Back from the 2x2 above: 926 -> 25; by phases far slower than lax.
        return _grow_by_products(form, y, kernel)
    # Back to a thin image the phases lose more in passes over memory than they save.
    if form.strides == (1, 1) or kernel.shape[2] <= _THIN:
        return _grow_lax(form, y, kernel)
    # EPYC: 4x4, stride 2, 128 to 128 channels, 16x16 to 32x32: 362 -> 127; from 8x8: 73 -> 34. Columns apart: back
    # through a 5x5 from 4x4 to 8x8, 128 channels, 256 images: 785 -> 39, together 51.
    return _grow_by_phases(form, y, kernel)


def _weigh_cpu(form, x, y):
    if _is_small(form, x.shape[0], form.height.taps * form.width.taps * x.shape[3] * y.shape[3]):
        return _weigh_lax(form, x, y)
    if y.shape[3] <= _THIN < x.shape[3] and form.strides == (1, 1):
        # Without a stride the two sides are alike: exchange them, so that the thin one is stacked.
        mirror = form._replace(height=form.height.mirrored, width=form.width.mirrored)
        return _adjoint(_weigh_cpu(mirror, y, x))
    # The transposed 4x4 above: 19520 -> 298; EPYC: 9174 -> 125, of which 20 are saved by a sum in place of a stack.
    # Thin: 3x3, stride 2, from 3 channels: 23 -> 7; 8x8 to 3 channels: 602 -> 161. A 3x3 of stride 1: 428 -> 130.
    beside = _taps_beside(form, x.shape[3], y.shape[3])
    weigh = functools.partial(_weigh_taps, form, beside)
    return _summed_by_slices(weigh, x, y, size=x.size * beside + y.size).astype(x.dtype)


def _taps_beside(form, stacked, other):
    """How many taps to stack for one matrix product, so that it is wide enough to be fast."""
    if stacked <= _THIN:
        return form.height.taps * form.width.taps
    # Narrow: 3x3 of stride 1, 24 to 64 channels at 32x32: 356 -> 110; 64 to 64 at 16x16: 192 -> 60. Stacking before a
    # wide side gains nothing; 64 to 192, a tap each: 493 -> 105. Nor where a stride has every tap copied anyway: EPYC,
    # 7x7, stride 2, 64 to 64 channels: a tap each 100, a row 120.
    return form.width.taps if max(stacked, other) <= _NARROW and form.strides == (1, 1) else 1


def _grow_by_phases(form, y, kernel):
    """Rows of the output that the same taps meet are computed together, without a stride; then they interleave."""
    stride = form.height.stride
    missing = [max(0, stride - axis.taps) for axis in form[:2]]  # so that some tap meets every place
    height, width = (axis._replace(taps=axis.taps + more) for axis, more in zip(form[:2], missing, strict=True))
    kernel = jnp.swapaxes(jnp.pad(kernel, [*((0, more) for more in missing), (0, 0), (0, 0)]), 2, 3)
    columns = _columns_apart if width.waste * kernel.shape[3] > _WASTEFUL else _columns_together
    rows = []
    for number in range(stride):
        tap, pads = height.phase(number)
        rows.append(columns(width, pads, y, kernel[tap::stride]))
    return _interleaved(rows, 1)[:, : form.height.large]


def _columns_together(axis, pads, y, kernel):
    """One convolution computes the columns of a block as channels, which is how they lie in memory anyway."""
    first, count = axis.blocks
    kernel = jnp.pad(kernel, ((0, 0), (0, axis.span * axis.stride - axis.taps), (0, 0), (0, 0)))
    rows, _, o, i = kernel.shape
    # With large position = stride * block + phase - low and tap = stride * a + phase, y is read at q = block - a.
    kernel = kernel.reshape(rows, axis.span, axis.stride, o, i).transpose(0, 1, 3, 2, 4)
    kernel = kernel.reshape(rows, axis.span, o, axis.stride * i)
    x = _convolved_reversed(y, kernel, pads, (axis.span - 1 - first, first + count - axis.small))
    left = axis.low - first * axis.stride
    return x.reshape(*x.shape[:2], count * axis.stride, i)[:, :, left : left + axis.large]


def _columns_apart(axis, pads, y, kernel):
    """A convolution for each column of a block, by the taps that meet there and no others."""
    columns = []
    for number in range(axis.stride):
        tap, beside = axis.phase(number)
        columns.append(_convolved_reversed(y, kernel[:, tap :: axis.stride], pads, beside))
    return _interleaved(columns, 2)[:, :, : axis.large]


def _convolved_reversed(y, kernel, *pads):
    return lax.conv_general_dilated(y, jnp.flip(kernel, (0, 1)), (1, 1), pads, dimension_numbers=_NHWC)


def _interleaved(parts, axis):
    """The first of every part along the axis, then the second of every part, and so on."""
    shape = list(parts[0].shape)
    shape[axis] *= len(parts)
    return jnp.stack(parts, axis + 1).reshape(shape)


def _taps(form, x):
    """For each tap of the kernel, row by row, the [N, *small, I] that it multiplies."""
    height, width = form[:2]
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*height.padding, 0), (*width.padding, 0), (0, 0, 0)))
    for row in range(height.taps):
        for column in range(width.taps):
            stop = (row + height.reach, column + width.reach)
            yield lax.slice(x, (0, row, column, 0), (x.shape[0], *stop, x.shape[3]), (1, *form.strides, 1))


def _weigh_taps(form, beside, x, y):
    """One matrix product for every `beside` taps."""
    taps = list(_taps(form, x))
    if x.shape[3] <= _THIN:
        kernel = _dot(jnp.concatenate(taps, 3), y, _OVER_POSITIONS)
    else:  # y stands first: products of fewer taps over positions run 2.5 times faster so on XLA's CPU
        stacked = [jnp.concatenate(taps[i : i + beside], 3) for i in range(0, len(taps), beside)]
        kernel = jnp.swapaxes(jnp.stack([_dot(y, some, _OVER_POSITIONS) for some in stacked]), 1, 2)
    return kernel.reshape(form.height.taps, form.width.taps, x.shape[3], y.shape[3])


def _shrink_by_patches(form, x, kernel):
    """One matrix product of all that the kernel sees at each position."""
    patches = jnp.concatenate(list(_taps(form, x)), 3)
    return _dot(patches, kernel.reshape(-1, kernel.shape[3]), _OVER_CHANNELS).astype(x.dtype)


def _grow_by_products(form, y, kernel):
    """One matrix product for all taps, then a sum of the products where each tap lands: the adjoint of the above."""
    height, width = form[:2]
    channels = kernel.shape[2]
    products = _dot(y, kernel.reshape(-1, kernel.shape[3]), (((3,), (1,)), ((), ())))
    zero, total = jnp.zeros((), products.dtype), 0
    for tap in range(height.taps * width.taps):
        part, at = products[..., tap * channels : (tap + 1) * channels], divmod(tap, width.taps)
        edges = [(t - axis.low, axis.large - axis.reach - t + axis.low) for t, axis in zip(at, form[:2], strict=True)]
        pads = [(*edge, axis.stride - 1) for edge, axis in zip(edges, form[:2], strict=True)]
        total += lax.pad(part, zero, ((0, 0, 0), *pads, (0, 0, 0)))
    return total.astype(y.dtype)


def _shrink_to_thin(form, x, kernel):
    """One matrix product for all taps, then a sum of the products shifted: the adjoint of stacking patches."""
    height, width = form[:2]
    thin = kernel.shape[3]
    row = width.taps * thin
    products = _dot(x, kernel.transpose(2, 0, 1, 3).reshape(x.shape[3], -1), _OVER_CHANNELS)
    zero = jnp.zeros((), products.dtype)
    products = lax.pad(products, zero, ((0, 0, 0), (*height.padding, 0), (*width.padding, 0), (0, 0, 0)))
    rows = sum(products[:, a : a + height.small, :, a * row : (a + 1) * row] for a in range(height.taps))
    return sum(rows[:, :, b : b + width.small, b * thin : (b + 1) * thin] for b in range(width.taps))


def _dot(a, b, dimensions):
    """Products of bfloat16 accumulate in float32."""
    return lax.dot_general(a, b, dimensions, preferred_element_type=jnp.promote_types(a.dtype, jnp.float32))


def _by_slices(function, *arrays, size):
    """The results of `function` on slices of the batch, one after the other, stacked: what it copies, `size` numbers
    in all, stays in cache."""
    return lax.map(lambda parts: function(*parts), _slices(arrays, size))


def _summed_by_slices(function, *arrays, size):
    """The sum of the results of `function` on such slices."""
    slices = _slices(arrays, size)
    result = jax.eval_shape(function, *(parts[0] for parts in slices))
    zero, *_ = _vary_together(jnp.zeros(result.shape, result.dtype), *arrays)
    return lax.scan(lambda total, parts: (total + function(*parts), None), zero, slices)[0]


def _slices(arrays, size):
    """[N, ...] as [slices, N / slices, ...]."""
    batch = arrays[0].shape[0]
    count = 1
    if isinstance(batch, int):  # the batch of an exported program may be a symbol
        count = next((n for n in range(min(batch, size // _SLICE), 1, -1) if batch % n == 0), 1)
    return [a.reshape(count, -1, *a.shape[1:]) for a in arrays]
