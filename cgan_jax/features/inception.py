"""The Inception v3 of the original FID: the TensorFlow graph of 2015-12-05, with its published weights.

The network of Szegedy et al. (2016, "Rethinking the Inception Architecture for Computer Vision", table 1), as the graph
has it: average pools that do not count their padding, a maximum pool in the last block, 1,008 classes, and images made
299 x 299 by the resizer of TensorFlow 1. Heusel et al. (2017) compute FID from its pool3, the 2,048 features here, and
Salimans et al. (2016) the Inception Score from its logits without their bias, the logits here.

The weights are the file that torch-fidelity and pytorch-fid publish, converted from that graph (Apache License 2.0).
`cgan prepare-data --inception` fetches it; nothing else does. Tests hold this network to torch-fidelity's.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cgan_jax.cache import cache_path
from cgan_jax.errors import UsageError
from cgan_jax.features import Features, Network, _torch_file
from cgan_jax.layers import BatchNorm

FILE = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
PREPROCESSING = (
    "grey repeated to RGB; bilinear to 299x299 as TensorFlow 1 resizes (align_corners=False, no half-pixel centres, "
    "no antialiasing); (x - 128) / 128"
)
_CHANNELS = (1, 3)
_SIDE = 299
_CLASSES = 1008
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
    """Images float32 [N, 299, 299, 3] in [-1, 1] -> Features. Layers are called as in the published file."""

    @nn.compact
    def __call__(self, x: jax.Array) -> Features:
        for layer, steps in _STEM.items():
            (x,) = _branch(layer, steps, x)
        for block, branches in _BLOCKS.items():
            outputs = [y for branch, steps in branches.items() for y in _branch(f"{block}.{branch}", steps, x)]
            x = jnp.concatenate(outputs, axis=-1)
        features = jnp.mean(x, axis=(1, 2))
        return Features(features, nn.Dense(_CLASSES, use_bias=False, precision=_HIGHEST, name="fc")(features))


def resize(images: jax.Array, side: int = _SIDE) -> jax.Array:
    """[N, H, W, C] -> [N, side, side, C] as ResizeBilinear of TensorFlow 1 does with align_corners=False.

    Output pixel i lies at i * H / side of the input, not at the centre (i + 1/2) * H / side - 1/2 that its square
    would have, and is mixed of the two pixels around; shrinking leaves out what lies between.
    """
    for axis in (2, 1):
        size = images.shape[axis]
        position = np.arange(side, dtype=np.float32) * np.float32(size / side)
        low = position.astype(np.int32)
        shape = [side if a == axis else 1 for a in range(images.ndim)]
        before = jnp.take(images, low, axis, mode="clip")
        after = jnp.take(images, low + 1, axis, mode="clip")
        images = before + (after - before) * (position - low).astype(np.float32).reshape(shape)
    return images


def preprocess(images: jax.Array) -> jax.Array:
    """Images uint8 [N, H, W, 1 or 3] -> float32 [N, 299, 299, 3] in [-1, 1]."""
    if images.ndim != 4 or images.shape[-1] not in _CHANNELS or images.dtype != jnp.uint8:
        raise ValueError(f"need images uint8 [N, H, W, 1 or 3], given {images.dtype} {images.shape}")
    x = resize(images.astype(jnp.float32))
    if x.shape[-1] == 1:
        x = jnp.repeat(x, 3, axis=-1)
    return (x - 128) / 128


def extract(variables: Any, images: jax.Array) -> Features:
    """Images uint8 [N, H, W, 1 or 3] -> features [N, 2048] and logits [N, 1008], of each image by itself."""
    return InceptionV3().apply(variables, preprocess(images))


def load(path: str = "", sha256: str = SHA256) -> Network:
    """The network with the weights of a file: `path`, else $CGAN_INCEPTION_WEIGHTS, else the one in the cache folder.

    Raises UsageError, in one line that says what to do, where there is no file or another than the one published.
    """
    file = _weights_file(path)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise UsageError(f"{file} is not the published {FILE}: its sha256 is {digest}, not {sha256}")
    variables = _variables(_torch_file.read(content, str(file)), str(file))
    return Network("inception", "", digest, PREPROCESSING, _CHANNELS, None, (), variables, extract)


def cached_file() -> Path:
    """Where `cgan prepare-data --inception` puts the weights."""
    return cache_path() / FILE


def _weights_file(path: str) -> Path:
    for source, given in (("", path), ("CGAN_INCEPTION_WEIGHTS=", os.environ.get("CGAN_INCEPTION_WEIGHTS", ""))):
        if given:
            file = Path(given).expanduser()
            if not file.is_file():
                raise UsageError(f"{source}{given}: no such file; it is to be {FILE}, published at {URL}")
            return file
    if not cached_file().is_file():
        raise UsageError(
            f"the weights of the Inception network are not in {cached_file()}; run: cgan prepare-data --inception; "
            f"or fetch {URL} by hand and put it there, or where CGAN_INCEPTION_WEIGHTS says"
        )
    return cached_file()


def _variables(tensors: Mapping[str, np.ndarray], file: str) -> Any:
    """The network's variables from the published tensors. Raises UsageError if one is missing, or of another shape.

    Left are the bias of the logits and the counts of batches that PyTorch's batch norm keeps.
    """
    image = jax.ShapeDtypeStruct((1, _SIDE, _SIDE, 3), jnp.float32)
    wanted = jax.eval_shape(InceptionV3().init, jax.random.key(0), image)

    def published(path: tuple[jax.tree_util.DictKey, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        *layers, kind = [key.key for key in path[1:]]
        words = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "variance": "running_var"}
        name = ".".join([*layers, words.get(kind, kind)])
        if name not in tensors:
            raise UsageError(f"{file} does not hold the Inception network: {name} is missing")
        tensor = tensors[name]
        if kind == "kernel":  # features first there, last here
            tensor = tensor.T if tensor.ndim == 2 else np.moveaxis(tensor, (0, 1), (-1, -2))
        if tensor.shape != leaf.shape or tensor.dtype != leaf.dtype:
            raise UsageError(f"{file}: {name} is {tensor.dtype} {tensor.shape}, not {leaf.dtype} {leaf.shape}")
        return jnp.asarray(tensor)

    return jax.tree_util.tree_map_with_path(published, wanted)
