"""What `t2t fmt` makes of mappings: whole texts, what stays, and what is refused."""

from __future__ import annotations

import json
import os
import random
import re
import stat
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from t2t import api
from t2t import mapping as mapping_file
from t2t.problems import UsageError
from t2t.review import fmt, style
from t2t.review.edits import Edit
from tests.commands import ROOT, python, server, t2t
from tests.given import lines
from tests.review import rendered

GALLERY = sorted((ROOT / "mappings").glob("*.yaml"))

HEAD = "t2t: 1\nmodel: m:M\nsource: {checkpoint: c}\n"


def formatted(text: str) -> str:
    """The text, which has no problem of syntax, formatted; that the result stays is asserted each time."""
    made, done = fmt.formatted(text.encode(), "m.yaml")
    again, nothing = fmt.formatted(made, "m.yaml")

    assert lines(done.problems) == []
    assert (again, nothing.lines) == (made, ())
    assert bool(done.lines) == (made != text.encode())

    return made.decode()


def rows(text: str) -> str:
    """What is made of these rows, under `map`."""
    return formatted(f"{HEAD}map:\n{text}").removeprefix(f"{HEAD}map:\n")


# --- whole texts ---


def test_a_file_that_nobody_took_care_of() -> None:
    text = """\
#   the head stays as it is

t2t:   1
model: "m:M"
source:
    checkpoint:   c   # where it is
    names:  full_name# no comment
with: { sizes:   [1,2 ,3], "a":1,b : [ ] , c: { } }
for: {i: 0..1,
        j :  [a,b]}    # two of them

recipes:
   own:  # of two
      # the rows
      -  {tf: w , torch: weight,axes: i o -> o i}
      - tf: b
        torch: 'bias'
   # nothing else

map:
    - { tf: "dense_<i>", torch: dense.<i> ,use: own }   # all of them
    -   tf: "h<j>/kernel"
        torch: "h.<j>.weight"
        axes: i o -> o i#not a comment

    -   tf: out/bias   # why it is here
        torch: out.bias
    -
        torch: scale
        fill:  1
ignore:
- {slots: true, why: Adam's}
- {tf: step,why: it counts}
verify:
        # stored
        inputs:
                x: {shape: [1,2],range: [0,1]}
        torch: {arguments: [x]}"""

    assert (
        formatted(text)
        == """\
#   the head stays as it is

t2t: 1
model: "m:M"
source:
  checkpoint: c   # where it is
  names: full_name# no comment
with: {sizes: [1, 2, 3], "a": 1, b: [], c: {}}
for: {i: 0..1,
        j: [a, b]}   # two of them

recipes:
  own:   # of two
  # the rows
  - {tf: w, torch: weight, axes: i o -> o i}
  - {tf: b, torch: 'bias'}
  # nothing else

map:
- {tf: "dense_<i>",   torch: dense.<i>,      use: own}   # all of them
- {tf: "h<j>/kernel", torch: "h.<j>.weight", axes: i o -> o i#not a comment}

- tf: out/bias   # why it is here
  torch: out.bias
- {torch: scale, fill: 1}
ignore:
- {slots: true, why: Adam's}
- {tf: step, why: it counts}
verify:
  # stored
  inputs:
    x: {shape: [1, 2], range: [0, 1]}
  torch: {arguments: [x]}
"""
    )


def test_names_stand_in_columns_and_what_is_done_with_them_follows() -> None:
    assert rows(
        """\
- {tf: Variable, torch: conv1.weight, permute: [3, 2, 0, 1]} # HWIO -> OIHW
- {tf: Variable_1, torch: conv1.bias}
- {tf: V_2, torch: conv2.weight, permute: [3, 2, 0, 1]}
- {tf: Variable_4, torch: fc1.weight, axes: (h w c) o -> o (c h w), dims: {h: 7, w: 7}}
- {tf: Variable_5, torch: fc1.bias}
"""
    ) == (
        """\
- {tf: Variable,   torch: conv1.weight, permute: [3, 2, 0, 1]}   # HWIO -> OIHW
- {tf: Variable_1, torch: conv1.bias}
- {tf: V_2,        torch: conv2.weight, permute: [3, 2, 0, 1]}
- {tf: Variable_4, torch: fc1.weight,   axes: (h w c) o -> o (c h w), dims: {h: 7, w: 7}}
- {tf: Variable_5, torch: fc1.bias}
"""
    )


