"""
Figures that a report draws: how differences are spread, which channels they are in, what both sides' values look like.

All of them are small, whatever the size of the tensors that they are of. Numpy only.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from t2t.tensors import Shape

if TYPE_CHECKING:
    from t2t.proof.difference import Values

Array = np.ndarray[Any, np.dtype[Any]]

#: Columns of a histogram of differences for each power of ten.
PER_DECADE = 4

#: Columns of a histogram of values.
BINS = 32

#: More channels than these are drawn as groups of neighbours.
MAX_CHANNELS = 256


@dataclass(frozen=True, slots=True)
class Channels:
    """
    The largest |Δ| of each of `count` channels or, where `width` is more than 1, of each so many neighbours.

    None where no element of theirs is known, infinity where one is not finite.
    """

    count: int
    width: int
    largest: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Spread:
    """
    How many elements differ by how much. `counts` are those of |Δ| from 10^(i/PER_DECADE) on, by i; `zeros` are equal
    bit for bit, `nonfinite` are those that cannot be subtracted. `channels` are the output's last axis, as TensorFlow
    has it; None where it has no axis, or the runs have different ones.
    """

    counts: tuple[tuple[int, int], ...]
    zeros: int
    nonfinite: int
    channels: Channels | None

    @property
    def elements(self) -> int:
        """All of them."""
        return self.zeros + self.nonfinite + sum(count for _, count in self.counts)


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often values fall into equal parts of [low, high], on both sides; `nonfinite` are counted apart."""

    low: float
    high: float
    tensorflow: tuple[int, ...]
    torch: tuple[int, ...]
    nonfinite: tuple[int, int]


@dataclass(slots=True)
class Spreads:
    """Takes in outputs, one run after the other, and keeps what is drawn of them."""

    _counts: dict[str, Counter[int]] = field(default_factory=dict)
    _zeros: Counter[str] = field(default_factory=Counter)
    _nonfinite: Counter[str] = field(default_factory=Counter)
    _largest: dict[str, Array | None] = field(default_factory=dict)

    def see(self, name: str, reference: Array, own: Array) -> None:
        """One output of one run: TensorFlow's and the module's, in TensorFlow's layout."""
        delta = _difference(reference.astype(np.float64), own)
        flat = delta.reshape(-1)
        finite = flat[np.isfinite(flat)]
        self._nonfinite[name] += flat.size - finite.size
        positive = finite[finite > 0]
        self._zeros[name] += finite.size - positive.size
        places = np.floor(np.log10(positive) * PER_DECADE).astype(int)
        found, counts = np.unique(places, return_counts=True)
        self._counts.setdefault(name, Counter()).update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
        largest = _by_last_axis(delta)
        known = self._largest.setdefault(name, largest)
        if known is not None:
            fits = largest is not None and largest.shape == known.shape
            self._largest[name] = np.maximum(known, largest) if fits and largest is not None else None

    def of(self, name: str) -> Spread:
        """What became of the output `name`."""
        largest = self._largest[name]
        channels = None if largest is None else _grouped(largest)
        return Spread(tuple(sorted(self._counts[name].items())), self._zeros[name], self._nonfinite[name], channels)


def _difference(one: Array, other: Array) -> Array:
    with np.errstate(invalid="ignore"):
        delta: Array = np.abs(other - one)
    return np.where(np.isfinite(delta), delta, np.inf)


def _by_last_axis(delta: Array) -> Array | None:
    if delta.ndim == 0 or delta.size == 0:
        return None
    largest: Array = delta.reshape(-1, delta.shape[-1]).max(axis=0)
    return largest


def channels(values: Values, shape: Shape, axis: int) -> Channels:
    """The samples of a tensor of this shape by their place along `axis`; |Δ| of the same sample may count once only."""
    along = np.unravel_index(values.places, shape)[axis]
    largest = np.full(shape[axis], np.nan)
    np.fmax.at(largest, along, _difference(values.tensorflow, values.torch))
    return _grouped(largest)


def _grouped(largest: Array) -> Channels:
    """NaN says that nothing is known of a channel."""
    width = -(-largest.size // MAX_CHANNELS)
    padded = np.concatenate([largest, np.full(-largest.size % width, np.nan)]).reshape(-1, width)
    found = [np.fmax.reduce(group) for group in padded]
    return Channels(largest.size, width, tuple(None if math.isnan(one) else float(one) for one in found))


def histogram(values: Values) -> Histogram:
    """Both sides' values between the least and the largest of all."""
    sides = [side[np.isfinite(side)] for side in (values.tensorflow, values.torch)]
    both = np.concatenate(sides)
    low, high = (float(both.min()), float(both.max())) if both.size else (0.0, 0.0)
    # Of equal values, and of a span that overflows, all are in the first column.
    span = high - low
    counts = []
    for side in sides:
        with np.errstate(over="ignore", invalid="ignore"):
            shares = (side / span - low / span) if 0 < span < math.inf else np.zeros(side.size)
        places = np.clip((shares * BINS).astype(int), 0, BINS - 1)
        counts.append(tuple(np.bincount(places, minlength=BINS).tolist()))
    lost = values.tensorflow.size - sides[0].size, values.torch.size - sides[1].size
    return Histogram(low, high, counts[0], counts[1], lost)
