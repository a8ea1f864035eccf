"""What a graph does with a variable, pattern by pattern; and what looks like one and is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from t2t.checkpoints import dataflow
from t2t.checkpoints import graph as graphs
from t2t.checkpoints.dataflow import Dataflow
from t2t.proof.uses import Use, places, uses
from tests.checkpoints.graphs import Const, Func, Node, function, meta_graph, variable


def flow(nodes: Sequence[Node], *functions: bytes) -> Dataflow:
    return dataflow.connected(graphs.decode("graph", meta_graph(nodes, functions)))


def of(nodes: Sequence[Node], name: str, *functions: bytes, fetch: str = "") -> list[Use]:
    """What the graph does with the variable of this name."""
    made = flow(nodes, *functions)
    position = made.variables[name]
    needed = made.ancestors([(made.names[fetch], 0)]) if fetch else None
    return uses(made, position, made.operations[position].numbers("shape") or (), needed)


def number(name: str, value: float) -> Node:
    return Node(name, "Const", (), {"value": Const([value], ())})


X = Node("x", "Placeholder", (), {"shape": (-1, 8, 6, 4)})


# --- kernels ---


@pytest.mark.parametrize(
    ("op", "shape", "axes"),
    [
        ("Conv2D", (3, 3, 4, 5), "h w i o"),
        ("Conv3D", (3, 3, 3, 4, 5), "d h w i o"),
        ("DepthwiseConv2dNative", (3, 3, 4, 2), "h w i m"),
        ("Conv2DBackpropInput", (3, 3, 5, 4), "h w o i"),
        ("Conv3DBackpropInputV2", (3, 3, 3, 5, 4), "d h w o i"),
        ("MatMul", (4, 5), "i o"),
        ("Conv2D", (4, 5), None),
        ("MatMul", (3, 4, 5), None),
    ],
)
def test_how_an_operation_means_the_axes_of_its_kernel(op: str, shape: tuple[int, ...], axes: str | None) -> None:
    found = of([X, *variable("k", *shape), Node("y", op, ["x", "k/read", "x"])], "k")

    assert [(use.role, use.axes) for use in found] == ([("kernel", axes)] if axes else [])


@pytest.mark.parametrize("key", ["transpose_b", "adj_y"])
def test_a_kernel_that_is_turned(key: str) -> None:
    nodes = [
        X,
        *variable("k", 4, 5),
        Node("y", "MatMul" if "_b" in key else "BatchMatMulV2", ["x", "k/read"], {key: True}),
    ]

    assert [use.axes for use in of(nodes, "k")] == ["o i"]


@pytest.mark.parametrize(("axis", "count"), [(0, 1), (1, 1), (3, 0)])
def test_a_convolution_of_one_axis(axis: int, count: int) -> None:
    """tf.nn.conv1d is a Conv2D of a kernel with an axis more."""
    given = {"strides": [1, 1, 2, 1], "dilations": [1, 1, 3, 1], "padding": "VALID"}
    nodes = [X, *variable("k", 3, 4, 5), number("axis", axis), Node("e", "ExpandDims", ["k/read", "axis"])]
    found = of([*nodes, Node("y", "Conv2D", ["x", "e"], given)], "k")

    assert [(use.axes, use.strides, use.dilations) for use in found] == [("k i o", (2,), (3,))] * count


@pytest.mark.parametrize(
    ("layout", "strides", "sizes"),
    [("NHWC", [1, 2, 3, 1], (8, 6)), ("NCHW", [1, 1, 2, 3], (6, 4))],
)
def test_how_a_convolution_is_set(layout: str, strides: list[int], sizes: tuple[int, ...]) -> None:
    given = {"strides": strides, "padding": "SAME", "data_format": layout}
    (use,) = of([X, *variable("k", 3, 3, 4, 5), Node("y", "Conv2D", ["x", "k/read"], given)], "k")

    assert (use.strides, use.dilations, use.padding, use.sizes) == ((2, 3), (1, 1), "SAME", sizes)


@pytest.mark.parametrize(("before", "padding", "dilations"), [("Pad", "", (1, 1)), ("SpaceToBatchND", "", ())])
def test_what_a_convolution_says_behind_a_padding(before: str, padding: str, dilations: tuple[int, ...]) -> None:
    given = {"strides": [1, 1, 1, 1], "padding": "VALID"}
    nodes = [X, Node("p", before, ["x"]), *variable("k", 3, 3, 4, 5), Node("y", "Conv2D", ["p", "k/read"], given)]
    (use,) = of(nodes, "k")

    assert (use.padding, use.dilations) == (padding, dilations)


def test_the_values_are_followed_through_what_leaves_them_alone() -> None:
    """A cast, a branch, a loop's entry, a Tensordot that moves nothing; in functions too. Not through a reshape."""
    order = Node("order", "Const", (), {"value": Const([0, 1])})
    turned = Node("turned", "Const", (), {"value": Const([1, 0])})
    body = function("f", ["w"], [Node("c", "Cast", ["w"])], {"y": "c:y:0"})
    nodes = [
        *(X, order, turned, *variable("k", 4, 4)),
        Node("call", "PartitionedCall", ["k/read"], {"f": Func("f")}),
        Node("m", "Merge", ["x", "call"]),
        Node("t", "Transpose", ["m", "order"]),
        Node("r", "Reshape", ["t", "order"], {"_output_shapes": [(4, 4)]}),
        Node("y", "MatMul", ["x", "r"]),
        Node("other", "Transpose", ["m", "turned"]),
        Node("no", "MatMul", ["x", "other"]),
        Node("flat", "Reshape", ["m", "order"], {"_output_shapes": [(2, 8)]}),
        Node("neither", "MatMul", ["x", "flat"]),
    ]

    assert [use.operation.name for use in of(nodes, "k", body)] == ["y"]


