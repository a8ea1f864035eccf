"""
Axes: `h w i o -> o i h w`, read once, resolved against a shape, applied to an array.

The notation is einops': names, groups `(h w c)` and unit axes `1`; the left side describes the variable axis by axis,
the right side the parameter. Both sides hold the same names, so an `Axes` only moves elements: it never repeats, sums
or drops one. Three stages, each a frozen value:

    parse('(h w c) o -> o (c h w)')                      -> Axes        no shape yet
    axes.resolve((3136, 1024), {'h': 7, 'w': 7})         -> Transform   no data yet: elementary (7, 7, 64, 1024),
                                                            permutation (3, 2, 0, 1), output (1024, 3136)
    transform.view(array)                                -> array       a strided view, nothing is copied

A list of axes is one step after the other: each reads the former's elements, in their order, under names of its own.
Between the split and the permutation some elementary axes may be turned round (`flip`) or have their entries sorted
otherwise (`order: {g: icfo -> ifco}`, gates of a recurrent layer).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from t2t.names import shown
from t2t.tensors import Shape

Group = tuple[str, ...]

#: As many axes as every numpy that t2t runs with can split an array into.
MAX_AXES = 32

_TOKEN = re.compile(r"\s*(?:(?P<name>[A-Za-z_][A-Za-z_0-9]*)|(?P<one>1)(?![0-9])|(?P<open>\()|(?P<close>\)))")


class AxesError(ValueError):
    """Axes that cannot be read or do not fit. The text is one short cause; whoever knows the row adds the place."""

    def __init__(self, code: str, cause: str, hint: str = "") -> None:
        super().__init__(cause)
        self.code = code
        self.cause = cause
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Transform:
    """
    How one variable's elements move: split into elementary axes, sort their entries, permute and compose them.

    `elementary` are the sizes after the split; output axis i of the permuted array is elementary axis `permutation[i]`
    (numpy's sense). Row-major order throughout. `flips` are elementary axes that are turned round; `orders` maps one to
    the entries that come to stand at 0, 1, 2 ... of it. No axis is in both.
    """

    input: Shape
    elementary: Shape
    permutation: tuple[int, ...]
    output: Shape
    flips: frozenset[int] = frozenset()
    orders: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def inverse(self) -> Transform:
        """The transform that undoes this one, bit for bit."""
        permuted = tuple(self.elementary[axis] for axis in self.permutation)
        back = tuple(sorted(range(len(self.permutation)), key=self.permutation.__getitem__))
        flips = frozenset(back[axis] for axis in self.flips)
        orders = {
            back[axis]: tuple(sorted(range(len(entries)), key=entries.__getitem__))
            for axis, entries in self.orders.items()
        }
        return Transform(self.output, permuted, back, self.input, flips, orders)

    def split(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """`array` (shape `input`) by its elementary axes, their entries sorted: a view, where no `orders` sort them."""
        # Only splitting never copies: an array of any strides has its axes split in place.
        split = array.reshape(self.elementary)
        if self.flips:
            split = split[tuple(slice(None, None, -1 if axis in self.flips else 1) for axis in range(split.ndim))]
        for axis, entries in self.orders.items():
            split = split.take(entries, axis)
        return split

    def view(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """
        `array` (shape `input`) with its elementary axes in the output's order; a view, where no `orders` sort them.

        Its elements in C order are the output's; its shape is the elementary one, permuted.
        """
        return self.split(array).transpose(self.permutation)

    def apply(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """`array` (shape `input`) as the output: C order, shape `output`."""
        return np.ascontiguousarray(self.view(array)).reshape(self.output)


@dataclass(frozen=True, slots=True)
class Order:
    """The entries of one axis, a letter each: as the variable has them, and as the parameter has them."""

    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.before} -> {self.after}"

    @property
    def entries(self) -> tuple[int, ...]:
        """Which entry of the variable comes to stand at 0, 1, 2 ..."""
        return tuple(self.before.index(letter) for letter in self.after)


@dataclass(frozen=True, slots=True)
class Axes:
    """Parsed axes: one group of names for each axis of the variable (left) and of the parameter (right)."""

    left: tuple[Group, ...]
    right: tuple[Group, ...]

    def __str__(self) -> str:
        return f"{_side(self.left)} -> {_side(self.right)}".strip()

    @property
    def names(self) -> list[str]:
        """The elementary axes, in the variable's order."""
        return [name for group in self.left for name in group]

    def sizes(self, shape: Shape, dims: Mapping[str, int]) -> dict[str, int]:
        """
        The size of each elementary axis of a variable of this shape; `dims` gives those that the shape alone does not.

        Raises AxesError: T2T302 when the ranks differ, T2T303 when sizes are missing or contradict the shape.
        """
        if len(shape) != len(self.left):
            raise AxesError(
                "T2T302",
                f"axes '{self}' are for rank {len(self.left)}, the variable has rank {len(shape)}: {list(shape)}",
                "name each axis of the variable once on the left side",
            )
        sizes = {name: dims[name] for group in self.left for name in group if name in dims}
        for position, (group, length) in enumerate(zip(self.left, shape, strict=True)):
            open_names = [name for name in group if name not in sizes]
            known = math.prod(sizes[name] for name in group if name in sizes)
            if len(open_names) > 1:
                raise AxesError(
                    "T2T303",
                    f"axis {position} {_group(group)} of length {length} can be split in more than one way",
                    f"give the sizes of all but one of {', '.join(open_names)} in dims",
                )
            if open_names and known and length % known == 0:
                sizes[open_names[0]] = length // known
            elif open_names or known != length:
                given = " x ".join(f"{name}={sizes[name]}" for name in group if name in sizes) or "1"
                raise AxesError("T2T303", f"axis {position} {_group(group)} has length {length}, but dims say {given}")
        return sizes

    def resolve(
        self,
        shape: Shape,
        dims: Mapping[str, int],
        flip: Sequence[str | int] = (),
        order: Mapping[str, Order] | None = None,
    ) -> Transform:
        """
        The transform for a variable of this shape. `flip` names elementary axes, or the variable's axes by number.

        Raises AxesError: as `sizes` does, and T2T309 for a flip or an order of an axis that is not there, and for an
        order of other than its entries.
        """
        sizes, names = self.sizes(shape, dims), self.names
        flips: set[int] = set()
        for axis in flip:
            if axis not in range(len(self.left)) if isinstance(axis, int) else axis not in names:
                raise AxesError("T2T309", f"flip names {axis}, which axes '{self}' don't have")
            turned = {names.index(name) for name in (self.left[axis] if isinstance(axis, int) else (axis,))}
            if not turned:
                raise AxesError("T2T309", f"flip names axis {axis}, which is 1 in axes '{self}'", "remove it")
            if flips & turned:
                raise AxesError("T2T309", f"flip turns {names[min(flips & turned)]} round twice", "name it once")
            flips |= turned
        orders: dict[int, tuple[int, ...]] = {}
        for name, given in (order or {}).items():
            if name not in names:
                raise AxesError("T2T309", f"order names {name}, which axes '{self}' don't have")
            if sizes[name] != len(given.before):
                text = f"order '{name}: {given}' is of {len(given.before)} entries, but {name} has {sizes[name]}"
                raise AxesError("T2T309", text)
            axis = names.index(name)
            entries = given.entries
            if axis in flips:  # flipped first, then sorted
                flips.discard(axis)
                entries = tuple(len(entries) - 1 - entry for entry in entries)
            orders[axis] = entries
        return Transform(
            input=shape,
            elementary=tuple(sizes[name] for name in names),
            permutation=tuple(names.index(name) for group in self.right for name in group),
            output=tuple(math.prod(sizes[name] for name in group) for group in self.right),
            flips=frozenset(flips),
            orders=orders,
        )


def resolve(
    steps: Sequence[Axes],
    shape: Shape,
    dims: Mapping[str, int],
    flip: Sequence[str | int] = (),
    order: Mapping[str, Order] | None = None,
) -> tuple[Transform, ...]:
    """
    The transforms of these steps for a variable of this shape, one after the other; of no step, the identity.

    `flip` and `order` speak of the first step's axes. A name that a later step uses again has the size that it had.
    Raises AxesError.
    """
    if not steps:
        if order or any(isinstance(axis, str) for axis in flip):
            key, name = ("order", next(iter(order))) if order else ("flip", next(a for a in flip if isinstance(a, str)))
            raise AxesError("T2T309", f"{key} names {name}, but the row has no axes", f"write axes: {name} -> {name}")
        names = tuple((f"a{axis}",) for axis in range(len(shape)))
        return (Axes(names, names).resolve(shape, {}, flip, order),)
    first, *more = steps
    transforms = [first.resolve(shape, dims, flip, order)]
    known = {**dims, **first.sizes(shape, dims)}
    for step in more:
        given = {name: size for name, size in known.items() if name in step.names}
        transforms.append(step.resolve(transforms[-1].output, given))
        known |= step.sizes(transforms[-1].input, given)
    return tuple(transforms)


def parse_order(text: str) -> Order:
    """An order from its notation, `icfo -> ifco`. Raises AxesError (T2T309)."""
    before, arrow, after = (part.strip() for part in text.partition("->"))
    if not arrow or not before.isalpha() or sorted(before) != sorted(after):
        hint = "name each entry once on each side, by one letter"
        raise AxesError("T2T309", f"order '{shown(text)}' is not a permutation", hint)
    if len(set(before)) < len(before):
        raise AxesError("T2T309", f"order '{shown(text)}' names an entry twice", "one letter each")
    return Order(before, after)


def shown_steps(steps: Sequence[Axes]) -> str:
    """The steps as a mapping writes them: one as it is, several in brackets."""
    return str(steps[0]) if len(steps) == 1 else f"[{', '.join(map(str, steps))}]"


def parse(text: str) -> Axes:
    """
    Axes from their notation. Raises AxesError (T2T301) with what is wrong in the text.
    """
    sides = text.split("->")
    text = shown(text)
    if len(sides) != 2:
        raise AxesError("T2T301", f"axes '{text}' need one '->' between the variable's axes and the parameter's")
    axes = Axes(_parse_side(sides[0], text), _parse_side(sides[1], text))
    left, right = ([name for group in side for name in group] for side in (axes.left, axes.right))
    most = max(len(left), len(right), len(axes.left), len(axes.right))
    if most > MAX_AXES:
        raise AxesError("T2T301", f"axes '{text}' have {most} axes on one side, at most {MAX_AXES} are possible")
    for side, names in (("left", left), ("right", right)):
        for name in dict.fromkeys(names):
            if names.count(name) > 1:
                raise AxesError("T2T301", f"axes '{text}' name {name} {names.count(name)} times on the {side} side")
    if set(left) != set(right):
        only = [f"{name} only on the left" for name in left if name not in right]
        only += [f"{name} only on the right" for name in right if name not in left]
        raise AxesError("T2T301", f"axes '{text}' have {', '.join(only)}", "both sides need the same names")
    return axes


def from_permutation(permutation: Sequence[int]) -> Axes:
    """
    The axes of a bare permutation, in numpy's sense: output axis i is input axis `permutation[i]`.

    The names are a, b, c ... in the variable's order. Raises AxesError (T2T306) if it is not a permutation.
    """
    if sorted(permutation) != list(range(len(permutation))):
        expected = ", ".join(map(str, range(len(permutation))))
        message = f"permute {shown(str(list(permutation)))} is not a permutation"
        raise AxesError("T2T306", message, f"use each of {shown(expected)} once")
    names = [f"a{axis}" if len(permutation) > 26 else chr(ord("a") + axis) for axis in range(len(permutation))]
    return Axes(tuple((name,) for name in names), tuple((names[axis],) for axis in permutation))


def identity(shape: Shape) -> Transform:
    """The transform that leaves a variable of this shape as it is."""
    return Transform(shape, shape, tuple(range(len(shape))), shape)


def _parse_side(side: str, text: str) -> tuple[Group, ...]:
    groups: list[Group] = []
    inside: list[str] | None = None
    position = 0
    side = side.rstrip()
    while position < len(side):
        token = _TOKEN.match(side, position)
        if token is None:
            rest = side[position:].strip()
            raise AxesError("T2T301", f"axes '{text}' cannot be read at '{shown(rest)}'", "use names, groups ( ) and 1")
        position = token.end()
        if token["open"]:
            if inside is not None:
                raise AxesError("T2T301", f"axes '{text}' have a group inside a group")
            inside = []
        elif token["close"]:
            if inside is None:
                raise AxesError("T2T301", f"axes '{text}' close a group that is not open")
            groups.append(tuple(inside))
            inside = None
        elif inside is not None:
            inside += [token["name"]] if token["name"] else []
        else:
            groups.append((token["name"],) if token["name"] else ())
    if inside is not None:
        raise AxesError("T2T301", f"axes '{text}' do not close a group")
    return tuple(groups)


def _group(group: Group) -> str:
    return group[0] if len(group) == 1 else f"({' '.join(group)})" if group else "1"


def _side(groups: tuple[Group, ...]) -> str:
    return " ".join(_group(group) for group in groups)
