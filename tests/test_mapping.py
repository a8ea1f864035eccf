"""A mapping as values: what each part of the file becomes, and what is refused from the file alone."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest

from t2t import mapping
from t2t.axes import parse
from t2t.mapping import Ignore, Output
from t2t.problems import Location
from t2t.verification import Input, Labels, OutputAt, Reference
from tests.given import HEAD, lines, read

ROW = "- {tf: a, torch: b}\n"

VERIFY = """\
verify:
  inputs:
    x: {shape: [2, 3], range: [0, 1], seed: 7}
    keep: {value: 1.0}
  reference: {graph: g.meta, feed: {x: "P:0", keep: "K:0"}, fetch: {logits: "add:0", top: "max:0"}}
"""


def told(text: str) -> list[str]:
    return lines(mapping.read(text.encode(), "m.yaml")[1])


def test_a_rule_has_its_places() -> None:
    rule = read(HEAD + "- tf: a\n  torch: b\n  axes: x (y z) -> z (x y)\n  dims: {y: 2}\n  dtype: int8\n").rules[0]

    assert (rule.source, rule.target, rule.dtype, rule.dims) == ("a", "b", "int8", {"y": 2})
    assert rule.axes == (parse("x (y z) -> z (x y)"),)
    assert rule.at == Location("m.yaml", 5, 3)
    assert rule.place("axes") == Location("m.yaml", 7, 9)
    assert rule.place("fill") == rule.at
    assert rule.is_whole


@pytest.mark.parametrize(
    ("row", "values"),
    [
        ("{tf: a, torch: b}", {"source": "a"}),
        ("{tf: a, torch: b, permute: [1, 0]}", {"source": "a", "axes": (parse("a b -> b a"),)}),
        ("{tf: a, torch: b, reuse: true}", {"source": "a", "reuse": True}),
        ("{tf: 6, torch: b}", {"source": "6"}),
        ("{torch: b, fill: 0}", {"fill": 0}),
        ("{torch: b, fill: 1e-5}", {"fill": 1e-5}),
        ("{torch: b, tie: c}", {"tie": "c"}),
        ("{torch: b, keep: init, why: it is a mask}", {"keep": True, "why": "it is a mask"}),
    ],
)
def test_a_row_sets_what_it_says_and_nothing_else(row: str, values: dict[str, object]) -> None:
    rule = read(f"{HEAD}- {row}\n").rules[0]
    empty: dict[str, object] = {
        "source": None,
        "axes": (),
        "dims": {},
        "dtype": None,
        "reuse": False,
        "fill": None,
        "tie": None,
    }
    expected = {**empty, "keep": False, "why": "", "is_whole": True, **values}

    assert {key: getattr(rule, key) for key in expected} == expected


def test_ignore_holds_patterns_and_the_policy_for_slots() -> None:
    made = read(HEAD + ROW + "ignore:\n- {tf: a/**, why: one}\n- {slots: true, why: two}\n")

    assert made.ignore == (
        Ignore("a/**", "one", Location("m.yaml", 7, 3)),
        Ignore(None, "two", Location("m.yaml", 8, 3)),
    )


def test_what_is_left_out_has_its_default() -> None:
    made = read(HEAD + ROW)

    assert (made.dtype, made.arguments, made.ignore, made.verify, made.output) == (None, {}, (), None, Output())
    assert (made.model, made.model_at, made.map_at) == ("m:M", Location("m.yaml", 2, 8), Location("m.yaml", 4, 1))
    assert made.output == Output("", "safetensors", None)


@pytest.mark.parametrize("names", ["key", "full_name"])
def test_the_source_says_what_its_variables_go_by(names: str) -> None:
    text = HEAD.replace("{checkpoint: c}", f"{{checkpoint: c, names: {names}}}")

    assert read(text + "- {tf: v, torch: p}").names == names


def test_there_are_no_other_names() -> None:
    text = HEAD.replace("{checkpoint: c}", "{names: friendly}") + "- {tf: v, torch: p}"
    made, problems = mapping.read(text.encode(), "m.yaml")

    assert made is not None
    assert made.names == "key"
    assert [(problem.code, problem.at and problem.at.line) for problem in problems] == [("T2T106", 3)]


def test_the_digest_is_of_the_files_bytes() -> None:
    text = HEAD + ROW + "# größe\n"

    assert read(text).digest == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("path", "checkpoint", "output", "recording"),
    [
        ("m.yaml", "c", "o", "recordings/m.npz"),
        ("dir/m.v1.yaml", "dir/c", "dir/o", "dir/recordings/m.v1.npz"),
        ("/abs/m.yaml", "/abs/c", "/abs/o", "/abs/recordings/m.npz"),
    ],
)
def test_paths_are_relative_to_the_mapping(path: str, checkpoint: str, output: str, recording: str) -> None:
    made, _ = mapping.read((HEAD + ROW + VERIFY + "output: {file: o}\n").encode(), path)

    assert made is not None
    assert made.verify is not None
    assert (made.checkpoint, made.output.path, made.verify.recording) == (checkpoint, output, recording)
    assert made.verify.reference.path == checkpoint[:-1] + "g.meta"


def test_an_absolute_path_stays_and_nothing_is_expanded() -> None:
    assert read(HEAD.replace("c}", "/x/c}") + ROW).checkpoint == "/x/c"
    assert read(HEAD.replace("c}", "~/$HOME/c}") + ROW).checkpoint == "~/$HOME/c"


def test_verify_is_read_with_its_defaults() -> None:
    verify = read(HEAD + ROW + VERIFY).verify

    assert verify is not None
    assert verify.at == Location("m.yaml", 6, 1)
    assert verify.inputs == (
        Input("x", shape=(2, 3), range=(0, 1), seed=7),
        Input("keep", value=1.0),
    )
    assert verify.reference == Reference("g.meta", "g.meta", {"x": "P:0", "keep": "K:0"}, verify.reference.fetch)
    assert verify.arguments == ["x", "keep"]
    assert verify.outputs == {"logits": OutputAt(), "top": OutputAt()}
    assert (verify.draws, verify.rel, verify.abs, verify.axes, verify.labels) == (1, 1e-5, 1e-6, {}, None)
    assert (verify.steps, verify.layers) == (1, {})


def test_verify_is_read_with_all_that_it_may_say() -> None:
    more = """\
  torch:
    arguments: {image: x}
    axes: {x: n h -> h n}
    outputs: {logits: {at: 0, axes: n c -> c n}, top: {at: a.b}}
  draws: 3
  rel: 0.001
  abs: 0
  labels: {file: t.npz, member: y, metric: accuracy, output: top}
  recording: r/r.npz
  layers: {conv: "Relu:0", blocks.0: block_1/add}
