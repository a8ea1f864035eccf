"""
What a step does to its entry of the state_dict, in one form for all the ways of writing it.

    permute: [1, 0]   axes: i o -> o i   a recipe's row   a row of a `for`        all of them are one form

Two steps of the same form write the same bytes from the same variables. The form says what is read (names, boxes), how
elements move (axes of size 1 left out, axes that stay neighbours merged, steps in a row composed), what is computed,
and where and in which dtype it is stored. Names of axes, letters and places in the file are not in it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from t2t.axes import Transform
from t2t.boxes import Box
from t2t.coverage import Part
from t2t.plan import Step, stored
from t2t.tensors import DTYPES, Shape

#: Hexadecimal digits of a form's digest: enough to tell apart, and short enough for a line that somebody reads.
DIGITS = 16


def digest(step: Step, dtype: str | None) -> str:
    """The first DIGITS of the sha256 (hex) of the step's form; `dtype` is `output.dtype`."""
    text = json.dumps(form(step, dtype), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def form(step: Step, dtype: str | None) -> dict[str, Any]:
    """The step as plain values: its dtype as it is stored, its shape, and each part; equal for what is the same."""
    parts = [_part(part) for part in in_order(step.parts)]
    return {"dtype": stored(step, dtype), "shape": list(step.shape), "parts": parts}


def in_order(parts: Sequence[Part]) -> list[Part]:
    """The parts of a step as its form has them, in whatever order their rows stand."""
    return sorted(parts, key=lambda part: json.dumps(None if part.into is None else _box(part.into)))


def _part(part: Part) -> dict[str, Any]:
    rule = part.rule
    said: dict[str, Any] = {"into": _box(part.into)} if part.into is not None else {}
    if not part.reads:
        own: dict[str, Any] = {"tie": rule.tie} if rule.tie is not None else {"keep": "init"}
        own = {"fill": _number(rule.fill, part.dtype), "dtype": part.dtype} if rule.fill is not None else own
        return said | own
    said["reads"] = [
        [read.ref.name, *([] if _is_whole(read.box, read.ref.shape) else [_box(read.box)])] for read in part.reads
    ]
    if part.joined is not None:
        is_stack = len(part.transforms[0].input) > len(part.reads[0].box)
        sizes = [[stop - start for start, stop in read.box] for read in part.reads]
        said["join"] = [part.joined, "stack" if is_stack else "concatenate", sizes]
    said["moves"] = [_movement(move) for move in composed(part.transforms)]
    said["dtype"] = part.dtype
    if rule.scale is not None:
        said["scale"] = _number(rule.scale, part.dtype)
    if isinstance(rule.add, Mapping):
        said["add"] = _added(part, rule.add)
    elif rule.add is not None:
        said["add"] = _number(rule.add, part.dtype)
    return said


def _is_whole(box: Box, shape: Shape) -> bool:
    return all(tuple(bounds) == (0, size) for bounds, size in zip(box, shape, strict=True))


def _box(box: Box) -> list[list[int]]:
    return [list(bounds) for bounds in box]


def _number(value: float | None, dtype: str) -> str:
    """A number's own text: of a float the same for 1 and 1.0, which may do different things to an integer."""
    return repr(float(value) if value is not None and DTYPES[dtype].kind == "float" else value)


def _added(part: Part, added: Mapping[str, Mapping[str, float]]) -> list[list[Any]]:
    """What is added: by the elements of the variable between two entries of the axis, its size, the entry's place."""
    axes, elementary = part.rule.axes[0].names, part.transforms[0].elementary
    found = []
    for name, entries in added.items():
        axis = axes.index(name)
        stride = math.prod(elementary[axis + 1 :])
        after = part.rule.order[name].after
        found += [
            [stride, elementary[axis], after.index(entry), _number(number, part.dtype)]
            for entry, number in entries.items()
        ]
    return found  # in the order in which they are added: sums of floats depend on it


# --- how elements move ---


def composed(transforms: Sequence[Transform]) -> list[Transform]:
    """The same movement in the fewest transforms and axes; one after the other only where no single one is known."""
    moves = [_simple(transforms[0])]
    for transform in transforms[1:]:
        if (both := _composed(moves[-1], transform)) is not None:
            moves[-1] = _simple(both)
        else:
            moves.append(_simple(transform))
    return moves


def _movement(move: Transform) -> dict[str, Any]:
    said: dict[str, Any] = {"split": list(move.elementary), "permute": list(move.permutation)}
    if move.flips:
        said["flip"] = sorted(move.flips)
    if move.orders:
        said["order"] = {str(axis): list(entries) for axis, entries in sorted(move.orders.items())}
    return said


def _simple(transform: Transform) -> Transform:
    """The same movement with the fewest axes: none of size 1, and none that stays beside its neighbour."""
    orders = {axis: entries for axis, entries in transform.orders.items() if list(entries) != sorted(entries)}
    sizes = transform.elementary
    flips = {axis for axis in transform.flips if sizes[axis] > 1}
    for axis, entries in list(orders.items()):
        if list(entries) == sorted(entries, reverse=True):  # turned round, by another name
            flips.add(axis)
            del orders[axis]
    kept = [axis for axis in transform.permutation if sizes[axis] != 1]
    groups: list[list[int]] = []  # of axes that stay together, in the output's order
    for axis in kept:
        last = groups[-1][-1] if groups else None
        is_next = last is not None and axis > last and all(sizes[between] == 1 for between in range(last + 1, axis))
        is_alike = last is not None and not ({axis, last} & orders.keys()) and ((axis in flips) == (last in flips))
        if is_next and is_alike:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    in_order = sorted(groups)
    number = {group[0]: index for index, group in enumerate(in_order)}
    return Transform(
        input=transform.input,
        elementary=tuple(math.prod(sizes[axis] for axis in group) for group in in_order),
        permutation=tuple(number[group[0]] for group in groups),
        output=transform.output,
        flips=frozenset(number[group[0]] for group in groups if group[0] in flips),
        orders={number[group[0]]: orders[group[0]] for group in groups if group[0] in orders},
    )


def _composed(first: Transform, second: Transform) -> Transform | None:
    """Both in one, where their axes can be split alike; None where they cannot."""
    if first.orders or second.orders or second.flips:
        return None
    between = tuple(first.elementary[axis] for axis in first.permutation)
    finer = _refined(between, second.elementary)
    if finer is None:
        return None
    of_first, of_second = finer
    # The axes of the first, each as the finer ones that it is split into, numbered in the variable's order.
    by_axis = dict(zip(first.permutation, of_first, strict=True))
    numbers: dict[int, list[int]] = {}
    elementary: list[int] = []
    for axis in range(len(first.elementary)):
        numbers[axis] = list(range(len(elementary), len(elementary) + len(by_axis[axis])))
        elementary += by_axis[axis]
    flat = [number for axis in first.permutation for number in numbers[axis]]
    position = 0
    by_second: list[list[int]] = []
    for sizes in of_second:
        by_second.append(flat[position : position + len(sizes)])
        position += len(sizes)
    return Transform(
        input=first.input,
        elementary=tuple(elementary),
        permutation=tuple(number for axis in second.permutation for number in by_second[axis]),
        output=second.output,
        flips=frozenset(number for axis in first.flips for number in numbers[axis]),
    )


def _refined(one: Sequence[int], two: Sequence[int]) -> tuple[list[list[int]], list[list[int]]] | None:
    """Both splits of the same elements, split further until they are the same; None where there is no such split."""
    if 0 in one or 0 in two:
        return None
    ends = [_ends(one), _ends(two)]
    every = sorted({*ends[0], *ends[1]})
    if any(longer % shorter for shorter, longer in pairwise(every)):
        return None
    return _cut(one, every), _cut(two, every)


def _ends(sizes: Sequence[int]) -> list[int]:
    """How many elements lie behind the beginning of each axis, and behind the end of the last: 1."""
    return [math.prod(sizes[axis:]) for axis in range(len(sizes) + 1)]


def _cut(sizes: Sequence[int], every: Sequence[int]) -> list[list[int]]:
    """Each axis as the sizes between the cuts that fall into it."""
    found = []
    for axis, _ in enumerate(sizes):
        inner, outer = math.prod(sizes[axis + 1 :]), math.prod(sizes[axis:])
        cuts = [cut for cut in every if inner <= cut <= outer]
        found.append([longer // shorter for shorter, longer in pairwise(cuts)][::-1])
    return found
