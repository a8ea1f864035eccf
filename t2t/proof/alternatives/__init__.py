"""
The known other ways in which rows could have been written, each of which fits every shape: what a diagnosis tries.

    axes       another order that gives the same shape; the order of a Flatten in front, or of none
    gates      of a recurrent layer, in another order: in all its tensors, or in one; the forget bias added, or not
    exchange   what two targets get: of one module, of sibling modules; two parts, two slices, two variables of a join
    flip       a convolution's kernel turned round in space; a row without its `flip`
    numbers    a row without its `scale`, without its `add`

Each is a change of rules, likeliest first, and followed by the same change in all rules of the same row, where those
are more. Two that would give the same elements in the same order are one. `together` writes out several at once.
Nothing here reads a value, but `values`, which leaves all of it to the plan and to `t2t.execute`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from t2t.plan import Plan
from t2t.proof.alternatives import exchanges, gates, orders
from t2t.proof.alternatives.changes import Alternative, Known, together, values
from t2t.tensors import Shape

__all__ = ["Alternative", "alternatives", "together", "values"]


def alternatives(plan: Plan, targets: Sequence[str], maps: Sequence[Shape] = ()) -> Iterator[Alternative]:
    """
    What else the rows of these targets could have said, likeliest first.

    `targets` are entries of the state_dict, usually all that one module owns; others are in an alternative where they
    exchange with these, or come from the same row. `maps` are the shapes of feature maps, in torch's order without the
    batch, (c, h, w) or (c, l), that a Flatten may have stood behind.
    """
    known = Known(plan)
    own = [part for name in dict.fromkeys(targets) for part in known.by_target.get(name, ())]
    own = [part for part in own if part.rule.tie is None and not part.rule.keep and all(part.shape)]
    reading = [part for part in own if part.reads]
    cells = list(gates.cells_of(known, reading))
    changes = itertools.chain(
        (change for part in reading for change in orders.flattened(known, part, maps)),
        (change for part in reading for change in orders.other_orders(known, part, swaps=True)),
        (change for cell in cells for change in gates.gate_orders(known, cell)),
        exchanges.within(known, own),
        (change for part in reading for change in orders.flips(known, part)),
        (change for part in reading for change in orders.numbers(known, part)),
        (change for part in reading for change in exchanges.of_joins(known, part)),
        exchanges.of_parts(known, own),
        exchanges.of_slices(known, reading),
        exchanges.of_numbers(known, own),
        exchanges.of_siblings(known, own),
        (change for part in reading for change in orders.other_orders(known, part, swaps=False)),
        orders.reshaped(known, reading, maps),
    )
    seen: set[frozenset[Any]] = set()
    for change in changes:
        yield from known.alternatives(change, seen)
