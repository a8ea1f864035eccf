"""
YAML text -> a plain tree that knows the line and column of each of its values, checked against the JSON schema.

A strict YAML: no tags, anchors, aliases or merge keys, no key twice, one document; only `true`, `false`, `null`,
decimal integers and floats are anything but text, so `no`, `on`, `010` and `1:30` stay what they look like, and so does
any plain scalar under a key that the schema says is text (`torch: 6`).

libyaml's *events* are read, not its tree: its own tree builder recurses in C and dies on deep nesting. The depth, the
size and the number of nodes are bounded here before anything is built.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from t2t import grammar
from t2t.names import did_you_mean, nearest, proposing, shown
from t2t.problems import Location, Problem, in_file_order

if TYPE_CHECKING:
    import jsonschema

#: A path into the tree: keys and list indices from the top.
TreePath = tuple[str | int, ...]

#: Line and column, from 1.
Place = tuple[int, int]

MAX_BYTES = 2**20
MAX_DEPTH = 32
MAX_NODES = 200_000

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}

#: Characters that a reviewer doesn't see: controls, line breaks that only YAML knows, text that turns its direction.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff]|\r(?!\n)")

#: PyYAML's wheels have the C parser; the Python one gives the same events, slowly.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Document:
    """
    A file's tree: dicts, lists, text, numbers, true, false and None; and where each of them stands.

    `spoilt` holds the paths of everything that has a problem, and of all that it stands in.
    """

    path: str
    tree: Any
    keys: dict[TreePath, Place]
    values: dict[TreePath, Place]
    spoilt: set[TreePath]

    def at(self, *path: str | int) -> Location:
        """Where the value at `path` stands; where it is missing, its nearest ancestor."""
        while path and path not in self.values:
            path = path[:-1]
        return Location(self.path, *self.values.get(path, (1, 1)))

    def at_key(self, *path: str | int) -> Location:
        """Where the last key of `path` stands."""
        return Location(self.path, *self.keys[path]) if path in self.keys else self.at(*path)


class _Stop(Exception):  # noqa: N818 - it never leaves this file
    """Parsing cannot go on."""

    def __init__(self, code: str, message: str, place: Place = (1, 1), hint: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.place, self.hint = code, message, place, hint


def parse(data: bytes, path: str) -> tuple[Document, list[Problem]]:
    """
    The document in `data` and everything that is wrong with it, in file order.

    A problem that stops the parser leaves a tree of None. `path` is only named in the problems.
    """
    problems: list[Problem] = []
    builder = _Builder(path, problems)
    try:
        tree = builder.build(_text(data))
    except _Stop as stop:
        problems.append(Problem(stop.code, stop.message, Location(path, *stop.place), stop.hint))
        return Document(path, None, {}, {}, set()), problems
    document = Document(path, tree, builder.keys, builder.values, builder.spoilt)
    return document, in_file_order([*problems, *_schema_problems(document, builder.replaced)])


def built_in(data: bytes, name: str) -> Document:
    """The document in `data`, which comes with t2t: it is not held against the schema, and nothing is wrong with it."""
    problems: list[Problem] = []
    builder = _Builder(name, problems)
    tree = builder.build(_text(data))
    assert not problems
    return Document(name, tree, builder.keys, builder.values, builder.spoilt)


def number(text: str) -> float | int | None:
    """The number that this text is in a mapping; None where it is none, or is out of range."""
    if _INTEGER.fullmatch(text) and len(text) <= 20:
        return int(text)
    value = float(text) if _FLOAT.fullmatch(text) else math.inf
    return value if math.isfinite(value) else None


def _text(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise _Stop("T2T110", f"the file is larger than {MAX_BYTES} bytes, the most that a mapping has")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        place = _place_after(data[: error.start].decode("utf-8"))
        raise _Stop("T2T101", f"byte 0x{data[error.start]:02x} is not UTF-8", place, "save the file as UTF-8") from None
    if control := _CONTROL.search(text):
        what = "byte order mark" if control[0] == "\ufeff" else f"control character {control[0]!a}"
        raise _Stop("T2T101", f"{what} in the file", _place_after(text[: control.start()]), "remove it")
    return text


def _place_after(before: str) -> Place:
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _place(mark: Any) -> Place:
    return mark.line + 1, mark.column + 1


class _Builder:
    """Builds one tree from the parser's events; nodes are counted and placed as they come."""

    def __init__(self, path: str, problems: list[Problem]) -> None:
        self.path = path
        self.problems = problems
        self.keys: dict[TreePath, Place] = {}
        self.values: dict[TreePath, Place] = {}
        self.spoilt: set[TreePath] = set()
        self.replaced: set[TreePath] = set()  # values that stand in for refused ones: not for the schema to judge
        self._text_keys = grammar.text_keys()
        self._events: Iterator[Any] = iter(())
        self._end: Place = (1, 1)  # the parser places what is missing at the end of a file a line further down

    def build(self, text: str, loader: Any = _LOADER) -> Any:
        try:
            self._end = _place_after(text)
            self._events = yaml.parse(text, Loader=loader)
            next(self._events)  # the stream's start
            if isinstance(next(self._events), yaml.StreamEndEvent):
                raise _Stop("T2T101", "the file is empty", hint="a mapping begins with t2t: 1")
            tree = self._node(next(self._events), ())
            next(self._events)  # the document's end
            after = next(self._events)
            if not isinstance(after, yaml.StreamEndEvent):
                raise _Stop("T2T101", "a second document begins", _place(after.start_mark), "a mapping is one document")
            return tree
        except yaml.MarkedYAMLError as error:
            if "nesting depth" in (error.problem or "") and loader is not yaml.SafeLoader:
                # libyaml reads ahead and gives up before our own limit is seen. PyYAML's own parser has no limit.
                return self.build(text, yaml.SafeLoader)
            mark: Any = error.problem_mark or error.context_mark
            place = min(_place(mark), self._end)
            if text[mark.index : mark.index + 1] == "\t":
                raise _Stop("T2T101", "a tab where YAML has spaces", place, "indent with spaces") from None
            what = ", ".join(part for part in (error.context, error.problem) if part)
            raise _Stop("T2T101", f"not YAML: {what}", place) from None

    def _node(self, event: Any, path: TreePath) -> Any:
        place = self.values[path] = min(_place(event.start_mark), self._end)
        if len(self.values) > MAX_NODES:
            raise _Stop("T2T110", f"the file has more than {MAX_NODES} values", place)
        if len(path) > MAX_DEPTH:
            raise _Stop("T2T110", f"values are nested more than {MAX_DEPTH} deep", place)
        if isinstance(event, yaml.AliasEvent):
            message = f"alias *{shown(str(event.anchor))} is not allowed in a mapping"
            self._refuse(path, "T2T102", message, "write it out")
            self.replaced.add(path)
            return None
        self._refuse_properties(event, path)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
                items.append(self._node(event, (*path, len(items))))
            return items
        return self._mapping(path)

    def _mapping(self, path: TreePath) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            place = _place(event.start_mark)
            if not isinstance(event, yaml.ScalarEvent):
                raise _Stop("T2T101", "a key that is not text", place, "quote it")
            key = event.value
            below = (*path, key)
            if key in mapping:
                # The second value is read past, under a path that nobody asks for.
                below = (*below, "(again)")
                message = f"key '{shown(key)}' stands twice, first in line {self.keys[(*path, key)][0]}"
                self.values[below] = place
                self._refuse(below, "T2T103", message, "keep one of them")
                self._node(next(self._events), below)
                continue
            self.keys[below] = self.values[below] = place
            self._refuse_properties(event, below)
            if key == "<<" and not event.style:
                self._refuse(below, "T2T102", "merge key << is not allowed in a mapping", "write the keys out")
            mapping[key] = self._node(next(self._events), below)
        return mapping

    def _scalar(self, event: Any, path: TreePath) -> str | int | float | bool | None:
        text: str = event.value
        if "\0" in text:
            self._refuse(path, "T2T106", f"text {shown(text)} holds a NUL", "remove it")
        if event.style or event.tag is not None:
            return text
        # Under `with` keys are the model's own: there, and only there, a number may stand under any name.
        key = path[-2] if len(path) > 1 and isinstance(path[-1], int) else path[-1] if path else ""
        if text and key in self._text_keys and "with" not in path:
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text):
            if len(text.lstrip("+-")) <= 20:
                return int(text)
            self._refuse(path, "T2T106", f"a number of {len(text)} digits")
            self.replaced.add(path)
            return 0
        if _FLOAT.fullmatch(text):
            number = float(text)
            if not math.isfinite(number):
                self._refuse(path, "T2T106", f"number {shown(text)} is out of range")
                self.replaced.add(path)
                return 0.0
            return number
        return text

    def _refuse_properties(self, event: Any, path: TreePath) -> None:
        """An anchor or a tag before a value or a key."""
        if event.anchor is not None:
            self._refuse(path, "T2T102", f"anchor &{shown(event.anchor)} is not allowed in a mapping", "remove it")
        if event.tag is not None:
            tag = shown(event.tag.replace("tag:yaml.org,2002:", "!!"))
            self._refuse(path, "T2T102", f"tag {tag} is not allowed in a mapping", "remove it")

    def _refuse(self, path: TreePath, code: str, message: str, hint: str = "") -> None:
        self.problems.append(Problem(code, message, Location(self.path, *self.values[path]), hint))
        _spoil(self.spoilt, path)


