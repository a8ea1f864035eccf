"""YAML text -> a tree with places: what each text is read as, and what is refused where."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import t2t
from t2t import grammar, mapping
from t2t.document import MAX_BYTES, MAX_NODES, parse
from t2t.problems import Location
from tests.given import HEAD, lines

#: A mapping without a problem.
WHOLE = HEAD + "- {tf: a, torch: b}\n"


def told(text: str | bytes) -> list[str]:
    """Every problem of the text."""
    return lines(parse(text if isinstance(text, bytes) else text.encode(), "m.yaml")[1])


def value(text: str) -> Any:
    """What the text is read as where any value may stand."""
    document, problems = parse(f"{WHOLE}with: {{v: {text}}}\n".encode(), "m.yaml")

    assert lines(problems) == []

    return document.tree["with"]["v"]


@pytest.mark.parametrize(
    "text",
    [
        *("no", "No", "on", "off", "yes", "y", "True", "TRUE", "False", "Null", "NULL"),
        *("010", "00", "-01", "0x10", "0o7", "0b1", "1_0", "1:30", "1:30.5", "2020-01-01", "12e", "e5", ".e5", "-e5"),
        *(".", "-", "+", "..", "1.2.3", ".inf", "-.inf", ".nan", "inf", "nan", "=", "\u0661"),
    ],
)
def test_text_stays_the_text_that_it_looks_like(text: str) -> None:
    assert value(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-0", 0),
        ("+5", 5),
        ("9" * 19, 10**19 - 1),
        ("1e-5", 1e-5),
        ("1e3", 1000.0),
        ("1E+3", 1000.0),
        (".5", 0.5),
        ("-.5e1", -5.0),
        ("5.", 5.0),
        ("0.1", 0.1),
        ("-1.5", -1.5),
        ("'1'", "1"),
        ('"true"', "true"),
        ("''", ""),
        ("!plain", None),
    ][:-1],
)
def test_only_numbers_true_false_and_null_are_more_than_text(text: str, expected: object) -> None:
    assert value(text) == expected
    assert type(value(text)) is type(expected)


@pytest.mark.parametrize("text", ["6", "1e5", "true", "null", "~", "010", "1.50"])
def test_where_the_schema_says_text_it_is_the_text_as_written(text: str) -> None:
    document, problems = parse(f"{HEAD}- {{tf: {text}, torch: {text}}}".encode(), "m.yaml")

    assert problems == []
    assert document.tree["map"] == [{"tf": text, "torch": text}]


def test_keys_are_text_whatever_they_look_like() -> None:
    document, problems = parse(f"{WHOLE}with: {{1: 2, true: 3, ~: 4, 'a b': 5}}".encode(), "m.yaml")

    assert problems == []
    assert document.tree["with"] == {"1": 2, "true": 3, "~": 4, "a b": 5}


def test_under_with_a_number_may_stand_under_any_name() -> None:
    """`dtype`, `tf` and the like are text elsewhere; there they are the model's own."""
    document, problems = parse(f"{WHOLE}with: {{tf: 5, config: {{dtype: 7, torch: x}}}}".encode(), "m.yaml")

    assert problems == []
    assert document.tree["with"] == {"tf": 5, "config": {"dtype": 7, "torch": "x"}}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "1:1: T2T101 the file is empty; a mapping begins with t2t: 1"),
        ("# nothing but this\n\n", "1:1: T2T101 the file is empty; a mapping begins with t2t: 1"),
        ("null", "1:1: T2T106 expected keys and values, got nothing"),
        ("- a\n- b", "1:1: T2T106 expected keys and values, got a list of 2"),
        ("\n  text", "2:3: T2T106 expected keys and values, got 'text'"),
        (b"\xff\xfet\x002\x00", "1:1: T2T101 byte 0xff is not UTF-8; save the file as UTF-8"),
        ("t2t: 1\n".encode("utf-16-le"), r"1:2: T2T101 control character '\x00' in the file; remove it"),
        (b"t2t: 1\n# na\xc3\xafve \xe9\n", "2:9: T2T101 byte 0xe9 is not UTF-8; save the file as UTF-8"),
        ("\ufefft2t: 1", "1:1: T2T101 byte order mark in the file; remove it"),
        ("t2t: 1\na: \0", r"2:4: T2T101 control character '\x00' in the file; remove it"),
        ("a: \x1b[31m", r"1:4: T2T101 control character '\x1b' in the file; remove it"),
        # A reviewer sees one line of comment here, and YAML two lines.
        ("# a\u2028- {torch: x}", r"1:4: T2T101 control character '\u2028' in the file; remove it"),
        ("# a\x85b: 1", r"1:4: T2T101 control character '\x85' in the file; remove it"),
        ("# a\rb: 1\n", r"1:4: T2T101 control character '\r' in the file; remove it"),
        ("# \u202ea", r"1:3: T2T101 control character '\u202e' in the file; remove it"),
        ("a: 1\n---\nb: 1\n", "2:1: T2T101 a second document begins; a mapping is one document"),
        ("a: 1\n...\n---\n", "3:1: T2T101 a second document begins; a mapping is one document"),
        ("a:\n\t- b\n", "2:1: T2T101 a tab where YAML has spaces; indent with spaces"),
        ("größe:\n\t- b\n", "2:1: T2T101 a tab where YAML has spaces; indent with spaces"),
        (
            "a: 'b\nc: d\n",
            "3:1: T2T101 not YAML: while scanning a quoted scalar, found unexpected end of stream",
        ),
        ("a: [1, 2\nb: 3\n", "2:2: T2T101 not YAML: while parsing a flow sequence, did not find expected ',' or ']'"),
        ("a: b: c", "1:5: T2T101 not YAML: mapping values are not allowed in this context"),
        (
            "a: @b",
            "1:4: T2T101 not YAML: while scanning for the next token, found character that cannot start any token",
        ),
        ("%YAML 2.0\n---\na: 1", "1:1: T2T101 not YAML: found incompatible YAML document"),
        ("a: \uffff", r"1:4: T2T101 control character '\uffff' in the file; remove it"),
        ("---", "1:4: T2T106 expected keys and values, got nothing"),
        ("{", "1:2: T2T101 not YAML: while parsing a flow node, did not find expected node content"),
        ("a: [1,\n", "2:1: T2T101 not YAML: while parsing a flow node, did not find expected node content"),
        ("[a]: 1", "1:1: T2T101 a key that is not text; quote it"),
        ("? {a: 1}\n: 1", "1:3: T2T101 a key that is not text; quote it"),
        ("[" * 100_000, "1:34: T2T110 values are nested more than 32 deep"),
        ("{a: " * 100_000, "1:133: T2T110 values are nested more than 32 deep"),
        ("a:\n" + "- " * 100_000, "2:65: T2T110 values are nested more than 32 deep"),
        ("- a\n" * (MAX_NODES + 9), "200000:3: T2T110 the file has more than 200000 values"),
        ("[" + "a," * (MAX_NODES + 9) + "]", "1:400000: T2T110 the file has more than 200000 values"),
        (" " * (MAX_BYTES + 1), "1:1: T2T110 the file is larger than 1048576 bytes, the most that a mapping has"),
    ],
    ids=lambda text: str(text)[:20].encode("unicode_escape").decode(),
)
def test_what_cannot_be_read_is_refused_at_its_place(text: str | bytes, problem: str) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    document, problems = parse(data, "m.yaml")

    assert lines(problems) == [problem]
    if " T2T106 " not in problem:
        assert document.tree is None
        assert document.at("map", 0) == Location("m.yaml", 1, 1)


