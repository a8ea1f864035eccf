"""The words for locks and for what changed: whole outputs, and nothing in them that a stranger's names could do."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from t2t.problems import Location, Problem
from t2t.review import lock as locks
from t2t.review import told
from t2t.review.diff import Change, Diff, Facet, MappingDiff
from t2t.review.lock import Figures, Proof
from tests.commands import ROOT, Done, python, server
from tests.review import repository
from tests.review.repository import GIT, Repository
from tests.review.versions import compared, lock, mapping

AT = Location("m.yaml", 7, 3)
PROVEN = Proof("", {"source": "0" * 64}, {"logits": Figures(1.3e-05, 18.0, 1.8e-04), "y": Figures(0.0, 1.0, 1e-06)})
UNPROVEN = Proof("--unproven")


def made(path: str, kind: str = "changed", **more: object) -> MappingDiff:
    own: dict[str, object] = {
        "assignments": 8,
        "changes": (),
        "facts": (),
        "as_written": 0,
        "is_locked": True,
        "proof": (None, None),
        "is_stale": False,
    }
    return MappingDiff(path=path, kind=kind, **{**own, **more})  # type: ignore[arg-type]


EVERYTHING = Diff(
    "main",
    "what is here",
    (
        made("same.yaml"),
        made(
            "changed.yaml",
            changes=(
                Change(
                    "fc1.weight", "changed", (Facet("axes", "i o -> o i", "i o -> i o"), Facet("scale", None, "2")), AT
                ),
                Change("fc2.bias", "added", (Facet("fill", None, "0"), Facet("shape", None, "[4]")), AT),
                Change("fc3.bias", "removed", (Facet("from", "a/bias", None),), AT),
            ),
            facts=(
                Facet("with.depth", "2", "3"),
                Facet("ignore a", None, "why"),
                Facet("output.dtype", "float16", None),
            ),
            proof=(PROVEN, PROVEN),
            is_stale=True,
        ),
        made("partly.yaml", as_written=3, proof=(PROVEN, UNPROVEN)),
        made("written.yaml", as_written=8, is_locked=False, assignments=1, proof=(None, PROVEN)),
        made("new.yaml", "added", proof=(None, UNPROVEN)),
        made("gone.yaml", "removed", assignments=1, proof=(PROVEN, None)),
    ),
    4,
    ("broken.yaml",),
    (Problem("T2T101", "not YAML", Location("main:broken.yaml", 2, 7)),),
)

FIGURES = "logits max|Δ| 1.3e-05 <= 0.00018, y max|Δ| 0 <= 1e-06"


def test_everything_in_lines() -> None:
    assert told.diff(EVERYTHING) == [
        "same.yaml: 8 assignments identical",
        "changed.yaml: 1 added, 1 removed, 1 changed, 6 assignments identical",
        "  ~ fc1.weight (line 7): axes i o -> o i => i o -> i o; scale (none) => 2",
        "  + fc2.bias (line 7): fill 0; shape [4]",
        "  - fc3.bias: from a/bias",
        "  ~ with.depth 2 => 3",
        "  + ignore a why",
        "  - output.dtype float16",
        f"  proof {FIGURES}, but the lock is stale",
        "partly.yaml: 8 assignments identical, 3 compared as written (rows that do not fit the lock)",
        f"  proof {FIGURES} => not proven: --unproven",
        "written.yaml: 1 assignment identical, compared as written (no lock knows the shapes)",
        f"  proof not locked => {FIGURES}",
        "new.yaml: new, 8 assignments",
        "  proof not proven: --unproven",
        "gone.yaml: removed, 1 assignment",
        f"  proof {FIGURES}",
        "3 of 11 mappings changed, 1 could not be compared",
    ]


def test_nothing_in_lines() -> None:
    assert told.diff(Diff("a", "b", (), 1, (), ())) == ["0 of 1 mapping changed"]
    assert told.diff_markdown(Diff("a", "b", (), 2, (), ())) == [
        "### Weights: <code>a</code> → <code>b</code>",
        "",
        "0 of 2 mappings changed",
    ]


def test_everything_as_json() -> None:
    document = json.loads(json.dumps(told.diff_json(EVERYTHING), allow_nan=False))
    figures = {"logits": {"max_delta": 1.3e-05, "tolerance": 1.8e-04}, "y": {"max_delta": 0.0, "tolerance": 1e-06}}

    assert document.keys() == {"base", "head", "same", "mappings", "left_out", "problems"}
    assert (document["base"], document["head"], document["same"]) == ("main", "what is here", 4)
    assert [(one["path"], one["kind"]) for one in document["mappings"]] == [
        ("same.yaml", "same"),
        ("changed.yaml", "changed"),
        ("partly.yaml", "same"),
        ("written.yaml", "same"),
        ("new.yaml", "added"),
        ("gone.yaml", "removed"),
    ]
    assert document["mappings"][1] == {
        "path": "changed.yaml",
        "kind": "changed",
        "assignments": 8,
        "as_written": 0,
        "locked": True,
        "changes": [
            {
                "parameter": "fc1.weight",
                "kind": "changed",
                "line": 7,
                "facets": [
                    {"name": "axes", "before": "i o -> o i", "after": "i o -> i o"},
                    {"name": "scale", "before": None, "after": "2"},
                ],
            },
            {
                "parameter": "fc2.bias",
                "kind": "added",
                "line": 7,
                "facets": [
                    {"name": "fill", "before": None, "after": "0"},
                    {"name": "shape", "before": None, "after": "[4]"},
                ],
            },
            {
                "parameter": "fc3.bias",
                "kind": "removed",
                "line": 7,
                "facets": [{"name": "from", "before": "a/bias", "after": None}],
            },
        ],
        "facts": [
            {"name": "with.depth", "before": "2", "after": "3"},
            {"name": "ignore a", "before": None, "after": "why"},
            {"name": "output.dtype", "before": "float16", "after": None},
        ],
        "proof": {"before": {"outputs": figures}, "after": {"outputs": figures}, "stale": True},
    }
    assert document["mappings"][2]["proof"] == {
        "before": {"outputs": figures},
        "after": {"unproven": "--unproven"},
        "stale": False,
    }
    assert document["mappings"][3]["proof"]["before"] is None
    assert document["left_out"] == ["broken.yaml"]
    assert document["problems"] == [
        {
            "code": "T2T101",
            "severity": "error",
            "path": "main:broken.yaml",
            "line": 2,
            "column": 7,
            "message": "not YAML",
            "hint": "",
            "details": [],
        }
    ]


def test_everything_in_markdown() -> None:
    """As it is rendered, with entities for what Markdown, HTML and tables would read."""
    assert [html.unescape(line) for line in told.diff_markdown(EVERYTHING)] == [
        "### Weights: <code>main</code> → <code>what is here</code>",
        "",
        "**<code>same.yaml</code>**: 8 assignments identical",
        "",
        "**<code>changed.yaml</code>**: 1 added, 1 removed, 1 changed, 6 assignments identical",
        "",
        "| | parameter | what | before | after |",
        "|---|---|---|---|---|",
        "| changed | <code>fc1.weight</code> | <code>axes</code> | <code>i o -> o i</code> | <code>i o -> i o</code> |",
        "| changed | <code>fc1.weight</code> | <code>scale</code> |  | <code>2</code> |",
        "| added | <code>fc2.bias</code> | <code>fill</code> |  | <code>0</code> |",
        "| added | <code>fc2.bias</code> | <code>shape</code> |  | <code>[4]</code> |",
        "| removed | <code>fc3.bias</code> | <code>from</code> | <code>a/bias</code> |  |",
        "| changed |  | <code>with.depth</code> | <code>2</code> | <code>3</code> |",
        "| added |  | <code>ignore a</code> |  | <code>why</code> |",
        "| removed |  | <code>output.dtype</code> | <code>float16</code> |  |",
        "",
        "proof <code>logits</code> max|Δ| 1.3e-05 <= 0.00018, <code>y</code> max|Δ| 0 <= 1e-06, but the lock is stale",
        "",
        "**<code>partly.yaml</code>**: 8 assignments identical, 3 compared as written (rows that do not fit the lock)",
        "",
        "proof <code>logits</code> max|Δ| 1.3e-05 <= 0.00018, <code>y</code> max|Δ| 0 <= 1e-06 "
        "=> not proven: <code>--unproven</code>",
        "",
        "**<code>written.yaml</code>**: 1 assignment identical, compared as written (no lock knows the shapes)",
        "",
        "proof not locked => <code>logits</code> max|Δ| 1.3e-05 <= 0.00018, <code>y</code> max|Δ| 0 <= 1e-06",
        "",
        "**<code>new.yaml</code>**: new, 8 assignments",
        "",
        "proof not proven: <code>--unproven</code>",
        "",
        "**<code>gone.yaml</code>**: removed, 1 assignment",
        "",
        "proof <code>logits</code> max|Δ| 1.3e-05 <= 0.00018, <code>y</code> max|Δ| 0 <= 1e-06",
        "",
        "- <code>main:broken.yaml:2:7: T2T101 not YAML</code>",
        "",
        "3 of 11 mappings changed, 1 could not be compared",
    ]


# --- names that somebody else chose ---

HOSTILE = [
    "a|b",
    "`a`",
    "``a|b` c``",
    "\\|a\\",
    "</code><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "@octocat",
    "#1 owner/name#1 0123456789abcdef0123456789abcdef01234567",
    "[a](https://example.org)",
    "https://example.org www.example.org a@example.org",
    "**a** _b_ ~~c~~",
    "&lt;b&gt; &#124;",
    "a\nb\r\nc | d |",
    "\n\n| a |\n|---|\n",
    "\x1b[31mred\x1b]0;title\x07",
    "\u202eright to left\u2066",
    "::error::no",
    " ",
]


def parsed(lines: Sequence[str]) -> list[list[list[str]]]:
    """The tables of a page, by rows and cells: each cell as it is shown, which is code or a word of ours."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse("\n".join(lines))
    kinds = {token.type.removesuffix("_open") for token in tokens if token.type.endswith("_open")}
    assert kinds <= {"heading", "paragraph", "table", "thead", "tbody", "tr", "th", "td", "bullet_list", "list_item"}
    assert not [token for token in tokens if token.type == "html_block"]
    tables: list[list[list[str]]] = []
    for before, token in zip([None, *tokens], tokens, strict=False):
        inner = token.children or []
        kinds = {child.type for child in inner if child.content or child.type.endswith(("_open", "_close"))}
        assert kinds <= {"text", "html_inline", "strong_open", "strong_close", "text_special", "softbreak"}, inner
        assert {child.content for child in inner if child.type == "html_inline"} <= {"<code>", "</code>"}
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif before is not None and before.type == "td_open":
            tables[-1][-1].append("".join(child.content for child in inner if child.type != "html_inline"))
    return tables


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_name_is_shown_and_nothing_else_comes_of_it(name: str) -> None:
    change = Change(name, "changed", (Facet(name, name, f"{name} 2"),), AT)
    proof = Proof("", {}, {name: Figures(1.0, 1.0, 1.0)})
    more: dict[str, object] = {"changes": (change,), "facts": (Facet(name, None, name),), "proof": (Proof(name), proof)}
    problem = Problem("T2T101", name, Location(name, 1, 1), name)
    found = Diff(name, name, (made(name, "changed", **more),), 0, (name,), (problem,))
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)

    lines = told.diff_markdown(found)

    assert all(line.isprintable() for line in lines)
    (table,) = parsed(lines)
    plain = shown.strip(" ")
    rows = [[cell.strip(" ") for cell in row] for row in table if row]
    assert rows == [
        ["changed", plain, plain, plain, f"{shown} 2".strip(" ")],
        ["added", "", plain, "", plain],
    ]
    assert all(line.isprintable() for line in told.diff(found))
    # What makes links of addresses and mentions looks at the source, or at text that is no code.
    text = "\n".join(lines)
    assert not {*text} & {*"@`[]\\~"}
    assert ("www." in text, "://" in text) == (False, False)


