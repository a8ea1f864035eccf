"""
Problems as other programs read them: GitHub's annotations and step summary, and SARIF 2.1.0. Values in, text out.

Workflow commands, https://docs.github.com/actions/reference/workflow-commands-for-github-actions:

    ::error file=mappings/a%2Cb.yaml,line=7,col=3,title=T2T304::the message, %25 and line ends escaped

The runner reads a line as a command where it begins with `::` after blanks, or has `##[` anywhere; so every other line
goes through `plain`. A name may hold anything: what no line of text can show is written as Python escapes it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, quote_from_bytes

import t2t
from t2t import codes
from t2t.checkpoints.files import has_scheme
from t2t.problems import CODES, Problem, Severity

#: GitHub shows so many annotations of a kind for each step, and drops the rest without a word.
ANNOTATIONS = 10

#: GitHub drops the whole summary of a step that is longer, in bytes.
SUMMARY_BYTES = 1 << 20

#: What GitHub calls each severity.
KINDS: dict[Severity, str] = {"error": "error", "warning": "warning", "note": "notice"}

#: The columns of `summary`.
HEADER = "\n### t2t\n\n| | where | code | what |\n|---|---|---|---|\n"

_MORE = "| | | | and more, for which GitHub's limit of 1 MiB leaves no room: the step's log has them |\n"

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

#: What SARIF calls the folder that relative addresses start from.
ROOT = "%SRCROOT%"

_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")

#: Places in a message that change when lines are added above.
_LINES = re.compile(r"\blines? \d+(?:, \d+)*|(?<=:)\d+(?::\d+)?")

# --- paths ---


@dataclass(frozen=True, slots=True)
class Folders:
    """Two absolute folders: `here`, where relative paths start, and `root`, from which the reader counts them."""

    here: str
    root: str

    def relative(self, path: str) -> str | None:
        """The path below `root`, with `/` on every system; None for what lies outside, and for an address."""
        below = os.path.join(self.root, "")
        whole = os.path.normpath(os.path.join(self.here, path))
        if not path or has_scheme(path) or not whole.startswith(below):
            return None
        return whole.removeprefix(below).replace(os.sep, "/")

    def shown(self, path: str) -> str:
        """The path below `root`; what lies outside is whole."""
        if has_scheme(path):
            return path
        return self.relative(path) or os.path.normpath(os.path.join(self.here, path))

    def uri(self, path: str) -> tuple[str, bool]:
        """The path as RFC 3986 has it, every other character escaped; and whether it starts from `root`."""
        if has_scheme(path):
            # What is escaped already stays as it is.
            return quote(_STRAY_PERCENT.sub("%25", _text(path)), safe="/:?&=@%+~"), False
        inside = self.relative(path)
        if inside is not None:
            return quote_from_bytes(_bytes(inside)), True
        whole = self.shown(path).replace(os.sep, "/")
        return "file://" + quote_from_bytes(_bytes(whole if whole.startswith("/") else f"/{whole}")), False


def _bytes(path: str) -> bytes:
    """The bytes of a path: those that the system gave, where it has bytes that are no text."""
    try:
        return path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        # Half a character that a mapping named: no system has such a path.
        return path.encode("utf-8", "surrogatepass")


# --- GitHub ---


def annotation(problem: Problem, folders: Folders) -> str:
    """
    The workflow command that puts a problem beside its line. Where there is none, the message begins with the place.

    The root has to be the repository's own folder.
    """
    at = problem.at
    properties = {"title": problem.code}
    said = _said(problem)
    if at is not None and at.line is not None:
        column = {} if at.column is None else {"col": str(at.column)}
        properties = {"file": folders.shown(at.path), "line": str(at.line), **column, **properties}
    elif at is not None:
        said = [f"{_text(folders.shown(at.path))}: {said[0]}", *said[1:]]
    told = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{KINDS[problem.severity]} {told}::{_data(said)}"


def commands(problems: Iterable[Problem], folders: Folders, said: Counter[Severity], limit: int | None) -> list[str]:
    """
    The workflow commands of these problems, those with a line first; no more than `limit` of a severity.

    `said` counts what the step has said so far, and goes on counting.
    """
    lines = []
    for problem in sorted(problems, key=lambda one: one.at is None or one.at.line is None):
        if limit is None or said[problem.severity] < limit:
            lines.append(annotation(problem, folders))
            said[problem.severity] += 1
    return lines


def plain(line: str) -> str:
    """A line that the runner takes for text: what would make it a command is escaped."""
    start = line.lstrip()
    if start.startswith("::"):
        line = f"{line[: len(line) - len(start)]}\\x3a{start[1:]}"
    return line.replace("##[", "\\x23#[")


def summary(problems: Iterable[Problem], folders: Folders, room: int) -> tuple[str, int]:
    """
    The problems as rows of a Markdown table below HEADER, of at most `room` bytes; and how many of them it holds.

    Where they end early, the last row says so. Nothing in them is markup: they are code, and every character that
    Markdown or HTML could read is a reference.
    """
    rows: list[str] = []
    for problem in problems:
        row = _row(problem, folders)
        left = room - len(row.encode())
        if left < len(_MORE):
            return "".join([*rows, *([_MORE] if room >= len(_MORE) else [])]), len(rows)
        rows.append(row)
        room = left
    return "".join(rows), len(rows)


def _row(problem: Problem, folders: Folders) -> str:
    where = ""
    if problem.at is not None:
        where = f"<code>{_inert(str(replace(problem.at, path=folders.shown(problem.at.path))))}</code>"
    told = "<br>".join(f"<code>{_inert(line)}</code>" for line in _said(problem))
    return f"| {problem.severity} | {where} | {problem.code} | {told} |\n"


def _inert(text: str) -> str:
    """The text as neither Markdown nor HTML reads anything in it."""
    return re.sub(r"[^\w /,'=-]|_", lambda found: f"&#{ord(found[0])};", _text(text))


def _said(problem: Problem) -> list[str]:
    """What a problem says, and its details, a line each."""
    first = f"{problem.message}; {problem.hint}" if problem.hint else problem.message
    return [_text(first), *map(_text, problem.details)]


def _text(text: str) -> str:
    """The text without control characters, directions and halves of characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _data(lines: Sequence[str]) -> str:
    return "%0A".join(line.replace("%", "%25") for line in lines)


