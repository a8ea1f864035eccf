"""What goes on in a module, held against an original's layers: layouts, pairs, calls; and nothing is left behind."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given as hypothetically
from hypothesis import settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from benchmarks.gallery import CHECKPOINTS
from t2t.job import Job
from t2t.problems import MappingError, ModuleError, Problem
from t2t.proof.difference import Call, End, Pairs, Trace, layouts
from t2t.proof.layers import Layer
from t2t.proof.originals.samples import positions
from t2t.proof.recording import Draw, Recording
from t2t.verification import Verify
from tests.gallery.shared import MAPPINGS, data
from tests.gallery.shared import recorded as of_the_gallery
from tests.given import Array
from tests.proof.layered import all_of, convolved, dense, drawn, filled, layer, recorded, sample

VerifyOf = Callable[..., Verify]

# --- layouts ---


@st.composite
def two_layouts(draw: st.DrawFn) -> tuple[Array, Array]:
    """
    Two arrays of the same distinct numbers: axes in another order, neighbours of one of the two merged, unit axes here
    and there.
    """
    shape = draw(st.lists(st.integers(1, 7), min_size=0, max_size=5))
    theirs = np.arange(math.prod(shape)).reshape(shape)
    ours = theirs.transpose(draw(st.permutations(range(len(shape)))))
    merged = [theirs, ours]
    which = draw(st.integers(0, 1))
    merged[which] = merged[which].reshape(_merged(draw, merged[which].shape))
    return _with_units(draw, merged[0]), _with_units(draw, merged[1])


def _merged(draw: st.DrawFn, shape: Sequence[int]) -> list[int]:
    made: list[int] = []
    for length in shape:
        joins = draw(st.booleans())
        if made and joins:
            made[-1] *= length
        else:
            made.append(length)
    return made


def _with_units(draw: st.DrawFn, array: Array) -> Array:
    for _ in range(draw(st.integers(0, 2))):
        array = np.expand_dims(array, draw(st.integers(0, array.ndim)))
    return np.ascontiguousarray(array)


@settings(max_examples=300, deadline=None)
@hypothetically(two_layouts())
def test_one_of_the_layouts_takes_exactly_the_samples(arrays: tuple[Array, Array]) -> None:
    theirs, ours = arrays
    wanted = theirs.reshape(-1)[positions(theirs.size)]
    found = list(layouts(theirs.shape, ours.shape))

    assert any(np.array_equal(ours.reshape(-1)[places], wanted) for places in found)
    for places in found:
        assert places.dtype == np.int64
        assert len(set(places.tolist())) == len(wanted), "an element stands for two"
        assert 0 <= places.min() <= places.max() < ours.size


def test_what_layouts_there_are() -> None:
    """As it stands first; none where the numbers of elements differ; what is larger than all samples, too."""
    (same,) = layouts((3, 400), (3, 400))
    assert np.array_equal(same, positions(1200))
    assert list(layouts((2, 3), (2, 4))) == []
    assert [places.tolist() for places in layouts((), (1, 1))] == [[0]]
    assert [places.tolist() for places in layouts((2, 3), (3, 2))] == [[0, 1, 2, 3, 4, 5], [0, 2, 4, 1, 3, 5]]
    (nothing,) = layouts((0, 3), (0, 3))
    assert nothing.size == 0


# --- pairs ---

#: Two dense layers, `first` and `second`, as rows.
ROWS = [
    row
    for name in ("first", "second")
    for row in (
        f"{{tf: {name}/kernel, torch: {name}.weight, axes: i o -> o i}}",
        f"{{tf: {name}/bias, torch: {name}.bias}}",
    )
]
X = drawn(0, 5, 3)


def two_layers() -> tuple[dict[str, Array], list[Layer], Array, Array]:
    """The variables of two dense layers with a ReLU between, what is recorded of them, the hidden values and y."""
    values = {"first/kernel": drawn(1, 3, 4), "first/bias": drawn(2, 4)}
    values |= {"second/kernel": drawn(3, 4, 2), "second/bias": drawn(4, 2)}
    one, hidden = dense("first", X, values["first/kernel"], values["first/bias"])
    two, y = dense("second", np.maximum(hidden, 0), values["second/kernel"], values["second/bias"])
    return values, [*one, *two], hidden, y


class Net(nn.Module):
    """`first`, an activation, `second`."""

    def __init__(self, activation: Callable[[torch.Tensor], torch.Tensor] = torch.relu) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> Any:
        return self.second(self.activation(self.first(x)))


def pairs(
    module: nn.Module, rows: Sequence[str], values: Mapping[str, Array], recording: Recording, verify: Verify
) -> Pairs:
    plan, _ = filled(module, rows, values)
    return Pairs(module, plan, recording, verify)


def verdicts(trace: Trace) -> list[tuple[str, str, str]]:
    """Each call's path, and the verdicts of its ends."""
    return [
        (call.module, call.input.verdict if call.input else "", call.output.verdict if call.output else "")
        for call in trace.calls
    ]


