"""
Where an entry of the state_dict comes from: the facts, and how they are said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from t2t.boxes import Bounds
from t2t.coverage import Part
from t2t.names import shown
from t2t.plan import Step
from t2t.rules import Rule


@dataclass(frozen=True, slots=True)
class Explanation:
    """
    Where one entry of the state_dict comes from: the rules that write it, several where each writes a part of it.

    `step` is None where nothing is read, and the module's shapes are not known.
    """

    rules: tuple[Rule, ...]
    step: Step | None
    ties: tuple[Rule, ...]


def in_words(explanation: Explanation, *, places: bool = True) -> Iterator[str]:
    """A line for each thing that happens to it, in the order in which it happens; `places` says by which row."""
    rules, step = explanation.rules, explanation.step
    name = shown(rules[0].target)
    if len(rules) > 1:
        yield f"{name} is written in {len(rules)} parts"
    for rule in rules:
        subject = f"its part {_bounds(rule.into)}" if rule.into else name
        by = f", by {rule.at}{f' and recipe {shown(rule.use[3])}' if rule.use else ''}" if places else ""
        yield from _rule_in_words(rule, _part(rule, step), subject, by)
    for tie in explanation.ties:
        yield f"  {shown(tie.target)} is another name of it, by {tie.at}"


def as_json(explanation: Explanation) -> dict[str, Any]:
    """The same for programs."""
    step = explanation.step
    return {
        "parameter": explanation.rules[0].target,
        "to": {"dtype": step.dtype, "shape": list(step.shape)} if step else None,
        "parts": [_rule_json(rule, _part(rule, step)) for rule in explanation.rules],
        "tied": [tie.target for tie in explanation.ties],
    }


def _part(rule: Rule, step: Step | None) -> Part | None:
    return next((part for part in step.parts if part.rule is rule), None) if step else None


def _bounds(bounds: Sequence[Bounds]) -> str:
    """`[0:4, :]`, as it is written."""
    texts = [":".join("" if bound is None else str(bound) for bound in pair) for pair in bounds]
    return f"[{', '.join(texts)}]"


def _rule_in_words(rule: Rule, part: Part | None, subject: str, by: str) -> Iterator[str]:
    """What one rule does, a line for each step of it, in the order in which it happens."""
    if part is None or not part.reads:
        if rule.fill is not None:
            yield f"{subject} is filled with {rule.fill}{by}"
        elif rule.tie is not None:
            yield f"{subject} is another name of the Parameter {shown(rule.tie)}{by}"
        else:
            yield f"{subject} keeps the value that the module was built with{by}: {shown(rule.why)}"
        return
    ref = part.reads[0].ref
    if rule.join is None:
        yield f"{subject} comes from the variable {shown(ref.name)}{by}"
        yield f"  the variable is {ref.dtype} {list(ref.shape)}"
    else:
        yield f"{subject} comes from {len(part.reads)} variables{by}"
        yield from (f"  {shown(read.ref.name)} is {read.ref.dtype} {list(read.ref.shape)}" for read in part.reads)
    if rule.shadowed:
        yield f"  source.select reads it in place of {', '.join(map(shown, rule.shadowed))}"
    if rule.slice:
        sizes = [stop - start for start, stop in part.reads[0].box]
        yield f"  of it {_bounds(rule.slice)} is read: {sizes}"
    if rule.join is not None:
        is_stack = len(part.transforms[0].input) > len(part.reads[0].box)
        how = "stacked along a new first axis" if is_stack else "put together along the axis"
        yield f"  they are {how} {rule.join}: {list(part.transforms[0].input)}"
    if rule.flip:
        yield f"  turned round along {', '.join(map(str, rule.flip))}"
    for axis, order in rule.order.items():
        yield f"  the entries of {axis} come in another order: {order}"
    if part.dtype != ref.dtype:
        yield f"  cast from {ref.dtype} to {part.dtype}"
    if rule.scale is not None:
        yield f"  multiplied by {rule.scale}"
    if isinstance(rule.add, Mapping):
        for axis, entries in rule.add.items():
            added = ", ".join(f"{number} to the entry {entry}" for entry, number in entries.items())
            yield f"  along {axis} is added: {added}"
    elif rule.add is not None:
        yield f"  {rule.add} is added to each element"
    for axes, transform in zip(rule.axes, part.transforms, strict=False):
        sizes_by_name = zip(axes.names, transform.elementary, strict=True)
        yield f"  its axes move: {axes}, where {', '.join(f'{n} = {s}' for n, s in sizes_by_name)}"
    if not rule.axes:
        yield "  its elements stay in their order"
    what = "this part" if rule.into else "the parameter"
    yield f"  {what} becomes {part.dtype} {list(part.shape)}"


def _rule_json(rule: Rule, part: Part | None) -> dict[str, Any]:
    """One rule of an explanation; only what it says."""
    said: dict[str, Any] = {
        "slice": _bounds(rule.slice) if rule.slice else None,
        "join": rule.join,
        "flip": list(rule.flip),
        "order": {axis: str(order) for axis, order in rule.order.items()},
        "axes": [str(axes) for axes in rule.axes],
        "scale": rule.scale,
        "add": rule.add,
        "into": _bounds(rule.into) if rule.into else None,
        "fill": rule.fill,
        "tie": rule.tie,
        "keep": rule.why if rule.keep else None,
        "recipe": rule.use[3] if rule.use else None,
    }
    return {
        "at": str(rule.at),
        "variables": [
            {"name": read.ref.name, "dtype": read.ref.dtype, "shape": list(read.ref.shape)}
            for read in (part.reads if part else ())
        ],
        **{key: value for key, value in said.items() if value not in (None, [], {})},
    }
