"""Boxes: held against numpy's own slicing and counting, on tensors small enough to count."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2t import boxes
from t2t.boxes import BoundsError, Box

SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)


@st.composite
def shape_and_boxes(draw: st.DrawFn) -> tuple[tuple[int, ...], list[Box]]:
    shape = draw(SHAPES)
    one = st.tuples(*(st.tuples(st.integers(0, n), st.integers(0, n)).map(sorted).map(tuple) for n in shape))
    return shape, draw(st.lists(one, max_size=6))


def marked(shape: tuple[int, ...], boxes_: list[Box]) -> np.ndarray:
    count = np.zeros(shape, int)
    for box in boxes_:
        count[tuple(slice(start, stop) for start, stop in box)] += 1
    return count


@given(shape_and_boxes())
def test_the_rest_is_what_numpy_finds_unmarked_each_element_once(case: tuple[tuple[int, ...], list[Box]]) -> None:
    shape, given_boxes = case
    rest = boxes.rest(boxes.whole(shape), given_boxes)

    assert np.array_equal(marked(shape, rest), marked(shape, given_boxes) == 0)


@given(shape_and_boxes())
def test_two_boxes_overlap_where_numpy_counts_an_element_twice(case: tuple[tuple[int, ...], list[Box]]) -> None:
    shape, given_boxes = case
    found = boxes.overlapping(given_boxes)

    assert (found is not None) == bool((marked(shape, given_boxes) > 1).any())
    if found is not None:
        assert (marked(shape, [given_boxes[position] for position in found]) == 2).any()


@given(SHAPES, st.data())
def test_bounds_are_pythons_own_slices_or_refused(shape: tuple[int, ...], data: st.DataObject) -> None:
    bound = st.none() | st.integers(-6, 6)
    given_bounds = data.draw(st.lists(st.tuples(bound, bound), max_size=len(shape)))
    try:
        box = boxes.box(shape, given_bounds)
    except BoundsError:
        return

    array = np.arange(int(np.prod(shape))).reshape(shape)
    ours = array[tuple(slice(start, stop) for start, stop in box)]
    assert np.array_equal(ours, array[tuple(slice(start, stop) for start, stop in given_bounds)])
    assert boxes.shape_of(box) == ours.shape
    assert boxes.volume(box) == ours.size


@pytest.mark.parametrize(
    ("shape", "texts", "message"),
    [
        ((4,), [":", ":"], "has 2 entries, but the rank is 1: [4]"),
        ((), [":"], "has 1 entries, but the rank is 0: []"),
        ((4, 3), [":", "1:5"], "has the bound 5 on axis 1, whose size is 3"),
        ((4,), ["-5:"], "has the bound -5 on axis 0, whose size is 4"),
        ((4,), ["3:2"], "has nothing on axis 0: from 3 to 2 of 4"),
        ((4,), ["2:2"], "has nothing on axis 0: from 2 to 2 of 4"),
    ],
)
def test_bounds_outside_are_refused(shape: tuple[int, ...], texts: list[str], message: str) -> None:
    with pytest.raises(BoundsError) as error:
        boxes.box(shape, [boxes.bounds(text) for text in texts])

    assert str(error.value) == message


@pytest.mark.parametrize("text", ["", "4", "1:2:3", "a:b", "1.5:2", ":" + "9" * 30, "<i>:"])
def test_what_is_not_start_stop_is_refused(text: str) -> None:
    with pytest.raises(BoundsError, match="is not start:stop"):
        boxes.bounds(text)


def test_a_box_is_shown_as_one_would_write_it() -> None:
    assert boxes.text(((0, 4), (1, 2)), (4, 3)) == "[:, 1:2]"
    assert boxes.text((), ()) == "[]"


def test_a_huge_tensor_costs_what_a_small_one_does() -> None:
    """Ten slices of 10 GB: nothing here depends on how many elements there are."""
    size = 10**10
    cuts = [((i * size, (i + 1) * size), (0, 1)) for i in range(10)]
    start = time.perf_counter()

    assert boxes.overlapping(cuts) is None
    assert boxes.rest(((0, 10 * size), (0, 2)), cuts) == [((0, 10 * size), (1, 2))]
    assert time.perf_counter() - start < 5
