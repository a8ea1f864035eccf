"""V1 checkpoints: what TensorFlow wrote, what strangers trained, and everything that can be wrong with one."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from t2t import checkpoints
from t2t.checkpoints.v1 import V1, _varints
from t2t.problems import CheckpointError
from tests.checkpoints import writing, writing_v1
from tests.checkpoints.refusing import texts
from tests.checkpoints.writing import message
from tests.checkpoints.writing_v1 import Saved, floats, write

A = Saved(b"a", 1, (2, 3), floats(1, 2, 3, 4, 5, 6))
B = Saved(b"b", 9, (2,), message((10, b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")))
WITH_TENSORFLOW = Path(__file__).with_name("with_tensorflow_v1.py")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which TensorFlow wrote its checkpoints."""
    pytest.importorskip("tensorflow", reason="needs TensorFlow")
    folder = tmp_path_factory.mktemp("v1")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
    subprocess.run([sys.executable, WITH_TENSORFLOW, folder], check=True, env=environment)
    return folder


def refused(path: Path | str) -> str:
    """The one problem of opening a file, found without a large allocation."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            V1(str(path))
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
    (text,) = texts(caught, Path(path).parent)
    return text


def unread(path: Path | str, name: str = "a") -> str:
    with V1(str(path)) as checkpoint, pytest.raises(CheckpointError) as caught:
        checkpoint.read(checkpoint.inventory.variables[name])
    (text,) = texts(caught, Path(path).parent)
    return text


# --- what TensorFlow wrote ---


def test_every_dtype_that_tensorflow_stores_is_read(written: Path) -> None:
    values = np.load(written / "values.npz")
    for key in values.files:
        dtype, _, name = key.partition("/")
        if not name:
            continue
        with checkpoints.open(written / dtype) as checkpoint:
            ref = checkpoint.inventory.variables[name]
            read = checkpoint.read(ref)
            assert (ref.dtype, ref.shape, read.dtype) == (dtype, values[key].shape, values[key].dtype)
            assert read.tobytes() == values[key].tobytes()
            assert checkpoint.read(ref, np.empty(100, np.uint8)).tobytes() == values[key].tobytes()
            assert not checkpoint.view(ref).flags.writeable


def test_strings_are_read(written: Path) -> None:
    with checkpoints.open(written / "string") as checkpoint:
        assert checkpoint.read(checkpoint.inventory.variables["a"]).tolist() == [b"", b"a\0\xff", b"x" * 300]


@pytest.mark.parametrize("name", ["parts", "shards-?????-of-00002", "shards-00001-of-00002", "shards"])
def test_partitioned_variables_are_put_together(written: Path, name: str) -> None:
    with checkpoints.open(written / name) as checkpoint:
        refs = checkpoint.inventory.variables
        assert list(refs) == (["step", "w"] if name == "parts" else ["only_0", "only_1", "w"])
        assert checkpoint.read(refs["w"]).tobytes() == np.load(written / "values.npz")["whole"].tobytes()
        assert len(checkpoint.files) == (1 if name == "parts" else 2)


def test_a_table_of_several_blocks_is_read(written: Path) -> None:
    with checkpoints.open(written / "many") as checkpoint:
        refs = list(checkpoint.inventory.variables.values())
        assert len(refs) == 6000
        for i in (0, 1, 2999, 5998, 5999):
            assert checkpoint.read(refs[i]).tolist() == [float(i)] * 9
        assert len({ref.offset for ref in refs}) > 1


def test_tensorflow_reads_the_same_from_what_strangers_trained(shared_data: Path) -> None:
    from t2t.checkpoints.via_tensorflow import ViaTensorFlow

    pytest.importorskip("tensorflow", reason="needs TensorFlow")
    paths = sorted(
        path
        for path in (shared_data / "v1-single-file").rglob("*ckpt*")
        if path.is_file() and path.read_bytes()[-8:] == writing.MAGIC
    )
    assert len(paths) == 4
    for path in paths:
        with ViaTensorFlow(checkpoints.open(path), "v1") as both:
            differences = list(both.differences())
            assert len(differences) == len(both.inventory.variables) > 0
            assert [d for d in differences if d.problem or d.not_compared] == []


# --- what TensorFlow would not write ---


@pytest.mark.parametrize("compression", [0, 1])
@pytest.mark.parametrize("blocks", [1, 3])
def test_blocks_and_compression(x: Path, compression: int, blocks: int) -> None:
    with V1(write(x, [A, B], blocks=blocks, compression=compression)) as checkpoint:
        refs = checkpoint.inventory.variables
        assert checkpoint.read(refs["a"]).tolist() == [[1, 2, 3], [4, 5, 6]]
        assert checkpoint.read(refs["b"]).tolist() == [1, -1]


def test_values_may_come_one_by_one_and_in_several_runs(x: Path) -> None:
    one_by_one = message(*((5, writing.Fixed32(struct.unpack("<I", struct.pack("<f", v))[0])) for v in (1.0, 2.0)))
    proto = one_by_one + floats(3, 4) + floats(5, 6)

    with V1(write(x, [A._replace(proto=proto)])) as checkpoint:
        assert checkpoint.read(checkpoint.inventory.variables["a"]).tolist() == [[1, 2, 3], [4, 5, 6]]


def test_bfloat16_and_unsigned_numbers(x: Path) -> None:
    saved = [
        Saved(b"bf", 14, (2,), message((13, b"\x80\x7f\x80\x80\x01"))),
        Saved(b"u4", 22, (1,), message((16, b"\xff\xff\xff\xff\x0f"))),
        Saved(b"u8", 23, (1,), message((17, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))),
    ]
    with V1(write(x, saved)) as checkpoint:
        refs = checkpoint.inventory.variables
        assert checkpoint.read(refs["bf"]).view(np.uint16).tolist() == [0x3F80, 0x4000]
        assert checkpoint.read(refs["u4"]).tolist() == [2**32 - 1]
        assert checkpoint.read(refs["u8"]).tolist() == [2**64 - 1]


def test_a_name_of_any_bytes(x: Path) -> None:
    with V1(write(x, [A._replace(name=b"a\0\xff/b")])) as checkpoint:
        ((name, ref),) = checkpoint.inventory.variables.items()
        assert name == "a\0\udcff/b"
        assert checkpoint.read(ref).tolist() == [[1, 2, 3], [4, 5, 6]]


def test_the_digest_is_that_of_the_values(x: Path) -> None:
    digests = []
    for saved in ([A, B], [B, A], [A._replace(proto=floats(1, 2, 3, 4, 5, 7)), B]):
        with V1(write(x, saved)) as checkpoint:
            digests.append(checkpoint.inventory.digest)
    assert digests[0] == digests[1] != digests[2]


def test_what_cannot_be_stored_is_listed_and_refused(x: Path) -> None:
    path = write(x, [A, Saved(b"v", 21, (), b""), Saved(b"w", 99, (), b"")])

    with V1(path) as checkpoint:
        refs = checkpoint.inventory.variables
        assert refs["v"].unreadable == "a V1 checkpoint has no field for values of dtype variant"
        assert refs["w"].unreadable == "its dtype is unknown(99), which TensorFlow does not have"
    assert unread(path, "v") == "x: T2T606: v: a V1 checkpoint has no field for values of dtype variant"


PART = Saved(b"a", 1, (2, 3), floats(1, 2, 3), [(0, 1), None])


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([PART], "x: T2T605: a: its parts leave a hole: they have 3 elements, but the shape has 6"),
        (
            [PART, PART._replace(place=[(1, 2), None])],
            "x: T2T605: a: its part [1:3, :] is not inside axis 0, which has the size 2",
        ),
        ([PART._replace(place=[(0, 1)])], "x: T2T605: a: its part [0:1] has 1 axes, but the shape has 2"),
    ],
)
def test_parts_that_do_not_tile_the_variable_are_refused(x: Path, parts: Sequence[Saved], expected: str) -> None:
    assert refused(write(x, parts)) == expected


@pytest.mark.parametrize(
    ("proto", "expected"),
    [
        (floats(1, 2, 3), "5 numbers"),
        (b"", "0 numbers"),
    ],
)
def test_another_count_of_values_is_refused(x: Path, proto: bytes, expected: str) -> None:
    count = 3 if proto else 0
    assert unread(write(x, [A._replace(proto=proto)])) == (
        f"x: T2T605: a [:, :]: {count} numbers are stored where 6 are needed"
    )


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        (Saved(b"a", 1, (2,), message((5, b"123"))), "a run of 4-byte numbers has 3 bytes"),
        (Saved(b"a", 1, (2,), message((5, 1))), "protobuf field 5 has the wire type 0, but needs 5"),
        (Saved(b"a", 9, (2,), message((10, b"\x01\x80"))), "the last number has no end"),
        (Saved(b"a", 9, (1,), message((10, b"\xff" * 10 + b"\1"))), "a number has more than 10 bytes"),
        (Saved(b"a", 9, (1,), message((10, b"\xff" * 9 + b"\2"))), "a number has more than 64 bits"),
        (Saved(b"a", 6, (1,), message((7, b"\x80\x02"))), "a number is stored that int8 does not have"),
        (Saved(b"a", 7, (2,), message((8, b"x"))), "1 strings are stored where 2 are needed"),
        (Saved(b"a", 7, (2,), message((8, b"x"), (8, 3))), "protobuf field 8 has the wire type 0, but needs 2"),
    ],
)
def test_values_that_are_none_are_refused(x: Path, saved: Saved, expected: str) -> None:
    assert unread(write(x, [saved])) == f"x: T2T605: a [:]: {expected}"


def test_raw_bytes_for_values_are_refused(x: Path) -> None:
    assert unread(write(x, [A._replace(proto=message((4, b"\0" * 24)))])) == (
        "x: T2T606: a [:, :]: its values are stored as raw bytes, which V1 checkpoints do not do"
    )


def test_a_bool_of_another_value_is_refused(x: Path) -> None:
    assert unread(write(x, [Saved(b"a", 10, (2,), message((11, b"\x01\x02")))])) == (
        "x: T2T605: a [:]: a number is stored that bool does not have"
    )


def test_a_part_that_is_missing_or_another_is_refused(x: Path) -> None:
    key = writing_v1.key(b"a", [None, None])
    other = writing_v1.rows([A._replace(name=b"c")])[writing_v1.key(b"c", [None, None])]

    assert unread(write(x, [A], replaced={key: other})) == (
        "x: T2T605: a [:, :]: what is stored under its key is another part"
    )
    listed = writing_v1.meta([A, B])
    assert unread(write(x, [A], replaced={b"": listed}), "b") == "x: T2T605: b [:]: it is listed, but not stored"


@pytest.mark.parametrize("shape", [(2**33, 2**33), (2**40,), (2**62, 4)])
def test_a_shape_that_the_file_cannot_hold_is_refused(x: Path, shape: tuple[int, ...]) -> None:
    path = write(x, [A._replace(shape=shape)])

    assert refused(path) == (
        f"x: T2T605: a: its shape {list(shape)} has more elements than {os.path.getsize(path)} bytes can hold"
    )


@pytest.mark.parametrize(
    ("replaced", "expected"),
    [
        (message((2, b"")), None),
        (writing_v1.meta([A], message((1, 1), (2, 9))), "x: T2T606: written for a newer checkpoint format"),
        (writing_v1.meta([A], message((1, -1))), "x: T2T604: the header's version has the producer -1"),
    ],
)
def test_the_list_of_tensors(x: Path, replaced: bytes, expected: str | None) -> None:
    path = write(x, [A], replaced={b"": replaced})

    if expected is None:
        with V1(path) as checkpoint:
            assert not checkpoint.inventory.variables
    else:
        assert refused(path).startswith(expected)


def test_a_table_without_a_list_is_no_checkpoint(x: Path) -> None:
    x.write_bytes(writing.table([(b"a", b"1")]))

    assert refused(x) == "x: T2T604: the table has no list of tensors, so it is no checkpoint"


def test_missing_shards_are_listed(tmp_path: Path) -> None:
    write(tmp_path / "x-00001-of-00003", [A])

    with pytest.raises(CheckpointError) as caught:
        checkpoints.open(tmp_path / "x-?????-of-00003")

    assert texts(caught, tmp_path) == [
        f"x-0000{n}-of-00003: T2T607: shard {n} of 3 missing: x-0000{n}-of-00003; the save or the copy is incomplete"
        for n in (0, 2)
    ]


def test_shards_that_do_not_agree_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "x-00000-of-00002", [PART])
    write(tmp_path / "x-00001-of-00002", [PART._replace(shape=(2, 4))])

    assert refused(tmp_path / "x-?????-of-00002") == (
        "x-00001-of-00002: T2T605: a is float32 [2, 4] here and float32 [2, 3] in another shard"
    )


def test_every_truncation_and_every_flipped_bit_is_refused_or_changes_nothing(x: Path) -> None:
    write(x, [A, B], blocks=2)
    right = x.read_bytes()
    damaged = [right[:size] for size in range(len(right))]
    damaged += [
        right[:i] + bytes([right[i] ^ 1 << bit]) + right[i + 1 :] for i in range(len(right)) for bit in range(8)
    ]
    undetected = 0
    for data in damaged:
        x.write_bytes(data)
        try:
            with V1(str(x)) as checkpoint:
                values = {name: checkpoint.read(ref).tolist() for name, ref in checkpoint.inventory.variables.items()}
        except CheckpointError:
            pass  # one that is refused; any other exception ends the test
        else:
            undetected += 1
            assert values == {"a": [[1, 2, 3], [4, 5, 6]], "b": [1, -1]}
    assert undetected == 0


@pytest.mark.parametrize("count", [1, 5, 1000])
def test_varints_are_those_of_protobuf(count: int) -> None:
    random = np.random.default_rng(count)
    values = [
        int(v) >> int(s)
        for v, s in zip(random.integers(-(2**63), 2**63, count), random.integers(0, 63, count), strict=True)
    ]
    data = b"".join(writing.number(value) for value in values)

    assert _varints(data).tolist() == values


def test_a_file_that_changes_is_noticed(x: Path) -> None:
    with V1(write(x, [A])) as checkpoint:
        write(x, [B])
        with pytest.raises(CheckpointError, match="T2T609"):
            checkpoint.check_unchanged()
    with pytest.raises(ValueError, match="the checkpoint is closed"):
        checkpoint.read(checkpoint.inventory.variables["a"])