@pytest.mark.parametrize("length", [60, 119, 121, 1000])
def test_of_long_texts_what_differs_is_shown(length: int) -> None:
    before = "x" * length + " one " + "y" * 300
    facet = Facet("from", before, before.replace("one", "two"))
    line = told.diff(Diff("a", "b", (made("m.yaml", facts=(facet,)),), 0, (), ()))[1]

    assert " one " in line
    assert " two " in line
    assert len(line) < 300


def test_a_long_message_is_whole_in_markdown() -> None:
    problem = Problem("T2T101", "x" * 500 + " end", Location("m.yaml", 1, 1))

    assert told.diff_markdown(Diff("a", "b", (), 0, ("m.yaml",), (problem,)))[2] == (
        f"- <code>m.yaml&#58;1&#58;1&#58; T2T101 {'x' * 500} end</code>"
    )


def test_a_real_mapping_of_hostile_names() -> None:
    """Through the mapping's own reader, which lets most of them pass."""
    quoted = json.dumps("&lt;/code>`|@a\x1b\n")
    before = mapping(["{tf: b, torch: p}"]).replace("torch: p", f"torch: {quoted}")
    after = before.replace("tf: b", "tf: c").replace("{checkpoint: c}", f"{{checkpoint: {quoted}}}")
    found = compared(before, after)

    (table,) = parsed(told.diff_markdown(Diff("a", "b", (found,), 0, (), ())))

    assert [row for row in table if row] == [
        ["changed", "&lt;/code>`|@a\\x1b\\n", "from", "b", "c"],
        ["changed", "", "source.checkpoint", "c", '"&lt;/code>`|@a\\u001b\\n"'],
    ]