def test_every_layer_of_the_right_module_agrees(verify_of: VerifyOf) -> None:
    values, layers, hidden, y = two_layers()
    trace = pairs(Net(), ROWS, values, recorded(X, y, layers), verify_of()).trace()

    assert verdicts(trace) == [("first", "agrees", "agrees"), ("second", "agrees", "agrees")]
    assert (trace.first, trace.called, trace.maps) == (None, ("", "first", "second"), ())
    first = trace.calls[0]
    assert (first.kind, first.number, first.differs) == ("Linear", 0, False)
    assert first.input == End("first/MatMul", (5, 3), (5, 3), 0.0, sample(X).scale, first.input.tolerance, "agrees")  # type: ignore[union-attr]
    assert first.output is not None
    assert (first.output.operation, first.output.scale) == ("first/BiasAdd", float(np.max(np.abs(hidden))))
    assert first.output.tolerance == pytest.approx(1e-6 + 1e-5 * np.max(np.abs(hidden)))
    assert first.output.max_delta < 1e-6


def test_the_first_layer_that_differs_is_found_and_a_run_can_end_there(verify_of: VerifyOf) -> None:
    values, layers, _, y = two_layers()
    own = pairs(Net(), ROWS, values | {"first/bias": values["first/bias"] + 1}, recorded(X, y, layers), verify_of())
    trace, first = own.trace(), own.trace(only_first=True)

    assert verdicts(trace) == [("first", "agrees", "differs"), ("second", "differs", "differs")]
    assert trace.calls[0].output.max_delta == pytest.approx(1, abs=1e-5)  # type: ignore[union-attr]
    assert (trace.first, first.first) == (0, 0)
    assert first.calls == trace.calls[:1]
    assert first.called == ("", "first")


class Convolution(nn.Module):
    """One convolution, and what may follow it."""

    def __init__(self, after: Callable[[torch.Tensor], torch.Tensor] = lambda x: x) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.after = after

    def forward(self, x: torch.Tensor) -> Any:
        return self.after(self.conv(x))


@pytest.mark.parametrize("is_rectified", [False, True])
def test_an_end_has_the_values_of_both_sides_where_they_lie_in_the_modules_tensor(
    verify_of: VerifyOf, is_rectified: bool
) -> None:
    """`places` leads from each sample to the module's own element; where the original is rectified, so is that."""
    x, kernel, bias = drawn(0, 2, 6, 6, 2), drawn(1, 3, 3, 2, 4), drawn(2, 4)
    y = convolved(x, kernel, bias)
    made = np.maximum(y, 0) if is_rectified else y
    layers = [layer("conv", ["conv/kernel", "conv/bias"], x, made)]
    rows = [
        "{tf: conv/kernel, torch: conv.weight, axes: h w i o -> o i h w}",
        "{tf: conv/bias, torch: conv.bias}",
    ]
    verify = verify_of(inputs="{x: {shape: [2, 6, 6, 2], range: [0, 1]}}", torch="{axes: {x: n h w c -> n c h w}}")
    values = {"conv/kernel": kernel, "conv/bias": bias + np.float32(0.25)}
    (call,) = pairs(Convolution(), rows, values, recorded(x, y, layers), verify).trace().calls
    end = call.output
    assert end is not None
    assert end.values is not None
    own = (y + 0.25).transpose(0, 3, 1, 2).reshape(-1)[end.values.places]

    assert end.verdict == "differs"
    assert np.array_equal(end.values.tensorflow, sample(made).values)
    assert np.allclose(end.values.torch, np.maximum(own, 0) if is_rectified else own, atol=1e-5)
    assert end.max_delta == np.max(np.abs(end.values.torch - end.values.tensorflow))


def test_an_end_that_is_unlike_has_no_values(verify_of: VerifyOf) -> None:
    values, layers, _, y = two_layers()
    other = [replace(one, output=sample(drawn(9, 3, 7))) for one in layers]
    trace = pairs(Net(), ROWS, values, recorded(X, y, other), verify_of()).trace()

    assert [(call.output.verdict, call.output.values) for call in trace.calls if call.output] == [("unlike", None)] * 2


