"""
The safetensors writer: tensors go straight to their places in the file, in whatever order they come.

    u64, little-endian: the header's length | header: JSON, padded with spaces to 8 bytes | tensors, without a gap

The header is `{"__metadata__": {text: text}, name: {"dtype", "shape", "data_offsets": [start, end]}, ...}`, offsets are
from the header's end (github.com/huggingface/safetensors, README, "Format"). Names, dtypes and shapes are known before
the first byte is, so the header is written first. Tensors lie by falling element size, then by name: each is aligned,
and the same input gives the same bytes. The library's own writer is not used: it needs all tensors at once, takes
transposed views for contiguous ones, syncs nothing and gives its files mode 0600.

With `shard_size`, what is larger is written in several such files (see t2t.writers.shards).
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import google_crc32c
import numpy as np
import safetensors

from t2t.execute import BLOCK, Block, Room
from t2t.names import shown
from t2t.problems import Location, OutputError, Problem
from t2t.tensors import DTYPES
from t2t.writers import Entry, Written, shards
from t2t.writers.atomic import Temporary, refuse_bytes, replacing
from t2t.writers.ours import is_ours
from t2t.writers.together import replacing_together

#: The format's own limit.
MAX_HEADER = 100_000_000

#: So many shards are open at a time.
OPEN = 32


def write(
    place: str,
    entries: Sequence[Entry],
    metadata: Mapping[str, str],
    blocks: Callable[[Room], Iterable[Block]],
    *,
    shard_size: int | None = None,
    force: bool = False,
    prove: Callable[[str], None] = lambda path: None,
    note: Callable[[Problem], None] = lambda problem: None,
) -> Written:
    """Writes the file, or the shards and their index; see t2t.writers.Writer."""
    files = shards.split(entries, shard_size)
    _refuse(place, entries)
    if len(files) > 1:
        return _write_shards(place, files, metadata, blocks, force=force, prove=prove, note=note)
    header, starts, size = _header(place, entries, metadata)
    with replacing(place, size, is_ours, force=force, note=note) as temporary:
        temporary.write(header, 0)
        written = _pour(blocks, {name: (temporary, start) for name, start in starts.items()})
        temporary.sync()
        _read_back(temporary, entries, starts, written)
        prove(temporary.path)
    shards.remove_older(place, note)
    return Written(place, size)


def _write_shards(
    place: str,
    files: Sequence[Sequence[Entry]],
    metadata: Mapping[str, str],
    blocks: Callable[[Room], Iterable[Block]],
    *,
    force: bool,
    prove: Callable[[str], None],
    note: Callable[[Problem], None],
) -> Written:
    refuse_bytes(place)
    above, index = os.path.dirname(place), shards.index_name(place)
    named = dict(zip(shards.names(place, len(files)), files, strict=True))
    text = shards.index(place, files, metadata)
    headers = {name: _header(os.path.join(above, name), file, metadata) for name, file in named.items()}
    sizes = {**{name: size for name, (_, _, size) in headers.items()}, index: len(text)}

    def older() -> list[str]:
        return shards.replaced(place, list(sizes))

    with replacing_together(place, sizes, older, is_ours, force=force, note=note) as temporaries:
        places = {}
        for name, (header, starts, _) in headers.items():
            temporaries[name].write(header, 0)
            temporaries[name].rest()
            places.update({entry: (temporaries[name], start) for entry, start in starts.items()})
        written = _pour(blocks, places)
        for name, file in named.items():
            temporaries[name].rest()
            _read_back(temporaries[name], file, headers[name][1], written)
            temporaries[name].rest()
        temporaries[index].write(text, 0)
        temporaries[index].rest()
        if temporaries[index].read(0, len(text) + 1) != text:
            message = "the index reads back as something else than what was written"
            place_of = Location(temporaries[index].place)
            raise OutputError(Problem("T2T805", message, place_of, "the disk may be failing"))
        prove(temporaries[index].path)
    return Written(os.path.join(above, index), sum(sizes.values()), len(sizes) - 1)


def _pour(blocks: Callable[[Room], Iterable[Block]], places: Mapping[str, tuple[Temporary, int]]) -> dict[str, int]:
    """Writes every block to its entry's place, a file and an offset. Returns the entries' checksums."""
    written = dict.fromkeys(places, 0)
    buffer = np.empty(BLOCK, np.uint8)
    busy: dict[Temporary, None] = {}  # in the order of their use
    for block in blocks(lambda _step, _start, count, dtype: buffer[: count * dtype.itemsize].view(dtype)):
        data = block.values.view(np.uint8)
        written[block.name] = google_crc32c.extend(written[block.name], data)
        temporary, start = places[block.name]
        temporary.write(data, start + block.start * block.values.itemsize)
        busy.pop(temporary, None)
        busy[temporary] = None
        if len(busy) > OPEN:
            rested = next(iter(busy))
            rested.rest()
            del busy[rested]
    return written


def _refuse(place: str, entries: Sequence[Entry]) -> None:
    """Raises OutputError (T2T804) with every entry that the format cannot hold."""
    problems = []
    for entry in _in_file_order(entries):
        if DTYPES[entry.dtype].safetensors is None:
            message = f"{shown(entry.name)}: safetensors cannot hold {entry.dtype}"
            problems.append(Problem("T2T804", message, Location(place), "leave it out of the module, or cast it"))
        elif entry.name == "__metadata__" or not entry.name or not _is_text(entry.name):
            message = f"safetensors cannot hold a tensor named '{shown(entry.name)}'"
            problems.append(Problem("T2T804", message, Location(place), "rename it in the module"))
    if problems:
        raise OutputError(problems)


def _in_file_order(entries: Sequence[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: (-DTYPES[entry.dtype].itemsize, entry.name))


def _header(place: str, entries: Sequence[Entry], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int], int]:
    """The header's bytes with their length before them, where each tensor starts in the file, and the file's size."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for entry in _in_file_order(entries):
        end = offset + shards.nbytes(entry)
        dtype = DTYPES[entry.dtype].safetensors
        header[entry.name] = {"dtype": dtype, "shape": list(entry.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        message = f"the header has {len(text)} bytes, safetensors allows {MAX_HEADER}"
        raise OutputError(Problem("T2T804", message, Location(place)))
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
        crc = temporary.checksum(starts[entry.name], shards.nbytes(entry))
        if found.get(entry.name) != wanted or crc != written[entry.name]:
            message = (
                f"{shown(entry.name)} reads back as {found.get(entry.name)} with checksum {crc:08x}, "
                f"written was {wanted} with {written[entry.name]:08x}"
            )
            raise OutputError(Problem("T2T805", message, Location(temporary.place), "the disk may be failing"))
