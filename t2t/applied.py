"""
Which rules take part: optional ones only where a side has their names, those of a recipe only where it fits at all.

A use of a recipe whose names are all unknown on one side is one mistake, and told as one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from t2t.mapping import Mapping as MappingFile
from t2t.names import matches, nearest, proposing, shown
from t2t.problems import Location, Problem
from t2t.rules import Rule
from t2t.tensors import CheckpointInventory, ModuleInventory, ParameterRef

#: How many unknown names get a proposal. Comparing one with thousands of names takes a while, and where a whole
#: checkpoint is another one nobody reads more of them.
PROPOSALS = 20

#: What tells apart the uses of recipes, see Rule.
Use = tuple[Location, str, str, str]


@dataclass(frozen=True, slots=True)
class Applied:
    """
    The rules that take part: optional ones only where a side has them. `told` are names that a problem speaks of
    already, so that no other needs to.
    """

    rules: tuple[Rule, ...]
    problems: tuple[Problem, ...]
    told: frozenset[str]


def applied(mapping: MappingFile, checkpoint: CheckpointInventory, module: ModuleInventory | None) -> Applied:
    """Which rules apply, what is wrong with the others."""
    known = {*checkpoint.variables, *checkpoint.shared_names}
    parameters = module.parameters if module else None
    rules: list[Rule] = []
    problems: list[Problem] = []
    told: set[str] = set()
    uses: dict[Use, list[Rule]] = defaultdict(list)
    for rule in mapping.rules:
        if rule.use is not None:
            uses[rule.use].append(rule)
    lost: set[Use] = set()
    for pattern in mapping.lost.variables:
        told.update(name for name in known if matches(pattern, name))
    for pattern in mapping.lost.parameters:
        told.update(name for name in parameters or () if matches(pattern, name, "."))
    folders = _Folders(known, parameters or {})
    by_full_name = {
        ref.full_name for ref in checkpoint.variables.values() if ref.full_name and ref.full_name != ref.name
    }
    for use, own in uses.items():
        full = by_full_name if mapping.names == "key" else set()
        if found := _use_problem(own, known, parameters, folders if len(problems) < PROPOSALS else None, full):
            problems.append(found[0])
            told.update(name for name in (*known, *(parameters or ())) if found[1] and name.startswith(found[1]))
            lost.add(use)
            told.update(rule.target for rule in own)
            told.update(name for rule in own for name in (*rule.sources, *rule.shadowed))
    for rule in mapping.rules:
        if rule.use in lost:
            continue
        if not rule.optional:
            rules.append(rule)
            continue
        has_source = all(name in known for name in rule.sources)
        has_none = bool(rule.sources) and not any(name in known for name in rule.sources)
        if parameters is None or not rule.sources:
            if (has_source or not rule.sources) and (parameters is None or rule.target in parameters):
                rules.append(rule)
        elif has_source and rule.target in parameters:
            rules.append(rule)
        elif any(raw in known and name not in known for raw, name in zip(rule.shadowed, rule.sources, strict=False)):
            rules.append(rule)  # an average that is missing is never a reason to leave out the plain variable
        elif not (has_none and rule.target not in parameters):
            problems.append(_one_side_problem(rule, known, rule.target in parameters))
            told.update((rule.target, *rule.sources))
    return Applied(tuple(rules), tuple(problems), frozenset(told))


class _Folders:
    """What could stand before the names of a recipe: the folders of variables, the modules of parameters."""

    def __init__(self, variables: set[str], parameters: Mapping[str, object]) -> None:
        above = {name.rpartition("/")[0] for name in variables}
        self.variables = (above | {name.rpartition("/")[0] for name in above}) - {""}
        self.parameters = {name.rpartition(".")[0] for name in parameters} - {""}


def _use_problem(
    rules: Sequence[Rule],
    known: set[str],
    parameters: Mapping[str, ParameterRef] | None,
    folders: _Folders | None,
    full_names: set[str],
) -> tuple[Problem, str] | None:
    """
    What is wrong with one use of a recipe as a whole: a side, or both, that has none of its names; and what the names
    begin with that a hint proposes. Without `folders` none is proposed. `full_names` are what variables could go by.
    """
    assert rules[0].use is not None
    _, tf, torch, recipe = rules[0].use
    reading = [rule for rule in rules if rule.sources]
    has_source = not reading or any(name in known for rule in reading for name in rule.sources)
    has_target = parameters is None or any(rule.target in parameters for rule in rules)
    if has_source and has_target:
        return None
    if parameters is None and all(rule.optional for rule in reading):
        return None  # they may be missing on both sides
    at = rules[0].place("tf")
    wanted = ", ".join(map(shown, list(dict.fromkeys(name for rule in reading for name in rule.sources))[:3]))
    close = [name for name in nearest(tf, folders.variables, 4) if name != tf][:3] if folders else []
    hint = proposing(close)
    if there := sorted(name for name in known if name.startswith(f"{tf}/") and "/" not in name[len(tf) + 1 :]):
        hint = f"what is there: {', '.join(shown(name) for name in there[:4])}"
        close = [tf]
    last = tf.rpartition("/")[2]
    if meant := [name for name in sorted(full_names) if name.startswith(f"{last}/")]:
        hint = f"with names: full_name in source its variables are {', '.join(map(shown, meant[:3]))}"
    begins = f"{close[0]}/" if close else ""
    if not has_source and any(name in known for rule in reading for name in rule.shadowed):
        message = f"source.select reads {wanted}, none of which is a variable of the checkpoint"
        return Problem("T2T214", message, at, "write select: none on the row, if the plain variables are meant"), begins
    if not has_source and not has_target:
        message = f"recipe {shown(recipe)} applies no row: the checkpoint has none of its variables under {_under(tf)}"
        message += f", the module none of its parameters under {_under(torch)}"
        return Problem("T2T215", message, at, hint), begins
    if not has_source:
        message = f"the checkpoint has none of the variables of recipe {shown(recipe)} under {_under(tf)}: {wanted}"
        return Problem("T2T201", message, at, hint), begins
    wanted = ", ".join(shown(rule.target) for rule in rules[:3])
    message = f"the module has none of the parameters of recipe {shown(recipe)} under {_under(torch)}: {wanted}"
    close = [name for name in nearest(torch, folders.parameters, 4) if name != torch][:3] if folders else []
    begins = f"{close[0]}." if close else ""
    return Problem("T2T202", message, rules[0].place("torch"), proposing(close)), begins


def _under(prefix: str) -> str:
    return shown(prefix) if prefix else "its top"


def _one_side_problem(rule: Rule, known: set[str], has_target: bool) -> Problem:
    target = shown(rule.target)
    names = ", ".join(shown(name) for name in rule.sources if (name in known) is not has_target)
    if has_target:
        message = f"{target} is in the module, but its optional variable {names} is not in the checkpoint"
        hint = (
            "build the module without it, or say what it gets: by another recipe (t2t recipes), or by rows written out"
        )
        return Problem("T2T213", message, rule.place("tf"), hint)
    message = f"{names} is in the checkpoint, but its optional parameter {target} is not in the module"
    hint = "build the module with it, or write out the recipe's rows and ignore the variable"
    return Problem("T2T213", message, rule.place("torch"), hint)
