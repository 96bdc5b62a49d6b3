"""The convolutions against lax's, which are slow but correct."""

import functools
import os

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from cgan_jax.networks import convolution, convolution_cpu
from tests.lowerings import lower_as_for

TOLERANCE = 1e-5  # of the tensor's largest entry, in float32


def lax_conv(x, kernel, stride=1, padding="SAME"):
    return lax.conv_general_dilated(x, kernel, (stride,) * 2, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def lax_conv_transpose(x, kernel, stride=2, padding="SAME"):
    return lax.conv_transpose(x, kernel, (stride,) * 2, padding)


PAIRS = {"conv": (convolution.conv, lax_conv), "conv_transpose": (convolution.conv_transpose, lax_conv_transpose)}


def draw(*shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), dtype)


def assert_near(ours, theirs, tolerance=TOLERANCE):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


def gradients(operation, **options):
    """(x, kernel) -> gradients of a loss whose cotangents differ from position to position."""

    def loss(x, kernel):
        return jnp.sum(jnp.sin(operation(x, kernel, **options).astype(jnp.float32)))

    return jax.grad(loss, (0, 1))


def quick_jit(function):
    """Compilation takes most of the time of these tests."""
    return jax.jit(
        function, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    )


@pytest.fixture(autouse=True)
def _lower_small_shapes_too(monkeypatch):
    """Small shapes use the CPU's lowerings of large ones, so that the tests cover them."""
    monkeypatch.setattr(convolution_cpu, "_SMALL", 0)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(("stride", "wasteful"), [(1, 0), (2, 0), (2, 1e9), (3, 0), (3, 1e9)])
@pytest.mark.parametrize(
    ("kernel", "padding", "size", "channels"),
    [
        ((1, 2), "SAME", (5, 6), (5, 6)),
        ((2, 1), "VALID", (6, 5), (6, 5)),
        ((3, 3), "SAME", (7, 6), (3, 5)),
        ((3, 4), "VALID", (6, 7), (5, 3)),
        ((4, 4), "SAME", (8, 7), (5, 6)),
        ((5, 6), "VALID", (9, 8), (5, 6)),
        ((8, 3), "SAME", (8, 9), (6, 3)),
        ((2, 7), "SAME", (9, 8), (1, 1)),
        ((5, 5), "SAME", (4, 4), (5, 6)),
        ((7, 3), "SAME", (3, 4), (6, 3)),
    ],
)
def test_values_and_gradients_match_lax(monkeypatch, name, kernel, stride, wasteful, padding, size, channels):
    monkeypatch.setattr(convolution_cpu, "_WASTEFUL", wasteful)  # columns apart, or together
    x, kernel = draw(2, *size, channels[0]), draw(*kernel, *channels)

    def both(x, kernel):
        return [
            (f(x, kernel, stride, padding), gradients(f, stride=stride, padding=padding)(x, kernel))
            for f in PAIRS[name]
        ]

    assert_near(*quick_jit(both)(x, kernel))


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(
    ("stride", "kernel", "padding", "channels"),
    [(1, 3, "SAME", (5, 3)), (2, 3, "VALID", (3, 5)), (2, 4, "SAME", (5, 6)), (3, 2, "SAME", (5, 5))],
)
def test_second_derivatives_match_lax(monkeypatch, name, stride, kernel, padding, channels):
    monkeypatch.setattr(convolution_cpu, "_WASTEFUL", 0)
    x, kernel = draw(2, 6, 5, channels[0]), draw(kernel, kernel, *channels)

    def both(x, kernel):
        second = []
        for operation in PAIRS[name]:
            first = gradients(operation, stride=stride, padding=padding)
            for which in (0, 1):  # 0 is what R1 needs

                def squared_norm(x, kernel, first=first, which=which):
                    return jnp.sum(first(x, kernel)[which] ** 2)

                second.append(jax.grad(squared_norm, (0, 1))(x, kernel))
        return second[:2], second[2:]

    assert_near(*quick_jit(both)(x, kernel))


