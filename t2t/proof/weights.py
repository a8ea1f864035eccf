"""
Whether an original that brings weights of its own is of the checkpoint's training.

A file of the same model may well be of another training: its outputs then differ, and nothing in the mapping is wrong.
What is looked for is a single variable of the checkpoint among the file's constants: with the same values in whatever
order, or (what folding a batch norm into a kernel leaves) each output channel's values times a number.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import numpy as np

from t2t import checkpoints
from t2t.checkpoints import Checkpoint
from t2t.names import shown
from t2t.problems import OriginalError, Problem
from t2t.proof.arrays import Array
from t2t.proof.constants import KINDS, constants
from t2t.proof.originals import samples
from t2t.verification import Verify

#: Fewer elements, or fewer different ones (zeros, ones), could be anybody's.
MIN_ELEMENTS = 16
MIN_DISTINCT = 8

#: So many values make a channel that can be told from another one, and so many of the channels have to agree.
MIN_CHANNEL = 4
AGREEING = 0.9

#: How far two values may differ that were multiplied and divided by one number in float32.
ROUNDING = 1e-5


def check_training(verify: Verify, original: str, checkpoint: Checkpoint) -> None:
    """
    Raises OriginalError (T2T905) where the original at `original` holds none of the checkpoint's variables.

    A graph takes its variables from the checkpoint itself, and a call takes what it wants: neither is looked at.
    Raises OriginalError (T2T902) or CheckpointError for an original that cannot be read.
    """
    kind = verify.reference.kind
    if kind in KINDS:
        stored = constants(kind, original)
    elif kind in {"saved_model", "keras"} and not _is_same(original, checkpoint):
        with checkpoints.open(original) as opened:
            stored = list(_variables(opened))
    else:
        return
    by_size: dict[int, list[Array]] = {}
    for array in stored:
        by_size.setdefault(array.size, []).append(array)
    looked_for = 0
    for values in _variables(checkpoint):
        looked_for += 1
        if any(_is_in(values, array) for array in by_size.get(values.size, ())):
            return
    if not looked_for:
        return
    text = (
        f"the {kind} model is of another training than the checkpoint: none of {looked_for} variables "
        f"has its values among the model's {len(stored)} constants"
    )
    hint = "name the model that was made from this checkpoint, or describe the original by call"
    raise OriginalError(Problem("T2T905", text, verify.at, hint, details=(f"looked for in {shown(original)}",)))


def folded(verify: Verify, original: str, checkpoint: Checkpoint) -> dict[str, str]:
    """
    The variables that the file's constants are made of where each channel was multiplied by a number, as a batch norm
    folded into a kernel does: the variable's name by the constant's digest (`samples.digest`).

    Only where one variable alone can be it; what the file holds as it is is left out. Raises what `constants` does.
    """
    kind = verify.reference.kind
    if kind not in KINDS:
        return {}
    by_size: dict[int, list[Array]] = {}
    for array in constants(kind, original):
        by_size.setdefault(array.size, []).append(array)
    found: dict[str, list[str]] = {}
    for name, values in _named_variables(checkpoint):
        for constant in by_size.get(values.size, ()):
            if not _is_equal(values, constant) and _is_in(values, constant):
                found.setdefault(samples.digest(constant), []).append(name)
    return {digest: names[0] for digest, names in found.items() if len(names) == 1}


def _is_same(original: str, checkpoint: Checkpoint) -> bool:
    """Whether the original's weights are the checkpoint: a SavedModel's variables, or the very file."""
    inside = os.path.join(original, "variables", "variables.index")
    path = inside if os.path.isdir(original) else original
    return any(os.path.exists(file) and os.path.samefile(file, path) for file in checkpoint.files)


def _variables(checkpoint: Checkpoint) -> Iterator[Array]:
    return (values for _, values in _named_variables(checkpoint))


def _named_variables(checkpoint: Checkpoint) -> Iterator[tuple[str, Array]]:
    """What can be told from another training's: the floating variables, small ones first."""
    for ref in sorted(checkpoint.inventory.variables.values(), key=lambda ref: ref.nbytes):
        if ref.elements < MIN_ELEMENTS or "float" not in ref.dtype or ref.slot_of is not None or ref.unreadable:
            continue
        values = checkpoint.read(ref)
        if np.unique(values.astype(np.float64)).size >= MIN_DISTINCT:
            yield ref.name, values


def _is_in(values: Array, constant: Array) -> bool:
    """Whether the constant, which has as many elements, holds the variable's values."""
    if _is_equal(values, constant):
        return True
    own, other = _as_numbers(values, constant)
    return any(_are_scaled(a, b) for a in _by_channel(own, variable=True) for b in _by_channel(other, variable=False))


def _is_equal(values: Array, constant: Array) -> bool:
    """Whether these are the same values, in whatever order."""
    own, other = _as_numbers(values, constant)
    return np.array_equal(np.sort(own, axis=None), np.sort(other, axis=None))


def _as_numbers(values: Array, constant: Array) -> tuple[Array, Array]:
    """Both as float64, the variable through the constant's dtype."""
    with np.errstate(over="ignore"):
        return values.astype(constant.dtype).astype(np.float64), constant.astype(np.float64)


def _by_channel(array: Array, *, variable: bool) -> Iterable[Array]:
    """
    The array as [channels, values], for each way in which its channels may lie.

    In a variable of TensorFlow's they come last; in a transposed kernel last but one, in a depthwise one in both. A
    converted model has them first or last.
    """
    if array.ndim < 2:
        return
    yield array.reshape(-1, array.shape[-1]).T
    if not variable:
        yield array.reshape(array.shape[0], -1)
        return
    if array.ndim > 2:
        yield np.moveaxis(array, -2, 0).reshape(array.shape[-2], -1)
        yield array.reshape(-1, array.shape[-2] * array.shape[-1]).T


def _are_scaled(own: Array, other: Array) -> bool:
    """Whether each channel holds the other's values times one number, in whatever order."""
    if own.shape != other.shape or own.shape[1] < MIN_CHANNEL:
        return False
    used = np.abs(own).max(axis=1) > 0
    if not used.any() or not np.isfinite(own).all() or not np.isfinite(other).all():
        return False
    agree = np.abs(_scaled(own[used]) - _scaled(other[used])).max(axis=1) <= ROUNDING
    return bool(agree.mean() >= AGREEING)


def _scaled(rows: Array) -> Array:
    """Each row divided by its value of the largest size, and sorted."""
    largest = np.take_along_axis(rows, np.abs(rows).argmax(axis=1, keepdims=True), axis=1)
    scaled: Array = np.sort(rows / np.where(largest == 0, 1.0, largest), axis=1)
    return scaled