def test_what_is_done_with_the_names_is_not_aligned() -> None:
    text = """\
- {tf: a, torch: b, slice: [":4"], axes: x -> x}
- {tf: a, torch: b, axes: (x y) -> (y x), dims: {x: 2}}
- {tf: a, torch: b, use: own, with: {n: 1}}
"""

    assert rows(text) == text


@pytest.mark.parametrize(
    "between",
    [
        pytest.param("\n", id="a blank line"),
        pytest.param("# other things\n", id="a comment"),
        pytest.param('- {torch: "x.y.z", tie: a.b}\n', id="other first keys"),
        pytest.param('- {tf: "layer_<i>", torch: a.<i>, use: own}\n', id="a row that stands for many"),
        pytest.param('- {tf: "one\\\n  two", torch: b, use: own}\n', id="a text of two lines"),
        pytest.param("- {tf: a,  # with a comment\n  torch: b, use: own}\n", id="a row of two lines"),
    ],
)
def test_a_run_of_rows_ends_at(between: str) -> None:
    above, below = "- {tf: a, torch: b, use: own}\n", "- {tf: a/long/name, torch: a.longer.name, use: own}\n"

    made = rows(above + between + below)

    assert made.startswith(above)
    assert made.endswith(below)
    assert rows(above + below) == "- {tf: a,           torch: b,             use: own}\n" + below


def test_one_long_name_does_not_spread_out_the_rows_around_it() -> None:
    """A run is aligned as a whole or not at all; then rows with all their keys in common are, by themselves."""
    long = "- {tf: a, torch: " + "n" * 26 + ", use: own}\n"
    short = "- {tf: a, torch: b, use: own}\n- {tf: cc, torch: dd, use: own}\n"
    tied = "- {tf: a, torch: b, reuse: true}\n- {tf: cc, torch: dd, reuse: true}\n"
    within = long.replace("n" * 26, "n" * 25)

    assert rows(long + short) == long + short
    assert rows(long + tied) == long + "- {tf: a,  torch: b,  reuse: true}\n- {tf: cc, torch: dd, reuse: true}\n"
    assert rows(within + short) == (
        within.replace("tf: a, ", "tf: a,  ")
        + f"- {{tf: a,  torch: b,{' ' * 25}use: own}}\n- {{tf: cc, torch: dd,{' ' * 24}use: own}}\n"
    )


def test_no_line_gets_too_wide_by_being_aligned() -> None:
    def pair(width: int) -> str:
        axes = "a" * (width - len("- {tf: bias, torch: b, axes: }"))
        return f"- {{tf: bias, torch: b, axes: {axes}}}\n- {{tf: kernel, torch: b, use: own}}\n"

    assert rows(pair(118)) == pair(118).replace("bias,", "bias,  ")
    assert rows(pair(119)) == pair(119)
    # One that is too wide by itself is not padded, and doesn't keep others from it.
    wide = f"- {{tf: kernel, torch: b, axes: {'a' * 100}}}\n"
    assert rows(wide + "- {tf: bias, torch: b, use: own}\n") == wide + "- {tf: bias,   torch: b, use: own}\n"


def test_rows_in_block_style_become_lines_where_they_fit() -> None:
    def row(width: int) -> str:
        return f"- tf: {'n' * (width - len('- {tf: , torch: t}'))}\n  torch: t\n"

    one, other = rows(row(120)), rows(row(121))

    assert (len(one), one[:9], one[-11:]) == (121, "- {tf: nn", " torch: t}\n")
    assert other == row(121)


