"""
Which operation's result goes into which: a graph with the bodies of its functions in the places where they are called.

An operation that calls nothing more than one function stands for nothing: its results are the body's. A branch or a
loop stays, with the results of its bodies among what it reads, for nobody knows which of them it gives.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from t2t.checkpoints import graph as stored
from t2t.checkpoints.files import refusal
from t2t.checkpoints.graph import Attribute, Constant, Graph, Kind, Node, Sizes
from t2t.checkpoints.protobuf import Corrupt
from t2t.names import shown

#: Functions that call functions can make a long graph of a short one: its operations, what all that functions bring
#: reads and gives, and the characters of their operations' names, each of which begins with that of the call.
MAX_OPERATIONS = 500_000
MAX_RESULTS = 2_000_000
MAX_CHARACTERS = 2**28
MAX_DEPTH = 64

#: An operation's result: its place among the operations, and which of its results.
Result = tuple[int, int]

_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_ASSIGNING = frozenset({"Assign", "AssignVariableOp"})
_VARIABLES = frozenset({"Variable", "VariableV2", "VarHandleOp"})

#: The outputs of operations that have several with names of their own; an operation that is a function has its outputs.
_NORMALIZED = ("y", "batch_mean", "batch_variance", "reserve_space_1", "reserve_space_2", "reserve_space_3")
_OUTPUTS = {
    **dict.fromkeys(("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), _NORMALIZED),
    **dict.fromkeys(("Switch", "RefSwitch"), ("output_false", "output_true")),
    **dict.fromkeys(("Merge", "RefMerge"), ("output", "value_index")),
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation, with the results that it reads. In a function its name begins with that of the call."""

    name: str
    op: str
    inputs: tuple[Result, ...]
    attributes: Mapping[str, Attribute]

    def __str__(self) -> str:
        """What it does and its name, which may be the same."""
        return shown(self.name) if self.name == self.op else f"{self.op} {shown(self.name)}"

    def text(self, key: str) -> str:
        """An attribute that is a text, "" where it has none."""
        found = self.attributes.get(key)
        return found if isinstance(found, str) else ""

    def numbers(self, key: str) -> tuple[int, ...] | None:
        """An attribute that is a list of numbers or a shape; None where it has none, or one of unknown rank."""
        found = self.attributes.get(key)
        if not isinstance(found, tuple):
            return None
        numbers = tuple(number for number in found if isinstance(number, int))
        return numbers if len(numbers) == len(found) else None

    @property
    def constant(self) -> Constant | None:
        """The value of a constant."""
        found = self.attributes.get("value")
        return found if isinstance(found, Constant) else None

    def sizes(self, output: int = 0) -> Sizes:
        """The sizes of a result, where the graph stores them; None where it does not, or not even the rank is known."""
        if self.op == "Placeholder" and "_output_shapes" not in self.attributes:
            return self.numbers("shape")
        found = self.attributes.get("_output_shapes")
        one = found[output] if isinstance(found, tuple) and output < len(found) else None
        return one if isinstance(one, tuple) else None


