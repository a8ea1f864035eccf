"""
TensorFlow's V2 checkpoints ("tensor bundles"), read without TensorFlow.

    <prefix>.index                  a table (table.py) of one header and one entry for each tensor (entries.py)
    <prefix>.data-00000-of-00002    the tensors' bytes: row-major, no header, no padding, at the entries' offsets
    <prefix>.data-00001-of-00002
    <prefix>.meta                   TF1 only: the graph (meta.py)

Nothing is believed: the order of checks is the table's structure and checksums, the header, each entry by itself, the
entries against the data files' sizes and against each other. Only then can bytes be read, and each tensor's checksum is
checked on the way. No memory is ever asked for by a number from the file that the size of a real file does not bound.
"""

from __future__ import annotations

import math
import mmap
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import google_crc32c
import numpy as np

from t2t.checkpoints import meta, table
from t2t.checkpoints.entries import Entry, Header, entry, header
from t2t.checkpoints.files import (
    File,
    Identity,
    exists,
    is_address,
    names_in,
    open_file,
    read_all,
    reason,
    refusal,
    state_if_there,
)
from t2t.checkpoints.full_names import with_full_names
from t2t.checkpoints.object_graph import ObjectGraph, decode
from t2t.checkpoints.protobuf import Corrupt, varint
from t2t.checkpoints.reader import (
    MAX_NUMPY_BYTES,
    MAX_NUMPY_RANK,
    Array,
    Bytes,
    Reader,
    changed,
    check_bools,
    short_names,
)
from t2t.checkpoints.signatures import HEAD_SIZE, described, stand_in
from t2t.checkpoints.slices import Extents, boxes, part_key, part_of, shown_place
from t2t.checkpoints.slots import with_slots
from t2t.names import natural, shown
from t2t.problems import CheckpointError, Location, Problem
from t2t.tensors import DTYPES, CheckpointInventory, TensorRef

MAX_INDEX = 256 * 2**20
#: More data files are never open at once: a checkpoint may have more than a process may open.
MAX_OPEN = 32
#: TensorFlow counts a tensor's elements in an int64.
MAX_ELEMENTS = 2**63 - 1

#: The most strings that one variable may have: each becomes an object.
MAX_STRINGS = 2**24
#: Of these only the lowest bits of each stored byte count; the others can be anything.
LOW_BITS = {"int4": 15, "uint4": 15, "float4_e2m1fn": 15, "int2": 3, "uint2": 3}

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
MAX_GRAPH = 256 * 2**20

_SHARD_COUNT = re.compile(r"-of-([0-9]{5,})\Z")


class Part(NamedTuple):
    """One part of a partitioned variable: its key, where it lies in the variable, and its own entry."""

    key: bytes
    place: Extents
    box: tuple[slice, ...]
    entry: Entry


class Extent(NamedTuple):
    """Bytes in a data file, their crc32c (unmasked), and what messages call them."""

    shard: int
    offset: int
    size: int
    crc32c: int | None
    name: str


