"""How every element is accounted for, and rows as they are expanded: held against the inventories and numpy."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from t2t import api, plan
from t2t import module as modules
from t2t.places import read_mapping
from t2t.plan import Plan
from t2t.review import accounts
from t2t.review.accounts import Group, Row, Stage
from t2t.tensors import ModuleInventory
from tests.review.projects import varied


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, ModuleInventory]:
    made = varied(tmp_path_factory.mktemp("varied"))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(made.folder)
        module = modules.build("varied_model:Varied", {}).module
    read, problems = read_mapping(made.mapping)
    assert problems == []
    assert read is not None
    inventory = modules.inventory(module)
    with api.open_checkpoint(made.folder / "varied.ckpt") as opened:
        found, problems = plan.make(read, opened.inventory, inventory)
    assert problems == []
    return found, inventory


def groups(of: tuple[Group, ...]) -> dict[str, tuple[int, int, int]]:
    return {f"{one.how} {one.why}".strip(): (one.count, one.elements, one.nbytes) for one in of}


def test_variables_are_read_dropped_ignored_or_slots(planned: tuple[Plan, ModuleInventory]) -> None:
    found = groups(accounts.variables(planned[0]))
    refs = planned[0].checkpoint.variables.values()

    assert found["dropped padding </style>"] == (1, 1, 8)
    assert found["ignored counter"] == (1, 1, 8)
    assert found["slots Adam's & slots"] == (1, 120, 480)
    assert found["mapped"][0] == len(refs) - 2
    assert sum(elements for _, elements, _ in found.values()) == sum(ref.elements for ref in refs)
    assert sum(nbytes for *_, nbytes in found.values()) == sum(ref.nbytes for ref in refs)


def test_parameters_are_mapped_filled_tied_or_kept(planned: tuple[Plan, ModuleInventory]) -> None:
    found = groups(accounts.parameters(planned[0]))
    refs = planned[1].parameters.values()

    assert found["tied"] == (1, 120, 480)
    assert found["filled with 0"] == (2, 13, 56)  # four of them are a part of what is mapped
    assert found["kept a table of <script>alert(1)</script>"] == (1, 3, 12)
    assert found["mapped"][0] == len(refs) - 4
    assert sum(count for count, *_ in found.values()) == len(refs)
    assert sum(elements for _, elements, _ in found.values()) == sum(ref.elements for ref in refs)


def by_target(planned: tuple[Plan, ModuleInventory]) -> dict[str, Row]:
    return {f"{row.target}{row.into}": row for row in accounts.rows(*planned)}


def test_rows_come_in_the_order_of_the_state_dict(planned: tuple[Plan, ModuleInventory]) -> None:
    found = list(dict.fromkeys(row.target for row in accounts.rows(*planned)))

    assert found == list(planned[1].parameters)


@pytest.mark.parametrize(
    ("target", "words", "line"),
    [
        ("conv.weight", ["turned round along h, w"], 5),
        ("conv.bias", ["times 0.5", "plus 1"], 6),
        ("head.weight", [], 7),
        ("tied.weight", ["the same Parameter as head.weight"], 9),
        ("cell.weight_ih", ["entries of g: icfo -> ifco"], 10),
        ("cell.bias_ih", ["entries of g: icfo -> ifco", "plus 1 in f along g"], 12),
        ("cell.bias_hh", ["filled with 0"], 13),
        ("joined", ["2 variables joined along a"], 14),
        ("stacked", ["6 variables stacked along n"], 15),
        ("scaled", ["cast from float64 to float32"], 16),
        ("halves[0:2, :]", [], 23),
        ("halves[2:4, :]", ["filled with 0"], 24),
        ("table", ["kept as it was built: a table of <script>alert(1)</script>"], 22),
    ],
)
def test_what_no_drawing_shows_is_said(
    planned: tuple[Plan, ModuleInventory], target: str, words: list[str], line: int
) -> None:
    row = by_target(planned)[target]

    assert list(row.words) == words
    assert row.line == line


def test_sources_say_which_part_is_read(planned: tuple[Plan, ModuleInventory]) -> None:
    rows = by_target(planned)

    assert [(one.name, one.part, one.shape) for one in rows["scaled"].sources] == [("long", "[1:5]", (5,))]
    assert [one.name for one in rows["joined"].sources] == ["part/0", "part/1"]
    assert rows["tied.weight"].sources == ()
    assert {row.kind for row in rows.values()} == {"parameter", "buffer"}


def moved(stage: Stage, array: np.ndarray) -> np.ndarray:
    """What a stage says, done with numpy alone."""
    split = array.reshape(stage.sizes)
    for axis, (_, entries) in stage.orders.items():
        split = np.take(split, entries, axis)
    for axis in stage.flips:
        split = np.flip(split, axis)
    order = [axis for group in stage.bottom for axis in group]
    return split.transpose(order).reshape([math.prod(stage.sizes[axis] for axis in group) for group in stage.bottom])


def test_stages_are_what_is_done(planned: tuple[Plan, ModuleInventory]) -> None:
    """numpy, told only what a drawing shows, moves elements as the conversion does."""
    compared = 0
    for step in planned[0].steps:
        for part in step.parts:
            if not part.reads:
                continue
            row = next(row for row in accounts.rows(*planned) if row.target == step.target and row.sources)
            array = np.arange(math.prod(part.transforms[0].input)).reshape(part.transforms[0].input)
            expected, own = array, array
            for transform, stage in zip(part.transforms, row.stages, strict=True):
                assert [axis for group in stage.top for axis in group] == list(range(len(stage.sizes)))
                assert tuple(math.prod(stage.sizes[a] for a in group) for group in stage.top) == transform.input
                expected, own = transform.apply(expected), moved(stage, own)
            assert np.array_equal(own, expected)
            compared += 1

    assert compared == 15


def test_a_stage_that_moves_nothing_is_still(planned: tuple[Plan, ModuleInventory]) -> None:
    rows = by_target(planned)

    assert [stage.is_still for stage in rows["conv.bias"].stages] == [True]
    assert [stage.is_still for stage in rows["joined"].stages] == [True]
    assert [stage.is_still for stage in rows["cell.bias_ih"].stages] == [False]
    assert [stage.joined for stage in rows["stacked"].stages] == [0]


def test_a_recipe_is_named(tmp_path: Path) -> None:
    text = "t2t: 1\nmodel: m:M\nsource: {checkpoint: c}\nmap:\n- {tf: d, torch: d, use: dense}\n"
    (tmp_path / "m.yaml").write_text(text)
    read, _ = read_mapping(tmp_path / "m.yaml")
    assert read is not None
    from t2t.tensors import ParameterRef, TensorRef
    from tests.given import parameters, variables

    refs = variables(TensorRef("d/kernel", "float32", (2, 3)), TensorRef("d/bias", "float32", (3,)))
    module = parameters(ParameterRef("d.weight", "float32", (3, 2)), ParameterRef("d.bias", "float32", (3,)))
    found, problems = plan.make(read, refs, module)

    assert problems == []
    assert [row.recipe for row in accounts.rows(found, module)] == ["dense", "dense"]
