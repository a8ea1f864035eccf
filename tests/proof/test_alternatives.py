"""Other ways to write rows: each what numpy makes of it, each line the same again, a mistake's right row among them."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given as hypothetically
from hypothesis import settings
from hypothesis import strategies as st

from t2t import checkpoints, execute
from t2t import mapping as mapping_file
from t2t import plan as planning
from t2t.plan import Plan
from t2t.problems import MappingError, Problem
from t2t.proof.alternatives import Alternative, alternatives, together, values
from t2t.proof.written import text
from t2t.tensors import ModuleInventory, ParameterRef
from tests import given
from tests.gallery.shared import MAPPINGS, data
from tests.given import HEAD, Array, Memory, lines

Shapes = Mapping[str, tuple[int, ...]]


def counted(**shapes: tuple[int, ...]) -> Memory:
    """A checkpoint of these variables; `__` stands for /. No number is in it twice."""
    start = itertools.count(1, 1_000_000)
    return Memory({
        name.replace("__", "/"): np.arange(n := next(start), n + int(np.prod(shape)), dtype=np.float64).reshape(shape)
        for name, shape in shapes.items()
    })  # fmt: skip


def module(shapes: Shapes) -> ModuleInventory:
    return given.parameters(*(ParameterRef(name, "float64", shape) for name, shape in shapes.items()))


def planned(rows: Sequence[str], memory: Memory, shapes: Shapes) -> Plan:
    return given.planned("".join(f"- {row}\n" for row in rows), memory, module(shapes))


def found(plan: Plan, memory: Memory, maps: Sequence[tuple[int, ...]] = (), targets: Sequence[str] = ()) -> list[
    tuple[Alternative, dict[str, Array]]
]:  # fmt: skip
    """Every alternative with its values; those that every family keeps are tested here."""
    own = list(targets) or [step.target for step in plan.steps]
    right = dict(execute.tensors(plan, memory, {}))
    made = [(alternative, values(plan, memory, alternative)) for alternative in alternatives(plan, own, maps)]
    keys = {(part.rule.target, part.rule.into) for step in plan.steps for part in step.parts}
    told = [frozenset((name, array.tobytes()) for name, array in new.items()) for _, new in made]

    assert all((rule.target, rule.into) in keys for alternative, _ in made for rule in alternative.rules)
    assert all(new.keys() == {rule.target for rule in alternative.rules} for alternative, new in made)
    assert all(new[name].shape == right[name].shape for _, new in made for name in new)
    assert all(any(new[name].tobytes() != right[name].tobytes() for name in new) for _, new in made)
    assert len(set(told)) == len(told), "two alternatives give the same"
    return made


def giving(made: Sequence[tuple[Alternative, dict[str, Array]]], wanted: Mapping[str, Array]) -> Alternative:
    """The one alternative that gives these values, bit for bit."""
    same = [
        alternative
        for alternative, new in made
        if new.keys() == wanted.keys()
        and all(new[name].tobytes() == np.ascontiguousarray(wanted[name]).tobytes() for name in wanted)
    ]

    assert len(same) == 1, [alternative.what for alternative, _ in made]

    return same[0]


def pasted(written: str, rows: Sequence[str], replaces: Sequence[int]) -> list[str]:
    """
    The file's lines with these rows in place of those in these lines. A recipe's row is replaced by one; the others are
    all for `map`.
    """
    old, sections = written.splitlines(), [""]
    for line in old:
        sections.append(line if line[:1].isalpha() else sections[-1])
    assert list(replaces) == sorted(set(replaces))
    assert all(old[number - 1].lstrip().startswith("- ") for number in replaces)
    left, in_map = list(rows), [number for number in replaces if sections[number].startswith("map:")]
    in_recipes = [number for number in replaces if number not in in_map]
    assert all(sections[number].startswith("recipes:") for number in in_recipes)
    is_first = not in_map or in_recipes[:1] < in_map[:1]
    theirs = left[: len(in_recipes)] if is_first else left[len(left) - len(in_recipes) :]
    ours = [row for row in left if row not in theirs] if in_recipes else left
    new = {number: [row] for number, row in zip(in_recipes, theirs, strict=True)}
    new |= {number: ours if number == in_map[0] else [] for number in in_map}
    kept = []
    for number, line in enumerate(old, 1):
        dash = line.partition("-")[0] + "- "
        kept += [dash + row for row in new[number]] if number in new else [line]
    return kept


def is_stale(problem: Problem) -> bool:
    """Whether it tells of what no row uses any more."""
    return problem.message.endswith("is used by no row") and problem.hint in {"remove it", "remove it from for"}


def cleaned(kept: list[str]) -> str:
    """The file without what no row uses any more."""
    _, problems = mapping_file.read(("\n".join(kept) + "\n").encode(), "m.yaml")
    for problem in problems:
        assert problem.at is not None
        assert problem.at.line is not None
        assert is_stale(problem), problem
        kept[problem.at.line - 1] = _without(kept[problem.at.line - 1], problem)
        if problem.code == "T2T112":
            after = problem.at.line
            while kept[after].startswith("  - "):
                kept[after] = ""
                after += 1
    whole = "\n".join(line for line in kept if line) + "\n"
    return re.sub("recipes:\n(?! )", "", whole.replace("for: {}\n", ""))


def _without(line: str, problem: Problem) -> str:
    if problem.code == "T2T112":
        return ""
    (letter,) = re.findall("^letter (.) is used by no row$", problem.message)
    return re.sub(rf"{letter}: [0-9.]+(, )?", "", line)


def same(
    plan: Plan, memory: Memory, written: str, made: Sequence[Alternative], text_of: tuple[Sequence[str], Sequence[int]]
) -> None:
    """The file with these rows is read and planned without a problem, and all targets get what they should."""
    read = given.read(cleaned(pasted(written, *text_of)))
    new, problems = planning.make(read, memory.inventory, module({step.target: step.shape for step in plan.steps}))
    assert lines(problems) == []
    wanted = dict(execute.tensors(plan, memory, {}))
    for alternative in made:
        wanted |= values(plan, memory, alternative)
    arrays = dict(execute.tensors(new, memory, {}))
    assert arrays.keys() == wanted.keys()
    for name, array in wanted.items():
        assert arrays[name].tobytes() == np.ascontiguousarray(array).tobytes(), (name, text_of)


def again(rows: Sequence[str], memory: Memory, shapes: Shapes, alternative: Alternative) -> None:
    """The lines, in place of the rows that they are of, are read and planned without a problem, and give the same."""
    written = HEAD + "".join(f"- {row}\n" for row in rows)
    plan = given.planned(written.removeprefix(HEAD), memory, module(shapes))
    same(plan, memory, written, [alternative], (alternative.lines, alternative.replaces))


def all_again(rows: Sequence[str], memory: Memory, shapes: Shapes, maps: Sequence[tuple[int, ...]] = ()) -> None:
    plan = planned(rows, memory, shapes)
    for alternative, _ in found(plan, memory, maps):
        again(rows, memory, shapes, alternative)


def whats(made: Sequence[tuple[Alternative, Any]]) -> list[str]:
    return [alternative.what for alternative, _ in made]


# --- axes ---


@pytest.mark.parametrize("how", ["permute: [1, 0]", "axes: i o -> o i", "axes: rows c -> c rows"])
def test_a_matrix_behind_a_feature_map_may_be_behind_a_flatten(how: str) -> None:
    memory = counted(Variable_4=(3136, 6))
    rows, shapes = [f"{{tf: Variable_4, torch: fc1.weight, {how}}}"], {"fc1.weight": (6, 3136)}
    made = found(planned(rows, memory, shapes), memory, [(64, 7, 7), (10, 3, 3)])

    wanted = memory.arrays["Variable_4"].reshape(7, 7, 64, 6).transpose(3, 2, 0, 1).reshape(6, 3136)
    alternative = giving(made, {"fc1.weight": wanted})

    assert alternative is made[0][0]
    assert alternative.what == "the axes of a Flatten of [7, 7, 64]"
    assert alternative.lines == (
        "{tf: Variable_4, torch: fc1.weight, axes: (h w c) o -> o (c h w), dims: {h: 7, w: 7}}",
    )
    all_again(rows, memory, shapes, [(64, 7, 7)])


def test_a_matrix_that_is_stored_as_torch_has_it_may_be_behind_a_flatten() -> None:
    memory = counted(v=(5, 24))
    rows, shapes = ["{tf: v, torch: a.weight, axes: o i -> o i}"], {"a.weight": (5, 24)}
    made = found(planned(rows, memory, shapes), memory, [(4, 2, 3)])

    wanted = memory.arrays["v"].reshape(5, 2, 3, 4).transpose(0, 3, 1, 2).reshape(5, 24)

    assert giving(made, {"a.weight": wanted}).lines == (
        "{tf: v, torch: a.weight, axes: o (h w c) -> o (c h w), dims: {h: 2, w: 3}}",
    )
    all_again(rows, memory, shapes, [(4, 2, 3)])


def test_a_flatten_of_a_sequence_and_of_a_volume() -> None:
    memory = counted(v=(24, 5))
    rows, shapes = ["{tf: v, torch: a.weight, axes: i o -> o i}"], {"a.weight": (5, 24)}
    made = found(planned(rows, memory, shapes), memory, [(4, 6), (2, 3, 2, 2)])

    sequence = memory.arrays["v"].reshape(6, 4, 5).transpose(2, 1, 0).reshape(5, 24)
    volume = memory.arrays["v"].reshape(3, 2, 2, 2, 5).transpose(4, 3, 0, 1, 2).reshape(5, 24)

    assert giving(made, {"a.weight": sequence}).lines[0].endswith("axes: (l c) o -> o (c l), dims: {l: 6}}")
    volumes = giving(made, {"a.weight": volume}).lines[0]
    assert volumes.endswith("axes: (d h w c) o -> o (c d h w), dims: {d: 3, h: 2, w: 2}}")
    all_again(rows, memory, shapes, [(4, 6), (2, 3, 2, 2)])


def test_a_row_of_a_flatten_may_be_of_none_or_of_another_map() -> None:
    memory = counted(v=(24, 5))
    rows = ["{tf: v, torch: a.weight, axes: (h w c) o -> o (c h w), dims: {h: 2, w: 3}}"]
    shapes = {"a.weight": (5, 24)}
    # Which of the two is the height makes no difference: they stay together.
    made = found(planned(rows, memory, shapes), memory, [(4, 3, 2), (4, 6, 1), (2, 3, 4)])

    other = memory.arrays["v"].reshape(3, 4, 2, 5).transpose(3, 2, 0, 1).reshape(5, 24)

    assert giving(made, {"a.weight": memory.arrays["v"].T}).lines == ("{tf: v, torch: a.weight, axes: i o -> o i}",)
    assert giving(made, {"a.weight": other}).lines == (
        "{tf: v, torch: a.weight, axes: (h w c) o -> o (c h w), dims: {h: 3, w: 4}}",
    )
    assert [what for what in whats(made) if "Flatten" in what] == [
        "the axes of a Flatten of [3, 4, 2]",
        "the axes of no Flatten",
    ]
    all_again(rows, memory, shapes, [(2, 3, 4)])


def test_a_flatten_of_one_pixel_or_one_channel_moves_nothing() -> None:
    memory = counted(v=(24, 5))
    rows, shapes = ["{tf: v, torch: a.weight, axes: i o -> o i}"], {"a.weight": (5, 24)}

    assert found(planned(rows, memory, shapes), memory, [(24, 1, 1), (1, 4, 6), (3, 3, 3)]) == []


def test_a_matrix_and_its_bias_may_be_in_front_of_a_reshape() -> None:
    memory = counted(w=(5, 24), b=(24,))
    rows = ["{tf: w, torch: a.weight, axes: i o -> o i}", "{tf: b, torch: a.bias}"]
    shapes = {"a.weight": (24, 5), "a.bias": (24,)}
    made = found(planned(rows, memory, shapes), memory, [(4, 2, 3)])

    weight = memory.arrays["w"].reshape(5, 2, 3, 4).transpose(3, 1, 2, 0).reshape(24, 5)
    bias = memory.arrays["b"].reshape(2, 3, 4).transpose(2, 0, 1).reshape(24)

    assert giving(made, {"a.weight": weight, "a.bias": bias}).lines == (
        "{tf: w, torch: a.weight, axes: i (h w c) -> (c h w) i, dims: {h: 2, w: 3}}",
        "{tf: b, torch: a.bias, axes: (h w c) -> (c h w), dims: {h: 2, w: 3}}",
    )
    all_again(rows, memory, shapes, [(4, 2, 3)])


def test_a_square_matrix_may_be_stored_as_torch_has_it() -> None:
    memory = counted(v=(6, 6))
    rows, shapes = ["{tf: v, torch: a.weight, axes: i o -> o i}"], {"a.weight": (6, 6)}
    made = found(planned(rows, memory, shapes), memory)

    assert giving(made, {"a.weight": memory.arrays["v"]}).lines == ("{tf: v, torch: a.weight, axes: o i -> o i}",)
    assert len(made) == 1
    all_again(rows, memory, shapes)


def test_a_bare_permutation_stays_one() -> None:
    memory = counted(v=(6, 6))
    rows, shapes = ["{tf: v, torch: a.weight, permute: [1, 0]}"], {"a.weight": (6, 6)}
    ((alternative, _),) = found(planned(rows, memory, shapes), memory)

    assert (alternative.what, alternative.lines) == ("permute [0, 1]", ("{tf: v, torch: a.weight, permute: [0, 1]}",))


def test_a_square_kernel_has_height_and_width_or_inputs_and_outputs_exchanged() -> None:
    memory = counted(k=(3, 3, 4, 4))
    rows, shapes = ["{tf: k, torch: c.weight, axes: h w i o -> o i h w}"], {"c.weight": (4, 4, 3, 3)}
    made, k = found(planned(rows, memory, shapes), memory), memory.arrays["k"]

    turned = giving(made, {"c.weight": k.transpose(3, 2, 1, 0)})
    exchanged = giving(made, {"c.weight": k.transpose(2, 3, 0, 1)})
    both = giving(made, {"c.weight": k.transpose(2, 3, 1, 0)})

    assert turned.lines == ("{tf: k, torch: c.weight, axes: w h i o -> o i h w}",)
    assert exchanged.lines == ("{tf: k, torch: c.weight, axes: h w o i -> o i h w}",)
    assert both.lines == ("{tf: k, torch: c.weight, axes: w h o i -> o i h w}",)
    assert [alternative for alternative, _ in made][-1] is both
    all_again(rows, memory, shapes)


def test_every_order_of_a_cube_is_tried_the_exchanges_of_two_first() -> None:
    memory = counted(k=(2, 3, 3, 3, 4))
    rows, shapes = ["{tf: k, torch: c.weight, permute: [4, 0, 1, 2, 3]}"], {"c.weight": (4, 2, 3, 3, 3)}
    made = [(a, new) for a, new in found(planned(rows, memory, shapes), memory) if a.what.startswith("permute")]

    assert [alternative.what for alternative, _ in made[:3]] == [
        "permute [4, 0, 1, 3, 2]",
        "permute [4, 0, 2, 1, 3]",
        "permute [4, 0, 3, 2, 1]",
    ]
    for order in itertools.permutations((1, 2, 3)):
        if order != (1, 2, 3):
            giving(made, {"c.weight": memory.arrays["k"].transpose(4, 0, *order)})
    all_again(rows, memory, shapes)


def test_a_transposed_convolution_has_its_inputs_and_outputs_the_other_way_round() -> None:
    memory = counted(k=(2, 3, 4, 4))
    rows, shapes = ["{tf: k, torch: c.weight, axes: h w o i -> i o h w}"], {"c.weight": (4, 4, 2, 3)}
    made = found(planned(rows, memory, shapes), memory)

    wanted = memory.arrays["k"].transpose(2, 3, 0, 1)

    assert giving(made, {"c.weight": wanted}).lines == ("{tf: k, torch: c.weight, axes: h w i o -> i o h w}",)
    all_again(rows, memory, shapes)


def test_a_depthwise_kernel_may_count_the_multiplier_first() -> None:
    memory = counted(k=(2, 3, 4, 2))
    rows, shapes = ["{tf: k, torch: c.weight, axes: h w i m -> (i m) 1 h w}"], {"c.weight": (8, 1, 2, 3)}
    made = found(planned(rows, memory, shapes), memory)

    wanted = memory.arrays["k"].transpose(3, 2, 0, 1).reshape(8, 1, 2, 3)

    assert giving(made, {"c.weight": wanted}).lines == ("{tf: k, torch: c.weight, axes: h w i m -> (m i) 1 h w}",)
    all_again(rows, memory, shapes)


def test_heads_may_be_stored_in_another_order() -> None:
    memory = counted(k=(5, 24))
    rows = ["{tf: k, torch: a.weight, axes: i (s h k) -> (s h k) i, dims: {s: 3, h: 2}}"]
    made = found(planned(rows, memory, {"a.weight": (24, 5)}), memory)

    # A head's query, key and value lie together.
    wanted = memory.arrays["k"].reshape(5, 2, 3, 4).transpose(2, 1, 3, 0).reshape(24, 5)

    assert giving(made, {"a.weight": wanted}).lines == (
        "{tf: k, torch: a.weight, axes: i (h s k) -> (s h k) i, dims: {s: 3, h: 2}}",
    )
    all_again(rows, memory, {"a.weight": (24, 5)})


@hypothetically(st.data())
@settings(max_examples=40, deadline=None)
def test_axes_in_a_wrong_order_have_the_right_one_among_the_alternatives(draw: st.DataObject) -> None:
    rank = draw.draw(st.integers(2, 4))
    shape = tuple(draw.draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank)))
    right, wrong = (tuple(draw.draw(st.permutations(range(rank)))) for _ in range(2))
    memory = counted(v=shape)
    wanted = memory.arrays["v"].transpose(right)
    given_now = memory.arrays["v"].transpose(wrong)
    if given_now.shape != wanted.shape or given_now.tobytes() == wanted.tobytes():
        return
    names = "abcd"[:rank]
    axes = f"{' '.join(names)} -> {' '.join(names[axis] for axis in wrong)}"
    how = draw.draw(st.sampled_from([f"axes: {axes}", f"permute: {list(wrong)}"]))
    rows, shapes = [f"{{tf: v, torch: a.weight, {how}}}"], {"a.weight": wanted.shape}

    alternative = giving(found(planned(rows, memory, shapes), memory), {"a.weight": wanted})

    again(rows, memory, shapes, alternative)


@hypothetically(st.tuples(*[st.integers(1, 3)] * 3), st.booleans(), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_a_wrong_flatten_has_the_right_one_among_the_alternatives(
    size: tuple[int, int, int], is_turned: bool, which: int
) -> None:
    c, h, w = size
    memory = counted(v=(c * h * w, 2))
    order = list(itertools.permutations(range(3)))[which]
    sizes, names = [(h, w, c)[axis] for axis in order], ["hwc"[axis] for axis in order]
    dims = {name: size for name, size in zip(names, sizes, strict=True) if name != "c"}
    side = f"({' '.join(names)}) o"
    rows = [f"{{tf: v, torch: a.weight, axes: {side} -> o (c h w), dims: {{h: {dims['h']}, w: {dims['w']}}}}}"]
    if is_turned:
        rows = ["{tf: v, torch: a.weight, axes: i o -> o i}"]
    wanted = memory.arrays["v"].reshape(h, w, c, 2).transpose(3, 2, 0, 1).reshape(2, -1)
    plan = planned(rows, memory, {"a.weight": (2, c * h * w)})
    now = dict(execute.tensors(plan, memory, {}))["a.weight"]
    if now.tobytes() != wanted.tobytes():
        again(rows, memory, {"a.weight": wanted.shape}, giving(found(plan, memory, [size]), {"a.weight": wanted}))


# --- flips, numbers ---


def test_a_kernel_may_be_turned_round_in_space() -> None:
    memory = counted(k=(2, 3, 4, 5))
    shapes = {"c.weight": (5, 4, 2, 3)}
    wanted = memory.arrays["k"][::-1, ::-1].transpose(3, 2, 0, 1)
    for how, line in (
        ("axes: h w i o -> o i h w", "flip: [h, w], axes: h w i o -> o i h w"),
        ("permute: [3, 2, 0, 1]", "flip: [0, 1], permute: [3, 2, 0, 1]"),
    ):
        rows = [f"{{tf: k, torch: c.weight, {how}}}"]
        alternative = giving(found(planned(rows, memory, shapes), memory), {"c.weight": wanted})
        assert alternative.lines == (f"{{tf: k, torch: c.weight, {line}}}",)
        all_again(rows, memory, shapes)


def test_a_row_with_a_flip_may_have_none() -> None:
    memory = counted(k=(3, 4, 5))
    rows, shapes = ["{tf: k, torch: c.weight, axes: k i o -> o i k, flip: [k]}"], {"c.weight": (5, 4, 3)}
    made = found(planned(rows, memory, shapes), memory)

    alternative = giving(made, {"c.weight": memory.arrays["k"].transpose(2, 1, 0)})

    assert (alternative.what, alternative.lines) == ("no flip", ("{tf: k, torch: c.weight, axes: k i o -> o i k}",))
    all_again(rows, memory, shapes)


def test_a_kernel_of_one_pixel_and_a_table_are_not_turned_round() -> None:
    memory = counted(k=(1, 1, 4, 5), v=(4, 5))
    rows = ["{tf: k, torch: c.weight, axes: h w i o -> o i h w}", "{tf: v, torch: e.weight, axes: v d -> v d}"]

    assert found(planned(rows, memory, {"c.weight": (5, 4, 1, 1), "e.weight": (4, 5)}), memory) == []


def test_a_row_may_have_no_scale_and_no_add() -> None:
    memory = counted(v=(4,))
    rows, shapes = ["{tf: v, torch: a.bias, scale: 2.0, add: 0.5}"], {"a.bias": (4,)}
    made = found(planned(rows, memory, shapes), memory)

    plain = giving(made, {"a.bias": memory.arrays["v"] + 0.5})
    alone = giving(made, {"a.bias": memory.arrays["v"] * 2.0})

    assert (plain.what, plain.lines) == ("no scale 2.0", ("{tf: v, torch: a.bias, add: 0.5}",))
    assert (alone.what, alone.lines) == ("no add", ("{tf: v, torch: a.bias, scale: 2.0}",))
    all_again(rows, memory, shapes)


# --- recurrent layers ---

U, X = 3, 2
LSTM = {"r.weight_ih_l0": (4 * U, X), "r.weight_hh_l0": (4 * U, U), "r.bias_ih_l0": (4 * U,), "r.bias_hh_l0": (4 * U,)}
GRU = {"r.weight_ih_l0": (3 * U, X), "r.weight_hh_l0": (3 * U, U), "r.bias_ih_l0": (3 * U,), "r.bias_hh_l0": (3 * U,)}
KERAS_LSTM = [
    "{tf: kernel, torch: r.weight_ih_l0, axes: x gates -> gates x}",
    "{tf: recurrent_kernel, torch: r.weight_hh_l0, axes: u gates -> gates u}",
    "{tf: bias, torch: r.bias_ih_l0}",
    "{torch: r.bias_hh_l0, fill: 0}",
]
SPLIT = "dims: {g: 4}, order: {g: icfo -> ifco}"
TF1_LSTM = [
    f'{{tf: kernel, torch: r.weight_ih_l0, slice: [":2"], axes: x (g u) -> (g u) x, {SPLIT}}}',
    f'{{tf: kernel, torch: r.weight_hh_l0, slice: ["2:"], axes: h (g u) -> (g u) h, {SPLIT}}}',
    f"{{tf: bias, torch: r.bias_ih_l0, axes: (g u) -> (g u), {SPLIT}, add: {{g: {{f: 1.0}}}}}}",
    "{torch: r.bias_hh_l0, fill: 0}",
]


def keras_lstm() -> Memory:
    return counted(kernel=(X, 4 * U), recurrent_kernel=(U, 4 * U), bias=(4 * U,))


def by_gates(array: Array, before: str, after: str) -> Array:
    """The last axis' gates sorted otherwise, in torch's layout."""
    gates = array.reshape(*array.shape[:-1], len(before), -1)[..., [before.index(letter) for letter in after], :]
    return np.ascontiguousarray(gates.reshape(array.shape).T)


def lstm(memory: Memory, before: str, forget: float = 0.0) -> dict[str, Array]:
    """What the three tensors get from variables whose gates are in this order."""
    bias = by_gates(memory.arrays["bias"], before, "ifco")
    bias[U : 2 * U] += forget
    return {
        "r.weight_ih_l0": by_gates(memory.arrays["kernel"], before, "ifco"),
        "r.weight_hh_l0": by_gates(memory.arrays["recurrent_kernel"], before, "ifco"),
        "r.bias_ih_l0": bias,
    }


def test_gates_may_be_in_another_order_in_all_tensors() -> None:
    memory = keras_lstm()
    made = found(planned(KERAS_LSTM, memory, LSTM), memory)

    alternative = giving(made, lstm(memory, "icfo"))

    assert alternative.what == "gates in the order i c f o"
    assert alternative.lines == (
        "{tf: kernel, torch: r.weight_ih_l0, axes: x (g u) -> (g u) x, dims: {g: 4}, order: {g: icfo -> ifco}}",
        "{tf: recurrent_kernel, torch: r.weight_hh_l0, "
        "axes: u (g v) -> (g v) u, dims: {g: 4}, order: {g: icfo -> ifco}}",
        "{tf: bias, torch: r.bias_ih_l0, axes: (g u) -> (g u), dims: {g: 4}, order: {g: icfo -> ifco}}",
    )
    for order in itertools.permutations("ifco"):
        if order != tuple("ifco"):
            giving(made, lstm(memory, "".join(order)))
    assert len(made) <= 80
    all_again(KERAS_LSTM, memory, LSTM)


def test_the_likeliest_orders_of_gates_come_first_and_alone_after_them() -> None:
    memory = keras_lstm()
    names = whats(found(planned(KERAS_LSTM, memory, LSTM), memory))

    assert names[:5] == [
        "a forget bias of 1.0 added",
        "gates in the order i c f o",
        "gates in the order i c f o and a forget bias",
        "gates in the order f i c o",
        "gates in the order f i c o and a forget bias",
    ]
    first = next(place for place, name in enumerate(names) if "alone" in name)
    assert names[first] == "gates of r.weight_ih_l0 alone in the order i c f o"
    assert not any(name.startswith("gates in") for name in names[first:])


def test_the_forget_bias_may_be_added_or_not() -> None:
    memory = keras_lstm()
    made = found(planned(KERAS_LSTM, memory, LSTM), memory)
    added = giving(made, {"r.bias_ih_l0": lstm(memory, "ifco", 1.0)["r.bias_ih_l0"]})
    both = giving(made, lstm(memory, "icfo", 1.0))

    assert added.lines == (
        "{tf: bias, torch: r.bias_ih_l0, axes: (g u) -> (g u), dims: {g: 4}, order: {g: ifco -> ifco}, "
        "add: {g: {f: 1.0}}}",
    )
    assert both.lines[2] == (
        "{tf: bias, torch: r.bias_ih_l0, axes: (g u) -> (g u), dims: {g: 4}, order: {g: icfo -> ifco}, "
        "add: {g: {f: 1.0}}}"
    )

    fused = counted(kernel=(X + U, 4 * U), bias=(4 * U,))
    made = found(planned(TF1_LSTM, fused, LSTM), fused)
    bias = by_gates(fused.arrays["bias"], "icfo", "ifco")
    without = giving(made, {"r.bias_ih_l0": bias})
    assert without.what == "no forget bias added"
    assert without.lines == (
        "{tf: bias, torch: r.bias_ih_l0, axes: (g u) -> (g u), dims: {g: 4}, order: {g: icfo -> ifco}}",
    )


def test_a_row_with_an_order_may_have_none() -> None:
    memory = counted(kernel=(X + U, 4 * U), bias=(4 * U,))
    made = found(planned(TF1_LSTM, memory, LSTM), memory)
    bias = memory.arrays["bias"].copy()
    bias[U : 2 * U] += 1.0
    plain = {
        "r.weight_ih_l0": memory.arrays["kernel"][:X].T,
        "r.weight_hh_l0": memory.arrays["kernel"][X:].T,
        "r.bias_ih_l0": bias,
    }

    assert giving(made, plain).lines == (
        '{tf: kernel, torch: r.weight_ih_l0, slice: [":2"], axes: x (g u) -> (g u) x, dims: {g: 4}}',
        '{tf: kernel, torch: r.weight_hh_l0, slice: ["2:"], axes: h (g u) -> (g u) h, dims: {g: 4}}',
        "{tf: bias, torch: r.bias_ih_l0, axes: (g u) -> (g u), dims: {g: 4}, order: {g: ifco -> ifco}, "
        "add: {g: {f: 1.0}}}",
    )
    giving(made, {**plain, "r.bias_ih_l0": memory.arrays["bias"]})
    all_again(TF1_LSTM, memory, LSTM)


def test_the_rows_of_inputs_and_of_states_may_be_the_other_way_round() -> None:
    memory = counted(kernel=(X + U, 4 * U), bias=(4 * U,))
    made = found(planned(TF1_LSTM, memory, LSTM), memory)
    kernel = memory.arrays["kernel"]
    wanted = {
        "r.weight_ih_l0": by_gates(kernel[U:], "icfo", "ifco"),
        "r.weight_hh_l0": by_gates(kernel[:U], "icfo", "ifco"),
    }

    alternative = giving(made, wanted)

    assert alternative.what == "the slices of kernel the other way round"
    assert ['slice: ["3:"]' in line for line in alternative.lines] == [True, False]
    assert ['slice: [":3"]' in line for line in alternative.lines] == [False, True]


def test_a_grus_gates_may_be_in_any_order() -> None:
    memory = counted(kernel=(X, 3 * U), recurrent_kernel=(U, 3 * U), bias=(2, 3 * U))
    order = "dims: {g: 3}, order: {g: zrh -> rzh}"
    rows = [
        "{tf: kernel, torch: r.weight_ih_l0, permute: [1, 0]}",
        f"{{tf: recurrent_kernel, torch: r.weight_hh_l0, axes: u (g v) -> (g v) u, {order}}}",
        f'{{tf: bias, torch: r.bias_ih_l0, slice: ["0:1"], axes: 1 (g u) -> (g u), {order}}}',
        f'{{tf: bias, torch: r.bias_hh_l0, slice: ["1:2"], axes: 1 (g u) -> (g u), {order}}}',
    ]
    made, kernel, bias = found(planned(rows, memory, GRU), memory), memory.arrays["kernel"], memory.arrays["bias"]

    alternative = giving(made, {"r.weight_ih_l0": by_gates(kernel, "zrh", "rzh")})

    assert alternative.what == "gates in the order z r h"  # the others have it
    assert alternative.lines[0] == (f"{{tf: kernel, torch: r.weight_ih_l0, axes: x (g u) -> (g u) x, {order}}}")
    for before in map("".join, itertools.permutations("rzh")):
        if before not in {"rzh", "zrh"}:
            whole = {
                "r.weight_ih_l0": by_gates(kernel, before, "rzh"),
                "r.weight_hh_l0": by_gates(memory.arrays["recurrent_kernel"], before, "rzh"),
                "r.bias_ih_l0": by_gates(bias[0], before, "rzh"),
                "r.bias_hh_l0": by_gates(bias[1], before, "rzh"),
            }
            giving(made, whole)
    # Of a GRU it matters which bias is which.
    exchanged = {"r.bias_ih_l0": by_gates(bias[1], "zrh", "rzh"), "r.bias_hh_l0": by_gates(bias[0], "zrh", "rzh")}
    assert giving(made, exchanged).what == "r.bias_ih_l0 and r.bias_hh_l0 exchanged"
    all_again(rows, memory, GRU)


def test_which_of_two_biases_that_are_added_makes_no_alternative() -> None:
    memory = counted(kernel=(X, 4 * U), recurrent_kernel=(U, 4 * U), one=(4 * U,), two=(4 * U,))
    rows = [*KERAS_LSTM[:2], "{tf: one, torch: r.bias_ih_l0}", "{tf: two, torch: r.bias_hh_l0}"]

    assert not any("exchanged" in what for what in whats(found(planned(rows, memory, LSTM), memory)))


def test_gates_of_a_kernel_that_is_read_again_may_be_in_another_order() -> None:
    memory = counted(wx=(X, 4 * U), wh=(U, 4 * U), b=(8 * U,))
    rows = [
        "{tf: wx, torch: r.weight_ih_l0, axes: [x (g u) -> g (x u), g (u x) -> (g u) x], dims: {g: 4}}",
        "{tf: wh, torch: r.weight_hh_l0, axes: a (g b) -> (g a) b, dims: {g: 4}}",
        '{tf: b, torch: r.bias_ih_l0, slice: [":12"]}',
        '{tf: b, torch: r.bias_hh_l0, slice: ["12:"]}',
    ]
    made = found(planned(rows, memory, LSTM), memory)
    pick = ["icfo".index(letter) for letter in "ifco"]
    kernel = memory.arrays["wx"].reshape(X, 4, U).transpose(1, 0, 2)[pick].reshape(4, U, X).reshape(4 * U, X)
    hidden = memory.arrays["wh"].reshape(U, 4, U).transpose(1, 0, 2)[pick].reshape(4 * U, U)
    biases = [half.reshape(4, U)[pick].reshape(-1) for half in memory.arrays["b"].reshape(2, -1)]

    wanted = {"r.weight_ih_l0": kernel, "r.weight_hh_l0": hidden, "r.bias_ih_l0": biases[0], "r.bias_hh_l0": biases[1]}

    assert giving(made, wanted).what == "gates in the order i c f o"
    all_again(rows, memory, LSTM)


def test_variables_of_gates_may_be_joined_in_another_order() -> None:
    memory = counted(
        **{f"{name}_{gate}": shape for name, shape in (("W", (X, U)), ("U", (U, U)), ("b", (U,))) for gate in "icfo"}
    )
    rows = [
        "{tf: [W_i, W_c, W_f, W_o], torch: r.weight_ih_l0, join: g, axes: g x u -> (g u) x}",
        "{tf: [U_i, U_c, U_f, U_o], torch: r.weight_hh_l0, join: g, axes: g v u -> (g u) v}",
        "{tf: [b_i, b_c, b_f, b_o], torch: r.bias_ih_l0, join: g, axes: g u -> (g u)}",
        "{torch: r.bias_hh_l0, fill: 0}",
    ]
    made = found(planned(rows, memory, LSTM), memory)
    wanted = {
        "r.weight_ih_l0": np.concatenate([memory.arrays[f"W_{gate}"].T for gate in "ifco"]),
        "r.weight_hh_l0": np.concatenate([memory.arrays[f"U_{gate}"].T for gate in "ifco"]),
        "r.bias_ih_l0": np.concatenate([memory.arrays[f"b_{gate}"] for gate in "ifco"]),
    }

    alternative = giving(made, wanted)

    assert alternative.what == "gates in the order i c f o"
    assert alternative.lines[0] == (
        "{tf: [W_i, W_f, W_c, W_o], torch: r.weight_ih_l0, join: g, axes: g x u -> (g u) x}"
    )
    all_again(rows, memory, LSTM)


@pytest.mark.parametrize("order", ["fcio", "cifo", "ocfi"])
def test_variables_of_gates_that_stand_in_any_order_are_joined_in_torchs(order: str) -> None:
    memory = counted(**{f"b_{gate}": (U,) for gate in order}, wh=(U, 4 * U))
    rows = [
        f"{{tf: [{', '.join(f'b_{gate}' for gate in order)}], torch: r.bias_ih_l0, join: g, axes: g u -> (g u)}}",
        "{tf: wh, torch: r.weight_hh_l0, axes: u gates -> gates u}",
    ]
    shapes = {name: LSTM[name] for name in ("r.bias_ih_l0", "r.weight_hh_l0")}
    made = found(planned(rows, memory, shapes), memory)

    wanted = {
        "r.bias_ih_l0": np.concatenate([memory.arrays[f"b_{gate}"] for gate in "ifco"]),
        "r.weight_hh_l0": by_gates(memory.arrays["wh"], order, "ifco"),
    }

    assert giving(made, wanted).what == f"gates in the order {' '.join(order)}"
    all_again(rows, memory, shapes)


def test_two_gates_that_one_part_of_a_gru_writes_may_be_exchanged() -> None:
    memory = counted(g=(X, 2 * U), c=(X, U), h=(U, 3 * U))
    rows = [
        '{tf: g, torch: r.weight_ih_l0, into: [":6"], axes: x g -> g x}',
        '{tf: c, torch: r.weight_ih_l0, into: ["6:"], axes: x g -> g x}',
        "{tf: h, torch: r.weight_hh_l0, axes: h g -> g h}",
    ]
    shapes = {"r.weight_ih_l0": (3 * U, X), "r.weight_hh_l0": (3 * U, U)}
    made = found(planned(rows, memory, shapes), memory)
    g = memory.arrays["g"]
    wanted = np.concatenate([g[:, U:].T, g[:, :U].T, memory.arrays["c"].T])

    assert giving(made, {"r.weight_ih_l0": wanted}).lines == (
        '{tf: g, torch: r.weight_ih_l0, into: [":6"], axes: x (g u) -> (g u) x, dims: {g: 2}, order: {g: zr -> rz}}',
    )
    all_again(rows, memory, shapes)


@hypothetically(st.permutations("ifco"), st.permutations("ifco"), st.sampled_from(["", "add: {g: {f: 1.0}}, "]))
@settings(max_examples=25, deadline=None)
def test_a_wrong_order_of_gates_has_the_right_one_among_the_alternatives(
    right: list[str], wrong: list[str], add: str
) -> None:
    memory, before = keras_lstm(), "".join(wrong)
    if right == wrong:
        return
    order = f"dims: {{g: 4}}, order: {{g: {before} -> ifco}}"
    rows = [
        f"{{tf: kernel, torch: r.weight_ih_l0, axes: x (g u) -> (g u) x, {order}}}",
        f"{{tf: recurrent_kernel, torch: r.weight_hh_l0, axes: x (g u) -> (g u) x, {order}}}",
        f"{{tf: bias, torch: r.bias_ih_l0, {add}axes: (g u) -> (g u), {order}}}",
        "{torch: r.bias_hh_l0, fill: 0}",
    ]

    alternative = giving(found(planned(rows, memory, LSTM), memory), lstm(memory, "".join(right), 1.0 if add else 0.0))

    again(rows, memory, LSTM, alternative)


# --- exchanges ---

NORM = {f"n.{leaf}": (4,) for leaf in ("weight", "bias", "running_mean", "running_var")}
NORM_ROWS = [
    "{tf: gamma, torch: n.weight}",
    "{tf: beta, torch: n.bias}",
    "{tf: moving_mean, torch: n.running_mean}",
    "{tf: moving_variance, torch: n.running_var}",
]


def test_gamma_and_beta_come_before_what_is_less_often_exchanged() -> None:
    memory = counted(gamma=(4,), beta=(4,), moving_mean=(4,), moving_variance=(4,))
    made = found(planned(NORM_ROWS, memory, NORM), memory)

    assert whats(made) == [
        "n.weight and n.bias exchanged",
        "n.running_mean and n.running_var exchanged",
        "n.weight and n.running_mean exchanged",
        "n.weight and n.running_var exchanged",
        "n.bias and n.running_mean exchanged",
        "n.bias and n.running_var exchanged",
        "n.weight, n.bias, n.running_mean, n.running_var exchanged by pairs",
    ]
    wanted = {"n.weight": memory.arrays["beta"], "n.bias": memory.arrays["gamma"]}
    assert giving(made, wanted).lines == ("{tf: beta, torch: n.weight}", "{tf: gamma, torch: n.bias}")
    all_again(NORM_ROWS, memory, NORM)


@hypothetically(st.sampled_from(list(itertools.combinations(range(4), 2))))
@settings(max_examples=6, deadline=None)
def test_two_exchanged_variables_have_the_right_rows_among_the_alternatives(pair: tuple[int, int]) -> None:
    names = ["gamma", "beta", "moving_mean", "moving_variance"]
    memory = counted(**dict.fromkeys(names, (4,)))
    wrong = list(names)
    wrong[pair[0]], wrong[pair[1]] = wrong[pair[1]], wrong[pair[0]]
    rows = [f"{{tf: {name}, torch: {target}}}" for name, target in zip(wrong, NORM, strict=True)]

    wanted = {target: memory.arrays[names[place]] for place, target in enumerate(NORM) if place in pair}

    again(rows, memory, NORM, giving(found(planned(rows, memory, NORM), memory), wanted))


def test_siblings_are_exchanged_whole_then_each_tensor_and_moved_on() -> None:
    leaves = {"kernel": (3, 3), "bias": (3,)}
    memory = counted(**{f"{p}__{leaf}": shape for p in ("query", "key", "value") for leaf, shape in leaves.items()})
    rows = [f"{{tf: {p}, torch: self.{p}, use: dense}}" for p in ("query", "key", "value")]
    shapes = {
        f"self.{p}.{leaf}": shape
        for p in ("query", "key", "value")
        for leaf, shape in (("weight", (3, 3)), ("bias", (3,)))
    }
    plan = planned(rows, memory, shapes)
    made = found(plan, memory, targets=["self.key.weight", "self.key.bias"])
    v = memory.arrays

    def wanted(**sources: str) -> dict[str, Array]:
        return {
            f"self.{name}.{leaf}": v[f"{source}/{kernel}"].T
            for name, source in sources.items()
            for leaf, kernel in (("weight", "kernel"), ("bias", "bias"))
        }

    whole = giving(made, wanted(key="query", query="key"))
    assert whole.what == "self.key and self.query exchanged"
    turned = giving(made, wanted(key="query", query="value", value="key"))
    assert turned.what == "key from query, query from value, value from key in self"
    giving(made, wanted(key="value", query="key", value="query"))
    bias = giving(made, {"self.key.bias": v["value/bias"], "self.value.bias": v["key/bias"]})
    assert bias.what == "self.key.bias and self.value.bias exchanged"
    for alternative, _ in made:
        again(rows, memory, shapes, alternative)


def test_of_numbered_layers_only_the_next_ones_are_siblings() -> None:
    memory = counted(**{f"l{i}": (3, 2) for i in range(5)})
    rows = [f"{{tf: l{i}, torch: h.{i}.weight, axes: i o -> o i}}" for i in range(5)]
    shapes = {f"h.{i}.weight": (2, 3) for i in range(5)}
    made = found(planned(rows, memory, shapes), memory, targets=["h.2.weight"])

    assert whats(made) == ["h.2.weight and h.1.weight exchanged", "h.2.weight and h.3.weight exchanged"]


def test_numbered_layers_may_be_in_the_order_of_their_variables_numbers(tmp_path: Path) -> None:
    """Exchanges of two do not compose: what is mended is not touched again."""
    plan, memory = layers(tmp_path, ('"plain_<i>"', '"plain_<2-i>"'))
    what = "what is numbered in plain in the order of its variables' numbers"

    mended = named(plan, memory, "plain.1.weight", what)

    assert {rule.target: rule.sources for rule in mended.rules} == {
        "plain.0.weight": ("plain_0",),
        "plain.2.weight": ("plain_2",),
    }
    for name, array in values(plan, memory, mended).items():
        stored = memory.arrays[name.replace("plain.", "plain_").removesuffix(".weight")]
        assert array.tobytes() == np.ascontiguousarray(stored.T).tobytes()
    in_order, memory = layers(tmp_path)
    assert what not in whats(found(in_order, memory, targets=["plain.1.weight"]))


def test_the_variables_of_a_long_join_may_be_in_the_order_of_text_or_of_numbers() -> None:
    memory = counted(**{f"w{i}": (2, 3) for i in range(12)})
    shapes = {"e.weight": (24, 3)}
    numbers, by_text = [f"w{i}" for i in range(12)], sorted(f"w{i}" for i in range(12))
    for own, other in ((numbers, by_text), (by_text, numbers)):
        rows = [f"{{tf: [{', '.join(own)}], torch: e.weight, join: v, axes: v d -> v d}}"]
        made = found(planned(rows, memory, shapes), memory)
        giving(made, {"e.weight": np.concatenate([memory.arrays[name] for name in other])})
        assert len(made) == 11 + 1 + 1


def test_variables_of_a_join_are_exchanged() -> None:
    memory = counted(q=(4, 3), k=(4, 3), v=(4, 3))
    rows, shapes = ["{tf: [q, k, v], torch: a.weight, join: s, axes: s i o -> (s o) i}"], {"a.weight": (9, 4)}
    made = found(planned(rows, memory, shapes), memory)

    for order in itertools.permutations("qkv"):
        if order != tuple("qkv"):
            giving(made, {"a.weight": np.concatenate([memory.arrays[name].T for name in order])})
    all_again(rows, memory, shapes)


def test_of_a_long_join_neighbours_are_exchanged_and_all_turned_round() -> None:
    memory = counted(**{f"w{i}": (2, 3) for i in range(6)})
    rows = [f"{{tf: [{', '.join(memory.arrays)}], torch: e.weight, join: v, axes: v d -> v d}}"]
    made = found(planned(rows, memory, {"e.weight": (12, 3)}), memory)

    assert whats(made) == [f"w{i} and w{i + 1} exchanged in the join" for i in range(5)] + [
        "6 variables exchanged in the join"
    ]
    all_again(rows, memory, {"e.weight": (12, 3)})


def test_equal_parts_of_a_target_are_exchanged() -> None:
    memory = counted(q=(4, 3), k=(4, 3))
    rows = [
        '{tf: q, torch: a.weight, into: [":3"], axes: i o -> o i}',
        '{tf: k, torch: a.weight, into: ["3:"], axes: i o -> o i}',
    ]
    made = found(planned(rows, memory, {"a.weight": (6, 4)}), memory)

    alternative = giving(made, {"a.weight": np.concatenate([memory.arrays["k"].T, memory.arrays["q"].T])})

    assert alternative.lines == (
        '{tf: k, torch: a.weight, into: [":3"], axes: i o -> o i}',
        '{tf: q, torch: a.weight, into: ["3:"], axes: i o -> o i}',
    )
    all_again(rows, memory, {"a.weight": (6, 4)})


def test_what_is_tied_kept_or_filled_on_both_sides_is_left_alone() -> None:
    memory = counted(v=(3,))
    rows = [
        "{tf: v, torch: a.one}",
        "{torch: b.two, fill: 0}",
        "{torch: b.three, fill: 1}",
        "{torch: b.four, keep: init, why: it is}",
    ]
    shapes = dict.fromkeys(("a.one", "b.two", "b.three", "b.four"), (3,))

    assert list(alternatives(planned(rows, memory, shapes), ["a.one", "b.two", "b.three", "b.four"])) == []
    assert list(alternatives(planned(rows, memory, shapes), ["no.such"])) == []


# --- all rules of a row, and lines ---

LAYERS = """\
t2t: 1
model: m:M
source: {checkpoint: c}
for: {i: 0..2}
recipes:
  mine:
  - {tf: w, torch: weight, axes: i o -> o i}   # a comment
  - {tf: b, torch: bias}
