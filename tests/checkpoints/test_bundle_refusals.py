"""One test for each way in which a bundle can be wrong."""

from __future__ import annotations

import os
import struct
import threading
from pathlib import Path

import google_crc32c
import ml_dtypes
import pytest

from t2t.checkpoints import entries
from t2t.checkpoints.bundle import Bundle
from t2t.problems import CheckpointError, Problem
from t2t.tensors import TensorRef
from tests.checkpoints.refusing import INDEX, SHARD, refused, texts, unread
from tests.checkpoints.writing import (
    Fixed32,
    Tensor,
    bundle,
    entry,
    floats,
    header,
    message,
    number,
    shape_of,
    table,
)

# The header.


def test_a_table_without_header_is_refused(x: Path) -> None:
    """TensorFlow takes the first tensor for it."""
    bundle(x, {})
    Path(f"{x}.index").write_bytes(table([(b"a", entry(floats(1), 0))]))

    assert refused(x) == f"{INDEX}: T2T604: the table has no header, so it is no checkpoint's index"


@pytest.mark.parametrize("first", [message((1, 1)), message((1, 1), (3, message((1, 99)))), header(1, (9, 5))])
def test_an_old_or_newer_header_that_allows_this_reader_is_read(x: Path, first: bytes) -> None:
    bundle(x, {"a": floats(1)}, first=first)

    with Bundle(str(x)) as checkpoint:
        assert checkpoint.read(checkpoint.inventory.variables["a"]) == 1


@pytest.mark.parametrize(
    ("first", "text"),
    [
        (b"", "T2T604: the header gives 0 data files"),
        (header(-1), "T2T604: the header gives -1 data files"),
        (header(2**30), "T2T611: the header gives 1073741824 data files, but at most 100000 are read"),
        (header(100_001), "T2T611: the header gives 100001 data files, but at most 100000 are read"),
        (header(1, (2, 7)), "T2T604: the header gives the byte order as 7, but only 0 and 1 exist"),
        (header(1, (3, message((1, -1)))), "T2T604: the header's version has the producer -1"),
        (
            header(1, (3, message((1, 9), (2, 2)))),
            "T2T606: written for a newer checkpoint format (readers of version 2 or later)",
        ),
        (header(1, (3, message((3, 1)))), "T2T606: written for other readers than those of format version 1"),
        (
            header(1, (3, message((3, number(7) + b"\1")))),
            "T2T606: written for other readers than those of format version 1",
        ),
        (message((1, b"1")), "T2T604: protobuf field 1 has the wire type 2, but needs 0"),
        (b"\xff", "T2T604: the number at byte 0 has no end"),
    ],
)
def test_a_wrong_header_is_refused(x: Path, first: bytes, text: str) -> None:
    bundle(x, {"a": floats(1)}, first=first)

    assert refused(x) == f"{INDEX}: {text}"


def test_a_hundred_thousand_shards_are_allowed() -> None:
    assert entries.header(header(100_000)).shards == 100_000


# Entries.


BIG = 2**62
WRONG_ENTRIES = {
    "a wire type that does not exist": (b"\x0b", "protobuf field 1 has the wire type 3"),
    "a known field of another wire type": (message((4, b"")), "protobuf field 4 has the wire type 2, but needs 0"),
    "a field that is cut off": (b"\x12\x7f", "protobuf field 2 claims 127 bytes, but 0 are left"),
    "a negative axis": (message((1, 1), (2, shape_of((-1,)))), "an axis has the size -1"),
    "an unknown rank": (message((1, 1), (2, message((3, 1)))), "the rank is unknown"),
    "too many axes": (message((1, 1), (2, shape_of((1,) * 255))), "the rank is 255, but TensorFlow has at most 254"),
    "a shard that does not exist": (
        message((1, 1), (3, 7)),
        "its bytes are in shard 7, but there are 1 shards",
    ),
    "a negative shard": (message((1, 1), (3, -1)), "its bytes are in shard -1, but there are 1 shards"),
    "a negative offset": (message((1, 1), (4, -8), (5, 4)), "its bytes have the offset -8 and the size 4"),
    "a negative size": (message((1, 1), (5, -4)), "its bytes have the offset 0 and the size -4"),
    "too few bytes": (
        message((1, 1), (2, shape_of((2, 3))), (5, 20)),
        "20 bytes are stored, but float32 [2, 3] needs 24",
    ),
    "bytes for an empty tensor": (
        message((1, 1), (2, shape_of((0,))), (5, 4)),
        "4 bytes are stored, but float32 [0] needs 0",
    ),
    "a product of axes over 64 bits": (
        message((1, 1), (2, shape_of((2**33, 2**33))), (5, 4)),
        f"its shape of 2 axes has more than {2**63 - 1} elements",
    ),
    "a product of axes that wraps to 0": (
        message((1, 1), (2, shape_of((BIG, 4)))),
        f"its shape of 2 axes has more than {2**63 - 1} elements",
    ),
    "more bytes than 64 bits can count": (
        message((1, 1), (2, shape_of((2**63 - 1,)))),
        f"0 bytes are stored, but float32 [{2**63 - 1}] needs {2**65 - 4}",
    ),
    **{
        f"thousands of digits of elements, {name}": (
            message((1, dtype), (2, shape_of((2**63 - 1,) * 254)), *more),
            f"its shape of 254 axes has more than {2**63 - 1} elements",
        )
        for name, dtype, more in (("variant", 21, ()), ("unknown", 99, ()), ("partitioned", 1, ((7, b"\n\0"),)))
    },
    "more strings than bytes": (
        message((1, 7), (2, shape_of((BIG,))), (5, 10)),
        f"10 bytes are stored, but string [{BIG}] needs at least {BIG + 4}",
    ),
}


