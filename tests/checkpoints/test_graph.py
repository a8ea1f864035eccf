"""Graphs are decoded as TensorFlow decodes them, and what is none is refused with one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2t.checkpoints import dataflow
from t2t.checkpoints import graph as graphs
from t2t.checkpoints.graph import Constant
from t2t.checkpoints.protobuf import Corrupt
from t2t.problems import CheckpointError
from tests.checkpoints.graphs import Const, Func, Node, function, graph, meta_graph, node, saved_model, variable, write
from tests.checkpoints.writing import message

SMALL = meta_graph(
    [
        *variable("w", 3, 3, 1, 2),
        Node("x", "Placeholder", (), {"shape": (-1, 8, 8, 1)}),
        Node("c", "Conv2D", ["x", "w/read", "^x"], {"strides": [1, 2, 2, 1], "padding": "SAME", "data_format": "NHWC"}),
        Node("r", "Relu", ["c"], {"_output_shapes": [(-1, 4, 4, 2)]}),
        Node("s", "Const", (), {"value": Const([-1, 32])}),
        Node("f", "Reshape", ["r", "s:0"], {"Tshape": 3}),
        Node("call", "PartitionedCall", ["f"], {"f": Func("twice")}),
    ],
    [function("twice", ["a"], [Node("m", "Mul", ["a", "a"])], {"y": "m:z:0"})],
    {"serving_default": {"out": "call:0"}},
)


def refused(kind: graphs.Kind, path: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        dataflow.read(kind, path)
    return str(caught.value).replace(f"{Path(path).parent}/", "")


# --- values ---


def test_a_graph_is_its_operations_with_what_they_read_and_how_they_are_set() -> None:
    read = graphs.decode("graph", SMALL)

    assert [(one.name, one.op, one.inputs) for one in read.nodes] == [
        ("w", "VariableV2", ()),
        ("w/read", "Identity", ("w",)),
        ("x", "Placeholder", ()),
        ("c", "Conv2D", ("x", "w/read")),
        ("r", "Relu", ("c",)),
        ("s", "Const", ()),
        ("f", "Reshape", ("r", "s:0")),
        ("call", "PartitionedCall", ("f",)),
    ]
    by_name = {one.name: one.attributes for one in read.nodes}
    assert by_name["w"] == {"shape": (3, 3, 1, 2)}
    assert by_name["c"] == {"strides": (1, 2, 2, 1), "padding": "SAME", "data_format": "NHWC"}
    assert by_name["r"] == {"_output_shapes": ((-1, 4, 4, 2),)}
    assert by_name["s"] == {"value": Constant((2,), (-1, 32))}
    assert by_name["f"] == {}
    assert read.functions["twice"].arguments == ("a",)
    assert read.functions["twice"].results == ("m:z:0",)
    assert read.signatures == {"serving_default": {"out": "call:0"}}


def test_a_saved_model_is_its_first_graph_and_a_frozen_one_is_the_graph_itself() -> None:
    other = meta_graph([Node("other", "NoOp")])

    assert graphs.decode("saved_model", saved_model(SMALL, other)) == graphs.decode("graph", SMALL)
    assert [one.name for one in graphs.decode("frozen", graph([Node("a", "NoOp")])).nodes] == ["a"]


def test_functions_that_nobody_calls_are_not_decoded() -> None:
    """Most of a SavedModel's are for training, and nothing in its graph calls them."""
    broken = message((1, message((1, b"training"))), (3, b"\xff"))
    content = meta_graph([Node("a", "NoOp")], [broken])

    assert graphs.decode("graph", content).functions == {}


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (message((1, 3), (2, message((2, message((1, 2))))), (7, 5)), Constant((2,), (5, 5))),  # one for all
        (message((1, 3), (2, message((2, message((1, 2)))))), Constant((2,), (0, 0))),
        (message((1, 9), (2, b""), (10, -7)), Constant((), (-7,))),
        (message((1, 1), (2, b""), (5, b"\0\0\x80\x3f")), Constant((), (1.0,))),
        (message((1, 2), (2, b""), (6, b"\0\0\0\0\0\0\xf0\x3f")), Constant((), (1.0,))),
        (message((1, 3), (2, message((2, message((1, 65))))), (7, 5)), Constant((65,), None)),  # over the limit
        (message((1, 7), (2, message((2, message((1, 2))))), (8, b"a"), (8, b"b")), Constant((2,), None, ("a", "b"))),
        (message((1, 14), (2, b""), (4, b"\0\0")), Constant((), None)),  # bfloat16
        (message((1, 3), (2, message((3, 1)))), Constant(None, None)),
        (message((1, 3), (2, message((2, message((1, -1))))), (7, 5)), Constant((-1,), None)),
    ],
)
def test_the_values_of_a_constant(tensor: bytes, expected: Constant) -> None:
    entry = message((1, b"value"), (2, message((8, tensor))))
    content = message((1, message((1, b"c"), (2, b"Const"), (5, entry))))

    assert graphs.decode("frozen", content).nodes[0].attributes == {"value": expected}


