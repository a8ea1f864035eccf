"""
The only file that prints. Results and findings go to stdout, progress, notes and failures to stderr.

Three formats: `full` (for a person: details under each problem, tables on a terminal), `concise` (one line each),
`json` (one document on stdout). The facts come from the API as values; here they only get words and columns.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import traceback as tracebacks
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from t2t import explanation as explanations
from t2t.names import shown
from t2t.problems import OutputError, Problem, Severity, UsageError
from t2t.tensors import TensorRef, elements

if TYPE_CHECKING:
    from t2t.api import Conversion, CrossCheck, Inspection
    from t2t.checkpoints import Checkpoint
    from t2t.checkpoints.inspection import Checked
    from t2t.explanation import Explanation
    from t2t.proof.compare import Comparison, OutputDelta
    from t2t.proof.diagnosis import Diagnosis
    from t2t.proof.mutate import Mutations
    from t2t.proof.recording import Recording

FORMATS = ("full", "concise", "json")

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
        self.is_terminal = sys.stdout.isatty()
        self.format = format or ("full" if self.is_terminal else "concise")
        self.show_all = show_all
        self._notes: list[Problem] = []

    # --- problems ---

    def problems(self, problems: Sequence[Problem]) -> None:
        """Problems that ended a command: findings to stdout, what could not be read, written or run to stderr."""
        if self.format == "json":
            self._json({"problems": [_as_json(problem) for problem in problems]})
            return
        is_finding = all(problem.code[3] in "123457" for problem in problems)
        self._listed(problems, sys.stdout if is_finding else sys.stderr)

    def findings(self, problems: Sequence[Problem], checked: Sequence[str]) -> None:
        """What `check` found, and a last line that sums it up."""
        if self.format == "json":
            self._json({"checked": list(checked), "problems": [_as_json(problem) for problem in problems]})
            return
        self._listed(problems, sys.stdout)
        counts = Counter(problem.severity for problem in problems)
        told = ", ".join(_count(counts[severity], severity) for severity in _COLOURS if counts[severity])
        self._print(f"{_count(len(checked), 'mapping')} checked: {told or 'no problems'}")

    def note(self, problem: Problem) -> None:
        """Something worth knowing while a command runs."""
        if self.format == "json":
            self._notes.append(problem)
        else:
            self._print(_line(f"{problem.severity}: {problem}"), sys.stderr)

    def _listed(self, problems: Sequence[Problem], stream: Any) -> None:
        count = len(problems) if self.show_all else SHOWN_PROBLEMS
        for problem in problems[:count]:
            self._print(_line(str(problem)), stream, _COLOURS[problem.severity])
            if self.format == "full":
                for detail in problem.details:
                    self._print(f"    {_line(detail)}", stream)
        if len(problems) > count:
            self._print(f"and {len(problems) - count} more; --all shows them", stream)

    # --- results ---

    def conversion(self, done: Conversion) -> None:
        """What was written, how every element is accounted for, and whether it is proven."""
        sources, ignored = done.plan.sources, done.plan.ignored
        from_rows = [step for step in done.plan.steps if step.sources]
        others = Counter(
            "tied" if step.rule.tie else "kept" if step.rule.keep else "filled"
            for step in done.plan.steps
            if not step.sources
        )
        if self.format == "json":
            self._json(
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
        self._print(f"{_count(len(done.plan.steps), 'parameter')} ({count:,} elements): {', '.join(parts)}")
        reasons = Counter(ignored.values())
        left = "".join(f", {n} ignored: {shown(why)}" for why, n in reasons.items())
        total = len(sources) + len(ignored)
        self._print(f"{_count(total, 'variable')}: {len(sources)} mapped ({elements(sources):,} elements){left}")
        shards = f" and its {_count(done.shards, 'shard')}" if done.shards else ""
        self._print(_line(f"wrote {done.path}{shards} ({_size(done.nbytes)})"))
        if done.comparison:
            self.comparison(done.comparison)
        else:
            self._print(f"not proven: {done.unproven}", colour="yellow")

    def comparison(self, comparison: Comparison, problems: Sequence[Problem] = ()) -> None:
        """The figures of both sides, and the verdict; `problems` are the same for whoever asked for nothing else."""
        if self.format == "json":
            self._json({**_comparison_json(comparison), "problems": [_as_json(problem) for problem in problems]})
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
            self._print(
                f"{shown(delta.output)} {list(delta.shape)}{run}: max|Δ| {delta.max_delta:.3g} {sign} "
                f"{delta.tolerance:.3g}, where max|TF| is {delta.scale:.3g}"
            )
        if metric := comparison.metric:
            self._print(
                f"{metric.name} on {metric.count} labelled inputs: TensorFlow {metric.reference:.4f}, "
                f"torch {metric.torch:.4f}"
            )
        how = f" in {comparison.dtype} within {comparison.verify.rel:g} (rel)" if comparison.dtype else ""
        how += f" on {comparison.device}" if comparison.device != "cpu" else ""
        proven = "proven" if comparison.proven else "not proven"
        self._print(proven + how, colour="green" if comparison.proven else "red")
        if comparison.diagnosis is not None:
            self._diagnosis(comparison.diagnosis)
        self._listed(problems, sys.stdout)

    def _diagnosis(self, diagnosis: Diagnosis) -> None:
        """The layers around the first that differs (with `full` all of them), and what would have passed."""
        from t2t.proof import told

        whole = self.format == "full"
        if rows := told.table(diagnosis, whole=whole):
            self._table(told.HEADER, rows)
        for line in told.lines(diagnosis, whole=whole):
            self._print(_line(line))

    def recording(self, place: str, recording: Recording) -> None:
        """Where the recording is and what it holds."""
        outputs = {name: list(array.shape) for name, array in recording.draws[0].outputs.items()}
        layers = len(recording.inside.layers)
        if self.format == "json":
            draws = len(recording.draws) // recording.steps
            made_of = {"draws": draws, "steps": recording.steps, "outputs": outputs, "layers": layers}
            self._json({"recording": place, "key": recording.key, **made_of})
            return
        told = ", ".join(f"{shown(name)} {shape}" for name, shape in outputs.items())
        made_by = ", ".join(f"{name} {version}" for name, version in recording.made_by.items())
        count = _count(len(recording.draws) // recording.steps, "draw")
        steps = f", {recording.steps} steps each," if recording.steps > 1 else ""
        told += f", {_count(layers, 'layer')}" if layers else ""
        self._print(_line(f"wrote {place}: {count}{steps} of {told}, by {made_by}"))

    def mutations(self, done: Mutations, problems: Sequence[Problem]) -> None:
        """The mistakes that the recording does not catch, and how many it does; `problems` are those of `done`."""
        if self.format == "json":
            self._json({**_mutations_json(done), "problems": [_as_json(problem) for problem in problems]})
            return
        self._listed(problems, sys.stdout)
        if self.format == "full" and done.counts:
            rows = [
                [kind, *(f"{n:,}" for n in (c.made, c.caught, c.survived, c.equivalent, c.indistinguishable))]
                for kind, c in done.counts.items()
            ]
            self._table(["mistakes", "made", "caught", "survived", "equivalent", "indistinguishable"], rows)
        total = done.total
        others = [f"{total.equivalent:,} equivalent"] if total.equivalent else []
        if total.indistinguishable:
            others.append(f"{_count(total.indistinguishable, 'indistinguishable pair')}")
        told = f"{total.caught:,} of {_count(total.caught + total.survived, 'mistake')} caught"
        told += f" ({', '.join(others)})" if others else ""
        if done.possible > total.made:
            told += f"; made {total.made:,} of {done.possible:,} that are possible, by seed {done.seed}"
        self._print(told, colour="red" if total.survived else "green")

    def explanation(self, explanation: Explanation) -> None:
        """Where a parameter comes from, in words."""
        if self.format == "json":
            self._json(explanations.as_json(explanation))
            return
        for line in explanations.in_words(explanation):
            self._print(line)

    def recipes(self, recipes: Mapping[str, str]) -> None:
        """Recipes as they are written."""
        if self.format == "json":
            self._json(dict(recipes))
            return
        for text in recipes.values():
            self._print(text + ("\n" if len(recipes) > 1 else ""))

    def recipe(self, text: str, applied: Sequence[Explanation]) -> None:
        """One recipe, and what it makes of some variables."""
        if self.format == "json":
            self._json({explanation.rules[0].target: explanations.as_json(explanation) for explanation in applied})
            return
        self._print(f"{text}\n")
        for explanation in applied:
            for line in explanations.in_words(explanation, places=False):
                self._print(line)

    def inventory(self, opened: Checkpoint, found: Inspection, *, verbose: bool = False) -> None:
        """
        The variables with their totals; slots and averages are folded into a line each, unless --all or asked for.

        Instead of the list: the figures of values, and what testing the checksums found, where that was asked for.
        """
        if self.format == "json":
            self._json(_inspection_json(opened, found))
            return
        for note in found.notes:
            self.note(note)
        if verbose:
            self._files(opened, found)
        if found.values:
            self._figures(found)
        if found.checked:
            self._checked(found.checked)
        if not found.values and not found.checked:
            self._variables(opened, found, verbose=verbose)

    def _variables(self, opened: Checkpoint, found: Inspection, *, verbose: bool) -> None:
        every = len(found.refs) == len(opened.inventory.variables)
        foldable = {
            "optimizer slots and counters": [ref for ref in found.refs if ref.slot_of is not None],
            "moving averages": [ref for ref in found.refs if ref.slot_of is None and ref.average_of is not None],
        }
        folded = {what: refs for what, refs in foldable.items() if refs and every and not self.show_all}
        hidden = {ref.name for refs in folded.values() for ref in refs}
        header = ["variable", "dtype", "shape", "elements", "size"]
        if verbose:
            header += ["shard", "offset"]
        rows = [
            [
                shown(found.labels[ref.name]),
                ref.dtype,
                str(list(ref.shape)),
                f"{ref.elements:,}",
                _size(ref.nbytes),
                *([f"{ref.shard}", f"{ref.offset:,}"] if verbose else []),
                ref.unreadable,
            ]
            for ref in found.refs
            if ref.name not in hidden
        ]
        self._table([*header, ""], rows)
        kinds = _by_dtype(found.refs)
        if len(kinds) > 1:
            for dtype, refs in kinds.items():
                self._print(_totals(dtype, refs))
        for what, refs in folded.items():
            self._print(f"{_totals(what, refs)}; --all lists them")
        trainable = opened.inventory.trainable
        if trainable is not None:
            self._print(_totals("trainable", [ref for ref in found.refs if ref.name in trainable]))
        self._print(_totals("all" if every else "listed", found.refs))

    def _files(self, opened: Checkpoint, found: Inspection) -> None:
        self._print(_line(f"checkpoint: {opened.path}"))
        for file in found.files:
            spare = f", {file.spare:,} of them in no variable" if file.spare else ", all in variables"
            told = "" if file.spare is None else spare
            self._print(_line(f"  {os.path.basename(file.path)}: {file.nbytes:,} bytes{told}"))

    def _figures(self, found: Inspection) -> None:
        rows = []
        refs = {ref.name: ref for ref in found.refs}
        for name, figures in found.values.items():
            ref = refs.get(name)
            about = [shown(found.labels[name]), *((ref.dtype, str(list(ref.shape))) if ref else ("", ""))]
            if figures is None:
                rows.append([*about, *[""] * 7, "no numbers"])
                continue
            bounds = (figures.minimum, figures.maximum, figures.mean, figures.deviation)
            counts = (figures.zeros, figures.nans, figures.infinities)
            rows.append([*about, *map(_figure, bounds), *(f"{count:,}" for count in counts), ""])
        self._table(["variable", "dtype", "shape", "min", "max", "mean", "std", "zeros", "NaN", "Inf", ""], rows)

    def _checked(self, checked: Checked) -> None:
        self._listed(checked.problems, sys.stderr)
        for name, why in checked.unread.items():
            self._print(f"{shown(name)} was not read: {why}")
        read = f"{_count(checked.variables, 'variable')}, {checked.nbytes:,} bytes"
        if checked.problems:
            told = f"{read} as they were written, {_count(len(checked.problems), 'problem')}"
        elif not checked.variables:
            told = "nothing was read"
        elif checked.with_checksum == checked.variables:
            told = f"{read}: every checksum holds"
        elif checked.with_checksum:
            told = f"{read}: every checksum holds; {checked.variables - checked.with_checksum} have none"
        else:
            told = f"{read}: all could be read; the format has no checksum for each"
        self._print(told, colour="red" if checked.problems else "green")

    def cross_check(self, checked: CrossCheck) -> None:
        """What two readers found in one checkpoint."""
        if self.format == "json":
            self._json(
                {
                    "tensorflow": checked.version,
                    "equal": checked.equal,
                    "bytes": checked.nbytes,
                    "not_compared": dict(checked.not_compared),
                    "problems": [_as_json(problem) for problem in checked.problems],
                }
            )
            return
        self._listed(checked.problems, sys.stdout)
        for name, why in checked.not_compared.items():
            self._print(f"{shown(name)} was not compared: {why}")
        told = f"{_count(checked.equal, 'variable')} equal in TensorFlow {checked.version} ({_size(checked.nbytes)})"
        if checked.problems:
            told += f", {_count(len(checked.problems), 'problem')}"
        self._print(f"{told}, {len(checked.not_compared)} not compared")

    def _table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
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
        self._print("\n".join(line.format(*row).rstrip() for row in (header, *rows)))

    # --- the lowest level ---

    @contextmanager
    def progress(self, what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """A bar of the bytes read (of `total`, where that is known), on a terminal; elsewhere nothing."""
        if not sys.stderr.isatty() or self.format == "json":
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
        if not sys.stderr.isatty() or self.format == "json":
            yield lambda done, total: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

        columns = (SpinnerColumn(), TextColumn(what), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=_rich(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def _print(self, text: str, stream: Any = None, colour: str = "") -> None:
        stream = stream or sys.stdout
        with _refusing(stream):
            if colour and stream.isatty():
                from rich.text import Text

                _rich(stderr=stream is sys.stderr).print(Text(text, style=colour), soft_wrap=True)
            else:
                print(text, file=stream)

    def _json(self, document: dict[str, Any]) -> None:
        if self._notes:
            document["notes"] = [_as_json(note) for note in self._notes]
        self._print(json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False))


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
    print(_line(text), file=sys.stderr)  # noqa: T201 - here is where t2t prints


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


def _line(text: str) -> str:
    """The text without control characters, so that no name reaches the terminal as a command."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _size(nbytes: int) -> str:
    """Bytes in decimal units, as disks and networks count them."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000 or unit == "GB":
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000  # type: ignore[assignment]
    raise AssertionError


def _totals(what: str, refs: Sequence[TensorRef]) -> str:
    nbytes = sum(ref.nbytes for ref in refs)
    return f"{what}: {_count(len(refs), 'variable')}, {_count(elements(refs), 'element')}, {_size(nbytes)}"


def _by_dtype(refs: Sequence[TensorRef]) -> dict[str, list[TensorRef]]:
    """The variables by dtype, the dtype with the most bytes first."""
    found: dict[str, list[TensorRef]] = {}
    for ref in refs:
        found.setdefault(ref.dtype, []).append(ref)
    return dict(sorted(found.items(), key=lambda item: (-sum(ref.nbytes for ref in item[1]), item[0])))


def _as_json(problem: Problem) -> dict[str, Any]:
    return {
        "code": problem.code,
        "severity": problem.severity,
        "path": problem.at.path if problem.at else None,
        "line": problem.at.line if problem.at else None,
        "column": problem.at.column if problem.at else None,
        "message": problem.message,
        "hint": problem.hint,
        "details": list(problem.details),
    }


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.5g}"


def _inspection_json(opened: Checkpoint, found: Inspection) -> dict[str, Any]:
    inventory = opened.inventory
    document: dict[str, Any] = {
        "checkpoint": opened.path,
        "files": [{"path": file.path, "bytes": file.nbytes, "spare": file.spare} for file in found.files],
        "notes": [_as_json(note) for note in found.notes],
        "variables": [_ref_json(ref, inventory.trainable) for ref in found.refs],
        "shared_names": {name: list(same) for name, same in inventory.shared_names.items()},
        "digest": inventory.digest if inventory.is_cheap else None,
    }
    if found.values:
        document["values"] = {
            name: figures and {key: _number(value) for key, value in asdict(figures).items()}
            for name, figures in found.values.items()
        }
    if checked := found.checked:
        document["checked"] = {
            "variables": checked.variables,
            "bytes": checked.nbytes,
            "with_checksum": checked.with_checksum,
            "unread": dict(checked.unread),
        }
        document["problems"] = [_as_json(problem) for problem in checked.problems]
    return document


def _number(value: float | None) -> float | str | None:
    """A number as JSON can hold it: infinities and NaN have no place there."""
    return value if value is None or math.isfinite(value) else str(value)


def _ref_json(ref: TensorRef, trainable: frozenset[str] | None) -> dict[str, Any]:
    return {
        "name": ref.name,
        "key": ref.key or ref.name,
        "full_name": ref.full_name,
        "dtype": ref.dtype,
        "shape": list(ref.shape),
        "elements": ref.elements,
        "bytes": ref.nbytes,
        "shard": ref.shard,
        "offset": ref.offset,
        "crc32c": None if ref.crc32c is None else f"{ref.crc32c:08x}",
        "slot_of": ref.slot_of,
        "average_of": ref.average_of,
        "trainable": None if trainable is None else ref.name in trainable,
        "unreadable": ref.unreadable or None,
    }


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
                "change": _number(survivor.change),
                "output": survivor.output,
                "max_delta": _number(survivor.max_delta),
                "tolerance": _number(survivor.tolerance),
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
                "max_delta": _number(delta.max_delta),
                "scale": _number(delta.scale),
                "tolerance": _number(delta.tolerance),
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
