"""
Run the torch module on a recording's inputs, and say how far its outputs are from TensorFlow's.

A difference is a result, not an error: `compare` raises only where there is nothing to compare. The module is left as
it was: its training flags, its attributes, its buffers; and so is every random generator.
"""

from __future__ import annotations

import contextlib
import copy
import random
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from torch import nn

from t2t.axes import Axes, AxesError, Transform, identity
from t2t.names import did_you_mean, shown
from t2t.problems import Location, MappingError, Problem
from t2t.proof import precision
from t2t.proof.arrays import Array
from t2t.proof.recording import Draw, Recording, check_labels
from t2t.usercode import failed
from t2t.verification import Verify

if TYPE_CHECKING:
    from t2t.proof.diagnosis import Diagnosis


@dataclass(frozen=True, slots=True)
class OutputDelta:
    """
    One output of one run (a draw, or one step of it), in torch's layout. `scale` is max|TF| over its finite elements.

    `worst` is the element with the largest difference (the first that is not finite, if there is one), `reference` and
    `torch` are its values on both sides.
    """

    output: str
    draw: int
    shape: tuple[int, ...]
    max_delta: float
    scale: float
    tolerance: float
    worst: tuple[int, ...]
    reference: float
    torch: float
    holds: bool
    step: int = 0


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of the first draw on both sides, over `count` labels."""

    name: str
    reference: float
    torch: float
    count: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    Every output of every run, and the `verify` section (its place and its tolerances) that asked for them.

    `device` is torch's name of where the module ran; `dtype` is what it was cast to, None for its own dtypes.
    `diagnosis` says where a wrong one first differs, where that was looked for.
    """

    outputs: tuple[OutputDelta, ...]
    metric: Metric | None
    verify: Verify
    dtype: str | None = None
    device: str = "cpu"
    diagnosis: Diagnosis | None = None

    @property
    def proven(self) -> bool:
        """Whether every output of every draw is within its tolerance."""
        return all(delta.holds for delta in self.outputs)

    @property
    def max_delta(self) -> float:
        """The largest difference of all, NaN where one is."""
        return float(np.max([delta.max_delta for delta in self.outputs]))

    def problems(self) -> list[Problem]:
        """One problem (T2T501) for each output that fails, of its worst draw, at the row to change if it is known."""
        failing: dict[str, OutputDelta] = {}
        for delta in self.outputs:
            known = failing.get(delta.output)
            if not delta.holds and (known is None or _excess(delta) > _excess(known)):
                failing[delta.output] = delta
        return [self._problem(delta) for delta in failing.values()]

    def _problem(self, delta: OutputDelta) -> Problem:
        bound = (
            f"{_figure(delta.tolerance)} ({self.verify.abs:g} + {self.verify.rel:g} x {_figure(delta.scale)} max|TF|)"
        )
        text = f"{shown(delta.output)}: max|Δ| {_figure(delta.max_delta)} exceeds {bound}"
        if not np.isfinite(delta.max_delta):
            text = f"{shown(delta.output)}: max|Δ| is not finite"
        text += f" in {self.dtype}" if self.dtype else ""
        if self.metric:
            text += f", {self.metric.name} {self.metric.torch:.4f} against TensorFlow's {self.metric.reference:.4f}"
        sides = f"tensorflow {delta.reference:.7g}, torch {delta.torch:.7g}"
        draw = f"draw {delta.draw}" + (f", step {delta.step}" if self.verify.steps > 1 else "")
        details = (f"worst at {list(delta.worst)} of {list(delta.shape)}, {draw}: {sides}",)
        hint = "t2t verify without --no-diagnosis finds the first layer that differs, and what would have passed"
        if self.dtype:
            hint = f"if it is proven without --dtype, the mapping is right, and this is what {self.dtype} changes"
        at = self.verify.at
        if self.diagnosis is not None:
            at, hint = self.diagnosis.at or at, self.diagnosis.hint
        return Problem("T2T501", text, at, hint, details=details)


