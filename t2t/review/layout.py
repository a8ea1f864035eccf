"""
A mapping's text as the tokens that can be seen in it, with where each of them is to begin; and what lies between them.

Block collections are indented by two columns, lists under a key by none:

    recipes:
      conv:
      - {tf: weights, torch: weight}

Whatever goes on in further lines (flow collections, text) moves with the collection that it stands in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import yaml

#: The lists whose entries are rows; under `recipes` each key has one.
_LISTS = ("map", "ignore", "drop", "require")

_KINDS: dict[type[yaml.Token], str] = {
    yaml.BlockEntryToken: "-",
    yaml.KeyToken: "?",
    yaml.ValueToken: ":",
    yaml.FlowEntryToken: ",",
    yaml.FlowMappingStartToken: "{",
    yaml.FlowMappingEndToken: "}",
    yaml.FlowSequenceStartToken: "[",
    yaml.FlowSequenceEndToken: "]",
    yaml.ScalarToken: "text",
}
OPENING = frozenset("{[")
CLOSING = frozenset("}]")
BLOCK_STYLES = frozenset("|>")

_NEWLINE = re.compile(r"(\r?\n)")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class Token:
    """
    A token from `start` up to `end` of the text, which begins in `column` now.

    `kind` is the character that it is, "text" for a scalar, "mark" for the rest (`---`, `...`, `%YAML`). With
    `is_first` it begins a line, and is to do so in column `indent`; `shift` is how far its own further lines move, but
    not left of `floor`. With `is_row` it is a dash, and a row follows. `lead` and `trail` are written right before and
    behind it.
    """

    kind: str
    start: int
    end: int
    column: int
    is_first: bool
    indent: int = 0
    shift: int = 0
    floor: int = 0
    is_key: bool = False
    is_row: bool = False
    is_in_flow: bool = False
    style: str = ""
    value: str = ""
    lead: str = ""
    trail: str = ""


@dataclass(frozen=True, slots=True)
class Gap:
    """
    What lies between two tokens of different lines: what follows the first one in its line, and further lines.

    `parts` are the pieces of the lines: a comment or nothing. `indents` says in which column each of them is to begin;
    `newlines[n]` stands between piece n and the next. With `is_whole` the first piece begins a line, too.
    """

    start: int
    end: int
    parts: tuple[str, ...]
    indents: tuple[int, ...]
    newlines: tuple[str, ...]
    is_whole: bool

    @property
    def comment(self) -> str:
        """The comment at the end of the line that the token before stands in; "" where there is none."""
        return "" if self.is_whole else self.parts[0]

    @property
    def is_plain(self) -> bool:
        """Whether it is one line break and nothing else: no comment, no blank line."""
        return len(self.parts) == 2 and not self.is_whole and not any(self.parts)


@dataclass(slots=True)
class _Block:
    """A block collection: the column of its keys or dashes now, and where it is to be; the key that is being read."""

    old: int
    new: int
    is_list: bool
    key: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """
    The tokens of a text, and the gaps before those that begin a line, by the token's number. The last gap is the one
    before the text's end.
    """

    text: str
    tokens: list[Token]
    gaps: dict[int, Gap]

    def source(self, number: int) -> str:
        """A token as it is written."""
        token = self.tokens[number]
        return self.text[token.start : token.end]

    def comments(self) -> list[str]:
        """All comments, in their order."""
        return [part for gap in self.gaps.values() for part in gap.parts if part]

    def said(self) -> list[tuple[str, str]]:
        """Every scalar: how it is quoted, and what it says."""
        return [(token.style, token.value) for token in self.tokens if token.kind == "text"]


def read(text: str) -> Layout:
    """The layout of a text in which `document.parse` finds no problem of syntax: that bounds its depth and its size."""
    layout = Layout(text, [], {})
    tokens = layout.tokens
    closed: list[_Block] = []
    for token in _tokens(text, tokens, closed):
        if token.is_first:
            start = tokens[-1].end if tokens else 0
            layout.gaps[len(tokens)] = _gap(text, start, token, closed)
        closed.clear()
        tokens.append(token)
    layout.gaps[len(tokens)] = _gap(text, tokens[-1].end, None, closed)
    return layout


def _tokens(text: str, seen: Sequence[Token], closed: list[_Block]) -> Iterator[Token]:
    """Each token after those that are seen already; the block collections that end before it are added to `closed`."""
    blocks: list[_Block] = []
    depth = 0
    line = -1
    is_key = False
    for token in yaml.scan(text, Loader=_LOADER):
        start, end = token.start_mark, token.end_mark
        if isinstance(token, yaml.BlockMappingStartToken | yaml.BlockSequenceStartToken):
            is_list = isinstance(token, yaml.BlockSequenceStartToken)
            blocks.append(_Block(start.column, _column(blocks, seen, is_list, start.line == line), is_list))
        elif isinstance(token, yaml.BlockEndToken):
            closed.append(blocks.pop())
        elif start.index == end.index:  # of the tokens that cannot be seen, one says that a key follows
            is_key = isinstance(token, yaml.KeyToken)
        else:
            kind = _KINDS.get(type(token), "mark")
            depth -= kind in CLOSING
            is_first = start.line != line or text[seen[-1].end - 1] == "\n"
            made = Token(kind, start.index, end.index, start.column, is_first, is_key=is_key)
            _place(made, blocks, depth)
            if isinstance(token, yaml.ScalarToken):
                made.style, made.value = token.style or "", token.value
                if is_key and not depth:
                    blocks[-1].key = token.value
            yield made
            depth += kind in OPENING
            is_key = False
            line = end.line


def _column(blocks: Sequence[_Block], seen: Sequence[Token], is_list: bool, is_same_line: bool) -> int:
    """Where the keys or the dashes of a block collection are to stand."""
    if not blocks:
        return 0
    is_under_key = is_list and seen[-1].kind == ":" and not is_same_line
    return blocks[-1].new + (0 if is_under_key else 2)


def _place(token: Token, blocks: Sequence[_Block], depth: int) -> None:
    """Says where a token is to begin if it is the first of its line, and by how much it moves."""
    token.is_in_flow = depth > 0 or token.kind in CLOSING
    if not blocks:
        token.indent = token.column if token.is_in_flow else 0
        return
    block = blocks[-1]
    token.shift = block.new - block.old
    token.floor = block.new + 1
    if token.is_in_flow:
        token.indent = max(token.column + token.shift, block.new + (0 if token.kind in CLOSING else 2))
    elif token.kind in {"-", "?", ":"} or token.is_key:
        token.indent = block.new
        token.is_row = token.kind == "-" and _are_rows(blocks)
    else:
        token.indent = block.new + 2


def _are_rows(blocks: Sequence[_Block]) -> bool:
    """Whether the entries of the list that these collections lead to are rows."""
    keys = [block.key for block in blocks if not block.is_list]
    return (len(keys) == 1 and keys[0] in _LISTS) or (len(keys) == 2 and keys[0] == "recipes")


def _gap(text: str, start: int, after: Token | None, blocks: Sequence[_Block]) -> Gap:
    """The gap that ends where `after` begins; a comment in it may belong to each of the blocks."""
    end = after.start if after else len(text)
    pieces = _NEWLINE.split(text[start:end])
    parts = [piece.strip(" \t") for piece in pieces[::2]]
    is_whole = not start or text[start - 1] == "\n"
    indents = [_comment_column(piece, after, blocks) if piece.strip(" \t") else 0 for piece in pieces[::2]]
    if after:
        indents[-1] = after.indent
    return Gap(start, end, tuple(parts), tuple(indents), tuple(pieces[1::2]), is_whole)


def _comment_column(piece: str, after: Token | None, blocks: Sequence[_Block]) -> int:
    """
    Where a comment that stands alone in its line is to begin: with the token that it stands before; or, where it stands
    deeper than that, with the innermost collection that has just ended and is not deeper than the comment.
    """
    column = piece.index("#")
    if after and after.is_in_flow:
        return max(column + after.shift, after.floor)
    ended = [block for block in blocks if (after is None or block.old > after.column) and block.old <= column]
    if ended:
        return max(ended, key=lambda block: block.old).new
    return after.indent if after else 0