def test_the_limits_themselves_are_allowed() -> None:
    deep = "[" * 31 + "]" * 31

    assert told(f"{WHOLE}with: {{v: {deep}}}") == []
    assert told(f"{WHOLE}with: {{v: [{deep}]}}") == ["6:42: T2T110 values are nested more than 32 deep"]
    assert told(WHOLE + " " * (MAX_BYTES - len(WHOLE))) == []


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("with: {v: *a}", ["6:11: T2T102 alias *a is not allowed in a mapping; write it out"]),
        ("with: {v: &a 1}", ["6:11: T2T102 anchor &a is not allowed in a mapping; remove it"]),
        ("with: {&a v: 1}", ["6:8: T2T102 anchor &a is not allowed in a mapping; remove it"]),
        ("with: {v: !!int 1}", ["6:11: T2T102 tag !!int is not allowed in a mapping; remove it"]),
        ("with: {!!str v: 1}", ["6:8: T2T102 tag !!str is not allowed in a mapping; remove it"]),
        ("with: {v: !a [1]}", ["6:11: T2T102 tag !a is not allowed in a mapping; remove it"]),
        (
            "with: {v: !!python/object/apply:os.system [exit]}",
            ["6:11: T2T102 tag !!python/object/apply:os.system is not allowed in a mapping; remove it"],
        ),
        (
            "with: {v: &a !b {}}",
            [
                "6:11: T2T102 anchor &a is not allowed in a mapping; remove it",
                "6:11: T2T102 tag !b is not allowed in a mapping; remove it",
            ],
        ),
        ("with: {<<: {a: 1}}", ["6:8: T2T102 merge key << is not allowed in a mapping; write the keys out"]),
        ("with: {'<<': {a: 1}}", []),
        ("with: {*a : 1}", ["6:8: T2T101 a key that is not text; quote it"]),
        ("with: {v: 1, v: 2}", ["6:14: T2T103 key 'v' stands twice, first in line 6; keep one of them"]),
        ("with: {v: 1}\nwith: {v: 2}", ["7:1: T2T103 key 'with' stands twice, first in line 6; keep one of them"]),
        (
            "with:\n  v: 1\n  v: {v: 1, v: [2]}\n  'v': 3",
            [
                "8:3: T2T103 key 'v' stands twice, first in line 7; keep one of them",
                "8:13: T2T103 key 'v' stands twice, first in line 8; keep one of them",
                "9:3: T2T103 key 'v' stands twice, first in line 7; keep one of them",
            ],
        ),
        (f"with: {{v: {'1' * 5000}}}", ["6:11: T2T106 a number of 5000 digits"]),
        (f"with: {{v: -{'1' * 21}}}", ["6:11: T2T106 a number of 22 digits"]),
        ("with: {v: 1e999}", ["6:11: T2T106 number 1e999 is out of range"]),
        (f"with: {{v: -{'1' * 500}.0}}", [f"6:11: T2T106 number -{'1' * 116}... is out of range"]),
        (r'with: {v: "a\0b"}', [r"6:11: T2T106 text a\x00b holds a NUL; remove it"]),
        # What was refused is not judged a second time by what stands in for it.
        ("output: {file: *a}", ["6:16: T2T102 alias *a is not allowed in a mapping; write it out"]),
        (f"ignore: [{'1' * 30}]", ["6:10: T2T106 a number of 30 digits"]),
        ("ignore: [1e999]", ["6:10: T2T106 number 1e999 is out of range"]),
    ],
    ids=lambda text: str(text)[:30],
)
def test_what_a_mapping_may_not_use_is_refused_and_reading_goes_on(text: str, problems: list[str]) -> None:
    assert told(f"{WHOLE}{text}\n") == problems


