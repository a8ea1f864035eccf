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
import stat
from collections import Counter

import google_crc32c
import numpy as np

from t2t.checkpoints import meta, table
from t2t.checkpoints.entries import Entry, Header, entry, header, part_of
from t2t.checkpoints.files import File, Identity, described, identity, names_in, read_all, reason, refusal
from t2t.checkpoints.protobuf import Corrupt
from t2t.checkpoints.reader import MAX_NUMPY_BYTES, MAX_NUMPY_RANK, Array, Bytes, Reader, changed, check_bools
from t2t.checkpoints.slots import with_slots
from t2t.names import OUTPUT_SUFFIX, VALUE_SUFFIX, natural, shown
from t2t.problems import CheckpointError, Location, Problem
from t2t.tensors import DTYPES, CheckpointInventory, TensorRef

MAX_INDEX = 256 * 2**20
#: More data files are never open at once: a checkpoint may have more than a process may open.
MAX_OPEN = 32
#: Bytes are checked in pieces of this size, while they are still in the processor's cache.
PIECE = 2**20
#: TensorFlow counts a tensor's elements in an int64.
MAX_ELEMENTS = 2**63 - 1

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"

_SHARD_COUNT = re.compile(r"-of-([0-9]{5,})\Z")


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
        super().__init__(path, {self._index: identity(found), **_stat_all(self._shards)})
        sizes = [self._identities[shard][2] for shard in self._shards]
        _check_places(entries, sizes, self._shards, self._index)

        graph = f"{path}.meta"
        self.inventory = CheckpointInventory(_variables(entries, bundle.big_endian), meta.trainable(graph))
        self.files = (self._index, *self._shards, *((graph,) if os.path.lexists(graph) else ()))
        self.notes = (*notes, *_slow_checksums(self._index, checksums), *_other_saves(path, bundle.shards))

    def view(self, ref: TensorRef) -> Array:
        """The variable's values, read-only, over the mapped file where they are aligned, else over a copy."""
        if self._closed:
            raise ValueError("the checkpoint is closed")
        dtype = None if ref.unreadable else DTYPES[ref.dtype].numpy
        if dtype is None or ref.nbytes == 0 or ref.offset % dtype.alignment:
            return super().view(ref)
        stored = np.frombuffer(self._map(ref.shard), np.uint8, ref.nbytes, ref.offset)
        self._check(ref, google_crc32c.extend(0, stored) if self._checksums else ref.crc32c)
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
        crc = self._load(ref.name, ref.shard, ref.offset, out)
        self._check(ref, crc if self._checksums else ref.crc32c)

    def _load(self, name: str, shard: int, offset: int, out: Bytes) -> int:
        """Fills `out` with the stored bytes from `offset` on; their crc32c, 0 where it is not wanted."""
        file = self._file(shard) if out.size else None
        crc = at = 0
        while file and at < out.size:
            piece = out[at : at + PIECE]
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

    def _check(self, ref: TensorRef, crc: int | None) -> None:
        if crc != ref.crc32c:
            message = (
                f"{shown(ref.name)}: checksum mismatch, shard {ref.shard}, offset {ref.offset} "
                f"(stored 0x{ref.crc32c:08x}, computed 0x{crc:08x})"
            )
            raise refusal("T2T608", message, self._shards[ref.shard], "the file is damaged: copy it again")

    def _file(self, shard: int) -> File:
        """The data file, opened when it is first needed; the one that was not used for the longest time makes room."""
        if self._closed:
            raise ValueError("the checkpoint is closed")
        file = self._open.pop(shard, None)
        if file is None:
            path = self._shards[shard]
            file = File(path)
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


def _stat_all(shards: list[str]) -> dict[str, Identity]:
    """What each data file is now; raises CheckpointError T2T607 that lists every missing one."""
    identities = {}
    missing = []
    for number, shard in enumerate(shards):
        try:
            found = os.stat(shard)
        except FileNotFoundError:
            message = f"shard {number} of {len(shards)} missing: {shown(os.path.basename(shard))}"
            missing.append(Problem("T2T607", message, Location(shard), "the save or the copy is incomplete"))
        except OSError as error:
            raise refusal("T2T602", f"cannot be opened: {reason(error)}", shard) from error
        else:
            if not stat.S_ISREG(found.st_mode):
                raise refusal("T2T602", "not a regular file", shard)
            identities[shard] = identity(found)
    if missing:
        raise CheckpointError(missing)
    return identities


