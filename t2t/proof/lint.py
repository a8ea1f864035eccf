"""
A mapping's rows against the graph of the original, where one is at hand. No weight is read, and nothing is run.

    graph       the one that verify names, else the .meta beside the checkpoint or the SavedModel that it lies in
    variables   found in it by what it reads the checkpoint into, by name, and by shape; else left alone
    findings    what a row gets wrong of a variable (see contradictions), and rows that nothing proves
    modules     the settings of torch's modules against those of the operations, for whoever has built the model

Of torch only plain values are seen: attributes by their names.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from t2t.checkpoints import dataflow
from t2t.checkpoints.dataflow import Dataflow, Result
from t2t.coverage import Part
from t2t.mapping import Mapping as MappingFile
from t2t.names import shown
from t2t.plan import Plan
from t2t.problems import CheckpointError, Location, Problem
from t2t.proof.contradictions import CODE, contradictions, forget_bias
from t2t.proof.graph_file import graph_file
from t2t.proof.uses import Use, places, uses
from t2t.rules import Rule
from t2t.tensors import TensorRef

#: The settings of a module that `against_module` looks at.
ATTRIBUTES = ("stride", "padding", "dilation", "groups", "eps", "kernel_size", "in_channels", "forget_bias")

#: What a module has, by attribute; "type" is the name of its class.
Attributes = Mapping[str, object]

_SIGNATURE = "serving_default"
#: What TensorFlow's loader runs, and nobody asks for.
_INTERNAL = "__saved_model_init_op"


def findings(
    plan: Plan, checkpoint: str, original: str = "", modules: Mapping[str, Attributes] | None = None
) -> list[Problem]:
    """
    What the graph says against the plan's rows; nothing where there is no graph.

    `checkpoint` is its path as it was found, `original` the file or directory that verify names. `modules` are the
    settings of the model's modules by their paths. A graph that cannot be read is a warning: neither the weights nor
    the mapping need it.
    """
    at_hand = graph_file(plan.mapping, checkpoint, original)
    if at_hand is None:
        return []
    kind, path, is_original = at_hand
    try:
        flow = dataflow.read(kind, path)
    except CheckpointError as error:
        hint = "no row is compared with it: move it away, or copy it again"
        return [replace(problem, severity="warning", hint=problem.hint or hint) for problem in error.problems]
    return compared(plan, flow, is_original=is_original, modules=modules)


def compared(
    plan: Plan, flow: Dataflow, *, is_original: bool, modules: Mapping[str, Attributes] | None = None
) -> list[Problem]:
    """What this graph says against the plan's rows. `is_original` says that verify's `fetch` names results of it."""
    fetched = _fetched(plan.mapping, flow) if is_original else None
    results = fetched or [
        result for name, outputs in flow.signatures.items() if name != _INTERNAL for result in outputs.values()
    ]
    needed = flow.ancestors(results) if results else None
    by_target: dict[str, list[Part]] = defaultdict(list)
    for step in plan.steps:
        by_target[step.target] += step.parts
    problems: list[Problem] = []
    unproven: dict[Location, list[tuple[Rule, TensorRef]]] = defaultdict(list)
    is_turned = _is_turned(plan.mapping)
    counts = Counter(ref.full_name for ref in plan.checkpoint.variables.values() if ref.full_name)
    for target, parts in by_target.items():
        settings = (modules or {}).get(target.rpartition(".")[0], {})
        for part in parts:
            for index, read in enumerate(part.reads):
                found = _places(flow, part.rule, index, read.ref, is_shared=counts[read.ref.full_name or ""] > 1)
                used = [position for position in found if needed is None or position in needed]
                if fetched and len(found) == 1 and not used:
                    unproven[part.rule.place("tf")].append((part.rule, read.ref))
                if len(used) != 1:
                    continue
                own = uses(flow, used[0], read.ref.shape, needed)
                problems += contradictions(part, own, str(settings.get("type", "")), is_turned=is_turned)
                problems += forget_bias(part, own, by_target, settings)
                problems += against_module(own, target, settings, part.rule.place("torch"))
    return [*problems, *(_unproven(at, rows, plan.mapping) for at, rows in unproven.items())]


def _places(flow: Dataflow, rule: Rule, index: int, ref: TensorRef, *, is_shared: bool) -> list[int]:
    """Where the graph may have the variable; where `select` reads its average, it computes with the plain one."""
    if rule.shadowed:
        return places(flow, "", rule.shadowed[index], ref.shape)
    return places(flow, ref.key, "" if is_shared else ref.full_name or ref.name, ref.shape)


def _fetched(mapping: MappingFile, flow: Dataflow) -> list[Result] | None:
    """The results that verify fetches; None where one of them is not to be found."""
    assert mapping.verify is not None
    reference = mapping.verify.reference
    outputs = flow.signatures.get(reference.signature or _SIGNATURE, {}) if reference.kind == "saved_model" else {}
    found = []
    for name in reference.fetch.values():
        operation, _, output = name.partition(":")
        if name in outputs:
            found.append(outputs[name])
        elif operation in flow.names and (output or "0").isdecimal() and len(output) < 9:
            found.append((flow.names[operation], int(output or 0)))
        else:
            return None
    return found


def _is_turned(mapping: MappingFile) -> bool:
    """Whether the model sees pictures with their height and width exchanged: n h w c -> n c w h."""
    verify = mapping.verify
    layouts = [*verify.axes.values(), *(output.axes for output in verify.outputs.values())] if verify else []
    for axes in layouts:
        if axes is not None and len(axes.names) == 4:
            order = [name for group in axes.right for name in group]
            if order.index(axes.names[1]) > order.index(axes.names[2]):
                return True
    return False


def _unproven(at: Location, rows: Sequence[tuple[Rule, TensorRef]], mapping: MappingFile) -> Problem:
    assert mapping.verify is not None
    names = list(mapping.verify.reference.fetch.values())
    fetch = ", ".join(map(shown, names[:3])) + (", ..." if len(names) > 3 else "")
    rule, ref = rows[0]
    message = f"{shown(rule.target)} gets {shown(ref.name)}, which no result that verify fetches depends on ({fetch})"
    if len(rows) > 1:
        some = ", ".join([shown(ref.name) for _, ref in rows[:3]] + (["..."] if len(rows) > 3 else []))
        message = f"no result that verify fetches ({fetch}) depends on {len(rows)} variables of this row: {some}"
    hint = "the proof says nothing about it: fetch what it goes into, too"
    details = tuple(f"{shown(ref.name)} -> {shown(rule.target)}" for rule, ref in rows)
    return Problem(CODE, message, at, hint, "warning", details if len(rows) > 1 else ())


# --- modules ---


def attributes(module: object) -> dict[str, object]:
    """The settings of a module: its class's name as `type`, and those of ATTRIBUTES that it has."""
    return {"type": type(module).__name__} | {
        name: getattr(module, name) for name in ATTRIBUTES if hasattr(module, name)
    }


