"""
How many plausible mistakes of a mapping a recording would catch: make each in the filled module, and compare.

A mistake here fits every shape: what a person writes and no check of names, shapes and dtypes sees. They are made on
the right tensors, not in the mapping's text:

    exchange   two neighbours get each other's values: of one module, of sibling modules, of a join, of a target's parts
    axes       a row's axes in another order that gives the same shape
    flip       a convolution's kernel turned round in space; a row without its `flip`
    gates      two gates of a recurrent layer exchanged; a row without its `order`
    scale, add a row without its `scale`, without its `add`

What changes no bit, or only which of two biases that are added holds what, is *equivalent*: nothing is tested by it.
Two tensors with the same bytes are *indistinguishable*. Each of the others is caught by the comparison, or survives.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import nn

from t2t import boxes
from t2t import module as modules
from t2t import nn as layers
from t2t.axes import Axes, shown_steps
from t2t.coverage import Part
from t2t.names import shown
from t2t.plan import Plan, Step
from t2t.problems import Location, Problem, T2TError
from t2t.proof.alternatives.gates import CELL
from t2t.proof.alternatives.orders import grouped, same_shape, swapped
from t2t.proof.arrays import Array
from t2t.proof.compare import OutputDelta, compare
from t2t.proof.recording import Recording, by_draw
from t2t.tensors import Shape
from t2t.verification import Verify

Kind = Literal["exchange", "axes", "flip", "gates", "scale", "add"]
KINDS: tuple[Kind, ...] = get_args(Kind)

#: Of a group with more members than this, only those that stand close together are exchanged.
MAX_GROUP = 16
#: How close that is.
CLOSE = 3

#: Cells that add both biases and never use one alone: which holds what makes no difference.
_ADDS_BIASES = (nn.LSTM, nn.LSTMCell, nn.RNN, nn.RNNCell, layers.LSTM, layers.LSTMCell)


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake: its kind, the entries of the state_dict that it touches, what it is in words, the row it is in."""

    kind: Kind
    targets: tuple[str, ...]
    text: str
    at: Location


@dataclass(frozen=True, slots=True)
class Survivor:
    """
    A mistake that was not noticed: `output` came closest to it, its max|Δ| within its tolerance.

    `change` is by how much the mistake changes a value at most.
    """

    mistake: Mistake
    change: float
    output: str
    max_delta: float
    tolerance: float


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the mistakes that were made: the other four add up to `made`."""

    made: int = 0
    caught: int = 0
    survived: int = 0
    equivalent: int = 0
    indistinguishable: int = 0


@dataclass(frozen=True, slots=True)
class Mutations:
    """
    What became of every mistake that was made, by kind, out of `possible` ones; `seed` picked them.

    `indistinguishable` are exchanges of two tensors with the same bytes.
    """

    counts: Mapping[Kind, Counts]
    survivors: tuple[Survivor, ...]
    indistinguishable: tuple[Mistake, ...]
    possible: int
    seed: int

    @property
    def total(self) -> Counts:
        """The counts of all kinds together."""
        names = ("made", "caught", "survived", "equivalent", "indistinguishable")
        return Counts(**{name: sum(getattr(counts, name) for counts in self.counts.values()) for name in names})

    def problems(self) -> list[Problem]:
        """One error (T2T507) for each survivor, one note for each pair that cannot be told apart."""
        found = []
        for survivor in self.survivors:
            mistake, figures = survivor.mistake, f"{survivor.max_delta:.3g} <= {survivor.tolerance:.3g}"
            message = f"{mistake.text}, values change by up to {survivor.change:.3g}, "
            message += f"but {shown(survivor.output)} agrees: max|Δ| {figures}"
            hint = "fetch an output that depends on it, or feed inputs that show it"
            found.append(Problem("T2T507", message, mistake.at, hint))
        for mistake in self.indistinguishable:
            names = " and ".join(map(shown, mistake.targets))
            message = f"{names} hold the same bytes: no value tells which is which"
            found.append(Problem("T2T507", message, mistake.at, "compare the names", severity="note"))
        return found


@dataclass(frozen=True, slots=True)
class _Mutation:
    """A mistake, and what it makes of its targets' right values. `is_harmless` says that nothing can notice it."""

    mistake: Mistake
    wrong: Callable[[Mapping[str, Array]], dict[str, Array]]
    is_harmless: bool = False


