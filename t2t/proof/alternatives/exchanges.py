"""What two targets, two parts, two slices or two variables of a join get, the other way round."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from t2t.boxes import Bounds, shape_of
from t2t.coverage import Part
from t2t.names import shown
from t2t.proof.alternatives.changes import JOINED, Change, Known, given_to, owner_of
from t2t.proof.alternatives.gates import CELL
from t2t.proof.alternatives.orders import displaced
from t2t.proof.written import key_of
from t2t.rules import Rule

#: Sibling modules that one exchanges with.
MAX_SIBLINGS = 6
#: Variables of a join of which every order is tried; of more, two neighbours are exchanged.
MAX_JOINED = 3
#: Neighbours of a longer join that are exchanged.
MAX_PIECES = 64
#: Neighbours of many parts that are exchanged.
MAX_NEIGHBOURS = 8

#: Tensors of one module that are most often taken for each other.
_PAIRS = ({"weight", "bias"}, {"running_mean", "running_var"}, {"bias_ih", "bias_hh"})


def within(known: Known, own: Sequence[Part]) -> Iterator[Change]:
    """What two targets of one module get, of one shape: gamma and beta, mean and variance."""
    pairs: list[tuple[Part, Part]] = []
    for one, other in itertools.combinations(own, 2):
        if owner_of(one) == owner_of(other) and _are_alike(known, one, other) and not _are_added(known, one, other):
            pairs.append((one, other))
    often = [pair for pair in pairs if _leaves(*pair) in _PAIRS]
    for pair in [*often, *(pair for pair in pairs if pair not in often)]:
        names = [part.rule.target for part in pair]
        leaves = [name.rpartition(".")[2] for name in names]
        what = f"{shown(names[0])} and {shown(names[1])} exchanged"
        yield known.exchanged(what, [pair], (-1, leaves[0], leaves[1]))
    for first, second in itertools.combinations(often, 2):
        parts = [*first, *second]
        if len({key_of(part.rule) for part in parts}) == 4 and len({owner_of(part) for part in parts}) == 1:
            # gamma, beta, mean, variance read as mean, variance, gamma, beta
            some = ", ".join(shown(part.rule.target) for part in parts)
            yield known.exchanged(f"{some} exchanged by pairs", list(zip(first, second, strict=True)), None)


def _leaves(*parts: Part) -> set[str]:
    return {re.sub(r"_l[0-9]+(_reverse)?$", "", part.rule.target.rpartition(".")[2]) for part in parts}


def _are_alike(known: Known, one: Part, other: Part) -> bool:
    """Whether both write all of targets of one shape and dtype, and not the same."""
    is_whole = known.whole(one.rule.target) is one and known.whole(other.rule.target) is other
    # Two fills are no values that anybody could take for each other.
    return is_whole and (one.shape, one.dtype) == (other.shape, other.dtype) and bool(one.reads or other.reads)


def _are_added(known: Known, one: Part, other: Part) -> bool:
    """Whether these are both biases of one cell that only ever adds them: an LSTM's, a simple RNN's."""
    (owner, _, leaf), (_, _, theirs) = (part.rule.target.rpartition(".") for part in (one, other))
    mine, second = CELL.fullmatch(leaf), CELL.fullmatch(theirs)
    if not (mine and second and {mine[1], second[1]} == {"bias_ih", "bias_hh"} and mine[2] == second[2]):
        return False
    ref = known.module.parameters.get(f"{owner}{'.' if owner else ''}weight_hh{mine[2]}")
    return ref is not None and ref.shape[0] != 3 * ref.shape[-1]


def _numbered(name: str) -> list[tuple[int, str]]:
    """What sorts names by the numbers in them."""
    return [(int(piece), "") if piece.isdecimal() else (0, piece) for piece in re.split(r"(\d+)", name)]


def of_numbers(known: Known, own: Sequence[Part]) -> Iterator[Change]:
    """The numbered layers of a row in the order of their variables' numbers: not one off, and two before ten."""
    for at, above, place in dict.fromkeys(
        (part.rule.at, tuple(words[:place]), place)
        for part in own
        if part.reads
        for words in [part.rule.target.split(".")]
        for place, word in enumerate(words)
        if word.isdecimal()
    ):
        layers: dict[tuple[Any, ...], dict[int, Part]] = defaultdict(dict)
        for part in known.parts.values():
            words = part.rule.target.split(".")
            if part.rule.at == at and part.reads and tuple(words[:place]) == above and words[place].isdecimal():
                layers[tuple(words[place + 1 :]), part.rule.into, part.shape][int(words[place])] = part
        pairs = [
            pair
            for numbered in layers.values()
            for pair in zip(
                [numbered[number] for number in sorted(numbered)],
                sorted(numbered.values(), key=lambda part: _numbered(part.rule.sources[0])),
                strict=True,
            )
            if len(numbered) > 2 and pair[0] is not pair[1]
        ]
        if pairs:
            within = shown(".".join(above)) or "the module"
            yield given_to(f"what is numbered in {within} in the order of its variables' numbers", pairs)


def of_siblings(known: Known, own: Sequence[Part]) -> Iterator[Change]:
    """What a module and one beside it get: query and key, layer 3 and layer 4; all their tensors, then each alone."""
    owners: dict[str, list[Part]] = defaultdict(list)
    for part in own:
        if known.whole(part.rule.target) is part:
            owners[owner_of(part)].append(part)
    for owner, mine in owners.items():
        if not owner:
            continue
        siblings = list(_siblings(known, owner, mine))
        for place, one, other, sibling, pairs in siblings:
            words = (place, one, other)
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


def _rotations(owner: str, first: _Sibling, second: _Sibling) -> Iterator[Change]:
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
        yield given_to(f"{gets} in {shown(owner.rpartition('.')[0]) or 'the module'}", moved)


def _siblings(known: Known, owner: str, mine: Sequence[Part]) -> Iterator[_Sibling]:
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


def of_parts(known: Known, own: Sequence[Part]) -> Iterator[Change]:
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


def of_joins(known: Known, part: Part) -> Iterator[Change]:
    """The variables of a join in another order."""
    rule, count = part.rule, len(part.reads)
    if part.joined is None:
        return
    if count <= MAX_JOINED:
        orders = [order for order in itertools.permutations(range(count)) if displaced(order)]
    else:
        orders = [
            (*range(place), place + 1, place, *range(place + 2, count)) for place in range(count - 1)[:MAX_PIECES]
        ]
        orders.append(tuple(reversed(range(count))))
        # Ten before two, or two before ten.
        names = rule.sources
        orders += [tuple(sorted(range(count), key=lambda place: by(names[place]))) for by in (_numbered, str)]
    for order in sorted(orders, key=displaced):
        moved = [shown((rule.shadowed or rule.sources)[place]) for place, taken in enumerate(order) if place != taken]
        some = " and ".join(moved) if len(moved) == 2 else f"{len(moved)} variables"
        yield known.patched(f"{some} exchanged in the join", [(part, {JOINED: order})])


def of_slices(known: Known, parts: Sequence[Part]) -> Iterator[Change]:
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
