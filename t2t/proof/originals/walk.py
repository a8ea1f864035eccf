"""The layers of somebody's function, on the tape of what TensorFlow did while it ran."""

from __future__ import annotations

import gc
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .around import around
from .original import Array, Layer, Leaf, OriginalFailedError
from .tape import (
    Compute,
    Content,
    Operation,
    Recurrent,
    Tape,
    constants,
    content,
    is_assigning,
    opened,
    sessions,
    watching,
)

#: Operations whose output is their first input in another form: what the form is computed from does not matter.
_FORMS = frozenset({"Reshape", "BroadcastTo", "Tile", "Transpose", "ExpandDims", "Squeeze", "Identity"})

#: An operation that comes more often than this, with the same variables and in the same shape, is one layer.
MAX_REPEATED = 16


def layers(compute: Compute, given: dict[str, Array]) -> list[Layer]:
    """
    What goes into and comes out of what variables go into, while `compute` runs with `given`, and then runs once more.

    A recurrent layer of Keras is one layer. Other operations that come more than MAX_REPEATED times, as in a loop over
    time, are one whose ends are stacked along a new first axis. A function of another library has none. Raises
    OriginalFailedError where nothing is found in what TensorFlow runs.
    """
    tf = sys.modules.get("tensorflow")
    if tf is None:
        return []
    tape = Tape(tf)
    with watching(tf, tape):
        computed = compute(given)
    for failure in tape.failures:
        # The other kind says that a session has no layer: another session may.
        if not isinstance(failure, OriginalFailedError):
            raise failure
    if any(isinstance(entry, Operation) for entry in tape.entries):
        ends = computed.values() if isinstance(computed, Mapping) else ()
        found = _Walk(tape, constants(tf, compute, given), _variables(tf)).layers(map(np.asarray, ends))
    else:
        found = [entry for entry in tape.entries if isinstance(entry, Layer)]
    if found:
        return _stacked(found)
    if tape.failures:
        raise tape.failures[0]
    if not tape.entries:
        raise OriginalFailedError("run", "TensorFlow runs nothing in the function, neither by itself nor in a session")
    raise OriginalFailedError("run", "no variable goes into what is computed from the inputs")


def named(compute: Compute, given: dict[str, Array], wanted: dict[str, str]) -> dict[str, Array]:
    """Tensors of the graphs that `compute` runs in sessions, by their names there."""
    tf = sys.modules.get("tensorflow")
    if tf is None:
        raise OriginalFailedError("run", "only a graph of TensorFlow's has names, and the function does not use it")
    found: dict[str, Array] = {}
    failures: list[Exception] = []
    known: dict[Any, Any] = {}

    def look(session: Any, fetches: Any, feed: Any) -> None:
        for path in [path for path in wanted if path not in found]:
            try:
                inside, values = opened(tf, session, fetches, feed, known)
                found.update(inside.named(values, {path: wanted[path]}))
            except Exception as error:  # noqa: BLE001 - told when the function is done, which could take it for its own
                failures.append(error)

    with sessions(tf, look):
        compute(given)
    if wanted.keys() <= found.keys():
        return found
    if failures:
        raise failures[-1]
    raise OriginalFailedError("run", "only a graph that runs in a session has names, and the function runs none")


def _variables(tf: Any) -> dict[int, tuple[Any, str]]:
    """All floating variables that there are, with their names, by the number of the tensor that is their handle."""
    eager = type(tf.constant(0))
    keras = getattr(sys.modules.get("keras"), "Variable", ())
    variables, paths = [], {}
    for one in gc.get_objects():
        # Not isinstance, which asks what stands for something else for its class.
        if issubclass(type(one), tf.Variable):
            variables.append(one)
        elif keras and issubclass(type(one), keras):
            paths[id(getattr(one, "value", None))] = one.path
    return {
        variable.handle._id: (variable, paths.get(id(variable), variable.name.removesuffix(":0")))
        for variable in variables
        if isinstance(getattr(variable, "handle", None), eager) and variable.dtype.is_floating
    }


@dataclass(frozen=True, eq=False, slots=True)
class _Node:
    """What computes data, or is data from the start: its name, the nodes before it, its tensor; its variables."""

    name: str
    kind: str
    inputs: tuple[int, ...]
    given: Any
    computed: Any
    variables: tuple[Leaf, ...] = ()