def test_an_alias_bomb_is_a_list_of_refusals() -> None:
    levels = "\n".join(f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))
    problems = told(f"{WHOLE}with:\n  a0: &a0 x\n{levels}\n")

    assert len(problems) == 12 + 11 * 9
    assert problems[-1] == "18:62: T2T102 alias *a10 is not allowed in a mapping; write it out"


def test_a_tag_runs_nothing(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    assert len(told(f"{WHOLE}with: {{v: !!python/object/apply:os.mkdir ['{canary}']}}")) == 1
    assert not canary.exists()


def test_line_ends_of_windows_count_once() -> None:
    assert told(WHOLE.replace("\n", "\r\n") + "a: 1\r\n") == [
        "6:1: T2T104 unknown key 'a'; "
        "known keys: t2t, model, with, source, dtype, for, recipes, map, ignore, drop, require, verify, output"
    ]


def test_problems_come_in_file_order() -> None:
    assert told("with: 5\nt2t: 2\nmap: {}\nsource: {checkpoint: [&a 1]}\nmodel: 7\n") == [
        "1:7: T2T106 with: expected keys and values, got 5",
        "2:6: T2T107 version 2 of the language, this t2t reads version 1; a newer t2t may read it",
        "3:6: T2T106 map: expected a list, got no keys",
        "4:22: T2T106 checkpoint: expected text, got a list of 1",
        "4:23: T2T102 anchor &a is not allowed in a mapping; remove it",
        "5:8: T2T106 model: expected 'package.module:attribute', got '7'",
    ]


ROW = "- {tf: a, torch: b, "
INPUT = "verify:\n  reference: {graph: g, feed: {x: y}, fetch: {z: w}}\n  inputs: {x: "


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            "{}",
            [
                "1:1: T2T105 key 't2t' is missing; for example t2t: 1",
                '1:1: T2T105 key \'model\' is missing; for example model: "mappings.modules.madry:Madry"',
                "1:1: T2T105 key 'source' is missing; for example source: "
                '{"checkpoint": "checkpoints/madry/checkpoint-700"}',
                "1:1: T2T105 key 'map' is missing; for example map: "
                '[{"tf": "Variable", "torch": "conv1.weight", "axes": "h w i o -> o i h w"}]',
            ],
        ),
        (WHOLE + "ignor: []", ["6:1: T2T104 unknown key 'ignor'; did you mean ignore"]),
        (
            HEAD + ROW + "transpose: true}",
            [
                "5:21: T2T104 unknown key 'transpose'; "
                "known keys: tf, torch, use, with, permute, axes, dims, slice, into, join, flip, order, "
                "scale, add, dtype, "
                "select, reuse, optional, fill, tie, keep, why"
            ],
        ),
        (
            WHOLE + r'"a\e": 1',
            [
                r"6:1: T2T104 unknown key 'a\x1b'; "
                "known keys: t2t, model, with, source, dtype, for, recipes, map, ignore, drop, require, verify, output"
            ],
        ),
        (HEAD + "- {tf: a}", ["5:3: T2T105 key 'torch' is missing; for example torch: \"fc1.weight\""]),
        (HEAD + "- {torch: a, keep: init}", ["5:3: T2T105 key 'why' is missing"]),
        (WHOLE + "ignore: [{slots: true}]", ["6:10: T2T105 key 'why' is missing; for example why: \"step counter\""]),
        (HEAD + "- {torch: a}", ["5:3: T2T108 needs one of tf, fill, tie, keep; it has none of them"]),
        (HEAD + "- a", ["5:3: T2T106 expected keys and values, got 'a'"]),
        (
            HEAD + ROW + "fill: 0}",
            [
                "5:3: T2T108 needs one of tf, fill, tie, keep; it has tf and fill",
                "5:4: T2T108 key 'tf' does not belong in this row; only torch, fill, into, optional go together here",
            ],
        ),
        (
            HEAD + "- {torch: a, tie: b, axes: a b -> b a, dims: {a: 1}}",
            [
                "5:22: T2T108 key 'axes' does not belong in this row; only torch, tie go together here",
                "5:40: T2T108 key 'dims' does not belong in this row; only torch, tie go together here",
            ],
        ),
        (
            HEAD + ROW + "dims: {a: 1}}",
            ["5:21: T2T108 key 'dims' needs axes or use beside it; write axes too, or remove dims"],
        ),
        (
            HEAD + ROW + "permute: [0], axes: a -> a}",
            ["5:21: T2T108 key 'permute' stands beside axes, which say the same; keep one of them"],
        ),
        (
            WHOLE + "ignore: [{slots: true, tf: a, why: b}]",
            ["6:10: T2T108 needs one of tf, slots; it has tf and slots"],
        ),
        (
            WHOLE.replace("t2t: 1", "t2t: 0"),
            ["1:6: T2T107 version 0 of the language, this t2t reads version 1; write t2t: 1"],
        ),
        (
            WHOLE.replace("t2t: 1", "t2t: two"),
            ["1:6: T2T107 version 'two' of the language, this t2t reads version 1; write t2t: 1"],
        ),
        (
            WHOLE.replace("t2t: 1", "t2t: true"),
            ["1:6: T2T107 version true of the language, this t2t reads version 1; write t2t: 1"],
        ),
        (
            WHOLE + "output: {dtype: float31}",
            [
                "6:17: T2T106 dtype: 'float31' is not one of float64, float32, float16, bfloat16, float8_e5m2, "
                "float8_e4m3fn, float8_e5m2fnuz, float8_e4m3fnuz; did you mean float32"
            ],
        ),
        (WHOLE + "output: {format: gguf}", ["6:18: T2T106 format: 'gguf' is not one of safetensors, pt"]),
        (HEAD + ROW + "reuse: false}", ["5:28: T2T106 reuse: false is not one of true"]),
        (HEAD + "- {torch: a, keep: zero, why: b}", ["5:20: T2T106 keep: 'zero' is not one of init"]),
        (HEAD + "- {torch: a, fill: .inf}", ["5:20: T2T106 fill: expected a number, got '.inf'"]),
        (HEAD + "- {torch: a, fill: true}", ["5:20: T2T106 fill: expected a number, got true"]),
        (HEAD + ROW + "permute: [true, 1.0]}", [
            "5:31: T2T106 expected an integer, got true",
            "5:37: T2T106 expected an integer, got 1.0",
        ]),
        (HEAD + ROW + "axes: a -> a, dims: {a: 7.0}}", ["5:45: T2T106 a: expected an integer, got 7.0"]),
        (HEAD + ROW + "axes: {a: b}}", ["5:27: T2T106 axes: expected text or a list, got keys a"]),
        (HEAD + "- {tf: , torch: {b: c}}", [
            "5:8: T2T106 tf: expected text or a list, got nothing",
            "5:17: T2T106 torch: expected text, got keys b",
        ]),
        (WHOLE.replace("m:M", "m.M"), ["2:8: T2T106 model: expected 'package.module:attribute', got 'm.M'"]),
        (HEAD.replace("map:\n", "map: []"), ["4:6: T2T106 map: expected a list of 1 or more, got a list of 0"]),
        (HEAD + ROW + "axes: a -> a, dims: {}}", ["5:41: T2T106 dims: expected 1 or more keys, got no keys"]),
        (HEAD + ROW + "axes: a -> a, dims: {a: -1}}", ["5:45: T2T106 a: expected 0 or more, got -1"]),
        (INPUT + "{shape: [1], range: [0, 1, 2]}}", [
            "8:35: T2T106 range: expected a list of 2 or fewer, got a list of 3",
        ]),
        (INPUT + "{shape: [1], range: [0]}}", ["8:35: T2T106 range: expected a list of 2 or more, got a list of 1"]),
        (INPUT + "{file: a.npy, seed: 1}}", [
            "8:29: T2T108 key 'seed' does not belong in this row; only file, member go together here",
        ]),
        (INPUT + "{shape: [1]}}", [
            "8:15: T2T108 x: needs one of shape and range, shape and values, value, file; it has none of them",
        ]),
        (INPUT + "{file: a.txt}}", ["8:22: T2T106 file: expected a path that ends in .npy or .npz, got 'a.txt'"]),
        (INPUT + "{value: '1'}}", ["8:23: T2T106 value: expected a number or true or false, got '1'"]),
        (INPUT + "{value: 1}}\n  draws: 1001\n  recording: a.npy", [
            "9:10: T2T106 draws: expected 1000 or less, got 1001",
            "10:14: T2T106 recording: expected a path that ends in .npz, got 'a.npy'",
        ]),
    ],
    ids=lambda text: str(text)[-30:],
)  # fmt: skip
def test_what_the_schema_refuses_is_said_in_our_words(text: str, problems: list[str]) -> None:
    whole = text if text.startswith(("{}", "t2t")) else WHOLE + text

    assert told(whole) == problems