def _check_places(entries: dict[bytes, Entry], sizes: list[int], shards: list[str], index: str) -> None:
    """Raises CheckpointError for bytes behind the end of a data file (T2T607), or that two tensors share (T2T605)."""
    places = sorted((e.shard, e.offset, e.size, key) for key, e in entries.items() if not e.slices)
    beyond = [place for place in places if place[1] + place[2] > sizes[place[0]]]
    if beyond:
        # One problem for each file that is too short, not one for each variable.
        count = Counter(place[0] for place in beyond)
        first = {shard: (offset, size, key) for shard, offset, size, key in reversed(beyond)}
        raise CheckpointError(
            Problem(
                "T2T607",
                f"{table.shown_key(key)}: needs bytes {offset} to {offset + size}, but the file has {sizes[shard]}"
                + (f" (the same for {count[shard] - 1} more variables)" if count[shard] > 1 else ""),
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
            message = f"{table.shown_key(key)}: its bytes are also those of {table.shown_key(last_key)}"
            raise refusal("T2T605", message, index)
        last_shard, last_end, last_key = shard, offset + size, key


def _variables(entries: dict[bytes, Entry], big_endian: bool) -> dict[str, TensorRef]:
    """The variables by the names that a mapping uses, sorted."""
    parts: dict[bytes, list[bytes]] = {key: [] for key, tensor in entries.items() if tensor.slices}
    keys: dict[bytes, Entry] = {}
    for key, tensor in entries.items():
        whole = part_of(key) if parts and key[0] == 0 else None
        if whole in parts:
            parts[whole].append(key + tensor.crc32c.to_bytes(4, "little"))
        else:
            keys[key] = tensor
    keys.pop(OBJECT_GRAPH.encode(), None)
    names = _names([key.decode("utf-8", "surrogateescape") for key in keys])
    refs = [
        TensorRef(
            name,
            tensor.dtype,
            tensor.shape,
            tensor.shard,
            tensor.offset,
            tensor.size,
            # A partitioned variable has no bytes of its own. What stands for them tells two checkpoints apart and is no
            # checksum of anything: nothing may be checked against it.
            google_crc32c.value(b"".join(parts[key])) if tensor.slices else tensor.crc32c,
            unreadable=_unreadable(tensor, big_endian),
            key=key.decode("utf-8", "surrogateescape"),
        )
        for name, (key, tensor) in zip(names, keys.items(), strict=True)
    ]
    return with_slots({ref.name: ref for ref in sorted(refs, key=lambda ref: natural(ref.name))})


def _names(keys: list[str]) -> list[str]:
    """The keys without the suffixes that say nothing, as far as names stay unique."""
    short = [key.removesuffix(OUTPUT_SUFFIX).removesuffix(VALUE_SUFFIX) or key for key in keys]
    count = Counter(short)
    taken = set(keys)
    return [
        name if name == key or (count[name] == 1 and name not in taken) else key
        for key, name in zip(keys, short, strict=True)
    ]


def _unreadable(tensor: Entry, big_endian: bool) -> str:
    """Why the values cannot be had, "" where they can."""
    if tensor.slices:
        return f"a partitioned variable (of {tensor.slices} parts) is not read yet"
    dtype = DTYPES.get(tensor.dtype)
    if dtype is None:
        return f"its dtype is {tensor.dtype}, which TensorFlow does not have"
    if dtype.kind == "other":
        return f"values of dtype {tensor.dtype} are not read yet"
    if big_endian:
        return "values of a big-endian checkpoint are not read yet"
    axes = [size for size in tensor.shape if size]
    if len(tensor.shape) > MAX_NUMPY_RANK or math.prod(axes) * dtype.itemsize > MAX_NUMPY_BYTES:
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
