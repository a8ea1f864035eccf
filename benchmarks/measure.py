"""
Runs commands one after the other and says how long each took and how much memory it held at most.

This module imports nothing heavy: a child's peak memory counts from its parent's at the moment of the fork.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

#: The repository's root: every child runs there, so that `t2t` and `benchmarks` are importable.
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Run:
    """One finished command: wall-clock seconds, peak resident bytes, and what it printed."""

    seconds: float
    peak: int
    stdout: str


def run(*command: str | Path) -> Run:
    """Runs the command to its end; one that fails ends the benchmark with what it said."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=stdout, stderr=stderr)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)  # Popen did not see its child end.
        stdout.seek(0)
        stderr.seek(0)
        printed, complained = (stream.read().decode(errors="replace") for stream in (stdout, stderr))
    if process.returncode != 0:
        sys.exit(f"failed with {process.returncode}: {' '.join(map(str, command))}\n{printed}{complained}")
    return Run(seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), printed)


def python(*arguments: str | Path) -> Run:
    """Runs this interpreter with these arguments."""
    return run(sys.executable, *arguments)


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def table(rows: Sequence[Sequence[str]]) -> str:
    """The rows as lines of aligned columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )
