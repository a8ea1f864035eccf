"""
A lock against what it was made of: what has changed since, where, told at the mapping's row. Values are read only where
that is asked for.

What the lock knows and the mapping alone does not is looked at, too: the attributes that `require` asks for. Whether
what was proven is still what `verify` asks for is t2t.review.stale_proof's business.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Mapping as Dict
from typing import TYPE_CHECKING

import google_crc32c
import numpy as np

from t2t.mapping import Mapping, Require, same_setting
from t2t.names import shown
from t2t.plan import Plan, Step, stored
from t2t.problems import Location, MappingError, Problem
from t2t.review import assignments
from t2t.review import lock as locks
from t2t.review.lock import Lock
from t2t.tensors import DTYPES, CheckpointInventory, ModuleInventory

if TYPE_CHECKING:
    from t2t.execute import Array, Block

#: Of more rows than so many, one problem speaks for all.
MAX_ROWS = 10

#: So many parameters of a row are named.
MAX_NAMED = 3


def stale(plan: Plan, lock: Lock) -> list[Problem]:
    """Every row that is not what was locked (T2T508), or does not meet what was found (T2T505)."""
    return [*_steps(plan, lock), *_requirements(plan.mapping, lock)]


def outdated(mapping: Mapping, message: str, at: Location, details: tuple[str, ...] = ()) -> Problem:
    """What the mapping says otherwise than its lock (T2T508)."""
    hint = f"if that is meant, run t2t lock {shown(mapping.path)}"
    return Problem("T2T508", message, at, hint, details=details)


def unknown_values(mapping: Mapping, lock: Lock, *, required: bool = False) -> list[Problem]:
    """That a lock of names and shapes alone knows no values (T2T502): a note, or an error where they are `required`."""
    if not lock.is_of_names:
        return []
    hint = f"run t2t lock {shown(mapping.path)} where the weights are"
    message = "values not checked: the lock is of names and shapes alone"
    return [Problem("T2T502", message, mapping.source_at, hint, "error" if required else "note")]


def stale_model(mapping: Mapping, lock: Lock | None) -> list[Problem]:
    """What the lock was made with that the mapping says otherwise: its model, the model's arguments, its names."""
    if lock is None:
        return []
    problems = []
    if lock.model != mapping.model:
        message = f"the lock is of the model {shown(lock.model)}, the mapping says {shown(mapping.model)}"
        problems.append(outdated(mapping, message, mapping.model_at))
    elif mapping.arguments is not None:
        ours, theirs = mapping.arguments, lock.arguments
        every = sorted({*ours, *theirs})
        if keys := [key for key in every if not _is_same(ours.get(key, ...), theirs.get(key, ...))]:
            message = f"the lock is of a model built with another {_named(keys)}"
            problems.append(outdated(mapping, message, mapping.model_at))
    if lock.names != mapping.names:
        message = f"the lock goes by the variables' {lock.names}, the mapping by their {mapping.names}"
        problems.append(outdated(mapping, message, mapping.source_at))
    return problems