class _Walk:
    """From first to last over what ran: what is data, and what is made of variables and constants alone."""

    def __init__(self, tape: Tape, known: set[Content], variables: dict[int, tuple[Any, str]]) -> None:
        self._entries = tape.entries
        self._leaves = tape.leaves
        self._constants = known
        self._variables = variables
        self._made: dict[int | Content, Leaf] = {}
        self._arrays: dict[int, Array] = {}
        self._states: set[int] = set()
        self._begin()

    def _begin(self) -> None:
        self._nodes: list[_Node | Layer] = []
        #: The node of each tensor that is data. Inside a recurrent layer there are none until it is done.
        self._places: dict[int, int] = {}
        self._inside: set[int] = set()
        self._behind: dict[int, tuple[Leaf, ...]] = {}
        self._taken: Counter[str] = Counter()

    def layers(self, ends: Iterable[Array]) -> list[Layer]:
        """The layers; `ends` are what the function returns."""
        known = -1
        # A variable that data is assigned to is data, and was so before.
        while len(self._states) != known:
            known = len(self._states)
            self._begin()
            for entry in self._entries:
                if isinstance(entry, Layer):
                    self._nodes.append(entry)
                elif isinstance(entry, Recurrent):
                    self._recurrent(entry)
                else:
                    self._operation(entry)
        return self._described(list(ends))

    def _recurrent(self, entry: Recurrent) -> None:
        if self._inside or self._is_data(entry.input):
            leaves = tuple(leaf for weight in entry.weights for leaf in self._made_from(_handle(weight)))
            inputs = self._at([entry.input]) if hasattr(entry.input, "_id") else ()
            self._add(_Node(entry.path, entry.kind, inputs, entry.input, entry.output, leaves))
            self._places |= dict.fromkeys(self._inside, len(self._nodes) - 1)
        self._inside = set()

    def _operation(self, entry: Operation) -> None:
        inputs = entry.inputs[:1] if entry.kind in _FORMS else entry.inputs
        data = [tensor for tensor in inputs if self._is_data(tensor)]
        parameters = [tensor for tensor in inputs if not self._is_data(tensor)]
        leaves = tuple({id(leaf): leaf for tensor in parameters for leaf in self._made_from(tensor)}.values())
        made = {tensor._id for tensor in entry.outputs}
        if not data:
            self._behind |= dict.fromkeys(made, leaves)
            return
        if is_assigning(entry.kind):
            self._states.add(entry.inputs[0]._id)
        if entry.is_within:
            self._inside |= made
        elif entry.outputs:
            # TensorFlow gives the functions that it makes numbers behind their names.
            kind = re.sub(r"^__inference_(.+)_\d+$", r"\1", entry.kind)
            first = next((tensor for tensor in data if tensor.dtype.is_floating), None)
            variables = () if is_assigning(entry.kind) else leaves
            node = _Node(f"{entry.scope}/{kind}".lstrip("/"), kind, self._at(data), first, entry.outputs[0], variables)
            self._add(node)
            self._places |= dict.fromkeys(made, len(self._nodes) - 1)

    def _add(self, node: _Node) -> None:
        number = self._taken[node.name]
        self._taken[node.name] += 1
        self._nodes.append(replace(node, name=f"{node.name}_{number}") if number else node)

    def _at(self, data: list[Any]) -> tuple[int, ...]:
        """The nodes of tensors that are data; those that come from outside get one."""
        for tensor in data:
            if tensor._id not in self._places and tensor._id not in self._inside:
                self._places[tensor._id] = len(self._nodes)
                self._add(_Node("input", "", (), None, tensor))
        return tuple(sorted({self._places[tensor._id] for tensor in data if tensor._id in self._places}))

    def _is_data(self, value: Any) -> bool:
        if not hasattr(value, "_id"):
            return isinstance(value, np.ndarray) and content(value) not in self._constants
        if value._id in self._places or value._id in self._inside or value._id in self._states:
            return True
        found = self._leaves.get(value._id)
        return found is not None and found not in self._constants

    def _made_from(self, tensor: Any) -> tuple[Leaf, ...]:
        """The variables behind a tensor that is no data; a number alone, as in 2 * x, is none."""
        if tensor._id in self._variables:
            if tensor._id not in self._made:
                variable, name = self._variables[tensor._id]
                self._made[tensor._id] = Leaf(name, np.asarray(variable.numpy()))
            return (self._made[tensor._id],)
        found = self._leaves.get(tensor._id)
        if found is None or not (tensor.dtype.is_floating and tensor.shape.rank and tensor.shape.num_elements()):
            return self._behind.get(tensor._id, ())
        # One array that is given more than once is one.
        if found not in self._made:
            self._made[found] = Leaf(self._name_of(found), np.asarray(tensor.numpy()))
        return (self._made[found],)

    def _name_of(self, found: Content) -> str:
        """Of the variable with this content: TensorFlow often reads one without an operation."""
        names = [
            name
            for variable, name in self._variables.values()
            if (variable.dtype.as_numpy_dtype, tuple(variable.shape)) == found[:2]
            if content(np.asarray(variable.numpy())) == found
        ]
        return names[0] if len(names) == 1 else ""

    def _described(self, ends: list[Array]) -> list[Layer]:
        own = [at for at, node in enumerate(self._nodes) if isinstance(node, _Node) and node.variables]
        inputs = [node.inputs if isinstance(node, _Node) else () for node in self._nodes]
        near = around(inputs, own, self._ends(ends, inputs))
        found = []
        for at, node in enumerate(self._nodes):
            if isinstance(node, Layer):
                found.append(node)
            elif node.variables:
                sides = (self._tensors(side) for side in near[at])
                first, last = self._array(node.given), self._array(node.computed)
                found.append(Layer(node.name, node.kind, node.variables, first, last, *sides))
        return found

    def _ends(self, ends: list[Array], inputs: list[tuple[int, ...]]) -> set[int]:
        """The nodes that give what the function returns; where it returns none as it is, those that lead nowhere."""
        shapes = {array.shape for array in ends}
        contents = {content(array) for array in ends}
        found = {
            at
            for at, node in enumerate(self._nodes)
            if isinstance(node, _Node) and tuple(node.computed.shape) in shapes
            if (array := self._array(node.computed)) is not None and content(array) in contents
        }
        return found or set(range(len(inputs))) - {one for given in inputs for one in given}

    def _tensors(self, places: Iterable[int]) -> tuple[tuple[str, Array], ...]:
        nodes = [node for node in map(self._nodes.__getitem__, places) if isinstance(node, _Node)]
        arrays = [(node.name, self._array(node.computed)) for node in nodes]
        return tuple((name, array) for name, array in arrays if array is not None)

    def _array(self, value: Any) -> Array | None:
        """A tensor's floating numbers, as one array for all who ask."""
        if not hasattr(value, "_id"):
            return value if isinstance(value, np.ndarray) else None
        if not value.dtype.is_floating:
            return None
        if value._id not in self._arrays:
            self._arrays[value._id] = np.asarray(value.numpy())
        return self._arrays[value._id]


