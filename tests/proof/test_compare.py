"""The comparison: what holds, what does not, what cannot be compared, and what is left of it in the module."""

from __future__ import annotations

import dataclasses
import random
import warnings
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from t2t.problems import MappingError, ModuleError, Problem
from t2t.proof.compare import Comparison, Metric, compare
from t2t.proof.recording import Draw, Recording
from t2t.verification import Verify

VerifyOf = Callable[..., Verify]

Pair = namedtuple("Pair", ["first", "second"])


class Returns(nn.Module):
    """A module whose forward() is this function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def recorded(*draws: tuple[dict[str, Any], dict[str, Any]], labels: Any = None) -> Recording:
    def arrays(given: dict[str, Any]) -> dict[str, Any]:
        return {name: np.asarray(value, getattr(value, "dtype", np.float32)) for name, value in given.items()}

    made = tuple(Draw(arrays(inputs), arrays(outputs)) for inputs, outputs in draws)
    return Recording({}, made, None if labels is None else np.asarray(labels), {})


def compared(verify: Verify, module: nn.Module | Callable[..., Any], recording: Recording) -> Comparison:
    return compare(module if isinstance(module, nn.Module) else Returns(module), recording, verify)


def refusal(verify: Verify, module: nn.Module | Callable[..., Any], recording: Recording) -> str:
    with pytest.raises(MappingError) as error:
        compared(verify, module, recording)
    return str(error.value).removeprefix(f"{verify.at}: T2T503 ")


X = np.arange(6, dtype=np.float32).reshape(2, 3)


# --- what holds ---


def test_equal_outputs_are_proven(verify_of: VerifyOf) -> None:
    result = compared(
        verify_of(), lambda x: x * 2, recorded(({"x": X}, {"y": X * 2}), ({"x": X + 1}, {"y": X * 2 + 2}))
    )

    assert result.proven
    assert (result.max_delta, result.metric, result.problems()) == (0.0, None, [])
    first, second = result.outputs
    assert (first.output, first.draw, first.shape, first.scale) == ("y", 0, (2, 3), 10.0)
    assert (second.draw, second.scale, second.holds) == (1, 12.0, True)
    assert first.tolerance == pytest.approx(1e-6 + 1e-5 * 10)


def test_the_tolerance_is_absolute_plus_relative_to_the_largest_output(verify_of: VerifyOf) -> None:
    """With the largest output 10, rel 0.1 and abs 0.5, a difference of 1.5 holds and a larger one does not."""
    verify = verify_of(rel="0.1", abs="0.5")
    target = X * 2
    for delta, holds in ((1.5, True), (-1.5, True), (1.5001, False), (-1.5001, False)):
        off = target.copy()
        off[1, 0] += delta
        result = compared(verify, lambda x, off=off: torch.from_numpy(off), recorded(({"x": X}, {"y": target})))
        assert result.proven is holds
        (found,) = result.outputs
        assert (found.worst, found.reference) == ((1, 0), 6.0)
        assert found.max_delta == pytest.approx(abs(delta), rel=1e-6)
        assert found.torch == pytest.approx(6 + delta)


def test_layouts_go_by_the_mappings_axes(verify_of: VerifyOf) -> None:
    """An image net: TensorFlow's NHWC in and out, torch's NCHW; numpy's einsum is the oracle."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 4, 3)).astype(np.float32)
    weight = rng.normal(size=(3, 7)).astype(np.float32)
    y = np.einsum("nhwi,io->nhwo", x, weight)
    convolution = nn.Conv2d(3, 7, 1, bias=False)
    convolution.weight.data = torch.from_numpy(weight.T.copy())[:, :, None, None]
    verify = verify_of(torch="{axes: {x: n h w c -> n c h w}, outputs: {y: {axes: n h w c -> n c h w}}}")

    result = compared(verify, convolution, recorded(({"x": x}, {"y": y})))

    assert result.proven
    assert result.outputs[0].shape == (2, 7, 5, 4)
    seen: list[tuple[str, Any, Any]] = []
    compare(convolution, recorded(({"x": x}, {"y": y})), verify, seen=lambda *one: seen.append(one))
    ((name, reference, own),) = seen
    assert (name, own.dtype, own.shape) == ("y", np.float64, (2, 5, 4, 7))
    assert np.array_equal(reference, y)
    assert np.max(np.abs(own - y)) == result.max_delta
    plain = verify_of(torch="{axes: {x: n h w c -> n c h w}}")
    assert refusal(plain, convolution, recorded(({"x": x}, {"y": y}))) == (
        "y: torch computes [2, 7, 5, 4], tensorflow [2, 5, 4, 7]; describe the layout: verify.torch.outputs with axes"
    )


