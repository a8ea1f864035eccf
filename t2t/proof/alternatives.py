"""
The known other ways in which rows could have been written, each of which fits every shape: what a diagnosis tries.

    axes       another order that gives the same shape; the order of a Flatten in front, or of none
    gates      of a recurrent layer, in another order: in all its tensors, or in one; the forget bias added, or not
    exchange   what two targets get: of one module, of sibling modules; two parts, two slices, two variables of a join
    flip       a convolution's kernel turned round in space; a row without its `flip`
    numbers    a row without its `scale`, without its `add`

Each is a change of rules, likeliest first, and followed by the same change in all rules of the same row, where those
are more. Two that would give the same elements in the same order are one. Nothing here reads a value, but `values`,
which leaves all of it to the plan and to `t2t.execute`.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from t2t import execute
from t2t import plan as planning
from t2t.axes import Axes, Order, Transform, shown_steps
from t2t.boxes import Bounds, shape_of
from t2t.checkpoints import Checkpoint
from t2t.coverage import Part
from t2t.execute import Array
from t2t.names import shown
from t2t.plan import Plan
from t2t.problems import Problem
from t2t.proof.written import Key, Rows, key_of
from t2t.rules import Lost, Rule
from t2t.tensors import CheckpointInventory, ModuleInventory, ParameterRef, Shape

#: Orders of one rule's axes that are tried: those that exchange fewest come first.
MAX_ORDERS = 24
#: Of more elementary axes than these, only two are exchanged.
MAX_ORDERED = 5
#: Sibling modules that one exchanges with.
MAX_SIBLINGS = 6
#: Variables of a join of which every order is tried; of more, two neighbours are exchanged.
MAX_JOINED = 3
#: Neighbours of a longer join, or of many parts, that are exchanged.
MAX_NEIGHBOURS = 8

_CELL = re.compile(r"(weight_ih|weight_hh|bias_ih|bias_hh)(.*)")

#: torch's gates, and the orders that TensorFlow's layers have them in, likeliest first; then all others.
_GATES: Mapping[int, str] = {4: "ifco", 3: "rzh", 2: "rz"}
_KNOWN: Mapping[int, tuple[str, ...]] = {
    4: ("ifco", "icfo", "fico", "ifoc", "iofc"),
    3: ("rzh", "zrh"),
    2: ("rz", "zr"),
}
#: Gates in how many orders are tried with the forget bias the other way, and in one tensor alone.
_OFTEN = 3

#: What a feature map's axes are called, the channels left out.
_SPATIAL: Mapping[int, tuple[str, ...]] = {2: ("l",), 3: ("h", "w"), 4: ("d", "h", "w")}

#: Tensors of one module that are most often taken for each other.
_PAIRS = ({"weight", "bias"}, {"running_mean", "running_var"}, {"bias_ih", "bias_hh"})


@dataclass(frozen=True, slots=True)
class Alternative:
    """
    Another way to write some rows: `what` it is in words, the `rules` as they would have to be, each of which writes a
    target (and `into`) that a rule of the mapping writes, and the same as rows ready to paste.

    The `lines` replace the rows of the mapping that these rules come from. Where one rule of a row with <letters>
    changes alone, they are rows without letters, for its names only; of a row that uses a recipe, they are the
    recipe's rows. More than eight end in "...".
    """

    what: str
    rules: tuple[Rule, ...]
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Change:
    """
    A change that may be tried: new rules by what they replace. `taken` says from whom, where targets are exchanged;
    `wide` is the same in all rules of the rows.
    """

    what: str
    rules: Mapping[Key, Rule]
    taken: Mapping[Key, Key] = field(default_factory=dict)
    wide: _Change | None = None


def alternatives(plan: Plan, targets: Sequence[str], maps: Sequence[Shape] = ()) -> Iterator[Alternative]:
    """
    What else the rows of these targets could have said, likeliest first.

    `targets` are entries of the state_dict, usually all that one module owns; others are in an alternative where they
    exchange with these, or come from the same row. `maps` are the shapes of feature maps, in torch's order without the
    batch, (c, h, w) or (c, l), that a Flatten may have stood behind.
    """
    known = _Known(plan)
    own = [part for name in dict.fromkeys(targets) for part in known.by_target.get(name, ())]
    own = [part for part in own if part.rule.tie is None and not part.rule.keep and all(part.shape)]
    reading = [part for part in own if part.reads]
    cells = list(_cells(known, reading))
    changes = itertools.chain(
        (change for part in reading for change in _flattened(known, part, maps)),
        (change for part in reading for change in _other_orders(known, part, swaps=True)),
        (change for cell in cells for change in _gates(known, cell)),
        _exchanges_within(known, own),
        (change for part in reading for change in _flips(known, part)),
        (change for part in reading for change in _numbers(known, part)),
        (change for part in reading for change in _joins(known, part)),
        _exchanges_of_parts(known, own),
        _slices(known, reading),
        _exchanges_of_siblings(known, own),
        (change for part in reading for change in _other_orders(known, part, swaps=False)),
        _reshaped(known, reading, maps),
    )
    seen: set[frozenset[Any]] = set()
    for change in changes:
        yield from known.alternatives(change, seen)


def values(plan: Plan, checkpoint: Checkpoint, alternative: Alternative) -> dict[str, Array]:
    """
    The whole values of every target that the alternative's rules write: the module's dtype and shape, C order.

    NaN and Inf pass. Raises MappingError where a value does not fit the target's dtype, CheckpointError where a
    variable cannot be read.
    """
    changed = {key_of(rule): rule for rule in alternative.rules}
    touched = {rule.target for rule in alternative.rules}
    old = [part.rule for step in plan.steps if step.target in touched for part in step.parts]
    made, problems = _planned(plan, [changed.get(key_of(rule), rule) for rule in old], _inventory(plan, touched))
    assert not problems, problems
    assert {step.target for step in made.steps} == touched
    return dict(execute.tensors(made, checkpoint, {}, allow_nonfinite=True))


def _inventory(plan: Plan, targets: set[str]) -> ModuleInventory:
    steps = (step for step in plan.steps if step.target in targets)
    return ModuleInventory({step.target: ParameterRef(step.target, step.dtype, step.shape) for step in steps})


def _planned(plan: Plan, rules: Sequence[Rule], module: ModuleInventory) -> tuple[Plan, list[Problem]]:
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


class _Known:
    """A plan's parts, by what they write, and its rows."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rows = Rows(plan)
        self.parts = self.rows.parts
        self.by_target = {step.target: step.parts for step in plan.steps}
        self.module = _inventory(plan, set(self.by_target))

    def whole(self, target: str) -> Part | None:
        """The part that writes all of this target, None where several do or it is tied or kept."""
        parts = self.by_target.get(target, ())
        is_one = len(parts) == 1 and parts[0].into is None and parts[0].rule.tie is None and not parts[0].rule.keep
        return parts[0] if is_one else None

    def fitted(self, rule: Rule) -> Part | None:
        """The rule with both its sides, None where it does not fit them."""
        ref = self.module.parameters[rule.target]
        made, problems = _planned(self.plan, [rule], ModuleInventory({rule.target: ref}))
        return made.steps[0].parts[0] if made.steps and not problems else None

    def alternatives(self, change: _Change, seen: set[frozenset[Any]]) -> Iterator[Alternative]:
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
            yield Alternative(change.what, tuple(changed.values()), self.rows.lines(rows, taken))
        if change.wide is not None:
            yield from self.alternatives(change.wide, seen)

    def patched(self, what: str, patches: Sequence[tuple[Part, Mapping[str, Any]]]) -> _Change:
        """These rules with other values of some fields; and all other rules of the same rows with the same."""
        rules = {key_of(part.rule): _patched(part.rule, patch) for part, patch in patches}
        wide: dict[Key, Rule] = {}
        for part, patch in patches:
            mates = self.rows.mates(part)
            if any(
                len(mate.rule.sources) != len(part.rule.sources) or mate.rule.slice != part.rule.slice for mate in mates
            ):
                return _Change(what, rules)  # letters say more than names in this row
            wide |= {key_of(mate.rule): _patched(mate.rule, patch) for mate in mates}
        if len(wide) == len(rules):
            return _Change(what, rules)
        scope = self.rows.scope(patches[0][0])
        return _Change(what, rules, wide=_Change(f"{what}, in all {len(wide)} rules of {scope}", wide))

    def exchanged(self, what: str, pairs: Sequence[tuple[Part, Part]], words: tuple[int, str, str] | None) -> _Change:
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
    def _exchange(what: str, pairs: Sequence[tuple[Part, Part]]) -> _Change:
        both = [pair for one, other in pairs for pair in ((one, other), (other, one))]
        return _moved(what, both)