def _property(value: str) -> str:
    # A path may have line ends, which GitHub can be told; what else is no text would only reach the log.
    text = "".join(c if c in "\r\n" else _text(c) for c in value)
    for character in "%\r\n:,":
        text = text.replace(character, f"%{ord(character):02X}")
    return text


# --- SARIF ---


def sarif(problems: Sequence[Problem], folders: Folders) -> dict[str, Any]:
    """
    The problems as a SARIF 2.1.0 log, https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html.

    A problem of a file is a result; one of the call, which has no place, is a notification of the invocation. Columns
    count characters. Fingerprints don't change when lines move.
    """
    placed = [problem for problem in problems if problem.at is not None]
    others = [problem for problem in problems if problem.at is None]
    rules = sorted({problem.code for problem in placed})
    invocation: dict[str, Any] = {
        "executionSuccessful": all(problem.severity != "error" for problem in others),
        "toolExecutionNotifications": [
            {"descriptor": {"id": problem.code}, "level": problem.severity, "message": _message(problem)}
            for problem in others
        ],
    }
    driver = {"name": "t2t", "version": t2t.__version__, "rules": [_rule(code) for code in rules]}
    run = {
        "tool": {"driver": driver},
        "invocations": [invocation],
        "columnKind": "unicodeCodePoints",
        "results": list(_results(placed, rules, folders)),
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(code: str) -> dict[str, Any]:
    told = {"text": CODES[code]}
    explained = codes.find(code)
    assert explained is not None
    more = {"text": "\n".join(codes.lines(explained))}
    return {"id": code, "shortDescription": told, "fullDescription": told, "help": more}


def _results(problems: Sequence[Problem], rules: Sequence[str], folders: Folders) -> Iterator[dict[str, Any]]:
    seen: Counter[str] = Counter()
    for problem in problems:
        assert problem.at is not None
        address, is_relative = folders.uri(problem.at.path)
        place: dict[str, Any] = {"artifactLocation": {"uri": address, **({"uriBaseId": ROOT} if is_relative else {})}}
        if problem.at.line is not None:
            column = {} if problem.at.column is None else {"startColumn": problem.at.column}
            place["region"] = {"startLine": problem.at.line, **column}
        key = "\0".join((problem.code, address, _LINES.sub("line", _text(problem.message))))
        seen[key] += 1
        digest = hashlib.sha256(f"{key}\0{seen[key]}".encode()).hexdigest()
        yield {
            "ruleId": problem.code,
            "ruleIndex": rules.index(problem.code),
            "level": problem.severity,
            "message": _message(problem),
            "locations": [{"physicalLocation": place}],
            "partialFingerprints": {"t2tProblem/v1": digest},
        }


def _message(problem: Problem) -> dict[str, str]:
    """The text; what SARIF would read as a link, `[..](..)`, or as a place for an argument, `{0}`, is pulled apart."""
    text = "\n".join(_said(problem)).replace("](", "] (")
    return {"text": re.sub(r"\{(?=\d+\})", "{ ", text)}
