"""
Rows -> rules: recipes written out, indices filled, one `Rule` for each assignment.

    row                 {tf: "h<i>/mlp", torch: "h.<i>.mlp", use: dense}
    its recipe's rows   {tf: "h<i>/mlp/kernel", torch: "h.<i>.mlp.weight", axes: i o -> o i}, and the bias
    rules               one for each value of i, of each of them

A row that uses a recipe stands for the recipe's rows with the names joined, and is then expanded as any other row.
Everything here is known from the file alone.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from t2t import axes as notation
from t2t import document as yaml_text
from t2t.axes import Axes, AxesError
from t2t.boxes import Bounds, BoundsError, bounds
from t2t.document import Document, TreePath
from t2t.letters import MAX_RULES, Letters
from t2t.names import (
    OUTPUT_SUFFIX,
    VALUE_SUFFIX,
    Template,
    TemplateError,
    Value,
    did_you_mean,
    shown,
    template,
)
from t2t.problems import Location, Problem
from t2t.recipes import builtin
from t2t.rules import Lost, Rule

#: How many unknown letters and recipes get a proposal.
MAX_HINTS = 20

#: The characters of all names of one row, in all its rules.
MAX_TEXT = 2**28

#: How deep recipes may use recipes.
MAX_DEPTH = 4

_PLACEHOLDER = re.compile(r"<[^<>]*>?")

_NO_NAME = Template(())

_FIELDS = tuple(field.name for field in fields(Rule))


@dataclass(frozen=True, slots=True)
class _Row:
    """A row as it is written, its names still with indices. `made` holds what is the same in each of its rules."""

    made: Rule
    tf: tuple[Template, ...]
    torch: Template
    tie: Template | None = None
    slice: tuple[Template, ...] = ()
    into: tuple[Template, ...] = ()
    add: Mapping[str, Mapping[str, float | Template]] = field(default_factory=dict)
    scale: Template | None = None
    recipe: str | None = None
    values: Mapping[str, Template | float] = field(default_factory=dict)
    used: tuple[str, Template, Template] | None = None
    is_selecting: bool = True

    @property
    def letters(self) -> set[str]:
        """Every letter that it uses."""
        values = [value for value in self.values.values() if isinstance(value, Template)]
        numbers = [v for entries in self.add.values() for v in entries.values() if isinstance(v, Template)]
        names = [self.torch, *self.tf, *self.slice, *self.into, *values, *numbers]
        names += [name for name in (self.tie, self.scale) if name is not None]
        return set().union(*(name.letters for name in names))

    @property
    def distinguishing(self) -> set[str]:
        """The letters that tell its rules apart: those that are not only in names of variables."""
        numbers = [v for entries in self.add.values() for v in entries.values() if isinstance(v, Template)]
        others = [self.torch, *self.slice, *self.into, *numbers]
        others += [name for name in (self.tie, self.scale) if name is not None]
        return set().union(*(name.letters for name in others))


def read(document: Document, select: str = "") -> tuple[list[Rule], Lost, Letters, list[Problem]]:
    """
    The rules that the document's rows stand for, the names of those that have none, the letters of `for`, and what is
    wrong with any of them.
    """
    letters = Letters(document)
    reader = _Reader(document, letters, select)
    rules: list[Rule] = []
    for index, row in enumerate(document.tree["map"]):
        rules += reader.rules(row, ("map", index))
    reader.check_recipes_used()
    lost = Lost(tuple(dict.fromkeys(reader.lost_variables)), tuple(dict.fromkeys(reader.lost_parameters)))
    return rules, lost, letters, [*letters.problems, *reader.problems]


def named_slices(
    entry: Mapping[str, Any], document: Document, path: TreePath, letters: Letters
) -> tuple[list[tuple[str, tuple[Bounds, ...]]], list[Problem]]:
    """What an entry with `tf` and `slice` names, for every value of its letters."""
    at = document.at(*path, "tf")
    try:
        name, parts = template(entry["tf"]), [template(text) for text in entry["slice"]]
        used = set().union(name.letters, *(part.letters for part in parts))
        for letter in sorted(used):
            if letter not in letters:
                raise TemplateError(f"<{letter}> is not declared in for", letters.unknown(letter))
        letters.use(used)
        if letters.count(used) > MAX_RULES:
            message = f"the entry stands for more than {MAX_RULES} slices"
            return [], [Problem("T2T110", message, document.at(*path))]
        found = [
            (name.filled(values), tuple(bounds(part.filled(values)) for part in parts))
            for values in letters.values(used)
        ]
    except TemplateError as error:
        return [], [Problem("T2T111", error.cause, at, error.hint)]
    except BoundsError as error:
        return [], [Problem("T2T307", f"slice {error}", document.at(*path, "slice"), "for example slice: ['0:4']")]
    return found, []


def name_problems(name: str, at: Location) -> list[Problem]:
    """A suffix that names in a mapping don't have."""
    for suffix in (OUTPUT_SUFFIX, VALUE_SUFFIX):
        if name.endswith(suffix):
            bare = name.removesuffix(suffix)
            message = f"{shown(name)} ends in {suffix}, which names in a mapping don't"
            return [Problem("T2T109", message, at, f"write {shown(bare)}", fix=(name, bare))]
    return []


