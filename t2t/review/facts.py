"""
What a mapping says beside its rows: its model and arguments, its source, what is ignored, required, verified, written.

Each is a name and a value. A value's name is its path of keys; an entry of a list goes by what it is about, so that it
can be found again: `ignore global_step`, `require conv*.stride`. The order of keys and of such entries says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from t2t import document
from t2t.boxes import Bounds
from t2t.mapping import Mapping

#: Keys of the file whose effect is in the assignments, and those whose entries go by what they are about.
_ROWS = frozenset(("t2t", "for", "recipes", "map", "dtype"))
_LISTS = frozenset(("ignore", "drop", "require"))

_WORDS = frozenset(("true", "false", "null", "~", ""))


def facts(mapping: Mapping, tree: dict[str, Any]) -> dict[str, str]:
    """The facts of a mapping that has no problem, by name; `tree` is its file's."""
    found: dict[str, list[str]] = {}
    for name, value in _facts(mapping, tree):
        found.setdefault(name, []).append(value)
    return {name: "; ".join(sorted(values)) for name, values in found.items()}


def _facts(mapping: Mapping, tree: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield from _leaves({key: value for key, value in tree.items() if key not in _ROWS | _LISTS}, "")
    for ignore in mapping.ignore:
        yield f"ignore {'slots: true' if ignore.pattern is None else flow(ignore.pattern)}", flow(ignore.why)
    for drop in mapping.drop:
        yield f"drop {flow(drop.name)}{bounds_text(drop.slice)}", flow(drop.why)
    for require in mapping.require:
        for attribute, value in require.attributes.items():
            yield f"require {flow(require.pattern)} {_key(attribute)}", flow(value)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{_key(key)}" if path else _key(key))
    else:
        yield path, flow(value)


def flow(value: Any) -> str:
    """A value in a line, much as YAML's flow style has it: what is another value is another text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)}: {flow(inner)}" for key, inner in sorted(value.items())) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    return value if isinstance(value, str) and _is_plain(value) else json.dumps(value, ensure_ascii=False)


def _is_plain(text: str) -> bool:
    """Whether a text can do without quotes: it is no number and no word, and nothing in it ends it."""
    is_other = text in _WORDS or document.number(text) is not None
    return (
        not is_other and text.isprintable() and text == text.strip() and not {*text} & {*'"[]{},;'} and ": " not in text
    )


def _key(key: str) -> str:
    """A key as a part of a path."""
    return key if _is_plain(key) and not {*key} & {*". "} else json.dumps(key, ensure_ascii=False)


def bounds_text(bounds: tuple[Bounds, ...]) -> str:
    """`[0:4, :]` of a slice or an into as it is written; nothing for none."""
    texts = [":".join("" if bound is None else str(bound) for bound in pair) for pair in bounds]
    return f"[{', '.join(texts)}]" if texts else ""
