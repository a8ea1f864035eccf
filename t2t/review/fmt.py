"""
Formats mappings in place.

Only spaces and line breaks between tokens change, by edits of the text; a row in block style may become a line in flow
style (see t2t.review.style). What was formatted is read again, and has to say the same.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from t2t import document
from t2t.names import shown
from t2t.problems import Location, Problem
from t2t.problems import as_json as problem_json
from t2t.review import layout, style
from t2t.review.edits import apply

#: Problems that leave it unknown what the file says.
_UNREADABLE = frozenset(("T2T101", "T2T102", "T2T103", "T2T110"))


@dataclass(frozen=True, slots=True)
class Formatted:
    """
    What became of one mapping, or would have: the numbers of its `lines`, from 1, that were not as they are to be. Or
    the `problems` that keep it from being formatted.
    """

    path: str
    lines: tuple[int, ...] = ()
    problems: tuple[Problem, ...] = ()

    def finding(self) -> Problem | None:
        """That it is not formatted, as a problem; None where it is."""
        if not self.lines:
            return None
        told = f"{len(self.lines)} lines" if len(self.lines) > 1 else "a line"
        message = f"not formatted: {told} would change"
        return Problem("T2T114", message, Location(self.path, self.lines[0]), f"run t2t fmt {shown(self.path)}")


def formatted(data: bytes, path: str) -> tuple[bytes, Formatted]:
    """
    The formatted text of a mapping; `path` is only named. Where its problems leave it unknown what it says, it is as
    given.

    A mapping that doesn't fit the schema is formatted, too, if it is meant as one: it has the key `t2t`. Raises
    RuntimeError where the new text would not say what the old one says, which is a bug.
    """
    read, problems = document.parse(data, path)
    unreadable = [problem for problem in problems if problem.code in _UNREADABLE]
    if unreadable or not isinstance(read.tree, dict) or "t2t" not in read.tree:
        return data, Formatted(path, problems=tuple(unreadable or problems))
    before = layout.read(data.decode("utf-8"))
    said, comments = before.said(), before.comments()
    edits = list(style.edits(before))
    text = apply(before.text, edits)
    made = text.encode("utf-8")
    if edits:
        after = layout.read(text)
        again, _ = document.parse(made, path)
        # As text, kinds of numbers and the order of keys are compared, too.
        if (json.dumps(again.tree), after.said(), after.comments()) != (json.dumps(read.tree), said, comments):
            raise RuntimeError(f"{shown(path)} would say something else when formatted; it is left as it is")
    return made, Formatted(path, _line_numbers(before.text, [edit.start for edit in edits]))


def _line_numbers(text: str, places: Iterable[int]) -> tuple[int, ...]:
    """The lines that these places are in, which come in their order; from 1, each once."""
    numbers: dict[int, None] = {}
    line, done = 1, 0
    for place in places:
        line += text.count("\n", done, place)
        done = place
        numbers[line] = None
    return tuple(numbers)


# --- files ---


def replace(path: str, data: bytes) -> None:
    """
    Puts the text in the mapping's place, in one step; its mode stays. What a symbolic link points to is replaced.

    Raises OutputError.
    """
    from t2t.writers.atomic import output_error, replacing

    with replacing(path, len(data), lambda place: True, force=True) as temporary:
        temporary.write(data, 0)
        try:
            os.fchmod(temporary.fd, stat.S_IMODE(os.stat(path).st_mode))
        except OSError as error:
            raise output_error(path, error) from None


# --- in words ---


def lines(done: Sequence[Formatted]) -> list[str]:
    """What was formatted, for a person: problems first, then a line for each file that changed, and how many did."""
    changed = [one for one in done if one.lines]
    return [
        *(str(problem) for one in done for problem in one.problems),
        *(f"formatted {one.path}: {len(one.lines)} {'lines' if len(one.lines) > 1 else 'line'}" for one in changed),
        f"{len(changed)} of {len(done)} {'mappings' if len(done) > 1 else 'mapping'} formatted",
    ]


def as_json(done: Sequence[Formatted]) -> dict[str, Any]:
    """The same for a program."""
    return {
        "checked": [one.path for one in done],
        "formatted": {one.path: list(one.lines) for one in done if one.lines},
        "problems": [problem_json(problem) for one in done for problem in one.problems],
    }
