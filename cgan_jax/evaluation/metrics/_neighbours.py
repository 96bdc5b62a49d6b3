"""Distances between all pairs of features, a block at a time, and how far the k-th nearest neighbour is."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

Part = TypeVar("Part")

# Distances that one thread holds at once, and threads: 1 GB of float64 and float32 in all.
_BLOCK = 2**22
_THREADS = min(os.cpu_count() or 1, 16)


def over_blocks(
    points: np.ndarray, others: np.ndarray, centre: np.ndarray, part: Callable[[slice, np.ndarray], Part]
) -> list[Part]:
    """`part(rows, squared)` for consecutive slices `rows` of points [N, F], in their order.

    `squared` is float32 [rows, M]: the squared distances of these points to all others [M, F], in memory that the next
    block reuses. `centre` [F] is any point in their midst, the same in all calls whose distances are compared. Blocks
    are computed by several threads.

    |x|^2 - 2 x'y + |y|^2 as one matrix product, [-2x, |x|^2, 1] [y, 1, |y|^2]'. Its terms cancel where points are close
    compared with their length, as copies and tight clusters are, so it runs in float64; float32 would be wrong by the
    radius of such a cluster. Centred points are shorter and cancel less. What float64 leaves of equal points is taken
    off: distances below float32's resolution of the features are exactly 0. Rounding the rest to float32 makes
    distances equal that differ by float64's rounding only, so `<` and `<=` differ where they should.
    """
    width = others.shape[1] + 2
    # A sum of that many terms is off by about the root of their number in units of rounding; four times that is safe.
    keep = 1 - 4 * np.sqrt(width) * np.finfo(np.float64).eps
    # Into memory by rows, which the product reads faster.
    right = np.concatenate([of.T for of in _centred(others, centre, keep)], out=np.empty((width, len(others))))
    step = max(_BLOCK // len(others), 1)

    def run(starts: np.ndarray) -> list[Part]:
        # Fresh memory for every block would take as long as the product.
        products, squared = (np.empty((step, len(others)), kind) for kind in (np.float64, np.float32))
        return [block(start, products, squared) for start in starts]

    def block(start: int, products: np.ndarray, squared: np.ndarray) -> Part:
        moved, ones, norms = _centred(points[start : start + step], centre, keep)
        rows = slice(start, start + len(moved))
        products, squared = products[: len(moved)], squared[: len(moved)]
        np.matmul(np.concatenate([-2 * moved, norms, ones], axis=1), right, out=products)
        np.copyto(squared, products, casting="same_kind")
        return part(rows, np.maximum(squared, 0, out=squared))

    starts = np.array_split(np.arange(0, len(points), step), _THREADS)
    with ThreadPoolExecutor(_THREADS) as pool:
        return [result for results in pool.map(run, starts) for result in results]


def _centred(points: np.ndarray, centre: np.ndarray, keep: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, 1 and keep * |x|^2 of each point about the centre: float64 [N, F], [N, 1], [N, 1]."""
    moved = points - centre
    norms = keep * np.einsum("nf,nf->n", moved, moved)[:, None]
    return moved, np.ones_like(norms), norms


def squared_radii(points: np.ndarray, centre: np.ndarray, k: int) -> np.ndarray:
    """Squared distance of each point [N, F], N > k, to its k-th nearest other point, as `over_blocks` has it; [N]."""

    def nearest(rows: slice, squared: np.ndarray) -> np.ndarray:
        # The first place is the point's own, at distance 0. A view would keep the whole block.
        return np.partition(squared, k, axis=1)[:, k].copy()

    return np.concatenate(over_blocks(points, points, centre, nearest))
