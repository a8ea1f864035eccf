"""The plan: both sides accounted for, to the last element; shapes and dtypes known before anything is read."""

from __future__ import annotations

import time
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from t2t import applied, coverage, execute, mapping, plan
from t2t.problems import MappingError, Problem
from t2t.tensors import DTYPES, CheckpointInventory, ModuleInventory, ParameterRef, TensorRef
from tests.given import HEAD, Memory, lines, parameters, read, variables

# What the mappings below speak of.
V = TensorRef("v", "float32", (2, 3))
B = TensorRef("b", "float32", (3,))
P = ParameterRef("p", "float32", (3, 2))
Q = ParameterRef("q", "float32", (3,))
STEP = TensorRef("global_step", "int64", (), slot_of="")
ADAM = TensorRef("v/Adam", "float32", (2, 3), slot_of="v")

ROWS = "- {tf: v, torch: p, axes: i o -> o i}\n- {tf: b, torch: q}\n"


def made(text: str, checkpoint: CheckpointInventory, module: ModuleInventory | None) -> tuple[plan.Plan, list[Problem]]:
    return plan.make(read(HEAD + text), checkpoint, module)


def told(text: str, checkpoint: CheckpointInventory, module: ModuleInventory | None) -> list[str]:
    return lines(made(text, checkpoint, module)[1])


# --- what fits ---


def test_a_step_has_both_its_sides() -> None:
    ready, problems = made(ROWS, variables(V, B), parameters(P, Q))
    first, second = ready.steps

    assert problems == []
    assert (first.target, first.shape, first.dtype, first.sources, first.elements) == ("p", (3, 2), "float32", [V], 6)
    assert [transform.permutation for transform in first.parts[0].transforms] == [(1, 0)]
    assert [transform.permutation for transform in second.parts[0].transforms] == [(0,)]
    assert ready.ignored == {}


def test_the_order_of_rows_and_of_variables_does_not_matter() -> None:
    backwards = "".join(reversed(ROWS.splitlines(keepends=True)))

    assert told(backwards, variables(B, V), parameters(Q, P)) == []


def test_sources_are_in_file_order_each_once() -> None:
    a, b, c = TensorRef("a", "int8", (), 1, 0), TensorRef("b", "int8", (), 0, 9), TensorRef("c", "int8", (), 0, 2)
    refs = [ParameterRef(name, "int8", ()) for name in ("w", "x", "y", "z")]
    rows = (
        "- {tf: a, torch: w}\n- {tf: b, torch: x, reuse: true}\n- {tf: b, torch: y, reuse: true}\n- {tf: c, torch: z}\n"
    )
    ready, problems = made(rows, variables(a, b, c), parameters(*refs))

    assert problems == []
    assert ready.sources == [c, b, a]


def test_what_is_ignored_is_listed_with_its_reason() -> None:
    """The first that covers it gives the reason; a name that a row reads is not ignored."""
    rest = "ignore:\n- {tf: '*', why: all}\n- {slots: true, why: slots}\n- {tf: v/Adam, why: late}\n"
    ready, problems = made(ROWS + rest, variables(V, B, ADAM, STEP), parameters(P, Q))

    assert problems == []
    assert ready.ignored == {"v/Adam": "slots", "global_step": "all"}


def test_the_policy_for_slots_is_never_stale() -> None:
    assert told(ROWS + "ignore: [{slots: true, why: a}]", variables(V, B), parameters(P, Q)) == []


def test_without_a_modules_inventory_the_parameters_are_a_note() -> None:
    ready, problems = made(ROWS, variables(V, B), None)

    assert [problem.severity for problem in problems] == ["note"]
    assert lines(problems) == [
        "4:1: T2T210 parameters not checked: no lock; t2t lock writes one, convert checks them by itself"
    ]
    assert [(step.target, step.shape) for step in ready.steps] == [("p", (3, 2)), ("q", (3,))]


def test_ties_that_the_file_alone_shows_to_be_wrong_need_no_module() -> None:
    rows = (
        "- {tf: v, torch: p, axes: i o -> o i}\n- {torch: q, tie: pp}\n- {torch: r, tie: q}\n- {torch: s, tie: s}\n"
        "- {torch: t, tie: p}\n"
    )

    assert [line for line in told(rows, variables(V), None) if "T2T404" in line] == [
        "6:19: T2T404 q is tied to pp, which no row writes; did you mean p",
        "7:19: T2T404 r is tied to q, which is tied itself; tie to the name whose row gives the value",
        "8:19: T2T404 s is tied to s, which is tied itself; tie to the name whose row gives the value",
    ]


@pytest.mark.parametrize(
    ("dtype", "output", "stored"),
    [
        ("float32", None, "float32"),
        ("float32", "bfloat16", "bfloat16"),
        ("float16", "float32", "float32"),
        ("int64", "bfloat16", "int64"),
        ("bool", "bfloat16", "bool"),
        ("complex64", "bfloat16", "complex64"),
    ],
)
def test_the_outputs_dtype_is_for_floating_tensors_only(dtype: str, output: str | None, stored: str) -> None:
    source, target = TensorRef("v", dtype, (3,)), ParameterRef("p", dtype, (3,))
    ready, _ = made("- {tf: v, torch: p}\n", variables(source), parameters(target))

    assert plan.stored(ready.steps[0], output) == stored


# --- names ---

NEAR = [TensorRef(f"dense_{i}/kernel", "float32", (3,)) for i in range(1, 5)]


@pytest.mark.parametrize(
    ("text", "refs", "problems"),
    [
        # A near name that a hint proposes is not reported a second time as unused.
        (
            "- {tf: w, torch: p, axes: i o -> o i}\n- {tf: bb, torch: q}\n",
            [V, B],
            [
                "5:8: T2T201 w is not a variable of the checkpoint",
                "6:8: T2T201 bb is not a variable of the checkpoint; did you mean b",
                "4:1: T2T205 variable v (float32 [2, 3], 6 elements) is used by no row; "
                "map it, or name it under ignore with a why",
            ],
        ),
        (
            "- {tf: dense/kernel, torch: q}\n- {torch: p, fill: 0}\n",
            NEAR,
            [
                "5:8: T2T201 dense/kernel is not a variable of the checkpoint; "
                "did you mean dense_4/kernel, dense_3/kernel, dense_2/kernel",
                *[
                    f"4:1: T2T205 variable dense_{i}/kernel (float32 [3], 3 elements) is used by no row; "
                    "map it, or name it under ignore with a why"
                    for i in (1, 2, 3)
                ],
            ],
        ),
        (
            ROWS,
            [V, B, ADAM, TensorRef("beta1_power", "float32", (), slot_of="")],
            [
                "4:1: T2T205 optimizer slots and counters are used by no row, 2 in all: v/Adam, beta1_power; "
                "write - {slots: true, why: ...} under ignore for all of them",
            ],
        ),
        (
            ROWS,
            [V, B, *(TensorRef(f"beta{i}_power", "float32", (), slot_of="") for i in range(5))],
            [
                "4:1: T2T205 optimizer slots and counters are used by no row, 5 in all: "
                "beta0_power, beta1_power, beta2_power, ...; "
                "write - {slots: true, why: ...} under ignore for all of them",
            ],
        ),
        (
            ROWS + "ignore: [{tf: 'head/**', why: a}, {tf: global_stp, why: a}]\n",
            [V, B, STEP],
            [
                "7:10: T2T208 ignore pattern head/** matches no variable of the checkpoint; remove it: it is stale",
                "7:35: T2T208 ignore pattern global_stp matches no variable of the checkpoint; "
                "did you mean global_step",
            ],
        ),
        (
            "- {torch: p, fill: 0}\n- {torch: q, fill: 0}\n",
            [],
            ["4:1: T2T209 no row reads a variable of the checkpoint; write a row with tf and torch"],
        ),
        (
            ROWS.replace("b, torch: q", "b, torch: q, reuse: true"),
            [V, B],
            ["6:28: T2T207 reuse: true, but only this row reads b; remove reuse"],
        ),
        (
            r'- {tf: "\e[1m", torch: p, axes: a b -> b a}' + "\n- {tf: b, torch: q}\n",
            [B],
            [r"5:8: T2T201 \x1b[1m is not a variable of the checkpoint"],
        ),
    ],
)
def test_every_variable_is_accounted_for(text: str, refs: list[TensorRef], problems: list[str]) -> None:
    assert told(text, variables(*refs), parameters(P, Q)) == problems


