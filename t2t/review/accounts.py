"""
How every element is accounted for, on both sides, and where each parameter comes from: a plan as a report shows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from t2t import boxes
from t2t.axes import Axes, Transform
from t2t.boxes import Box
from t2t.coverage import Part, Read
from t2t.plan import Plan, Step
from t2t.tensors import DTYPES, ModuleInventory, Shape

How = Literal["mapped", "filled", "tied", "kept", "ignored", "slots", "dropped"]


@dataclass(frozen=True, slots=True)
class Group:
    """
    Tensors of one side that are accounted for in one way, for one reason ("" where it needs none).

    Of what is "dropped" the elements are parts of tensors that are counted as "mapped".
    """

    how: How
    why: str
    count: int
    elements: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Source:
    """A variable that is read; `part` says which of it, "" for all."""

    name: str
    dtype: str
    shape: Shape
    part: str


@dataclass(frozen=True, slots=True)
class Stage:
    """
    One movement of axes. `top` and `bottom` are the variable's and the parameter's axes, each a group of elementary
    ones by number, none for an axis of length 1 that stands alone; `names` ("" where the row has none) and `sizes` are
    theirs. `flips` are turned round. `orders` are the letters of an axis' entries, and which come to stand at 0, 1 ...
    `joined` is the axis along which several variables are put together.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    top: tuple[tuple[int, ...], ...]
    bottom: tuple[tuple[int, ...], ...]
    flips: frozenset[int] = frozenset()
    orders: Mapping[int, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    joined: int | None = None

    @property
    def is_still(self) -> bool:
        """Whether it leaves everything where it is."""
        return self.top == self.bottom and not self.flips and not self.orders


@dataclass(frozen=True, slots=True)
class Row:
    """
    What one rule writes of a parameter: all of it or, with `into`, a part. `words` is what happens beside the axes.

    `line` is the mapping's, `recipe` the one that made the rule of its row, "" where none did.
    """

    target: str
    kind: str
    dtype: str
    shape: Shape
    into: str
    how: How
    sources: tuple[Source, ...]
    stages: tuple[Stage, ...]
    words: tuple[str, ...]
    line: int
    recipe: str


def variables(plan: Plan) -> tuple[Group, ...]:
    """The checkpoint's side."""
    found: dict[tuple[How, str], list[tuple[int, int, int]]] = {("mapped", ""): []}
    dropped = list(_dropped(plan))
    for ref in plan.sources:
        elements = ref.elements - sum(count for name, _, count in dropped if name == ref.name)
        found["mapped", ""].append(
            (1, elements, elements * _width(ref.dtype) if elements < ref.elements else ref.nbytes)
        )
    for name, why, count in dropped:
        ref = plan.checkpoint.variables[name]
        found.setdefault(("dropped", why), []).append((1, count, count * _width(ref.dtype)))
    for name, why in plan.ignored.items():
        ref = plan.checkpoint.variables[name]
        how: How = "ignored" if ref.slot_of is None else "slots"
        found.setdefault((how, why), []).append((1, ref.elements, ref.nbytes))
    return _groups(found)


def _dropped(plan: Plan) -> Iterator[tuple[str, str, int]]:
    """The variable, the reason, and how many elements."""
    for drop in plan.mapping.drop:
        shape = plan.checkpoint.variables[drop.name].shape
        yield drop.name, drop.why, boxes.volume(boxes.box(shape, drop.slice))


def parameters(plan: Plan) -> tuple[Group, ...]:
    """The module's side; a parameter of which only a part is filled counts as mapped, its elements as what they are."""
    found: dict[tuple[How, str], list[tuple[int, int, int]]] = {("mapped", ""): []}
    for step in plan.steps:
        width = _width(step.dtype)
        for part in step.parts:
            how, why = _how(part)
            elements = boxes.volume(part.into) if part.into is not None else step.elements
            is_counted = part is step.parts[0] if not step.sources else False
            found.setdefault((how, why), []).append((int(is_counted), elements, elements * width))
        if step.sources:
            found["mapped", ""].append((1, 0, 0))
    return _groups(found)


def _groups(found: Mapping[tuple[How, str], list[tuple[int, int, int]]]) -> tuple[Group, ...]:
    return tuple(Group(how, why, *map(sum, zip(*sizes, strict=True))) for (how, why), sizes in found.items() if sizes)


def _how(part: Part) -> tuple[How, str]:
    rule = part.rule
    if part.reads:
        return "mapped", ""
    if rule.tie is not None:
        return "tied", ""
    return ("kept", rule.why) if rule.keep else ("filled", f"with {rule.fill:g}")


def _width(dtype: str) -> int:
    return DTYPES[dtype].itemsize


# --- rows ---


def rows(plan: Plan, module: ModuleInventory) -> tuple[Row, ...]:
    """Each parameter with what writes it, in the order of the module's state_dict."""
    steps = {step.target: step for step in plan.steps}
    return tuple(
        _row(steps[name], part, ref.kind) for name, ref in module.parameters.items() for part in steps[name].parts
    )


def _row(step: Step, part: Part, kind: str) -> Row:
    rule = part.rule
    return Row(
        target=step.target,
        kind=kind,
        dtype=step.dtype,
        shape=step.shape,
        into=boxes.text(part.into, step.shape) if part.into is not None else "",
        how=_how(part)[0],
        sources=tuple(map(_source, part.reads)),
        stages=tuple(_stages(part)),
        words=tuple(_words(part)),
        line=rule.at.line or 0,
        recipe=rule.use[3] if rule.use else "",
    )


def _source(read: Read) -> Source:
    shape = read.ref.shape
    return Source(read.ref.name, read.ref.dtype, shape, _part_text(read.box, shape))


def _part_text(box: Box, shape: Shape) -> str:
    return "" if box == boxes.whole(shape) else boxes.text(box, shape)


def _stages(part: Part) -> Iterator[Stage]:
    for number, transform in enumerate(part.transforms):
        axes = part.rule.axes[number] if part.rule.axes else None
        yield _stage(part, transform, axes, is_first=number == 0)


def _stage(part: Part, transform: Transform, axes: Axes | None, *, is_first: bool) -> Stage:
    count = len(transform.elementary)
    if axes is None:
        alone = tuple((axis,) for axis in range(count))
        return Stage(("",) * count, transform.elementary, alone, alone, transform.flips)
    place = {name: axis for axis, name in enumerate(axes.names)}
    sides = [tuple(tuple(place[name] for name in group) for group in side) for side in (axes.left, axes.right)]
    given = {place[name]: order for name, order in part.rule.order.items()} if is_first else {}
    return Stage(
        names=tuple(axes.names),
        sizes=transform.elementary,
        top=sides[0],
        bottom=sides[1],
        flips=transform.flips,
        orders={axis: (given[axis].before, entries) for axis, entries in transform.orders.items()},
        joined=place[part.rule.join] if is_first and part.rule.join else None,
    )


def _words(part: Part) -> Iterator[str]:
    """What a drawing of axes does not show."""
    rule = part.rule
    if not part.reads:
        how, why = _how(part)
        yield {"tied": f"the same Parameter as {rule.tie}", "kept": f"kept as it was built: {why}"}.get(
            how, f"filled {why}"
        )
        return
    if rule.join is not None:
        is_stack = len(part.transforms[0].input) > len(part.reads[0].box)
        yield f"{len(part.reads)} variables {'stacked' if is_stack else 'joined'} along {rule.join}"
    if rule.shadowed:
        yield f"in place of {', '.join(rule.shadowed)}"
    if rule.flip:
        yield f"turned round along {', '.join(map(str, rule.flip))}"
    for axis, order in rule.order.items():
        yield f"entries of {axis}: {order}"
    dtype = part.reads[0].ref.dtype
    if part.dtype != dtype:
        yield f"cast from {dtype} to {part.dtype}"
    if rule.scale is not None:
        yield f"times {rule.scale:g}"
    if isinstance(rule.add, Mapping):
        for axis, entries in rule.add.items():
            yield f"plus {', '.join(f'{number:g} in {entry}' for entry, number in entries.items())} along {axis}"
    elif rule.add is not None:
        yield f"plus {rule.add:g}"
