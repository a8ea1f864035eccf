"""
The jobs that run no code: what can be said of a mapping by itself, its lock and what lies beside it. No value is read,
but where `fix` renews a lock.

They are part of the API (see t2t.api). Neither torch nor TensorFlow is imported.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from t2t import grammar
from t2t import mapping as mapping_file
from t2t import plan as planning
from t2t.explanation import Explanation
from t2t.names import did_you_mean, shown
from t2t.places import mapping_bytes, original_path, read_mapping
from t2t.problems import CheckpointError, Location, MappingError, OutputError, Problem, in_file_order
from t2t.recipes import texts
from t2t.tensors import CheckpointInventory, TensorRef

if TYPE_CHECKING:
    from t2t.review.diff import Diff
    from t2t.review.fmt import Formatted


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found, in file order, and whether the lock spoke for the checkpoint, which is not here."""

    problems: Sequence[Problem]
    by_lock: bool


def check(mapping: str | os.PathLike[str], *, checkpoint: str | None = None, locked: bool = False) -> list[Problem]:
    """What is wrong with a mapping: the problems that `checked` finds."""
    return list(checked(mapping, checkpoint=checkpoint, locked=locked).problems)


def checked(mapping: str | os.PathLike[str], *, checkpoint: str | None = None, locked: bool = False) -> Checked:
    """
    Everything that can be known about a mapping without its weights and without running code, in file order.

    A file that cannot be read is one of the problems. Variables are those of the checkpoint, of its index alone or of
    the lock, whichever is here; parameters are those of the lock, and without one a note says that they are not
    checked. The mapping is held against its lock, its recording and, where it is at hand, the original's graph. With
    `locked`, no lock is a problem, too.
    """
    from t2t.at_hand import at_hand, has_lock
    from t2t.proof.graph_file import graph_file
    from t2t.review.stale import stale

    problems: list[Problem] = []
    by_lock = False
    try:
        read, problems = read_mapping(mapping)
        if read is None or (problems and not read.checkpoint and checkpoint is None and not has_lock(read)):
            return Checked(problems, by_lock)
        is_whole = not any(problem.severity == "error" for problem in problems)
        with at_hand(read, checkpoint, locked=locked) as hand:
            problems += hand.problems
            if hand.checkpoint is None:
                return Checked(in_file_order(problems), by_lock)
            by_lock = hand.opened is None
            plan, found = planning.make(read, hand.checkpoint, hand.module)
            if has_lock(read):  # what is the matter with it is told already
                message = "parameters not checked: the lock cannot be used"
                found = [replace(p, message=message, hint="") if p.code == "T2T210" else p for p in found]
            # What a reader warns of by its file, the plan may know by the row.
            told = {problem.message for problem in found}
            notes = hand.opened.notes if hand.opened is not None else ()
            problems += [*(note for note in notes if note.message not in told), *found]
            path = hand.opened.path if hand.opened is not None else read.checkpoint
            original = ""
            if read.verify is not None:
                original = original_path(read, hand.opened, checkpoint)
            if graph_file(read, path, original) is not None:
                from t2t.proof import lint

                problems += lint.findings(plan, path, original)
            if hand.lock is not None and hand.module is not None and (checkpoint is None or locked):
                from t2t.review.stale_proof import stale_proof

                problems += stale(plan, hand.lock)
                if is_whole or read.verify is not None:  # else what is wrong with it is told already
                    problems += stale_proof(read, hand.lock, required=locked)
            is_known = hand.opened is not None or (hand.lock is not None and not hand.lock.is_of_names)
            if checkpoint is None and is_known and hand.checkpoint.is_cheap and read.verify is not None:
                from t2t.review.stale_proof import stale_recording

                problems += [p for p in stale_recording(read, hand.checkpoint.digest, original) if p not in problems]
    except CheckpointError as error:
        problems += error.problems
    return Checked(in_file_order(problems), by_lock)


def fmt(paths: Sequence[str | os.PathLike[str]], *, check: bool = False) -> list[Formatted]:
    """
    Formats mappings in place; a directory stands for the mappings in it, no path for those under mappings/. With
    `check` nothing is written.

    A file that cannot be read, formatted or written is left as it is, and says so by its problems. Raises UsageError
    for a directory without mappings.
    """
    from t2t.review import fmt as formatter
    from t2t.review.paths import mappings

    done = []
    for path in mappings([os.fspath(path) for path in paths]):
        try:
            made, one = formatter.formatted(mapping_bytes(path), path)
            if one.lines and not check:
                formatter.replace(path, made)
        except (CheckpointError, OutputError) as error:
            one = formatter.Formatted(path, problems=error.problems)
        done.append(one)
    return done


def fix(mapping: str | os.PathLike[str], *, checkpoint: str | None = None) -> list[Problem]:
    """
    Writes into a mapping what has one answer (a misspelt key or name), and into a lock of another version of t2t the
    digests as this one makes them, where the weights are here and give what was locked. Returns the problems that are
    gone.

    Raises OutputError where a file cannot be written.
    """
    from t2t.relock import relocked
    from t2t.review import fix as fixes
    from t2t.review import fmt
    from t2t.review.locking import save

    name, found = os.fspath(mapping), check(mapping, checkpoint=checkpoint)
    if any(problem.fix for problem in found):
        data, done = fixes.fixed(mapping_bytes(name), name, found)
        if done:
            fmt.replace(name, data)
    read, _ = read_mapping(mapping) if os.path.isfile(name) else (None, [])
    if read is not None and any(p.code == "T2T508" for p in found) and (lock := relocked(read)) is not None:
        save(lock)
    left = {(problem.code, problem.message) for problem in check(mapping, checkpoint=checkpoint)}
    return [problem for problem in found if (problem.code, problem.message) not in left]


