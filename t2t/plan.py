"""
Rules x the checkpoint's inventory x the module's inventory -> a Plan, or everything that stands against it.

Planning reads no tensor: names, dtypes and shapes decide. It accounts for every element on both sides: a variable is
read by a row or named in `ignore`, a parameter or persistent buffer is written by exactly one row.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from t2t import axes as notation
from t2t.axes import Axes, AxesError, Transform
from t2t.mapping import Mapping as MappingFile
from t2t.mapping import Rule
from t2t.names import VALUE_SUFFIX, matches, nearest, proposing, shown
from t2t.problems import Location, Problem
from t2t.tensors import DTYPES, CheckpointInventory, ModuleInventory, ParameterRef, Shape, TensorRef

#: How many unknown names get a proposal. Comparing one with thousands of names takes a while, and where a whole
#: checkpoint is another one nobody reads more of them.
PROPOSALS = 20

#: More unused variables are one problem, with its details.
MAX_UNUSED = 10

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
    One rule with both its sides known: what the entry `target` of the state_dict gets.

    From a variable: `source` and `transform`, cast to `dtype` (in that order of reading; the cast moves no element).
    Otherwise the rule's `fill`, `tie` or `keep` says it. `shape` and `dtype` are the target's.
    """

    rule: Rule
    target: str
    shape: Shape
    dtype: str
    source: TensorRef | None = None
    transform: Transform | None = None

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
        refs = {step.source.name: step.source for step in self.steps if step.source}
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
    problems = _source_problems(mapping, checkpoint)
    steps = []
    for rule in mapping.rules:
        step, step_problems = _step(rule, mapping, checkpoint, module)
        problems += step_problems
        steps += [step] if step else []
    problems += _target_problems(mapping, module)
    ignored = {}
    for name, ref in checkpoint.variables.items():
        whys = [entry.why for entry in mapping.ignore if _covers(entry.pattern, ref)]
        if whys:
            ignored[name] = whys[0]
    used = {rule.source for rule in mapping.rules}
    plan = Plan(
        mapping,
        checkpoint,
        tuple(steps),
        {name: why for name, why in ignored.items() if name not in used},
    )
    return plan, problems


# --- names ---


