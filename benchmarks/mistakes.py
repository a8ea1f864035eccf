"""
Seeded mistakes in the gallery's mappings: is each noticed, is its place found, and its line?

    python -m benchmarks.mistakes [--only NAME] [--seed N] [--per-model N] [--data DIR] [--missed] [--json]

The mistakes are those of `mistaken_rules`, as many of each kind as of the others, in one rule as often as in a whole
row. One that moves no value by more than the proof tolerates is none, and is replaced by another; so is one that moves
values between two biases that are only ever added.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from benchmarks.gallery import CHECKPOINTS
from benchmarks.measure import ROOT, table
from benchmarks.mistaken_rules import Mistake, mistakes
from t2t import execute
from t2t import module as modules
from t2t import plan as planning
from t2t.job import Job
from t2t.plan import Plan
from t2t.proof import compare
from t2t.proof.diagnosis import Diagnosis, diagnose
from t2t.rules import Rule
from t2t.verification import Verify

#: The least share of mistakes whose outcome is so.
TARGETS = {"detected": 1.0, "place": 0.95, "line": 0.8}

Array = np.ndarray[Any, Any]


# --- what becomes of them ---


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one mistake; of an undetected one only that."""

    model: str
    kind: str
    what: str
    targets: list[str]
    detected: bool
    place: bool = False
    line: bool = False
    said_place: str = ""
    said: tuple[str, ...] = ()
    passes: bool = False
    seconds: float = 0.0


class Model:
    """A model of the gallery, filled and proven, in whose rules mistakes are made."""

    def __init__(self, name: str, job: Job) -> None:
        self.name, self.job = name, job
        recording = job.recording(required=True)
        assert recording is not None
        assert job.mapping.verify is not None
        self.recording, self.verify = recording, job.mapping.verify
        kept = [step.target for step in job.plan.steps if step.rule.keep]
        self.kept = {target: array.copy() for target, array in modules.values(job.module, kept).items()}
        self.right = self._values(job.plan)
        if not self._is_proven(job.plan, self.right):
            sys.exit(f"{name}: not proven without any mistake")

    def _plan(self, rules: Sequence[Rule]) -> Plan | None:
        """The plan of these rules in place of the mapping's, None where something doesn't fit."""
        mapping = replace(self.job.mapping, rules=tuple(rules))
        plan, problems = planning.make(mapping, self.job.checkpoint.inventory, self.job.inventory)
        return None if any(problem.severity == "error" for problem in problems) else plan

    def _values(self, plan: Plan) -> dict[str, Array]:
        return dict(execute.tensors(plan, self.job.checkpoint, self.kept))

    def _is_proven(self, plan: Plan, values: Mapping[str, Array]) -> bool:
        dtypes = {step.target: step.dtype for step in plan.steps}
        self.job.fill({name: modules.to_torch(array.copy(), dtypes[name]) for name, array in values.items()})
        return compare.compare(self.job.module, self.recording, self.verify).proven

    def outcomes(self, seed: int, most: int) -> Iterator[Outcome]:
        """At most so many mistakes, a kind at a time, in an order that `seed` gives."""
        chosen = random.Random(f"{seed} {self.name}")
        pools: dict[str, dict[bool, list[Mistake]]] = defaultdict(lambda: {False: [], True: []})
        for mistake in mistakes(self.job.module, self.job.plan):
            pools[mistake.kind][mistake.is_wide].append(mistake)
        kinds = chosen.sample(sorted(pools), len(pools))
        for pool in (pools[kind][is_wide] for kind in kinds for is_wide in (False, True)):
            chosen.shuffle(pool)
        made = 0
        while kinds and made < most:
            for kind in list(kinds):
                outcome = None
                while outcome is None and any(pools[kind].values()):
                    is_wide = bool(pools[kind][True]) and (not pools[kind][False] or chosen.random() < 1 / 2)
                    outcome = self._outcome(pools[kind][is_wide].pop())
                if outcome is None:
                    kinds.remove(kind)
                elif made < most:
                    made += 1
                    yield outcome

    def _outcome(self, mistake: Mistake) -> Outcome | None:
        """What becomes of it; None where it is none: it doesn't fit, or moves no value that anybody could notice."""
        swapped = {id(right): wrong for right, wrong in mistake.rules}
        plan = self._plan([swapped.get(id(rule), rule) for rule in self.job.mapping.rules])
        if plan is None:
            return None
        values = self._values(plan)
        if are_as_good(self.job.module, self.right, values, self.verify):
            return None
        said = (self.name, mistake.kind, mistake.what, mistake.targets)
        if self._is_proven(plan, values):
            return Outcome(*said, detected=False)
        start = time.perf_counter()
        try:
            found = diagnose(self.job.module, plan, self.job.checkpoint, self.recording, self.verify)
        except Exception as error:
            error.add_note(f"diagnosing {self.name}: {mistake.what}")
            raise
        seconds = time.perf_counter() - start
        return Outcome(
            *said,
            detected=True,
            place=is_place(found.place, mistake.targets),
            line=self._is_mended(plan, found),
            said_place=found.place,
            said=(*(repair.what for repair in found.repairs), *found.lines),
            passes=found.passes,
            seconds=seconds,
        )

    def _is_mended(self, plan: Plan, found: Diagnosis) -> bool:
        """Whether the mistaken rules with the repairs' in their place give the right values."""
        repaired = {(rule.target, rule.into): rule for repair in found.repairs for rule in repair.rules}
        mended = self._plan([repaired.get((rule.target, rule.into), rule) for rule in plan.mapping.rules])
        return mended is not None and are_as_good(self.job.module, self.right, self._values(mended), self.verify)


