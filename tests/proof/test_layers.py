"""
The layers that a recording keeps: whose variables they are, what is stored of them, and what a stranger's file may say.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from t2t.problems import CheckpointError
from t2t.proof import origin, recording
from t2t.proof.layers import MAX_AROUND, MAX_ELEMENTS, MAX_RANK, Inside, Layer, Sample, packed, recognised, unpacked
from t2t.proof.originals import samples
from t2t.proof.originals.original import MAX_LAYERS
from t2t.proof.recording import Draw, Recording
from t2t.verification import Verify
from tests.given import Array, Memory, variables

VerifyOf = Callable[..., Verify]


def uniform(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


# --- whose variables they are ---

KERNEL, BIAS, TABLE = uniform(0, 3, 4), uniform(1, 4), uniform(2, 12)


def checkpoint(arrays: Mapping[str, Array], **changes: dict[str, Any]) -> Memory:
    """A checkpoint of these variables; `changes` are those of a variable's fields, by its name."""
    memory = Memory(arrays)
    refs = memory.inventory.variables.values()
    memory.inventory = variables(*(replace(ref, **changes.get(ref.name, {})) for ref in refs))
    return memory


def told(name: str = "", values: Array | None = None) -> dict[str, Any]:
    """A variable as the child tells it: by its certain name, or with a digest."""
    if values is None:
        return {"name": name, "digest": "", "shape": []}
    return {"name": name, "digest": samples.digest(values), "shape": list(values.shape)}


def taken(memory: Memory | None, *given: dict[str, Any]) -> list[tuple[str, ...]]:
    """The variables of a layer that takes each of these, as far as one is recognised."""
    layers = [
        {"operation": "o", "kind": "Mul", "variables": [one], "input": None, "output": None, "before": [], "after": []}
        for one in given
    ]
    return [layer.variables for layer in recognised({"layers": layers}, {}, {}, memory).layers]


def test_a_certain_name_is_the_checkpoints_or_that_of_the_model() -> None:
    """Nothing is read for it."""
    memory = checkpoint({"k": KERNEL, "b": BIAS}, b={"full_name": "dense/bias"})

    assert taken(memory, told("k"), told("dense/bias"), told("b")) == [("k",), ("b",), ("b",)]
    assert memory.reads == []


def test_a_certain_name_that_is_not_in_the_checkpoint_is_left_out_with_its_layer() -> None:
    memory = checkpoint({"k": KERNEL})

    assert taken(memory, told("other"), told("k"), told("")) == [("k",)]


def test_a_name_that_two_variables_go_by_is_certain_of_neither() -> None:
    memory = checkpoint({"k": KERNEL, "b": BIAS, "t": TABLE}, k={"full_name": "w"}, b={"full_name": "w"})

    assert taken(memory, told("w"), told("k")) == [("k",)]
    # With its values it is.
    assert taken(memory, told("w", BIAS), told("w", KERNEL.T)) == [("b",), ("k",)]


def test_a_name_with_other_values_is_not_that_variable() -> None:
    memory = checkpoint({"k": KERNEL, "b": BIAS})

    assert taken(memory, told("k", uniform(9, 3, 4)), told("k", BIAS)) == [("b",)]


def test_values_alone_are_enough_where_one_variable_has_them() -> None:
    """In any order, and only variables of the right size are read, each once."""
    memory = checkpoint({"k": KERNEL, "t": TABLE, "b": BIAS, "half": BIAS.astype(np.float16)})
    kernel, half = told("", KERNEL.reshape(2, 6)[::-1]), told("constant:0", BIAS.astype(np.float16))

    assert taken(memory, kernel, told("", TABLE), kernel, half) == [("k",), ("t",), ("k",), ("half",)]
    assert sorted(memory.reads) == ["b", "half", "k", "t"]


def test_equal_variables_are_told_apart_by_name_or_not_at_all() -> None:
    memory = checkpoint({"one": BIAS, "two": BIAS[::-1].copy()}, two={"full_name": "model/two"})

    assert taken(memory, told("", BIAS), told("three", BIAS)) == []
    assert taken(memory, told("one", BIAS), told("model/two", BIAS)) == [("one",), ("two",)]