# --- refusals ---


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "it has no operation"),
        (message((1, b"")), "it has no operation"),
        (message((2, message((1, 5)))), "protobuf field 1 has the wire type 0, but needs 2"),
        (message((2, message((1, message((1, 5)))))), "protobuf field 1 has the wire type 0, but needs 2"),
        (message((2, b"\x0a\x7f")), "protobuf field 1 claims 127 bytes, but 0 are left"),
        (b"\x0b\x00", "protobuf field 1 has the wire type 3"),
        (meta_graph([Node("a", "Relu", ["b"])]), "an operation reads b, which is not there"),
        (meta_graph([Node("a", "Relu", ["a:x"])]), "an operation reads a:x, which is not there"),
        (meta_graph([Node("a", "NoOp"), Node("a", "NoOp")]), "two operations have one name"),
        (
            meta_graph([Node("a", "PartitionedCall", [], {"f": Func("g")})], [function("g", ["x"], [], {})]),
            "a calls g with 0 of 1 inputs",
        ),
        (
            meta_graph(
                [Node("a", "PartitionedCall", [], {"f": Func("g")})],
                [message((1, message((1, b"g"), (3, message((1, b"y"))))))],
            ),
            "the function g does not say what its output y is",
        ),
        (
            message(
                (
                    2,
                    message(
                        (
                            1,
                            message(
                                (1, b"c"),
                                (2, b"Const"),
                                (
                                    5,
                                    message(
                                        (1, b"value"),
                                        (
                                            2,
                                            message(
                                                (8, (message((1, 3), (2, message((2, message((1, 2))))), (4, b"\0\0"))))
                                            ),
                                        ),
                                    ),
                                ),
                            ),
                        )
                    ),
                )
            ),
            "a constant [2] has 2 bytes of values",
        ),
    ],
)
def test_a_graph_that_is_none_is_refused(tmp_path: Path, content: bytes, text: str) -> None:
    path = write(tmp_path / "x.meta", content)

    assert refused("graph", path) == f"x.meta: T2T604: not a graph that t2t reads: {text}"


def test_what_is_over_a_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.meta", SMALL)

    monkeypatch.setattr(graphs, "MAX_NODES", 9)
    assert len(dataflow.read("graph", path).operations) == 9
    monkeypatch.setattr(graphs, "MAX_NODES", 8)
    text = "x.meta: T2T611: not a graph that t2t reads: it has more than 8 operations"
    assert refused("graph", path) == text
    monkeypatch.setattr(graphs, "MAX_NODES", 7)
    assert refused("graph", path) == text.replace("8", "7")
    monkeypatch.setattr(graphs, "MAX_BYTES", 10)
    text = f"x.meta: T2T611: the file has {len(SMALL)} bytes, but at most 10 are read"
    assert refused("graph", path) == text


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    assert refused("graph", str(tmp_path / "x.meta")) == ("x.meta: T2T602: cannot be opened: no such file or directory")
    (tmp_path / "y.meta").mkdir()
    assert refused("graph", str(tmp_path / "y.meta")) == "y.meta: T2T602: not a regular file"