def test_a_variable_that_is_read_twice_needs_reuse_in_every_row() -> None:
    def said(*reuse: str) -> list[str]:
        refs = [ParameterRef(f"p{i}", "float32", (3,)) for i in range(len(reuse))]
        rows = "".join(f"- {{tf: b, torch: p{i}{text}}}\n" for i, text in enumerate(reuse))
        return told(rows, variables(B), parameters(*refs))

    hint = "if that is meant, write reuse: true in each of these rows"

    assert said(", reuse: true", ", reuse: true") == []
    assert said("", ", reuse: true") == [f"5:8: T2T206 b is read 2 times, also in line 6; {hint}"]
    assert said("", "", ", reuse: true") == [
        f"5:8: T2T206 b is read 3 times, also in line 6, 7; {hint}",
        f"6:8: T2T206 b is read 3 times, also in line 5, 7; {hint}",
    ]
    assert said(*[", reuse: true"] * 4, "", "") == [
        f"9:8: T2T206 b is read 6 times, also in line 5, 6, 7, ...; {hint}",
        f"10:8: T2T206 b is read 6 times, also in line 5, 6, 7, ...; {hint}",
    ]


@pytest.mark.parametrize(
    ("text", "refs", "problems"),
    [
        (
            "- {tf: v, torch: p, axes: i o -> o i}\n- {tf: b, torch: qq}\n",
            [P, Q],
            ["6:18: T2T202 qq is not a parameter or persistent buffer of the module; did you mean q"],
        ),
        (
            "- {tf: v, torch: p, axes: i o -> o i}\n- {tf: b, torch: far}\n",
            [P, Q],
            [
                "6:18: T2T202 far is not a parameter or persistent buffer of the module",
                "4:1: T2T204 parameter q (float32 [3]) is written by no row; map it, or give it fill or keep",
            ],
        ),
        (
            ROWS,
            [P, Q, ParameterRef("running", "int64", (), "buffer")],
            ["4:1: T2T204 buffer running (int64 []) is written by no row; map it, or give it fill or keep"],
        ),
        (
            ROWS + "- {torch: q, fill: 0}\n",
            [P, Q],
            ["7:11: T2T203 q is written twice, first in line 6; remove one of the rows"],
        ),
    ],
)
def test_every_parameter_is_written_once(text: str, refs: list[ParameterRef], problems: list[str]) -> None:
    assert told(text, variables(V, B), parameters(*refs)) == problems


def test_two_rows_for_one_name_are_refused_without_a_module_too() -> None:
    assert told(ROWS + "- {torch: q, fill: 0}\n", variables(V, B), None) == [
        "7:11: T2T203 q is written twice, first in line 6; remove one of the rows",
        "4:1: T2T210 parameters not checked: no lock; t2t lock writes one, convert checks them by itself",
    ]


A1 = ParameterRef("a", "float32", (3,))
A2 = ParameterRef("a.again", "float32", (3,), tied_to="a")
A3 = ParameterRef("a.third", "float32", (3,), tied_to="a")


@pytest.mark.parametrize(
    ("text", "refs", "problems"),
    [
        ("- {tf: b, torch: a}\n- {torch: a.again, tie: a}\n", [A1, A2], []),
        ("- {tf: b, torch: a.again}\n- {torch: a, tie: a.again}\n", [A1, A2], []),
        ("- {torch: a.again, tie: a}\n- {tf: b, torch: a}\n- {torch: a.third, tie: a}\n", [A1, A2, A3], []),
        (
            "- {tf: b, torch: a}\n",
            [A1, A2],
            [
                "4:1: T2T204 parameter a.again (float32 [3]) is written by no row; "
                "it is the same Parameter as a: write tie: a"
            ],
        ),
        (
            "- {tf: b, torch: a}\n- {torch: q, tie: a}\n",
            [A1, Q],
            [
                "6:19: T2T404 q is not the same Parameter as a in the module; "
                "tie names that share one Parameter; map it instead",
            ],
        ),
        (
            "- {tf: b, torch: a}\n- {torch: a.again, fill: 0}\n",
            [A1, A2],
            ["6:11: T2T203 a.again is the same Parameter as a, which line 5 writes; write tie: a in one of the rows"],
        ),
        (
            "- {tf: b, torch: q}\n- {torch: a, tie: a.again}\n- {torch: a.again, tie: a}\n",
            [Q, A1, A2],
            ["6:3: T2T204 a is tied, and no row gives the Parameter a value; map one of its names"],
        ),
        (
            "- {tf: b, torch: q}\n- {torch: a, tie: a}\n",
            [Q, A1],
            ["6:3: T2T204 a is tied, and no row gives the Parameter a value; map one of its names"],
        ),
        (
            "- {tf: b, torch: a}\n- {torch: a.again, tie: a}\n- {torch: a.third, tie: a.again}\n",
            [A1, A2, A3],
            ["7:25: T2T404 a.third is tied to a.again, which is tied itself; write tie: a"],
        ),
        (
            "- {tf: b, torch: a}\n- {torch: a.again, tie: a.again}\n",
            [A1, A2],
            ["6:25: T2T404 a.again is tied to a.again, which is tied itself; write tie: a"],
        ),
        (
            "- {tf: b, torch: a}\n- {torch: a.again, tie: a.a}\n",
            [A1, A2],
            ["6:25: T2T202 a.a is not a parameter or persistent buffer of the module; did you mean a.again"],
        ),
        (
            "- {tf: b, torch: q}\n- {torch: a, tie: a.again}\n",
            [Q, A1, A2],
            ["4:1: T2T204 parameter a.again (float32 [3]) is written by no row; map it, or give it fill or keep"],
        ),
    ],
)
def test_names_of_one_parameter_are_one_value_and_ties(
    text: str, refs: list[ParameterRef], problems: list[str]
) -> None:
    assert told(text, variables(B), parameters(*refs)) == problems


# --- shapes and dtypes ---


def scalar(dtype: str) -> ParameterRef:
    return ParameterRef("p", dtype, ())


@pytest.mark.parametrize(
    ("text", "source", "target", "problems"),
    [
        (
            "{tf: v, torch: p}",
            V,
            ParameterRef("p", "float32", (2, 3)),
            [
                "5:18: T2T305 p: v [2, 3] has rank 2 and the row no axes; "
                "write how they move; for no move: axes: a b -> a b"
            ],
        ),
        (
            "{tf: v, torch: p, axes: a b c -> c b a}",
            V,
            P,
            [
                "5:27: T2T302 p: axes 'a b c -> c b a' are for rank 3, the variable has rank 2: [2, 3]; "
                "name each axis of the variable once on the left side"
            ],
        ),
        (
            "{tf: v, torch: p, permute: [0]}",
            V,
            P,
            ["5:30: T2T302 p: permute is for rank 1, but v is [2, 3]; write one entry for each axis"],
        ),
        (
            "{tf: v, torch: p, axes: (a b) c -> c b a, dims: {a: 4}}",
            V,
            P,
            ["5:51: T2T303 p: axis 0 (a b) has length 2, but dims say a=4"],
        ),
        (
            "{tf: v, torch: p, axes: (a b) c -> c b a}",
            V,
            P,
            [
                "5:27: T2T303 p: axis 0 (a b) of length 2 can be split in more than one way; "
                "give the sizes of all but one of a, b in dims"
            ],
        ),
        (
            "{tf: v, torch: p, axes: i o -> i o}",
            V,
            P,
            ["5:27: T2T304 p: axes 'i o -> i o' turn v [2, 3] into [i=2, o=3], but the parameter is [3, 2]"],
        ),
        (
            "{tf: v, torch: p, axes: (h w) c -> 1 (c w h), dims: {h: 2}}",
            V,
            P,
            [
                "5:27: T2T304 p: axes '(h w) c -> 1 (c w h)' turn v [2, 3] into [1, (c w h)=6], "
                "but the parameter is [3, 2]"
            ],
        ),
        (
            "{tf: v, torch: p, permute: [0, 1]}",
            V,
            P,
            ["5:30: T2T304 p: axes 'a b -> a b' turn v [2, 3] into [a=2, b=3], but the parameter is [3, 2]"],
        ),
        (
            "{tf: v, torch: p, axes: 1 -> }",
            TensorRef("v", "float32", (1,)),
            P,
            ["5:27: T2T304 p: axes '1 ->' turn v [1] into [], but the parameter is [3, 2]"],
        ),
        ("{tf: b, torch: p}", B, P, ["5:3: T2T304 p: b [3], but the parameter is [3, 2]"]),
        ("{tf: b, torch: p}", TensorRef("b", "float32", ()), P, ["5:3: T2T304 p: b [], but the parameter is [3, 2]"]),
        ("{tf: v, torch: p, axes: -> 1}", TensorRef("v", "float32", ()), ParameterRef("p", "float32", (1,)), []),
        (
            "{tf: s, torch: p}",
            TensorRef("s", "string", (3,)),
            Q,
            ["5:8: T2T406 s: string tensors cannot become parameters"],
        ),
        (
            "{tf: s, torch: p, dtype: int8}",
            TensorRef("s", "variant", (3,)),
            Q,
            ["5:8: T2T406 s: variant tensors cannot become parameters"],
        ),
        (
            "{tf: s, torch: p}",
            TensorRef("s", "int4", ()),
            scalar("int8"),
            ["5:8: T2T406 s: int4 has no torch counterpart; write dtype: int8 (or another) on the row"],
        ),
        (
            "{tf: s, torch: p}",
            TensorRef("s", "float8_e4m3b11fnuz", ()),
            scalar("float32"),
            [
                "5:8: T2T406 s: float8_e4m3b11fnuz has no torch counterpart; "
                "write dtype: float32 (or another) on the row"
            ],
        ),
        ("{tf: s, torch: p, dtype: int8}", TensorRef("s", "int4", ()), scalar("int8"), []),
        (
            "{tf: s, torch: p, dtype: int8}",
            TensorRef("s", "qint8", ()),
            scalar("float32"),
            ["5:28: T2T401 p is float32, but dtype says int8; write dtype: float32"],
        ),
        (
            "{tf: s, torch: p}",
            TensorRef("s", "float32", (3,), unreadable="its data file is missing"),
            Q,
            ["5:8: T2T406 s (float32) cannot become a parameter: its data file is missing"],
        ),
        (
            "{tf: s, torch: p}",
            TensorRef("s", "complex64", ()),
            scalar("float32"),
            ["5:3: T2T401 p is float32, but s is complex64; if a cast is meant, write dtype: float32"],
        ),
        (
            "{tf: s, torch: p, dtype: float32}",
            TensorRef("s", "complex64", ()),
            scalar("float32"),
            ["5:28: T2T401 p: s is complex64, float32 would drop its imaginary part"],
        ),
        (
            "{tf: s, torch: p}",
            TensorRef("s", "float64", ()),
            scalar("float32"),
            ["5:3: T2T401 p is float32, but s is float64; if a cast is meant, write dtype: float32"],
        ),
        (
            "{tf: s, torch: p, dtype: float64}",
            TensorRef("s", "float64", ()),
            scalar("float32"),
            ["5:28: T2T401 p is float32, but s is float64; if a cast is meant, write dtype: float32"],
        ),
        (
            "{tf: s, torch: p, dtype: float16}",
            TensorRef("s", "float64", ()),
            scalar("float32"),
            ["5:28: T2T401 p is float32, but dtype says float16; write dtype: float32"],
        ),
        ("{tf: s, torch: p, dtype: float32}", TensorRef("s", "float64", ()), scalar("float32"), []),
        ("{tf: s, torch: p, dtype: float32}", TensorRef("s", "int64", ()), scalar("float32"), []),
        ("{tf: s, torch: p, dtype: complex128}", TensorRef("s", "complex64", ()), scalar("complex128"), []),
    ],
)
def test_what_does_not_fit_is_said_with_both_sides(
    text: str, source: TensorRef, target: ParameterRef, problems: list[str]
) -> None:
    module = parameters(ParameterRef("p", target.dtype, target.shape))

    assert told(f"- {text}\n", variables(source), module) == problems


def test_a_fill_that_is_not_exact_is_refused() -> None:
    rows = "- {tf: b, torch: q}\n- {torch: p, fill: 0.1}\n"

    assert told(rows, variables(B), parameters(Q, scalar("float32"))) == [
        "6:20: T2T405 p is float32, which cannot hold 0.1 exactly; what it would hold is 0.10000000149011612"
    ]


def test_the_files_dtype_is_for_floating_variables() -> None:
    sources = [TensorRef("x", "float64", ()), TensorRef("y", "int64", ()), TensorRef("z", "bool", ())]
    refs = [ParameterRef("x", "float32", ()), ParameterRef("y", "int64", ()), ParameterRef("z", "bool", ())]
    rows = "".join(f"- {{tf: {name}, torch: {name}}}\n" for name in "xyz")
    ready, problems = made(rows + "dtype: float32\n", variables(*sources), parameters(*refs))

    assert problems == []
    assert [step.dtype for step in ready.steps] == ["float32", "int64", "bool"]


def test_a_rows_dtype_wins_over_the_files() -> None:
    rows = "- {tf: v, torch: p, dtype: float16}\ndtype: float32\n"

    assert told(rows, variables(TensorRef("v", "float64", ())), parameters(scalar("float16"))) == []


def test_a_broken_row_is_accounted_for_and_otherwise_left_alone() -> None:
    text = HEAD + "- {tf: v, torch: p, axes: nonsense}\n- {tf: b, torch: q}\n"
    read, _ = mapping.read(text.encode(), "m.yaml")

    assert read is not None
    assert lines(plan.make(read, variables(V, B), parameters(P, Q))[1]) == []