def test_places_are_known_for_every_value_and_key() -> None:
    document, _ = parse(b"t2t: 1\nmap:\n- tf: a\n  torch: b\n- {}\n", "m.yaml")

    assert document.at() == Location("m.yaml", 1, 1)
    assert document.at("map", 0, "torch") == Location("m.yaml", 4, 10)
    assert document.at_key("map", 0, "torch") == Location("m.yaml", 4, 3)
    assert document.at("map", 0, "axes") == Location("m.yaml", 3, 3)
    assert document.at_key("map", 1, "axes") == Location("m.yaml", 5, 3)
    assert document.at("verify") == Location("m.yaml", 1, 1)


def test_columns_count_characters() -> None:
    document, _ = parse("größe: {日本: x}\n".encode(), "m.yaml")

    assert document.at("größe", "日本") == Location("m.yaml", 1, 13)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn", "Zl", "Zp", "Cf"])),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text("abcdefgh<1é", max_size=5), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@settings(deadline=None)
@given(JSON)
def test_what_json_writes_is_read_as_json_reads_it(tree: Any) -> None:
    """JSON is YAML. Its numbers are the only thing that is not text without quotes."""
    text = json.dumps({"t2t": 1, "with": {"v": tree}}, ensure_ascii=False)
    read = parse(text.encode(), "m.yaml")[0].tree["with"]["v"]

    assert read == tree
    assert json.dumps(read) == json.dumps(tree) or isinstance(tree, float)


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_that_python_prints_is_read_back(number: float) -> None:
    read = value(repr(number))

    assert read == number
    assert math.copysign(1, read) == math.copysign(1, number)


