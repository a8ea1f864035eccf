"""
The layers of a TensorFlow graph: which operations variables go into, between what is fed and what is fetched.

A tensor is *data* where it is computed from what is fed, or from a variable that the same run assigns such a value to
(the state of a stream). An operation is a layer where one of its inputs is data, and another is computed from variables
alone, through whatever reads, casts and reshapes. Nothing here runs anything: it looks at the operations of a graph.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .around import tensors_around
from .original import MAX_LAYERS, Array, Layer, Leaf, OriginalFailedError

#: Operations that hold a variable.
VARIABLES = frozenset({"Variable", "VariableV2", "VarHandleOp"})

#: Operations that call a function of the graph's library, and are replaced by what it does.
CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})

#: Operations whose output is their first input in another form: what the form is computed from does not matter.
_FORMS = frozenset({"Reshape", "BroadcastTo", "Tile", "Transpose", "ExpandDims", "Switch", "RefSwitch"})

#: Operations that only lead values through conditions and loops.
_LED = frozenset({"Switch", "RefSwitch", "Merge", "RefMerge", "Enter", "RefEnter", "Exit", "RefExit", "NextIteration"})
_LED |= {"RefNextIteration", "LoopCond"}

#: Loops of TensorFlow 2, one operation each. Their first inputs and outputs are counters; what they go through and what
#: they make of it, as recurrent layers do, are lists of tensors.
_LOOPS = frozenset({"While", "StatelessWhile"})

#: More than so many loops and conditions inside each other are not followed.
_PASSES = 16

_ASSIGNED = re.compile(r"(Assign|AssignAdd|AssignSub)(VariableOp)?|(Resource)?Scatter[A-Z][A-Za-z]*")


@dataclass(frozen=True, slots=True)
class Found:
    """
    A layer: the operation, the operations of its variables, and the tensors to fetch, where they can be.

    `before` and `after` are tensors around it, see `around`.
    """

    operation: Any
    variables: tuple[Any, ...]
    input: Any | None
    output: Any | None
    before: tuple[Any, ...] = ()
    after: tuple[Any, ...] = ()


def find(
    fed: Iterable[Any],
    fetched: Sequence[Any],
    is_variable: Callable[[Any], bool],
    evaluate: Callable[[list[Any]], Sequence[bool]] | None = None,
) -> list[Found]:
    """
    The first MAX_LAYERS layers that the tensors `fetched` depend on, in an order in which they can be computed.

    `fed` are tensors that count as data. The order follows the inputs of each operation from first to last, not the
    order in which the graph was written down. `evaluate` gives the values of boolean scalars in this run: only the
    branch of a condition that is taken counts then.
    """
    taken: dict[Any, int] = {}
    names = {tensor.name for tensor in fed}
    while True:
        walk = _Walk(names, fetched, taken)
        decided = walk.decided()
        if evaluate is None or not decided:
            break
        values = evaluate([operation.inputs[1] for operation in decided])
        taken |= {operation: int(value) for operation, value in zip(decided, values, strict=True)}
    return walk.layers(is_variable)[:MAX_LAYERS]


def find_any(
    fed: Iterable[Any],
    fetched: Sequence[Any],
    is_variable: Callable[[Any], bool],
    evaluate: Callable[[list[Any]], Sequence[bool]] | None = None,
) -> list[Found]:
    """What `find` finds, or where no variable is, as in a frozen graph, the same with constants for variables."""
    tensors = list(fed)
    found = find(tensors, fetched, is_variable, evaluate) or find(tensors, fetched, _is_constant, evaluate)
    if not found:
        raise OriginalFailedError("run", "no variable goes into what is computed from the inputs")
    return found


def described(
    found: Sequence[Found],
    leaf: Callable[[Any], Leaf],
    fetch: Callable[[dict[str, Any]], Mapping[str, Array]],
    prefix: str = "",
) -> list[Layer]:
    """
    The layers with their values: `leaf` describes a variable's operation, `fetch` gives tensors by any keys, all at
    once. One leaf that stands for several operations, as for the parts of a variable, is told once.
    """
    leaves: dict[Any, Leaf] = {}
    for variable in (variable for layer in found for variable in layer.variables):
        leaves[variable] = leaves.get(variable) or leaf(variable)
    sides = [
        tensor
        for layer in found
        for tensor in (layer.input, layer.output, *layer.before, *layer.after)
        if tensor is not None
    ]
    values = fetch({tensor.name: tensor for tensor in sides})
    return [
        Layer(
            own_name(layer.operation, prefix),
            layer.operation.type,
            tuple({id(leaves[variable]): leaves[variable] for variable in layer.variables}.values()),
            None if layer.input is None else values[layer.input.name],
            None if layer.output is None else values[layer.output.name],
            *(
                tuple((own_name(tensor.op, prefix), values[tensor.name]) for tensor in side)
                for side in (layer.before, layer.after)
            ),
        )
        for layer in found
    ]


def own_name(operation: Any, prefix: str = "") -> str:
    """The operation's name without `prefix`, and without the calls that all of a function is inside."""
    return re.sub(r"^((Stateful)?PartitionedCall/)+(?=.)", "", str(operation.name).removeprefix(prefix))


