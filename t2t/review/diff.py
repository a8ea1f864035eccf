"""
What changed between two versions of a mapping, in the weights and not in the YAML: per entry of the state_dict.

    both versions -> rules, expanded -> what each entry gets, in a form without spelling -> the entries that differ

Where a lock knows the shapes, the forms are those of the steps (see `assignments`), and two spellings of the same are
the same. Without one, and where rows do not fit it, the rules are compared as they are written, with the axes' names
left out. Beside the entries there are facts: everything else that the file says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal

from t2t import axes as notation
from t2t import document
from t2t import mapping as mapping_file
from t2t import plan as planning
from t2t.applied import applied
from t2t.names import shown
from t2t.plan import Step
from t2t.problems import CheckpointError, Location, Problem
from t2t.review import assignments
from t2t.review import lock as locks
from t2t.review.facts import bounds_text, facts, flow
from t2t.review.lock import Lock, Proof
from t2t.review.revisions import Pairs, Version
from t2t.review.stale import stale_checkpoint, stale_model
from t2t.rules import Rule

Kind = Literal["added", "removed", "changed"]


@dataclass(frozen=True, slots=True)
class Facet:
    """One thing that is said of an entry or of the file, before and after; None where it is not said."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """An entry of the state_dict that gets something else, and by which row: of a removed entry the old one."""

    target: str
    kind: Kind
    facets: tuple[Facet, ...]
    at: Location


@dataclass(frozen=True, slots=True)
class MappingDiff:
    """
    What changed of one mapping. `assignments` are those of the new version (of a removed mapping, of the old).

    `as_written` counts the entries that were compared without their shapes, for no lock knows them (`is_locked` is
    False) or their rows do not fit it. `proof` are the figures of both locks, where a version has one; `is_stale` says
    that the new version's lock is of other rows or of another model.
    """

    path: str
    kind: Kind
    assignments: int
    changes: tuple[Change, ...]
    facts: tuple[Facet, ...]
    as_written: int
    is_locked: bool
    proof: tuple[Proof | None, Proof | None]
    is_stale: bool

    @property
    def is_same(self) -> bool:
        """Whether every entry gets what it got, and nothing else that the file says is otherwise."""
        return self.kind == "changed" and not self.changes and not self.facts


@dataclass(frozen=True, slots=True)
class Diff:
    """
    Every mapping that differs by a byte; `same` counts those that don't.

    `left_out` are those that cannot be compared; `problems` say why, and what is wrong with locks (warnings).
    """

    base: str
    head: str
    mappings: tuple[MappingDiff, ...]
    same: int
    left_out: tuple[str, ...]
    problems: tuple[Problem, ...]


def compared(base: str, head: str | None, found: Pairs) -> Diff:
    """What changed in each pair of versions."""
    mappings: list[MappingDiff] = []
    left_out = list(found.left_out)
    problems = list(found.problems)
    for path, before, after in found.differing:
        one, own = compare(path, before, after)
        problems += own
        mappings += [one] if one else []
        left_out += [] if one else [path]
    return Diff(base, head or "what is here", tuple(mappings), found.same, tuple(left_out), tuple(problems))


def compare(path: str, before: Version | None, after: Version | None) -> tuple[MappingDiff | None, list[Problem]]:
    """
    What changed, and why it cannot be said: errors of the new version, and those of the old one and of locks that
    cannot be read, as warnings: what is compared may be what mends them.
    """
    problems: list[Problem] = []
    former: list[Problem] = []
    read: dict[bytes, Lock] = {}
    old, new = (
        _Side(version, own, read) if version else None for version, own in ((before, former), (after, problems))
    )
    problems[:0] = [replace(problem, severity="warning") for problem in former]
    sides = [side for side in (new, old) if side is not None]
    if any(side.mapping is None for side in sides):
        return None, problems
    known = next((side.lock for side in sides if side.lock is not None), None)
    for side in sides:
        side.plan(side.lock or known)
    # Forms with shapes and forms without them are no match for each other.
    written = {target for side in sides for target in side.rules if target not in side.steps}
    same = _same(old, new) if old and new else set()
    said = [side.said(written, same) if side is not None else {} for side in (old, new)]
    kind: Kind = "changed" if old and new else "added" if new else "removed"
    facts = tuple(_facets(old.facts(), new.facts())) if old and new else ()
    if old and old.lock and new and new.lock and old.lock.source != new.lock.source:
        facts += (Facet("weights", *(lock.source[: assignments.DIGITS] for lock in (old.lock, new.lock))),)
    proofs = tuple(side.lock.proof if side and side.lock else None for side in (old, new))
    return MappingDiff(
        path=path,
        kind=kind,
        assignments=len(sides[0].rules),
        changes=tuple(_changes(*said)) if kind == "changed" else (),
        facts=facts,
        as_written=len(written),
        is_locked=known is not None,
        proof=(proofs[0], proofs[1]),
        is_stale=bool(new and new.lock and (new.is_stale() or (proofs[0] == proofs[1] and _is_proof_of_other(facts)))),
    ), problems


#: What a proof is of, beside the rows: where one of these is another, so is what was proven.
_PROVEN = ("verify.inputs", "verify.reference", "verify.draws", "verify.steps", "verify.labels", "verify.torch")


def _is_proof_of_other(facts: Iterable[Facet]) -> bool:
    return any(fact.name.startswith(_PROVEN) for fact in facts)


# --- one version ---

#: What an entry gets: each facet's form, by which two are compared, and what gives its words where they are needed.
Said = Mapping[str, tuple[Any, Callable[[], str]]]


class _Side:
    """
    One version of a mapping: its lock, the rules of each entry, and the steps of those whose shapes are `known` by a
    lock, its own or the other version's.
    """

    def __init__(self, version: Version, problems: list[Problem], locks_read: dict[bytes, Lock]) -> None:
        parsed, found = document.parse(version.data, version.name)
        read, found = mapping_file.made(parsed, found, version.data)
        errors = [problem for problem in found if problem.severity == "error"]
        problems += errors
        self.mapping = None if errors else read
        self.tree = parsed.tree
        self.lock: Lock | None = None
        self.known: Lock | None = None
        self.rules: dict[str, list[Rule]] = _by_target(read.rules) if read else {}
        self.steps: dict[str, Step] = {}
        if version.lock is not None:
            try:
                if version.lock not in locks_read:  # mostly both versions have the same one
                    locks_read[version.lock] = locks.parse(version.lock, locks.place(version.name))
                self.lock = locks_read[version.lock]
            except CheckpointError as error:
                problems += [replace(problem, severity="warning") for problem in error.problems]

    def plan(self, lock: Lock | None) -> None:
        """Plans what fits what a lock knows, its own or the other version's; optional rows that it leaves out go."""
        mapping = self.mapping
        if lock is None or mapping is None or lock.names != mapping.names:
            return
        self.known = lock
        kept = applied(mapping, lock.checkpoint, lock.module).rules
        known, uses = {id(rule) for rule in kept}, {rule.use for rule in kept}
        self.rules = _by_target(
            rule
            for rule in mapping.rules
            if id(rule) in known or not rule.optional or (rule.use is not None and rule.use not in uses)
        )
        steps = planning.make(mapping, lock.checkpoint, lock.module)[0].steps
        self.steps = {step.target: step for step in steps if len(step.parts) == len(self.rules[step.target])}

    def is_stale(self) -> bool:
        """Whether its lock is of other rows, or of another model."""
        assert self.lock is not None
        assert self.mapping is not None
        dtype = self.mapping.output.dtype
        digests = {name: assignments.digest(step, dtype) for name, step in self.steps.items()}
        return digests != self.lock.steps or bool(
            stale_model(self.mapping, self.lock) or stale_checkpoint(self.mapping, self.lock)
        )

    def said(self, written: Set[str], same: Set[str]) -> dict[str, tuple[Said, Location]]:
        """What each entry gets, and by which row; as it is written of those in `written`, nothing of the `same`."""

        def of(target: str, rules: Sequence[Rule]) -> Said:
            if target in same:
                return {}
            return self._written(rules) if target in written else self._done(self.steps[target])

        return {target: (of(target, rules), rules[0].at) for target, rules in self.rules.items()}

    def _done(self, step: Step) -> Said:
        """What a step does, by its form."""
        assert self.mapping is not None
        form = assignments.form(step, self.mapping.output.dtype)
        said: dict[str, tuple[Any, Callable[[], str]]] = {}
        for part, own in zip(assignments.in_order(step.parts), form["parts"], strict=True):
            where = f"{bounds_text(part.into)} " if len(step.parts) > 1 and part.into else ""
            _add(said, _facets_of(part.rule, _by_facet(own)), where)
        shape, dtype = json.dumps(form["shape"]), form["dtype"]
        dtype = dtype if dtype == step.dtype else f"{step.dtype}, stored as {dtype}"
        return {**said, "dtype": (dtype, partial(str, dtype)), "shape": (shape, partial(str, shape))}

    def _written(self, rules: Sequence[Rule]) -> Said:
        """What rules say, whatever the shapes. Of two mappings that fit, `optional` and `reuse` make no difference."""
        assert self.mapping is not None
        said: dict[str, tuple[Any, Callable[[], str]]] = {}
        for rule in sorted(rules, key=lambda rule: bounds_text(rule.into)):
            where = f"{bounds_text(rule.into)} " if len(rules) > 1 and rule.into else ""
            _add(said, _facets_of(rule, _form_as_written(rule)), where)
            dtype = rule.dtype or self.mapping.dtype
            if rule.sources and dtype:
                _add(said, {"dtype": (dtype, partial(str, dtype))}, where)
        return said

    def facts(self) -> dict[str, str]:
        """Everything that the file says beside its rows."""
        assert self.mapping is not None
        return facts(self.mapping, self.tree)


