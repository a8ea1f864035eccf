"""
What was proven and recorded against what the mapping's `verify` asks for now.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from t2t.mapping import Mapping
from t2t.names import shown
from t2t.problems import CheckpointError, MappingError, Problem
from t2t.proof import origin
from t2t.review.lock import Lock, tolerance
from t2t.review.stale import outdated, unknown_values


def stale_proof(mapping: Mapping, lock: Lock, *, required: bool = False) -> list[Problem]:
    """
    Every way in which the lock's proof is not of what `verify` asks for (T2T508), or missing (T2T502, a warning).

    A proof that is `required` has to be there. A lock of names and shapes alone has none, and says so.
    """
    if lock.is_of_names:
        return unknown_values(mapping, lock, required=required)
    found = _stale_proof(mapping, lock)
    return [replace(one, severity="error") if required and one.code == "T2T502" else one for one in found]


def _stale_proof(mapping: Mapping, lock: Lock) -> Iterator[Problem]:
    verify, proof = mapping.verify, lock.proof
    if verify is None:
        if not proof.unproven:
            yield outdated(mapping, "the lock holds a proof, the mapping has no verify section", mapping.map_at)
        return
    if proof.unproven:
        message = f"the lock is not proven: {shown(proof.unproven)}"
        hint = f"run t2t lock {shown(mapping.path)} where its recording is"
        yield Problem("T2T502", message, verify.at, hint, "warning")
        return
    try:
        wanted = origin.parts(verify, lock.source)
    except CheckpointError as error:
        # Its inputs may be large, and not be in the repository.
        for problem in error.problems:
            message = f"whether the lock's proof is of these inputs is not checked: {problem.message}"
            yield Problem(problem.code, message, verify.at, severity="note")
    except MappingError as error:
        yield from error.problems
    else:
        if other := origin.other_parts(proof.made_from, wanted, verify):
            yield outdated(mapping, f"the lock's proof was made from {other}", verify.at)
    for name, figures in proof.outputs.items():
        allowed = tolerance(verify, figures.scale)
        # Of several runs the lock holds one: whether the others are within less is not known.
        if allowed < figures.tolerance and (allowed < figures.max_delta or verify.draws * verify.steps > 1):
            was = f"max|Δ| was {figures.max_delta:g} when it was locked"
            yield outdated(mapping, f"{shown(name)}: {was}, now {allowed:g} is asked for", verify.at)


def stale_recording(mapping: Mapping, source: str, original: str) -> list[Problem]:
    """
    What is wrong with the recording that lies here; `source` is the digest of the weights, `original` the original's
    file as it was found, "" where that isn't here.

    It is no problem if there is none: that is told where something is to be proven.
    """
    verify = mapping.verify
    if verify is None or not os.path.lexists(verify.recording):
        return []
    again = f"run t2t record {shown(mapping.path)}"
    try:
        made_from = origin.stored_parts(verify.recording)
        wanted = origin.parts(verify, source)
        if original and (digest := origin.original_digest(verify.reference, original)):
            wanted["graph"] = digest
    except CheckpointError as error:
        return [
            problem
            if problem.code == "T2T904" and problem.at and problem.at.path == verify.recording
            else replace(problem, severity="note", at=verify.at)
            for problem in error.problems
        ]
    except MappingError as error:
        return list(error.problems)
    if other := origin.other_parts(made_from, wanted, verify):
        message = f"recording {shown(verify.recording)} was made from {other}"
        return [Problem("T2T502", message, verify.at, again)]
    return []