def test_what_only_training_does_is_left_out() -> None:
    nodes = [
        *(X, *variable("k", 4, 4)),
        Node("y", "MatMul", ["x", "k/read"]),
        Node("gradients/y_grad/MatMul", "MatMul", ["x", "k/read"], {"transpose_b": True}),
        Node("loss", "MatMul", ["x", "k/read"]),
    ]

    assert {use.operation.name for use in of(nodes, "k")} == {"y", "loss"}
    assert {use.operation.name for use in of(nodes, "k", fetch="y")} == {"y"}


def test_a_variable_is_found_by_its_shape_too() -> None:
    made = flow(variable("k", 4, 4))

    assert places(made, "", "k", (4, 4)) == [0]
    assert places(made, "", "k", (4, 5)) == []
    assert places(made, "", "other", (4, 4)) == []


# --- vectors ---

EPSILON = number("epsilon", 0.5)


def test_the_parts_of_a_fused_normalization() -> None:
    parts = ["gamma", "beta", "mean", "variance"]
    nodes = [X, *(node for part in parts for node in variable(part, 4))]
    nodes.append(Node("y", "FusedBatchNormV3", ["x", *(f"{part}/read" for part in parts)], {"epsilon": 0.5}))

    assert [[(use.role, use.epsilon) for use in of(nodes, part)] for part in parts] == [[(p, 0.5)] for p in parts]
    without = [*nodes[:-1], Node("y", "FusedBatchNorm", nodes[-1].inputs)]
    assert [use.epsilon for use in of(without, "gamma")] == [1e-4]  # what TensorFlow takes where nothing is stored


def written_out(**more: Any) -> list[Node]:
    """tf.nn.batch_normalization: x * scale + (beta - mean * scale)."""
    parts = ["gamma", "beta", "mean", "variance"]
    return [
        *(X, EPSILON, *(node for part in parts for node in variable(part, 4))),
        Node("sum", "AddV2", ["variance/read", "epsilon"]),
        Node("rsqrt", "Rsqrt", ["sum"]),
        Node("scale", "Mul", ["rsqrt", "gamma/read"]),
        Node("scaled", "Mul", ["x", "scale"]),
        Node("moved", "Mul", ["mean/read", "scale"]),
        Node("offset", "Sub", ["beta/read", "moved"]),
        Node("y", "AddV2", ["scaled", "offset"]),
    ]


def test_the_parts_of_a_normalization_that_is_written_out() -> None:
    found = {part: [use.role for use in of(written_out(), part)] for part in ("gamma", "beta", "mean", "variance")}

    assert found == {part: [part] for part in found}
    assert [use.epsilon for use in of(written_out(), "variance")] == [0.5]


@pytest.mark.parametrize(
    "nodes",
    [
        [Node("s", "Rsqrt", ["variance"]), Node("n", "Mul", ["d", "s"])],
        [Node("s", "Sqrt", ["variance"]), Node("n", "RealDiv", ["d", "s"])],
    ],
    ids=["times an rsqrt", "by a square root"],
)
def test_the_parts_of_a_layers_normalization(nodes: list[Node]) -> None:
    head = [X, Node("mean", "Mean", ["x"]), Node("variance", "Mean", ["x"]), Node("d", "Sub", ["x", "mean"])]
    tail = [*variable("g", 4), *variable("b", 4), Node("p", "Mul", ["n", "g/read"]), Node("y", "Add", ["p", "b/read"])]

    assert [use.role for use in of([*head, *nodes, *tail], "g")] == ["gamma"]
    assert [use.role for use in of([*head, *nodes, *tail], "b")] == ["beta"]


