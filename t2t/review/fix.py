"""
What has one answer, written into the mapping: a misspelt key, a misspelt name.

Only the characters in question change. What a fix makes of the file is read again, and where it says anything but what
was meant, nothing is written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from t2t import document
from t2t.document import Document
from t2t.problems import Problem
from t2t.review.edits import Edit, apply

#: So many changes are made at a time: the file is read again for each.
MOST = 100


def fixed(data: bytes, path: str, problems: Sequence[Problem]) -> tuple[bytes, list[Problem]]:
    """The mapping with the problems fixed that have one answer and stand in it as text, and which ones these are."""
    read, _ = document.parse(data, path)
    if read.tree is None:
        return data, []
    text = data.decode("utf-8")
    starts = _line_starts(text)
    edits: dict[int, Edit] = {}
    done: list[Problem] = []
    for problem in problems:
        if len(edits) == MOST:
            break
        edit = _edit(text, starts, problem, path)
        if edit is None or edits.get(edit.start, edit) != edit:
            continue
        if edit.start not in edits and not _is_meant(text, [*edits.values(), edit], read):
            continue
        edits[edit.start] = edit
        done.append(problem)
    return apply(text, edits.values()).encode(), done


def _edit(text: str, starts: Sequence[int], problem: Problem, path: str) -> Edit | None:
    """The change of the text at the problem's place; None where what stands there is not written as it is meant."""
    at, fix = problem.at, problem.fix
    if fix is None or at is None or at.path != path or at.line is None or at.column is None:
        return None
    old, new = fix
    start = starts[at.line - 1] + at.column - 1
    start += text[start : start + 1] in {'"', "'"}
    return Edit(start, start + len(old), new) if text.startswith(old, start) else None


def _line_starts(text: str) -> list[int]:
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return starts


def _is_meant(text: str, edits: Sequence[Edit], read: Document) -> bool:
    """
    Whether the edited text is the same tree, but for a key or a value for each edit, which is the new one.

    A name can need quotes where another one didn't, or have them in a way that the edit breaks.
    """
    again, _ = document.parse(apply(text, edits).encode(), read.path)
    before, after = (_pieces(one) for one in (read, again))
    changed = [new for old, new in zip(before, after, strict=False) if old != new]
    meant = [{f"{edit.text}:", json.dumps(edit.text)} for edit in sorted(edits)]
    return len(before) == len(after) and len(changed) == len(meant) and all(map(set.__contains__, meant, changed))


def _pieces(read: Document) -> list[str]:
    """Every key and every value of a document, in the order in which they stand."""

    def walk(value: object) -> list[str]:
        if isinstance(value, dict):
            return [piece for key, inner in value.items() for piece in (f"{key}:", *walk(inner))]
        if isinstance(value, list):
            return ["[", *(piece for inner in value for piece in walk(inner)), "]"]
        return [json.dumps(value)]

    return walk(read.tree)