map:
- {tf: "plain_<i>", torch: "plain.<i>.weight", axes: i o -> o i}
- {tf: "dense<_i>", torch: "dense.<i>", use: dense}
- {tf: "own_<i>", torch: "own.<i>", use: mine}
- {tf: last, torch: last, use: mine}
- {tf: "cell_<i>", torch: rnn, use: lstm, with: {suffix: "l<i>"}}
"""


def layers(folder: Path, change: tuple[str, str] = ("", "")) -> tuple[Plan, Memory]:
    """The plan of LAYERS, as a file, with a text of it replaced."""
    assert change[0] in LAYERS
    path = folder / "m.yaml"
    path.write_text(LAYERS.replace(*change) if change[0] else LAYERS, encoding="utf-8")
    arrays: dict[str, tuple[int, ...]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(3):
        dense = f"dense_{i}" if i else "dense"
        arrays |= {f"plain_{i}": (4, 4), f"{dense}__kernel": (4, 4), f"{dense}__bias": (4,)}
        arrays |= {f"own_{i}__w": (4, 4), f"own_{i}__b": (4,)}
        arrays |= {f"cell_{i}__kernel": (4, 8), f"cell_{i}__recurrent_kernel": (2, 8), f"cell_{i}__bias": (8,)}
        shapes |= {f"plain.{i}.weight": (4, 4), f"dense.{i}.weight": (4, 4), f"dense.{i}.bias": (4,)}
        shapes |= {f"own.{i}.weight": (4, 4), f"own.{i}.bias": (4,)}
        shapes |= {f"rnn.weight_ih_l{i}": (8, 4), f"rnn.weight_hh_l{i}": (8, 2)}
        shapes |= dict.fromkeys((f"rnn.bias_ih_l{i}", f"rnn.bias_hh_l{i}"), (8,))
    arrays |= {"last__w": (4, 4), "last__b": (4,)}
    shapes |= {"last.weight": (4, 4), "last.bias": (4,)}
    memory = counted(**arrays)
    read, problems = mapping_file.read(path.read_bytes(), str(path))
    assert lines(problems) == []
    assert read is not None
    plan, problems = planning.make(read, memory.inventory, module(shapes))
    assert lines(problems) == []
    return plan, memory


def named(plan: Plan, memory: Memory, target: str, what: str) -> Alternative:
    made = found(plan, memory, targets=[target])
    (alternative,) = [alternative for alternative, _ in made if alternative.what == what]
    return alternative


def test_a_row_with_letters_changes_as_a_whole_and_is_shown_as_the_file_has_it(tmp_path: Path) -> None:
    plan, memory = layers(tmp_path)

    one = named(plan, memory, "plain.1.weight", "axes 'o i -> o i'")
    whole = named(plan, memory, "plain.1.weight", "axes 'o i -> o i', in all 3 rules of the row in line 10")

    # The others of the row's rules are written out with it: the row is replaced.
    assert one.lines == (
        "{tf: plain_0, torch: plain.0.weight, axes: i o -> o i}",
        "{tf: plain_1, torch: plain.1.weight, axes: o i -> o i}",
        "{tf: plain_2, torch: plain.2.weight, axes: i o -> o i}",
    )
    assert one.replaces == whole.replaces == (10,)
    assert [rule.target for rule in one.rules] == ["plain.1.weight"]
    assert whole.lines == ("{tf: plain_<i>, torch: plain.<i>.weight, axes: o i -> o i}",)
    assert {rule.target for rule in whole.rules} == {f"plain.{i}.weight" for i in range(3)}
    for name, array in values(plan, memory, whole).items():
        assert array.tobytes() == memory.arrays[name.replace("plain.", "plain_").removesuffix(".weight")].tobytes()


def test_the_same_change_of_the_whole_row_follows_that_of_one_rule(tmp_path: Path) -> None:
    plan, memory = layers(tmp_path)

    names = whats(found(plan, memory, targets=["plain.1.weight"]))

    assert names[:2] == ["axes 'o i -> o i'", "axes 'o i -> o i', in all 3 rules of the row in line 10"]


def test_a_row_that_uses_a_recipe_is_written_out(tmp_path: Path) -> None:
    plan, memory = layers(tmp_path)

    one = named(plan, memory, "dense.1.weight", "axes 'o i -> o i'")
    whole = named(plan, memory, "dense.1.weight", "axes 'o i -> o i', in all 3 rules of the row in line 11")

    assert one.lines == (
        "{tf: dense, torch: dense.0, use: dense}",
        "{tf: dense_1/kernel, torch: dense.1.weight, axes: o i -> o i}",
        "{tf: dense_1/bias, torch: dense.1.bias}",
        "{tf: dense_2, torch: dense.2, use: dense}",
    )
    assert whole.lines == (
        "{tf: dense<_i>/kernel, torch: dense.<i>.weight, axes: o i -> o i}",
        "{tf: dense<_i>/bias, torch: dense.<i>.bias}",
    )


def test_a_recipe_of_the_files_own_changes_wherever_it_is_used(tmp_path: Path) -> None:
    plan, memory = layers(tmp_path)

    whole = named(plan, memory, "own.0.weight", "axes 'o i -> o i', in all 4 rules of the recipe mine")

    assert (whole.lines, whole.replaces) == (("{tf: w, torch: weight, axes: o i -> o i}",), (7,))
    assert {rule.target for rule in whole.rules} == {"last.weight", *(f"own.{i}.weight" for i in range(3))}


def test_letters_in_what_with_gives_make_a_row_for_each_rule(tmp_path: Path) -> None:
    plan, memory = layers(tmp_path)
    targets = [step.target for step in plan.steps if step.target.endswith("_l1")]
    made = found(plan, memory, targets=targets)
    (whole,) = [a for a, _ in made if a.what == "gates in the order i c f o, in all 9 rules of the row in line 14"]

    assert len(whole.rules) == 9
    assert len(whole.lines) == 12
    assert whole.lines[0] == (
        "{tf: cell_0/kernel, torch: rnn.weight_ih_l0, axes: x (g u) -> (g u) x, dims: {g: 4}, order: {g: icfo -> ifco}}"
    )
    assert whole.lines[-1] == "{torch: rnn.bias_hh_l2, fill: 0}"


def test_uses_of_a_recipe_that_are_exchanged_stay_uses_of_it(tmp_path: Path) -> None:
    plan, memory = layers(tmp_path)

    found_now = found(plan, memory, targets=["dense.1.weight", "dense.1.bias"])
    (alternative,) = [a for a, _ in found_now if a.what == "dense.1 and dense.2 exchanged"]

    assert alternative.lines == (
        "{tf: dense, torch: dense.0, use: dense}",
        "{tf: dense_2, torch: dense.1, use: dense}",
        "{tf: dense_1, torch: dense.2, use: dense}",
    )


@pytest.mark.parametrize(
    "target", ["plain.1.weight", "dense.1.weight", "dense.0.bias", "own.0.weight", "last.weight", "rnn.weight_ih_l1"]
)
def test_the_lines_give_all_that_the_alternative_gives_and_leave_the_rest(tmp_path: Path, target: str) -> None:
    plan, memory = layers(tmp_path)
    made = found(plan, memory, targets=[target])
    assert made
    for alternative, _ in made:
        same(plan, memory, LAYERS, [alternative], (alternative.lines, alternative.replaces))


OTHERS = ("plain.0.weight", "dense.1.weight", "dense.2.weight", "own.1.weight", "last.weight", "own.1.bias")


@pytest.mark.parametrize("pair", list(itertools.combinations(OTHERS, 2)), ids="+".join)
def test_two_alternatives_are_written_together(tmp_path: Path, pair: tuple[str, str]) -> None:
    plan, memory = layers(tmp_path)
    one, other = ([alternative for alternative, _ in found(plan, memory, targets=[name])] for name in pair)
    count = 0
    for both in itertools.product(one, other):
        keys = [{(rule.target, rule.into) for rule in alternative.rules} for alternative in both]
        if keys[0] & keys[1]:
            continue
        same(plan, memory, LAYERS, both, together(plan, both))
        count += 1
    assert count


def test_what_is_written_together_is_one_text(tmp_path: Path) -> None:
    plan, memory = layers(tmp_path)
    how = "axes 'o i -> o i'"
    one, other, recipe, row = (
        named(plan, memory, name, how + scope)
        for name, scope in (
            ("dense.0.weight", ""),
            ("dense.2.weight", ""),
            ("own.0.weight", ", in all 4 rules of the recipe mine"),
            ("plain.0.weight", ", in all 3 rules of the row in line 10"),
        )
    )

    assert together(plan, [other, one]) == (
        (
            "{tf: dense/kernel, torch: dense.0.weight, axes: o i -> o i}",
            "{tf: dense/bias, torch: dense.0.bias}",
            "{tf: dense_1, torch: dense.1, use: dense}",
            "{tf: dense_2/kernel, torch: dense.2.weight, axes: o i -> o i}",
            "{tf: dense_2/bias, torch: dense.2.bias}",
        ),
        (11,),
    )
    assert together(plan, [row, recipe]) == (
        ("{tf: w, torch: weight, axes: o i -> o i}", "{tf: plain_<i>, torch: plain.<i>.weight, axes: o i -> o i}"),
        (7, 10),
    )
    assert together(plan, []) == ((), ())


def test_all_rules_of_a_row_that_change_one_by_one_are_the_row(tmp_path: Path) -> None:
    plan, memory = layers(tmp_path)
    three = [named(plan, memory, f"plain.{i}.weight", "axes 'o i -> o i'") for i in range(3)]

    assert together(plan, three) == (("{tf: plain_<i>, torch: plain.<i>.weight, axes: o i -> o i}",), (10,))


def test_of_two_changes_of_one_rule_the_later_is_written(tmp_path: Path) -> None:
    plan, memory = layers(tmp_path)
    one = named(plan, memory, "plain.1.weight", "axes 'o i -> o i'")
    other = named(plan, memory, "plain.1.weight", "plain.1.weight and plain.2.weight exchanged")

    assert together(plan, [one, other])[0] == other.lines
    assert "{tf: plain_1, torch: plain.1.weight, axes: o i -> o i}" in together(plan, [other, one])[0]


#: Two rows of one recipe that differ in a digit; one recipe that uses another; a letter in a recipe's row.
OWN = {
    "pair": """\