def test_arguments_go_by_position_or_by_name(verify_of: VerifyOf) -> None:
    inputs = "{a: {value: 5}, b: {value: 2}}"
    reference = '{graph: g, feed: {a: "a:0", b: "b:0"}, fetch: {y: "y:0"}}'
    made = recorded(({"a": 5.0, "b": 2.0}, {"y": 3.0}))

    def minus(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left - right

    assert compared(verify_of(inputs=inputs, reference=reference), minus, made).proven
    swapped = verify_of(inputs=inputs, reference=reference, torch="{arguments: [b, a]}")
    assert compared(swapped, minus, made).max_delta == 6.0
    named = verify_of(inputs=inputs, reference=reference, torch="{arguments: {right: b, left: a}}")
    assert compared(named, minus, made).proven
    partly = verify_of(inputs=inputs, reference=reference, torch="{arguments: [a]}")
    assert compared(partly, lambda a: a - 2, made).proven


@pytest.mark.parametrize(
    ("at", "returned"),
    [
        ("1", lambda x: (None, x)),
        ("1", lambda x: [0, x]),
        ("logits", lambda x: {"logits": x}),
        ("last.0.deep", lambda x: OrderedDict(last=[{"deep": x}])),
        ("second", lambda x: Pair(0, x)),
        ("1", lambda x: Pair(0, x)),
        ("T", lambda x: x.T),
    ],
)
def test_an_output_is_picked_by_position_key_or_attribute(verify_of: VerifyOf, at: str, returned: Any) -> None:
    verify = verify_of(torch=f'{{outputs: {{y: {{at: "{at}"}}}}}}')

    assert compared(verify, returned, recorded(({"x": X}, {"y": X}))).proven


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.uint8])
def test_the_modules_dtype_does_not_matter_only_its_values(verify_of: VerifyOf, dtype: torch.dtype) -> None:
    assert compared(verify_of(), lambda x: x.to(dtype), recorded(({"x": X}, {"y": X}))).proven


def test_inputs_arrive_in_tensorflows_dtype_and_may_be_written_into(verify_of: VerifyOf) -> None:
    x = np.array([[1, 2, 3]], np.int32)
    x.flags.writeable = False
    made = recorded(({"x": x}, {"y": x}))

    def forward(x: torch.Tensor) -> torch.Tensor:
        assert x.dtype == torch.int32
        same = x.clone()
        x.zero_()
        return same

    assert compared(verify_of(), forward, made).proven
    assert compared(verify_of(), forward, made).proven


def test_accuracy_is_computed_on_both_sides(verify_of: VerifyOf, tmp_path: Path) -> None:
    np.save(tmp_path / "l.npy", [0, 1, 2, 2])
    y = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    own = np.eye(3, dtype=np.float32)[[0, 0, 0, 0]]
    verify = verify_of(labels="{file: l.npy, metric: accuracy}")
    made = recorded(({"x": X}, {"y": y}), ({"x": X}, {"y": y}), labels=[0, 1, 2, 2])
    result = compared(verify, lambda x: torch.from_numpy(own), made)

    assert result.metric == Metric("accuracy", 0.75, 0.25, 4)
    assert result.problems() == [
        Problem(
            "T2T501",
            "y: max|Δ| 1 exceeds 1.10e-05 (1e-06 + 1e-05 x 1 max|TF|), accuracy 0.2500 against TensorFlow's 0.7500",
            verify.at,
            "t2t verify without --no-diagnosis finds the first layer that differs, and what would have passed",
            details=("worst at [1, 0] of [4, 3], draw 0: tensorflow 0, torch 1",),
        )
    ]