@pytest.mark.parametrize("name", PAIRS)
def test_defaults_match_lax(name):
    x, kernel = draw(3, 4, 4, 5), draw(4, 4, 5, 6)
    ours, theirs = (f(x, kernel) for f in PAIRS[name])  # and without jit
    assert_near(ours, theirs)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_vmap(name, axes):
    x, kernel = draw(3, 2, 6, 6, 5), draw(3, 4, 4, 5, 3)
    arguments = [a if axis == 0 else a[0] for a, axis in zip((x, kernel), axes, strict=True)]
    ours, theirs = (quick_jit(jax.vmap(gradients(f, stride=2), axes))(*arguments) for f in PAIRS[name])
    assert_near(ours, theirs)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(("size", "channels", "stride"), [((6, 6), (5, 6), 2), ((8, 8), (6, 3), 1)])
def test_shard_map_gradients_match_one_device(monkeypatch, name, size, channels, stride):
    assert jax.device_count() == 8
    monkeypatch.setattr(convolution_cpu, "_SLICE", 64)
    monkeypatch.setattr(convolution_cpu, "_WASTEFUL", 0)
    x, kernel = draw(16, *size, channels[0]), draw(4, 4, *channels)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def per_device(x, kernel):
        # JAX sums a replicated kernel's gradient over the devices, also through our derivatives.
        return gradients(ours, stride=stride)(x, kernel)

    def with_varying_kernel(x, kernel):
        x, kernel = gradients(ours, stride=stride)(x, lax.pcast(kernel, "data", to="varying"))
        return x, lax.psum(kernel, "data")

    ours, theirs = PAIRS[name]
    expected = quick_jit(gradients(theirs, stride=stride))(x, kernel)
    for function in (per_device, with_varying_kernel):
        sharded = jax.shard_map(function, mesh=mesh, in_specs=(P("data"), P()), out_specs=(P("data"), P()))
        assert_near(quick_jit(sharded)(x, kernel), expected)


@pytest.mark.parametrize("name", PAIRS)
def test_second_derivatives_in_shard_map(name):
    x, kernel = draw(8, 6, 6, 5), draw(4, 4, 5, 6)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def penalty_gradient(operation, average):
        def penalty(kernel, x):
            return jnp.sum(gradients(operation, stride=2)(x, kernel)[0] ** 2)

        return lambda x, kernel: average(jax.grad(penalty)(kernel, x))

    ours, theirs = PAIRS[name]
    sharded = jax.shard_map(
        lambda x, kernel: penalty_gradient(ours, lambda g: lax.psum(g, "data"))(
            x, lax.pcast(kernel, "data", to="varying")
        ),
        mesh=mesh, in_specs=(P("data"), P()), out_specs=P(),
    )  # fmt: skip
    assert_near(quick_jit(sharded)(x, kernel), quick_jit(penalty_gradient(theirs, lambda g: g))(x, kernel))


def test_pmap_and_scan():
    x, kernel = draw(8, 2, 4, 4, 5), draw(4, 4, 5, 5)

    def step(ours):
        def body(kernel, _):
            gradient = gradients(ours)(x_local, kernel)[1]
            return kernel - 1e-3 * lax.pmean(gradient, "data"), jnp.sum(kernel)

        def run(x, kernel):
            nonlocal x_local
            x_local = x
            return lax.scan(body, kernel, length=3)[0]

        x_local = None
        return jax.pmap(run, "data", in_axes=(0, None))

    ours, theirs = (step(f)(x, kernel) for f in PAIRS["conv_transpose"])
    assert_near(ours, theirs)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("channels", [(5, 6), (6, 3), (3, 6)])
