"""
Rules x the checkpoint's inventory x the module's inventory -> a Plan, or everything that stands against it.

Planning reads no tensor: names, dtypes and shapes decide. Who accounts for which elements is `t2t.coverage`'s business,
what becomes of them is decided here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from t2t import axes as notation
from t2t import boxes, coverage
from t2t.applied import applied as rules_applied
from t2t.axes import Axes, AxesError, Transform
from t2t.boxes import BoundsError, Box
from t2t.checkpoints import otherwise
from t2t.coverage import Part, Read
from t2t.mapping import Mapping as MappingFile
from t2t.names import shown
from t2t.problems import Problem
from t2t.rules import Rule
from t2t.tensors import DTYPES, CheckpointInventory, ModuleInventory, ParameterRef, Shape, TensorRef

#: Which dtype of torch holds every value of one that torch lacks; of quantised values the integers, without a scale.
COUNTERPARTS = {
    "float8_e4m3b11fnuz": "float32",
    "float4_e2m1fn": "float32",
    "qint8": "int8",
    "quint8": "uint8",
    "qint16": "int16",
    "quint16": "uint16",
    "qint32": "int32",
    "int4": "int8",
    "uint4": "uint8",
    "int2": "int8",
    "uint2": "uint8",
}


@dataclass(frozen=True, slots=True)
class Step:
    """
    What one entry of the state_dict gets: `target`, of this shape and dtype, out of its parts.

    It has one part, which writes all of it, or several whose `into` boxes fill it.
    """

    target: str
    shape: Shape
    dtype: str
    parts: tuple[Part, ...]

    @property
    def rule(self) -> Rule:
        """The rule of its first part; of a `tie` or a `keep`, the only one."""
        return self.parts[0].rule

    @property
    def sources(self) -> list[TensorRef]:
        """The variables that it reads, each once."""
        return list({read.ref.name: read.ref for part in self.parts for read in part.reads}.values())

    @property
    def elements(self) -> int:
        """How many elements the target has."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What a conversion does: one step for each entry of the state_dict, and why each other variable is not read.

    `ignored` maps a variable's name to the reason.
    """

    mapping: MappingFile
    checkpoint: CheckpointInventory
    steps: tuple[Step, ...]
    ignored: Mapping[str, str]

    @property
    def sources(self) -> list[TensorRef]:
        """The variables that are read, in file order."""
        refs = {ref.name: ref for step in self.steps for ref in step.sources}
        return sorted(refs.values(), key=lambda ref: (ref.shard, ref.offset, ref.name))


def stored(step: Step, dtype: str | None) -> str:
    """The dtype that the step's tensor is stored in, where `output.dtype` is `dtype`: only floating tensors get it."""
    return dtype if dtype and DTYPES[step.dtype].kind == "float" else step.dtype


def make(
    mapping: MappingFile, checkpoint: CheckpointInventory, module: ModuleInventory | None
) -> tuple[Plan, list[Problem]]:
    """
    The plan, and everything that stands against it; with an error among the problems the plan must not be run.

    Without a module's inventory the parameters are not checked, and a note says so.
    """
    applied = rules_applied(mapping, checkpoint, module)
    parts: list[Part] = []
    part_problems: list[Problem] = []
    for rule in applied.rules:
        part, found = _part(rule, mapping, checkpoint, module)
        part_problems += found
        parts += [part] if part else []
    problems = [
        *coverage.source_problems(mapping, checkpoint, applied, parts),
        *part_problems,
        *coverage.target_problems(mapping, module, applied, parts),
    ]
    problems += _otherwise_problems(applied.rules, checkpoint)
    by_target: dict[str, list[Part]] = {}
    for part in parts:
        by_target.setdefault(part.rule.target, []).append(part)
    steps = tuple(_step(target, own, module) for target, own in by_target.items())
    return Plan(mapping, checkpoint, steps, coverage.ignored(mapping, checkpoint, applied)), problems


def _otherwise_problems(rules: Sequence[Rule], checkpoint: CheckpointInventory) -> Iterator[Problem]:
    """Layers whose shapes say that torch's layer of that name computes otherwise, where a row reads them as usual."""
    special = dict(otherwise.by_shape(checkpoint.variables.values()))
    for rule in rules:
        for name in rule.sources:
            recipe = rule.use[3] if rule.use else ""
            if name in special and recipe not in otherwise.RECIPES.values():
                yield replace(special.pop(name), at=rule.place("tf"))


def _step(target: str, parts: list[Part], module: ModuleInventory | None) -> Step:
    ref = module.parameters.get(target) if module else None
    if ref is not None and any(part.into is not None for part in parts):
        return Step(target, ref.shape, ref.dtype, tuple(parts))
    return Step(target, parts[0].shape, parts[0].dtype, tuple(parts))


# --- shapes and dtypes ---


