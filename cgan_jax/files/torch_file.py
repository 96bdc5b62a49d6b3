"""The tensors in a file that `torch.save` wrote, read without torch and without running the pickle.

Since PyTorch 1.6 the file is a zip with one folder: data.pkl (which tensor is which part of which storage), byteorder,
and the bytes of each storage in data/KEY. Source: torch/serialization.py of PyTorch 2.4, _load.

Before, it was a row of pickles: a magic number, the version of the protocol, facts of the machine, the tensors (as
above), the keys of the storages in order; then for each storage its number of elements, int64, and its bytes. Source:
torch/serialization.py of PyTorch 1.1, _legacy_load.
"""

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from cgan_jax.errors import UsageError
from cgan_jax.files import unpacking
from cgan_jax.files.storage import reason

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_DTYPES = {
    "BoolStorage": "?",
    "ByteStorage": "<u1",
    "CharStorage": "<i1",
    "ShortStorage": "<i2",
    "IntStorage": "<i4",
    "LongStorage": "<i8",
    "HalfStorage": "<f2",
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
}
_ZIP = b"PK\x03\x04"
_NUMPY = [("numpy", "dtype"), ("_codecs", "encode")]
_NUMPY += [(f"numpy.{core}.multiarray", "scalar") for core in ("core", "_core")]
"""What a number of NumPy beside the tensors asks for, such as a score."""


class _Storage(NamedTuple):
    """`numel` numbers, which the file holds under `key`."""

    dtype: np.dtype
    key: str
    numel: int


class _Tensor(NamedTuple):
    """An array as the pickle describes it; `_array` checks the description."""

    storage: Any
    offset: Any
    size: Any
    stride: Any


class _Ignored:
    """What is beside the tensors and is not read."""

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def read(content: bytes, name: str, entry: str = "") -> dict[str, np.ndarray]:
    """The tensors of a state dict by their names; with `entry`, of the dict's entry of that name, if it has one.

    Raises UsageError, which says what is wrong with the file `name`.
    """
    try:
        tensors, buffer = (_read_zip if content.startswith(_ZIP) else _read_row)(io.BytesIO(content))
        if entry and isinstance(tensors, dict) and entry in tensors:
            tensors = tensors[entry]
        if not isinstance(tensors, dict) or not all(isinstance(key, str) for key in tensors):
            raise ValueError("it holds something else than named tensors")
        arrays, size = {}, 0
        for key, tensor in tensors.items():
            arrays[key] = _array(key, tensor, buffer)
            size += arrays[key].nbytes
            unpacking.check(len(content), size)  # many names may have one storage
        return arrays
    except Exception as error:  # a damaged pickle raises any type
        raise UsageError(f"{name} is not a whole file of PyTorch tensors: {reason(error)}") from error


def _read_zip(stream: io.BytesIO) -> tuple[Any, Callable[[str], bytes]]:
    """The descriptions of the tensors, and what gives a storage's bytes by its key."""
    unpacking.check_zip(stream)
    archive = zipfile.ZipFile(stream)
    folders = [name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(folders) != 1:
        raise ValueError(f"it is a zip with {len(folders)} files data.pkl")
    (folder,) = folders
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
        raise ValueError("its numbers are not little endian")
    tensors = _Unpickler(io.BytesIO(archive.read(f"{folder}data.pkl"))).load()
    return tensors, lambda key: archive.read(f"{folder}data/{key}")


def _read_row(stream: io.BytesIO) -> tuple[Any, Callable[[str], bytes]]:
    """As `_read_zip`, of a row of pickles."""
    if _Unpickler(stream).load() != _MAGIC or _Unpickler(stream).load() != _PROTOCOL:
        raise ValueError("it begins otherwise")
    if not _Unpickler(stream).load()["little_endian"]:
        raise ValueError("its numbers are not little endian")
    unpickler = _Unpickler(stream)
    tensors = unpickler.load()
    buffers = {}
    for key in _Unpickler(stream).load():
        (numel,) = struct.unpack("<q", stream.read(8))
        if numel != unpickler.storages[key].numel:
            raise ValueError(f"storage {key} has two lengths")
        buffers[key] = stream.read(numel * unpickler.storages[key].dtype.itemsize)
    return tensors, buffers.__getitem__


class _Unpickler(pickle.Unpickler):
    """A pickle of names, numbers and descriptions of tensors. Refuses to look up anything else.

    The allowed objects are new for each name, so that a state which the pickle sets on one does not outlast the file.
    """

    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        allowed: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, size, stride, *_: _Tensor(
                storage, offset, size, stride
            ),
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
            **{("torch", storage): dtype for storage, dtype in _DTYPES.items()},
            **dict.fromkeys(_NUMPY, _Ignored),
        }
        if (module, name) not in allowed:
            raise ValueError(f"it asks for {f'{module}.{name}'[:80]!r}, which is refused")
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, numel, *view = pid
        if kind != "storage" or dtype not in _DTYPES.values() or type(key) is not str or any(view):
            raise ValueError("it describes a storage in a way that is not known")
        if type(numel) is not int or numel < 0:
            raise ValueError(f"storage {key} has no length")
        storage = self.storages.setdefault(key, _Storage(np.dtype(dtype), key, numel))
        if storage != (np.dtype(dtype), key, numel):
            raise ValueError(f"storage {key} is described in two ways")
        return storage


def _array(name: str, tensor: Any, buffer: Callable[[str], bytes]) -> np.ndarray:
    """The array that a description means. Raises ValueError or TypeError if it reaches beyond its storage."""
    if not isinstance(tensor, _Tensor) or not isinstance(tensor.storage, _Storage):
        raise ValueError(f"{name!r} is not a tensor")
    (dtype, key, numel), offset, size, stride = tensor
    content = buffer(key)
    if len(content) != numel * dtype.itemsize:
        raise ValueError(f"storage {key} has {len(content)} bytes, not {numel * dtype.itemsize}")
    shape_is_tuples = isinstance(size, tuple) and isinstance(stride, tuple)
    if not shape_is_tuples or not all(type(n) is int and n >= 0 for n in (offset, *size, *stride)):
        raise ValueError(f"{name!r} has a shape of other than natural numbers")
    if not 1 <= math.prod(size) <= numel:
        raise ValueError(f"{name!r} has another number of elements than its storage")
    try:  # NumPy refuses what reaches beyond the buffer
        strides = [step * dtype.itemsize for step in stride]
        return np.ndarray(size, dtype, content, offset * dtype.itemsize, strides).astype(dtype.newbyteorder("="), "C")
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name!r} reaches beyond its storage: {error}") from error
