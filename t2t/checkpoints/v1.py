"""
TensorFlow's V1 checkpoints: a table that is the checkpoint, in one file or in several.

    <path>                        one table; or
    <path>-00000-of-00002         several, each complete in itself, of which a path with `?????` means all
    key ""    SavedTensorSlices { 1 SavedTensorSliceMeta { 1 tensor*, 2 VersionDef } }
    key part  SavedTensorSlices { 2 SavedSlice { 1 name, 2 TensorSliceProto, 3 TensorProto } }
    tensor    SavedSliceMeta    { 1 name, 2 TensorShapeProto, 3 dtype, 4 TensorSliceProto* }

A whole variable is stored as one part that has all of every axis (slices.py makes the keys). A TensorProto has no dtype
and no shape here, only its values in the field for its kind: numbers one behind the other, as varints or as they are.

Opening reads each file's index and the block with its key ""; the others when their variables are read, each checked by
its block's checksum. https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/util/saved_tensor_slice.proto
"""

from __future__ import annotations

import math
import os
from typing import NamedTuple

import numpy as np

from t2t.checkpoints import meta
from t2t.checkpoints.entries import DTYPE_NAMES, check_version, shape_of
from t2t.checkpoints.files import File, Identity, open_file, refusal, state_if_there
from t2t.checkpoints.protobuf import BYTES, FIXED32, FIXED64, VARINT, Corrupt, expect, fields, signed
from t2t.checkpoints.reader import MAX_NUMPY_BYTES, MAX_NUMPY_RANK, Array, Bytes, Reader, short_names
from t2t.checkpoints.slices import Extents, boxes, extents, part_key, shown_place
from t2t.checkpoints.slots import with_slots
from t2t.checkpoints.table import MAX_RATIO, Table
from t2t.names import natural, shown
from t2t.problems import CheckpointError, Location, Problem
from t2t.tensors import DTYPES, CheckpointInventory, Shape, TensorRef

#: What a table says of one block is at most this: TensorFlow writes a variable into one, and protobuf ends there.
MAX_BLOCK = 2**31 - 1
#: A message names at most so many missing files.
_LISTED = 20

#: For each kind of values: its field of a TensorProto, the wire type of one value, and the dtype of what is stored.
_INTS = (7, VARINT, "<i8")
_VALUES: dict[str, tuple[int, int, str]] = {
    "float32": (5, FIXED32, "<f4"),
    "float64": (6, FIXED64, "<f8"),
    "int32": _INTS,
    "int16": _INTS,
    "int8": _INTS,
    "uint8": _INTS,
    "uint16": _INTS,
    "qint8": _INTS,
    "quint8": _INTS,
    "qint16": _INTS,
    "quint16": _INTS,
    "qint32": _INTS,
    "complex64": (9, FIXED32, "<f4"),
    "int64": (10, VARINT, "<i8"),
    "bool": (11, VARINT, "<i8"),
    "complex128": (12, FIXED64, "<f8"),
    "float16": (13, VARINT, "<i8"),
    "bfloat16": (13, VARINT, "<i8"),
    "uint32": (16, VARINT, "<i8"),
    "uint64": (17, VARINT, "<i8"),
}
_STRINGS = 8


class Tensor(NamedTuple):
    """What the tables say of one variable: dtype, shape, and its parts with the file that each one lies in."""

    dtype: str
    shape: Shape
    parts: tuple[tuple[Extents, int], ...]