@dataclass(frozen=True)
class Dataflow:
    """
    The operations; `names` are the places of those outside of functions, `signatures` the results of each signature.
    """

    operations: Sequence[Operation]
    names: Mapping[str, int]
    signatures: Mapping[str, Mapping[str, Result]]

    @cached_property
    def readers(self) -> Mapping[int, Sequence[tuple[int, int]]]:
        """Who reads an operation's results: operations, and which of their inputs it is."""
        found: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for position, operation in enumerate(self.operations):
            for slot, (source, _) in enumerate(operation.inputs):
                found[source].append((position, slot))
        return found

    @cached_property
    def variables(self) -> Mapping[str, int]:
        """
        The variables by their names in the model, those of a frozen graph among its constants. A name that several
        have is none's.
        """
        found: dict[str, list[int]] = defaultdict(list)
        for position, operation in enumerate(self.operations):
            if operation.op in _VARIABLES:
                name = operation.text("shared_name") if operation.op == "VarHandleOp" else ""
                found[name or operation.name].append(position)
        if not found:
            found.update({op.name: [i] for i, op in enumerate(self.operations) if op.op == "Const"})
        return {name: positions[0] for name, positions in found.items() if len(positions) == 1}

    @cached_property
    def restored(self) -> Mapping[str, int]:
        """The variable that each tensor of the checkpoint is read into, where it is one, and read whole."""
        found: dict[str, set[int]] = defaultdict(set)
        for position, operation in enumerate(self.operations):
            if operation.op != "RestoreV2" or len(operation.inputs) < 2:
                continue
            names = self.operations[operation.inputs[1][0]].constant
            texts = names.texts if names else ()
            for output, target in self._assigned(position):
                if output < len(texts):
                    found[texts[output]].add(target)
        return {name: positions.pop() for name, positions in found.items() if len(positions) == 1}

    def _assigned(self, restore: int) -> Iterator[tuple[int, int]]:
        """Which of the results of a RestoreV2 goes into which variable."""
        for reader, slot in self.readers.get(restore, ()):
            key = self.operations[reader].inputs[slot][1]
            through = [reader] if self.operations[reader].op in _ASSIGNING else []
            if self.operations[reader].op in {"Identity", "Cast"}:
                through = [last for last, _ in self.readers.get(reader, ()) if self.operations[last].op in _ASSIGNING]
            for assigning in through:
                target = self.operations[assigning].inputs[0][0]
                if self.operations[target].op in _VARIABLES:
                    yield key, target

    def ancestors(self, results: Iterable[Result]) -> frozenset[int]:
        """The operations that these results depend on, their own among them."""
        to_do = [position for position, _ in results]
        found = set(to_do)
        while to_do:
            for position, _ in self.operations[to_do.pop()].inputs:
                if position not in found:
                    found.add(position)
                    to_do.append(position)
        return frozenset(found)


def read(kind: Kind, path: str) -> Dataflow:
    """
    The dataflow of the graph in the file at `path`. Raises CheckpointError: T2T602, T2T604 or T2T611.
    """
    graph = stored.read(kind, path)
    try:
        return connected(graph)
    except Corrupt as error:
        raise refusal(error.code, f"not a graph that t2t reads: {error}", path, error.hint) from error


def connected(graph: Graph) -> Dataflow:
    """The graph's dataflow. Raises Corrupt where a tensor is named that is not there, and over a limit."""
    made = _Connecting(graph)
    names = made.add(graph.nodes, "", {}, 0)
    signatures: dict[str, dict[str, Result]] = {}
    for signature, outputs in graph.signatures.items():
        scope = _Scope(names, {}, made)
        found = {key: scope.result(tensor) for key, tensor in outputs.items() if tensor}
        signatures[signature] = {key: made.final(result) for key, result in found.items()}
    return Dataflow(made.finished(), names, signatures)


@dataclass(frozen=True, slots=True)
class _Scope:
    """The names in a graph or in one call of a function."""

    names: Mapping[str, int]
    arguments: Mapping[str, Result]
    made: _Connecting

    def result(self, tensor: str) -> Result:
        """
        The result of this name. In `node:output:1` the number counts within that output, which of most operations is
        the only one: then it is the result's number, too. Of the others the named ones are one result each.
        """
        name, *rest = tensor.split(":")
        if name in self.arguments:
            return self.arguments[name]
        if name not in self.names or not all(part.isdecimal() and len(part) < 9 for part in rest[-1:]):
            raise Corrupt(f"an operation reads {shown(tensor)}, which is not there")
        position, number = self.names[name], int(rest[-1]) if rest else 0
        outputs = self.made.outputs(position) if len(rest) == 2 else ()
        if outputs and rest[0] not in outputs:
            raise Corrupt(f"an operation reads {shown(tensor)}, which is not there")
        return position, outputs.index(rest[0]) + number if outputs else number


