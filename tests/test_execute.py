"""Execution: every tensor of the plan with the values that numpy gives, each variable read once, in little memory."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import weakref
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2t import execute, plan
from t2t.axes import Order, parse, resolve
from t2t.checkpoints import Checkpoint
from t2t.execute import tensors
from t2t.plan import Step
from t2t.problems import CheckpointError, MappingError, Problem
from t2t.tensors import DTYPES, LARGE, PAGE, ModuleInventory, ParameterRef, TensorRef
from tests.given import Array, Memory, lines, parameters, planned, read

FLOATS = [name for name, dtype in DTYPES.items() if dtype.kind == "float"]
CONVERTIBLE = [name for name, dtype in DTYPES.items() if dtype.kind != "other"]


def module(shapes: Mapping[str, tuple[int, ...]], dtype: str = "float32") -> ModuleInventory:
    return parameters(*(ParameterRef(name, dtype, shape) for name, shape in shapes.items()))


def done(rows: str, checkpoint: Memory, inventory: ModuleInventory, more: str = "", **options: Any) -> dict[str, Array]:
    """Every tensor by name, copied as it comes."""
    plan = planned(rows, checkpoint, inventory, more)
    return {name: array.copy() for name, array in tensors(plan, checkpoint, options.pop("built", {}), **options)}


def refused(rows: str, checkpoint: Memory, inventory: ModuleInventory, more: str = "", **options: Any) -> list[str]:
    with pytest.raises(MappingError) as caught:
        done(rows, checkpoint, inventory, more, **options)
    return lines(caught.value.problems)


def one(values: Array, cast: str, **options: Any) -> Array:
    """The values cast by a row's dtype."""
    inventory = module({"p": values.shape}, cast)
    return done(f"- {{tf: v, torch: p, dtype: {cast}}}\n", Memory({"v": values}), inventory, **options)["p"]


def one_refused(values: Array, cast: str, **options: Any) -> list[str]:
    inventory = module({"p": values.shape}, cast)
    return refused(f"- {{tf: v, torch: p, dtype: {cast}}}\n", Memory({"v": values}), inventory, **options)


RANDOM = np.random.default_rng(0)
KERNEL = RANDOM.random((5, 4, 3, 2), np.float32)
DENSE = RANDOM.random((12, 7), np.float32)
BIAS = RANDOM.random(7, np.float32)


# --- values ---


def test_the_memory_of_these_tests_is_a_checkpoint() -> None:
    checkpoint: Checkpoint = Memory({"b": BIAS})

    assert np.array_equal(checkpoint.read(checkpoint.inventory.variables["b"]), BIAS)


def test_elements_move_as_numpy_moves_them() -> None:
    rows = """\
- {tf: kernel, torch: conv, permute: [3, 2, 0, 1]}
- {tf: dense, torch: fc, axes: (h w c) o -> o (c h w), dims: {h: 2, w: 3}}
- {tf: bias, torch: bias}
- {tf: scalar, torch: scalar, axes: -> 1}
"""
    checkpoint = Memory({"kernel": KERNEL, "dense": DENSE, "bias": BIAS, "scalar": np.array(3, np.float32)})
    shapes = {"conv": (2, 3, 5, 4), "fc": (7, 12), "bias": (7,), "scalar": (1,)}

    found = done(rows, checkpoint, module(shapes))

    assert list(found) == ["conv", "fc", "bias", "scalar"]
    assert np.array_equal(found["conv"], KERNEL.transpose(3, 2, 0, 1))
    assert np.array_equal(found["fc"], DENSE.reshape(2, 3, 2, 7).transpose(3, 2, 0, 1).reshape(7, 12))
    assert np.array_equal(found["bias"], BIAS)
    assert np.array_equal(found["scalar"], [3])
    assert all(array.flags.c_contiguous for array in found.values())


