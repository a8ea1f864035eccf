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
from collections.abc import Mapping
from typing import Any, NamedTuple

import google_crc32c
import numpy as np

from t2t.checkpoints import index, meta, strings
from t2t.checkpoints.entries import Entry
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
from t2t.checkpoints.protobuf import Corrupt
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
from t2t.checkpoints.slices import part_of, shown_place
from t2t.checkpoints.slots import with_slots
from t2t.names import natural, shown
from t2t.problems import CheckpointError, Location, Problem
from t2t.tensors import DTYPES, CheckpointInventory, TensorRef

#: More data files are never open at once: a checkpoint may have more than a process may open.
MAX_OPEN = 32
#: The most strings that one variable may have: each becomes an object.
MAX_STRINGS = 2**24
#: Of these only the lowest bits of each stored byte count; the others can be anything.
LOW_BITS = {"int4": 15, "uint4": 15, "float4_e2m1fn": 15, "int2": 3, "uint2": 3}

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
MAX_GRAPH = 256 * 2**20

_SHARD_COUNT = re.compile(r"-of-([0-9]{5,})\Z")


class Extent(NamedTuple):
    """Bytes in a data file, their crc32c (unmasked), and what messages call them."""

    shard: int
    offset: int
    size: int
    crc32c: int | None
    name: str


class Bundle(Reader):
    """An open V2 checkpoint; without `data` its index alone, of which nothing can be read but the inventory."""

    def __init__(
        self, path: str, notes: tuple[Problem, ...] = (), checksums: bool = True, *, data: bool = True
    ) -> None:
        self._checksums = checksums
        self._index = f"{path}.index"
        self._open: dict[int, File] = {}
        self._maps: dict[int, mmap.mmap] = {}

        content, found = read_all(self._index, index.MAX_INDEX)
        bundle, entries = index.decoded(content, self._index)
        self._shards = [f"{path}.data-{shard:05}-of-{bundle.shards:05}" for shard in range(bundle.shards)]
        super().__init__(path, {self._index: found, **(_stat_all(self._shards) if data else {})})
        parts, entries = index.with_parts(entries, self._index)
        if data:
            sizes = [self._identities[shard][2] for shard in self._shards]
            index.check_places(entries, parts, sizes, self._shards, self._index)
        self._parts = {key.decode("utf-8", "surrogateescape"): found for key, found in parts.items()}
        self._big_endian = bundle.big_endian

        orphans = [key for key in entries if key[0] == 0 and part_of(key)]
        try:
            # The one thing whose bytes are read here; its data file stays open for the others.
            objects, broken = self._object_graph(entries, bundle.big_endian) if data else (None, ())
            for key in orphans:
                del entries[key]
            graph = f"{path}.meta"
            self.inventory = CheckpointInventory(_variables(entries, parts, objects), meta.trainable(graph))
            self.files = (self._index, *self._shards, *((graph,) if not is_address(graph) and exists(graph) else ()))
            found_out = (*_slow_checksums(self._index, checksums), *_other_saves(path, bundle.shards))
        except BaseException:
            self.close()
            raise
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
                found, crc = strings.decode(stored, target.size, self._big_endian, self._checksums)
            except Corrupt as error:
                message = f"{shown(extent.name)}: {error}, shard {extent.shard}, offset {extent.offset}"
                raise refusal(error.code, message, self._shards[extent.shard], error.hint) from error
            if self._checksums:
                self._check(extent, crc)
            for i, string in enumerate(found):
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
            (serialized,), crc = strings.decode(stored, 1, big_endian, self._checksums)
            if self._checksums and crc != tensor.crc32c:
                raise Corrupt(f"checksum mismatch (stored 0x{tensor.crc32c:08x}, computed 0x{crc:08x})")
            graph = decode(serialized)
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


def _orphans(keys: list[bytes], path: str) -> tuple[Problem, ...]:
    """A warning for parts that no variable has: their variable was not saved, or was saved anew in other parts."""
    if not keys:
        return ()
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    message = f"{index.shown_part(keys[0])}{more}: parts that belong to no variable"
    return (Problem("T2T616", message, Location(path), "they are not read", "warning"),)


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


def _encoded(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _variables(
    entries: Mapping[bytes, Entry], parts: Mapping[bytes, tuple[index.Part, ...]], graph: ObjectGraph | None
) -> dict[str, TensorRef]:
    """The variables by the names that a mapping uses, sorted."""
    keys = {key: tensor for key, tensor in entries.items() if key != OBJECT_GRAPH.encode()}
    names = short_names([key.decode("utf-8", "surrogateescape") for key in keys])
    refs = [_ref(name, key, tensor, parts.get(key)) for name, (key, tensor) in zip(names, keys.items(), strict=True)]
    variables = {ref.name: ref for ref in sorted(refs, key=lambda ref: natural(ref.name))}
    return with_slots(with_full_names(variables, graph) if graph else variables, graph)


def _ref(name: str, key: bytes, tensor: Entry, parts: tuple[index.Part, ...] | None) -> TensorRef:
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
