"""
Names: how they are shown, which pattern matches which, and what somebody may have meant.

Globs: `*` stays inside one part of a name, `**` is zero or more whole parts. Parts are separated by `/` in variables
and by `.` in modules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

#: TensorFlow adds this to a variable's name in a graph, and a checkpoint doesn't store it.
OUTPUT_SUFFIX = ":0"

#: What TF2's object graph adds to each variable's name, and no name in a mapping has.
VALUE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"

_DIGITS = re.compile("([0-9]+)")

#: A name longer than this is cut in messages.
SHOWN_LENGTH = 120


def shown(name: str) -> str:
    """The name as a message may hold it: one line, no control characters, at most 120 characters."""
    text = name
    if not name.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    return text if len(text) <= SHOWN_LENGTH else f"{text[: SHOWN_LENGTH - 3]}..."


def nearest(name: str, candidates: Iterable[str], count: int = 3) -> list[str]:
    """Up to `count` candidates that look like `name`, the nearest first; none when nothing is close."""
    import difflib  # only where something is wrong

    return difflib.get_close_matches(name, sorted(candidates), n=count, cutoff=0.6)


def did_you_mean(name: str, candidates: Iterable[str], count: int = 3) -> str:
    """`did you mean a, b`, or "" when nothing is close: a hint."""
    return proposing(nearest(name, candidates, count))


def proposing(close: Sequence[str]) -> str:
    """The same hint from the near names themselves."""
    return f"did you mean {', '.join(shown(candidate) for candidate in close)}" if close else ""


def natural(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """A key to sort names by: digits count as the number that they are, however many there are."""
    parts: list[str | tuple[int, str]] = list(_DIGITS.split(name))
    for i in range(1, len(parts), 2):
        digits = str(parts[i]).lstrip("0")
        parts[i] = len(digits), digits
    return parts, name


def matches(pattern: str, name: str, separator: str = "/") -> bool:
    """Whether the glob matches the whole name."""
    return _compiled(pattern, separator).fullmatch(name + separator) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str, separator: str) -> re.Pattern[str]:
    """
    The glob as an expression for the name with a separator after each of its parts.

    Each star but the last takes as little as it can and never comes back for more (an atomic group): what follows it
    fits as early as anywhere, so no pattern from a file makes the search explode.
    """
    end = re.escape(separator)
    one = f"[^{end}]"
    runs: list[str] = [""]  # the parts between one `**` and the next
    for part in pattern.split(separator):
        if part == "**":
            runs.append("")
        else:
            runs[-1] += _starred([re.escape(piece) for piece in part.split("*")], f"{one}*") + end
    return re.compile(_starred(runs, f"(?:{one}*{end})*"), re.DOTALL)


def _starred(pieces: Sequence[str], anything: str) -> str:
    """The pieces with `anything` between them; the last piece must be followed by what ends the whole."""
    first, *between = pieces
    if not between:
        return first
    return first + "".join(f"(?>{anything}?{piece})" for piece in between[:-1]) + anything + between[-1]