@pytest.mark.parametrize("change", [{"slot_of": "k"}, {"slot_of": ""}, {"unreadable": "it is encrypted"}])
def test_slots_and_what_cannot_be_read_are_never_meant(change: dict[str, Any]) -> None:
    memory = checkpoint({"b": BIAS, "k": KERNEL}, b=change)

    assert taken(memory, told("b"), told("b", BIAS), told("", BIAS)) == []
    # An equal one that is not is no reason to doubt.
    memory = checkpoint({"b": BIAS, "other": BIAS}, b=change)
    assert taken(memory, told("b", BIAS), told("", BIAS)) == [("other",), ("other",)]
    assert set(memory.reads) == {"other"}


def test_integers_are_no_layers_variables() -> None:
    memory = checkpoint({"step": np.array([1, 2]), "b": BIAS})

    assert taken(memory, told("step"), told("step", np.array([1, 2]))) == []


def test_without_a_checkpoint_only_certain_names_count() -> None:
    assert taken(None, told("k"), told("k", KERNEL), told("", KERNEL)) == [("k",)]


def test_a_layer_keeps_those_of_its_variables_that_are_recognised_each_once() -> None:
    memory = checkpoint({"k": KERNEL, "b": BIAS})
    given = [told("", BIAS), told("unknown"), told("k"), told("b")]
    layer: dict[str, Any] = {"operation": "o", "kind": "Mul", "variables": given}
    layer |= {"input": None, "output": None, "before": [], "after": []}

    (found,) = recognised({"layers": [layer]}, {}, {}, memory).layers
    assert (found.operation, found.kind, found.variables) == ("o", "Mul", ("b", "k"))


def test_what_lies_before_an_operation_that_is_left_out_lies_before_the_next_one() -> None:
    """A norm whose gamma cannot be told from others begins where gamma's operation takes what is normalised."""
    numbers = {f"m{i}": np.array([i], np.float32) for i in range(4)}
    x, normalised, scaled, y = ({"shape": [1], "scale": 3.0, "member": member} for member in numbers)
    mul: dict[str, Any] = {"operation": "mul", "kind": "Mul", "variables": [told("unknown")], "input": normalised}
    mul |= {"output": scaled, "before": [{"operation": "x", **x}], "after": []}
    add: dict[str, Any] = {"operation": "add", "kind": "Add", "variables": [told("b")], "input": scaled, "output": y}
    add |= {"before": [{"operation": "mul", **scaled}], "after": []}

    (found,) = recognised({"layers": [mul, add]}, numbers, {}, checkpoint({"b": BIAS})).layers
    assert [(name, sample.values[0]) for name, sample in found.before] == [("mul", 2), ("mul", 1), ("x", 0)]


def test_no_more_than_a_few_tensors_around_a_layer_are_kept_and_none_taken() -> None:
    one: dict[str, Any] = {"shape": [1], "scale": 1.0, "member": "m"}
    layer: dict[str, Any] = {"operation": "o", "kind": "Mul", "variables": [told("k")], "input": one, "output": one}
    layer |= {"before": [{"operation": f"x{n}", **one} for n in range(MAX_AROUND + 1)], "after": []}

    inside = recognised({"layers": [layer]}, {"m": np.ones(1, np.float32)}, {}, checkpoint({"k": KERNEL}))
    assert [len(found.before) for found in inside.layers] == [MAX_AROUND]
    meta, values = packed(inside)
    meta["layers"][0][5] *= 2
    with pytest.raises(ValueError, match=f"^a layer has more than {MAX_AROUND} tensors around it$"):
        unpacked(meta, values)


