"""
Making a lock, and the file that it is: the same bytes for the same lock, an entry a line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from t2t.names import natural
from t2t.plan import Plan
from t2t.problems import Location, OutputError, Problem
from t2t.review import assignments
from t2t.review.lock import (
    FORMAT,
    KEY,
    MAX_BYTES,
    Figures,
    Lock,
    Proof,
    as_written,
    marked,
    names_alone,
    rounded,
    tolerance,
)
from t2t.tensors import ModuleInventory, ParameterRef, TensorRef
from t2t.writers.atomic import replacing

if TYPE_CHECKING:
    from t2t.proof.compare import Comparison, OutputDelta
    from t2t.proof.recording import Recording

T = TypeVar("T")


def made(
    path: str,
    plan: Plan,
    module: ModuleInventory,
    *,
    outputs: Mapping[str, int],
    require: Mapping[str, Mapping[str, Mapping[str, Any]]],
    proof: Proof,
    made_by: Mapping[str, str],
) -> Lock:
    """
    The lock of a plan against this module; `outputs` are the checksums of what it gives. Without any it is of names and
    shapes alone.
    """
    mapping = plan.mapping
    assert mapping.arguments is not None
    checkpoint = plan.checkpoint if outputs or not module.parameters else names_alone(plan.checkpoint)
    return Lock(
        path=path,
        model=mapping.model,
        arguments=mapping.arguments,
        names=mapping.names,
        written=as_written(mapping),
        source=checkpoint.digest,
        checkpoint=checkpoint,
        module=module,
        steps={step.target: assignments.digest(step, mapping.output.dtype) for step in plan.steps},
        outputs=outputs,
        require=require,
        proof=proof,
        made_by=made_by,
    )


def proof(recording: Recording, comparison: Comparison) -> Proof:
    """The figures of a comparison that holds: of each output those of the run that comes nearest to its tolerance."""
    worst: dict[str, OutputDelta] = {}
    for delta in comparison.outputs:
        known = worst.get(delta.output)
        if known is None or delta.max_delta * known.tolerance > known.max_delta * delta.tolerance:
            worst[delta.output] = delta
    figures = {}
    for name, own in worst.items():
        scale = rounded(own.scale)
        figures[name] = Figures(rounded(own.max_delta), scale, tolerance(comparison.verify, scale))
    metric = comparison.metric
    accuracy = (metric.reference, metric.torch) if metric is not None else None
    return Proof("", recording.made_from, figures, accuracy)


def save(lock: Lock, *, force: bool = False, note: Callable[[Problem], None] = lambda problem: None) -> None:
    """Writes the lock at its path in one step. Raises OutputError: T2T801 where something else stands there."""
    data = text(lock)
    if len(data) > MAX_BYTES:
        message = f"the lock would have {len(data)} bytes, the most that one has is {MAX_BYTES}"
        raise OutputError(Problem("T2T804", message, Location(lock.path), "go without a lock"))
    with replacing(lock.path, len(data), is_lock, force=force, note=note) as temporary:
        temporary.write(data, 0)


def text(lock: Lock) -> bytes:
    """The file: the same bytes for the same lock, an entry a line."""
    derived = marked(lock.checkpoint.variables.values())
    variables = {
        name: _variable(ref, derived[name], lock.checkpoint.crc32c(ref))
        for name, ref in _in_order(lock.checkpoint.variables)
    }
    shared = {name: list(keys) for name, keys in _in_order(lock.checkpoint.shared_names)}
    parameters = {
        name: [ref.dtype, list(ref.shape), lock.steps[name], _crc32c(lock.outputs.get(name)), *_extras(ref)]
        for name, ref in lock.module.parameters.items()
    }
    sections: dict[str, Any] = {
        KEY: FORMAT,
        "made_by": dict(lock.made_by),
        "model": lock.model,
        "with": dict(lock.arguments),
        "proof": _proof(lock.proof),
        **({"require": _Lines({p: _Lines(found) for p, found in lock.require.items()})} if lock.require else {}),
        "parameters": _Lines(parameters),
        "names": lock.names,
        "checkpoint": lock.written,
        "source": lock.source,
        **({"shared": _Lines(shared)} if shared else {}),
        "variables": _Lines(variables),
    }
    return (_written(_Lines(sections), "") + "\n").encode("ascii")


def _crc32c(crc: int | None) -> str | None:
    return None if crc is None else f"{crc:08x}"


def _in_order(named: Mapping[str, T]) -> list[tuple[str, T]]:
    """By name, as every reader of checkpoints has them: what is said of variables follows their order."""
    return sorted(named.items(), key=lambda item: natural(item[0]))


class _Lines(dict[str, Any]):
    """An object that is written an entry a line."""


def _written(value: Any, indent: str) -> str:
    if not isinstance(value, _Lines) or not value:
        return json.dumps(value, ensure_ascii=True, allow_nan=False)
    inner = indent + "  "
    entries = (f"{inner}{json.dumps(key)}: {_written(entry, inner)}" for key, entry in value.items())
    return "{\n" + ",\n".join(entries) + f"\n{indent}}}"


def _extras(ref: ParameterRef) -> list[dict[str, Any]]:
    extras: dict[str, Any] = {} if ref.kind == "parameter" else {"kind": ref.kind}
    extras |= {} if ref.tied_to is None else {"tied_to": ref.tied_to}
    return [extras] if extras else []


def _variable(ref: TensorRef, derived: TensorRef, crc: int | None) -> list[Any]:
    """One variable; of what names and shapes tell by themselves (`derived`), only where it is otherwise."""
    extras: dict[str, Any] = {}
    for what in ("key", "full_name"):
        if (name := getattr(ref, what)) not in {None, "", ref.name}:
            extras[what] = name
    for what in ("nbytes", "slot_of", "average_of", "unreadable"):
        if (value := getattr(ref, what)) != getattr(derived, what):
            extras[what] = value
    return [ref.dtype, list(ref.shape), _crc32c(crc), *([extras] if extras else [])]


def _proof(proof: Proof) -> dict[str, Any]:
    if proof.unproven:
        return _Lines({"unproven": proof.unproven})
    figures = {
        name: {"max_delta": own.max_delta, "scale": own.scale, "tolerance": own.tolerance}
        for name, own in proof.outputs.items()
    }
    accuracy = {"accuracy": dict(zip(("tensorflow", "torch"), proof.accuracy, strict=True))} if proof.accuracy else {}
    return _Lines({"recording": _Lines(sorted(proof.made_from.items())), "outputs": _Lines(figures), **accuracy})


def is_lock(path: str) -> bool:
    """Whether a file is a lock, of whatever version. Raises OSError where it cannot be read."""
    with open(path, "rb") as file:
        return file.read(64).lstrip(b" \r\n\t{").startswith(f'"{KEY}"'.encode())