t2t: 1
model: m:M
source: {checkpoint: c}
recipes:
  pair:
  - {tf: d0/kernel, torch: l.0.weight, axes: i o -> o i}
  - {tf: d0/bias, torch: l.0.bias}
  - {tf: d1/kernel, torch: l.1.weight, axes: i o -> o i}
  - {tf: d1/bias, torch: l.1.bias}
map:
- {tf: "", torch: "", use: pair}
""",
    "inner": """\
t2t: 1
model: m:M
source: {checkpoint: c}
recipes:
  one:
  - {tf: kernel, torch: weight, axes: i o -> o i}
  - {tf: bias, torch: bias}
  both:
  - {tf: d1, torch: l.1, use: one}
map:
- {tf: d0, torch: l.0, use: one}
- {tf: "", torch: "", use: both}
""",
    "letter": """\
t2t: 1
model: m:M
source: {checkpoint: c}
for: {i: 0..1}
recipes:
  all:
  - {tf: "d<i>/kernel", torch: "l.<i>.weight", axes: i o -> o i}
  - {tf: "d<i>/bias", torch: "l.<i>.bias"}
map:
- {tf: "", torch: "", use: all}
""",
    "with": """\
t2t: 1
model: m:M
source: {checkpoint: c}
for: {i: 0..1}
recipes:
  leaf:
  - {tf: "d<n>/kernel", torch: "l.<n>.weight", axes: i o -> o i}
  - {tf: "d<n>/bias", torch: "l.<n>.bias"}
