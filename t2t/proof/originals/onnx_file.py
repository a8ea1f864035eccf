"""An original that is an ONNX model, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .around import tensors_around
from .original import (
    MAX_LAYERS,
    Array,
    Layer,
    Leaf,
    Original,
    OriginalFailedError,
    Port,
    Request,
    cause,
    check_fits,
    library,
    named,
)

#: onnxruntime's words for dtypes, where they are not numpy's.
DTYPES = {"float": "float32", "double": "float64"}


@contextmanager
def onnx_file(request: Request) -> Iterator[Original]:
    """The model, on the CPU, as it stands: no graph is optimised. It has no state from run to run."""
    runtime = library("onnxruntime")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = runtime.InferenceSession(request["path"], options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise OriginalFailedError("run", f"the model cannot be loaded: {cause(error)}") from error
    ports = {}
    for node in session.get_inputs():
        dtype = node.type.removeprefix("tensor(").removesuffix(")")
        shape = tuple(size if isinstance(size, int) else None for size in node.shape)
        ports[node.name] = Port(node.name, DTYPES.get(dtype, dtype), shape)
    outputs = [node.name for node in session.get_outputs()]
    for name, own in request["feed"].items():
        named("feed", name, own, ports, "the model has no input")
    for name, own in request["fetch"].items():
        named("fetch", name, own, outputs, "the model has no output")

    def own_names(given: dict[str, Array]) -> dict[str, Array]:
        return {own: given[name] for name, own in request["feed"].items()}

    def run(given: dict[str, Array]) -> dict[str, Array]:
        for name, own in request["feed"].items():
            check_fits(name, ports[own], given[name])
        values = own_names(given)
        try:
            computed = session.run(list(request["fetch"].values()), values)
        except Exception as error:  # its errors have no common class
            raise OriginalFailedError("run", f"the model cannot be run: {cause(error)}") from error
        return {name: np.asarray(array) for name, array in zip(request["fetch"], computed, strict=True)}

    def inside(tensors: Iterable[str], given: dict[str, Array]) -> dict[str, Any]:
        """Any tensors of the model: only outputs can be fetched, so all of them are made outputs."""
        values: dict[str, Any] = own_names(given)
        wanted = [name for name in dict.fromkeys(tensors) if name not in values]
        model = Path(request["path"]).read_bytes() + _more_outputs(name for name in wanted if name not in outputs)
        opened = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return values | dict(zip(wanted, opened.run(wanted, values), strict=True))

    def layers(given: dict[str, Array]) -> list[Layer]:
        graph = _graph(Path(request["path"]).read_bytes())
        found = _layers(graph, set(request["feed"].values()), set(request["fetch"].values()))[:MAX_LAYERS]
        if not found:
            raise OriginalFailedError("run", "no constant goes into what is computed from the inputs")
        values = inside((tensor for layer in found for tensor in layer.tensors), given)
        leaves = {name: Leaf(name, graph.constants[name]) for layer in found for name in layer.constants}
        makers = {name: node.title for node in graph.nodes for name in node.outputs}

        def near(side: Iterable[str]) -> tuple[tuple[str, Array], ...]:
            return tuple((makers.get(name, name), values[name]) for name in side if _is_floating(values[name]))

        return [
            Layer(
                layer.node.title,
                layer.node.kind,
                tuple(leaves[name] for name in layer.constants),
                next((values[name] for name in layer.data if _is_floating(values[name])), None),
                values[layer.node.outputs[0]] if _is_floating(values[layer.node.outputs[0]]) else None,
                near(layer.before),
                near(layer.after),
            )
            for layer in found
        ]

    def of_names(given: dict[str, Array], wanted: dict[str, str]) -> dict[str, Array]:
        graph = _graph(Path(request["path"]).read_bytes())
        known = [*ports, *(name for node in graph.nodes for name in node.outputs)]
        for path, own in wanted.items():
            named("layers", path, own, known, "the model has no tensor")
        values = inside(wanted.values(), given)
        return {path: np.asarray(values[own]) for path, own in wanted.items()}

    yield Original(run, lambda: None, {"onnxruntime": runtime.__version__}, (), layers, of_names)


# --- the graph in the file ---

#: Operations whose output is their first input in another form: what the form is computed from does not matter.
_FORMS = frozenset({"Reshape", "Expand", "Tile", "Unsqueeze", "Squeeze", "Identity"})

#: Elements of the constants that may be variables, by their number in TensorProto.DataType.
_DTYPES = {1: "<f4", 10: "<f2", 11: "<f8"}


@dataclass(frozen=True, slots=True)
class _Node:
    """A node; of its inputs and outputs those that are there."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def title(self) -> str:
        return self.name or self.outputs[0]


@dataclass(frozen=True, slots=True)
class _Graph:
    """Its nodes, each after those that it waits for, and its floating constants that are no single number."""

    nodes: tuple[_Node, ...]
    constants: dict[str, Array]