def test_accuracy_is_over_tensorflows_last_axis(verify_of: VerifyOf, tmp_path: Path) -> None:
    """Classes per pixel: the last axis in TensorFlow's layout is the second in torch's."""
    truth = np.array([[[0, 1], [2, 0]]])
    np.save(tmp_path / "l.npy", truth)
    y = np.eye(3, dtype=np.float32)[truth]
    verify = verify_of(labels="{file: l.npy, metric: accuracy}", torch="{outputs: {y: {axes: n h w c -> n c h w}}}")
    nchw = torch.from_numpy(y.transpose(0, 3, 1, 2).copy())

    result = compared(verify, lambda x: nchw, recorded(({"x": X}, {"y": y}), labels=truth))

    assert result.metric == Metric("accuracy", 1.0, 1.0, 4)


# --- what does not hold ---


@pytest.mark.parametrize(
    ("reference", "own"),
    [
        (0.5, float("nan")),
        (0.5, float("inf")),
        (float("nan"), 0.5),
        (float("inf"), 0.5),
        (float("nan"), float("nan")),
        (float("inf"), float("inf")),
    ],
)
def test_what_is_not_finite_on_either_side_does_not_hold(verify_of: VerifyOf, reference: float, own: float) -> None:
    verify = verify_of(rel="1", abs="100")
    y, torchs = X.copy(), X.copy()
    y[0, 2], torchs[0, 2] = reference, own
    result = compared(verify, lambda x: torch.from_numpy(torchs), recorded(({"x": X}, {"y": y})))

    assert not result.proven
    (found,) = result.outputs
    assert (found.worst, found.scale) == ((0, 2), 5.0)
    (problem,) = result.problems()
    assert problem.message == "y: max|Δ| is not finite"
    assert problem.details == (f"worst at [0, 2] of [2, 3], draw 0: tensorflow {reference:.7g}, torch {own:.7g}",)


def test_each_output_that_fails_is_told_once_with_its_worst_draw(verify_of: VerifyOf) -> None:
    verify = verify_of(
        reference='{graph: g, feed: {x: "x:0"}, fetch: {a: "a:0", b: "b:0", c: "c:0"}}',
        torch='{outputs: {a: {at: "0"}, b: {at: "1"}, c: {at: "2"}}}',
    )

    def forward(x: torch.Tensor) -> Any:
        return x, x + 0.25, x * 2000

    draws = [({"x": x}, {"a": x, "b": x, "c": x}) for x in (X, X * 3)]
    problems = compared(verify, forward, recorded(*draws)).problems()

    assert [problem.message for problem in problems] == [
        "b: max|Δ| 0.25 exceeds 5.10e-05 (1e-06 + 1e-05 x 5 max|TF|)",
        "c: max|Δ| 3.00e+04 exceeds 1.51e-04 (1e-06 + 1e-05 x 15 max|TF|)",
    ]
    assert [problem.details[-1].partition(":")[0] for problem in problems] == [
        "worst at [0, 0] of [2, 3], draw 0",
        "worst at [1, 2] of [2, 3], draw 1",
    ]


def test_a_transposed_square_kernel_is_caught(verify_of: VerifyOf) -> None:
    """Every shape fits: only the numbers tell."""
    kernel = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    layer = nn.Linear(3, 3, bias=False)
    made = recorded(({"x": X}, {"y": X @ kernel}))

    layer.weight.data = torch.from_numpy(kernel.T.copy())
    assert compared(verify_of(), layer, made).proven
    layer.weight.data = torch.from_numpy(kernel)
    assert not compared(verify_of(), layer, made).proven


# --- what cannot be compared ---