def _part(
    rule: Rule, mapping: MappingFile, checkpoint: CheckpointInventory, module: ModuleInventory | None
) -> tuple[Part | None, list[Problem]]:
    """The rule with both its sides, where its names are known and it is whole; None, and why, if it doesn't fit."""
    target = module.parameters.get(rule.target) if module else None
    refs = [checkpoint.variables.get(name) for name in rule.sources]
    known = [ref for ref in refs if ref is not None]
    if not rule.is_whole or (module and target is None) or len(known) < len(refs):
        return None, []
    into: Box | None = None
    if rule.into and target is not None:
        try:
            into = boxes.box(target.shape, rule.into)
        except BoundsError as error:
            return None, [Problem("T2T307", f"{shown(rule.target)}: into {error}", rule.place("into"))]
    if not known:
        if rule.fill is not None and target is not None and (held := _held(target.dtype, rule.fill)) != rule.fill:
            message = f"{shown(rule.target)} is {target.dtype}, which cannot hold {rule.fill} exactly"
            hint = f"what it would hold is {held!r}" if held is not None else "write a number that it holds"
            return None, [Problem("T2T405", message, rule.place("fill"), hint)]
        if target is None:
            return None, []
        return Part(rule, (), None, (), into, boxes.shape_of(into) if into else target.shape, target.dtype), []
    for ref in known:
        if problem := _counterpart_problem(rule, ref):
            return None, [problem]
    try:
        reads, shape, joined = _joined(rule, known)
        transforms = _transforms(rule, reads, shape, target, into)
    except AxesError as error:
        return None, [_shape_problem(rule, error)]
    ref = known[0]
    dtype = rule.dtype or (mapping.dtype if DTYPES[ref.dtype].kind == "float" else None) or ref.dtype
    problems = [found for found in (_dtype_problem(rule, ref, dtype, target), _number_problem(rule, dtype)) if found]
    return Part(rule, reads, joined, transforms, into, transforms[-1].output, dtype), problems


def _counterpart_problem(rule: Rule, source: TensorRef) -> Problem | None:
    """What cannot be read, has no numbers, or has a dtype that torch lacks and that the row does not cast."""
    name, place = shown(source.name), rule.place("tf")
    if source.unreadable:
        message = f"{name} ({source.dtype}) cannot become a parameter: {source.unreadable}"
        return Problem("T2T406", message, place)
    if DTYPES[source.dtype].numpy is None:
        return Problem("T2T406", f"{name}: {source.dtype} tensors cannot become parameters", place)
    if DTYPES[source.dtype].kind != "other" or rule.dtype is not None:
        return None
    hint = f"write dtype: {COUNTERPARTS[source.dtype]} (or another) on the row"
    return Problem("T2T406", f"{name}: {source.dtype} has no torch counterpart", place, hint)


def _joined(rule: Rule, refs: Sequence[TensorRef]) -> tuple[tuple[Read, ...], Shape, int | None]:
    """What is read of each variable, the shape of all of it together, and the axis that it is joined along, if any."""
    reads = []
    for ref in refs:
        try:
            reads.append(Read(ref, boxes.box(ref.shape, rule.slice)))
        except BoundsError as error:
            raise AxesError("T2T307", f"the slice of {shown(ref.name)} {error}") from None
    shapes = [boxes.shape_of(read.box) for read in reads]
    if rule.join is None:
        return tuple(reads), shapes[0], None
    left = rule.axes[0].left
    axis = left.index((rule.join,))
    dtypes = {ref.dtype for ref in refs}
    first = f"{shown(refs[0].name)} {list(shapes[0])}"
    if len(dtypes) > 1:
        raise AxesError("T2T308", f"variables of {' and '.join(sorted(dtypes))} are joined", "join those of one dtype")
    is_stack = axis == 0 and len(shapes[0]) + 1 == len(left)
    for ref, shape in zip(refs, shapes, strict=True):
        if len(shape) != len(left) - is_stack:
            text = f"axes '{rule.axes[0]}' are for rank {len(left)}, but {shown(ref.name)} is {list(shape)}"
            raise AxesError("T2T302", text, f"or one less, where {rule.join} is the first axis: then it stacks")
        others = [size for position, size in enumerate(shape) if is_stack or position != axis]
        mine = [size for position, size in enumerate(shapes[0]) if is_stack or position != axis]
        if others != mine:
            text = f"{first} and {shown(ref.name)} {list(shape)} cannot be joined along {rule.join}"
            raise AxesError("T2T308", text, "the other sizes must be equal")
    if is_stack:
        return tuple(reads), (len(shapes), *shapes[0]), 0
    total = sum(shape[axis] for shape in shapes)
    return tuple(reads), (*shapes[0][:axis], total, *shapes[0][axis + 1 :]), axis


