"""
A plan x an open checkpoint -> every tensor of the state_dict, source by source in file order.

Each variable is read once, its checksum is tested, and all the steps that use it are applied while it is at hand. A
target comes in blocks, in the order of its elements, each small enough to be written out of the processor's cache. So
memory is that of the largest variable. Nothing here knows torch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from t2t.axes import Transform
from t2t.checkpoints import Checkpoint
from t2t.names import shown
from t2t.plan import Plan, Step, stored
from t2t.problems import MappingError, Problem, in_file_order
from t2t.tensors import DTYPES

Array = np.ndarray[Any, Any]

#: The largest block, in bytes.
BLOCK = 2**20

#: Rows of a transposed copy that are written together: 16 floats fill a cache line of the output.
STRIP = 16

#: Elements that are tested at a time, so that a test needs no memory worth naming.
CHUNK = 2**20


class Block(NamedTuple):
    """Some elements of the target `name`: `values` (flat, C order, contiguous) begin at its element `start`."""

    name: str
    start: int
    values: Array


class Room(Protocol):
    """Where a block goes: gives memory for `count` elements of the step's target, from element `start` on."""

    def __call__(self, step: Step, start: int, count: int, dtype: np.dtype[Any]) -> Array:
        """A flat, contiguous array of `count` elements of `dtype`, at most BLOCK bytes."""
        ...