def _source_problems(mapping: MappingFile, checkpoint: CheckpointInventory) -> list[Problem]:
    variables = checkpoint.variables
    problems: list[Problem] = []
    readers: dict[str, list[Rule]] = defaultdict(list)
    meant: set[str] = set()  # a name that a hint proposes is not reported a second time as unused
    others = _other_names(mapping, checkpoint)
    for rule in mapping.rules:
        if rule.source is None:
            continue
        if rule.source in variables:
            readers[rule.source].append(rule)
        elif rule.source in checkpoint.shared_names:
            meant.update(checkpoint.shared_names[rule.source])
            problems.append(_shared_problem(rule.source, checkpoint, rule.place("tf")))
        elif other := _other_name(rule.source, mapping, others):
            meant.add(other[0])
            message = f"{shown(rule.source)} is not a variable of the checkpoint"
            problems.append(Problem("T2T201", message, rule.place("tf"), other[1]))
        else:
            close = nearest(rule.source, variables) if len(problems) < PROPOSALS else []
            meant.update(close[:1])
            message = f"{shown(rule.source)} is not a variable of the checkpoint"
            problems.append(Problem("T2T201", message, rule.place("tf"), proposing(close)))
    for name, rules in readers.items():
        problems += _reuse_problems(name, rules)
    for entry in mapping.ignore:
        if entry.pattern is not None and not any(matches(entry.pattern, name) for name in variables):
            shared = [name for name in checkpoint.shared_names if matches(entry.pattern, name)]
            if shared:
                meant.update(key for name in shared for key in checkpoint.shared_names[name])
                problems += [_shared_problem(name, checkpoint, entry.at) for name in shared]
                continue
            close = nearest(entry.pattern, variables, 1) if len(problems) < PROPOSALS else []
            meant.update(close)
            message = f"ignore pattern {shown(entry.pattern)} matches no variable of the checkpoint"
            problems.append(Problem("T2T208", message, entry.at, proposing(close) or "remove it: it is stale"))
    if not readers and not problems:
        message = "no row reads a variable of the checkpoint"
        problems.append(Problem("T2T209", message, mapping.map_at, "write a row with tf and torch"))
    unused = [
        ref
        for name, ref in variables.items()
        if not (name in readers or name in meant or any(_covers(entry.pattern, ref) for entry in mapping.ignore))
    ]
    if slots := [ref for ref in unused if ref.slot_of is not None]:
        some = ", ".join([shown(ref.name) for ref in slots[:3]] + (["..."] if len(slots) > 3 else []))
        message = f"optimizer slots and counters are used by no row, {len(slots)} in all: {some}"
        hint = "write - {slots: true, why: ...} under ignore for all of them"
        problems.append(Problem("T2T205", message, mapping.map_at, hint))
    forgotten = [ref for ref in unused if ref.slot_of is None]
    hint = "map it, or name it under ignore with a why"
    if len(forgotten) > MAX_UNUSED:
        # A mapping that is half written: one line each would bury what is wrong with its rows.
        some = ", ".join(shown(ref.name) for ref in forgotten[:3])
        message = f"{len(forgotten)} variables are used by no row: {some}, ..."
        details = tuple(f"{shown(ref.name)} {ref.dtype} {list(ref.shape)}" for ref in forgotten)
        problems.append(
            Problem(
                "T2T205", message, mapping.map_at, "map them, or name them under ignore with a why", details=details
            )
        )
        return problems
    for ref in forgotten:
        what = f"{ref.dtype} {list(ref.shape)}, {ref.elements} element{'' if ref.elements == 1 else 's'}"
        problems.append(
            Problem("T2T205", f"variable {shown(ref.name)} ({what}) is used by no row", mapping.map_at, hint)
        )
    return problems


def _shared_problem(name: str, checkpoint: CheckpointInventory, at: Location) -> Problem:
    owners = checkpoint.shared_names[name]
    some = ", ".join([shown(owner) for owner in owners[:5]] + (["..."] if len(owners) > 5 else []))
    message = f"{shown(name)} is the full name of {len(owners)} variables with different values: {some}"
    return Problem("T2T211", message, at, "write which of these is meant: they go by their keys")


def _other_names(mapping: MappingFile, checkpoint: CheckpointInventory) -> dict[str, str]:
    """What variables do not go by in this mapping, and would with the other `source.names`; with their names here."""
    refs = checkpoint.variables.values()
    if mapping.names == "key":
        return {ref.full_name: ref.name for ref in refs if ref.full_name}
    return {ref.key.removesuffix(VALUE_SUFFIX): ref.name for ref in refs if ref.key}


def _other_name(name: str, mapping: MappingFile, others: Mapping[str, str]) -> tuple[str, str] | None:
    """The variable that goes by another name than this one of it, and a hint that says so."""
    if name not in others:
        return None
    if mapping.names == "key":
        return others[name], f"it is the full name of {shown(others[name])}: write that, or names: full_name in source"
    return others[name], f"it is the key of {shown(others[name])}, which names: full_name in source calls it"


def _reuse_problems(name: str, rules: Sequence[Rule]) -> Iterable[Problem]:
    if len(rules) == 1:
        if rules[0].reuse:
            message = f"reuse: true, but only this row reads {shown(name)}"
            yield Problem("T2T207", message, rules[0].place("reuse"), "remove reuse")
        return
    for rule in rules:
        if not rule.reuse:
            lines = [str(other.at.line) for other in rules[:4] if other is not rule][:3]
            others = ", ".join(lines if len(rules) <= 4 else [*lines, "..."])
            message = f"{shown(name)} is read {len(rules)} times, also in line {others}"
            yield Problem(
                "T2T206", message, rule.place("tf"), "if that is meant, write reuse: true in each of these rows"
            )


