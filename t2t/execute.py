"""
A plan x an open checkpoint -> every tensor of the state_dict, source by source in file order.

Each variable is read once, its checksum is tested, and all the steps that use it are applied while it is at hand. A
target comes in blocks, in the order of its elements, each small enough to be written out of the processor's cache. So
memory is that of the largest variable; variables that are put together in one target are at hand together, and so are
those that share a variable with them. Nothing here knows torch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from t2t.checkpoints import Checkpoint
from t2t.coverage import Part
from t2t.names import shown
from t2t.plan import Plan, Step, stored
from t2t.problems import Location, MappingError, Problem, in_file_order
from t2t.rules import Rule
from t2t.tensors import DTYPES, TensorRef, memory

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
    seen: Callable[[Step, Array], None] = lambda step, values: None,
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
    options = {"dtype": dtype, "allow_nonfinite": allow_nonfinite, "progress": progress, "seen": seen}
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
    seen: Callable[[Step, Array], None] = lambda step, values: None,
) -> Iterator[Block]:
    """
    Every entry of the state_dict, block by block; each target's blocks come in order, and an empty target has one.

    `built` has the values that `keep` rows keep. Floating targets are stored in `dtype`, if it is given. Each block
    lies in the memory that `room` gave for it, under each of the target's names. `progress` is told the bytes of each
    variable when it is done. `seen` is shown what variables give each step, before it is cast and copied: its elements
    in order, neighbouring axes merged, in memory that is used again.

    Raises MappingError with every value problem (T2T402, T2T403) once all variables are read, CheckpointError at the
    first variable that cannot be read.
    """
    problems: list[Problem] = []
    names: dict[str, list[str]] = defaultdict(list)
    for step in plan.steps:
        names[step.rule.tie or step.target].append(step.target)
    groups = _groups(plan)
    buffer = memory(max((_room(refs) for refs, _ in groups), default=0))
    for refs, steps in groups:
        sources: dict[str, Array] = {}
        start = 0
        for ref in refs:
            sources[ref.name] = source = checkpoint.read(ref, buffer[start:])
            start += _padded(ref.nbytes)
            if not allow_nonfinite:
                rule = next(part.rule for step in steps for part in step.parts for r in part.reads if r.ref == ref)
                problems += _finite_problems(source, rule, "tf", shown(ref.name))
        for step in steps:
            value, found = _value(step, sources, dtype, plan.mapping.output.dtype_at, allow_nonfinite=allow_nonfinite)
            problems += found
            if not problems:
                seen(step, value)
                yield from _blocks(step, value, dtype, room, names[step.target])
        for ref in refs:
            progress(ref.nbytes)
    checkpoint.check_unchanged()
    given = [(step, _given(step, built)) for step in plan.steps if not step.sources and step.rule.tie is None]
    for step, value in given:
        rule = step.rule
        origin = f"{'its value' if rule.keep else 'its fill'} ({step.dtype})"
        if not allow_nonfinite:
            problems += _finite_problems(value, rule, "keep", f"{shown(step.target)}, as it was built,")
        at = plan.mapping.output.dtype_at or rule.place("fill")
        dtypes = [step.dtype, stored(step, dtype)]
        problems += _cast_problems(value, dtypes, rule, origin, at=at, finite=not allow_nonfinite)
    if problems:
        raise MappingError(in_file_order(problems))
    for step, value in given:
        yield from _blocks(step, value, dtype, room, names[step.target])


def _groups(plan: Plan) -> list[tuple[list[TensorRef], list[Step]]]:
    """
    The variables that must be at hand together, with the steps that use them: in file order, by the first of each.

    Mostly that is one variable. Steps that read several bring theirs together.
    """
    owner: dict[str, str] = {}

    def first(name: str) -> str:
        while owner[name] != name:
            owner[name] = owner[owner[name]]
            name = owner[name]
        return name

    refs = plan.sources
    for ref in refs:
        owner[ref.name] = ref.name
    for step in plan.steps:
        for ref in step.sources[1:]:
            owner[first(ref.name)] = first(step.sources[0].name)
    groups: dict[str, tuple[list[TensorRef], list[Step]]] = {}
    for ref in refs:
        groups.setdefault(first(ref.name), ([], []))[0].append(ref)
    for step in plan.steps:
        if sources := step.sources:
            groups[first(sources[0].name)][1].append(step)
    return list(groups.values())


def _padded(nbytes: int) -> int:
    """So many bytes, and as many more as keep what follows aligned."""
    return -(-nbytes // 64) * 64


def _room(refs: Sequence[TensorRef]) -> int:
    return sum(_padded(ref.nbytes) for ref in refs)


def _value(
    step: Step, sources: Mapping[str, Array], dtype: str | None, dtype_at: Location | None, *, allow_nonfinite: bool
) -> tuple[Array, list[Problem]]:
    """What the step's target gets: a view where one variable gives it, in the target's order of elements."""
    problems: list[Problem] = []
    values = []
    for part in step.parts:
        final = stored(step, dtype)
        if not part.reads:
            fill = np.asarray(part.rule.fill).astype(_numpy(part.dtype))
            values.append(np.broadcast_to(fill, part.shape))
            origin = f"its fill ({part.dtype})"
            at = dtype_at or part.rule.place("fill")
            problems += _cast_problems(values[-1], [part.dtype, final], part.rule, origin, at=at)
            continue
        value, found = _part_value(part, sources, final, dtype_at, allow_nonfinite=allow_nonfinite)
        problems += found
        values.append(value)
    if len(values) == 1 and step.parts[0].into is None:
        return values[0], problems
    whole = np.empty(step.shape, _numpy(step.dtype))
    if not problems:
        for part, value in zip(step.parts, values, strict=True):
            assert part.into is not None
            region = whole[tuple(slice(start, stop) for start, stop in part.into)]
            _copy(value.reshape(part.shape), region)
    return whole, problems


def _part_value(
    part: Part, sources: Mapping[str, Array], final: str, final_at: Location | None, *, allow_nonfinite: bool
) -> tuple[Array, list[Problem]]:
    """What one part writes, and what of it would be lost. `final` is the dtype that the file at last stores it in."""
    rule, refs = part.rule, [read.ref for read in part.reads]
    pieces = [sources[read.ref.name][tuple(slice(start, stop) for start, stop in read.box)] for read in part.reads]
    joined = pieces[0]
    if part.joined is not None:
        is_stack = len(part.transforms[0].input) > joined.ndim
        joined = np.stack(pieces) if is_stack else np.concatenate(pieces, part.joined)
    origin = (
        f"{shown(refs[0].name)} ({refs[0].dtype})" if len(refs) == 1 else f"{len(refs)} variables ({refs[0].dtype})"
    )
    finite = not allow_nonfinite
    if problems := _cast_problems(joined, [part.dtype], rule, origin, finite=finite):
        return joined, problems
    first, *more = part.transforms
    if rule.scale is None and rule.add is None:
        problems = _cast_problems(joined, [part.dtype, final], rule, origin, at=final_at, finite=finite)
        value = first.view(joined)
    elif finite and _finite_problems(joined, rule, "tf", ""):
        value = first.view(joined)  # that is told of the whole variable, and nothing is written
    else:
        computed, problems = _computed(first.split(joined), part, origin)
        key, what = ("scale" if rule.scale is not None else "add"), f"{shown(rule.target)}, once computed,"
        problems += _finite_problems(computed, rule, key, what) if finite and not problems else []
        if not problems:
            what = f"what {key} makes of {origin}"
            problems = _cast_problems(computed, [part.dtype, final], rule, what, at=final_at, finite=finite)
        value = computed.transpose(first.permutation)
    for transform in more:
        value = transform.view(value.reshape(transform.input))
    return _merged(value), problems


def _computed(elements: Array, part: Part, origin: str) -> tuple[Array, list[Problem]]:
    """The elementary axes' elements, cast, scaled and added to; integers as Python's, which don't wrap."""
    rule, dtype = part.rule, _numpy(part.dtype)
    is_exact = DTYPES[part.dtype].kind == "int"
    with np.errstate(all="ignore"):
        split = np.array(elements, dtype)
        split = np.array(split, object) if is_exact else split
        number: Callable[[float], Any] = int if is_exact else dtype.type
        if rule.scale is not None:
            np.multiply(split, number(rule.scale), out=split)
        if isinstance(rule.add, Mapping):
            for name, entries in rule.add.items():
                axis = rule.axes[0].names.index(name)
                for entry, addend in entries.items():
                    at = rule.order[name].after.index(entry)
                    split[(slice(None),) * axis + (at,)] += number(addend)
        elif rule.add is not None:
            np.add(split, number(rule.add), out=split)
    if not is_exact:
        return split, []
    held = np.iinfo(dtype)
    if split.size and not held.min <= split.min() <= split.max() <= held.max:
        key = "scale" if rule.scale is not None else "add"
        message = f"{shown(rule.target)}: {part.dtype} cannot hold what {key} makes of {origin}"
        return np.zeros(split.shape, dtype), [Problem("T2T402", message, rule.place(key), "choose a wider dtype")]
    return split.astype(dtype), []


