"""The tables and the arithmetic behind what lint says; what it says is in test_lint.py."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2t import mapping, recipes
from t2t.axes import Transform, parse
from t2t.proof import contradictions, uses
from tests.given import HEAD

#: The recipes that say the same, each of which is tested against TensorFlow.
SAME = {
    "i o": "dense",
    "k i o": "conv1d",
    "h w i o": "conv2d",
    "d h w i o": "conv3d",
    "k o i": "conv1d_transpose",
    "h w o i": "conv2d_transpose",
    "d h w o i": "conv3d_transpose",
    "h w i m": "depthwise_conv2d",
}


@pytest.mark.parametrize("axes", SAME)
def test_kernels_are_kept_as_the_recipes_say(axes: str) -> None:
    read, problems = mapping.read(f"{HEAD}- {{tf: v, torch: m, use: {SAME[axes]}}}\n".encode(), "m.yaml")
    assert problems == []
    assert read is not None
    (rule,) = [rule for rule in read.rules if rule.target == "m.weight"]

    assert str(rule.axes[0]) == f"{axes} -> {contradictions._KEPT[axes]}"


def test_there_is_a_way_to_keep_every_kernel() -> None:
    known = {*uses.CONVOLUTION.values(), *uses.TRANSPOSED.values(), *uses.DEPTHWISE.values(), "i o", "o i"}

    assert known == set(contradictions._KEPT)
    assert set(SAME) == known - {"o i"}  # which has no recipe, as nothing moves
    assert set(SAME.values()) <= set(recipes.texts())


TRANSFORMS = st.lists(st.integers(1, 3), min_size=1, max_size=5).flatmap(
    lambda sizes: st.permutations(range(len(sizes))).map(
        lambda order: Transform((math.prod(sizes),), tuple(sizes), tuple(order), (math.prod(sizes),))
    )
)


@settings(max_examples=500, derandomize=True, database=None, deadline=None)
@given(TRANSFORMS, TRANSFORMS)
def test_equal_moves_are_equal_arrays(one: Transform, two: Transform) -> None:
    if one.input != two.input:
        return
    values = np.arange(one.input[0])
    same = np.array_equal(one.apply(values), two.apply(values))

    assert not (contradictions.moves(one) == contradictions.moves(two) and not same)
    assert contradictions.moves(one) == contradictions.moves(one)


@pytest.mark.parametrize(
    ("one", "two", "shape"),
    [
        ("(h w c) o -> o (c h w)", "(p c) o -> o (c p)", (24, 5)),
        ("a b -> b a", "(h w c) b -> b (h w c)", (24, 5)),
        ("1 1 i o -> o i", "h w i o -> o i w h", (1, 1, 4, 5)),
    ],
)
def test_moves_do_not_depend_on_how_they_are_written(one: str, two: str, shape: tuple[int, ...]) -> None:
    dims = {"h": 2, "w": 3, "p": 6, "c": 4} if shape[0] == 24 else {}
    made = [
        parse(text).resolve(shape, {k: v for k, v in dims.items() if k in parse(text).names}) for text in (one, two)
    ]

    assert contradictions.moves(made[0]) == contradictions.moves(made[1])