def _covers(pattern: str | None, ref: TensorRef) -> bool:
    return ref.slot_of is not None if pattern is None else matches(pattern, ref.name)


def _target_problems(mapping: MappingFile, module: ModuleInventory | None) -> list[Problem]:
    problems = []
    writers: dict[str, Rule] = {}
    for rule in mapping.rules:
        if rule.target in writers:
            message = f"{shown(rule.target)} is written twice, first in line {writers[rule.target].at.line}"
            problems.append(Problem("T2T203", message, rule.place("torch"), "remove one of the rows"))
        else:
            writers[rule.target] = rule
    if module is None:
        problems += _tie_problems(mapping.rules, writers)
        message = "parameters not checked: no lock"
        hint = "convert checks them against the module itself"
        return [*problems, Problem("T2T210", message, mapping.map_at, hint, "note")]
    parameters = module.parameters
    meant = set()
    for rule in mapping.rules:
        for key, name in (("torch", rule.target), ("tie", rule.tie)):
            if name is not None and name not in parameters:
                close = nearest(name, parameters) if len(problems) < PROPOSALS else []
                meant.update(close[:1])
                message = f"{shown(name)} is not a parameter or persistent buffer of the module"
                problems.append(Problem("T2T202", message, rule.place(key), proposing(close)))
    for group in _groups(parameters):
        problems += _group_problems(group, parameters, writers, meant, mapping.map_at)
    return problems


def _tie_problems(rules: Sequence[Rule], writers: Mapping[str, Rule]) -> Iterable[Problem]:
    """Ties that are wrong whatever the module is: to a name that no row writes, to itself, to another tie."""
    for rule in rules:
        other = writers.get(rule.tie) if rule.tie is not None else None
        if rule.tie is not None and other is None:
            message = f"{shown(rule.target)} is tied to {shown(rule.tie)}, which no row writes"
            yield Problem("T2T404", message, rule.place("tie"), proposing(nearest(rule.tie, writers)))
        elif other is not None and other.tie is not None:
            message = f"{shown(rule.target)} is tied to {shown(other.target)}, which is tied itself"
            yield Problem("T2T404", message, rule.place("tie"), "tie to the name whose row gives the value")


def _groups(parameters: Mapping[str, ParameterRef]) -> list[list[ParameterRef]]:
    """The entries of the state_dict, those that share one Parameter together."""
    groups: dict[str, list[ParameterRef]] = defaultdict(list)
    for ref in parameters.values():
        groups[ref.tied_to or ref.name].append(ref)
    return list(groups.values())


def _group_problems(
    group: Sequence[ParameterRef],
    parameters: Mapping[str, ParameterRef],
    writers: Mapping[str, Rule],
    meant: set[str],
    map_at: Location,
) -> Iterable[Problem]:
    """One Parameter, under all its names: one row gives it a value, the others tie."""
    names = [ref.name for ref in group]
    valued = [writers[name] for name in names if name in writers and writers[name].tie is None]
    for ref in group:
        rule = writers.get(ref.name)
        if rule is None:
            if ref.name in meant:
                continue
            message = f"{ref.kind} {shown(ref.name)} ({ref.dtype} {list(ref.shape)}) is written by no row"
            hint = "map it, or give it fill or keep"
            if valued:
                hint = f"it is the same Parameter as {shown(valued[0].target)}: write tie: {shown(valued[0].target)}"
            yield Problem("T2T204", message, map_at, hint)
        elif rule.tie is not None:
            other = writers.get(rule.tie)
            if rule.tie not in parameters:
                continue  # that is said already
            if rule.tie not in names:
                message = f"{shown(ref.name)} is not the same Parameter as {shown(rule.tie)} in the module"
                yield Problem(
                    "T2T404", message, rule.place("tie"), "tie names that share one Parameter; map it instead"
                )
            elif valued and other is not None and other.tie is not None:
                message = f"{shown(ref.name)} is tied to {shown(rule.tie)}, which is tied itself"
                yield Problem("T2T404", message, rule.place("tie"), f"write tie: {shown(valued[0].target)}")
        elif rule is not valued[0]:
            first = valued[0]
            message = (
                f"{shown(ref.name)} is the same Parameter as {shown(first.target)}, which line {first.at.line} writes"
            )
            yield Problem(
                "T2T203", message, rule.place("torch"), f"write tie: {shown(first.target)} in one of the rows"
            )
    if not valued and all(name in writers for name in names):
        rule = writers[names[0]]
        message = f"{shown(names[0])} is tied, and no row gives the Parameter a value"
        yield Problem("T2T204", message, rule.at, "map one of its names")