@pytest.mark.parametrize(("value", "text"), WRONG_ENTRIES.values(), ids=WRONG_ENTRIES)
def test_a_wrong_entry_is_refused(x: Path, value: bytes, text: str) -> None:
    bundle(x, {"b": floats(1)}, rows={b"a": value})

    assert refused(x) == f"{INDEX}: T2T605: a: {text}"


def test_a_shape_over_the_limit_is_refused(x: Path) -> None:
    """However it is spread over fields, it is not put together first."""
    half = message((2, message((2, bytes(2**15 - 8)))))
    bundle(x, {"b": floats(1)}, rows={b"a": message((1, 1), (2, half), (2, half), (2, half))})

    text = f"its shape has {3 * len(half)} bytes, but at most 65536 are read"
    assert refused(x) == f"{INDEX}: T2T611: a: {text}"


def test_254_axes_are_allowed(x: Path) -> None:
    bundle(x, {"a": Tensor(1, (1,) * 254, b"1234")})

    with Bundle(str(x)) as checkpoint:
        assert len(checkpoint.inventory.variables["a"].shape) == 254


@pytest.mark.parametrize("offset", [2, 2**63 - 4])
def test_bytes_behind_the_end_of_the_data_file_are_refused(x: Path, offset: int) -> None:
    bundle(
        x, {"a": floats(1), "b": floats(2)}, fields={"b": [(4, offset + 4)]} if offset == 2 else {"b": [(4, offset)]}
    )
    offset = offset + 4 if offset == 2 else offset

    assert refused(x) == (
        f"{SHARD}: T2T607: b: needs bytes {offset} to {offset + 4}, but the file has 8; "
        "the file is cut off, or of another save: copy it again"
    )


def test_a_data_file_that_is_cut_off_is_reported_once(x: Path) -> None:
    bundle(x, {"a": floats(1, 2), "b": floats(3), "c": floats(4)})
    os.truncate(f"{x}.data-00000-of-00001", 7)

    assert refused(x) == (
        f"{SHARD}: T2T607: a: needs bytes 0 to 8, but the file has 7 (the same for 2 more variables); "
        "the file is cut off, or of another save: copy it again"
    )


def test_a_claim_of_terabytes_is_refused_by_the_size_of_the_file(x: Path) -> None:
    size = 2**42
    bundle(x, {"a": floats(1)}, rows={b"b": message((1, 4), (2, shape_of((size,))), (5, size))})

    assert refused(x).startswith(f"{SHARD}: T2T607: b: needs bytes 0 to {size}, but the file has 4; ")


def test_tensors_that_share_bytes_are_refused(x: Path) -> None:
    """TensorFlow reads them, and a small file could then fill any memory."""
    bundle(x, {"a": floats(1, 2), "b": floats(3, 4)}, fields={"b": [(4, 4)]})

    assert refused(x) == f"{INDEX}: T2T605: b: its bytes are also those of a"


def test_empty_tensors_at_one_place_share_nothing(x: Path) -> None:
    bundle(x, {"a": floats(), "b": floats(), "c": floats(1), "d": floats()})

    with Bundle(str(x)) as checkpoint:
        assert len(checkpoint.inventory.variables) == 4


# Files.


def test_every_missing_shard_is_reported(x: Path) -> None:
    bundle(x, {"a": floats(1)}, shards=3)
    for shard in (1, 2):
        os.remove(f"{x}.data-0000{shard}-of-00003")

    with pytest.raises(CheckpointError) as caught:
        Bundle(str(x))
    assert texts(caught, x.parent) == [
        f"x.data-0000{i}-of-00003: T2T607: shard {i} of 3 missing: x.data-0000{i}-of-00003; "
        "the save or the copy is incomplete"
        for i in (1, 2)
    ]