def test_a_folded_variable_names_a_layer_by_what_goes_in_alone() -> None:
    one: dict[str, Any] = {"shape": [1], "scale": 1.0, "member": "m"}
    layer: dict[str, Any] = {"operation": "o", "kind": "CONV_2D", "variables": [told("", KERNEL * 2)], "input": one}
    layer |= {"output": one, "before": [], "after": [{"operation": "y", **one}]}
    members = {"m": np.ones(1, np.float32)}
    digest = layer["variables"][0]["digest"]

    (found,) = recognised({"layers": [layer]}, members, {}, checkpoint({"k": KERNEL}), {digest: "k"}).layers
    assert (found.variables, found.input is None, found.output, found.after) == (("k",), False, None, ())


def test_tensors_come_with_the_samples_that_they_name() -> None:
    members = {"m0": np.array([1, -2], np.float32), "m1": np.array([0.5])}
    one, other = ({"shape": [2], "scale": 2.0, "member": "m0"}, {"shape": [], "scale": 0.5, "member": "m1"})
    layer = {"operation": "o", "kind": "Mul", "variables": [told("k")], "input": one, "output": other}
    layer |= {"before": [{"operation": "x", **one}], "after": [{"operation": "y", **other}, {"operation": "z", **one}]}
    report = {"layers": [layer], "named": {"conv": other, "bn": None}}

    inside = recognised(report, members, {"conv": "conv_1/out:0", "bn": "bn:0"}, None)
    (found,) = inside.layers
    assert list(inside.named) == ["conv_1/out:0"]
    assert [name for name, _ in found.before] == ["x"]
    assert [name for name, _ in found.after] == ["y", "z"]
    for sample, (shape, scale, member) in (
        (found.input, ((2,), 2.0, "m0")),
        (found.output, ((), 0.5, "m1")),
        (found.before[0][1], ((2,), 2.0, "m0")),
        (found.after[0][1], ((), 0.5, "m1")),
        (inside.named["conv_1/out:0"], ((), 0.5, "m1")),
    ):
        assert sample is not None
        assert (sample.shape, sample.scale) == (shape, scale)
        assert sample.values is members[member]


def test_a_report_without_layers_is_one_of_nothing() -> None:
    assert recognised({"versions": {}}, {}, {}, None) == Inside()


# --- stored and read again ---


def sampled(values: Array) -> Sample:
    flat = samples.floating(values).reshape(-1)
    scale = float(np.abs(flat[np.isfinite(flat)]).max(initial=0.0))
    return Sample(values.shape, scale, flat[samples.positions(flat.size)])


TENSORS = [
    uniform(3, 2, 3), uniform(4, 20, 30), np.zeros((0, 4), np.float32), np.array(2, np.float32),
    np.array([np.nan, -np.inf], np.float32), uniform(5, 257),
]  # fmt: skip
TEXTS = st.text(max_size=5)
SAMPLES = st.sampled_from([sampled(tensor) for tensor in TENSORS]) | arrays.arrays(
    st.sampled_from([np.float32, np.float64]),
    arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9),
    elements=st.floats(-2, 2, width=32),
).map(sampled)
SIDES = st.lists(st.tuples(TEXTS, SAMPLES), max_size=3).map(tuple)
LAYERS = st.builds(
    Layer, TEXTS, TEXTS, st.lists(TEXTS, max_size=3).map(tuple), st.none() | SAMPLES, st.none() | SAMPLES, SIDES, SIDES
)
INSIDES = st.builds(Inside, st.lists(LAYERS, max_size=4).map(tuple), st.dictionaries(TEXTS, SAMPLES, max_size=3))


def plain(value: Any) -> Any:
    """Layers as values that compare: float64 holds either dtype's numbers."""
    if isinstance(value, Sample):
        return value.shape, value.scale, value.values.astype(np.float64).tobytes()
    if isinstance(value, Layer):
        return tuple(plain(getattr(value, name)) for name in Layer.__slots__)
    if isinstance(value, Inside):
        return plain(value.layers), {name: plain(sample) for name, sample in value.named.items()}
    return tuple(map(plain, value)) if isinstance(value, tuple) else value


