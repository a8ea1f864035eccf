"""
The child process in which TensorFlow's own classes decode graphs: `python with_tensorflow_graphs.py FILE...`.

It writes what they say as JSON, by file: nodes, functions, the outputs of signatures.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2, graph_pb2, tensor_shape_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

WANTED = {
    *("adj_x", "adj_y", "body", "branches", "cond", "data_format", "dilations", "else_branch", "epsilon", "f"),
    *("num_split", "padding", "shape", "shared_name", "strides", "then_branch", "transpose_a", "transpose_b"),
    *("value", "_output_shapes"),
}
MAX_VALUES = 64


def sizes(shape: tensor_shape_pb2.TensorShapeProto) -> list[int] | None:
    return None if shape.unknown_rank else [dim.size for dim in shape.dim]


def tensor(proto: Any) -> dict[str, Any]:
    shape = sizes(proto.tensor_shape)
    if proto.dtype == tf.string.as_datatype_enum:
        return {
            "shape": shape,
            "values": None,
            "texts": [one.decode(errors="surrogateescape") for one in proto.string_val],
        }
    kinds = {tf.float32, tf.float64, tf.int32, tf.int64}
    if tf.as_dtype(proto.dtype) not in kinds or shape is None or int(np.prod(shape)) > MAX_VALUES:
        return {"shape": shape, "values": None, "texts": []}
    return {"shape": shape, "values": tf.make_ndarray(proto).reshape(-1).tolist(), "texts": []}


def attribute(value: attr_value_pb2.AttrValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "list":
        many = value.list
        texts = [one.decode(errors="surrogateescape") for one in many.s] + [one.name for one in many.func]
        return list(many.i) or texts or [sizes(shape) for shape in many.shape]
    if kind == "shape":
        return sizes(value.shape)
    if kind == "tensor":
        return tensor(value.tensor)
    if kind == "func":
        return value.func.name
    if kind is None:
        return None
    found = getattr(value, kind)
    return found.decode(errors="surrogateescape") if isinstance(found, bytes) else found


def nodes(made: Any) -> list[Any]:
    return [
        [
            one.name,
            one.op,
            [name for name in one.input if not name.startswith("^")],
            {key: attribute(value) for key, value in one.attr.items() if key in WANTED},
        ]
        for one in made
    ]


def described(path: str) -> dict[str, Any]:
    data = Path(path).read_bytes()
    signatures: dict[str, dict[str, str]] = {}
    if path.endswith(("saved_model.pb", ".meta")):
        if path.endswith(".meta"):
            meta = meta_graph_pb2.MetaGraphDef.FromString(data)
        else:
            meta = saved_model_pb2.SavedModel.FromString(data).meta_graphs[0]
        graph = meta.graph_def
        for name, signature in meta.signature_def.items():
            signatures[name] = {key: info.name for key, info in signature.outputs.items()}
    else:
        graph = graph_pb2.GraphDef.FromString(data)
    functions = {
        made.signature.name: [
            [one.name for one in made.signature.input_arg],
            [made.ret[one.name] for one in made.signature.output_arg],
            nodes(made.node_def),
        ]
        for made in graph.library.function
    }
    return {"nodes": nodes(graph.node), "functions": functions, "signatures": signatures}


json.dump({path: described(path) for path in sys.argv[1:]}, sys.stdout)
