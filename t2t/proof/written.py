"""
A rule as a row of a mapping, and a row as text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from t2t.boxes import Bounds
from t2t.rules import Rule

#: A rule's target, and which part of it.
Key = tuple[str, tuple[Bounds, ...]]

_PLAIN = re.compile(r"[A-Za-z0-9_(</.](?:[A-Za-z0-9_.<>()/+*\- ]*[A-Za-z0-9_.<>()/+*\-])?")
_NUMBER = re.compile(r"[0-9._]+(?:[eE][-+]?[0-9]*)?|0[xob][0-9A-Fa-f_]+")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n", ""}


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


_KEYS = (
    *("tf", "torch", "use", "with", "slice", "into", "join", "flip", "axes", "permute", "dims", "order"),
    *("scale", "add", "dtype", "select", "reuse", "optional", "fill", "tie", "keep", "why"),
)


def in_order(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its keys in the order of the documents."""
    return {key: row[key] for key in _KEYS if key in row}


def only(tree: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """What stands under these keys, as far as there are any."""
    return {key: tree[key] for key in keys if key in tree}
