"""The gates of recurrent layers in other orders, and the forget bias that TensorFlow's cells add at run time."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from t2t.axes import Axes, Order
from t2t.coverage import Part
from t2t.names import shown
from t2t.proof.alternatives.changes import JOINED, Change, Known
from t2t.rules import Rule

CELL = re.compile(r"(weight_ih|weight_hh|bias_ih|bias_hh)(.*)")

#: torch's gates, and the orders that TensorFlow's layers have them in, likeliest first; then all others.
_GATES: Mapping[int, str] = {4: "ifco", 3: "rzh", 2: "rz"}
_KNOWN: Mapping[int, tuple[str, ...]] = {
    4: ("ifco", "icfo", "fico", "ifoc", "iofc"),
    3: ("rzh", "zrh"),
    2: ("rz", "zr"),
}
#: Gates in how many orders are tried with the forget bias the other way, and in one tensor alone.
_OFTEN = 3


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A part of a recurrent cell, and how many gates its first axis holds."""

    part: Part
    gates: int


def cells_of(known: Known, parts: Sequence[Part]) -> Iterator[list[_Tensor]]:
    """The tensors of each recurrent cell that come from variables, with how many gates each has."""
    found: dict[tuple[str, str], list[_Tensor]] = defaultdict(list)
    for part in parts:
        owner, _, leaf = part.rule.target.rpartition(".")
        match = CELL.fullmatch(leaf)
        units = _units(known, owner, match[2]) if match else 0
        if match and units and part.shape[0] % units == 0 and part.shape[0] // units in _GATES:
            found[owner, match[2]].append(_Tensor(part, part.shape[0] // units))
    yield from found.values()


def _units(known: Known, owner: str, suffix: str) -> int:
    """How many units a cell has whose gates are three or four, 0 for none of these."""
    ref = known.module.parameters.get(f"{owner}{'.' if owner else ''}weight_hh{suffix}")
    if ref is None or len(ref.shape) != 2 or not ref.shape[1]:
        return 0
    return ref.shape[1] if ref.shape[0] in {3 * ref.shape[1], 4 * ref.shape[1]} else 0


def gate_orders(known: Known, cell: Sequence[_Tensor]) -> Iterator[Change]:
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
    return {JOINED: tuple(order.index(letter) for letter in canonical)}


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
