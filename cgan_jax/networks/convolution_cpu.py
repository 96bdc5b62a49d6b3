"""Faster lowerings of the contractions of convolution.py for CPUs: matrix products, slices that fit the cache, phases.

The caller passes a convolution._Form; its methods shrink, grow and weigh are lax's lowerings of the same names.

Times in comments are in ms, lax -> here, measured in turns: float32, batch 128, jax 0.10.2, 2 cores of a 2.5 GHz Xeon
with AVX-512 that multiplies matrices at 107 GFLOP/s (python -m benchmarks.convolutions --rounds=2, 2026-11-22). "EPYC"
means 2 cores of an EPYC with 202 GFLOP/s, 2026-11-25.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from cgan_jax import parallel

_NHWC = ("NHWC", "HWIO", "NHWC")
_OVER_POSITIONS = (((0, 1, 2), (0, 1, 2)), ((), ()))
_OVER_CHANNELS = (((3,), (0,)), ((), ()))
_THIN = 4  # channels: too few to fill a matrix product, so all taps are stacked as channels
_NARROW = 64  # channels: few enough that the taps of a row are stacked
_SMALL = 2**24  # multiplications
_WASTEFUL = 160  # times the multiplications needed, times channels; measured on a CPU only
_SLICE = 2**20  # numbers: a part of the batch whose copies should stay in a CPU's cache


def adjoint(kernel):
    """[kh, kw, I, O] -> [kh, kw, O, I], with the taps reversed."""
    return jnp.swapaxes(jnp.flip(kernel, (0, 1)), 2, 3)


def _is_small(form, batch, kernel_size):
    """Whether a contraction is so short that another lowering costs more to compile than it saves."""
    return isinstance(batch, int) and batch * form.height.small * form.width.small * kernel_size < _SMALL


def _covers(form):
    """Whether the kernel is larger than the image: XLA then leaves its fast convolution on a CPU."""
    return any(axis.taps > axis.large for axis in form[:2])


def shrink(form, x, kernel):
    """x [N, *large, I], kernel [*taps, I, O] -> [N, *small, O]."""
    if _is_small(form, x.shape[0], kernel.size):
        return form.shrink(x, kernel)
    if _covers(form):  # 5x5, stride 2, 256 to 512 channels, 4x4 to 2x2: 1792 -> 36
        return _shrink_by_patches(form, x, kernel)
    if form.strides != (1, 1):
        # EPYC: 4x4, 128 channels, 32x32 to 16x16: 53 -> 42; smaller slices are slower.
        y = _by_slices(lambda part: form.shrink(part, kernel), x, size=x.size // 2)
    elif kernel.shape[3] > _THIN:
        return form.shrink(x, kernel)
    else:  # 8x8 from 128 to 3 channels at 32x32: 261 -> 133; 3x3: 79 -> 35.
        y = _by_slices(lambda part: _shrink_to_thin(form, part, kernel), x, size=x.size)
    return y.reshape(-1, *y.shape[2:]).astype(x.dtype)


def grow(form, y, kernel):
    """y [N, *small, O], kernel [*taps, I, O] -> [N, *large, I]."""
    if _is_small(form, y.shape[0], kernel.size):
        return form.grow(y, kernel)
    if _covers(form):  # The input gradient of the 5x5 in `shrink`: 926 -> 25; by phases it is far slower than lax.
        return _grow_by_products(form, y, kernel)
    # For an image of few channels, the phases lose more in passes over memory than they save.
    if form.strides == (1, 1) or kernel.shape[2] <= _THIN:
        return form.grow(y, kernel)
    # EPYC: 4x4, stride 2, 128 to 128 channels, 16x16 to 32x32: 362 -> 127; from 8x8: 73 -> 34. Columns apart: the input
    # gradient of a 5x5 from 8x8 to 4x4, 128 channels, 256 images: 785 -> 39; columns together: 51.
    return grow_by_phases(form, y, kernel)


def weigh(form, x, y):
    """x [N, *large, I], y [N, *small, O] -> [*taps, I, O]."""
    if _is_small(form, x.shape[0], form.height.taps * form.width.taps * x.shape[3] * y.shape[3]):
        return form.weigh(x, y)
    if y.shape[3] <= _THIN < x.shape[3] and form.strides == (1, 1):
        # Without a stride x and y can be exchanged, so that the taps of the thin one are stacked.
        return adjoint(weigh(form.mirrored, y, x))
    if _suits_lax(form, x, y):
        return form.weigh(x, y)
    # The transposed 4x4 above: 19520 -> 298; EPYC: 9174 -> 125, of which 20 are saved by a sum in place of a stack.
    # Thin: 3x3, stride 2, from 3 channels: 23 -> 7; 8x8 to 3 channels: 602 -> 161. A 3x3 of stride 1: 428 -> 130.
    together = _taps_together(form, x.shape[3], y.shape[3])
    size = x.size * together + y.size
    return _summed_by_slices(functools.partial(_weigh_taps, form, together), x, y, size=size).astype(x.dtype)


def _suits_lax(form, x, y):
    """Whether lax's kernel gradient is the faster one, if Eigen computes it: for x and y that fit the cache."""
    # EPYC, lax -> by taps: 3x3, 64 channels at 32x32, 32 images: 9.1 -> 11.3; 128 images: 51 -> 44. 4x4, stride 2, 128
    # channels, 64 images: 8x8: 0.9 -> 1.2; 16x16: 8.1 -> 7.3.
    fitting = 2 * _SLICE if form.strides == (1, 1) else _SLICE
    return form.height.taps * form.width.taps > 1 and max(x.size, y.size) <= fitting


