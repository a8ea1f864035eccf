"""
What can be wrong, where, and how a program learns of it.

A `Problem` is a fact about an input: it has a code, a place and a text, and it is never printed here. A function
either returns problems or raises one of the errors below with all the problems that it found; never both.

    Exception
    +-- T2TError               problems, exit_code
        +-- MappingError       1   the mapping does not fit, or the result is not proven     T2T1xx-5xx
        +-- ModuleError        1   the torch module cannot be imported, built or filled      T2T7xx
        +-- UsageError         2   the call itself makes no sense                            T2T0xx
        +-- CheckpointError    3   the checkpoint cannot be read                             T2T6xx
        +-- OutputError        3   the result cannot be written                              T2T8xx
        +-- OriginalError      3   the original model could not be run                       T2T9xx
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]

#: The exit status that a code's first digit calls for: 1 findings, 2 usage, 3 an input or output that can't be used.
EXIT_CODES = {"0": 2, "1": 1, "2": 1, "3": 1, "4": 1, "5": 1, "6": 3, "7": 1, "8": 3, "9": 3}

#: Every code that a message can carry, with what it stands for. A code keeps its meaning for ever.
CODES = {
    "T2T001": "the call makes no sense",
    "T2T101": "the file is not YAML",
    "T2T102": "YAML that a mapping may not use: a tag, an anchor, an alias, a merge key",
    "T2T103": "a key stands twice",
    "T2T104": "an unknown key",
    "T2T105": "a key is missing",
    "T2T106": "a value of the wrong kind",
    "T2T107": "an unknown version of the language",
    "T2T108": "keys that do not go together",
    "T2T109": "a name that cannot be one",
    "T2T110": "the file is over a limit",
    "T2T111": "an index that cannot be read or filled",
    "T2T112": "a recipe that cannot be used",
    "T2T113": "letters that cannot be used",
    "T2T114": "the file is not formatted",
    "T2T201": "an unknown variable",
    "T2T202": "an unknown parameter",
    "T2T203": "a parameter is written twice",
    "T2T204": "a parameter is not written",
    "T2T205": "a variable is not used",
    "T2T206": "a variable is read twice without reuse",
    "T2T207": "reuse without a second reader",
    "T2T208": "a pattern that matches nothing",
    "T2T209": "nothing to convert",
    "T2T210": "parameters not checked",
    "T2T211": "a full name that several variables share",
    "T2T212": "a drop that does not fit",
    "T2T213": "an optional row that fits one side only",
    "T2T214": "a variable that select does not find",
    "T2T215": "a recipe that applies no row",
    "T2T301": "axes that cannot be read",
    "T2T302": "the rank differs",
    "T2T303": "sizes that do not fit the variable",
    "T2T304": "the shape differs from the parameter's",
    "T2T305": "no axes on a variable of rank 2 or more",
    "T2T306": "not a permutation",
    "T2T307": "a slice that does not fit",
    "T2T308": "variables that cannot be joined",
    "T2T309": "a flip or an order that does not fit",
    "T2T310": "add names an entry that is not there",
    "T2T401": "a dtype change that is not asked for",
    "T2T402": "a cast that would lose values",
    "T2T403": "NaN or Inf",
    "T2T404": "a tie that is not one",
    "T2T405": "a fill that the dtype cannot hold",
    "T2T406": "a variable that cannot become a parameter",
    "T2T407": "a number that the dtype cannot hold",
    "T2T408": "values that look wrong",
    "T2T501": "the outputs differ",
    "T2T502": "not proven",
    "T2T503": "the comparison cannot be made",
    "T2T504": "the graph contradicts the row",
    "T2T505": "a requirement that is not met",
    "T2T506": "the two readers differ",
    "T2T507": "a mistake that the recording does not catch",
    "T2T508": "the lock is stale",
    "T2T509": "no lock",
    "T2T601": "no checkpoint there",
    "T2T602": "a file that cannot be opened or read",
    "T2T603": "not a checkpoint that t2t reads",
    "T2T604": "a corrupt index",
    "T2T605": "a corrupt entry of the index",
    "T2T606": "checkpoint data that t2t does not read",
    "T2T607": "a data file is missing or too short",
    "T2T608": "the checksum differs",
    "T2T609": "the checkpoint changed while it was read",
    "T2T610": "a checkpoint state file that leads nowhere",
    "T2T611": "the checkpoint is over a limit",
    "T2T612": "checksums are computed slowly",
    "T2T613": "data files of another save",
    "T2T614": "the process that reads died or hung",
    "T2T615": "a layer that torch computes otherwise",
    "T2T616": "parts that belong to no variable",
    "T2T617": "statistics that were never updated",
    "T2T618": "the object graph cannot be read",
    "T2T619": "a library that this address needs is missing",
    "T2T620": "a lock that cannot be read",
    "T2T700": "code is imported",
    "T2T701": "the model cannot be imported",
    "T2T702": "the model is not a torch module",
    "T2T703": "the model cannot be built",
    "T2T704": "a parameter or buffer that cannot be filled",
    "T2T705": "an import that is not allowed",
    "T2T706": "the module was built with its weights",
    "T2T707": "the module's forward pass failed",
    "T2T801": "the output is in the way",
    "T2T802": "the output cannot be written",
    "T2T803": "no space for the output",
    "T2T804": "a tensor that the format cannot hold",
    "T2T805": "the output does not read back as written",
    "T2T806": "what an older or a killed run left was removed",
    "T2T901": "the library that runs the original is not installed",
    "T2T902": "the original could not be run",
    "T2T903": "the original ran out of time",
    "T2T904": "a recording that cannot be read",
    "T2T905": "the original holds other weights",
    "T2T906": "the original was opened in another way",
}


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a text file (lines and columns count from 1) or, without a line, a file as a whole."""

    path: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.path, self.line, self.column) if part is not None)


