"""
Rules as rows of a mapping: the text that a person pastes in place of what the file has.

Where all rules of a row change alike, its text is the file's own row with its <letters>; else it is a row for each of
its rules, changed or not. A row that uses a recipe cannot say what only one of its rules does: it is written out, as
the recipe's rows; where all rules of one row of the file's own recipe change alike, it is that row.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from t2t import document as yaml_text
from t2t import mapping as mapping_file
from t2t.coverage import Part
from t2t.document import Document
from t2t.plan import Plan
from t2t.problems import Location
from t2t.proof.written import Key, in_order, key_of, only, said, text
from t2t.recipes import builtin
from t2t.rules import Rule

#: What of a rule says what it gives; the rest is where it stands.
_MEANT = (
    *("target", "sources", "slice", "into", "join", "flip", "axes", "dims", "order"),
    *("scale", "add", "dtype", "reuse", "fill", "tie", "keep"),
)


def _meant(rule: Rule) -> tuple[Any, ...]:
    return tuple(getattr(rule, name) for name in _MEANT)


@dataclass(frozen=True, slots=True)
class Written:
    """
    Rows to paste, and the lines of the file in which the rows begin that they take the place of, in order.

    A recipe's row is replaced by one; all other lines are for `map`. Both are in the order of the file.
    """

    lines: tuple[str, ...]
    replaces: tuple[int, ...]


class Rows:
    """The rows that a plan's rules came from, and what they would be with other rules in place of some."""

    def __init__(self, plan: Plan) -> None:
        self.mapping = plan.mapping
        self.parts: dict[Key, Part] = {key_of(part.rule): part for step in plan.steps for part in step.parts}
        self._by_row: dict[Location, list[Part]] = defaultdict(list)
        for part in self.parts.values():
            self._by_row[part.rule.at].append(part)
        self._by_recipe: dict[str, list[Part]] = defaultdict(list)
        for part in self.parts.values():
            if (recipe := self._own_recipe(part.rule)) is not None:
                self._by_recipe[recipe].append(part)

    @cached_property
    def document(self) -> Document | None:
        """The mapping's file, None where it is not what the plan was made of any more."""
        try:
            data = Path(self.mapping.path).read_bytes()
        except (OSError, ValueError):
            return None
        if hashlib.sha256(data).hexdigest() != self.mapping.digest:
            return None
        return yaml_text.parse(data, self.mapping.path)[0]

    @cached_property
    def _has_letters(self) -> bool:
        """Whether a recipe of the file's own has letters."""
        return self.document is not None and "<" in text(only(self.document.tree, "recipes"))

    def mates(self, part: Part) -> list[Part]:
        """All rules of the same row, this one among them: of the file's, or of a recipe that is the file's own."""
        recipe = self._own_recipe(part.rule)
        return self._alike(part, self._by_recipe[recipe] if recipe is not None else self._by_row[part.rule.at])

    def scope(self, part: Part) -> str:
        """What `mates` are the rules of, in words."""
        recipe = self._own_recipe(part.rule)
        return f"the row in line {part.rule.at.line}" if recipe is None else f"the recipe {recipe}"

    @staticmethod
    def _own_recipe(rule: Rule) -> str | None:
        return rule.use[3] if rule.use is not None and rule.use[3] not in builtin().tree["recipes"] else None

    @staticmethod
    def _alike(part: Part, among: Iterable[Part]) -> list[Part]:
        wanted = _below(part.rule)
        exactly = [other for other in among if _below(other.rule) == wanted]
        if len(exactly) > 1 or part.rule.use is None:
            return exactly
        # A letter may stand in what `with` gives: weight_ih_l0, weight_ih_l1.
        masked = [re.sub("[0-9]+", "0", name) for name in wanted]
        return [other for other in among if [re.sub("[0-9]+", "0", name) for name in _below(other.rule)] == masked]

    # --- text ---

    def written(self, changed: Mapping[Key, Rule], taken: Mapping[Key, Key]) -> Written:
        """
        The rows to paste, in place of those that the changed rules stand in: they stand for all rules of those, the
        others as they are. `taken` says of those that exchange what they get, with whom.
        """
        own = self._recipe_rows(changed)
        done = {key for rows in own.values() for key in rows[1]}
        if own and not self._is_whole(own, self._map_rows(changed, done, taken), changed):
            own, done = {}, set()
        rows = self._map_rows(changed, done, taken)
        for (recipe, index), (row, _) in own.items():
            assert self.document is not None
            rows[self.document.at("recipes", recipe, index)] = [row]
        places = sorted(rows, key=lambda at: (at.line or 0, at.column or 0))
        numbers = dict.fromkeys(at.line for at in places if at.line is not None)
        return Written(tuple(text(row) for at in places for row in rows[at]), tuple(numbers))

    def _map_rows(
        self, changed: Mapping[Key, Rule], done: set[Key], taken: Mapping[Key, Key]
    ) -> dict[Location, list[dict[str, Any]]]:
        """What takes the place of each row of `map` that has a changed rule which is not `done`."""
        found = {}
        for at in dict.fromkeys(self.parts[key].rule.at for key in changed if key not in done):
            keys = [key for key in changed if self.parts[key].rule.at == at]
            own, theirs = {key: changed[key] for key in keys}, {key: taken[key] for key in keys if key in taken}
            rows = self._with_letters(at, own, theirs)
            found[at] = rows if rows is not None else self._filled(at, own, theirs)
        return found

    def _recipe_rows(self, changed: Mapping[Key, Rule]) -> dict[tuple[str, int], tuple[dict[str, Any], list[Key]]]:
        """Rows of the file's own recipes, by recipe and index, all rules of which change alike; and these rules."""
        found = {}
        for recipe in dict.fromkeys(map(self._own_recipe, changed.values())):
            document = self.document
            if recipe is None or document is None:
                continue
            by_index: dict[int | None, list[Part]] = defaultdict(list)
            for part in self._by_recipe[recipe]:
                by_index[self._index(part.rule, document.tree["recipes"][recipe])].append(part)
            for index, parts in by_index.items():
                keys = [key_of(part.rule) for part in parts]
                if index is None or not all(key in changed for key in keys):
                    continue
                row = document.tree["recipes"][recipe][index]
                updates = [self._recipe_row(part.rule, changed[key_of(part.rule)], row) for part in parts]
                if updates[0] is not None and all(update == updates[0] for update in updates):
                    found[recipe, index] = (updates[0], keys)
        return found

    @staticmethod
    def _index(rule: Rule, rows: Sequence[Any]) -> int | None:
        """Which of a recipe's rows a rule is of, None where none or several could be meant."""
        found = [
            index
            for index, row in enumerate(rows)
            if "use" not in row
            and all(
                re.fullmatch("".join(".*" if piece.startswith("<") else re.escape(piece) for piece in pieces), name)
                for said_now, name in itertools.zip_longest(_names(row), _below(rule), fillvalue="")
                for pieces in [re.split("(<[^>]*>)", said_now)]
            )
        ]
        return found[0] if len(found) == 1 else None

    def _recipe_row(self, old: Rule, new: Rule, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """A recipe's row with what has changed, None where it cannot say it."""
        updated = self._updates(old, new, row)
        if updated is not None or "<" in text(row) or old.use is None:
            return updated
        target, *names = _below(new)
        if any(_joined(old.use[1], name, "/") != given for name, given in zip(names, _sources(new), strict=True)):
            return None  # of another use
        return in_order({**said(new, names, target), **only(row, "optional", "select")})

    def _is_whole(
        self,
        own: Mapping[tuple[str, int], tuple[dict[str, Any], list[Key]]],
        rows: Mapping[Location, list[dict[str, Any]]],
        changed: Mapping[Key, Rule],
    ) -> bool:
        """Whether the file with these rows stands for these rules, and for all others as they are."""
        document = self.document
        assert document is not None
        recipes = {
            name: [own[name, index][0] if (name, index) in own else row for index, row in enumerate(given)]
            for name, given in document.tree["recipes"].items()
        }
        made = [
            entry
            for index, row in enumerate(document.tree["map"])
            for entry in rows.get(document.at("map", index), [row])
        ]
        wanted = {key: changed.get(key, part.rule) for key, part in self.parts.items()}
        return self._stand_for(made, wanted, recipes)

    def _row(self, at: Location) -> dict[str, Any] | None:
        """The file's row at this place."""
        document = self.document
        if document is None or not isinstance(document.tree, dict):
            return None
        for index, row in enumerate(document.tree.get("map", ())):
            if document.at("map", index) == at:
                return row if isinstance(row, dict) else None
        return None

    def _with_letters(
        self, at: Location, changed: Mapping[Key, Rule], taken: Mapping[Key, Key]
    ) -> list[dict[str, Any]] | None:
        """
        The rows with the file's own letters, None where they cannot say it: where not all rules of a row change alike.

        What is written is read again: it must stand for these rules, and no others.
        """
        row = self._row(at)
        if row is None:
            return None
        for key in changed:
            mates = self._alike(self.parts[key], self._by_row[at])
            if not all(key_of(part.rule) in changed for part in mates):
                return None
        rows = self._exchanged_row(row, changed, taken) if taken else self._own_rows(row, at, changed)
        if rows is None:
            return None
        wanted = {key_of(part.rule): changed.get(key_of(part.rule), part.rule) for part in self._by_row[at]}
        return rows if self._stand_for(rows, wanted) else None

    def _exchanged_row(
        self, row: dict[str, Any], changed: Mapping[Key, Rule], taken: Mapping[Key, Key]
    ) -> list[dict[str, Any]] | None:
        """The row's target with what another row gives."""
        others = {self.parts[taken[key]].rule.at for key in changed if key in taken}
        other = self._row(others.pop()) if len(others) == 1 else None
        if other is None:
            return None
        return [in_order({**{k: v for k, v in other.items() if k != "into"}, **only(row, "torch", "into")})]

    def _own_rows(self, row: dict[str, Any], at: Location, changed: Mapping[Key, Rule]) -> list[dict[str, Any]] | None:
        """The row itself; of one that uses a recipe, the recipe's rows."""
        if "use" not in row:
            updates = [self._updates(self.parts[key].rule, rule, row) for key, rule in changed.items()]
            alike = all(update == updates[0] for update in updates)
            return [updates[0]] if updates[0] is not None and alike else None
        rows: list[dict[str, Any]] = []
        done: set[Key] = set()
        uses = len({part.rule.use for part in self._by_row[at]})
        for part in self._by_row[at]:
            if key_of(part.rule) in done:
                continue
            mates = self._alike(part, self._by_row[at])
            done |= {key_of(mate.rule) for mate in mates}
            made = []
            for mate in mates:
                rule = changed.get(key_of(mate.rule), mate.rule)
                target, *sources = _below(mate.rule)
                if rule.sources != mate.rule.sources:  # two variables of a join, exchanged
                    places = [mate.rule.sources.index(name) for name in rule.sources]
                    sources = [sources[place] for place in places]
                names = [_joined(str(row.get("tf", "")), name, "/") for name in sources]
                written = said(rule, names, _joined(row["torch"], target, "."))
                if rule.tie is not None:
                    written["tie"] = _joined(row["torch"], rule.tie.removeprefix(f"{rule.use[2]}."), ".")  # type: ignore[index]
                if self.mapping.select and rule.sources and not rule.shadowed:
                    written["select"] = "none"
                if rule.optional and len(mates) < uses:
                    written["optional"] = True
                made.append(written)
            if any(written != made[0] for written in made):
                return None
            rows.append(made[0])
        return rows

    @staticmethod
    def _updates(old: Rule, new: Rule, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """A row of the file with what has changed, None where its letters stand in the way."""
        before, after = (said(rule, rule.sources, rule.target) for rule in (old, new))
        updated = {key: value for key, value in row.items() if key in after or key not in before}
        for key, value in after.items():
            if key == "tf" and before.get(key) != value:
                names = row.get("tf")
                is_same = sorted(new.sources) == sorted(old.sources)
                if not isinstance(names, list) or len(names) != len(old.sources) or not is_same:
                    return None
                updated["tf"] = [names[old.sources.index(name)] for name in new.sources]
            elif before.get(key) != value:
                if key in row and "<" in str(row[key]):
                    return None
                updated[key] = value
        return in_order(updated)

    def _filled(self, at: Location, changed: Mapping[Key, Rule], taken: Mapping[Key, Key]) -> list[dict[str, Any]]:
        """A row for each rule of the file's row; of a recipe's use that stays as it is, or is exchanged, one."""
        rows: list[dict[str, Any]] = []
        by_use: dict[Any, list[Part]] = defaultdict(list)
        for part in self._by_row[at]:
            by_use[part.rule.use].append(part)
        for use, own in by_use.items():
            one = None
            if use is not None:
                is_changed = any(key_of(part.rule) in changed for part in own)
                one = self._exchanged_use(own, changed, taken) if is_changed else self._same_use(own)
            rows += [one] if one is not None else [self._alone(changed.get(key_of(p.rule), p.rule)) for p in own]
        return rows

    def _same_use(self, own: Sequence[Part]) -> dict[str, Any] | None:
        """One use of a recipe without letters."""
        use, row = own[0].rule.use, self._row(own[0].rule.at)
        if use is None or row is None:
            return None
        written = {**row, **({"tf": use[1]} if "tf" in row else {}), "torch": use[2]}
        if "<" in text(written):
            return None
        # A recipe's own letters may be those of the row: then it stands for more.
        wanted = {key_of(part.rule): part.rule for part in own}
        is_plain = self._own_recipe(own[0].rule) is None or not self._has_letters
        return written if is_plain or self._stand_for([written], wanted) else None

    def _alone(self, rule: Rule) -> dict[str, Any]:
        row = said(rule, rule.shadowed or rule.sources, rule.target)
        if self.mapping.select and rule.sources and not rule.shadowed:
            row["select"] = "none"
        return in_order(row)

    def _exchanged_use(
        self, own: Sequence[Part], changed: Mapping[Key, Rule], taken: Mapping[Key, Key]
    ) -> dict[str, Any] | None:
        """One use of a recipe with the variables of another use of it."""
        reading = [part for part in own if part.reads]
        others = {
            self.parts[taken[key]].rule.use
            for part in reading
            if (key := key_of(part.rule)) in taken and key in changed
        }
        use, other = own[0].rule.use, others.pop() if len(others) == 1 else None
        row = self._row(own[0].rule.at)
        if use is None or other is None or row is None or use[3] != other[3]:
            return None
        written = {**row, "tf": other[1], "torch": use[2]}
        wanted = {key_of(part.rule): changed.get(key_of(part.rule), part.rule) for part in own}
        return written if "<" not in text(written) and self._stand_for([written], wanted) else None

    def _stand_for(
        self, rows: Sequence[Any], wanted: Mapping[Key, Rule], recipes: Mapping[str, Any] | None = None
    ) -> bool:
        """Whether these rows, read as a mapping, are these rules; optional ones may be more."""
        assert self.document is not None
        tree = self.document.tree
        head = {"t2t": 1, "model": "m:M", "source": only(tree.get("source", {}), "select"), "map": list(rows)}
        head |= only(tree, "for", "recipes") | ({} if recipes is None else {"recipes": recipes})
        read, _ = mapping_file.read(text(head).encode(), self.mapping.path)
        found = {key_of(rule): rule for rule in read.rules} if read is not None else {}
        if not found or not wanted.keys() <= found.keys() or any(not rule.is_whole for rule in found.values()):
            return False
        more = [rule for key, rule in found.items() if key not in wanted]
        return all(rule.optional for rule in more) and all(
            _meant(found[key]) == _meant(rule) for key, rule in wanted.items()
        )


def _below(rule: Rule) -> list[str]:
    """The names of a rule's target and variables, as its recipe has them; of a rule without one, none: the row says."""
    if rule.use is None:
        return []
    _, tf, torch, _ = rule.use
    return [
        rule.target.removeprefix(torch).removeprefix("." if torch else ""),
        *(name.removeprefix(tf).removeprefix("/" if tf else "") for name in _sources(rule)),
    ]


def _sources(rule: Rule) -> tuple[str, ...]:
    """The rule's variables, under the names that the file has."""
    return rule.shadowed or rule.sources


def _names(row: Mapping[str, Any]) -> list[str]:
    """A row's target and variables, as it has them."""
    names = row.get("tf", [])
    return [row["torch"], *(names if isinstance(names, list) else [names])]


def _joined(prefix: str, name: str, separator: str) -> str:
    return prefix + separator + name if prefix and name else prefix or name
