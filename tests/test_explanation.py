"""Words for what a row does: each step of it is said once, in the order in which it happens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from t2t import explanation, plan
from t2t.explanation import Explanation
from t2t.tensors import ParameterRef
from tests.commands import server
from tests.given import Memory, parameters, planned, read

ARRAYS = {"k": np.zeros((7, 12), np.float32), "b": np.zeros(12, np.float32), "m": np.zeros((2, 12), np.float32)}


def words(rows: str, shape: tuple[int, ...], dtype: str = "float32", more: str = "") -> list[str]:
    made = planned(rows, Memory(ARRAYS), parameters(ParameterRef("p", dtype, shape)), more)
    (step,) = made.steps
    return list(explanation.in_words(Explanation(tuple(part.rule for part in step.parts), step, ())))


REST = "ignore: [{tf: '*', why: w}]\n"


def test_a_row_with_everything_says_it_all() -> None:
    row = (
        "- {tf: k, torch: p, slice: ['4:'], axes: h (g u) -> (g u) h, dims: {g: 4}, order: {g: icfo -> ifco}, "
        "flip: [u], scale: 2, add: {g: {f: 1.0}}, dtype: float64}\n"
    )

    assert words(row, (12, 3), "float64", REST + "drop: [{tf: k, slice: [':4'], why: w}]\n") == [
        "p comes from the variable k, by m.yaml:5:3",
        "  the variable is float32 [7, 12]",
        "  of it [4:] is read: [3, 12]",
        "  turned round along u",
        "  the entries of g come in another order: icfo -> ifco",
        "  cast from float32 to float64",
        "  multiplied by 2",
        "  along g is added: 1.0 to the entry f",
        "  its axes move: h (g u) -> (g u) h, where h = 3, g = 4, u = 3",
        "  the parameter becomes float64 [12, 3]",
    ]


def test_parts_and_joins_are_said() -> None:
    rows = (
        "- {torch: p, into: [':1'], fill: 0}\n"
        "- {tf: [m, k], torch: p, into: ['1:'], join: v, axes: v d -> v d, add: 3}\n"
    )

    assert words(rows, (10, 12), more=REST) == [
        "p is written in 2 parts",
        "its part [:1] is filled with 0, by m.yaml:5:3",
        "its part [1:] comes from 2 variables, by m.yaml:6:3",
        "  m is float32 [2, 12]",
        "  k is float32 [7, 12]",
        "  they are put together along the axis v: [9, 12]",
        "  3 is added to each element",
        "  its axes move: v d -> v d, where v = 9, d = 12",
        "  this part becomes float32 [9, 12]",
    ]


def test_a_recipe_and_a_selected_average_are_said() -> None:
    arrays = {"d/kernel/EMA": np.zeros((2, 3), np.float32), "d/kernel": np.zeros((2, 3), np.float32)}
    text = "t2t: 1\nmodel: m:M\nsource: {checkpoint: c, select: /EMA}\nmap:\n- {tf: d, torch: l, use: dense}\n"
    module = parameters(ParameterRef("l.weight", "float32", (3, 2)))
    made, problems = plan.make(read(text), Memory(arrays).inventory, module)
    (step,) = made.steps

    assert problems == []
    assert list(explanation.in_words(Explanation((step.rule,), step, ()))) == [
        "l.weight comes from the variable d/kernel/EMA, by m.yaml:5:3 and recipe dense",
        "  the variable is float32 [2, 3]",
        "  source.select reads it in place of d/kernel",
        "  its axes move: i o -> o i, where i = 2, o = 3",
        "  the parameter becomes float32 [3, 2]",
    ]


# --- t2t recipes ---


def test_a_recipe_is_printed_as_it_is_written_and_applied_to_shapes(tmp_path: Path) -> None:
    plain = server().run("recipes", "dense", cwd=tmp_path)
    applied = server().run("recipes", "flatten_dense", "kernel=12,5", "--dims", "h=2", "--dims", "w=2", cwd=tmp_path)

    assert (plain.code, plain.out, plain.err) == (
        0,
        "dense:\n- {tf: kernel, torch: weight, axes: i o -> o i}\n- {tf: bias, torch: bias, optional: true}\n",
        "",
    )
    assert applied.code == 0
    assert applied.out.splitlines()[-4:] == [
        "weight comes from the variable kernel",
        "  the variable is float32 [12, 5]",
        "  its axes move: (h w c) o -> o (c h w), where h = 2, w = 2, c = 3, o = 5",
        "  the parameter becomes float32 [5, 12]",
    ]


def test_every_recipe_is_listed_and_json_has_them_by_name(tmp_path: Path) -> None:
    listed = server().run("recipes", cwd=tmp_path)
    found = json.loads(server().run("recipes", "--format", "json", cwd=tmp_path).out)

    assert "".join(f"{text}\n\n" for text in found.values()) == listed.out
    assert found["dense"].startswith("dense:\n- {tf: kernel")


def test_what_does_not_fit_a_recipe_is_one_line(tmp_path: Path) -> None:
    def told(*arguments: str) -> tuple[int, str]:
        done = server().run("recipes", *arguments, cwd=tmp_path)
        return done.code, done.out + done.err

    assert told("conv2D") == (2, "T2T001 there is no built-in recipe conv2D; did you mean conv2d, conv3d, conv1d\n")
    assert told("conv2d", "kernel") == (2, "T2T001 'kernel' is not NAME=VALUE; for example kernel=3,3,16,32\n")
    assert told("conv2d", "kernel=3x3") == (
        2,
        "T2T001 kernel: '3x3' is not a shape; sizes are separated by commas: kernel=3,3,16,32\n",
    )
    assert told("conv2d", "kernel=3,3") == (
        1,
        "T2T302 weight: axes 'h w i o -> o i h w' are for rank 4, the variable has rank 2: [3, 3]; "
        "name each axis of the variable once on the left side\n",
    )
    assert told("lstm", "kernel=3,16") == (1, "T2T112 recipe lstm needs suffix; write with: {suffix: ...}\n")