class Adds(nn.Module):
    """Adds a half to what goes into `second`, by no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.third(self.second(torch.relu(self.first(x)) + 0.5))


def test_a_run_ends_at_an_input_that_differs_too(verify_of: VerifyOf) -> None:
    values, layers, _, y = two_layers()
    values |= {"third/kernel": drawn(5, 2, 2), "third/bias": drawn(6, 2)}
    more, y = dense("third", y, values["third/kernel"], values["third/bias"])
    rows = [*ROWS, *(row.replace("second", "third") for row in ROWS[2:])]
    own = pairs(Adds(), rows, values, recorded(X, y, [*layers, *more]), verify_of())
    trace, first = own.trace(), own.trace(only_first=True)

    assert verdicts(trace) == [
        ("first", "agrees", "agrees"),
        ("second", "differs", "differs"),
        ("third", "differs", "differs"),
    ]
    assert first.calls[0] == trace.calls[0]
    assert first.calls[1:] == (Call("second", 0, "", trace.calls[1].input, None),)
    assert (trace.first, first.first, first.called) == (1, 1, ("", "first", "second"))


def test_no_except_of_the_module_keeps_a_run_from_ending(verify_of: VerifyOf) -> None:
    values, layers, _, y = two_layers()
    went_on = []

    class Careful(Net):
        def forward(self, x: torch.Tensor) -> Any:
            try:
                return super().forward(x)
            except Exception:
                went_on.append(x)
                raise

    own = pairs(Careful(), ROWS, values | {"first/bias": values["first/bias"] + 1}, recorded(X, y, layers), verify_of())
    assert own.trace(only_first=True).first == 0
    assert went_on == []


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_what_is_not_finite_differs(verify_of: VerifyOf, value: float) -> None:
    values, layers, _, y = two_layers()
    own = pairs(Net(), ROWS, values, recorded(X, y, layers), verify_of())
    with torch.no_grad():
        own.module.get_parameter("first.bias")[0] = value
    trace = own.trace()

    assert verdicts(trace)[0] == ("first", "agrees", "differs")
    assert str(trace.calls[0].output.max_delta) == str(value)  # type: ignore[union-attr]


def test_what_has_another_number_of_elements_is_unlike_and_no_difference(verify_of: VerifyOf) -> None:
    """The original's layer works on other tensors than the twin's: a difference could not be told from that."""
    values, _, hidden, y = two_layers()
    layers = [layer("odd", "first/kernel", X[:2], hidden[:, :3])]
    trace = pairs(Net(), ROWS, values, recorded(X, y, layers), verify_of()).trace()

    assert verdicts(trace) == [("first", "unlike", "unlike")]
    assert trace.first is None
    assert math.isnan(trace.calls[0].input.max_delta)  # type: ignore[union-attr]


def test_a_batch_of_nothing_agrees(verify_of: VerifyOf) -> None:
    """As XLNet's memory is, in the first step."""
    values, _, _, _ = two_layers()
    none, nothing = X[:0], np.zeros((0, 4), np.float32)
    one, _ = dense("first", none, values["first/kernel"], values["first/bias"])
    trace = pairs(Net(), ROWS, values, recorded(none, nothing[:, :2], one), verify_of()).trace()

    assert verdicts(trace) == [("first", "agrees", "agrees")]


# --- activations in place, calls ---