@pytest.mark.parametrize(
    "row",
    [
        "- tf: a   # with a comment\n  torch: b\n",
        "- tf: a\n  # with a comment\n  torch: b\n",
        "- tf: a\n\n  torch: b\n",
        "- tf: a\n  torch: b\n  why: [, which ends a plain text in flow style\n",
        "- tf: a\n  torch: b\n  why: first, which it may\n",
        "- tf: a\n  torch: b\n  why: really?\n",
        "- tf: a\n  torch: b\n  why: several\n    lines\n",
        "- tf: a\n  torch: b\n  why: |\n    lines\n",
        "- tf: a\n  torch:\n",
        "- tf:\n  - a\n  torch: b\n",
        "- ? tf\n  : a\n  torch: b\n",
        "- tf: a\n  torch: b\n  ? why\n  : c\n",
        "- tf: :a\n  torch: b\n",
        "- {tf: a,   # with a comment\n  torch: b}\n",
        "- {tf: a,\n\n  torch: b}\n",
        "- {? tf\n  : a,\n  torch: b}\n",
        f"- {{tf: {'n' * 60},\n  torch: {'n' * 60}}}\n",
    ],
)
def test_a_row_keeps_its_lines(row: str) -> None:
    # What is not YAML without quotes is no example.
    row = row.replace("[, which", "it is [, which")

    assert rows(row) == row


def test_a_row_in_flow_style_is_one_line_where_it_fits() -> None:
    assert (
        rows("- {\n    tf: a,\n    torch: b,\n    dims: {\n      h: 7\n    }\n  }\n")
        == "- {tf: a, torch: b, dims: {h: 7}}\n"
    )


def test_comments_at_the_ends_of_lines_stand_below_each_other() -> None:
    text = f"{HEAD}for:\n  i: 0..3 # one\n  p q: [[0, 1], [2, 3]] #two\n  k: 0..1\n  n: [1, 2]     # alone\n"

    assert formatted(text) == (
        f"{HEAD}for:\n  i: 0..3                 # one\n  p q: [[0, 1], [2, 3]]   #two\n  k: 0..1\n"
        "  n: [1, 2]   # alone\n"
    )


def test_comments_of_lines_that_do_not_follow_each_other_are_not_aligned() -> None:
    text = (
        HEAD
        + 'with:\n  a: 1   # one\n  b: "two\\\n    lines"   # two\n\n  c: 1   # three\n  # of d\n  d: 10   # four\n'
    )

    assert formatted(text) == text


def test_comments_are_not_pushed_far_or_out_of_sight() -> None:
    def pair(width: int, comment: str) -> str:
        return f"{HEAD}with:\n  a: 1   # {comment}\n  b: {'n' * (width - len('  b: '))}   # x\n"

    assert formatted(pair(46, "x")) == pair(46, "x").replace("1   #", "1" + " " * 43 + "#")
    assert formatted(pair(47, "x")) == pair(47, "x")
    assert formatted(pair(46, "y" * 69)) == pair(46, "y" * 69).replace("1   #", "1" + " " * 43 + "#")
    assert formatted(pair(46, "y" * 70)) == pair(46, "y" * 70)


def test_a_comment_of_its_own_line_goes_with_what_it_stands_before_or_behind() -> None:
    text = (
        "# of all\nt2t: 1\nrecipes:\n    own:\n    # of the row\n    - {tf: a, torch: b}\n"
        "    # behind the rows\n# of the map\nmap:\n    # of the first row\n    - tf: a\n      torch: b\n"
        "      # of the row that was\n    - {tf: a, torch: b}\n  # of nothing\n\n# the end"
    )

    assert formatted(text) == (
        "# of all\nt2t: 1\nrecipes:\n  own:\n  # of the row\n  - {tf: a, torch: b}\n"
        "  # behind the rows\n# of the map\nmap:\n# of the first row\n- {tf: a, torch: b}\n"
        "# of the row that was\n- {tf: a, torch: b}\n# of nothing\n\n# the end\n"
    )


def test_wide_characters_are_as_wide_as_a_terminal_shows_them() -> None:
    """Two columns each; an accent that is a character of its own has none."""
    assert rows('- {tf: "漢字", torch: a}\n- {tf: "e\u0301", torch: a}\n- {tf: "abcde", torch: a}\n') == (
        '- {tf: "漢字",  torch: a}\n- {tf: "e\u0301",     torch: a}\n- {tf: "abcde", torch: a}\n'
    )


def test_lines_that_go_on_move_with_what_they_stand_in() -> None:
    text = (
        't2t: 1\nwith:\n    plain: one\n      two\n    quoted: "one\\\n\n      two\n  "\n    block: |\n'
        "       first\n         second  \n\n     \n    more:\n     -   |2\n          indented\n     - {a: 1,\n"
        "         # of b\n        b: 2\n     }\n"
    )

    assert formatted(text) == (
        't2t: 1\nwith:\n  plain: one\n    two\n  quoted: "one\\\n\n    two\n  "\n  block: |\n'
        "     first\n       second  \n\n   \n  more:\n  - |2\n       indented\n  - {a: 1,\n"
        "      # of b\n     b: 2\n  }\n"
    )