def is_hidden(fetched: Iterable[Any]) -> bool:
    """
    Whether something that the tensors depend on cannot be fetched from the graph as it stands, but from a copy.

    A call is one operation, whatever its function does; and what TensorFlow 1 knows as the branch of a condition, by
    its own records, it lets nobody fetch.
    """
    operations = _in_order([tensor.op for tensor in fetched], _all_before)
    return any(operation.type in CALLS or _decides(operation) for operation in operations)


def inlined(definition: Any, kept: Iterable[str]) -> Any:
    """
    The GraphDef with what its functions do in place of the calls; the nodes of the tensors `kept` stay.

    Loops and conditions of TensorFlow 2 stay one operation each. What does this is no public part of TensorFlow.
    """
    from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, rewriter_config_pb2
    from tensorflow.python.grappler import tf_optimizer

    meta = meta_graph_pb2.MetaGraphDef()
    meta.graph_def.CopyFrom(definition)
    functions = meta.graph_def.library.function
    for node in [*meta.graph_def.node, *(node for function in functions for node in function.node_def)]:
        if "_lower_using_switch_merge" in node.attr:
            node.attr["_lower_using_switch_merge"].b = False
    for function in functions:
        # A function with another for some device is never inlined.
        function.attr.pop("api_implements", None)
    # What trains is what the optimiser takes for the graph's outputs.
    meta.collection_def["train_op"].node_list.value.extend(kept)
    config = config_pb2.ConfigProto()
    rewriting = config.graph_options.rewrite_options
    rewriting.min_graph_nodes = -1
    rewriting.optimizers.append("function")
    rewriting.function_optimization = rewriter_config_pb2.RewriterConfig.AGGRESSIVE
    return tf_optimizer.OptimizeGraph(config, meta)


