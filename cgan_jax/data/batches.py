"""The dataset on the devices, and batch i of a run as a pure function of (key, i).

Sample s of the endless stream is image number shuffled(s mod N) of epoch s div N. The shuffle is a keyed bijection
computed for single indices: no permutation is stored or has to be restored, and every image comes once an epoch.

The images of these numbers may lie whole on every device (Data), split over the devices (Share), or on the host, which
then sends those that the next call draws (Window). All three give the same batches.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cgan_jax import parallel

_ROUNDS = 6


class Batch(NamedTuple):
    """N images with their labels and, for generated ones, the latents they came from."""

    images: jax.Array
    labels: jax.Array
    latents: jax.Array | None = None


class Data(NamedTuple):
    """A whole labelled dataset as arrays: images uint8 [N, H, W, C], labels int32 [N]."""

    images: jax.Array
    labels: jax.Array


class Share(NamedTuple):
    """A dataset split over the replicas, n consecutive images each; the last replica is padded with the first images.

    images uint8 [1, n, H, W, C], or [n, H, W, C] under pmap; all labels int32 [N].
    """

    images: jax.Array
    labels: jax.Array


class Window(NamedTuple):
    """The m images that a replica draws in one call, sorted by their row in the dataset; a row may come twice.

    images uint8 [1, m, H, W, C] and rows int32 [1, m], without the 1 under pmap; all labels of the dataset int32 [N].
    """

    images: jax.Array
    rows: jax.Array
    labels: jax.Array


def _mix(x: jax.Array) -> jax.Array:
    """A bijective hash of uint32 (the finaliser of MurmurHash3, Appleby 2011)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def shuffled(key: jax.Array, position: jax.Array, n: int) -> jax.Array:
    """Where `position` in 0..n-1 lands in the random permutation of 0..n-1 that belongs to `key`; uint32 scalars.

    A Feistel network is a bijection of 0..4^b-1; values outside of 0..n-1 are sent through it again until they fall
    inside, which keeps it one (cycle walking; Black & Rogaway 2002, section 3). 4^b < 4n, so a few turns suffice.
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
    """This replica's rows of global batch `batch_index`, int32 [batch_size / replicas].

    Samples are counted up to 2^32, which the recipe's check of total_kimg keeps the discriminator's below; a generator
    that draws more begins its order again.
    """
    local = parallel.sample_indices(batch_size // parallel.count()).astype(jnp.uint32)
    samples = batch_index.astype(jnp.uint32) * jnp.uint32(batch_size) + local
    epochs, positions = samples // jnp.uint32(n), samples % jnp.uint32(n)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, epochs)
    return jax.vmap(shuffled, (0, 0, None))(keys, positions, n).astype(jnp.int32)


def normalized(images: jax.Array) -> jax.Array:
    """uint8 -> float32 in [-1, 1]."""
    return (images.astype(jnp.float32) - 127.5) / 127.5


def to_uint8(images: jax.Array) -> jax.Array:
    """float in [-1, 1] -> uint8, rounded to the nearest; values outside are clipped."""
    return jnp.clip(jnp.round(images.astype(jnp.float32) * 127.5 + 127.5), 0, 255).astype(jnp.uint8)


def fetched(data: Data | Share | Window, wanted: jax.Array) -> jax.Array:
    """The images of the dataset's rows `wanted` int32 [n], wherever they lie, float32 [n, H, W, C] in [-1, 1]."""
    if isinstance(data, Data):
        return normalized(data.images[wanted])
    images = data.images.reshape(-1, *data.images.shape[-3:])
    if isinstance(data, Share):
        return normalized(_exchanged(images, wanted))
    held = data.rows.reshape(-1)
    places = jnp.searchsorted(held, wanted)
    # NaN ends the run; another image would spoil it unnoticed.
    return jnp.where((held[places] == wanted)[:, None, None, None], normalized(images[places]), jnp.nan)


def _exchanged(images: jax.Array, wanted: jax.Array) -> jax.Array:
    """Every replica's `wanted` rows of a dataset of which it holds `images` [n, ...]; uint8.

    Every replica puts the images of the whole batch that it holds into their places and zeros into the others, and the
    sum is scattered. This sends the bytes of a batch about once, as uint8.
    """
    everyones = parallel.gathered(wanted)
    holder, place = everyones // images.shape[0], everyones % images.shape[0]
    is_here = (holder == parallel.index())[:, None, None, None]
    return parallel.own_part_of_sum(jnp.where(is_here, images[place], jnp.uint8(0)))


def order_key(key: jax.Array) -> jax.Array:
    """The part of the key of `draw` that orders the images."""
    return jax.random.split(key)[0]


def draw(data: Data | Share | Window, key: jax.Array, batch_index: jax.Array, batch_size: int, flip: bool) -> Batch:
    """This replica's share of global batch `batch_index`, images in [-1, 1]; `flip` mirrors half of them."""
    flip_key = jax.random.split(key)[1]
    chosen = rows(order_key(key), batch_index, batch_size, data.labels.shape[0])
    images = fetched(data, chosen)
    if flip:
        keys = parallel.sample_keys(jax.random.fold_in(flip_key, batch_index), images.shape[0])
        mirrored = jax.vmap(jax.random.bernoulli)(keys)
        images = jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    return Batch(images, data.labels[chosen])


def draw_labels(data: Data | Share | Window, keys: jax.Array) -> jax.Array:
    """One label per key, as frequent as in the dataset, int32 [N]."""
    n = data.labels.shape[0]
    return data.labels[jax.vmap(lambda key: jax.random.randint(key, (), 0, n))(keys)]


def on_host(images: np.ndarray, labels: np.ndarray) -> Data:
    """The arrays of a Data, checked: uint8 [N, H, W, C] and int32 [N]."""
    if images.dtype != np.uint8 or images.ndim != 4 or labels.shape != images.shape[:1]:
        raise ValueError(f"want uint8 [N,H,W,C] and labels [N], given {images.dtype} {images.shape} and {labels.shape}")
    return Data(images, labels.astype(np.int32))


def whole_batches(arrays: Sequence[np.ndarray], size: int) -> Iterator[tuple[tuple[np.ndarray, ...], int]]:
    """(`size` rows of each of arrays [N, ...], how many of them count), in order.

    Zeros pad the last batch, so that one compiled program serves all.
    """
    for start in range(0, len(arrays[0]), size):
        parts = [array[start : start + size] for array in arrays]
        n = len(parts[0])
        yield tuple(np.pad(part, [(0, size - n)] + [(0, 0)] * (part.ndim - 1)) for part in parts), n