# --- locks ---


def test_a_lock_in_lines_and_as_json() -> None:
    text = mapping(["{tf: b, torch: p}", "{tf: sq, torch: q, axes: i o -> o i}"])
    proven = locks.parse(lock(text, {}, proof=PROVEN), "m.lock.json")
    unproven = locks.parse(lock(text, {}, proof=UNPROVEN), "m\n.lock.json")

    assert told.lock(proven) == [
        "wrote m.lock.json: 2 parameters, 19 variables",
        "logits: max|Δ| 1.3e-05 <= 0.00018, where max|TF| is 18",
        "y: max|Δ| 0 <= 1e-06, where max|TF| is 1",
        "proven",
    ]
    assert told.lock(unproven) == ["wrote m\\n.lock.json: 2 parameters, 19 variables", "not proven: --unproven"]
    assert told.lock_json(proven) == {
        "lock": "m.lock.json",
        "parameters": 2,
        "variables": 19,
        "proof": {
            "outputs": {
                "logits": {"max_delta": 1.3e-05, "tolerance": 1.8e-04},
                "y": {"max_delta": 0.0, "tolerance": 1e-06},
            }
        },
    }
    assert told.lock_json(unproven)["proof"] == {"unproven": "--unproven"}


# --- the command ---


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A team's repository, where one axis of one mapping is another than in main."""
    made = repository.make(tmp_path / "team", checkpoints=False)
    made.edit("dense", "torch: out.weight, axes: i o -> o i", "torch: out.weight, axes: i o -> i o")
    made.edit("blocks", "step counter", "# the step counter")
    made.edit("blocks", "# the step counter", "step counter")
    made.edit("blocks", "for: {i: 0..2}", "for: {i: [0, 1, 2]}  # depth")
    return made