#: Everything that a rule says but where it stands; numbers count as they are written, and what is added in its order.
_NUMBERS = ("scale", "add", "fill")
_SAYS = tuple(field.name for field in fields(Rule) if field.name not in {"at", "places", "use", *_NUMBERS})


def _same(old: _Side, new: _Side) -> set[str]:
    """The entries of which both versions say the same in the same words: most of them, and quickly found."""
    assert old.mapping is not None
    assert new.mapping is not None
    both = (old.mapping, new.mapping)
    if len({(mapping.dtype, mapping.output.dtype) for mapping in both}) > 1 or old.known is not new.known:
        return set()
    return {
        target
        for target, rules in new.rules.items()
        if len(rules) == len(others := old.rules.get(target, ()))
        and all(getattr(a, name) == getattr(b, name) for a, b in zip(rules, others, strict=True) for name in _SAYS)
        and all(
            repr(getattr(a, n)) == repr(getattr(b, n)) for a, b in zip(rules, others, strict=True) for n in _NUMBERS
        )
    }


def _by_target(rules: Iterable[Rule]) -> dict[str, list[Rule]]:
    found: dict[str, list[Rule]] = {}
    for rule in rules:
        found.setdefault(rule.target, []).append(rule)
    return found


def _add(said: dict[str, tuple[Any, Callable[[], str]]], more: Said, where: str) -> None:
    """Adds what is said of one part of an entry; two rows that say something of the same part both count."""
    for name, own in more.items():
        others = said.get(where + name)
        said[where + name] = ([others[0], own[0]], partial(_joined, others[1], own[1])) if others else own