def is_place(place: str, targets: Sequence[str]) -> bool:
    """Whether that module owns one of the targets, or lies above or below the one that does."""
    owners = [target.rpartition(".")[0] for target in targets]
    return any(place == own or (bool(place) and _is_above(place, own)) for own in owners)


def _is_above(one: str, other: str) -> bool:
    return other.startswith(f"{one}.") or one.startswith(f"{other}.")


def are_as_good(module: nn.Module, right: Mapping[str, Array], other: Mapping[str, Array], verify: Verify) -> bool:
    """
    Whether each two values lie within what the proof tolerates of one between them: 2 (abs + rel x the largest).

    The largest is 1 at least: a bias of 1e-6 is lost in the sum that it is added to, and so is ten times as much.
    torch's LSTM has two biases and only adds them: their sum counts.
    """
    right, other = _summed(module, right), _summed(module, other)
    for name, array in right.items():
        numbers = array.astype(np.float64)
        tolerance = verify.abs + verify.rel * np.max(np.abs(numbers), initial=1.0)
        if np.max(np.abs(numbers - other[name]), initial=0.0) > 2 * tolerance:
            return False
    return True


def _summed(module: nn.Module, values: Mapping[str, Array]) -> dict[str, Array]:
    summed = dict(values)
    for name in values:
        twin = name.replace(".bias_ih_", ".bias_hh_")
        if twin != name and twin in values and isinstance(module.get_submodule(name.rpartition(".")[0]), nn.LSTM):
            summed[name] = values[name] + summed.pop(twin)
    return summed


# --- the command ---


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mistakes", description="Seeded mistakes, diagnosed.")
    parser.add_argument("--only", choices=CHECKPOINTS, metavar="NAME", action="append", help="this model (repeatable)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which mistakes (default: 0)")
    parser.add_argument("--per-model", type=int, default=12, metavar="N", help="at most so many (default: 12)")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", metavar="DIR", help="checkpoints")
    parser.add_argument("--missed", action="store_true", help="say what was said of each that was not found")
    parser.add_argument("--json", action="store_true", help="every outcome as JSON")
    given = parser.parse_args()
    outcomes: list[Outcome] = []
    for name in given.only or CHECKPOINTS:
        checkpoint = {"checkpoint": given.data / CHECKPOINTS[name]} if CHECKPOINTS[name] else {}
        with Job(ROOT / "mappings" / f"{name}.yaml", checkpoint) as job:  # type: ignore[arg-type]
            outcomes += Model(name, job).outcomes(given.seed, given.per_model)
        print(f"{name} done: {len(outcomes)} mistakes so far", file=sys.stderr)
    print(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) if given.json else shown(outcomes))
    if given.missed:
        print("\n".join(missed(outcomes)))
    if any(share(outcomes, what) < least for what, least in TARGETS.items()):
        sys.exit(1)


def share(outcomes: Sequence[Outcome], what: str) -> float:
    found = sum(1 for outcome in outcomes if getattr(outcome, what))
    return found / max(len(outcomes), 1)


def shown(outcomes: Sequence[Outcome]) -> str:
    """A row for each model, and the shares of all."""
    rows: list[tuple[str, ...]] = [("model", "mistakes", *TARGETS, "s each", "s at most")]
    for name, own in itertools.groupby(outcomes, key=lambda outcome: outcome.model):
        group = list(own)
        times = [outcome.seconds for outcome in group if outcome.detected] or [math.nan]
        counts = [str(sum(getattr(outcome, what) for outcome in group)) for what in TARGETS]
        rows.append((name, str(len(group)), *counts, f"{sum(times) / len(times):.1f}", f"{max(times):.1f}"))
    shares = [f"{share(outcomes, what):.1%}" for what in TARGETS]
    rows.append(("all", str(len(outcomes)), *shares, "", ""))
    rows.append(("target", "", *(f"{least:.0%}" for least in TARGETS.values()), "", ""))
    return table(rows)


def missed(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Each mistake that was not detected, or whose place or line was not found, with what was said instead."""
    for outcome in outcomes:
        if failed := [what for what in TARGETS if not getattr(outcome, what)]:
            yield f"\n{outcome.model}: {outcome.kind}: {outcome.what}\n  not found: {', '.join(failed)}"
            if outcome.detected:
                yield f"  said place {outcome.said_place!r}, passes {outcome.passes}"
                yield from (f"  said {text}" for text in outcome.said)


if __name__ == "__main__":
    main()
