"""A small convolutional network, trained to name the classes of CIFAR-10 and fixed since: features for discriminators.

Seven 3x3 convolutions, each with a bias and a ReLU; its batch normalisation is folded into kernels and biases. Nothing
but `benchmarks/pretrain.py` trains it. Scores never use it: what a generator learns from a network says nothing there.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from cgan_jax.networks import convolution

WEIGHTS = Path(__file__).with_name("pretrained.npz")


class Layer(NamedTuple):
    features: int
    stride: int
    is_last: bool
    """Whether it is the last layer of its size, whose output discriminators see."""


LAYERS = (
    Layer(32, 1, True),
    Layer(64, 2, False),
    Layer(64, 1, True),
    Layer(128, 2, False),
    Layer(128, 1, True),
    Layer(192, 2, False),
    Layer(192, 1, True),
)

Weights = Sequence[tuple[jax.Array, jax.Array]]
"""(kernel [3, 3, I, O], bias [O]) of each layer."""


def feature_maps(weights: Weights, images: jax.Array) -> list[jax.Array]:
    """Images float [N, H, W, 3] in [-1, 1] -> four maps [N, H / 2^i, W / 2^i, C], largest first."""
    x, maps = images, []
    for layer, (kernel, bias) in zip(LAYERS, weights, strict=True):
        x = convolution.conv(x, kernel.astype(x.dtype), layer.stride)
        x = jax.nn.relu(x + bias.astype(x.dtype).reshape(1, 1, 1, -1))
        if layer.is_last:
            maps.append(x)
    return maps


@functools.cache
def weights() -> list[tuple[np.ndarray, np.ndarray]]:
    """The packaged weights, float32."""
    with np.load(WEIGHTS) as stored:
        return [
            (stored[f"kernel{i}"].astype(np.float32), stored[f"bias{i}"].astype(np.float32)) for i in range(len(LAYERS))
        ]
