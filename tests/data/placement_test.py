"""Images whole on each device, split over the devices, or streamed: the same batches, every image once an epoch."""

import functools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax import train_state
from cgan_jax.build import ImageSpec, build
from cgan_jax.data import placement
from cgan_jax.data.batches import Data, Share, Window, draw, fetched, order_key, rows
from cgan_jax.parallel import distribute, make_mesh, replicate
from cgan_jax.train_step import Purpose, drawn_rows, train_steps

KEY = jax.random.key(3, impl="threefry2x32")
SPEC = ImageSpec(image_size=8, channels=1, num_classes=10)
N = 37  # not shared evenly by any number of devices


def numbered(n=N):
    """Image i has i in every pixel; its label is i mod 10."""
    images = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 8, 8, 1)).copy()
    return Data(images, np.arange(n, dtype=np.int32) % 10)


def drawn_by(where: str, parallelism: str, devices: int, calls=5, batch_size=8, order=None):
    """The (pixel, label) of every sample of the discriminator's first batches, [calls, batch_size, 2]."""
    from tests.conftest import small_recipe

    recipe = small_recipe()
    recipe["train"] |= {"batch_size": batch_size, "g_batch_size": batch_size}
    algorithm, mesh = build(recipe, SPEC), make_mesh(jax.devices()[:devices])

    def step(state, data):
        batch = draw(data, jax.random.fold_in(KEY, Purpose.D_DATA), state, batch_size, False)
        pixels = jnp.round(batch.images[:, 0, 0, 0] * 127.5 + 127.5).astype(jnp.int32)
        pairs = jnp.stack([pixels, batch.labels], axis=1)
        mine = jnp.zeros((batch_size, 2), jnp.int32)
        if devices > 1 or parallelism == "pmap":
            place = jax.lax.axis_index("data") * len(pairs)
            everyones = jax.lax.psum(jax.lax.dynamic_update_slice(mine, pairs, (place, jnp.int32(0))), "data")
        else:
            everyones = jax.lax.psum(pairs, "data")
        return state + 1, {"pairs": everyones}

    call = distribute(step, mesh, parallelism, placement.SPECS[where])
    state, found = replicate(jnp.int32(0), mesh), []
    data = numbered()._replace(order=order)
    feed = placement.feed(where, data, mesh, functools.partial(drawn_rows, algorithm, 1), KEY, 1, 0)
    for _ in range(calls):
        state, scalars = call(state, next(feed))
        found.append(np.asarray(scalars["pairs"]))
    feed.close()
    return np.stack(found)


@pytest.mark.parametrize(
    ("parallelism", "devices"), [("shard_map", 1), ("shard_map", 2), ("shard_map", 4), ("pmap", 4)]
)
@pytest.mark.parametrize("where", ["sharded", "stream"])
def test_every_placement_draws_the_same_batches_on_any_number_of_devices(where, devices, parallelism):
    own = order_key(jax.random.fold_in(KEY, Purpose.D_DATA))
    expected = np.stack([rows(own, jnp.int32(i), 8, N) for i in range(5)])
    found = drawn_by(where, parallelism, devices)
    np.testing.assert_array_equal(found[:, :, 0], expected)
    np.testing.assert_array_equal(found[:, :, 1], expected % 10)
    # 40 samples are an epoch of 37 and the beginning of the next.
    np.testing.assert_array_equal(np.sort(found[:, :, 0].ravel()[:N]), np.arange(N))


