"""Named arrays in one file, in the format safetensors, whose files any machine may open: nothing in them is executed.

    uint64, little endian: the length of the header
    header: JSON, {name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {text: text}}
    the arrays, row by row, little endian, without gaps

Source: https://github.com/huggingface/safetensors, section "Format".
"""

import json
import struct
from collections.abc import Mapping

import numpy as np

from cgan_jax.errors import UsageError

_METADATA = "__metadata__"
_NAMES = {
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


def packed(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """The content of a file. Arrays of large elements come first, so that each begins at a multiple of its own."""
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    header: dict[str, object] = {_METADATA: dict(metadata)} if metadata else {}
    parts, end = [], 0
    for name, array in ordered:
        little = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
        parts.append(little.tobytes())
        begin, end = end, end + len(parts[-1])
        header[name] = {"dtype": _NAMES[little.dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return b"".join([struct.pack("<Q", len(text)), text, *parts])


def unpacked(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(arrays by name, which cannot be written to; metadata). Raises UsageError for what is no such content."""
    dtypes = {name: dtype for dtype, name in _NAMES.items()}
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
