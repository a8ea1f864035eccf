"""
The torch checkpoint: what `torch.save` makes of a dict of tensors, written value by value.

A zip archive without compression, in which each record's bytes begin at a multiple of 64:

    archive/t2t.json     what a .safetensors file has as its metadata; by it t2t knows its own files
    archive/data.pkl     the dict: names, dtypes, shapes, and which storage each tensor's values are in
    archive/byteorder    little or big
    archive/data/<i>     storage i, the bytes of one tensor; tied names share one
    archive/version      3

(torch/serialization.py, `_save` and `_load`; the archive: PKWARE's APPNOTE 6.3, sections 4.3 and 4.5.3.) `torch.save`
itself needs all tensors at once, and puts the file's name and a random number into it. Here a tensor's values go to the
place that is known from the shapes, so memory is that of a block, and the same input gives the same bytes under any
name. `torch.load(path, weights_only=True, mmap=True)` reads it.
"""

from __future__ import annotations

import io
import json
import math
import pickle
import struct
import sys
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
import torch
import torch._utils

from t2t.execute import BLOCK, Block, Room
from t2t.names import shown
from t2t.problems import Location, OutputError, Problem
from t2t.writers import Entry, Written, shards
from t2t.writers.atomic import Temporary, replacing
from t2t.writers.ours import LOCAL, RECORD, is_ours

#: What a storage is called in data.pkl; the other dtypes are younger than these names, and are stored as plain bytes.
STORAGES = {
    "float64": torch.DoubleStorage,
    "float32": torch.FloatStorage,
    "float16": torch.HalfStorage,
    "bfloat16": torch.BFloat16Storage,
    "int64": torch.LongStorage,
    "int32": torch.IntStorage,
    "int16": torch.ShortStorage,
    "int8": torch.CharStorage,
    "uint8": torch.ByteStorage,
    "bool": torch.BoolStorage,
    "complex64": torch.ComplexFloatStorage,
    "complex128": torch.ComplexDoubleStorage,
}

#: Where a record's bytes begin: at multiples of this.
ALIGNMENT = 64

#: From this on, a size or an offset stands in a field of 64 bits elsewhere, and so does a number of records.
LARGE = 0xFFFFFFFF
MANY = 0xFFFF

_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")

#: 1 January 1980, the first day that the format has.
_DATE = 0x21