@pytest.mark.parametrize("parallelism", ["shard_map", "pmap"])
@pytest.mark.parametrize("where", ["replicated", "sharded", "stream"])
def test_every_placement_draws_by_the_same_order(where, parallelism):
    """An order in which image 7 comes five times and image 2 never."""
    order = np.int32([7, 7, 7, 7, 7, 0, 36, 12, 5])
    own = order_key(jax.random.fold_in(KEY, Purpose.D_DATA))
    expected = np.stack([order[rows(own, jnp.int32(i), 8, len(order))] for i in range(5)])
    found = drawn_by(where, parallelism, 4, order=order)
    np.testing.assert_array_equal(found[:, :, 0], expected)
    np.testing.assert_array_equal(found[:, :, 1], expected % 10)


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9])
def test_a_dataset_is_split_evenly_and_whole(size):
    share = placement.place("sharded", numbered(size), make_mesh(jax.devices()[:4]))
    assert isinstance(share, Share) and share.images.shape == (4, -(-size // 4), 8 * 8)
    held = np.asarray(share.images)[..., 0].ravel()
    np.testing.assert_array_equal(held[:size], np.arange(size))
    assert {shard.data.shape[0] for shard in share.images.addressable_shards} == {1}
    assert share.labels.sharding.is_fully_replicated and share.labels.shape == (size,)


@functools.cache
def training():
    """An algorithm of which both players draw real images, the discriminator twice a step, and its first state."""
    from tests.conftest import small_recipe

    recipe = small_recipe()
    recipe["train"] |= {"batch_size": 8, "g_batch_size": 4, "d_steps_per_g_step": 2}
    recipe["loss"]["d_updates"] = {"both": {"relativistic": {"weight": 1.0}}}
    recipe["loss"]["g_terms"] = {"relativistic": {"weight": 1.0}}
    algorithm = build(recipe, SPEC)
    return algorithm, train_state.create(algorithm, SPEC, KEY)


@functools.cache
def compiled(where: str):
    """The mesh of two devices and the call of two steps."""
    mesh = make_mesh(jax.devices()[:2])
    steps = functools.partial(train_steps, training()[0], 2)
    return mesh, distribute(steps, mesh, "shard_map", placement.SPECS[where])


def trained(where: str, start: int, calls: int, state):
    """The state and the scalars of each of `calls` calls of two steps, from step `start` on."""
    mesh, call = compiled(where)
    state, found = replicate(state, mesh), []
    images = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 1), np.uint8)
    data = Data(images, np.arange(N, dtype=np.int32) % 10)
    feed = placement.feed(where, data, mesh, functools.partial(drawn_rows, training()[0], 2), state.key, 2, start)
    for _ in range(calls):
        state, scalars = call(state, next(feed))
        found.append(jax.device_get(scalars))
    feed.close()
    return state, found


def bits(state, found):
    return jax.device_get((state.replace(key=jax.random.key_data(state.key)), found))


@functools.cache
def expected():
    return bits(*trained("replicated", 0, 3, training()[1]))


def test_training_on_shares_ends_in_the_same_bits():
    jax.tree.map(np.testing.assert_array_equal, bits(*trained("sharded", 0, 3, training()[1])), expected())


def test_training_on_a_stream_that_is_left_and_begun_again_ends_in_the_same_bits():
    """Also that no image was missing: it would have been NaN."""
    state, before = trained("stream", 0, 1, training()[1])
    state, after = trained("stream", 2, 2, state)
    jax.tree.map(np.testing.assert_array_equal, bits(state, before + after), expected())
    assert all(np.isfinite(number) for scalars in before + after for number in scalars.values())


def test_an_image_that_was_not_sent_is_nan_and_no_other_image():
    images, held = np.zeros((1, 3, 8 * 8), np.uint8), np.int32([[2, 5, 9]])
    data = Window(jnp.asarray(images), jnp.asarray(held), jnp.zeros(N, jnp.int32))
    wanted = jnp.int32([9, 3, 2, 36])
    found = np.isnan(np.asarray(fetched(data, wanted))).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(found, [False, True, False, True])


@pytest.mark.parametrize("shape", [(8, 8, 1), (4, 4, 3), (48, 48, 3)])
def test_images_that_lie_as_rows_are_drawn_as_they_were(shape):
    images = np.random.default_rng(0).integers(0, 256, (5, *shape), np.uint8)
    placed = placement.place("replicated", Data(images, np.zeros(5, np.int32)), make_mesh(jax.devices()[:1]))
    assert placed.images.shape == (5, np.prod(shape))
    drawn = np.asarray(fetched(placed, jnp.int32([4, 2])))
    np.testing.assert_array_equal(np.round(drawn * 127.5 + 127.5), images[[4, 2]])


def test_shares_of_a_batch_are_sorted_by_replica():
    d_rows, g_rows = np.int32([[9, 1, 8, 2], [3, 7, 3, 6]]), np.int32([[5, 4]])
    np.testing.assert_array_equal(placement.sorted_shares(d_rows, g_rows, 2), [[1, 3, 5, 7, 9], [2, 3, 4, 6, 8]])
    np.testing.assert_array_equal(
        placement.sorted_shares(d_rows, np.zeros((0, 4), np.int32), 4), [[3, 9], [1, 7], [3, 8], [2, 6]]
    )


def test_windows_are_made_ahead_in_order_by_another_thread():
    made, threads = [], set()

    def make(step):
        made.append(step)
        threads.add(threading.current_thread())
        return step

    windows = placement.ahead(make, iter(range(10, 100, 2)))
    assert [next(windows) for _ in range(3)] == [10, 12, 14]
    windows.close()
    assert made == [10, 12, 14, 16, 18][: len(made)]
    assert threads and threading.main_thread() not in threads
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("stream")]


def test_what_keeps_a_window_from_being_made_ends_the_run():
    def make(step):
        raise OSError(f"no data for step {step}")

    with pytest.raises(OSError, match="no data for step 4"):
        next(placement.ahead(make, iter([4, 5, 6])))
