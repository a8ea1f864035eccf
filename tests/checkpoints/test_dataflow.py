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


def test_a_named_output_is_its_own_result() -> None:
    """In a function the number counts within one output: of an operation with several, the name says which."""
    two = function("two", ["x"], [Node("s", "Split", ["x"])], {"one": "s:output:2", "other": "x"})
    body = function(
        "body",
        ["a"],
        [
            Node("n", "FusedBatchNormV3", ["a", "a", "a", "a", "a"]),
            Node("b", "Switch", ["a", "n:batch_variance:0"]),
            Node("m", "Merge", ["b:output_true:0", "n:y:0"]),
            Node("c", "two", ["m:value_index:0"]),
            Node("call", "PartitionedCall", ["b:output_false:0"], {"f": Func("two")}),
            Node("r", "Add", ["c:other:0", "c:one:0"]),
            Node("q", "Add", ["call:output:1", "call:output:0"]),
        ],
        {"y": "r:z:0"},
    )
    made = flow([Node("x", "Placeholder"), Node("f", "PartitionedCall", ["x"], {"f": Func("body")})], body, two)

    assert reads(made, "f/b") == [("x", 0), ("f/n", 2)]
    assert reads(made, "f/m") == [("f/b", 1), ("f/n", 0)]
    assert reads(made, "f/r") == [("f/m", 1), ("f/c/s", 2)]
    assert reads(made, "f/q") == [("f/b", 0), ("f/call/s", 2)]


def test_an_output_that_an_operation_has_not() -> None:
    body = function("body", ["a"], [Node("b", "Switch", ["a", "a"]), Node("r", "Relu", ["b:output:1"])], {"y": "a"})

    with pytest.raises(Corrupt, match=r"^an operation reads b:output:1, which is not there$"):
        flow([Node("x", "Placeholder"), Node("f", "PartitionedCall", ["x"], {"f": Func("body")})], body)


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


X = Node("x", "Placeholder")


def calling(count: int, **attributes: Func) -> list[Node]:
    return [Node(f"c{i}", "PartitionedCall", ["x"], attributes) for i in range(count)]


@pytest.mark.parametrize(
    ("nodes", "functions"),
    [
        # results of a function without operations
        (calling(40, f=Func("f")), [function("f", ["a"], [], {f"y{i}": "a" for i in range(40)})]),
        # what the caller gives
        (
            [Node(f"c{i}", "PartitionedCall", ["x"] * 40, {"f": Func("f")}) for i in range(40)],
            [function("f", [], [], {})],
        ),
        # what the operations of a function read
        (calling(40, f=Func("f")), [function("f", ["a"], [Node("n", "AddN", ["a"] * 40)], {})]),
        # every branch is given all
        (
            [Node("c", "If", ["x"] * 600, {key: Func("f") for key in ("then_branch", "else_branch")})],
            [function("f", [], [], {})],
        ),
        # calls of nothing by a function's operations
        (
            calling(40, f=Func("f")),
            [
                function("f", ["a"], [Node(f"n{i}", "While", (), {"body": Func("g")}) for i in range(20)], {}),
                function("g", [], [], {}),
            ],
        ),
    ],
    ids=["results", "given", "inputs", "branches", "calls"],
)
def test_what_functions_read_and_give_is_bounded(
    nodes: Sequence[Node], functions: Sequence[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function may have no operation at all, and yet a thousand results in a thousand places."""
    nodes = [X, *nodes]
    assert len(flow(nodes, *functions).operations) < 2000
    monkeypatch.setattr(dataflow, "MAX_RESULTS", 1000)

    with pytest.raises(Corrupt, match=r"^its functions read and give more than 1000 results$") as raised:
        flow(nodes, *functions)
    assert raised.value.code == "T2T611"


def test_results_do_not_grow_with_the_calls() -> None:
    """2000 calls of 2000 results are four million."""
    function_ = function("f", ["a"], [], {f"y{i}": "a" for i in range(2000)})

    with pytest.raises(Corrupt, match=r"^its functions read and give more than 2000000 results$"):
        flow([X, *calling(2000, f=Func("f"))], function_)


def test_names_do_not_grow_with_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataflow, "MAX_CHARACTERS", 1000)
    long = function("f", ["a"], [Node("n" * 300, "Exp", ["a"])], {})

    assert len(flow([X, *calling(3, f=Func("f"))], long).operations) == 7
    with pytest.raises(Corrupt, match=r"^the names in its functions have more than 1000 characters$") as raised:
        flow([X, *calling(4, f=Func("f"))], long)
    assert raised.value.code == "T2T611"


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