@dataclass(frozen=True, slots=True)
class _Record:
    """One record: its name, its bytes or, of a storage, how many there are; where its header and its bytes begin."""

    name: bytes
    size: int
    content: bytes | None
    at: int

    @property
    def extra(self) -> bytes:
        """The local header's extra fields: 64-bit sizes where they are needed, and padding, as torch writes it."""
        wide = struct.pack("<2H2Q", 1, 16, self.size, self.size) if self.size >= LARGE else b""
        gap = -(self.at + LOCAL.size + len(self.name) + len(wide) + 4) % ALIGNMENT
        return wide + struct.pack("<2sH", b"FB", gap) + bytes(gap)

    @property
    def start(self) -> int:
        """Where its bytes begin."""
        return self.at + LOCAL.size + len(self.name) + len(self.extra)

    def local(self, crc: int) -> bytes:
        """Its header, with the CRC-32 of its bytes."""
        size = _narrow(self.size)
        version = 45 if self.size >= LARGE else 20
        fields = (version, 0, 0, 0, _DATE, crc, size, size, len(self.name), len(self.extra))
        return LOCAL.pack(b"PK\3\4", *fields) + self.name + self.extra

    def central(self, crc: int) -> bytes:
        """Its entry in the archive's directory."""
        wide = [number for number in (self.size, self.size, self.at) if number >= LARGE]
        extra = struct.pack(f"<2H{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
        version = 45 if wide else 20
        size, at = _narrow(self.size), _narrow(self.at)
        fields = (version, version, 0, 0, 0, _DATE, crc, size, size, len(self.name), len(extra), 0, 0, 0, 0, at)
        return _CENTRAL.pack(b"PK\1\2", *fields) + self.name + extra


def _narrow(number: int) -> int:
    """The number, or what says in its 32 bits that it stands elsewhere."""
    return 0xFFFFFFFF if number >= LARGE else number


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
    """Writes the file; see t2t.writers.Writer. The mapping has refused a `shard_size`: torch has no index of files."""
    assert shard_size is None, shard_size
    keys = _keys(entries)
    records = _records(entries, keys, metadata)
    storages = {name: records[f"data/{key}"] for name, key in keys.items()}
    directory_at = max(record.start + record.size for record in records.values())
    size = directory_at + len(_directory(records, {}, directory_at))
    with replacing(place, size, is_ours, force=force, note=note) as temporary:
        sums, written = _pour(temporary, entries, storages, blocks)
        crcs = {record.name: zlib.crc32(record.content) for record in records.values() if record.content is not None}
        crcs |= {storages[name].name: crc for name, crc in sums.items()}
        around = [(record.at, record.local(crcs[record.name]) + (record.content or b"")) for record in records.values()]
        around.append((directory_at, _directory(records, crcs, directory_at)))
        for start, data in around:
            temporary.write(data, start)
        temporary.sync()
        _read_back(temporary, entries, storages, written, around)
        prove(temporary.path)
    shards.remove_older(place, note)
    return Written(place, size)


def _pour(
    temporary: Temporary,
    entries: Sequence[Entry],
    storages: Mapping[str, _Record],
    blocks: Callable[[Room], Iterable[Block]],
) -> tuple[dict[str, int], dict[str, int]]:
    """Writes every block to its storage. Returns the storages' CRC-32 and crc32c, by the names of their entries."""
    starts = {entry.name: storages[entry.name].start for entry in entries if entry.tied_to is None}
    crc32, crc32c = dict.fromkeys(starts, 0), dict.fromkeys(starts, 0)
    buffer = np.empty(BLOCK, np.uint8)
    for block in blocks(lambda _step, _start, count, dtype: buffer[: count * dtype.itemsize].view(dtype)):
        if block.name not in starts:
            continue  # the same values come under the name that it is tied to
        data = block.values.view(np.uint8)
        crc32[block.name] = zlib.crc32(data.data, crc32[block.name])
        crc32c[block.name] = google_crc32c.extend(crc32c[block.name], data)
        temporary.write(data, starts[block.name] + block.start * block.values.itemsize)
    return crc32, crc32c


# --- what the archive holds ---


def _keys(entries: Sequence[Entry]) -> dict[str, str]:
    """The storage of each entry; tied entries have one."""
    owners = {entry.name: str(number) for number, entry in enumerate(e for e in entries if e.tied_to is None)}
    return {entry.name: owners[entry.tied_to or entry.name] for entry in entries}


def _records(entries: Sequence[Entry], keys: Mapping[str, str], metadata: Mapping[str, str]) -> dict[str, _Record]:
    """The archive's records by their names inside it, in their order, each behind the one before."""
    about = json.dumps(dict(metadata), ensure_ascii=False, sort_keys=True).encode()
    contents: dict[str, bytes | int] = {
        RECORD.removeprefix("archive/"): about,
        "data.pkl": _pickled(entries, keys),
        "byteorder": sys.byteorder.encode(),
        **{f"data/{keys[entry.name]}": shards.nbytes(entry) for entry in entries if entry.tied_to is None},
        "version": b"3\n",
    }
    records: dict[str, _Record] = {}
    at = 0
    for name, content in contents.items():
        size, data = (content, None) if isinstance(content, int) else (len(content), content)
        record = records[name] = _Record(f"archive/{name}".encode(), size, data, at)
        at = record.start + size
    return records


class _Tensor:
    """A tensor as data.pkl tells it: contiguous, at the start of its storage."""

    def __init__(self, entry: Entry, key: str) -> None:
        self.entry = entry
        self.key = key

    def __reduce__(self) -> tuple[Any, ...]:
        shape = [*self.entry.shape]
        strides = [math.prod(max(size, 1) for size in shape[axis + 1 :]) for axis in range(len(shape))]
        hooks: OrderedDict[Any, Any] = OrderedDict()
        arguments = (_Storage(self.entry, self.key), 0, tuple(shape), tuple(strides), False, hooks)
        if self.entry.dtype in STORAGES:
            return torch._utils._rebuild_tensor_v2, arguments
        return torch._utils._rebuild_tensor_v3, (*arguments, getattr(torch, self.entry.dtype))


class _Storage:
    """The place of a storage: its kind, key, device and the number of its elements."""

    def __init__(self, entry: Entry, key: str) -> None:
        kind = STORAGES.get(entry.dtype)
        elements = math.prod(entry.shape) if kind else shards.nbytes(entry)
        self.identifier = ("storage", kind or torch.UntypedStorage, key, "cpu", elements)


class _Pickler(pickle.Pickler):
    def persistent_id(self, thing: Any) -> Any:
        return thing.identifier if isinstance(thing, _Storage) else None


def _pickled(entries: Sequence[Entry], keys: Mapping[str, str]) -> bytes:
    file = io.BytesIO()
    _Pickler(file, protocol=2).dump({entry.name: _Tensor(entry, keys[entry.name]) for entry in entries})
    return file.getvalue()


def _directory(records: Mapping[str, _Record], crcs: Mapping[bytes, int], at: int) -> bytes:
    """The archive's directory, which begins at `at`, and its end."""
    entries = b"".join(record.central(crcs.get(record.name, 0)) for record in records.values())
    count, size = len(records), len(entries)
    wide = b""
    if count >= MANY or size >= LARGE or at >= LARGE:
        wide = _END64.pack(b"PK\6\6", _END64.size - 12, 45, 45, 0, 0, count, count, size, at)
        wide += _LOCATOR.pack(b"PK\6\7", 0, at + size, 1)
        count = 0xFFFF
    return entries + wide + _END.pack(b"PK\5\6", 0, 0, count, count, _narrow(size), _narrow(at), 0)


# --- what is there in the end ---


def _read_back(
    temporary: Temporary,
    entries: Sequence[Entry],
    storages: Mapping[str, _Record],
    written: Mapping[str, int],
    around: Sequence[tuple[int, bytes]],
) -> None:
    """
    The file against what was written, byte by byte and by checksums; then names, dtypes and shapes as torch reads them.

    What torch unpickles, by its restricted unpickler, are by then known to be the bytes that were made here.
    """
    at = Location(temporary.place)
    for start, data in around:
        if temporary.read(start, len(data)) != data:
            message = f"the archive reads back as something else than what was written, from byte {start} on"
            raise OutputError(Problem("T2T805", message, at, "the disk may be failing"))
    for entry in entries:
        if entry.tied_to is not None:
            continue
        crc = temporary.checksum(storages[entry.name].start, storages[entry.name].size)
        if crc != written[entry.name]:
            message = f"{shown(entry.name)} reads back with checksum {crc:08x}, written was {written[entry.name]:08x}"
            raise OutputError(Problem("T2T805", message, at, "the disk may be failing"))
    newer = "a newer one may read it"
    try:
        loaded = torch.load(temporary.path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, ValueError, pickle.UnpicklingError) as error:
        reason = shown(str(error).strip().splitlines()[0].partition(". ")[0])
        message = f"torch {torch.__version__} refuses the file: {reason}"
        raise OutputError(Problem("T2T805", message, at, newer)) from None
    for entry in entries:
        wanted = f"{entry.dtype} {list(entry.shape)}"
        tensor = loaded.get(entry.name)
        found = None if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
        if found != wanted:
            message = f"torch {torch.__version__} reads {shown(entry.name)} as {found}, written was {wanted}"
            raise OutputError(Problem("T2T805", message, at, newer))
