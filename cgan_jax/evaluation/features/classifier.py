"""A small convolutional classifier, this project's own source of features: nothing has to be downloaded for it.

The network of Jordan (2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", section 3), narrower: a whitening
convolution of 2x2 patches, blocks of two 3x3 convolutions with batch normalisation and GELU, the maximum over what is
left of the picture, one linear layer. Its features are what that layer reads: where a mirror image is of the same
class, the mean over an image and its mirror image, which have the same features then. A Fréchet distance between them
is called `cfd`, never FID: its numbers mean something only beside others of the same weights.
"""

import functools
import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from cgan_jax.errors import UsageError
from cgan_jax.evaluation.features import Features, Network
from cgan_jax.files import json_text, storage
from cgan_jax.files.npz import arrays_in
from cgan_jax.networks import convolution

PACKAGED = Path(__file__).with_name("cifar10.npz")
"""Weights for CIFAR-10: 14 epochs of the 50,000 training images of its JPEG copy, decoded by Pillow 12.3.0, in 63
minutes on two cores of an AMD EPYC; 90.88% of the 10,000 test images right. `read` gives what stands beside them."""

_DESCRIPTION = "description"
_WHITENED = 2  # pixels a side


class Classifier(nn.Module):
    """images uint8 [N, H, W, C] -> (features float32 [N, F], logits float32 [N, num_classes]); H and W at least 8.

    Batch normalisation is by the batch when `train`, which updates the collection "batch_stats" if it is mutable.
    """

    num_classes: int
    widths: tuple[int, ...] = (64, 192, 192)
    mirrored: bool = False
    """Whether features outside training are the mean over the image and its mirror image."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        both = self.mirrored and not train
        if both:
            images = jnp.concatenate([images, images[:, :, ::-1]])
        normalized = functools.partial(nn.BatchNorm, not train, momentum=0.6, use_scale=False)
        x = nn.gelu(_Whitening()(images.astype(jnp.float32) / 64 - 2))
        for width in self.widths:
            x = nn.gelu(normalized()(pooled(_Conv(width)(x))))
            x = nn.gelu(normalized()(_Conv(width)(x)))
        features = jnp.max(x, axis=(1, 2))
        if both:
            features = jnp.mean(features.reshape(2, -1, features.shape[-1]), axis=0)
        head = nn.Dense(self.num_classes, use_bias=False, kernel_init=nn.initializers.normal(1.0))
        logits = head(features) / features.shape[-1]
        return features, logits


def pooled(x: jax.Array) -> jax.Array:
    """The maximum of every 2x2 pixels; an odd last row or column is left out.

    Two maxima of slices, because the gradient of a window's maximum takes more time than the convolutions on a CPU.
    """
    x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    x = jnp.maximum(x[:, ::2], x[:, 1::2])
    return jnp.maximum(x[:, :, ::2], x[:, :, 1::2])


def whitening(images: np.ndarray) -> np.ndarray:
    """The first convolution's kernel for images uint8 [N, H, W, C]: float32 [2, 2, C, 8C].

    The eigenvectors of the covariance of 2x2 patches, each divided by its standard deviation, then their negatives
    (Jordan 2024, section 3.2, after Page 2019).
    """
    x = images.astype(np.float32) / 64 - 2
    side = range(_WHITENED)
    corners = [x[:, i : x.shape[1] - 1 + i, j : x.shape[2] - 1 + j] for i in side for j in side]
    patches = np.stack(corners, axis=3).reshape(-1, len(corners) * x.shape[3]).astype(np.float64)
    variances, vectors = np.linalg.eigh(np.cov(patches, rowvar=False))
    vectors = (vectors / np.sqrt(variances + 5e-4)).reshape(_WHITENED, _WHITENED, x.shape[3], -1)
    return np.concatenate([vectors, -vectors], axis=3).astype(np.float32)


class _Whitening(nn.Module):
    """The convolution with the kernel of `whitening`, in the collection "fixed", which no optimizer sees."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        shape = (_WHITENED, _WHITENED, channels, 2 * channels * _WHITENED**2)
        kernel = self.variable("fixed", "kernel", jnp.zeros, shape).value
        bias = self.param("bias", nn.initializers.zeros, shape[-1:])
        return convolution.conv(x, kernel, 1, "VALID") + bias.reshape(1, 1, 1, -1)