@settings(max_examples=100, deadline=None)
@given(INSIDES)
def test_what_is_packed_comes_back(inside: Inside) -> None:
    """Through JSON, as a recording keeps it; what is packed again is the same."""
    meta, values = packed(inside)
    back = unpacked(json.loads(json.dumps(meta)), values)

    assert plain(back) == plain(inside)
    again, same = packed(back)
    assert again == meta
    if values is None:
        assert same is None
    else:
        np.testing.assert_array_equal(same, values, strict=True)


def test_a_tensor_that_layers_share_is_stored_once() -> None:
    x, y = uniform(6, 5, 4), uniform(7, 20)
    layers = (
        Layer("one", "MatMul", ("k",), sampled(x), sampled(y), (("x", sampled(x)),)),
        Layer("two", "Add", ("b",), sampled(y), None, (), (("end", sampled(x.reshape(20))), ("x", sampled(x)))),
    )
    meta, values = packed(Inside(layers, {"b:0": sampled(y), "a:0": sampled(x)}))

    assert meta == {
        "layers": [
            ["one", "MatMul", ["k"], 0, 1, [["x", 0]], []],
            ["two", "Add", ["b"], 1, None, [], [["end", 2], ["x", 0]]],
        ],
        "named": {"a:0": 0, "b:0": 1},
        "samples": [[[5, 4], float(np.abs(x).max())], [[20], float(np.abs(y).max())], [[20], float(np.abs(x).max())]],
    }
    assert values is not None
    np.testing.assert_array_equal(values, np.concatenate([x.reshape(-1), y, x.reshape(-1)]), strict=True)


def test_a_single_float64_makes_all_of_them_so() -> None:
    """No number changes by it."""
    narrow, wide = uniform(8, 3), np.array([1 / 3])
    meta, values = packed(Inside(named={"n": sampled(narrow), "w": sampled(wide)}))

    assert values is not None
    np.testing.assert_array_equal(values, np.array([*narrow.astype(np.float64), 1 / 3]), strict=True)
    back = unpacked(meta, values)
    np.testing.assert_array_equal(back.named["n"].values.astype(np.float32), narrow, strict=True)
    assert back.named["w"].values.tolist() == [1 / 3]


def test_nothing_is_stored_of_nothing() -> None:
    assert packed(Inside()) == ({}, None)
    assert unpacked({"draws": 1}, None) == Inside()


# --- what a stranger's recording may say ---


@pytest.fixture
def stored(verify_of: VerifyOf) -> Verify:
    """Whose recording has two layers: of four, of five and of no elements."""
    verify = verify_of()
    draw = Draw(recording.inputs(verify, 0), {"y": np.ones((2, 3), np.float32)})
    ends = [sampled(uniform(1, 2, 2)), sampled(uniform(2, 5)), sampled(np.zeros((3, 0), np.float32))]
    layers = (
        Layer("conv", "Conv2D", ("k",), ends[0], ends[1], (("x", ends[0]),), (("relu", ends[1]),)),
        Layer("add", "Add", ("b",), ends[1], ends[2]),
    )
    made_from = origin.parts(verify, "d0") | {"graph": "g0"}
    inside = Inside(layers, {"conv:0": ends[1]})
    recording.save(verify.recording, Recording(made_from, (draw,), None, {}, frozenset({"x"}), 1, inside))
    return verify


