"""
The floating constants in a file that holds a whole model: .tflite, ONNX, a frozen GraphDef. Nothing of it is run.

    .tflite    a FlatBuffer, root Model         0 version, 1 operators, 2 [SubGraph], 3 description, 4 [Buffer]
               SubGraph                         0 [Tensor]
               Tensor                           0 [int32] shape, 1 type, 2 number of its buffer (0: none)
               Buffer                           0 [bytes], or 1 offset in the file and 2 size
    FlatBuffer u32 at 0: the root table. A table begins with an i32, how far before it its vtable lies: u16 its own
               size, u16 the table's, then for each field a u16, where in the table it stands (0: not there). Vectors,
               tables and texts stand behind a u32, how far from there they begin; a vector with a u32, its length.
    ONNX       ModelProto 7 graph               GraphProto 5 initializer, 1 node { 5 attribute { 5 tensor } }
               TensorProto                      1 dims, 2 type, 4 floats, 9 raw, 10 doubles
    GraphDef   1 node { 2 op, 5 attributes: map<string, AttrValue { 8 TensorProto }> }
               TensorProto                      1 type, 2 shape { 2 dim { 1 size } }, 4 raw, 5 floats, 6 doubles

https://flatbuffers.dev/internals, https://onnx.ai/onnx/api/classes.html
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

from t2t.checkpoints.files import open_regular, reason, refusal
from t2t.checkpoints.protobuf import BYTES, FIXED32, VARINT, Corrupt, expect, fields, signed, varint
from t2t.names import shown
from t2t.problems import Location, OriginalError, Problem
from t2t.proof.arrays import Array

Dtypes = dict[int, Any]

_TFLITE_DTYPES: Dtypes = {0: np.float32, 1: np.float16, 10: np.float64, 18: ml_dtypes.bfloat16}
_ONNX_DTYPES: Dtypes = {1: np.float32, 10: np.float16, 11: np.float64, 16: ml_dtypes.bfloat16}
_TENSORFLOW_DTYPES: Dtypes = {1: np.float32, 2: np.float64, 14: ml_dtypes.bfloat16, 19: np.float16}


def constants(kind: str, path: str) -> list[Array]:
    """
    Every floating constant in the file, as far as it stores as many values as its shape says.

    Raises OriginalError (T2T902) for a file of another kind, CheckpointError (T2T602) for one that cannot be read.
    """
    with open(open_regular(path)[0], "rb") as file:
        try:
            data = file.read()
        except OSError as error:
            raise refusal("T2T602", f"the original cannot be read: {reason(error)}", path) from None
    try:
        return list(KINDS[kind](data))
    except (Corrupt, RecursionError) as error:
        hint = f"name a {kind} model in verify's reference, or copy the file again"
        problem = Problem("T2T902", f"this is no {kind} model: {shown(str(error))}", Location(path), hint)
        raise OriginalError(problem) from None


def _tflite(data: bytes) -> Iterator[Array]:
    model = _Table(data, _offset(data, 0))
    buffers = model.tables(4)
    seen = set()
    for graph in model.tables(2):
        for tensor in graph.tables(0):
            dtype, number = _TFLITE_DTYPES.get(tensor.number(1, "b")), tensor.number(2, "I")
            shape = tuple(int(size) for size in np.frombuffer(tensor.vector(0, 4), "<i4"))
            if dtype is None or not 0 < number < len(buffers) or (number, shape) in seen:
                continue
            seen.add((number, shape))
            start, size = buffers[number].number(1, "Q"), buffers[number].number(2, "Q")
            raw = data[start : start + size] if start > 1 else buffers[number].vector(0, 1)
            yield from _array(raw, dtype, shape)


def _onnx(data: bytes) -> Iterator[Array]:
    for graph in _messages(data, 7):
        for tensor in _messages(graph, 5):
            yield from _onnx_tensor(tensor)
        for node in _messages(graph, 1):
            for attribute in _messages(node, 5):
                for tensor in _messages(attribute, 5):
                    yield from _onnx_tensor(tensor)


def _onnx_tensor(message: bytes) -> Iterator[Array]:
    shape: list[int] = []
    for number, wire, value in fields(message):
        if number == 1:
            shape += _numbers(wire, value)
    yield from _tensor(message, _ONNX_DTYPES, 2, tuple(shape), raw=9, floats=4, doubles=10)


def _frozen(data: bytes) -> Iterator[Array]:
    for node in _messages(data, 1):
        if b"Const" not in _messages(node, 2):
            continue
        for attribute in _messages(node, 5):
            for value in _messages(attribute, 2):
                for tensor in _messages(value, 8):
                    dims = [dim for shape in _messages(tensor, 2) for dim in _messages(shape, 2)]
                    yield from _tensor(
                        tensor, _TENSORFLOW_DTYPES, 1, tuple(map(_dim, dims)), raw=4, floats=5, doubles=6
                    )


KINDS: dict[str, Callable[[bytes], Iterator[Array]]] = {"tflite": _tflite, "onnx": _onnx, "frozen": _frozen}


def _messages(data: bytes, wanted: int) -> list[bytes]:
    """The values of a field that holds bytes, texts or messages."""
    found = []
    for number, wire, value in fields(data):
        if number == wanted:
            expect(number, wire, BYTES)
            found.append(value)
    return found


def _numbers(wire: int, value: Any) -> list[int]:
    """One number of a repeated field, or all of them, packed."""
    if wire == VARINT:
        return [signed(value)]
    expect(0, wire, BYTES)
    numbers, at = [], 0
    while at < len(value):
        number, at = varint(value, at, len(value))
        numbers.append(signed(number))
    return numbers


def _dim(message: bytes) -> int:
    size = 0
    for number, wire, value in fields(message):
        if number == 1:
            expect(number, wire, VARINT)
            size = signed(value)
    return size


def _tensor(
    message: bytes, dtypes: Dtypes, kind: int, shape: tuple[int, ...], *, raw: int, floats: int, doubles: int
) -> Iterator[Array]:
    """A TensorProto of either kind; `kind`, `raw`, `floats` and `doubles` are the numbers of its fields."""
    dtype, parts = None, []
    for number, wire, value in fields(message):
        if number == kind:
            expect(number, wire, VARINT)
            dtype = dtypes.get(value)
        elif number in (raw, floats, doubles) and wire == BYTES:
            parts.append(value)
        elif number == floats and wire == FIXED32:
            parts.append(value.to_bytes(4, "little"))
    if dtype is not None:
        yield from _array(b"".join(parts), dtype, shape)


def _array(raw: bytes, dtype: Any, shape: tuple[int, ...]) -> Iterator[Array]:
    wanted = np.dtype(dtype)
    if all(size >= 0 for size in shape) and math.prod(shape) * wanted.itemsize == len(raw) > 0 and len(shape) <= 32:
        plain = np.frombuffer(raw, wanted if wanted.kind == "V" else wanted.newbyteorder("<"))
        yield plain.reshape(shape)


# --- FlatBuffers ---


class _Table:
    """One table of a FlatBuffer; whatever leads out of the data is Corrupt."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        self.vtable = at - _number(data, at, "i")
        self.size = _number(data, self.vtable, "H")

    def place(self, field: int) -> int:
        """Where the field stands, 0 where it doesn't."""
        entry = 4 + 2 * field
        place = _number(self.data, self.vtable + entry, "H") if entry + 2 <= self.size else 0
        return self.at + place if place else 0

    def number(self, field: int, kind: str) -> int:
        """The field as a number, 0 where there is none."""
        place = self.place(field)
        return _number(self.data, place, kind) if place else 0

    def vector(self, field: int, item: int) -> bytes:
        """The field's vector, whose items have `item` bytes each."""
        place = self.place(field)
        if not place:
            return b""
        start = _offset(self.data, place)
        size = _number(self.data, start, "I") * item
        if size > len(self.data) - start - 4:
            raise Corrupt(f"a vector at byte {start} claims {size} bytes")
        return self.data[start + 4 : start + 4 + size]

    def tables(self, field: int) -> list[_Table]:
        """The field's vector of tables."""
        place = self.place(field)
        if not place:
            return []
        first = _offset(self.data, place) + 4
        count = len(self.vector(field, 4)) // 4
        return [_Table(self.data, _offset(self.data, first + 4 * number)) for number in range(count)]


def _number(data: bytes, at: int, kind: str) -> int:
    if not 0 <= at <= len(data) - struct.calcsize(f"<{kind}"):
        raise Corrupt(f"byte {at} is outside of the file")
    value: int = struct.unpack_from(f"<{kind}", data, at)[0]
    return value


def _offset(data: bytes, at: int) -> int:
    return at + _number(data, at, "I")