class _Connecting:
    """The operations while functions are put in their places."""

    def __init__(self, graph: Graph) -> None:
        self.functions = graph.functions
        self.operations: list[Operation] = []
        self.results: dict[Result, Result] = {}  # a call's result: the one in the function's body
        self.count = self.characters = 0

    def outputs(self, position: int) -> tuple[str, ...]:
        """The names of an operation's outputs, where it has several; () for one that has one, or none that is known."""
        op = self.operations[position].op
        return self.functions[op].outputs if op in self.functions else _OUTPUTS.get(op, ())

    def _counted(self, results: int) -> None:
        self.count += results
        if self.count > MAX_RESULTS:
            raise Corrupt(f"its functions read and give more than {MAX_RESULTS} results", "T2T611")

    def add(self, nodes: Sequence[Node], above: str, arguments: Mapping[str, Result], depth: int) -> dict[str, int]:
        """Adds the nodes of one scope and what they call; the places of its names."""
        start = len(self.operations)
        if start + len(nodes) > max(MAX_OPERATIONS, len(nodes) if not depth else 0):
            raise Corrupt(f"with its functions it has more than {MAX_OPERATIONS} operations", "T2T611")
        if depth > MAX_DEPTH:
            raise Corrupt(f"its functions call each other more than {MAX_DEPTH} deep", "T2T611")
        names = {node.name: start + position for position, node in enumerate(nodes)}
        if len(names) < len(nodes):
            raise Corrupt("two operations have one name")
        if depth:
            self._counted(sum(len(node.inputs) for node in nodes))
            self.characters += sum(len(above) + len(node.name) for node in nodes)
        if self.characters > MAX_CHARACTERS:
            raise Corrupt(f"the names in its functions have more than {MAX_CHARACTERS} characters", "T2T611")
        scope = _Scope(names, arguments, self)
        self.operations += [Operation(above + node.name, node.op, (), node.attributes) for node in nodes]
        for position, node in enumerate(nodes, start):
            own = tuple(map(scope.result, node.inputs))
            inputs = list(own)
            for name in stored.callees(node):
                self._counted(1 if depth else 0)
                if name in self.functions:
                    inputs += self._call(name, position, node, own, depth)
            self.operations[position] = Operation(above + node.name, node.op, tuple(inputs), node.attributes)
        return names

    def _call(self, name: str, position: int, node: Node, inputs: tuple[Result, ...], depth: int) -> tuple[Result, ...]:
        """Puts the function's body in its place; what the calling operation reads of it."""
        function = self.functions[name]
        self._counted(len(inputs) + len(function.results))
        given = inputs[1:] if "then_branch" in node.attributes or "branches" in node.attributes else inputs
        if len(given) < len(function.arguments):
            few = f"{len(given)} of {len(function.arguments)} inputs"
            raise Corrupt(f"{shown(node.name)} calls {shown(name)} with {few}")
        arguments = dict(zip(function.arguments, given, strict=False))
        names = self.add(function.nodes, f"{self.operations[position].name}/", arguments, depth + 1)
        scope = _Scope(names, arguments, self)
        results = tuple(map(scope.result, function.results))
        if node.op in _CALLS or node.op == name:
            self.results.update({(position, output): result for output, result in enumerate(results)})
            return ()
        return results

    def final(self, result: Result) -> Result:
        """What a result is, when calls are followed to the bodies of their functions."""
        seen = set()
        while result in self.results and result not in seen:
            seen.add(result)
            result = self.results[result]
        self.results.update(dict.fromkeys(seen - {result}, result))  # the next one need not go the whole way
        return result

    def finished(self) -> list[Operation]:
        """The operations, none of which reads the result of a call any more."""
        if not self.results:
            return self.operations
        return [
            Operation(made.name, made.op, tuple(map(self.final, made.inputs)), made.attributes)
            for made in self.operations
        ]