def _moved(what: str, pairs: Sequence[tuple[Part, Part]]) -> _Change:
    """The first target of each pair with what the second gets."""
    rules = {key_of(to.rule): _taken(to.rule, giver.rule) for to, giver in pairs}
    return _Change(what, rules, {key_of(to.rule): key_of(giver.rule) for to, giver in pairs})


def _taken(to: Rule, giver: Rule) -> Rule:
    places = {key: place for key, place in giver.places.items() if key not in {"torch", "into"}}
    places |= {key: place for key, place in to.places.items() if key in {"torch", "into"}}
    return replace(giver, target=to.target, into=to.into, at=to.at, places=places, use=to.use, optional=to.optional)


#: Of a patch: in which order a rule joins its own variables. All else in it is a field of the rule.
_JOINED = "in the order"


def _patched(rule: Rule, patch: Mapping[str, Any]) -> Rule:
    changed = replace(rule, **{name: value for name, value in patch.items() if name != _JOINED})
    if order := patch.get(_JOINED):
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


# --- axes ---


def _flattened(known: _Known, part: Part, maps: Sequence[Shape]) -> Iterator[_Change]:
    """A matrix behind a Flatten: the variable counts its inputs as h w c, the parameter as c h w; or just not."""
    matrix = _matrix(part)
    if matrix is None or len(part.shape) != 2 or not _is_free(part.rule):
        return
    is_first, group = matrix
    shapes = [shape for shape in maps if len(shape) in _SPATIAL and math.prod(shape) == part.shape[1]]
    for shape in dict.fromkeys(shapes):
        spatial = _SPATIAL[len(shape)]
        inputs, outputs = (*spatial, "c"), ("c", *spatial)
        left = (inputs, ("o",)) if is_first else (("o",), inputs)
        dims = dict(zip(spatial, shape[1:], strict=True))
        patch = {"axes": (Axes(left, (("o",), outputs)),), "dims": dims}
        what = f"the axes of a Flatten of {[*shape[1:], shape[0]]}"
        yield known.patched(what, [(part, patch)])
    if len(group) > 1:
        left = (("i",), ("o",)) if is_first else (("o",), ("i",))
        patch = {"axes": (Axes(left, (("o",), ("i",))),), "dims": {}}
        yield known.patched("the axes of no Flatten", [(part, patch)])


