"""FLOP counted by hand, known times, and the ceiling of a matrix product."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cgan_jax import train_state
from cgan_jax.build import ImageSpec, build
from cgan_jax.data.batches import on_host
from cgan_jax.losses.terms import seldom
from cgan_jax.parallel import distribute, make_mesh
from cgan_jax.run import devices, throughput
from cgan_jax.run.throughput import Spread, ceiling, layer_flop, layer_flop_by_dtype, most_of, peak_bytes, seconds_of
from cgan_jax.train_step import train_step, train_steps

SPEC = ImageSpec(image_size=8, channels=1, num_classes=10)


def zeros(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def data():
    return on_host(np.zeros((20, 8, 8, 1), np.uint8), np.arange(20) % 10)


def shapes(algorithm):
    return jax.eval_shape(lambda: train_state.create(algorithm, SPEC, jax.random.key(0)))


def test_a_matrix_product_counts_a_multiplication_and_an_addition_per_term():
    assert layer_flop(jnp.matmul, zeros(3, 4), zeros(4, 5)) == 2 * 3 * 4 * 5
    assert layer_flop(jax.vmap(jnp.matmul), zeros(7, 3, 4), zeros(7, 4, 5)) == 7 * 2 * 3 * 4 * 5
    compiled = jax.jit(jnp.matmul).lower(zeros(30, 40), zeros(40, 50)).compile()
    assert layer_flop(jnp.matmul, zeros(30, 40), zeros(40, 50)) == compiled.cost_analysis()["flops"]


def test_a_convolution_counts_its_taps_and_not_the_zeros_of_a_transposed_one():
    dimensions = ("NHWC", "HWIO", "NHWC")
    conv = functools.partial(lax.conv_general_dilated, padding="SAME", dimension_numbers=dimensions)
    strided = functools.partial(conv, window_strides=(2, 2))
    assert layer_flop(strided, zeros(2, 8, 8, 3), zeros(5, 5, 3, 7)) == 2 * (2 * 4 * 4) * (5 * 5 * 3) * 7
    grouped = functools.partial(conv, window_strides=(1, 1), feature_group_count=3)
    assert layer_flop(grouped, zeros(2, 8, 8, 3), zeros(5, 5, 1, 6)) == 2 * (2 * 8 * 8) * (5 * 5 * 1) * 6
    transposed = functools.partial(lax.conv_transpose, strides=(2, 2), padding="SAME")
    assert layer_flop(transposed, zeros(2, 8, 8, 3), zeros(4, 4, 3, 7)) == 2 * (2 * 8 * 8) * (4 * 4 * 3) * 7


def test_loops_branches_and_unused_results():
    def looped(x):
        return lax.scan(lambda x, _: (jnp.matmul(x, x), None), x, length=6)[0]

    def branched(x, p):
        return lax.cond(p, lambda: x @ x @ x, lambda: x)

    def lazy(x):
        every_third = lambda i, x: seldom(i, 3, lambda y: y @ y, lambda y: y, x)  # noqa: E731
        return lax.fori_loop(0, 6, every_third, x)

    def forgetful(x):
        return [x @ x, x @ x @ x][0]

    one = 2 * 4**3
    assert layer_flop(lazy, zeros(4, 4)) == 6 * (one // 3)
    # A term in a loss, differentiated, and such a term in an update of the same period.
    term = lambda x: jnp.sum(seldom(i, 4, lambda y: y @ y, jnp.zeros_like, x))  # noqa: E731
    i = jnp.int32(0)
    assert layer_flop(jax.value_and_grad(term), zeros(4, 4)) == 3 * one // 4
    update = lambda x: seldom(i, 4, jax.grad(term), jnp.zeros_like, x)  # noqa: E731
    assert layer_flop(update, zeros(4, 4)) == 2 * one // 4
    assert layer_flop(looped, zeros(4, 4)) == 6 * one
    assert layer_flop(branched, zeros(4, 4), jax.ShapeDtypeStruct((), bool)) == 2 * one
    assert layer_flop(forgetful, zeros(4, 4)) == one


def test_arithmetic_is_counted_by_dtype():
    def mixed(x):
        half = x.astype(jnp.bfloat16)
        return lax.scan(lambda half, _: (half @ half, None), half, length=3)[0] @ half, x @ x

    one = 2 * 4**3
    flop = layer_flop_by_dtype(mixed, zeros(4, 4))
    assert flop == {"bfloat16": 4 * one, "float32": one}
    assert most_of(flop) == "bfloat16"


def by_hand(width: int, latent_dim: int, output_kernel_size: int, batch_size: int) -> int:
    """A step of the unconditional dcgan on 8x8x1: D on real and generated images together, then G."""
    g_dense = 2 * latent_dim * (2 * 2 * width)
    g = g_dense + 2 * (4 + 16) * 4**2 * width * width + 2 * 64 * output_kernel_size**2 * width
    d_first = 2 * 16 * 3**2 * 1 * width
    d = d_first + 2 * 4 * 3**2 * width * width + 2 * (2 * 2 * width)
    # The gradient by the kernel costs as much as the layer; so does that by the input if a parameter lies before.
    discriminator = g + 2 * (d + d + (d - d_first))
    generator = g + d + d + g + (g - g_dense)
    return batch_size * (discriminator + generator)


@pytest.mark.parametrize(("width", "output_kernel_size"), [(4, 4), (6, 3)])
def test_a_whole_step_agrees_with_the_count_by_hand(recipe, width, output_kernel_size):
    recipe["dataset"]["conditional"] = False
    recipe["generator"] |= {"width": width, "output_kernel_size": output_kernel_size}
    recipe["discriminator"]["width"] = width
    algorithm = build(recipe, SPEC)
    counted = layer_flop(functools.partial(train_step, algorithm), shapes(algorithm), data())
    assert counted == by_hand(width, 4, output_kernel_size, 16)


@pytest.mark.parametrize("parallelism", ["shard_map", "pmap"])
def test_a_distributed_call_counts_every_step_on_every_device(recipe, parallelism):
    algorithm = build(recipe, SPEC)
    alone = layer_flop(functools.partial(train_step, algorithm), shapes(algorithm), data())
    call = distribute(functools.partial(train_steps, algorithm, 3), make_mesh(), parallelism)
    assert layer_flop(call, shapes(algorithm), data()) == 3 * alone


def test_the_ceiling_is_the_best_of_the_first_size_that_takes_long_enough(monkeypatch):
    asked = []

    def product_seconds(mesh, size, dtype):
        asked.append((size, dtype))
        return [size / 1e5, size / 1e5 + 1]

    monkeypatch.setattr(throughput, "_product_seconds", product_seconds)
    assert ceiling(make_mesh(), "bfloat16") == pytest.approx(8 * 2 * 1024**3 / 0.01024)
    assert asked == [(512, "bfloat16"), (1024, "bfloat16")]


def test_a_real_ceiling_is_found_quickly():
    began = time.perf_counter()
    assert 1e8 < ceiling(make_mesh(), "float32") < 1e18
    assert time.perf_counter() - began < 20  # generous, for a busy machine


def test_speed_is_compared_with_the_datasheet_where_the_device_is_known(monkeypatch):
    call, mesh = jax.jit(lambda x, y: (x @ y, None)), make_mesh()
    monkeypatch.setattr(throughput, "ceiling", lambda mesh, dtype: 1e9)
    flop = 2 * 4**3
    assert throughput.calls_per_sec_at_most(call, zeros(4, 4), zeros(4, 4), mesh) == {"ceiling": 1e9 / flop}
    kind = mesh.devices.flat[0].device_kind
    monkeypatch.setitem(devices.DEVICES, "this", devices.DEVICES["h100"]._replace(kinds=(kind,)))
    rates = throughput.calls_per_sec_at_most(call, zeros(4, 4), zeros(4, 4), mesh)
    assert rates["peak"] == pytest.approx(8 * 494e12 / flop)


def test_times_have_quartiles_and_the_state_passes_through_every_call():
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == (3.0, 2.0, 4.0)
    assert Spread.of([7.0]) == (7.0, 7.0, 7.0)

    def call(state, data):
        time.sleep(0.01)
        return state + data, None

    state, seconds = seconds_of(call, jnp.ones(()), jnp.full((), 2.0), 5)
    assert float(state) == 11.0
    assert 0.01 <= seconds.low <= seconds.median <= seconds.high


def test_the_peak_of_the_process_includes_what_it_holds():
    before = np.ones(3 * 2**20)
    count, whose = peak_bytes()
    assert whose == "process" and before.nbytes < count < 2**40