# --- shapes and dtypes ---


def _step(
    rule: Rule, mapping: MappingFile, checkpoint: CheckpointInventory, module: ModuleInventory | None
) -> tuple[Step | None, list[Problem]]:
    """The rule as a step, where both its names are known and the row is whole; None, and why, where it does not fit."""
    target = module.parameters.get(rule.target) if module else None
    source = checkpoint.variables.get(rule.source) if rule.source is not None else None
    if not rule.is_whole or (module and target is None) or (rule.source is not None and source is None):
        return None, []
    if source is None:
        if rule.fill is not None and target is not None and (held := _held(target.dtype, rule.fill)) != rule.fill:
            message = f"{shown(rule.target)} is {target.dtype}, which cannot hold {rule.fill} exactly"
            return None, [Problem("T2T405", message, rule.place("fill"), f"what it would hold is {held!r}")]
        return (Step(rule, target.name, target.shape, target.dtype) if target else None), []
    problems = []
    if problem := _counterpart_problem(rule, source):
        return None, [problem]
    try:
        transform = _transform(rule, source, target)
    except AxesError as error:
        return None, [_shape_problem(rule, error)]
    dtype = rule.dtype or (mapping.dtype if DTYPES[source.dtype].kind == "float" else None) or source.dtype
    if problem := _dtype_problem(rule, source, dtype, target):
        problems.append(problem)
    return Step(rule, rule.target, transform.output, dtype, source, transform), problems


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


def _transform(rule: Rule, source: TensorRef, target: ParameterRef | None) -> Transform:
    if rule.axes is None:
        if len(source.shape) > 1:
            example = " ".join("abcdefgh"[: len(source.shape)])
            raise AxesError(
                "T2T305",
                f"{shown(source.name)} {list(source.shape)} has rank {len(source.shape)} and the row no axes",
                f"write how they move; for no move: axes: {example} -> {example}",
            )
        transform = notation.identity(source.shape)
    else:
        if "permute" in rule.places and len(rule.axes.left) != len(source.shape):
            text = f"permute is for rank {len(rule.axes.left)}, but {shown(source.name)} is {list(source.shape)}"
            raise AxesError("T2T302", text, "write one entry for each axis")
        transform = rule.axes.resolve(source.shape, rule.dims)
    if target is not None and transform.output != target.shape:
        text = f"{shown(source.name)} {list(source.shape)}"
        if rule.axes is not None:
            text = f"axes '{rule.axes}' turn {text} into {_named(rule.axes, transform.output)}"
        raise AxesError("T2T304", f"{text}, but the parameter is {list(target.shape)}")
    return transform


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
    keys = {"T2T303": ("dims", "axes"), "T2T305": ("torch",)}.get(error.code, ("axes", "permute"))
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
    """What the dtype makes of the number, as Python's number: those compare exactly, whatever their kinds."""
    numpy = DTYPES[dtype].numpy
    assert numpy is not None
    with np.errstate(all="ignore"):
        return np.asarray(number).astype(numpy).item()
