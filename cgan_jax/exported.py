"""Loads an exported model and samples from it with jax and numpy only (jax.export also needs flatbuffers).

To use a model without the rest of the package, copy this file and errors.py into a folder named cgan_jax.

    model = exported.load("model.cgan")
    images = model([3, 3, 7], seed=0)           # uint8 [3, H, W, C], the images of `cgan sample --seed=0`
    images = model([3, 3, 7], latents=z)        # from your latents, float32 [3, model.latent_dim]

The file holds eight magic bytes, the SHA-256 of all that follows, and named arrays in the safetensors format. The
arrays are the weights and two programs (StableHLO by `jax.export`, for cpu, cuda and tpu, of any batch size). One
program maps (seed, labels, indices, truncation) to latents, the other (weights, latents, labels) to images.

The SHA-256 shows damage, not who made the file. So `load` reads the programs before it compiles them. It refuses a
program that calls anything outside StableHLO. The remaining operations are arithmetic and reach no file or network. It
also refuses loops that may not end and arrays that fill the memory; `cgan export` writes neither.
"""

import hashlib
import json
import math
import os
import re
import stat
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
_MOST_ELEMENTS, _MOST_TURNS, _MOST_CALLS = 1 << 30, 1 << 16, 1 << 20
_NAME = r'@(?:"[^"]*"|[\w$.-]+)'  # of a function
# A loop that counts up to a constant: %0 = while(%iterArg = ...) cond { %1 = compare LT, %iterArg, %c; return %1 } ...
_LOOP = re.compile(
    r"^( *)%\S+ = stablehlo\.while\((.*?)\) : .*\n"
    r" *cond \{\n"
    r" *(%\w+) = stablehlo\.compare +LT, (%\w+), (%\w+),.*\n"
    r" *stablehlo\.return \3 : .*\n"
    r" *\} do \{\n",
    re.MULTILINE,
)


class Model:
    """A generator. Call it with labels and a seed, or with labels and latents."""

    def __init__(self, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]):
        self.metadata = dict(metadata)
        self.class_names = list(metadata["class_names"])
        """The names of the labels 0, 1, ..."""
        self.latent_dim = int(metadata["latent_dim"])
        self.image_shape = tuple(metadata["image_shape"])
        """[H, W, C]."""
        weights = {name: arrays[_WEIGHT + name] for name in metadata["weights"]}
        latents, images = (_arithmetic(_program(arrays[_PROGRAM + name])) for name in _PROGRAMS)
        _check_signatures(latents, images, list(weights.values()), self)
        self.weights = jax.device_put(weights)
        """The arrays by their path in the generator, such as params.Dense_0.kernel."""
        self._truncations = {name for name in weights if name.startswith("truncation.")}
        self._latents, self.program = jax.jit(latents.call), jax.jit(images.call)
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
        coordinates outside +-truncation are drawn again; a generator that truncates by itself takes the number instead.
        Raises ValueError for arguments that do not fit.
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
        weights = [
            array if truncation is None or name not in self._truncations else np.full_like(array, truncation)
            for name, array in self.weights.items()
        ]
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
        indices = within_class(labels) if indices is None else np.asarray(indices)
        if indices.shape != labels.shape or indices.dtype.kind not in "iu" or indices.min() < 0:
            raise ValueError(f"indices must be {len(labels)} whole numbers from 0")
        cut = np.float32(math.inf if truncation is None or self._truncations else truncation)
        return self._latents(np.uint32(seed), labels, indices.astype(np.int32), cut)