def _taps_together(form, stacked, other):
    """How many taps to stack for one matrix product, so that it is wide enough to be fast.

    `stacked` and `other` are the numbers of channels of x, whose taps are stacked, and of y.
    """
    if stacked <= _THIN:
        return form.height.taps * form.width.taps
    # Narrow: 3x3 of stride 1, 24 to 64 channels at 32x32: 356 -> 110; 64 to 64 at 16x16: 192 -> 60. Stacking gains
    # nothing if one side is wide: 64 to 192, tap by tap: 493 -> 105. It gains nothing with a stride, which copies every
    # tap anyway: EPYC, 7x7, stride 2, 64 to 64 channels: tap by tap 100, row by row 120.
    is_narrow = max(stacked, other) <= _NARROW
    return form.width.taps if is_narrow and form.strides == (1, 1) else 1


def grow_by_phases(form, y, kernel):
    """`grow` by phases: one convolution without a stride for all rows that the same taps reach, then interleaved."""
    stride = form.height.stride
    missing = [max(0, stride - axis.taps) for axis in form[:2]]  # so that a tap reaches every position
    height, width = (axis._replace(taps=axis.taps + more) for axis, more in zip(form[:2], missing, strict=True))
    kernel = jnp.swapaxes(jnp.pad(kernel, [*((0, more) for more in missing), (0, 0), (0, 0)]), 2, 3)
    columns = _columns_apart if width.waste * kernel.shape[3] > _WASTEFUL else _columns_together
    rows = []
    for number in range(stride):
        tap, pads = height.phase(number)
        rows.append(columns(width, pads, y, kernel[tap::stride]))
    return _interleaved(rows, 1)[:, : form.height.large]


def _columns_together(axis, pads, y, kernel):
    """The columns of a block as channels of one convolution: in memory they lie in this order anyway."""
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
    """One convolution for each column of a block, by only the taps that reach it."""
    columns = []
    for number in range(axis.stride):
        tap, column_pads = axis.phase(number)
        columns.append(_convolved_reversed(y, kernel[:, tap :: axis.stride], pads, column_pads))
    return _interleaved(columns, 2)[:, :, : axis.large]


def _convolved_reversed(y, kernel, *pads):
    return lax.conv_general_dilated(y, jnp.flip(kernel, (0, 1)), (1, 1), pads, dimension_numbers=_NHWC)


