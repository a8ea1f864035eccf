"""
The operations of a TensorFlow graph, as it is stored. Nothing of it is run.

    MetaGraphDef   1 meta info, 2 GraphDef, 5 signatures: map<string, SignatureDef>          <prefix>.meta
    SavedModel     1 schema version, 2 MetaGraphDef*, of which the first is read             saved_model.pb
    GraphDef       1 NodeDef*, 2 FunctionDefLibrary { 1 FunctionDef* }                       a frozen .pb
    NodeDef        1 name, 2 op, 3 input*, 5 map<string, AttrValue>
    FunctionDef    1 signature OpDef { 1 name, 2 input ArgDef { 1 name }*, 3 output ArgDef { 1 name }* }
                   3 NodeDef*, 4 results: map<output's name, tensor in it>
    AttrValue      1 list { 2 s*, 3 i*, 7 shape*, 10 function* }, 2 s, 3 i, 4 f, 5 b, 6 type, 7 shape, 8 tensor,
                   10 function { 1 name }
    TensorProto    1 dtype, 2 shape, 4 raw, 5 float*, 6 double*, 7 int*, 8 text*, 10 int64*
    shape          2 dim { 1 size }*, 3 has an unknown rank
    SignatureDef   2 outputs: map<string, TensorInfo { 1 name }>

A tensor is called `node`, `node:1`, in a function `node:output:1`; an input `^node` only says that it runs before.

https://github.com/tensorflow/tensorflow/tree/master/tensorflow/core/framework (graph, node_def, function, attr_value)
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from t2t.checkpoints.files import read_all, refusal
from t2t.checkpoints.protobuf import BYTES, FIXED32, FIXED64, VARINT, Corrupt, expect, fields, signed, varint
from t2t.names import shown

#: What stores a graph, and how.
Kind = Literal["graph", "saved_model", "frozen"]

MAX_BYTES = 2**30
MAX_NODES = 5_000_000

#: Of a constant so many values are kept: shapes, permutations and scalars have fewer.
MAX_VALUES = 64

#: The attributes that say how an operation computes; the others are not decoded.
WANTED = frozenset(
    b"adj_x adj_y body branches cond data_format dilations else_branch epsilon f num_split padding shape shared_name "
    b"strides then_branch transpose_a transpose_b value _output_shapes".split()
)

#: The sizes of a tensor, -1 for one that is not known; None where not even the rank is.
Sizes = tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Constant:
    """
    A constant: its shape, and its values in C order, None where there are too many or they are no numbers. `texts` are
    the strings of a list of them.
    """

    shape: Sizes
    values: tuple[float, ...] | None
    texts: tuple[str, ...] = ()


#: The value of an attribute, as Python has it; of a function its name, of a type its number.
Attribute = float | str | Constant | tuple[int, ...] | tuple[str, ...] | tuple[Sizes, ...] | None


@dataclass(frozen=True, slots=True)
class Node:
    """One operation: its inputs by the tensors' names, and those of its attributes that are wanted."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Function:
    """A function that nodes call: its arguments, its nodes, its outputs' names, and which tensor in it each is."""

    name: str
    arguments: tuple[str, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    results: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """
    A graph: its nodes, the functions that are called from them by their names, and its outputs: the tensor for each
    name of a signature's output, signature by signature.
    """

    nodes: tuple[Node, ...]
    functions: Mapping[str, Function] = field(default_factory=dict)
    signatures: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def read(kind: Kind, path: str) -> Graph:
    """
    The graph in the file at `path`. Raises CheckpointError: T2T602, T2T604 or T2T611.
    """
    data, _ = read_all(path, MAX_BYTES)
    try:
        return decode(kind, data)
    except Corrupt as error:
        raise refusal(error.code, f"not a graph that t2t reads: {error}", path, error.hint) from error


def decode(kind: Kind, data: bytes) -> Graph:
    """The graph in `data`. Raises Corrupt."""
    if kind == "frozen":
        return _graph(data, {})
    if kind == "saved_model":
        data = next(_messages(data, 2), b"")
    signatures = {}
    for entry in _messages(data, 5):
        name, signature = _entry(entry)
        outputs = (_entry(output) for output in _messages(signature, 2))
        signatures[_text(name)] = {_text(key): _text(next(_messages(info, 1), b"")) for key, info in outputs}
    return _graph(next(_messages(data, 2), b""), signatures)


def _graph(data: bytes, signatures: Mapping[str, Mapping[str, str]]) -> Graph:
    nodes: list[Node] = []
    stored: dict[str, bytes] = {}
    for number, wire, value in fields(data):
        if number == 1:
            expect(number, wire, BYTES)
            _add(nodes, value, 0)
        elif number == 2:
            expect(number, wire, BYTES)
            for function in _messages(value, 1):
                stored[_text(next(_messages(next(_messages(function, 1), b""), 1), b""))] = function
    functions = _called(nodes, stored)
    if not nodes:
        raise Corrupt("it has no operation")
    return Graph(tuple(nodes), functions, signatures)


def _called(nodes: list[Node], stored: Mapping[str, bytes]) -> dict[str, Function]:
    """The functions that the nodes call, and those that these call: most of a SavedModel's are called by nothing."""
    found: dict[str, Function] = {}
    count, to_do = len(nodes), list(nodes)
    while to_do:
        for name in callees(to_do.pop()):
            if name in stored and name not in found:
                found[name] = _function(name, stored[name], count)
                count += len(found[name].nodes)
                to_do += found[name].nodes
    return found


def callees(node: Node) -> Iterator[str]:
    """The names of the functions that the node may call; in an old graph its operation is one."""
    yield node.op
    for key in ("f", "then_branch", "else_branch", "cond", "body"):
        if isinstance(name := node.attributes.get(key), str):
            yield name
    branches = node.attributes.get("branches")
    yield from (name for name in branches if isinstance(name, str)) if isinstance(branches, tuple) else ()


def _function(name: str, data: bytes, count: int) -> Function:
    nodes: list[Node] = []
    signature, returned = b"", {}
    for number, wire, value in fields(data):
        if number in (1, 3, 4):
            expect(number, wire, BYTES)
        if number == 1:
            signature = value
        elif number == 3:
            _add(nodes, value, count)
        elif number == 4:
            key, tensor = _entry(value)
            returned[key] = _text(tensor)
    arguments, outputs = ([next(_messages(one, 1), b"") for one in _messages(signature, side)] for side in (2, 3))
    if missing := [output for output in outputs if output not in returned]:
        raise Corrupt(f"the function {shown(name)} does not say what its output {shown(_text(missing[0]))} is")
    results = tuple(returned[output] for output in outputs)
    return Function(name, tuple(map(_text, arguments)), tuple(nodes), tuple(map(_text, outputs)), results)


def _add(nodes: list[Node], data: bytes, count: int) -> None:
    if count + len(nodes) == MAX_NODES:
        raise Corrupt(f"it has more than {MAX_NODES} operations", "T2T611")
    name = op = b""
    inputs: list[str] = []
    attributes: dict[str, Attribute] = {}
    for number, wire, value in fields(data):
        if number in (1, 2, 3, 5):
            expect(number, wire, BYTES)
        if number == 1:
            name = value
        elif number == 2:
            op = value
        elif number == 3 and not value.startswith(b"^"):
            inputs.append(_text(value))
        elif number == 5:
            key, attribute = _entry(value)
            if key in WANTED:
                attributes[_text(key)] = _attribute(attribute)
    nodes.append(Node(_text(name), _text(op), tuple(inputs), attributes))


# --- attributes ---


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _attribute(data: bytes) -> Attribute:
    """The value; None for one of a kind that nobody asks for."""
    found: Attribute = None
    for number, wire, value in fields(data):
        if number in _ATTRIBUTES:
            expected, decoded = _ATTRIBUTES[number]
            expect(number, wire, expected)
            found = decoded(value)
    return found


def _list(data: bytes) -> Attribute:
    numbers: list[int] = []
    texts: list[str] = []
    shapes: list[Sizes] = []
    for number, wire, value in fields(data):
        if number == 3:
            numbers += (signed(one) for one in _varints(wire, value))
        elif number in (2, 7, 10):
            expect(number, wire, BYTES)
            if number == 7:
                shapes.append(_sizes(value))
            else:
                texts.append(_text(value) if number == 2 else _called_name(value))
    return tuple(numbers) or tuple(texts) or tuple(shapes)


def _called_name(data: bytes) -> str:
    return _text(next(_messages(data, 1), b""))


def _sizes(data: bytes) -> Sizes:
    sizes: list[int] = []
    for number, wire, value in fields(data):
        if number == 2:
            expect(number, wire, BYTES)
            size = next((kind for kind in fields(value) if kind[0] == 1), (1, VARINT, 0))
            expect(size[0], size[1], VARINT)
            sizes.append(max(signed(size[2]), -1))
        elif number == 3 and value:
            return None
    return tuple(sizes)


def _constant(data: bytes) -> Constant:
    """A TensorProto. A value that stands for the rest of its kind is repeated; no value at all means zeros."""
    dtype, raw = 0, b""
    values: list[float] = []
    texts: list[str] = []
    shape: Sizes = ()
    for number, wire, value in fields(data):
        if number == 1:
            expect(number, wire, VARINT)
            dtype = value
        elif number == 2:
            expect(number, wire, BYTES)
            shape = _sizes(value)
        elif number == 4:
            expect(number, wire, BYTES)
            raw = value
        elif number == 8:
            expect(number, wire, BYTES)
            texts.append(_text(value))
        elif number in _NUMBERS and len(values) <= MAX_VALUES:
            values += _NUMBERS[number](wire, value)
    count = 1
    for size in shape or ():
        count *= size
    if dtype not in _FORMATS or shape is None or not 0 <= count <= MAX_VALUES or len(values) > count:
        return Constant(shape, None, tuple(texts))
    code, width = _FORMATS[dtype]
    if raw:
        if len(raw) != count * width:
            raise Corrupt(f"a constant {list(shape)} has {len(raw)} bytes of values")
        return Constant(shape, struct.unpack(f"<{count}{code}", raw))
    return Constant(shape, tuple(values + (count - len(values)) * (values[-1:] or [0])))


#: TensorFlow's dtypes that matter in the constants of a graph: how struct calls them, and their bytes.
_FORMATS = {1: ("f", 4), 2: ("d", 8), 3: ("i", 4), 9: ("q", 8)}


def _varints(wire: int, value: Any) -> Iterator[int]:
    """One number of a repeated field, or all of them, packed."""
    if wire != BYTES:
        expect(3, wire, VARINT)
        yield value
        return
    at = 0
    while at < len(value):
        number, at = varint(value, at, len(value))
        yield number


def _floats(wire: int, value: Any, *, code: str, single: int) -> list[float]:
    if wire != BYTES:
        expect(5, wire, single)
        value = value.to_bytes(struct.calcsize(code), "little")
    width = struct.calcsize(code)
    if len(value) % width:
        raise Corrupt(f"{len(value)} bytes are no numbers of {width} bytes")
    return list(struct.unpack(f"<{len(value) // width}{code}", value))


_NUMBERS: dict[int, Callable[[int, Any], list[float]]] = {
    5: lambda wire, value: _floats(wire, value, code="f", single=FIXED32),
    6: lambda wire, value: _floats(wire, value, code="d", single=FIXED64),
    7: lambda wire, value: [signed(one) for one in _varints(wire, value)],
    10: lambda wire, value: [signed(one) for one in _varints(wire, value)],
}

_ATTRIBUTES: dict[int, tuple[int, Callable[[Any], Attribute]]] = {
    1: (BYTES, _list),
    2: (BYTES, _text),
    3: (VARINT, signed),
    4: (FIXED32, lambda value: float(struct.unpack("<f", value.to_bytes(4, "little"))[0])),
    5: (VARINT, bool),
    6: (VARINT, signed),
    7: (BYTES, _sizes),
    8: (BYTES, _constant),
    10: (BYTES, _called_name),
}


# --- messages ---


def _messages(data: bytes, wanted: int) -> Iterator[bytes]:
    """The values of a field that holds bytes, texts or messages."""
    for number, wire, value in fields(data):
        if number == wanted:
            expect(number, wire, BYTES)
            yield value


def _entry(data: bytes) -> tuple[bytes, bytes]:
    """The key and the value of an entry of a map."""
    key = content = b""
    for number, wire, value in fields(data):
        if number in (1, 2):
            expect(number, wire, BYTES)
            key, content = (value, content) if number == 1 else (key, value)
    return key, content