class V1(Reader):
    """An open V1 checkpoint."""

    def __init__(self, path: str, notes: tuple[Problem, ...] = (), checksums: bool = True) -> None:  # noqa: ARG002
        # The checksums are those of blocks, without which nothing can be found: they are always checked.
        self._paths = _shards(path)
        self._tables: list[Table] = []
        self._open_files: list[File] = []
        self._kept: tuple[int, int, dict[bytes, bytes]] | None = None
        identities: dict[str, Identity] = {}
        found: dict[bytes, Tensor] = {}
        try:
            for shard, name in enumerate(self._paths):
                file = open_file(name)
                self._open_files.append(file)
                identities[name] = file.identity
                try:
                    table = Table(file.read, file.size, min(MAX_BLOCK, file.size * MAX_RATIO))
                    self._tables.append(table)
                    first = table.block(0).get(b"")
                    if first is None:
                        raise Corrupt("the table has no list of tensors, so it is no checkpoint")
                    _merge(found, _listed(first), shard)
                except Corrupt as error:
                    raise refusal(error.code, str(error), name, error.hint) from error
        except BaseException:
            for file in self._open_files:
                file.close()
            raise
        super().__init__(path, identities, notes)  # from here on `close` closes them
        self._tensors = {key.decode("utf-8", "surrogateescape"): tensor for key, tensor in found.items()}
        self._boxes = {key: self._tiled(key, tensor) for key, tensor in self._tensors.items()}
        self.inventory = CheckpointInventory(self._variables(), meta.trainable(f"{path}.meta"), checksum=self.checksum)

    def close(self) -> None:
        """Closes every file."""
        super().close()
        self._kept = None
        while self._open_files:
            self._open_files.pop().close()

    def place(self, ref: TensorRef) -> str:
        """The file that the variable's first part lies in."""
        return self._paths[ref.shard]

    def _variables(self) -> dict[str, TensorRef]:
        refs = []
        for name, (key, tensor) in zip(short_names([*self._tensors]), self._tensors.items(), strict=True):
            dtype = DTYPES.get(tensor.dtype)
            nbytes = math.prod(tensor.shape) * (dtype.itemsize if dtype else 0)
            places = [self._where(key, part, shard) for part, shard in tensor.parts]
            shard, offset = min(places, default=(0, 0))
            refs.append(
                TensorRef(
                    name,
                    tensor.dtype,
                    tensor.shape,
                    shard,
                    offset,
                    nbytes,
                    unreadable=_unreadable(tensor),
                    key=key,
                )
            )
        return with_slots({ref.name: ref for ref in sorted(refs, key=lambda ref: natural(ref.name))})

    def _where(self, key: str, part: Extents, shard: int) -> tuple[int, int]:
        """The file and the offset of the block that the part must be in."""
        table = self._tables[shard]
        number = table.place(part_key(key.encode("utf-8", "surrogateescape"), part))
        return shard, table.blocks[number][1] if number < len(table.blocks) else 0

    def _fill(self, ref: TensorRef, out: Bytes) -> None:
        dtype = DTYPES[ref.dtype].numpy
        assert dtype is not None
        whole = out.view(dtype).reshape(ref.shape)
        for part, box, shard in self._parts(ref):
            count = math.prod(side.stop - side.start for side in box)
            try:
                values = _numbers(self._saved(ref, part, shard), ref.dtype, count)
            except Corrupt as error:
                raise self._corrupt(ref, part, shard, error) from error
            whole[box] = values.reshape([side.stop - side.start for side in box])

    def _strings(self, ref: TensorRef) -> Array:
        whole = np.empty(ref.shape, object)
        for part, box, shard in self._parts(ref):
            shape = [side.stop - side.start for side in box]
            try:
                found = []
                for number, wire, value in fields(self._saved(ref, part, shard)):
                    if number == _STRINGS:
                        expect(number, wire, BYTES)
                        found.append(value)
                if len(found) != math.prod(shape):
                    raise Corrupt(f"{len(found)} strings are stored where {math.prod(shape)} are needed", "T2T605")
            except Corrupt as error:
                raise self._corrupt(ref, part, shard, error) from error
            values = np.empty(len(found), object)
            values[:] = found
            whole[box] = values.reshape(shape)
        return whole

    def _tiled(self, key: str, tensor: Tensor) -> list[tuple[slice, ...]]:
        """Where each part lies; raises CheckpointError where the parts, or the files, cannot hold the variable."""
        path = self._paths[tensor.parts[0][1] if tensor.parts else 0]
        stored = sum(file.size for file in self._open_files)
        elements = math.prod(tensor.shape)
        if elements > MAX_RATIO * stored:
            message = f"{shown(key)}: its shape {list(tensor.shape)} has more elements than {stored} bytes can hold"
            raise refusal("T2T605", message, path)
        try:
            return boxes(tensor.shape, [part for part, _ in tensor.parts])
        except Corrupt as error:
            code = "T2T605" if error.code == "T2T604" else error.code
            raise refusal(code, f"{shown(key)}: {error}", path) from error

    def _parts(self, ref: TensorRef) -> list[tuple[Extents, tuple[slice, ...], int]]:
        """(part, where it lies in the variable, file) in the order to read them."""
        tensor = self._tensors[ref.key]
        parts = [(part, box, shard) for (part, shard), box in zip(tensor.parts, self._boxes[ref.key], strict=True)]
        return sorted(parts, key=lambda item: self._where(ref.key, item[0], item[2]))

    def _saved(self, ref: TensorRef, part: Extents, shard: int) -> bytes:
        """The TensorProto of one part."""
        name = ref.key.encode("utf-8", "surrogateescape")
        key = part_key(name, part)
        number = self._tables[shard].place(key)
        if self._kept is None or self._kept[:2] != (shard, number):
            self._kept = None  # the old one's memory is the new one's
            self._kept = shard, number, self._tables[shard].block(number)
        value = self._kept[2].get(key)
        if value is None:
            raise Corrupt("it is listed, but not stored")
        saved = _one(value, 2)
        if _one(saved, 1) != name or extents(_one(saved, 2)) != part:
            raise Corrupt("what is stored under its key is another part")
        return _one(saved, 3)

    def _corrupt(self, ref: TensorRef, part: Extents, shard: int, error: Corrupt) -> CheckpointError:
        code = "T2T605" if error.code == "T2T604" else error.code
        return refusal(code, f"{shown(ref.name)} {shown_place(part)}: {error}", self._paths[shard], error.hint)


