"""The form of a step: one for all spellings of the same, another for everything else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2t import axes as notation
from t2t import mapping as mapping_file
from t2t import plan as planning
from t2t.axes import Transform
from t2t.review import assignments
from t2t.tensors import CheckpointInventory, ModuleInventory, ParameterRef, TensorRef

SHAPES = {"w": (6, 4), "k": (3, 3, 2, 8), "d": (24, 5), "b": (8,), "one": (1, 1, 4, 6), "sq": (4, 4)}


#: A row with two axes to add to.
TWICE = "{tf: w, torch: p, axes: a b -> a b, order: {a: uvwxyz -> uvwxyz, b: abcd -> abcd},"


def form(row: str, *, dtype: str | None = None, more: str = "", shape: tuple[int, ...] | None = None) -> dict[str, Any]:
    """The form of what one row (YAML's flow) does to the parameter p."""
    text = f"t2t: 1\nmodel: a:A\nsource: {{}}\n{more}map:\n- {row}\n"
    read, problems = mapping_file.read(text.encode(), "m.yaml")
    assert read is not None
    assert not problems, problems
    refs = {name: TensorRef(name, "float32", own) for name, own in SHAPES.items()}
    module = None if shape is None else ModuleInventory({"p": ParameterRef("p", "float32", shape)})
    plan, _ = planning.make(read, CheckpointInventory(refs), module)
    return assignments.form(plan.steps[0], dtype)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("{tf: w, torch: p, axes: i o -> o i}", "{tf: w, torch: p, permute: [1, 0]}"),
        ("{tf: w, torch: p, axes: i o -> i o}", "{tf: w, torch: p, permute: [0, 1]}"),
        ("{tf: k, torch: p, axes: h w i o -> o i h w}", "{tf: k, torch: p, permute: [3, 2, 0, 1]}"),
        # A group that nothing takes apart.
        ("{tf: w, torch: p, axes: (g i) o -> o (g i), dims: {g: 2}}", "{tf: w, torch: p, axes: i o -> o i}"),
        # An axis of size 1 may stand anywhere between the others.
        ("{tf: one, torch: p, axes: a b i o -> o (a i b)}", "{tf: one, torch: p, axes: a b i o -> o (b a i)}"),
        # Two steps that are one.
        (
            "{tf: d, torch: p, axes: [(h w) o -> (w h) o, a o -> o a], dims: {h: 4}}",
            "{tf: d, torch: p, axes: (h w) o -> o (w h), dims: {h: 4}}",
        ),
        ("{tf: w, torch: p, axes: [a b -> b a, c d -> d c]}", "{tf: w, torch: p, axes: a b -> a b}"),
        # An order that only turns round, and one that leaves all as it is.
        ("{tf: b, torch: p, axes: (g u) -> (g u), dims: {g: 2}, order: {g: ab -> ba}}",
         "{tf: b, torch: p, axes: (g u) -> (g u), dims: {g: 2}, flip: [g]}"),
        ("{tf: b, torch: p, axes: (g u) -> (g u), dims: {g: 2}, order: {g: ab -> ab}}", "{tf: b, torch: p}"),
        # A float's number is what it is, however it is written.
        ("{tf: b, torch: p, scale: 2}", "{tf: b, torch: p, scale: 2.0}"),
        # A slice that is the whole, and where it ends.
        ('{tf: w, torch: p, slice: [":"], axes: i o -> o i}', "{tf: w, torch: p, axes: i o -> o i}"),
        ('{tf: w, torch: p, slice: ["2:"], axes: i o -> o i}', '{tf: w, torch: p, slice: ["-4:6"], axes: i o -> o i}'),
        ("{tf: b, torch: p, add: {g: {a: 1.0}}, axes: (g u) -> (g u), dims: {g: 2}, order: {g: ab -> ba}}",
         "{tf: b, torch: p, add: {x: {d: 1.0}}, axes: (x y) -> (x y), dims: {y: 4}, order: {x: dc -> cd}}"),
    ],
)  # fmt: skip
def test_spellings_of_the_same(one: str, other: str) -> None:
    assert form(one) == form(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("{tf: sq, torch: p, axes: i o -> o i}", "{tf: sq, torch: p, axes: i o -> i o}"),
        ("{tf: d, torch: p, axes: (h w) o -> o (w h), dims: {h: 4}}",
         "{tf: d, torch: p, axes: (h w) o -> o (w h), dims: {h: 6}}"),
        ("{tf: b, torch: p}", "{tf: b, torch: p, flip: [0]}"),
        ("{tf: b, torch: p}", "{tf: b, torch: p, scale: 2}"),
        ("{tf: b, torch: p, scale: 2}", "{tf: b, torch: p, scale: 2.5}"),
        ("{tf: b, torch: p, add: 1}", "{tf: b, torch: p, add: 2}"),
        ("{tf: b, torch: p}", "{tf: b, torch: p, dtype: float16}"),
        ("{tf: b, torch: p}", '{tf: b, torch: p, slice: ["0:4"]}'),
        ('{tf: b, torch: p, slice: ["4:8"]}', '{tf: b, torch: p, slice: ["0:4"]}'),
        ('{tf: b, torch: p, into: ["0:8"]}', '{tf: b, torch: p, into: ["1:9"]}'),
        ("{torch: p, fill: 0}", "{torch: p, fill: 1}"),
        # Sums of floats depend on their order.
        (f"{TWICE} add: {{a: {{z: 1}}, b: {{d: 2}}}}}}",
         f"{TWICE} add: {{b: {{d: 2}}, a: {{z: 1}}}}}}"),
        ("{torch: p, fill: 0}", "{torch: p, keep: init, why: x}"),
        ("{torch: p, tie: q}", "{torch: p, tie: r}"),
        ("{tf: [w, sq], torch: p, join: a, axes: a b -> b a}", "{tf: [sq, w], torch: p, join: a, axes: a b -> b a}"),
        ("{tf: b, torch: p, add: {g: {a: 1.0}}, axes: (g u) -> (g u), dims: {g: 2}, order: {g: ab -> ba}}",
         "{tf: b, torch: p, add: {g: {b: 1.0}}, axes: (g u) -> (g u), dims: {g: 2}, order: {g: ab -> ba}}"),
        ("{tf: b, torch: p, add: {g: {a: 1.0}}, axes: (g u) -> (g u), dims: {g: 2}, order: {g: ab -> ab}}",
         "{tf: b, torch: p, add: {g: {a: 1.0}}, axes: (g u) -> (g u), dims: {g: 4}, order: {g: abcd -> abcd}}"),
    ],
)  # fmt: skip
def test_what_is_not_the_same(one: str, other: str) -> None:
    shape = (9,) if "into" in other or "{torch: p" in one else None
    assert form(one, shape=shape) != form(other, shape=shape)


