"""The data of every call, on the devices: whole on each, split over them, or streamed while the call before is running.

Which images a step draws is a function of the run's key and the step, so a stream has no state to save: the host
computes the same function ahead of the devices. The pipelines of libraries have a state that must be saved, and an
order that depends on the number of processes.
"""

import collections
import concurrent.futures
import functools
import itertools
from collections.abc import Callable, Generator, Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from cgan_jax import parallel
from cgan_jax.data.batches import Data, Share, Window, epoch_size, on_host, row_shape
from cgan_jax.parallel import PARTS, WHOLE, in_parts, replicate

SPECS = {"replicated": WHOLE, "sharded": Share(PARTS, WHOLE, WHOLE), "stream": Window(PARTS, PARTS, WHOLE, WHOLE)}
"""How `distribute` hands each placement's data to the replicas."""
_AHEAD = 2  # calls


def place(placement: str, data: Data, mesh: Mesh) -> Data | Share:
    """A dataset, in host memory, on the devices of the mesh: "replicated" or "sharded"."""
    if placement == "replicated":
        images = np.asarray(data.images).reshape(-1, *row_shape(data.images.shape))
        return replicate(data._replace(images=images), mesh)
    size = len(data.labels)
    share = -(-size // mesh.size)
    blocks = np.arange(mesh.size * share, dtype=np.int32).reshape(mesh.size, share) % size
    return Share(_rows_in_parts(data.images, blocks, mesh), *replicate((data.labels, data.order), mesh))


def _rows_in_parts(images: np.ndarray, wanted: np.ndarray, mesh: Mesh) -> jax.Array:
    """The images `wanted` [replicas, n] of images [N, H, W, C] by `row_shape`, each part on its replica."""
    form = row_shape(images.shape)

    def part_of(part):
        return images[wanted[part]].reshape(*wanted[part].shape, *form)

    return in_parts((*wanted.shape, *form), part_of, mesh)


def feed(
    placement: str, data: Data, mesh: Mesh, draws: Callable, key: jax.Array, steps_per_call: int, step: int
) -> Generator[Data | Share | Window, None, None]:
    """What each call takes, from the call that begins at `step`; `key` is the run's, `data` are in host memory.

    `draws(epoch size, key, step)` gives what a call draws (train_step.drawn_rows); only streams ask. Their images may
    lie in a file, which is read while the call before is running.
    """
    data = on_host(*data)
    if placement != "stream":
        yield from itertools.repeat(place(placement, data, mesh))
    labels, order = replicate((data.labels, data.order), mesh)
    drawn = on_processor(functools.partial(draws, epoch_size(data)), key)

    def window(step: int) -> Window:
        places = drawn(step)
        rows = places if data.order is None else [data.order[part] for part in places]
        wanted = sorted_shares(*rows, mesh.size)
        images = _rows_in_parts(data.images, wanted, mesh)
        return Window(images, in_parts(wanted.shape, lambda part: wanted[part], mesh), labels, order)

    yield from ahead(window, itertools.count(step, steps_per_call))


def sorted_shares(d_rows: np.ndarray, g_rows: np.ndarray, replicas: int) -> np.ndarray:
    """The rows [batches, batch_size] of both players by the replica that draws them, sorted, int32 [replicas, m]."""
    shares = [np.stack(np.split(part, replicas, axis=1)).reshape(replicas, -1) for part in (d_rows, g_rows)]
    return np.sort(np.concatenate(shares, axis=1), axis=1)


def ahead(make: Callable[[int], Window], steps: Iterator[int]) -> Generator[Window, None, None]:
    """make(step) for each step, made by a thread ahead of its use."""
    worker = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="stream")
    try:
        coming = collections.deque(worker.submit(make, step) for step in itertools.islice(steps, _AHEAD))
        while True:
            ready = coming.popleft().result()
            coming.append(worker.submit(make, next(steps)))
            yield ready
    finally:
        worker.shutdown(cancel_futures=True)


def on_processor(function: Callable, key: jax.Array) -> Callable[[int], tuple[np.ndarray, ...]]:
    """step -> function(key, step), on this host's processor if jax has it, because the devices are busy with a call."""
    data = jax.device_get(jax.random.key_data(key))
    try:
        device = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # as with JAX_PLATFORMS=cuda
        device = jax.local_devices()[0]
    compiled = jax.jit(lambda data, step: function(jax.random.wrap_key_data(data, impl=parallel.PRNG), step))

    def call(step: int) -> tuple[np.ndarray, ...]:
        return jax.device_get(compiled(*jax.device_put((data, np.int32(step)), device)))

    return call
