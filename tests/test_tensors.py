"""The dtype table and the inventories."""

from __future__ import annotations

import hashlib
import sys

import ml_dtypes
import numpy as np
import pytest
import torch

from t2t.tensors import DTYPES, LARGE, PAGE, CheckpointInventory, ParameterRef, TensorRef, elements, memory


def test_every_dtype_is_torchs_of_that_name_and_width() -> None:
    for dtype in DTYPES.values():
        if dtype.kind != "other":
            theirs = getattr(torch, dtype.name)

            assert theirs.itemsize == dtype.itemsize
            assert theirs.is_floating_point == (dtype.kind == "float")
            assert theirs.is_complex == (dtype.kind == "complex")


def test_numpys_dtype_has_the_width_and_native_byte_order() -> None:
    for dtype in DTYPES.values():
        if dtype.numpy is not None:
            assert dtype.numpy.itemsize == dtype.itemsize
            assert dtype.numpy.isnative

    assert DTYPES["bfloat16"].numpy == np.dtype(ml_dtypes.bfloat16)
    assert [name for name, dtype in DTYPES.items() if dtype.numpy is None] == ["string", "variant", "resource"]


def test_a_dtype_without_a_counterpart_in_torch_cannot_be_stored() -> None:
    assert [dtype.name for dtype in DTYPES.values() if dtype.kind == "other" and dtype.safetensors] == []
    assert [d.name for d in DTYPES.values() if d.kind != "other" and d.safetensors is None] == ["complex128"]


def test_elements_are_counted_exactly() -> None:
    huge = TensorRef("a", "float32", (2**40, 2**40))

    assert huge.elements == 2**80
    assert TensorRef("a", "float32", ()).elements == 1
    assert ParameterRef("a", "float32", (3, 0, 2)).elements == 0
    assert elements([huge, TensorRef("b", "float32", (3,)), ParameterRef("c", "int8", (2, 2))]) == 2**80 + 7


def test_the_digest_is_the_sha256_of_the_sorted_lines() -> None:
    a = TensorRef("a", "float32", (2, 3), crc32c=17)
    b = TensorRef("b", "int64", ())

    expected = hashlib.sha256(b"a\0float32\0[2, 3]\x0017\nb\0int64\0[]\0None\n").hexdigest()

    assert CheckpointInventory({"a": a, "b": b}).digest == expected
    assert CheckpointInventory({"b": b, "a": a}).digest == expected


def test_the_digest_tells_weights_apart_and_not_where_they_lie() -> None:
    def digest(**changed: object) -> str:
        given = {"name": "a", "dtype": "float32", "shape": (2,), "crc32c": 1, **changed}
        return CheckpointInventory({"a": TensorRef(**given)}).digest  # type: ignore[arg-type]

    assert digest(shard=3, offset=512, nbytes=8) == digest()
    assert len({digest(), digest(name="b"), digest(dtype="int32"), digest(shape=(1, 2)), digest(crc32c=2)}) == 5


def test_a_name_that_is_not_utf8_has_a_digest() -> None:
    assert len(CheckpointInventory({"a\udcff": TensorRef("a\udcff", "float32", ())}).digest) == 64


@pytest.mark.parametrize("nbytes", [0, 1, LARGE - 1, LARGE, LARGE + 1, 2**20, 2**24 + 8])
def test_large_memory_begins_with_a_page(nbytes: int) -> None:
    """So that the kernel copies into it at its full speed, whatever numpy's own memory begins with."""
    room = memory(nbytes)

    assert (room.shape, room.nbytes) == ((nbytes,), nbytes)
    assert room.flags.writeable
    assert room.flags.c_contiguous
    assert nbytes < LARGE or room.ctypes.data % PAGE == 0
    assert (room.base is None) == (nbytes < LARGE)  # nothing more is held for what is small


@pytest.mark.parametrize("nbytes", [2**62, sys.maxsize - PAGE, sys.maxsize - PAGE + 1, sys.maxsize])
def test_memory_that_nobody_has_is_a_memory_error(nbytes: int) -> None:
    with pytest.raises(MemoryError):
        memory(nbytes)
