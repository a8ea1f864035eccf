"""
What there is to say about a checkpoint's values: whether their checksums hold, their figures, and which of them tell
that something was forgotten when the model was trained.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import google_crc32c
import numpy as np

from t2t.checkpoints.files import state_of
from t2t.names import did_you_mean, matches, natural, shown
from t2t.problems import CheckpointError, Location, Problem, UsageError
from t2t.tensors import DTYPES, CheckpointInventory, TensorRef

if TYPE_CHECKING:
    from t2t.checkpoints import Checkpoint

#: Figures are computed over so many elements at a time, as float64.
PIECE = 2**20

#: What a batch normalization starts with: its mean 0, its variance 1. Keras' and TF1's names; torch's, for ports.
_MEANS = ("moving_mean", "running_mean")
_VARIANCES = ("moving_variance", "running_variance", "running_var")
_DATA_FILE = re.compile(r"\.data-([0-9]{5,})-of-[0-9]{5,}\Z")


@dataclass(frozen=True, slots=True)
class Checked:
    """
    What reading variables found: how many could be read, their bytes, how many of them have a checksum in the file.

    `unread` says why others were not read, `problems` which are damaged (T2T608) or cannot be had.
    """

    variables: int
    nbytes: int
    with_checksum: int
    unread: Mapping[str, str]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Statistics:
    """
    One variable's figures. Least, largest, mean and standard deviation (of the population) are those of its finite
    values, in float64 but for the bounds of integers; None where there are none, or where they have no order (complex).
    """

    minimum: float | None
    maximum: float | None
    mean: float | None
    deviation: float | None
    zeros: int
    nans: int
    infinities: int


@dataclass(frozen=True, slots=True)
class FileUse:
    """One file of the checkpoint: its bytes, and how many of them are no variable's; None where that is not known."""

    path: str
    nbytes: int
    spare: int | None


def check(checkpoint: Checkpoint, refs: Iterable[TensorRef], progress: Callable[[int], None]) -> Checked:
    """Reads the variables one after the other, in file order, and goes on behind a damaged one."""
    variables = nbytes = with_checksum = 0
    unread: dict[str, str] = {}
    problems: list[Problem] = []
    for ref in sorted(refs, key=lambda ref: (ref.shard, ref.offset)):
        if ref.unreadable:
            unread[ref.name] = ref.unreadable
            continue
        try:
            checkpoint.read(ref)
        except CheckpointError as error:
            problems += error.problems
        else:
            variables, nbytes = variables + 1, nbytes + ref.nbytes
            with_checksum += ref.crc32c is not None
        progress(ref.nbytes)
    return Checked(variables, nbytes, with_checksum, unread, tuple(problems))


def statistics(checkpoint: Checkpoint, ref: TensorRef) -> Statistics | None:
    """The figures of one variable's values, None where it holds no numbers; raises CheckpointError."""
    if ref.unreadable or DTYPES[ref.dtype].numpy is None:
        return None
    values = checkpoint.read(ref).reshape(-1)
    kind = DTYPES[ref.dtype].kind
    pieces = [values[at : at + PIECE] for at in range(0, values.size, PIECE)]
    zeros = sum(piece.size - int(np.count_nonzero(piece)) for piece in pieces)
    if kind == "complex":
        nans = sum(int(np.isnan(piece).sum()) for piece in pieces)
        return Statistics(None, None, None, None, zeros, nans, sum(int(np.isinf(piece).sum()) for piece in pieces))
    nans = infinities = count = 0
    least, largest, total = math.inf, -math.inf, 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for piece in pieces:
            numbers = _finite(piece)
            found_nans = int(np.isnan(piece.astype(np.float64)).sum()) if numbers.size < piece.size else 0
            nans += found_nans
            infinities += piece.size - numbers.size - found_nans
            if numbers.size:
                exact = piece if kind == "int" else numbers
                least, largest = min(least, exact.min().item()), max(largest, exact.max().item())
                total += float(numbers.sum())
                count += numbers.size
        if not count:
            return Statistics(None, None, None, None, zeros, nans, infinities)
        mean = total / count
        squares = sum(float(np.square(_finite(piece) - mean).sum()) for piece in pieces)
    return Statistics(least, largest, mean, math.sqrt(squares / count), zeros, nans, infinities)


def never_updated(
    path: str, inventory: CheckpointInventory, figures: Mapping[str, Statistics | None]
) -> tuple[Problem, ...]:
    """
    A warning for normalizations whose moving mean is still all 0 and whose moving variance all 1, as at the beginning.

    It needs no values where the format stores checksums (those of zeros and of ones are known); elsewhere it goes by
    `figures`, as far as they are there.
    """
    partners = {}
    for ref in inventory.variables.values():
        owner, _, last = (ref.full_name or ref.name).rpartition("/")
        if last in _VARIANCES and not ref.unreadable:
            partners[owner] = ref
    stale, count = [], 0
    for ref in inventory.variables.values():
        owner, _, last = (ref.full_name or ref.name).rpartition("/")
        variance = partners.get(owner)
        if last not in _MEANS or variance is None or ref.unreadable or ref.slot_of is not None or not ref.elements:
            continue
        count += 1
        if _is_all(ref, 0, figures.get(ref.name)) and _is_all(variance, 1, figures.get(variance.name)):
            stale.append(ref)
    if not stale:
        return ()
    message = (
        f"{len(stale)} of {count} normalizations have statistics that were never updated "
        f"(mean all 0, variance all 1), the first is {shown(stale[0].name)}"
    )
    hint = "in training, nothing ran the updates of the moving averages: the model may be right in training mode only"
    return (Problem("T2T617", message, Location(path), hint, "warning"),)


