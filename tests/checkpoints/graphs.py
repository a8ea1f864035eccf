"""A writer of graphs that shares no code with the reader: nodes -> GraphDef, MetaGraphDef, SavedModel."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.checkpoints.writing import Fixed32, message


@dataclass(frozen=True)
class Const:
    """A constant: int32 or float32 values, or strings."""

    values: Sequence[Any]
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Func:
    """A function's name, as an attribute has it."""

    name: str


@dataclass(frozen=True)
class Node:
    """One operation."""

    name: str
    op: str
    inputs: Sequence[str] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)


def variable(name: str, *shape: int) -> list[Node]:
    """A variable and the Identity that TF1 puts behind it."""
    return [Node(name, "VariableV2", (), {"shape": shape}), Node(f"{name}/read", "Identity", [name])]


def shape_message(sizes: Sequence[int] | None) -> bytes:
    return message((3, 1)) if sizes is None else message(*((2, message((1, size))) for size in sizes))


def attribute(value: Any) -> bytes:
    """An AttrValue. A tuple is a shape, a list of numbers a list, a list of tuples a list of shapes."""
    if isinstance(value, bool):
        return message((5, int(value)))
    if isinstance(value, int):
        return message((3, value))
    if isinstance(value, float):
        return message((4, Fixed32(int.from_bytes(struct.pack("<f", value), "little"))))
    if isinstance(value, str):
        return message((2, value.encode()))
    if isinstance(value, Func):
        return message((10, message((1, value.name.encode()))))
    if isinstance(value, Const):
        return message((8, constant(value)))
    if isinstance(value, tuple):
        return message((7, shape_message(value)))
    if value and isinstance(value[0], int):
        return message((1, message(*((3, number) for number in value))))
    return message((1, message(*((7, shape_message(sizes)) for sizes in value))))


def constant(value: Const) -> bytes:
    shape = value.shape if value.shape is not None else (len(value.values),)
    head = [(2, shape_message(shape))]
    if any(isinstance(one, str) for one in value.values):
        return message((1, 7), *head, *((8, one.encode()) for one in value.values))
    if any(isinstance(one, float) for one in value.values):
        return message((1, 1), *head, (4, struct.pack(f"<{len(value.values)}f", *value.values)))
    return message((1, 3), *head, (4, struct.pack(f"<{len(value.values)}i", *value.values)))


def node(made: Node) -> bytes:
    entries = [(5, message((1, key.encode()), (2, attribute(value)))) for key, value in made.attributes.items()]
    return message(
        (1, made.name.encode()), (2, made.op.encode()), *((3, name.encode()) for name in made.inputs), *entries
    )


def function(name: str, arguments: Sequence[str], nodes: Sequence[Node], results: Mapping[str, str]) -> bytes:
    signature = message(
        (1, name.encode()),
        *((2, message((1, one.encode()))) for one in arguments),
        *((3, message((1, one.encode()))) for one in results),
    )
    returned = [(4, message((1, key.encode()), (2, tensor.encode()))) for key, tensor in results.items()]
    return message((1, signature), *((3, node(made)) for made in nodes), *returned)


def graph(nodes: Sequence[Node], functions: Sequence[bytes] = ()) -> bytes:
    """A GraphDef."""
    library = [(2, message(*((1, made) for made in functions)))] if functions else []
    return message(*((1, node(made)) for made in nodes), *library)


def meta_graph(
    nodes: Sequence[Node],
    functions: Sequence[bytes] = (),
    signatures: Mapping[str, Mapping[str, str]] | None = None,
) -> bytes:
    """A MetaGraphDef: what a .meta holds."""
    entries = []
    for name, outputs in (signatures or {}).items():
        infos = [(2, message((1, key.encode()), (2, message((1, to.encode()))))) for key, to in outputs.items()]
        entries.append((5, message((1, name.encode()), (2, message(*infos)))))
    return message((1, b""), (2, graph(nodes, functions)), *entries)


def saved_model(*meta_graphs: bytes) -> bytes:
    return message((1, 1), *((2, made) for made in meta_graphs))


def write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)