class _Walk:
    """What the fetched tensors depend on; `taken` are the outputs of conditions that are known."""

    def __init__(self, fed: set[str], fetched: Sequence[Any], taken: Mapping[Any, int]) -> None:
        self.fed = fed
        self.taken = taken
        self.asked = [tensor for tensor in fetched if tensor.name not in fed]
        self.fetched = [tensor.op for tensor in self.asked]
        self.order = list(_in_order(self.fetched, self._before))
        self.dead: set[Any] = set()
        for operation in self.order:
            if self._is_dead(operation):
                self.dead.add(operation)
        self.contexts: dict[Any, tuple[str, ...]] = {}
        # A loop leads its contexts back to where it begins.
        for _ in range(_PASSES):
            contexts = dict(self.contexts)
            for operation in self.order:
                self.contexts[operation] = self._context(operation)
            if contexts == self.contexts:
                break

    def decided(self) -> list[Any]:
        """Conditions whose predicate can be evaluated, and has not been yet."""
        return [
            operation
            for operation in self.order
            if _decides(operation)
            and operation not in self.taken
            and operation not in self.dead
            and not self.contexts.get(operation.inputs[1].op)
        ]

    def _before(self, operation: Any) -> Iterator[Any]:
        """The operations that this one waits for."""
        yield from (tensor.op for tensor in operation.inputs if tensor.name not in self.fed)
        yield from operation.control_inputs

    # --- branches that are not taken, loops ---

    def _is_dead(self, operation: Any) -> bool:
        dead = [self._is_dead_tensor(tensor) for tensor in operation.inputs]
        if operation.type in {"Merge", "RefMerge"}:
            entering = [not _leads_back(tensor) for tensor in operation.inputs]
            return all(itertools.compress(dead, entering))
        return any(dead) or any(before in self.dead for before in operation.control_inputs)

    def _is_dead_tensor(self, tensor: Any) -> bool:
        if tensor.name in self.fed:
            return False
        return tensor.op in self.dead or self.taken.get(tensor.op, tensor.value_index) != tensor.value_index

    def _context(self, operation: Any) -> tuple[str, ...]:
        """The loops and undecided conditions that the operation's outputs are inside, outermost first."""
        before = [self.contexts.get(one, ()) for one in self._before(operation)]
        deepest = max(before, key=len, default=())
        kind = operation.type.removeprefix("Ref")
        if kind == "Enter":
            return (*deepest, "loop")
        if kind == "Exit":
            return _left(deepest, "loop")
        if kind == "Switch" and operation not in self.taken and operation.inputs[1].op.type != "LoopCond":
            return (*deepest, "condition")
        if kind == "Merge":
            if any(map(_leads_back, operation.inputs)):
                return max((self.contexts.get(tensor.op, ()) for tensor in operation.inputs), key=len)
            is_decided = sum(not self._is_dead_tensor(tensor) for tensor in operation.inputs) == 1
            return deepest if is_decided else _left(deepest, "condition")
        return deepest

    # --- what is data, and what is made of variables ---

    def _values(self, operation: Any) -> list[Any]:
        """The inputs whose values go into the operation's."""
        if operation.type in _FORMS:
            return [operation.inputs[0]]
        return [tensor for tensor in operation.inputs if not self._is_dead_tensor(tensor)]

    def _computed_from(self, operation: Any) -> Iterator[Any]:
        return (tensor.op for tensor in self._values(operation) if tensor.name not in self.fed)

    def _data(self, states: set[Any]) -> set[Any]:
        """The operations whose outputs are data. A loop leads some of them back: until nothing new is found."""
        data: set[Any] = set(states)
        known = -1
        while len(data) != known:
            known = len(data)
            for operation in self.order:
                is_new = operation not in data and operation not in self.dead
                if is_new and any(self._is_data(tensor, data) for tensor in self._values(operation)):
                    data.add(operation)
        return data

    def _is_data(self, tensor: Any, data: set[Any]) -> bool:
        return tensor.name in self.fed or tensor.op in data

    def _variables(self, is_variable: Callable[[Any], bool], data: set[Any]) -> dict[Any, tuple[Any, ...]]:
        """The variables behind each operation that is not data."""
        behind: dict[Any, tuple[Any, ...]] = {}
        for operation in self.order:
            if is_variable(operation):
                behind[operation] = (operation,)
            elif operation not in data:
                found: dict[Any, None] = {}
                for tensor in self._values(operation):
                    if tensor.name not in self.fed:
                        found |= dict.fromkeys(behind.get(tensor.op, ()))
                behind[operation] = tuple(found)
        return behind

    def layers(self, is_variable: Callable[[Any], bool]) -> list[Found]:
        """The layers, first to last."""
        states: set[Any] = set()
        while True:
            data = self._data(states)
            behind = self._variables(is_variable, data)
            new = {
                variable
                for operation in self.order
                if _ASSIGNED.fullmatch(operation.type)
                and operation not in self.dead
                and any(self._is_data(tensor, data) for tensor in operation.inputs[1:])
                for variable in behind.get(operation.inputs[0].op, ())
            } - states
            if not new:
                break
            states |= new
        computing = set(_in_order(self.fetched, self._computed_from))
        nodes = [operation for operation in self.order if operation in computing and operation in data]
        own = [operation for operation in nodes if self._is_layer(operation, data, behind)]
        near = self._around(nodes, own, data)
        return [replace(self._found(operation, data, behind), **near[operation]) for operation in own]

    def _around(self, nodes: list[Any], own: list[Any], data: set[Any]) -> dict[Any, dict[str, tuple[Any, ...]]]:
        """The tensors `before` and `after` each of the layers `own`, of all the operations that compute data."""
        taken = {one: [tensor for tensor in self._values(one) if self._is_data(tensor, data)] for one in nodes}
        tensors = {tensor.name: tensor for tensor in itertools.chain(*taken.values(), self.asked)}
        made_by = {name: tensor.op for name, tensor in tensors.items() if name not in self.fed}
        names = {one: [tensor.name for tensor in given] for one, given in taken.items()}
        found = tensors_around(names, made_by, own, [tensor.name for tensor in self.asked])

        def fetchable(side: tuple[str, ...]) -> tuple[Any, ...]:
            return tuple(tensors[name] for name in side if self._is_fetchable(tensors[name]))

        return {one: {"before": fetchable(before), "after": fetchable(after)} for one, (before, after) in found.items()}

    def _is_layer(self, operation: Any, data: set[Any], behind: dict[Any, tuple[Any, ...]]) -> bool:
        if operation.type in _FORMS | _LED or operation.type.startswith("Assign"):
            return False
        inputs = self._values(operation)
        return any(self._is_data(tensor, data) for tensor in inputs) and any(
            behind.get(tensor.op) for tensor in inputs if not self._is_data(tensor, data)
        )

    def _found(self, operation: Any, data: set[Any], behind: dict[Any, tuple[Any, ...]]) -> Found:
        inputs = self._values(operation)
        parameters = [tensor for tensor in inputs if not self._is_data(tensor, data)]
        variables = dict.fromkeys(variable for tensor in parameters for variable in behind.get(tensor.op, ()))
        first: Any | None
        computed: Any | None
        if operation.type in _LOOPS:
            first, computed = self._gone_through(
                [tensor for tensor in inputs if self._is_data(tensor, data)], operation
            )
        else:
            given = [tensor for tensor in inputs if self._is_data(tensor, data) and tensor.dtype.is_floating]
            first, computed = given[0] if given else None, operation.outputs[0]
        return Found(
            operation,
            tuple(variables),
            first if self._is_fetchable(first) else None,
            computed if self._is_fetchable(computed) else None,
        )

    def _gone_through(self, inputs: list[Any], loop: Any) -> tuple[Any | None, Any | None]:
        """
        The sequence that a loop of a recurrent layer goes through, and that it makes, or the last of what it makes.

        They are what the layer takes and gives: its steps come first only inside. None where there are several.
        """
        lists = [_behind(tensor) for tensor in inputs]
        given = [tensor.op.inputs[0] for tensor in lists if tensor.op.type == "TensorListFromTensor"]
        given = [tensor for tensor in given if tensor.dtype.is_floating]
        first = given[0] if len(given) == 1 else None
        if first is not None and first.op.type == "Transpose":
            first = first.op.inputs[0]
        made = [
            following.outputs[0]
            for tensor in loop.outputs
            for following in self._following(tensor)
            if following.type == "TensorListStack" and following.outputs[0].dtype.is_floating
        ]
        if len(made) != 1:
            return first, None
        following = self._following(made[0])
        led = [one for one in following if one.type == "Transpose"]
        led = led or [one for one in following if one.type == "StridedSlice"]
        return first, led[0].outputs[0] if len(led) == 1 else made[0]

    def _following(self, tensor: Any) -> list[Any]:
        """The operations that take the tensor, or it by another name."""
        found = []
        for operation in tensor.consumers():
            if operation in self.contexts:
                found += self._following(operation.outputs[0]) if operation.type == "Identity" else [operation]
        return found

    def _is_fetchable(self, tensor: Any | None) -> bool:
        if tensor is None or not tensor.dtype.is_floating:
            return False
        if tensor.name in self.fed:
            return True
        return not self.contexts[tensor.op] and tensor.op not in self.dead and tensor.graph.is_fetchable(tensor)


