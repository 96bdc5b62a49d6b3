"""Files of named arrays, read by hand from the format's description, and by the safetensors library if installed."""

import json
import struct

import numpy as np
import pytest

from cgan_jax import exported
from cgan_jax.errors import UsageError

RNG = np.random.default_rng(0)
ARRAYS = {
    "a.kernel": RNG.normal(size=(3, 2)).astype(np.float32),
    "a.scalar": np.float32(3.5).reshape(()),
    "bytes": RNG.integers(0, 256, 5, dtype=np.uint8),
    "doubles": RNG.normal(size=4),
    "none": np.zeros((0, 3), np.float32),
    "labels": np.array([[1, -2]], np.int32),
    "transposed": RNG.normal(size=(2, 3)).astype(np.float16).T,
    "yes": np.array([True, False]),
}


def test_the_format_is_the_published_one():
    content = exported.pack_arrays(ARRAYS, {"köter": "ja"})
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length].decode())
    assert (8 + length) % 8 == 0 and header.pop("__metadata__") == {"köter": "ja"}
    end = 0
    for entry in sorted(header.values(), key=lambda entry: entry["data_offsets"]):
        assert entry["data_offsets"][0] == end, "without gaps"
        end = entry["data_offsets"][1]
    assert 8 + length + end == len(content)
    begin, end = header["a.kernel"]["data_offsets"]
    assert header["a.kernel"]["dtype"] == "F32" and header["a.kernel"]["shape"] == [3, 2]
    floats = struct.unpack("<6f", content[8 + length + begin : 8 + length + end])
    np.testing.assert_array_equal(np.reshape(floats, (3, 2)), ARRAYS["a.kernel"])


def test_its_library_reads_it():
    library = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    for name, array in library.load(exported.pack_arrays(ARRAYS, {"a": "b"})).items():
        np.testing.assert_array_equal(array, ARRAYS[name])
        assert array.dtype == ARRAYS[name].dtype


def test_what_was_packed_comes_back():
    arrays, metadata = exported.unpack_arrays(exported.pack_arrays(ARRAYS, {"a": "b"}))
    assert metadata == {"a": "b"} and arrays.keys() == ARRAYS.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, ARRAYS[name])
        assert array.dtype == ARRAYS[name].dtype and array.shape == ARRAYS[name].shape


@pytest.mark.parametrize(
    "content",
    [b"", b"1234567", struct.pack("<Q", 3) + b"{}", struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 2**63) + b"{}"]
    + [
        struct.pack("<Q", len(header)) + header + b"1234"
        for header in (
            b'{"a":{}}',
            b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}',
            b'{"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}',
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,3]}}',
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":["0",4]}}',
            b'{"a":3}',
            b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
            b'{"a":{"dtype":"F32","shape":[%d],"data_offsets":[0,4]}}' % 10**30,
            b'{"a":{"dtype":"F32","shape":[],"data_offsets":[-4,4]}}',
            b'{"a":{"dtype":["F32"],"shape":[],"data_offsets":[0,4]}}',
            b'{"__metadata__":[1]}',
            b'{"__metadata__":{"a":1}}',
            100_000 * b'{"a":',
        )
    ],
    ids=lambda content: repr(content[:60]),
)
def test_what_is_no_such_file_is_one_line(content):
    with pytest.raises(UsageError, match=r"^not a file of named arrays: "):
        exported.unpack_arrays(content)
