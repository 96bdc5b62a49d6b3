"""A small convolutional network, trained to name the classes of CIFAR-10 and fixed since: features for discriminators.

Seven 3x3 convolutions, each with a bias and a ReLU; its batch normalisation is folded into kernels and biases.
`benchmarks/pretrain.py` trains it. No score uses it, because a generator that learns from a network may deceive it.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cgan_jax.networks import convolution

WEIGHTS = Path(__file__).with_name("pretrained.npz")
"""8 epochs of the 50,000 training images of CIFAR-10's JPEG copy, augmented, in 27 minutes on two shared cores of an
AMD EPYC; 83.72% of the 10,000 test images right. The file never changes, so that runs resume."""


class Layer(NamedTuple):
    """One of the convolutions."""

    features: int
    stride: int


LAYERS = (Layer(32, 1), Layer(64, 2), Layer(64, 1), Layer(128, 2), Layer(128, 1), Layer(192, 2), Layer(192, 1))

Weights = Sequence[tuple[jax.Array, jax.Array]]
"""(kernel [3, 3, I, O], bias [O]) of each layer."""


def feature_maps(weights: Weights, images: jax.Array) -> list[jax.Array]:
    """Images float [N, H, W, 1, 3 or 4] in [-1, 1] -> maps [N, H / 2^i, W / 2^i, C], the last of each size, i = 0 to 3.

    Grey is taken for all three colours, and a fourth channel is ignored.
    """
    x = jnp.broadcast_to(images, (*images.shape[:-1], 3)) if images.shape[-1] == 1 else images[..., :3]
    maps = []
    for layer, (kernel, bias) in zip(LAYERS, weights, strict=True):
        x = convolution.conv(x, kernel.astype(x.dtype), layer.stride)
        x = jax.nn.relu(x + bias.astype(x.dtype).reshape(1, 1, 1, -1))
        if layer.stride == 1:
            maps.append(x)
    return maps


@functools.cache
def weights() -> list[tuple[np.ndarray, np.ndarray]]:
    """The packaged weights, float32."""
    with np.load(WEIGHTS) as stored:
        arrays = {name: stored[name].astype(np.float32) for name in stored.files}
    return [(arrays[f"kernel{i}"], arrays[f"bias{i}"]) for i in range(len(LAYERS))]
