"""A diagnosis in words, as a table and as JSON: every form of it, and names that are only shown."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from t2t.problems import Location
from t2t.proof import told
from t2t.proof.compare import Comparison, OutputDelta
from t2t.proof.diagnosis import Diagnosis, Repair
from t2t.proof.difference import Call, End, Trace, Verdict
from t2t.verification import Verify
from tests.given import HEAD, read

EVIL = "a\x1b[31m\n\u202eb"
SHOWN = r"a\x1b[31m\n\u202eb"


def end(verdict: Verdict, operation: str = "MatMul", max_delta: float = 0.5, scale: float = 2.0) -> End:
    return End(operation, (5, 3), (3, 5), max_delta, scale, 3e-5, verdict)


def call(name: str, first: Verdict | None = "agrees", last: Verdict | None = "agrees", number: int = 0) -> Call:
    ends = (None if verdict is None else end(verdict, f"{name}/{at}") for at, verdict in (("in", first), ("out", last)))
    return Call(name, number, "Linear", *ends)


def diagnosis(
    *calls: Call,
    place: str = "",
    repairs: tuple[Repair, ...] = (),
    passes: bool = False,
    tried: int = 0,
    rows: Sequence[tuple[str, int]] = (),
) -> Diagnosis:
    """`rows` are those to paste, each with the line that it replaces."""
    words = tuple(f"change {n}" for n in range(tried))
    lines, replaces = tuple(row for row, _ in rows), tuple(line for _, line in rows)
    return Diagnosis(place, Trace(calls, (), ()), repairs, passes, words, False, lines, replaces)


def repair(*rows: str, what: str = "another order", at: int = 5) -> Repair:
    """The repair of these rows, which stand from line `at`."""
    made = read(HEAD + "\n" * (at - 5) + "".join(f"- {row}\n" for row in rows))
    return Repair(what, made.rules)


ROW = "{tf: a, torch: b.weight, axes: i o -> o i}"
LOOK = "look at what its forward() does around it"
CALLS = [call(f"layer{n}") for n in range(6)]
WRONG = [call("wrong", "agrees", "differs")]
REST = [call(f"after{n}", "differs", "differs") for n in range(5)]


# --- the table ---


def test_the_table_has_the_layers_around_the_first_that_differs() -> None:
    found = diagnosis(*CALLS, *WRONG, *REST)
    whole = [row[0] for row in told.table(found, whole=True)]

    assert whole == [*(f"layer{n}" for n in range(6)), "wrong", *(f"after{n}" for n in range(5))]
    assert [row[0] for row in told.table(found, whole=False)] == [
        *("...", "layer2", "layer3", "layer4", "layer5", "wrong", "after0", "after1", "after2", "..."),
    ]
    assert {len(row) for row in told.table(found, whole=False)} == {len(told.HEADER)} == {6}


@pytest.mark.parametrize(("before", "after"), [(0, 0), (4, 3), (4, 0), (0, 3)])
def test_nothing_stands_for_what_is_not_left_out(before: int, after: int) -> None:
    found = diagnosis(*CALLS[:before], *WRONG, *REST[:after])

    assert told.table(found, whole=False) == told.table(found, whole=True)


def test_where_nothing_differs_all_are_shown() -> None:
    assert [row[0] for row in told.table(diagnosis(*CALLS), whole=False)] == [f"layer{n}" for n in range(6)]
    assert told.table(diagnosis(), whole=False) == []


def test_a_row_says_how_much_differs_as_a_share() -> None:
    calls = (
        call("one", None, "agrees"),
        call("one", "agrees", "differs", number=1),
        call("two", "unlike", None),
        Call("three", 0, "GRU", end("differs", "scan", math.nan), end("differs", "scan", math.inf)),
        Call("four", 0, "GRU", end("differs", "scan", 0.25, 0.0), None),
    )

    assert told.table(diagnosis(*calls), whole=True) == [
        ["one", "Linear", "one/out", "", "2.5e-01", ""],
        ["one (2)", "Linear", "one/out", "2.5e-01", "2.5e-01 differs", "<- the first that differs"],
        ["two", "Linear", "two/in", "?", "", ""],
        ["three", "GRU", "scan", "not finite", "not finite", ""],
        ["four", "GRU", "scan", "2.5e-01 differs", "", ""],
    ]


def test_names_are_shown() -> None:
    ((name, kind, operation, *_),) = told.table(diagnosis(replace(call(EVIL), kind=EVIL)), whole=True)

    assert (name, kind, operation) == (SHOWN, SHOWN, f"{SHOWN}/out")


def test_of_a_long_name_the_end_is_shown() -> None:
    """And of names that TensorFlow Lite joined the last."""
    fits = "a" * told.MAX_NAME
    names = [fits, f"block/{fits}", f"one;two;{fits}", f"{fits};three"]
    calls = [replace(call("c"), output=end("agrees", name)) for name in names]

    assert [row[2] for row in told.table(diagnosis(*calls), whole=True)] == [
        fits,
        f"...{'a' * (told.MAX_NAME - 3)}",
        fits,
        "three",
    ]


# --- words ---


def test_what_passes_is_told_with_the_rows_to_paste() -> None:
    found = diagnosis(*WRONG, repairs=(repair(ROW, at=7),), passes=True, tried=3, rows=[(ROW, 7)])

    for whole in (False, True):
        assert told.lines(found, whole=whole) == [
            "what passes:",
            "  another order, in place of the row in line 7:",
            f"    - {ROW}",
        ]


def test_more_than_one_repair_is_all_of_it_together() -> None:
    rows = [f"{{tf: a{n}, torch: b{n}.weight}}" for n in range(5)]
    repairs = (repair(*rows, what="exchanged"), Repair("norm (LayerNorm) with eps=0.001 for 1e-05"))
    found = diagnosis(*WRONG, repairs=repairs, passes=True, rows=[(row, 5 + n) for n, row in enumerate(rows)])

    assert told.lines(found, whole=False) == [
        "what passes, all of it together:",
        "  exchanged",
        "  norm (LayerNorm) with eps=0.001 for 1e-05",
        "  in place of the rows in lines 5, 6, 7, 8, 9:",
        *(f"    - {row}" for row in rows),
    ]


def test_many_rows_are_told_whole_only_in_full() -> None:
    rows = [f"{{tf: a{n}, torch: b{n}.weight}}" for n in range(10)]
    made = [(row, 5 + n) for n, row in enumerate(rows)]
    found = diagnosis(*WRONG, repairs=(repair(*rows, what="exchanged"),), passes=True, rows=made)

    assert told.lines(found, whole=False) == [
        "what passes:",
        "  exchanged, in place of the rows in lines 5, 6, 7, 8, 9, 10, 11, 12, ...:",
        *(f"    - {row}" for row in rows[:8]),
        "    and 2 more; --format full shows them",
    ]
    assert told.lines(found, whole=True)[2:] == [f"    - {row}" for row in rows]
    passes = f"what passes is {', '.join(rows[:3])} and 7 more, see t2t verify"
    assert found.hint == f"wrong is the first layer that differs; {passes}"


def test_what_was_tried_in_vain_is_counted_and_listed_in_full() -> None:
    found = diagnosis(*WRONG, place="wrong", tried=2)
    again = replace(found, tried=(*found.tried, "change 0"))

    assert told.lines(found, whole=False) == [
        f"2 changes of rows and of the module tried, and none makes the outputs agree; {LOOK}"
    ]
    assert told.lines(again, whole=True) == [
        f"3 changes of rows and of the module tried, and none makes the outputs agree; {LOOK}",
        "  change 0",
        "  change 1",
    ]
    assert told.lines(replace(found, tried=found.tried[:1]), whole=False) == [
        f"1 change of rows and of the module tried, and none makes the outputs agree; {LOOK}"
    ]
    assert told.lines(replace(found, is_cut=True, place=""), whole=False) == [
        "2 changes of rows and of the module tried, and none makes the outputs agree, and there are more; look at what "
        "forward() does"
    ]
    assert told.lines(replace(found, tried=()), whole=False) == [
        f"no known change of its rows or of the module fits; {LOOK}"
    ]


def test_what_mends_a_part_is_told_as_that() -> None:
    found = diagnosis(*WRONG, place="wrong", repairs=(repair(ROW),), tried=2, rows=[(ROW, 5)])

    assert told.lines(found, whole=False) == [
        "what mends a part of it, and is not enough:",
        "  another order, in place of the row in line 5:",
        f"    - {ROW}",
        f"2 changes of rows and of the module tried, and none makes the outputs agree; {LOOK}",
    ]


def test_where_nothing_could_be_compared_nothing_is_said_to_agree() -> None:
    found = diagnosis(call("a", "unlike", "unlike"), call("b", None, "unlike"), tried=1)

    assert told.lines(found, whole=False)[0] == (
        "no layer could be held against the recording: their sizes have nothing in common"
    )


def test_a_module_that_was_mended_behind_the_first_difference_is_marked_as_that() -> None:
    found = diagnosis(*WRONG, call("parent", "differs", "differs"), place="parent")

    assert [row[-1] for row in told.table(found, whole=True)] == ["", "<- where it goes wrong"]
    assert found.hint == f"parent is where it goes wrong; no known change of its rows or of the module fits; {LOOK}"


def test_where_no_layer_differs_it_says_why_nothing_is_marked() -> None:
    assert told.lines(diagnosis(*CALLS, tried=2), whole=False)[0] == (
        "every layer that is recorded agrees in draw 0: what differs is behind them, between them or in another draw"
    )
    assert told.lines(diagnosis(tried=2), whole=False)[0] == (
        "the recording holds nothing of the original's inside, so all rows were tried, not those of one layer; "
        "t2t record records what it can, of a call what TensorFlow computes in it"
    )
    assert told.lines(replace(diagnosis(tried=2), is_recorded=True), whole=False)[0] == (
        "no layer of the recording belongs to a module that is called, so all rows were tried, not those of one layer; "
        "verify's layers say which is whose"
    )
    for is_recorded in (False, True):
        assert told.as_json(replace(diagnosis(), is_recorded=is_recorded))["recorded"] == is_recorded


# --- the problem ---

FAILS = OutputDelta("y", 0, (1,), 1.0, 1.0, 1e-5, (0,), 0.0, 1.0, holds=False)
VERIFY = Verify(Location("m.yaml", 9, 1), (), None, (), {}, {}, 1, 1e-5, 1e-6, None, "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "at", "hint"),
    [
        (
            diagnosis(
                *WRONG,
                place="wrong",
                repairs=(repair(ROW, at=8), repair(ROW, at=7)),
                passes=True,
                rows=[(ROW, 7), (ROW, 8)],
            ),
            "m.yaml:7:3",
            f"wrong is the first layer that differs; what passes is {ROW}, {ROW}",
        ),
        (
            diagnosis(*WRONG, place="wrong", repairs=(repair(ROW, at=7),)),
            "m.yaml:9:1",
            f"wrong is the first layer that differs; no known change of its rows or of the module fits; {LOOK}",
        ),
        (
            diagnosis(*WRONG, place=EVIL, tried=1),
            "m.yaml:9:1",
            f"wrong is the first layer that differs, most likely because of {SHOWN}; 1 change of rows and of the "
            f"module tried, and none makes the outputs agree; {LOOK}",
        ),
        (diagnosis(repairs=(Repair("an epsilon"),), passes=True), "m.yaml:9:1", "what passes is an epsilon"),
    ],
    ids=["rows", "a part", "a name", "the twin"],
)
def test_the_problem_stands_at_the_row_to_change_with_the_way_out(found: Diagnosis, at: str, hint: str) -> None:
    (problem,) = Comparison((FAILS,), None, VERIFY, diagnosis=found).problems()

    assert (problem.code, str(problem.at), problem.hint) == ("T2T501", at, hint)
    assert problem.message == "y: max|Δ| 1 exceeds 1.00e-05 (1e-06 + 1e-05 x 1 max|TF|)"


# --- JSON ---


def test_the_document_has_all_of_it() -> None:
    odd = Call(EVIL, 1, "Linear", None, end("unlike", max_delta=math.nan))
    rows = ("{tf: a, torch: b.weight}", "{tf: c, torch: b.bias}")
    made = [(row, 5 + n) for n, row in enumerate(rows)]
    found = diagnosis(*WRONG, odd, place="wrong", repairs=(repair(*rows),), passes=True, tried=1, rows=made)
    document = told.as_json(found)

    assert (
        json.loads(json.dumps(document, allow_nan=False))
        == document
        == {
            "place": "wrong",
            "passes": True,
            "recorded": False,
            "repairs": [{"what": "another order", "module": "", "targets": ["b.bias", "b.weight"]}],
            "lines": list(rows),
            "replaces": [5, 6],
            "tried": ["change 0"],
            "cut": False,
            "layers": [
                {
                    "module": "wrong",
                    "call": 0,
                    "class": "Linear",
                    "input": _end("wrong/in", 0.5, "agrees"),
                    "output": _end("wrong/out", 0.5, "differs"),
                },
                {"module": EVIL, "call": 1, "class": "Linear", "input": None, "output": _end("MatMul", None, "unlike")},
            ],
        }
    )


def _end(operation: str, max_delta: float | None, verdict: str) -> dict[str, object]:
    figures = {"max_delta": max_delta, "scale": 2.0, "tolerance": 3e-5}
    return {"operation": operation, "shape": [5, 3], "own_shape": [3, 5], **figures, "verdict": verdict}