@pytest.mark.parametrize("dtype", CONVERTIBLE)
def test_every_dtype_passes_bit_for_bit(dtype: str) -> None:
    numpy = DTYPES[dtype].numpy
    assert numpy is not None
    array = np.array([[0, 1, 0], [1, 1, 0]]).astype(numpy)
    inventory = module({"p": (3, 2), "q": (2, 3)}, dtype)
    rows = "- {tf: v, torch: p, permute: [1, 0], reuse: true}\n- {tf: v, torch: q, permute: [0, 1], reuse: true}\n"

    found = done(rows, Memory({"v": array}), inventory)

    assert found["p"].dtype == numpy
    assert found["p"].tobytes() == np.ascontiguousarray(array.T).tobytes()
    assert found["q"].tobytes() == array.tobytes()


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), ()])
def test_empty_tensors_and_scalars_pass(shape: tuple[int, ...]) -> None:
    letters = "abc"[: len(shape)]
    rows = f"- {{tf: v, torch: p, axes: '{' '.join(letters)} -> {' '.join(reversed(letters))}'}}\n"

    found = done(rows, Memory({"v": np.ones(shape, np.float32)}), module({"p": shape[::-1]}))

    assert found["p"].shape == shape[::-1]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([0, 1, 2, 3, 17, 33]), max_size=4).flatmap(
        lambda shape: st.tuples(st.just(tuple(shape)), st.permutations(range(len(shape))))
    ),
    st.sampled_from(["float32", "int8", "complex128", "bfloat16", "float8_e5m2"]),
    st.sampled_from([None, "float64"]),
)
def test_a_permutation_is_numpys_transpose(
    case: tuple[tuple[int, ...], list[int]], dtype: str, cast: str | None
) -> None:
    """Sizes on both sides of the strips that a transposed copy runs in."""
    shape, permutation = case
    source = (np.arange(math.prod(shape)) % 100).astype(DTYPES[dtype].numpy).reshape(shape)
    cast = cast if cast and dtype != "complex128" else dtype
    inventory = module({"p": tuple(shape[axis] for axis in permutation)}, cast)

    found = done(f"- {{tf: v, torch: p, permute: {permutation}, dtype: {cast}}}\n", Memory({"v": source}), inventory)[
        "p"
    ]

    assert found.tobytes() == source.transpose(permutation).astype(DTYPES[cast].numpy).tobytes()


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from([8, 64, 1000, execute.BLOCK]))
def test_blocks_are_the_targets_elements_in_order(data: st.DataObject, largest: int) -> None:
    """Whatever is split, moved and composed, and wherever a block ends."""
    sizes = data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 5]), min_size=1, max_size=4))
    names = "abcd"[: len(sizes)]
    order = data.draw(st.permutations(names))
    cut = data.draw(st.integers(0, len(names)))
    text = f"({' '.join(names)}) -> ({' '.join(order[:cut])}) ({' '.join(order[cut:])})"
    dims = dict(zip(names, sizes, strict=True))
    source = np.arange(math.prod(sizes), dtype=np.float64)
    transform = parse(text).resolve(source.shape, dims)
    given = ", ".join(f"{name}: {size}" for name, size in dims.items())
    rows = f"- {{tf: v, torch: p, axes: {text}, dims: {{{given}}}, dtype: float32}}\n"

    made = in_blocks(rows, Memory({"v": source}), module({"p": transform.output}), largest)

    assert [value for _, _, values in made for value in values] == transform.apply(source).reshape(-1).tolist()
    assert [start for _, start, _ in made] == list(itertools.accumulate((len(v) for _, _, v in made[:-1]), initial=0))
    assert all(len(values) * 4 <= largest for _, _, values in made)
    assert len(made) == 1 or all(values for _, _, values in made)


def in_blocks(
    rows: str, checkpoint: Memory, inventory: ModuleInventory, largest: int
) -> list[tuple[str, int, list[Any]]]:
    """Name, start and values of each block, none of more than `largest` bytes."""

    def room(step: Step, start: int, count: int, dtype: np.dtype[Any]) -> Array:
        return np.empty(count, dtype)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execute, "BLOCK", largest)
        plan = planned(rows, checkpoint, inventory)
        return [(name, start, values.tolist()) for name, start, values in execute.blocks(plan, checkpoint, {}, room)]


def test_every_name_of_a_target_gets_each_block() -> None:
    refs = parameters(ParameterRef("p", "float32", (7,)), ParameterRef("q", "float32", (7,), tied_to="p"))
    rows = "- {tf: a, torch: p}\n- {torch: q, tie: p}\n"

    made = in_blocks(rows, Memory({"a": BIAS}), refs, 16)

    assert [(name, start, len(values)) for name, start, values in made] == [
        ("p", 0, 4),
        ("q", 0, 4),
        ("p", 4, 3),
        ("q", 4, 3),
    ]


# --- reading ---


def test_each_variable_is_read_once_in_the_order_of_the_file() -> None:
    rows = "".join(
        f"- {{tf: {name}, torch: {name}1, reuse: true}}\n- {{tf: {name}, torch: {name}2, reuse: true}}\n"
        for name in "abcd"
    )
    places = {"a": (1, 8), "b": (0, 64), "c": (1, 0), "d": (0, 4)}
    checkpoint = Memory({name: BIAS + i for i, name in enumerate("abcd")}, places)
    inventory = module({f"{name}{i}": (7,) for name in "abcd" for i in (1, 2)})
    read: list[int] = []

    found = done(rows, checkpoint, inventory, progress=read.append)

    assert checkpoint.reads == ["d", "b", "c", "a"]
    assert read == [28] * 4
    assert checkpoint.checks == 1
    assert list(found) == ["d1", "d2", "b1", "b2", "c1", "c2", "a1", "a2"]
    assert np.array_equal(found["c2"], BIAS + 2)