def _is_same(one: object, other: object) -> bool:
    """`==` of two values of YAML and JSON, where True is not 1 and 1 is not 1.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return one == other


def stale_checkpoint(mapping: Mapping, lock: Lock | None) -> list[Problem]:
    """Whether the mapping names another checkpoint than when it was locked; what lies there is another question."""
    if lock is None or (written := locks.as_written(mapping)) == lock.written:
        return []
    was, is_now = (shown(path) or "none" for path in (lock.written, written))
    message = f"the lock is of the checkpoint {was}, the mapping names {is_now}"
    return [outdated(mapping, message, mapping.source_at)]


def stale_source(
    mapping: Mapping, lock: Lock, inventory: CheckpointInventory, *, by_value: bool = False
) -> list[Problem]:
    """
    Whether the lock is of these weights: by names, dtypes, shapes and stored checksums. Where the format stores none
    they are computed `by_value`, which reads everything, or left out; so they are where the lock knows none.
    """
    ours, theirs = inventory.variables, lock.checkpoint.variables
    is_summed = (inventory.is_cheap or by_value) and not lock.is_of_names
    differing = [
        name
        for name in sorted({*ours, *theirs})
        if name not in ours
        or name not in theirs
        or (ours[name].dtype, ours[name].shape) != (theirs[name].dtype, theirs[name].shape)
        or (is_summed and inventory.crc32c(ours[name]) != theirs[name].crc32c)
    ]
    if not differing:
        return []
    told = f"the lock is of other weights: {_named(differing)} differ{'s' if len(differing) == 1 else ''}"
    return [outdated(mapping, told, mapping.source_at, tuple(map(shown, differing)))]


def other_module(mapping: Mapping, lock: Lock, module: ModuleInventory) -> list[Problem]:
    """Whether the module that was built is the locked one: its entries, their dtypes, shapes and ties, their order."""
    ours, theirs = module.parameters, lock.module.parameters
    if list(ours.items()) == list(theirs.items()):
        return []
    differing = [name for name in {**theirs, **ours} if ours.get(name) != theirs.get(name)]
    told = f"{_named(differing)} differ{'s' if len(differing) == 1 else ''}" if differing else "its order differs"
    message = f"the lock is of another {shown(mapping.model)}: {told}"
    return [outdated(mapping, message, mapping.model_at, tuple(map(shown, differing)))]


def _steps(plan: Plan, lock: Lock) -> Iterator[Problem]:
    """Parameters that get something else than when the lock was made."""
    mapping = plan.mapping
    by_row: dict[Location, list[Step]] = defaultdict(list)
    for step in plan.steps:
        locked = lock.steps.get(step.target)
        if locked is not None and locked != assignments.digest(step, mapping.output.dtype):
            by_row[step.rule.at].append(step)
    if len(by_row) > MAX_ROWS:
        names = [step.target for steps in by_row.values() for step in steps]
        message = f"{len(names)} of {len(plan.steps)} parameters are not what they were when they were locked"
        yield outdated(mapping, f"{message}: {_named(names)}", mapping.map_at, tuple(map(shown, names)))
        return
    for at, steps in by_row.items():
        names = [step.target for step in steps]
        what = "is not what it was when it was locked" if len(names) == 1 else "are not what they were when locked"
        yield outdated(
            mapping, f"{_named(names)} {what}", at, tuple(map(shown, names)) if len(names) > MAX_NAMED else ()
        )


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(map(shown, names[:MAX_NAMED])) + more


def _requirements(mapping: Mapping, lock: Lock) -> Iterator[Problem]:
    for require in mapping.require:
        found = lock.require.get(require.pattern)
        if found is None:
            message = f"the lock knows nothing of require {shown(require.pattern)}"
            yield outdated(mapping, message, require.places.get("torch", require.at))
            continue
        yield from _unmet(mapping, require, found)


def _unmet(mapping: Mapping, require: Require, found: Dict[str, Dict[str, object]]) -> Iterator[Problem]:
    for attribute, wanted in require.attributes.items():
        at = require.places[attribute]
        if any(attribute not in attributes for attributes in found.values()):
            yield outdated(mapping, f"the lock knows no {shown(attribute)} of {shown(require.pattern)}", at)
            continue
        for name, attributes in found.items():
            if not same_setting(attributes[attribute], wanted):
                subject = shown(name) or "the module itself"
                was = shown(str(attributes[attribute]))
                message = (
                    f"{subject}.{shown(attribute)} was {was} when it was locked, but require says {shown(str(wanted))}"
                )
                yield Problem("T2T505", message, at, f"build it so and run t2t lock {shown(mapping.path)}")


# --- what comes out ---


def blocks_held_against(lock: Lock, mapping: Mapping, blocks: Iterable[Block]) -> Iterator[Block]:
    """The blocks as they come; once all have come, MappingError (T2T508) where their bytes are not the locked ones."""
    crcs = dict.fromkeys(lock.outputs, 0)
    for block in blocks:
        crcs[block.name] = google_crc32c.extend(crcs[block.name], block.values.view(np.uint8))
        yield block
    _refuse_others(lock, mapping, crcs)


def tensors_held_against(lock: Lock, plan: Plan, tensors: Iterable[tuple[str, Array]]) -> Iterator[tuple[str, Array]]:
    """The same of whole tensors, which have not been cast to `output.dtype`: the locked bytes are those of the cast."""
    dtypes = {step.target: DTYPES[stored(step, plan.mapping.output.dtype)].numpy for step in plan.steps}
    crcs = {}
    for name, array in tensors:
        with np.errstate(all="ignore"):  # what a cast loses is told where it is asked for
            cast = array.reshape(-1).astype(dtypes[name], copy=False)
        crcs[name] = google_crc32c.value(cast.view(np.uint8))
        yield name, array
    _refuse_others(lock, plan.mapping, crcs)


def _refuse_others(lock: Lock, mapping: Mapping, crcs: Dict[str, int]) -> None:
    if differing := [name for name, crc in lock.outputs.items() if crcs[name] != crc]:
        one = differing[0]
        both = f"crc32c {crcs[one]:08x}, locked {lock.outputs[one]:08x}"
        message = f"what comes out is not what was locked: {_named(differing)} ({both})"
        raise MappingError(outdated(mapping, message, mapping.map_at, tuple(map(shown, differing))))
