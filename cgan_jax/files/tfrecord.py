"""The TFRecord file format, read and written without TensorFlow. Reading verifies every checksum.

A record is: length, uint64; masked crc32c of the length, uint32; data; masked crc32c of the data, uint32; all little
endian. Source: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

import struct
from collections.abc import Sequence
from pathlib import Path

from google_crc32c import value as crc32c

from cgan_jax.errors import UsageError
from cgan_jax.files.storage import read_bytes

_LENGTH, _CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")


def read(path: Path) -> list[bytes]:
    """The records of a file, in order.

    Raises UsageError, with the path and the byte at which it fails, if the file is cut short or fails its checksums.
    """
    content, records, position = read_bytes(path), [], 0

    def verified(what: str, start: int, size: int) -> tuple[bytes, int]:
        """content[start : start + size], which its checksum follows, and the end of the checksum."""
        end = start + size + _CHECKSUM.size
        if end > len(content):
            raise UsageError(f"{path}: damaged: cut short in the record that begins at byte {position}")
        part = content[start : start + size]
        if _masked(part) != content[start + size : end]:
            raise UsageError(f"{path}: damaged: the {what} of the record at byte {position} fails its checksum")
        return part, end

    while position < len(content):
        length, data = verified("header", position, _LENGTH.size)
        record, position = verified("data", data, *_LENGTH.unpack(length))
        records.append(record)
    return records


def framed(records: Sequence[bytes]) -> bytes:
    """The records as they follow each other in a file."""
    parts = (part for record in records for part in (_LENGTH.pack(len(record)), record))
    return b"".join(piece for part in parts for piece in (part, _masked(part)))


def _masked(content: bytes) -> bytes:
    """The CRC-32C (Castagnoli) of `content` as the format stores it: rotated by 15 bits, plus a constant."""
    crc = crc32c(content)
    return _CHECKSUM.pack(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
