"""
What `for` declares: letters, each with its values, and tables, whose letters run together.

    for: {i: 0..11, p: [query, key], s n: [[1, 0..2], [2, 0..3]]}
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

from t2t.document import Document
from t2t.names import TemplateError, Value, did_you_mean, shown
from t2t.problems import Location, Problem

#: More rules, and values of letters, than the largest published models have variables, by a factor of ten.
MAX_RULES = 200_000


class Letters:
    """What `for` declares: each letter with its values, each table with its rows. Remembers which of them were used."""

    def __init__(self, document: Document) -> None:
        self.problems: list[Problem] = []
        self._tables: list[tuple[tuple[str, ...], list[tuple[Value, ...]]]] = []
        self._owner: dict[str, int] = {}
        self._places: dict[str, Location] = {}
        self._used: set[str] = set()
        self._count = 0
        self._fitting: dict[
            tuple[int, frozenset[str], frozenset[str]], dict[tuple[Value, ...], dict[tuple[Value, ...], None]]
        ] = {}
        self._projected: dict[tuple[int, frozenset[str]], list[tuple[Value, ...]]] = {}
        declared = document.tree.get("for", {})
        for key, given in (declared if isinstance(declared, dict) else {}).items():
            self._declare(key, given, document)

    def _declare(self, key: str, given: Any, document: Document) -> None:
        at = document.at_key("for", key)
        names = tuple(key.split(" "))
        for name in names:
            if name in self._owner or names.count(name) > 1:
                self.problems.append(Problem("T2T113", f"letter {shown(name)} is declared twice", at, "rename one"))
                return
        if ("for", key) in document.spoilt:
            rows: list[tuple[Value, ...]] = []
        else:
            try:
                rows = self._table(names, given) if len(names) > 1 else [(value,) for value in _values(given)]
                self._count += len(rows)
                if self._count > MAX_RULES:
                    raise TemplateError(f"letters have more than {MAX_RULES} values in all")
                if len(set(rows)) < len(rows):
                    (again, _), *_ = Counter(rows).most_common(1)
                    raise TemplateError(f"has {', '.join(map(str, again))} twice", "each value once")
            except TemplateError as error:
                place = document.at("for", key)
                self.problems.append(Problem("T2T113", f"for {shown(key)}: {error.cause}", place, error.hint))
                rows = []
        for name in names:
            self._owner[name] = len(self._tables)
            self._places[name] = at
        self._tables.append((names, rows))

    @staticmethod
    def _table(names: tuple[str, ...], given: Any) -> list[tuple[Value, ...]]:
        rows: list[tuple[Value, ...]] = []
        if not isinstance(given, list):
            raise TemplateError("a table is a list of rows", "for example [[1, 0..2], [2, 3..5]]")
        for number, row in enumerate(given):
            if not isinstance(row, list) or len(row) != len(names):
                has = f"{len(row)} cells" if isinstance(row, list) else "no cells"
                raise TemplateError(f"row {number} has {has}, but there are {len(names)} letters")
            cells = [_values(cell) if _is_many(cell) else None for cell in row]
            lengths = sorted({len(cell) for cell in cells if cell is not None})
            if len(lengths) > 1:
                raise TemplateError(f"row {number} has ranges of {lengths[0]} and {lengths[1]}", "they run together")
            for position in range(lengths[0] if lengths else 1):
                rows.append(
                    tuple(
                        _value(cell) if many is None else many[position] for cell, many in zip(row, cells, strict=True)
                    )
                )
        return rows

    def __contains__(self, letter: str) -> bool:
        return letter in self._owner

    def use(self, letters: Iterable[str]) -> None:
        """Notes that a row uses them."""
        self._used.update(letters)

    def count(self, letters: Iterable[str]) -> int:
        """How many values they have together."""
        return math.prod(len(self._rows(table, letters)) for table in self._of(letters))

    def values(self, letters: Iterable[str]) -> Iterator[dict[str, Value]]:
        """
        Every value of these letters, in the order of `for`. A table's letters go together, and count once: of one that
        has more letters than are used, rows that are the same in those are one.
        """
        tables = self._of(letters)
        names = [[name for name in self._tables[table][0] if name in letters] for table in tables]
        flat = [name for group in names for name in group]
        for rows in itertools.product(*(self._rows(table, letters) for table in tables)):
            yield dict(zip(flat, itertools.chain.from_iterable(rows), strict=True))

    def within(self, letters: Set[str], values: Mapping[str, Value]) -> Iterator[dict[str, Value]]:
        """The given values with every value of these letters beside them; of a table, those of its rows that fit."""
        fitting = []
        tables = self._of(letters)
        names = [[name for name in self._tables[table][0] if name in letters] for table in tables]
        for table, own in zip(tables, names, strict=True):
            fixed = [name for name in self._tables[table][0] if name in values]
            key = table, frozenset(own), frozenset(fixed)
            if key not in self._fitting:
                found: dict[tuple[Value, ...], dict[tuple[Value, ...], None]] = {}
                for row in self._tables[table][1]:
                    of = dict(zip(self._tables[table][0], row, strict=True))
                    of_fixed = tuple(of[name] for name in fixed)
                    found.setdefault(of_fixed, {})[tuple(of[name] for name in own)] = None
                self._fitting[key] = found
            fitting.append(self._fitting[key].get(tuple(values[name] for name in fixed), {}))
        flat = [name for group in names for name in group]
        for rows in itertools.product(*fitting):
            yield {**values, **dict(zip(flat, itertools.chain.from_iterable(rows), strict=True))}

    def apart(self, letters: Iterable[str], others: Iterable[str]) -> set[str]:
        """Those of `letters` that run with none of `others`: a table's letters run together."""
        tables = set(self._of(others))
        return {letter for letter in letters if self._owner[letter] not in tables}

    def _of(self, letters: Iterable[str]) -> list[int]:
        return sorted({self._owner[letter] for letter in letters})

    def _rows(self, table: int, letters: Iterable[str]) -> list[tuple[Value, ...]]:
        names, rows = self._tables[table]
        positions = [position for position, name in enumerate(names) if name in letters]
        if len(positions) == len(names):
            return rows
        key = table, frozenset(names[position] for position in positions)
        if key not in self._projected:
            distinct = dict.fromkeys(tuple(row[position] for position in positions) for row in rows)
            self._projected[key] = list(distinct)
        return self._projected[key]

    def unknown(self, letter: str) -> str:
        """A hint for a letter that is not declared."""
        return did_you_mean(letter, self._owner, 1) or f"write for: {{{letter}: 0..11}} or its values"

    def unused(self) -> list[Problem]:
        """A problem for each letter that nothing uses."""
        return [
            Problem("T2T113", f"letter {letter} is used by no row", at, "remove it from for")
            for letter, at in self._places.items()
            if letter not in self._used
        ]