def test_bfloat16(name, channels):
    x, kernel = draw(4, 8, 8, channels[0], dtype=jnp.bfloat16), draw(4, 4, *channels, dtype=jnp.bfloat16)
    ours = quick_jit(gradients(PAIRS[name][0]))(x, kernel)
    assert {g.dtype for g in ours} == {jnp.dtype(jnp.bfloat16)}
    value = quick_jit(PAIRS[name][0])(x, kernel)
    x, kernel = x.astype(jnp.float32), kernel.astype(jnp.float32)
    # bfloat16 keeps 8 bits, and the loss takes the sine of a rounded value.
    assert_near(value.astype(jnp.float32), PAIRS[name][1](x, kernel), 2**-8)
    exact = quick_jit(gradients(PAIRS[name][1]))(x, kernel)
    assert_near([g.astype(jnp.float32) for g in ours], exact, 0.05)


def lowered(operation, stride, platform):
    shapes = jax.ShapeDtypeStruct((2, 6, 6, 5), jnp.float32), jax.ShapeDtypeStruct((4, 4, 5, 6), jnp.float32)
    function = jax.jit(gradients(operation, stride=stride))
    return export.export(function, platforms=(platform,))(*shapes).mlir_module()


def test_no_multiplication_by_the_zeros_of_a_dilated_input():
    assert "lhs_dilate" in lowered(lax_conv_transpose, 2, "cpu")  # so the word is the right one to look for
    for operation in (convolution.conv, convolution.conv_transpose):
        for stride in (1, 2, 3):
            assert "lhs_dilate" not in lowered(operation, stride, "cpu").replace("lhs_dilate = [1, 1]", "")


def test_one_exported_program_serves_all_platforms():
    def penalty(x, kernel):
        return jnp.sum(convolution.conv_transpose(convolution.conv(x, kernel), kernel) ** 2)

    x, kernel = draw(2, 6, 6, 5), draw(4, 4, 5, 5)
    function = quick_jit(jax.value_and_grad(penalty, (0, 1)))
    exported = export.export(function, platforms=("cpu", "cuda", "tpu"))(x, kernel)
    loaded = export.deserialize(bytearray(exported.serialize()))
    assert loaded.platforms == ("cpu", "cuda", "tpu")
    assert_near(loaded.call(x, kernel), function(x, kernel))


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("stride", [1, 2])
def test_symbolic_batch(name, stride):
    batch = export.symbolic_shape("batch")[0]
    ours, theirs = (functools.partial(f, stride=stride) for f in PAIRS[name])
    exported = export.export(jax.jit(ours))(
        jax.ShapeDtypeStruct((batch, 4, 4, 5), jnp.float32), jax.ShapeDtypeStruct((4, 4, 5, 3), jnp.float32)
    )
    x, kernel = draw(7, 4, 4, 5), draw(4, 4, 5, 3)
    assert_near(exported.call(x, kernel), theirs(x, kernel))


@pytest.mark.parametrize(
    ("x", "kernel", "options", "message"),
    [
        ((2, 4, 4, 3), (3, 3, 4, 5), {}, "kernel"),
        ((4, 4, 3), (3, 3, 3, 5), {}, "kernel"),
        ((2, 4, 4, 3), (3, 3, 3, 5), {"stride": 0}, "stride"),
        ((2, 4, 4, 3), (3, 3, 3, 5), {"padding": "same"}, "padding"),
        ((2, 4, 4, 3), (5, 3, 3, 5), {"padding": "VALID"}, "VALID"),
    ],
)
def test_wrong_use_says_what_was_given(x, kernel, options, message):
    with pytest.raises(ValueError, match=message):
        convolution.conv(draw(*x), draw(*kernel), **options)


def test_a_large_batch_in_slices_matches_lax(monkeypatch):
    monkeypatch.setattr(convolution_cpu, "_SLICE", 64)
    x, kernel = draw(12, 6, 6, 5), draw(4, 4, 5, 3)
    for ours, theirs in PAIRS.values():
        assert_near(*(quick_jit(gradients(f, stride=1))(x, kernel) for f in (ours, theirs)))
        assert_near(ours(x, kernel, stride=1), theirs(x, kernel, stride=1))


