"""
Changes to spans of a text: what no edit names stays as it is, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Edit:
    """`text` instead of the characters from `start` up to `end`, which count from 0; start == end inserts."""

    start: int
    end: int
    text: str


def apply(text: str, edits: Iterable[Edit]) -> str:
    """
    The text with all edits made, whose places are those in `text`, whatever their order.

    Raises ValueError where two edits overlap or insert at one place, and where one lies outside the text: what is meant
    is then not known.
    """
    parts: list[str] = []
    done = 0
    before: Edit | None = None
    for edit in sorted(edits):
        if not 0 <= edit.start <= edit.end <= len(text):
            raise ValueError(f"edit {edit.start}:{edit.end} lies outside a text of {len(text)} characters")
        if before is not None and (edit.start < before.end or edit.start == before.start):
            raise ValueError(f"edits {before.start}:{before.end} and {edit.start}:{edit.end} overlap")
        parts += [text[done : edit.start], edit.text]
        done = edit.end
        before = edit
    return "".join([*parts, text[done:]])
