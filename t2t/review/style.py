"""
How a mapping is written: one row a line, the names of neighbouring rows in columns, comments below each other.

A run is aligned as a whole or not at all. It ends at a blank line, at a comment, at a row with other first keys, and
where a row that stands for many, by an index in its names, follows one that stands for one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from t2t.review import columns
from t2t.review.columns import Line
from t2t.review.edits import Edit
from t2t.review.layout import BLOCK_STYLES, CLOSING, OPENING, Layout, Token

#: The widest line that is made by joining lines or by padding, in characters.
LIMIT = 120

#: The most spaces that a cell of a row is padded with.
MOST_PADDING = 24

#: The same before a comment at the end of a line; and the spaces that stand there anyway.
MOST_COMMENT_PADDING = 40
COMMENT_GAP = 3

#: In flow style a plain scalar ends at these, or may.
_ENDS_PLAIN = frozenset(",[]{}?")


def edits(read: Layout) -> Iterator[Edit]:
    """What has to change in the text, in its order. The layout is used up."""
    rows = [row for number, token in enumerate(read.tokens) if token.is_row and (row := _row(read, number))]
    padded = _aligned_rows(read, rows)
    padded |= _aligned_comments(read, padded)
    for number in range(len(read.tokens) + 1):
        before = read.tokens[number - 1] if number else None
        after = read.tokens[number] if number < len(read.tokens) else None
        start, end = before.end if before else 0, after.start if after else len(read.text)
        if before and after and not after.is_first:
            made = before.trail + _space(read, number) + " " * padded.get(number, 0) + after.lead
        else:
            made = (before.trail if before else "") + _lines(read, number, padded.get(number, 0))
        yield from _edit(read.text, start, end, made)
        if after and after.shift and "\n" in read.source(number):
            yield from _shifts(read, number)


def _edit(text: str, start: int, end: int, made: str) -> Iterator[Edit]:
    """The edit that makes `made` of a span, less what it begins and ends with already; none where it is the same."""
    old = text[start:end]
    if made != old:
        same = _same(old, made)
        same_end = _same(old[same:][::-1], made[same:][::-1])
        yield Edit(start + same, end - same_end, made[same : len(made) - same_end])


def _same(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _space(read: Layout, number: int) -> str:
    """What stands between a token and the one before it in the same line."""
    before, after = read.tokens[number - 1], read.tokens[number]
    if before.trail or before.kind == "-":
        return " "
    if after.kind == ":" and before.is_key:
        return ""
    if "?" in {before.kind, after.kind} or "mark" in {before.kind, after.kind} or after.kind == ":":
        return read.text[before.end : after.start]  # rare enough to stay as it is
    is_end = after.kind == "," or after.kind in CLOSING
    if before.kind == ":":
        return " "
    if before.kind == ",":
        return "" if is_end else " "
    if is_end or before.kind in OPENING:
        return ""
    return read.text[before.end : after.start]


def _lines(read: Layout, number: int, padding: int) -> str:
    """A gap with line breaks: what stands in it stays, blank lines are empty, and the text ends with a line break."""
    gap, is_end = read.gaps[number], number == len(read.tokens)
    made: list[str] = []
    last = len(gap.parts) - 1
    for part_number, (part, indent) in enumerate(zip(gap.parts, gap.indents, strict=True)):
        if part_number:
            made.append(gap.newlines[part_number - 1])
        if not part_number and not gap.is_whole:
            made.append(" " * (COMMENT_GAP + padding) + part if part else "")
        elif part or (part_number == last and not is_end):
            made.append(" " * indent + part)
    # Behind a block scalar that ends without a line break, one would become a part of it.
    is_scalar = read.tokens[number - 1].style in BLOCK_STYLES and not gap.parts[0]
    if is_end and (gap.parts[-1] or (not last and not gap.is_whole)) and not is_scalar:
        made.append("\r\n" if "\r\n" in read.text else "\n")
    return "".join(made)


def _shifts(read: Layout, number: int) -> Iterator[Edit]:
    """Moves the further lines of a text that has more than one."""
    token = read.tokens[number]
    is_block = token.style in BLOCK_STYLES
    place = read.text.index("\n", token.start) + 1
    while place < token.end:
        end = read.text.find("\n", place, token.end)
        end = token.end if end < 0 else end
        line = read.text[place:end]
        spaces = len(line) - len(line.lstrip(" "))
        if line.strip("\r"):
            least = 0 if is_block else min(spaces, token.floor)
            yield from _edit(read.text, place, place + spaces, " " * max(spaces + token.shift, least))
        place = end + 1


# --- rows ---


@dataclass(frozen=True, slots=True)
class _Row:
    """A row in one line, from its dash to its last token; `keys` are the tokens that its cells begin with."""

    first: int
    last: int
    keys: tuple[int, ...]


def _row(read: Layout, dash: int) -> _Row | None:
    """The row that begins with this dash, joined into one line where it may be; None where it has several."""
    tokens = read.tokens
    if dash + 1 == len(tokens) or tokens[dash + 1].column <= tokens[dash].column:
        return None  # nothing
    is_flow = tokens[dash + 1].kind == "{"
    keys, last = _flow_row(tokens, dash + 1) if is_flow else _block_row(read, dash + 1)
    if not keys or any("\n" in read.source(number) for number in range(dash, last + 1)):
        return None
    if any(token.is_first for token in tokens[dash + 1 : last + 1]) and not _join(read, dash, keys, last, is_flow):
        return None
    return _Row(dash, last, keys)


def _flow_row(tokens: Sequence[Token], first: int) -> tuple[tuple[int, ...], int]:
    """The keys of a row in flow style, and its last token."""
    keys: list[int] = []
    depth = 0
    for number in range(first, len(tokens)):
        token = tokens[number]
        depth += (token.kind in OPENING) - (token.kind in CLOSING)
        if depth == 1 and token.is_key:
            keys.append(number)
        if not depth:
            return tuple(keys), number
    raise AssertionError("a collection without an end")


def _block_row(read: Layout, first: int) -> tuple[tuple[int, ...], int]:
    """The keys of a row in block style, and its last token; no keys where it cannot be written in flow style."""
    tokens = read.tokens
    keys: list[int] = []
    number = first
    while number < len(tokens) and tokens[number].is_key and tokens[number].column == tokens[first].column:
        value = number + 2
        if value >= len(tokens) or tokens[value].is_key or tokens[value].kind not in {"text", *OPENING}:
            return (), first
        if not all(_may_flow(tokens[part], read.source(part)) for part in (number, value)):
            return (), first
        keys.append(number)
        number = (_flow_row(tokens, value)[1] if tokens[value].kind in OPENING else value) + 1
    if number < len(tokens) and tokens[number].column >= tokens[first].column:
        return (), first  # something that is no key and value
    return tuple(keys), number - 1


def _may_flow(token: Token, source: str) -> bool:
    """Whether a token of block style says the same in flow style."""
    if token.kind != "text" or token.style in {"'", '"'}:
        return "\n" not in source
    return not token.style and "\n" not in source and source[0] != ":" and _ENDS_PLAIN.isdisjoint(source)


def _join(read: Layout, dash: int, keys: tuple[int, ...], last: int, is_flow: bool) -> bool:
    """Joins a row's lines, if it then fits in one and nothing else stands between them."""
    inside = range(dash + 1, last + 1)
    firsts = [number for number in inside if read.tokens[number].is_first]
    if not all(read.gaps[number].is_plain for number in firsts):
        return False
    if any(read.tokens[n].kind in {"?", ":"} and not read.tokens[n - 1].is_key for n in inside):
        return False  # a key of more than one line
    for number in firsts:
        read.tokens[number].is_first = False
    if not is_flow:
        read.tokens[keys[0]].lead = "{"
        for key in keys[1:]:
            read.tokens[key - 1].trail = ","
        read.tokens[last].trail = "}"
    if sum(_widths(read, _Row(dash, last, keys))) <= LIMIT:
        if not is_flow:
            _move_comments(read, last + 1, read.tokens[keys[0]].indent, read.tokens[dash].indent)
        return True
    for number in firsts:
        read.tokens[number].is_first = True
    if not is_flow:
        for number in (*keys, last):
            read.tokens[number].lead = read.tokens[number].trail = read.tokens[number - 1].trail = ""
    return False