def _joined(*words: Callable[[], str]) -> str:
    return "; ".join(word() for word in words)


# --- one entry ---


def _facets_of(rule: Rule, form: Mapping[str, Any]) -> Said:
    """What one rule says, facet by facet, each with its form."""
    return {name: (value, partial(_words, rule, name)) for name, value in form.items()}


def _by_facet(form: Mapping[str, Any]) -> dict[str, Any]:
    """A part's form (see `assignments`) by the facets that words are made of; `into` and `dtype` are the whole's."""
    names = {"from": ("reads", "join"), "axes": ("moves", "add"), "scale": ("scale",), "into": ("into",)}
    names |= {key: (key,) for key in ("fill", "tie", "keep")}
    found = {name: [form.get(key) for key in keys] for name, keys in names.items()}
    return {name: values for name, values in found.items() if any(value is not None for value in values)}


def _form_as_written(rule: Rule) -> dict[str, Any]:
    """A rule's form without any shape: axes by number, everything else as it is written."""
    number = {name: index for index, name in enumerate(dict.fromkeys(n for axes in rule.axes for n in axes.names))}
    moves = {
        "axes": [[[[number[name] for name in g] for g in side] for side in (a.left, a.right)] for a in rule.axes],
        "dims": {str(number[name]): size for name, size in rule.dims.items() if name in number},
        "flip": sorted(own for axis in rule.flip for own in _turned(rule, axis, number)),
        "order": {str(number.get(axis, axis)): order.entries for axis, order in rule.order.items()},
        "add": _added(rule, number),
    }
    if _stays(rule):  # that is what a row without axes says of a vector
        moves |= {"axes": [], "dims": {}}
    join = number.get(rule.join, rule.join) if rule.join else None
    found: dict[str, Any] = (
        {"from": [rule.sources, bounds_text(rule.slice), join], "axes": moves} if rule.sources else {}
    )
    others = {
        "scale": None if rule.scale is None else repr(rule.scale),
        "into": bounds_text(rule.into) or None,
        "fill": None if rule.fill is None else repr(rule.fill),
        "tie": rule.tie,
        "keep": rule.keep or None,
    }
    return found | {name: value for name, value in others.items() if value is not None}