def run(team: Repository, *arguments: str) -> Done:
    return server().run("diff", *arguments, cwd=team.folder)


LINES = """\
mappings/blocks.yaml: 18 assignments identical, compared as written (no lock knows the shapes)
mappings/dense.yaml: 1 changed, 3 assignments identical, compared as written (no lock knows the shapes)
  ~ out.weight (line 8): axes i o -> o i => i o -> i o
1 of 3 mappings changed
"""


def test_the_command_and_its_exit_status(team: Repository) -> None:
    done = run(team, "main")
    assert (done.code, done.out, done.err) == (0, LINES, "")
    done = run(team, "main", "--exit-code")
    assert (done.code, done.out, done.err) == (1, LINES, "")
    done = run(team, "main", "--exit-code", "mappings/blocks.yaml")
    assert (done.code, done.out.splitlines()[-1]) == (0, "0 of 1 mapping changed")
    done = run(team, "HEAD", "main", "mappings", "--exit-code")
    assert (done.code, done.out) == (0, "0 of 3 mappings changed\n")


def test_the_command_in_markdown_and_json(team: Repository) -> None:
    done = run(team, "main", "--markdown")
    assert (done.code, done.err) == (0, "")
    assert parsed(done.out.splitlines()) == [[[], ["changed", "out.weight", "axes", "i o -> o i", "i o -> i o"]]]
    done = run(team, "main", "--format", "json")
    assert [one["kind"] for one in json.loads(done.out)["mappings"]] == ["same", "changed"]