def test_the_sizes_of_what_is_joined_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same row over another checkpoint: what comes out is as large, and its pieces are not."""
    row = "{tf: [w, sq], torch: p, join: a, axes: a b -> b a}"
    one = form(row)
    monkeypatch.setitem(SHAPES, "w", (4, 4))
    monkeypatch.setitem(SHAPES, "sq", (6, 4))

    other = form(row)

    assert (one["shape"], other["shape"]) == ([4, 10], [4, 10])
    assert one != other


def test_the_file_s_dtypes_count() -> None:
    row = "{tf: b, torch: p}"
    assert form(row, dtype="bfloat16") != form(row)
    assert form(row, dtype="float32") == form(row)
    assert form(row, more="dtype: float16\n") == form("{tf: b, torch: p, dtype: float16}")


def test_a_form_s_digest_is_that_of_its_json() -> None:
    text = "t2t: 1\nmodel: a:A\nsource: {}\nmap:\n- {tf: b, torch: p}\n"
    read, _ = mapping_file.read(text.encode(), "m.yaml")
    assert read is not None
    plan, _ = planning.make(read, CheckpointInventory({"b": TensorRef("b", "float32", (8,))}), None)
    own = {"dtype": "float32", "moves": [{"permute": [0], "split": [8]}], "reads": [["b"]]}
    assert assignments.form(plan.steps[0], None) == {"dtype": "float32", "parts": [own], "shape": [8]}
    # `printf '...' | sha256sum` of that JSON, without spaces and with its keys sorted.
    assert assignments.digest(plan.steps[0], None) == "e41cd355c9b0f172"


@st.composite
def movements(draw: st.DrawFn) -> list[Transform]:
    """A shape, and one to three steps that move its elements, each splitting what the former made as it likes."""
    sizes = draw(st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=4))
    shape, moves = tuple(sizes), []
    for index in range(draw(st.integers(1, 3))):
        elementary: list[int] = []
        left: list[str] = []
        dims: dict[str, int] = {}
        for size in shape:
            factors = draw(
                st.sampled_from([own for own in ([size], [2, size // 2], [size, 1]) if np.prod(own) == size])
            )
            names = [f"x{len(elementary) + k}" for k in range(len(factors))]
            dims |= dict(zip(names, factors, strict=True))
            elementary += factors
            left.append(f"({' '.join(names)})")
        names = draw(st.permutations([f"x{k}" for k in range(len(elementary))]))
        cut = draw(st.integers(0, len(names)))
        right = f"({' '.join(names[:cut])}) ({' '.join(names[cut:])})"
        flip = draw(st.lists(st.sampled_from(names), max_size=2, unique=True)) if index == 0 else []
        move = notation.parse(f"{' '.join(left)} -> {right}").resolve(shape, dims, flip)
        moves.append(move)
        shape = move.output
    return moves


@settings(max_examples=400, deadline=None)
@given(movements())
def test_a_simpler_movement_moves_the_same(moves: list[Transform]) -> None:
    array = np.arange(np.prod(moves[0].input, dtype=int)).reshape(moves[0].input)
    wanted = array
    for move in moves:
        wanted = move.apply(wanted)
    found = array
    for move in assignments.composed(moves):
        found = move.apply(found)
        assert 1 not in move.elementary
    assert (found == wanted).all()


@settings(max_examples=400, deadline=None)
@given(movements(), movements())
def test_movements_of_one_form_move_the_same(one: list[Transform], other: list[Transform]) -> None:
    """And the other way round, where each is one movement: what moves the same has one form."""
    if one[0].input != other[0].input or one[-1].output != other[-1].output:
        return
    array = np.arange(np.prod(one[0].input, dtype=int)).reshape(one[0].input)
    results = []
    for moves in (one, other):
        result = array
        for move in moves:
            result = move.apply(result)
        results.append(result)
    forms = [[(m.elementary, m.permutation, m.flips) for m in assignments.composed(moves)] for moves in (one, other)]
    is_same = bool((results[0] == results[1]).all())
    assert is_same or forms[0] != forms[1]
    if len(forms[0]) == len(forms[1]) == 1:
        assert is_same == (forms[0] == forms[1])
