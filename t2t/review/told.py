"""
What is said of locks: lines for a person, values for a program.
"""

from __future__ import annotations

from typing import Any

from t2t.names import shown
from t2t.review.lock import Lock


def lock(made: Lock) -> list[str]:
    """What a lock that was written holds, and whether it is proven."""
    variables, parameters = len(made.checkpoint.variables), len(made.module.parameters)
    lines = [f"wrote {shown(made.path)}: {parameters} parameters, {variables} variables"]
    if made.proof.unproven:
        return [*lines, f"not proven: {shown(made.proof.unproven)}"]
    for name, own in made.proof.outputs.items():
        lines.append(f"{shown(name)}: max|Δ| {own.max_delta:g} <= {own.tolerance:g}, where max|TF| is {own.scale:g}")
    return [*lines, "proven"]


def lock_json(made: Lock) -> dict[str, Any]:
    """The same for programs."""
    proof = made.proof
    outputs = {name: {"max_delta": own.max_delta, "tolerance": own.tolerance} for name, own in proof.outputs.items()}
    return {
        "lock": made.path,
        "parameters": len(made.module.parameters),
        "variables": len(made.checkpoint.variables),
        "proof": {"unproven": proof.unproven} if proof.unproven else {"outputs": outputs},
    }
