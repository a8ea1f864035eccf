"""Axes: read, resolved against a shape, applied; einops and numpy are the oracles."""

from __future__ import annotations

import keyword
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import einops
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2t.axes import MAX_AXES, AxesError, Transform, from_permutation, identity, parse


def refused(text: str) -> tuple[str, str, str]:
    with pytest.raises(AxesError) as caught:
        parse(text)
    return caught.value.code, caught.value.cause, caught.value.hint


def unresolved(text: str, shape: tuple[int, ...], dims: Mapping[str, int]) -> tuple[str, str, str]:
    with pytest.raises(AxesError) as caught:
        parse(text).resolve(shape, dims)
    return caught.value.code, caught.value.cause, caught.value.hint


@pytest.mark.parametrize(
    ("text", "left", "right"),
    [
        ("i o -> o i", (("i",), ("o",)), (("o",), ("i",))),
        ("(h w c) o -> o (c h w)", (("h", "w", "c"), ("o",)), (("o",), ("c", "h", "w"))),
        ("->", (), ()),
        ("-> 1", (), ((),)),
        ("1 a -> a", ((), ("a",)), (("a",),)),
        ("() a -> a (1)", ((), ("a",)), (("a",), ())),
        ("(a 1) -> a", (("a",),), (("a",),)),
        ("(a)->a", (("a",),), (("a",),)),
        ("  in_1   Out->\n Out in_1 ", (("in_1",), ("Out",)), (("Out",), ("in_1",))),
        ("a1 -> a1", (("a1",),), (("a1",),)),
    ],
)
def test_the_notation_is_einops(text: str, left: object, right: object) -> None:
    axes = parse(text)

    assert (axes.left, axes.right) == (left, right)


MANY = " ".join(f"a{i}" for i in range(MAX_AXES + 1))