def test_line_ends_stay_and_the_last_line_has_one() -> None:
    text = "t2t:  1\r\n\r\nmap:\r\n- tf: a # x\r\n  torch: |\r\n   b\r\n\r\n- {tf: a,\r\n  torch: b}"

    assert formatted(text) == "t2t: 1\r\n\r\nmap:\r\n- tf: a   # x\r\n  torch: |\r\n   b\r\n\r\n- {tf: a, torch: b}\r\n"
    # A file with both keeps each.
    assert formatted("t2t:  1\r\nmap:\n- {tf: a}\r\n") == "t2t: 1\r\nmap:\n- {tf: a}\r\n"
    # A line break would be a part of this text.
    assert formatted("t2t:  1\nmodel: |\n  m:M") == "t2t: 1\nmodel: |\n  m:M"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--- # first\nt2t:  1\n", "---   # first\nt2t: 1\n"),
        ("%YAML 1.1\n---\nt2t:  1\n...\n", "%YAML 1.1\n---\nt2t: 1\n...\n"),
        ('{"t2t":1,\n "map":[ ]}\n', '{"t2t": 1,\n "map": []}\n'),
        ("t2t: 1\nwith: [a ,b , ]\n", "t2t: 1\nwith: [a, b,]\n"),
        ("t2t: 1\nwith: {a: , b:  , c:  }\n", "t2t: 1\nwith: {a: , b: , c: }\n"),
        ("t2t: 1\nwith: {? a : 1, ?  b,  c:  2}\n", "t2t: 1\nwith: {? a : 1, ?  b, c: 2}\n"),
        ("t2t: 1\nwith:\n   ? a\n   :   1\n", "t2t: 1\nwith:\n  ? a\n  : 1\n"),
        ("t2t: 1\nwith:\n ? a\n :   - b\n     - c\n", "t2t: 1\nwith:\n  ? a\n  : - b\n    - c\n"),
        ("t2t: 1\nwith: [ a: 1 ]\n", "t2t: 1\nwith: [a: 1]\n"),
        ("t2t: 1\nwith:\n-   -  a\n    - b\n-\n", "t2t: 1\nwith:\n- - a\n  - b\n-\n"),
        ("t2t: 1\nmap:\n-    tf: a\n     torch:\nfor: 1\n", "t2t: 1\nmap:\n- tf: a\n  torch:\nfor: 1\n"),
        ("t2t: 1\nwith: {\na: 1\n}\n", "t2t: 1\nwith: {\n  a: 1\n}\n"),
        ("t2t:  1 # x\u00a0 \n", "t2t: 1   # x\u00a0\n"),
        ("t2t: 1\nmap:\n-\n-\nwith: a\n", "t2t: 1\nmap:\n-\n-\nwith: a\n"),
        ("t2t: 1\nmap:\n- {}\n- {a, tf: b}\n- text\n", "t2t: 1\nmap:\n- {}\n- {a, tf: b}\n- text\n"),
    ],
)
def test_yaml_that_hardly_anybody_writes(text: str, expected: str) -> None:
    assert formatted(text) == expected


def test_the_page_shows_what_is_written() -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "fmt.md").read_text(encoding="utf-8"), re.DOTALL)

    assert formatted(f"t2t: 1\n{shown}") == f"t2t: 1\n{shown}"


# --- what stays ---


@pytest.mark.parametrize("path", GALLERY, ids=lambda path: path.stem)
def test_the_gallery_is_formatted(path: Path) -> None:
    made, done = fmt.formatted(path.read_bytes(), str(path))

    assert done == fmt.Formatted(str(path))
    assert made == path.read_bytes()


@pytest.mark.parametrize("path", GALLERY, ids=lambda path: path.stem)
def test_the_gallery_means_the_same_from_any_spelling(path: Path) -> None:
    """Every line of a mapping's rows is spoilt; what t2t reads of it is the same but for its places and its digest."""
    text = path.read_text(encoding="utf-8")
    spoilt = spoiled(text, random.Random(path.stem))

    made = formatted(spoilt)

    assert spoilt != text
    assert told(made) == told(spoilt) == told(text)
    assert comments(made) == comments(text)


