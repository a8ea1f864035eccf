"""
A lock of another version of t2t, renewed: its digests are made otherwise, and what is locked is the same.
"""

from __future__ import annotations

from dataclasses import replace

import google_crc32c
import numpy as np

import t2t
from t2t import execute
from t2t import plan as planning
from t2t.at_hand import at_hand
from t2t.mapping import Mapping
from t2t.problems import CheckpointError, MappingError
from t2t.review import assignments
from t2t.review.lock import Lock


def relocked(mapping: Mapping) -> Lock | None:
    """
    The mapping's lock with the digests of its steps as this version of t2t makes them, where another version made it;
    None unless the weights are here and what comes out is byte for byte what was locked. (Of the same version, rows
    that changed may give the same bytes by chance: zeros are alike in any order.)
    """
    with at_hand(mapping) as hand:
        if hand.lock is None or hand.module is None or hand.opened is None or hand.problems:
            return None
        if hand.lock.made_by.get("t2t") == t2t.__version__:
            return None
        plan, found = planning.make(mapping, hand.opened.inventory, hand.module)
        if any(problem.severity == "error" for problem in found) or any(step.rule.keep for step in plan.steps):
            return None
        dtype = mapping.output.dtype
        try:
            outputs = {
                name: google_crc32c.value(array.reshape(-1).view(np.uint8))
                for name, array in execute.tensors(plan, hand.opened, {}, dtype=dtype, allow_nonfinite=True)
            }
        except (CheckpointError, MappingError):  # its data files are missing; its values cannot be cast
            return None
        if outputs != hand.lock.outputs:
            return None
        steps = {step.target: assignments.digest(step, dtype) for step in plan.steps}
        return replace(hand.lock, steps=steps, made_by={**hand.lock.made_by, "t2t": t2t.__version__})
