"""
Boxes: which elements of a tensor somebody speaks of, without touching one of them.

A box is a half-open range for each axis, as integers: all of a 10 GB tensor costs what one element does. A scalar's box
is (), which holds one element.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from t2t.tensors import Shape

Box = tuple[tuple[int, int], ...]

#: What `slice` and `into` say of one axis: start and stop, None where they are left out.
Bounds = tuple[int | None, int | None]

_BOUNDS = re.compile(r"\s*(-?[0-9]{1,18})?\s*:\s*(-?[0-9]{1,18})?\s*")


class BoundsError(ValueError):
    """Bounds that cannot be read or lie outside. The text is one short cause."""


def bounds(text: str) -> Bounds:
    """`4:8`, `:4`, `-1:` as numbers. Raises BoundsError for anything else."""
    match = _BOUNDS.fullmatch(text)
    if match is None:
        raise BoundsError(f"'{text[:40]}' is not start:stop")
    return int(match[1]) if match[1] else None, int(match[2]) if match[2] else None


def box(shape: Shape, given: Sequence[Bounds]) -> Box:
    """
    The box of these bounds in a tensor of this shape; axes without bounds are whole.

    Raises BoundsError for more bounds than axes, a bound outside its axis, and a range that holds nothing.
    """
    if len(given) > len(shape):
        raise BoundsError(f"has {len(given)} entries, but the rank is {len(shape)}: {list(shape)}")
    found = []
    for axis, size in enumerate(shape):
        start, stop = given[axis] if axis < len(given) else (None, None)
        for bound in (start, stop):
            if bound is not None and not -size <= bound <= size:
                raise BoundsError(f"has the bound {bound} on axis {axis}, whose size is {size}")
        first = 0 if start is None else start + size if start < 0 else start
        last = size if stop is None else stop + size if stop < 0 else stop
        if first > last or (first == last and size):
            raise BoundsError(f"has nothing on axis {axis}: from {first} to {last} of {size}")
        found.append((first, last))
    return tuple(found)


def whole(shape: Shape) -> Box:
    """The box of a whole tensor."""
    return tuple((0, size) for size in shape)


def shape_of(box: Box) -> Shape:
    """The box's sizes."""
    return tuple(stop - start for start, stop in box)


def volume(box: Box) -> int:
    """How many elements it holds."""
    return math.prod(stop - start for start, stop in box)


def text(box: Box, shape: Shape) -> str:
    """`[0:4, :]` in a tensor of this shape."""
    ranges = [":" if pair == (0, size) else f"{pair[0]}:{pair[1]}" for pair, size in zip(box, shape, strict=True)]
    return f"[{', '.join(ranges)}]"


def overlapping(boxes: Sequence[Box]) -> tuple[int, int] | None:
    """The positions of two boxes that share an element, None where none do."""
    if not boxes:
        return None
    # Along the axis on which most of them begin elsewhere, few are open at a time.
    rank = len(boxes[0])
    axis = max(range(rank), key=lambda axis: len({box[axis][0] for box in boxes}), default=None)
    order = sorted((position for position in range(len(boxes)) if volume(boxes[position])), key=lambda i: boxes[i])
    if axis is not None:
        order.sort(key=lambda i: boxes[i][axis][0])
    still: list[int] = []
    for position in order:
        one = boxes[position]
        if axis is not None:
            still = [other for other in still if boxes[other][axis][1] > one[axis][0]]
        for other in still:
            pairs = zip(one, boxes[other], strict=True)
            if all(mine[0] < theirs[1] and theirs[0] < mine[1] for mine, theirs in pairs):
                return min(position, other), max(position, other)
        still.append(position)
    return None


def rest(everything: Box, boxes: Sequence[Box]) -> list[Box]:
    """What of `everything` no box holds, as boxes that do not overlap."""
    if not volume(everything):
        return []
    inside = []
    for box in boxes:
        clipped = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(everything, box, strict=True))
        if all(start < stop for start, stop in clipped):
            inside.append(clipped)
    if not inside:
        return [everything]
    if everything in inside:
        return []
    # Cut in two at the middle of all the bounds inside, on the axis that has most of them: each side gets half of them.
    cuts = [
        sorted({bound for box in inside for bound in box[axis] if start < bound < stop})
        for axis, (start, stop) in enumerate(everything)
    ]
    axis = max(range(len(cuts)), key=lambda axis: len(cuts[axis]))
    cut = cuts[axis][len(cuts[axis]) // 2]
    start, stop = everything[axis]
    left = rest((*everything[:axis], (start, cut), *everything[axis + 1 :]), inside)
    right = rest((*everything[:axis], (cut, stop), *everything[axis + 1 :]), inside)
    if left and right and left[-1][axis][1] == right[0][axis][0] and _same_across(left[-1], right[0], axis):
        merged = (*left[-1][:axis], (left[-1][axis][0], right[0][axis][1]), *left[-1][axis + 1 :])
        return [*left[:-1], merged, *right[1:]]
    return left + right


def _same_across(one: Box, two: Box, axis: int) -> bool:
    return one[:axis] == two[:axis] and one[axis + 1 :] == two[axis + 1 :]
