"""The page of codes: every code is on it, and what it calls wrong and right is what t2t finds."""

from __future__ import annotations

import re

import pytest

from t2t import codes, mapping, plan
from t2t.problems import CODES
from t2t.review import fmt
from t2t.tensors import ParameterRef, TensorRef
from tests.commands import ROOT
from tests.given import parameters, variables

#: What an example leaves out.
BEGINNING = {"t2t": "1", "model": "m:M", "source": "{checkpoint: c}", "map": "[{torch: p, fill: 0}]"}

_TENSOR = re.compile(r"`([^`]+)` (\w+) \[([^\]]*)\]")

#: What a file alone does not show: values, shared names, a lock that is missing.
IN_WORDS = {"T2T210", "T2T211", "T2T402", "T2T403", "T2T408"}

#: What comes with it: a row that does nothing leaves both sides alone.
BESIDE = {"T2T215": ("T2T204", "T2T205")}
EXECUTED = [code for code in codes.explained() if codes.explained()[code].language == "yaml"]


def completed(example: str) -> str:
    """The example as a whole file."""
    text = f"map:\n{example}" if example.startswith("- ") else example
    missing = [key for key in BEGINNING if not re.search(rf"^{key}:", text, re.MULTILINE)]
    return "".join(f"{key}: {BEGINNING[key]}\n" for key in missing) + text


def found(code: codes.Code, example: str) -> list[str]:
    """The codes of everything that is wrong with an example, its variables and parameters being those above it."""
    made, problems = mapping.read(completed(example).encode(), "m.yaml")
    above, _, below = code.text.partition("Parameters: ")
    _, _, above = above.partition("Variables: ")
    assert bool(above) == bool(below)
    if above and made is not None:
        sizes = {text: tuple(map(int, text.split(","))) if text else () for *_, text in _TENSOR.findall(code.text)}
        read = [TensorRef(name, dtype, sizes[text]) for name, dtype, text in _TENSOR.findall(above)]
        written = [ParameterRef(name, dtype, sizes[text]) for name, dtype, text in _TENSOR.findall(below)]
        problems += plan.make(made, variables(*read), parameters(*written))[1]
    if code.code == "T2T114":
        problems += filter(None, [fmt.formatted(completed(example).encode(), "m.yaml")[1].finding()])
    return [problem.code for problem in problems]


def test_every_code_is_explained_in_order_and_by_its_meaning() -> None:
    explained = codes.explained()

    assert list(explained) == list(CODES)
    assert {code: one.meaning for code, one in explained.items()} == CODES
    for one in explained.values():
        assert one.text
        assert one.wrong.strip()
        assert one.right.strip()
        assert one.wrong != one.right


def test_a_code_stands_where_its_first_digit_says() -> None:
    page = (ROOT / "docs" / "codes.md").read_text("utf-8")
    areas = re.split(r"^(?=## )", page, flags=re.MULTILINE)[1:]

    for area in areas:
        rows = re.findall(r"^\| (T2T\d{3}) \|", area, re.MULTILINE)
        assert re.findall(r"^### (T2T\d{3})$", area, re.MULTILINE) == rows
        assert len({code[:4] for code in rows}) == 1
    assert len(areas) == len({code[:4] for code in CODES})


def test_every_example_of_a_mapping_is_executed() -> None:
    assert [code for code in CODES if "T2T1" <= code < "T2T5" and code not in IN_WORDS] == EXECUTED


@pytest.mark.parametrize("name", EXECUTED)
def test_the_wrong_example_has_that_code(name: str) -> None:
    code = codes.explained()[name]

    assert set(found(code, code.wrong)) == {name, *BESIDE.get(name, ())}


@pytest.mark.parametrize("name", EXECUTED)
def test_the_right_example_has_no_problem(name: str) -> None:
    code = codes.explained()[name]

    assert found(code, code.right) == []
    assert fmt.formatted(completed(code.right).encode(), "m.yaml")[1].finding() is None


def test_a_code_in_words_is_its_page() -> None:
    assert codes.lines(codes.explained()["T2T305"]) == [
        "T2T305: no axes on a variable of rank 2 or more",
        "Shapes (exit 1)",
        "",
        "A square matrix fits either way. So a variable of two axes or more says how they move, even where they don't.",
        "",
        "Variables: `dense/kernel` float32 [3, 3]. Parameters: `weight` float32 [3, 3].",
        "",
        "wrong:",
        "    - {tf: dense/kernel, torch: weight}",
        "",
        "right:",
        "    - {tf: dense/kernel, torch: weight, axes: i o -> o i}",
    ]