def _transforms(
    rule: Rule, reads: Sequence[Read], shape: Shape, target: ParameterRef | None, into: Box | None
) -> tuple[Transform, ...]:
    source = reads[0].ref
    name = shown(source.name)
    if len(reads) > 1:
        name = f"the {len(reads)} variables from {name} on"
    elif rule.slice:
        name += boxes.text(reads[0].box, source.shape)
    if not rule.axes and len(shape) > 1:
        example = " ".join("abcdefgh"[: len(shape)])
        raise AxesError(
            "T2T305",
            f"{name} {list(shape)} has rank {len(shape)} and the row no axes",
            f"write how they move; for no move: axes: {example} -> {example}",
        )
    if "permute" in rule.places and len(rule.axes[0].left) != len(shape):
        text = f"permute is for rank {len(rule.axes[0].left)}, but {name} is {list(shape)}"
        raise AxesError("T2T302", text, "write one entry for each axis")
    transforms = notation.resolve(rule.axes, shape, rule.dims, rule.flip, rule.order)
    output = transforms[-1].output
    wanted = boxes.shape_of(into) if into is not None else target.shape if target is not None else output
    if target is not None and output != wanted:
        text = f"{name} {list(shape)}"
        if rule.axes:
            text = f"axes '{shown(notation.shown_steps(rule.axes))}' turn {text} into {_named(rule.axes[-1], output)}"
        its = f"the parameter's {boxes.text(into, target.shape)}" if into is not None else "the parameter"
        raise AxesError("T2T304", f"{text}, but {its} is {list(wanted)}")
    return transforms


def _named(axes: Axes, shape: Shape) -> str:
    """`[o=1024, (c h w)=3136]`: the parameter's sizes with the names that they have on the right side."""
    names = str(axes).split("->")[1].strip()
    groups = [" ".join(group) for group in axes.right]
    parts = [
        f"{group}={size}" if " " not in group else f"({group})={size}"
        for group, size in zip(groups, shape, strict=True)
    ]
    return f"[{', '.join(part.lstrip('=') for part in parts)}]" if names else "[]"


def _shape_problem(rule: Rule, error: AxesError) -> Problem:
    keys = {
        "T2T303": ("dims", "axes"),
        "T2T305": ("torch",),
        "T2T307": ("slice",),
        "T2T308": ("join",),
        "T2T309": ("flip",) if error.cause.startswith("flip") else ("order",),
    }.get(error.code, ("axes", "permute", "into"))
    place = next((rule.places[key] for key in keys if key in rule.places), rule.at)
    return Problem(error.code, f"{shown(rule.target)}: {error.cause}", place, error.hint)


def _dtype_problem(rule: Rule, source: TensorRef, dtype: str, target: ParameterRef | None) -> Problem | None:
    """A cast happens only where the row or the file names the parameter's dtype; complex values are never made real."""
    place = rule.place("dtype")
    if DTYPES[source.dtype].kind == "complex" and DTYPES[dtype].kind != "complex":
        message = f"{shown(rule.target)}: {shown(source.name)} is {source.dtype}, {dtype} would drop its imaginary part"
        return Problem("T2T401", message, place)
    if target is None or dtype == target.dtype:
        return None
    if dtype == source.dtype:
        message = f"{shown(rule.target)} is {target.dtype}, but {shown(source.name)} is {source.dtype}"
        return Problem("T2T401", message, place, f"if a cast is meant, write dtype: {target.dtype}")
    message = f"{shown(rule.target)} is {target.dtype}, but dtype says {dtype}"
    return Problem("T2T401", message, place, f"write dtype: {target.dtype}")


def _held(dtype: str, number: float) -> object:
    """
    What the dtype makes of the number, as Python's number: those compare exactly, whatever their kinds. None where it
    has nothing like it.
    """
    numpy = DTYPES[dtype].numpy
    assert numpy is not None
    try:
        with np.errstate(all="ignore"):
            return np.asarray(number).astype(numpy).item()
    except OverflowError:  # an integer beyond 64 bits
        return None


def _number_problem(rule: Rule, dtype: str) -> Problem | None:
    """A scale or an addend that the dtype has no such number for: a float may round it, but not to 0 or infinity."""
    added = rule.add if isinstance(rule.add, Mapping) else {}
    numbers = [number for entries in added.values() for number in entries.values()]
    for key, given in (("scale", [rule.scale]), ("add", [rule.add, *numbers])):
        for number in given:
            if not isinstance(number, int | float):
                continue
            held = _held(dtype, number)
            if DTYPES[dtype].kind == "bool":
                message = f"{shown(rule.target)} is bool, which has no {key}"
                return Problem("T2T407", message, rule.place(key), f"remove {key}")
            is_float = DTYPES[dtype].kind in {"float", "complex"}
            if held != number and not (is_float and held and np.isfinite(held)):  # type: ignore[call-overload]
                message = f"{shown(rule.target)} is {dtype}, which cannot hold the {key} {number}"
                hint = "choose a wider dtype" if is_float else "cast to a float with dtype, or write an integer"
                return Problem("T2T407", message, rule.place(key), hint)
    return None
