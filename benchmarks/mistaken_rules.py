"""
The mistakes that a person makes in a mapping's rules, each of which fits every shape.

    height and width    of a square kernel
    transpose           two axes of one size; of a matrix, a kernel's channels, an attention's heads
    order in a group    a Flatten's h w c for c h w
    flip                a kernel turned round that isn't, or the other way round
    gates, forget bias  of a recurrent cell: in another order; added, or not
    gamma and beta, mean and variance, in one module, neighbours      targets exchanged
    numbering           the layers of a row counted from another one on, or in the order of text, ten before two
    join, scale         the variables of a join in another order; a scale dropped

Each is in one rule (of an exchange, in two), or in all the rules of a row that have the same axes. They are thought of
here, without a look at what t2t's diagnosis tries: else it would only be asked for what it knows.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from t2t.axes import Axes, Order, parse_order
from t2t.coverage import Part
from t2t.plan import Plan
from t2t.rules import Rule


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake: its kind, what it is in words, the right rules with the wrong ones. `is_wide`: in a whole row."""

    kind: str
    what: str
    rules: tuple[tuple[Rule, Rule], ...]
    is_wide: bool = False

    @property
    def targets(self) -> list[str]:
        """The entries of the state_dict that get something else."""
        return list(dict.fromkeys(wrong.target for _, wrong in self.rules))


def mistakes(module: nn.Module, plan: Plan) -> list[Mistake]:
    """Every mistake, whether or not it fits and changes anything; in a whole row once for each row."""
    parts = [part for step in plan.steps for part in step.parts if part.reads]
    made = itertools.chain(_in_rules(module, parts), _gates(parts), _exchanges(parts), _miscounted(parts))
    return list({mistake.what: mistake for mistake in made}.values())


def _in_rules(module: nn.Module, parts: Sequence[Part]) -> Iterator[Mistake]:
    for part in parts:
        rule = part.rule
        for kind, words, change in (*_moved(module, part), *_turned(module, part), *_otherwise(part)):
            yield Mistake(kind, f"{_name(rule)}: {words}", ((rule, replace(rule, **change)),))
            mates = [mate.rule for mate in parts if mate.rule.at == rule.at and mate.rule.axes == rule.axes]
            if len(mates) > 1:
                rules = tuple((mate, replace(mate, **change)) for mate in mates)
                yield Mistake(kind, f"all {len(mates)} like {_name(mates[0])}: {words}", rules, is_wide=True)


Change = tuple[str, str, dict[str, Any]]


def _moved(module: nn.Module, part: Part) -> Iterator[Change]:
    """Two axes of one size exchanged; the names in a group in another order, as those behind a Flatten."""
    if len(part.rule.axes) != 1 or part.rule.order:
        return
    (axes,), shape = part.rule.axes, part.transforms[0].output
    for one, other in itertools.combinations(range(len(shape)), 2):
        is_in_space = [_is_kernel(module, part.rule) and place >= 2 for place in (one, other)]
        if shape[one] == shape[other] > 1 and is_in_space[0] == is_in_space[1]:
            right = list(axes.right)
            right[one], right[other] = right[other], right[one]
            wrong = Axes(axes.left, tuple(right))
            yield "height and width" if is_in_space[0] else "transpose", f"axes {wrong}", {"axes": (wrong,)}
    for place, group in enumerate(axes.right):
        for names in itertools.permutations(group) if len(group) in {2, 3} else ():
            if names != group:
                wrong = Axes(axes.left, (*axes.right[:place], names, *axes.right[place + 1 :]))
                yield "order in a group", f"axes {wrong}", {"axes": (wrong,)}
        if len(group) > 2 and (stored := next((own for own in axes.left if set(own) == set(group)), group)) != group:
            sides = [[{group: stored, stored: group}.get(own, own) for own in side] for side in (axes.left, axes.right)]
            wrong = Axes(tuple(sides[0]), tuple(sides[1]))
            yield "order in a group", f"axes {wrong}", {"axes": (wrong,)}