def _matrix(part: Part) -> tuple[bool, tuple[str, ...]] | None:
    """
    Of a row that reads a matrix of inputs and outputs: whether the inputs are the variable's first axis, and their
    names. None for anything else.
    """
    axes = part.rule.axes
    if len(axes) != 1 or len(part.transforms[0].input) != 2 or part.joined is not None:
        return None
    left, right = axes[0].left, axes[0].right
    if len(right) != 2 or len(right[0]) != 1 or right[0] not in left:
        return None
    return left.index(right[0]) == 1, right[1]


def _is_free(rule: Rule) -> bool:
    """Whether a row speaks of its axes' names nowhere else, so that they may get others."""
    return not rule.order and not rule.flip and not isinstance(rule.add, Mapping)


def _other_orders(known: _Known, part: Part, *, swaps: bool) -> Iterator[_Change]:
    """
    Every other order of a row's axes that gives the same shape; with `swaps` those that exchange two, else the others.
    """
    for i, (axes, transform) in enumerate(zip(part.rule.axes, part.transforms, strict=False)):
        found = [*_right_orders(part.rule, axes, transform), *_left_orders(axes, i)]
        for count, other in itertools.islice(found, MAX_ORDERS):
            if (count == 2) is swaps:
                steps = (*part.rule.axes[:i], other, *part.rule.axes[i + 1 :])
                changed = _patched(part.rule, {"axes": steps})
                what = f"axes '{shown_steps(steps)}'"
                if "permute" in changed.places:
                    what = f"permute {[other.left.index(group) for group in other.right]}"
                yield known.patched(what, [(part, {"axes": steps})])