def against_module(own: Sequence[Use], target: str, settings: Attributes, at: Location | None = None) -> list[Problem]:
    """
    Where the module that `target` belongs to is set otherwise than the operations that compute with its variable.

    Warnings: whether the results differ, the proof says; a module can make up for it elsewhere.
    """
    module = shown(target.rpartition(".")[0] or "the module")
    found: list[str] = []
    for use in own:
        operation = str(use.operation)
        if use.role == "kernel" and str(settings.get("type", "")).startswith("Conv") and use.strides:
            found += _of_convolution(use, settings, operation)
        elif use.role == "variance" and use.epsilon is not None:
            eps = settings.get("eps")
            if isinstance(eps, float) and not np.isclose(eps, use.epsilon, rtol=1e-6, atol=0):
                found.append(f"eps {eps:g}, but {operation} has the epsilon {use.epsilon:g}")
    return [
        Problem(CODE, f"{module} has the {text}", at, "build it as the original was", "warning")
        for text in dict.fromkeys(found)
    ]


def _of_convolution(use: Use, settings: Attributes, operation: str) -> list[str]:
    rank = len(use.strides)
    found = []
    for key, mine in (("stride", use.strides), ("dilation", use.dilations)):
        theirs = _numbers(settings.get(key), rank)
        if theirs and mine and theirs != mine:
            found.append(f"{key} {list(theirs)}, but {operation} has {list(mine)}")
    groups, channels = settings.get("groups"), settings.get("in_channels")
    if use.axes == "h w i m" and isinstance(groups, int) and groups != channels:
        found.append(f"groups {groups}, but {operation} has one for each of {channels} channels")
    return found + ([] if found or "Backprop" in use.operation.op else _of_padding(use, settings, operation))


def _of_padding(use: Use, settings: Attributes, operation: str) -> list[str]:
    """Padding by numbers is the same on both sides for torch; SAME has the odd one at the end, and VALID none."""
    rank = len(use.strides)
    theirs, kernel = (_numbers(settings.get(key), rank) for key in ("padding", "kernel_size"))
    if not theirs or not any(theirs) or not kernel:
        return []  # by a name, or none: the module may pad elsewhere
    if use.padding == "VALID":
        return [f"padding {list(theirs)}, but {operation} has none"]
    if use.padding != "SAME" or not use.dilations:
        return []
    sides = []
    for axis in range(rank):
        reach, stride = (kernel[axis] - 1) * use.dilations[axis] + 1, use.strides[axis]
        size = use.sizes[axis] if use.sizes else -1
        if size < 0 and stride > 1:
            return []
        total = max((-(-size // stride) - 1) * stride + reach - size, 0) if stride > 1 else reach - 1
        sides.append((total // 2, total - total // 2))
    if all(side == (padding, padding) for side, padding in zip(sides, theirs, strict=True)):
        return []
    meant = ", ".join(f"{before} before and {after} after" for before, after in sides)
    return [f"padding {list(theirs)} on both sides, but {operation} has SAME, which is {meant}"]


def _numbers(value: object, rank: int) -> tuple[int, ...] | None:
    """One number for each axis of the map; None for anything else."""
    if isinstance(value, int):
        return (value,) * rank
    if isinstance(value, tuple) and len(value) == rank and all(isinstance(number, int) for number in value):
        return value
    return None