def test_a_shard_that_is_a_directory_is_refused(x: Path) -> None:
    bundle(x, {})
    os.remove(f"{x}.data-00000-of-00001")
    os.mkdir(f"{x}.data-00000-of-00001")

    assert refused(x) == f"{SHARD}: T2T602: not a regular file"


def test_a_shard_that_is_a_looping_link_is_refused(x: Path) -> None:
    bundle(x, {})
    os.remove(f"{x}.data-00000-of-00001")
    os.symlink(f"{x}.data-00000-of-00001", f"{x}.data-00000-of-00001")

    assert refused(x) == f"{SHARD}: T2T602: cannot be opened: too many levels of symbolic links"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that cannot be read")
def test_an_index_that_the_system_cannot_read_is_refused(x: Path) -> None:
    bundle(x, {})
    os.remove(f"{x}.index")
    os.symlink("/proc/self/mem", f"{x}.index")

    assert refused(x) == f"{INDEX}: T2T602: cannot be read: input/output error"


def test_shards_of_another_save_are_noted(x: Path) -> None:
    bundle(x, {"a": floats(1)}, shards=3)
    bundle(x, {"a": floats(1)}, shards=2)

    with Bundle(str(x)) as checkpoint:
        (note,) = checkpoint.notes
    assert (note.severity, str(note).replace(f"{x.parent}/", "")) == (
        "warning",
        f"{INDEX}: T2T613: data files of another save (of 3 shards) lie beside those of this checkpoint (of 2 shards); "
        "they are not read: remove them",
    )


def test_symlinks_are_followed(x: Path, tmp_path: Path) -> None:
    bundle(x, {"a": floats(1)})
    folder = tmp_path / "links"
    folder.mkdir()
    for name in (INDEX, SHARD):
        (folder / name).symlink_to(tmp_path / name)

    with Bundle(str(folder / "x")) as checkpoint:
        assert checkpoint.read(checkpoint.inventory.variables["a"]) == 1


def test_an_index_over_the_limit_is_refused_unread(x: Path) -> None:
    bundle(x, {})
    os.truncate(f"{x}.index", 2**28 + 1)

    assert refused(x) == f"{INDEX}: T2T611: the file has 268435457 bytes, but at most 268435456 are read"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "T2T604: empty file"),
        (b"x" * 100, "T2T604: the file does not end with the magic number of a table"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "T2T603: this is a Git LFS pointer, not the file itself; run git lfs pull",
        ),
        (b"\n <!DOCTYPE html><html>", "T2T603: this is an HTML page; download the file itself"),
    ],
)
def test_an_index_that_is_something_else_is_named(x: Path, content: bytes, text: str) -> None:
    bundle(x, {})
    Path(f"{x}.index").write_bytes(content)

    assert refused(x) == f"{INDEX}: {text}"


# Values.