def _right_orders(rule: Rule, axes: Axes, transform: Transform) -> Iterator[tuple[int, Axes]]:
    """Other axes, and how many names they move: another order on the right side or, where that says it, on the left."""
    sizes = [transform.elementary[axis] for axis in transform.permutation]
    names = [name for group in axes.right for name in group]
    long = [place for place, size in enumerate(sizes) if size != 1]
    orders = []
    for candidate in _permutations(len(long)):
        order = list(range(len(sizes)))
        for place, taken in zip(long, candidate, strict=True):
            order[place] = long[taken]
        if tuple(math.prod(group) for group in _grouped([sizes[place] for place in order], axes)) == transform.output:
            orders.append(order)
    is_free = len(rule.axes) == 1 and not (rule.dims or rule.order or rule.flip or rule.add is not None or rule.join)
    is_single = all(len(group) <= 1 for group in (*axes.left, *axes.right)) and "permute" not in rule.places
    for order in sorted(orders, key=_displaced):
        moved = [names[place] for place in order]
        if not _displaced(order):
            continue
        if is_free and is_single:
            # What torch has is known: it is the variable whose axes are others.
            called = dict(zip(moved, names, strict=True))
            yield (
                _displaced(order),
                Axes(tuple(tuple(called[name] for name in group) for group in axes.left), axes.right),
            )
        else:
            yield _displaced(order), Axes(axes.left, _grouped(moved, axes))


def _left_orders(axes: Axes, step: int) -> Iterator[tuple[int, Axes]]:
    """Other axes whose left side has the names of one group in another order: (s h k) stored as (h s k)."""
    for place, group in enumerate(axes.left):
        if len(group) < 2 or step:
            continue
        for order in sorted(_permutations(len(group)), key=_displaced):
            if _displaced(order):
                moved = tuple(group[position] for position in order)
                yield _displaced(order), Axes((*axes.left[:place], moved, *axes.left[place + 1 :]), axes.right)


def _permutations(count: int) -> Iterator[Sequence[int]]:
    if count <= MAX_ORDERED:
        yield from itertools.permutations(range(count))
        return
    for one, other in itertools.combinations(range(count), 2):
        order = list(range(count))
        order[one], order[other] = other, one
        yield order


def _displaced(order: Sequence[int]) -> int:
    return sum(place != taken for place, taken in enumerate(order))


def _grouped(entries: Sequence[Any], axes: Axes) -> tuple[tuple[Any, ...], ...]:
    """The entries in groups as long as those of the right side."""
    rest = iter(entries)
    return tuple(tuple(itertools.islice(rest, len(group))) for group in axes.right)


def _reshaped(known: _Known, parts: Sequence[Part], maps: Sequence[Shape]) -> Iterator[_Change]:
    """A matrix, and its bias, in front of a Reshape to a feature map: the outputs are counted as h w c, or c h w."""
    for part in parts:
        matrix = _matrix(part)
        if matrix is None or len(matrix[1]) != 1 or len(part.shape) != 2 or not _is_free(part.rule):
            continue
        for shape in dict.fromkeys(maps):
            if len(shape) not in _SPATIAL or math.prod(shape) != part.shape[0]:
                continue
            spatial = _SPATIAL[len(shape)]
            theirs, ours, dims = (*spatial, "c"), ("c", *spatial), dict(zip(spatial, shape[1:], strict=True))
            left = (("i",), theirs) if matrix[0] else (theirs, ("i",))
            patches = [(part, {"axes": (Axes(left, (ours, ("i",))),), "dims": dims})]
            patches += [
                (bias, {"axes": (Axes((theirs,), (ours,)),), "dims": dims})
                for bias in parts
                if _owner(bias) == _owner(part)
                and bias.shape == part.shape[:1]
                and not bias.rule.axes
                and _is_free(bias.rule)
            ]
            yield known.patched(f"the axes in front of a Reshape to {[*shape[1:], shape[0]]}", patches)


def _flips(known: _Known, part: Part) -> Iterator[_Change]:
    """A convolution's kernel turned round in space; a row without its flip."""
    rule = part.rule
    if rule.flip:
        yield known.patched("no flip", [(part, {"flip": ()})])
        return
    if len(rule.axes) != 1 or len(part.shape) not in {3, 4, 5} or part.into is not None:
        return
    axes, sizes = rule.axes[0], part.transforms[0].elementary
    names = [name for group in axes.right[2:] for name in group]
    if "permute" in rule.places:
        turned: list[str | int] = sorted(axes.left.index((name,)) for name in names)
    else:
        turned = [name for name in axes.names if name in names]
    if any(sizes[axes.names.index(name)] > 1 for name in names) and not set(names) & set(rule.order):
        yield known.patched("the kernel turned round in space", [(part, {"flip": tuple(turned)})])


