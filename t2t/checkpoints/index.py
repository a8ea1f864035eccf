"""
A bundle's index, decoded and checked: the header, each entry by itself, partitioned variables with their parts, and all
of them against the data files' sizes and against each other.

Nothing else decides whether bytes may be read, and no value is read here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from t2t.checkpoints import table
from t2t.checkpoints.entries import Entry, Header, entry, header
from t2t.checkpoints.files import open_file, refusal
from t2t.checkpoints.protobuf import Corrupt
from t2t.checkpoints.signatures import HEAD_SIZE, described, stand_in
from t2t.checkpoints.slices import Extents, boxes, part_key, part_of, shown_place
from t2t.problems import CheckpointError, Location, Problem
from t2t.tensors import DTYPES

MAX_INDEX = 256 * 2**20
#: TensorFlow counts a tensor's elements in an int64.
MAX_ELEMENTS = 2**63 - 1


class Part(NamedTuple):
    """One part of a partitioned variable: its key, where it lies in the variable, and its own entry."""

    key: bytes
    place: Extents
    box: tuple[slice, ...]
    entry: Entry


def decoded(data: bytes, path: str) -> tuple[Header, dict[bytes, Entry]]:
    """Header and entries of an index, each right by itself. The one place where Corrupt gets its file."""
    try:
        if data and not data.endswith(table.MAGIC) and (known := described(data)):
            raise Corrupt(f"this is {known[0]}", "T2T603", known[1])
        rows = table.entries(data)
        first, value = next(rows, (None, b""))
        if first != b"":
            raise Corrupt("the table has no header, so it is no checkpoint's index")
        bundle = header(value)
        return bundle, {key: _checked_entry(key, value, bundle) for key, value in rows}
    except Corrupt as error:
        raise refusal(error.code, str(error), path, error.hint) from error


def _checked_entry(key: bytes, value: bytes, bundle: Header) -> Entry:
    try:
        tensor = entry(value)
        if not 0 <= tensor.shard < bundle.shards:
            raise Corrupt(f"its bytes are in shard {tensor.shard}, but there are {bundle.shards} shards")
        if tensor.offset < 0 or tensor.size < 0:
            raise Corrupt(f"its bytes have the offset {tensor.offset} and the size {tensor.size}")
        _check_size(tensor)
        return tensor
    except Corrupt as error:
        code = "T2T605" if error.code == "T2T604" else error.code
        raise Corrupt(f"{table.shown_key(key)}: {error}", code) from error


def _check_size(tensor: Entry) -> None:
    elements = math.prod(tensor.shape)
    if elements > MAX_ELEMENTS:
        raise Corrupt(f"its shape of {len(tensor.shape)} axes has more than {MAX_ELEMENTS} elements")
    if tensor.slices:
        return
    dtype = DTYPES.get(tensor.dtype)
    if dtype is not None and dtype.numpy is not None and tensor.size != elements * dtype.itemsize:
        needed = elements * dtype.itemsize
        raise Corrupt(f"{tensor.size} bytes are stored, but {tensor.dtype} {list(tensor.shape)} needs {needed}")
    # Each string has a length of at least one byte, and all lengths together have a checksum of four.
    if tensor.dtype == "string" and tensor.size < elements + 4:
        needed = elements + 4
        raise Corrupt(f"{tensor.size} bytes are stored, but string {list(tensor.shape)} needs at least {needed}")


def with_parts(entries: dict[bytes, Entry], index: str) -> tuple[dict[bytes, tuple[Part, ...]], dict[bytes, Entry]]:
    """The parts of every partitioned variable, and the entries that are no such parts; raises CheckpointError."""
    parts = {}
    for key, whole in entries.items():
        if whole.slices:
            try:
                parts[key] = _parts(key, whole, entries)
            except Corrupt as error:
                code = "T2T605" if error.code == "T2T604" else error.code
                raise refusal(code, f"{table.shown_key(key)}: {error}", index, error.hint) from error
    used = {part.key for found in parts.values() for part in found}
    return parts, {key: tensor for key, tensor in entries.items() if key not in used}


def _parts(key: bytes, whole: Entry, entries: dict[bytes, Entry]) -> tuple[Part, ...]:
    """In the order of their keys, which does not depend on the order in which they were saved."""
    found = []
    for place, box in zip(whole.slices, boxes(whole.shape, whole.slices), strict=True):
        its_key = part_key(key, place)
        part = entries.get(its_key)
        if part is None:
            raise Corrupt(f"its part {shown_place(place)} is not in the index")
        shape = tuple(axis.stop - axis.start for axis in box)
        if part.slices or (part.dtype, part.shape) != (whole.dtype, shape):
            kind = "a partitioned variable itself" if part.slices else f"{part.dtype} {list(part.shape)}"
            raise Corrupt(f"its part {shown_place(place)} is {kind}, but should be {whole.dtype} {list(shape)}")
        found.append(Part(its_key, place, box, part))
    return tuple(sorted(found, key=lambda part: part.key))


def shown_part(key: bytes) -> str:
    """A key as a message may hold it; of a part its variable and its place."""
    part = part_of(key) if key[0] == 0 else None
    return f"{table.shown_key(part[0])} {shown_place(part[1])}" if part else table.shown_key(key)


def check_places(
    entries: Mapping[bytes, Entry],
    parts: Mapping[bytes, tuple[Part, ...]],
    sizes: list[int],
    shards: list[str],
    index: str,
) -> None:
    """Raises CheckpointError for bytes behind the end of a data file (T2T607), or that two tensors share (T2T605)."""
    stored = [(key, e) for key, e in entries.items() if not e.slices]
    stored += [(part.key, part.entry) for found in parts.values() for part in found]
    places = sorted((e.shard, e.offset, e.size, key) for key, e in stored)
    beyond = [place for place in places if place[1] + place[2] > sizes[place[0]]]
    if beyond:
        # One problem for each file that is too short, not one for each variable.
        count = Counter(place[0] for place in beyond)
        first = {shard: (offset, size, key) for shard, offset, size, key in reversed(beyond)}
        _check_no_stand_ins([shards[shard] for shard in sorted(first)])
        raise CheckpointError(
            Problem(
                "T2T607",
                f"{shown_part(key)}: needs bytes {offset} to {offset + size}, but the file has {sizes[shard]}"
                + (f" (the same for {_more(count[shard] - 1)})" if count[shard] > 1 else ""),
                Location(shards[shard]),
                "the file is cut off, or of another save: copy it again",
            )
            for shard, (offset, size, key) in sorted(first.items())
        )
    last_shard, last_end, last_key = -1, 0, b""
    for shard, offset, size, key in places:
        if size == 0:
            continue
        if shard == last_shard and offset < last_end:
            message = f"{shown_part(key)}: its bytes are also those of {shown_part(last_key)}"
            raise refusal("T2T605", message, index)
        last_shard, last_end, last_key = shard, offset + size, key


def _more(count: int) -> str:
    return f"{count} more variable{'s' if count > 1 else ''}"


def _check_no_stand_ins(paths: list[str]) -> None:
    """Raises CheckpointError T2T603 for a file that is a pointer to the data or a page about them."""
    for path in paths:
        file = open_file(path)
        try:
            known = stand_in(file.read(0, min(file.size, HEAD_SIZE)))
        finally:
            file.close()
        if known:
            raise refusal("T2T603", f"this is {known[0]}", path, known[1])