@pytest.mark.parametrize(
    ("nodes", "role"),
    [
        ([Node("y", "BiasAdd", ["x", "v/read"])], "bias"),
        ([*variable("k", 4, 4), Node("p", "MatMul", ["x", "k/read"]), Node("y", "Add", ["p", "v/read"])], "bias"),
        (
            [*variable("k", 3, 3, 4, 4), Node("p", "Conv2D", ["x", "k/read"]), Node("y", "AddV2", ["v/read", "p"])],
            "bias",
        ),
        ([Node("y", "Add", ["x", "v/read"])], None),  # a position, a shift: nobody knows
        ([Node("y", "Mul", ["x", "v/read"])], None),
        ([Node("y", "Sub", ["v/read", "x"])], None),
        ([EPSILON, Node("y", "Add", ["v/read", "epsilon"])], None),
        ([Node("y", "Add", ["v/read", "x", "x"])], None),
    ],
)
def test_a_bias_and_what_is_none(nodes: list[Node], role: str | None) -> None:
    assert [use.role for use in of([X, *variable("v", 4), *nodes], "v")] == ([role] if role else [])


@pytest.mark.parametrize(
    ("change", "forget"),
    [
        ({}, 0.5),
        ({"num_split": 2}, None),
        ({"piece": "split:1"}, None),
        ({"then": "Tanh"}, None),
        ({"added": "x"}, None),
        ({"op": "Mul"}, None),
    ],
)
def test_what_an_lstm_cell_adds_to_its_forget_gate(change: dict[str, Any], forget: float | None) -> None:
    given: dict[str, Any] = {
        "num_split": 4,
        "piece": "split:2",
        "then": "Sigmoid",
        "added": "epsilon",
        "op": "Add",
    } | change
    nodes = [
        *(X, EPSILON, number("axis", 1), *variable("b", 8)),
        Node("total", "BiasAdd", ["x", "b/read"]),
        Node("split", "Split", ["axis", "total"], {"num_split": given["num_split"]}),
        Node("f", given["op"], [given["piece"], given["added"]]),
        Node("gate", given["then"], ["f"]),
    ]
    (use,) = of(nodes, "b")

    assert (use.forget, use.adds) == (forget, "f" if forget else "")


# --- the map in front ---


def flattened(
    *,
    format: str = "NHWC",  # noqa: A002 - TensorFlow's own word
    between: Sequence[Node] = (),
    map_of: str = "c",
    shape: Node | None = None,
    rows: int = 192,
    sizes: bool = True,
) -> str | None:
    """Of a MatMul of `rows` rows behind a Reshape of what `map_of` names, and a Conv2D of x [n, 8, 6, 4]."""
    known = {"_output_shapes": [(-1, 8, 6, 4)]} if sizes else {}
    wanted = [shape] if shape else [Node("wanted", "Const", (), {"value": Const([-1, rows])})]
    nodes = [
        *(X, *variable("c/k", 3, 3, 4, 4), *variable("k", rows, 5)),
        Node("c", "Conv2D", ["x", "c/k/read"], {"data_format": format, **known}),
        *between,
        *(Node("n", "StridedSlice", ["x"]), number("all", -1), *wanted),
        Node("flat", "Reshape", [map_of, "wanted"]),
        Node("relu", "Relu", ["flat"]),
        Node("y", "MatMul", ["relu", "k/read"]),
    ]
    (use,) = of(nodes, "k")
    return str(use.flattened) if use.flattened else None


PACK = Node("wanted", "Pack", ["n", "all"])


def test_a_map_that_is_flattened() -> None:
    assert flattened() == "8 x 6 x 4"
    assert flattened(sizes=False, shape=PACK) == "(48 places) x 4"
    relu = Node("r", "Relu", ["c"], {"_output_shapes": [(-1, 8, 6, 4)]})
    pool = Node("p", "MaxPool", ["r"], {"_output_shapes": [(-1, 4, 3, 4)]})
    assert flattened(between=[relu, pool], map_of="p", rows=48) == "4 x 3 x 4"
    assert flattened(between=[Node("p", "AvgPool", ["c"])], map_of="p", sizes=False, shape=PACK, rows=48) == (
        "(12 places) x 4"
    )


def test_a_line_that_is_flattened() -> None:
    squeezed = Node("s", "Squeeze", ["c"], {"_output_shapes": [(-1, 48, 4)]})

    assert flattened(between=[squeezed], map_of="s") == "48 x 4"


@pytest.mark.parametrize(
    "given",
    [
        {"format": "NCHW"},
        {"rows": 24},  # of each row of the map, or something else
        {"sizes": False},  # [-1, 192] may be all of a picture or half of it
        {"between": [Node("t", "Transpose", ["c"], {"_output_shapes": [(-1, 4, 8, 6)]})], "map_of": "t"},
        {"between": [Node("m", "Mean", ["c"], {"_output_shapes": [(-1, 4)]})], "map_of": "m", "rows": 4},
        {"map_of": "x"},
        {"shape": Node("wanted", "Const", (), {"value": Const([-1, 48, 4])})},
        {"sizes": False, "shape": PACK, "rows": 190},
        {"sizes": False, "shape": Node("wanted", "Pack", ["all", "n"])},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_flattened_map(given: dict[str, Any]) -> None:
    assert flattened(**given) is None