def test_large_variables_are_read_to_the_beginning_of_a_page() -> None:
    begins = []

    class Noting(Memory):
        def read(self, ref: TensorRef, out: Any = None) -> Array:
            begins.append(out.ctypes.data % PAGE)
            return super().read(ref, out)

    large = np.zeros(LARGE, np.float32)
    inventory = module({"a": large.shape, "b": large.shape})
    done("- {tf: a, torch: a}\n- {tf: b, torch: b}\n", Noting({"a": large, "b": large}), inventory)

    assert begins == [0, 0]


def test_a_variable_that_no_row_reads_is_not_read() -> None:
    checkpoint = Memory({"a": BIAS, "b": BIAS})

    done("- {tf: a, torch: a}\n", checkpoint, module({"a": (7,)}), "ignore: [{tf: b, why: c}]")

    assert checkpoint.reads == ["a"]


def test_what_cannot_be_read_ends_it_at_once() -> None:
    class Torn(Memory):
        def read(self, ref: TensorRef, out: Any = None) -> Array:
            if ref.name == "b":
                raise CheckpointError(Problem("T2T608", "b: torn"))
            return super().read(ref, out)

    checkpoint = Torn({"a": BIAS, "b": BIAS, "c": BIAS})
    rows = "".join(f"- {{tf: {name}, torch: {name}}}\n" for name in "abc")

    with pytest.raises(CheckpointError, match="b: torn"):
        done(rows, checkpoint, module(dict.fromkeys("abc", (7,))))

    assert checkpoint.reads == ["a"]


def test_a_checkpoint_that_changed_meanwhile_gives_no_more() -> None:
    class Changing(Memory):
        def check_unchanged(self) -> None:
            raise CheckpointError(Problem("T2T609", "changed"))

    names: list[str] = []
    checkpoint = Changing({"a": BIAS})
    plan = planned("- {tf: a, torch: a}\n- {torch: b, fill: 0}\n", checkpoint, module({"a": (7,), "b": (2,)}))

    with pytest.raises(CheckpointError, match="changed"):
        names.extend(name for name, _ in tensors(plan, checkpoint, {}))

    assert names == ["a"]


# --- fill, tie, keep ---


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64", "uint8", "bool", "complex64"])
def test_a_fill_has_the_parameters_shape_and_dtype(dtype: str) -> None:
    inventory = parameters(ParameterRef("a", "float32", (7,)), ParameterRef("p", dtype, (2, 3)))

    found = done("- {tf: a, torch: a}\n- {torch: p, fill: 1}\n", Memory({"a": BIAS}), inventory)["p"]

    assert found.dtype == DTYPES[dtype].numpy
    assert np.array_equal(found, np.ones((2, 3), found.dtype))


def test_tied_names_come_with_the_array_of_the_one_that_is_written() -> None:
    refs = [ParameterRef("p", "float32", (7,)), *(ParameterRef(n, "float32", (7,), tied_to="p") for n in ("p2", "p3"))]
    rest = [ParameterRef("q", "float32", (2,)), ParameterRef("q2", "float32", (2,), tied_to="q")]
    rows = "- {torch: p, tie: p2}\n- {tf: a, torch: p2}\n- {torch: p3, tie: p2}\n"
    rows += "- {torch: q, fill: 5}\n- {torch: q2, tie: q}\n"
    checkpoint = Memory({"a": BIAS})
    plan = planned(rows, checkpoint, parameters(*refs, *rest))

    found = dict(tensors(plan, checkpoint, {}))

    assert sorted(found) == ["p", "p2", "p3", "q", "q2"]
    assert found["p"] is found["p2"] is found["p3"]
    assert found["q"] is found["q2"]
    assert np.array_equal(found["q"], [5, 5])


def test_keep_gives_the_value_that_was_built_in_memory_of_its_own() -> None:
    refs = parameters(ParameterRef("a", "float32", (7,)), ParameterRef("k", "int64", (3,), "buffer"))
    built = {"k": np.arange(3)}
    checkpoint = Memory({"a": BIAS})
    plan = planned("- {tf: a, torch: a}\n- {torch: k, keep: init, why: a}\n", checkpoint, refs)

    found = dict(tensors(plan, checkpoint, built))["k"]

    assert np.array_equal(found, [0, 1, 2])
    assert not np.shares_memory(found, built["k"])


