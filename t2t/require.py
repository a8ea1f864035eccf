"""
What a mapping requires of the module that the weights do not show: attributes of its parts, held against the real ones.

Padding, strides, epsilons and activations are in no checkpoint. `require: [{torch: "**.bn*", eps: 0.001}]` says in the
mapping what the twin must have, so that a reviewer reads it and a changed default is found.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from types import FunctionType, ModuleType
from typing import Any

from torch import nn

from t2t.mapping import Require, same_setting
from t2t.names import did_you_mean, matches, nearest, proposing, shown
from t2t.problems import Problem
from t2t.usercode import cause, undisturbed

_MISSING = object()


def unmet(module: nn.Module, requires: Sequence[Require]) -> list[Problem]:
    """Every attribute that differs (T2T505), and every pattern that matches no module (T2T208)."""
    parts = dict(module.named_modules())
    problems: list[Problem] = []
    with undisturbed():
        for require in requires:
            problems += _unmet(parts, require)
    return problems


def met(module: nn.Module, requires: Sequence[Require]) -> dict[str, dict[str, dict[str, Any]]]:
    """What a module that meets them all has: the required attributes, by pattern and by the name of the part."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for require in requires:
        own = found.setdefault(require.pattern, {})
        for name, _ in module.named_modules():
            if matches(require.pattern, name, "."):
                own.setdefault(name, {}).update(require.attributes)
    return found


def _unmet(parts: Mapping[str, nn.Module], require: Require) -> list[Problem]:
    names = [name for name in parts if matches(require.pattern, name, ".")]
    if not names:
        message = f"require pattern {shown(require.pattern)} matches no module"
        hint = proposing(nearest(require.pattern, parts, 1)) or "remove it: it is stale"
        return [Problem("T2T208", message, require.at, hint)]
    return [problem for name in names for problem in _differences(name, parts[name], require)]


def _differences(name: str, part: nn.Module, require: Require) -> Iterator[Problem]:
    subject = shown(name) or "the module itself"
    for attribute, wanted in require.attributes.items():
        at = require.places[attribute]
        if attribute == "class":
            if not _is_class(part, str(wanted)):
                is_one = f"{type(part).__module__}.{type(part).__qualname__}"
                message = f"{subject} is a {is_one}, but require says {shown(str(wanted))}"
                yield Problem("T2T505", message, at, "build it so, or change the requirement")
            continue
        found: Any = part
        try:
            for word in attribute.split("."):
                found = getattr(found, word, _MISSING)
                if found is _MISSING:
                    break
        except Exception as error:  # noqa: BLE001 - a property runs the model's code
            message = f"{subject}.{attribute} cannot be read: {cause(error)}"
            yield Problem("T2T505", message, at, "require an attribute that can be read")
            continue
        if found is _MISSING:
            known = [word for word in dir(part) if not word.startswith("_")]
            message = f"{subject} ({type(part).__name__}) has no attribute {shown(attribute)}"
            hint = did_you_mean(attribute, known, 1)
            if isinstance(part, nn.ModuleList | nn.ModuleDict | nn.Sequential):
                hint = f"{shown(require.pattern)} matches what holds modules, too: for those in it write {name}.*"
            yield Problem("T2T505", message, at, hint)
        elif not same_setting(_plain(found), wanted):
            message = f"{subject}.{attribute} is {shown(str(_plain(found)))}, but require says {shown(str(wanted))}"
            yield Problem("T2T505", message, at, "build it so, or change the requirement")


def _is_class(part: nn.Module, path: str) -> bool:
    """Whether the part's class goes by this import path. Nothing is imported: its module is there already."""
    owner, _, name = path.rpartition(".")
    cls = type(part)
    home = sys.modules.get(owner)
    return path == f"{cls.__module__}.{cls.__qualname__}" or (home is not None and getattr(home, name, None) is cls)


def _plain(value: Any) -> Any:
    """Modules, functions and classes by name, sequences as tuples; anything else as it is."""
    if isinstance(value, nn.Module):
        return type(value).__name__
    if isinstance(value, type | FunctionType | ModuleType) or (callable(value) and hasattr(value, "__name__")):
        return value.__name__
    if isinstance(value, list | tuple):
        return tuple(_plain(item) for item in value)
    return value
