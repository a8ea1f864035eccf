"""
What lies around a layer: the tensors that all it computes from comes through, and that all it computes goes through.

An operation is often a part of what people call a layer: a layer norm multiplies by gamma what it has normalised, and
takes beta last. What goes into the whole is a tensor that every path to the operation passes, what comes out one that
every path from it passes: its dominators and post-dominators in the graph of what is computed from the inputs.

Keith D. Cooper, Timothy J. Harvey, Ken Kennedy, "A Simple, Fast Dominance Algorithm", 2001; in a graph without cycles,
in order, one pass is enough.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import TypeVar

Node = TypeVar("Node", bound=Hashable)

#: So many are kept on each side, the closest ones.
REACH = 4

_ROOT = -1


def around(
    inputs: Sequence[Sequence[int]], layers: Collection[int], ends: Collection[int]
) -> dict[int, tuple[tuple[int, ...], tuple[int, ...]]]:
    """
    For each of the nodes `layers`, those before it and those after it, the closest first.

    Node i computes from the nodes `inputs[i]`, all below i; `ends` are what is asked for. Before a layer only the last
    one may be a layer; after it none is, and the last may be an end. What leads to no end has nothing after it.
    """
    above = _dominators(inputs)
    outputs: list[list[int]] = [[] for _ in inputs]
    for node, given in enumerate(inputs):
        for one in given:
            outputs[one].append(node)
    # The same on the graph read backwards. What leads nowhere is no way out.
    last = len(inputs) - 1
    useful = _useful(inputs, ends)
    backwards = [
        [] if node in ends else sorted({last - one for one in outputs[node] if one in useful})
        for node in reversed(range(len(inputs)))
    ]
    below = [_ROOT if node == _ROOT else last - node for node in reversed(_dominators(backwards))]
    own = frozenset(layers)
    return {node: (_before(node, above, own), _after(node, below, own)) for node in layers}


def tensors_around(
    taken: Mapping[Node, Sequence[str]], made_by: Mapping[str, Node], layers: Sequence[Node], asked: Collection[str]
) -> dict[Node, tuple[tuple[str, ...], tuple[str, ...]]]:
    """
    The same for operations: of each of `layers`, the names of the tensors before it and after it.

    `taken` are all operations, each after those it waits for, with the tensors that go into it; `made_by` says which
    one makes a tensor, and has no entry for what is fed. `asked` are the tensors that are asked for. Where several
    tensors of one operation go on, there is none that everything passes.
    """
    going: dict[Node | str, dict[str, None]] = {}
    for name in itertools.chain(*taken.values(), asked):
        going.setdefault(made_by.get(name, name), {})[name] = None
    steps: dict[Node | str, Sequence[str]] = {node: () for node in going if node not in taken}
    steps.update(taken.items())
    nodes, places = list(steps), {node: place for place, node in enumerate(steps)}
    # What a loop leads back comes from below, and is no other way in.
    inputs = [
        sorted({before for name in names if (before := places[made_by.get(name, name)]) < place})
        for place, names in enumerate(steps.values())
    ]
    ends = {places[made_by.get(name, name)] for name in asked}
    found = around(inputs, [places[layer] for layer in layers], ends)

    def names(places: Sequence[int]) -> tuple[str, ...]:
        sides = (tuple(going.get(nodes[place], ())) for place in places)
        return tuple(side[0] for side in sides if len(side) == 1)

    return {layer: (names(found[places[layer]][0]), names(found[places[layer]][1])) for layer in layers}


def _useful(inputs: Sequence[Sequence[int]], ends: Collection[int]) -> set[int]:
    useful = set(ends)
    for node in reversed(range(len(inputs))):
        if node in useful:
            useful |= set(inputs[node])
    return useful


def _dominators(inputs: Sequence[Sequence[int]]) -> list[int]:
    """The closest node that every path to each one passes, _ROOT where there is none."""
    closest: list[int] = []
    depth: list[int] = []
    for given in inputs:
        common = given[0] if given else _ROOT
        for node in given[1:]:
            while common != node:
                # The one that lies deeper cannot be on all paths to the other.
                if node == _ROOT or (common != _ROOT and depth[common] >= depth[node]):
                    common = closest[common]
                else:
                    node = closest[node]  # noqa: PLW2901
        closest.append(common)
        depth.append(0 if common == _ROOT else depth[common] + 1)
    return closest


def _before(node: int, above: Sequence[int], layers: frozenset[int]) -> tuple[int, ...]:
    found: list[int] = []
    node = above[node]
    while node != _ROOT and len(found) < REACH:
        found.append(node)
        if node in layers:
            break
        node = above[node]
    return tuple(found)


def _after(node: int, below: Sequence[int], layers: frozenset[int]) -> tuple[int, ...]:
    found: list[int] = []
    node = below[node]
    while node != _ROOT and node not in layers and len(found) < REACH:
        found.append(node)
        node = below[node]
    return tuple(found)
