"""
What a report of a mapping says, as values: the verdict, how every element is accounted for, layers, where all is from.

What is drawn of them holds no path of this machine and no time, so that the same input gives the same page. How it is
drawn is the business of `t2t.review.page`.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import t2t
from t2t.checkpoints import Checkpoint
from t2t.document import MAX_BYTES
from t2t.mapping import Mapping as MappingFile
from t2t.names import shown
from t2t.plan import Plan
from t2t.problems import Location, MappingError, ModuleError, Problem
from t2t.review import accounts, figures
from t2t.review.accounts import Group, Row
from t2t.review.figures import Channels, Histogram, Spread, Spreads
from t2t.tensors import ModuleInventory, Shape
from t2t.verification import Verify
from t2t.writers.atomic import replacing

if TYPE_CHECKING:
    from torch import nn

    from t2t.proof.compare import Comparison, Metric, OutputDelta
    from t2t.proof.diagnosis import Diagnosis
    from t2t.proof.difference import Call, End, Trace
    from t2t.proof.recording import Recording

Verdict = Literal["proven", "differs", "unproven"]

#: What each report begins with, and nothing else does: only such a file is replaced.
BEGINNING = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="generator" content="t2t report '
)

#: So many of a checkpoint's files are named.
MAX_FILES = 6

#: Of so many layers the values are drawn.
MAX_LOOKED = 4


@dataclass(frozen=True, slots=True)
class Output:
    """One output over all its runs: the worst of them, how many there are, and how its differences are spread."""

    worst: OutputDelta
    runs: int
    spread: Spread

    @property
    def holds(self) -> bool:
        """Whether all runs are within their tolerance: the worst is."""
        return self.worst.holds


@dataclass(frozen=True, slots=True)
class Looked:
    """One end of the trace's call `number`: both sides' values, and in which channels they differ."""

    number: int
    is_input: bool
    values: Histogram
    channels: Channels | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """
    What running the module gave. `trace` is None where layers cannot be held against the recording; `quoted` are the
    lines of the mapping that a diagnosis replaces.
    """

    comparison: Comparison
    spreads: Spreads
    trace: Trace | None
    quoted: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """
    All that a page says. `problems` are what decides the command's exit status, as it says them; `findings` are the
    same as the page says them. `why` says why nothing is proven, "" where something was compared. `origin` are where
    everything is from: a word, and what it stands for.
    """

    title: str
    model: str
    verdict: Verdict
    why: str
    problems: tuple[Problem, ...]
    findings: tuple[Problem, ...]
    notes: tuple[Problem, ...]
    variables: tuple[Group, ...]
    parameters: tuple[Group, ...]
    rows: tuple[Row, ...]
    outputs: tuple[Output, ...]
    metric: Metric | None
    trace: Trace | None
    looked: tuple[Looked, ...]
    diagnosis: Diagnosis | None
    quoted: tuple[tuple[int, str], ...]
    origin: tuple[tuple[str, str], ...]

    @property
    def first(self) -> int | None:
        """Which call of the trace is the first that differs, the diagnosis' where there is one."""
        if self.diagnosis is not None:
            return self.diagnosis.first
        return self.trace.first if self.trace is not None else None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a report knows beside the plan: `unproven` says why nobody asked for a proof, where that is so."""

    checkpoint: Checkpoint
    recording_place: str = ""
    recording: Recording | None = None
    unproven: str = ""
    notes: tuple[Problem, ...] = ()


def make(
    plan: Plan,
    module: ModuleInventory,
    found: Evidence | None,
    around: Surroundings,
    *,
    missing: Sequence[Problem] = (),
) -> Report:
    """The report; without evidence, `missing` are the problems that stand in its way."""
    comparison = found.comparison if found is not None else None
    local = _localised(plan.mapping, around)
    problems = tuple(comparison.problems() if comparison is not None else missing)
    findings = tuple(_without_paths(problem, local) for problem in problems)
    verdict: Verdict = "unproven" if comparison is None else "proven" if comparison.proven else "differs"
    trace = found.trace if found is not None else None
    diagnosis = comparison.diagnosis if comparison is not None else None
    return Report(
        title=os.path.basename(plan.mapping.path),
        model=plan.mapping.model,
        verdict=verdict,
        why=""
        if comparison is not None
        else "; ".join(one.message.removeprefix("not proven: ") for one in findings) or around.unproven,
        problems=problems,
        findings=findings,
        # What is imported is told while it happens; what was looked at stays worth knowing.
        notes=tuple(_without_paths(note, local) for note in around.notes if note.code not in {"T2T700", "T2T806"}),
        variables=accounts.variables(plan),
        parameters=accounts.parameters(plan),
        rows=accounts.rows(plan, module),
        outputs=_outputs(found) if found is not None else (),
        metric=comparison.metric if comparison is not None else None,
        trace=trace,
        looked=_looked(trace, diagnosis, plan) if trace is not None else (),
        diagnosis=diagnosis,
        quoted=found.quoted if found is not None else (),
        origin=tuple(_origin(plan, around)),
    )


def _without_paths(problem: Problem, local: Callable[[str], str]) -> Problem:
    at = problem.at and replace(problem.at, path=os.path.basename(problem.at.path))
    details = tuple(map(local, problem.details))
    return replace(problem, at=at, message=local(problem.message), hint=local(problem.hint), details=details)


def _localised(mapping: MappingFile, around: Surroundings) -> Callable[[str], str]:
    """What leaves only the last part of this run's paths in a text, as they were given and from the root."""
    paths = [mapping.path, around.checkpoint.path, mapping.checkpoint, around.recording_place, *around.checkpoint.files]
    if (verify := mapping.verify) is not None:
        paths += [verify.reference.path, *(entry.path for entry in verify.inputs)]
    given = {form for path in paths if path for form in (path, os.path.normpath(path), os.path.abspath(path))}
    known = sorted((path for path in given if os.path.basename(path) != path), key=len, reverse=True)
    if not known:
        return str
    pattern = re.compile("|".join(map(re.escape, known)))
    return lambda text: pattern.sub(lambda match: os.path.basename(match[0].rstrip("/")), text)


