"""
Who accounts for which element, on both sides.

Each variable is read by rows, named in `ignore`, or its unread part in `drop`; each parameter and persistent buffer is
written by rows, once. This is box arithmetic: it costs the same for a variable of 10 GB and for one of ten elements.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from t2t import boxes
from t2t.applied import PROPOSALS, Applied, Use
from t2t.axes import Transform
from t2t.boxes import BoundsError, Box, TooManyError
from t2t.mapping import Mapping as MappingFile
from t2t.names import VALUE_SUFFIX, matches, nearest, proposing, shown
from t2t.problems import Location, Problem
from t2t.rules import Rule
from t2t.tensors import CheckpointInventory, ModuleInventory, ParameterRef, Shape, TensorRef

#: More unused variables are one problem, with its details.
MAX_UNUSED = 10

#: What to do about a parameter that no row writes.
UNWRITTEN = "map it, or give it fill or keep"


@dataclass(frozen=True, slots=True)
class Read:
    """A variable, and which of its elements are read."""

    ref: TensorRef
    box: Box


@dataclass(frozen=True, slots=True)
class Part:
    """
    One rule with both its sides known: what it writes of its target, all of it or the box `into`.

    From variables: what is read of each, joined along the axis `joined` (a stack where they have one rank less than
    the first transform's input), through the transforms, cast to `dtype`. Otherwise the rule's `fill`, `tie` or `keep`
    says it. `shape` is that of what is written.
    """

    rule: Rule
    reads: tuple[Read, ...]
    joined: int | None
    transforms: tuple[Transform, ...]
    into: Box | None
    shape: Shape
    dtype: str


def ignored(mapping: MappingFile, checkpoint: CheckpointInventory, applied: Applied) -> dict[str, str]:
    """Why each variable that no rule reads is not read; the first entry that covers it gives the reason."""
    used = {name for rule in applied.rules for name in rule.sources}
    whys: dict[str, str] = {}
    for rule in applied.rules:
        for name in rule.shadowed:
            if name in checkpoint.variables:
                whys[name] = f"source.select reads its {mapping.select}"
    for name, ref in checkpoint.variables.items():
        for entry in mapping.ignore:
            if _covers(entry.pattern, ref):
                whys.setdefault(name, entry.why)
                break
    return {name: whys[name] for name in checkpoint.variables if name in whys and name not in used}


def _is_ignored(mapping: MappingFile, ref: TensorRef) -> bool:
    return any(_covers(entry.pattern, ref) for entry in mapping.ignore)


def _letters(name: str) -> str:
    """The name without its numbers."""
    return "".join(character for character in name if not character.isdigit())


def _covers(pattern: str | None, ref: TensorRef) -> bool:
    return ref.slot_of is not None if pattern is None else matches(pattern, ref.name)


# --- the checkpoint's side ---


def source_problems(
    mapping: MappingFile, checkpoint: CheckpointInventory, applied: Applied, parts: Sequence[Part]
) -> list[Problem]:
    """Names that are not there, elements that nobody or several read, patterns that are stale."""
    variables = checkpoint.variables
    problems: list[Problem] = list(applied.problems)
    readers: dict[str, list[Rule]] = defaultdict(list)
    meant: set[str] = set(applied.told)  # a name that a hint proposes is not reported a second time as unused
    unknown: dict[Location, list[str]] = defaultdict(list)
    others = _other_names(mapping, checkpoint)
    for rule in applied.rules:
        for position, name in enumerate(rule.sources):
            if name in variables:
                readers[name].append(rule)
                continue
            message = f"{shown(name)} is not a variable of the checkpoint"
            if name in checkpoint.shared_names:
                meant.update(checkpoint.shared_names[name])
                problems.append(_shared_problem(name, checkpoint, rule.place("tf")))
            elif rule.shadowed and rule.shadowed[position] in variables:
                raw = rule.shadowed[position]
                meant.add(raw)
                message = f"source.select reads {shown(name)}, which is not a variable of the checkpoint"
                hint = f"write select: none on the row, if the plain {shown(raw)} is meant"
                problems.append(Problem("T2T214", message, rule.place("tf"), hint))
            elif other := _other_name(name, mapping, others):
                meant.add(other[0])
                problems.append(Problem("T2T201", message, rule.place("tf"), other[1]))
            else:
                unknown[rule.place("tf")].append(name)
    what = ("a variable of the checkpoint", "variables of the checkpoint")
    covered = (name for name, ref in variables.items() if ref.slot_of is not None or _is_ignored(mapping, ref))
    taken = {*readers, *covered} if unknown else set()
    problems += _unknown_problems("T2T201", what, unknown, variables, count=len(problems), meant=meant, taken=taken)
    reads = _reads(parts)
    needed: dict[Use, bool] = {}
    for name, rules in readers.items():
        problems += _reader_problems(variables[name], rules, reads.get(name, []), needed)
    for use, is_needed in needed.items():
        rule = next(rule for rule in applied.rules if rule.use == use)
        if rule.reuse and not is_needed:
            message = f"reuse: true, but only this row reads what its recipe {shown(use[3])} reads"
            problems.append(Problem("T2T207", message, rule.place("reuse"), "remove reuse"))
    problems += _element_problems(mapping, checkpoint, readers, reads)
    problems += _stale_problems(mapping, checkpoint, meant, len(problems))
    if not readers and not problems and not mapping.lost.variables:
        message = "no row reads a variable of the checkpoint"
        problems.append(Problem("T2T209", message, mapping.map_at, "write a row with tf and torch"))
    meant.update(name for rule in applied.rules for name in rule.shadowed)
    return [*problems, *_unused_problems(mapping, checkpoint, {*readers, *meant})]


def _stale_problems(
    mapping: MappingFile, checkpoint: CheckpointInventory, meant: set[str], count: int
) -> Iterable[Problem]:
    """Patterns of `ignore` that match no variable."""
    for entry in mapping.ignore:
        if entry.pattern is None or any(matches(entry.pattern, name) for name in checkpoint.variables):
            continue
        shared = [name for name in checkpoint.shared_names if matches(entry.pattern, name)]
        if shared:
            meant.update(key for name in shared for key in checkpoint.shared_names[name])
            yield from (_shared_problem(name, checkpoint, entry.at) for name in shared)
            continue
        close = nearest(entry.pattern, checkpoint.variables, 1) if count < PROPOSALS else []
        count += 1
        meant.update(close)
        hint = proposing(close) or "remove it: it is stale"
        if any("**" in part and part != "**" for part in entry.pattern.split("/")):
            hint = "** stands for whole parts of a name, * for some of one: write **/*NAME*"
        message = f"ignore pattern {shown(entry.pattern)} matches no variable of the checkpoint"
        yield Problem("T2T208", message, entry.at, hint)


def _unknown_problems(
    code: str,
    what: tuple[str, str],
    unknown: Mapping[Location, Sequence[str]],
    candidates: Mapping[str, object],
    *,
    count: int,
    meant: set[str],
    taken: Collection[str],
) -> Iterable[Problem]:
    """
    The names that are not among the candidates, by where they stand; those that a hint proposes come into `meant`.
    Where the nearest is the only one that is not `taken`, it is the answer; not where only numbers tell them apart.

    Many names of one row are one problem: of a row with an index, one line each would bury the others.
    """
    for at, names in unknown.items():
        each = names if len(names) <= MAX_UNUSED else names[:1]
        for name in each:
            close = nearest(name, candidates) if count < PROPOSALS else []
            count += 1
            meant.update(close[:1])
            if len(names) > MAX_UNUSED:
                some = ", ".join(shown(name) for name in names[:3])
                message = f"{len(names)} names of this row are not {what[1]}: {some}, ..."
                yield Problem(code, message, at, proposing(close), details=tuple(map(shown, names)))
            else:
                hint = proposing(close) or ("an index is written <i>" if "{" in name else "")
                free = [other for other in close if other not in taken]
                is_plain = len(names) == len(free) == 1 and free == close[:1] and _letters(name) != _letters(free[0])
                fix = (name, close[0]) if is_plain else None
                yield Problem(code, f"{shown(name)} is not {what[0]}", at, hint, fix=fix)


def _unused_problems(mapping: MappingFile, checkpoint: CheckpointInventory, used: set[str]) -> Iterable[Problem]:
    unused = [ref for name, ref in checkpoint.variables.items() if not (name in used or _is_ignored(mapping, ref))]
    if slots := [ref for ref in unused if ref.slot_of is not None]:
        some = ", ".join([shown(ref.name) for ref in slots[:3]] + (["..."] if len(slots) > 3 else []))
        message = f"optimizer slots and counters are used by no row, {len(slots)} in all: {some}"
        hint = "write - {slots: true, why: ...} under ignore for all of them"
        yield Problem("T2T205", message, mapping.map_at, hint)
    forgotten = [ref for ref in unused if ref.slot_of is None]
    if len(forgotten) > MAX_UNUSED:
        # A mapping that is half written: one line each would bury what is wrong with its rows.
        some = ", ".join(shown(ref.name) for ref in forgotten[:3])
        message = f"{len(forgotten)} variables are used by no row: {some}, ..."
        details = tuple(f"{shown(ref.name)} {ref.dtype} {list(ref.shape)}" for ref in forgotten)
        hint = "map them, or name them under ignore with a why"
        yield Problem("T2T205", message, mapping.map_at, hint, details=details)
        return
    for ref in forgotten:
        what = f"{ref.dtype} {list(ref.shape)}, {ref.elements} element{'' if ref.elements == 1 else 's'}"
        message = f"variable {shown(ref.name)} ({what}) is used by no row"
        yield Problem("T2T205", message, mapping.map_at, "map it, or name it under ignore with a why")


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


def _reads(parts: Sequence[Part]) -> dict[str, list[tuple[Rule, Box]]]:
    """Who reads which elements of each variable, as far as it is known."""
    found: dict[str, list[tuple[Rule, Box]]] = defaultdict(list)
    for part in parts:
        for read in part.reads:
            found[read.ref.name].append((part.rule, read.box))
    return found


def _reader_problems(
    ref: TensorRef, rules: Sequence[Rule], reads: Sequence[tuple[Rule, Box]], shared: dict[Use, bool]
) -> Iterable[Problem]:
    """
    Elements that several rules read without saying so, and `reuse` where no other rule reads them.

    A row that uses a recipe says `reuse` for all its rules: `shared` collects for each whether one of them needs it.
    """
    name, everything = shown(ref.name), boxes.whole(ref.shape)
    if len(reads) < len(rules) and any(rule.slice for rule in rules):
        return  # another problem stands in the way of knowing
    if len(reads) < len(rules):
        reads = [(rule, everything) for rule in rules]
    try:
        partners = boxes.overlaps([box for _, box in reads])
    except TooManyError as error:
        yield Problem("T2T110", f"{name}: {error}", rules[0].place("slice"), "write fewer slices")
        return
    if len(rules) > 1 and all(rule.at == rules[0].at for rule in rules) and None not in partners:
        shared.update((rule.use, True) for rule in rules if rule.use)
        if not rules[0].reuse:
            message = f"{name} is read {len(rules)} times by this row"
            hint = "name it once, use the row's letters in tf too or, if that is meant, write reuse: true"
            yield Problem("T2T206", message, rules[0].place("tf"), hint)
        return
    for (rule, box), partner in zip(reads, partners, strict=True):
        text = "" if box == everything else boxes.text(box, ref.shape)
        if rule.reuse and rule.use is not None:
            shared[rule.use] = shared.get(rule.use, False) or partner is not None
        elif rule.reuse and partner is None:
            message = f"reuse: true, but only this row reads {name}{text}"
            yield Problem("T2T207", message, rule.place("reuse"), "remove reuse")
        if rule.reuse or partner is None:
            continue
        hint = "if that is meant, write reuse: true in each of these rows"
        if text or reads[partner][1] != everything:
            second, theirs = reads[partner]
            message = f"{name}{boxes.text(box, ref.shape)} is read again in line {second.at.line}"
            message += f", as {boxes.text(theirs, ref.shape)}"
            yield Problem("T2T206", message, rule.place("slice"), hint)
            continue
        lines = [str(other.at.line) for other in rules[:4] if other is not rule][:3]
        others = ", ".join(lines if len(rules) <= 4 else [*lines, "..."])
        message = f"{name} is read {len(rules)} times, also in line {others}"
        yield Problem("T2T206", message, rule.place("tf"), hint)


def _element_problems(
    mapping: MappingFile,
    checkpoint: CheckpointInventory,
    readers: Mapping[str, Sequence[Rule]],
    reads: Mapping[str, Sequence[tuple[Rule, Box]]],
) -> Iterable[Problem]:
    """Elements that a drop names and a row reads, and those that neither does."""
    dropped: dict[str, list[Box]] = defaultdict(list)
    count = 0
    for drop in mapping.drop:
        name, ref = shown(drop.name), checkpoint.variables.get(drop.name)
        if ref is None:
            close = nearest(drop.name, checkpoint.variables) if count < PROPOSALS else []
            count += 1
            message = f"drop: {name} is not a variable of the checkpoint"
            yield Problem("T2T201", message, drop.at, proposing(close))
            continue
        try:
            box = boxes.box(ref.shape, drop.slice)
        except BoundsError as error:
            yield Problem("T2T307", f"drop: the slice of {name} {error}", drop.at)
            continue
        if any(boxes.overlapping([box, other]) for other in dropped[drop.name]):
            message = f"drop names {name}{boxes.text(box, ref.shape)} twice"
            yield Problem("T2T212", message, drop.at, "name each element once")
        dropped[drop.name].append(box)
        if drop.name not in readers or box == boxes.whole(ref.shape):
            what = "all of" if box == boxes.whole(ref.shape) else "a part of"
            message = f"drop names {what} {name}, which no row reads" if drop.name not in readers else ""
            message = message or f"drop names all of {name}, which line {readers[drop.name][0].at.line} reads"
            yield Problem("T2T212", message, drop.at, "name the variable under ignore, or drop what no row reads")
            continue
        for rule, mine in reads.get(drop.name, ()):
            if boxes.overlapping([box, mine]):
                message = f"drop names {name}{boxes.text(box, ref.shape)}, of which line {rule.at.line} reads"
                yield Problem("T2T212", f"{message} {boxes.text(mine, ref.shape)}", drop.at, "drop what no row reads")
                break
    for name, mine_read in reads.items():
        ref, rules = checkpoint.variables[name], readers.get(name, ())
        if len(mine_read) < len(rules):
            continue  # another problem stands in the way of knowing
        held = [*(box for _, box in mine_read), *dropped.get(name, ())]
        everything = boxes.whole(ref.shape)
        if everything in held:
            continue
        rule = mine_read[-1][0]
        try:
            unread = boxes.rest(everything, held)
        except TooManyError as error:
            yield Problem("T2T110", f"{shown(name)}: {error}", rule.place("slice"), "write fewer slices")
            continue
        for box in unread:
            share = f"{boxes.volume(box)} of {ref.elements} elements"
            message = f"{shown(name)}{boxes.text(box, ref.shape)} ({share}) is read by no row"
            yield Problem("T2T205", message, rule.place("slice"), "map it too, or name it under drop with a why")


# --- the module's side ---


def target_problems(
    mapping: MappingFile, module: ModuleInventory | None, applied: Applied, parts: Sequence[Part]
) -> list[Problem]:
    """Names that are not there, elements that nobody or several write, ties that are none."""
    problems: list[Problem] = []
    writers: dict[str, Rule] = {}
    is_partly: set[str] = set()
    for rule in applied.rules:
        first = writers.setdefault(rule.target, rule)
        if first is rule:
            continue
        if first.into and rule.into:
            is_partly.add(rule.target)
            continue
        message = f"{shown(rule.target)} is written twice, first in line {first.at.line}"
        problems.append(Problem("T2T203", message, rule.place("torch"), "remove one of the rows"))
    if module is None:
        problems += _tie_problems(applied.rules, writers)
        message = "parameters not checked: no lock"
        hint = "t2t lock writes one, convert checks them by itself"
        return [*problems, Problem("T2T210", message, mapping.map_at, hint, "note")]
    parameters = module.parameters
    meant = set(applied.told)
    unknown: dict[Location, list[str]] = defaultdict(list)
    for rule in applied.rules:
        for key, name in (("torch", rule.target), ("tie", rule.tie)):
            if name is not None and name not in parameters:
                unknown[rule.place(key)].append(name)
    what = ("a parameter or persistent buffer of the module", "parameters or persistent buffers of the module")
    problems += _unknown_problems("T2T202", what, unknown, parameters, count=len(problems), meant=meant, taken=writers)
    grouped = [
        p for group in _groups(parameters) for p in _group_problems(group, parameters, writers, meant, mapping.map_at)
    ]
    unwritten = [problem for problem in grouped if problem.code == "T2T204" and problem.hint == UNWRITTEN]
    if len(unwritten) > MAX_UNUSED:
        grouped = [problem for problem in grouped if problem not in unwritten]
        told = [problem.message.removesuffix(" is written by no row") for problem in unwritten]
        message = f"{len(told)} parameters are written by no row: {', '.join(told[:3])}, ..."
        hint = "map them, or give them fill or keep"
        problems.append(Problem("T2T204", message, mapping.map_at, hint, details=tuple(told)))
    problems += grouped
    return [*problems, *_written_problems(applied, parameters, parts)]


def _written_problems(
    applied: Applied, parameters: Mapping[str, ParameterRef], parts: Sequence[Part]
) -> Iterable[Problem]:
    """Elements of a parameter that several `into` rows write, or none."""
    into: dict[str, list[tuple[Rule, Box]]] = defaultdict(list)
    count: dict[str, int] = defaultdict(int)
    for part in parts:
        if part.into is not None:
            into[part.rule.target].append((part.rule, part.into))
    for rule in applied.rules:
        count[rule.target] += 1
    for name, written in into.items():
        ref = parameters[name]
        if len(written) < count[name]:
            continue  # another problem stands in the way of knowing
        held = [box for _, box in written]
        try:
            clash = boxes.overlapping(held)
            unwritten = boxes.rest(boxes.whole(ref.shape), held)
        except TooManyError as error:
            yield Problem("T2T110", f"{shown(name)}: {error}", written[0][0].place("into"), "write fewer parts")
            continue
        if clash is not None:
            (first, theirs), (rule, mine) = written[clash[0]], written[clash[1]]
            message = f"{shown(name)}{boxes.text(mine, ref.shape)} is written twice"
            message += f", also in line {first.at.line}, as {boxes.text(theirs, ref.shape)}"
            yield Problem("T2T203", message, rule.place("into"), "write each element once")
        for box in unwritten:
            share = f"{boxes.volume(box)} of {ref.elements} elements"
            message = f"{ref.kind} {shown(name)}{boxes.text(box, ref.shape)} ({share}) is written by no row"
            yield Problem("T2T204", message, written[-1][0].place("into"), "map it too, or fill it")


def _tie_problems(rules: Sequence[Rule], writers: Mapping[str, Rule]) -> Iterable[Problem]:
    """Ties that are wrong whatever the module is: to a name that no row writes, to itself, to another tie."""
    count = 0
    for rule in rules:
        other = writers.get(rule.tie) if rule.tie is not None else None
        if rule.tie is not None and other is None:
            message = f"{shown(rule.target)} is tied to {shown(rule.tie)}, which no row writes"
            close = nearest(rule.tie, writers) if count < PROPOSALS else []
            count += 1
            yield Problem("T2T404", message, rule.place("tie"), proposing(close))
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
            hint = UNWRITTEN
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
    ties = [writers[name].tie for name in names if name in writers]
    if not valued and all(name in writers for name in names) and all(tie in names for tie in ties):
        rule = writers[names[0]]
        message = f"{shown(names[0])} is tied, and no row gives the Parameter a value"
        yield Problem("T2T204", message, rule.at, "map one of its names")