def _check_signatures(latents: Any, images: Any, weights: Sequence[np.ndarray], model: "Model") -> None:
    """Raises UsageError if the programs do not map what the file describes."""
    one, some = ((), "uint32"), ((), "float32")
    n, z, x = (("n",), "int32"), (("n", model.latent_dim), "float32"), (("n", *model.image_shape), "uint8")
    arrays = [(array.shape, array.dtype.name) for array in weights]
    for program, takes, gives in ((latents, [one, n, n, some], [z]), (images, [*arrays, z, n], [x])):
        for avals, wanted in ((program.in_avals, takes), (program.out_avals, gives)):
            found = [(tuple(d if type(d) is int else "n" for d in aval.shape), aval.dtype.name) for aval in avals]
            if found != wanted:
                raise UsageError(f"a program in it maps other arrays than the file describes: {found[-1]}")


def _program(content: np.ndarray) -> Any:
    """An exported program with its text, read from its bytes. Raises ValueError."""
    from jax import export

    try:
        program = export.deserialize(bytearray(content.tobytes()))
        program.mlir_module()
    except Exception as error:  # flatbuffers and MLIR do not list what they raise
        raise ValueError(f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]) from error
    return program


def _arithmetic(program: Any) -> Any:
    """The exported program, unchanged. Raises UsageError for what `cgan export` never writes.

    That is a call to anything outside StableHLO, a loop that may not end, and an array that fills the memory.
    """
    text = program.mlir_module()
    called = re.findall(r"custom_call @(\w+)\(", text)
    outside = {*called} - _ALLOWED_CALLS | {*re.findall(r"\b(infeed|outfeed|send|recv)\b", text)}
    if outside or len(called) != text.count("custom_call"):
        raise UsageError(f"a program in it does more than arithmetic: {', '.join(sorted(outside)) or 'custom_call'}")
    for array in {*re.findall(r"tensor<((?:\d+x|\?x)+)", text)}:
        if math.prod(int(size) for size in re.findall(r"\d+", array)) > _MOST_ELEMENTS:
            raise UsageError(f"a program in it makes an array of {array[:-1]} numbers, which fills the memory")
    functions = re.split(r"^ *func\.func .*?(?=@)", text, flags=re.MULTILINE)[1:]
    for function in functions:
        if sum(_counts(loop, function) for loop in _LOOP.finditer(function)) != function.count("stablehlo.while"):
            raise UsageError("a program in it holds a loop that may not end")
    if _calls({re.match(_NAME, function)[0]: function for function in functions}) > _MOST_CALLS:
        raise UsageError("a program in it calls its functions without end")
    return program


def _counts(loop: re.Match, function: str) -> bool:
    """Whether a loop counts up to a constant, from a constant, by a constant."""
    indent, variables, _, counter, end = loop.groups()
    constants: dict[str, set[int]] = {}  # one name may mean several constants, each in its region
    for name, value in re.findall(r"(%\w+) = stablehlo\.constant dense<(-?\d+)> : tensor<i32>", function):
        constants.setdefault(name, set()).add(int(value))
    begins = dict(re.findall(r"(%\w+) = (%\w+)", variables))
    returned = re.compile(rf"^{indent}  stablehlo\.return (.*?) : ", re.MULTILINE).search(function, loop.end())
    if counter not in begins or not returned:
        return False
    after = returned[1].split(", ")[list(begins).index(counter)]
    body = function[loop.end() : returned.start()]
    added = re.search(rf"^{indent}  {after} = stablehlo\.add {counter}, (%\w+) :", body, re.MULTILINE)
    begin, end, step = (constants.get(name, {-1}) for name in (begins[counter], end, added[1] if added else ""))
    return min(begin) >= 0 and min(step) >= 1 and max(end | step) <= _MOST_TURNS  # so the counter does not overflow


def _calls(functions: Mapping[str, str]) -> float:
    """How many functions run, once all calls are written out; infinite if one calls itself."""
    known: dict[str, float] = {}

    def of(name: str) -> float:
        if name not in known:
            known[name] = math.inf  # while its own calls are counted
            known[name] = 1 + sum(map(of, re.findall(rf"call ({_NAME})\(", functions.get(name, ""))))
        return known[name]

    return max(map(of, functions))