def _turned(module: nn.Module, part: Part) -> Iterator[Change]:
    """A flip dropped; a kernel turned round where none is."""
    rule = part.rule
    if rule.flip:
        yield "flip", "without flip", {"flip": ()}
    elif _is_kernel(module, rule) and len(rule.axes) == 1 and len(rule.axes[0].right) > 2:
        space = tuple(name for group in rule.axes[0].right[2:] for name in group)
        yield "flip", f"flip {' '.join(space)}", {"flip": space}


def _otherwise(part: Part) -> Iterator[Change]:
    """The variables of a join in another order; a scale dropped."""
    rule = part.rule
    if rule.join is not None:
        orders = [tuple(sorted(rule.sources)), rule.sources[::-1]]
        orders += [
            (*rule.sources[:i], rule.sources[i + 1], rule.sources[i], *rule.sources[i + 2 :])
            for i in range(len(rule.sources) - 1)
        ]
        for order in orders:
            places = [rule.sources.index(name) for name in order]
            if order != rule.sources:
                yield "join", f"joined in the order {places}", {"sources": order}
    if rule.scale is not None:
        yield "scale", "without scale", {"scale": None}


def _is_kernel(module: nn.Module, rule: Rule) -> bool:
    owner, _, leaf = rule.target.rpartition(".")
    return leaf == "weight" and isinstance(module.get_submodule(owner), nn.modules.conv._ConvNd)


#: Gates of a layer as one may take them to be stored, onto torch's order.
ORDERS = {
    4: [parse_order(f"{stored} -> ifco") for stored in ("ifco", "icfo", "ifoc", "fico")],
    3: [parse_order(f"{stored} -> rzh") for stored in ("rzh", "zrh", "hzr")],
}
_CELL = re.compile(r"(weight|bias)_(ih|hh)(_.*)?")


def _gates(parts: Sequence[Part]) -> Iterator[Mistake]:
    """Gates taken for stored in another order, in one tensor or in the whole cell; a forget bias added, or not."""
    cells: dict[tuple[str, str], list[Part]] = defaultdict(list)
    for part in parts:
        owner, _, leaf = part.rule.target.rpartition(".")
        if (found := _CELL.fullmatch(leaf)) and part.into is None:
            cells[owner, found[3] or ""].append(part)
    for (owner, suffix), cell in cells.items():
        units = next((p.shape[-1] for p in cell if p.rule.target.endswith(f"weight_hh{suffix}")), 0)
        count = cell[0].shape[0] // units if units else 0
        if count not in ORDERS or any(part.shape[0] != count * units for part in cell):
            continue
        for order in ORDERS[count]:
            wrong = [(part.rule, _ordered(part, count, order)) for part in cell]
            rules = tuple((right, made) for right, made in wrong if made is not None)
            for right, made in rules:
                yield Mistake("gates", f"{_name(right)}: gates {order}", ((right, made),))
            if len(rules) == len(cell) > 1:
                yield Mistake("gates", f"{owner}, {suffix}: gates {order}", rules, is_wide=True)
        for part in cell:
            if count == 4 and "bias_ih" in part.rule.target:
                yield _forgetting(part)


def _ordered(part: Part, count: int, order: Order | None) -> Rule | None:
    """The rule with this order of its gates, or with its own one said; None where that is how it is, or unclear."""
    rule, name = part.rule, "gate"
    if rule.order:
        (name, own), *_ = rule.order.items()
        is_new = order is not None and order.entries != own.entries
        return replace(rule, order={name: Order(order.before, own.after)}) if order and is_new else None
    if order is not None and order.before == order.after:
        return None
    axes = rule.axes[0] if rule.axes else Axes((("u",),), (("u",),))
    if len(rule.axes) > 1 or len(axes.right[0]) != 1:
        return None
    split = tuple((name, *group) if group == axes.right[0] else group for group in axes.left)
    axes = Axes(split, ((name, *axes.right[0]), *axes.right[1:]))
    return replace(rule, axes=(axes,), dims={**rule.dims, name: count}, order={name: order or ORDERS[count][0]})


def _forgetting(part: Part) -> Mistake:
    rule = part.rule
    if rule.add is not None:
        return Mistake("forget bias", f"{_name(rule)}: without add", ((rule, replace(rule, add=None)),))
    wrong = rule if rule.order else _ordered(part, 4, None)
    assert wrong is not None
    wrong = replace(wrong, add={next(iter(wrong.order)): {"f": 1.0}})
    return Mistake("forget bias", f"{_name(rule)}: a forget bias added", ((rule, wrong),))


