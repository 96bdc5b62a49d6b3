"""Convolutions."""

import jax
from jax import lax


def conv(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: str = "SAME") -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def conv_transpose(x: jax.Array, kernel: jax.Array, stride: int = 2, padding: str = "SAME") -> jax.Array:
    return lax.conv_transpose(x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