def _given(step: Step, built: Mapping[str, Array]) -> Array:
    """What the step's parameter gets where no variable gives it: a view of the step's shape."""
    if step.parts[0].into is not None:
        return _value(step, {}, None, None, allow_nonfinite=True)[0]
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


def _merged(view: Array) -> Array:
    """The same elements in the same order, neighbours that one stride walks merged to one axis: a view."""
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


def _finite_problems(values: Array, rule: Rule, key: str, subject: str) -> list[Problem]:
    """NaN and Inf in `values`, told at the row's `key`. `subject` says in the message whose values they are."""
    if DTYPES[values.dtype.name].kind in {"int", "bool"}:
        return []
    if all(np.isfinite(chunk).all() for chunk in _chunks(values)):
        return []
    nan = sum(int(np.isnan(chunk).sum()) for chunk in _chunks(values))
    inf = sum(int(np.isinf(chunk).sum()) for chunk in _chunks(values))
    message = f"{subject} holds {nan} NaN and {inf} Inf among {values.size} elements"
    return [Problem("T2T403", message, rule.place(key), "if that is meant, give --allow-nonfinite")]


def _cast_problems(
    values: Array, dtypes: Sequence[str], rule: Rule, origin: str, *, at: Location | None = None, finite: bool = True
) -> list[Problem]:
    """
    Values that a cast to these dtypes, one after the other, loses: a float that overflows, an integer that wraps, what
    a bool or an integer cannot hold.

    Rounding to a narrower float is what a cast is for. `origin` says in the message whose values they are, `at` where
    the cast is asked for, if not in the row. With `finite`, NaN and Inf are somebody else's business.
    """
    if all(_numpy(name) == values.dtype for name in dtypes):
        return []
    lost = 0
    largest: Any = 0
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
                if finite and DTYPES[chunk.dtype.name].kind in {"float", "complex"}:
                    bad &= np.isfinite(chunk)
        if bad.any():
            lost += int(bad.sum())
            worst = chunk[bad][np.abs(chunk[bad].astype(np.complex128)).argmax()].item()
            worst = abs(worst) if isinstance(worst, complex) else worst
            largest = largest if abs(worst) < abs(largest) else worst
    if not lost:
        return []
    figure = f"{largest:.6g}" if not isinstance(largest, bool) else str(largest)
    message = (
        f"{shown(rule.target)}: {dtypes[-1]} cannot hold {lost} of {values.size} values of {origin}, "
        f"the largest is {figure}"
    )
    return [Problem("T2T402", message, at or rule.place("dtype"), "choose a wider dtype")]
