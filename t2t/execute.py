"""
A plan x an open checkpoint -> every tensor of the state_dict, source by source in file order.

Each variable is read once, its checksum is tested, and all the steps that use it are applied while it is at hand. The
buffers are used again for each variable, so memory stays at twice the largest tensor. Nothing here knows torch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from t2t.axes import Transform
from t2t.checkpoints import Checkpoint
from t2t.names import shown
from t2t.plan import Plan, Step, stored
from t2t.problems import MappingError, Problem
from t2t.tensors import DTYPES, TensorRef

Array = np.ndarray[Any, Any]

#: Rows of a transposed copy that are written together: 16 floats fill a cache line of the output.
STRIP = 16

#: Elements that are tested at a time, so that a test needs no memory worth naming.
CHUNK = 2**20


def tensors(
    plan: Plan,
    checkpoint: Checkpoint,
    built: Mapping[str, Array],
    *,
    dtype: str | None = None,
    allow_nonfinite: bool = False,
    fresh: bool = False,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> Iterator[tuple[str, Array]]:
    """
    Each entry of the state_dict with its values: C order, the step's shape and dtype (floating ones: `dtype`, if given).

    `built` has the values that `keep` rows keep. An array is valid until the next one is asked for, unless they are
    `fresh`; names that are tied come with the same array. `progress` is told the bytes of each variable as it is read.

    Raises MappingError with every value problem (T2T402, T2T403) once all variables are read, CheckpointError at the
    first variable that cannot be read.
    """
    problems: list[Problem] = []
    uses: dict[str, list[Step]] = defaultdict(list)
    names: dict[str, list[str]] = defaultdict(list)
    for step in plan.steps:
        if step.source is not None:
            uses[step.source.name].append(step)
        names[step.rule.tie or step.target].append(step.target)
    scratch = _Scratch(plan, dtype, fresh)
    for ref in plan.sources:
        source = checkpoint.read(ref, scratch.source(ref))
        problems += [] if allow_nonfinite else _finite_problems(source, uses[ref.name])
        for step in uses[ref.name]:
            result, lost = _converted(source, step, dtype, scratch)
            problems += lost
            if not problems:
                yield from ((name, result) for name in names[step.target])
        progress(ref.nbytes)
    checkpoint.check_unchanged()
    if problems:
        raise MappingError(problems)
    for step in plan.steps:
        if step.source is None and step.rule.tie is None:
            value = built[step.target] if step.rule.keep else step.rule.fill
            array = np.empty(step.shape, _numpy(stored(step, dtype)))
            array[...] = value
            yield from ((name, array) for name in names[step.target])


class _Scratch:
    """The two buffers that every variable passes through: as stored, and as converted."""

    def __init__(self, plan: Plan, dtype: str | None, fresh: bool) -> None:
        self.fresh = fresh
        widest = max((ref.nbytes for ref in plan.sources), default=0)
        moved = (_nbytes(step, dtype) for step in plan.steps if step.source and not _is_asstored(step, dtype))
        self._source = np.empty(0 if fresh else widest, np.uint8)
        self._result = np.empty(0 if fresh else max(moved, default=0), np.uint8)

    def source(self, ref: TensorRef) -> Array:
        return np.empty(ref.nbytes, np.uint8) if self.fresh else self._source

    def result(self, step: Step, dtype: np.dtype[Any]) -> Array:
        if self.fresh:
            return np.empty(step.shape, dtype)
        return self._result[: step.elements * dtype.itemsize].view(dtype).reshape(step.shape)


def _converted(source: Array, step: Step, dtype: str | None, scratch: _Scratch) -> tuple[Array, list[Problem]]:
    assert step.transform is not None
    if _is_asstored(step, dtype):
        return source.reshape(step.shape), []
    wanted = stored(step, dtype)
    problems: list[Problem] = []
    assert step.source is not None
    if {step.source.dtype, step.dtype, wanted} != {wanted}:
        problems = _cast_problems(source, step, [step.dtype, wanted])
    result = scratch.result(step, _numpy(wanted))
    with np.errstate(all="ignore"):  # what a cast loses is found above, with its place
        if step.dtype not in {wanted, step.source.dtype}:
            source = source.astype(_numpy(step.dtype))
        _copy(step.transform, source, result)
    return result, problems


def _copy(transform: Transform, source: Array, result: Array) -> None:
    """
    Copies `source` into `result` (C order, shape `transform.output`) with its elements moved and cast.

    A transposed copy runs in strips of the output's last axis: each strip reads whole lines of a few rows and fills
    whole cache lines, which is several times faster than numpy's own order for large matrices.
    """
    view = transform.view(source)
    shape, axes = _merged(view)
    strides = [view.strides[axis] for axis in axes]
    view = np.lib.stride_tricks.as_strided(view, shape, strides, writeable=False)
    result = result.reshape(shape)
    if not shape or strides[-1] == view.itemsize:
        result[...] = view
        return
    for start in range(0, shape[-1], STRIP):
        result[..., start : start + STRIP] = view[..., start : start + STRIP]


def _merged(view: Array) -> tuple[list[int], list[int]]:
    """The shape with neighbours merged that one stride walks, and for each the axis whose stride that is."""
    shape: list[int] = []
    axes: list[int] = []
    for axis, size in enumerate(view.shape):
        if size == 1:
            continue
        if axes and view.strides[axes[-1]] == view.strides[axis] * size:
            shape[-1] *= size
            axes[-1] = axis
        else:
            shape.append(size)
            axes.append(axis)
    return shape, axes


def _is_asstored(step: Step, dtype: str | None) -> bool:
    """Whether the target's bytes are the variable's."""
    assert step.source is not None
    assert step.transform is not None
    return step.transform.is_copy and stored(step, dtype) == step.dtype == step.source.dtype


def _nbytes(step: Step, dtype: str | None) -> int:
    return step.elements * DTYPES[stored(step, dtype)].itemsize


def _numpy(dtype: str) -> np.dtype[Any]:
    numpy = DTYPES[dtype].numpy
    assert numpy is not None
    return numpy


# --- values ---


def _chunks(array: Array) -> Iterator[Array]:
    flat = array.reshape(-1)
    return (flat[start : start + CHUNK] for start in range(0, flat.size, CHUNK))


def _finite_problems(source: Array, steps: list[Step]) -> list[Problem]:
    """NaN and Inf in a variable, told at the first row that reads it."""
    step = steps[0]
    assert step.source is not None
    if DTYPES[step.source.dtype].kind not in {"float", "complex"}:
        return []
    if all(np.isfinite(chunk).all() for chunk in _chunks(source)):
        return []
    nan = sum(int(np.isnan(chunk).sum()) for chunk in _chunks(source))
    inf = sum(int(np.isinf(chunk).sum()) for chunk in _chunks(source))
    message = f"{shown(step.source.name)} holds {nan} NaN and {inf} Inf among {step.source.elements} elements"
    return [Problem("T2T403", message, step.rule.place("tf"), "if that is meant, give --allow-nonfinite")]


def _cast_problems(source: Array, step: Step, dtypes: list[str]) -> list[Problem]:
    """
    Values that a cast loses: a float that overflows, an integer that wraps, what a bool or an integer cannot hold.

    Rounding to a narrower float is what a cast is for.
    """
    lost = 0
    largest = 0.0
    for chunk in _chunks(source):
        with np.errstate(all="ignore"):
            cast = chunk
            for dtype in dtypes:
                cast = cast.astype(_numpy(dtype))
            if DTYPES[dtypes[-1]].kind in {"float", "complex"}:
                bad = np.isfinite(chunk) & ~np.isfinite(cast)
            else:
                bad = cast.astype(chunk.dtype) != chunk
        if bad.any():
            lost += int(bad.sum())
            largest = max(largest, float(np.abs(chunk[bad].astype(np.complex128)).max()))
    if not lost:
        return []
    assert step.source is not None
    message = (
        f"{shown(step.target)}: {dtypes[-1]} cannot hold {lost} of {step.source.elements} values of "
        f"{shown(step.source.name)} ({step.source.dtype}), the largest is {largest:.6g}"
    )
    return [Problem("T2T402", message, step.rule.place("dtype"), "choose a wider dtype")]