def _spoil(spoilt: set[TreePath], path: TreePath) -> None:
    spoilt.update(path[:end] for end in range(len(path) + 1))


# --- what the schema refuses, in our words ---


def _schema_problems(document: Document, replaced: set[TreePath]) -> list[Problem]:
    found: dict[tuple[Location, str, str], Problem] = {}
    for error in grammar.validator().iter_errors(document.tree):
        path: TreePath = tuple(error.absolute_path)
        if path in replaced:
            continue
        _spoil(document.spoilt, path)
        for problem in _from_schema(error, document):
            # Several branches of the schema may refuse one value for one reason: it is said once.
            assert problem.at is not None
            found.setdefault((problem.at, problem.code, problem.message), problem)
    return list(found.values())


def _unknown_keys(
    value: dict[str, Any], known: dict[str, Any], path: TreePath, document: Document
) -> Iterator[Problem]:
    for key in value:
        if key in known:
            continue
        close = nearest(key, known, 2)
        hint = proposing(close[:1]) or f"known keys: {', '.join(known)}"
        fix = (key, close[0]) if len(close) == 1 and close[0] not in value else None
        yield Problem("T2T104", f"unknown key '{shown(key)}'", document.at_key(*path, key), hint, fix=fix)


def _from_schema(error: jsonschema.ValidationError, document: Document) -> Iterator[Problem]:
    """One schema error in our words. `error.validator` is the schema's keyword that refused."""
    path: TreePath = tuple(error.absolute_path)
    at = document.at(*path)
    subject = f"{shown(str(path[-1]))}: " if path and isinstance(path[-1], str) else ""
    value: Any = error.instance
    schema_node: Any = error.schema
    wanted: Any = error.validator_value
    keyword = error.validator
    if keyword == "additionalProperties":
        known = schema_node.get("properties", {})
        yield from _unknown_keys(value, known, path, document)
    elif keyword == "dependencies" or (keyword == "anyOf" and "dependencies" in error.schema_path):
        yield from _needing(value, wanted if keyword == "dependencies" else {"dims": ["axes", "use"]}, path, document)
    elif keyword == "required":
        missing = [key for key in wanted if key not in value]
        for key in missing:
            yield Problem("T2T105", f"key '{key}' is missing", at, _example(schema_node, key))
    elif keyword == "enum" and "propertyNames" in error.schema_path:
        if any(value in grammar.resolved({"$ref": of})["properties"] for of in ("row", "input")):
            rest = f"only {', '.join(wanted)} go together here"
            yield Problem("T2T108", f"key '{value}' does not belong in this row", document.at_key(*path, value), rest)
    elif keyword in {"oneOf", "not"} and not isinstance(value, dict):
        return  # its type is refused already
    elif keyword == "oneOf":
        choices = [" and ".join(choice["required"]) for choice in wanted]
        given = [choice for choice in choices if all(key in value for key in choice.split(" and "))]
        has = " and ".join(given) if given else "none of them"
        yield Problem("T2T108", f"{subject}needs one of {', '.join(choices)}; it has {has}", at)
    elif keyword == "not":
        (key,) = wanted["required"]
        message, hint = _FORBIDDEN[key]
        yield Problem("T2T108", message, document.at_key(*path, key), hint)
    elif keyword == "const" and path == ("t2t",):
        hint = "a newer t2t may read it" if isinstance(value, int) and value > 1 else "write t2t: 1"
        yield Problem("T2T107", f"version {_shown_value(value)} of the language, this t2t reads version 1", at, hint)
    elif keyword in {"enum", "const"}:
        allowed = wanted if keyword == "enum" else [wanted]
        hint = did_you_mean(value, allowed, 1) if isinstance(value, str) and keyword == "enum" else ""
        choices_text = ", ".join(json.dumps(choice).strip('"') for choice in allowed)
        yield Problem("T2T106", f"{subject}{_shown_value(value)} is not one of {choices_text}", at, hint)
    elif keyword == "type":
        kinds = wanted if isinstance(wanted, list) else [wanted]
        expected = " or ".join(_KINDS[kind] for kind in kinds)
        yield Problem("T2T106", f"{subject}expected {expected}, got {_shown_value(value)}", at)
    elif keyword == "pattern":
        yield Problem("T2T106", f"{subject}expected {_PATTERNS[wanted]}, got {_shown_value(value)}", at)
    else:
        limit = _LIMITS[str(keyword)].format(wanted)
        yield Problem("T2T106", f"{subject}expected {limit}, got {_shown_value(value)}", at)