def _stacked(found: list[Layer]) -> list[Layer]:
    """The layers, those that come too often as one, where the first of them stands."""

    def key(layer: Layer) -> Any:
        shapes = [None if end is None else end.shape for end in (layer.input, layer.output)]
        return layer.kind, re.sub(r"_\d+$", "", layer.operation), tuple(map(id, layer.variables)), *shapes

    def stack(ends: list[Array | None]) -> Array | None:
        arrays = [end for end in ends if end is not None]
        return np.stack(arrays) if arrays else None

    groups: dict[Any, list[Layer]] = {}
    for layer in found:
        groups.setdefault(key(layer), []).append(layer)
    taken: Counter[str] = Counter()
    made = []
    for layer in found:
        group = groups[key(layer)]
        if len(group) > MAX_REPEATED:
            if layer is not group[0]:
                continue
            ends = stack([one.input for one in group]), stack([one.output for one in group])
            layer = Layer(layer.operation, layer.kind, layer.variables, *ends)  # noqa: PLW2901
        # One session may run more than once.
        number = taken[layer.operation]
        taken[layer.operation] += 1
        made.append(replace(layer, operation=f"{layer.operation}_{number}") if number else layer)
    return made


def _handle(weight: Any) -> Any:
    """Of a variable of TensorFlow, or of Keras 3, which has one inside."""
    return weight.handle if hasattr(weight, "handle") else weight.value.handle