def _numbers(known: _Known, part: Part) -> Iterator[_Change]:
    """A row without its scale, without its add."""
    if part.rule.scale is not None:
        yield known.patched(f"no scale {part.rule.scale}", [(part, {"scale": None})])
    if part.rule.add is not None:
        yield known.patched("no add", [(part, {"add": None})])


# --- recurrent layers ---


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A part of a recurrent cell, and how many gates its first axis holds."""

    part: Part
    gates: int


def _cells(known: _Known, parts: Sequence[Part]) -> Iterator[list[_Tensor]]:
    """The tensors of each recurrent cell that come from variables, with how many gates each has."""
    found: dict[tuple[str, str], list[_Tensor]] = defaultdict(list)
    for part in parts:
        owner, _, leaf = part.rule.target.rpartition(".")
        match = _CELL.fullmatch(leaf)
        units = _units(known, owner, match[2]) if match else 0
        if match and units and part.shape[0] % units == 0 and part.shape[0] // units in _GATES:
            found[owner, match[2]].append(_Tensor(part, part.shape[0] // units))
    yield from found.values()


def _units(known: _Known, owner: str, suffix: str) -> int:
    """How many units a cell has whose gates are three or four, 0 for none of these."""
    ref = known.module.parameters.get(f"{owner}{'.' if owner else ''}weight_hh{suffix}")
    if ref is None or len(ref.shape) != 2 or not ref.shape[1]:
        return 0
    return ref.shape[1] if ref.shape[0] in {3 * ref.shape[1], 4 * ref.shape[1]} else 0


def _gates(known: _Known, cell: Sequence[_Tensor]) -> Iterator[_Change]:
    """The gates in other orders, in all tensors and in one alone; with the forget bias added, or not, and as it is."""
    most = max(tensor.gates for tensor in cell)
    # Half a cell's gates are known by no name but the GRU's.
    full = [tensor for tensor in cell if tensor.gates == most]
    bias = next((t for t in full if most == 4 and t.part.rule.target.rpartition(".")[2].startswith("bias_")), None)
    orders = [
        *_KNOWN[most],
        *("".join(o) for o in itertools.permutations(_GATES[most]) if "".join(o) not in _KNOWN[most]),
    ]
    if bias is not None and (toggled := _forgetting(bias)) is not None:
        what = "no forget bias added" if bias.part.rule.add is not None else "a forget bias of 1.0 added"
        yield known.patched(what, [(bias.part, toggled)])
    for number, order in enumerate(orders):
        patches = [(tensor.part, patch) for tensor in full if (patch := _ordered(tensor, order)) is not None]
        if not patches:
            return
        yield known.patched(f"gates in the order {' '.join(order)}", patches)
        if bias is None or number >= _OFTEN:
            continue
        both = [(part, _forgetting(bias, patch) if part is bias.part else patch) for part, patch in patches]
        if all(patch is not None for _, patch in both):
            how = "no" if bias.part.rule.add is not None else "a"
            what = f"gates in the order {' '.join(order)} and {how} forget bias"
            yield known.patched(what, [(part, patch or {}) for part, patch in both])
    for order in orders[: _OFTEN if most == 4 else None]:
        for tensor in cell:
            mine = order if tensor.gates == most else {"rzh": "rz", "zrh": "zr"}.get(order, "")
            if mine and (patch := _ordered(tensor, mine)) is not None:
                what = f"gates of {shown(tensor.part.rule.target)} alone in the order {' '.join(mine)}"
                yield known.patched(what, [(tensor.part, patch)])


def _ordered(tensor: _Tensor, order: str) -> dict[str, Any] | None:
    """The fields of a rule that reads its gates in this order, None where it has no axis of gates to speak of."""
    rule, part, canonical = tensor.part.rule, tensor.part, _GATES[tensor.gates]
    if part.joined is not None and len(part.reads) == tensor.gates and rule.axes[0].right[0][:1] == (rule.join,):
        return _sources_in_order(rule, canonical, order)
    split = _split(tensor)
    if split is None:
        return None
    axes, dims, gate = split
    old = rule.order.get(gate)
    after = _letters(old.after if old is not None else canonical, canonical)
    before = "".join(after[canonical.index(letter)] for letter in order)
    orders = {name: given for name, given in rule.order.items() if name != gate}
    needs = isinstance(rule.add, Mapping) and gate in rule.add
    if before != after or needs:
        orders = {**orders, gate: Order(before, after)}
    if before == after and not needs and not rule.order and part.rule.axes == axes:
        return {}
    return {"axes": axes, "dims": dims, "order": orders}


def _sources_in_order(rule: Rule, canonical: str, order: str) -> dict[str, Any] | None:
    """Of a row that joins a variable for each gate: the variables in another order."""
    if rule.order or isinstance(rule.add, Mapping):
        return None
    # What stands at the place of a gate is read as another: its own letter is wherever `order` has it.
    return {_JOINED: tuple(order.index(letter) for letter in canonical)}


def _letters(after: str, canonical: str) -> str:
    """The row's own letters in torch's order: i f g o, i f j o, r z n; as the row has them, if they are others."""
    for known in (canonical, canonical.replace("c", "g"), canonical.replace("c", "j"), canonical.replace("h", "n")):
        if sorted(known) == sorted(after):
            return known
    return after


def _split(tensor: _Tensor) -> tuple[tuple[Axes, ...], dict[str, int], str] | None:
    """The rule's axes with an axis of gates, their dims, and what that axis is called."""
    part, rule = tensor.part, tensor.part.rule
    if not rule.axes:
        group = ("g", "u")
        return (Axes((group,), (group,)),), {"g": tensor.gates}, "g"
    first, last = rule.axes[0], rule.axes[-1]
    sizes = dict(zip(first.names, part.transforms[0].elementary, strict=True))
    outer = last.right[0]
    if len(outer) == 2 and sizes.get(outer[0]) == tensor.gates:
        return rule.axes, dict(rule.dims), outer[0]
    if len(outer) != 1 or len(rule.axes) != 1 or outer[0] in rule.flip or outer[0] in rule.order:
        return None
    others = set(first.names) - set(outer)
    gate = next(name for name in ("g", "gate", "gates") if name not in others)
    unit = next(name for name in ("u", "v", "units", "unit") if name not in others)

    def renamed(side: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
        return tuple(
            tuple(itertools.chain.from_iterable((gate, unit) if name == outer[0] else (name,) for name in group))
            for group in side
        )

    axes = Axes(renamed(first.left), renamed(first.right))
    if "permute" in rule.places:  # there the names are only a, b, c
        called = dict.fromkeys(others, "x") if len(others) == 1 else {}
        axes = Axes(*(tuple(tuple(called.get(n, n) for n in g) for g in side) for side in (axes.left, axes.right)))
    dims = {name: size for name, size in rule.dims.items() if name in others}
    return (axes,), {**dims, gate: tensor.gates}, gate


def _forgetting(tensor: _Tensor, patch: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """The fields of `patch` with those of a bias that adds 1.0 to the forget gate or, where it adds, doesn't."""
    rule = tensor.part.rule
    if rule.add is not None:
        given = dict(patch or {})
        order = given.get("order", rule.order)
        return {**given, "order": {name: o for name, o in order.items() if o.before != o.after}, "add": None}
    split = _split(tensor)
    if split is None:
        return None
    axes, dims, gate = split
    given = {"axes": axes, "dims": dims, "order": rule.order, **(patch or {})}
    order = given["order"].get(gate, Order(_GATES[4], _GATES[4]))
    after = order.after
    forget = after[_GATES[4].index("f")]
    return {**given, "order": {**given["order"], gate: order}, "add": {gate: {forget: 1.0}}}


# --- exchanges ---


def _exchanges_within(known: _Known, own: Sequence[Part]) -> Iterator[_Change]:
    """What two targets of one module get, of one shape: gamma and beta, mean and variance."""
    pairs: list[tuple[Part, Part]] = []
    for one, other in itertools.combinations(own, 2):
        if _owner(one) == _owner(other) and _are_alike(known, one, other) and not _are_added(known, one, other):
            pairs.append((one, other))
    often = [pair for pair in pairs if _leaves(*pair) in _PAIRS]
    for pair in [*often, *(pair for pair in pairs if pair not in often)]:
        names = [part.rule.target for part in pair]
        leaves = [name.rpartition(".")[2] for name in names]
        what = f"{shown(names[0])} and {shown(names[1])} exchanged"
        yield known.exchanged(what, [pair], (-1, leaves[0], leaves[1]))
    for first, second in itertools.combinations(often, 2):
        parts = [*first, *second]
        if len({key_of(part.rule) for part in parts}) == 4 and len({_owner(part) for part in parts}) == 1:
            # gamma, beta, mean, variance read as mean, variance, gamma, beta
            some = ", ".join(shown(part.rule.target) for part in parts)
            yield known.exchanged(f"{some} exchanged by pairs", list(zip(first, second, strict=True)), None)


def _owner(part: Part) -> str:
    return part.rule.target.rpartition(".")[0]


def _leaves(*parts: Part) -> set[str]:
    return {re.sub(r"_l[0-9]+(_reverse)?$", "", part.rule.target.rpartition(".")[2]) for part in parts}


def _are_alike(known: _Known, one: Part, other: Part) -> bool:
    """Whether both write all of targets of one shape and dtype, and not the same."""
    is_whole = known.whole(one.rule.target) is one and known.whole(other.rule.target) is other
    # Two fills are no values that anybody could take for each other.
    return is_whole and (one.shape, one.dtype) == (other.shape, other.dtype) and bool(one.reads or other.reads)


def _are_added(known: _Known, one: Part, other: Part) -> bool:
    """Whether these are both biases of one cell that only ever adds them: an LSTM's, a simple RNN's."""
    (owner, _, leaf), (_, _, theirs) = (part.rule.target.rpartition(".") for part in (one, other))
    mine, second = _CELL.fullmatch(leaf), _CELL.fullmatch(theirs)
    if not (mine and second and {mine[1], second[1]} == {"bias_ih", "bias_hh"} and mine[2] == second[2]):
        return False
    ref = known.module.parameters.get(f"{owner}{'.' if owner else ''}weight_hh{mine[2]}")
    return ref is not None and ref.shape[0] != 3 * ref.shape[-1]


def _exchanges_of_siblings(known: _Known, own: Sequence[Part]) -> Iterator[_Change]:
    """What a module and one beside it get: query and key, layer 3 and layer 4; all their tensors, then each alone."""
    owners: dict[str, list[Part]] = defaultdict(list)
    for part in own:
        if known.whole(part.rule.target) is part:
            owners[_owner(part)].append(part)
    for owner, mine in owners.items():
        if not owner:
            continue
        siblings = list(_siblings(known, owner, mine))
        for place, one, other, sibling, pairs in siblings:
            words = (place, one, other) if not other.isdecimal() else None
            reading = [pair for pair in pairs if pair[0].reads or pair[1].reads]
            what = f"{shown(owner)} and {shown(sibling)} exchanged"
            if len(reading) > 1 and len(reading) == sum(bool(part.reads) for part in mine):
                yield known.exchanged(what, reading, words)
            for pair in reading:
                names = [part.rule.target for part in pair]
                yield known.exchanged(f"{shown(names[0])} and {shown(names[1])} exchanged", [pair], words)
        beside = [sibling for sibling in siblings if sibling[0] == owner.count(".") and not sibling[2].isdecimal()]
        for first, second in itertools.combinations(beside, 2) if len(beside) <= 3 else ():
            yield from _rotations(owner, first, second)


_Sibling = tuple[int, str, str, str, list[tuple[Part, Part]]]


def _rotations(owner: str, first: _Sibling, second: _Sibling) -> Iterator[_Change]:
    """What three modules get, moved on by one and by two."""
    theirs = {key_of(pair[0].rule): pair[1] for pair in second[4]}
    triples = [(one, other, theirs.get(key_of(one.rule))) for one, other in first[4]]
    if any(third is None for _, _, third in triples):
        return
    for turn in (1, 2):
        moved = []
        for triple in triples:
            parts = [part for part in triple if part is not None]
            moved += [(part, parts[(place + turn) % 3]) for place, part in enumerate(parts)]
        words = [first[1], first[2], second[2]]
        gets = ", ".join(f"{shown(words[place])} from {shown(words[(place + turn) % 3])}" for place in range(3))
        yield _moved(f"{gets} in {shown(owner.rpartition('.')[0]) or 'the module'}", moved)


def _siblings(known: _Known, owner: str, mine: Sequence[Part]) -> Iterator[_Sibling]:
    """
    Modules whose name differs in one part, with tensors of the same names and shapes: the place of that part, both
    texts, the module, and the pairs. Numbered ones are those next to it.
    """
    parts = owner.split(".")
    found: list[tuple[tuple[int, int], _Sibling]] = []
    modules = dict.fromkeys(target.rpartition(".")[0] for target in known.by_target)
    positions = {name: position for position, name in enumerate(modules)}
    for sibling in modules:
        others = sibling.split(".")
        differ = [place for place, (a, b) in enumerate(zip(parts, others, strict=False)) if a != b]
        if len(others) != len(parts) or len(differ) != 1:
            continue
        place = differ[0]
        one, other = parts[place], others[place]
        if one.isdecimal() and other.isdecimal() and abs(int(one) - int(other)) != 1:
            continue
        pairs = []
        for part in mine:
            partner = known.whole(f"{sibling}.{part.rule.target.rpartition('.')[2]}")
            if partner is not None and _are_alike(known, part, partner):
                pairs.append((part, partner))
        if pairs:
            near = (int(place != len(parts) - 1), abs(positions[sibling] - positions[owner]))
            found.append((near, (place, one, other, sibling, pairs)))
    for _, entry in sorted(found, key=lambda entry: entry[0])[:MAX_SIBLINGS]:
        yield entry


def _exchanges_of_parts(known: _Known, own: Sequence[Part]) -> Iterator[_Change]:
    """What two parts of one target get, of one shape."""
    by_target: dict[str, list[Part]] = defaultdict(list)
    for part in own:
        if part.into is not None:
            by_target[part.rule.target].append(part)
    for parts in by_target.values():
        pairs = [
            (one, other)
            for one, other in itertools.combinations(parts, 2)
            if (one.shape, one.dtype) == (other.shape, other.dtype) and (one.reads or other.reads)
        ]
        for one, other in pairs[:MAX_NEIGHBOURS]:
            names = [f"{shown(part.rule.target)}{_box(part)}" for part in (one, other)]
            yield known.exchanged(f"{names[0]} and {names[1]} exchanged", [(one, other)], None)


def _box(part: Part) -> str:
    return f"[{', '.join(f'{start}:{stop}' for start, stop in part.into or ())}]"


def _joins(known: _Known, part: Part) -> Iterator[_Change]:
    """The variables of a join in another order."""
    rule, count = part.rule, len(part.reads)
    if part.joined is None:
        return
    if count <= MAX_JOINED:
        orders = [order for order in itertools.permutations(range(count)) if _displaced(order)]
    else:
        orders = [
            (*range(place), place + 1, place, *range(place + 2, count)) for place in range(count - 1)[:MAX_NEIGHBOURS]
        ]
        orders.append(tuple(reversed(range(count))))
    for order in sorted(orders, key=_displaced):
        moved = [shown((rule.shadowed or rule.sources)[place]) for place, taken in enumerate(order) if place != taken]
        some = " and ".join(moved) if len(moved) == 2 else f"{len(moved)} variables"
        yield known.patched(f"{some} exchanged in the join", [(part, {_JOINED: order})])


def _slices(known: _Known, parts: Sequence[Part]) -> Iterator[_Change]:
    """Two targets that share a variable, a slice each: the slices the other way round."""
    for one, other in itertools.combinations(parts, 2):
        if len(one.reads) != 1 or len(other.reads) != 1 or one.reads[0].ref != other.reads[0].ref:
            continue
        boxes, shape = (one.reads[0].box, other.reads[0].box), one.reads[0].ref.shape
        axes = [axis for axis in range(len(shape)) if boxes[0][axis] != boxes[1][axis]]
        if len(axes) != 1:
            continue
        axis = axes[0]
        first, second = sorted((one, other), key=lambda part: part.reads[0].box[axis])
        (start, middle), (again, stop) = first.reads[0].box[axis], second.reads[0].box[axis]
        if middle != again:
            continue
        size = shape_of(second.reads[0].box)[axis]
        bounds = ((start, start + size), (start + size, stop))
        patches = [
            (part, {"slice": _sliced(part.rule, axis, pair, shape[axis])})
            for part, pair in zip((second, first), bounds, strict=True)
        ]
        what = f"the slices of {shown(first.rule.sources[0])} the other way round"
        yield known.patched(what, patches)


def _sliced(rule: Rule, axis: int, pair: tuple[int, int], size: int) -> tuple[Bounds, ...]:
    given = [*rule.slice, *[(None, None)] * (axis + 1 - len(rule.slice))]
    given[axis] = (pair[0] or None, pair[1] if pair[1] < size else None)
    return tuple(given)