@pytest.mark.parametrize(
    ("text", "cause", "hint"),
    [
        ("a b", "axes 'a b' need one '->' between the variable's axes and the parameter's", ""),
        ("a -> a -> a", "axes 'a -> a -> a' need one '->' between the variable's axes and the parameter's", ""),
        ("", "axes '' need one '->' between the variable's axes and the parameter's", ""),
        ("a a -> a", "axes 'a a -> a' name a 2 times on the left side", ""),
        ("a b -> b (a b b)", "axes 'a b -> b (a b b)' name b 3 times on the right side", ""),
        ("a b -> a", "axes 'a b -> a' have b only on the left", "both sides need the same names"),
        (
            "a b -> a c d",
            "axes 'a b -> a c d' have b only on the left, c only on the right, d only on the right",
            "both sides need the same names",
        ),
        ("a * -> a", "axes 'a * -> a' cannot be read at '*'", "use names, groups ( ) and 1"),
        ("a ... -> a ...", "axes 'a ... -> a ...' cannot be read at '...'", "use names, groups ( ) and 1"),
        ("a 2 -> a", "axes 'a 2 -> a' cannot be read at '2'", "use names, groups ( ) and 1"),
        ("a 12 -> a", "axes 'a 12 -> a' cannot be read at '12'", "use names, groups ( ) and 1"),
        ("größe -> g", "axes 'größe -> g' cannot be read at 'öße'", "use names, groups ( ) and 1"),
        ("a, b -> b", "axes 'a, b -> b' cannot be read at ', b'", "use names, groups ( ) and 1"),
        ("((a) b) -> a b", "axes '((a) b) -> a b' have a group inside a group", ""),
        ("a) -> a", "axes 'a) -> a' close a group that is not open", ""),
        ("a -> (a", "axes 'a -> (a' do not close a group", ""),
        ("a -> a)", "axes 'a -> a)' close a group that is not open", ""),
        ("\x1b[31m", r"axes '\x1b[31m' need one '->' between the variable's axes and the parameter's", ""),
        ("a \x1b -> a", r"axes 'a \x1b -> a' cannot be read at '\x1b'", "use names, groups ( ) and 1"),
        (
            f"{MANY} -> a",
            f"axes '{MANY[:117]}...' have 33 axes on one side, at most 32 are possible",
            "",
        ),
        (
            f"a -> {'1 ' * 40}a",
            f"axes '{('a -> ' + '1 ' * 40 + 'a')}' have 41 axes on one side, at most 32 are possible",
            "",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, cause: str, hint: str) -> None:
    assert refused(text) == ("T2T301", cause, hint)


@pytest.mark.parametrize(
    ("text", "shape", "dims", "refusal"),
    [
        (
            "a b -> b a",
            (2, 3, 4),
            {},
            (
                "T2T302",
                "axes 'a b -> b a' are for rank 2, the variable has rank 3: [2, 3, 4]",
                "name each axis of the variable once on the left side",
            ),
        ),
        (
            "a -> a",
            (),
            {},
            (
                "T2T302",
                "axes 'a -> a' are for rank 1, the variable has rank 0: []",
                "name each axis of the variable once on the left side",
            ),
        ),
        (
            "(h w c) o -> o (c h w)",
            (12, 5),
            {"h": 2},
            (
                "T2T303",
                "axis 0 (h w c) of length 12 can be split in more than one way",
                "give the sizes of all but one of w, c in dims",
            ),
        ),
        (
            "(h w c) o -> o (c h w)",
            (12, 5),
            {"h": 2, "w": 5},
            ("T2T303", "axis 0 (h w c) has length 12, but dims say h=2 x w=5", ""),
        ),
        (
            "a (b c) -> a b c",
            (2, 6),
            {"b": 2, "c": 4},
            ("T2T303", "axis 1 (b c) has length 6, but dims say b=2 x c=4", ""),
        ),
        ("a b -> b a", (2, 3), {"b": 4}, ("T2T303", "axis 1 b has length 3, but dims say b=4", "")),
        ("a 1 -> a", (2, 3), {}, ("T2T303", "axis 1 1 has length 3, but dims say 1", "")),
        ("(a b) -> a b", (0,), {"a": 0}, ("T2T303", "axis 0 (a b) has length 0, but dims say a=0", "")),
        ("(a b) -> a b", (6,), {"a": 0}, ("T2T303", "axis 0 (a b) has length 6, but dims say a=0", "")),
    ],
)
def test_what_does_not_fit_the_shape_is_refused(
    text: str, shape: tuple[int, ...], dims: dict[str, int], refusal: tuple[str, str, str]
) -> None:
    assert unresolved(text, shape, dims) == refusal


@pytest.mark.parametrize(
    ("permutation", "cause", "hint"),
    [
        ([0, 0], "permute [0, 0] is not a permutation", "use each of 0, 1 once"),
        ([1], "permute [1] is not a permutation", "use each of 0 once"),
        ([1, 2, 3], "permute [1, 2, 3] is not a permutation", "use each of 0, 1, 2 once"),
        (
            [5] * 60,
            f"permute {str([5] * 60)[:117]}... is not a permutation",
            f"use each of {', '.join(map(str, range(60)))[:117]}... once",
        ),
    ],
)
def test_what_is_no_permutation_is_refused(permutation: list[int], cause: str, hint: str) -> None:
    with pytest.raises(AxesError) as caught:
        from_permutation(permutation)

    assert (caught.value.code, caught.value.cause, caught.value.hint) == ("T2T306", cause, hint)
    assert str(caught.value) == cause


def test_the_docstrings_example_is_true() -> None:
    transform = parse("(h w c) o -> o (c h w)").resolve((3136, 1024), {"h": 7, "w": 7})

    assert transform == Transform((3136, 1024), (7, 7, 64, 1024), (3, 2, 0, 1), (1024, 3136))


@pytest.mark.parametrize("text", ["i o -> o i", "(h w c) o -> o (c h w)", "-> 1", "1 a -> a 1", "->", "a b -> (a b)"])
def test_axes_print_as_they_are_written(text: str) -> None:
    assert str(parse(text)) == text
    assert parse(str(parse(text))) == parse(text)


def test_a_permutation_prints_with_names() -> None:
    assert str(from_permutation([3, 2, 0, 1])) == "a b c d -> d c a b"
    assert str(from_permutation([])) == "->"
    assert str(from_permutation(range(27))).startswith("a0 a1 a2 ")


def test_a_unit_axis_comes_and_goes() -> None:
    scalar = np.array(5, np.float32)

    assert parse("-> 1").resolve((), {}).apply(scalar).tolist() == [5.0]
    assert parse("1 a -> a").resolve((1, 3), {}).output == (3,)
    assert parse("a -> 1 a 1").resolve((3,), {}).output == (1, 3, 1)


def test_a_size_of_zero_is_a_size() -> None:
    transform = parse("(a b) c -> c (b a)").resolve((0, 2), {"a": 3})

    assert transform.elementary == (3, 0, 2)
    assert transform.apply(np.zeros((0, 2))).shape == (2, 0)


def test_dims_of_other_axes_are_not_looked_at() -> None:
    assert parse("a b -> b a").resolve((2, 3), {"c": 7}).output == (3, 2)


def test_a_view_copies_nothing_and_apply_gives_c_order() -> None:
    array = np.arange(24.0).reshape(4, 6)
    transform = parse("a (b c) -> c b a").resolve((4, 6), {"b": 2})

    assert np.shares_memory(transform.view(array), array)
    assert transform.apply(array).flags.c_contiguous


class Case(NamedTuple):
    """Axes as text, and the sizes of every name in it."""

    text: str
    sizes: dict[str, int]
    shape: tuple[int, ...]
    output: tuple[int, ...]


NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,3}", fullmatch=True).filter(
    # einops warns of names that end in an underscore and refuses Python's words
    lambda name: not name.endswith("_") and not keyword.iskeyword(name) and not keyword.issoftkeyword(name)
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    sizes = draw(st.dictionaries(NAMES, st.sampled_from([0, 1, 1, 2, 3, 4]), max_size=5))

    def side() -> list[list[str]]:
        groups: list[list[str]] = []
        for name in draw(st.permutations(list(sizes))):
            joins: bool = draw(st.booleans())
            if groups and joins:
                groups[-1].append(name)
            else:
                groups.append([name])
        for position in draw(st.lists(st.integers(0, len(groups)), max_size=2)):
            groups.insert(position, [])
        return groups

    def written(groups: list[list[str]]) -> str:
        return " ".join(
            "1" if not group else group[0] if len(group) == 1 else f"({' '.join(group)})" for group in groups
        )

    def shape(groups: list[list[str]]) -> tuple[int, ...]:
        return tuple(math.prod(sizes[name] for name in group) for group in groups)

    left, right = side(), side()
    return Case(f"{written(left)} -> {written(right)}", sizes, shape(left), shape(right))


def array_for(case: Case, dtype: Any = np.int32) -> np.ndarray[Any, Any]:
    return np.arange(math.prod(case.shape)).astype(dtype).reshape(case.shape)


@settings(max_examples=300, deadline=None)
@given(cases())
def test_elements_move_as_einops_moves_them(case: Case) -> None:
    array = array_for(case)

    expected = einops.rearrange(array, case.text, **case.sizes)

    assert np.array_equal(parse(case.text).resolve(case.shape, case.sizes).apply(array), expected)


@settings(max_examples=200, deadline=None)
@given(cases(), st.sampled_from([np.float32, np.int8, np.complex64, ml_dtypes.bfloat16, np.bool_]))
def test_the_shape_is_known_without_data_and_the_inverse_undoes_bit_for_bit(case: Case, dtype: Any) -> None:
    array = array_for(case, dtype)
    transform = parse(case.text).resolve(case.shape, case.sizes)

    moved = transform.apply(array)

    assert moved.shape == transform.output == case.output
    assert moved.dtype == array.dtype
    assert transform.inverse.apply(moved).tobytes() == array.tobytes()
    assert transform.inverse.inverse == transform


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), max_size=5).flatmap(lambda s: st.tuples(st.just(s), st.permutations(range(len(s))))))
def test_a_permutation_is_numpys(given_: tuple[list[int], list[int]]) -> None:
    shape, permutation = given_
    array = np.arange(math.prod(shape)).reshape(shape)

    moved = from_permutation(permutation).resolve(tuple(shape), {}).apply(array)

    assert np.array_equal(moved, array.transpose(permutation))


def test_the_identity_moves_nothing() -> None:
    assert identity(()).apply(np.array(1)).shape == ()
    assert identity((2, 3)).output == (2, 3)


@given(st.text(st.sampled_from("ab1() ->,\n2"), max_size=12))
def test_whatever_stands_there_is_read_or_refused(text: str) -> None:
    try:
        axes = parse(text)
    except AxesError:
        assert refused(text)[0] == "T2T301"
    else:
        assert parse(str(axes)) == axes
