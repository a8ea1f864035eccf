"""
Other orders of what one row reads: its axes, those of a Flatten or a Reshape beside it, its flip; its numbers left out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from t2t.axes import Axes, Transform, shown_steps
from t2t.coverage import Part
from t2t.proof.alternatives.changes import Change, Known, owner_of, with_patch
from t2t.rules import Rule
from t2t.tensors import Shape

#: Orders of one rule's axes that are tried: those that exchange fewest come first.
MAX_ORDERS = 24
#: Of more elementary axes than these, only two are exchanged.
MAX_ORDERED = 5

#: What a feature map's axes are called, the channels left out.
_SPATIAL: Mapping[int, tuple[str, ...]] = {2: ("l",), 3: ("h", "w"), 4: ("d", "h", "w")}


def flattened(known: Known, part: Part, maps: Sequence[Shape]) -> Iterator[Change]:
    """A matrix behind a Flatten: the variable counts its inputs as h w c, the parameter as c h w; or just not."""
    matrix = _matrix(part)
    if matrix is None or len(part.shape) != 2 or not _is_free(part.rule):
        return
    is_first, group = matrix
    shapes = [shape for shape in maps if len(shape) in _SPATIAL and math.prod(shape) == part.shape[1]]
    for shape in dict.fromkeys(shapes):
        spatial = _SPATIAL[len(shape)]
        inputs, outputs = (*spatial, "c"), ("c", *spatial)
        left = (inputs, ("o",)) if is_first else (("o",), inputs)
        dims = dict(zip(spatial, shape[1:], strict=True))
        patch = {"axes": (Axes(left, (("o",), outputs)),), "dims": dims}
        what = f"the axes of a Flatten of {[*shape[1:], shape[0]]}"
        yield known.patched(what, [(part, patch)])
    if len(group) > 1:
        left = (("i",), ("o",)) if is_first else (("o",), ("i",))
        patch = {"axes": (Axes(left, (("o",), ("i",))),), "dims": {}}
        yield known.patched("the axes of no Flatten", [(part, patch)])


def _matrix(part: Part) -> tuple[bool, tuple[str, ...]] | None:
    """
    Of a row that reads a matrix of inputs and outputs: whether the inputs are the variable's first axis, and their
    names. None for anything else.
    """
    axes = part.rule.axes
    if len(axes) != 1 or len(part.transforms[0].input) != 2 or part.joined is not None:
        return None
    left, right = axes[0].left, axes[0].right
    if len(right) != 2 or len(right[0]) != 1 or right[0] not in left:
        return None
    return left.index(right[0]) == 1, right[1]


def _is_free(rule: Rule) -> bool:
    """Whether a row speaks of its axes' names nowhere else, so that they may get others."""
    return not rule.order and not rule.flip and not isinstance(rule.add, Mapping)


def other_orders(known: Known, part: Part, *, swaps: bool) -> Iterator[Change]:
    """
    Every other order of a row's axes that gives the same shape; with `swaps` those that exchange two, else the others.
    """
    for i, (axes, transform) in enumerate(zip(part.rule.axes, part.transforms, strict=False)):
        found = [*_right_orders(part.rule, axes, transform), *_left_orders(axes, i)]
        for count, other in itertools.islice(found, MAX_ORDERS):
            if (count == 2) is swaps:
                steps = (*part.rule.axes[:i], other, *part.rule.axes[i + 1 :])
                changed = with_patch(part.rule, {"axes": steps})
                what = f"axes '{shown_steps(steps)}'"
                if "permute" in changed.places:
                    what = f"permute {[other.left.index(group) for group in other.right]}"
                yield known.patched(what, [(part, {"axes": steps})])


def _right_orders(rule: Rule, axes: Axes, transform: Transform) -> Iterator[tuple[int, Axes]]:
    """Other axes, and how many names they move: another order on the right side or, where that says it, on the left."""
    names = [name for group in axes.right for name in group]
    is_free = len(rule.axes) == 1 and not (rule.dims or rule.order or rule.flip or rule.add is not None or rule.join)
    is_single = all(len(group) <= 1 for group in (*axes.left, *axes.right)) and "permute" not in rule.places
    for order in sorted(same_shape(axes, transform), key=displaced):
        moved = [names[place] for place in order]
        if is_free and is_single:
            # What torch has is known: it is the variable whose axes are others.
            called = dict(zip(moved, names, strict=True))
            yield (
                displaced(order),
                Axes(tuple(tuple(called[name] for name in group) for group in axes.left), axes.right),
            )
        else:
            yield displaced(order), Axes(axes.left, grouped(moved, axes))