def _move_comments(read: Layout, number: int, old: int, new: int) -> None:
    """Comments behind a row that stood below its keys, which are no column any more, stand below its dash."""
    gap = read.gaps[number]
    read.gaps[number] = replace(gap, indents=tuple(new if indent == old else indent for indent in gap.indents))


def _widths(read: Layout, row: _Row) -> list[int]:
    """The widths of a row's cells, each with the comma and the space behind it, its indentation in the first."""
    starts = set(row.keys[1:])
    widths = [read.tokens[row.first].indent + 1]
    for number in range(row.first + 1, row.last + 1):
        token = read.tokens[number]
        widths[-1] += len(_space(read, number))
        if number in starts:
            widths.append(0)
        widths[-1] += len(token.lead) + _width(read.source(number)) + len(token.trail)
    return widths


def _aligned_rows(read: Layout, rows: Sequence[_Row]) -> dict[int, int]:
    """The spaces to add before tokens of rows."""
    padded: dict[int, int] = {}
    for run in _runs(read, rows):
        if (paddings := _paddings(read, run)) is not None:
            padded |= paddings
            continue
        # Where not all go together, those may that have all their keys in common.
        for _, group in groupby(run, lambda row: _keys(read, row)):
            padded |= _paddings(read, list(group)) or {}
    return padded