def test_what_cannot_be_compared_is_told(verify_of: VerifyOf) -> None:
    made = recorded(({"x": X}, {"y": X}))
    verify, at = verify_of(), "say where the tensor is: verify.torch.outputs with at"
    first = verify_of(torch='{outputs: {y: {at: "0.logit"}}}')
    describe = "describe the layout: verify.torch.outputs with axes"
    with warnings.catch_warnings(action="ignore"):
        # torch says of them that they are new.
        sparse = torch.ones(2, 3).to_sparse_csr()
        nests = [torch.nested.nested_tensor([torch.ones(3)] * 2, layout=kind) for kind in (torch.strided, torch.jagged)]

    assert refusal(verify, lambda x: x.T, made) == f"y: torch computes [3, 2], tensorflow [2, 3]; {describe}"
    turned = verify_of(torch="{outputs: {y: {axes: a b -> b a}}}")
    assert refusal(turned, lambda x: x, made) == (
        f"y: torch computes [2, 3], tensorflow [2, 3], which is [3, 2] in torch's layout; {describe}"
    )
    assert refusal(verify, lambda x: (x, x), made) == f"y: forward() returned tuple of 2, not a tensor; {at}"
    assert refusal(verify, lambda x: {"a": x}, made) == f"y: forward() returned dict with a, not a tensor; {at}"
    assert refusal(verify, lambda x: None, made) == f"y: forward() returned NoneType, not a tensor; {at}"
    assert refusal(first, lambda x: [{"logits": x}], made) == (
        "y: forward() returned list of 1, with nothing at '0.logit'; did you mean logits"
    )
    assert refusal(first, lambda x: [], made) == "y: forward() returned list of 0, with nothing at '0.logit'"
    assert refusal(first, lambda x: [{"logit": 3}], made) == (
        f"y: forward() returned int at '0.logit', not a tensor; {at}"
    )
    assert refusal(verify, lambda x: x + 1j, made) == (
        "y: forward() returned a torch.complex64 tensor that is not plain real numbers"
    )
    unplain = "not a plain tensor of real numbers"
    dense = "return a dense one"
    assert refusal(verify, lambda x: x.to_sparse(), made) == (
        f"y: forward() returned a torch.sparse_coo tensor, {unplain}; {dense}"
    )
    assert refusal(verify, lambda x: sparse, made) == (
        f"y: forward() returned a torch.sparse_csr tensor, {unplain}; {dense}"
    )
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        assert refusal(verify, lambda x: x.clone().to_mkldnn(), made) == (
            f"y: forward() returned a torch._mkldnn tensor, {unplain}; {dense}"
        )
    for nested in nests:
        assert refusal(verify, lambda x, nested=nested: nested, made) == (
            f"y: forward() returned a nested tensor, {unplain}"
        )
    assert refusal(verify, lambda x: x.to("meta"), made) == f"y: forward() returned a meta tensor, {unplain}"
    bad_axes = verify_of(torch="{axes: {x: a b c -> c b a}}")
    assert refusal(bad_axes, lambda x: x, made) == (
        "x: axes 'a b c -> c b a' are for rank 3, the variable has rank 2: [2, 3]; "
        "name each axis of the variable once on the left side"
    )
    empty = recorded(({"x": X[:0]}, {"y": X[:0]}))
    assert refusal(verify, lambda x: x, empty) == (
        "y: torch computes [0, 3], tensorflow [0, 3]; an empty output proves nothing"
    )


def test_a_forward_that_raises_names_the_users_line(verify_of: VerifyOf, tmp_path: Path) -> None:
    path = tmp_path / "user.py"
    path.write_text("def forward(x):\n    inner(x)\n\ndef inner(x):\n    return x @ x\n")
    space: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), space)
    verify = verify_of()
    with pytest.raises(ModuleError) as error:
        compared(verify, space["forward"], recorded(({"x": X}, {"y": X})))
    (problem,) = error.value.problems

    assert (problem.code, problem.at) == ("T2T707", verify.at)
    assert problem.hint == "inputs come in TensorFlow's layout: see arguments and axes of verify.torch"
    assert problem.message == (
        f"forward() of Returns failed: {path}:5: RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)"
    )