def rewritten(verify: Verify, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
    """The recording after `change` was made to its description and its members."""
    with np.load(verify.recording) as archive:
        members = dict(archive)
    meta = json.loads(members.pop("recording").tobytes())
    change(meta, members)
    text = meta.pop("text", None) or json.dumps(meta)
    np.savez(verify.recording, recording=np.frombuffer(text.encode(), np.uint8), **members)


def refused(verify: Verify) -> str:
    """Why the recording is refused, without its place."""
    with pytest.raises(CheckpointError) as error:
        recording.load(verify.recording, verify)
    (problem,) = error.value.problems
    start = f"{verify.recording}: T2T904: "
    assert str(problem).startswith(start)
    return str(problem).removeprefix(start).replace(verify.recording, "PATH")


WHOLE = "PATH is a recording whose description is not whole: "
X: list[Any] = ["o", "k", ["v"], 0, 1, [], []]


def test_a_recording_keeps_its_layers(stored: Verify) -> None:
    found = recording.load(stored.recording, stored).inside

    assert [layer.operation for layer in found.layers] == ["conv", "add"]
    assert found.layers[0].before[0][0] == "x"
    assert list(found.named) == ["conv:0"]


def each(
    key: str, values: list[Any], text: str, within: Callable[[Any], Any] = lambda value: value
) -> list[tuple[str, Any, str]]:
    """Parameters: each of the values, within what the key stands for."""
    return [(key, within(value), text) for value in values]


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        *each("layers", [None, 3, {}, ""], "its layers cannot be read"),
        *each("samples", [None, 3, {}, ""], "its layers cannot be read"),
        *each("named", [None, 3, [], ""], "its layers cannot be read"),
        ("layers", [X] * (MAX_LAYERS + 1), f"it has {MAX_LAYERS + 1} layers, and {MAX_LAYERS} are the most"),
        *each("layers", [None, 3, {}, "layers!", [], X[:6], [*X, []], [1, *X[1:]], ["o", None, *X[2:]]],
              "a layer cannot be read", lambda layer: [layer]),
        *each("layers", [None, "v", [1], [["v"]]],
              "a layer cannot be read", lambda names: [[*X[:2], names, *X[3:]]]),
        *each("layers", [3, -1, 10**30, True, 0.0, "0", [], {}, float("nan")],
              "a layer names a sample that is not there", lambda number: [[*X[:3], number, *X[4:]]]),
        ("layers", [[*X[:4], 3, *X[5:]]], "a layer names a sample that is not there"),
        *each("layers", [None, 0, {}, "xx", [None], ["xx"], [["x"]], [["x", 0, 0]], [[0, 0]], [{"x": 0}]],
              "a layer cannot be read", lambda side: [[*X[:5], side, []]]),
        ("layers", [[*X[:6], [["x", 3]]]], "a layer names a sample that is not there"),
        *each("named", [3, False], "a layer names a sample that is not there", lambda number: {"conv:0": number}),
        *each("samples", [None, 3, {}, "ab", [], [[2, 2]], [[2, 2], 1, 1], [None, 1], ["22", 1], [{"2": 2}, 1]],
              "a sample cannot be read", lambda entry: [entry, [[5], 1], [[3, 0], 0]]),
        *each("samples", [[-2, -2], [2.0, 2], [True, 4], ["2", 2], [None], [[2], 2], [4] + [1] * MAX_RANK, [1] * 10**6,
                          [MAX_ELEMENTS, 2], [10**400], [0, 10**400], [10**400] * 60, [2**48 + 1, 0]],
              "a sample cannot be read", lambda shape: [[shape, 1], [[5], 1], [[3, 0], 0]]),
        *each("samples", [float("nan"), float("inf"), -float("inf"), -1e-9, True, False, None, "1", [1], 10**400,
                          2**1024],
              "a sample has no scale", lambda scale: [[[2, 2], scale], [[5], 1], [[3, 0], 0]]),
        *each("samples", [[2, 3], [MAX_ELEMENTS]],
              "its samples are cut short", lambda shape: [[shape, 1], [[5], 1], [[3, 0], 0]]),
        ("samples", [[[2, 2], 1], [[4], 1], [[3, 0], 0]], "it holds more samples than it tells"),
        ("samples", [], "it holds more samples than it tells"),
    ],
)  # fmt: skip
def test_a_description_of_layers_that_does_not_hold_is_refused(stored: Verify, key: str, value: Any, text: str) -> None:
    rewritten(stored, lambda meta, members: meta.update({key: value}))

    assert refused(stored) == WHOLE + text


