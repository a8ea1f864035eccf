"""What a report draws of arrays, held against numpy's own histograms and maxima."""

from __future__ import annotations

import math

import numpy as np
import pytest

from t2t.proof.difference import Values
from t2t.review.figures import BINS, MAX_CHANNELS, PER_DECADE, Spreads, channels, histogram
from tests.given import Array
from tests.proof.layered import drawn


def seen(*pairs: tuple[Array, Array]) -> Spreads:
    spreads = Spreads()
    for reference, own in pairs:
        spreads.see("y", reference, own.astype(np.float64))
    return spreads


def test_a_spread_is_numpys_histogram_of_all_runs() -> None:
    pairs = [(drawn(0, 5, 7), drawn(1, 5, 7)), (drawn(2, 5, 7), drawn(2, 5, 7))]
    spread = seen(*pairs).of("y")
    delta = np.abs(pairs[0][0].astype(np.float64) - pairs[0][1])
    edges = 10.0 ** (np.arange(-40, 12) / PER_DECADE)
    expected, _ = np.histogram(delta, edges)

    assert dict(spread.counts) == {i - 40: count for i, count in enumerate(expected.tolist()) if count}
    assert (spread.zeros, spread.nonfinite, spread.elements) == (35, 0, 70)
    assert spread.channels is not None
    assert spread.channels.largest == tuple(delta.max(axis=0))
    assert (spread.channels.count, spread.channels.width) == (7, 1)


def test_what_is_not_finite_is_counted_apart() -> None:
    own = np.array([[1.0, np.nan, np.inf, 4.0]])
    spread = seen((np.array([[1.0, 2.0, np.inf, 3.0]], np.float32), own)).of("y")

    assert (spread.zeros, spread.nonfinite, spread.elements) == (1, 2, 4)
    assert spread.channels is not None
    assert spread.channels.largest == (0.0, math.inf, math.inf, 1.0)


def test_runs_of_different_channels_have_none_and_neither_has_a_scalar() -> None:
    two = seen((drawn(0, 2, 3), drawn(1, 2, 3)), (drawn(0, 2, 4), drawn(1, 2, 4)), (drawn(0, 2, 4), drawn(1, 2, 4)))

    assert two.of("y").channels is None
    assert seen((np.asarray(1.0, np.float32), np.asarray(2.0))).of("y").channels is None


def test_many_channels_are_grouped() -> None:
    reference = np.zeros((2, 3 * MAX_CHANNELS + 1), np.float32)
    own = np.arange(reference.size, dtype=np.float64).reshape(reference.shape)
    found = seen((reference, own)).of("y").channels

    assert found is not None
    assert (found.count, found.width, len(found.largest)) == (769, 4, 193)
    assert found.largest[:2] == (769 + 3, 769 + 7)
    assert found.largest[-1] == 769 + 768


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_channels_are_the_largest_difference_along_an_axis(axis: int) -> None:
    one, other = drawn(0, 4, 3, 5).astype(np.float64), drawn(1, 4, 3, 5).astype(np.float64)
    places = np.arange(0, 60, 2)
    values = Values(one.reshape(-1)[places], other.reshape(-1)[places], places)
    known = np.full((4, 3, 5), -1.0).reshape(-1)
    known[places] = np.abs(one - other).reshape(-1)[places]
    expected = known.reshape(4, 3, 5).max(axis=tuple(i for i in range(3) if i != axis))
    found = channels(values, (4, 3, 5), axis)

    assert found.largest == tuple(None if value < 0 else value for value in expected.tolist())


def test_a_channel_without_a_sample_is_unknown() -> None:
    values = Values(np.zeros(2), np.ones(2), np.array([0, 2]))

    assert channels(values, (3,), 0).largest == (1.0, None, 1.0)


def test_a_histogram_is_numpys() -> None:
    values = Values(drawn(0, 200).astype(np.float64), drawn(1, 200).astype(np.float64), np.arange(200))
    found = histogram(values)
    ends = min(values.tensorflow.min(), values.torch.min()), max(values.tensorflow.max(), values.torch.max())

    assert (found.low, found.high) == ends
    assert list(found.tensorflow) == np.histogram(values.tensorflow, BINS, ends)[0].tolist()
    assert list(found.torch) == np.histogram(values.torch, BINS, ends)[0].tolist()


@pytest.mark.parametrize(
    ("one", "other", "ends", "lost"),
    [
        ([2.0, 2.0], [2.0, 2.0], (2.0, 2.0), (0, 0)),
        ([1.0, np.nan], [np.inf, -np.inf], (1.0, 1.0), (1, 2)),
        ([np.nan], [np.nan], (0.0, 0.0), (1, 1)),
        ([-1.7e308, 1.7e308], [0.0, 0.0], (-1.7e308, 1.7e308), (0, 0)),
        ([0.0, 5e-324], [0.0, 0.0], (0.0, 5e-324), (0, 0)),
    ],
)
def test_a_histogram_of_anything(
    one: list[float], other: list[float], ends: tuple[float, float], lost: tuple[int, int]
) -> None:
    found = histogram(Values(np.array(one), np.array(other), np.arange(len(one))))

    assert (found.low, found.high) == ends
    assert found.nonfinite == lost
    assert (sum(found.tensorflow), sum(found.torch)) == (len(one) - lost[0], len(other) - lost[1])