NUMBERS: dict[str, Any] = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "int64": np.int64,
    "int8": np.int8,
    "uint8": np.uint8,
    "uint64": np.uint64,
    "bool": np.bool_,
    "complex64": np.complex64,
}


@pytest.mark.parametrize(
    ("number", "dtypes"),
    [
        ("0", set(NUMBERS)),
        ("-0.0", set(NUMBERS)),
        ("1", set(NUMBERS)),
        ("1.0", set(NUMBERS)),
        ("2", set(NUMBERS) - {"bool"}),
        ("-1", set(NUMBERS) - {"bool", "uint8", "uint64"}),
        ("0.5", set(NUMBERS) - {"bool", "int64", "int8", "uint8", "uint64"}),
        ("0.1", {"float64"}),
        ("255", {"float64", "float32", "float16", "bfloat16", "int64", "uint8", "uint64", "complex64"}),
        ("256", {"float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "int64", "uint64", "complex64"}),
        ("257", {"float64", "float32", "float16", "int64", "uint64", "complex64"}),
        ("65504", {"float64", "float32", "float16", "int64", "uint64", "complex64"}),
        ("100000", {"float64", "float32", "int64", "uint64", "complex64"}),
        ("9007199254740993", {"int64", "uint64"}),
        ("9223372036854775807", {"int64", "uint64"}),
        ("9223372036854775808", {"float64", "float32", "bfloat16", "uint64", "complex64"}),
        ("1e30", {"float64"}),
        ("1e300", {"float64"}),
    ],
)
def test_a_fill_is_exact_in_the_parameters_dtype(number: str, dtypes: set[str]) -> None:
    def holds(dtype: str) -> bool:
        rows = f"- {{tf: b, torch: q}}\n- {{torch: p, fill: {number}}}\n"
        return told(rows, variables(B), parameters(Q, scalar(dtype))) == []

    assert {dtype for dtype in NUMBERS if holds(dtype)} == dtypes


def test_a_wrong_checkpoint_is_refused_in_seconds() -> None:
    """Every name is another one: proposals stop after a few, each of the rest is still told."""
    names = [f"encoder/layer_{i}/attention/{part}/kernel" for i in range(40) for part in ("query", "key", "value")]
    refs = [TensorRef(f"model/{name}", "float32", (3,)) for name in names]
    rows = "".join(f"- {{tf: {name}, torch: p{i}}}\n" for i, name in enumerate(names))
    began = time.process_time()
    problems = told(rows, variables(*refs), None)

    assert time.process_time() - began < 3
    assert sum("; did you mean" in problem for problem in problems) == applied.PROPOSALS
    assert sum("T2T201" in problem for problem in problems) == len(names)
    assert [problem for problem in problems if "T2T205" in problem] == [
        "4:1: T2T205 100 variables are used by no row: model/encoder/layer_6/attention/value/kernel, "
        "model/encoder/layer_7/attention/query/kernel, model/encoder/layer_7/attention/key/kernel, ...; "
        "map them, or name them under ignore with a why"
    ]


def test_all_forgotten_variables_are_in_the_details() -> None:
    refs = [TensorRef(f"v{i}", "float32", (i,)) for i in range(coverage.MAX_UNUSED + 1)]
    _, problems = made("- {tf: b, torch: q}\n", variables(B, *refs), None)

    (problem,) = (problem for problem in problems if problem.code == "T2T205")
    assert problem.details == tuple(f"v{i} float32 [{i}]" for i in range(coverage.MAX_UNUSED + 1))


def test_planning_reads_nothing() -> None:
    """Names, dtypes and shapes decide; an offset beyond every file does no harm."""
    far = TensorRef("b", "float32", (3,), shard=10**6, offset=2**62, nbytes=12)

    assert told("- {tf: b, torch: q}\n", variables(far), parameters(Q)) == []


ANY_ROW = {
    "p": ["tf: v, axes: i o -> o i", "tf: v, axes: i o -> o i", "fill: 0", "keep: init, why: a", "tf: v"],
    "q": ["tf: b", "tf: b", "tf: n, dtype: float32, reuse: true", "tie: r", "fill: 0.1", "tf: s"],
    "r": ["tie: q", "tie: q", "tie: q", "tie: p", "tf: b, reuse: true", "keep: init, why: a"],
    "n": ["tf: n", "tf: n, reuse: true", "fill: 1", "tf: b, dtype: int64", "tie: q"],
    "nobody": ["fill: 0", "tf: v, permute: [1, 0]"],
}


@settings(max_examples=400, deadline=None)
@given(
    st.fixed_dictionaries({name: st.sampled_from(rows) for name, rows in ANY_ROW.items()}),
    st.sampled_from(["p q r n"] * 5 + ["p q n", "r q n p p", "p q r n nobody", "q r q", "p"]),
    st.sampled_from(["ignore: [{tf: '*', why: a}]", "dtype: float32"]),
)
def test_a_plan_without_a_problem_gives_every_entry_exactly_once(rows: dict[str, str], targets: str, more: str) -> None:
    """Whatever stands in the rows: problems, or a plan that accounts for all of the module and runs."""
    refs = [P, Q, ParameterRef("r", "float32", (3,), tied_to="q"), ParameterRef("n", "int64", (3,), "buffer")]
    checkpoint = Memory({"v": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32), "n": np.ones(3, np.int64)})
    text = HEAD + "".join(f"- {{torch: {name}, {rows[name]}}}\n" for name in targets.split()) + more
    read, problems = mapping.read(text.encode(), "m.yaml")
    assert read is not None
    ready, more_problems = plan.make(read, checkpoint.inventory, parameters(*refs))
    plan.make(read, checkpoint.inventory, None)
    if problems or more_problems:
        event("refused")
        return
    event("runs")
    built = {ref.name: np.zeros(ref.shape, ref.dtype) for ref in refs}
    given_ = [(name, array.shape, array.dtype.name) for name, array in execute.tensors(ready, checkpoint, built)]

    assert sorted(given_) == sorted((ref.name, ref.shape, ref.dtype) for ref in refs)
    assert {*checkpoint.reads, *ready.ignored} == set(checkpoint.inventory.variables)


# --- full names ---


NAMED = HEAD.replace("{checkpoint: c}", "{checkpoint: c, names: full_name}")


def test_a_full_name_that_several_variables_share_is_unusable() -> None:
    """Told for a row, and for a pattern that matches nothing else; their keys are not told again as unused."""
    refs = [TensorRef(key, "float32", (3,), full_name="w") for key in "abcdefg"]
    others = [TensorRef(key, "float32", (), full_name="total") for key in ("t/0", "t/1")]
    inventory = CheckpointInventory(
        variables(B, *refs, *others).variables, shared_names={"w": tuple("abcdefg"), "total": ("t/0", "t/1")}
    )
    rows = "- {tf: w, torch: p}\n- {tf: b, torch: q}\nignore: [{tf: tot*, why: metrics}]\n"
    _, problems = plan.make(read(NAMED + rows), inventory, parameters(ParameterRef("p", "float32", (3,)), Q))

    assert lines(problems) == [
        "5:8: T2T211 w is the full name of 7 variables with different values: a, b, c, d, e, ...; "
        "write which of these is meant: they go by their keys",
        "7:10: T2T211 total is the full name of 2 variables with different values: t/0, t/1; "
        "write which of these is meant: they go by their keys",
    ]


def test_a_pattern_that_matches_something_else_too_is_fine() -> None:
    inventory = CheckpointInventory(
        variables(B, TensorRef("w/0", "int8", ()), TensorRef("w/1", "int8", ())).variables,
        shared_names={"w": ("w/0", "w/1")},
    )
    rows = "- {tf: b, torch: q}\nignore: [{tf: w/**, why: state}]\n"

    assert plan.make(read(NAMED + rows), inventory, parameters(Q))[1] == []


def test_the_other_name_of_a_variable_is_a_hint() -> None:
    key = "layer/kernel/.ATTRIBUTES/VARIABLE_VALUE"
    by_key = TensorRef("layer/kernel", "float32", (3,), key=key, full_name="dense/kernel")
    by_name = TensorRef("dense/kernel", "float32", (3,), key=key, full_name="dense/kernel")

    assert told("- {tf: dense/kernel, torch: q}", variables(by_key), parameters(Q)) == [
        "5:8: T2T201 dense/kernel is not a variable of the checkpoint; it is the full name of layer/kernel: "
        "write that, or names: full_name in source"
    ]
    assert lines(plan.make(read(NAMED + "- {tf: layer/kernel, torch: q}"), variables(by_name), parameters(Q))[1]) == [
        "5:8: T2T201 layer/kernel is not a variable of the checkpoint; it is the key of dense/kernel, "
        "which names: full_name in source calls it"
    ]


# --- dtypes that torch lacks ---


def test_every_dtype_that_torch_lacks_has_a_counterpart_that_holds_all_its_values() -> None:
    lacking = {name: dtype.numpy for name, dtype in DTYPES.items() if dtype.kind == "other" and dtype.numpy is not None}

    assert set(plan.COUNTERPARTS) == set(lacking)
    for name, numpy in lacking.items():
        to = DTYPES[plan.COUNTERPARTS[name]].numpy
        assert to is not None
        every = np.arange(256, dtype=np.uint8) if numpy.itemsize == 1 else np.array([0, -1, -(2**15), 2**15 - 1])
        values = every.view(numpy) if name.startswith(("q", "float8")) and numpy.itemsize == 1 else every.astype(numpy)
        back = values.astype(to).astype(numpy)
        assert back.tobytes() == values.tobytes() or np.array_equal(
            back.astype(np.float64), values.astype(np.float64), equal_nan=True
        )


@pytest.mark.parametrize(
    ("values", "dtype", "problem"),
    [
        (np.array([-8, 0, 7]).astype(ml_dtypes.int4), "int8", None),
        (np.array([0, 7, 15]).astype(ml_dtypes.uint4), "float32", None),
        (np.array([-2, 0, 1]).astype(ml_dtypes.int2), "int64", None),
        (np.array([0.5, -30, 1.875]).astype(ml_dtypes.float8_e4m3b11fnuz), "float32", None),
        (
            np.array([-8, 0, -1]).astype(ml_dtypes.int4),
            "uint8",
            "5:28: T2T402 p: uint8 cannot hold 2 of 3 values of v (int4), the largest is -8; choose a wider dtype",
        ),
        (
            np.array([np.nan, 0, 1]).astype(ml_dtypes.float8_e4m3b11fnuz),
            "float32",
            "5:8: T2T403 v holds 1 NaN and 0 Inf among 3 elements; if that is meant, give --allow-nonfinite",
        ),
    ],
)
def test_what_torch_lacks_is_cast_by_the_row(values: np.ndarray[Any, Any], dtype: str, problem: str | None) -> None:
    checkpoint = Memory({"v": values})
    module = parameters(ParameterRef("p", dtype, (3,)))
    ready, problems = made(f"- {{tf: v, torch: p, dtype: {dtype}}}", checkpoint.inventory, module)

    assert problems == []
    if problem is None:
        ((_, result),) = execute.tensors(ready, checkpoint, {})
        assert result.dtype == dtype
        assert result.astype(np.float64).tolist() == values.astype(np.float64).tolist()
    else:
        with pytest.raises(MappingError) as caught:
            list(execute.tensors(ready, checkpoint, {}))
        assert lines(caught.value.problems) == [problem]


# --- parts: slices, joins, orders, numbers ---

KERNEL = TensorRef("k", "float32", (7, 12))


@pytest.mark.parametrize(
    ("rows", "refs", "module", "problems"),
    [
        # slices and drops
        (
            "- {tf: k, torch: p, slice: [':4'], axes: i o -> o i}\n",
            [KERNEL],
            [ParameterRef("p", "float32", (12, 4))],
            [
                "5:28: T2T205 k[4:7, :] (36 of 84 elements) is read by no row; "
                "map it too, or name it under drop with a why"
            ],
        ),
        (
            "- {tf: k, torch: p, slice: [':4'], axes: i o -> o i}\ndrop: [{tf: k, slice: ['3:'], why: w}]\n",
            [KERNEL],
            [ParameterRef("p", "float32", (12, 4))],
            ["6:8: T2T212 drop names k[3:7, :], of which line 5 reads [0:4, :]; drop what no row reads"],
        ),
        (
            "- {tf: b, torch: q}\ndrop: [{tf: k, slice: ['3:'], why: w}]\n",
            [B, KERNEL],
            [Q],
            [
                "6:8: T2T212 drop names a part of k, which no row reads; "
                "name the variable under ignore, or drop what no row reads",
                "4:1: T2T205 variable k (float32 [7, 12], 84 elements) is used by no row; "
                "map it, or name it under ignore with a why",
            ],
        ),
        (
            "- {tf: b, torch: q}\ndrop: [{tf: kk, slice: ['3:'], why: w}, {tf: b, slice: ['9:'], why: w}]\n",
            [B],
            [Q],
            [
                "6:8: T2T201 drop: kk is not a variable of the checkpoint",
                "6:41: T2T307 drop: the slice of b has the bound 9 on axis 0, whose size is 3",
            ],
        ),
        (
            "- {tf: k, torch: p, slice: [':8'], axes: i o -> o i}\n",
            [KERNEL],
            [ParameterRef("p", "float32", (12, 8))],
            ["5:28: T2T307 p: the slice of k has the bound 8 on axis 0, whose size is 7"],
        ),
        (
            "- {tf: k, torch: p, slice: [':5'], axes: i o -> o i}\n"
            "- {tf: k, torch: r, slice: ['4:'], axes: i o -> o i}\n",
            [KERNEL],
            [ParameterRef("p", "float32", (12, 5)), ParameterRef("r", "float32", (12, 3))],
            [
                "5:28: T2T206 k[0:5, :] is read again in line 6, as [4:7, :]; "
                "if that is meant, write reuse: true in each of these rows",
                "6:28: T2T206 k[4:7, :] is read again in line 5, as [0:5, :]; "
                "if that is meant, write reuse: true in each of these rows",
            ],
        ),
        (
            "- {tf: k, torch: p, slice: [':4'], axes: i o -> o i, reuse: true}\n"
            "- {tf: k, torch: r, slice: ['4:'], axes: i o -> o i}\n",
            [KERNEL],
            [ParameterRef("p", "float32", (12, 4)), ParameterRef("r", "float32", (12, 3))],
            ["5:61: T2T207 reuse: true, but only this row reads k[0:4, :]; remove reuse"],
        ),
        # into
        (
            "- {tf: b, torch: q, into: ['1:4']}\n- {torch: q, fill: 0, into: [':2']}\n",
            [B],
            [ParameterRef("q", "float32", (4,))],
            ["6:29: T2T203 q[0:2] is written twice, also in line 5, as [1:4]; write each element once"],
        ),
        (
            "- {tf: b, torch: q, into: ['1:4']}\n",
            [B],
            [ParameterRef("q", "float32", (5,))],
            [
                "5:27: T2T204 parameter q[0:1] (1 of 5 elements) is written by no row; map it too, or fill it",
                "5:27: T2T204 parameter q[4:5] (1 of 5 elements) is written by no row; map it too, or fill it",
            ],
        ),
        (
            "- {tf: b, torch: q, into: ['3:6']}\n- {torch: q, fill: 0, into: [':3']}\n",
            [B],
            [ParameterRef("q", "float32", (5,))],
            ["5:27: T2T307 q: into has the bound 6 on axis 0, whose size is 5"],
        ),
        (
            "- {tf: b, torch: q, into: ['1:']}\n- {torch: q, fill: 0, into: [':1']}\n",
            [B],
            [ParameterRef("q", "float32", (5,))],
            ["5:27: T2T304 q: b [3], but the parameter's [1:5] is [4]"],
        ),
        # joins
        (
            "for: {k: 0..2}\nmap:\n- {tf: ['w<k>'], torch: p, join: v, axes: v d -> v d}\n",
            [TensorRef(f"w{k}", "float32", (4, 2)) for k in range(3)],
            [ParameterRef("p", "float32", (16, 2))],
            [
                "6:43: T2T304 p: axes 'v d -> v d' turn the 3 variables from w0 on [12, 2] into [v=12, d=2], "
                "but the parameter is [16, 2]"
            ],
        ),
        (
            "- {tf: [k, v], torch: p, join: r, axes: r d -> r d}\n",
            [KERNEL, V],
            [ParameterRef("p", "float32", (9, 12))],
            ["5:32: T2T308 p: k [7, 12] and v [2, 3] cannot be joined along r; the other sizes must be equal"],
        ),
        (
            "- {tf: [b, c], torch: p, join: r, axes: d r -> r d}\n",
            [B, TensorRef("c", "float32", (3,))],
            [ParameterRef("p", "float32", (2, 3))],
            [
                "5:41: T2T302 p: axes 'd r -> r d' are for rank 2, but b is [3]; "
                "or one less, where r is the first axis: then it stacks"
            ],
        ),
        (
            "- {tf: [b, c], torch: p, join: r, axes: r d -> r d}\n",
            [B, TensorRef("c", "int32", (3,))],
            [ParameterRef("p", "float32", (2, 3))],
            ["5:32: T2T308 p: variables of float32 and int32 are joined; join those of one dtype"],
        ),
        # orders, flips and numbers
        (
            "- {tf: b, torch: q, axes: g -> g, order: {g: ab -> ba}}\n",
            [B],
            [Q],
            ["5:42: T2T309 q: order 'g: ab -> ba' is of 2 entries, but g has 3"],
        ),
        (
            "- {tf: b, torch: q, axes: g -> g, order: {h: ab -> ba}}\n",
            [B],
            [Q],
            ["5:42: T2T309 q: order names h, which axes 'g -> g' don't have"],
        ),
        (
            "- {tf: b, torch: q, flip: [1]}\n",
            [B],
            [Q],
            ["5:27: T2T309 q: flip names 1, which axes 'a0 -> a0' don't have"],
        ),
        (
            "- {tf: n, torch: m, scale: 0.5}\n",
            [TensorRef("n", "int32", (3,))],
            [ParameterRef("m", "int32", (3,))],
            [
                "5:28: T2T407 m is int32, which cannot hold the scale 0.5; cast to a float with dtype, or "
                "write an integer"
            ],
        ),
        # optional rows and recipes
        (
            "- {tf: d, torch: l, use: dense}\n",
            [TensorRef("d/kernel", "float32", (2, 3))],
            [ParameterRef("l.weight", "float32", (3, 2)), ParameterRef("l.bias", "float32", (3,))],
            [
                "5:8: T2T213 l.bias is in the module, but its optional variable d/bias is not in the checkpoint; "
                "build the module without it, or say what it gets: by another recipe (t2t recipes), "
                "or by rows written out"
            ],
        ),
        (
            "- {tf: d, torch: l, use: dense}\n",
            [TensorRef("d/kernel", "float32", (2, 3)), TensorRef("d/bias", "float32", (3,))],
            [ParameterRef("l.weight", "float32", (3, 2))],
            [
                "5:18: T2T213 d/bias is in the checkpoint, but its optional parameter l.bias is not in the module; "
                "build the module with it, or write out the recipe's rows and ignore the variable"
            ],
        ),
        (
            "- {tf: b, torch: q}\n- {tf: n, torch: l, use: layer_norm}\n",
            [B],
            [Q],
            [
                "6:8: T2T215 recipe layer_norm applies no row: the checkpoint has none of its variables under n, "
                "the module none of its parameters under l"
            ],
        ),
        (
            "- {tf: b, torch: q}\n- {tf: dens/x, torch: l, use: dense}\n",
            [B, TensorRef("dense/x/kernel", "float32", (2, 3))],
            [Q, ParameterRef("l.weight", "float32", (3, 2))],
            [
                "6:8: T2T201 the checkpoint has none of the variables of recipe dense under dens/x: "
                "dens/x/kernel, dens/x/bias; did you mean dense/x, dense"
            ],
        ),
        (
            "- {tf: b, torch: q}\n- {tf: d, torch: leyer, use: dense}\n",
            [B, TensorRef("d/kernel", "float32", (2, 3))],
            [Q, ParameterRef("layer.weight", "float32", (3, 2))],
            [
                "6:18: T2T202 the module has none of the parameters of recipe dense under leyer: "
                "leyer.weight, leyer.bias; did you mean layer"
            ],
        ),
        # a layer more than the range says, in the checkpoint and in the module
        (
            "for: {i: 0..11}\nmap:\n- {tf: 'h<i>/b', torch: 'h.<i>.b'}\n",
            [TensorRef(f"h{i}/b", "float32", (3,)) for i in range(13)],
            [ParameterRef(f"h.{i}.b", "float32", (3,)) for i in range(13)],
            [
                "5:1: T2T205 variable h12/b (float32 [3], 3 elements) is used by no row; "
                "map it, or name it under ignore with a why",
                "5:1: T2T204 parameter h.12.b (float32 [3]) is written by no row; map it, or give it fill or keep",
            ],
        ),
    ],
)
def test_what_does_not_add_up_is_told_with_its_elements(
    rows: str, refs: list[TensorRef], module: list[ParameterRef], problems: list[str]
) -> None:
    head = HEAD if rows.startswith("-") else HEAD.removesuffix("map:\n")

    assert lines(plan.make(read(head + rows), variables(*refs), parameters(*module))[1]) == problems


def test_optional_rows_are_left_out_where_neither_side_has_them() -> None:
    refs, module = [TensorRef("d/kernel", "float32", (2, 3))], [ParameterRef("l.weight", "float32", (3, 2))]
    ready, problems = made("- {tf: d, torch: l, use: dense}\n", variables(*refs), parameters(*module))

    assert problems == []
    assert [step.target for step in ready.steps] == ["l.weight"]


def test_a_moving_average_that_is_missing_is_no_reason_for_the_plain_variable() -> None:
    text = "t2t: 1\nmodel: m:M\nsource: {checkpoint: c, select: /EMA}\nmap:\n- {tf: b, torch: q}\n- {tf: c, torch: r}\n"
    refs = [B, TensorRef("b/EMA", "float32", (3,)), TensorRef("c", "float32", (3,))]
    module = parameters(Q, ParameterRef("r", "float32", (3,)))
    found = plan.make(read(text), variables(*refs), module)[1]

    assert lines(found) == [
        "6:8: T2T214 source.select reads c/EMA, which is not a variable of the checkpoint; "
        "write select: none on the row, if the plain c is meant"
    ]
    ready, found = plan.make(read(text.replace("torch: r", "torch: r, select: none")), variables(*refs), module)
    assert found == []
    assert [ref.name for step in ready.steps for ref in step.sources] == ["b/EMA", "c"]
    assert ready.ignored == {"b": "source.select reads its /EMA"}


def test_ten_gigabytes_with_ten_slices_plan_as_fast_as_ten_numbers() -> None:
    """Nothing is allocated, and no time depends on the number of elements."""
    rows = "for: {i: 0..9}\nmap:\n- {tf: k, torch: 'p<i>', slice: ['<%di>:<%di+%d>'], axes: a b -> b a}\n"

    def seconds(size: int) -> float:
        ref = TensorRef("k", "float32", (10 * size, 256))
        module = parameters(*(ParameterRef(f"p{i}", "float32", (256, size)) for i in range(10)))
        text = HEAD.removesuffix("map:\n") + rows % (size, size, size)
        start = time.perf_counter()
        assert lines(plan.make(read(text), variables(ref), module)[1]) == []
        return time.perf_counter() - start

    seconds(1)
    small, large = min(seconds(1) for _ in range(5)), min(seconds(10**6) for _ in range(5))
    assert large < 5 * small


CELL = {
    "kernel": TensorRef("g/kernel", "float32", (2, 9)),
    "recurrent_kernel": TensorRef("g/recurrent_kernel", "float32", (3, 9)),
    "bias": TensorRef("g/bias", "float32", (9,)),
}
TWIN = parameters(
    ParameterRef("r.weight_ih_l0", "float32", (9, 2)),
    ParameterRef("r.weight_hh_l0", "float32", (9, 3)),
    ParameterRef("r.bias_ih_l0", "float32", (9,)),
)


def test_a_gru_whose_bias_says_that_torch_computes_otherwise_is_told_but_where_its_recipe_knows() -> None:
    rows = (
        "- {tf: g/kernel, torch: r.weight_ih_l0, axes: x g -> g x}\n"
        "- {tf: g/recurrent_kernel, torch: r.weight_hh_l0, axes: x g -> g x}\n- {tf: g/bias, torch: r.bias_ih_l0}\n"
    )
    use = "- {tf: g, torch: r, use: gru.reset_before, with: {suffix: l0}}\n"

    assert told(rows, variables(*CELL.values()), TWIN) == [
        "7:8: T2T615 the GRU g has a bias of 9, hence reset_after=false, but torch's GRU resets after the product; "
        "map it with the recipe gru.reset_before onto t2t.nn.GRU"
    ]
    assert told(use, variables(*CELL.values()), TWIN) == []


def test_the_recipe_for_the_usual_gru_does_not_fit_that_one_and_the_finding_says_why() -> None:
    use = "- {tf: g, torch: r, use: gru, with: {suffix: l0}}\n"
    found = told(use, variables(*CELL.values()), TWIN)

    assert (
        "5:8: T2T615 the GRU g has a bias of 9, hence reset_after=false, but torch's GRU resets after the product; "
        "map it with the recipe gru.reset_before onto t2t.nn.GRU" in found
    )
    assert any("T2T307 r.bias_ih_l0" in line or "T2T302 r.bias_ih_l0" in line for line in found)


def test_an_lstm_of_cudnn_is_told_by_its_bias() -> None:
    refs = [
        TensorRef("l/kernel", "float32", (2, 12)),
        TensorRef("l/recurrent_kernel", "float32", (3, 12)),
        TensorRef("l/bias", "float32", (24,)),
    ]
    shapes = {"weight_ih_l0": (12, 2), "weight_hh_l0": (12, 3), "bias_ih_l0": (12,), "bias_hh_l0": (12,)}
    module = parameters(*(ParameterRef(f"r.{name}", "float32", shape) for name, shape in shapes.items()))

    assert told("- {tf: l, torch: r, use: lstm, with: {suffix: l0}}\n", variables(*refs), module) == [
        "5:3: T2T304 r.bias_ih_l0: l/bias [24], but the parameter is [12]",
        "5:8: T2T615 l is a CuDNNLSTM, whose bias is torch's bias_ih and then bias_hh: 8 parts, where Keras' LSTM "
        "has others; map it with the recipe cudnn.lstm",
    ]
    assert told("- {tf: l, torch: r, use: cudnn.lstm, with: {suffix: l0, u: 3}}\n", variables(*refs), module) == []


# --- one line for one fault ---


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("{tf: b}", "6:3: T2T105 key 'torch' is missing; for example torch: \"fc1.weight\""),
        ("{tf: b, torch: q, slice: ['0:4:2']}", "6:28: T2T307 slice '0:4:2' is not start:stop; for example ['0:4']"),
        ("{tf: b, torch: 'q<j>'}", "6:18: T2T111 <j> is not declared in for; write for: {j: 0..11} or its values"),
        ("{tf: b, torch: 'q<i.__class__>'}", "6:18: T2T111 <i.__class__> is not an index; "),
        ("{tf: b, torch: q, use: transpose}", "6:26: T2T112 there is no recipe transpose; "),
    ],
)
def test_a_row_that_cannot_be_read_is_not_told_again_by_its_names(row: str, problem: str) -> None:
    text = HEAD + "- {tf: v, torch: p, axes: i o -> o i}\n- " + row + "\n"
    read_, problems = mapping.read(text.encode(), "m.yaml")
    assert read_ is not None
    found = [*problems, *plan.make(read_, variables(V, B), parameters(P, Q))[1]]
    told_ = [line for line in lines(found) if "q" not in row.partition("torch")[2] or "T2T204" not in line]

    assert len(told_) == 1 + (row == "{tf: b}")  # what the row without a parameter would write, nobody knows
    assert told_[0].startswith(problem)


