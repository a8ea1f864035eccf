"""The keys of parts, and which parts make a whole."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2t.checkpoints.protobuf import Corrupt
from t2t.checkpoints.slices import MAX_PARTS, Extents, boxes, extents, part_key, part_of
from tests.checkpoints.writing import message

#: What TensorFlow writes for these numbers.
NUMBERS = {
    0: "80",
    -1: "7f",
    63: "bf",
    64: "c040",
    8191: "dfff",
    8192: "e02000",
    100000: "e186a0",
    0x424242: "f0424242",
}


@pytest.mark.parametrize(("value", "stored"), NUMBERS.items())
def test_a_key_is_what_tensorflow_makes_of_it(value: int, stored: str) -> None:
    assert part_key(b"foo", ((0, -1), (value, 1))).hex() == f"00666f6f00010102807f{stored}81"
    assert part_key(b"\0\xff", ()).hex() == "0000ffff00000100"


@given(st.binary(max_size=5), st.lists(st.tuples(st.integers(-1, 2**63 - 1), st.integers(-1, 2**63 - 1)), max_size=4))
def test_a_key_gives_back_what_it_was_made_from(name: bytes, place: list[tuple[int, int]]) -> None:
    assert part_of(part_key(name, tuple(place))) == (name, tuple(place))


@given(st.binary(max_size=30).map(lambda tail: b"\0a\0\1" + tail))
def test_other_keys_are_not_keys_of_parts(key: bytes) -> None:
    found = part_of(key)
    assert found is None or part_key(*found) == key


def test_a_place_is_decoded() -> None:
    assert extents(message((1, message((1, 3), (2, 5))), (1, b""), (1, message((2, 2))), (9, 1))) == (
        (3, 5),
        (0, -1),
        (0, 2),
    )


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (message((1, message((2, -2)))), "a part has the length -2"),
        (message((1, 5)), "protobuf field 1 has the wire type 0, but needs 2"),
        (message((1, message((1, b"")))), "protobuf field 1 has the wire type 2, but needs 0"),
        (message((9, bytes(2**16))), "a part's place has 65540 bytes, but at most 65536 are read"),
    ],
)
def test_a_wrong_place_is_refused(data: bytes, text: str) -> None:
    with pytest.raises(Corrupt) as caught:
        extents(data)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("shape", "parts", "text"),
    [
        ((4,), [], "it has no parts"),
        ((4,), [((0, 4), (0, 1))], "its part [0:4, 0:1] has 2 axes, but the shape has 1"),
        ((4,), [((-1, 4),)], "its part [-1:3] is not inside axis 0, which has the size 4"),
        ((4, 4), [((0, -1), (2, 3))], "its part [:, 2:5] is not inside axis 1, which has the size 4"),
        ((4,), [((2**63 - 1, 2**63 - 1),)], f"its part [{2**63 - 1}:{2**64 - 2}] is not inside axis 0, which has the"),
        ((4,), [((1, -1),)], "its part [1:0] is not inside axis 0, which has the size 4"),
        ((4,), [((0, 2),), ((1, 3),)], "its parts [0:2] and [1:4] overlap"),
        ((4,), [((0, 3),), ((2, 1),)], "its parts [0:3] and [2:3] overlap"),
        ((4,), [((0, 2),), ((3, 1),)], "its parts leave a hole: they have 3 elements, but the shape has 4"),
        ((), [(), ()], "its parts [] and [] overlap"),
        ((2**62,) * 1, [((0, 1),)], f"its parts leave a hole: they have 1 elements, but the shape has {2**62}"),
    ],
)
def test_parts_that_are_not_the_whole_are_refused(shape: tuple[int, ...], parts: list[Extents], text: str) -> None:
    with pytest.raises(Corrupt) as caught:
        boxes(shape, parts)
    assert str(caught.value).startswith(text)
    assert caught.value.code == "T2T604"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_very_many_parts_are_checked_quickly(axis: int) -> None:
    shape = tuple(MAX_PARTS if i == axis else 3 for i in range(3))
    parts = [tuple((n, 1) if i == axis else (0, -1) for i in range(3)) for n in range(MAX_PARTS)]
    assert len(boxes(shape, parts)) == MAX_PARTS

    with pytest.raises(Corrupt, match="its parts overlap: they have 900000 elements, and the shape has 900000"):
        boxes(shape, [*parts[:-1], parts[-2]])


def test_what_would_take_too_long_is_refused() -> None:
    with pytest.raises(Corrupt) as caught:
        boxes((1,), [((0, 1),)] * (MAX_PARTS + 1))
    assert (str(caught.value), caught.value.code) == (
        f"it has {MAX_PARTS + 1} parts, but at most 100000 are read",
        "T2T611",
    )

    halves = list(itertools.product([(0, 1), (1, 1)], repeat=12))
    with pytest.raises(Corrupt) as caught:
        boxes((2,) * 12, halves)
    assert caught.value.code == "T2T611"
    assert str(caught.value) == "its 4096 parts cut 12 axes, which are too many places to check"


def _extents_of(size: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.sampled_from([(start, stop - start) for stop in range(size + 1) for start in range(stop + 1)])


@given(st.data())
def test_only_a_tiling_is_taken(data: st.DataObject) -> None:
    """Painting every box says the same."""
    shape = tuple(data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=3)))
    part = st.tuples(*(_extents_of(size) for size in shape))
    parts = data.draw(st.lists(part, min_size=1, max_size=4))
    painted = np.zeros(shape, int)
    for place in parts:
        painted[tuple(slice(start, start + length) for start, length in place)] += 1
    try:
        found = boxes(shape, parts)
    except Corrupt:
        assert (painted != 1).any()
    else:
        assert (painted == 1).all()
        assert len(found) == len(parts)
