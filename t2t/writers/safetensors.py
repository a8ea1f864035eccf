"""
The safetensors writer: tensors go straight to their places in the file, in whatever order they come.

    u64, little-endian: the header's length | header: JSON, padded with spaces to 8 bytes | tensors, without a gap

The header is `{"__metadata__": {text: text}, name: {"dtype", "shape", "data_offsets": [start, end]}, ...}`, offsets are
from the header's end (github.com/huggingface/safetensors, README, "Format"). Names, dtypes and shapes are known before
the first byte is, so the header is written first. Tensors lie by falling element size, then by name: each is aligned,
and the same input gives the same bytes. The library's own writer is not used: it needs all tensors at once, takes
transposed views for contiguous ones, syncs nothing and gives its files mode 0600.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
import safetensors

from t2t.execute import BLOCK, Block, Room
from t2t.names import shown
from t2t.problems import Location, OutputError, Problem
from t2t.tensors import DTYPES, Shape
from t2t.writers.atomic import Temporary, replacing

#: The format's own limit.
MAX_HEADER = 100_000_000

#: What the file's metadata has under this key, only t2t writes.
OURS = "t2t"

_PIECE = 2**20


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of the file: its name, dtype (torch's name) and shape."""

    name: str
    dtype: str
    shape: Shape


def write(
    place: str,
    entries: Sequence[Entry],
    metadata: Mapping[str, str],
    blocks: Callable[[Room], Iterable[Block]],
    *,
    force: bool = False,
    prove: Callable[[str], None] = lambda path: None,
    note: Callable[[Problem], None] = lambda problem: None,
) -> int:
    """
    Writes the file and returns its size in bytes.

    `blocks` gives every entry in blocks, those of one entry in order, in the memory that its argument gives out. When
    all are on the disk they are read back and compared; `prove` is then called with the finished file's temporary path,
    and whatever it raises leaves the old file in place.

    Raises OutputError: T2T804 before anything is written, T2T801-803 where the place or the disk says no, T2T805 where
    the disk gives back something else.
    """
    header, starts, size = _header(place, entries, metadata)
    with replacing(place, size, is_ours, force=force, note=note) as temporary:
        temporary.write(header, 0)
        written = dict.fromkeys(starts, 0)
        buffer = np.empty(BLOCK, np.uint8)
        for block in blocks(lambda _step, _start, count, dtype: buffer[: count * dtype.itemsize].view(dtype)):
            data = block.values.view(np.uint8)
            written[block.name] = google_crc32c.extend(written[block.name], data)
            temporary.write(data, starts[block.name] + block.start * block.values.itemsize)
        temporary.sync()
        _read_back(temporary, entries, starts, written)
        prove(temporary.path)
    return size


def is_ours(path: str) -> bool:
    """Whether t2t wrote this file: a safetensors header, whose metadata says so."""
    with open(path, "rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(MAX_HEADER, os.fstat(file.fileno()).st_size - 8):
            return False
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            return False
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return isinstance(metadata, dict) and OURS in metadata


def _header(place: str, entries: Sequence[Entry], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int], int]:
    """The header's bytes with their length before them, where each tensor starts in the file, and the file's size."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    problems = []
    offset = 0
    for entry in sorted(entries, key=lambda entry: (-DTYPES[entry.dtype].itemsize, entry.name)):
        dtype = DTYPES[entry.dtype].safetensors
        if dtype is None:
            message = f"{shown(entry.name)}: safetensors cannot hold {entry.dtype}"
            problems.append(Problem("T2T804", message, Location(place), "leave it out of the module, or cast it"))
            continue
        if entry.name == "__metadata__" or not entry.name or not _is_text(entry.name):
            message = f"safetensors cannot hold a tensor named '{shown(entry.name)}'"
            problems.append(Problem("T2T804", message, Location(place), "rename it in the module"))
            continue
        end = offset + int(np.prod(entry.shape, dtype=object)) * DTYPES[entry.dtype].itemsize
        header[entry.name] = {"dtype": dtype, "shape": list(entry.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        message = f"the header has {len(text)} bytes, safetensors allows {MAX_HEADER}"
        problems.append(Problem("T2T804", message, Location(place)))
    if problems:
        raise OutputError(problems)
    base = 8 + len(text)
    starts = {entry.name: base + header[entry.name]["data_offsets"][0] for entry in entries}
    return struct.pack("<Q", len(text)) + text, starts, base + offset


def _is_text(name: str) -> bool:
    """Whether UTF-8 can hold the name: half of a surrogate pair is no character."""
    return not any("\ud800" <= c <= "\udfff" for c in name)


def _read_back(
    temporary: Temporary, entries: Sequence[Entry], starts: Mapping[str, int], written: Mapping[str, int]
) -> None:
    """
    The file as a stranger reads it: the header by the safetensors library, the bytes by their checksums.
    """
    try:
        with safetensors.safe_open(temporary.path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            found = {name: (entry.get_dtype(), entry.get_shape()) for name, entry in slices.items()}
    except safetensors.SafetensorError as error:
        message = f"the safetensors library {safetensors.__version__} refuses the file: {error}"
        raise OutputError(Problem("T2T805", message, Location(temporary.place), "a newer one may read it")) from None
    for entry in entries:
        wanted = (DTYPES[entry.dtype].safetensors, list(entry.shape))
        nbytes = int(np.prod(entry.shape, dtype=object)) * DTYPES[entry.dtype].itemsize
        crc = _checksum(temporary.fd, starts[entry.name], nbytes)
        if found.get(entry.name) != wanted or crc != written[entry.name]:
            message = (
                f"{shown(entry.name)} reads back as {found.get(entry.name)} with checksum {crc:08x}, "
                f"written was {wanted} with {written[entry.name]:08x}"
            )
            raise OutputError(Problem("T2T805", message, Location(temporary.place), "the disk may be failing"))


def _checksum(fd: int, offset: int, nbytes: int) -> int:
    crc = 0
    buffer = np.empty(min(_PIECE, nbytes), np.uint8)
    for start in range(0, nbytes, _PIECE):
        piece = buffer[: min(_PIECE, nbytes - start)]
        if os.preadv(fd, [piece.data], offset + start) != len(piece):
            return -1
        crc = google_crc32c.extend(crc, piece)
    return int(crc)
