"""Programs have the compiler options that suit their devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax import compilation
from cgan_jax.networks import convolution
from cgan_jax.parallel import distribute, make_mesh, per_sample

X, KERNEL = np.ones((32, 16, 16, 64), np.float32), np.ones((3, 3, 64, 64), np.float32)


@pytest.fixture(autouse=True)
def fresh():
    compilation.options.cache_clear()
    yield
    compilation.options.cache_clear()


def convolved(kernel, x):
    return convolution.conv(x, kernel)


def uses_ynnpack(lowered) -> bool:
    return "__ynn_fusion" in lowered.compile().as_text()


def test_convolutions_on_a_processor_are_left_to_eigen_and_products_to_ynnpack():
    assert uses_ynnpack(jax.jit(convolved).lower(KERNEL, X))  # or the option is not needed
    assert not uses_ynnpack(compilation.jit(convolved).lower(KERNEL, X))
    assert uses_ynnpack(compilation.jit(jnp.matmul).lower(X[0, 0], KERNEL[0, 0]))


def test_training_and_drawing_have_the_options():
    mesh = make_mesh(jax.devices()[:1])
    step = distribute(lambda state, data: (state + convolved(KERNEL, data), jnp.zeros(())), mesh)
    assert not uses_ynnpack(step.lower(X, X))
    assert not uses_ynnpack(per_sample(convolved, mesh).lower(KERNEL, X))


def test_inside_another_compiled_function_the_options_of_that_one_count():
    double = compilation.jit(lambda x, times: x * times, static_argnums=1)
    assert double(3.0, 2) == 6
    assert jax.jit(lambda x: double(x, 2) + 1)(3.0) == 7
    assert jax.grad(lambda x: double(x, 2))(3.0) == 2
    assert uses_ynnpack(jax.jit(compilation.jit(convolved)).lower(KERNEL, X))


@pytest.mark.parametrize("flags", ["", "--xla_cpu_experimental_ynn_fusion_type=individual_convolution"])
def test_xla_flags_that_choose_a_library_are_followed(monkeypatch, flags):
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert (compilation.options("cpu") is None) == bool(flags)


def test_accelerators_have_the_options_of_xla():
    assert compilation.options("tpu") is None and compilation.options("gpu") is None


def test_an_xla_without_the_option_compiles_with_its_own(monkeypatch):
    monkeypatch.setattr(compilation, "_PRODUCTS_ALONE", {"xla_cpu_no_such_option": "1"})
    assert compilation.options("cpu") is None
    assert compilation.jit(lambda x: x + 1)(1) == 2
