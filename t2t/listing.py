"""
A checkpoint as `t2t inspect` shows it: its variables, the figures of their values, what testing them found.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from t2t.console import Console, as_number, counted, printable, sized
from t2t.names import shown
from t2t.problems import as_json
from t2t.tensors import TensorRef, elements

if TYPE_CHECKING:
    from t2t.checkpoints import Checkpoint
    from t2t.checkpoints.inspection import Checked, Inspection
    from t2t.checkpoints.via_tensorflow import CrossCheck


def inventory(screen: Console, opened: Checkpoint, found: Inspection, *, verbose: bool = False) -> None:
    """
    The variables with their totals; slots and averages are folded into a line each, unless --all or asked for.

    Instead of the list: the figures of values, and what testing the checksums found, where that was asked for.
    """
    if screen.is_document:
        problems = [*found.notes, *(found.checked.problems if found.checked else ())]
        screen.document(_inspection_json(opened, found), problems)
        return
    for note in found.notes:
        screen.note(note)
    if verbose:
        _files(screen, opened, found)
    if found.values:
        _figures(screen, found)
    if found.checked:
        _checked(screen, found.checked)
    if not found.values and not found.checked:
        _variables(screen, opened, found, verbose=verbose)


def _variables(screen: Console, opened: Checkpoint, found: Inspection, *, verbose: bool) -> None:
    every = len(found.refs) == len(opened.inventory.variables)
    foldable = {
        "optimizer slots and counters": [ref for ref in found.refs if ref.slot_of is not None],
        "moving averages": [ref for ref in found.refs if ref.slot_of is None and ref.average_of is not None],
    }
    folded = {what: refs for what, refs in foldable.items() if refs and every and not screen.show_all}
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
            sized(ref.nbytes),
            *([f"{ref.shard}", f"{ref.offset:,}"] if verbose else []),
            ref.unreadable,
        ]
        for ref in found.refs
        if ref.name not in hidden
    ]
    screen.table([*header, ""], rows)
    kinds = _by_dtype(found.refs)
    if len(kinds) > 1:
        for dtype, refs in kinds.items():
            screen.say(_totals(dtype, refs))
    for what, refs in folded.items():
        screen.say(f"{_totals(what, refs)}; --all lists them")
    trainable = opened.inventory.trainable
    if trainable is not None:
        screen.say(_totals("trainable", [ref for ref in found.refs if ref.name in trainable]))
    screen.say(_totals("all" if every else "listed", found.refs))


def _files(screen: Console, opened: Checkpoint, found: Inspection) -> None:
    screen.say(printable(f"checkpoint: {opened.path}"))
    for file in found.files:
        spare = f", {file.spare:,} of them in no variable" if file.spare else ", all in variables"
        told = "" if file.spare is None else spare
        screen.say(printable(f"  {os.path.basename(file.path)}: {file.nbytes:,} bytes{told}"))


def _figures(screen: Console, found: Inspection) -> None:
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
    screen.table(["variable", "dtype", "shape", "min", "max", "mean", "std", "zeros", "NaN", "Inf", ""], rows)


def _checked(screen: Console, checked: Checked) -> None:
    screen.listed(checked.problems, sys.stderr)
    for name, why in checked.unread.items():
        screen.say(f"{shown(name)} was not read: {why}")
    read = f"{counted(checked.variables, 'variable')}, {checked.nbytes:,} bytes"
    if checked.problems:
        told = f"{read} as they were written, {counted(len(checked.problems), 'problem')}"
    elif not checked.variables:
        told = "nothing was read"
    elif checked.with_checksum == checked.variables:
        told = f"{read}: every checksum holds"
    elif checked.with_checksum:
        told = f"{read}: every checksum holds; {checked.variables - checked.with_checksum} have none"
    else:
        told = f"{read}: all could be read; the format has no checksum for each"
    screen.say(told, colour="red" if checked.problems else "green")


def cross_check(screen: Console, checked: CrossCheck) -> None:
    """What two readers found in one checkpoint."""
    if screen.is_document:
        screen.document(
            {
                "tensorflow": checked.version,
                "equal": checked.equal,
                "bytes": checked.nbytes,
                "not_compared": dict(checked.not_compared),
                "problems": [as_json(problem) for problem in checked.problems],
            },
            checked.problems,
        )
        return
    screen.listed(checked.problems, sys.stdout)
    for name, why in checked.not_compared.items():
        screen.say(f"{shown(name)} was not compared: {why}")
    told = f"{counted(checked.equal, 'variable')} equal in TensorFlow {checked.version} ({sized(checked.nbytes)})"
    if checked.problems:
        told += f", {counted(len(checked.problems), 'problem')}"
    screen.say(f"{told}, {len(checked.not_compared)} not compared")


def _totals(what: str, refs: Sequence[TensorRef]) -> str:
    nbytes = sum(ref.nbytes for ref in refs)
    return f"{what}: {counted(len(refs), 'variable')}, {counted(elements(refs), 'element')}, {sized(nbytes)}"


def _by_dtype(refs: Sequence[TensorRef]) -> dict[str, list[TensorRef]]:
    """The variables by dtype, the dtype with the most bytes first."""
    found: dict[str, list[TensorRef]] = {}
    for ref in refs:
        found.setdefault(ref.dtype, []).append(ref)
    return dict(sorted(found.items(), key=lambda item: (-sum(ref.nbytes for ref in item[1]), item[0])))


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.5g}"


def _inspection_json(opened: Checkpoint, found: Inspection) -> dict[str, Any]:
    inventory = opened.inventory
    document: dict[str, Any] = {
        "checkpoint": opened.path,
        "files": [{"path": file.path, "bytes": file.nbytes, "spare": file.spare} for file in found.files],
        "notes": [as_json(note) for note in found.notes],
        "variables": [_ref_json(ref, inventory.trainable) for ref in found.refs],
        "shared_names": {name: list(same) for name, same in inventory.shared_names.items()},
        "digest": inventory.digest if inventory.is_cheap else None,
    }
    if found.values:
        document["values"] = {
            name: figures and {key: as_number(value) for key, value in asdict(figures).items()}
            for name, figures in found.values.items()
        }
    if checked := found.checked:
        document["checked"] = {
            "variables": checked.variables,
            "bytes": checked.nbytes,
            "with_checksum": checked.with_checksum,
            "unread": dict(checked.unread),
        }
        document["problems"] = [as_json(problem) for problem in checked.problems]
    return document


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