def test_many_names_of_one_row_are_one_line() -> None:
    text = HEAD.removesuffix("map:\n") + "for: {i: 0..99}\nmap:\n- {tf: 'h<i>', torch: 'g.<i>'}\n- {tf: b, torch: q}\n"
    found = plan.make(read(text), variables(B), parameters(Q))[1]

    assert lines(found) == [
        "6:8: T2T201 100 names of this row are not variables of the checkpoint: h0, h1, h2, ...",
        "6:23: T2T202 100 names of this row are not parameters or persistent buffers of the module: g.0, g.1, g.2, ...",
    ]
    assert found[0].details[-1] == "h99"


def test_many_parameters_that_no_row_writes_are_one_line() -> None:
    module = parameters(Q, *(ParameterRef(f"g.{i}", "float32", (3,)) for i in range(20)))
    (problem,) = made("- {tf: b, torch: q}\n", variables(B), module)[1]

    assert str(problem).removeprefix("m.yaml:") == (
        "4:1: T2T204 20 parameters are written by no row: parameter g.0 (float32 [3]), parameter g.1 (float32 [3]), "
        "parameter g.2 (float32 [3]), ...; map them, or give them fill or keep"
    )
    assert len(problem.details) == 20


def test_a_variable_that_a_join_names_twice_is_told_once() -> None:
    module = parameters(ParameterRef("q", "float32", (6,)))

    assert told("- {tf: [b, b], torch: q, join: v, axes: v -> v}\n", variables(B), module) == [
        "5:8: T2T206 b is read 2 times by this row; "
        "name it once, use the row's letters in tf too or, if that is meant, write reuse: true"
    ]


