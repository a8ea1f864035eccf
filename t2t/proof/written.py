"""
Rules as rows of a mapping: the text that a person pastes in place of what the file has.

Where all rules of a row change alike, its text is the file's own row with its <letters>; else it is a row for each
rule. A row that uses a recipe cannot say what only one of its rules does: it is written out, as the recipe's rows.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from t2t import document as yaml_text
from t2t import mapping as mapping_file
from t2t.boxes import Bounds
from t2t.coverage import Part
from t2t.document import Document
from t2t.plan import Plan
from t2t.problems import Location
from t2t.recipes import builtin
from t2t.rules import Rule

#: A rule's target, and which part of it.
Key = tuple[str, tuple[Bounds, ...]]

#: More lines than these end in "...".
MAX_LINES = 8

_PLAIN = re.compile(r"[A-Za-z0-9_(</.](?:[A-Za-z0-9_.<>()/+*\- ]*[A-Za-z0-9_.<>()/+*\-])?")
_NUMBER = re.compile(r"[0-9._]+(?:[eE][-+]?[0-9]*)?|0[xob][0-9A-Fa-f_]+")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n", ""}

#: What of a rule says what it gives; the rest is where it stands.
_MEANT = (
    *("target", "sources", "slice", "into", "join", "flip", "axes", "dims", "order"),
    *("scale", "add", "dtype", "reuse", "fill", "tie", "keep"),
)


def key_of(rule: Rule) -> Key:
    """What tells this rule from the others of a plan."""
    return rule.target, rule.into


def text(row: Mapping[str, Any]) -> str:
    """A row in YAML's flow style, `{tf: Variable_4, torch: fc1.weight, axes: i o -> o i}`."""
    return _flow(row)


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_flow(key)}: {_flow(entry)}' for key, entry in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_flow, value))}]"
    if not isinstance(value, str):
        return json.dumps(value)  # numbers, true, false, null
    is_plain = _PLAIN.fullmatch(value) and not _NUMBER.fullmatch(value) and value.lower() not in _WORDS
    return value if is_plain else json.dumps(value, ensure_ascii=False)


def said(rule: Rule, names: Sequence[str], torch: str) -> dict[str, Any]:
    """The rule as a row, under these names of its variables and of its target."""
    row: dict[str, Any] = {}
    if rule.sources:
        row["tf"] = names[0] if rule.join is None else list(names)
    row["torch"] = torch
    given = {
        "slice": [_bounds(pair) for pair in rule.slice],
        "into": [_bounds(pair) for pair in rule.into],
        "join": rule.join,
        "flip": list(rule.flip),
        **_axes(rule),
        "dims": dict(rule.dims),
        "order": {axis: str(order) for axis, order in rule.order.items()},
        "scale": rule.scale,
        "add": {axis: dict(entries) for axis, entries in rule.add.items()}
        if isinstance(rule.add, Mapping)
        else rule.add,
        "dtype": rule.dtype,
        "reuse": rule.reuse or None,
        "fill": rule.fill,
        "tie": rule.tie,
        "keep": "init" if rule.keep else None,
        "why": rule.why or None,
    }
    return row | {key: value for key, value in given.items() if value is not None and value not in ([], {})}


def _axes(rule: Rule) -> dict[str, Any]:
    if not rule.axes:
        return {}
    if "permute" in rule.places:
        (axes,) = rule.axes
        return {"permute": [axes.names.index(name) for (name,) in axes.right]}
    return {"axes": str(rule.axes[0]) if len(rule.axes) == 1 else [str(step) for step in rule.axes]}


def _bounds(pair: Bounds) -> str:
    return ":".join("" if bound is None else str(bound) for bound in pair)


