"""A diagnosis as people and programs read it: the table of layers, what passes, and the same as JSON."""

from __future__ import annotations

import math
from typing import Any

from t2t.names import shown
from t2t.proof.diagnosis import Diagnosis
from t2t.proof.difference import Call, End

#: So many layers around the first that differs are shown where not all are.
BEFORE, AFTER = 4, 3

#: So many rows to paste are shown where not all are.
MAX_ROWS = 8

#: Names of operations are cut to so many characters, at the beginning.
MAX_NAME = 48

HEADER = ("layer", "class", "TensorFlow", "in", "out", "")

_FIRST, _OWN = "<- the first that differs", "<- where it goes wrong"


def table(diagnosis: Diagnosis, *, whole: bool) -> list[list[str]]:
    """
    Rows under HEADER, in torch's order: of each call what goes in and what comes out, |Δ| as a share of max|TF|.

    Unless `whole`, only those around the first that differs; rows of "..." stand for the others.
    """
    calls = diagnosis.trace.calls
    first = diagnosis.first
    mark = _FIRST if first == diagnosis.trace.first else _OWN
    rows = [_row(call, mark if number == first else "") for number, call in enumerate(calls)]
    if whole or first is None:
        return rows
    start, stop = max(0, first - BEFORE), first + AFTER + 1
    left = [["...", *[""] * 5]]
    return [*(left if start else []), *rows[start:stop], *(left if stop < len(rows) else [])]


def _row(call: Call, mark: str) -> list[str]:
    name = shown(call.module) + (f" ({call.number + 1})" if call.number else "")
    operation = next((end.operation for end in (call.output, call.input) if end is not None), "")
    ends = _share(call.input), _share(call.output)
    return [name, shown(call.kind), _ended(shown(operation)), *ends, mark]


def _ended(name: str) -> str:
    """The end of a long name; TensorFlow Lite joins those of all operations that became one."""
    name = name.rpartition(";")[2]
    return name if len(name) <= MAX_NAME else f"...{name[3 - MAX_NAME :]}"


def _share(end: End | None) -> str:
    if end is None:
        return ""
    if end.verdict == "unlike":
        return "?"
    share = end.max_delta / end.scale if end.scale else end.max_delta
    return f"{share:.1e}{'' if end.verdict == 'agrees' else ' differs'}" if math.isfinite(share) else "not finite"


def lines(diagnosis: Diagnosis, *, whole: bool) -> list[str]:
    """What was found in words, with the rows to paste; `whole` also lists what was tried in vain."""
    told = [] if diagnosis.trace.first is not None else [_nowhere(diagnosis)]
    if diagnosis.repairs:
        several = ", all of it together" if len(diagnosis.repairs) > 1 else ""
        told.append(f"what passes{several}:" if diagnosis.passes else "what mends a part of it, and is not enough:")
    whats = [repair.what for repair in diagnosis.repairs]
    if diagnosis.lines and len(whats) == 1:
        told.append(f"  {whats[0]}, {_where(diagnosis)}")
    else:
        told += [f"  {what}" for what in whats] + ([f"  {_where(diagnosis)}"] if diagnosis.lines else [])
    shown_lines = diagnosis.lines if whole else diagnosis.lines[:MAX_ROWS]
    told += [f"    - {line}" for line in shown_lines]
    if len(shown_lines) < len(diagnosis.lines):
        told.append(f"    and {len(diagnosis.lines) - MAX_ROWS} more; --format full shows them")
    if not diagnosis.passes:
        told.append(diagnosis.in_vain)
        told += [f"  {what}" for what in dict.fromkeys(diagnosis.tried)] if whole else []
    return told


def _nowhere(diagnosis: Diagnosis) -> str:
    ends = [end for call in diagnosis.trace.calls for end in (call.input, call.output) if end is not None]
    if not ends and not diagnosis.is_recorded:
        why = "the recording holds nothing of the original's inside, so all rows were tried, not those of one layer"
        return f"{why}; t2t record records what it can, of a call what TensorFlow computes in it"
    if not ends:
        why = "no layer of the recording belongs to a module that is called"
        return f"{why}, so all rows were tried, not those of one layer; verify's layers say which is whose"
    if all(end.verdict == "unlike" for end in ends):
        return "no layer could be held against the recording: their sizes have nothing in common"
    return "every layer that is recorded agrees in draw 0: what differs is behind them, between them or in another draw"


def _where(diagnosis: Diagnosis) -> str:
    some = ", ".join(map(str, diagnosis.replaces[:MAX_ROWS])) + (", ..." if len(diagnosis.replaces) > MAX_ROWS else "")
    many = "s" if len(diagnosis.replaces) > 1 else ""
    return f"in place of the row{many} in line{many} {some}:"


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """All of it."""
    return {
        "place": diagnosis.place,
        "passes": diagnosis.passes,
        "recorded": diagnosis.is_recorded,
        "repairs": [
            {
                "what": repair.what,
                "module": repair.module,
                "targets": sorted({rule.target for rule in repair.rules}),
            }
            for repair in diagnosis.repairs
        ],
        "lines": list(diagnosis.lines),
        "replaces": list(diagnosis.replaces),
        "tried": list(diagnosis.tried),
        "cut": diagnosis.is_cut,
        "layers": [
            {
                "module": call.module,
                "call": call.number,
                "class": call.kind,
                "input": _end_json(call.input),
                "output": _end_json(call.output),
            }
            for call in diagnosis.trace.calls
        ],
    }


def _end_json(end: End | None) -> dict[str, Any] | None:
    if end is None:
        return None
    return {
        "operation": end.operation,
        "shape": list(end.shape),
        "own_shape": list(end.own),
        "max_delta": end.max_delta if math.isfinite(end.max_delta) else None,
        "scale": end.scale,
        "tolerance": end.tolerance,
        "verdict": end.verdict,
    }
