"""
Names: how they are shown, which pattern matches which, and what somebody may have meant.

Globs: `*` stays inside one part of a name, `**` is zero or more whole parts. Parts are separated by `/` in variables
and by `.` in modules.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from functools import lru_cache

#: TensorFlow adds this to a variable's name in a graph, and a checkpoint doesn't store it.
OUTPUT_SUFFIX = ":0"

#: A name longer than this is cut in messages.
SHOWN_LENGTH = 120


def shown(name: str) -> str:
    """The name as a message may hold it: one line, no control characters, at most 120 characters."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    return text if len(text) <= SHOWN_LENGTH else f"{text[: SHOWN_LENGTH - 3]}..."


def nearest(name: str, candidates: Iterable[str], count: int = 3) -> list[str]:
    """Up to `count` candidates that look like `name`, the nearest first; none when nothing is close."""
    return difflib.get_close_matches(name, sorted(candidates), n=count, cutoff=0.6)


def did_you_mean(name: str, candidates: Iterable[str], count: int = 3) -> str:
    """`did you mean a, b`, or "" when nothing is close: a hint."""
    close = nearest(name, candidates, count)
    return f"did you mean {', '.join(shown(candidate) for candidate in close)}" if close else ""


def matches(pattern: str, name: str, separator: str = "/") -> bool:
    """Whether the glob matches the whole name."""
    return _compiled(pattern, separator).fullmatch(name) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str, separator: str) -> re.Pattern[str]:
    # Zero or more whole parts: a `**` takes one of its separators with it: `a/**` matches `a`, `**/b` matches `b`.
    inside = f"[^{re.escape(separator)}]*"
    parts = pattern.split(separator)
    expression = ""
    for index, part in enumerate(parts):
        first, last = index == 0, index == len(parts) - 1
        if part == "**":
            if first and last:
                expression += ".*"
            elif first:
                expression += f"(?:.*{re.escape(separator)})?"
            else:
                expression += f"(?:{re.escape(separator)}.*)?"
        else:
            previous_took_it = index == 1 and parts[0] == "**"
            if not first and not previous_took_it:
                expression += re.escape(separator)
            expression += inside.join(re.escape(piece) for piece in part.split("*"))
    return re.compile(expression, re.DOTALL)
