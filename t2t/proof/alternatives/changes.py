"""A change of rules, what it gives, and how it becomes an alternative: fitted, held against the others, written out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from t2t import execute
from t2t import plan as planning
from t2t.axes import Transform
from t2t.checkpoints import Checkpoint
from t2t.coverage import Part
from t2t.execute import Array
from t2t.plan import Plan
from t2t.problems import Problem
from t2t.proof.alternatives.rows import Rows, Written
from t2t.proof.written import Key, key_of
from t2t.rules import Lost, Rule
from t2t.tensors import CheckpointInventory, ModuleInventory, ParameterRef


@dataclass(frozen=True)
class Alternative:
    """
    Another way to write some rows: `what` it is in words, the `rules` as they would have to be, each of which writes a
    target (and `into`) that a rule of the mapping writes, and the same as rows ready to paste.

    The `lines` take the place of the rows of the mapping's file that begin in the lines `replaces`, and stand for all
    rules of those: where one rule of a row with <letters> changes alone, they are rows without letters, for all its
    names; of a row that uses a recipe, they are the recipe's rows; where all rules of a row of the file's own recipe
    change, that row. A letter or a recipe that no row uses any more is then stale, and told as such.

    `changed` is what the lines are written for: the rules, and those of their rows that change with them and get the
    same. `taken` says from whom, where targets are exchanged.
    """

    what: str
    rules: tuple[Rule, ...]
    changed: Mapping[Key, Rule] = field(repr=False)
    taken: Mapping[Key, Key] = field(repr=False)
    rows: Rows = field(repr=False, compare=False)

    @cached_property
    def _written(self) -> Written:
        return self.rows.written(self.changed, self.taken)  # few of those that are tried are ever shown

    @property
    def lines(self) -> tuple[str, ...]:
        """The rows to paste."""
        return self._written.lines

    @property
    def replaces(self) -> tuple[int, ...]:
        """The lines of the file in which the rows begin that these take the place of, in order."""
        return self._written.replaces


@dataclass(frozen=True, slots=True)
class Change:
    """
    A change that may be tried: new rules by what they replace. `taken` says from whom, where targets are exchanged;
    `wide` is the same in all rules of the rows.
    """

    what: str
    rules: Mapping[Key, Rule]
    taken: Mapping[Key, Key] = field(default_factory=dict)
    wide: Change | None = None


def values(plan: Plan, checkpoint: Checkpoint, alternative: Alternative) -> dict[str, Array]:
    """
    The whole values of every target that the alternative's rules write: the module's dtype and shape, C order.

    NaN and Inf pass. Raises MappingError where a value does not fit the target's dtype, CheckpointError where a
    variable cannot be read.
    """
    changed = {key_of(rule): rule for rule in alternative.rules}
    touched = {rule.target for rule in alternative.rules}
    old = [part.rule for step in plan.steps if step.target in touched for part in step.parts]
    made, problems = fitting(plan, [changed.get(key_of(rule), rule) for rule in old], inventory(plan, touched))
    assert not problems, problems
    assert {step.target for step in made.steps} == touched
    return dict(execute.tensors(made, checkpoint, {}, allow_nonfinite=True))


def together(plan: Plan, alternatives: Sequence[Alternative]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """
    The `lines` and `replaces` of several alternatives at once, in the order in which they are taken: where two change
    one rule, it is as the later has it.
    """
    changed: dict[Key, Rule] = {}
    taken: dict[Key, Key] = {}
    done: set[Key] = set()
    for alternative in alternatives:
        moved = {key_of(rule) for rule in alternative.rules}
        for key, rule in alternative.changed.items():
            if key not in moved and key in done:
                continue  # here it changes nothing
            changed[key] = rule
            taken.pop(key, None)
            if key in alternative.taken:
                taken[key] = alternative.taken[key]
        done |= moved
    made = Rows(plan).written(changed, taken)
    return made.lines, made.replaces


def inventory(plan: Plan, targets: set[str]) -> ModuleInventory:
    """What the module has under these names, as the plan's steps say."""
    steps = (step for step in plan.steps if step.target in targets)
    return ModuleInventory({step.target: ParameterRef(step.target, step.dtype, step.shape) for step in steps})