def damage(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_a_flipped_bit_fails_the_checksum(x: Path, tmp_path: Path) -> None:
    bundle(x, {"a": floats(0), "b": floats(1, 2)})
    damage(tmp_path / SHARD, 5)
    stored, computed = (
        google_crc32c.value(data)
        for data in (struct.pack("<2f", 1, 2), struct.pack("<2f", 1, 2)[:1] + b"\1\x80\x3f\0\0\0\x40")
    )

    with Bundle(str(x)) as checkpoint:
        assert unread(checkpoint, "b") == [
            f"{SHARD}: T2T608: b: checksum mismatch, shard 0, offset 4 "
            f"(stored 0x{stored:08x}, computed 0x{computed:08x}); the file is damaged: copy it again"
        ]
        assert checkpoint.read(checkpoint.inventory.variables["a"]) == 0


@pytest.mark.parametrize("tensor", [floats(1), floats()])
def test_a_missing_checksum_is_a_mismatch(x: Path, tensor: Tensor) -> None:
    bundle(x, {"a": tensor}, fields={"a": [(6, Fixed32(0))]})

    with Bundle(str(x)) as checkpoint:
        assert "checksum mismatch" in unread(checkpoint, "a")[0]
    with Bundle(str(x), checksums=False) as checkpoint:
        assert checkpoint.read(checkpoint.inventory.variables["a"]).tobytes() == tensor.data


def test_a_bool_that_is_neither_0_nor_1_is_refused(x: Path) -> None:
    bundle(x, {"a": Tensor(10, (4,), b"\0\1\2\xff"), "b": Tensor(10, (2,), b"\0\1"), "c": Tensor(10, (0,), b"")})

    with Bundle(str(x)) as checkpoint:
        message = "a: a bool is stored as the byte 255, but can only be 0 or 1"
        assert unread(checkpoint, "a") == [f"{SHARD}: T2T606: {message}"]
        assert checkpoint.read(checkpoint.inventory.variables["b"]).tolist() == [False, True]
        assert checkpoint.read(checkpoint.inventory.variables["c"]).tolist() == []


def test_bits_of_nan_and_minus_zero_are_kept(x: Path) -> None:
    halves = struct.pack("<4H", 0x7FC1, 0xFFFF, 0x8000, 0x7F80)
    bundle(x, {"a": Tensor(14, (4,), halves)})

    with Bundle(str(x)) as checkpoint:
        values = checkpoint.read(checkpoint.inventory.variables["a"])
        assert values.dtype == ml_dtypes.bfloat16
        assert values.tobytes() == halves


def test_no_memory_for_a_tensor_is_refused(x: Path, tmp_path: Path) -> None:
    """A sparse file can be larger than any memory."""
    size = 2**47
    bundle(x, {"a": floats(1)})

    with Bundle(str(x)) as checkpoint, pytest.raises(CheckpointError) as caught:
        checkpoint.read(TensorRef("b", "uint8", (size,), nbytes=size, crc32c=0))
    assert texts(caught, tmp_path) == [f"{SHARD}: T2T611: b: no memory for its {size} bytes"]


def test_what_the_system_says_is_reported(x: Path, tmp_path: Path) -> None:
    bundle(x, {"a": floats(1)})

    with Bundle(str(x)) as checkpoint, pytest.raises(CheckpointError) as caught:
        checkpoint.read(TensorRef("b", "uint8", (1,), offset=-2, nbytes=1))
    assert texts(caught, tmp_path) == [f"{SHARD}: T2T602: b: cannot be read: invalid argument"]


# A checkpoint that changes.


def test_a_data_file_that_shrinks_while_it_is_open_is_refused(x: Path, tmp_path: Path) -> None:
    bundle(x, {"a": floats(1), "b": floats(*range(1000))})

    with Bundle(str(x)) as checkpoint:
        variables = checkpoint.inventory.variables
        checkpoint.read(variables["a"])
        os.truncate(tmp_path / SHARD, 1000)
        with pytest.raises(CheckpointError) as caught:
            checkpoint.read(variables["b"])
        assert texts(caught, tmp_path) == [
            f"{SHARD}: T2T607: b: the file ends at byte 1000, but had more when it was opened"
        ]
        with pytest.raises(CheckpointError) as caught:
            checkpoint.view(variables["b"])
        assert texts(caught, tmp_path) == [
            f"{SHARD}: T2T609: the file changed while it was read; wait until the save is complete"
        ]


def test_a_data_file_that_shrinks_in_the_middle_of_a_read_is_refused(x: Path, tmp_path: Path) -> None:
    content = bytes(64 * 2**20)
    bundle(x, {"a": Tensor(4, (len(content),), content)})
    with Bundle(str(x)) as checkpoint:
        ref = checkpoint.inventory.variables["a"]
        thread = threading.Thread(target=os.truncate, args=(tmp_path / SHARD, 100))
        thread.start()
        problems: tuple[Problem, ...] = ()
        try:
            assert checkpoint.read(ref).tobytes() == content
        except CheckpointError as error:
            problems = error.problems
        thread.join()
        assert {problem.code for problem in problems} <= {"T2T607", "T2T608", "T2T609"}
        with pytest.raises(CheckpointError):
            checkpoint.check_unchanged()


@pytest.mark.parametrize("name", [INDEX, SHARD])
def test_a_file_that_was_replaced_is_noticed(x: Path, tmp_path: Path, name: str) -> None:
    bundle(x, {"a": floats(1)})

    with Bundle(str(x)) as checkpoint:
        checkpoint.check_unchanged()
        (tmp_path / "new").write_bytes((tmp_path / name).read_bytes())
        os.replace(tmp_path / "new", tmp_path / name)
        with pytest.raises(CheckpointError) as caught:
            checkpoint.check_unchanged()
        text = "the file changed while it was read; wait until the save is complete"
        assert texts(caught, tmp_path) == [f"{name}: T2T609: {text}"]

        os.remove(tmp_path / name)
        with pytest.raises(CheckpointError) as caught:
            checkpoint.check_unchanged()
        text = "the file changed while it was read: no such file or directory"
        assert texts(caught, tmp_path) == [f"{name}: T2T609: {text}"]


def test_a_data_file_that_was_replaced_before_the_first_read_is_noticed(x: Path, tmp_path: Path) -> None:
    bundle(x, {"a": floats(1)})

    with Bundle(str(x)) as checkpoint:
        bundle(x, {"a": floats(2)})
        os.utime(tmp_path / SHARD, ns=(1, 1))
        text = "the file changed while it was read; wait until the save is complete"
        assert unread(checkpoint, "a") == [f"{SHARD}: T2T609: {text}"]