def mutate(
    module: nn.Module,
    plan: Plan,
    recording: Recording,
    verify: Verify,
    *,
    limit: int = 200,
    seed: int = 0,
    tried: Callable[[int, int], None] = lambda done, total: None,
) -> Mutations:
    """
    Make at most `limit` mistakes in `module`, one at a time, and say which of them the recording catches.

    The module is filled as `plan` says, and proven. Where more mistakes can be made, `seed` picks them, evenly over the
    kinds; pairs that cannot be told apart need no run, and all are found. Afterwards the module is as it was: values,
    buffers, flags; and so is every random generator. `tried` hears how many are done, and of how many.
    """
    entries = module.state_dict(keep_vars=True)
    possible = _mutations(module, plan)
    indistinguishable = [mutation.mistake for mutation in possible if _is_unseen(mutation.mistake, entries)]
    known = set(map(id, indistinguishable))
    chosen = _sampled([mutation for mutation in possible if id(mutation.mistake) not in known], limit, seed)
    dtypes = {step.target: step.dtype for step in plan.steps}
    trial = _Trial(module, entries, dtypes, by_draw(recording), replace(verify, labels=None))
    results: dict[Kind, Counter[str]] = {kind: Counter() for kind in KINDS}
    results["exchange"].update(indistinguishable=len(indistinguishable))
    survivors = []
    for number, mutation in enumerate(chosen, 1):
        outcome = trial.outcome(mutation)
        if isinstance(outcome, Survivor):
            survivors.append(outcome)
            outcome = "survived"
        results[mutation.mistake.kind][outcome] += 1
        tried(number, len(chosen))
    counts = {kind: Counts(made=found.total(), **found) for kind, found in results.items() if found.total()}
    return Mutations(counts, tuple(survivors), tuple(indistinguishable), len(possible), seed)


@dataclass(frozen=True, slots=True)
class _Trial:
    """The filled module with its entries and their dtypes, and what it is compared with."""

    module: nn.Module
    entries: Mapping[str, torch.Tensor]
    dtypes: Mapping[str, str]
    draws: Sequence[Recording]
    verify: Verify

    def outcome(self, mutation: _Mutation) -> str | Survivor:
        """One mistake made, compared and unmade: "caught", "equivalent" or the survivor."""
        mistake = mutation.mistake
        # Of their own: the arrays share the module's memory, which is about to change.
        right = {name: array.copy() for name, array in modules.values(self.module, mistake.targets).items()}
        wrong = mutation.wrong(right)
        if mutation.is_harmless or all(_same_bytes(right[name], array) for name, array in wrong.items()):
            return "equivalent"
        worst: OutputDelta | None = None
        try:
            self._put(wrong)
            for draw in self.draws:
                comparison = compare(self.module, draw, self.verify)
                if not comparison.proven:
                    return "caught"
                worst = max((*comparison.outputs, *([worst] if worst else [])), key=_closeness)
        except T2TError:  # wrong values can make forward() fail: nobody overlooks that
            return "caught"
        finally:
            self._put(right)
        assert worst is not None
        change = max(_change(right[name], array) for name, array in wrong.items())
        return Survivor(mistake, change, worst.output, worst.max_delta, worst.tolerance)

    def _put(self, arrays: Mapping[str, Array]) -> None:
        with torch.no_grad():
            for name, array in arrays.items():
                self.entries[name].copy_(modules.to_torch(array, self.dtypes[name]))


def _same_bytes(one: Array, two: Array) -> bool:
    first, second = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (one, two))
    return np.array_equal(first, second)


def _is_unseen(mistake: Mistake, entries: Mapping[str, torch.Tensor]) -> bool:
    """Whether these are two tensors that hold the same bytes; mostly their first elements say that they don't."""
    if mistake.kind != "exchange" or len(mistake.targets) != 2:
        return False
    tensors = [entries[name].detach().reshape(-1) for name in mistake.targets]
    for size in (64, tensors[0].numel()):
        first, second = (tensor[:size].contiguous().view(torch.uint8) for tensor in tensors)
        if not torch.equal(first, second):
            return False
    return True


def _change(right: Array, wrong: Array) -> float:
    with np.errstate(all="ignore"):
        return float(np.max(np.abs(right.astype(np.complex128) - wrong.astype(np.complex128))))


def _closeness(delta: OutputDelta) -> float:
    return delta.max_delta / (delta.tolerance or 1)


