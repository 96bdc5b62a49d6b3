"""Loads an exported model and samples from it with jax and numpy only (jax.export also needs flatbuffers).

To use a model without the rest of the package, copy this file and errors.py into a folder named cgan_jax.

    model = exported.load("model.cgan")
    images = model([3, 3, 7], seed=0)           # uint8 [3, H, W, C], the images of `cgan sample --seed=0`
    images = model([3, 3, 7], latents=z)        # from your latents, float32 [3, model.latent_dim]

The file holds eight magic bytes, the SHA-256 of all that follows, and named arrays in the safetensors format. The
arrays are the weights and two programs (StableHLO by `jax.export`, for cpu, cuda and tpu, of any batch size). One
program maps (seed, labels, indices, truncation) to latents, the other (weights, latents, labels) to images.

The SHA-256 shows damage, not who made the file. So `load` reads the programs before it compiles them. It refuses a
program that calls anything outside StableHLO. The remaining operations are arithmetic and reach no file or network.
"""

import hashlib
import json
import math
import os
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cgan_jax.errors import UsageError

_MAGIC = b"cganjax1"
_DIGEST = hashlib.sha256().digest_size
_PROGRAMS = ("latents", "images")
_PROGRAM, _WEIGHT = "program/", "weight/"
_BATCH_SIZE = 256
_METADATA = "__metadata__"
_DTYPE_NAMES = {
    np.dtype(code): name
    for code, name in {
        "<f8": "F64",
        "<f4": "F32",
        "<f2": "F16",
        "<i8": "I64",
        "<i4": "I32",
        "<i2": "I16",
        "|i1": "I8",
        "<u4": "U32",
        "|u1": "U8",
        "|b1": "BOOL",
    }.items()
}
_ALIGNMENT = 8
_ALLOWED_CALLS = {"shape_assertion"}  # jax.export adds it for a symbolic batch size.


class Model:
    """A generator. Call it with labels and a seed, or with labels and latents."""

    def __init__(self, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]):
        from jax import export

        self.metadata = dict(metadata)
        self.class_names = list(metadata["class_names"])
        """The names of the labels 0, 1, ..."""
        self.latent_dim = int(metadata["latent_dim"])
        self.image_shape = tuple(metadata["image_shape"])
        """[H, W, C]."""
        self.weights = jax.device_put({name: arrays[_WEIGHT + name] for name in metadata["weights"]})
        """The arrays by their path in the generator, such as params.Dense_0.kernel."""
        self._latents, self.program = (
            jax.jit(_arithmetic(export.deserialize(bytearray(arrays[_PROGRAM + name].tobytes()))).call)
            for name in _PROGRAMS
        )
        """`program` maps (weights as a list, latents [N, latent_dim], labels [N]) to images uint8 [N, H, W, C]."""

    def __call__(
        self,
        labels: Sequence[int] | np.ndarray,
        *,
        seed: int | None = None,
        latents: np.ndarray | None = None,
        truncation: float | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
    ) -> np.ndarray:
        """Images uint8 [N, H, W, C] of classes `labels` [N], from a `seed` or from `latents` float32 [N, latent_dim].

        With a seed, image `indices[i]` of class `labels[i]` is always the same. Without indices, the images of each
        class have the indices 0, 1, ... in the order of `labels`, as in `cgan sample`. With a `truncation`, latent
        coordinates outside +-truncation are drawn again. Raises ValueError for arguments that do not fit.
        """
        labels = self._checked_labels(labels)
        if (seed is None) == (latents is None):
            raise ValueError("give either a seed or latents, and not both")
        if latents is None:
            latents = self._latents_of(seed, labels, truncation, indices)
        elif truncation is not None or indices is not None:
            raise ValueError("truncation and indices need a seed; latents are used unchanged")
        latents = np.asarray(latents, np.float32)
        if latents.shape != (len(labels), self.latent_dim):
            raise ValueError(f"latents must be [{len(labels)}, {self.latent_dim}], given {list(latents.shape)}")
        weights = list(self.weights.values())
        images = np.empty((len(labels), *self.image_shape), np.uint8)
        for start in range(0, len(labels), _BATCH_SIZE):
            part = slice(start, start + _BATCH_SIZE)
            images[part] = self.program(weights, latents[part], labels[part])
        return images

    def _checked_labels(self, labels: Sequence[int] | np.ndarray) -> np.ndarray:
        array = np.asarray(labels)
        num_classes = len(self.class_names)
        if array.ndim != 1 or not len(array) or array.dtype.kind not in "iu":
            raise ValueError(f"labels must be a list of class numbers, given {array.dtype} {list(array.shape)}")
        if array.min() < 0 or array.max() >= num_classes:
            raise ValueError(f"labels must be 0 to {num_classes - 1}, given {array.min()} to {array.max()}")
        return array.astype(np.int32)

    def latents(
        self,
        labels: Sequence[int] | np.ndarray,
        seed: int,
        truncation: float | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
    ) -> np.ndarray:
        """The latents of the images of (labels, seed, truncation, indices): float32 [N, latent_dim]."""
        return np.asarray(self._latents_of(seed, self._checked_labels(labels), truncation, indices))

    def _latents_of(self, seed: int, labels: np.ndarray, truncation: float | None, indices: Any) -> jax.Array:
        if not 0 <= int(seed) < 2**32:
            raise ValueError(f"seed must be 0 to {2**32 - 1}, given {seed}")
        if truncation is not None and not 0 < truncation < math.inf:
            raise ValueError(f"truncation must be a number above 0, given {truncation}")
        indices = _within_class(labels) if indices is None else np.asarray(indices)
        if indices.shape != labels.shape or indices.dtype.kind not in "iu" or indices.min() < 0:
            raise ValueError(f"indices must be {len(labels)} whole numbers from 0")
        cut = np.float32(math.inf if truncation is None else truncation)
        return self._latents(np.uint32(seed), labels, indices.astype(np.int32), cut)