def _needing(row: dict[str, Any], needs: dict[str, Any], path: TreePath, document: Document) -> Iterator[Problem]:
    """Keys that need another one beside them, which is not there."""
    for key, others in needs.items():
        if isinstance(others, list) and key in row and not any(other in row for other in others):
            message = f"key '{key}' needs {' or '.join(others)} beside it"
            yield Problem("T2T108", message, document.at_key(*path, key), f"write {others[0]} too, or remove {key}")


#: Keys that another key of the row forbids.
_FORBIDDEN = {
    "use": ("key 'use' stands beside a list of variables", "a recipe has one name that its variables begin with"),
    "permute": ("key 'permute' stands beside axes, which say the same", "keep one of them"),
}
_KINDS = {
    "string": "text",
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "null": "nothing",
    "array": "a list",
    "object": "keys and values",
}
_PATTERNS = {
    ":": "'start:stop'",
    "^[a-z]+( [a-z]+)*$": "lower-case letters, of a table several with a space between them",
    "^[A-Za-z_][A-Za-z_0-9.]*:[A-Za-z_][A-Za-z_0-9.]*$": "'package.module:attribute'",
    r"\.npz$": "a path that ends in .npz",
    r"\.np[yz]$": "a path that ends in .npy or .npz",
}
_LIMITS = {
    "minLength": "some text",
    "minItems": "a list of {} or more",
    "maxItems": "a list of {} or fewer",
    "minProperties": "{} or more keys",
    "minimum": "{} or more",
    "maximum": "{} or less",
}
_SHOWN_WORDS = {True: "true", False: "false", None: "nothing"}


def _shown_value(value: Any) -> str:
    if isinstance(value, str):
        return f"'{shown(value)}'"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"keys {', '.join(map(shown, value))}" if value else "no keys"
    return _SHOWN_WORDS[value] if value is None or isinstance(value, bool) else str(value)


def _example(schema_node: dict[str, Any], key: str) -> str:
    described = schema_node.get("properties", {}).get(key)
    if described is None:
        return ""
    example = grammar.resolved(described).get("examples", described.get("examples", [None]))[0]
    return f"for example {key}: {json.dumps(example)}"