"""
    verify = read(HEAD + ROW + VERIFY + more).verify

    assert verify is not None
    assert verify.arguments == {"image": "x"}
    assert verify.axes == {"x": parse("n h -> h n")}
    assert verify.outputs == {"logits": OutputAt("0", parse("n c -> c n")), "top": OutputAt("a.b")}
    assert (verify.draws, verify.rel, verify.abs, verify.recording) == (3, 0.001, 0, "r/r.npz")
    assert verify.labels == Labels("t.npz", "t.npz", "y", "accuracy", "top")
    assert verify.layers == {"conv": "Relu:0", "blocks.0": "block_1/add"}


def test_every_kind_of_input_is_read() -> None:
    text = VERIFY.replace("keep: {value: 1.0}", "keep: {file: a.npz, member: m}").replace(
        "range: [0, 1]", "values: [3]"
    )
    verify = read(HEAD + ROW + text).verify

    assert verify is not None
    assert verify.inputs == (
        Input("x", shape=(2, 3), values=(3,), seed=7),
        Input("keep", file="a.npz", path="a.npz", member="m"),
    )


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (HEAD + "- {tf: 'a:0', torch: b}", ["5:8: T2T109 a:0 ends in :0, which names in a mapping don't; write a"]),
        (HEAD + "- {tf: a, torch: 'b:0'}", ["5:18: T2T109 b:0 ends in :0, which names in a mapping don't; write b"]),
        (
            HEAD + "- {tf: a/.ATTRIBUTES/VARIABLE_VALUE, torch: b}",
            [
                "5:8: T2T109 a/.ATTRIBUTES/VARIABLE_VALUE ends in /.ATTRIBUTES/VARIABLE_VALUE, "
                "which names in a mapping don't; write a"
            ],
        ),
        (
            HEAD + "- {tf: a<i>, torch: b}\n- {torch: c, tie: <c>}",
            [
                "5:8: T2T111 <i> is not declared in for; write for: {i: 0..11} or its values",
                "6:19: T2T111 <c> is not declared in for; write for: {c: 0..11} or its values",
            ],
        ),
        (
            HEAD + ROW + "ignore: [{tf: 'a:0', why: b}]",
            ["6:15: T2T109 a:0 ends in :0, which names in a mapping don't; write a"],
        ),
        (
            HEAD + "- {tf: a, torch: b, axes: a b}",
            ["5:27: T2T301 b: axes 'a b' need one '->' between the variable's axes and the parameter's"],
        ),
        (
            HEAD + "- {tf: a, torch: b, axes: a b -> b c}",
            [
                "5:27: T2T301 b: axes 'a b -> b c' have a only on the left, c only on the right; "
                "both sides need the same names"
            ],
        ),
        (
            HEAD + '- {tf: a, torch: b, axes: x -> x, dims: {x: 1, y: 2, "\\e": 3}}',
            [r"5:27: T2T301 b: dims name y, \x1b, which axes 'x -> x' don't have"],
        ),
        (
            HEAD + "- {tf: a, torch: b, permute: [0, 0]}",
            ["5:30: T2T306 b: permute [0, 0] is not a permutation; use each of 0, 1 once"],
        ),
        (
            HEAD + ROW + VERIFY.replace("feed: {x:", "feed: {y:"),
            [
                "8:8: T2T503 x is not among the tensors to feed: y, keep",
                "10:40: T2T503 y is not among the inputs: x, keep",
            ],
        ),
        (
            HEAD + ROW + VERIFY + "  torch: {arguments: [x, y], axes: {z: a -> a}, outputs: {logit: {at: a}}}",
            [
                "11:26: T2T503 y is not among the inputs: x, keep",
                "11:40: T2T503 z is not among the inputs: x, keep",
                "11:66: T2T503 logit is not among the outputs: logits, top",
            ],
        ),
        (
            HEAD + ROW + VERIFY + "  torch: {arguments: {image: y}}",
            ["11:30: T2T503 y is not among the inputs: x, keep"],
        ),
        (
            HEAD + ROW + VERIFY + "  labels: {file: a.npy, metric: accuracy}",
            [
                "11:11: T2T503 labels do not say which of the outputs they belong to: logits, top; "
                "write output: NAME in labels"
            ],
        ),
        (
            HEAD + ROW + VERIFY + "  labels: {file: a.npy, metric: accuracy, output: best}",
            ["11:51: T2T503 best is not among the outputs: logits, top"],
        ),
        (
            HEAD + ROW + VERIFY + "  torch: {outputs: {top: {axes: a -> b}}, axes: {x: a ->}}",
            [
                "11:33: T2T301 axes 'a -> b' have a only on the left, b only on the right; "
                "both sides need the same names",
                "11:53: T2T301 axes 'a ->' have a only on the left; both sides need the same names",
            ],
        ),
        *(
            (HEAD + ROW + VERIFY + f"  layers: {layers}", [problem])
            for layers, problem in (
                ("{}", "11:11: T2T106 layers: expected 1 or more keys, got no keys"),
                ("[conv]", "11:11: T2T106 layers: expected keys and values, got a list of 1"),
                ("{conv: 1}", "11:18: T2T106 conv: expected text, got 1"),
                ("{conv: ''}", "11:18: T2T106 conv: expected some text, got ''"),
                ("{'': conv}", "11:11: T2T106 layers: expected some text, got ''"),
            )
        ),
    ],
    ids=lambda text: str(text)[-30:],
)
def test_what_the_file_alone_shows_is_refused(text: str, problems: list[str]) -> None:
    assert told(text) == problems


def test_a_broken_row_still_uses_its_names_and_says_that_it_is_broken() -> None:
    made, problems = mapping.read((HEAD + "- {tf: a, torch: b, axes: x}\n- {tf: c, torch: d, typo: 1}\n").encode(), "m")

    assert made is not None
    assert [problem.code for problem in problems] == ["T2T301", "T2T104"]
    assert [(rule.source, rule.target, rule.is_whole) for rule in made.rules] == [("a", "b", False), ("c", "d", False)]


def test_rows_that_are_no_rows_are_left_out() -> None:
    made, problems = mapping.read((HEAD + "- a\n- {tf: a}\n- {torch: []}\n" + ROW).encode(), "m")

    assert made is not None
    assert len(made.rules) == 1
    assert len(problems) == 4


def test_a_part_that_the_schema_refuses_is_left_out() -> None:
    text = f"{HEAD}{ROW}dtype: float33\nverify: {{draws: 1}}\nignore: [5, {{tf: a}}]\noutput: []\nwith: 3\n"
    made, problems = mapping.read(text.encode(), "m.yaml")

    assert made is not None
    assert (made.dtype, made.verify, made.arguments, made.output) == (None, None, None, Output())
    assert [entry.pattern for entry in made.ignore] == ["a"]
    assert [problem.at.line for problem in problems if problem.at] == [6, 7, 7, 8, 8, 9, 10]


@pytest.mark.parametrize("text", ["", "[", "a", "t2t: 1", HEAD, HEAD.replace("map:\n", "map: {}\n")])
def test_without_a_list_of_rows_there_is_no_mapping(text: str) -> None:
    made, problems = mapping.read(text.encode(), "m.yaml")

    assert made is None
    assert problems


def test_values_are_frozen() -> None:
    made = read(HEAD + ROW)

    with pytest.raises(dataclasses.FrozenInstanceError):
        made.rules[0].target = "x"  # type: ignore[misc]


def test_the_example_that_comes_with_t2t_is_read_without_a_problem() -> None:
    path = Path(__file__).resolve().parents[1] / "mappings" / "madry.yaml"
    made, problems = mapping.read(path.read_bytes(), str(path))

    assert problems == []
    assert made is not None
    assert len(made.rules) == 8