def _exchanges(parts: Sequence[Part]) -> Iterator[Mistake]:
    """Two targets exchanged, of one module or of one name in siblings; in all rules of their rows, too."""
    places: dict[tuple[Any, ...], list[Part]] = defaultdict(list)
    for part in parts:
        words = part.rule.target.split(".")
        for i in range(len(words)):
            places[i, *words[:i], None, *words[i + 1 :], part.shape, part.dtype].append(part)
    by_key = {(part.rule.target, part.rule.into): part for part in parts}
    for (i, *_), alike in places.items():
        for one, other in itertools.combinations(alike, 2):
            a, b = (part.rule.target.split(".")[i] for part in (one, other))
            if not _are_neighbours(a, b) or one.rule.into != other.rule.into:
                continue
            is_last = i == one.rule.target.count(".")
            kind = _leaves(a, b, one.shape) if is_last else "neighbours"
            yield Mistake(kind, f"{_name(one.rule)} and {_name(other.rule)} exchanged", _swapped([(one, other)]))
            rows = {one.rule.at, other.rule.at}
            pairs = [
                (part, mate)
                for part in parts
                if part.rule.at in rows and part.rule.target.split(".")[i : i + 1] == [a]
                if (mate := by_key.get((_with(part.rule.target, i, b), part.rule.into))) and mate.rule.at in rows
            ]
            if len(pairs) > 1:
                what = f"{a} and {b} exchanged in all {len(pairs)} like {_name(pairs[0][0].rule)}"
                yield Mistake(kind, what, _swapped(pairs), is_wide=True)


def _miscounted(parts: Sequence[Part]) -> Iterator[Mistake]:
    """Three numbered layers or more of a row, in another order."""
    rows: dict[tuple[Any, ...], dict[int, list[Rule]]] = defaultdict(lambda: defaultdict(list))
    for part in parts:
        words = part.rule.target.split(".")
        for i, word in enumerate(words):
            if word.isdecimal():
                rows[part.rule.at, i, *words[:i]][int(word)].append(part.rule)
    for (_, i, *above), layers in rows.items():
        numbers = sorted(layers)
        if len(numbers) < 3 or len({len(rules) for rules in layers.values()}) > 1:
            continue
        within = ".".join(above) or "the module"
        one_off, as_text = [*numbers[1:], numbers[0]], sorted(numbers, key=str)
        for how, order in (("counted one off", one_off), ("in the order of text", as_text)):
            if order != numbers:
                moved = [(rule, str(to)) for number, to in zip(numbers, order, strict=True) for rule in layers[number]]
                rules = tuple((rule, replace(rule, target=_with(rule.target, i, to))) for rule, to in moved)
                what = f"{numbers[0]} to {numbers[-1]} {how} in all {len(rules)} like {_name(rules[0][0])} of {within}"
                yield Mistake("numbering", what, rules, is_wide=True)


def _with(target: str, place: int, word: str) -> str:
    words = target.split(".")
    return ".".join([*words[:place], word, *words[place + 1 :]])


def _are_neighbours(a: str, b: str) -> bool:
    """Of numbered names only those that follow each other; of others all."""
    numbers = [re.fullmatch(r"(\D*)(\d+)", word) for word in (a, b)]
    if (one := numbers[0]) and (other := numbers[1]) and one[1] == other[1]:
        return abs(int(one[2]) - int(other[2])) == 1
    return a != b


def _leaves(a: str, b: str, shape: Sequence[int]) -> str:
    if len(shape) == 1 and {a, b} == {"weight", "bias"}:
        return "gamma and beta"
    return "mean and variance" if {a, b} == {"running_mean", "running_var"} else "in one module"


def _swapped(pairs: Sequence[tuple[Part, Part]]) -> tuple[tuple[Rule, Rule], ...]:
    both = [pair for one, other in pairs for pair in ((one.rule, other.rule), (other.rule, one.rule))]
    return tuple((own, replace(own, target=taken.target, into=taken.into)) for own, taken in both)


def _name(rule: Rule) -> str:
    return rule.target + (f"[{rule.into}]" if rule.into else "")
