"""Every bundle at hand, and bundles with everything that TensorFlow can write, read as TensorFlow reads them."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from t2t import checkpoints
from t2t.tensors import DTYPES
from tests.checkpoints import writing

pytestmark = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs tensorflow")

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
#: TensorFlow's names that are not torch's.
NAMES = {"half": "float16", "float": "float32", "double": "float64"}
TIME_LIMIT = 300


class Oracle(NamedTuple):
    """What TensorFlow read: for each prefix and key, dtype, shape and the bytes (None for a variant)."""

    folder: Path
    bundles: dict[str, dict[str, tuple[str, list[int], bytes | None]]]


def real_prefixes() -> list[str]:
    from tests.conftest import SHARED_DATA

    if not SHARED_DATA.is_dir():
        return []
    found = sorted(path.with_suffix("") for path in SHARED_DATA.resolve().rglob("*.index"))
    return [str(path) for path in found if list(path.parent.glob(f"{path.name}.data-00000-of-*"))]


REAL = real_prefixes()


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    folder = tmp_path_factory.mktemp("tensorflow")
    # TensorFlow reads a bundle of our own writer, too: what the other tests build on it is then a checkpoint.
    tensors = {"b": writing.floats(1, 2, shard=1), "a": writing.Tensor(3, (), b"\1\0\0\0"), "c/d": writing.floats(3)}
    written = writing.bundle(folder / "written", tensors, shards=2, compression=1)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": ""}
    script = Path(__file__).with_name("with_tensorflow.py")
    others = [written, write_big_endian(folder / "big"), write_beyond_2_gib(folder / "beyond")]
    subprocess.run([sys.executable, script, folder, *REAL, *others], check=True, env=environment, timeout=TIME_LIMIT)
    values = (folder / "values.bin").read_bytes()
    manifest: dict[str, dict[str, Any]] = json.loads((folder / "manifest.json").read_text())
    return Oracle(
        folder,
        {
            prefix: {
                key: (NAMES.get(dtype, dtype), shape, None if size is None else values[offset : offset + size])
                for key, (dtype, shape, offset, size) in variables.items()
            }
            for prefix, variables in manifest.items()
        },
    )


def write_big_endian(prefix: Path) -> str:
    """As a machine with that byte order would write it: TensorFlow reads it on others."""
    checked = struct.pack(">3I", 0, 2, 200)
    lengths = b"\x00\x02\xc8\x01"
    checksum = struct.pack(">I", writing.masked(checked))
    strings = b"ab" + b"c" * 200
    tensors = {
        "float": writing.Tensor(1, (2,), struct.pack(">2f", 1.5, -2)),
        "odd": writing.Tensor(10, (3,), b"\0\1\1"),
        "double": writing.Tensor(2, (), struct.pack(">d", 3.25)),
        "int16": writing.Tensor(5, (3,), struct.pack(">3h", 1, -2, 300)),
        "int64": writing.Tensor(9, (2,), struct.pack(">2q", 1, -(2**40))),
        "complex64": writing.Tensor(8, (2,), struct.pack(">4f", 1, 2, 3, 4)),
        "complex128": writing.Tensor(18, (1,), struct.pack(">2d", 1, 2)),
        "bfloat16": writing.Tensor(14, (2,), b"\x3f\x80\xc0\x00"),
        "strings": writing.Tensor(7, (3,), lengths + checksum + strings),
    }
    crc = writing.Fixed32(writing.masked(checked + checksum + strings))
    return writing.bundle(prefix, tensors, first=writing.header(1, (2, 1)), fields={"strings": [(6, crc)]})


def write_beyond_2_gib(prefix: Path) -> str:
    """A sparse file: it needs no space."""
    offset = 2**32 + 5
    tensor = writing.floats(1, 2, 3)
    writing.bundle(prefix, {"a": writing.floats(4)}, rows={b"b": writing.entry(tensor, offset)})
    with Path(f"{prefix}.data-00000-of-00001").open("r+b") as file:
        file.seek(offset)
        file.write(tensor.data)
    return str(prefix)


def stored_bytes(values: np.ndarray) -> bytes:
    """As with_tensorflow.py writes them."""
    if values.dtype != object:
        return values.tobytes()
    return b"".join(len(item).to_bytes(8, "little") + item for item in values.reshape(-1))


def assert_same(prefix: str, oracle: Oracle) -> None:
    """Everything in the inventory is what TensorFlow reads, bit for bit."""
    expected = oracle.bundles[prefix]
    with checkpoints.open(prefix) as checkpoint:
        variables = checkpoint.inventory.variables
        buffer = np.empty(max((ref.nbytes for ref in variables.values()), default=0), np.uint8)

        assert set(variables) == {key.removesuffix(SUFFIX) for key in expected} - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
        for key, (dtype, shape, stored) in expected.items():
            if key == "_CHECKPOINTABLE_OBJECT_GRAPH":
                continue
            ref = variables[key.removesuffix(SUFFIX)]
            assert (ref.dtype, list(ref.shape)) == (dtype, shape), key
            assert ref.unreadable == "", key
            for values in (checkpoint.read(ref), checkpoint.read(ref, buffer), checkpoint.view(ref)):
                assert (values.shape, values.dtype) == (tuple(shape), DTYPES[dtype].numpy or object), key
                assert stored_bytes(values) == stored, key
        checkpoint.check_unchanged()


@pytest.mark.parametrize("prefix", REAL, ids=["/".join(Path(prefix).parts[-3:]) for prefix in REAL])
def test_a_real_checkpoint_reads_as_in_tensorflow(prefix: str, oracle: Oracle) -> None:
    assert_same(prefix, oracle)


def test_the_real_checkpoints_are_the_ones_that_were_counted(shared_data: Path) -> None:
    assert len(REAL) == 70


def test_every_dtype_and_every_odd_offset_reads_as_in_tensorflow(oracle: Oracle) -> None:
    prefix = str(oracle.folder / "dtypes")

    assert_same(prefix, oracle)

    read = {dtype for dtype, _, _ in oracle.bundles[prefix].values()}
    never_written = {"resource", "variant", "int2", "uint2", "float4_e2m1fn"}
    assert read == set(DTYPES) - never_written


def test_several_shards_of_which_one_is_empty_read_as_in_tensorflow(oracle: Oracle) -> None:
    prefix = oracle.folder / "shards"

    assert_same(str(prefix), oracle)
    assert [Path(f"{prefix}.data-0000{i}-of-00003").stat().st_size for i in range(3)] == [120, 0, 40]


def test_an_index_of_several_blocks_reads_as_in_tensorflow(oracle: Oracle) -> None:
    prefix = oracle.folder / "many"

    assert Path(f"{prefix}.index").stat().st_size > 400_000, "a block of TensorFlow has 256 KiB"
    assert_same(str(prefix), oracle)


def test_a_bundle_of_our_own_writer_reads_as_in_tensorflow(oracle: Oracle) -> None:
    assert_same(str(oracle.folder / "written"), oracle)


@pytest.mark.parametrize("name", ["big", "beyond"])
def test_another_byte_order_and_offsets_over_32_bits_read_as_in_tensorflow(name: str, oracle: Oracle) -> None:
    assert_same(str(oracle.folder / name), oracle)


@pytest.mark.parametrize(
    ("name", "variables", "shards"),
    [
        ("parts", ["parted\0\xff", "plain"], 4),
        ("columns", ["columns"], 2),
        ("partitioner", ["scope/w", "step"], 1),
        ("patchwork", ["a", "b", "c"], 8),
    ],
)
def test_partitioned_variables_read_as_in_tensorflow(
    name: str, variables: list[str], shards: int, oracle: Oracle
) -> None:
    prefix = oracle.folder / name

    assert_same(str(prefix), oracle)
    with checkpoints.open(prefix) as checkpoint:
        assert list(checkpoint.inventory.variables) == variables
        assert checkpoint.notes == ()
    assert len(list(oracle.folder.glob(f"{name}.data-*"))) == shards