@dataclass(frozen=True, slots=True)
class _Found:
    """A node that constants and `data`, computed from what is fed, go into; tensors around it, see `around`."""

    node: _Node
    constants: tuple[str, ...]
    data: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def tensors(self) -> tuple[str, ...]:
        return (*self.data, self.node.outputs[0], *self.before, *self.after)


def _layers(graph: _Graph, fed: set[str], fetched: set[str]) -> list[_Found]:
    """Nodes that constants and what is computed from `fed` go into, as far as `fetched` depends on them."""
    needed = set(fetched)
    for node in reversed(graph.nodes):
        if needed & set(node.outputs):
            needed |= set(node.inputs)
    data = set(fed)
    behind: dict[str, tuple[str, ...]] = {name: (name,) for name in graph.constants}
    taken: dict[_Node, tuple[str, ...]] = {}
    found: dict[_Node, tuple[str, ...]] = {}
    for node in graph.nodes:
        values = node.inputs[:1] if node.kind in _FORMS else node.inputs
        computed = tuple(name for name in values if name in data)
        constants = tuple(dict.fromkeys(one for name in values if name not in data for one in behind.get(name, ())))
        if not computed:
            behind |= dict.fromkeys(node.outputs, constants)
            continue
        data |= set(node.outputs)
        if needed & set(node.outputs):
            taken[node] = computed
            if constants:
                found[node] = constants
    made_by = {name: node for node in taken for name in node.outputs}
    near = tensors_around(taken, made_by, list(found), sorted(fetched & data))
    return [_Found(node, constants, taken[node], *near[node]) for node, constants in found.items()]


def _graph(model: bytes) -> _Graph:
    """What is looked at of a ModelProto: field 7 is the graph, whose nodes are 1 and whose initializers are 5."""
    nodes: list[_Node] = []
    constants: dict[str, Array | None] = {}
    for part in _messages(memoryview(model), 7):
        for node in _messages(part, 1):
            fields = [(number, value) for number, value in _fields(node) if isinstance(value, memoryview)]
            # An input or output that is left out is a name of no letters.
            texts = {
                field: tuple(_text(value) for number, value in fields if number == field and len(value))
                for field in (1, 2, 3, 4)
            }
            one = _Node("".join(texts[3]), "".join(texts[4]), texts[1], texts[2])
            nodes.append(one)
            if one.kind == "Constant":
                for attribute in _messages(node, 5):
                    for tensor in _messages(attribute, 5):
                        constants |= dict.fromkeys(one.outputs, _constant(tensor)[1])
        constants |= dict(_constant(tensor) for tensor in _messages(part, 5))
    return _Graph(tuple(nodes), {name: array for name, array in constants.items() if array is not None and array.ndim})


def _constant(tensor: memoryview) -> tuple[str, Array | None]:
    """A TensorProto's name and values, None where they are no floating numbers or lie in another file."""
    name, kind, dims, raw, loose = "", 0, [], None, []
    for number, value in _fields(tensor):
        if number == 1:
            dims += list(_varints(value)) if isinstance(value, memoryview) else [value]
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number in {4, 10} and isinstance(value, memoryview):
            loose.append(bytes(value))
        elif number == 8 and isinstance(value, memoryview):
            name = _text(value)
        elif number == 9 and isinstance(value, memoryview):
            raw = bytes(value)
    if kind not in _DTYPES:
        return name, None
    values = np.frombuffer(b"".join(loose) if raw is None else raw, _DTYPES[kind])
    return name, values.reshape(dims) if values.size == np.prod(dims, dtype=np.int64) else None


def _more_outputs(names: Iterable[str]) -> bytes:
    """A ModelProto that holds outputs alone: behind another one, it adds them to that one's graph."""
    infos = (_field(12, _field(1, name.encode())) for name in names)
    return _field(7, b"".join(infos))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    groups = [value >> shift & 127 for shift in range(0, max(1, value.bit_length()), 7)]
    return bytes([group | 128 for group in groups[:-1]] + groups[-1:])


def _messages(message: memoryview, field: int) -> Iterator[memoryview]:
    return (value for number, value in _fields(message) if number == field and isinstance(value, memoryview))


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Each field's number and value: bytes, or an integer. onnxruntime has read the file: it is well formed."""
    position = 0
    while position < len(message):
        key, position = _read_varint(message, position)
        if key & 7 == 0:
            value, position = _read_varint(message, position)
            yield key >> 3, value
            continue
        if key & 7 == 2:
            size, position = _read_varint(message, position)
        else:
            size = {1: 8, 5: 4}[key & 7]
        yield key >> 3, message[position : position + size]
        position += size


def _varints(packed: memoryview) -> Iterator[int]:
    position = 0
    while position < len(packed):
        value, position = _read_varint(packed, position)
        yield value


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while message[position] > 127:
        value |= (message[position] & 127) << shift
        position, shift = position + 1, shift + 7
    return value | message[position] << shift, position + 1


def _text(value: memoryview) -> str:
    return bytes(value).decode("utf-8", "replace")


def _is_floating(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"