# --- what a reviewer broke ---


def test_of_many_readers_each_is_held_against_the_others() -> None:
    """Six hundred slices, one pair of them shared as it says, another pair not."""
    rows = "- {tf: v, torch: a, slice: ['0:2'], reuse: true}\n- {tf: v, torch: b, slice: ['0:2'], reuse: true}\n"
    rows += "- {tf: v, torch: c, slice: ['400:402']}\n- {tf: v, torch: 'p<k>', slice: ['<k>:<k+1>']}\n"
    refs = [ParameterRef(name, "float32", (2,)) for name in "abc"]
    refs += [ParameterRef(f"p{k}", "float32", (1,)) for k in range(2, 601)]
    text = HEAD.removesuffix("map:\n") + "for: {k: 2..600}\nmap:\n" + rows
    found = lines(plan.make(read(text), variables(TensorRef("v", "float32", (601,))), parameters(*refs))[1])

    hint = "if that is meant, write reuse: true in each of these rows"
    assert found == [
        f"8:28: T2T206 v[400:402] is read again in line 9, as [400:401]; {hint}",
        f"9:33: T2T206 v[400:401] is read again in line 8, as [400:402]; {hint}",
        f"9:33: T2T206 v[401:402] is read again in line 8, as [400:402]; {hint}",
    ]