def _interleaved(parts, axis):
    """The first of every part along the axis, then the second of every part, and so on."""
    shape = list(parts[0].shape)
    shape[axis] *= len(parts)
    return jnp.stack(parts, axis + 1).reshape(shape)


def _read_by_taps(form, x):
    """Yields the part [N, *small, I] of x that each tap of the kernel multiplies, row by row."""
    height, width = form[:2]
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*height.padding, 0), (*width.padding, 0), (0, 0, 0)))
    for row in range(height.taps):
        for column in range(width.taps):
            stop = (row + height.reach, column + width.reach)
            yield lax.slice(x, (0, row, column, 0), (x.shape[0], *stop, x.shape[3]), (1, *form.strides, 1))


def _weigh_taps(form, together, x, y):
    """`weigh` as one matrix product for every `together` taps."""
    taps = list(_read_by_taps(form, x))
    if x.shape[3] <= _THIN:
        kernel = _dot(jnp.concatenate(taps, 3), y, _OVER_POSITIONS)
    else:  # With y first, a product of fewer taps over positions is 2.5 times faster in XLA on a CPU.
        stacked = [jnp.concatenate(taps[i : i + together], 3) for i in range(0, len(taps), together)]
        kernel = jnp.swapaxes(jnp.stack([_dot(y, some, _OVER_POSITIONS) for some in stacked]), 1, 2)
    return kernel.reshape(form.height.taps, form.width.taps, x.shape[3], y.shape[3])


def _shrink_by_patches(form, x, kernel):
    """`shrink` as one matrix product of the patches that the kernel covers."""
    patches = jnp.concatenate(list(_read_by_taps(form, x)), 3)
    return _dot(patches, kernel.reshape(-1, kernel.shape[3]), _OVER_CHANNELS).astype(x.dtype)


def _grow_by_products(form, y, kernel):
    """`grow` as one matrix product for all taps, then the sum of the products, each at the positions of its tap."""
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
    """`shrink` as one matrix product for all taps, then the sum of the products, each shifted by its tap."""
    height, width = form[:2]
    thin = kernel.shape[3]
    row = width.taps * thin
    products = _dot(x, kernel.transpose(2, 0, 1, 3).reshape(x.shape[3], -1), _OVER_CHANNELS)
    zero = jnp.zeros((), products.dtype)
    products = lax.pad(products, zero, ((0, 0, 0), (*height.padding, 0), (*width.padding, 0), (0, 0, 0)))
    rows = sum(products[:, a : a + height.small, :, a * row : (a + 1) * row] for a in range(height.taps))
    return sum(rows[:, :, b : b + width.small, b * thin : (b + 1) * thin] for b in range(width.taps))


def _dot(a, b, dimensions):
    """A product that accumulates in float32, also if its operands are bfloat16."""
    return lax.dot_general(a, b, dimensions, preferred_element_type=jnp.promote_types(a.dtype, jnp.float32))


def _by_slices(function, *arrays, size):
    """The results of `function` on slices of the batch, stacked.

    Slices run one after the other, so that the copies that `function` makes, of `size` numbers in all, stay in cache.
    """
    return lax.map(lambda parts: function(*parts), _slices(arrays, size))


def _summed_by_slices(function, *arrays, size):
    """The sum of the results of `function` on slices of the batch, as in `_by_slices`."""
    slices = _slices(arrays, size)
    result = jax.eval_shape(function, *(parts[0] for parts in slices))
    zero, *_ = parallel.varying_alike(jnp.zeros(result.shape, result.dtype), *arrays)
    return lax.scan(lambda total, parts: (total + function(*parts), None), zero, slices)[0]


def _slices(arrays, size):
    """[N, ...] as [slices, N / slices, ...]."""
    batch = arrays[0].shape[0]
    count = 1
    if isinstance(batch, int):  # in an exported program the batch size is a symbol
        count = next((n for n in range(min(batch, size // _SLICE), 1, -1) if batch % n == 0), 1)
    return [a.reshape(count, -1, *a.shape[1:]) for a in arrays]
