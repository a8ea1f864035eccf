"""
Names: how they are shown, how an index makes many of one, which pattern matches which, what somebody may have meant.

Indices: `layer_<i>/kernel` is a name for each value of the letter i. `<2i-2>` is a sum, `<i:03>` has zeros in front,
`<_i>` is TensorFlow's uniquifier: nothing for 0, then _1, _2 ...; a word stands alone: `self/<part>`.

Globs: `*` stays inside one part of a name, `**` is zero or more whole parts. Parts are separated by `/` in variables
and by `.` in modules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

#: TensorFlow adds this to a variable's name in a graph, and a checkpoint doesn't store it.
OUTPUT_SUFFIX = ":0"

#: What TF2's object graph adds to each variable's name, and no name in a mapping has.
VALUE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"

#: The longest name with indices, in characters: TensorFlow's own are shorter.
MAX_NAME = 2**17

#: The most terms that one index adds up.
MAX_TERMS = 32

#: What a letter stands for.
Value = int | float | str

_PLACEHOLDER = re.compile(r"<([^<>]*)>")
_INDEX = re.compile(r"(?P<unique>_)?(?P<sum>[^:]*?)(?::0(?P<pad>[1-9]))?")
_SIGN = re.compile(r"\s*([+-])\s*")
_TERM = re.compile(r"([+-]?)(?:([0-9]{1,9})?([a-z]+)|([0-9]{1,9}))")

_DIGITS = re.compile("([0-9]+)")

#: A name longer than this is cut in messages.
SHOWN_LENGTH = 120


def shown(name: str) -> str:
    """The name as a message may hold it: one line, no control characters, at most 120 characters."""
    text = name
    if not name.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    return text if len(text) <= SHOWN_LENGTH else f"{text[: SHOWN_LENGTH - 3]}..."


class TemplateError(ValueError):
    """An index that cannot be read or filled. The text is one short cause; whoever knows the row adds the place."""

    def __init__(self, cause: str, hint: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Index:
    """One placeholder: the sum of `coefficient x letter` (a number has the letter ""), and how it is written."""

    text: str
    terms: tuple[tuple[int, str], ...]
    pad: int = 0
    unique: bool = False

    def filled(self, values: Mapping[str, Value]) -> str:
        """The text for these values. Raises TemplateError for a word in a sum, and for a negative sum."""
        (coefficient, letter), *more = self.terms
        if letter and coefficient == 1 and not more and not self.pad and not self.unique:
            return str(values[letter])
        total = 0
        for coefficient, letter in self.terms:
            value = values[letter] if letter else 1
            if not isinstance(value, int):
                raise TemplateError(
                    f"<{self.text}> is a sum, and {letter} stands for {shown(str(value))}", "use <letter>"
                )
            total += coefficient * value
        if total < 0:
            given = ", ".join(f"{letter} = {values[letter]}" for _, letter in self.terms if letter)
            where = f" where {given}" if given else ""
            raise TemplateError(f"<{self.text}> is {total}{where}", "an index is 0 or more")
        if self.unique:
            return f"_{total:0{self.pad}d}" if total else ""
        return f"{total:0{self.pad}d}"


@dataclass(frozen=True, slots=True)
class Template:
    """A name with indices in it: text and indices in turn; `letters` are those that its indices use."""

    parts: tuple[str | Index, ...]
    letters: frozenset[str] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        indices = (part for part in self.parts if isinstance(part, Index))
        letters = frozenset(letter for index in indices for _, letter in index.terms if letter)
        object.__setattr__(self, "letters", letters)  # asked for once for each name that it stands for

    def __str__(self) -> str:
        return "".join(part if isinstance(part, str) else f"<{part.text}>" for part in self.parts)

    def filled(self, values: Mapping[str, Value]) -> str:
        """The name for these values of its letters. Raises TemplateError."""
        return "".join([part if isinstance(part, str) else part.filled(values) for part in self.parts])

    def bound(self, values: Mapping[str, Template | float]) -> Template:
        """The template with some letters filled: by a number anywhere, by a text where the letter stands alone."""
        parts: list[str | Index] = []
        for part in self.parts:
            if isinstance(part, str) or not any(letter in values for _, letter in part.terms):
                parts.append(part)
                continue
            alone = values.get(part.terms[0][1]) if part == Index(part.text, ((1, part.terms[0][1]),)) else None
            if alone is not None and not isinstance(alone, int):
                parts += alone.parts if isinstance(alone, Template) else [repr(alone)]
                continue
            terms = []
            for coefficient, letter in part.terms:
                value = values.get(letter)
                if value is not None and not isinstance(value, int):
                    raise TemplateError(f"<{part.text}> is a sum, and {letter} stands for {value}", "use <letter>")
                terms.append((coefficient, letter) if value is None else (coefficient * value, ""))
            index = Index(part.text, tuple(terms), part.pad, part.unique)
            parts.append(index if any(letter for _, letter in terms) else index.filled({}))
            if len(parts) > MAX_NAME:
                raise TemplateError(f"a name has more than {MAX_NAME} parts, once its letters are filled")
        return Template(tuple(parts))

    def joined(self, other: Template, separator: str) -> Template:
        """The name of something below this one; an empty name adds nothing."""
        if not self.parts or not other.parts:
            return Template(self.parts or other.parts)
        return Template((*self.parts, separator, *other.parts))


@lru_cache(maxsize=4096)
def template(text: str) -> Template:
    """The name with its indices. Raises TemplateError for an index that cannot be read."""
    parts: list[str | Index] = []
    at = 0
    if len(text) > MAX_NAME:
        raise TemplateError(f"{shown(text)} has {len(text)} characters, at most {MAX_NAME} are read")
    for match in _PLACEHOLDER.finditer(text):
        parts += [text[at : match.start()], _index(match[1])]
        at = match.end()
    parts.append(text[at:])
    if any(isinstance(part, str) and "<" in part for part in parts):
        raise TemplateError(f"{shown(text)} opens a < that it does not close", "an index is written <i>")
    return Template(tuple(part for part in parts if part != ""))


def _index(text: str) -> Index:
    match = _INDEX.fullmatch(text)
    terms: list[tuple[int, str]] = []
    at, total = 0, _SIGN.sub(r"\1", match["sum"].strip()) if match else ""
    while at < len(total) and (term := _TERM.match(total, at)) and (term[1] or at == 0):
        sign = -1 if term[1] == "-" else 1
        terms.append((sign * int(term[2] or 1), term[3]) if term[3] else (sign * int(term[4]), ""))
        at = term.end()
    if match is None or not 0 < len(terms) <= MAX_TERMS or at < len(total):
        hint = "an index is a sum of letters and numbers, <i>, <2i-2>, <q+3b+c>; <i:03> and <_i> are forms of it"
        raise TemplateError(f"<{shown(text)}> is not an index", hint)
    return Index(text, tuple(terms), int(match["pad"] or 0), bool(match["unique"]))


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
    if "*" not in pattern:
        return pattern == name
    return _compiled(pattern, separator).fullmatch(name + separator) is not None


@lru_cache(maxsize=2**14)
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