def spoiled(text: str, chance: random.Random) -> str:
    """The text with other spaces between its tokens, and deeper lists."""
    spoilt = []
    for line in text.splitlines():
        is_list = line.startswith(("- ", "  - "))
        code, mark, comment = line.partition("   #")
        if line.lstrip().startswith("- {"):
            code = re.sub(
                r" *, (?=[a-z]+:)", lambda _: f"{' ' * chance.randint(0, 2)},{' ' * chance.randint(1, 4)}", code
            )
            code = code.replace("- {", "-" + " " * chance.randint(1, 4) + "{" + " " * chance.randint(0, 2))
        spoilt.append(
            " " * (3 if is_list and line else 0) + code + mark.replace("   ", " " * chance.randint(1, 9)) + comment
        )
    return "\n".join(spoilt) + "\n"


def told(text: str) -> object:
    """What a mapping says: the tree that PyYAML reads, and t2t's rules without their places."""
    read, problems = mapping_file.read(text.encode(), "m.yaml")
    assert lines(problems) == []
    assert read is not None
    rules = [
        (rule.target, rule.sources, rule.slice, rule.into, str(rule.axes), rule.dims, rule.fill, rule.tie, rule.dtype)
        for rule in read.rules
    ]
    return json.dumps(yaml.load(text, yaml.BaseLoader)), rules, [(entry.pattern, entry.why) for entry in read.ignore]


def comments(text: str) -> list[str]:
    """The comments, as whoever looks for a # behind a space finds them: mappings have no other."""
    return [f"#{line.partition('#')[2]}".rstrip() for line in text.splitlines() if " #" in f" {line}"]


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32))
def test_any_mapping_says_the_same_when_formatted_and_is_not_formatted_twice(seed: int) -> None:
    text = rendered.mapping(random.Random(seed))

    made = formatted(text)

    assert scalars(made) == scalars(text)
    assert words(made) == words(text)
    if "\r\n" in text:
        assert made.count("\n") == made.count("\r\n")


def scalars(text: str) -> object:
    """Every scalar with its quotes, in the tree that PyYAML makes of the text."""

    def of(node: yaml.Node) -> object:
        if isinstance(node, yaml.ScalarNode):
            return node.value, node.style
        return (
            [of(part) for part in node.value]
            if isinstance(node, yaml.SequenceNode)
            else [(of(key), of(value)) for key, value in node.value]
        )

    root = yaml.compose(text, yaml.BaseLoader)
    assert root is not None
    return of(root)


def words(text: str) -> list[str]:
    """All that is no space, in its order; without the brackets and commas that a row in one line has."""
    return "".join(text.split()).translate(str.maketrans("", "", "{},")).split("\n")


def test_what_would_say_something_else_is_not_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A mistake of the formatter's own: a value, a comment or a kind of quotes gets lost."""
    text = f"{HEAD}map:\n- {{tf: a,  torch: 'b'}}   # why\n"
    place = tmp_path / "m.yaml"
    place.write_text(text)
    start = text.index("tf: a")
    for edit in (
        Edit(start, start + 5, "tf: c"),
        Edit(text.index("   # why"), len(text), "\n"),
        Edit(text.index("'b'"), text.index("'b'") + 3, "b"),
        Edit(text.index("- {"), text.index("   #"), "- {torch: 'b', tf: a}"),
        Edit(text.index("- {"), text.index("   #"), "- [tf: a, torch: 'b']"),
    ):
        monkeypatch.setattr(style, "edits", lambda read, edit=edit: iter([edit]))

        with pytest.raises(
            RuntimeError, match=r"m\.yaml would say something else when formatted; it is left as it is$"
        ):
            api.fmt([place])
        assert place.read_text() == text