def compare(
    module: nn.Module,
    recording: Recording,
    verify: Verify,
    dtype: str | None = None,
    seen: Callable[[str, Array, Array], None] | None = None,
) -> Comparison:
    """
    Run `module` on every draw of `recording`, in eval() and inference mode, and compare in float64.

    With a `dtype` (of precision.PRECISIONS) floating inputs are cast to it: the module's parameters have it already.
    float32 is computed in full, whatever flags are set.

    The steps of a draw run in order, and what the module writes into its buffers and attributes stays from one to the
    next; each draw begins with the module as it was.

    `seen` is shown each output of each run by its name, what TensorFlow gave and what the module gives (float64), both
    in TensorFlow's layout. Accuracy is the share of labels that are the argmax of the output's last axis there, in
    draw 0.

    Raises ModuleError (T2T707) when forward() or an attribute of its result fails; MappingError (T2T503) when its
    result cannot be compared: no such output, no plain tensor, another shape, nothing in it, axes or labels that don't
    fit.
    """
    check_labels(verify, recording)
    at = verify.at
    deltas: list[OutputDelta] = []
    metric = None
    device = next((tensor.device for tensor in _tensors(module)), torch.device("cpu"))
    with precision.full_float32(), as_it_was(module) as put_back:
        for number, draw in enumerate(recording.draws):
            if number and number % recording.steps == 0:
                put_back()
                module.eval()
            returned = forward(module, draw, verify, device, dtype)
            for name, reference in draw.outputs.items():
                transform = _resolved(verify.outputs[name].axes, reference, name, at)
                own = _numbers(_picked(returned, verify.outputs[name].at, name, at), name, at)
                if own.shape != transform.output or own.size == 0:
                    both = f"torch computes {list(own.shape)}, tensorflow {list(reference.shape)}"
                    moved = (
                        f", which is {list(transform.output)} in torch's layout" if verify.outputs[name].axes else ""
                    )
                    hint = "describe the layout: verify.torch.outputs with axes"
                    _refuse(f"{shown(name)}: {both}{moved}", at, hint if own.size else "an empty output proves nothing")
                deltas.append(_delta(name, divmod(number, recording.steps), transform.apply(reference), own, verify))
                if seen is not None:
                    seen(name, reference, transform.inverse.apply(own))
                if number == 0 and verify.labels and verify.labels.output == name and recording.labels is not None:
                    back, truth = transform.inverse.apply(own), recording.labels
                    metric = Metric("accuracy", _accuracy(reference, truth), _accuracy(back, truth), truth.size)
    return Comparison(tuple(deltas), metric, verify, dtype, str(device))


def _accuracy(output: Array, labels: Array) -> float:
    return float(np.mean(np.argmax(output, axis=-1) == labels))


def _delta(name: str, run: tuple[int, int], reference: Array, own: Array, verify: Verify) -> OutputDelta:
    expected = reference.astype(np.float64)
    # Inf - Inf is NaN, which does not hold.
    with np.errstate(invalid="ignore"):
        difference = np.abs(own - expected)
    scale = float(np.max(np.abs(expected), where=np.isfinite(expected), initial=0.0))
    tolerance = verify.abs + verify.rel * scale
    # argmax takes the first NaN for the largest.
    worst = tuple(int(i) for i in np.unravel_index(np.argmax(difference), difference.shape))
    largest = float(difference[worst])
    return OutputDelta(
        output=name,
        draw=run[0],
        step=run[1],
        shape=own.shape,
        max_delta=largest,
        scale=scale,
        tolerance=tolerance,
        worst=worst,
        reference=float(expected[worst]),
        torch=float(own[worst]),
        holds=bool(np.isfinite(largest) and largest <= tolerance),
    )


def _excess(delta: OutputDelta) -> float:
    """How bad a failing output is: what isn't finite is worst."""
    return delta.max_delta - delta.tolerance if np.isfinite(delta.max_delta) else float("inf")


def _figure(value: float) -> str:
    return f"{value:.3g}" if value == 0 or 0.01 <= value < 10000 else f"{value:.2e}"


def forward(module: nn.Module, draw: Draw, verify: Verify, device: torch.device, dtype: str | None) -> Any:
    """
    What the module gives for these inputs, in inference mode; a `dtype` casts floating ones.

    Raises ModuleError (T2T707) where it fails, MappingError (T2T503) where the inputs' axes don't fit.
    """
    at, given = verify.at, {}
    for name, array in draw.inputs.items():
        # A copy: forward() may write into its arguments, and the recording is read again.
        moved = _resolved(verify.axes.get(name), array, name, at).apply(array).copy()
        tensor = torch.from_numpy(moved).to(device)
        given[name] = tensor.to(getattr(torch, dtype)) if dtype and tensor.is_floating_point() else tensor
    positional, keywords = [], {}
    if isinstance(verify.arguments, Mapping):
        keywords = {word: given[name] for word, name in verify.arguments.items()}
    else:
        positional = [given[name] for name in verify.arguments]
    try:
        with torch.inference_mode(), contextlib.redirect_stdout(sys.stderr):
            return module(*positional, **keywords)
    except (Exception, SystemExit) as error:
        hint = "inputs come in TensorFlow's layout: see arguments and axes of verify.torch"
        hint = precision.hint(error, dtype, device.type) if dtype else hint
        raise failed("T2T707", f"forward() of {type(module).__qualname__} failed", error, at, hint) from error