@pytest.mark.parametrize("batch", [7, 12])
@pytest.mark.parametrize("name", PAIRS)
def test_channels_too_many_to_stack_taps_match_lax(monkeypatch, name, batch):
    monkeypatch.setattr(convolution_cpu, "_NARROW", convolution_cpu._THIN)
    monkeypatch.setattr(convolution_cpu, "_SLICE", 64)
    x, kernel = draw(batch, 6, 7, 5), draw(3, 4, 5, 6)
    assert_near(*(quick_jit(gradients(f, stride=2))(x, kernel) for f in PAIRS[name]))


@pytest.mark.parametrize("size", [(8, 12), (6, 8)])
def test_a_large_kernel_to_few_channels_on_a_tpu_matches_lax(monkeypatch, size):
    lower_as_for(monkeypatch, "tpu")
    x, kernel = draw(2, *size, 5), draw(8, 5, 5, 3)

    def all_of(operation):
        return quick_jit(lambda: (operation(x, kernel), gradients(operation)(x, kernel)))()

    assert_near(all_of(convolution.conv), all_of(lax_conv))


def lax_grouped_conv(x, kernel):
    """One convolution for each group of channels."""
    groups = x.shape[3] // kernel.shape[2]
    parts = zip(jnp.split(x, groups, 3), jnp.split(kernel, groups, 3), strict=True)
    return jnp.concatenate([lax_conv(part, its) for part, its in parts], 3)


GROUPED = [
    ((2, 5, 6, 12), (3, 3, 4, 12)),
    ((3, 4, 4, 6), (1, 5, 2, 6)),
    ((2, 3, 3, 4), (3, 1, 1, 4)),
    ((8, 16, 16, 64), (3, 3, 16, 64)),  # enough for its own kernel gradient on a CPU
]


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
@pytest.mark.parametrize(("shape", "kernel_shape"), GROUPED, ids=str)
def test_a_grouped_convolution_and_its_derivatives_are_those_of_its_groups(monkeypatch, shape, kernel_shape, platform):
    lower_as_for(monkeypatch, platform)
    x, kernel = draw(*shape), draw(*kernel_shape)

    def all_of(operation):
        def penalty(x, kernel):  # as R1 has it
            return sum(jnp.sum(jnp.square(g)) for g in gradients(operation)(x, kernel))

        penalised = jax.grad(penalty, (0, 1))
        return quick_jit(lambda: (operation(x, kernel), gradients(operation)(x, kernel), penalised(x, kernel)))()

    assert_near(all_of(convolution.grouped_conv), all_of(lax_grouped_conv))


def test_a_grouped_convolutions_replicated_kernel_gets_the_summed_gradient():
    x, kernel = draw(8, 4, 4, 4), draw(3, 3, 2, 4)
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:4]), ("data",), axis_types=(AxisType.Auto,))

    def kernel_gradient(operation):
        return lambda x, kernel: gradients(operation)(x, kernel)[1]

    mapped = jax.shard_map(
        kernel_gradient(convolution.grouped_conv), mesh=mesh, in_specs=(P("data"), P()), out_specs=P()
    )
    assert_near(jax.jit(mapped)(x, kernel), kernel_gradient(lax_grouped_conv)(x, kernel))


MISFITS = [((2, 4, 4, 6), (3, 3, 4, 6)), ((2, 4, 4, 6), (2, 3, 3, 6)), ((2, 4, 4, 4), (3, 3, 3, 6))]


@pytest.mark.parametrize("shapes", MISFITS, ids=str)
def test_groups_that_do_not_fit_are_refused(shapes):
    with pytest.raises(ValueError, match="need x"):
        convolution.grouped_conv(*(draw(*shape) for shape in shapes))
