"""
What is kept of a tensor that is too large to keep: a few elements that lie all over it, and a digest of all of them.

The parent imports this, too, so that both sides take the same elements and compute the same digest.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

#: How many elements are kept of a tensor that has more.
COUNT = 256

#: Its multiples fall between each other as evenly as those of any number; no random generator has to stay the same.
_GOLDEN = (math.sqrt(5) - 1) / 2


def positions(size: int) -> Array:
    """Flat C-order positions, int64, ascending and distinct: all of `size`, or at most COUNT that are spread evenly."""
    if size <= COUNT:
        return np.arange(size, dtype=np.int64)
    spread = np.arange(1, COUNT + 1, dtype=np.float64) * _GOLDEN % 1.0
    return np.unique((spread * size).astype(np.int64))


def floating(values: Any) -> Array:
    """The same numbers as float32, or as float64 where they are."""
    array = np.asarray(values)
    return np.asarray(array, np.float64 if array.dtype == np.float64 else np.float32)


def digest(values: Any) -> str:
    """
    SHA-256 of the values, whatever their order: the same however axes are permuted, joined, split or reversed.

    Of `b"<size> "` and the sorted little-endian float32 (float64 where the values are). -0 counts as 0, and one NaN as
    another: sorting tells neither apart.
    """
    flat = floating(values).reshape(-1) + 0.0
    flat[np.isnan(flat)] = np.nan
    flat.sort()
    return hashlib.sha256(b"%d " % flat.size + flat.astype(flat.dtype.newbyteorder("<")).tobytes()).hexdigest()