def test_what_is_given_gets_the_outputs_dtype_too() -> None:
    refs = parameters(*(ParameterRef(name, "float32", (2,)) for name in "afk"), ParameterRef("i", "int64", (2,)))
    rows = "- {tf: a, torch: a}\n- {torch: f, fill: 1}\n- {torch: i, fill: 1}\n- {torch: k, keep: init, why: a}\n"
    built = {"k": np.array([0.1, -np.inf], np.float32)}

    found = done(rows, Memory({"a": BIAS[:2]}), refs, built=built, dtype="bfloat16", allow_nonfinite=True)

    assert refused(rows, Memory({"a": BIAS[:2]}), refs, built=built) == [
        "8:20: T2T403 k, as it was built, holds 0 NaN and 1 Inf among 2 elements; "
        "if that is meant, give --allow-nonfinite"
    ]
    assert [found[name].dtype.name for name in "afik"] == ["bfloat16", "bfloat16", "int64", "bfloat16"]
    assert np.array_equal(found["k"], built["k"].astype(ml_dtypes.bfloat16))


def test_what_is_given_may_not_be_lost_in_the_outputs_dtype() -> None:
    refs = parameters(*(ParameterRef(name, "float32", (2,)) for name in "afk"))
    rows = "- {tf: a, torch: a}\n- {torch: k, keep: init, why: a}\n- {torch: f, fill: 100000}\n"
    built = {"k": np.array([1e6, 1], np.float32)}

    assert refused(rows, Memory({"a": BIAS[:2]}), refs, built=built, dtype="float16") == [
        "6:3: T2T402 k: float16 cannot hold 1 of 2 values of its value (float32), the largest is 1e+06; "
        "choose a wider dtype",
        "7:20: T2T402 f: float16 cannot hold 2 of 2 values of its fill (float32), the largest is 100000; "
        "choose a wider dtype",
    ]


# --- casts ---


@pytest.mark.parametrize(
    ("source", "dtype"),
    [
        ("float64", "float32"),
        ("float32", "float64"),
        ("float32", "float16"),
        ("float32", "bfloat16"),
        ("bfloat16", "float32"),
        ("float32", "float8_e4m3fn"),
        ("int64", "float32"),
        ("int32", "bool"),
        ("bool", "float32"),
        ("float32", "int8"),
        ("int64", "uint8"),
        ("uint8", "int64"),
        ("complex64", "complex128"),
        ("complex128", "complex64"),
        ("float32", "complex64"),
    ],
)
def test_a_cast_is_numpys(source: str, dtype: str) -> None:
    values = np.array([[0, 1, 1], [1, 0, 1]]).astype(DTYPES[source].numpy)
    inventory = module({"p": (3, 2)}, dtype)
    rows = f"- {{tf: v, torch: p, permute: [1, 0], dtype: {dtype}}}\n"

    found = done(rows, Memory({"v": values}), inventory)["p"]

    assert found.dtype == DTYPES[dtype].numpy
    assert found.tobytes() == np.ascontiguousarray(values.T.astype(DTYPES[dtype].numpy)).tobytes()


def test_rounding_is_what_a_cast_to_a_narrower_float_is_for() -> None:
    values = np.array([0.1, 1 / 3, 1e-30, -0.0])

    assert one(values, "float16").tobytes() == values.astype(np.float16).tobytes()
    assert one(np.array([2**24 + 1]), "float32")[0] == 2**24


