"""Strings, and dtypes of which only some bits count."""

from __future__ import annotations

import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from t2t.checkpoints import bundle as bundle_module
from t2t.checkpoints.bundle import Bundle
from t2t.tensors import DTYPES
from tests.checkpoints.refusing import SHARD, unread
from tests.checkpoints.writing import Fixed32, Tensor, bundle, header, masked, number


def strings(x: Path, *items: bytes, shape: tuple[int, ...] | None = None, big_endian: bool = False) -> None:
    order = ">" if big_endian else "<"
    checked = struct.pack(f"{order}{len(items)}I", *map(len, items))
    rest = struct.pack(f"{order}I", masked(checked)) + b"".join(items)
    tensor = Tensor(7, (len(items),) if shape is None else shape, b"".join(number(len(i)) for i in items) + rest)
    fields = {"a": [(6, Fixed32(masked(checked + rest)))]}
    bundle(x, {"a": tensor}, first=header(1, (2, 1)) if big_endian else None, fields=fields)


@pytest.mark.parametrize("big_endian", [False, True])
def test_strings_read_as_written(x: Path, big_endian: bool) -> None:
    items = [b"", b"a\0", b"\xff\xfe", b"x" * 127, b"y" * 128, b"z" * 20_000]
    strings(x, *items, shape=(2, 3), big_endian=big_endian)

    with Bundle(str(x)) as checkpoint:
        ref = checkpoint.inventory.variables["a"]
        assert (ref.dtype, ref.shape, ref.unreadable) == ("string", (2, 3), "")
        values = checkpoint.read(ref)
        assert (values.dtype, values.tolist()) == (object, [items[:3], items[3:]])
        assert checkpoint.view(ref).tolist() == values.tolist()


@pytest.mark.parametrize(("shape", "items"), [((), [b"one"]), ((0,), []), ((2, 0, 3), []), ((1,), [b""])])
def test_shapes_of_strings_are_kept(x: Path, shape: tuple[int, ...], items: list[bytes]) -> None:
    strings(x, *items, shape=shape)

    with Bundle(str(x)) as checkpoint:
        values = checkpoint.read(checkpoint.inventory.variables["a"])
        assert values.shape == shape
        assert list(values.flat) == items


CHECK = "checksum mismatch in the strings' lengths (stored 0x00000000, computed 0x"


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (number(2**45) + bytes(10), "T2T605", f"a string should have {2**45} bytes, but all have 17"),
        (b"\xff" * 9 + b"\2" + bytes(6), "T2T605", f"a string should have {2**63 - 1} bytes, but all have 16"),
        (b"\x80" * 10 + b"\0" + bytes(6), "T2T605", "it should have 1 lengths of strings, but 0 are stored"),
        (b"\x80" * 7, "T2T605", "it should have 1 lengths of strings, but 0 are stored"),
        (b"\3" + bytes(4) + b"ab", "T2T605", "its strings should have 3 bytes, but 2 are stored"),
        (b"\1" + bytes(4) + b"ab", "T2T605", "its strings should have 1 bytes, but 2 are stored"),
        (b"\x80\1" + bytes(3), "T2T605", "a string should have 128 bytes, but all have 5"),
        (b"\2" + struct.pack("<I", 0xA282EAD8) + b"ab", "T2T608", CHECK),
    ],
)
def test_wrong_strings_are_refused(x: Path, data: bytes, code: str, text: str) -> None:
    bundle(x, {"a": Tensor(7, (), data)})

    with Bundle(str(x)) as checkpoint:
        (found,) = unread(checkpoint, "a")
    assert found.startswith(f"{SHARD}: {code}: a: {text}")
    assert ", shard 0, offset 0" in found


def test_damage_in_a_string_is_noticed(x: Path, tmp_path: Path) -> None:
    strings(x, b"abc")
    data = bytearray((tmp_path / SHARD).read_bytes())
    data[-1] ^= 1
    (tmp_path / SHARD).write_bytes(data)

    with Bundle(str(x)) as checkpoint:
        (text,) = unread(checkpoint, "a")
    assert text.startswith(f"{SHARD}: T2T608: a: checksum mismatch, shard 0, offset 0 (stored 0x")
    with Bundle(str(x), checksums=False) as checkpoint:
        assert checkpoint.read(checkpoint.inventory.variables["a"]).tolist() == [b"abb"]


def test_strings_over_the_limit_are_refused(x: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strings(x, b"a", b"b", b"c")
    monkeypatch.setattr(bundle_module, "MAX_STRINGS", 3)
    with Bundle(str(x)) as checkpoint:
        assert checkpoint.read(checkpoint.inventory.variables["a"]).tolist() == [b"a", b"b", b"c"]
        monkeypatch.setattr(bundle_module, "MAX_STRINGS", 2)
        assert unread(checkpoint, "a") == [f"{SHARD}: T2T611: a: it has 3 strings, but at most 2 are read"]


@pytest.mark.parametrize(
    ("key", "dtype", "values"),
    [
        (29, "int4", [-8, -1, 0, 7, 7]),
        (30, "uint4", [8, 15, 0, 7, 7]),
        (31, "int2", [0, -1, 0, -1, -1]),
        (32, "uint2", [0, 3, 0, 3, 3]),
        (33, "float4_e2m1fn", [-0.0, -6, 0, 6, 6]),
    ],
)
def test_only_the_low_bits_count(x: Path, key: int, dtype: str, values: list[float]) -> None:
    bundle(x, {"a": Tensor(key, (5,), b"\x08\x0f\0\7\xf7")})

    with Bundle(str(x)) as checkpoint:
        ref = checkpoint.inventory.variables["a"]
        for found in (checkpoint.read(ref), checkpoint.view(ref)):
            assert found.dtype == DTYPES[dtype].numpy
            assert found.astype(float).tolist() == values
            assert found.tobytes() == np.array(values).astype(found.dtype).tobytes()


@pytest.mark.parametrize(("key", "dtype", "numpy"), [(11, "qint8", "i1"), (16, "quint16", "u2"), (13, "qint32", "i4")])
def test_quantised_values_are_read_as_their_integers(x: Path, key: int, dtype: str, numpy: str) -> None:
    values = np.array([1, 2, 100], numpy)
    bundle(x, {"a": Tensor(key, (3,), values.tobytes())})

    with Bundle(str(x)) as checkpoint:
        ref = checkpoint.inventory.variables["a"]
        assert ref.dtype == dtype
        assert checkpoint.read(ref).tolist() == [1, 2, 100]


def test_float8_e4m3b11fnuz_reads(x: Path) -> None:
    values = np.array([1, -2, 0.5]).astype(ml_dtypes.float8_e4m3b11fnuz)
    bundle(x, {"a": Tensor(27, (3,), values.tobytes())})

    with Bundle(str(x)) as checkpoint:
        assert checkpoint.read(checkpoint.inventory.variables["a"]).tobytes() == values.tobytes()