# --- what is refused ---


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("t2t: 1\nmap: [\n", "3:1: T2T101 not YAML: while parsing a flow node, did not find expected node content"),
        ("t2t: 1\nmap:\n\t- a\n", "3:1: T2T101 a tab where YAML has spaces; indent with spaces"),
        ("t2t: 1\n---\nt2t: 1\n", "2:1: T2T101 a second document begins; a mapping is one document"),
        ("t2t:  1\nmap: &a []\n", "2:6: T2T102 anchor &a is not allowed in a mapping; remove it"),
        ("t2t:  1\nt2t: 1\n", "2:1: T2T103 key 't2t' stands twice, first in line 1; keep one of them"),
        ("[" * 40 + "]" * 40, "1:34: T2T110 values are nested more than 32 deep"),
        ("services: {web: {image:  nginx}}\n", "1:1: T2T105 key 't2t' is missing; for example t2t: 1"),
    ],
)
def test_a_file_that_says_nothing_certain_is_left_alone(tmp_path: Path, text: str, problem: str) -> None:
    place = tmp_path / "m.yaml"
    place.write_text(text)

    (done,) = api.fmt([place])

    assert str(done.problems[0]).removeprefix(f"{place}:").startswith(problem)
    assert done.lines == ()
    assert place.read_text() == text


def test_a_mapping_that_does_not_fit_the_schema_is_formatted() -> None:
    assert formatted("t2t:  1\nmpa:\n - {fit:  5}\n") == "t2t: 1\nmpa:\n- {fit: 5}\n"


# --- files ---


SPOILT, FORMATTED = f"{HEAD}map:\n- {{tf: a,torch: b}}\n", f"{HEAD}map:\n- {{tf: a, torch: b}}\n"


def test_a_directory_stands_for_its_mappings(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yaml", "c.txt", "below/d.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(SPOILT)

    done = api.fmt([tmp_path, tmp_path / "a.yaml"])

    assert [one.path for one in done] == [str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]
    assert [one.lines for one in done] == [(5,), (5,)]
    assert {path.name for path in tmp_path.rglob("*.*") if path.read_text() == SPOILT} == {"c.txt", "d.yaml"}
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError) as error:
        api.fmt([tmp_path / "none"])
    assert str(error.value) == f"T2T001 there are no mappings under {tmp_path}/none/; name the mappings"


def test_the_mode_stays_and_what_a_link_points_to_is_replaced(tmp_path: Path) -> None:
    place, link = tmp_path / "real.yaml", tmp_path / "link.yaml"
    place.write_text(SPOILT)
    place.chmod(0o640)
    link.symlink_to("real.yaml")

    (done,) = api.fmt([link])

    assert (done.lines, link.is_symlink(), place.read_text()) == ((5,), True, FORMATTED)
    assert stat.S_IMODE(place.stat().st_mode) == 0o640
    assert sorted(os.listdir(tmp_path)) == ["link.yaml", "real.yaml"]


def test_a_file_that_does_not_change_is_not_written(tmp_path: Path) -> None:
    place = tmp_path / "m.yaml"
    place.write_text(FORMATTED)
    os.utime(place, ns=(1, 1))
    before = place.stat()

    (done,) = api.fmt([place])

    after = place.stat()
    assert done == fmt.Formatted(str(place))
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, 1)


def test_what_cannot_be_read_or_written_does_not_keep_the_others_from_it(tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("fifo.yaml", "none.yaml", "good.yaml", "folder/m.yaml")]
    os.mkfifo(places[0])
    places[2].write_text(SPOILT)
    places[3].mkdir(parents=True)

    done = api.fmt([*places[:3], places[3].parent])

    assert [str(problem) for one in done for problem in one.problems] == [
        f"{places[0]}:1:1: T2T602 the mapping cannot be read: Not a regular file; name a mapping, a .yaml file",
        f"{places[1]}:1:1: T2T602 the mapping cannot be read: No such file or directory; name a mapping, a .yaml file",
        f"{places[3]}:1:1: T2T602 the mapping cannot be read: Is a directory; name a mapping, a .yaml file",
    ]
    assert places[2].read_text() == FORMATTED


def test_a_file_that_cannot_be_written_stays_as_it_is(tmp_path: Path) -> None:
    """Its temporary file would have a longer name than any file may have."""
    place = tmp_path / f"{'m' * 245}.yaml"
    place.write_text(SPOILT)

    (done,) = api.fmt([place])

    assert done.lines == ()
    assert [str(problem) for problem in done.problems] == [
        f"{place}: T2T802: cannot be written: File name too long; choose a shorter name"
    ]
    assert place.read_text() == SPOILT