class Bundle(Reader):
    """An open V2 checkpoint."""

    def __init__(self, path: str, notes: tuple[Problem, ...] = (), checksums: bool = True) -> None:
        self._checksums = checksums
        self._index = f"{path}.index"
        self._open: dict[int, File] = {}
        self._maps: dict[int, mmap.mmap] = {}

        data, found = read_all(self._index, MAX_INDEX)
        bundle, entries = _decoded(data, self._index)
        self._shards = [f"{path}.data-{shard:05}-of-{bundle.shards:05}" for shard in range(bundle.shards)]
        super().__init__(path, {self._index: found, **_stat_all(self._shards)})
        sizes = [self._identities[shard][2] for shard in self._shards]
        parts, entries = _with_parts(entries, self._index)
        _check_places(entries, parts, sizes, self._shards, self._index)
        self._parts = {key.decode("utf-8", "surrogateescape"): found for key, found in parts.items()}
        self._big_endian = bundle.big_endian

        graph = f"{path}.meta"
        objects, broken = self._object_graph(entries, bundle.big_endian)
        orphans = [key for key in entries if key[0] == 0 and part_of(key)]
        for key in orphans:
            del entries[key]
        variables = _variables(entries, parts, objects)
        self.inventory = CheckpointInventory(variables, meta.trainable(graph))
        self.files = (self._index, *self._shards, *((graph,) if not is_address(graph) and exists(graph) else ()))
        found_out = (*_slow_checksums(self._index, checksums), *_other_saves(path, bundle.shards))
        self.notes = (*notes, *found_out, *_orphans(orphans, self._index), *broken)

    def view(self, ref: TensorRef) -> Array:
        """The variable's values, read-only, over the mapped file where they are aligned, else over a copy."""
        if self._closed:
            raise ValueError("the checkpoint is closed")
        dtype = None if ref.unreadable else DTYPES[ref.dtype].numpy
        is_stored = ref.key not in self._parts and ref.dtype not in LOW_BITS
        is_stored &= not self._big_endian or (dtype is not None and dtype.itemsize == 1)
        if dtype is None or not is_stored or ref.nbytes == 0 or ref.offset % dtype.alignment or is_address(self.path):
            return super().view(ref)
        stored = np.frombuffer(self._map(ref.shard), np.uint8, ref.nbytes, ref.offset)
        if self._checksums:
            self._check(self._extents(ref)[0][1], google_crc32c.extend(0, stored))
        check_bools(ref, stored, self.place(ref))
        return stored.view(dtype).reshape(ref.shape)

    def close(self) -> None:
        """Closes every file. Views stay valid."""
        super().close()
        self._maps.clear()  # a view keeps its map alive
        while self._open:
            self._open.popitem()[1].close()

    def place(self, ref: TensorRef) -> str:
        """The data file that a message about this variable's bytes names."""
        return self._index if ref.unreadable else self._shards[ref.shard]

    def _fill(self, ref: TensorRef, out: Bytes) -> None:
        values: Array = out.view(np.dtype(DTYPES[ref.dtype].numpy)).reshape(ref.shape)
        for box, extent in self._extents(ref):
            target: Array = values[box]
            if target.flags.c_contiguous:
                self._stored(ref.dtype, extent, target.reshape(-1).view(np.uint8))
            else:
                stored = self._memory(extent)
                self._stored(ref.dtype, extent, stored)
                target[...] = stored.view(values.dtype).reshape(target.shape)

    def _strings(self, ref: TensorRef) -> Array:
        if ref.elements > MAX_STRINGS:
            message = f"{shown(ref.name)}: it has {ref.elements} strings, but at most {MAX_STRINGS} are read"
            raise refusal("T2T611", message, self.place(ref))
        values = np.empty(ref.shape, object)
        for box, extent in self._extents(ref):
            target: Array = values[box]
            stored = self._memory(extent)
            self._load(extent.name, extent.shard, extent.offset, stored)
            try:
                strings, crc = _strings(stored, target.size, self._big_endian, self._checksums)
            except Corrupt as error:
                message = f"{shown(extent.name)}: {error}, shard {extent.shard}, offset {extent.offset}"
                raise refusal(error.code, message, self._shards[extent.shard], error.hint) from error
            if self._checksums:
                self._check(extent, crc)
            for i, string in enumerate(strings):
                target.flat[i] = string
        return values

    def _extents(self, ref: TensorRef) -> list[tuple[Any, Extent]]:
        """Where each piece goes (an index that gives a view, of a scalar too) and lies, in the order of the files."""
        if ref.key not in self._parts:
            return [(..., Extent(ref.shard, ref.offset, ref.nbytes, ref.crc32c, ref.name))]
        parts = [
            ((*part.box, ...), Extent(*part.entry[2:6], f"{ref.name} {shown_place(part.place)}"))
            for part in self._parts[ref.key]
        ]
        return sorted(parts, key=lambda part: part[1][:2])

    def _memory(self, extent: Extent) -> Bytes:
        try:
            return np.empty(extent.size, np.uint8)
        except MemoryError as error:
            message = f"{shown(extent.name)}: no memory for its {extent.size} bytes"
            raise refusal("T2T611", message, self._shards[extent.shard]) from error

    def _stored(self, dtype_name: str, extent: Extent, out: Bytes) -> None:
        """Fills `out` with checked bytes, in native byte order and without bits that do not count."""
        crc = self._load(extent.name, extent.shard, extent.offset, out)
        if self._checksums:
            self._check(extent, crc)
        dtype = DTYPES[dtype_name]
        width = dtype.itemsize // 2 if dtype.kind == "complex" else dtype.itemsize
        if width > 1 and self._big_endian != (sys.byteorder == "big"):
            out.view(f"u{width}").byteswap(inplace=True)
        if dtype_name in LOW_BITS:
            np.bitwise_and(out, LOW_BITS[dtype_name], out=out)

    def _load(self, name: str, shard: int, offset: int, out: Bytes) -> int:
        """Fills `out` with the stored bytes from `offset` on; their crc32c, 0 where it is not wanted."""
        file = self._file(shard) if out.size else None
        crc = at = 0
        while file and at < out.size:
            piece = out[at : at + file.piece]
            try:
                count = file.read_into(piece, offset + at)
            except OSError as error:
                raise refusal("T2T602", f"{shown(name)}: cannot be read: {reason(error)}", file.path) from error
            if count == 0:
                message = f"{shown(name)}: the file ends at byte {offset + at}, but had more when it was opened"
                raise refusal("T2T607", message, file.path)
            if self._checksums:
                crc = google_crc32c.extend(crc, piece[:count])
            at += count
        return crc

    def _check(self, extent: Extent, computed: int) -> None:
        shard, offset, _, stored, name = extent
        if computed != stored:
            message = (
                f"{shown(name)}: checksum mismatch, shard {shard}, offset {offset} "
                f"(stored 0x{stored:08x}, computed 0x{computed:08x})"
            )
            raise refusal("T2T608", message, self._shards[shard], "the file is damaged: copy it again")

    def _object_graph(
        self, entries: dict[bytes, Entry], big_endian: bool
    ) -> tuple[ObjectGraph | None, tuple[Problem, ...]]:
        """The object graph, None where there is none; one that cannot be read is a warning: no value depends on it."""
        tensor = entries.get(OBJECT_GRAPH.encode())
        if tensor is None:
            return None, ()
        try:
            if (tensor.dtype, tensor.shape) != ("string", ()) or tensor.slices:
                raise Corrupt(f"it is {tensor.dtype} {list(tensor.shape)}, not a string")
            if tensor.size > MAX_GRAPH:
                raise Corrupt(f"it has {tensor.size} bytes, but {MAX_GRAPH} are the most that t2t reads")
            stored = np.empty(tensor.size, np.uint8)
            self._load(OBJECT_GRAPH, tensor.shard, tensor.offset, stored)
            graph = decode(_scalar(stored.tobytes(), tensor.crc32c if self._checksums else None, big_endian))
            if absent := [key for key in graph.full_names if _encoded(key) not in entries]:
                raise Corrupt(f"it names {shown(absent[0])}, which the checkpoint does not hold")
            return graph, ()
        except Corrupt as error:
            message = f"the object graph cannot be read, so full names are not known: {error}"
            hint = "variables go by their keys; if that is not enough, save or copy the checkpoint again"
            return None, (Problem("T2T618", message, Location(self._index), hint, "warning"),)

    def _file(self, shard: int) -> File:
        """The data file, opened when it is first needed; the one that was not used for the longest time makes room."""
        if self._closed:
            raise ValueError("the checkpoint is closed")
        file = self._open.pop(shard, None)
        if file is None:
            path = self._shards[shard]
            file = open_file(path)
            if file.identity != self._identities[path]:
                file.close()
                raise changed(path)
            if len(self._open) >= MAX_OPEN:
                self._open.pop(next(iter(self._open))).close()
        self._open[shard] = file
        return file

    def _map(self, shard: int) -> mmap.mmap:
        file = self._file(shard)
        if file.identity_now() != self._identities[file.path]:
            # Reading beyond the end of a file that was shortened would kill the process.
            raise changed(file.path)
        if shard not in self._maps:
            if len(self._maps) >= MAX_OPEN:
                self._maps.clear()
            try:
                self._maps[shard] = file.map()
            except OSError as error:
                raise refusal("T2T602", f"cannot be mapped: {reason(error)}", file.path) from error
        return self._maps[shard]