def _shards(path: str) -> list[str]:
    """The files that a path means; raises CheckpointError T2T607 that lists every missing one."""
    before, _, count = path.rpartition("-?????-of-")
    if not before or not count.isdigit():
        return [path]
    if int(count) > 100_000:
        raise refusal("T2T611", f"the path means {int(count)} files, but at most 100000 are read", path)
    paths = [f"{before}-{shard:05}-of-{count}" for shard in range(int(count))]
    missing = [
        Problem(
            "T2T607",
            f"shard {number} of {len(paths)} missing: {shown(os.path.basename(shard))}",
            Location(shard),
            "the save or the copy is incomplete",
        )
        for number, shard in enumerate(paths)
        if state_if_there(shard) is None
    ]
    if missing or not paths:
        raise CheckpointError(missing[:_LISTED] or [Problem("T2T601", "a pattern of no files", Location(path))])
    return paths


def _one(message: bytes, wanted: int) -> bytes:
    """The message in a field; the pieces that protobuf would merge are put together."""
    found = []
    for number, wire, value in fields(message):
        if number == wanted:
            expect(number, wire, BYTES)
            found.append(value)
    return b"".join(found)


def _listed(value: bytes) -> dict[bytes, Tensor]:
    """The tensors that a table's first value lists, their parts not yet given a file."""
    meta = _one(value, 1)
    check_version(_one(meta, 2))
    tensors: dict[bytes, Tensor] = {}
    for number, wire, item in fields(meta):
        if number != 1:
            continue
        expect(number, wire, BYTES)
        dtype, parts = 0, []
        name = _one(item, 1)
        for field, field_wire, content in fields(item):
            if field == 3:
                expect(field, field_wire, VARINT)
                dtype = signed(content)
            elif field == 4:
                expect(field, field_wire, BYTES)
                parts.append((extents(content), 0))
        try:
            shape = shape_of(_one(item, 2))
        except Corrupt as error:
            raise Corrupt(f"{shown(name.decode('utf-8', 'surrogateescape'))}: {error}", "T2T605") from error
        if name in tensors:
            raise Corrupt(f"{shown(name.decode('utf-8', 'surrogateescape'))} is listed twice", "T2T605")
        tensors[name] = Tensor(DTYPE_NAMES.get(dtype) or f"unknown({dtype})", shape, tuple(parts))
    return tensors


