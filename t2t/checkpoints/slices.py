"""
The parts of a partitioned variable: where each lies in the variable, and the key under which the table has it.

    TensorSliceProto { 1 extent* { 1 start, 2 length } }       one extent for each axis; no length means all of the axis

    key    = 00, the variable's name, 00 01, the rank, for each axis its start and its length (-1: all of it)
    name   00 is written as 00 ff, ff as ff 00
    rank   one byte that counts the bytes behind it, the number in as few bytes as possible, big-endian
    start, length   n bytes for numbers of 7 n bits: two's complement, big-endian, the n highest bits inverted

https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/framework/tensor_slice.proto
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/lib/strings/ordered_code.cc
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence

from t2t.checkpoints.protobuf import BYTES, VARINT, Corrupt, expect, fields, signed
from t2t.tensors import Shape

#: (start, length) for each axis; the length -1 means the whole axis, and the start is then 0.
Extents = tuple[tuple[int, int], ...]

MAX_PARTS = 100_000
#: Corners of all parts, in the axes that are cut: what it costs to know that parts neither overlap nor leave a hole.
MAX_CORNERS = 2_000_000
#: Bytes of a part's place: 254 axes, of which each has two numbers.
MAX_PLACE = 64 * 2**10

#: How many parts are tried to name two that overlap; that they do is known before.
_MAX_TRIED = 1000

_PART_KEY = re.compile(rb"\x00([^\x00\xff]*(?:(?:\x00\xff|\xff\x00)[^\x00\xff]*)*)\x00\x01")
_SPECIAL = re.compile(rb"[\x00\xff]")
_ESCAPE = re.compile(rb"\x00\xff|\xff\x00")


def extents(data: bytes) -> Extents:
    """Decodes a TensorSliceProto; raises Corrupt. Whether it fits a shape is not checked here."""
    if len(data) > MAX_PLACE:
        raise Corrupt(f"a part's place has {len(data)} bytes, but at most {MAX_PLACE} are read", "T2T611")
    return tuple(_extent(value) for number, wire, value in fields(data) if number == 1 and _is_message(number, wire))


def _is_message(number: int, wire: int) -> bool:
    expect(number, wire, BYTES)
    return True


@functools.lru_cache(maxsize=1024)  # parts have few different extents
def _extent(data: bytes) -> tuple[int, int]:
    start, length = 0, -1
    for number, wire, value in fields(data):
        if number in (1, 2):
            expect(number, wire, VARINT)
            start, length = (signed(value), length) if number == 1 else (start, signed(value))
            if number == 2 and length < 0:
                raise Corrupt(f"a part has the length {length}")
    return start, length


def part_key(name: bytes, place: Extents) -> bytes:
    """The table's key for the part of the variable `name` that lies there."""
    rank = len(place)
    digits = rank.to_bytes((rank.bit_length() + 7) // 8, "big")
    escaped = _SPECIAL.sub(lambda byte: byte[0] + (b"\0" if byte[0] == b"\xff" else b"\xff"), name)
    numbers = b"".join(_number(start) + _number(length) for start, length in place)
    return b"\0" + escaped + b"\0\1" + bytes([len(digits)]) + digits + numbers


@functools.lru_cache(maxsize=1024)
def _number(value: int) -> bytes:
    count = (value if value >= 0 else ~value).bit_length() // 7 + 1
    return ((value % (1 << 8 * count)) ^ (((1 << count) - 1) << 7 * count)).to_bytes(count, "big")


def part_of(key: bytes) -> tuple[bytes, Extents] | None:
    """What `part_key` made the key from; None when it is not the key of a part."""
    match = _PART_KEY.match(key)
    if match is None:
        return None
    at = match.end()
    digits = key[at + 1 : at + 1 + key[at]] if at < len(key) else b""
    at += 1 + len(digits)
    numbers = []
    while at < len(key):
        # The bits that are set before the first that is not (or the other way round, if negative) count the bytes.
        head = int.from_bytes(key[at : at + 2].ljust(2, b"\0"), "big")
        leading = 16 - (head if head < 2**15 else head ^ 0xFFFF).bit_length()
        count = min(leading, 10)
        stored = int.from_bytes(key[at : at + count], "big") ^ (((1 << count) - 1) << 7 * count)
        numbers.append(stored - (1 << 8 * count) if stored >> (8 * count - 1) else stored)
        at += count
    if len(digits) > 1 or len(numbers) != 2 * int.from_bytes(digits, "big"):
        return None
    name = _ESCAPE.sub(lambda escape: escape[0][:1], match[1])
    place = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    return (name, place) if part_key(name, place) == key else None


def boxes(shape: Shape, parts: Sequence[Extents]) -> list[tuple[slice, ...]]:
    """
    Where each part lies in an array of that shape; all of them together are all of it, and no two overlap.

    Raises Corrupt where that is not so, with T2T611 where it would take too long to know.
    """
    if not parts:
        raise Corrupt("it has no parts")
    if len(parts) > MAX_PARTS:
        raise Corrupt(f"it has {len(parts)} parts, but at most {MAX_PARTS} are read", "T2T611")
    resolved = [_box(shape, place) for place in parts]
    _check_tiling(shape, resolved, parts)
    return resolved


def _box(shape: Shape, place: Extents) -> tuple[slice, ...]:
    if len(place) != len(shape):
        raise Corrupt(f"its part {shown_place(place)} has {len(place)} axes, but the shape has {len(shape)}")
    box = []
    for axis, (size, (start, length)) in enumerate(zip(shape, place, strict=True)):
        stop = size if length == -1 else start + length
        if start < 0 or length < -1 or stop > size or (length == -1 and start):
            raise Corrupt(f"its part {shown_place(place)} is not inside axis {axis}, which has the size {size}")
        box.append(slice(start, stop))
    return tuple(box)


def _check_tiling(shape: Shape, boxes: Sequence[tuple[slice, ...]], parts: Sequence[Extents]) -> None:
    """
    Raises Corrupt unless the boxes tile the shape.

    Count for each point of the array how many boxes it is in. The differences of these counts along all axes are not
    zero only at the boxes' corners, with a sign for each corner, and they determine the counts: the boxes tile the
    array exactly if their corners add up to the array's own.
    """
    cut = [axis for axis, size in enumerate(shape) if any(box[axis] != slice(0, size) for box in boxes)]
    stored, total = sum(math.prod(s.stop - s.start for s in box) for box in boxes), math.prod(shape)
    if total == 0:
        return  # nothing to be in two boxes or in none
    if stored == total:
        if len(boxes) << len(cut) > MAX_CORNERS:
            message = f"its {len(boxes)} parts cut {len(cut)} axes, which are too many places to check"
            raise Corrupt(message, "T2T611")
        corners: Counter[tuple[int, ...]] = Counter()
        whole = tuple(slice(0, size) for size in shape)
        for weight, box in ((-1, whole), *((1, box) for box in boxes)):
            ends = [((box[axis].start, 1), (box[axis].stop, -1)) for axis in cut]
            for corner in itertools.product(*ends):
                corners[tuple(at for at, _ in corner)] += weight * math.prod(sign for _, sign in corner)
        if not any(corners.values()):
            return
    overlap = _overlap(boxes)
    if overlap:
        one, other = (shown_place(parts[i]) for i in overlap)
        raise Corrupt(f"its parts {one} and {other} overlap")
    if stored < total:
        raise Corrupt(f"its parts leave a hole: they have {stored} elements, but the shape has {total}")
    raise Corrupt(f"its parts overlap: they have {stored} elements, and the shape has {total}")


def _overlap(boxes: Sequence[tuple[slice, ...]]) -> tuple[int, int] | None:
    for i, one in enumerate(boxes[:_MAX_TRIED]):
        for j in range(i):
            if all(max(a.start, b.start) < min(a.stop, b.stop) for a, b in zip(one, boxes[j], strict=True)):
                return j, i
    return None


def shown_place(place: Extents) -> str:
    """A part's place as a message may hold it: [0:60, :]."""
    axes = [":" if length == -1 and start == 0 else f"{start}:{start + length}" for start, length in place[:8]]
    return f"[{', '.join([*axes, *(['...'] if len(place) > 8 else [])])}]"
