"""The Inception v3 of the original FID: the TensorFlow graph of 2015-12-05, with its published weights.

Heusel et al. (2017) compute FID from its pool3, the 2,048 features here, and Salimans et al. (2016) the Inception Score
from its 1,008 logits without their bias, the logits here. Images are made 299 x 299 by the resizer of TensorFlow 1.

The weights are the file that torch-fidelity and pytorch-fid publish, converted from that graph (Apache License 2.0).
`cgan prepare-data --inception` fetches it; nothing else does. Tests hold this network to torch-fidelity's.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cgan_jax.errors import UsageError
from cgan_jax.evaluation.features import Features, Network
from cgan_jax.evaluation.features._inception_v3 import InceptionV3
from cgan_jax.files import download, storage, torch_file
from cgan_jax.files.cache import cache_folder, cache_path

FILE = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
PREPROCESSING = (
    "grey repeated to RGB; bilinear to 299x299 as TensorFlow 1 resizes (align_corners=False, no half-pixel centres, "
    "no antialiasing); (x - 128) / 128"
)
_CHANNELS = (1, 3)
_SIDE = 299


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

    Raises UsageError, in one line that says what to do, if there is no file or it is not the published one.
    """
    file = _weights_file(path)
    try:
        content = storage.read_bytes(file)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise UsageError(f"{file} is not the published {FILE}: its sha256 is {digest}, not {sha256}")
    variables = _variables(torch_file.read(content, str(file)), str(file))
    return Network("inception", "", digest, PREPROCESSING, _CHANNELS, None, (), variables, extract)


def prepare() -> tuple[Path, bool]:
    """The file of the weights in the cache folder, and whether it was there before. Raises UsageError."""
    try:
        path = cache_folder() / FILE
        is_there = path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == SHA256
    except OSError as error:
        raise UsageError(f"cannot use {error.filename}: {error.strerror}; choose a folder by CGAN_CACHE_DIR") from error
    if not is_there:
        download.fetch(URL, path, SHA256, f"fetch {URL} by hand and put it in {path.parent}")
    return path, is_there


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
            tensor = np.moveaxis(tensor, (0, 1), (-1, -2)) if tensor.ndim == 4 else tensor.T
        if tensor.shape != leaf.shape or tensor.dtype != leaf.dtype:
            raise UsageError(f"{file}: {name} is {tensor.dtype} {tensor.shape}, not {leaf.dtype} {leaf.shape}")
        return jnp.asarray(tensor)

    return jax.tree_util.tree_map_with_path(published, wanted)