@pytest.mark.parametrize("error", [ValueError, RuntimeError, TypeError, SystemExit])
def test_an_attribute_that_raises_is_the_modules_fault(verify_of: VerifyOf, error: type[BaseException]) -> None:
    class Output:
        @property
        def logits(self) -> None:
            raise error("no")

    verify = verify_of(torch="{outputs: {y: {at: logits}}}")
    with pytest.raises(ModuleError) as caught:
        compared(verify, lambda x: Output(), recorded(({"x": X}, {"y": X})))
    line = Output.logits.fget.__code__.co_firstlineno + 2  # type: ignore[attr-defined]
    assert str(caught.value) == (
        f"{verify.at}: T2T707 y: 'logits' of what forward() returned failed: {__file__}:{line}: {error.__name__}: no"
    )


def test_a_forward_that_exits_is_an_error_and_an_interrupt_passes(verify_of: VerifyOf) -> None:
    def leave(x: torch.Tensor) -> None:
        raise SystemExit("first\nsecond")

    def interrupt(x: torch.Tensor) -> None:
        raise KeyboardInterrupt

    made = recorded(({"x": X}, {"y": X}))
    with pytest.raises(ModuleError) as error:
        compared(verify_of(), leave, made)
    line = leave.__code__.co_firstlineno + 1
    assert error.value.problems[0].message.endswith(f"test_compare.py:{line}: SystemExit: first second")
    with pytest.raises(KeyboardInterrupt):
        compared(verify_of(), interrupt, made)


# --- what is left of it ---


class Restless(nn.Module):
    """A module whose forward() changes whatever it can."""

    counter: torch.Tensor
    replaced: torch.Tensor
    hidden: torch.Tensor

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.fails = fails
        self.norm = nn.BatchNorm1d(3)
        self.still = nn.Dropout(0.5).eval()
        self.register_buffer("counter", torch.tensor(5))
        self.register_buffer("replaced", torch.ones(2))
        self.register_buffer("hidden", torch.full((2,), torch.nan), persistent=False)
        self.cache: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        assert torch.is_inference_mode_enabled()
        self.counter += 1
        self.hidden.zero_()
        self.replaced = torch.zeros(2)
        self.register_buffer("late", torch.zeros(1))
        self.cache = x * 2
        self.norm.train()
        self.norm(x)
        x = x + torch.rand(1) * 0 + float(np.random.rand() * random.random()) * 0
        if self.fails:
            raise ValueError("no")
        return x


@pytest.mark.parametrize("fails", [False, True])
def test_the_module_and_the_generators_are_left_as_they_were(verify_of: VerifyOf, fails: bool) -> None:
    module = Restless(fails)
    replaced, before = module.replaced, {name: value.clone() for name, value in module.named_buffers()}
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]
    made = recorded(({"x": X}, {"y": X}))
    if fails:
        with pytest.raises(ModuleError):
            compared(verify_of(), module, made)
    else:
        assert compared(verify_of(), module, made).proven

    assert [module.training, module.norm.training, module.still.training] == [True, True, False]
    assert dict(module.named_buffers()).keys() == before.keys()
    for name, value in module.named_buffers():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)
    assert module.replaced is replaced
    assert module.cache is None
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), states[2])
    module.fails = False
    module.norm(torch.rand(2, 3)).sum().backward()