def _merge(found: dict[bytes, Tensor], listed: dict[bytes, Tensor], shard: int) -> None:
    """Adds what one file lists; raises Corrupt where files do not agree on a variable."""
    for name, tensor in listed.items():
        known = found.get(name)
        if known and (known.dtype, known.shape) != (tensor.dtype, tensor.shape):
            one, other = f"{known.dtype} {list(known.shape)}", f"{tensor.dtype} {list(tensor.shape)}"
            message = f"{shown(name.decode('utf-8', 'surrogateescape'))} is {other} here and {one} in another shard"
            raise Corrupt(message, "T2T605")
        parts = tuple((part, shard) for part, _ in tensor.parts)
        found[name] = Tensor(tensor.dtype, tensor.shape, (known.parts if known else ()) + parts)


def _unreadable(tensor: Tensor) -> str:
    dtype = DTYPES.get(tensor.dtype)
    if dtype is None:
        return f"its dtype is {tensor.dtype}, which TensorFlow does not have"
    if tensor.dtype not in _VALUES and tensor.dtype != "string":
        return f"a V1 checkpoint has no field for values of dtype {tensor.dtype}"
    axes = [size for size in tensor.shape if size]
    if len(tensor.shape) > MAX_NUMPY_RANK or math.prod(axes) * max(dtype.itemsize, 8) > MAX_NUMPY_BYTES:
        return "its shape is one that numpy arrays cannot have"
    return ""


def _numbers(proto: bytes, dtype: str, count: int) -> Array:
    """The `count` values of a TensorProto, as the dtype has them; raises Corrupt where there are more or fewer."""
    field, wire, kind = _VALUES[dtype]
    runs: list[Array] = []
    for number, found, value in fields(proto):
        if number == 4:
            raise Corrupt("its values are stored as raw bytes, which V1 checkpoints do not do", "T2T606")
        if number != field:
            continue
        if found == BYTES:
            runs.append(_varints(value) if wire == VARINT else _fixed(value, kind))
        else:
            expect(number, found, wire)
            size = 8 if wire in (VARINT, FIXED64) else 4
            runs.append(np.frombuffer(value.to_bytes(size, "little"), kind))
    values = runs[0] if len(runs) == 1 else np.concatenate([np.empty(0, kind), *runs])
    wanted = DTYPES[dtype].numpy
    assert wanted is not None
    if DTYPES[dtype].kind == "complex":
        count *= 2
    if values.size != count:
        raise Corrupt(f"{values.size} numbers are stored where {count} are needed")
    if wire != VARINT:
        return values.view(wanted)
    if dtype in ("float16", "bfloat16"):
        return _narrowed(values, np.dtype("u2"), dtype).view(wanted)
    return values.view(wanted) if dtype == "uint64" else _narrowed(values, wanted, dtype)


def _fixed(data: bytes, kind: str) -> Array:
    size = np.dtype(kind).itemsize
    if len(data) % size:
        raise Corrupt(f"a run of {size}-byte numbers has {len(data)} bytes")
    return np.frombuffer(data, kind)


def _narrowed(values: Array, wanted: np.dtype[np.generic], dtype: str) -> Array:
    narrow = values.astype(wanted)
    if (narrow.astype(np.int64) != values).any():
        raise Corrupt(f"a number is stored that {dtype} does not have")
    return narrow


def _varints(data: bytes) -> Array:
    """A run of varints, as int64; raises Corrupt. All bytes at the same place of their numbers are done together."""
    stored = np.frombuffer(data, np.uint8)
    if stored.size == 0:
        return np.empty(0, np.int64)
    ends = np.flatnonzero(stored < 0x80)
    if ends.size == 0 or ends[-1] != stored.size - 1:
        raise Corrupt("the last number has no end")
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    longest = int(lengths.max())
    if longest > 10:
        raise Corrupt("a number has more than 10 bytes")
    values = np.zeros(ends.size, np.uint64)
    for place in range(longest):
        which: slice | Array = slice(None) if place == 0 else np.flatnonzero(lengths > place)
        group = stored[starts[which] + place]
        if place == 9 and (group > 1).any():
            raise Corrupt("a number has more than 64 bits")
        values[which] |= (group & 0x7F).astype(np.uint64) << np.uint64(7 * place)
    return values.view(np.int64)
