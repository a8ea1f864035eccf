"""
The records of a bundle's index: one header, then one entry for each tensor.

    key ""    BundleHeaderProto { 1 number of shards, 2 endianness (0 little, 1 big), 3 VersionDef }
    key name  BundleEntryProto  { 1 dtype, 2 TensorShapeProto, 3 shard, 4 offset, 5 size, 6 masked crc32c, 7 slice* }

    VersionDef       { 1 producer, 2 min_consumer, 3 bad_consumer* }
    TensorShapeProto { 2 dim* { 1 size }, 3 unknown_rank }

A partitioned variable is an entry with slices and no bytes of its own; its parts are entries of their own (slices.py).

https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/protobuf/tensor_bundle.proto
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from t2t.checkpoints.protobuf import BYTES, FIXED32, VARINT, Corrupt, expect, fields, signed, varint
from t2t.checkpoints.slices import MAX_PARTS, Extents, extents
from t2t.checkpoints.table import unmasked
from t2t.tensors import Shape

MAX_SHARDS = 100_000
MAX_RANK = 254
#: Bytes of an encoded shape: 254 axes and names for them, which TensorFlow does not write.
MAX_SHAPE = 64 * 2**10

#: TensorFlow's DataType numbers. 0 is invalid, 101 and above are references, which are never stored.
DTYPE_NAMES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    7: "string",
    8: "complex64",
    9: "int64",
    10: "bool",
    11: "qint8",
    12: "quint8",
    13: "qint32",
    14: "bfloat16",
    15: "qint16",
    16: "quint16",
    17: "uint16",
    18: "complex128",
    19: "float16",
    20: "resource",
    21: "variant",
    22: "uint32",
    23: "uint64",
    24: "float8_e5m2",
    25: "float8_e4m3fn",
    26: "float8_e4m3fnuz",
    27: "float8_e4m3b11fnuz",
    28: "float8_e5m2fnuz",
    29: "int4",
    30: "uint4",
    31: "int2",
    32: "uint2",
    33: "float4_e2m1fn",
}

#: The version of the format that this reader knows.
_CONSUMER = 1

#: The known fields of an entry and their wire types.
_ENTRY_WIRES = {1: VARINT, 2: BYTES, 3: VARINT, 4: VARINT, 5: VARINT, 6: FIXED32, 7: BYTES}


class Header(NamedTuple):
    """What holds for the whole bundle."""

    shards: int
    big_endian: bool


class Entry(NamedTuple):
    """One tensor: where its bytes lie, and their crc32c (unmasked). `slices` are the places of a variable's parts."""

    dtype: str
    shape: Shape
    shard: int
    offset: int
    size: int
    crc32c: int
    slices: tuple[Extents, ...]


def header(data: bytes) -> Header:
    """Decodes the header; raises Corrupt when it is not one or is not for this reader."""
    shards = endianness = 0
    version: list[bytes] = []
    for number, wire, value in fields(data):
        if number == 1:
            expect(number, wire, VARINT)
            shards = signed(value)
        elif number == 2:
            expect(number, wire, VARINT)
            endianness = signed(value)
        elif number == 3:
            expect(number, wire, BYTES)
            version.append(value)  # protobuf merges a message that is stored in pieces
    if shards < 1:
        raise Corrupt(f"the header gives {shards} data files")
    if shards > MAX_SHARDS:
        raise Corrupt(f"the header gives {shards} data files, but at most {MAX_SHARDS} are read", "T2T611")
    if endianness not in (0, 1):
        raise Corrupt(f"the header gives the byte order as {endianness}, but only 0 and 1 exist")
    check_version(b"".join(version))
    return Header(shards, endianness == 1)


def check_version(data: bytes) -> None:
    """Decodes a VersionDef; raises Corrupt when its writer says that it is not for this reader."""
    producer = min_consumer = 0
    is_bad = False
    for number, wire, value in fields(data):
        if number in (1, 2):
            expect(number, wire, VARINT)
            producer, min_consumer = (signed(value), min_consumer) if number == 1 else (producer, signed(value))
        elif number == 3 and wire == BYTES:
            at = 0  # a packed list: nothing but numbers
            while at < len(value):
                consumer, at = varint(value, at, len(value))
                is_bad |= consumer == _CONSUMER
        elif number == 3:
            expect(number, wire, VARINT)
            is_bad |= value == _CONSUMER
    if producer < 0:
        raise Corrupt(f"the header's version has the producer {producer}")
    if min_consumer > _CONSUMER:
        raise Corrupt(f"written for a newer checkpoint format (readers of version {min_consumer} or later)", "T2T606")
    if is_bad:
        raise Corrupt(f"written for other readers than those of format version {_CONSUMER}", "T2T606")


def entry(data: bytes) -> Entry:
    """Decodes one entry; raises Corrupt. What depends on other entries or files is not checked here."""
    found = dict.fromkeys(_ENTRY_WIRES, 0)
    shape = b""
    slices: list[Extents] = []
    for number, wire, value in fields(data):
        if wire != _ENTRY_WIRES.get(number, wire):
            expect(number, wire, _ENTRY_WIRES[number])
        if number == 2:
            shape += value  # protobuf merges a message that is stored in pieces
            if len(shape) > MAX_SHAPE:
                raise Corrupt(f"its shape has {len(shape)} bytes, but at most {MAX_SHAPE} are read", "T2T611")
        elif number == 7:
            slices.append(extents(value))
            if len(slices) > MAX_PARTS:
                raise Corrupt(f"it has more than {MAX_PARTS} parts, the most that are read", "T2T611")
        elif number in found:
            found[number] = value  # the last one counts
    dtype, shard, offset, size = (signed(found[number]) for number in (1, 3, 4, 5))
    name = DTYPE_NAMES.get(dtype) or f"unknown({dtype})"
    return Entry(name, shape_of(shape), shard, offset, size, unmasked(found[6]), tuple(slices))


@functools.lru_cache(maxsize=1024)  # a model has few different shapes
def shape_of(data: bytes) -> Shape:
    """Decodes a TensorShapeProto; raises Corrupt."""
    sizes = []
    for number, wire, value in fields(data):
        if number == 2:
            expect(number, wire, BYTES)
            size = 0
            for dim_number, dim_wire, dim_value in fields(value):
                if dim_number == 1:
                    expect(dim_number, dim_wire, VARINT)
                    size = signed(dim_value)
            if size < 0:
                raise Corrupt(f"an axis has the size {size}")
            sizes.append(size)
        elif number == 3 and value:
            raise Corrupt("the rank is unknown")
    if len(sizes) > MAX_RANK:
        raise Corrupt(f"the rank is {len(sizes)}, but TensorFlow has at most {MAX_RANK}")
    return tuple(sizes)