def read_or_refused(kind: graphs.Kind, data: bytes) -> None:
    try:
        dataflow.connected(graphs.decode(kind, data))
    except Corrupt:
        return


def test_it_is_read_or_refused_when_cut_off_at_any_byte() -> None:
    whole = saved_model(SMALL)
    for size in range(len(whole)):
        read_or_refused("saved_model", whole[:size])


@settings(max_examples=1500, derandomize=True, database=None, deadline=None)
@given(st.integers(0, len(SMALL) - 1), st.integers(1, 255), st.integers(0, len(SMALL) - 1), st.integers(0, 255))
def test_it_is_read_or_refused_when_bytes_are_flipped(at: int, by: int, other: int, by_other: int) -> None:
    data = bytearray(SMALL)
    data[at] ^= by
    data[other] ^= by_other
    read_or_refused("graph", bytes(data))


@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for kind in ("graph", "saved_model", "frozen"):
        read_or_refused(kind, data)
        read_or_refused("frozen", node(Node("a", "Const")) + data)


# --- against TensorFlow ---

WITH_TENSORFLOW = Path(__file__).with_name("with_tensorflow_graphs.py")
KINDS: dict[str, graphs.Kind] = {".meta": "graph", "del.pb": "saved_model", ".pb": "frozen"}


@pytest.fixture(scope="module")
def files(shared_data: Path) -> list[str]:
    own = Path(__file__).resolve().parents[2] / "mappings/checkpoints"
    found = [*shared_data.rglob("*.meta"), *shared_data.rglob("saved_model.pb"), *own.rglob("*.meta")]
    frozen = shared_data.glob("fsrcnn/*/models/*.pb")
    # Of the two that are a model and a larger one of its kind, the smaller is enough.
    return [str(path) for path in sorted([*found, *frozen]) if not {"KennyCandy+HAR", "x2"} & set(path.parts)]


@pytest.fixture(scope="module")
def tensorflows(files: list[str]) -> dict[str, Any]:
    """What TensorFlow's own classes say about the files."""
    pytest.importorskip("tensorflow")
    done = subprocess.run([sys.executable, str(WITH_TENSORFLOW), *files], capture_output=True, text=True, check=True)
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


def values(found: object) -> object:
    """As JSON has it."""
    if isinstance(found, Constant):
        return {"shape": values(found.shape), "values": values(found.values), "texts": list(found.texts)}
    return [values(one) for one in found] if isinstance(found, tuple) else found


def described(nodes: tuple[graphs.Node, ...]) -> list[object]:
    return [[one.name, one.op, list(one.inputs), {k: values(v) for k, v in one.attributes.items()}] for one in nodes]


def same(one: object, two: object) -> bool:
    """By the text: a NaN is one."""
    return json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)


def test_real_graphs_are_what_tensorflow_says(files: list[str], tensorflows: dict[str, Any]) -> None:
    assert len(files) > 20
    for path in files:
        kind = next(kind for ending, kind in KINDS.items() if path.endswith(ending))
        read, expected = graphs.read(kind, path), tensorflows[path]

        assert same(described(read.nodes), expected["nodes"]), path
        assert {name: dict(outputs) for name, outputs in read.signatures.items()} == expected["signatures"], path
        for name, made in read.functions.items():
            mine = [list(made.arguments), list(made.results), described(made.nodes)]
            assert same(mine, expected["functions"][name]), (path, name)
        assert (len(read.functions) > 0) == any(
            f'"{name}"' in json.dumps(expected["nodes"]) for name in expected["functions"]
        ), path