def _sampled(possible: Sequence[_Mutation], limit: int, seed: int) -> list[_Mutation]:
    """At most `limit` of them, in their order: as many of each kind as of the others, as far as there are so many."""
    places: dict[Kind, list[int]] = defaultdict(list)
    for place, mutation in enumerate(possible):
        places[mutation.mistake.kind].append(place)
    left = limit
    chosen: list[int] = []
    generator = random.Random(seed)  # noqa: S311 - nothing secret
    kinds = sorted(places, key=lambda kind: len(places[kind]))
    for number, kind in enumerate(kinds):
        share = min(len(places[kind]), math.ceil(left / (len(kinds) - number)))
        chosen += generator.sample(places[kind], share)
        left -= share
    return [possible[place] for place in sorted(chosen)]


# --- which mistakes there are ---


def _mutations(module: nn.Module, plan: Plan) -> list[_Mutation]:
    """Every mistake, in the order of the plan's steps."""
    steps = [step for step in plan.steps if step.rule.tie is None and step.elements]
    found = list(_exchanges(module, steps))
    for step in steps:
        found += _in_parts(step)
        if (size := _convolved(module, step)) is not None:
            found.append(_flipped(step, size))
    found += _gates(module, steps)
    return found


def _exchanges(module: nn.Module, steps: Sequence[Step]) -> Iterator[_Mutation]:
    """Neighbours exchanged: targets of one shape and dtype in one module, or of one name in sibling modules."""
    alike: dict[tuple[Shape, str], list[Step]] = defaultdict(list)
    for step in steps:
        alike[step.shape, step.dtype].append(step)
    seen: set[frozenset[str]] = set()
    for same in alike.values():
        groups: dict[tuple[Any, ...], list[tuple[str, Step]]] = defaultdict(list)
        for step in same:
            *owner, leaf = step.target.split(".")
            groups["one module", *owner].append((leaf, step))
            for place, word in enumerate(owner):
                groups["siblings", place, *owner[:place], *owner[place + 1 :], leaf].append((word, step))
        for (how, *_), members in groups.items():
            for one, other in _neighbours(members, is_counted=how == "siblings"):
                names = frozenset((one.target, other.target))
                # Two fills are no values that anybody could take for each other.
                if names not in seen and (one.sources or other.sources):
                    seen.add(names)
                    yield _exchange(module, one, other)


def _neighbours(members: Sequence[tuple[str, Step]], *, is_counted: bool) -> Iterator[tuple[Step, Step]]:
    """Pairs of a group: of numbered layers each with the next; of others each with each, or those that are close."""
    reach = len(members) if len(members) <= MAX_GROUP else CLOSE
    if is_counted and all(word.isdecimal() for word, _ in members):
        members, reach = sorted(members, key=lambda member: int(member[0])), 1
    for place, (_, step) in enumerate(members):
        yield from ((step, other) for _, other in members[place + 1 : place + 1 + reach])


def _exchange(module: nn.Module, one: Step, other: Step) -> _Mutation:
    def wrong(right: Mapping[str, Array]) -> dict[str, Array]:
        return {one.target: right[other.target], other.target: right[one.target]}

    text = f"{shown(one.target)} and {shown(other.target)} exchanged"
    # The row that reads something: a filled one may be a recipe's.
    at = (one if one.sources else other).rule.at
    return _Mutation(
        Mistake("exchange", (one.target, other.target), text, at), wrong, _are_added(module, one.target, other.target)
    )


def _are_added(module: nn.Module, *targets: str) -> bool:
    """Whether these are both biases of one cell that only ever adds them."""
    owners = {target.rpartition(".")[0] for target in targets}
    cells = [CELL.fullmatch(target.rpartition(".")[2]) for target in targets]
    if len(owners) > 1 or not isinstance(module.get_submodule(owners.pop()), _ADDS_BIASES):
        return False
    return {cell and cell[1] for cell in cells} == {"bias_ih", "bias_hh"} and len({c and c[2] for c in cells}) == 1


def _in_parts(step: Step) -> Iterator[_Mutation]:
    """What can be wrong within the rows that write one target."""
    for part in step.parts:
        rule = part.rule
        make = partial(_in_part, step, part)
        for i, (axes, transform) in enumerate(zip(rule.axes, part.transforms, strict=False)):
            for order in same_shape(axes, transform):
                names = [name for group in axes.right for name in group]
                other = Axes(axes.left, grouped([names[place] for place in order], axes))
                steps = (*rule.axes[:i], other, *rule.axes[i + 1 :])
                text = f"{{}} with axes '{shown_steps(steps)}' for '{shown_steps(rule.axes)}'"
                yield make("axes", text, partial(_moved, part, i, partial(np.transpose, axes=order)))
        if part.transforms and part.transforms[0].flips:
            first = part.transforms[0]
            places = tuple(first.permutation.index(axis) for axis in sorted(first.flips))
            yield make("flip", "{} without its flip", partial(_moved, part, 0, partial(np.flip, axis=places)))
        yield from _in_order(part, make)
        yield from _joined_otherwise(part, make)
        if rule.scale:
            yield make("scale", f"{{}} without its scale {rule.scale}", partial(_unscaled, part))
        if rule.add is not None:
            yield make("add", "{} without its add", partial(_added, part, -1))
    for pair in _parts_alike(step):
        yield _exchanged_parts(step, *pair)