def test_a_mapping_that_cannot_be_read_ends_with_1_and_the_others_are_compared(team: Repository) -> None:
    team.edit("blocks", "for: ", "for: [")
    problem = (
        "mappings/blocks.yaml:8:1: T2T101 not YAML: while parsing a flow sequence, did not find expected ',' or ']'"
    )
    total = "1 of 3 mappings changed, 1 could not be compared"

    done = run(team, "main")
    assert (done.code, done.err) == (1, "")
    assert done.out.splitlines()[0] == problem
    assert done.out.splitlines()[2:] == ["  ~ out.weight (line 8): axes i o -> o i => i o -> i o", total]
    done = run(team, "main", "--markdown")
    assert (done.code, done.err) == (1, "")
    assert [html.unescape(line) for line in done.out.splitlines()[-3:]] == [f"- <code>{problem}</code>", "", total]
    done = run(team, "main", "--format", "json")
    assert done.code == 1
    assert json.loads(done.out)["problems"][0]["code"] == "T2T101"
    done = run(team, "main", "--format", "sarif")
    assert done.code == 1
    assert [result["ruleId"] for result in json.loads(done.out)["runs"][0]["results"]] == ["T2T101"]
    done = run(team, "main", "--format", "github")
    assert done.out.startswith("::error file=mappings/blocks.yaml,line=8,")


def test_what_cannot_be_compared_ends_with_2_and_what_cannot_be_read_with_3(team: Repository) -> None:
    done = run(team, "nowhere")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("T2T001 nowhere is neither a file, nor a directory, nor a revision ")
    (team.mapping("conv")).unlink()
    os.mkfifo(team.mapping("conv"))
    done = run(team, "main")
    assert (done.code, done.err) == (3, "")
    assert done.out.splitlines()[0] == "mappings/conv.yaml: T2T602: not a regular file"
    assert done.out.splitlines()[-1] == "1 of 3 mappings changed, 1 could not be compared"


def test_paths_may_stand_behind_flags(team: Repository) -> None:
    done = run(team, "main", "--exit-code", "HEAD", "mappings/conv.yaml", "mappings/dense.yaml")

    assert (done.code, done.out) == (0, "0 of 2 mappings changed\n")


#: Runs a command, and then says which of these are imported: the frameworks, and the module that the mappings name.
WATCHED = """\
import sys
{before}
from t2t.__main__ import main
status = main()
print(*sorted({{"torch", "tensorflow", "models"}} & sys.modules.keys()))
sys.exit(status)
"""


@pytest.mark.parametrize(
    ("before", "imported"),
    [("", ""), ("import torch", "torch"), ("sys.path.append('.'); import models", "models torch")],
)
def test_the_command_imports_no_framework_and_nothing_that_a_mapping_names(
    team: Repository, before: str, imported: str
) -> None:
    """And the test can fail: an import that comes by another way is seen."""
    done = python("-c", WATCHED.format(before=before), "diff", "main", cwd=team.folder, env=GIT)

    assert (done.code, done.out, done.err) == (0, f"{LINES}{imported}\n", "")


def test_the_page_shows_what_is_said(tmp_path: Path) -> None:
    """docs/diff.md: its commands, on the gallery's mapping and its lock."""
    page = (ROOT / "docs" / "diff.md").read_text("utf-8")
    (session,) = re.findall("```console\n(.*?)```", page, re.DOTALL)
    made = Repository(tmp_path)
    (tmp_path / "mappings").mkdir()
    for name in ("madry.yaml", "madry.lock.json"):
        shutil.copy(ROOT / "mappings" / name, tmp_path / "mappings" / name)
    made.git("init", "-q", "-b", "main")
    assert made.commit("as in the gallery").code == 0
    rows = re.findall("^([-+])(- .*)$", session, re.MULTILINE)
    for (_, old), (_, new) in zip(rows[::2], rows[1::2], strict=True):
        made.edit("madry", old, new)

    for command, answer in re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", session, re.MULTILINE):
        done = made.run("sh", "-c", command.replace("python", sys.executable), env={"PYTHONPATH": str(ROOT)})
        assert (done.code, done.out, done.err) == (0, answer, "")