@pytest.mark.parametrize(
    ("values", "dtype", "lost", "largest"),
    [
        (np.array([1.0, 1e39, -2e39]), "float32", "2 of 3", "-2e+39"),
        (np.array([65504, 65520.0]), "float16", "1 of 2", "65520"),
        (np.array([3.4e38], "f4"), "bfloat16", "1 of 1", "3.4e+38"),
        (np.array([500], "f4"), "float8_e4m3fn", "1 of 1", "500"),
        (np.array([70000]), "float16", "1 of 1", "70000"),
        (np.array([1e200 + 1j]), "complex64", "1 of 1", "1e+200"),
        (np.array([128, -129, 127]), "int8", "2 of 3", "-129"),
        (np.array([2**31]), "int32", "1 of 1", "2.14748e+09"),
        # These come back as they were when the cast is undone: only the sign has changed.
        (np.array([-1, 0]), "uint64", "1 of 2", "-1"),
        (np.array([-1], "i1"), "uint8", "1 of 1", "-1"),
        (np.array([2**63], "u8"), "int64", "1 of 1", "9.22337e+18"),
        (np.array([200], "u1"), "int8", "1 of 1", "200"),
        (np.array([0.5, 2.0]), "int8", "1 of 2", "0.5"),
        (np.array([3e9]), "int32", "1 of 1", "3e+09"),
        (np.array([-1.0]), "uint8", "1 of 1", "-1"),
        (np.array([2, 0, 1]), "bool", "1 of 3", "2"),
        (np.array([-1, 1]), "bool", "1 of 2", "-1"),
        (np.array([0.5]), "bool", "1 of 1", "0.5"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)  # fmt: skip
def test_a_value_that_a_cast_loses_is_refused(values: Array, dtype: str, lost: str, largest: str) -> None:
    message = f"{dtype} cannot hold {lost} values of v ({values.dtype}), the largest is {largest}"

    assert one_refused(values, dtype) == [f"5:28: T2T402 p: {message}; choose a wider dtype"]


@pytest.mark.parametrize(("number", "largest"), [(np.nan, "nan"), (np.inf, "inf")])
def test_an_integer_holds_no_nan_even_where_nan_is_allowed(number: float, largest: str) -> None:
    assert one_refused(np.array([1, number], np.float32), "int32", allow_nonfinite=True) == [
        "5:28: T2T402 p: int32 cannot hold 1 of 2 values of v (float32), "
        f"the largest is {largest}; choose a wider dtype"
    ]


def test_a_loss_between_is_a_loss() -> None:
    """float64 -> the parameter's float16 -> the output's float32: the overflow is in the middle."""
    assert one_refused(np.array([1e5]), "float16", dtype="float32") == [
        "5:28: T2T402 p: float16 cannot hold 1 of 1 values of v (float64), the largest is 100000; choose a wider dtype"
    ]


def test_values_take_the_way_over_the_parameters_dtype() -> None:
    values = np.array([1 / 3])

    assert one(values, "float16", dtype="float64")[0] == float(np.float16(1 / 3))


@pytest.mark.parametrize("output", FLOATS)
def test_the_outputs_dtype_is_applied_last_and_to_floats_only(output: str) -> None:
    refs = parameters(ParameterRef("a", "float32", (7,)), ParameterRef("i", "int32", (2,)))
    checkpoint = Memory({"a": BIAS, "i": np.array([1, 2], np.int32)})

    found = done("- {tf: a, torch: a}\n- {tf: i, torch: i}\n", checkpoint, refs, dtype=output)

    assert found["a"].tobytes() == BIAS.astype(DTYPES[output].numpy).tobytes()
    assert found["i"].dtype == np.int32


# --- NaN and Inf ---


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "float8_e5m2", "complex64"])
def test_nan_and_inf_are_counted(dtype: str) -> None:
    values = np.array([np.nan, 1, np.inf, -np.inf, np.nan, np.nan]).astype(DTYPES[dtype].numpy)
    inventory = module({"p": (6,)}, dtype)

    assert refused("- {tf: v, torch: p}\n", Memory({"v": values}), inventory) == [
        "5:8: T2T403 v holds 3 NaN and 2 Inf among 6 elements; if that is meant, give --allow-nonfinite"
    ]


@pytest.mark.parametrize("dtype", FLOATS)
def test_finite_values_of_every_float_are_none(dtype: str) -> None:
    values = np.array([0, 1, -1.5]).astype(DTYPES[dtype].numpy)

    assert one(values, dtype).tobytes() == values.tobytes()


def test_allowed_nan_keep_their_bits_and_zeros_their_sign() -> None:
    bits = np.array([0x7FC00001, 0xFFC12345, 0x7F800000, 0x80000000], np.uint32)

    assert one(bits.view(np.float32), "float32", allow_nonfinite=True).tobytes() == bits.tobytes()
    assert np.signbit(one(np.array([-0.0]), "float32"))


def test_nan_are_found_beyond_the_first_chunk() -> None:
    values = np.zeros(execute.CHUNK * 2 + 3, np.float16)
    values[-1] = np.nan
    inventory = module({"p": values.shape}, "float16")

    assert refused("- {tf: v, torch: p}\n", Memory({"v": values}), inventory) == [
        f"5:8: T2T403 v holds 1 NaN and 0 Inf among {values.size} elements; if that is meant, give --allow-nonfinite"
    ]


def test_all_values_of_all_variables_are_judged_in_one_run_in_file_order() -> None:
    """The variables are stored in another order than the rows; nothing is given once something is wrong."""
    bad = np.array([np.nan, 1e6], np.float32)
    checkpoint = Memory(
        {"a": bad, "b": bad[1:], "c": bad, "d": BIAS}, {"a": (2, 0), "b": (1, 0), "c": (0, 0), "d": (3, 0)}
    )
    rows = """\
- {tf: a, torch: a}
- {tf: b, torch: b1, dtype: float16, reuse: true}
- {tf: b, torch: b2, dtype: int8, reuse: true}
- {tf: c, torch: c}
- {tf: d, torch: d}
- {torch: e, fill: 0}
"""
    refs = parameters(
        ParameterRef("a", "float32", (2,)),
        ParameterRef("b1", "float16", (1,)),
        ParameterRef("b2", "int8", (1,)),
        ParameterRef("c", "float32", (2,)),
        ParameterRef("d", "float32", (7,)),
        ParameterRef("e", "float32", (7,)),
    )
    given: list[str] = []

    with pytest.raises(MappingError) as caught:
        given.extend(name for name, _ in tensors(planned(rows, checkpoint, refs), checkpoint, {}))

    assert lines(caught.value.problems) == [
        "5:8: T2T403 a holds 1 NaN and 0 Inf among 2 elements; if that is meant, give --allow-nonfinite",
        "6:29: T2T402 b1: float16 cannot hold 1 of 1 values of b (float32), the largest is 1e+06; choose a wider dtype",
        "7:29: T2T402 b2: int8 cannot hold 1 of 1 values of b (float32), the largest is 1e+06; choose a wider dtype",
        "8:8: T2T403 c holds 1 NaN and 0 Inf among 2 elements; if that is meant, give --allow-nonfinite",
    ]
    assert given == []
    assert checkpoint.reads == ["c", "b", "a", "d"]