# --- the command ---


def test_the_command_formats_every_mapping_and_says_which_changed(tmp_path: Path) -> None:
    (tmp_path / "mappings").mkdir()
    (tmp_path / "mappings" / "a.yaml").write_text(SPOILT)
    (tmp_path / "mappings" / "b.yaml").write_text(FORMATTED)
    run = server().run

    checked = run("fmt", "--check", cwd=tmp_path)
    as_json = json.loads(run("fmt", "--check", "--format", "json", cwd=tmp_path).out)
    first, second, third = (
        run("fmt", cwd=tmp_path),
        run("fmt", "mappings", cwd=tmp_path),
        run("fmt", "--check", cwd=tmp_path),
    )

    assert (checked.code, checked.err, checked.out) == (
        1,
        "",
        "mappings/a.yaml:5: T2T114 not formatted: a line would change; run t2t fmt mappings/a.yaml\n"
        "2 mappings checked: 1 error\n",
    )
    assert as_json["checked"] == ["mappings/a.yaml", "mappings/b.yaml"]
    assert [(problem["code"], problem["line"]) for problem in as_json["problems"]] == [("T2T114", 5)]
    assert (first.code, first.out) == (0, "formatted mappings/a.yaml: 1 line\n1 of 2 mappings formatted\n")
    assert (second.code, second.out) == (0, "0 of 2 mappings formatted\n")
    assert (third.code, third.out) == (0, "2 mappings checked: no problems\n")
    assert (tmp_path / "mappings" / "a.yaml").read_text() == FORMATTED


def test_the_command_leaves_what_it_cannot_read_and_formats_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("t2t: [\n")
    (tmp_path / "b.yaml").write_text(SPOILT + "ignore:\n-   {slots:   true, why: x}\n")
    problem = "a.yaml:2:1: T2T101 not YAML: while parsing a flow node, did not find expected node content"
    run = server().run

    as_json = run("fmt", "a.yaml", "--format", "json", cwd=tmp_path)
    checked = run("fmt", "--check", "b.yaml", cwd=tmp_path)
    done = run("fmt", "a.yaml", "b.yaml", cwd=tmp_path)

    assert (done.code, done.out) == (1, f"{problem}\nformatted b.yaml: 2 lines\n1 of 2 mappings formatted\n")
    assert checked.out.startswith("b.yaml:5: T2T114 not formatted: 2 lines would change; run t2t fmt b.yaml\n")
    assert (as_json.code, json.loads(as_json.out)) == (
        1,
        {
            "checked": ["a.yaml"],
            "formatted": {},
            "problems": [
                {
                    "code": "T2T101",
                    "severity": "error",
                    "path": "a.yaml",
                    "line": 2,
                    "column": 1,
                    "message": problem.partition("T2T101 ")[2],
                    "hint": "",
                    "details": [],
                }
            ],
        },
    )


def test_the_command_without_mappings(tmp_path: Path) -> None:
    done = server().run("fmt", cwd=tmp_path)

    assert (done.code, done.err) == (2, "T2T001 there are no mappings under mappings/; name the mappings\n")


def test_the_command_imports_no_framework_and_nothing_that_a_mapping_names(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(SPOILT)
    (tmp_path / "m.py").write_text("raise SystemExit('imported')\n")
    script = (
        "import sys\nfrom t2t.cli import main\ncode = main(['fmt', 'm.yaml'])\n"
        "print(code, sorted({'torch', 'tensorflow', 'rich', 'h5py'} & set(sys.modules)))"
    )

    done = python("-c", script, cwd=tmp_path)

    assert done.out == "formatted m.yaml: 1 line\n1 of 1 mapping formatted\n0 []\n"


def test_a_hostile_name_is_shown_escaped(tmp_path: Path) -> None:
    name = "a\x1b[31m%s.yaml"
    (tmp_path / name).write_text(SPOILT)

    checked, done = t2t("fmt", "--check", name, cwd=tmp_path), t2t("fmt", name, cwd=tmp_path)

    assert "\x1b" not in checked.out + done.out
    assert done.out == "formatted a\\x1b[31m%s.yaml: 1 line\n1 of 1 mapping formatted\n"