@dataclass(frozen=True, slots=True)
class Problem:
    """
    One thing that is wrong, or worth knowing.

    `message` names the subject and both sides of a disagreement, `hint` the way out. `details` are further lines for a
    person who reads one problem at a time. Both `message` and `hint` are one line, lower case, without a full stop.
    Where there is one answer only, `fix` is what stands at the place, and what should.
    """

    code: str
    message: str
    at: Location | None = None
    hint: str = ""
    severity: Severity = "error"
    details: tuple[str, ...] = ()
    fix: tuple[str, str] | None = None

    def __str__(self) -> str:
        """`file:line:column: CODE message; hint`, or `path: CODE: message; hint` for a file without lines."""
        text = f"{self.message}; {self.hint}" if self.hint else self.message
        if self.at is None:
            return f"{self.code} {text}"
        return f"{self.at}: {self.code}{'' if self.at.line else ':'} {text}"


class T2TError(Exception):
    """
    Something that t2t refuses. `problems` holds every reason, in file order; the text of the error is theirs.

    Catch this one to catch them all; a bug in t2t is any other exception.
    """

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    @property
    def exit_code(self) -> int:
        """The exit status that a command ends with."""
        return exit_code(self.problems)


class MappingError(T2TError):
    """The mapping does not fit the checkpoint or the module, or what it gives is not proven."""


class ModuleError(T2TError):
    """The torch module that the mapping names cannot be imported, built, filled or run."""


class UsageError(T2TError):
    """The call makes no sense, whatever the files hold."""


class CheckpointError(T2TError):
    """The checkpoint, the mapping's file or the recording's cannot be read, or is not what it claims to be."""


class OutputError(T2TError):
    """The result cannot be written where it was asked for."""


class OriginalError(T2TError):
    """The original model could not be run."""


def in_file_order(problems: Iterable[Problem]) -> list[Problem]:
    """The problems by line and column, file by file as the files first come up."""
    problems = list(problems)
    files: dict[str, int] = {}
    for problem in problems:
        files.setdefault(problem.at.path if problem.at else "", len(files))

    def place(problem: Problem) -> tuple[int, int, int]:
        at = problem.at or Location("")
        return files[at.path], at.line or 0, at.column or 0

    return sorted(problems, key=place)


def exit_code(problems: Iterable[Problem]) -> int:
    """
    The exit status that these problems call for: 0 when none is an error.

    What could not be read or written at all (3) outweighs what was read and does not fit (1).
    """
    return max((EXIT_CODES[problem.code[3]] for problem in problems if problem.severity == "error"), default=0)


def as_json(problem: Problem) -> dict[str, Any]:
    """The problem as plain values."""
    return {
        "code": problem.code,
        "severity": problem.severity,
        "path": problem.at.path if problem.at else None,
        "line": problem.at.line if problem.at else None,
        "column": problem.at.column if problem.at else None,
        "message": problem.message,
        "hint": problem.hint,
        "details": list(problem.details),
        **({"fix": {"old": problem.fix[0], "new": problem.fix[1]}} if problem.fix else {}),
    }
