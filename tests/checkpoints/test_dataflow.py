"""Functions stand where they are called, variables have their names, and a hostile graph stays small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from t2t.checkpoints import dataflow
from t2t.checkpoints import graph as graphs
from t2t.checkpoints.dataflow import Dataflow
from t2t.checkpoints.protobuf import Corrupt
from tests.checkpoints.graphs import Const, Func, Node, function, meta_graph, variable


def flow(
    nodes: Sequence[Node],
    *functions: bytes,
    signatures: Mapping[str, Mapping[str, str]] | None = None,
) -> Dataflow:
    return dataflow.connected(graphs.decode("graph", meta_graph(nodes, functions, signatures)))


def reads(made: Dataflow, name: str) -> list[tuple[str, int]]:
    """What the operation of this name reads: names and which of their results."""
    (operation,) = (one for one in made.operations if one.name == name)
    return [(made.operations[position].name, output) for position, output in operation.inputs]


SPLIT = function(
    "halves",
    ["a", "w"],
    [Node("s", "Split", ["a"]), Node("m", "MatMul", ["s:output:1", "w"])],
    {"one": "m:product:0", "two": "s:output:1", "same": "w"},
)


def test_a_call_is_the_body_of_its_function() -> None:
    nodes = [
        Node("x", "Placeholder"),
        *variable("w", 2, 2),
        Node("call", "StatefulPartitionedCall", ["x", "w/read"], {"f": Func("halves")}),
        Node("a", "Relu", ["call"]),
        Node("b", "Relu", ["call:1"]),
        Node("c", "Relu", ["call:2"]),
    ]
    made = flow(nodes, SPLIT, signatures={"serving_default": {"y": "call:1"}})

    assert reads(made, "call/m") == [("call/s", 1), ("w/read", 0)]
    assert reads(made, "a") == [("call/m", 0)]
    assert reads(made, "b") == [("call/s", 1)]
    assert reads(made, "c") == [("w/read", 0)]
    position, output = made.signatures["serving_default"]["y"]
    assert (made.operations[position].name, output) == ("call/s", 1)


def test_a_function_in_a_function_and_one_that_is_called_by_its_name() -> None:
    outer = function("outer", ["b"], [Node("call", "halves", ["b", "b"])], {"y": "call:one:0"})
    made = flow([Node("x", "Placeholder"), Node("o", "outer", ["x"]), Node("r", "Relu", ["o"])], outer, SPLIT)

    assert reads(made, "r") == [("o/call/m", 0)]
    assert reads(made, "o/call/m") == [("o/call/s", 1), ("x", 0)]


def test_a_branch_and_a_loop_depend_on_their_bodies() -> None:
    nodes = [
        Node("p", "Placeholder"),
        *variable("v", 2),
        Node("if", "StatelessIf", ["p", "v/read"], {"then_branch": Func("then"), "else_branch": Func("else")}),
        Node("while", "While", ["v/read"], {"cond": Func("else"), "body": Func("then")}),
        Node("r", "Relu", ["if"]),
    ]
    then = function("then", ["a"], [Node("t", "Tanh", ["a"])], {"y": "t:y:0"})
    otherwise = function("else", ["a"], [Node("e", "Exp", ["a"])], {"y": "e:y:0"})
    made = flow(nodes, then, otherwise)

    assert reads(made, "if") == [("p", 0), ("v/read", 0), ("if/t", 0), ("if/e", 0)]
    assert reads(made, "if/t") == [("v/read", 0)]
    assert [name for name, _ in reads(made, "while")] == ["v/read", "while/e", "while/t"]
    needed = made.ancestors([(made.names["r"], 0)])
    assert {made.operations[position].name for position in needed} == {"r", "if", "p", "v", "v/read", "if/t", "if/e"}


def test_variables_go_by_their_names_in_the_model() -> None:
    nodes = [
        Node("a", "VariableV2", (), {"shape": (2,), "shared_name": ""}),
        Node("dense/kernel_1", "VarHandleOp", (), {"shape": (2,), "shared_name": "dense/kernel"}),
        Node("b", "VarHandleOp", (), {"shape": (2,), "shared_name": "twice"}),
        Node("c", "VarHandleOp", (), {"shape": (2,), "shared_name": "twice"}),
        Node("d", "Const", (), {"value": Const([1])}),
    ]

    assert flow(nodes).variables == {"a": 0, "dense/kernel": 1}
    assert flow(nodes[4:]).variables == {"d": 0}  # a frozen graph


def test_what_the_checkpoint_is_read_into() -> None:
    nodes = [
        *variable("v", 2),
        Node("h", "VarHandleOp", (), {"shape": (2,)}),
        Node("prefix", "Const", (), {"value": Const(["model"])}),
        Node("names", "Const", (), {"value": Const(["key/a", "key/b", "key/c"])}),
        Node("restore", "RestoreV2", ["prefix", "names", "prefix"]),
        Node("one", "Assign", ["v", "restore"]),
        Node("again", "Identity", ["restore:1"]),
        Node("two", "AssignVariableOp", ["h", "again"]),
        Node("three", "Assign", ["v", "restore:2"]),
        Node("four", "AssignVariableOp", ["h", "restore:2"]),
        Node("five", "Assign", ["v", "restore:7"]),
    ]

    assert flow(nodes).restored == {"key/a": 0, "key/b": 2}


def test_the_real_names_are_those_that_the_graph_itself_reads(shared_data: Path) -> None:
    """TensorFlow's own Saver says which variable gets which tensor of the checkpoint: the names are the variables'."""
    made = dataflow.read("graph", str(shared_data / "madry/checkpoint-99900.meta"))

    assert made.restored == made.variables
    assert len(made.variables) == 27


# --- limits ---


def test_functions_that_make_a_long_graph_of_a_short_one_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each calls the next twice: 20 functions of 2 operations are a million."""
    functions = [
        function(
            f"f{level}",
            ["a"],
            [Node(name, "PartitionedCall", ["a"], {"f": Func(f"f{level + 1}")}) for name in ("one", "two")],
            {"y": "one:y:0"},
        )
        for level in range(20)
    ]
    nodes = [Node("x", "Placeholder"), Node("call", "PartitionedCall", ["x"], {"f": Func("f0")})]
    monkeypatch.setattr(dataflow, "MAX_OPERATIONS", 10_000)

    with pytest.raises(Corrupt, match=r"^with its functions it has more than 10000 operations$"):
        flow(nodes, *functions)


