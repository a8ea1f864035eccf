"""
What a command's result says: lines and tables for a person, one document for a program.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from t2t import explanation as explanations
from t2t.console import Console, as_number, counted, printable, sized
from t2t.names import shown
from t2t.problems import Problem, as_json
from t2t.tensors import elements

if TYPE_CHECKING:
    from t2t.api import Conversion
    from t2t.explanation import Explanation
    from t2t.proof.compare import Comparison, OutputDelta
    from t2t.proof.diagnosis import Diagnosis
    from t2t.proof.mutate import Mutations
    from t2t.proof.recording import Recording


def conversion(screen: Console, done: Conversion) -> None:
    """What was written, how every element is accounted for, and whether it is proven."""
    sources, ignored = done.plan.sources, done.plan.ignored
    from_rows = [step for step in done.plan.steps if step.sources]
    others = Counter(
        "tied" if step.rule.tie else "kept" if step.rule.keep else "filled"
        for step in done.plan.steps
        if not step.sources
    )
    if screen.is_document:
        screen.document(
            {
                "output": done.path,
                "bytes": done.nbytes,
                "shards": done.shards,
                "parameters": len(done.plan.steps),
                "variables": {"mapped": len(sources), "ignored": dict(ignored)},
                "proof": _comparison_json(done.comparison) if done.comparison else {"unproven": done.unproven},
            }
        )
        return
    count = sum(step.elements for step in done.plan.steps)
    parts = [f"{len(from_rows)} from variables", *(f"{n} {how}" for how, n in others.items())]
    screen.say(f"{counted(len(done.plan.steps), 'parameter')} ({count:,} elements): {', '.join(parts)}")
    reasons = Counter(ignored.values())
    left = "".join(f", {n} ignored: {shown(why)}" for why, n in reasons.items())
    total = len(sources) + len(ignored)
    screen.say(f"{counted(total, 'variable')}: {len(sources)} mapped ({elements(sources):,} elements){left}")
    shards = f" and its {counted(done.shards, 'shard')}" if done.shards else ""
    screen.say(printable(f"wrote {done.path}{shards} ({sized(done.nbytes)})"))
    if done.comparison:
        comparison(screen, done.comparison)
    else:
        screen.say(f"not proven: {done.unproven}", colour="yellow")


def comparison(screen: Console, comparison: Comparison, problems: Sequence[Problem] = ()) -> None:
    """The figures of both sides, and the verdict; `problems` are the same for whoever asked for nothing else."""
    if screen.is_document:
        screen.document(
            {**_comparison_json(comparison), "problems": [as_json(problem) for problem in problems]}, problems
        )
        return
    runs: dict[tuple[str, int], list[OutputDelta]] = {}
    for delta in comparison.outputs:
        runs.setdefault((delta.output, delta.draw), []).append(delta)
    for steps in runs.values():
        # Of the steps of one draw the worst speaks for all.
        delta = max(steps, key=lambda one: (not one.holds, one.max_delta / (one.tolerance or 1)))
        sign = "<=" if delta.holds else "exceeds"
        where = [f"draw {delta.draw}"] if delta.draw else []
        where += [f"step {delta.step}, the worst of {len(steps)}"] if len(steps) > 1 else []
        run = f" ({', '.join(where)})" if where else ""
        screen.say(
            f"{shown(delta.output)} {list(delta.shape)}{run}: max|Δ| {delta.max_delta:.3g} {sign} "
            f"{delta.tolerance:.3g}, where max|TF| is {delta.scale:.3g}"
        )
    if metric := comparison.metric:
        screen.say(
            f"{metric.name} on {metric.count} labelled inputs: TensorFlow {metric.reference:.4f}, "
            f"torch {metric.torch:.4f}"
        )
    how = f" in {comparison.dtype} within {comparison.verify.rel:g} (rel)" if comparison.dtype else ""
    how += f" on {comparison.device}" if comparison.device != "cpu" else ""
    proven = "proven" if comparison.proven else "not proven"
    screen.say(proven + how, colour="green" if comparison.proven else "red")
    if comparison.diagnosis is not None:
        _diagnosis(screen, comparison.diagnosis)
    screen.listed(problems, sys.stdout)


def _diagnosis(screen: Console, diagnosis: Diagnosis) -> None:
    """The layers around the first that differs (with `full` all of them), and what would have passed."""
    from t2t.proof import told

    whole = screen.format == "full"
    if rows := told.table(diagnosis, whole=whole):
        screen.table(told.HEADER, rows)
    for line in told.lines(diagnosis, whole=whole):
        screen.say(printable(line))


def recording(screen: Console, place: str, recording: Recording) -> None:
    """Where the recording is and what it holds."""
    outputs = {name: list(array.shape) for name, array in recording.draws[0].outputs.items()}
    layers = len(recording.inside.layers)
    if screen.is_document:
        draws = len(recording.draws) // recording.steps
        made_of = {"draws": draws, "steps": recording.steps, "outputs": outputs, "layers": layers}
        screen.document({"recording": place, "key": recording.key, **made_of})
        return
    told = ", ".join(f"{shown(name)} {shape}" for name, shape in outputs.items())
    made_by = ", ".join(f"{name} {version}" for name, version in recording.made_by.items())
    count = counted(len(recording.draws) // recording.steps, "draw")
    steps = f", {recording.steps} steps each," if recording.steps > 1 else ""
    told += f", {counted(layers, 'layer')}" if layers else ""
    screen.say(printable(f"wrote {place}: {count}{steps} of {told}, by {made_by}"))


def mutations(screen: Console, done: Mutations, problems: Sequence[Problem]) -> None:
    """The mistakes that the recording does not catch, and how many it does; `problems` are those of `done`."""
    if screen.is_document:
        screen.document({**_mutations_json(done), "problems": [as_json(problem) for problem in problems]}, problems)
        return
    screen.listed(problems, sys.stdout)
    if screen.format == "full" and done.counts:
        rows = [
            [kind, *(f"{n:,}" for n in (c.made, c.caught, c.survived, c.equivalent, c.indistinguishable))]
            for kind, c in done.counts.items()
        ]
        screen.table(["mistakes", "made", "caught", "survived", "equivalent", "indistinguishable"], rows)
    total = done.total
    others = [f"{total.equivalent:,} equivalent"] if total.equivalent else []
    if total.indistinguishable:
        others.append(f"{counted(total.indistinguishable, 'indistinguishable pair')}")
    told = f"{total.caught:,} of {counted(total.caught + total.survived, 'mistake')} caught"
    told += f" ({', '.join(others)})" if others else ""
    if done.possible > total.made:
        told += f"; made {total.made:,} of {done.possible:,} that are possible, by seed {done.seed}"
    screen.say(told, colour="red" if total.survived else "green")


def explanation(screen: Console, explanation: Explanation) -> None:
    """Where a parameter comes from, in words."""
    if screen.is_document:
        screen.document(explanations.as_json(explanation))
        return
    for line in explanations.in_words(explanation):
        screen.say(line)


def recipes(screen: Console, recipes: Mapping[str, str]) -> None:
    """Recipes as they are written."""
    if screen.is_document:
        screen.document(dict(recipes))
        return
    for text in recipes.values():
        screen.say(text + ("\n" if len(recipes) > 1 else ""))


def recipe(screen: Console, text: str, applied: Sequence[Explanation]) -> None:
    """One recipe, and what it makes of some variables."""
    if screen.is_document:
        screen.document({explanation.rules[0].target: explanations.as_json(explanation) for explanation in applied})
        return
    screen.say(f"{text}\n")
    for explanation in applied:
        for line in explanations.in_words(explanation, places=False):
            screen.say(line)


def _mutations_json(done: Mutations) -> dict[str, Any]:
    total = done.total
    return {
        "caught": total.caught,
        "survived": total.survived,
        "equivalent": total.equivalent,
        "indistinguishable": [list(mistake.targets) for mistake in done.indistinguishable],
        "possible": done.possible,
        "seed": done.seed,
        "kinds": {kind: asdict(counts) for kind, counts in done.counts.items()},
        "survivors": [
            {
                "kind": survivor.mistake.kind,
                "targets": list(survivor.mistake.targets),
                "mistake": survivor.mistake.text,
                "at": str(survivor.mistake.at),
                "change": as_number(survivor.change),
                "output": survivor.output,
                "max_delta": as_number(survivor.max_delta),
                "tolerance": as_number(survivor.tolerance),
            }
            for survivor in done.survivors
        ],
    }


def _comparison_json(comparison: Comparison) -> dict[str, Any]:
    metric = comparison.metric
    return {
        "proven": comparison.proven,
        "dtype": comparison.dtype,
        "device": comparison.device,
        "outputs": [
            {
                "output": delta.output,
                "draw": delta.draw,
                "shape": list(delta.shape),
                "max_delta": as_number(delta.max_delta),
                "scale": as_number(delta.scale),
                "tolerance": as_number(delta.tolerance),
                "holds": delta.holds,
            }
            for delta in comparison.outputs
        ],
        "metric": None
        if metric is None
        else {"name": metric.name, "tensorflow": metric.reference, "torch": metric.torch, "count": metric.count},
        **_diagnosis_json(comparison.diagnosis),
    }


def _diagnosis_json(diagnosis: Diagnosis | None) -> dict[str, Any]:
    if diagnosis is None:
        return {}
    from t2t.proof import told

    return {"diagnosis": told.as_json(diagnosis)}
