"""Files as `torch.save` writes them, put together by hand, so that anything in them can be made wrong."""

import io
import pickle
import struct
import zipfile

import numpy as np

OPENED = b"ccollections\nOrderedDict\n)R("
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def value(x) -> bytes:
    """The opcodes that leave x on the pickle's stack."""
    return pickle.dumps(x, 2)[2:-1]


def storage(key="0", numel=6, kind=b"FloatStorage", view=b"") -> bytes:
    described = value("storage") + b"ctorch\n" + kind + b"\n" + value(key) + value("cpu") + value(numel) + view
    return b"(" + described + b"tQ"


def tensor(offset=0, size=(2, 3), stride=(3, 1), **stored) -> bytes:
    return REBUILD + b"(" + storage(**stored) + value(offset) + value(size) + value(stride) + b"\x89NtR"


def pickled(**entries: bytes) -> bytes:
    """The pickle of a state dict with opcodes for values."""
    return b"\x80\x02" + OPENED + b"".join(value(name) + ops for name, ops in entries.items()) + b"u."


def row(pickle_bytes: bytes, little_endian=True, lengths=None, **buffers: bytes) -> bytes:
    """A file with these float32 storages, named _0, _1, ...; `lengths` are told in place of the real ones."""
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {}}]
    parts = [pickle.dumps(part, 2) for part in head] + [pickle_bytes, pickle.dumps([key[1:] for key in buffers], 2)]
    for i, buffer in enumerate(buffers.values()):
        parts += [struct.pack("<q", lengths[i] if lengths else len(buffer) // 4), buffer]
    return b"".join(parts)


def zipped(pickle_bytes: bytes, byteorder=b"little", **buffers: bytes) -> bytes:
    """The same as a zip, as PyTorch has it since 1.6."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in {"data.pkl": pickle_bytes, "byteorder": byteorder}.items():
            archive.writestr(f"model/{name}", content)
        for key, content in buffers.items():
            archive.writestr(f"model/data/{key[1:]}", content)
    return file.getvalue()


def state_dict_file(tensors: dict[str, np.ndarray]) -> bytes:
    """A file with these float32 arrays."""
    entries, buffers = {}, {}
    for i, (name, array) in enumerate(tensors.items()):
        stride = tuple(step // 4 for step in array.strides)
        entries[name] = tensor(0, array.shape, stride, key=str(i), numel=array.size)
        buffers[f"_{i}"] = np.ascontiguousarray(array, "<f4").tobytes()
    return row(pickled(**entries), **buffers)
