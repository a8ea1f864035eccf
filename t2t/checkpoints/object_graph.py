"""
The object graph of a TF2 checkpoint: what its variables were called, and which of them an optimizer keeps for which.

    TrackableObjectGraph   1 nodes*: node 0 is the root
    node                   1 children* { 1 node id, 2 local name }
                           2 attributes* { 1 name, 2 full name, 3 checkpoint key }
                           3 slot variables* { 1 node id of the variable, 2 name of the slot, 3 node id of the slot }

It is stored as a string scalar of its own key. A node with an attribute is a variable; an optimizer of TF 2.0 to 2.10
has slot variables, and a later one of Keras has children `_variables` (its own) and, in Keras 3, `_trainable_variables`
(the model's). Nodes are shared and cycles are allowed, so nothing here walks from node to node.

https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/protobuf/trackable_object_graph.proto
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from t2t.checkpoints.protobuf import BYTES, VARINT, Corrupt, expect, fields, signed
from t2t.names import shown

MAX_NODES = 5_000_000

#: What optimizers call an average of the variable itself: their slot of it is no moment, and may well be wanted.
AVERAGE = "average"

#: The children of Keras' optimizers that matter here.
_OWN, _TRAINED, _ITERATIONS = b"_variables", b"_trainable_variables", b"_iterations"

#: The name of a slot has at most this many words (`accumulated_gradient`); each would be tried.
_MAX_SLOT_WORDS = 8


@dataclass(frozen=True, slots=True)
class ObjectGraph:
    """
    What the graph says, by checkpoint key: `full_names` of variables; `slots`, the key of the variable whose slot each
    is, "" for what an optimizer keeps for itself; `averages`, the key of the variable whose average each is.
    """

    full_names: dict[str, str]
    slots: dict[str, str]
    averages: dict[str, str]


def decode(data: bytes) -> ObjectGraph:
    """The graph in `data`. Raises Corrupt for what is no graph: of broken names none can be believed."""
    # By node id, and only where there is something: most nodes are neither variables nor optimizers.
    variables: dict[int, list[tuple[str, str]]] = {}
    optimizers: dict[int, dict[bytes, int]] = defaultdict(dict)
    slots: list[tuple[int, str, int]] = []
    count, largest = 0, -1
    for node in _nodes(data):
        for number, wire, content in fields(node):
            if number in (1, 2, 3):
                expect(number, wire, BYTES)
            if number == 1:
                child, name = _child(content)
                largest = max(largest, child)
                if name in (_OWN, _TRAINED, _ITERATIONS):
                    optimizers[count][name] = child
            elif number == 2:
                variables.setdefault(count, []).append(_attribute(content))
            elif number == 3:
                slots.append(_slot(content))
                largest = max(largest, slots[-1][0], slots[-1][2])
        count += 1
    if largest >= count:
        raise Corrupt(f"it names the node {largest}, but has {count} nodes")
    graph = ObjectGraph(_full_names(variables), {}, {})
    for variable, slot, node_id in slots:
        if variable in variables:
            of = variables[variable][0][0]
            (graph.averages if slot == AVERAGE else graph.slots).update(
                {key: of for key, _ in variables.get(node_id, ())}
            )
    keras = [found for found in optimizers.values() if _OWN in found and _ITERATIONS in found]
    lists = _children(data, {found[name] for found in keras for name in (_OWN, _TRAINED) if name in found})
    for found in keras:
        own, trained = (
            [variables[child][0] for child in lists.get(found.get(name, -1), ()) if child in variables]
            for name in (_OWN, _TRAINED)
        )
        _add_keras(graph, own, trained)
    return graph


def _nodes(data: bytes) -> Iterator[bytes]:
    count = 0
    for number, wire, node in fields(data):
        if number == 1:
            expect(number, wire, BYTES)
            if count == MAX_NODES:
                raise Corrupt(f"it has more than {MAX_NODES} nodes", "T2T611")
            count += 1
            yield node


def _children(data: bytes, wanted: Set[int]) -> dict[int, list[int]]:
    """The children of the wanted nodes."""
    return {
        i: [_child(content)[0] for number, _, content in fields(node) if number == 1]
        for i, node in enumerate(_nodes(data) if wanted else ())
        if i in wanted
    }


def _full_names(variables: Mapping[int, Sequence[tuple[str, str]]]) -> dict[str, str]:
    names: dict[str, str] = {}
    for attributes in variables.values():
        for key, name in attributes:
            if names.setdefault(key, name) != name:
                raise Corrupt(f"{shown(key)} is called {shown(names[key])} and {shown(name)}")
    return {key: name for key, name in names.items() if name}


def _add_keras(graph: ObjectGraph, own: Sequence[tuple[str, str]], trained: Sequence[tuple[str, str]]) -> None:
    """
    Adds what an optimizer of Keras keeps: `own`, of which some may be `trained`, the model's; each (key, full name).

    Keras 3 calls it `adam/sequential_dense_kernel_momentum`, Keras 2.11 and later `Adam/m/dense/kernel`.
    """
    models = {key for key, _ in trained}
    by_flat_name = {name.replace("/", "_"): key for key, name in trained}
    by_name = {name: key for key, name in graph.full_names.items()} if not trained else {}
    for key, name in own:
        if key in models:
            continue
        last = name.partition("/")[2]
        if trained:
            # The longest variable whose name it begins with: a_b_momentum is of a_b, not of a.
            pieces = last.rsplit("_", _MAX_SLOT_WORDS)
            ends = [("_".join(pieces[:end]), "_".join(pieces[end:])) for end in range(len(pieces) - 1, 0, -1)]
            flat, slot = next((found for found in ends if found[0] in by_flat_name), ("", ""))
            variable = by_flat_name.get(flat, "")
        else:
            slot, _, of = last.partition("/")
            variable = by_name.get(of, "")
        (graph.averages if variable and slot == AVERAGE else graph.slots)[key] = variable


def _child(data: bytes) -> tuple[int, bytes]:
    """The node's id and its local name."""
    node, name = 0, b""
    for number, wire, value in fields(data):
        if number == 1:
            expect(number, wire, VARINT)
            node = _node(value)
        elif number == 2:
            expect(number, wire, BYTES)
            name = value
    return node, name


def _attribute(data: bytes) -> tuple[str, str]:
    """The key and the full name."""
    key = name = b""
    for number, wire, value in fields(data):
        if number == 2:
            expect(number, wire, BYTES)
            name = value
        elif number == 3:
            expect(number, wire, BYTES)
            key = value
    return key.decode("utf-8", "surrogateescape"), name.decode("utf-8", "surrogateescape")


def _slot(data: bytes) -> tuple[int, str, int]:
    variable = slot = 0
    name = b""
    for number, wire, value in fields(data):
        if number == 1:
            expect(number, wire, VARINT)
            variable = _node(value)
        elif number == 2:
            expect(number, wire, BYTES)
            name = value
        elif number == 3:
            expect(number, wire, VARINT)
            slot = _node(value)
    return variable, name.decode("utf-8", "surrogateescape"), slot


def _node(value: int) -> int:
    node = signed(value)
    if node < 0:
        raise Corrupt(f"it names the node {node}")
    return node
