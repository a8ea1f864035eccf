"""Problems and errors: their text, their order, the exit status that they call for."""

from __future__ import annotations

import pickle

import pytest

from t2t.problems import (
    CODES,
    EXIT_CODES,
    CheckpointError,
    Location,
    MappingError,
    ModuleError,
    OriginalError,
    OutputError,
    Problem,
    T2TError,
    UsageError,
    exit_code,
    in_file_order,
)


@pytest.mark.parametrize(
    ("location", "text"),
    [
        (Location("m.yaml", 10, 3), "m.yaml:10:3"),
        (Location("m.yaml", 10), "m.yaml:10"),
        (Location("model.index"), "model.index"),
    ],
)
def test_a_location_is_path_line_column(location: Location, text: str) -> None:
    assert str(location) == text


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("T2T101", "what", Location("m.yaml", 1, 2), "do"), "m.yaml:1:2: T2T101 what; do"),
        (Problem("T2T101", "what", Location("m.yaml", 1, 2)), "m.yaml:1:2: T2T101 what"),
        (Problem("T2T608", "v: what", Location("model.index"), "do"), "model.index: T2T608: v: what; do"),
        (Problem("T2T001", "what", hint="do"), "T2T001 what; do"),
        (Problem("T2T001", "what"), "T2T001 what"),
        (Problem("T2T001", "what", details=("more", "and more")), "T2T001 what"),
    ],
)
def test_a_problem_is_one_line(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_an_errors_text_is_its_problems_one_a_line() -> None:
    first, second = Problem("T2T101", "one"), Problem("T2T102", "two")

    assert str(MappingError([first, second])) == "T2T101 one\nT2T102 two"
    assert MappingError([first, second]).problems == (first, second)
    assert MappingError(first).problems == (first,)
    assert MappingError(problem for problem in (first, second)).problems == (first, second)


def test_an_error_survives_the_way_between_processes() -> None:
    error = CheckpointError([Problem("T2T601", "none there", Location("x"), "look elsewhere")])

    assert pickle.loads(pickle.dumps(error)).problems == error.problems


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("T2T001", 2),
        ("T2T101", 1),
        ("T2T201", 1),
        ("T2T301", 1),
        ("T2T401", 1),
        ("T2T501", 1),
        ("T2T608", 3),
        ("T2T701", 1),
        ("T2T803", 3),
        ("T2T902", 3),
    ],
)
def test_a_codes_first_digit_says_the_exit_status(code: str, status: int) -> None:
    assert exit_code([Problem(code, "what")]) == status
    assert T2TError(Problem(code, "what")).exit_code == status


def test_what_cannot_be_read_outweighs_what_does_not_fit() -> None:
    assert exit_code([Problem("T2T201", "what"), Problem("T2T608", "what"), Problem("T2T304", "what")]) == 3


def test_notes_and_warnings_are_no_failure() -> None:
    assert exit_code([]) == 0
    assert exit_code([Problem("T2T210", "what", severity="note"), Problem("T2T613", "what", severity="warning")]) == 0
    assert exit_code([Problem("T2T210", "what", severity="note"), Problem("T2T205", "what")]) == 1


def test_every_code_has_an_exit_status_and_a_meaning_in_words() -> None:
    assert {code[3] for code in CODES} == set(EXIT_CODES)
    assert all(len(code) == 6 and code[:3] == "T2T" and code[3:].isdigit() for code in CODES)
    assert list(CODES) == sorted(CODES)
    assert [text for text in CODES.values() if text.endswith(".") or not text] == []


def test_one_class_catches_them_all() -> None:
    kinds = [MappingError, ModuleError, UsageError, CheckpointError, OutputError, OriginalError]

    assert T2TError.__subclasses__() == kinds


def test_problems_are_sorted_by_line_and_column_file_by_file() -> None:
    a9, a2, a2c = Problem("1", "", Location("a", 9, 1)), Problem("2", "", Location("a", 2, 5)), Location("a", 2, 1)
    b1, whole, nowhere = Problem("3", "", Location("b", 1, 1)), Problem("4", "", Location("a")), Problem("5", "")
    first, second = Problem("6", "", a2c), Problem("7", "", a2c)

    assert in_file_order([a9, b1, a2, first, second, whole]) == [whole, first, second, a2, a9, b1]
    assert in_file_order([nowhere, a9, a2]) == [nowhere, a2, a9]
    assert in_file_order([b1, a9, nowhere]) == [b1, a9, nowhere]
    assert in_file_order(iter([a9, a2])) == [a2, a9]
    assert in_file_order([]) == []
