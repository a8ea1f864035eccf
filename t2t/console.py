"""
The only file that prints. Results and findings go to stdout, progress, notes and failures to stderr.

Five formats: `full` (for a person: details under each problem, tables on a terminal), `concise` (one line each),
`json` (one document on stdout), `github` (annotations and a step's summary; what is no problem as `concise` has it),
`sarif` (the problems alone, one document on stdout). What a result says is made elsewhere (t2t.results, t2t.listing and
what is called `told`); here it gets its columns, its colours and its stream.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import traceback as tracebacks
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from t2t.problems import Location, OutputError, Problem, Severity, UsageError, as_json

if TYPE_CHECKING:
    from t2t import formats

FORMATS = ("full", "concise", "json", "github", "sarif")

#: Columns of a table that are aligned on the right.
_NUMBERS = frozenset(("elements", "size", "shard", "offset", "min", "max", "mean", "std", "zeros", "NaN", "Inf"))
_NUMBERS |= {"made", "caught", "survived", "equivalent", "indistinguishable"}

_UNBROKEN = _NUMBERS | {"dtype", "shape"}

#: A column of text gets at least so much of a terminal's line; else there is no table, and lines go on in the next.
MIN_TEXT = 17

#: So many problems are shown as text; --all shows the rest.
SHOWN_PROBLEMS = 20

_COLOURS: dict[Severity, str] = {"error": "red", "warning": "yellow", "note": "cyan"}


class Console:
    """Standard output and standard error, in one of the formats; None is `full` on a terminal, `concise` elsewhere."""

    def __init__(self, format: str | None, *, show_all: bool = False) -> None:  # noqa: A002 - the flag's name
        for stream in (sys.stdout, sys.stderr):
            # A name that the terminal's encoding lacks is escaped, never an error.
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        if format not in {None, *FORMATS}:
            raise UsageError(Problem("T2T001", f"unknown format {format}", None, f"formats are {', '.join(FORMATS)}"))
        self.is_terminal = sys.stdout.isatty() and format != "github"
        self.format = format or ("full" if self.is_terminal else "concise")
        self.show_all = show_all
        self.is_document = self.format in {"json", "sarif"}
        self._notes: list[Problem] = []
        self._summary = os.environ.get("GITHUB_STEP_SUMMARY", "")
        self._has_summary = False
        self._annotated: Counter[Severity] = Counter()

    # --- problems ---

    def problems(self, problems: Sequence[Problem]) -> None:
        """Problems that ended a command: findings to stdout, what could not be read, written or run to stderr."""
        if self.is_document:
            self.document({"problems": [as_json(problem) for problem in problems]}, problems)
            return
        is_finding = all(problem.code[3] in "123457" for problem in problems)
        self.listed(problems, sys.stdout if is_finding else sys.stderr)

    def findings(self, problems: Sequence[Problem], checked: Sequence[str], by_lock: int = 0) -> None:
        """What was found, and a last line that sums it up: `by_lock` of the mappings were checked by the lock alone."""
        if self.is_document:
            found = [as_json(problem) for problem in problems]
            self.document({"checked": list(checked), "by_lock_alone": by_lock, "problems": found}, problems)
            return
        self.listed(problems, sys.stdout)
        counts = Counter(problem.severity for problem in problems)
        told = ", ".join(counted(counts[severity], severity) for severity in _COLOURS if counts[severity])
        alone = f", {by_lock} by the lock alone" if by_lock else ""
        self.say(f"{counted(len(checked), 'mapping')} checked{alone}: {told or 'no problems'}")

    def result(
        self, lines: Sequence[str], as_json: dict[str, Any], problems: Sequence[Problem] = (), *, listed: bool = False
    ) -> None:
        """
        A result whose words are made elsewhere: its lines or the document, with `sarif` its `problems` alone. Where
        they are to be `listed`, they come before the lines; `github` has them beside their own lines in any case.
        """
        if self.is_document:
            self.document(as_json, problems)
            return
        if listed or self.format == "github":
            self.listed(problems, sys.stdout)
        for line in lines:
            self.say(printable(line))

    def file(self, text: str) -> None:
        """What is meant for another program: the same bytes in every format."""
        self.say(text.removesuffix("\n"), is_command=True)

    def note(self, problem: Problem) -> None:
        """Something worth knowing while a command runs."""
        if self.is_document:
            self._notes.append(problem)
        elif self.format == "github":
            self._annotate([problem])
        else:
            self.say(printable(f"{problem.severity}: {problem}"), sys.stderr)

    def listed(self, problems: Sequence[Problem], stream: Any) -> None:
        """The problems, a line each, as many as are shown; with `full` the details under each."""
        if self.format == "github":
            if left := len(problems) - self._annotate(problems):
                self.say(f"and {left} more in the step's summary; --all shows them here")
            return
        count = len(problems) if self.show_all else SHOWN_PROBLEMS
        for problem in problems[:count]:
            self.say(printable(str(problem)), stream, _COLOURS[problem.severity])
            if self.format == "full":
                for detail in problem.details:
                    self.say(f"    {printable(detail)}", stream)
        if len(problems) > count:
            self.say(f"and {len(problems) - count} more; --all shows them", stream)

    def _annotate(self, problems: Sequence[Problem]) -> int:
        """
        The problems in the step's summary, and as many as GitHub shows as annotations; how many those are.

        What the summary does not hold is told here, shown or not.
        """
        from t2t import formats  # only these two formats need it

        failure: OutputError | None = None
        held = 0
        try:
            held = self._summarize(problems) if self._summary else 0
        except OSError as error:
            message = f"the step's summary cannot be written: {error.strerror}"
            hint = "GITHUB_STEP_SUMMARY names a file that this process may not write"
            failure = OutputError(Problem("T2T802", message, Location(self._summary), hint))
            self._summary = ""
        limit = formats.ANNOTATIONS if held == len(problems) and not self.show_all else None
        lines = formats.commands(problems, _folders(), self._annotated, limit)
        for line in lines:
            self.say(line, is_command=True)
        if failure is not None:
            raise failure
        return len(lines)

    def _summarize(self, problems: Sequence[Problem]) -> int:
        """How many of the problems the step's summary takes."""
        from t2t import formats

        with open(self._summary, "ab") as file:
            before = "" if self._has_summary or not problems else formats.HEADER
            rows, held = formats.summary(problems, _folders(), formats.SUMMARY_BYTES - file.tell() - len(before))
            if rows:
                file.write((before + rows).encode())
                self._has_summary = True
        return held

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A last column without a title is for remarks; it is left out where there are none."""
        if not header[-1] and not any(row[-1] for row in rows):
            header, rows = header[:-1], [row[:-1] for row in rows]
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        # What cannot go on in the next line must fit: a number that does reads as another number.
        fixed = sum(
            3 + (width if title in _UNBROKEN else MIN_TEXT) for title, width in zip(header, widths, strict=True)
        )
        if self.is_terminal and fixed <= shutil.get_terminal_size().columns:
            from rich import box
            from rich.table import Table
            from rich.text import Text

            table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
            for title in header:
                table.add_column(
                    title,
                    justify="right" if title in _NUMBERS else "left",
                    overflow="fold",
                    no_wrap=title in _UNBROKEN,
                )
            for row in rows:
                table.add_row(*(Text(cell) for cell in row))
            _rich().print(table)
            return
        line = "  ".join(
            f"{{:{'>' if title in _NUMBERS else '<'}{width}}}" for title, width in zip(header, widths, strict=True)
        )
        self.say("\n".join(line.format(*row).rstrip() for row in (header, *rows)))

    # --- the lowest level ---

    @contextmanager
    def progress(self, what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """A bar of the bytes read (of `total`, where that is known), on a terminal; elsewhere nothing."""
        if not sys.stderr.isatty() or self.is_document:
            yield lambda nbytes: None
            return
        from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn, TransferSpeedColumn

        columns = (SpinnerColumn(), TextColumn(what), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=_rich(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda nbytes: bar.advance(task, nbytes)

    @contextmanager
    def counting(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A bar of how many are done, and of how many, on a terminal; elsewhere nothing."""
        if not sys.stderr.isatty() or self.is_document:
            yield lambda done, total: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

        columns = (SpinnerColumn(), TextColumn(what), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=_rich(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def say(self, text: str, stream: Any = None, colour: str = "", *, is_command: bool = False) -> None:
        """Lines, on standard output if nothing else is said; only `is_command` may hold what GitHub takes for one."""
        stream = stream or sys.stdout
        if self.format == "github" and not is_command:
            from t2t import formats

            text = "\n".join(map(formats.plain, text.split("\n")))
        with _refusing(stream):
            if colour and stream.isatty():
                from rich.text import Text

                _rich(stderr=stream is sys.stderr).print(Text(text, style=colour), soft_wrap=True)
            else:
                print(text, file=stream)

    def document(self, document: dict[str, Any], problems: Sequence[Problem] = ()) -> None:
        """The one document; of SARIF it is made of the problems, the only ones that it has a place for."""
        if self.format == "sarif":
            from t2t import formats

            document = formats.sarif([*problems, *self._notes], _folders())
        elif self._notes:
            document["notes"] = [as_json(note) for note in self._notes]
        self.say(json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False))


def _folders() -> formats.Folders:
    """The current folder; and the one that GitHub counts from, the repository's own, where it says which that is."""
    from t2t import formats

    here = os.getcwd()
    return formats.Folders(here, os.path.realpath(os.environ.get("GITHUB_WORKSPACE") or here))


def open_closed_streams() -> None:
    """
    Where the caller closed a standard stream, what is said there goes nowhere.

    The next file that is opened would get its number, and what a library says to stderr would end up in the output.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115


def flush() -> None:
    """Writes out what is still held back. Raises OutputError where standard output takes no more, BrokenPipeError."""
    with _refusing(sys.stdout):
        sys.stdout.flush()


def discard() -> None:
    """What standard output did not take, and all that follows, goes nowhere: not even the last flush may fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def failure(text: str) -> None:
    """One line about why the command ended."""
    print(printable(text), file=sys.stderr)  # noqa: T201 - here is where t2t prints


@contextmanager
def _refusing(stream: Any) -> Iterator[None]:
    """An OSError from a standard stream, as ours; a reader that has gone stays a BrokenPipeError."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        name = "error" if stream is sys.stderr else "output"
        raise OutputError(Problem("T2T802", f"standard {name} cannot be written: {error.strerror}")) from None


def traceback() -> None:
    """The traceback of the exception that is being handled, for --debug."""
    tracebacks.print_exc()


def _rich(*, stderr: bool = False) -> Any:
    from rich.console import Console as RichConsole

    # No markup and no highlighting: `[0]` in a name is a name.
    return RichConsole(stderr=stderr, markup=False, highlight=False, emoji=False)


def printable(text: str) -> str:
    """The text without control characters, so that no name reaches the terminal as a command."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def counted(number: int, what: str) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def sized(nbytes: int) -> str:
    """Bytes in decimal units, as disks and networks count them."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000 or unit == "GB":
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000  # type: ignore[assignment]
    raise AssertionError


def as_number(value: float | None) -> float | str | None:
    """A number as JSON can hold it: infinities and NaN have no place there."""
    return value if value is None or math.isfinite(value) else str(value)