def _decoded(data: bytes, path: str) -> tuple[Header, dict[bytes, Entry]]:
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


def _with_parts(entries: dict[bytes, Entry], index: str) -> tuple[dict[bytes, tuple[Part, ...]], dict[bytes, Entry]]:
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


def _orphans(keys: list[bytes], index: str) -> tuple[Problem, ...]:
    """A warning for parts that no variable has: their variable was not saved, or was saved anew in other parts."""
    if not keys:
        return ()
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    message = f"{_shown_part(keys[0])}{more}: parts that belong to no variable"
    return (Problem("T2T616", message, Location(index), "they are not read", "warning"),)


def _shown_part(key: bytes) -> str:
    part = part_of(key) if key[0] == 0 else None
    return f"{table.shown_key(part[0])} {shown_place(part[1])}" if part else table.shown_key(key)


def _stat_all(shards: list[str]) -> dict[str, Identity]:
    """What each data file is now; raises CheckpointError T2T607 that lists every missing one."""
    identities = {}
    missing = []
    for number, shard in enumerate(shards):
        if (found := state_if_there(shard)) is not None:
            identities[shard] = found
        else:
            message = f"shard {number} of {len(shards)} missing: {shown(os.path.basename(shard))}"
            missing.append(Problem("T2T607", message, Location(shard), "the save or the copy is incomplete"))
    if missing:
        raise CheckpointError(missing)
    return identities