def _resolved(axes: Axes | None, array: Array, name: str, at: Location) -> Transform:
    if axes is None:
        return identity(array.shape)
    try:
        return axes.resolve(array.shape, {})
    except AxesError as error:
        _refuse(f"{shown(name)}: {error.cause}", at, error.hint)


def _picked(returned: Any, path: str, name: str, at: Location) -> Any:
    """What stands at `path` in what forward() returned: positions, keys and attributes, separated by dots."""
    value = returned
    for part in path.split(".") if path else ():
        try:
            if isinstance(value, Mapping):
                value = value[part]
            elif isinstance(value, tuple | list) and part.isdecimal():
                value = value[int(part)]
            else:
                value = getattr(value, part)
        except (KeyError, IndexError, AttributeError):
            there = list(map(str, value)) if isinstance(value, Mapping) else []
            text = f"{shown(name)}: forward() returned {_kind(returned)}, with nothing at '{shown(path)}'"
            _refuse(text, at, did_you_mean(part, there))
        except (Exception, SystemExit) as error:
            # An attribute can be a property, which is the user's code.
            text = f"{shown(name)}: '{shown(path)}' of what forward() returned failed"
            raise failed("T2T707", text, error, at) from error
    if not isinstance(value, torch.Tensor):
        where = f" at '{shown(path)}'" if path else ""
        hint = "say where the tensor is: verify.torch.outputs with at"
        _refuse(f"{shown(name)}: forward() returned {_kind(value)}{where}, not a tensor", at, hint)
    return value


def _kind(value: Any) -> str:
    kind = type(value).__qualname__
    if isinstance(value, Mapping):
        return f"{kind} with {', '.join(shown(str(word)) for word in value) or 'nothing'}"
    return f"{kind} of {len(value)}" if isinstance(value, tuple | list) else kind


def _numbers(tensor: torch.Tensor, name: str, at: Location) -> Array:
    if tensor.is_complex():
        _refuse(f"{shown(name)}: forward() returned a {tensor.dtype} tensor that is not plain real numbers", at)
    kinds = {"nested": tensor.is_nested, "quantized": tensor.is_quantized, "meta": tensor.is_meta}
    kind = next((kind for kind, holds in kinds.items() if holds), str(tensor.layout))
    if kind != "torch.strided":
        hint = "return a dense one" if kind.startswith("torch.") else ""
        _refuse(f"{shown(name)}: forward() returned a {kind} tensor, not a plain tensor of real numbers", at, hint)
    with torch.inference_mode():
        numbers: Array = tensor.detach().cpu().to(torch.float64).numpy()
    return np.ascontiguousarray(numbers).reshape(tuple(tensor.shape))


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _contents(part: nn.Module) -> Iterator[Any]:
    """A module's attributes, and those of them that hold others: its buffers, its hooks, lists of its own."""
    yield vars(part)
    yield from (value for value in vars(part).values() if type(value) in (dict, OrderedDict, list, set))


@contextlib.contextmanager
def as_it_was(module: nn.Module) -> Iterator[Callable[[], None]]:
    """
    The module in eval(); afterwards it is as before, flags, attributes, hooks and buffers, and so are the generators.

    Gives what puts the module back earlier.
    """
    # forward() can write into a buffer, put another tensor in its place, or keep a tensor that inference mode made and
    # training cannot use. It can hook modules, and remember in an attribute that it did (transformers does).
    held = [(content, copy.copy(content)) for part in module.modules() for content in _contents(part)]
    values = [(tensor, tensor.detach().clone()) for tensor in module.buffers()]
    cuda = sorted({tensor.device.index for tensor in _tensors(module) if tensor.device.type == "cuda"})
    python, numpy = random.getstate(), np.random.get_state()

    def put_back() -> None:
        for content, before in held:
            content.clear()
            if isinstance(content, list):
                content.extend(before)
            else:
                content.update(before)
        with torch.no_grad():
            for tensor, value in values:
                if not torch.equal(tensor, value):
                    tensor.copy_(value)

    with torch.random.fork_rng(cuda):
        # A forward() that draws numbers gives the same verdict each time. torch.manual_seed would touch every device.
        torch.default_generator.manual_seed(0)
        try:
            module.eval()
            yield put_back
        finally:
            put_back()
            random.setstate(python)
            np.random.set_state(numpy)


def _refuse(message: str, at: Location, hint: str = "") -> NoReturn:
    raise MappingError(Problem("T2T503", message, at, hint)) from None