def _left(contexts: tuple[str, ...], kind: str) -> tuple[str, ...]:
    """The contexts outside of the innermost of a kind."""
    for position in reversed(range(len(contexts))):
        if contexts[position] == kind:
            return contexts[:position]
    return contexts


def _behind(tensor: Any) -> Any:
    """The tensor that this is another name of."""
    while tensor.op.type == "Identity":
        tensor = tensor.op.inputs[0]
    return tensor


def _is_constant(operation: Any) -> bool:
    """Whether it may have been a variable: a number alone, as in 2 * x, does not count as one."""
    value = operation.outputs[0] if operation.type == "Const" else None
    return value is not None and bool(value.dtype.is_floating and value.shape.rank and value.shape.num_elements())


def _leads_back(tensor: Any) -> bool:
    return bool(tensor.op.type.endswith("NextIteration"))


def _decides(operation: Any) -> bool:
    return operation.type in {"Switch", "RefSwitch"} and operation.inputs[1].op.type != "LoopCond"


def _all_before(operation: Any) -> Iterator[Any]:
    yield from (tensor.op for tensor in operation.inputs)
    yield from operation.control_inputs


def _in_order(operations: Iterable[Any], before: Callable[[Any], Iterable[Any]]) -> Iterator[Any]:
    """Each operation after all that it waits for; a loop begins with what it is entered by."""
    seen: set[Any] = set()
    for root in operations:
        if root in seen:
            continue
        seen.add(root)
        waiting = [(root, iter(list(before(root))))]
        while waiting:
            operation, rest = waiting[-1]
            following = next((one for one in rest if one not in seen), None)
            if following is None:
                waiting.pop()
                yield operation
            else:
                seen.add(following)
                waiting.append((following, iter(list(before(following)))))