# --- memory ---

SHARED = (
    "- {tf: a, torch: p, reuse: true}\n- {tf: a, torch: q, reuse: true}\n- {tf: b, torch: r}\n- {torch: f, fill: 0}\n"
)


def test_tensors_have_memory_of_their_own() -> None:
    """Two parameters that read one variable would otherwise be trained as one."""
    checkpoint = Memory({"a": BIAS, "b": BIAS})
    plan = planned(SHARED, checkpoint, module(dict.fromkeys("pqrf", (7,))))

    found = dict(tensors(plan, checkpoint, {}))

    for name, array in found.items():
        assert array.flags.writeable
        assert not any(np.shares_memory(array, other) for key, other in found.items() if key != name)
    assert all(np.array_equal(found[name], BIAS) for name in "pqr")


def test_a_tensor_that_nobody_keeps_goes() -> None:
    checkpoint = Memory({"a": BIAS, "b": BIAS})
    plan = planned(SHARED, checkpoint, module(dict.fromkeys("pqrf", (7,))))
    seen: list[weakref.ref[Array]] = []
    for _, array in tensors(plan, checkpoint, {}):
        assert [reference() is None for reference in seen[:-1]] == [True] * len(seen[:-1])
        seen.append(weakref.ref(array))

    assert len(seen) == 4


