"""
The inputs of a comparison, in TensorFlow's layout: read from files, constants, or drawn by a seed.

How a seed draws, for ever: `PCG64(SeedSequence([seed, draw, n]))`, where n is the first 8 bytes of the name's sha256 as
a little-endian number; a draw's steps but for the first (0) have `SeedSequence([seed, draw, n, step])`. So each input
has a stream of its own: another input beside it changes nothing, and two inputs with one seed differ. Floats are
low + (high - low) x `random`, in float64, rounded to the dtype, and kept below high; integers and bools are `integers`;
values are picked by `integers`. What comes from a file, or is constant, is the same in every draw and step.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, NoReturn

import numpy as np

from t2t.names import shown
from t2t.problems import Location, MappingError, Problem
from t2t.proof import arrays
from t2t.proof.arrays import Array
from t2t.verification import Input, Verify

#: Inputs of all draws together, in bytes: a shape in a mapping is a number like any other.
LIMIT = 2**31

#: The lowest limit of the numpy versions that t2t supports.
MAX_RANK = 32


def made(verify: Verify, entry: Input, draw: int, step: int = 0) -> Array:
    """
    One input of one step of one draw, as an array in native byte order.

    Raises CheckpointError (T2T904) for a file that cannot be read, MappingError (T2T503) for values that the dtype
    cannot hold, an empty range, and shapes and sizes over the limit.
    """
    if entry.path:
        return arrays.read(entry.path, entry.member)
    # `value: true` needs no dtype; without one the mapping says float32.
    is_flag = isinstance(entry.value, bool) and entry.dtype == "float32"
    dtype, shape = np.dtype("bool" if is_flag else entry.dtype), entry.shape or ()
    if len(shape) > MAX_RANK:
        _refuse(f"{shown(entry.name)} has {len(shape)} axes, numpy arrays have at most {MAX_RANK}", verify.at)
    # numpy counts an array's elements without its empty axes, and fails where that number is too large.
    size = math.prod(axis for axis in shape if axis) * dtype.itemsize * verify.draws * verify.steps
    if size > LIMIT:
        counted = ", its empty axes not counted" if 0 in shape else ""
        runs = f"{verify.draws} draws" + (f" of {verify.steps} steps" if verify.steps > 1 else "")
        text = f"{shown(entry.name)} would take {size} bytes in {runs}{counted}, the limit is {LIMIT}"
        _refuse(text, verify.at, "a smaller shape or fewer draws prove as much")
    if entry.value is not None:
        return np.full(shape, _exact([entry.value], dtype, entry, verify.at)[0])
    stream = int.from_bytes(hashlib.sha256(entry.name.encode("utf-8", "surrogatepass")).digest()[:8], "little")
    seeds = [entry.seed, draw, stream, *([step] if step else [])]
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seeds)))
    if entry.values is not None:
        return _exact(entry.values, dtype, entry, verify.at)[generator.integers(0, len(entry.values), shape)]
    return _uniform(generator, dtype, shape, entry, verify.at)


def _uniform(
    generator: np.random.Generator, dtype: np.dtype[Any], shape: tuple[int, ...], entry: Input, at: Location
) -> Array:
    assert entry.range is not None
    low, high = entry.range
    if not (math.isfinite(high - low) and low < high):
        _refuse(f"{shown(entry.name)} is drawn from the range [{low}, {high}), which holds nothing", at)
    if dtype.kind == "f":
        first, end = _exact([low, high], dtype, entry, at)
        drawn = (low + (high - low) * generator.random(shape)).astype(dtype)
        # Rounding to the dtype may reach the end, which the range leaves out.
        below: Array = np.minimum(drawn, np.maximum(first, np.nextafter(end, first)))
        return below
    start, stop = math.ceil(low), math.ceil(high)
    if start >= stop:
        _refuse(f"{shown(entry.name)} is drawn from the range [{low}, {high}), which holds no {dtype.name}", at)
    _exact([start, stop - 1], dtype, entry, at)
    integers: Array = generator.integers(start, stop, shape, dtype)
    return integers


def _exact(values: Any, dtype: np.dtype[Any], entry: Input, at: Location) -> Array:
    """The values in this dtype. Floats may be rounded, nothing else may change."""
    for value in values:
        if dtype.kind == "f":
            holds = not isinstance(value, bool) and abs(value) <= float(np.finfo(dtype).max)
        elif dtype.kind == "b":
            holds = value in (0, 1)
        else:
            limits = np.iinfo(dtype)
            holds = not isinstance(value, bool) and value == value // 1 and limits.min <= value <= limits.max
        if not holds:
            _refuse(f"{shown(entry.name)} has the value {str(value).lower()}, which {dtype.name} cannot hold", at)
    return np.array([value if dtype.kind == "f" else int(value) for value in values], dtype)


def _refuse(message: str, at: Location, hint: str = "") -> NoReturn:
    raise MappingError(Problem("T2T503", message, at, hint))
