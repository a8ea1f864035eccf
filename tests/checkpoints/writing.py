"""
A writer of tables and bundles that shares no code with the reader, to make what TensorFlow would never write.

Valid by default; every part can be replaced by a wrong one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cramjam
import google_crc32c

MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)


def number(value: int) -> bytes:
    """A varint; negative numbers as 64 bit two's complement."""
    value %= 1 << 64
    low, high = value & 127, value >> 7
    return bytes([low | 128]) + number(high) if high else bytes([low])


def masked(data: bytes) -> int:
    crc: int = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


# Protobuf: a message is a list of (field number, value), the value's type says the wire type.


class Fixed32(int):
    """A value of wire type 5."""


def message(*items: tuple[int, int | bytes]) -> bytes:
    out = b""
    for field, value in items:
        if isinstance(value, Fixed32):
            out += number(field << 3 | 5) + struct.pack("<I", value)
        elif isinstance(value, int):
            out += number(field << 3) + number(value)
        else:
            out += number(field << 3 | 2) + number(len(value)) + value
    return out


# Tables.

Rows = Sequence[tuple[bytes, bytes]]


def block(rows: Rows, interval: int = 16) -> bytes:
    out = b""
    restarts = []
    previous = b""
    for i, (key, value) in enumerate(rows):
        shared = 0
        if i % interval == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
                shared += 1
        out += number(shared) + number(len(key) - shared) + number(len(value)) + key[shared:] + value
        previous = key
    restarts = restarts or [0]
    return out + struct.pack(f"<{len(restarts)}I", *restarts) + struct.pack("<I", len(restarts))


def stored(content: bytes, compression: int = 0) -> bytes:
    data = bytes(cramjam.snappy.compress_raw(content)) if compression == 1 else content
    return sealed(data, compression)


def sealed(data: bytes, compression: int) -> bytes:
    kind = bytes([compression])
    return data + kind + struct.pack("<I", masked(data + kind))


def handle(offset: int, size: int) -> bytes:
    return number(offset) + number(size)


def table_of(
    blocks: Sequence[tuple[bytes, bytes]],
    metaindex: bytes | None = None,
    index: bytes | None = None,
    footer: bytes = b"",
) -> bytes:
    """A table of (separator, stored block); the metaindex' and index blocks' contents and the footer can be given."""
    out = b""
    handles = []
    for separator, data in blocks:
        handles.append((separator, handle(len(out), len(data) - 5)))
        out += data
    parts = b""
    for content in (block([]) if metaindex is None else metaindex, block(handles, 1) if index is None else index):
        parts += handle(len(out), len(content))
        out += stored(content)
    return out + (footer or parts.ljust(40, b"\0") + MAGIC)


def table(rows: Rows, blocks: int = 1, compression: int = 0) -> bytes:
    """A valid table of the rows, spread over several blocks."""
    size = max(1, -(-len(rows) // blocks))
    chunks = [rows[i : i + size] for i in range(0, len(rows), size)]
    return table_of([(chunk[-1][0], stored(block(chunk), compression)) for chunk in chunks])


# Bundles.


class Tensor(NamedTuple):
    """What is to be stored: TensorFlow's number of the dtype, the shape, the bytes, and in which shard."""

    dtype: int
    shape: tuple[int, ...]
    data: bytes
    shard: int = 0


def header(shards: int = 1, *more: tuple[int, int | bytes]) -> bytes:
    return message((1, shards), *(more or ((3, message((1, 1))),)))


def shape_of(shape: Iterable[int]) -> bytes:
    return message(*((2, message((1, size)) if size else b"") for size in shape))


def entry(tensor: Tensor, offset: int, *more: tuple[int, int | bytes]) -> bytes:
    """The entry of a tensor; `more` fields come last, so they win over those that are right."""
    return message(
        (1, tensor.dtype),
        (2, shape_of(tensor.shape)),
        *([(3, tensor.shard)] if tensor.shard else []),
        *([(4, offset)] if offset else []),
        (5, len(tensor.data)),
        (6, Fixed32(masked(tensor.data))),
        *more,
    )


def bundle(
    prefix: Path,
    tensors: Mapping[str, Tensor],
    *,
    shards: int = 1,
    first: bytes | None = None,
    fields: Mapping[str, Sequence[tuple[int, int | bytes]]] | None = None,
    rows: Mapping[bytes, bytes] | None = None,
    blocks: int = 1,
    compression: int = 0,
) -> str:
    """
    Writes a bundle and gives its prefix.

    `first` replaces the header, `fields` adds fields to entries, `rows` adds or replaces rows of the index.
    """
    files = [b""] * shards
    index = {b"": header(shards) if first is None else first}
    for name, tensor in tensors.items():
        index[name.encode("utf-8", "surrogateescape")] = entry(
            tensor, len(files[tensor.shard]), *(fields or {}).get(name, ())
        )
        files[tensor.shard] += tensor.data
    index |= rows or {}
    Path(f"{prefix}.index").write_bytes(table(sorted(index.items()), blocks, compression))
    for shard, data in enumerate(files):
        Path(f"{prefix}.data-{shard:05}-of-{shards:05}").write_bytes(data)
    return str(prefix)


def floats(*values: float, shape: tuple[int, ...] | None = None, shard: int = 0) -> Tensor:
    """A float32 tensor."""
    return Tensor(1, (len(values),) if shape is None else shape, struct.pack(f"<{len(values)}f", *values), shard)
