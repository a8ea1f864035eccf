"""
The protobuf wire format, as far as TensorFlow's checkpoint files use it.

    message = field*
    field   = varint (number << 3 | wire type), value
    value   = varint                      wire type 0
            | 8 bytes, little-endian      wire type 1
            | varint length, bytes        wire type 2
            | 4 bytes, little-endian      wire type 5
    varint  = 7 bits a byte, low group first, top bit set on all but the last byte; at most 10 bytes

https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Corrupt(ValueError):  # noqa: N818 - nobody outside the readers ever sees it
    """
    Bytes that are not what the format says, or that go over one of t2t's limits.

    The decoders raise it without knowing which file they read; the reader turns it into a `CheckpointError` with the
    file's path, in one place.
    """

    def __init__(self, message: str, code: str = "T2T604", hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


def varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The unsigned number at `at` and the position behind it; raises Corrupt past `end`, 10 bytes or 64 bits."""
    value = shift = 0
    for position in range(at, min(at + 10, end)):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                raise Corrupt(f"the number at byte {at} has more than 64 bits")
            return value, position + 1
        shift += 7
    raise Corrupt(f"the number at byte {at} " + ("has no end" if end - at < 10 else "has more than 10 bytes"))


def signed(value: int) -> int:
    """An int32, int64 or enum as protobuf means it: negative numbers are stored as 64 bit two's complement."""
    return value - (1 << 64) if value >> 63 else value


def fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """
    The fields of a message in file order: (number, wire type, value).

    The value is an unsigned int (wire types 0, 1 and 5) or bytes (2); other wire types raise Corrupt.
    """
    at, end = 0, len(data)
    while at < end:
        tag = data[at]
        if tag < 0x80:
            at += 1
        else:
            tag, at = varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise Corrupt("a protobuf field has the number 0")
        if wire in (VARINT, BYTES):
            # Most numbers have one byte; the call for the others would be a third of the time of reading an index.
            if at < end and data[at] < 0x80:
                value = data[at]
                at += 1
            else:
                value, at = varint(data, at, end)
            if wire == VARINT:
                yield number, wire, value
                continue
            size = value
        elif wire == FIXED32:
            size = 4
        elif wire == FIXED64:
            size = 8
        else:
            raise Corrupt(f"protobuf field {number} has the wire type {wire}")
        if size > end - at:
            raise Corrupt(f"protobuf field {number} claims {size} bytes, but {end - at} are left")
        content = data[at : at + size]
        at += size
        yield number, wire, content if wire == BYTES else int.from_bytes(content, "little")


def expect(number: int, wire: int, expected: int) -> None:
    """Raises Corrupt if a known field does not have the wire type that its meaning needs."""
    if wire != expected:
        raise Corrupt(f"protobuf field {number} has the wire type {wire}, but needs {expected}")
