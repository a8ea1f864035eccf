"""
Boxes: which elements of a tensor somebody speaks of, without touching one of them.

A box is a half-open range for each axis, as integers: all of a 10 GB tensor costs what one element does. A scalar's box
is (), which holds one element.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence

from t2t.tensors import Shape

Box = tuple[tuple[int, int], ...]

#: What `slice` and `into` say of one axis: start and stop, None where they are left out.
Bounds = tuple[int | None, int | None]

_BOUNDS = re.compile(r"\s*(-?[0-9]{1,18})?\s*:\s*(-?[0-9]{1,18})?\s*")


#: How often a box may be looked at: thousands of slices across each other take more, and no honest mapping has those.
MAX_WORK = 20_000_000


class TooManyError(ValueError):
    """More boxes, across each other in more ways, than can be accounted for. The text is one short cause."""


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
    """The positions of two boxes that share an element, None where none do. Raises TooManyError."""
    partners = overlaps(boxes)
    one = next((position for position, partner in enumerate(partners) if partner is not None), None)
    return None if one is None else (one, partners[one] or 0)


def overlaps(boxes: Sequence[Box]) -> list[int | None]:
    """
    For each box the position of another that shares an element with it, None where none does.

    Raises TooManyError where that takes more work than an honest mapping needs.
    """
    partners: list[int | None] = [None] * len(boxes)
    full = [position for position, box in enumerate(boxes) if volume(box)]
    if len(full) < 2:
        return partners
    rank = len(boxes[0])
    for axis in range(rank):
        # Mostly the boxes lie one after the other along some axis.
        ranges = sorted(boxes[position][axis] for position in full)
        if all(one[1] <= other[0] for one, other in itertools.pairwise(ranges)):
            return partners
    everything = tuple(
        (min(boxes[i][axis][0] for i in full), max(boxes[i][axis][1] for i in full)) for axis in range(rank)
    )
    left = MAX_WORK
    waiting = [(everything, [(position, boxes[position]) for position in full])]
    while waiting:
        cell, inside = waiting.pop()
        left -= len(inside)
        if left < 0:
            raise TooManyError(f"{len(boxes)} slices lie across each other in too many ways")
        if len(inside) < 2 or all(partners[position] is not None for position, _ in inside):
            continue
        cover = next((position for position, box in inside if box == cell), None)
        if cover is not None:
            # It shares an element with each of the others.
            for position, _ in inside:
                if position != cover:
                    partners[position] = cover if partners[position] is None else partners[position]
                    partners[cover] = position if partners[cover] is None else partners[cover]
            continue
        for part in _halves(cell, [box for _, box in inside]):
            clipped = ((position, _clipped(part, box)) for position, box in inside)
            waiting.append((part, [(position, box) for position, box in clipped if box is not None]))
    return partners


def _clipped(everything: Box, box: Box) -> Box | None:
    """What of the box lies inside, None where nothing does."""
    clipped = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(everything, box, strict=True))
    return clipped if all(start < stop for start, stop in clipped) else None


def _halves(everything: Box, inside: Sequence[Box]) -> tuple[Box, Box]:
    """
    Cut in two at the middle of all the bounds inside, on the axis that has most of them.

    No box inside is everything, so there is a bound to cut at; each side gets half of that axis' bounds.
    """
    cuts = [
        sorted({bound for box in inside for bound in box[axis] if start < bound < stop})
        for axis, (start, stop) in enumerate(everything)
    ]
    axis = max(range(len(cuts)), key=lambda axis: len(cuts[axis]))
    cut = cuts[axis][len(cuts[axis]) // 2]
    start, stop = everything[axis]
    before, after = everything[:axis], everything[axis + 1 :]
    return (*before, (start, cut), *after), (*before, (cut, stop), *after)


def rest(everything: Box, boxes: Sequence[Box]) -> list[Box]:
    """What of `everything` no box holds, as boxes that do not overlap. Raises TooManyError."""
    return _rest(everything, boxes, [MAX_WORK])


def _rest(everything: Box, boxes: Sequence[Box], left: list[int]) -> list[Box]:
    if not volume(everything):
        return []
    inside = [clipped for box in boxes if (clipped := _clipped(everything, box)) is not None]
    left[0] -= len(boxes)
    if left[0] < 0:
        raise TooManyError(f"{len(boxes)} slices lie across each other in too many ways")
    if not inside:
        return [everything]
    if everything in inside:
        return []
    one, two = _halves(everything, inside)
    found, more = _rest(one, inside, left), _rest(two, inside, left)
    axis = next(axis for axis, (a, b) in enumerate(zip(one, two, strict=True)) if a != b)
    if found and more and found[-1][axis][1] == more[0][axis][0] and _same_across(found[-1], more[0], axis):
        merged = (*found[-1][:axis], (found[-1][axis][0], more[0][axis][1]), *found[-1][axis + 1 :])
        return [*found[:-1], merged, *more[1:]]
    return found + more


def _same_across(one: Box, two: Box, axis: int) -> bool:
    return one[:axis] == two[:axis] and one[axis + 1 :] == two[axis + 1 :]
