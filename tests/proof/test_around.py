"""
What lies around a layer, against the definition: every path there is, written down.

No library is asked: in graphs this small all paths can be walked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2t.proof.originals.around import REACH, around, tensors_around

Graph = list[list[int]]


def paths(steps: Sequence[Collection[int]], node: int, ends: Collection[int]) -> Iterator[list[int]]:
    """Every way from the node to one of the ends, without itself; it may end at each end that it comes to."""
    if node in ends:
        yield []
    for one in steps[node]:
        yield from ([one, *path] for path in paths(steps, one, ends))


def on_all(ways: list[list[int]]) -> list[int]:
    """What lies on every way, in the order of the first one."""
    return [node for node in ways[0] if all(node in way for way in ways)] if ways else []


def expected(inputs: Graph, layers: Collection[int], ends: Collection[int], node: int) -> tuple[list[int], list[int]]:
    """By the definition: what all ways from the inputs to the node pass, and all ways from it to an end."""
    outputs: Graph = [[other for other in range(len(inputs)) if one in inputs[other]] for one in range(len(inputs))]
    sources = [one for one in range(len(inputs)) if not inputs[one]]
    before, after = on_all(list(paths(inputs, node, sources))), on_all(list(paths(outputs, node, ends)))
    if stops := [place for place, one in enumerate(before) if one in layers]:
        before = before[: stops[0] + 1]
    if stops := [place for place, one in enumerate(after) if one in layers]:
        after = after[: stops[0]]
    return before[:REACH], after[:REACH]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Graph, list[int], list[int]]:
    """A graph of up to 9 nodes, some of which are layers and some of which are asked for."""
    size = draw(st.integers(1, 9))
    inputs = [
        sorted(draw(st.sets(st.integers(max(0, node - 4), node - 1), max_size=3)) if node else ())
        for node in range(size)
    ]
    some = st.sets(st.integers(0, size - 1))
    return inputs, sorted(draw(some)), sorted(draw(some))


@settings(max_examples=300, deadline=None)
@given(graphs())
def test_what_lies_around_is_what_every_path_passes(made: tuple[Graph, list[int], list[int]]) -> None:
    inputs, layers, ends = made
    found = around(inputs, layers, ends)

    assert list(found) == layers
    for node, (before, after) in found.items():
        assert (list(before), list(after)) == expected(inputs, layers, ends, node)


CHAIN: Graph = [[], [0], [1], [2], [3], [4], [5], [6], [7], [8]]


@pytest.mark.parametrize(
    ("inputs", "layers", "ends", "before", "after"),
    [
        pytest.param(CHAIN, [5], [9], (4, 3, 2, 1), (6, 7, 8, 9), id="the closest four"),
        pytest.param(CHAIN, [2], [4], (1, 0), (3, 4), id="up to an input, down to an end"),
        pytest.param(CHAIN, [3, 5, 7], [9], (2, 1, 0), (4,), id="no further than another layer"),
        pytest.param(CHAIN, [5, 3], [9], (4, 3), (6, 7, 8, 9), id="the layer before it, too"),
        pytest.param([[], [0], [0, 1], [1, 2]], [1], [3], (0,), (3,), id="past it there is another way"),
        pytest.param([[], [0], [0], [1, 2], [3]], [3], [4], (0,), (4,), id="two ways come together"),
        pytest.param([[], [], [0, 1], [2]], [2], [3], (), (3,), id="two inputs"),
        pytest.param([[], [0], [1], [1]], [1], [2, 3], (0,), (), id="two ends"),
        pytest.param([[], [0], [1], [2]], [1], [1, 3], (0,), (), id="an end that goes on"),
        pytest.param([[], [0], [1], [1], [2]], [1], [4], (0,), (2, 4), id="one way leads nowhere"),
        pytest.param([[], [0], [1], [1]], [2], [3], (1, 0), (), id="the layer leads nowhere"),
        pytest.param([[], [0]], [1], [], (0,), (), id="nothing is asked for"),
        pytest.param([[]], [0], [0], (), (), id="nothing but the layer"),
    ],
)
def test_what_lies_around_the_first_layer(
    inputs: Graph, layers: list[int], ends: list[int], before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    assert around(inputs, layers, ends)[layers[0]] == (before, after)


def test_a_graph_of_thousands_of_operations_is_no_matter_of_recursion() -> None:
    """With a branch past everything."""
    size = 20_000
    inputs = [[], *([node - 1] for node in range(1, size)), [0, size - 1]]

    assert around(inputs, [1, size - 1], [size]) == {
        1: ((0,), (2, 3, 4, 5)),
        size - 1: ((size - 2, size - 3, size - 4, size - 5), (size,)),
    }


def test_tensors_go_by_name_and_the_operations_that_make_them() -> None:
    """A layer norm by hand: what goes into all of it is before its factor, what it gives after its shift."""
    taken = {
        "mean": ["x:0"],
        "centred": ["x:0", "mean:0"],
        "spread": ["centred:0"],
        "scaled": ["centred:0", "spread:0"],
        "gamma": ["scaled:0"],
        "beta": ["gamma:0"],
        "y": ["beta:0"],
    }
    made_by = {f"{name}:0": name for name in taken}

    assert tensors_around(taken, made_by, ["gamma", "beta"], ["y:0"]) == {
        "gamma": (("scaled:0", "centred:0", "x:0"), ()),
        "beta": (("gamma:0",), ("y:0",)),
    }


def test_of_several_tensors_of_one_operation_none_is_what_everything_passes() -> None:
    taken = {"split": ["x"], "one": ["left"], "other": ["right"], "sum": ["one", "other"], "half": ["sum"]}
    made_by = {"left": "split", "right": "split", "one": "one", "other": "other", "sum": "sum", "half": "half"}

    assert tensors_around(taken, made_by, ["sum"], ["half"]) == {"sum": (("x",), ("half",))}
    # One of them that is not used is no matter, and one that is asked for is.
    single = {"split": ["x"], "one": ["left"], "sum": ["one"]}
    assert tensors_around(single, made_by, ["sum"], ["sum"]) == {"sum": (("one", "left", "x"), ())}
    assert tensors_around(single, made_by, ["sum"], ["sum", "right"]) == {"sum": (("one", "x"), ())}


def test_what_a_loop_leads_back_is_no_way_in() -> None:
    taken = {"merge": ["x", "next"], "turn": ["merge"], "next": ["turn"], "exit": ["merge"], "y": ["exit"]}
    made_by = {name: name for name in taken}

    assert tensors_around(taken, made_by, ["turn", "y"], ["y"]) == {
        "turn": (("merge", "x"), ()),
        "y": (("exit", "merge", "x"), ()),
    }


def test_what_is_asked_for_may_be_fed_or_made_of_nothing_that_is() -> None:
    taken = {"y": ["x"]}

    assert tensors_around(taken, {"y": "y", "c": "constant"}, ["y"], ["y", "x", "c"]) == {"y": (("x",), ())}
