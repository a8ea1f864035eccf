"""
A part of a TF1 graph, run with a checkpoint's values.

For graphs that cannot be imported whole, because their input pipelines use ops that TensorFlow has dropped, or that
would train while they compute. Every op that is kept is the original's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Run = Callable[[dict[str, Any]], dict[str, Any]]

#: Ops that hold a variable; the checkpoint's value takes the place of what is read from them.
VARIABLES = ("VariableV2", "Variable", "ReadVariableOp")


def part(
    checkpoint: str, feed: Mapping[str, str], fetch: Mapping[str, str], constants: Mapping[str, float] | None = None
) -> Run:
    """
    What lies between the tensors of `feed` and those of `fetch` in `checkpoint`'s .meta file, ready to run.

    `constants` are scalar float tensors of the graph to replace: a training graph's keep_prob, say. A variable is read
    from the checkpoint under the name of its op. Raises KeyError for a tensor that the graph does not have.
    """
    import tensorflow.compat.v1 as tf

    with open(f"{checkpoint}.meta", "rb") as file:
        nodes = {node.name: node for node in tf.MetaGraphDef.FromString(file.read()).graph_def.node}
    reader = tf.train.load_checkpoint(checkpoint)
    given = {tensor.removesuffix(":0") for tensor in (*feed.values(), *(constants or {}))}
    kept: dict[str, Any] = {}
    variables: dict[str, str] = {}
    waiting = list(fetch.values())
    while waiting:
        name = _op(waiting.pop())
        if name in kept or name in variables:
            continue
        node = nodes[name]
        if node.op in VARIABLES:
            variables[name] = _op(node.input[0]) if node.op == "ReadVariableOp" else name
            continue
        kept[name] = node
        waiting += [tensor for tensor in node.input if tensor.removesuffix(":0") not in given]

    graph = tf.Graph()
    with graph.as_default():
        definition = tf.GraphDef()
        for node in kept.values():
            copied = definition.node.add()
            copied.CopyFrom(node)
            copied.device = ""
            copied.attr.pop("_class", None)  # it may name an op that is not kept
        fed = {name: tf.placeholder(_dtype(tf, nodes, tensor)) for name, tensor in feed.items()}
        replaced: dict[str, Any] = {tensor: fed[name] for name, tensor in feed.items()}
        replaced |= {tensor: tf.constant(value, tf.float32) for tensor, value in (constants or {}).items()}
        replaced |= {f"{op}:0": tf.constant(reader.get_tensor(name)) for op, name in variables.items()}
        fetched = dict(
            zip(fetch, tf.import_graph_def(definition, replaced, list(fetch.values()), name=""), strict=True)
        )
    session = tf.Session(graph=graph)

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        computed: dict[str, Any] = session.run(fetched, {fed[name]: array for name, array in inputs.items()})
        return computed

    return run


def _op(tensor: str) -> str:
    return tensor.removeprefix("^").partition(":")[0]


def _dtype(tf: Any, nodes: Mapping[str, Any], tensor: str) -> Any:
    """The dtype of one output of an op that need not be one that TensorFlow still knows."""
    name, _, position = tensor.partition(":")
    attributes = nodes[name].attr
    if "output_types" in attributes:
        return tf.as_dtype(attributes["output_types"].list.type[int(position)])
    return tf.as_dtype((attributes["dtype"] if "dtype" in attributes else attributes["T"]).type)