def test_reuse_of_a_recipe_is_judged_by_all_that_it_reads() -> None:
    refs = [TensorRef("d/kernel", "float32", (2, 3)), TensorRef("d/bias", "float32", (3,))]
    module = [ParameterRef(f"{m}.{n}", "float32", s) for m in "lm" for n, s in (("weight", (3, 2)), ("bias", (3,)))]
    twice = "- {tf: d, torch: l, use: dense, reuse: true}\n- {tf: d, torch: m, use: dense, reuse: true}\n"

    assert told(twice, variables(*refs), parameters(*module)) == []
    assert told(twice.splitlines()[0], variables(*refs), parameters(*module[:2])) == [
        "5:40: T2T207 reuse: true, but only this row reads what its recipe dense reads; remove reuse"
    ]


@pytest.mark.parametrize(
    ("rows", "refs", "module", "problem"),
    [
        (
            "- {tf: v, torch: p, scale: 1e-9}\n",
            [TensorRef("v", "float16", (2,))],
            [ParameterRef("p", "float16", (2,))],
            "5:28: T2T407 p is float16, which cannot hold the scale 1e-09; choose a wider dtype",
        ),
        (
            "- {tf: v, torch: p, add: 1}\n",
            [TensorRef("v", "bool", (2,))],
            [ParameterRef("p", "bool", (2,))],
            "5:26: T2T407 p is bool, which has no add; remove add",
        ),
        (
            "- {tf: b, torch: q}\n- {torch: n, fill: 99999999999999999999}\n",
            [B],
            [Q, ParameterRef("n", "int64", ())],
            "6:20: T2T405 n is int64, which cannot hold 99999999999999999999 exactly; write a number that it holds",
        ),
        (
            "- {tf: b, torch: q, order: {a0: abc -> bca}}\n",
            [B],
            [Q],
            "5:28: T2T309 q: order names a0, but the row has no axes; write axes: a0 -> a0",
        ),
        (
            "- {tf: v, torch: p, flip: [i, 0], axes: i o -> o i}\n",
            [V],
            [P],
            "5:27: T2T309 p: flip turns i round twice; name it once",
        ),
        (
            "- {tf: v, torch: p, flip: [1], axes: i 1 -> 1 i}\n",
            [TensorRef("v", "float32", (3, 1))],
            [ParameterRef("p", "float32", (1, 3))],
            "5:27: T2T309 p: flip names axis 1, which is 1 in axes 'i 1 -> 1 i'; remove it",
        ),
        (
            "- {tf: b, torch: q, slice: [':2']}\n"
            "drop: [{tf: b, slice: ['2:'], why: w}, {tf: b, slice: ['2:'], why: w}]\n",
            [B],
            [ParameterRef("q", "float32", (2,))],
            "6:40: T2T212 drop names b[2:3] twice; name each element once",
        ),
        (
            "- {tf: d, torch: l, use: conv2d}\n",
            [TensorRef("d/depthwise_kernel", "float32", (3, 3, 2, 1))],
            [ParameterRef("l.weight", "float32", (2, 1, 3, 3))],
            "5:8: T2T201 the checkpoint has none of the variables of recipe conv2d under d: d/kernel, d/bias; "
            "what is there: d/depthwise_kernel",
        ),
    ],
)
def test_what_would_have_been_lost_or_ignored_in_silence_is_refused(
    rows: str, refs: list[TensorRef], module: list[ParameterRef], problem: str
) -> None:
    assert told(rows, variables(*refs), parameters(*module)) == [problem]


