"""
How far the cells of neighbouring lines are padded, so that what follows them stands in one column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True, slots=True)
class Line:
    """The widths of a line's cells, in characters, its indentation in the first; and of what follows the last."""

    cells: tuple[int, ...]
    rest: int


def paddings(lines: Sequence[Line], *, most: int, limit: int) -> list[list[int]] | None:
    """
    The spaces to add behind each cell of each of these lines.

    All lines share their first column; in further ones, those that follow each other and have so many cells. None where
    a cell would get more than `most` spaces, or a line wider than `limit`: one long name must not spread out the lines
    around it.
    """
    padded: list[list[int]] = [[] for _ in lines]
    for column in range(max((len(line.cells) for line in lines), default=0)):
        having = [len(line.cells) > column for line in lines]
        for has_cell, group in groupby(range(len(lines)), having.__getitem__):
            numbers = list(group)
            if has_cell:
                widest = max(lines[number].cells[column] for number in numbers)
                for number in numbers:
                    padded[number].append(widest - lines[number].cells[column])
    is_bounded = all(padding <= most for paddings in padded for padding in paddings) and all(
        sum(line.cells) + sum(paddings) + line.rest <= limit
        for line, paddings in zip(lines, padded, strict=True)
        if any(paddings)
    )
    return padded if is_bounded else None