def tensors(
    plan: Plan,
    checkpoint: Checkpoint,
    built: Mapping[str, Array],
    *,
    dtype: str | None = None,
    allow_nonfinite: bool = False,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> Iterator[tuple[str, Array]]:
    """
    Each entry of the state_dict with its values, in memory of its own: C order, the step's shape, its stored dtype.

    Names that are tied come with the same array, and no others do. Arguments and errors are those of `blocks`.
    """
    whole: Array = np.empty(0)  # the target whose blocks are coming: they come one after the other, no other is held

    def room(step: Step, start: int, count: int, dtype: np.dtype[Any]) -> Array:
        nonlocal whole
        if start == 0:
            whole = np.empty(step.shape, dtype)
        return whole.reshape(-1)[start : start + count]

    steps = {step.target: step for step in plan.steps}
    options = {"dtype": dtype, "allow_nonfinite": allow_nonfinite, "progress": progress}
    for block in blocks(plan, checkpoint, built, room, **options):  # type: ignore[arg-type]
        if block.start + block.values.size == steps[block.name].elements:
            yield block.name, whole


def blocks(
    plan: Plan,
    checkpoint: Checkpoint,
    built: Mapping[str, Array],
    room: Room,
    *,
    dtype: str | None = None,
    allow_nonfinite: bool = False,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> Iterator[Block]:
    """
    Every entry of the state_dict, block by block; each target's blocks come in order, and an empty target has one.

    `built` has the values that `keep` rows keep. Floating targets are stored in `dtype`, if it is given. Each block
    lies in the memory that `room` gave for it, under each of the target's names. `progress` is told the bytes of each
    variable when it is done.

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
    buffer = np.empty(max((ref.nbytes for ref in plan.sources), default=0), np.uint8)
    for ref in plan.sources:
        source = checkpoint.read(ref, buffer)
        problems += [] if allow_nonfinite else _finite_problems(source, uses[ref.name][0], "tf", shown(ref.name))
        for step in uses[ref.name]:
            assert step.transform is not None
            problems += _cast_problems(source, step, dtype, f"{shown(ref.name)} ({ref.dtype})")
            if not problems:
                yield from _blocks(step, _merged(step.transform, source), dtype, room, names[step.target])
        progress(ref.nbytes)
    checkpoint.check_unchanged()
    given = [(step, _given(step, built)) for step in plan.steps if step.source is None and step.rule.tie is None]
    for step, value in given:
        origin = f"{'its value' if step.rule.keep else 'its fill'} ({step.dtype})"
        if not allow_nonfinite:
            problems += _finite_problems(value, step, "keep", f"{shown(step.target)}, as it was built,")
        problems += _cast_problems(value, step, dtype, origin)
    if problems:
        raise MappingError(in_file_order(problems))
    for step, value in given:
        yield from _blocks(step, value, dtype, room, names[step.target])


def _given(step: Step, built: Mapping[str, Array]) -> Array:
    """What the step's parameter gets where no variable gives it: a view of the step's shape."""
    value = built[step.target] if step.rule.keep else np.asarray(step.rule.fill).astype(_numpy(step.dtype))
    return np.broadcast_to(value, step.shape)


def _blocks(step: Step, view: Array, dtype: str | None, room: Room, names: Sequence[str]) -> Iterator[Block]:
    """The elements of `view`, in its order, cast and copied to where `room` says."""
    between, wanted = _numpy(step.dtype), _numpy(stored(step, dtype))
    for index, start, count in _runs(view.shape, wanted.itemsize):
        part = view[index]
        with np.errstate(all="ignore"):  # what a cast loses has been found, with its place
            part = part if between in {part.dtype, wanted} else part.astype(between)
            values = room(step, start, count, wanted)
            _copy(part, values.reshape(part.shape))
        yield from (Block(name, start, values) for name in names)


def _runs(shape: Sequence[int], itemsize: int) -> Iterator[tuple[tuple[Any, ...], int, int]]:
    """
    An array's elements in order, in runs of at most BLOCK bytes: the index of each run, its first element, its length.
    """
    if 0 in shape:
        yield (...,), 0, 0
        return
    axis, inner = len(shape), 1
    while axis and inner * shape[axis - 1] * itemsize <= BLOCK:
        axis -= 1
        inner *= shape[axis]
    if axis == 0:
        yield (...,), 0, inner
        return
    # The axes from `axis` on fit into a block together; of the one before, so many entries do.
    rows = BLOCK // (inner * itemsize)
    start = 0
    for leading in np.ndindex(*shape[: axis - 1]):
        for first in range(0, shape[axis - 1], rows):
            count = min(rows, shape[axis - 1] - first) * inner
            yield (*leading, slice(first, first + rows)), start, count
            start += count


def _copy(view: Array, result: Array) -> None:
    """
    Copies `view` into `result` (contiguous, of the same shape), cast to its dtype.

    A transposed copy runs in strips of the last axis: each strip reads whole lines of a few rows and fills whole cache
    lines, which is several times faster than numpy's own order for large matrices.
    """
    if view.ndim == 0 or view.strides[-1] in {0, view.itemsize}:
        result[...] = view
        return
    for start in range(0, view.shape[-1], STRIP):
        result[..., start : start + STRIP] = view[..., start : start + STRIP]


def _merged(transform: Transform, source: Array) -> Array:
    """The source in the output's order of elements, neighbours that one stride walks merged to one axis: a view."""
    view = transform.view(source)
    shape: list[int] = []
    strides: list[int] = []
    for size, stride in zip(view.shape, view.strides, strict=True):
        if size == 1:
            continue
        if strides and strides[-1] == stride * size:
            shape[-1] *= size
            strides[-1] = stride
        else:
            shape.append(size)
            strides.append(stride)
    return view.reshape(shape)  # numpy merges such neighbours without a copy


def _numpy(dtype: str) -> np.dtype[Any]:
    numpy = DTYPES[dtype].numpy
    assert numpy is not None
    return numpy


# --- values ---


def _chunks(array: Array) -> Iterator[Array]:
    flat = array.reshape(-1)
    return (flat[start : start + CHUNK] for start in range(0, flat.size, CHUNK))


def _finite_problems(values: Array, step: Step, key: str, subject: str) -> list[Problem]:
    """NaN and Inf in `values`, told at the row's `key`. `subject` says in the message whose values they are."""
    if DTYPES[values.dtype.name].kind in {"int", "bool"}:
        return []
    if all(np.isfinite(chunk).all() for chunk in _chunks(values)):
        return []
    nan = sum(int(np.isnan(chunk).sum()) for chunk in _chunks(values))
    inf = sum(int(np.isinf(chunk).sum()) for chunk in _chunks(values))
    message = f"{subject} holds {nan} NaN and {inf} Inf among {values.size} elements"
    return [Problem("T2T403", message, step.rule.place(key), "if that is meant, give --allow-nonfinite")]


def _cast_problems(values: Array, step: Step, dtype: str | None, origin: str) -> list[Problem]:
    """
    Values that a cast loses: a float that overflows, an integer that wraps, what a bool or an integer cannot hold.

    Rounding to a narrower float is what a cast is for. `origin` says in the message whose values they are.
    """
    dtypes = [step.dtype, stored(step, dtype)]
    if all(_numpy(name) == values.dtype for name in dtypes):
        return []
    lost = 0
    largest = 0.0
    for chunk in _chunks(values):
        with np.errstate(all="ignore"):
            cast = chunk
            for name in dtypes:
                cast = cast.astype(_numpy(name))
            if DTYPES[dtypes[-1]].kind in {"float", "complex"}:
                bad = np.isfinite(chunk) & ~np.isfinite(cast)
            else:
                # -1 wraps to the largest unsigned integer and back: the sign tells.
                bad = (cast.astype(chunk.dtype) != chunk) | ((cast < 0) != (chunk < 0))
        if bad.any():
            lost += int(bad.sum())
            largest = float(np.maximum(largest, np.abs(chunk[bad].astype(np.complex128)).max()))
    if not lost:
        return []
    message = (
        f"{shown(step.target)}: {dtypes[-1]} cannot hold {lost} of {values.size} values of {origin}, "
        f"the largest is {largest:.6g}"
    )
    return [Problem("T2T402", message, step.rule.place("dtype"), "choose a wider dtype")]
