"""
What is wrong, and what would have been right: the first layer that differs, and the rows with which it does not.

The alternatives of `t2t.proof.alternatives` are tried in the filled module, one at a time: where they write what the
first module that differs owns, the run goes on to the next difference or to the end, and all outputs agree. Where one
mends that module alone, it is kept, and the next one is looked at. Where no row does, the twin's own attributes are
tried (`t2t.proof.twins`).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import nn

from t2t import module as modules
from t2t.checkpoints import Checkpoint
from t2t.names import shown
from t2t.plan import Plan
from t2t.problems import Location, MappingError, ModuleError, Problem
from t2t.proof import twins
from t2t.proof.alternatives import Alternative, alternatives, together, values
from t2t.proof.arrays import Array
from t2t.proof.compare import compare
from t2t.proof.difference import Pairs, Trace
from t2t.proof.recording import Recording, by_draw
from t2t.proof.written import key_of
from t2t.rules import Rule
from t2t.tensors import Shape
from t2t.verification import Verify

#: So many changes are tried in all, and so many for one module that others may have caused to differ.
MAX_TRIED = 600
MAX_TRIED_HERE = 200

#: So many modules that agree are tried, before the first that differs.
MAX_BEFORE = 6

#: So many rows stand in the one line of a problem.
MAX_TOLD = 3

#: More layers that have to be mended one after the other are another mapping.
MAX_REPAIRS = 12


@dataclass(frozen=True, slots=True)
class Repair:
    """
    What makes a module agree: `what` it is in words, and the `rules` in place of those that write the same; none where
    not the mapping is at fault, but an attribute of the torch module. `module` is its path.
    """

    what: str
    rules: tuple[Rule, ...] = ()
    module: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """
    `place` is the path of the first module that differs, or of the one that was mended; "" where nothing says which.

    `trace` is of the module as it was filled. With all `repairs` the outputs agree where `passes` says so; else they
    mend as many layers as could be. `tried` are the changes that were run, in words; `is_cut` says that there were
    more than are tried. `lines` are the rows of all repairs together, to paste in place of the file's rows in the lines
    `replaces`. `is_recorded` says whether the recording holds anything of the original's inside.
    """

    place: str
    trace: Trace
    repairs: tuple[Repair, ...]
    passes: bool
    tried: tuple[str, ...]
    is_cut: bool = False
    lines: tuple[str, ...] = ()
    replaces: tuple[int, ...] = ()
    is_recorded: bool = False

    @property
    def at(self) -> Location | None:
        """Where the first row to change stands; None where none is known."""
        places = [rule.at for repair in self.repairs for rule in repair.rules]
        if not self.passes or not places or not self.replaces:
            return None
        first = Location(places[0].path, self.replaces[0], 1)
        return next((at for at in places if at.line == first.line), first)

    @property
    def first(self) -> int | None:
        """Which call of the trace is the first that differs, of `place` if it is among them; None where none is."""
        own = (number for number, call in enumerate(self.trace.calls) if call.module == self.place and call.differs)
        return next(own, self.trace.first)

    @property
    def hint(self) -> str:
        """The way out in one line."""
        where = ""
        if self.first is not None:
            name = self.trace.calls[self.first].module
            is_first = "is the first layer that differs" if self.first == self.trace.first else "is where it goes wrong"
            cause = f", most likely because of {shown(self.place)}" if self.place not in {"", name} else ""
            where = f"{shown(name)} {is_first}{cause}; "
        if not self.passes:
            return f"{where}{self.in_vain}"
        told = [*self.lines, *(repair.what for repair in self.repairs if not repair.rules)]
        rest = f" and {len(told) - MAX_TOLD} more, see t2t verify" if len(told) > MAX_TOLD else ""
        return f"{where}what passes is {', '.join(told[:MAX_TOLD])}{rest}"

    @property
    def in_vain(self) -> str:
        """How much was tried without success."""
        count = len(self.tried)
        look = "look at what its forward() does around it" if self.place else "look at what forward() does"
        if not count:
            return f"no known change of its rows or of the module fits; {look}"
        changes = f"{count} change{'s' if count > 1 else ''} of rows and of the module"
        stopped = ", and there are more" if self.is_cut else ""
        return f"{changes} tried, and none makes the outputs agree{stopped}; {look}"


def diagnose(
    module: nn.Module,
    plan: Plan,
    checkpoint: Checkpoint,
    recording: Recording,
    verify: Verify,
    *,
    tried: Callable[[int, int], None] = lambda done, total: None,
    note: Callable[[Problem], None] = lambda _: None,
) -> Diagnosis:
    """
    Why the filled module does not compute what was recorded. Afterwards it is as it was: values, attributes, buffers.

    `tried` hears how many changes have been tried, and of how many at most, `note` (T2T503) which of the tensors that
    verify's layers name are not recorded. Raises ModuleError (T2T707) where forward() fails, MappingError (T2T503)
    where verify's layers name a module that there is not.
    """
    pairs = Pairs(module, plan, recording, verify)
    if pairs.unrecorded:
        names = ", ".join(map(shown, pairs.unrecorded))
        text = f"the recording does not have what layers name: {names}"
        note(Problem("T2T503", text, verify.at, f"run t2t record {shown(verify.at.path)}", severity="note"))
    trace, first = pairs.trace(), pairs.trace(only_first=True)
    with contextlib.ExitStack() as undo:
        search = _Search(module, plan, checkpoint, recording, replace(verify, labels=None), pairs, tried, undo)
        found = search.run(first)
    passes = found and search.prune()
    repairs = tuple(kept.repair for kept in search.kept)
    lines, replaces = together(plan, [kept.alternative for kept in search.kept if kept.alternative is not None])
    # What mends it tells more than what is near it.
    places = [*(repair.module for repair in repairs), *_suspects(pairs, first)]
    place = places[0] if places else ""
    has_inside = bool(recording.inside.layers or recording.inside.named)
    return Diagnosis(place, trace, repairs, passes, tuple(search.tried), bool(search.cut), lines, replaces, has_inside)


def _suspects(pairs: Pairs, trace: Trace) -> list[str]:
    """
    The modules that may be why a run that ends with its first difference differs there, the likeliest first.

    A module that takes what is right and gives what is not is it. One that takes what is not right may follow a module
    of which nothing is recorded, or be inside of one that has parameters of its own; or its rows read another one's
    variables.
    """
    if trace.first is None:
        return []
    call = trace.calls[trace.first]
    known = {one.module for one in trace.calls if one.output is not None and one.output.verdict == "agrees"}
    between = [name for name in _since(trace) if name in pairs.targets and name not in known and name]
    if call.input is None or call.input.verdict != "differs":
        return [call.module, *between]
    words = call.module.split(".")
    around = [".".join(words[:count]) for count in reversed(range(len(words)))]
    around = [name for name in around if name in pairs.targets and name not in between]
    # The root is around everything: its own parameters come last.
    return [*between, *filter(None, around), call.module, *([""] if "" in around else [])]


def _since(trace: Trace) -> list[str]:
    """The modules that begin after the last call that gives what is right, or with one that takes it."""
    begun: dict[tuple[str, int], int] = {}
    counts: Counter[str] = Counter()
    for place, name in enumerate(trace.called):
        begun[name, counts[name]] = place
        counts[name] += 1
    starts = [0]
    for call in trace.calls:
        ends = [end is not None and end.verdict == "agrees" for end in (call.input, call.output)]
        if not call.differs and any(ends):
            starts.append(begun[call.module, call.number] + ends[1])
    return list(dict.fromkeys(trace.called[max(starts) :]))


def _agreeing(trace: Trace) -> list[str]:
    """
    The modules before the first that differs, the last ones first.

    A module whose rows read all of another one's variables gives what that one gives in the original, if both take the
    same: query and value of an attention agree, exchanged, and what comes of them does not.
    """
    return [call.module for call in reversed(trace.calls[: trace.first])][:MAX_BEFORE]


@dataclass(frozen=True, slots=True)
class _Change:
    """A change of the module: what it is, what makes it for as long as it is entered, and of which rows, if of rows."""

    repair: Repair
    made: Callable[[], AbstractContextManager[None]]
    alternative: Alternative | None = None


@dataclass(frozen=True, slots=True)
class _Search:
    """
    The module, what has been tried in it, and what was kept; `undo` puts that back. `cut` are modules for which more
    could have been tried.
    """

    module: nn.Module
    plan: Plan
    checkpoint: Checkpoint
    recording: Recording
    verify: Verify
    pairs: Pairs
    progress: Callable[[int, int], None]
    undo: contextlib.ExitStack
    kept: list[_Change] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)

    def run(self, trace: Trace) -> bool:
        """Mend one place after the other, from this run on; whether all outputs agree in the end."""
        while trace.first is not None and len(self.kept) < MAX_REPAIRS:
            following: Trace | None = trace
            for path in dict.fromkeys([*_suspects(self.pairs, trace), *_agreeing(trace)]):
                following = self._mended(self._rows(path, trace.maps), trace)
                if following is not trace:
                    break
            else:
                following = self._mended(self._twins(_since(trace)), trace)
            if following is None:
                return True
            if following is trace:
                return False
            trace = following
        return trace.first is None and self._mended(self._anywhere(trace), trace, MAX_TRIED) is None

    def _anywhere(self, trace: Trace) -> Iterator[_Change]:
        """Where no layer says where: all rows, those of modules that nothing is known of first, and all of the twin."""
        known = {call.module for call in trace.calls}
        for path in sorted(self.pairs.targets, key=lambda path: path in known):
            yield from self._rows(path, trace.maps)
        yield from self._twins([path for path in self.pairs.paths if path])

    def _rows(self, path: str, maps: Sequence[Shape]) -> Iterator[_Change]:
        repaired = {key_of(rule) for kept in self.kept for rule in kept.repair.rules}
        for alternative in alternatives(self.plan, self.pairs.targets.get(path, ()), maps):
            if not repaired & {key_of(rule) for rule in alternative.rules}:
                repair = Repair(alternative.what, alternative.rules, path)
                yield _Change(repair, partial(self._written, alternative), alternative)

    def _twins(self, paths: Sequence[str]) -> Iterator[_Change]:
        for path in paths:
            for change in twins.changes(self.module, path) if path else ():
                yield _Change(Repair(change.what, module=path), change.made)

    @contextlib.contextmanager
    def _written(self, alternative: Alternative) -> Iterator[None]:
        """The module with what these rules give."""
        given = values(self.plan, self.checkpoint, alternative)
        # Of their own: the arrays share the module's memory, which is about to change.
        before = {name: array.copy() for name, array in modules.values(self.module, list(given)).items()}
        try:
            self._put(given)
            yield
        finally:
            self._put(before)

    def _put(self, arrays: Mapping[str, Array]) -> None:
        entries = self.module.state_dict(keep_vars=True)
        with torch.no_grad():
            for name, array in arrays.items():
                entries[name].copy_(modules.to_torch(array, array.dtype.name))

    def _mended(self, changes: Iterator[_Change], trace: Trace, limit: int = MAX_TRIED_HERE) -> Trace | None:
        """
        Try the changes until all outputs agree: None then. Else the one that leads farthest is kept, and this is the
        run with it; the given one where none leads farther.
        """
        best: _Change | None = None
        farthest = _position(trace)
        room = min(limit, MAX_TRIED - len(self.tried))
        for number, change in enumerate(changes):
            if number == room:
                self.cut.append(change.repair.module)
                break
            try:
                with change.made():
                    reached = self._reached(trace, change.repair)
            except (MappingError, ModuleError):
                # What does not fit, or cannot be run, mends nothing.
                continue
            self.tried.append(change.repair.what)
            self.progress(len(self.tried), MAX_TRIED)
            if reached is None:
                self._keep(change)
                return None
            if reached > farthest:
                best, farthest = change, reached
        if best is None:
            return trace
        self._keep(best)
        return self._pairs().trace(only_first=True)

    def _pairs(self, *more: Repair) -> Pairs:
        """What pairs with which module now."""
        repairs = (*(kept.repair for kept in self.kept), *more)
        return self.pairs.rewired(rule for repair in repairs for rule in repair.rules)

    def _reached(self, trace: Trace, repair: Repair) -> float | None:
        """How far the run agrees with this change, None where all outputs do."""
        found = None
        if trace.first is not None:
            found = self._pairs(repair).trace(only_first=True)
            if found.first is not None:
                return _position(found)
        if all(compare(self.module, draw, self.verify).proven for draw in by_draw(self.recording)):
            return None
        return _position(found) if found is not None else 0

    def _keep(self, change: _Change) -> None:
        self.undo.enter_context(change.made())
        self.kept.append(change)

    def prune(self) -> bool:
        """
        Leave out what turned out to be needless, in the module as it was; whether the rest makes the outputs agree.

        A change can lead farther by what it pairs with, and not be needed in the end.
        """
        for change in list(self.kept) if len(self.kept) > 1 else ():
            rest = [kept for kept in self.kept if kept is not change]
            if self._is_proven(rest):
                self.kept[:] = rest
        return self._is_proven(self.kept)

    def _is_proven(self, changes: Sequence[_Change]) -> bool:
        with contextlib.ExitStack() as made:
            for change in changes:
                made.enter_context(change.made())
            return compare(self.module, self.recording, self.verify).proven


def _position(trace: Trace) -> float:
    """
    How many ends agree before the first that differs, where the run ends. One that cannot be held against anything any
    more, as after an exchange of modules of other sizes, is none.
    """
    ends = (end for call in trace.calls for end in (call.input, call.output))
    return sum(end is not None and end.verdict == "agrees" for end in ends)
