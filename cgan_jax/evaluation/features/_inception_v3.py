"""The layers of Inception v3 as the TensorFlow graph of 2015-12-05 has them, in tables.

Szegedy, Vanhoucke, Ioffe, Shlens & Wojna (2016), "Rethinking the Inception Architecture for Computer Vision", table 1;
the figures below are theirs. The graph differs in that its average pools do not count their padding, its last block has
a maximum pool, and it knows 1,008 classes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cgan_jax.evaluation.features import Features
from cgan_jax.networks.layers import BatchNorm

_HIGHEST = jax.lax.Precision.HIGHEST  # float32 as such: accelerators would multiply in less


def average_pool(x: jax.Array) -> jax.Array:
    """The mean of 3 x 3 pixels, of those of them that there are at a border."""
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def maximum_pool(x: jax.Array) -> jax.Array:
    """The largest of 3 x 3 pixels. Only the last block of this graph has it; the paper has the average there too."""
    return nn.max_pool(x, (3, 3), (1, 1), "SAME")


def halve(x: jax.Array) -> jax.Array:
    """The largest of 3 x 3 pixels, at every second one."""
    return nn.max_pool(x, (3, 3), (2, 2), "VALID")


class Convolution(nn.Module):
    """Convolution without bias, batch norm by fixed statistics, ReLU (Ioffe & Szegedy 2015)."""

    features: int
    height: int
    width: int
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size, strides = (self.height, self.width), (self.stride, self.stride)
        conv = nn.Conv(self.features, size, strides, self.padding, use_bias=False, precision=_HIGHEST, name="conv")
        x = conv(x)
        return nn.relu(BatchNorm(epsilon=1e-3, name="bn")(x, train=False))


# A step is a pool, or the numbers of a convolution, or two such side by side: a fork, which ends its branch.
Step = Callable[[jax.Array], jax.Array] | tuple[Any, ...] | list[tuple[Any, ...]]
Branches = Mapping[str, tuple[Step, ...]]

_STEM = {
    "Conv2d_1a_3x3": ((32, 3, 3, 2, "VALID"),),
    "Conv2d_2a_3x3": ((32, 3, 3, 1, "VALID"),),
    "Conv2d_2b_3x3": ((64, 3, 3), halve),
    "Conv2d_3b_1x1": ((80, 1, 1),),
    "Conv2d_4a_3x3": ((192, 3, 3, 1, "VALID"), halve),
}


def _of_35_pixels(pooled: int) -> Branches:
    """Two 3 x 3 for a 5 x 5 beside a 5 x 5 (figure 5)."""
    return {
        "branch1x1": ((64, 1, 1),),
        "branch5x5": ((48, 1, 1), (64, 5, 5)),
        "branch3x3dbl": ((64, 1, 1), (96, 3, 3), (96, 3, 3)),
        "branch_pool": (average_pool, (pooled, 1, 1)),
    }


def _of_17_pixels(width: int) -> Branches:
    """7 x 7 as a column and a row (figure 6)."""
    row, column = (width, 1, 7), (width, 7, 1)
    return {
        "branch1x1": ((192, 1, 1),),
        "branch7x7": ((width, 1, 1), row, (192, 7, 1)),
        "branch7x7dbl": ((width, 1, 1), column, row, column, (192, 1, 7)),
        "branch_pool": (average_pool, (192, 1, 1)),
    }


def _of_8_pixels(pool: Step) -> Branches:
    """A row and a column side by side (figure 7)."""
    fork = [(384, 1, 3), (384, 3, 1)]
    return {
        "branch1x1": ((320, 1, 1),),
        "branch3x3": ((384, 1, 1), fork),
        "branch3x3dbl": ((448, 1, 1), (384, 3, 3), fork),
        "branch_pool": (pool, (192, 1, 1)),
    }


_BLOCKS = {
    "Mixed_5b": _of_35_pixels(32),
    "Mixed_5c": _of_35_pixels(64),
    "Mixed_5d": _of_35_pixels(64),
    "Mixed_6a": {
        "branch3x3": ((384, 3, 3, 2, "VALID"),),
        "branch3x3dbl": ((64, 1, 1), (96, 3, 3), (96, 3, 3, 2, "VALID")),
        "branch_pool": (halve,),
    },
    "Mixed_6b": _of_17_pixels(128),
    "Mixed_6c": _of_17_pixels(160),
    "Mixed_6d": _of_17_pixels(160),
    "Mixed_6e": _of_17_pixels(192),
    "Mixed_7a": {
        "branch3x3": ((192, 1, 1), (320, 3, 3, 2, "VALID")),
        "branch7x7x3": ((192, 1, 1), (192, 1, 7), (192, 7, 1), (192, 3, 3, 2, "VALID")),
        "branch_pool": (halve,),
    },
    "Mixed_7b": _of_8_pixels(average_pool),
    "Mixed_7c": _of_8_pixels(maximum_pool),
}


def _branch(name: str, steps: tuple[Step, ...], x: jax.Array) -> list[jax.Array]:
    """What leaves a branch, two arrays after a fork. Its convolutions are numbered if there are several."""
    number, several = 0, sum(not callable(step) for step in steps) > 1
    for step in steps:
        if callable(step):
            outputs = [step(x)]
        else:
            number += several
            numbered = f"{name}_{number}" if several else name
            ways = zip("ab", step, strict=True) if isinstance(step, list) else [("", step)]
            outputs = [Convolution(*way, name=f"{numbered}{letter}")(x) for letter, way in ways]
        x = outputs[0]
    return outputs


class InceptionV3(nn.Module):
    """Images float32 [N, 299, 299, 3] in [-1, 1] -> features [N, 2048] and logits [N, 1008], these without a bias.

    Layers are called as in the published file.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> Features:
        for layer, steps in _STEM.items():
            (x,) = _branch(layer, steps, x)
        for block, branches in _BLOCKS.items():
            outputs = [y for branch, steps in branches.items() for y in _branch(f"{block}.{branch}", steps, x)]
            x = jnp.concatenate(outputs, axis=-1)
        features = jnp.mean(x, axis=(1, 2))
        return Features(features, nn.Dense(1008, use_bias=False, precision=_HIGHEST, name="fc")(features))