def test_a_function_that_calls_itself_is_refused() -> None:
    again = function("f", ["a"], [Node("c", "PartitionedCall", ["a"], {"f": Func("f")})], {"y": "c:y:0"})
    nodes = [Node("x", "Placeholder"), Node("call", "PartitionedCall", ["x"], {"f": Func("f")})]

    with pytest.raises(Corrupt, match=r"^its functions call each other more than 64 deep$"):
        flow(nodes, again)


def test_a_graph_without_functions_may_be_as_long_as_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataflow, "MAX_OPERATIONS", 2)

    assert len(flow([Node(name, "NoOp") for name in "abc"]).operations) == 3


def test_calls_one_after_the_other_are_followed_once() -> None:
    """Each call gives back what it was given: the last result is the first input."""
    same = function("same", ["a"], [], {"y": "a"})
    count = 2000
    nodes = [Node("c0", "Placeholder")]
    nodes += [Node(f"c{i}", "PartitionedCall", [f"c{i - 1}"], {"f": Func("same")}) for i in range(1, count)]

    made = flow([*nodes, Node("r", "Relu", [f"c{count - 1}"])], same)

    assert reads(made, "r") == [("c0", 0)]


def test_a_circle_of_results_ends() -> None:
    same = function("same", ["a"], [], {"y": "a"})
    nodes = [
        Node("a", "PartitionedCall", ["b"], {"f": Func("same")}),
        Node("b", "PartitionedCall", ["a"], {"f": Func("same")}),
        Node("r", "Relu", ["a"]),
    ]

    assert len(flow(nodes, same).ancestors([(2, 0)])) <= 3