def _arithmetic(program: Any) -> Any:
    """The exported program, unchanged. Raises UsageError if it calls or talks to anything outside StableHLO."""
    text = program.mlir_module()
    called = re.findall(r"custom_call @(\w+)\(", text)
    outside = {*called} - _ALLOWED_CALLS | {*re.findall(r"\b(infeed|outfeed|send|recv)\b", text)}
    if outside or len(called) != text.count("custom_call"):
        raise UsageError(f"a program in it does more than arithmetic: {', '.join(sorted(outside)) or 'custom_call'}")
    return program


def _within_class(labels: np.ndarray) -> np.ndarray:
    """The number of equal labels before each label: [3, 3, 7] -> [0, 1, 0]."""
    indices = np.empty_like(labels)
    for label in np.unique(labels):
        of_label = labels == label
        indices[of_label] = np.arange(np.count_nonzero(of_label))
    return indices


def load(path: str | os.PathLike) -> Model:
    """The model in a file of `cgan export`. Raises UsageError for a file that is damaged or no exported model."""
    content = Path(path).read_bytes()
    begin = len(_MAGIC) + _DIGEST
    if content[: len(_MAGIC)] != _MAGIC:
        raise UsageError(f"{path} is no exported model: it does not begin with {_MAGIC.decode()}")
    if hashlib.sha256(content[begin:]).digest() != content[len(_MAGIC) : begin]:
        raise UsageError(f"{path} is damaged: it was cut short or altered since it was exported")
    arrays, metadata = unpack_arrays(content[begin:])
    try:
        return Model(arrays, json.loads(metadata["model"]))
    except UsageError as error:
        raise UsageError(f"{path} is refused: {error}") from error
    except (KeyError, ValueError, TypeError, jax.errors.JaxRuntimeError) as error:
        made_by = json.loads(metadata.get("model", "{}")).get("jax", "an unknown version")
        raise UsageError(
            f"{path} was exported by jax {made_by} and opens with that version or a newer one;"
            f" this is jax {jax.__version__} ({error})"
        ) from error


def packed(programs: Mapping[str, bytes], weights: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> bytes:
    """The content of a file: the programs "latents" and "images", and the weights in the order that "images" takes."""
    arrays = {_PROGRAM + name: np.frombuffer(programs[name], np.uint8) for name in _PROGRAMS}
    arrays |= {_WEIGHT + name: array for name, array in weights.items()}
    model = json.dumps({**metadata, "weights": list(weights)})
    content = pack_arrays(arrays, {"model": model})
    return _MAGIC + hashlib.sha256(content).digest() + content


def pack_arrays(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """The content of a file in the safetensors format (https://github.com/huggingface/safetensors, section "Format").

    uint64, little endian: the length of the header
    header: JSON, {name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {text: text}}
    the arrays, row by row, little endian, without gaps

    Arrays of larger elements come first, so that each array begins at a multiple of its element size.
    """
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    header: dict[str, object] = {_METADATA: dict(metadata)} if metadata else {}
    parts, end = [], 0
    for name, array in ordered:
        little = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
        parts.append(little.tobytes())
        begin, end = end, end + len(parts[-1])
        header[name] = {"dtype": _DTYPE_NAMES[little.dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return b"".join([struct.pack("<Q", len(text)), text, *parts])


def unpack_arrays(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(read-only arrays by name, metadata) of such content. Raises UsageError for content that is not safetensors."""
    dtypes = {name: dtype for dtype, name in _DTYPE_NAMES.items()}
    try:
        (length,) = struct.unpack_from("<Q", content)
        if 8 + length > len(content):
            raise ValueError(f"a header of {length} bytes in a file of {len(content)}")
        header = json.loads(content[8 : 8 + length])
        metadata, arrays = header.pop(_METADATA, {}), {}
        data = memoryview(content)[8 + length :]
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            array = np.frombuffer(data[begin:end], dtypes[entry["dtype"]])
            arrays[name] = array.reshape(entry["shape"])
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"not a file of named arrays: {type(error).__name__}: {error}") from error
    return arrays, metadata
