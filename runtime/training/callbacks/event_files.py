"""Files that TensorBoard reads: records with checksums of CRC-32C, each a message of Protocol Buffers.

The format is TensorFlow's (tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto, summary.proto). Of
it scalars are written, which takes a few fields, and no library.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path

_numbers = count()


class EventFile:
    """A new file in a folder that is there, to which scalars are appended, all of which are on the disk at once."""

    def __init__(self, folder: Path) -> None:
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}.v2"
        self.path = folder / name
        self._append(_double(1, time.time()) + _bytes(3, b"brain.Event:2"))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add the values of tags at a step."""
        found = b"".join(_bytes(1, _bytes(1, tag.encode()) + _float(2, value)) for tag, value in values.items())
        self._append(_double(1, time.time()) + _varint(2 << 3) + _varint(step) + _bytes(5, found))

    def _append(self, event: bytes) -> None:
        length = struct.pack("<Q", len(event))
        with open(self.path, "ab") as file:
            file.write(length + _checksum(length) + event + _checksum(event))


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _table() -> list[int]:
    found: list[int] = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        found.append(value)
    return found


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """The checksum of Castagnoli's polynomial, as of iSCSI (RFC 3720, B.4)."""
    found = 0xFFFFFFFF
    for byte in data:
        found = _TABLE[(found ^ byte) & 255] ^ found >> 8
    return found ^ 0xFFFFFFFF


def _checksum(data: bytes) -> bytes:
    """The checksum, rotated and shifted: those of data that has checksums in it would be weak."""
    found = crc32c(data)
    return struct.pack("<I", ((found >> 15 | found << 17) + 0xA282EAD8) & 0xFFFFFFFF)


__all__ = ["EventFile", "crc32c"]