def test_a_recipe_of_fills_alone_applies() -> None:
    text = HEAD.removesuffix("map:\n") + "recipes: {z: [{torch: w, fill: 0}]}\nmap:\n- {tf: b, torch: q}\n"
    found = plan.make(
        read(text + "- {tf: '', torch: m, use: z}\n"), variables(B), parameters(Q, ParameterRef("m.w", "float32", ()))
    )

    assert found[1] == []


def test_small_mappings_that_mean_too_much_end_at_once() -> None:
    """Products, ranges, recipes and slices across each other: refused, or planned, in a moment."""
    head = HEAD.removesuffix("map:\n")
    deep = "".join(f"  r{n}: [{', '.join([f'{{tf: x, torch: y, use: r{n + 1}}}'] * 30)}]\n" for n in range(3))
    texts = [
        head + "for: {i: [0..199998, 199998]}\nmap: [{tf: 'v<i>', torch: 'b<i>'}]",
        head + "for: {i: 0..999, j: 0..999, k: 0..99}\nmap: [{tf: ['v<i>_<j>_<k>'], torch: b, join: x, axes: x -> x}]",
        head + "for: {i: 0..999, j: 0..999}\nmap: [{tf: a, torch: b}]\ndrop: [{tf: 'v<i>', slice: ['<j>:'], why: w}]",
        head
        + "for: {"
        + ", ".join(f"{'abcdefghij'[n % 10] * (n // 10 + 1)}: 0..199999" for n in range(50))
        + "}\nmap: []",
        head + f"recipes:\n{deep}  r3: [{', '.join(['{tf: x, torch: y}'] * 30)}]\nmap: [{{tf: a, torch: b, use: r0}}]",
        head + "for: {k: 0..3999}\nmap:\n- {tf: v, torch: 'b<k>', slice: ['<k>:', '<k>:<k+1>'], axes: a b -> b a}\n",
    ]
    for text in texts:
        start = time.perf_counter()
        made_, problems = mapping.read(text.encode(), "m.yaml")
        if made_ is not None:
            plan.make(made_, variables(TensorRef("v", "float32", (4001, 4000))), None)
        assert time.perf_counter() - start < 120, text[:80]  # what multiplies out would take days
        assert problems or "slice" in text