def fitting(plan: Plan, rules: Sequence[Rule], module: ModuleInventory) -> tuple[Plan, list[Problem]]:
    """
    The plan of these rules alone, and which of them don't fit.

    Who accounts for which elements is no question of so few rules: what is said of it (T2T2xx) is left out.
    """
    # What is optional applies here, and a recipe's rule stands for itself.
    rules = [replace(rule, optional=False, use=None) for rule in rules]
    names = {name for rule in rules for name in rule.sources}
    refs = {name: ref for name in names if (ref := plan.checkpoint.variables.get(name)) is not None}
    mapping = replace(plan.mapping, rules=tuple(rules), lost=Lost(), ignore=(), drop=())
    made, problems = planning.make(mapping, CheckpointInventory(refs), module)
    return made, [problem for problem in problems if problem.code.startswith(("T2T3", "T2T4"))]


class Known:
    """A plan's parts, by what they write, and its rows."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rows = Rows(plan)
        self.parts = self.rows.parts
        self.by_target = {step.target: step.parts for step in plan.steps}
        self.module = inventory(plan, set(self.by_target))

    def whole(self, target: str) -> Part | None:
        """The part that writes all of this target, None where several do or it is tied or kept."""
        parts = self.by_target.get(target, ())
        is_one = len(parts) == 1 and parts[0].into is None and parts[0].rule.tie is None and not parts[0].rule.keep
        return parts[0] if is_one else None

    def fitted(self, rule: Rule) -> Part | None:
        """The rule with both its sides, None where it does not fit them."""
        ref = self.module.parameters[rule.target]
        made, problems = fitting(self.plan, [rule], ModuleInventory({rule.target: ref}))
        return made.steps[0].parts[0] if made.steps and not problems else None

    def alternatives(self, change: Change, seen: set[frozenset[Any]]) -> Iterator[Alternative]:
        """The change as an alternative, then the wider one; those that don't fit, change nothing or came before not."""
        changed: dict[Key, Rule] = {}
        given = set()
        for key, rule in change.rules.items():
            part = self.fitted(rule)
            if part is None:
                return
            given_now = _given(part)
            if given_now != _given(self.parts[key]):
                changed[key] = rule
                given.add((key, given_now))
        if changed and (signature := frozenset(given)) not in seen:
            seen.add(signature)
            # Where a row changes, all its rules do: also those of which the change moves nothing.
            rows = {
                key: rule
                for key, rule in change.rules.items()
                if key in changed or any(key_of(mate.rule) in changed for mate in self.rows.mates(self.parts[key]))
            }
            taken = {key: other for key, other in change.taken.items() if key in rows}
            yield Alternative(change.what, tuple(changed.values()), rows, taken, self.rows)
        if change.wide is not None:
            yield from self.alternatives(change.wide, seen)

    def patched(self, what: str, patches: Sequence[tuple[Part, Mapping[str, Any]]]) -> Change:
        """These rules with other values of some fields; and all other rules of the same rows with the same."""
        rules = {key_of(part.rule): with_patch(part.rule, patch) for part, patch in patches}
        wide: dict[Key, Rule] = {}
        for part, patch in patches:
            mates = self.rows.mates(part)
            if any(
                len(mate.rule.sources) != len(part.rule.sources) or mate.rule.slice != part.rule.slice for mate in mates
            ):
                return Change(what, rules)  # letters say more than names in this row
            wide |= {key_of(mate.rule): with_patch(mate.rule, patch) for mate in mates}
        if len(wide) == len(rules):
            return Change(what, rules)
        scope = self.rows.scope(patches[0][0])
        return Change(what, rules, wide=Change(f"{what}, in all {len(wide)} rules of {scope}", wide))

    def exchanged(self, what: str, pairs: Sequence[tuple[Part, Part]], words: tuple[int, str, str] | None) -> Change:
        """
        The targets of these pairs with what the other gets. `words` are the part of a target's name in which the two
        differ: its place, and both texts. Then all pairs of the same rows that differ so do the same.
        """
        change = self._exchange(what, pairs)
        if words is None:
            return change
        place, one, other = words
        mates = {
            key_of(mate.rule): mate for pair in pairs for part in pair if part.reads for mate in self.rows.mates(part)
        }
        more: dict[Key, tuple[Part, Part]] = {}
        for key, mate in mates.items():
            name = mate.rule.target.split(".")
            if not -len(name) <= place < len(name) or name[place] != one:
                continue
            name[place] = other
            partner = mates.get((".".join(name), key[1]))
            if partner is not None:
                more[key] = (mate, partner)
        wide = self._exchange(f"{what}, in all {len(more)} places of the same rows", list(more.values()))
        is_wider = set(change.rules) < set(wide.rules)
        return replace(change, wide=wide) if is_wider else change

    @staticmethod
    def _exchange(what: str, pairs: Sequence[tuple[Part, Part]]) -> Change:
        both = [pair for one, other in pairs for pair in ((one, other), (other, one))]
        return given_to(what, both)