class _Reader:
    """Reads rows, those of recipes once each, and makes their rules."""

    def __init__(self, document: Document, letters: Letters, select: str) -> None:
        self.document = document
        self.letters = letters
        self.select = select
        self.problems: list[Problem] = []
        self.lost_variables: list[str] = []
        self.lost_parameters: list[str] = []
        own = document.tree.get("recipes", {})
        self._own: dict[str, Any] = own if isinstance(own, dict) else {}
        self._recipes: dict[str, list[_Row]] = {}
        self._told: set[tuple[str, Location, str]] = set()
        self._named: set[str] = set()
        self._named_axes: dict[tuple[str, int], set[str]] = {}
        self._names = 0
        self._is_over = False
        for name in self._own:
            if ("recipes", name) not in document.spoilt and name in builtin().tree["recipes"]:
                at = document.at_key("recipes", name)
                self._tell("T2T112", f"recipe {shown(name)} is built in", at, "give yours another name")

    def _tell(self, code: str, message: str, at: Location, hint: str = "") -> None:
        # A row with an index says the same of every value: the first is enough.
        if (code, at, message.partition(" where ")[0]) not in self._told:
            self._told.add((code, at, message.partition(" where ")[0]))
            self.problems.append(Problem(code, message, at, hint))

    def rules(self, row: Any, path: TreePath) -> list[Rule]:
        """The rules of one row of `map`."""
        read = self._row(row, path, self.document)
        made: list[Rule] = []
        self.letters.use(read.letters if read else ())  # a recipe that is not found doesn't make them stale
        is_lost = read is None
        for inlined in self._inlined(read, ()) if read else ():
            if self._is_over:
                break
            before = len(self.problems)
            found = list(self._expanded(inlined))
            is_lost |= len(self.problems) > before
            made += found
        if is_lost or not made:
            self._lose(row)
        return made

    def _lose(self, row: Any) -> None:
        """Notes what a row may have meant that has no rules, or not all of them."""
        if not isinstance(row, dict):
            return
        below = ("/**", ".**") if "use" in row else ("", "")
        names = row.get("tf", [])
        names = [name for name in (names if isinstance(names, list) else [names]) if isinstance(name, str)]
        self.lost_variables += [_PLACEHOLDER.sub("*", name) + self.select + below[0] for name in names]
        self.lost_variables += [_PLACEHOLDER.sub("*", name) for name in names if self.select]
        for key in ("torch", "tie"):
            if isinstance(row.get(key), str):
                self.lost_parameters.append(_PLACEHOLDER.sub("*", row[key]) + below[1])

    # --- reading ---

    def _row(self, row: Any, path: TreePath, document: Document) -> _Row | None:
        """The row as it is written; None where nothing can be done with it. What is wrong with it is told."""
        if not isinstance(row, dict) or not isinstance(row.get("torch"), str):
            return None
        at = document.at(*path)
        places = {key: document.at(*path, key) for key in row}
        before = len(self.problems)
        is_spoilt = path in document.spoilt
        names = row.get("tf", [])
        names = [name for name in (names if isinstance(names, list) else [names]) if isinstance(name, str)]
        for key, given in (("tf", names), ("torch", [row["torch"]]), ("tie", [row.get("tie")])):
            for name in given:
                if isinstance(name, str):
                    self.problems += name_problems(name, places[key])
                if name == "" and "use" not in row:  # there it adds nothing
                    self._tell("T2T106", f"{key}: expected some text, got ''", places[key])
        # A suffix is refused above; without it the name is looked up all the same, and not told a second time.
        tf = [
            self._template(name.removesuffix(OUTPUT_SUFFIX).removesuffix(VALUE_SUFFIX), places["tf"]) for name in names
        ]
        torch = self._template(row["torch"], places["torch"])
        tie = self._template(row["tie"], places["tie"]) if isinstance(row.get("tie"), str) else None
        same: dict[str, Any] = {}
        more: dict[str, Any] = {}
        if not is_spoilt:
            same, more = self._keys(row, Rule(target="", at=at, places=places))
        elif any(key.startswith("use") for key in row):
            return None
        if any(problem.code == "T2T111" for problem in self.problems[before:]):
            return None
        if row.get("select") == "none" and not self.select and not is_spoilt:
            message = "select: none, but source has no select"
            self._tell("T2T108", message, places["select"], "remove it")
        whole = not is_spoilt and len(self.problems) == before
        made = Rule(target="", at=at, places=places, is_whole=whole, **same)
        return _Row(made, tuple(tf), torch, tie, **more)

    def _keys(self, row: Mapping[str, Any], made: Rule) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the keys of a row say that the schema accepts: what is the same in all its rules, and what is not."""
        axes, order = self._axes(row, made), {}
        for axis, text in row.get("order", {}).items():
            try:
                order[axis] = notation.parse_order(text)
            except AxesError as error:
                self._tell(error.code, f"{shown(row['torch'])}: {error.cause}", made.place("order"), error.hint)
        add, scale = row.get("add"), row.get("scale")
        entries: dict[str, dict[str, float | Template]] = {}
        for axis, given in add.items() if isinstance(add, dict) else ():
            entries[axis] = {k: self._number_at(v, made, "add") for k, v in given.items()}
            known = order[axis].after if axis in order else ""
            for entry in given if axis in order or axis not in row.get("order", {}) else ():
                if entry not in known or not known:
                    message = f"{shown(row['torch'])}: add names the entry {shown(entry)} of {shown(axis)}"
                    has = f"whose order has {', '.join(known)}" if known else "which has no order"
                    hint = "write order too: it names the entries" if not known else "add one of these"
                    self._tell("T2T310", f"{message}, {has}", made.place("add"), hint)
        values = {
            letter: self._template(str(value), made.place("with")) if isinstance(value, str) else value
            for letter, value in row.get("with", {}).items()
        }
        same = {
            "axes": axes,
            "dims": row.get("dims", {}),
            "join": row.get("join"),
            "flip": tuple(row.get("flip", ())),
            "order": order,
            "scale": scale if not isinstance(scale, str) else None,
            "add": add if not isinstance(add, dict | str) else None,
            "dtype": row.get("dtype"),
            "reuse": row.get("reuse") is True,
            "optional": row.get("optional") is True,
            "fill": row.get("fill"),
            "keep": row.get("keep") == "init",
            "why": str(row.get("why", "")),
        }
        return same, {
            "slice": tuple(self._template(text, made.place("slice")) for text in row.get("slice", ())),
            "into": tuple(self._template(text, made.place("into")) for text in row.get("into", ())),
            "add": entries,
            "scale": self._number_at(scale, made, "scale") if isinstance(scale, str) else None,
            "recipe": row.get("use"),
            "values": values,
            "is_selecting": row.get("select") != "none",
        }

    def _number_at(self, value: float | str, made: Rule, key: str) -> Any:
        """A number, or the template of one; what is neither is told."""
        if not isinstance(value, str):
            return value
        read = self._template(value, made.place(key))
        if not read.letters:
            message = f"{key}: '{shown(value)}' is not a number"
            self._tell("T2T106", message, made.place(key), "write a number, or in a recipe the letter of one: <forget>")
            return Template(("1",))  # the row is not converted by it
        return read

    def _axes(self, row: Mapping[str, Any], made: Rule) -> tuple[Axes, ...]:
        try:
            if "permute" in row:
                return (notation.from_permutation(row["permute"]),)
            given = row.get("axes", [])
            axes = tuple(notation.parse(text) for text in (given if isinstance(given, list) else [given]))
            named = {name for step in axes for name in step.names}
            unknown = [name for name in row.get("dims", {}) if name not in named]
            if unknown and "use" not in row:
                text = f"dims name {shown(', '.join(unknown))}, which axes '{notation.shown_steps(axes)}' don't have"
                raise AxesError("T2T301", text)
            for one, other in itertools.pairwise(axes):
                if len(one.right) != len(other.left):
                    text = f"axes '{other}' are for rank {len(other.left)}"
                    text += f", but '{one}' before them give rank {len(one.right)}"
                    raise AxesError("T2T302", text, "a step names each axis that the one before it gives")
            if "join" in row and axes and (row["join"],) not in axes[0].left:
                text = f"join names {shown(row['join'])}, which is no axis of its own on the left of '{axes[0]}'"
                raise AxesError("T2T308", text, "join along one of the variable's axes")
        except AxesError as error:
            place = made.place("permute" if "permute" in row else "join" if error.code == "T2T308" else "axes")
            self._tell(error.code, f"{shown(row['torch'])}: {error.cause}", place, error.hint)
            return ()
        return axes

    def _template(self, text: str, at: Location) -> Template:
        try:
            return template(text)
        except TemplateError as error:
            self._tell("T2T111", error.cause, at, error.hint)
            return Template((text,))

    # --- recipes ---

    def _inlined(self, row: _Row, trail: tuple[str, ...]) -> Iterator[_Row]:
        """The row, or the rows of the recipe that it uses, with names joined and letters filled."""
        if row.recipe is None:
            yield row
            return
        at, name = row.made.place("use"), row.recipe
        if name in trail:
            cycle = " -> ".join(map(shown, (*trail[trail.index(name) :], name)))
            self._tell("T2T112", f"recipe {shown(name)} uses itself: {cycle}", at)
            return
        if len(trail) == MAX_DEPTH:
            self._named.add(name)
            self._tell("T2T112", f"recipes use recipes more than {MAX_DEPTH} deep: {' -> '.join((*trail, name))}", at)
            return
        rows = self._recipe(name, at)
        if rows is None or not self._has_letters(row, rows, name, at):
            return
        prefix = row.tf[0] if row.tf else _NO_NAME
        if not trail and row.made.dims:
            named = self._axis_names(name, at, MAX_DEPTH)
            for axis in row.made.dims:
                if axis not in named:
                    message = f"dims name {shown(axis)}, which recipe {shown(name)} doesn't have"
                    self._tell("T2T301", message, row.made.place("dims"))
        for inner in rows:
            try:
                yield from self._inlined(self._below(row, inner, prefix), (*trail, name))
            except TemplateError as error:
                self._tell("T2T112", f"recipe {shown(name)}: {error.cause}", row.made.place("with"), error.hint)

    def _recipe(self, name: str, at: Location) -> list[_Row] | None:
        self._named.add(name)
        if name not in self._recipes:
            is_own = name in self._own
            document = self.document if is_own else builtin()
            recipes = self._own if is_own else document.tree["recipes"]
            if name not in recipes:
                known = [*self._own, *recipes]
                hint = did_you_mean(name, known) if len(self.problems) < MAX_HINTS else ""
                hint = hint or "t2t recipes lists those that are built in"
                self._tell("T2T112", f"there is no recipe {shown(name)}", at, hint)
                return None
            given = recipes[name] if isinstance(recipes[name], list) else []
            read = [self._row(row, ("recipes", name, position), document) for position, row in enumerate(given)]
            self._recipes[name] = [row for row in read if row is not None]
        return self._recipes[name]

    def _axis_names(self, name: str, at: Location, depth: int) -> set[str]:
        """The axes that a recipe names, and the recipes that it uses."""
        if (name, depth) not in self._named_axes:
            rows = self._recipe(name, at) or []
            named = {axis for row in rows for step in row.made.axes for axis in step.names}
            for inner in dict.fromkeys(row.recipe for row in rows if row.recipe is not None and depth):
                named |= self._axis_names(inner, at, depth - 1)
            self._named_axes[name, depth] = named
        return self._named_axes[name, depth]

    def _has_letters(self, row: _Row, rows: Sequence[_Row], name: str, at: Location) -> bool:
        """Whether `with` gives what the recipe needs: a built-in one all its letters, one's own those not in `for`."""
        letters = set().union(*(inner.letters for inner in rows))
        needed = [
            x for x in sorted(letters) if x not in row.values and (name not in self._own or x not in self.letters)
        ]
        known = True
        if needed:
            example = ", ".join(f"{letter}: ..." for letter in needed)
            message = f"recipe {shown(name)} needs {', '.join(needed)}"
            self._tell("T2T112", message, row.made.place("with") if row.values else at, f"write with: {{{example}}}")
            known = False
        for letter in row.values:
            if letter not in letters:
                message = f"with gives {shown(letter)}, which recipe {shown(name)} doesn't have"
                has = f"it has {', '.join(sorted(letters))}" if letters else "it has no letters"
                self._tell("T2T112", message, row.made.place("with"), has)
        return known

    @staticmethod
    def _below(row: _Row, inner: _Row, prefix: Template) -> _Row:
        """A recipe's row, seen from the row that uses it."""
        values = row.values

        def number(value: float | Template) -> float | Template:
            return value.bound(values) if isinstance(value, Template) else value

        # The reader sees the file: a recipe's own places are no help, but for what it says of itself.
        own = inner.made
        places = {key: row.made.places.get(key, row.made.at) for key in ("torch", *own.places)}
        places |= {key: row.made.places[key] for key in ("with", "use", "reuse") if key in row.made.places}
        places["tf"] = row.made.place("tf")
        if "dims" in row.made.places:
            places["dims"] = row.made.places["dims"]
        named = {axis for step in own.axes for axis in step.names}
        dims = row.made.dims if inner.recipe is not None else {k: v for k, v in row.made.dims.items() if k in named}
        made = replace(
            own,
            at=row.made.at,
            places=places,
            dims={**own.dims, **dims},
            dtype=own.dtype or (row.made.dtype if inner.tf else None),
            reuse=own.reuse or (row.made.reuse and bool(inner.tf)),
            is_whole=own.is_whole and row.made.is_whole,
        )
        torch = row.torch.joined(inner.torch.bound(values), ".")
        return replace(
            inner,
            made=made,
            tf=tuple(prefix.joined(name.bound(values), "/") for name in inner.tf),
            torch=torch,
            tie=row.torch.joined(inner.tie.bound(values), ".") if inner.tie is not None else None,
            slice=tuple(part.bound(values) for part in inner.slice),
            into=tuple(part.bound(values) for part in inner.into),
            add={axis: {k: number(v) for k, v in entries.items()} for axis, entries in inner.add.items()},
            scale=inner.scale.bound(values) if inner.scale is not None else None,
            values={letter: number(value) for letter, value in inner.values.items()},
            used=row.used or (str(row.recipe), prefix, row.torch),
            is_selecting=inner.is_selecting and row.is_selecting,
        )

    def check_recipes_used(self) -> None:
        """A recipe of the file that no row uses is stale. Where a use went wrong, nobody knows which those are."""
        if any(code == "T2T112" for code, _, _ in self._told):
            return
        for name in self._own:
            if name not in self._named and ("recipes", name) not in self.document.spoilt:
                at = self.document.at_key("recipes", name)
                self._tell("T2T112", f"recipe {shown(name)} is used by no row", at, "remove it")

    # --- expansion ---

    def _expanded(self, row: _Row) -> Iterator[Rule]:
        """One rule for each value of the row's letters."""
        letters = row.letters
        unknown = sorted(letter for letter in letters if letter not in self.letters)
        self.letters.use(letters)
        for letter in unknown:
            message = f"<{letter}> is not declared in for"
            hint = self.letters.unknown(letter) if len(self.problems) < MAX_HINTS else ""
            self._tell("T2T111", message, self._place_of(letter, row), hint)
        if unknown:
            return
        apart = self.letters.apart(letters, row.distinguishing)
        joined = letters - row.distinguishing if row.made.join is not None else set()
        if apart and row.made.join is None:
            letter = min(apart)
            count = self.letters.count(apart)
            message = f"<{letter}> is only in tf: {count} variables for one parameter"
            hint = "use it in torch too, or write tf as a list with join"
            self._tell("T2T111", message, row.made.place("tf"), hint)
            return
        told_apart = letters - joined
        count = self.letters.count(told_apart)
        self._names += max(count, sum(self.letters.count(told_apart | name.letters) for name in row.tf))
        if self._names > MAX_RULES or count * len(str(row.torch)) > MAX_TEXT:
            if not self._is_over:
                self._is_over = True
                self._tell("T2T110", f"the rows stand for more than {MAX_RULES} names", row.made.at)
            return
        same = {name: getattr(row.made, name) for name in _FIELDS}
        for values in self.letters.values(told_apart):
            try:
                yield Rule(**{**same, **self._filled(row, values, joined)})
            except TemplateError as error:
                self._tell("T2T111", error.cause, self._place_of_error(row, values), error.hint)
                return
            except BoundsError as error:
                key = "into" if self._are_bounds(row.slice, values) else "slice"
                place = row.made.place("with") if row.used and "with" in row.made.places else row.made.place(key)
                self._tell("T2T307", f"{key} {error}", place, "for example ['0:4']")
                return

    def _filled(self, row: _Row, values: Mapping[str, Value], joined: set[str]) -> dict[str, Any]:
        """What a rule has of its own, by its fields' names: the rest is that of all the row's rules."""
        if joined:
            sources = tuple(
                name.filled(each) for name in row.tf for each in self.letters.within(name.letters & joined, values)
            )
        else:
            sources = tuple(name.filled(values) for name in row.tf)
        shadowed: tuple[str, ...] = ()
        if self.select and row.is_selecting:
            shadowed, sources = sources, tuple(name + self.select for name in sources)
        own: dict[str, Any] = {
            "target": row.torch.filled(values),
            "sources": sources,
            "tie": row.tie.filled(values) if row.tie is not None else None,
            "slice": tuple(bounds(part.filled(values)) for part in row.slice),
            "into": tuple(bounds(part.filled(values)) for part in row.into),
            "shadowed": shadowed,
        }
        if row.add:
            own["add"] = {axis: {k: self._number(v, values) for k, v in e.items()} for axis, e in row.add.items()}
        if row.scale is not None:
            own["scale"] = self._number(row.scale, values)
        if row.used is not None:
            recipe, tf, torch = row.used
            known = {letter: value for letter, value in values.items() if letter in tf.letters | torch.letters}
            names = (name.filled(known) if name.letters <= known.keys() else str(name) for name in (tf, torch))
            own["use"] = (row.made.at, *names, recipe)
        return own

    @staticmethod
    def _number(value: float | Template, values: Mapping[str, Value]) -> float:
        if not isinstance(value, Template):
            return value
        text = value.filled(values)
        number = yaml_text.number(text)
        if number is None:
            raise TemplateError(f"'{shown(text)}' is not a number", "an add or a scale is a number")
        return number

    @staticmethod
    def _are_bounds(parts: Sequence[Template], values: Mapping[str, Value]) -> bool:
        try:
            return all(bounds(part.filled(values)) for part in parts)
        except BoundsError:
            return False

    def _place_of_error(self, row: _Row, values: Mapping[str, Value]) -> Location:
        """Where the row has what cannot be filled with these values."""
        numbers = [v for e in row.add.values() for v in e.values() if isinstance(v, Template)]
        keyed = (
            ("torch", [row.torch]),
            ("slice", row.slice),
            ("into", row.into),
            ("tie", [row.tie] if row.tie else []),
        )
        for key, names in (*keyed, ("with", [*numbers, *([row.scale] if row.scale else [])])):
            for name in names:
                try:
                    text = name.filled(values)
                except (TemplateError, KeyError):
                    return row.made.place(key)
                if key == "with" and yaml_text.number(text) is None:
                    return row.made.place(key)
        return row.made.place("tf")

    @staticmethod
    def _place_of(letter: str, row: _Row) -> Location:
        """Where the row uses the letter."""
        if any(letter in name.letters for name in row.tf):
            return row.made.place("tf")
        for key, names in (("torch", (row.torch,)), ("slice", row.slice), ("into", row.into), ("tie", (row.tie,))):
            if any(name is not None and letter in name.letters for name in names):
                return row.made.place(key)
        return row.made.at