def within_class(labels: np.ndarray) -> np.ndarray:
    """The number of equal labels before each label: [3, 3, 7] -> [0, 1, 0]."""
    indices = np.empty_like(labels)
    for label in np.unique(labels):
        of_label = labels == label
        indices[of_label] = np.arange(np.count_nonzero(of_label))
    return indices


def load(path: str | os.PathLike) -> Model:
    """The model in a file of `cgan export`. Raises UsageError for a file that is damaged or no exported model."""
    content = _content(Path(path))
    begin = len(_MAGIC) + _DIGEST
    if content[: len(_MAGIC)] != _MAGIC:
        raise UsageError(f"{path} is no exported model: it does not begin with {_MAGIC.decode()}")
    if hashlib.sha256(content[begin:]).digest() != content[len(_MAGIC) : begin]:
        raise UsageError(f"{path} is damaged: it was cut short or altered since it was exported")
    try:
        arrays, texts = unpack_arrays(content[begin:])
        metadata = _described(texts.get("model", ""), arrays)
        return Model(arrays, metadata)
    except UsageError as error:
        raise UsageError(f"{path} is refused: {error}") from error
    except (ValueError, TypeError, jax.errors.JaxRuntimeError) as error:
        made_by = metadata.get("jax", "an unknown version")
        raise UsageError(
            f"{path} was exported by jax {made_by} and opens with that version or a newer one;"
            f" this is jax {jax.__version__} ({error})"
        ) from error


def _described(text: str, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What a file says of its model. Raises UsageError if a part is missing, or is not what any model has."""
    try:
        metadata = _object(text)
    except ValueError as error:
        raise UsageError(f"its description cannot be read: {error}") from error
    for name in ("class_names", "weights"):
        texts = metadata.get(name)
        if not isinstance(texts, list) or not texts or not all(_is_text(text) for text in texts):
            raise UsageError(f"its {name} must be a list of texts")
    metrics = metadata.setdefault("metrics", {})
    if not isinstance(metrics, dict) or not all(type(value) in (int, float) for value in metrics.values()):
        raise UsageError("its metrics must be numbers by their names")
    if type(metadata.setdefault("step", 0)) is not int or not _is_text(metadata.setdefault("architecture", "")):
        raise UsageError("its step must be a whole number, its architecture a text")
    sizes = metadata.get("image_shape")
    numbers = [metadata.get("latent_dim"), *(sizes if isinstance(sizes, list) else [None])]
    if len(numbers) != 4 or not all(type(number) is int and 0 < number < _MOST_ELEMENTS for number in numbers):
        raise UsageError("its latent_dim must be a natural number, its image_shape three")
    needed = [_WEIGHT + name for name in metadata["weights"]] + [_PROGRAM + name for name in _PROGRAMS]
    if missing := [name for name in needed if name not in arrays]:
        raise UsageError(f"it lacks {missing[0]}")
    return metadata


def _content(path: Path) -> bytes:
    """The bytes of a regular file. Raises UsageError for a pipe or a device, which would wait or never end."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UsageError(f"{path} is not a regular file")
        return file.read()


def _object(text: str | bytes) -> dict[str, Any]:
    """A JSON object. Raises ValueError for any other text."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return value


def _is_text(value: Any) -> bool:
    """Whether it is text that can be written as UTF-8: JSON can hold half a pair of UTF-16."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


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
        header = _object(content[8 : 8 + length])
        metadata, arrays = header.pop(_METADATA, {}), {}
        if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
            raise ValueError(f"{_METADATA} is no object of texts")
        data = memoryview(content)[8 + length :]
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            if not 0 <= begin <= end <= len(data) or min(entry["shape"], default=0) < 0:
                raise ValueError(f"{name} lies outside of the file")
            arrays[name] = np.frombuffer(data[begin:end], dtypes[entry["dtype"]]).reshape(entry["shape"])
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UsageError(f"not a file of named arrays: {type(error).__name__}: {error}"[:300]) from error
    return arrays, metadata