def _left_orders(axes: Axes, step: int) -> Iterator[tuple[int, Axes]]:
    """Other axes whose left side has the names of one group in another order: (s h k) stored as (h s k)."""
    for place, group in enumerate(axes.left):
        if len(group) < 2 or step:
            continue
        for order in sorted(_permutations(len(group)), key=displaced):
            if displaced(order):
                moved = tuple(group[position] for position in order)
                yield displaced(order), Axes((*axes.left[:place], moved, *axes.left[place + 1 :]), axes.right)


def same_shape(axes: Axes, transform: Transform) -> Iterator[tuple[int, ...]]:
    """
    Every other order of the parameter's elementary axes that gives the same shape, as places in the right order.

    An axis of size 1 stays where it is: moving it moves nothing.
    """
    sizes = [transform.elementary[axis] for axis in transform.permutation]
    long = [place for place, size in enumerate(sizes) if size != 1]
    for candidate in _permutations(len(long)):
        order = list(range(len(sizes)))
        for place, taken in zip(long, candidate, strict=True):
            order[place] = long[taken]
        given = tuple(math.prod(group) for group in grouped([sizes[place] for place in order], axes))
        if displaced(order) and given == transform.output:
            yield tuple(order)


def _permutations(count: int) -> Iterator[Sequence[int]]:
    if count <= MAX_ORDERED:
        return itertools.permutations(range(count))
    return (swapped(count, one, other) for one, other in itertools.combinations(range(count), 2))


def swapped(count: int, one: int, other: int) -> list[int]:
    """The places 0 to count - 1 with two of them exchanged."""
    order = list(range(count))
    order[one], order[other] = other, one
    return order


def displaced(order: Sequence[int]) -> int:
    """How many places another one is taken for."""
    return sum(place != taken for place, taken in enumerate(order))


def grouped(entries: Sequence[Any], axes: Axes) -> tuple[tuple[Any, ...], ...]:
    """The entries in groups as long as those of the right side."""
    rest = iter(entries)
    return tuple(tuple(itertools.islice(rest, len(group))) for group in axes.right)


def reshaped(known: Known, parts: Sequence[Part], maps: Sequence[Shape]) -> Iterator[Change]:
    """A matrix, and its bias, in front of a Reshape to a feature map: the outputs are counted as h w c, or c h w."""
    for part in parts:
        matrix = _matrix(part)
        if matrix is None or len(matrix[1]) != 1 or len(part.shape) != 2 or not _is_free(part.rule):
            continue
        for shape in dict.fromkeys(maps):
            if len(shape) not in _SPATIAL or math.prod(shape) != part.shape[0]:
                continue
            spatial = _SPATIAL[len(shape)]
            theirs, ours, dims = (*spatial, "c"), ("c", *spatial), dict(zip(spatial, shape[1:], strict=True))
            left = (("i",), theirs) if matrix[0] else (theirs, ("i",))
            patches = [(part, {"axes": (Axes(left, (ours, ("i",))),), "dims": dims})]
            patches += [
                (bias, {"axes": (Axes((theirs,), (ours,)),), "dims": dims})
                for bias in parts
                if owner_of(bias) == owner_of(part)
                and bias.shape == part.shape[:1]
                and not bias.rule.axes
                and _is_free(bias.rule)
            ]
            yield known.patched(f"the axes in front of a Reshape to {[*shape[1:], shape[0]]}", patches)


def flips(known: Known, part: Part) -> Iterator[Change]:
    """A convolution's kernel turned round in space; a row without its flip."""
    rule = part.rule
    if rule.flip:
        yield known.patched("no flip", [(part, {"flip": ()})])
        return
    if len(rule.axes) != 1 or len(part.shape) not in {3, 4, 5} or part.into is not None:
        return
    axes, sizes = rule.axes[0], part.transforms[0].elementary
    names = [name for group in axes.right[2:] for name in group]
    if "permute" in rule.places:
        turned: list[str | int] = sorted(axes.left.index((name,)) for name in names)
    else:
        turned = [name for name in axes.names if name in names]
    if any(sizes[axes.names.index(name)] > 1 for name in names) and not set(names) & set(rule.order):
        yield known.patched("the kernel turned round in space", [(part, {"flip": tuple(turned)})])


def numbers(known: Known, part: Part) -> Iterator[Change]:
    """A row without its scale, without its add."""
    if part.rule.scale is not None:
        yield known.patched(f"no scale {part.rule.scale}", [(part, {"scale": None})])
    if part.rule.add is not None:
        yield known.patched("no add", [(part, {"add": None})])
