"""Partitioned variables: what is read, and one test for each way in which parts can be wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from t2t.checkpoints.bundle import Bundle
from t2t.checkpoints.slices import Extents, part_key
from tests.checkpoints.refusing import INDEX, SHARD, refused, unread
from tests.checkpoints.writing import Tensor, bundle, floats, header, message, shape_of

TOP, LEFT, RIGHT = ((0, 1), (0, -1)), ((1, 2), (0, 1)), ((1, 2), (1, 1))
VALUES = {TOP: (1, 2), LEFT: (3, 5), RIGHT: (4, 6)}


def place_of(place: Extents) -> bytes:
    pairs = [[(1, start)] * (start != 0) + [(2, length)] * (length != -1) for start, length in place]
    return message(*((1, message(*pair)) for pair in pairs))


def name_of(name: bytes, place: Extents) -> str:
    return part_key(name, place).decode("utf-8", "surrogateescape")


def whole(shape: tuple[int, ...], places: Sequence[Extents], dtype: int = 1) -> bytes:
    return message((1, dtype), (2, shape_of(shape)), *((7, place_of(place)) for place in places))


def parts(shards: int = 1) -> dict[str, Tensor]:
    shapes = {TOP: (1, 2), LEFT: (2, 1), RIGHT: (2, 1)}
    return {
        name_of(b"foo", place): floats(*values, shape=shapes[place], shard=(2 * i) % shards)
        for i, (place, values) in enumerate(VALUES.items())
    }


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("order", [(TOP, LEFT, RIGHT), (RIGHT, TOP, LEFT)])
def test_parts_are_put_together(x: Path, shards: int, order: list[Extents]) -> None:
    bundle(x, {**parts(shards), "b": floats(7)}, shards=shards, rows={b"foo": whole((3, 2), order)})

    with Bundle(str(x)) as checkpoint:
        ref = checkpoint.inventory.variables["foo"]
        assert list(checkpoint.inventory.variables) == ["b", "foo"]
        assert (ref.dtype, ref.shape, ref.shard, ref.offset, ref.nbytes) == ("float32", (3, 2), 0, 0, 24)
        for values in (checkpoint.read(ref), checkpoint.view(ref), checkpoint.read(ref, np.full(30, 255, np.uint8))):
            assert values.tolist() == [[1, 2], [3, 4], [5, 6]]
        assert checkpoint.notes == ()


def test_a_big_endian_partitioned_variable_reads(x: Path) -> None:
    stored = {
        place: Tensor(1, (2,), struct.pack(">2f", *values))
        for place, values in {((0, 2),): (1, 2), ((2, 2),): (3, 4)}.items()
    }
    tensors = {name_of(b"a", place): tensor for place, tensor in stored.items()}
    bundle(x, tensors, first=header(1, (2, 1)), rows={b"a": whole((4,), list(stored))})

    with Bundle(str(x)) as checkpoint:
        assert checkpoint.read(checkpoint.inventory.variables["a"]).tolist() == [1, 2, 3, 4]


def test_a_scalar_of_one_part_reads(x: Path) -> None:
    bundle(x, {name_of(b"a", ()): floats(5, shape=())}, rows={b"a": whole((), [()])[:0] + message((1, 1), (7, b""))})

    with Bundle(str(x)) as checkpoint:
        assert checkpoint.read(checkpoint.inventory.variables["a"]).tolist() == 5


ONE, TWO = ((0, 1),), ((1, 1),)


@pytest.mark.parametrize(
    ("shape", "stored", "places", "text"),
    [
        ((2,), {ONE: floats(1)}, [ONE, TWO], "its part [1:2] is not in the index"),
        (
            (2,),
            {ONE: floats(1), TWO: Tensor(3, (1,), b"1234")},
            [ONE, TWO],
            "its part [1:2] is int32 [1], but should be float32 [1]",
        ),
        (
            (2,),
            {ONE: floats(1), TWO: floats(1, 2)},
            [ONE, TWO],
            "its part [1:2] is float32 [2], but should be float32 [1]",
        ),
        (
            (3,),
            {ONE: floats(1), TWO: floats(2)},
            [ONE, TWO],
            "its parts leave a hole: they have 2 elements, but the shape has 3",
        ),
        ((2,), {ONE: floats(1)}, [ONE, ONE], "its parts [0:1] and [0:1] overlap"),
        ((1,), {ONE: floats(1)}, [ONE, TWO], "its part [1:2] is not inside axis 0, which has the size 1"),
        ((1,), {ONE: floats(1)}, [((-1, 1),)], "its part [-1:0] is not inside axis 0, which has the size 1"),
        ((1,), {}, [()], "its part [] has 0 axes, but the shape has 1"),
    ],
)
def test_wrong_parts_are_refused(
    x: Path, shape: tuple[int, ...], stored: dict[Extents, Tensor], places: list[Extents], text: str
) -> None:
    tensors = {name_of(b"foo", place): tensor for place, tensor in stored.items()}
    bundle(x, tensors, rows={b"foo": whole(shape, places)})

    assert refused(x) == f"{INDEX}: T2T605: foo: {text}"


def test_a_part_that_is_partitioned_is_refused(x: Path) -> None:
    bundle(x, {}, rows={b"a": whole((1,), [ONE]), part_key(b"a", ONE): whole((1,), [ONE])})

    assert "is a partitioned variable itself, but should be float32 [1]" in refused(
        x
    ) or "is not in the index" in refused(x)


def test_damage_in_a_part_names_the_part(x: Path, tmp_path: Path) -> None:
    bundle(x, parts(), rows={b"foo": whole((3, 2), list(VALUES))})
    data = bytearray((tmp_path / SHARD).read_bytes())
    data[9] ^= 1
    (tmp_path / SHARD).write_bytes(data)

    with Bundle(str(x)) as checkpoint:
        (text,) = unread(checkpoint, "foo")
    assert text.startswith(f"{SHARD}: T2T608: foo [1:3, 0:1]: checksum mismatch, shard 0, offset 8 (stored 0x")
    with Bundle(str(x), checksums=False) as checkpoint:
        checkpoint.read(checkpoint.inventory.variables["foo"])


def test_a_part_behind_the_end_of_the_file_is_named(x: Path, tmp_path: Path) -> None:
    bundle(x, parts(), rows={b"foo": whole((3, 2), list(VALUES))})
    (tmp_path / SHARD).write_bytes(bytes(20))

    assert refused(x) == (
        f"{SHARD}: T2T607: foo [1:3, 1:2]: needs bytes 16 to 24, but the file has 20; "
        "the file is cut off, or of another save: copy it again"
    )


def test_parts_of_no_variable_are_noted(x: Path) -> None:
    bundle(x, {**parts(), "\0other\0\1": floats(2), "\0": floats(3)})

    with Bundle(str(x)) as checkpoint:
        assert list(checkpoint.inventory.variables) == ["\0", "\0other\0\1"]
        (note,) = checkpoint.notes
    assert (note.severity, str(note).replace(f"{x.parent}/", "")) == (
        "warning",
        f"{INDEX}: T2T616: foo [0:1, :] and 2 more: parts that belong to no variable; they are not read",
    )


def test_values_of_parts_make_another_checkpoint(tmp_path: Path) -> None:
    """A partitioned variable's own entry has no checksum: those of its parts decide which weights these are."""
    digests = []
    for number, values in enumerate([(1, 2), (1, 2), (1, 3), (2, 1)]):
        tensors = {name_of(b"foo", ((i, 1),)): floats(value) for i, value in enumerate(values)}
        prefix = bundle(tmp_path / str(number), tensors, rows={b"foo": whole((2,), [ONE, TWO])})
        with Bundle(prefix) as checkpoint:
            digests.append(checkpoint.inventory.digest)

    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