def _origin(plan: Plan, around: Surroundings) -> Iterator[tuple[str, str]]:
    """Where everything is from: names of files without their directories, digests, versions."""
    mapping = plan.mapping
    yield "mapping", os.path.basename(mapping.path)
    yield "mapping's digest", mapping.digest
    yield "model", mapping.model
    yield "checkpoint", os.path.basename(around.checkpoint.path.rstrip("/"))
    files = [os.path.basename(file) for file in around.checkpoint.files]
    more = f" and {len(files) - MAX_FILES} more" if len(files) > MAX_FILES else ""
    yield "its files", ", ".join(files[:MAX_FILES]) + more
    yield "its digest", plan.checkpoint.digest
    if (verify := mapping.verify) is not None:
        written = verify.reference.written
        original = written if verify.reference.kind == "call" else os.path.basename(written.rstrip("/"))
        yield "original", f"{verify.reference.kind} {original}"
        yield "tolerance", f"{verify.abs:g} + {verify.rel:g} x max|TF|"
    if (recording := around.recording) is not None:
        yield "recording", os.path.basename(around.recording_place)
        yield "its key", recording.key
        yield "recorded with", ", ".join(f"{library} {version}" for library, version in recording.made_by.items())
        runs = f"{len(recording.draws) // recording.steps}" + (
            f" of {recording.steps} steps" if recording.steps > 1 else ""
        )
        yield "draws", runs
    versions = {"t2t": t2t.__version__, "torch": metadata.version("torch"), "numpy": np.__version__}
    yield "compared with" if recording is not None else "read with", ", ".join(map(" ".join, versions.items()))


# --- evidence ---


def evidence(
    module: nn.Module,
    plan: Plan,
    recording: Recording,
    verify: Verify,
    *,
    diagnosed: Callable[[Comparison], Comparison],
    note: Callable[[Problem], None],
) -> Evidence:
    """
    Run the filled module on the recording. `diagnosed` gives a comparison that is not proven its diagnosis, if it is to
    have one; `note` hears why layers cannot be looked at. Raises what `compare` does.
    """
    from t2t.proof.compare import compare
    from t2t.proof.difference import Pairs

    spreads = Spreads()
    comparison = compare(module, recording, verify, seen=spreads.see)
    if not comparison.proven:
        comparison = diagnosed(comparison)
    if (diagnosis := comparison.diagnosis) is not None:
        return Evidence(comparison, spreads, diagnosis.trace, _quoted(plan.mapping, diagnosis.replaces))
    trace = None
    try:
        trace = Pairs(module, plan, recording, verify).trace()
    except (MappingError, ModuleError) as error:
        # The verdict stands without its layers.
        for problem in error.problems:
            note(replace(problem, severity="warning"))
    return Evidence(comparison, spreads, trace)


