"""
Whether t2t wrote a file: only then it may be replaced without being told to.

Each format says so in its own way, and none of them is unpickled for it:

    .safetensors         "t2t" among the header's metadata
    .index.json          "t2t" among the index's metadata
    .pt                  a zip archive that begins with the record archive/t2t.json
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any, BinaryIO

#: What a file's metadata has under this key, only t2t writes.
KEY = "t2t"

#: The largest header, index or record that is looked into, in bytes: the most that a safetensors header may have.
LARGEST = 100_000_000

#: The first record of a .pt file of ours.
RECORD = "archive/t2t.json"

#: A zip archive's local header: signature, version, flags, method, time, date, crc32, sizes, lengths.
LOCAL = struct.Struct("<4s5H3I2H")


def is_ours(path: str) -> bool:
    """Whether t2t wrote this file, in whatever format. Raises OSError where it cannot be read."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        return any(_says_so(json_of(file, size)) for json_of in (_safetensors, _index, _pt))


def _safetensors(file: BinaryIO, size: int) -> Any:
    file.seek(0)
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    header = _parsed(file, length, size - 8)
    return header.get("__metadata__") if isinstance(header, dict) else None


def _index(file: BinaryIO, size: int) -> Any:
    file.seek(0)
    if file.read(1) != b"{":
        return None
    file.seek(0)
    index = _parsed(file, size, size)
    return index.get("metadata") if isinstance(index, dict) else None


def _pt(file: BinaryIO, size: int) -> Any:
    file.seek(0)
    start = file.read(LOCAL.size)
    if len(start) < LOCAL.size:
        return None
    signature, _, _, method, _, _, _, stored, _, name, extra = LOCAL.unpack(start)
    if signature != b"PK\3\4" or method or file.read(name) != RECORD.encode():
        return None
    file.seek(extra, os.SEEK_CUR)
    return _parsed(file, stored, size - file.tell())


def _parsed(file: BinaryIO, length: int, limit: int) -> Any:
    """The JSON in the next `length` bytes; None where there are not so many, or it is none."""
    if not 2 <= length <= min(LARGEST, limit):
        return None
    try:
        return json.loads(file.read(length))
    except (ValueError, RecursionError):
        return None


def _says_so(metadata: Any) -> bool:
    return isinstance(metadata, dict) and KEY in metadata