@pytest.mark.parametrize("activation", [torch.relu_, nn.ReLU(inplace=True)], ids=["function", "module"])
def test_an_activation_in_place_changes_no_verdict(
    verify_of: VerifyOf, activation: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """What comes out is looked at before anything else happens to it."""
    values, layers, _, y = two_layers()
    trace = pairs(Net(activation), ROWS, values, recorded(X, y, layers), verify_of()).trace()

    assert [one[1:] for one in verdicts(trace)] == [("agrees", "agrees")] * 2


class Spoils(nn.Linear):
    """Writes into what it is given, once it has used it."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's own name for it
        made = super().forward(input)
        input.zero_()
        return made


def test_what_goes_in_is_looked_at_before_the_call(verify_of: VerifyOf) -> None:
    values, layers, _, y = two_layers()
    net = Net()
    net.second = Spoils(4, 2)
    trace = pairs(net, ROWS, values, recorded(X, y, layers), verify_of()).trace()

    assert verdicts(trace) == [("first", "agrees", "agrees"), ("second", "agrees", "agrees")]


class Twice(nn.Module):
    """One layer, called two times in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(self.layer(x))


SQUARE = ["{tf: layer/kernel, torch: layer.weight, axes: i o -> o i}", "{tf: layer/bias, torch: layer.bias}"]


def twice() -> tuple[dict[str, Array], list[Layer], list[Layer], Array]:
    values = {"layer/kernel": drawn(1, 3, 3), "layer/bias": drawn(2, 3)}
    one, hidden = dense("layer", X, values["layer/kernel"], values["layer/bias"])
    two, y = dense("layer", hidden, values["layer/kernel"], values["layer/bias"])
    return values, one, two, y


def test_each_call_of_a_module_is_held_against_each_operation(verify_of: VerifyOf) -> None:
    values, one, two, y = twice()
    own = pairs(Twice(), SQUARE, values, recorded(X, y, [*one, *two]), verify_of())

    assert verdicts(own.trace()) == [("layer", "agrees", "agrees")] * 2
    assert [call.number for call in own.trace().calls] == [0, 1]
    with torch.no_grad():
        own.module.get_parameter("layer.bias").add_(1)
    assert verdicts(own.trace()) == [("layer", "agrees", "differs"), ("layer", "differs", "differs")]


def test_a_module_that_is_called_more_often_than_the_original_has_operations_is_unsure(verify_of: VerifyOf) -> None:
    """The second call is of a part of the original that nothing is known of."""
    values, one, _, y = twice()
    own = pairs(Twice(), SQUARE, values, recorded(X, y, one), verify_of())

    assert own.unsure == {"layer"}
    assert verdicts(own.trace()) == [("layer", "agrees", "agrees"), ("layer", "unlike", "unlike")]
    assert own.trace().first is None


# --- who owns a parameter ---


class Functional(nn.Module):
    """Uses the parameters of `inner` without a call of it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.inner.weight, self.inner.bias)


def test_a_module_that_is_not_called_belongs_to_the_closest_one_that_is(verify_of: VerifyOf) -> None:
    values, layers, _, y = two_layers()
    net = Net()
    net.first = Functional()  # type: ignore[assignment]
    rows = [row.replace("torch: first.", "torch: first.inner.") for row in ROWS]
    own = pairs(net, rows, values, recorded(X, y, layers), verify_of())

    assert own.targets["first"] == ["first.inner.weight", "first.inner.bias"]
    assert verdicts(own.trace()) == [("first", "agrees", "agrees"), ("second", "agrees", "agrees")]
    with torch.no_grad():
        own.module.get_parameter("first.inner.bias").add_(1)
    assert own.trace(only_first=True).calls[0].module == "first"


class Shared(Twice):
    """The layer has another name, too."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.ModuleList([self.layer])


def test_a_module_of_two_names_goes_by_the_first(verify_of: VerifyOf) -> None:
    values, one, two, y = twice()
    rows = [SQUARE[0].replace("torch: layer.", "torch: other.0."), SQUARE[1]]
    rows += ["{torch: layer.weight, tie: other.0.weight}", "{torch: other.0.bias, tie: layer.bias}"]
    own = pairs(Shared(), rows, values, recorded(X, y, [*one, *two]), verify_of())

    assert own.targets.keys() == {"layer"}
    assert verdicts(own.trace()) == [("layer", "agrees", "agrees")] * 2


def test_parameters_of_the_whole_module_pair_with_nothing(verify_of: VerifyOf) -> None:
    """Its ends are the recording's inputs and outputs: the comparison has them."""
    values, one, _, _ = twice()
    net = Functional()
    rows = [row.replace("torch: layer.", "torch: inner.") for row in SQUARE]
    values["layer/kernel"], values["layer/bias"] = drawn(1, 3, 4), drawn(2, 4)
    own = pairs(net, rows, values, recorded(X, X, one), verify_of())

    assert own.targets == {"": ["inner.weight", "inner.bias"]}
    assert own.trace() == Trace((), ("",), ())


def test_torchs_attention_owns_the_projection_that_it_does_not_call(verify_of: VerifyOf) -> None:
    """Its numbers are numpy's: softmax(q k / sqrt(d)) v over two heads."""
    x = drawn(0, 2, 4, 6)
    values = {f"{name}/kernel": drawn(n, 6, 6) for n, name in enumerate(("query", "key", "value", "output"))}
    values |= {f"{name}/bias": drawn(n + 9, 6) for n, name in enumerate(("query", "key", "value", "output"))}
    query, key, value = (x @ values[f"{name}/kernel"] + values[f"{name}/bias"] for name in ("query", "key", "value"))
    heads = [part.reshape(2, 4, 2, 3).transpose(0, 2, 1, 3) for part in (query, key, value)]
    scores = heads[0] @ heads[1].transpose(0, 1, 3, 2) / np.sqrt(3)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    context = (weights / weights.sum(-1, keepdims=True) @ heads[2]).transpose(0, 2, 1, 3).reshape(2, 4, 6)
    y = context @ values["output/kernel"] + values["output/bias"]
    layers = [
        *(layer(f"{name}/MatMul", [f"{name}/kernel"], x, made) for name, made in (("query", query), ("key", key))),
        layer("value/MatMul", ["value/kernel"], x, value),
        layer("output/BiasAdd", ["output/kernel", "output/bias"], context, y),
    ]

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> Any:
            return self.attention(x, x, x, need_weights=False)[0]

    rows = [
        "{tf: [query/kernel, key/kernel, value/kernel], torch: attention.in_proj_weight, join: o, axes: i o -> o i}",
        "{tf: [query/bias, key/bias, value/bias], torch: attention.in_proj_bias, join: o, axes: o -> o}",
        "{tf: output/kernel, torch: attention.out_proj.weight, axes: i o -> o i}",
        "{tf: output/bias, torch: attention.out_proj.bias}",
    ]
    own = pairs(Attends(), rows, values, recorded(x, y, layers), verify_of())

    assert own.targets.keys() == {"attention"}
    assert "attention.out_proj" not in own.trace().called
    assert verdicts(own.trace()) == [("attention", "agrees", "agrees")]
    with torch.no_grad():
        own.module.get_parameter("attention.out_proj.bias").add_(1)
    assert verdicts(own.trace()) == [("attention", "agrees", "differs")]


def test_a_parametrization_belongs_to_the_module_that_it_is_of(verify_of: VerifyOf) -> None:
    """It is called whenever its parameter is asked for, with what is no tensor of the original."""
    values, layers, _, y = two_layers()
    net = Net()
    net.first = weight_norm(net.first)
    norms = np.linalg.norm(values["first/kernel"], axis=0)
    values |= {"first/g": norms, "first/v": values["first/kernel"] * 3}
    for one in layers[:1]:
        layers[0] = replace(one, variables=("first/g", "first/v"))
    del values["first/kernel"]
    rows = [
        "{tf: first/g, torch: first.parametrizations.weight.original0, axes: o -> o 1}",
        "{tf: first/v, torch: first.parametrizations.weight.original1, axes: i o -> o i}",
        *ROWS[1:],
    ]
    own = pairs(net, rows, values, recorded(X, y, layers), verify_of())

    assert own.targets["first"][:2] == [f"first.parametrizations.weight.original{n}" for n in range(2)]
    assert verdicts(own.trace()) == [("first", "agrees", "agrees"), ("second", "agrees", "agrees")]


class Scaled(nn.Module):
    """A layer of its own, and a child before it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 4)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> Any:
        return self.inner(x) * self.scale


def test_a_container_with_parameters_of_its_own_goes_by_its_childrens_operations_too(verify_of: VerifyOf) -> None:
    values, layers, hidden, _ = two_layers()
    values["first/scale"] = drawn(7, 4)
    scaled = hidden * values["first/scale"]
    two, y = dense("second", np.maximum(scaled, 0), values["second/kernel"], values["second/bias"])
    layers = [*layers[:2], layer("first/Mul", "first/scale", hidden, scaled), *two]
    net = Net()
    net.first = Scaled()  # type: ignore[assignment]
    rows = [row.replace("torch: first.", "torch: first.inner.") for row in ROWS]
    rows.append("{tf: first/scale, torch: first.scale}")
    own = pairs(net, rows, values, recorded(X, y, layers), verify_of())

    trace = own.trace()
    assert verdicts(trace) == [
        ("first.inner", "agrees", "agrees"),
        ("first", "agrees", "agrees"),
        ("second", "agrees", "agrees"),
    ]
    # What goes into it goes into its child; the multiplication works on something else.
    assert trace.calls[1].input.operation == "first/MatMul"  # type: ignore[union-attr]
    assert trace.calls[1].output.operation == "first/Mul"  # type: ignore[union-attr]
    with torch.no_grad():
        own.module.get_parameter("first.scale").add_(1)
    assert verdicts(own.trace(only_first=True)) == [("first.inner", "agrees", "agrees"), ("first", "agrees", "differs")]


def test_tensors_around_an_operation_may_be_what_a_module_takes_and_gives(verify_of: VerifyOf) -> None:
    """A normalization of its own hand: only the multiplication by gamma is an operation with a variable."""
    values = {"norm/gamma": drawn(1, 3), "norm/beta": drawn(2, 3)}
    centred = X - X.mean(-1, keepdims=True)
    normal = centred / np.sqrt(X.var(-1, keepdims=True) + 1e-5)
    scaled = normal * values["norm/gamma"]
    y = scaled + values["norm/beta"]
    layers = [
        layer("norm/mul", "norm/gamma", normal, scaled, around=({"mean": X, "sub": centred}, {"add": y})),
        layer("norm/add", "norm/beta", None, None),
    ]
    rows = ["{tf: norm/gamma, torch: 0.weight}", "{tf: norm/beta, torch: 0.bias}"]
    own = pairs(nn.Sequential(nn.LayerNorm(3)), rows, values, recorded(X, y, layers), verify_of())

    (call,) = own.trace().calls
    assert verdicts(own.trace()) == [("0", "agrees", "agrees")]
    assert (call.input.operation, call.output.operation) == ("mean", "add")  # type: ignore[union-attr]
    with torch.no_grad():
        own.module.get_parameter("0.bias").add_(1)
    (call,) = own.trace().calls
    # Of those that differ, the layer's own is told.
    assert (call.output.verdict, call.output.operation) == ("differs", "norm/mul")  # type: ignore[union-attr]


def test_a_tensor_that_the_mapping_names_is_what_comes_out(verify_of: VerifyOf) -> None:
    values, layers, hidden, y = two_layers()
    verify = verify_of(layers="{first: hidden:0, second: unknown:0}")
    own = pairs(Net(), ROWS, values, recorded(X, y, layers, named={"hidden:0": hidden + 1}), verify)
    trace = own.trace()

    assert verdicts(trace) == [("first", "agrees", "differs"), ("second", "agrees", "agrees")]
    assert trace.calls[0].output.operation == "hidden:0"  # type: ignore[union-attr]
    assert own.unrecorded == ["unknown:0"]


def test_a_module_of_two_names_may_be_named_by_either(verify_of: VerifyOf) -> None:
    values, layers, hidden, y = two_layers()
    module = Net()
    module.also = module.first
    rows = [*ROWS, "{torch: also.weight, tie: first.weight}", "{torch: also.bias, tie: first.bias}"]
    verify = verify_of(layers="{also: hidden:0}")
    own = pairs(module, rows, values, recorded(X, y, layers, named={"hidden:0": hidden + 1}), verify)

    assert verdicts(own.trace())[0] == ("first", "agrees", "differs")


@pytest.mark.parametrize(
    ("path", "text", "hint"),
    [
        ("frist", "layers name frist, and no part of the module has this path", "did you mean first"),
        ('"\\n"', "layers name \\n, and no part of the module has this path", ""),
    ],
)
def test_a_part_of_the_module_that_there_is_not_is_the_mappings_fault(
    verify_of: VerifyOf, path: str, text: str, hint: str
) -> None:
    values, layers, hidden, y = two_layers()
    verify = verify_of(layers=f"{{{path}: hidden:0}}")

    with pytest.raises(MappingError) as error:
        pairs(Net(), ROWS, values, recorded(X, y, layers, named={"hidden:0": hidden}), verify)
    assert list(error.value.problems) == [Problem("T2T503", text, verify.at, hint)]


# --- layouts of images ---


class Image(nn.Module):
    """A convolution, a pool, a flatten, a dense layer."""

    def __init__(self, flatten: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv, self.second = nn.Conv2d(2, 3, 3, padding=1), nn.Linear(4 * 5 * 3, 2)
        self.flatten = flatten

    def forward(self, x: torch.Tensor) -> Any:
        return self.second(self.flatten(functional.max_pool2d(self.conv(x), 2)))


def image() -> tuple[dict[str, Array], list[Layer], Array, Array]:
    """What TensorFlow computes of images of 8 x 10 pixels."""
    x = drawn(0, 6, 8, 10, 2)
    values = {"conv/kernel": drawn(1, 3, 3, 2, 3), "conv/bias": drawn(2, 3)}
    values |= {"second/kernel": drawn(3, 60, 2), "second/bias": drawn(4, 2)}
    made = convolved(x, values["conv/kernel"], values["conv/bias"], padding=1)
    pooled = made.reshape(6, 4, 2, 5, 2, 3).max((2, 4))
    more, y = dense("second", pooled.reshape(6, 60), values["second/kernel"], values["second/bias"])
    return values, [layer("conv/Conv2D", ["conv/kernel", "conv/bias"], x, made), *more], x, y


IMAGE_ROWS = [
    "{tf: conv/kernel, torch: conv.weight, axes: h w i o -> o i h w}",
    "{tf: conv/bias, torch: conv.bias}",
    "{tf: second/kernel, torch: second.weight, axes: (h w c) o -> o (c h w), dims: {h: 4, w: 5}}",
    "{tf: second/bias, torch: second.bias}",
]


@pytest.mark.parametrize(
    "flatten",
    [lambda x: x.flatten(1), nn.Flatten(), lambda x: x.view(x.shape[0], -1), lambda x: torch.reshape(x, (-1, 60))],
    ids=["flatten", "module", "view", "reshape"],
)
def test_maps_agree_in_either_layout_and_so_does_a_flattened_one(verify_of: VerifyOf, flatten: Any) -> None:
    values, layers, x, y = image()
    verify = verify_of(torch="{axes: {x: n h w c -> n c h w}}")
    trace = pairs(Image(flatten), IMAGE_ROWS, values, recorded(x, y, layers), verify).trace()

    assert verdicts(trace) == [("conv", "agrees", "agrees"), ("second", "agrees", "agrees")]
    assert trace.maps == ((3, 4, 5),)
    conv, second = trace.calls
    assert (conv.output.shape, conv.output.own) == ((6, 8, 10, 3), (6, 3, 8, 10))  # type: ignore[union-attr]
    assert (second.input.shape, second.input.own) == ((6, 60), (6, 60))  # type: ignore[union-attr]


def test_a_plain_transpose_behind_a_flatten_is_where_it_first_differs(verify_of: VerifyOf) -> None:
    values, layers, x, y = image()
    rows = [row.replace("(h w c) o -> o (c h w), dims: {h: 4, w: 5}", "i o -> o i") for row in IMAGE_ROWS]
    verify = verify_of(torch="{axes: {x: n h w c -> n c h w}}")
    trace = pairs(Image(nn.Flatten()), rows, values, recorded(x, y, layers), verify).trace()

    assert verdicts(trace) == [("conv", "agrees", "agrees"), ("second", "agrees", "differs")]


# --- steps ---


class Sums(nn.Module):
    """Gives its layer the sum of all that it was given."""

    total: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.register_buffer("total", torch.zeros(5, 3), persistent=False)

    def forward(self, x: torch.Tensor) -> Any:
        self.total += x
        return self.layer(self.total)


def test_it_is_looked_at_in_the_last_step_of_the_first_draw(verify_of: VerifyOf) -> None:
    values, _, _, _ = twice()
    given = drawn(9, 6, 5, 3)
    ends = [dense("layer", total, values["layer/kernel"], values["layer/bias"]) for total in given[:3].cumsum(0)]
    draws = tuple(Draw({"x": x}, {"y": y}) for x, (_, y) in zip(given, ends * 2, strict=True))
    made = replace(recorded(X, X, ends[2][0]), draws=draws, steps=3)
    own = pairs(Sums(), SQUARE, values, made, verify_of(draws="2", steps="3"))

    for _ in range(2):
        assert verdicts(own.trace()) == [("layer", "agrees", "agrees")]
    assert own.module.get_buffer("total").abs().max() == 0
    earlier = pairs(Sums(), SQUARE, values, replace(made, steps=2), verify_of(draws="2", steps="3"))
    assert verdicts(earlier.trace()) == [("layer", "differs", "differs")]


# --- what is left ---


class Restless(Net):
    """Changes whatever it can on its way."""

    counter: torch.Tensor
    replaced: torch.Tensor

    def __init__(self, fails: str = "") -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4, momentum=0.5)
        self.register_buffer("counter", torch.zeros(1), persistent=False)
        self.register_buffer("replaced", torch.zeros(1), persistent=False)
        self.cache: Any = None
        self.fails = fails

    def forward(self, x: torch.Tensor) -> Any:
        self.counter += 1
        self.replaced = torch.rand(1)
        self.cache = self.first(x)
        np.random.rand()
        random.random()
        if self.fails:
            raise ValueError(self.fails)
        return self.second(torch.relu(self.cache))


NORM = [f"{{torch: norm.{name}, keep: init, why: new}}" for name in ("weight", "bias", "running_mean", "running_var")]


@pytest.mark.parametrize("only_first", [False, True])
@pytest.mark.parametrize("fails", ["", "no"])
@pytest.mark.parametrize("change", [0, 1], ids=["right", "wrong"])
def test_nothing_is_left_of_it(verify_of: VerifyOf, only_first: bool, fails: str, change: int) -> None:
    values, layers, _, y = two_layers()
    net = Restless()
    net.norm.eval()
    rows = [*ROWS, *NORM, "{torch: norm.num_batches_tracked, keep: init, why: new}"]
    own = pairs(net, rows, values | {"first/bias": values["first/bias"] + change}, recorded(X, y, layers), verify_of())
    net.fails = fails
    before = all_of(net)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]
    if fails and not (only_first and change):
        with pytest.raises(ModuleError) as raised:
            own.trace(only_first=only_first)
        assert raised.value.problems[0].code == "T2T707"
    else:
        assert own.trace(only_first=only_first).first == (0 if change else None)

    assert all_of(net) == before
    assert (net.training, net.norm.training, net.first.training) == (True, False, True)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[:2]  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_tables_are_indexed_and_what_holds_tensors_is_looked_into(verify_of: VerifyOf) -> None:
    """Numbers of rows are not compared; what a recurrent layer gives is in two tuples."""
    ids = np.array([[1, 0, 3], [2, 2, 1]], np.int32)
    values = {"table": drawn(1, 5, 4), "kernel": drawn(2, 12, 3), "recurrent": drawn(3, 12, 3), "bias": drawn(4, 12)}
    values |= {"none": np.zeros(12, np.float32)}
    rows = [
        "{tf: table, torch: embedding.weight, axes: a b -> a b}",
        "{tf: kernel, torch: lstm.weight_ih_l0, axes: a b -> a b}",
        "{tf: recurrent, torch: lstm.weight_hh_l0, axes: a b -> a b}",
        "{tf: bias, torch: lstm.bias_ih_l0}",
        "{tf: none, torch: lstm.bias_hh_l0}",
        "{tf: dense/kernel, torch: second.weight, axes: i o -> o i}",
        "{tf: dense/bias, torch: second.bias}",
    ]
    values["kernel"] = drawn(2, 12, 4)

    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.lstm, self.second = (
                nn.Embedding(5, 4),
                nn.LSTM(4, 3, batch_first=True),
                nn.Linear(3, 2),
            )

        def forward(self, x: torch.Tensor) -> Any:
            return self.second(self.lstm(self.embedding(x))[1][0][0])

    values |= {"dense/kernel": drawn(5, 3, 2), "dense/bias": drawn(6, 2)}
    rows_of_the_table = values["table"][ids]
    last = _lstm(rows_of_the_table, values)
    more, y = dense("dense", last, values["dense/kernel"], values["dense/bias"])
    layers = [
        layer("gather", "table", values["table"], rows_of_the_table),
        layer("while", ["kernel", "recurrent"], rows_of_the_table, last),
        *more,
    ]
    trace = pairs(Reads(), rows, values, recorded(ids, y, layers), verify_of()).trace()

    assert verdicts(trace) == [
        ("embedding", "", "agrees"),
        ("lstm", "agrees", "agrees"),
        ("second", "agrees", "agrees"),
    ]


def _lstm(x: Array, values: Mapping[str, Array]) -> Array:
    """The last hidden state, by torch's formulas in numpy: gates i, f, g, o."""
    hidden = state = np.zeros((len(x), 3))
    for step in x.transpose(1, 0, 2):
        gates = step @ values["kernel"].T + hidden @ values["recurrent"].T + values["bias"]
        i, f, g, o = (gates[:, n * 3 : n * 3 + 3] for n in range(4))
        state = state / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        hidden = np.tanh(state) / (1 + np.exp(-o))
    return hidden.astype(np.float32)


# --- the gallery ---


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_no_layer_of_the_gallerys_mappings_differs(name: str) -> None:
    """What the right mapping gives agrees with all that is recorded, or cannot be held against it."""
    options = {"checkpoint": data(CHECKPOINTS[name])} if CHECKPOINTS[name] else {}
    if not of_the_gallery(MAPPINGS / f"{name}.yaml").inside.layers:
        pytest.skip(f"{name}'s recording has no layers")
    with Job(MAPPINGS / f"{name}.yaml", options) as job:  # type: ignore[arg-type]
        recording = job.recording(required=True)
        assert recording is not None
        assert job.mapping.verify is not None
        job.fill(job.torch_tensors())
        own = Pairs(job.module, job.plan, recording, job.mapping.verify)
        trace, first = own.trace(), own.trace(only_first=True)

    assert [call for call in trace.calls if call.differs] == []
    assert trace == first
    ends = [end.verdict for call in trace.calls for end in (call.input, call.output) if end is not None]
    assert ends.count("agrees") > len(ends) / 2