class _Conv(nn.Module):
    """A 3x3 convolution without bias that starts as the identity, as far as it has the channels."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", _identity, (3, 3, x.shape[-1], self.features))
        return convolution.conv(x, kernel)


def _uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Uniform within 1 / sqrt(inputs)."""
    bound = float(np.prod(shape[:-1])) ** -0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def _identity(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Uniform, but output i is input i for the first outputs (Jordan 2024, section 3.3)."""
    kernel = _uniform(key, shape, dtype)
    same = min(shape[2], shape[3])
    dirac = jnp.zeros((*shape[:2], shape[2], same), dtype).at[1, 1, jnp.arange(same), jnp.arange(same)].set(1)
    return kernel.at[:, :, :, :same].set(dirac)


class Description(NamedTuple):
    """What the file of a classifier says of it."""

    class_names: tuple[str, ...]
    image_size: int
    channels: int
    widths: tuple[int, ...]
    dataset: str
    """Name, split and number of the images it was trained on, and how they were decoded."""
    accuracy: float
    """The share of held-out images whose class it names, with these weights."""
    tested_on: str
    training: str
    """Epochs, seed, machine, time, versions."""
    mirrored: bool = False
    """Whether a mirror image is of the same class."""

    @property
    def network(self) -> Classifier:
        """The module that the weights are of."""
        return Classifier(len(self.class_names), self.widths, self.mirrored)


def save(path: Path, description: Description, variables: Mapping[str, Any]) -> None:
    """Writes the description and the weights, as float16."""
    arrays = {name: np.asarray(value, np.float16) for name, value in flatten_dict(variables, sep="/").items()}
    text = np.frombuffer(json.dumps(description._asdict(), indent=1).encode(), np.uint8)
    with storage.replacing(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, **{_DESCRIPTION: text}, **arrays)


def read(path: Path) -> tuple[Description, dict[str, Any], str]:
    """(description, variables float32, sha256 of the file). Raises UsageError for what `save` did not write."""
    try:
        content = storage.read_bytes(path)
        arrays = arrays_in(io.BytesIO(content))
        fields = json_text.parsed(arrays.pop(_DESCRIPTION).tobytes())
        description = Description(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
        variables = unflatten_dict({name: value.astype(np.float32) for name, value in arrays.items()}, sep="/")
        expected = jax.eval_shape(functools.partial(init, description), jax.random.key(0))
        found = jax.tree.map(lambda x: (x.shape, bool(np.all(np.isfinite(x)))), variables)
        if found != jax.tree.map(lambda x: (x.shape, True), expected):
            raise ValueError("its weights are not those of its network")
    except FileNotFoundError:
        raise UsageError(f"there is no classifier {path}") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path} is no classifier: {error}") from error
    return description, variables, hashlib.sha256(content).hexdigest()


def place(source: str, name: str, data_dir: str, image_size: int, channels: int, class_names: tuple[str, ...]) -> Path:
    """Where in the cache folder the classifier of a dataset lies; `data_dir` counts if there is no name."""
    folder = [] if name or not data_dir else [os.path.realpath(data_dir)]
    digest = hashlib.sha256(json.dumps([*class_names, *folder]).encode()).hexdigest()[:8]
    safe = re.sub(r"[^A-Za-z0-9]+", "_", name or Path(data_dir).name).strip("_") or source
    return Path("classifiers", f"{source}-{safe}-{image_size}x{channels}-{digest}.npz")


def is_packaged(image_size: int, channels: int, class_names: tuple[str, ...]) -> bool:
    """Whether the packaged classifier is of such images and classes."""
    packaged = read(PACKAGED)[0]
    return (packaged.image_size, packaged.channels, packaged.class_names) == (image_size, channels, class_names)


def init(description: Description, key: jax.Array) -> dict[str, Any]:
    """Variables before training; the whitening kernel is still zero."""
    size = description.image_size
    return description.network.init(key, jnp.zeros((1, size, size, description.channels), jnp.uint8), False)


def load(path: Path) -> Network:
    """The classifier in a file, as a source of features. Raises UsageError if it cannot be read."""
    description, variables, digest = read(path)
    return Network(
        name="classifier",
        prefix="c",
        weights_sha256=digest,
        preprocessing=f"none: images of {description.image_size} pixels a side",
        channels=(description.channels,),
        image_size=description.image_size,
        class_names=description.class_names,
        variables=variables,
        extract=functools.partial(extracted, description.network),
    )


def extracted(network: Classifier, variables: Mapping[str, Any], images: jax.Array) -> Features:
    """What `network` finds in images uint8 [N, H, W, C], in full precision on every device."""
    with jax.default_matmul_precision("highest"):
        return Features(*network.apply(variables, images, False))