YAML_TEXT = st.lists(
    st.sampled_from(
        [
            *"{}[]:,-?*&!|>'\"#%@` \n\t\r.~<=01eaé\\\u2028",
            *("a: ", "- ", "1e999", "<<: ", "---\n", "...\n", "!!str "),
            *("tf: ", "torch: ", "map:\n", "t2t: 1\n", "axes: ", "fill: ", "keep: init", "{tf: a, torch: b}"),
        ]
    ),
    max_size=40,
).map("".join)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(YAML_TEXT, st.sampled_from(["", HEAD, WHOLE, INPUT]))
def test_any_text_is_read_or_refused(text: str, before: str) -> None:
    """Nothing but problems comes of it, each with its place in the file; and PyYAML agrees on what is YAML."""
    text = before + text
    made, problems = mapping.read(text.encode(), "m.yaml")

    for problem in problems:
        assert problem.at is not None
        assert 1 <= (problem.at.line or 0) <= text.count("\n") + 1
        assert "\n" not in str(problem)
    if not problems:
        assert made is not None
        assert yaml.safe_load(text)


#: Rows that are right, and what is put in the place of one of their values, or beside them.
_RIGHT: list[dict[str, Any]] = [
    {"tf": "a", "torch": "b", "axes": "i o -> o i", "dtype": "float32"},
    {"tf": "a", "torch": "b", "use": "dense", "with": {"n": "a"}},
    {"tf": ["a", "b"], "torch": "b", "axes": "i -> i", "join": "i", "dims": {"i": 1}},
    {"torch": "b", "tie": "a"},
    {"torch": "b", "keep": "init", "why": "a"},
    {"torch": "b", "fill": 1, "into": ["0:1"]},
    {"tf": "a", "torch": "b", "axes": "i -> i", "flip": ["i"], "order": {"i": "a"}, "add": {"i": {"a": "b"}}},
]
_VALUES: list[Any] = ["", "a", "b", "0:1", "float32", "float99", "none", "init", 0, 1, -1, 1.0, True, None]
_VALUES += [[], [1], [-1], ["a", ""], ["a", "b"], ["0:1"], {}, {"a": 1}, {"a": "b"}, {"a": {"b": 1}}]


