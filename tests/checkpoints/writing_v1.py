"""A writer of V1 checkpoints that shares no code with the reader; every part can be replaced by a wrong one."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.checkpoints.writing import message, shape_of, table

#: (start, length) for each axis, None for the whole axis.
Place = Sequence[tuple[int, int] | None]


class Saved(NamedTuple):
    """One part: its variable's name, dtype's number and shape, its place, the TensorProto with its values."""

    name: bytes
    dtype: int
    shape: tuple[int, ...]
    proto: bytes
    place: Place = ()


def floats(*values: float) -> bytes:
    return message((5, struct.pack(f"<{len(values)}f", *values)))


def place_of(place: Place) -> bytes:
    """A TensorSliceProto."""
    return message(*((1, b"" if e is None else message(*([(1, e[0])] if e[0] else []), (2, e[1]))) for e in place))


def whole(shape: Sequence[int]) -> Place:
    return [None] * len(shape)


def key(name: bytes, place: Place) -> bytes:
    """The ordered code of a part, for numbers from -64 to 8191."""

    def signed(value: int) -> bytes:
        return bytes([0x80 ^ (value & 0xFF)]) if value < 64 else struct.pack(">H", 0xC000 | value)

    escaped = name.replace(b"\xff", b"\xfe\xfe").replace(b"\0", b"\0\xff").replace(b"\xfe\xfe", b"\xff\0")
    numbers = b"".join(signed(0) + signed(-1) if e is None else signed(e[0]) + signed(e[1]) for e in place)
    return b"\0" + escaped + b"\0\1" + (bytes([1, len(place)]) if place else b"\0") + numbers


def meta(parts: Sequence[Saved], version: bytes = message((1, 1))) -> bytes:
    listed: dict[bytes, list[Saved]] = {}
    for part in parts:
        listed.setdefault(part.name, []).append(part)
    tensors = [
        message(
            (1, name),
            (2, shape_of(saved[0].shape)),
            (3, saved[0].dtype),
            *((4, place_of(part.place or whole(part.shape))) for part in saved),
        )
        for name, saved in listed.items()
    ]
    return message((1, message(*((1, tensor) for tensor in tensors), (2, version))))


def rows(parts: Sequence[Saved]) -> dict[bytes, bytes]:
    found = {b"": meta(parts)}
    for part in parts:
        place = part.place or whole(part.shape)
        found[key(part.name, place)] = message((2, message((1, part.name), (2, place_of(place)), (3, part.proto))))
    return found


def write(
    path: Path,
    parts: Sequence[Saved],
    *,
    replaced: Mapping[bytes, bytes] | None = None,
    blocks: int = 1,
    compression: int = 0,
) -> str:
    """Writes a checkpoint of one file and gives its path; `replaced` adds or replaces rows of the table."""
    path.write_bytes(table(sorted((rows(parts) | dict(replaced or {})).items()), blocks, compression))
    return str(path)
