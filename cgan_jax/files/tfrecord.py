"""The TFRecord file format, read and written without TensorFlow; what is read is checked against its checksums.

A record is: length, uint64; masked crc32c of the length, uint32; data; masked crc32c of the data, uint32; all little
endian. Source: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cgan_jax.errors import UsageError

_HEADER = 12
_FOOTER = 4

# The checksums of all records are computed side by side, one byte of each at a time. A few long records gain nothing
# from that and would take seconds, so beyond this length the data is left to whoever decodes it.
_LONGEST_CHECKED = 1 << 16


def read(path: Path) -> list[bytes]:
    """The records of a file, in order.

    Raises UsageError, with the path and the byte at which it fails, if the file is cut short or fails its checksums.
    """
    content = path.read_bytes()
    starts, whole = _walk(content)
    array = np.frombuffer(content, np.uint8)
    begins = np.array(starts, np.int64)
    lengths = np.diff(np.append(begins, whole)) - (_HEADER + _FOOTER)
    # A damaged length leads the walk astray, so headers are judged first: those walked, and the one it stopped at.
    headers = np.append(begins, whole) if len(content) - whole >= _HEADER else begins
    _check(array, headers, np.full(len(headers), 8), "header", path, headers)
    if whole != len(content):
        raise UsageError(f"{path}: damaged: cut short in the record that begins at byte {whole}")
    checked = lengths <= _LONGEST_CHECKED
    _check(array, begins[checked] + _HEADER, lengths[checked], "data", path, begins[checked])
    return [content[s + _HEADER : s + _HEADER + n] for s, n in zip(starts, lengths.tolist(), strict=True)]


def _walk(content: bytes) -> tuple[list[int], int]:
    """Where the whole records begin, and where the last of them ends."""
    starts, position = [], 0
    while position + _HEADER <= len(content):
        (length,) = struct.unpack_from("<Q", content, position)
        end = position + _HEADER + length + _FOOTER
        if end > len(content):
            break
        starts.append(position)
        position = end
    return starts, position


def _check(
    content: np.ndarray, starts: np.ndarray, lengths: np.ndarray, what: str, path: Path, begins: np.ndarray
) -> None:
    """Compares the checksum of each content[start : start + length] with the uint32 stored right behind it."""
    stored = np.zeros(len(starts), np.uint32)
    for k in range(4):
        stored |= content[starts + lengths + k].astype(np.uint32) << (8 * k)
    crc = crc32c(content, starts, lengths)
    wrong = np.flatnonzero(_masked(crc) != stored)
    if len(wrong):
        raise UsageError(f"{path}: damaged: the {what} of the record at byte {begins[wrong[0]]} fails its checksum")


def framed(records: Sequence[bytes]) -> bytes:
    """The records as they follow each other in a file."""
    lengths = [struct.pack("<Q", len(record)) for record in records]
    parts = [part for pair in zip(lengths, records, strict=True) for part in pair]
    sizes = np.array([len(part) for part in parts], np.int64)
    starts = np.cumsum(sizes) - sizes
    crc = _masked(crc32c(np.frombuffer(b"".join(parts), np.uint8), starts, sizes))
    return b"".join(piece for part, check in zip(parts, crc, strict=True) for piece in (part, struct.pack("<I", check)))


def _masked(crc: np.ndarray) -> np.ndarray:
    """Checksums uint32 [N] as they are stored."""
    return ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)


def crc32c(content: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """CRC-32C (Castagnoli) of every content[start : start + length], uint32 [N]; content is uint8 [bytes]."""
    order = np.argsort(-lengths, kind="stable")
    starts, lengths = starts[order], lengths[order]
    crc = np.full(len(starts), 0xFFFFFFFF, np.uint32)
    positions = np.arange(lengths[0] if len(lengths) else 0)
    still_reading = len(lengths) - np.searchsorted(lengths[::-1], positions, side="right")
    for position, count in zip(positions.tolist(), still_reading.tolist(), strict=True):
        old = crc[:count]
        crc[:count] = _TABLE[(old ^ content[starts[:count] + position]) & 0xFF] ^ (old >> 8)
    result = np.empty_like(crc)
    result[order] = ~crc
    return result


def _table() -> np.ndarray:
    """The change that each value of the lowest byte makes, uint32 [256]."""
    crc = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        crc = np.where(crc & 1, np.uint32(0x82F63B78), np.uint32(0)) ^ (crc >> 1)
    return crc


_TABLE = _table()