def given_to(what: str, pairs: Sequence[tuple[Part, Part]]) -> Change:
    """The first target of each pair with what the second gets."""
    rules = {key_of(to.rule): _taken(to.rule, giver.rule) for to, giver in pairs}
    return Change(what, rules, {key_of(to.rule): key_of(giver.rule) for to, giver in pairs})


def _taken(to: Rule, giver: Rule) -> Rule:
    places = {key: place for key, place in giver.places.items() if key not in {"torch", "into"}}
    places |= {key: place for key, place in to.places.items() if key in {"torch", "into"}}
    return replace(giver, target=to.target, into=to.into, at=to.at, places=places, use=to.use, optional=to.optional)


#: Of a patch: in which order a rule joins its own variables. All else in it is a field of the rule.
JOINED = "in the order"


def with_patch(rule: Rule, patch: Mapping[str, Any]) -> Rule:
    """The rule with other values of these fields; where its axes get names, they stand under `axes` from then on."""
    changed = replace(rule, **{name: value for name, value in patch.items() if name != JOINED})
    if order := patch.get(JOINED):
        shadowed = tuple(rule.shadowed[place] for place in order) if rule.shadowed else ()
        changed = replace(changed, sources=tuple(rule.sources[place] for place in order), shadowed=shadowed)
    if "axes" not in patch:
        return changed
    names = [group for axes in changed.axes for group in (*axes.left, *axes.right)]
    is_bare = len(changed.axes) == 1 and all(len(group) == 1 for group in names)
    if is_bare and "permute" in rule.places and changed.axes[0].left == rule.axes[0].left:
        return changed
    places = dict(rule.places)
    places["axes"] = places.pop("permute", places.get("axes", rule.at))
    return replace(changed, places=places)


def _given(part: Part) -> Any:
    """What a part writes, as something to compare: equal where the same elements come in the same order."""
    rule = part.rule
    added: Any = rule.add
    if isinstance(added, Mapping):
        transform, names = part.transforms[0], rule.axes[0].names
        sizes = [transform.elementary[axis] for axis in transform.permutation]
        added = frozenset(
            (
                math.prod(sizes[transform.permutation.index(names.index(name)) + 1 :]),
                rule.order[name].after.index(entry),
                n,
            )
            for name, entries in added.items()
            for entry, n in entries.items()
        )
    reads = tuple((read.ref.name, read.box) for read in part.reads)
    moves = tuple(_moves(transform) for transform in part.transforms)
    if len(moves) > 1:  # a step that moves nothing only gives other names
        moves = tuple(move for move in moves if move != _STAY) or (_STAY,)
    return reads, part.joined, moves, rule.scale, added, part.dtype, rule.fill


_STAY: tuple[Any, ...] = ()


def _moves(transform: Transform) -> tuple[Any, ...]:
    """
    Which element comes where: length and stride of each axis of the output, neighbours that one stride walks merged.

    A negative stride is a flip. The same for all ways to write one permutation; nothing for the identity.
    """
    strides = [math.prod(transform.elementary[axis + 1 :]) for axis in range(len(transform.elementary))]
    walked: list[tuple[int, int, tuple[int, ...] | None]] = []
    for axis in transform.permutation:
        size, stride = transform.elementary[axis], strides[axis]
        if size == 1:
            continue
        entries = transform.orders.get(axis)
        entries = None if entries == tuple(range(size)) else entries
        stride = -stride if axis in transform.flips else stride
        if walked and entries is None and walked[-1][2] is None and walked[-1][1] == stride * size:
            walked[-1] = (walked[-1][0] * size, stride, None)
        else:
            walked.append((size, stride, entries))
    if len(walked) < 2 and all(stride == 1 and entries is None for _, stride, entries in walked):
        return _STAY
    return tuple(walked)


def owner_of(part: Part) -> str:
    """The path of the module that the part's target belongs to."""
    return part.rule.target.rpartition(".")[0]
