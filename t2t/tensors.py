"""
Tensors by name, dtype and shape, on both sides, without any tensor's values: the inventories.

The dtype table is the one place that says how a dtype is called, how wide it is and where it can be stored. Dtypes go
by torch's names (`float32`, `bfloat16`) on both sides; the readers translate.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

# First by itself: ml_dtypes' extension makes an ImportError of a Ctrl-C while it imports numpy.
import numpy as np

# isort: split
import ml_dtypes

Shape = tuple[int, ...]
Kind = Literal["float", "int", "bool", "complex", "other"]

#: The size of a page of memory; on some systems one is several of these.
PAGE = 4096

#: From so many bytes on it matters where a copy begins, and a page more does not.
LARGE = 2**16


@dataclass(frozen=True, slots=True)
class DType:
    """
    One dtype: its bytes per element in memory, its numpy dtype (native byte order) and how safetensors calls it.

    `safetensors` is None where the format cannot hold it. Kind `other` has no torch counterpart: such a variable is
    listed, never converted; `numpy` is then None where no element has a fixed size (string, variant, resource).
    """

    name: str
    kind: Kind
    itemsize: int
    numpy: np.dtype[np.generic] | None
    safetensors: str | None = None


def _dtype(name: str, kind: Kind, numpy: object, safetensors: str | None = None) -> DType:
    dtype = np.dtype(numpy)  # type: ignore[call-overload]
    return DType(name, kind, dtype.itemsize, dtype, safetensors)


#: Every dtype that can stand in an inventory.
DTYPES: dict[str, DType] = {
    dtype.name: dtype
    for dtype in (
        _dtype("float64", "float", "f8", "F64"),
        _dtype("float32", "float", "f4", "F32"),
        _dtype("float16", "float", "f2", "F16"),
        _dtype("bfloat16", "float", ml_dtypes.bfloat16, "BF16"),
        _dtype("float8_e5m2", "float", ml_dtypes.float8_e5m2, "F8_E5M2"),
        _dtype("float8_e4m3fn", "float", ml_dtypes.float8_e4m3fn, "F8_E4M3"),
        _dtype("float8_e5m2fnuz", "float", ml_dtypes.float8_e5m2fnuz, "F8_E5M2FNUZ"),
        _dtype("float8_e4m3fnuz", "float", ml_dtypes.float8_e4m3fnuz, "F8_E4M3FNUZ"),
        _dtype("int64", "int", "i8", "I64"),
        _dtype("int32", "int", "i4", "I32"),
        _dtype("int16", "int", "i2", "I16"),
        _dtype("int8", "int", "i1", "I8"),
        _dtype("uint64", "int", "u8", "U64"),
        _dtype("uint32", "int", "u4", "U32"),
        _dtype("uint16", "int", "u2", "U16"),
        _dtype("uint8", "int", "u1", "U8"),
        _dtype("bool", "bool", "?", "BOOL"),
        _dtype("complex64", "complex", "c8", "C64"),
        _dtype("complex128", "complex", "c16"),
        _dtype("float8_e4m3b11fnuz", "other", ml_dtypes.float8_e4m3b11fnuz),
        _dtype("qint8", "other", "i1"),
        _dtype("quint8", "other", "u1"),
        _dtype("qint16", "other", "i2"),
        _dtype("quint16", "other", "u2"),
        _dtype("qint32", "other", "i4"),
        _dtype("int4", "other", ml_dtypes.int4),
        _dtype("uint4", "other", ml_dtypes.uint4),
        _dtype("int2", "other", ml_dtypes.int2),
        _dtype("uint2", "other", ml_dtypes.uint2),
        _dtype("float4_e2m1fn", "other", ml_dtypes.float4_e2m1fn),
        DType("string", "other", 0, None),
        DType("variant", "other", 0, None),
        DType("resource", "other", 0, None),
    )
}


@dataclass(frozen=True, slots=True)
class TensorRef:
    """
    One variable as a checkpoint's index describes it; no value of it has been read.

    `key` is what the file itself calls it; `full_name` what it was called in its model, None where no file says so.
    `shard` and `offset` (bytes) say where it lies: (shard, offset) is the order to read in. `nbytes` are the bytes of
    its values, of strings the stored bytes. `crc32c` is the checksum (unmasked) of the stored bytes, None where the
    format has none. For a partitioned variable it is one over its parts' places and checksums: it tells two variables
    apart, and nothing can be checked against it.
    `slot_of` names the variable whose optimizer slot this is, "" marks a counter of the optimizer or the training loop
    (`beta1_power`), None is neither. `average_of` names the variable whose moving average over the training this is.
    `unreadable` says why the values cannot be had, "" where they can.
    """

    name: str
    dtype: str
    shape: Shape
    shard: int = 0
    offset: int = 0
    nbytes: int = 0
    crc32c: int | None = None
    slot_of: str | None = None
    unreadable: str = ""
    key: str = ""
    full_name: str | None = None
    average_of: str | None = None

    @property
    def elements(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class CheckpointInventory:
    """
    What a checkpoint holds. `trainable` names the variables that the original trains, None where no file says so.

    `shared_names` are full names that belong to several variables of different values, and those variables' names.
    `checksum` computes the crc32c of a variable whose format stores none; it reads the values.
    """

    variables: Mapping[str, TensorRef]
    trainable: frozenset[str] | None = None
    shared_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    checksum: Callable[[TensorRef], int] | None = None

    @cached_property
    def digest(self) -> str:
        """
        sha256 (hex) over name, dtype, shape and crc32c of every variable, sorted by name: which weights these are.

        It does not depend on how they are spread over files. It is known without reading them where the format stores
        checksums (`is_cheap`).
        """
        lines = (f"{v.name}\0{v.dtype}\0{list(v.shape)}\0{self.crc32c(v)}\n" for _, v in sorted(self.variables.items()))
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def is_cheap(self) -> bool:
        """Whether the digest is known without reading values."""
        return self.checksum is None

    def crc32c(self, ref: TensorRef) -> int | None:
        """The checksum of its values, None where they cannot be had; computed where the format stores none."""
        if ref.crc32c is not None or ref.unreadable or self.checksum is None:
            return ref.crc32c
        return self.checksum(ref)


@dataclass(frozen=True, slots=True)
class ParameterRef:
    """
    One entry of a module's state_dict. `tied_to` is the first name of the same Parameter, None if this is the first.
    """

    name: str
    dtype: str
    shape: Shape
    kind: Literal["parameter", "buffer"] = "parameter"
    tied_to: str | None = None

    @property
    def elements(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class ModuleInventory:
    """What a module's state_dict holds, in its order; non-persistent buffers are not in it."""

    parameters: Mapping[str, ParameterRef]


def elements(refs: Iterable[TensorRef | ParameterRef]) -> int:
    """How many elements they have in all."""
    return sum(ref.elements for ref in refs)


def memory(nbytes: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """
    Uninitialized memory for a file's bytes: what is large begins with a page of the system's. Raises MemoryError.

    AMD's Zen 3 takes four times as long to copy to a place that is 1 to 31 bytes further into its page than what it
    copies from (`rep movsb`, which the kernel reads with). numpy's own memory begins 16 bytes into a page, and the
    tensors of a large checkpoint mostly with one.
    """
    if nbytes < LARGE:
        return np.empty(nbytes, np.uint8)
    room = np.empty(min(nbytes + PAGE, sys.maxsize), np.uint8)  # what numpy refuses otherwise is no MemoryError
    return room[-room.ctypes.data % PAGE :][:nbytes]
