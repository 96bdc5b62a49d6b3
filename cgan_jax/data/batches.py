"""The dataset on the devices, and batch i of a run as a pure function of (key, i).

The run draws an endless stream of samples. Sample s is image number shuffled(s mod N) in epoch s div N. The shuffle is
a keyed bijection that is computed for single indices. A checkpoint holds no permutation, and an epoch shows each image
once.

Every device holds the whole dataset (Data), or each its share (Share), or the host sends the images that the next call
draws (Window). All three give the same batches.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cgan_jax import parallel

_ROUNDS = 6


class Batch(NamedTuple):
    """N images [N, H, W, C] in [-1, 1], their labels int32 [N] and, if generated, their latents [N, latent_dim]."""

    images: jax.Array
    labels: jax.Array
    latents: jax.Array | None = None


class Data(NamedTuple):
    """A whole labelled dataset as arrays: images uint8 [N, H, W, C], on devices of `row_shape`; labels int32 [N].

    `order` int32 [M] lists the rows that an epoch shows, some of them several times (see `balanced`); None is each row
    once.
    """

    images: jax.Array
    labels: jax.Array
    order: jax.Array | None = None


class Share(NamedTuple):
    """A dataset split over the replicas: each holds n consecutive images, and all labels.

    images uint8 [1, n, ...] of `row_shape`, without the 1 under pmap; labels int32 [N]; `order` as in Data. The last
    replica is padded with the first images.
    """

    images: jax.Array
    labels: jax.Array
    order: jax.Array | None = None


class Window(NamedTuple):
    """The m images that a replica draws in one call, sorted by their row in the dataset; a row may come twice.

    images uint8 [1, m, ...] of `row_shape` and rows int32 [1, m], without the 1 under pmap; labels int32 [N] of the
    whole dataset; `order` as in Data.
    """

    images: jax.Array
    rows: jax.Array
    labels: jax.Array
    order: jax.Array | None = None


PlacedData = Data | Share | Window


def _mix(x: jax.Array) -> jax.Array:
    """A bijective hash of uint32 (the finaliser of MurmurHash3, Appleby 2011)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def shuffled(key: jax.Array, position: jax.Array, n: int) -> jax.Array:
    """The image of `position` in 0..n-1 under the random permutation of 0..n-1 that `key` stands for; uint32 scalars.

    A Feistel network of b-bit halves is a bijection of 0..4^b-1. A value outside 0..n-1 passes through it again until
    it falls inside, which keeps it a bijection (cycle walking; Black & Rogaway 2002, section 3). If n > 1, 4^b < 4n:
    on average fewer than four passes.
    """
    bits = max(1, -(-(n - 1).bit_length() // 2))
    mask = jnp.uint32(2**bits - 1)
    round_keys = jax.random.bits(key, (_ROUNDS,), jnp.uint32)

    def network(x):
        left, right = x >> bits, x & mask
        for i in range(_ROUNDS):
            left, right = right, left ^ (_mix(right ^ round_keys[i]) & mask)
        return (left << bits) | right

    return jax.lax.while_loop(lambda x: x >= n, network, network(position))


def rows(key: jax.Array, batch_index: jax.Array, batch_size: int, n: int) -> jax.Array:
    """The dataset's rows that are this replica's share of global batch `batch_index`, int32 [batch_size / replicas].

    The sample count wraps at 2^32. The recipe's check of total_kimg keeps the discriminator below that; a generator
    that draws more begins its order again.
    """
    local = parallel.sample_indices(batch_size // parallel.count()).astype(jnp.uint32)
    samples = batch_index.astype(jnp.uint32) * jnp.uint32(batch_size) + local
    epochs, positions = samples // jnp.uint32(n), samples % jnp.uint32(n)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, epochs)
    return jax.vmap(shuffled, (0, 0, None))(keys, positions, n).astype(jnp.int32)


def normalized(images: jax.Array) -> jax.Array:
    """Pixels as networks see them: uint8 -> float32 in [-1, 1]."""
    return (images.astype(jnp.float32) - 127.5) / 127.5


def to_uint8(images: jax.Array) -> jax.Array:
    """Pixels as files hold them: float in [-1, 1] -> uint8, rounded to the nearest; values outside are clipped."""
    return jnp.clip(jnp.round(images.astype(jnp.float32) * 127.5 + 127.5), 0, 255).astype(jnp.uint8)


def fetched(data: PlacedData, wanted: jax.Array) -> jax.Array:
    """The images of the dataset's rows `wanted` int32 [n], from any placement: float32 [n, H, W, C] in [-1, 1]."""
    if isinstance(data, Data):
        return normalized(_pictures(data.images[wanted]))
    one = data.images.shape[-1:] if data.images.ndim < 4 else data.images.shape[-3:]
    images = data.images.reshape(-1, *one)
    if isinstance(data, Share):
        return normalized(_pictures(_exchanged(images, wanted)))
    held = data.rows.reshape(-1)
    slots = jnp.searchsorted(held, wanted)
    is_held = held[slots] == wanted
    # NaN stops the run if the host sent other rows than the step draws; a wrong image would go unnoticed.
    return jnp.where(is_held[:, None, None, None], normalized(_pictures(images[slots])), jnp.nan)


def row_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The form in which devices hold an image of a dataset [N, H, W, C]: [H*W*C] for 1 and 3 channels.

    A TPU copies other forms into padded tiles at every call. With 4 channels it stays [H, W, C]: the length of a row
    does not tell such an image from a grey one.
    """
    return (math.prod(shape[1:]),) if shape[-1] in (1, 3) else tuple(shape[1:])


def _pictures(images: jax.Array) -> jax.Array:
    """Rows as images [n, H, W, C]: they are square and have 1 or 3 channels, so the length of a row tells both."""
    if images.ndim == 4:
        return images
    pixels = images.shape[1]
    channels = 1 if math.isqrt(pixels) ** 2 == pixels else 3
    side = math.isqrt(pixels // channels)
    return images.reshape(-1, side, side, channels)


def _exchanged(images: jax.Array, wanted: jax.Array) -> jax.Array:
    """The rows `wanted` by this replica, uint8, from a dataset of which each replica holds its share `images` [n, m].

    Each replica lays out the whole batch: the images that it holds, and zeros for the others. A reduce-scatter adds
    these up. It sends the bytes of a batch about once, as uint8; gradients have four bytes a parameter.
    """
    wanted_by_all = parallel.gathered(wanted)
    holder = wanted_by_all // images.shape[0]
    local_row = wanted_by_all % images.shape[0]
    is_here = (holder == parallel.index()).reshape(-1, *(1,) * (images.ndim - 1))
    return parallel.own_part_of_sum(jnp.where(is_here, images[local_row], jnp.uint8(0)))


def order_key(key: jax.Array) -> jax.Array:
    """The part of `draw`'s key that orders the images."""
    order, _ = jax.random.split(key)
    return order


def draw(data: PlacedData, key: jax.Array, batch_index: jax.Array, batch_size: int, flip: bool) -> Batch:
    """This replica's share of global batch `batch_index`, images in [-1, 1]; `flip` mirrors half of them."""
    _, flip_key = jax.random.split(key)
    chosen = _in_order(data, rows(order_key(key), batch_index, batch_size, epoch_size(data)))
    images = fetched(data, chosen)
    if flip:
        flip_key = jax.random.fold_in(flip_key, batch_index)
        keys = parallel.sample_keys(flip_key, images.shape[0])
        mirrored = jax.vmap(jax.random.bernoulli)(keys)
        images = jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    return Batch(images, data.labels[chosen])


def draw_labels(data: PlacedData, keys: jax.Array) -> jax.Array:
    """One label per key, int32 [N], each as frequent as in an epoch."""
    n = epoch_size(data)
    chosen = jax.vmap(lambda key: jax.random.randint(key, (), 0, n))(keys)
    return data.labels[_in_order(data, chosen)]


def epoch_size(data: PlacedData) -> int:
    """The number of images that an epoch shows."""
    return data.labels.shape[0] if data.order is None else data.order.shape[0]


def _in_order(data: PlacedData, places: jax.Array) -> jax.Array:
    """The dataset's rows at places of an epoch."""
    return places if data.order is None else data.order[places]


def balanced(labels: np.ndarray, balance: str) -> np.ndarray | None:
    """The rows of an epoch, int32 [M], in which rare classes come more often; None for "none".

    Of n images of a class, of m of the largest one, an epoch shows m ("uniform") or sqrt(n m) ("sqrt"): each image at
    least once, and no image twice more often than another of its class.
    """
    if balance == "none":
        return None
    power = {"sqrt": 0.5, "uniform": 1.0}[balance]
    by_class = np.argsort(labels, kind="stable").astype(np.int32)
    counts = np.bincount(labels)
    shown = np.round(counts ** (1 - power) * counts.max() ** power).astype(int)
    of_class = np.split(by_class, np.cumsum(counts)[:-1])
    return np.concatenate([np.resize(rows, n) for rows, n in zip(of_class, shown, strict=True) if len(rows)])


def on_host(images: np.ndarray, labels: np.ndarray, order: np.ndarray | None = None) -> Data:
    """The arrays as Data on the host. Raises ValueError unless they are uint8 [N, H, W, C] and labels [N]."""
    if images.dtype != np.uint8 or images.ndim != 4 or labels.shape != images.shape[:1]:
        raise ValueError(f"need uint8 [N,H,W,C] and labels [N], given {images.dtype} {images.shape} and {labels.shape}")
    return Data(images, labels.astype(np.int32), order)


def whole_batches(arrays: Sequence[np.ndarray], size: int) -> Iterator[tuple[tuple[np.ndarray, ...], int]]:
    """(`size` rows of each of arrays [N, ...], how many of them count), in order.

    Zeros pad the last batch, so that one compiled program serves all.
    """
    for start in range(0, len(arrays[0]), size):
        parts = [array[start : start + size] for array in arrays]
        n = len(parts[0])
        yield tuple(np.pad(part, [(0, size - n)] + [(0, 0)] * (part.ndim - 1)) for part in parts), n