def test_each_row_is_judged_as_if_it_stood_alone() -> None:
    """Of rows that are alike the first is looked at: jsonschema, which looks at every one, finds the same."""
    keys = [*grammar.schema()["definitions"]["row"]["properties"], "x"]
    rows: list[Any] = [*_RIGHT, *_VALUES, *({**row, key: value} for row in _RIGHT for key in keys for value in _VALUES)]
    tree = {"t2t": 1, "model": "a:b", "source": {}, "map": rows, "recipes": {"own": rows[::-1]}}
    types = jsonschema.Draft7Validator.TYPE_CHECKER.redefine("integer", lambda checker, value: type(value) is int)
    extend: Any = jsonschema.validators.extend

    def found(validator: Any) -> list[tuple[Any, ...]]:
        errors = validator.iter_errors(tree)
        return [(list(error.absolute_path), list(error.absolute_schema_path), error.message) for error in errors]

    assert found(grammar.validator()) == found(extend(jsonschema.Draft7Validator, type_checker=types)(grammar.schema()))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    assert mapping.read(data, "m.yaml")[1]


def test_nesting_a_hundred_thousand_deep_is_refused_fast_and_without_harm() -> None:
    """In a process of its own: libyaml's own tree builder would end it with a signal."""
    code = """
import time
from t2t.document import parse
from t2t.grammar import schema
schema()
for text in ("[" * 100_000, "{a: " * 100_000, "- " * 100_000, "[" * 500_000 + "]" * 500_000):
    began = time.process_time()
    problems = parse(text.encode(), "m.yaml")[1]
    print(problems[0].code, time.process_time() - began < 1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["T2T110 True"] * 4


def test_a_copy_without_its_schema_says_so(tmp_path: Path) -> None:
    package = Path(t2t.__file__).parent
    shutil.copytree(package, tmp_path / "t2t", ignore=shutil.ignore_patterns("__pycache__", "schemas"))
    command = [sys.executable, "-c", "from t2t import grammar; grammar.schema()"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.stderr.splitlines()[-1] == ("FileNotFoundError: t2t is installed without schemas/mapping.schema.json")