def _in_part(step: Step, part: Part, kind: Kind, text: str, change: Callable[[Array], Array]) -> _Mutation:
    """A mistake in one part of a target; the text's `{}` is the part."""
    region = () if part.into is None else tuple(slice(start, stop) for start, stop in part.into)

    def wrong(right: Mapping[str, Array]) -> dict[str, Array]:
        whole = right[step.target].copy()
        whole[region] = change(right[step.target][region])
        return {step.target: whole}

    name = shown(step.target) + ("" if part.into is None else boxes.text(part.into, step.shape))
    return _Mutation(Mistake(kind, (step.target,), text.replace("{}", name, 1), part.rule.at), wrong)


def _moved(part: Part, i: int, change: Callable[[Array], Array], region: Array) -> Array:
    """The part's values, with a change made where transform `i` has put its elementary axes into their order."""
    for transform in reversed(part.transforms[i + 1 :]):
        region = transform.inverse.apply(region)
    transform = part.transforms[i]
    moved = region.reshape([transform.elementary[axis] for axis in transform.permutation])
    region = np.ascontiguousarray(change(moved)).reshape(transform.output)
    for transform in part.transforms[i + 1 :]:
        region = transform.apply(region)
    return region


Make = Callable[[Kind, str, Callable[[Array], Array]], _Mutation]


def _in_order(part: Part, make: Make) -> Iterator[_Mutation]:
    """Of a row with `order`: without it, and with two of its entries exchanged."""
    for name, order in part.rule.order.items():
        transform = part.transforms[0]
        axis = part.rule.axes[0].names.index(name)
        place = transform.permutation.index(axis)
        entries = [transform.orders[axis]]
        back = [int(entry) for entry in np.argsort(entries[0])]
        yield make("gates", "{} without its order", partial(_moved, part, 0, partial(_take, back, place)))
        for one, other in itertools.combinations(range(len(order.after)), 2):
            exchanged = swapped(len(order.after), one, other)
            text = f"entries {order.after[one]} and {order.after[other]} of {{}} exchanged"
            yield make("gates", text, partial(_moved, part, 0, partial(_take, exchanged, place)))


def _take(entries: Sequence[int], axis: int, array: Array) -> Array:
    return array.take(entries, axis)


def _joined_otherwise(part: Part, make: Make) -> Iterator[_Mutation]:
    """Two variables that follow each other in a join, exchanged."""
    if part.joined is None:
        return
    is_stack = len(part.transforms[0].input) > len(part.reads[0].box)
    sizes = [1 if is_stack else boxes.shape_of(read.box)[part.joined] for read in part.reads]
    starts = [0, *itertools.accumulate(sizes)]
    for number, (one, other) in enumerate(itertools.pairwise(part.reads)):
        if sizes[number] != sizes[number + 1]:
            continue
        entries = list(range(starts[-1]))
        start, middle, stop = starts[number : number + 3]
        entries[start:stop] = [*entries[middle:stop], *entries[start:middle]]
        text = f"{shown(one.ref.name)} and {shown(other.ref.name)} exchanged in {{}}"
        yield make("exchange", text, partial(_rejoined, part, entries))


def _rejoined(part: Part, entries: Sequence[int], region: Array) -> Array:
    for transform in reversed(part.transforms):
        region = transform.inverse.apply(region)
    assert part.joined is not None
    region = region.take(entries, part.joined)
    for transform in part.transforms:
        region = transform.apply(region)
    return region


def _unscaled(part: Part, region: Array) -> Array:
    """Without the row's scale; what it adds comes after that, and stays."""
    scale = part.rule.scale
    assert scale is not None
    products = region if part.rule.add is None else _added(part, -1, region)
    is_whole = np.issubdtype(region.dtype, np.integer)
    values: Array = products // int(scale) if is_whole else products / region.dtype.type(scale)
    return values if part.rule.add is None else _added(part, 1, values)