def _check_places(
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
                f"{_shown_part(key)}: needs bytes {offset} to {offset + size}, but the file has {sizes[shard]}"
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
            message = f"{_shown_part(key)}: its bytes are also those of {_shown_part(last_key)}"
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


def _encoded(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _scalar(stored: bytes, crc32c: int | None, big_endian: bool) -> bytes:
    """The one string of a string scalar: its length (a varint), a checksum of that, its bytes."""
    length, at = varint(stored, 0, len(stored))
    if length != len(stored) - at - 4:
        raise Corrupt(f"it claims {length} bytes, but {max(len(stored) - at - 4, 0)} are stored")
    counted = length.to_bytes(4 if length < 2**32 else 8, "big" if big_endian else "little")
    computed = google_crc32c.value(counted + stored[at:])
    if crc32c is not None and computed != crc32c:
        raise Corrupt(f"checksum mismatch (stored 0x{crc32c:08x}, computed 0x{computed:08x})")
    return stored[at + 4 :]


def _strings(stored: Bytes, count: int, big_endian: bool, checked: bool) -> tuple[list[bytes], int]:
    """
    The strings of a tensor and the crc32c of it all; raises Corrupt.

    Stored are the lengths (varints), a u32 masked crc32c of them, the strings. Checksums are not over the varints, but
    over each length as a u32, or as a u64 where it has more than 32 bits.
    """
    lengths, at = _lengths(stored, count)
    end = at + 4
    total = sum(lengths)
    if end + total != stored.size:
        raise Corrupt(f"its strings should have {total} bytes, but {max(stored.size - end, 0)} are stored", "T2T605")
    order: Literal["big", "little"] = "big" if big_endian else "little"
    if max(lengths, default=0) < 2**32:
        counted = np.array(lengths, ">u4" if big_endian else "<u4").tobytes()
    else:
        counted = b"".join(length.to_bytes(4 if length < 2**32 else 8, order) for length in lengths)
    crc = google_crc32c.value(counted)
    claimed = table.unmasked(int.from_bytes(stored[at:end].tobytes(), order))
    if checked and claimed != crc:
        message = f"checksum mismatch in the strings' lengths (stored 0x{claimed:08x}, computed 0x{crc:08x})"
        raise Corrupt(message, "T2T608", "the file is damaged: copy it again")
    crc = google_crc32c.extend(crc, stored[at:]) if checked else 0
    strings = []
    for length in lengths:
        strings.append(stored[end : end + length].tobytes())
        end += length
    return strings, crc


def _lengths(stored: Bytes, count: int) -> tuple[list[int], int]:
    """So many varints, each at most as large as there are bytes, and where they end."""
    head = stored[: min(10 * count, stored.size)]
    ends = np.flatnonzero(head < 0x80)[:count]
    if ends.size < count:
        raise Corrupt(f"it should have {count} lengths of strings, but {ends.size} are stored", "T2T605")
    if count == 0:
        return [], 0
    starts = np.concatenate(([0], ends[:-1] + 1))
    if int((ends - starts).max()) > 9:
        raise Corrupt("the length of a string has more than 10 bytes", "T2T605")
    at = int(ends[-1]) + 1
    head = head[:at]
    if at == count:
        return head.tolist(), at  # nearly always: no string has more than 127 bytes
    shifts = 7 * (np.arange(at, dtype=np.uint64) - np.repeat(starts, ends - starts + 1).astype(np.uint64))
    lengths = np.bitwise_or.reduceat((head & 0x7F).astype(np.uint64) << shifts, starts)
    longest = int(lengths.max())
    if longest > stored.size or int(head[ends[ends - starts == 9]].max(initial=0)) > 1:
        raise Corrupt(f"a string should have {longest} bytes, but all have {stored.size}", "T2T605")
    return [int(length) for length in lengths], at


def _variables(
    entries: Mapping[bytes, Entry], parts: Mapping[bytes, tuple[Part, ...]], graph: ObjectGraph | None
) -> dict[str, TensorRef]:
    """The variables by the names that a mapping uses, sorted."""
    keys = {key: tensor for key, tensor in entries.items() if key != OBJECT_GRAPH.encode()}
    names = short_names([key.decode("utf-8", "surrogateescape") for key in keys])
    refs = [_ref(name, key, tensor, parts.get(key)) for name, (key, tensor) in zip(names, keys.items(), strict=True)]
    variables = {ref.name: ref for ref in sorted(refs, key=lambda ref: natural(ref.name))}
    return with_slots(with_full_names(variables, graph) if graph else variables, graph)


def _ref(name: str, key: bytes, tensor: Entry, parts: tuple[Part, ...] | None) -> TensorRef:
    shard, offset, size, crc32c = tensor.shard, tensor.offset, tensor.size, tensor.crc32c
    if parts is not None:
        # A partitioned variable has no bytes of its own. What stands for them tells two checkpoints apart and is no
        # checksum of anything: nothing may be checked against it.
        crc32c = google_crc32c.value(b"".join(part.key + part.entry.crc32c.to_bytes(4, "little") for part in parts))
        shard, offset = min((part.entry.shard, part.entry.offset) for part in parts)
        size = sum(part.entry.size for part in parts)
    text = key.decode("utf-8", "surrogateescape")
    unreadable = _unreadable(tensor)
    return TensorRef(name, tensor.dtype, tensor.shape, shard, offset, size, crc32c, unreadable=unreadable, key=text)


def _unreadable(tensor: Entry) -> str:
    """Why the values cannot be had, "" where they can."""
    dtype = DTYPES.get(tensor.dtype)
    if dtype is None:
        return f"its dtype is {tensor.dtype}, which TensorFlow does not have"
    if tensor.dtype in ("variant", "resource"):
        return f"its dtype is {tensor.dtype}, whose values mean nothing outside of TensorFlow"
    axes = [size for size in tensor.shape if size]
    if len(tensor.shape) > MAX_NUMPY_RANK or math.prod(axes) * (dtype.itemsize or 8) > MAX_NUMPY_BYTES:
        return "its shape is one that numpy arrays cannot have"
    return ""


def _slow_checksums(path: str, checksums: bool) -> tuple[Problem, ...]:
    if not checksums or google_crc32c.implementation == "c":
        return ()
    message = f"checksums are computed by the {google_crc32c.implementation} version of google-crc32c, very slowly"
    return (Problem("T2T612", message, Location(path), "install google-crc32c with its C library", "warning"),)


def _other_saves(path: str, shards: int) -> tuple[Problem, ...]:
    """A warning for data files that lie beside this checkpoint's, of the same name with another number of shards."""
    folder, base = os.path.split(path)
    counts = set()
    for name in names_in(folder):
        if name.startswith(f"{base}.data-") and (match := _SHARD_COUNT.search(name)):
            counts.add(int(match[1]))
    counts.discard(shards)
    return tuple(
        Problem(
            "T2T613",
            f"data files of another save (of {count} shards) lie beside those of this checkpoint (of {shards} shards)",
            Location(f"{path}.index"),
            "they are not read: remove them",
            "warning",
        )
        for count in sorted(counts)
    )