class Hooked(nn.Module):
    """Collects what its layer gives by a hook that it installs once, as transformers does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.is_hooked = False
        self.seen: list[torch.Tensor] = []
        self.named: dict[str, torch.Tensor] = {}

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        if not self.is_hooked:
            self.is_hooked = True
            self.layer.register_forward_hook(lambda module, args, made: self.seen.append(made))
        self.named["x"] = x
        self.layer(x)
        return list(self.seen)


def test_hooks_and_what_lists_hold_are_of_one_draw(verify_of: VerifyOf) -> None:
    """Else the second run would collect everything twice, and the tensor at 1 would be there then."""
    module, made = Hooked(), recorded(({"x": X}, {"y": X}), ({"x": X + 1}, {"y": X + 1}))
    nowhere = verify_of(torch='{outputs: {y: {at: "1"}}}')
    for _ in range(2):
        assert compared(verify_of(torch='{outputs: {y: {at: "0"}}}'), module, made).proven
        assert refusal(nowhere, module, made) == "y: forward() returned list of 1, with nothing at '1'"

    assert (module.is_hooked, module.seen, module.named, len(module.layer._forward_hooks)) == (False, [], {}, 0)


def test_a_random_forward_gives_the_same_verdict_each_time(verify_of: VerifyOf) -> None:
    made = recorded(({"x": X}, {"y": X}))

    verdicts = set()
    for seed in range(3):
        torch.manual_seed(seed)
        verdicts.add(compared(verify_of(), torch.rand_like, made).max_delta)

    assert len(verdicts) == 1


def test_what_forward_prints_goes_to_stderr(verify_of: VerifyOf, capsys: pytest.CaptureFixture[str]) -> None:
    def talk(x: torch.Tensor) -> torch.Tensor:
        print("here")  # noqa: T201 - a stranger's module does.
        return x

    assert compared(verify_of(), talk, recorded(({"x": X}, {"y": X}))).proven
    assert capsys.readouterr() == ("", "here\n")


def test_the_verdict_is_over_all_outputs(verify_of: VerifyOf) -> None:
    made = recorded(({"x": X}, {"y": X}), ({"x": X}, {"y": X + 1}))
    result = compared(verify_of(), lambda x: x, made)

    assert [delta.holds for delta in result.outputs] == [True, False]
    assert not result.proven
    assert result.max_delta == 1.0
    assert dataclasses.replace(result, outputs=result.outputs[:1]).proven


# --- steps ---


class Sums(nn.Module):
    """Adds what it is given to what it was given before, in a buffer, in one that is replaced and in an attribute."""

    written: torch.Tensor
    replaced: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("written", torch.zeros(3))
        self.register_buffer("replaced", torch.zeros(3), persistent=False)
        self.attribute: Any = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.written += x[0]
        self.replaced = self.replaced + x[0]
        self.attribute = self.attribute + x[0]
        total: torch.Tensor = self.written + self.replaced + self.attribute
        return total / 3


def stream(verify: Verify) -> Recording:
    """Running sums, as numpy has them, that begin anew with each draw."""
    xs = np.random.default_rng(0).standard_normal((2, 4, 2, 3), np.float32)
    sums = np.cumsum(xs[:, :, 0], axis=1)
    runs = [({"x": x}, {"y": y}) for x, y in zip(xs.reshape(8, 2, 3), sums.reshape(8, 3), strict=True)]
    return dataclasses.replace(recorded(*runs), steps=verify.steps)


def test_state_stays_from_step_to_step_and_each_draw_begins_without(verify_of: VerifyOf) -> None:
    verify, module = verify_of(draws="2", steps="4"), Sums()

    comparison = compared(verify, module, stream(verify))

    assert comparison.proven
    assert [(delta.draw, delta.step) for delta in comparison.outputs] == [(d, s) for d in range(2) for s in range(4)]
    assert (module.written.tolist(), module.replaced.tolist(), module.attribute) == ([0.0] * 3, [0.0] * 3, 0.0)
    assert module.training


def test_a_state_that_is_lost_or_kept_too_long_does_not_hold(verify_of: VerifyOf) -> None:
    verify = verify_of(draws="2", steps="4")
    anew = compared(verify_of(draws="8"), Sums(), dataclasses.replace(stream(verify), steps=1))
    through = compared(verify_of(steps="8"), Sums(), dataclasses.replace(stream(verify), steps=8))

    assert [delta.holds for delta in anew.outputs] == [True, False, False, False] * 2
    assert [delta.holds for delta in through.outputs] == [True] * 4 + [False] * 4


def test_a_step_that_fails_is_named(verify_of: VerifyOf) -> None:
    verify = verify_of(draws="2", steps="4")
    made = stream(verify)
    made.draws[6].outputs["y"][1] += 1

    (problem,) = compared(verify, Sums(), made).problems()

    assert problem.details[0].startswith("worst at [1] of [3], draw 1, step 2: tensorflow ")