def _added(part: Part, times: int, region: Array) -> Array:
    """With what the row adds so many times more: to each element, or to entries of some axes."""
    rule, kind = part.rule, region.dtype.type
    assert rule.add is not None
    if not isinstance(rule.add, Mapping):
        total: Array = region + kind(times * rule.add)
        return total
    given = rule.add

    def change(moved: Array) -> Array:
        changed = moved.copy()
        for name, entries in given.items():
            place = part.transforms[0].permutation.index(rule.axes[0].names.index(name))
            for entry, addend in entries.items():
                at = rule.order[name].after.index(entry)
                changed[(slice(None),) * place + (at,)] += kind(times * addend)
        return changed

    return _moved(part, 0, change, region)


def _parts_alike(step: Step) -> Iterator[tuple[Part, Part]]:
    """Parts of one target with the same shape, each with the next of them."""
    alike: dict[Shape, list[Part]] = defaultdict(list)
    for part in step.parts:
        if part.into is not None:
            alike[part.shape].append(part)
    for same in alike.values():
        yield from ((one, other) for one, other in itertools.pairwise(same) if one.reads or other.reads)


def _exchanged_parts(step: Step, one: Part, other: Part) -> _Mutation:
    assert one.into is not None
    assert other.into is not None
    first, second = (tuple(slice(start, stop) for start, stop in box) for box in (one.into, other.into))

    def wrong(right: Mapping[str, Array]) -> dict[str, Array]:
        array = right[step.target]
        whole = array.copy()
        whole[first], whole[second] = array[second], array[first]
        return {step.target: whole}

    names = [boxes.text(box, step.shape) for box in (one.into, other.into)]
    text = f"{names[0]} and {names[1]} of {shown(step.target)} exchanged"
    return _Mutation(Mistake("exchange", (step.target,), text, one.rule.at), wrong)


def _convolved(module: nn.Module, step: Step) -> int | None:
    """How many axes of space a convolution's kernel has; None for what is none."""
    owner, _, leaf = step.target.rpartition(".")
    is_convolution = any("conv" in kind.__name__.lower() for kind in type(module.get_submodule(owner)).__mro__)
    is_kernel = is_convolution and leaf == "weight" and len(step.shape) in {3, 4, 5} and math.prod(step.shape[2:]) > 1
    return len(step.shape) - 2 if is_kernel and step.sources else None


def _flipped(step: Step, size: int) -> _Mutation:
    def wrong(right: Mapping[str, Array]) -> dict[str, Array]:
        axes = tuple(range(len(step.shape) - size, len(step.shape)))
        return {step.target: np.ascontiguousarray(np.flip(right[step.target], axes))}

    return _Mutation(
        Mistake("flip", (step.target,), f"the kernel {shown(step.target)} turned round in space", step.rule.at), wrong
    )


def _gates(module: nn.Module, steps: Sequence[Step]) -> Iterator[_Mutation]:
    """Two gates of a recurrent layer exchanged: in one of its tensors, and in all of them."""
    cells: dict[tuple[str, str], list[Step]] = defaultdict(list)
    for step in steps:
        owner, _, leaf = step.target.rpartition(".")
        if (found := CELL.fullmatch(leaf)) and step.sources:
            cells[owner, found[2]].append(step)
    for (owner, suffix), own in cells.items():
        hidden = next((step for step in own if step.target.endswith(f"weight_hh{suffix}")), None)
        units = getattr(module.get_submodule(owner), "hidden_size", hidden.shape[-1] if hidden else 0)
        if not isinstance(units, int) or not units:
            continue
        # `order` says more of the gates than their number.
        free = [step for step in own if not any(part.rule.order for part in step.parts)]
        free = [step for step in free if step.shape[0] in {3 * units, 4 * units}]
        for group in [*([step] for step in free), free] if len(free) > 1 else [free] if free else []:
            for one, other in itertools.combinations(range(group[0].shape[0] // units), 2):
                yield _exchanged_gates(group, one, other, units)


def _exchanged_gates(steps: Sequence[Step], one: int, other: int, units: int) -> _Mutation:
    def wrong(right: Mapping[str, Array]) -> dict[str, Array]:
        changed = {}
        for step in steps:
            array = right[step.target]
            gates = array.reshape(-1, units, *array.shape[1:])
            exchanged = gates.take(swapped(len(gates), one, other), 0)
            changed[step.target] = exchanged.reshape(array.shape)
        return changed

    targets = tuple(step.target for step in steps)
    text = f"gates {one} and {other} of {', '.join(map(shown, targets))} exchanged"
    return _Mutation(Mistake("gates", targets, text, steps[0].rule.at), wrong)