def _meant(rule: Rule) -> tuple[Any, ...]:
    return tuple(getattr(rule, name) for name in _MEANT)


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

    def lines(self, changed: Mapping[Key, Rule], taken: Mapping[Key, Key]) -> tuple[str, ...]:
        """
        The rows to paste, in place of those that the changed rules stand in. `taken` says of those that exchange what
        they get, with whom.
        """
        found: list[str] = []
        left = dict(changed)
        if not taken:
            found += self._recipe_lines(left)
        ats = dict.fromkeys(rule.at for rule in left.values())
        for at in ats:
            own = {key: rule for key, rule in left.items() if rule.at == at}
            rows = self._with_letters(at, own, taken)
            if rows is None:
                rows = self._filled(at, own, taken)
            found += map(text, rows)
        return tuple(found) if len(found) <= MAX_LINES else (*found[:MAX_LINES], "...")

    def _recipe_lines(self, left: dict[Key, Rule]) -> list[str]:
        """Rows of the file's own recipes, where all rules of one change; those are taken out of `left`."""
        found: list[str] = []
        for key in list(left):
            recipe = self._own_recipe(left[key]) if key in left else None
            if recipe is None or self.document is None:
                continue
            mates = [key_of(part.rule) for part in self.mates(self.parts[key])]
            rows = [
                row
                for row in self.document.tree["recipes"][recipe]
                if isinstance(row, dict) and row.get("torch") == _below(left[key])[0] and "use" not in row
            ]
            if len(mates) < 2 or len(rows) != 1 or not all(mate in left for mate in mates):
                continue
            updates = [self._updates(self.parts[mate].rule, left[mate], rows[0]) for mate in mates]
            if updates[0] is not None and all(update == updates[0] for update in updates):
                found.append(text(updates[0]))
                for mate in mates:
                    del left[mate]
        return found

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
        return [_in_order({**{k: v for k, v in other.items() if k != "into"}, **_only(row, "torch", "into")})]

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
                names = row["tf"]
                if not isinstance(names, list) or len(names) != len(old.sources):
                    return None
                updated["tf"] = [names[old.sources.index(name)] for name in new.sources]
            elif before.get(key) != value:
                if key in row and "<" in str(row[key]):
                    return None
                updated[key] = value
        return _in_order(updated)

    def _filled(self, at: Location, changed: Mapping[Key, Rule], taken: Mapping[Key, Key]) -> list[dict[str, Any]]:
        """A row for each rule, and for the others of the same uses of recipes."""
        rows: list[dict[str, Any]] = []
        done: set[Any] = set()
        for rule in changed.values():
            if rule.use is None:
                rows.append(self._alone(rule))
                continue
            if rule.use in done:
                continue
            done.add(rule.use)
            own = [part for part in self._by_row[at] if part.rule.use == rule.use]
            exchanged = self._exchanged_use(own, changed, taken)
            if exchanged is not None:
                rows.append(exchanged)
                continue
            rows += [self._alone(changed.get(key_of(part.rule), part.rule)) for part in own]
        return rows

    def _alone(self, rule: Rule) -> dict[str, Any]:
        row = said(rule, rule.shadowed or rule.sources, rule.target)
        if self.mapping.select and rule.sources and not rule.shadowed:
            row["select"] = "none"
        return _in_order(row)

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

    def _stand_for(self, rows: Sequence[dict[str, Any]], wanted: Mapping[Key, Rule]) -> bool:
        """Whether these rows, read as a mapping, are these rules; optional ones may be more."""
        assert self.document is not None
        tree = self.document.tree
        head = {"t2t": 1, "model": "m:M", "source": _only(tree.get("source", {}), "select"), "map": list(rows)}
        head |= _only(tree, "for", "recipes")
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
    names = rule.shadowed or rule.sources
    return [
        rule.target.removeprefix(torch).removeprefix("." if torch else ""),
        *(name.removeprefix(tf).removeprefix("/" if tf else "") for name in names),
    ]


def _joined(prefix: str, name: str, separator: str) -> str:
    return prefix + separator + name if prefix and name else prefix or name


_KEYS = (
    *("tf", "torch", "use", "with", "slice", "into", "join", "flip", "axes", "permute", "dims", "order"),
    *("scale", "add", "dtype", "select", "reuse", "optional", "fill", "tie", "keep", "why"),
)


def _in_order(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in _KEYS if key in row}


def _only(tree: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: tree[key] for key in keys if key in tree}