def file_uses(checkpoint: Checkpoint) -> list[FileUse]:
    """The checkpoint's files; for data files of V2 checkpoints also the bytes that are no listed variable's."""
    used: Counter[int] = Counter()
    for ref in checkpoint.inventory.variables.values():
        used[ref.shard] += ref.nbytes  # no byte is two variables': such a checkpoint is refused
    uses = []
    for path in checkpoint.files:
        nbytes = state_of(path)[2]
        match = _DATA_FILE.search(path)
        spare = nbytes - used[int(match[1])] if match else -1
        uses.append(FileUse(path, nbytes, spare if spare >= 0 else None))
    return uses


def _finite(piece: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    numbers = piece.astype(np.float64)
    finite = np.isfinite(numbers)
    return numbers if finite.all() else numbers[finite]


def _is_all(ref: TensorRef, value: int, figures: Statistics | None) -> bool:
    if ref.crc32c is not None:
        return ref.crc32c == _crc32c_of(ref.dtype, value, ref.nbytes)
    return figures is not None and figures.minimum == figures.maximum == value and not figures.nans + figures.infinities


@cache
def _crc32c_of(dtype: str, value: int, nbytes: int) -> int | None:
    """The checksum of a variable of one value; None where it has no elements of a size."""
    numpy = DTYPES[dtype].numpy if dtype in DTYPES else None
    if numpy is None:
        return None
    one = np.full(min(nbytes // numpy.itemsize, PIECE), value, numpy).tobytes()
    crc = 0
    for at in range(0, nbytes, len(one)):
        crc = google_crc32c.extend(crc, one[: nbytes - at])
    return int(crc)


@dataclass(frozen=True, slots=True)
class Inspection:
    """
    What `inspect` found: the variables that were asked for, in the order that was, and what there is to warn of.

    `labels` are their names as they were asked for. `values` are the figures of those variables whose values were asked
    for (None where one holds no numbers), `checked` what reading every one of `refs` found, `files` the checkpoint's,
    where that was asked for.
    """

    refs: tuple[TensorRef, ...]
    labels: Mapping[str, str]
    notes: tuple[Problem, ...]
    files: tuple[FileUse, ...]
    values: Mapping[str, Statistics | None]
    checked: Checked | None


def inspect(
    opened: Checkpoint,
    patterns: Sequence[str] = (),
    *,
    names: Literal["key", "full_name"] = "key",
    sort: Literal["name", "size"] = "name",
    values: Sequence[str] = (),
    checksums: bool = False,
    files: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Inspection:
    """
    The variables that one of the globs `patterns` matches (all of them without one), the largest first by `size`.

    With `checksums` each of them is read and checked, with `files` each file's size is asked for; figures are computed
    of those that a glob of `values` matches.
    Raises UsageError for a glob that matches nothing, CheckpointError where a variable whose figures are wanted cannot
    be read.
    """
    refs = list(opened.inventory.variables.values())
    labels = {ref.name: (ref.full_name if names == "full_name" else None) or ref.name for ref in refs}
    if names == "full_name":  # by their keys they are sorted already
        refs.sort(key=lambda ref: natural(labels[ref.name]))
    if sort == "size":
        refs.sort(key=lambda ref: -ref.nbytes)
    listed = _matched(patterns, refs, labels) if patterns else refs
    wanted = _matched(values, refs, labels)
    checked = check(opened, listed, progress) if checksums else None
    figures = {}
    for ref in sorted(wanted, key=lambda ref: (ref.shard, ref.offset)):
        figures[ref.name] = statistics(opened, ref)
        progress(ref.nbytes)
    return Inspection(
        tuple(listed),
        labels,
        (*opened.notes, *never_updated(opened.path, opened.inventory, figures)),
        tuple(file_uses(opened)) if files else (),
        {ref.name: figures[ref.name] for ref in wanted},
        checked,
    )


def _matched(patterns: Sequence[str], refs: Sequence[TensorRef], labels: Mapping[str, str]) -> list[TensorRef]:
    """The variables that one of the globs matches, in their order; a name is matched by itself, whatever it holds."""
    found: set[str] = set()
    for pattern in patterns:
        hits = {ref.name for ref in refs if labels[ref.name] == pattern or matches(pattern, labels[ref.name])}
        if not hits:
            message = f"no variable is matched by {shown(pattern)}"
            hint = did_you_mean(pattern, labels.values())
            if not hint and "**" not in pattern:
                hint = f"* stays inside one part of a name, ** is any number of parts: '**/{shown(pattern)}'"
            raise UsageError(Problem("T2T001", message, None, hint))
        found |= hits
    return [ref for ref in refs if ref.name in found]