def _paddings(read: Layout, run: Sequence[_Row]) -> dict[int, int] | None:
    """The spaces that align these rows, None where they would need too many."""
    lines = []
    for row in run:
        count = _columns(read, row)
        widths = _widths(read, row)
        lines.append(Line(tuple(widths[:count]), sum(widths[count:])))
    padded = columns.paddings(lines, most=MOST_PADDING, limit=LIMIT)
    if padded is None:
        return None
    return {key: add for row, adds in zip(run, padded, strict=True) for key, add in zip(row.keys[1:], adds)}  # noqa: B905


def _columns(read: Layout, row: _Row) -> int:
    """How many cells of a row may be padded: its names, as far as something follows them that is not a sentence."""
    return min(2, len([key for key in row.keys[1:] if read.tokens[key].value != "why"]))


def _runs(read: Layout, rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    """Rows that follow each other, begin with the same two keys, and have all indices in their names or all none."""
    run: list[_Row] = []
    for row in rows:
        if run and (_kind(read, run[-1]) != _kind(read, row) or not _are_neighbours(read, run[-1], row)):
            yield run
            run = []
        run.append(row)
    if run:
        yield run


def _kind(read: Layout, row: _Row) -> tuple[list[str], bool]:
    """The first two keys, and whether an index stands in their values."""
    end = row.keys[2] if len(row.keys) > 2 else row.last
    names = read.text[read.tokens[row.first].start : read.tokens[end].end]
    return _keys(read, row)[:2], "<" in names


def _keys(read: Layout, row: _Row) -> list[str]:
    return [read.tokens[key].value for key in row.keys]


def _are_neighbours(read: Layout, one: _Row, other: _Row) -> bool:
    """Whether one row stands in the line above the other's; a comment at its end may stand between them."""
    return other.first == one.last + 1 and len(read.gaps[other.first].parts) == 2


# --- comments at the ends of lines ---


def _aligned_comments(read: Layout, padded: dict[int, int]) -> dict[int, int]:
    """The spaces to add before comments that stand behind something; `padded` is what is added within lines."""
    found: list[tuple[int, int, int]] = []  # the gap, its line, how wide the line is without the comment
    line = width = 0
    for number, token in enumerate(read.tokens):
        if token.is_first:
            gap = read.gaps[number]
            if gap.comment:
                found.append((number, line, width))
            line += len(gap.newlines)
            width = token.indent
        else:
            width += len(_space(read, number)) + padded.get(number, 0)
        source = read.source(number)
        if "\n" in source:
            line += source.count("\n")
            width = token.shift
            source = source[source.rindex("\n") + 1 :]
        width += len(token.lead) + _width(source) + len(token.trail)
    if read.gaps[len(read.tokens)].comment:
        found.append((len(read.tokens), line, width))
    added: dict[int, int] = {}
    for _, group in groupby(enumerate(found), lambda entry: entry[1][1] - entry[0]):  # lines that follow each other
        run = [entry for _, entry in group]
        lines = [Line((width + COMMENT_GAP,), _width(read.gaps[number].comment)) for number, _, width in run]
        paddings = columns.paddings(lines, most=MOST_COMMENT_PADDING, limit=LIMIT)
        if paddings is not None:
            added |= {number: padding for (number, _, _), (padding,) in zip(run, paddings, strict=True)}
    return added


def _width(text: str) -> int:
    """In how many columns a terminal shows it."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in {"W", "F"} for character in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))