@pytest.mark.parametrize("key", ["layers", "named", "samples"])
def test_a_description_of_layers_is_whole_or_not_there(stored: Verify, key: str) -> None:
    rewritten(stored, lambda meta, members: meta.pop(key))

    assert refused(stored) == WHOLE + "its layers cannot be read"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (None, "its layers have no samples"),
        (np.zeros(9, np.int32), "its layers have no samples"),
        (np.zeros(9, np.float16), "its layers have no samples"),
        (np.zeros((9, 1), np.float32), "its layers have no samples"),
        (np.float32(0), "its layers have no samples"),
        (np.zeros(8, np.float32), "its samples are cut short"),
        (np.zeros(0, np.float32), "its samples are cut short"),
        (np.zeros(10, np.float64), "it holds more samples than it tells"),
    ],
)
def test_samples_that_do_not_hold_are_refused(stored: Verify, values: Any, text: str) -> None:
    def change(meta: dict[str, Any], members: dict[str, Any]) -> None:
        del members["samples"]
        members |= {} if values is None else {"samples": values}

    rewritten(stored, change)

    assert refused(stored) == WHOLE + text


def test_samples_without_a_description_are_not_a_part_of_the_recording(stored: Verify) -> None:
    def change(meta: dict[str, Any], members: dict[str, Any]) -> None:
        for key in ("layers", "named", "samples"):
            del meta[key]

    rewritten(stored, change)

    assert refused(stored) == "samples is not a part of the recording"


def test_big_endian_samples_are_the_same_numbers(stored: Verify) -> None:
    before = recording.load(stored.recording, stored).inside
    rewritten(stored, lambda meta, members: members.update(samples=members["samples"].astype(">f4")))

    assert plain(recording.load(stored.recording, stored).inside) == plain(before)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('"samples": [[[2, 2], ', '"samples": [[[2, 2], 1e999, ', "a sample cannot be read"),
        ('[[3, 0], 0.0]', '[[3, 0], 1e999]', "a sample has no scale"),
        ('[[3, 0], 0.0]', '[[3, 0], -1e999]', "a sample has no scale"),
        ('[[3, 0], 0.0]', '[[3, 1e999], 0.0]', "a sample cannot be read"),
        ('"named": {"conv:0": 1}', '"named": {"conv:0": 1e999}', "a layer names a sample that is not there"),
        ('"named": {"conv:0": 1}', '"named": {"conv:0": 1.0}', "a layer names a sample that is not there"),
    ],
)  # fmt: skip
def test_numbers_that_only_json_knows_are_refused(stored: Verify, old: str, new: str, text: str) -> None:
    def change(meta: dict[str, Any], members: dict[str, Any]) -> None:
        written = json.dumps(meta)
        assert old in written
        meta["text"] = written.replace(old, new)

    rewritten(stored, change)

    assert refused(stored) == WHOLE + text


def test_names_may_be_anything_that_json_can_say(stored: Verify) -> None:
    """They are only shown, and compared."""
    names = ["", "\0", "\ud800", "é" * 10_000, "../../x"]
    rewritten(
        stored,
        lambda meta, members: meta.update(
            layers=[[name, name, [name], 0, 1, [[name, 0]], [[name, None]]] for name in names], named={"\ud800": None}
        ),
    )
    found = recording.load(stored.recording, stored).inside

    assert [layer.operation for layer in found.layers] == names
    assert found.named == {}
    assert found.layers[0].after == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.just(10**400) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_is_written_in_its_place_is_taken_or_refused(data: st.DataObject) -> None:
    """Any part of what is told of layers becomes something else: layers come back, or one error says what is wrong."""
    ends = sampled(uniform(1, 2, 2)), sampled(uniform(2, 5))
    layer = Layer("conv", "Conv2D", ("k",), *ends, (("x", ends[0]),), (("relu", ends[1]),))
    meta, values = packed(Inside((layer,), {"conv:0": ends[1]}))
    place: Any = meta
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], list | dict) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(JSON)

    with contextlib.suppress(ValueError):
        found = unpacked(json.loads(json.dumps(meta)), values)
        assert plain(unpacked(*packed(found))) == plain(found)