map:
- {tf: "", torch: "", use: leaf, with: {n: "<i>"}}
""",
}


def own(folder: Path, name: str) -> tuple[Plan, Memory]:
    """The plan of a file with a recipe of its own, for two layers of one shape."""
    path = folder / "m.yaml"
    path.write_text(OWN[name], encoding="utf-8")
    memory = counted(d0__kernel=(4, 4), d0__bias=(4,), d1__kernel=(4, 4), d1__bias=(4,))
    shapes = {f"l.{i}.{leaf}": shape for i in range(2) for leaf, shape in (("weight", (4, 4)), ("bias", (4,)))}
    read, problems = mapping_file.read(path.read_bytes(), str(path))
    assert lines(problems) == []
    assert read is not None
    plan, problems = planning.make(read, memory.inventory, module(shapes))
    assert lines(problems) == []
    return plan, memory


@pytest.mark.parametrize("name", OWN)
def test_rows_of_own_recipes_give_what_the_alternative_gives(tmp_path: Path, name: str) -> None:
    plan, memory = own(tmp_path, name)
    both = []
    for target in ("l.0.weight", "l.1.weight", "l.0.bias"):
        made = [alternative for alternative, _ in found(plan, memory, targets=[target])]
        assert made
        both.append(made)
        for alternative in made:
            same(plan, memory, OWN[name], [alternative], (alternative.lines, alternative.replaces))
    for one, other in itertools.product(both[0], both[1]):
        if not {rule.target for rule in one.rules} & {rule.target for rule in other.rules}:
            same(plan, memory, OWN[name], [one, other], together(plan, [one, other]))


def test_two_rows_of_a_recipe_that_differ_in_a_number_are_two_lines(tmp_path: Path) -> None:
    plan, memory = own(tmp_path, "pair")

    one = named(plan, memory, "l.1.weight", "axes 'o i -> o i'")
    both = named(plan, memory, "l.1.weight", "axes 'o i -> o i', in all 2 rules of the recipe pair")

    assert (one.lines, one.replaces) == (("{tf: d1/kernel, torch: l.1.weight, axes: o i -> o i}",), (8,))
    assert (both.lines, both.replaces) == (
        (
            "{tf: d0/kernel, torch: l.0.weight, axes: o i -> o i}",
            "{tf: d1/kernel, torch: l.1.weight, axes: o i -> o i}",
        ),
        (6, 8),
    )


@pytest.mark.parametrize(
    ("name", "recipe", "row"),
    [("letter", "all", "d<i>/kernel, torch: l.<i>"), ("with", "leaf", "d<n>/kernel, torch: l.<n>")],
)
def test_a_row_with_letters_of_an_own_recipe_keeps_them(tmp_path: Path, name: str, recipe: str, row: str) -> None:
    plan, memory = own(tmp_path, name)

    whole = named(plan, memory, "l.1.weight", f"axes 'o i -> o i', in all 2 rules of the recipe {recipe}")

    assert (whole.lines, whole.replaces) == ((f"{{tf: {row}.weight, axes: o i -> o i}}",), (7,))


def test_two_rows_in_one_line_are_both_written(tmp_path: Path) -> None:
    memory, shapes = counted(v=(4,), w=(4,)), {"n.weight": (4,), "n.bias": (4,)}
    path = tmp_path / "m.yaml"
    path.write_text(HEAD.replace("map:\n", "map: [{tf: v, torch: n.weight}, {tf: w, torch: n.bias}]\n"), "utf-8")
    read, _ = mapping_file.read(path.read_bytes(), str(path))
    assert read is not None
    plan, _ = planning.make(read, memory.inventory, module(shapes))

    (alternative,) = alternatives(plan, list(shapes))

    assert alternative.lines == ("{tf: w, torch: n.weight}", "{tf: v, torch: n.bias}")
    assert alternative.replaces == (4,)


def test_a_recipe_that_another_one_uses_too_is_left_as_it_is(tmp_path: Path) -> None:
    plan, memory = own(tmp_path, "inner")

    alternative = named(plan, memory, "l.0.weight", "axes 'o i -> o i'")

    assert (alternative.lines, alternative.replaces) == (
        ("{tf: d0/kernel, torch: l.0.weight, axes: o i -> o i}", "{tf: d0/bias, torch: l.0.bias}"),
        (11,),
    )


def test_a_file_that_has_changed_since_is_not_quoted(tmp_path: Path) -> None:
    plan, memory = layers(tmp_path)
    (tmp_path / "m.yaml").write_text(LAYERS.replace("plain_", "other_"), encoding="utf-8")

    whole = named(plan, memory, "plain.1.weight", "axes 'o i -> o i', in all 3 rules of the row in line 10")

    assert whole.lines == tuple(f"{{tf: plain_{i}, torch: plain.{i}.weight, axes: o i -> o i}}" for i in range(3))


@pytest.mark.parametrize(
    "name", ["#x", "1.5", "null", "a,b", "it's", "-x", "x{", 'say "so"', "ünt", "a b", "v1/k_2", "a: b"]
)
def test_names_are_quoted_where_yaml_needs_it(name: str) -> None:
    memory, shapes = Memory({name: np.arange(9.0).reshape(3, 3)}), {"a.weight": (3, 3)}
    rows = [f"{{tf: {json.dumps(name)}, torch: a.weight, axes: i o -> o i}}"]

    (alternative,) = alternatives(planned(rows, memory, shapes), ["a.weight"])

    again(rows, memory, shapes, alternative)


def test_names_are_quoted_nowhere_else() -> None:
    row = {"tf": "v1/k_2", "torch": "h.<i>", "slice": [":4"], "axes": "1 (h w) -> w h", "fill": 0, "why": "it's"}

    assert text(row) == '{tf: v1/k_2, torch: h.<i>, slice: [":4"], axes: 1 (h w) -> w h, fill: 0, why: "it\'s"}'
    assert text({"tf": "b<i:03>"}) == '{tf: "b<i:03>"}'


def test_select_and_its_exceptions_are_in_the_lines() -> None:
    memory = counted(v=(3, 3), v__ema=(3, 3), w=(3, 3))
    rows = "- {tf: v, torch: a.weight, axes: i o -> o i}\n- {tf: w, torch: b.weight, axes: i o -> o i, select: none}\n"
    head = HEAD.replace("{checkpoint: c}", "{checkpoint: c, select: /ema}")
    plan, problems = planning.make(
        given.read(head + rows), memory.inventory, module({"a.weight": (3, 3), "b.weight": (3, 3)})
    )
    assert lines(problems) == []

    said_now = [a.lines for a in alternatives(plan, ["a.weight", "b.weight"]) if a.what.startswith("axes")]

    assert said_now == [
        ("{tf: v, torch: a.weight, axes: o i -> o i}",),
        ("{tf: w, torch: b.weight, axes: o i -> o i, select: none}",),
    ]


RECIPES = """\
t2t: 1
model: m:M
source: {checkpoint: c, select: /ema}
for: {i: 0..1}
map:
- {tf: "att_<i>", torch: "a.<i>", use: multi_head_attention}
- {tf: end, torch: end, use: dense, select: none}
"""


def test_a_recipes_joins_averages_and_optional_rows_are_written_out(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(RECIPES, encoding="utf-8")
    words, arrays, shapes = ("query", "key", "value"), dict[str, tuple[int, ...]](), dict[str, tuple[int, ...]]()
    for i in range(2):
        arrays |= {f"att_{i}__{word}__kernel": (6, 2, 3) for word in words}
        arrays |= {f"att_{i}__attention_output__kernel": (2, 3, 6)}
        shapes |= {f"a.{i}.in_proj_weight": (18, 6), f"a.{i}.out_proj.weight": (6, 6)}
    arrays |= {f"att_0__{word}__bias": (2, 3) for word in words} | {"att_0__attention_output__bias": (6,)}
    shapes |= {"a.0.in_proj_bias": (18,), "a.0.out_proj.bias": (6,), "end.weight": (5, 5), "end.bias": (5,)}
    arrays |= {f"{name}__ema": shape for name, shape in arrays.items()} | {"end__kernel": (5, 5), "end__bias": (5,)}
    memory = counted(**arrays)
    read, problems = mapping_file.read(RECIPES.encode(), str(tmp_path / "m.yaml"))
    assert lines(problems) == []
    assert read is not None
    plan, problems = planning.make(read, memory.inventory, module(shapes))
    assert lines(problems) == []

    what = "axes 'h k d -> d (k h)', in all 2 rules of the row in line 6"
    joined = named(plan, memory, "a.1.out_proj.weight", what)
    end = named(plan, memory, "end.weight", "axes 'o i -> o i'")

    weights = "{tf: [%s], torch: a.<i>.in_proj_%s, join: s, axes: %s}"
    tf = [", ".join(f"att_<i>/{word}/{leaf}" for word in words) for leaf in ("kernel", "bias")]
    assert joined.lines == (
        weights % (tf[0], "weight", "s d h k -> (s h k) d"),
        (weights % (tf[1], "bias", "s h k -> (s h k)"))[:-1] + ", optional: true}",
        "{tf: att_<i>/attention_output/kernel, torch: a.<i>.out_proj.weight, axes: h k d -> d (k h)}",
        "{tf: att_<i>/attention_output/bias, torch: a.<i>.out_proj.bias, optional: true}",
    )
    assert end.lines == (
        "{tf: end/kernel, torch: end.weight, axes: o i -> o i, select: none}",
        "{tf: end/bias, torch: end.bias, select: none}",
    )
    made = found(plan, memory, targets=["a.1.in_proj_weight"])
    (swapped,) = [
        alternative
        for alternative, _ in made
        if "exchanged in the join, in all 2" in alternative.what and "query/kernel and att_1/key" in alternative.what
    ]
    assert swapped.lines[0] == weights % (
        "att_<i>/key/kernel, att_<i>/query/kernel, att_<i>/value/kernel",
        "weight",
        "s d h k -> (s h k) d",
    )


# --- values ---


def test_nan_passes_and_an_overflow_does_not() -> None:
    memory = Memory({"v": np.array([[1.0, np.nan], [1e300, 2.0]])})
    rows = "- {tf: v, torch: a.weight, axes: i o -> o i}\n"
    plan = given.planned(rows, memory, module({"a.weight": (2, 2)}))
    (alternative,) = alternatives(plan, ["a.weight"])
    assert values(plan, memory, alternative)["a.weight"].tobytes() == memory.arrays["v"].tobytes()

    narrow = given.parameters(ParameterRef("a.weight", "float32", (2, 2)))
    plan = given.planned(rows.replace("}\n", ", dtype: float32}\n"), memory, narrow)
    (alternative,) = alternatives(plan, ["a.weight"])
    with pytest.raises(MappingError) as raised:
        values(plan, memory, alternative)
    assert [problem.code for problem in raised.value.problems] == ["T2T402"]


# --- real checkpoints ---


def real(
    name: str, checkpoint: Path | None, right: str = "", wrong: str = ""
) -> tuple[Plan, checkpoints.Checkpoint, dict[str, Array]]:
    """A mapping of the gallery with a text replaced, its checkpoint, and what the mapping as it is gives."""
    path = MAPPINGS / f"{name}.yaml"
    content = path.read_text(encoding="utf-8")
    read, problems = mapping_file.read(content.encode(), str(path))
    assert read is not None, problems
    opened = checkpoints.open(str(checkpoint or read.checkpoint), names=read.names)
    plan, _ = planning.make(read, opened.inventory, None)
    expected = dict(execute.tensors(plan, opened, {}))
    assert right in content
    changed, problems = mapping_file.read(
        content.replace(right, wrong, 1).encode() if right else content.encode(), str(path)
    )
    assert changed is not None, problems
    plan, problems = planning.make(changed, opened.inventory, None)
    assert [problem for problem in problems if problem.severity == "error"] == []
    return plan, opened, expected


def test_madrys_net_without_its_flatten_gets_the_line_of_the_gallery() -> None:
    flatten = "axes: (h w c) o -> o (c h w), dims: {h: 7, w: 7}"
    plan, opened, expected = real("madry", None, flatten, "permute: [1, 0]")
    with opened:
        first = next(alternatives(plan, ["fc1.weight", "fc1.bias"], [(32, 14, 14), (64, 7, 7)]))

        assert first.lines == (f"{{tf: Variable_4, torch: fc1.weight, {flatten}}}",)
        assert values(plan, opened, first)["fc1.weight"].tobytes() == expected["fc1.weight"].tobytes()


def test_a_published_lstm_read_from_another_layer_gets_its_own_again() -> None:
    checkpoint = data("dtln/breizhn+DTLN/model.h5")
    row = '{tf: "lstm<_2s+r>", torch: "sep<s+1>.rnn<r+1>"'
    plan, opened, expected = real("dtln", checkpoint, row, row.replace("_2s+r", "_r+2-2s"))
    targets = [step.target for step in plan.steps if step.target.startswith("sep1.rnn2.")]
    with opened:
        made = list(alternatives(plan, targets))
        assert len(made) <= 80
        same = []
        for alternative in made:
            new = values(plan, opened, alternative)
            if all(array.tobytes() == expected[name].tobytes() for name, array in new.items()) and len(new) > 2:
                same.append(alternative)

    # Without the module's inventory the recipe's optional bias_hh, which is filled, does not apply.
    assert same[0].what == "sep1.rnn2 and sep2.rnn2 exchanged"


def test_a_published_volume_with_two_axes_exchanged_gets_its_recipes_row() -> None:
    checkpoint = data("ffn-fib25/google+ffn/models/fib25/model.ckpt-27465036")
    plan, opened, expected = real("ffn", checkpoint, "d h w i o -> o i d h w", "d h w i o -> o i h d w")
    with opened:
        for alternative in alternatives(plan, ["convs.3.a.weight", "convs.3.a.bias"]):
            new = values(plan, opened, alternative)
            if len(new) > 1 and all(array.tobytes() == expected[name].tobytes() for name, array in new.items()):
                break

    # The file on disk is the right one: it is not what the plan was made of, and isn't quoted.
    assert alternative.what == "axes 'h d w i o -> o i h d w', in all 25 rules of the recipe conv"
    assert len(alternative.lines) == 50  # each use has a bias
    assert not any("<" in line or "use: " in line for line in alternative.lines)


@pytest.mark.parametrize(
    ("name", "parts", "most"),
    [
        ("madry", (), 60),
        ("ffn", ("ffn-fib25/google+ffn/models/fib25/model.ckpt-27465036",), 60),
        ("dtln", ("dtln/breizhn+DTLN/model.h5",), 80),
        ("toy_bert", ("toy-transformers/CyberZHG+keras-bert/test_checkpoint/bert_model.ckpt",), 60),
        ("tensor2tensor", ("t2t-transformer/tensorflow+tensor2tensor/transformer_test_ckpt/model.ckpt-1",), 60),
    ],
)
def test_no_module_of_the_gallery_has_too_many_alternatives_and_they_are_read_again(
    name: str, parts: tuple[str, ...], most: int
) -> None:
    plan, opened, _ = real(name, data(*parts) if parts else None)
    written = Path(plan.mapping.path).read_text(encoding="utf-8")
    with opened:
        owners: dict[str, list[str]] = {}
        for step in plan.steps:
            owners.setdefault(step.target.rpartition(".")[0], []).append(step.target)
        for owner, targets in owners.items():
            made = list(alternatives(plan, targets))
            assert len(made) <= most, owner
            for alternative in made[::5]:
                new = "\n".join(pasted(written, alternative.lines, alternative.replaces))
                read, problems = mapping_file.read(new.encode(), plan.mapping.path)
                assert [problem for problem in problems if not is_stale(problem)] == []
                assert read is not None
                changed = alternative.changed  # of a kernel of one pixel too, whose axes may be in any order
                again_now = {(rule.target, rule.into): rule for rule in read.rules}
                for step in plan.steps:
                    for part in step.parts:
                        key = (part.rule.target, part.rule.into)
                        wanted, other = changed.get(key, part.rule), again_now[key]
                        assert (other.sources, other.axes, other.order, other.dims, other.slice, other.flip) == (
                            (wanted.sources, wanted.axes, wanted.order, wanted.dims, wanted.slice, wanted.flip)
                        ), (alternative.what, key)