def _quoted(mapping: MappingFile, lines: Sequence[int]) -> tuple[tuple[int, str], ...]:
    """These lines of the file, as long as it is the one that was read."""
    with open(mapping.path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if hashlib.sha256(data).hexdigest() != mapping.digest:
        return ()
    text = data.decode("utf-8-sig").splitlines()
    return tuple((line, text[line - 1]) for line in lines if line <= len(text))


def _outputs(evidence: Evidence) -> tuple[Output, ...]:
    runs: dict[str, list[OutputDelta]] = {}
    for delta in evidence.comparison.outputs:
        runs.setdefault(delta.output, []).append(delta)
    return tuple(
        Output(max(deltas, key=excess), len(deltas), evidence.spreads.of(name)) for name, deltas in runs.items()
    )


def excess(delta: OutputDelta | End) -> float:
    """How many times the tolerance a difference is; infinite where it isn't finite, or nothing is tolerated."""
    if not math.isfinite(delta.max_delta):
        return math.inf
    return delta.max_delta / delta.tolerance if delta.tolerance else math.inf if delta.max_delta else 0.0


def shown_end(call: Call) -> End | None:
    """The end of a call that a chart shows: what comes out or, where nothing is known of that, what goes in."""
    if call.output is not None and call.output.verdict != "unlike":
        return call.output
    return call.input if call.input is not None and call.input.verdict != "unlike" else call.output or call.input


def _looked(trace: Trace, diagnosis: Diagnosis | None, plan: Plan) -> tuple[Looked, ...]:
    """The first call that differs and those that differ most or, where none does, those that come nearest to it."""
    first = diagnosis.first if diagnosis is not None else trace.first
    ends = [(number, call, end) for number, call in enumerate(trace.calls) if (end := shown_end(call)) is not None]
    known = [
        one for one in ends if one[2].values is not None and one[2].values.places.size and one[2].verdict != "unlike"
    ]
    if first is not None:  # what agrees is of no interest then
        known = [one for one in known if one[1].differs]
    known.sort(key=lambda one: (one[0] != first, -excess(one[2]), one[0]))
    sizes = _sizes(plan)
    return tuple(
        _look(number, call, end, sizes.get(call.module, 0))
        for number, call, end in sorted(known[:MAX_LOOKED], key=lambda one: one[0])
    )


def _sizes(plan: Plan) -> dict[str, int]:
    """How many channels the module of each path gives: the length of its vectors, else its first matrix' first axis."""
    sizes: dict[str, int] = {}
    for step in sorted(plan.steps, key=lambda step: len(step.shape)):
        if step.shape:
            sizes.setdefault(step.target.rpartition(".")[0], step.shape[0])
    return sizes


def _look(number: int, call: Call, end: End, size: int) -> Looked:
    assert end.values is not None
    axis = _channel_axis(call.kind, end.own, size)
    channels = None if axis is None else figures.channels(end.values, end.own, axis)
    return Looked(number, end is call.input, figures.histogram(end.values), channels)


def _channel_axis(kind: str, shape: Shape, size: int) -> int | None:
    """Channels are the last axis or, in torch's layers over maps, the second; the one that has the module's size."""
    if len(shape) < 2:
        return None
    over_maps = len(shape) > 2 and ("Conv" in kind or "BatchNorm" in kind or len(shape) > 3)
    axis, other = (1, len(shape) - 1) if over_maps else (len(shape) - 1, 1)
    return other if shape[axis] != size == shape[other] else axis


# --- the file ---


def save(place: str, page: str, *, force: bool = False, note: Callable[[Problem], None] = lambda problem: None) -> None:
    """
    Write the page in one step. Raises OutputError: T2T801 where another kind of file is in the way (unless `force`),
    T2T802 or T2T803 where it cannot be written.
    """
    data = page.encode()
    with replacing(place, len(data), is_report, force=force, note=note) as temporary:
        temporary.write(data, 0)


def is_report(path: str) -> bool:
    """Whether the file is a report of t2t's. Raises OSError where it cannot be read."""
    with open(path, "rb") as file:
        return file.read(len(BEGINNING)) == BEGINNING.encode()


# --- for the command line ---


def lines(report: Report, place: str) -> list[str]:
    """What was written, and the verdict."""
    worst = max((output.worst for output in report.outputs), key=excess, default=None)
    verdict = f"not proven: {report.why}"
    if worst is not None:
        sign = "<=" if worst.holds else "exceeds"
        verdict = f"{report.verdict}, max|Δ| {worst.max_delta:.3g} {sign} {worst.tolerance:.3g}"
    return [f"wrote {shown(place)}: {verdict}"]


def as_json(report: Report, place: str) -> dict[str, Any]:
    """The same for programs."""
    return {
        "report": place,
        "verdict": report.verdict,
        "why": report.why or None,
        "problems": [_problem_json(problem) for problem in report.problems],
    }


def _problem_json(problem: Problem) -> dict[str, Any]:
    at = problem.at or Location("")
    place = {"path": at.path or None, "line": at.line, "column": at.column}
    said = {"message": problem.message, "hint": problem.hint, "details": list(problem.details)}
    return {"code": problem.code, "severity": problem.severity, **place, **said}
