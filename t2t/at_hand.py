"""
What is known here of a mapping's two sides: from the checkpoint, from its index alone, or from the lock.

    variables     the checkpoint or its index, where one can be opened; else what the lock says of it
    parameters    what the lock says of the module, where it is the mapping's; else nothing

Nothing is downloaded where a lock knows it, and nothing that a mapping names is imported.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from t2t import checkpoints
from t2t.checkpoints import Checkpoint
from t2t.checkpoints.files import is_address
from t2t.mapping import Mapping
from t2t.names import shown
from t2t.problems import CheckpointError, Location, Problem
from t2t.review import lock as locks
from t2t.review.lock import Lock
from t2t.review.stale import stale_checkpoint, stale_model, stale_source
from t2t.tensors import CheckpointInventory, ModuleInventory


@dataclass(frozen=True, slots=True)
class AtHand:
    """
    Both inventories as far as they are known, and where from: `opened` is the checkpoint, None where the lock speaks
    for it. `problems` are what stood in the way, and where the lock is stale by what it is of.
    """

    checkpoint: CheckpointInventory | None
    module: ModuleInventory | None
    opened: Checkpoint | None
    lock: Lock | None
    problems: tuple[Problem, ...]

    def __enter__(self) -> AtHand:
        return self

    def __exit__(self, *_: object) -> None:
        if self.opened is not None:
            self.opened.close()


def at_hand(mapping: Mapping, checkpoint: str | None = None, *, locked: bool = False) -> AtHand:
    """
    The mapping's two sides; a `checkpoint` that is given is opened whatever the lock says, and the lock is held against
    it only with `locked`; with that, no lock is an error (T2T509).
    """
    problems: list[Problem] = []
    lock = lock_of(mapping, problems, required=locked)
    other_model = stale_model(mapping, lock)
    problems += other_model
    problems += stale_checkpoint(mapping, lock) if checkpoint is None or locked else []
    names_differ = lock is not None and lock.names != mapping.names
    own = lock if not names_differ else None
    told = len(problems)
    opened = _opened(mapping, checkpoint, lock, problems)
    inventory = opened.inventory if opened is not None else None
    if opened is None and own is not None and len(problems) == told:  # it isn't here, and nothing else is the matter
        inventory = own.checkpoint
    if opened is not None and lock is not None and (checkpoint is None or locked) and not names_differ:
        problems += stale_source(mapping, lock, opened.inventory)
    module = lock.module if lock is not None and not other_model else None
    return AtHand(inventory, module, opened, lock, tuple(problems))


def has_lock(mapping: Mapping) -> bool:
    """Whether a lock lies beside the mapping, whatever is in it."""
    return os.path.lexists(locks.place(mapping.path))


def lock_of(mapping: Mapping, problems: list[Problem], *, required: bool = False) -> Lock | None:
    """The mapping's lock; None where there is none, or none that can be read, which is then one of the problems."""
    place = locks.place(mapping.path)
    if not has_lock(mapping):
        if required:
            hint = f"run t2t lock {shown(mapping.path)}"
            problems.append(Problem("T2T509", f"there is no lock at {shown(place)}", Location(mapping.path), hint))
        return None
    try:
        return locks.read(place)
    except CheckpointError as error:
        problems += error.problems
        return None


def _opened(mapping: Mapping, given: str | None, lock: Lock | None, problems: list[Problem]) -> Checkpoint | None:
    """
    The checkpoint, or its index where the data files are missing: names and shapes are in it, full names are not.

    None where the lock speaks for it (or is stale, which is told), or where it cannot be had, which is then one of the
    problems.
    """
    path = given or mapping.checkpoint
    if given is None and lock is not None and (not path or is_address(path)):
        return None
    if not path:
        problem = Problem("T2T601", "the mapping names no checkpoint", Location(mapping.path, 1, 1))
        problems.append(replace(problem, hint="give --checkpoint"))
        return None
    try:
        return checkpoints.open(path, names=mapping.names)
    except CheckpointError as error:
        may_speak = lock is not None and given is None
        is_alone = checkpoints.are_missing(error.problems)
        alone = checkpoints.open_index(path) if is_alone and mapping.names == "key" else None
        if not may_speak or not (is_alone or {problem.code for problem in error.problems} == {"T2T601"}):
            is_asked = given is None and lock is None
            problems += [_at_its_row(mapping, problem) if is_asked else problem for problem in error.problems]
        return alone


def _at_its_row(mapping: Mapping, problem: Problem) -> Problem:
    """A checkpoint that isn't there, told where the mapping names it, and what would stand for it."""
    if problem.code != "T2T601" or problem.at is None or problem.at.line is not None:
        return problem
    hint = f"{problem.hint}; or {_LOCK}" if problem.hint else _LOCK
    return replace(problem, message=f"{shown(problem.at.path)}: {problem.message}", at=mapping.source_at, hint=hint)


#: What makes a mapping known without its weights.
_LOCK = "t2t lock, where the weights are, writes down what is needed of them"