def _is_many(cell: Any) -> bool:
    return isinstance(cell, list) or (isinstance(cell, str) and ".." in cell)


def _values(given: Any) -> list[Value]:
    """`0..11`, or a list of values and ranges. Raises TemplateError."""
    if isinstance(given, str):
        first, _, last = given.partition("..")
        if not (first.isascii() and first.isdigit() and last.isascii() and last.isdigit()) or len(first + last) > 18:
            raise TemplateError(f"'{shown(given)}' is not a range", "write 0..11, or a list of values")
        if int(last) < int(first):
            raise TemplateError(f"the range {given} is empty", "the end is included")
        if int(last) - int(first) >= MAX_RULES:
            raise TemplateError(f"the range {given} has more than {MAX_RULES} values")
        return list(range(int(first), int(last) + 1))
    if not isinstance(given, list) or not given:
        raise TemplateError("has no values", "write 0..11, or a list of values")
    found: list[Value] = []
    for value in given:
        found += _values(value) if isinstance(value, str) and ".." in value else [_value(value)]
        if len(found) > MAX_RULES:
            raise TemplateError(f"has more than {MAX_RULES} values")
    return found


def _value(value: Any) -> Value:
    if isinstance(value, bool) or not isinstance(value, int | str) or (isinstance(value, int) and value < 0):
        raise TemplateError(f"{shown(str(value))} is not a value", "a value is 0, 1, 2 ... or a word")
    if isinstance(value, str) and (not value or "<" in value):
        raise TemplateError(f"'{shown(value)}' is not a word")
    return value