def _turned(rule: Rule, axis: str | int, number: Mapping[str, int]) -> list[str]:
    """The axes that one entry of `flip` turns round, by number; without axes the variable's own."""
    if isinstance(axis, str):
        return [str(number.get(axis, axis))]
    groups = rule.axes[0].left if rule.axes else ()
    return [str(number[name]) for name in groups[axis]] if axis < len(groups) else [str(axis)]


def _stays(rule: Rule) -> bool:
    """Whether its axes say that nothing moves."""
    return (
        len(rule.axes) == 1 and rule.axes[0].left == rule.axes[0].right and all(len(g) == 1 for g in rule.axes[0].left)
    )


def _added(rule: Rule, number: Mapping[str, int]) -> Any:
    if not isinstance(rule.add, Mapping):
        return None if rule.add is None else repr(rule.add)
    return {
        str(number.get(axis, axis)): {
            str(rule.order[axis].after.index(e)) if axis in rule.order else e: repr(n) for e, n in entries.items()
        }
        for axis, entries in rule.add.items()
    }


def _words(rule: Rule, facet: str) -> str:
    """A facet as it is written."""
    names = ", ".join(map(shown, rule.sources))
    names = f"[{names}]" if rule.join else names
    joined = f" joined along {rule.join}" if rule.join else ""
    axes = [notation.shown_steps(rule.axes)] if rule.axes else ["in order"]
    axes += [f"dims {flow(dict(rule.dims))}"] if rule.dims else []
    axes += [f"flip [{', '.join(map(str, rule.flip))}]"] if rule.flip else []
    axes += [f"order {{{', '.join(f'{axis}: {order}' for axis, order in rule.order.items())}}}"] if rule.order else []
    axes += [f"add {flow({k: dict(v) for k, v in rule.add.items()})}"] if isinstance(rule.add, Mapping) else []
    axes += [f"add {rule.add}"] if isinstance(rule.add, int | float) else []
    said = {
        "from": names + bounds_text(rule.slice) + joined if rule.sources else "",
        "axes": ", ".join(axes) if rule.sources else "",
        "scale": "" if rule.scale is None else str(rule.scale),
        "into": bounds_text(rule.into),
        "fill": "" if rule.fill is None else str(rule.fill),
        "tie": rule.tie or "",
        "keep": "init" if rule.keep else "",
    }
    return said[facet]


# --- what differs ---


def _changes(
    before: Mapping[str, tuple[Said, Location]], after: Mapping[str, tuple[Said, Location]]
) -> Iterator[Change]:
    for target in {**after, **before}:
        if target not in before:
            yield Change(target, "added", tuple(_told({}, after[target][0])), after[target][1])
        elif target not in after:
            yield Change(target, "removed", tuple(_told(before[target][0], {})), before[target][1])
        elif facets := tuple(_told(before[target][0], after[target][0])):
            yield Change(target, "changed", facets, after[target][1])


def _told(before: Said, after: Said) -> Iterator[Facet]:
    """The facets whose forms differ, in words."""
    for name in {**before, **after}:
        old, new = before.get(name), after.get(name)
        if old and new and old[0] == new[0]:
            continue
        was, is_now = (one[1]() if one else None for one in (old, new))
        if was != is_now:
            yield Facet(name, was, is_now)
        elif old and new:  # the words are the same, what they are said of is not
            yield Facet(name, was, f"{was}, of other sizes")


def _facets(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Facet]:
    for name in {**before, **after}:
        if before.get(name) != after.get(name):
            yield Facet(name, before.get(name), after.get(name))