def explain(mapping: str | os.PathLike[str], parameter: str, *, checkpoint: str | None = None) -> Explanation:
    """
    Which rows write `parameter`, from which variables and how; without the checkpoint, as its lock knows it.

    Raises MappingError, CheckpointError.
    """
    from t2t.at_hand import at_hand

    read, problems = read_mapping(mapping)
    if read is None:
        raise MappingError(problems)
    rules = tuple(rule for rule in read.rules if rule.target == parameter)
    if not rules:
        message = f"'{shown(parameter)}' is written by no row"
        fed = [shown(rule.target) for rule in read.rules if parameter in rule.sources]
        targets = [rule.target for rule in read.rules]
        below = [target for target in targets if target.startswith(f"{parameter}.")]
        hint = did_you_mean(parameter, targets)
        if fed:
            hint = f"it is the variable that {', '.join(fed)} comes from"
        elif below:
            hint = f"it holds {', '.join(map(shown, below[:4]))}{', ...' if len(below) > 4 else ''}"
        raise MappingError(Problem("T2T202", message, Location(os.fspath(mapping)), hint))
    with at_hand(read, checkpoint) as hand:
        if hand.checkpoint is None:
            raise CheckpointError(hand.problems)
        plan, found = planning.make(read, hand.checkpoint, None)
        errors = in_file_order(p for p in [*problems, *found] if p.severity == "error")
        lines = {place.line for rule in rules for place in (rule.at, *rule.places.values())}
        mine = [p for p in errors if p.at and p.at.line in lines]
        step = next((step for step in plan.steps if step.target == parameter), None)
        if mine or (step is None and any(rule.sources for rule in rules)):
            raise MappingError(mine or errors)
    ties = tuple(other for other in read.rules if other.tie == parameter)
    return Explanation(rules, step, ties)


def schema(
    mapping: str | os.PathLike[str] | None = None,
    *,
    checkpoint: str | None = None,
    note: Callable[[Problem], None] = lambda problem: None,
) -> str:
    """
    The JSON schema of the mapping language; with a mapping, that with the names which are known of its two sides.

    Raises MappingError, CheckpointError.
    """
    from t2t.at_hand import at_hand
    from t2t.review import names_schema

    if mapping is None:
        return grammar.text()
    read, problems = read_mapping(mapping)
    if read is None:
        raise MappingError(problems)
    with at_hand(read, checkpoint) as hand:
        if hand.checkpoint is None:
            raise CheckpointError(hand.problems)
        for problem in hand.problems:
            note(problem)
        return names_schema.text(names_schema.named(read, hand.checkpoint, hand.module))


def diff(base: str, head: str | None = None, paths: Sequence[str] = (), *, merge_base: bool = False) -> Diff:
    """
    What changed between two mappings, two directories of them, or two revisions of the git repository here.

    Of a revision those at `paths` are compared, files or directories (`mappings` where none is named); without a
    `head`, with the files as they are now. `merge_base` makes the base the last commit that both have in common.
    Nothing is imported, no checkpoint is read. Raises UsageError where a side cannot be had; why a mapping cannot be
    compared is among the problems of the result.
    """
    from t2t.review import diff as differences
    from t2t.review.revisions import pairs

    found = pairs(base, head, paths, merge_base=merge_base)
    return differences.compared(base, head, found)


def recipes() -> dict[str, str]:
    """The built-in recipes: each name, and its rows as they are written."""
    return texts()


def apply_recipe(
    name: str,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    values: Mapping[str, int | float | str] | None = None,
    dims: Mapping[str, int] | None = None,
) -> list[Explanation]:
    """
    What a recipe makes of float32 variables of these shapes, by its own names; `values` are its `with`.

    Raises MappingError where it doesn't fit them.
    """
    row: dict[str, Any] = {"tf": "", "torch": "", "use": name}
    row |= {"with": dict(values)} if values else {}
    row |= {"dims": dict(dims)} if dims else {}
    tree = {"t2t": 1, "model": "a:A", "source": {}, "map": [row]}
    read, problems = mapping_file.read(json.dumps(tree).encode(), f"recipe {shown(name)}")
    refs = {variable: TensorRef(variable, "float32", shape) for variable, shape in shapes.items()}
    plan, found = planning.make(read, CheckpointInventory(refs), None) if read and not problems else (None, [])
    if errors := [problem for problem in (*problems, *found) if problem.severity == "error"]:
        # Where they stand in a file that nobody wrote is no help.
        raise MappingError([replace(problem, at=None) for problem in errors])
    assert read is not None
    assert plan is not None
    steps = {step.target: step for step in plan.steps}
    targets = dict.fromkeys(rule.target for rule in read.rules)
    applied = {target: tuple(rule for rule in read.rules if rule.target == target) for target in targets}
    return [
        Explanation(own, steps.get(target), ())
        for target, own in applied.items()
        if target in steps or not any(rule.sources for rule in own)
    ]