MEMORY = """
import numpy as np
from t2t.execute import BLOCK, blocks
from t2t.tensors import ParameterRef, TensorRef
from tests.given import Memory, parameters, planned, variables

SIDE, COUNT, MB = 4096, 6, 1 << 20

class Zeros(Memory):
    def __init__(self):
        self.inventory = variables(*(
            TensorRef(f"v{i}", "float32", (SIDE, SIDE), 0, i * SIDE * SIDE * 4, SIDE * SIDE * 4) for i in range(COUNT)
        ))
    def read(self, ref, out=None):
        out[: ref.nbytes] = 0
        return out[: ref.nbytes].view(np.float32).reshape(ref.shape)
    def check_unchanged(self):
        pass

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024

rows = "".join(f"- {{tf: v{i}, torch: p{i}, permute: [1, 0]}}\\n" for i in range(COUNT))
checkpoint = Zeros()
plan = planned(rows, checkpoint, parameters(*(ParameterRef(f"p{i}", "float32", (SIDE, SIDE)) for i in range(COUNT))))
before = peak()
buffer = np.empty(BLOCK, np.uint8)
room = lambda step, start, count, dtype: buffer[: count * dtype.itemsize].view(dtype)
elements = sum(block.values.size for block in blocks(plan, checkpoint, {}, room, dtype=DTYPE))
print(elements // SIDE**2, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("dtype", ["None", "'bfloat16'"])
def test_six_tensors_of_64_mb_take_twice_one_and_64_mb_at_most(dtype: str) -> None:
    code = MEMORY.replace("DTYPE", dtype)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, megabytes = map(int, done.stdout.split())

    assert count == 6
    assert 64 < megabytes <= 2 * 64 + 64


# --- slices, joins, orders, numbers: held against numpy's own ---

K = np.arange(7 * 12, dtype=np.float32).reshape(7, 12)


def converted(
    rows: str, arrays: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]], more: str = ""
) -> dict[str, np.ndarray]:
    refs = [ParameterRef(name, next(iter(arrays.values())).dtype.name, shape) for name, shape in shapes.items()]
    checkpoint = Memory(arrays)
    return dict(execute.tensors(planned(rows, checkpoint, parameters(*refs), more), checkpoint, {}))


def test_a_sliced_kernel_with_gates_in_another_order() -> None:
    rows = (
        "- {tf: k, torch: ih, slice: [':4'], axes: x (g u) -> (g u) x, dims: {g: 4}, order: {g: icfo -> ifco}}\n"
        "- {tf: k, torch: hh, slice: ['4:'], axes: h (g u) -> (g u) h, dims: {g: 4}, order: {g: icfo -> ifco}}\n"
    )
    found = converted(rows, {"k": K}, {"ih": (12, 4), "hh": (12, 3)})
    i, c, f, o = np.split(K, 4, axis=1)
    expected = np.concatenate([i, f, c, o], axis=1).T

    assert np.array_equal(found["ih"], expected[:, :4])
    assert np.array_equal(found["hh"], expected[:, 4:])


def test_a_number_is_added_to_the_entry_that_is_named() -> None:
    bias = np.arange(12, dtype=np.float32)
    row = (
        "- {tf: b, torch: p, axes: (g u) -> (g u), dims: {g: 4}, order: {g: icfo -> ifco}, add: "
        "{g: {f: 1.5}}, scale: 2}\n"
    )
    i, c, f, o = np.split(bias * 2, 4)

    assert np.array_equal(converted(row, {"b": bias}, {"p": (12,)})["p"], np.concatenate([i, f + 1.5, c, o]))


def test_flips_turn_axes_round_by_name_and_by_number() -> None:
    rows = (
        "- {tf: k, torch: p, flip: [x], axes: x y -> y x, reuse: true}\n"
        "- {tf: k, torch: q, flip: [0, 1], axes: x y -> x y, reuse: true}\n"
    )
    found = converted(rows, {"k": K}, {"p": (12, 7), "q": (7, 12)})

    assert np.array_equal(found["p"], K[::-1].T)
    assert np.array_equal(found["q"], K[::-1, ::-1])


def test_axes_in_steps_read_the_elements_again() -> None:
    row = "- {tf: k, torch: p, axes: [x (g u) -> g (x u), g (u x) -> (g u) x], dims: {g: 4}}\n"
    gates = [gate.reshape(-1).reshape(3, 7) for gate in np.split(K, 4, axis=1)]

    assert np.array_equal(converted(row, {"k": K}, {"p": (12, 7)})["p"], np.concatenate(gates))


def test_variables_are_put_together_and_stacked_in_the_order_of_the_list() -> None:
    arrays = {f"w{n}": np.full((n + 1, 2), n, np.float32) for n in range(12)}
    joined = "for: {n: 0..11}\n"
    rows = "- {tf: ['w<n>'], torch: p, join: v, axes: v d -> d v}\n"
    text = "t2t: 1\nmodel: m:M\nsource: {checkpoint: c}\n" + joined + "map:\n" + rows
    checkpoint = Memory(arrays)
    total = sum(range(1, 13))
    plan_, problems = plan.make(read(text), checkpoint.inventory, parameters(ParameterRef("p", "float32", (2, total))))
    found = dict(execute.tensors(plan_, checkpoint, {}))

    assert problems == []
    assert np.array_equal(found["p"], np.concatenate(list(arrays.values())).T)
    stacks = {name: np.random.default_rng(n).normal(size=(3, 2, 4)).astype(np.float32) for n, name in enumerate("qkv")}
    stacked = converted("- {tf: [q, k, v], torch: p, join: s, axes: s d h k -> (s h k) d}\n", stacks, {"p": (24, 3)})
    assert np.array_equal(stacked["p"], np.concatenate([a.reshape(3, 8).T for a in stacks.values()]))


def test_a_parameter_is_put_together_from_parts_in_any_order_of_rows() -> None:
    rows = [
        "- {torch: p, into: ['0:1'], fill: -1}\n",
        "- {tf: k, torch: p, into: ['1:8', '2:'], axes: a b -> a b}\n",
        "- {tf: m, torch: p, into: ['1:8', ':2'], axes: a b -> b a}\n",
    ]
    m = np.arange(14, dtype=np.float32).reshape(2, 7)
    expected = np.vstack([np.full((1, 14), -1), np.hstack([m.T, K])])

    for order in (rows, rows[::-1]):
        assert np.array_equal(converted("".join(order), {"k": K, "m": m}, {"p": (8, 14)})["p"], expected)


def test_variables_of_one_target_are_read_together_and_each_once() -> None:
    arrays = {name: np.full((2,), n, np.float32) for n, name in enumerate("abcd")}
    checkpoint = Memory(arrays)
    rows = "- {tf: [d, a], torch: p, join: v, axes: v -> v}\n- {tf: b, torch: q}\n- {tf: c, torch: r}\n"
    module = parameters(*(ParameterRef(n, "float32", s) for n, s in (("p", (4,)), ("q", (2,)), ("r", (2,)))))
    found = dict(execute.tensors(planned(rows, checkpoint, module), checkpoint, {}))

    assert checkpoint.reads == ["a", "d", "b", "c"]
    assert found["p"].tolist() == [3, 3, 0, 0]


def test_an_integer_that_a_scale_makes_too_large_is_refused() -> None:
    with pytest.raises(MappingError) as error:
        converted("- {tf: n, torch: p, scale: 100}\n", {"n": np.array([1, 2], np.int8)}, {"p": (2,)})

    assert lines(error.value.problems) == [
        "5:28: T2T402 p: int8 cannot hold what scale makes of n (int8); choose a wider dtype"
    ]


def test_a_float_that_a_scale_makes_infinite_is_refused() -> None:
    with pytest.raises(MappingError) as error:
        converted("- {tf: n, torch: p, scale: 1e38}\n", {"n": np.array([1, 20], np.float32)}, {"p": (2,)})

    assert lines(error.value.problems) == [
        "5:28: T2T403 p, once computed, holds 0 NaN and 1 Inf among 2 elements; "
        "if that is meant, give --allow-nonfinite"
    ]


@given(st.data())
def test_the_inverse_of_any_move_gives_every_bit_back(data: st.DataObject) -> None:
    """Split, flip, order, permute, compose, in one or two steps; each element is told from each other."""
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    names = "abcde"[: len(sizes)]
    right = data.draw(st.permutations(names))
    cut = data.draw(st.integers(0, len(sizes)))

    def side(order: str, at: int) -> str:
        return " ".join(([f"({' '.join(order[:at])})"] if at else []) + list(order[at:]))

    axes = [parse(f"{side(names, cut)} -> {side(''.join(right), data.draw(st.integers(0, len(sizes))))}")]
    dims = dict(zip(names, sizes, strict=True))
    orders = {}
    for name, size in dims.items():
        if data.draw(st.booleans()):
            letters = "wxyz"[:size]
            orders[name] = Order(letters, "".join(data.draw(st.permutations(letters))))
    flip = data.draw(st.lists(st.sampled_from(names), unique=True))
    shape = (*([int(np.prod(sizes[:cut]))] if cut else []), *sizes[cut:])
    transforms = list(resolve(axes, shape, dims, flip, orders))
    if data.draw(st.booleans()):
        output = transforms[-1].output
        again = [f"n{axis}" for axis in range(len(output))]
        transforms += resolve([parse(f"{' '.join(again)} -> {' '.join(reversed(again))}")], output, {})
    array = np.arange(int(np.prod(shape))).reshape(shape)
    moved = array
    for transform in transforms:
        moved = transform.apply(moved)
    back = moved
    for transform in reversed(transforms):
        back = transform.inverse.apply(back)

    assert np.array_equal(back, array)
    assert moved.shape == transforms[-1].output


# --- what a reviewer broke ---


def stored_as(rows: str, values: np.ndarray, dtype: str, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    checkpoint = Memory({"v": values})
    module = parameters(ParameterRef("b", values.dtype.name, shape))
    return dict(execute.tensors(planned(rows, checkpoint, module), checkpoint, {}, dtype=dtype))


def test_the_files_dtype_holds_what_was_computed_and_not_what_was_read() -> None:
    with pytest.raises(MappingError, match="b: float16 cannot hold 1 of 2 values of what scale makes of v"):
        stored_as("- {tf: v, torch: b, scale: 2}\n", np.array([60000, 2], np.float32), "float16", (2,))

    small = stored_as("- {tf: v, torch: b, scale: 0.001}\n", np.array([100000, 2], np.float32), "float16", (2,))
    assert small["b"].tolist() == [100, np.float16(0.002)]


def test_a_fill_beside_a_variable_may_not_be_lost_in_the_files_dtype_either() -> None:
    rows = "- {tf: v, torch: b, into: [':2']}\n- {torch: b, into: ['2:'], fill: 1048576}\n"
    with pytest.raises(MappingError, match="b: float16 cannot hold 1 of 1 values of its fill"):
        stored_as(rows, np.array([1, 2], np.float32), "float16", (3,))


def test_a_float_becomes_the_integer_before_it_is_added_to() -> None:
    values = np.array([2.0**53])
    checkpoint = Memory({"v": values})
    module = parameters(ParameterRef("b", "int64", (1,)))
    row = "- {tf: v, torch: b, dtype: int64, add: 1}\n"

    assert dict(execute.tensors(planned(row, checkpoint, module), checkpoint, {}))["b"].tolist() == [2**53 + 1]


@pytest.mark.parametrize("axes", ["", ", axes: -> 1"])
def test_a_scalar_is_added_to_as_well(axes: str) -> None:
    shape = (1,) if axes else ()
    found = converted(f"- {{tf: n, torch: p, add: 1, scale: 3{axes}}}\n", {"n": np.array(2, np.int64)}, {"p": shape})

    assert found["p"].reshape(-1).tolist() == [7]


def test_nan_is_told_once_where_it_becomes_an_integer() -> None:
    checkpoint = Memory({"v": np.array([np.nan, 1], np.float32)})
    module = parameters(ParameterRef("b", "int32", (2,)))
    ready = planned("- {tf: v, torch: b, scale: 3, dtype: int32}\n", checkpoint, module)
    with pytest.raises(MappingError) as error:
        dict(execute.tensors(ready, checkpoint, {}))

    assert lines(error.value.problems) == [
        "5:8: T2T403 v holds 1 NaN and 0 Inf among 2 elements; if that is meant, give --allow-nonfinite"
    ]
