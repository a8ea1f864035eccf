"""
The first layer that differs: what goes on in the module, held against the layers that the recording has.

The mapping itself pairs them: an operation that takes variable v belongs to the module that owns the parameter which v
feeds. Of each call of such a module what goes in is held against what the operations work on, and what comes out
against what they give; it agrees where it agrees with one of them. Layouts are no difference: any order of the axes,
any split or merge of neighbours.

It is looked at in the last step of draw 0, which is what layers are recorded of.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from t2t.names import did_you_mean, shown
from t2t.plan import Plan
from t2t.problems import MappingError, Problem
from t2t.proof import precision
from t2t.proof.arrays import Array
from t2t.proof.compare import as_it_was, forward
from t2t.proof.layers import Layer, Sample
from t2t.proof.originals import samples
from t2t.proof.recording import Recording
from t2t.proof.written import key_of
from t2t.rules import Rule
from t2t.tensors import Shape
from t2t.verification import Verify

#: More orders of axes are not tried: 5! of a video's.
MAX_RANK = 5

Verdict = Literal["agrees", "differs", "unlike"]


@dataclass(frozen=True, eq=False, slots=True)
class Values:
    """
    A sample's elements on both sides, float64, in the layout in which they are closest; `places` are their flat
    positions in the module's tensor. What an operation rectified is compared with the module's values rectified.
    """

    tensorflow: Array
    torch: Array
    places: Array


@dataclass(frozen=True, slots=True)
class End:
    """
    One end of a module's call against the closest tensor of the original: `operation` is whose it is.

    `shape` is the original's, `own` the module's. "unlike" are two that cannot be held against each other: they have no
    layout in common (the figure is NaN then), or the original has fewer such operations than the module is called.
    `max_delta` is over the samples, `scale` over the original's whole tensor. `values` are the samples, None where the
    two have no layout in common.
    """

    operation: str
    shape: Shape
    own: Shape
    max_delta: float
    scale: float
    tolerance: float
    verdict: Verdict
    values: Values | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a module, the `number`-th of it: its path, its class, and both ends, None where nothing pairs."""

    module: str
    number: int
    kind: str
    input: End | None
    output: End | None

    @property
    def differs(self) -> bool:
        """Whether one of its ends does."""
        return any(end is not None and end.verdict == "differs" for end in (self.input, self.output))


@dataclass(frozen=True, slots=True)
class Trace:
    """
    The calls of the modules that are paired, in torch's order, of a run as far as it was looked at.

    `called` are the paths of all calls in the order in which they begin, also of modules that nothing pairs. `maps` are
    the shapes, without the batch, of what was flattened.
    """

    calls: tuple[Call, ...]
    called: tuple[str, ...]
    maps: tuple[Shape, ...]

    @property
    def first(self) -> int | None:
        """Which call is the first that differs."""
        return next((number for number, call in enumerate(self.calls) if call.differs), None)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A tensor of the original that may be one end of a module; `is_around` where it is not a layer's own."""

    operation: str
    sample: Sample
    is_around: bool = False


#: What may go in, and what may come out.
_Ends = tuple[Sequence[_Candidate], Sequence[_Candidate]]


class Pairs:
    """
    Which tensors of the original each module is held against.

    Raises MappingError (T2T503) where verify's layers name a module that there is not, and ModuleError (T2T707) where
    forward() fails.
    """

    def __init__(self, module: nn.Module, plan: Plan, recording: Recording, verify: Verify) -> None:
        self.module, self.recording, self.verify = module, recording, verify
        self.paths = dict(module.named_modules())
        # One name for a module that has several.
        own = {part: path for path, part in self.paths.items()}
        self.names: dict[str, str] = {path: own[part] for path, part in module.named_modules(remove_duplicate=False)}
        self.unsure: set[str] = set()
        self.counts = Counter(self._run(lambda path: None).called)
        self.targets: dict[str, list[str]] = {}
        for step in plan.steps:
            self.targets.setdefault(self._owner(step.target), []).append(step.target)
        self.rules = {key_of(part.rule): part.rule for step in plan.steps for part in step.parts}
        self.layers = self._paired()
        self.named = self._named()

    @property
    def unrecorded(self) -> list[str]:
        """The tensors that verify's layers name and the recording does not have."""
        return [own for own in self.verify.layers.values() if own not in self.recording.inside.named]

    def _named(self) -> dict[str, _Candidate]:
        """What verify's layers say that modules give, as far as it is recorded."""
        for path in self.verify.layers:
            if path not in self.names:
                text = f"layers name {shown(path)}, and no part of the module has this path"
                raise MappingError(Problem("T2T503", text, self.verify.at, did_you_mean(path, self.names)))
        recorded, layers = self.recording.inside.named, self.verify.layers
        return {self.names[path]: _Candidate(own, recorded[own]) for path, own in layers.items() if own in recorded}

    def rewired(self, rules: Iterable[Rule]) -> Pairs:
        """The same with these rules in place of those that write the same: other variables may feed a module then."""
        other = copy.copy(self)
        other.rules = self.rules | {key_of(rule): rule for rule in rules}
        other.layers = other._paired()
        return other

    def _paired(self) -> dict[str, list[Layer]]:
        """The original's layers by the module that owns what their variables feed."""
        fed: dict[str, list[str]] = {}
        for rule in self.rules.values():
            for name in rule.sources:
                fed.setdefault(name, []).append(self._owner(rule.target))
        paired: dict[str, list[Layer]] = {}
        for layer in self.recording.inside.layers:
            owners = {owner for name in layer.variables for owner in fed.get(name, ())}
            # A module that has parameters of its own may also do what those inside it do.
            around = {path for path in self.targets if any(owner.startswith(f"{path}.") for owner in owners)}
            for path in (owners | around) - {""}:
                paired.setdefault(path, []).append(layer)
        # Modules that are called more often than the original has operations of theirs: some of it is not fetched.
        self.unsure = {path for path, layers in paired.items() if self.counts[path] > _occurrences(layers)}
        return paired

    def _owner(self, target: str) -> str:
        """The closest module around the target that is called: what is not (a parametrization) is run by another."""
        whole, within, _ = target.partition(".parametrizations.")
        path = whole if within else target.rpartition(".")[0]
        while path and self.names[path] not in self.counts:
            path = path.rpartition(".")[0]
        return self.names[path]

    def trace(self, *, only_first: bool = False) -> Trace:
        """
        One run, held against the recording; with `only_first` it ends where it first differs.

        Raises ModuleError (T2T707) where forward() fails.
        """
        return self._run(self._ends, only_first=only_first)

    def _ends(self, path: str) -> _Ends | None:
        """What goes in and out of the original at a module."""
        layers = self.layers.get(path, ())
        inputs = [
            *(_Candidate(layer.operation, layer.input) for layer in layers if layer.input is not None),
            *(_Candidate(name, sample, is_around=True) for layer in layers for name, sample in layer.before),
        ]
        outputs = [
            # The last of its operations is the one that makes what the module gives.
            *(_Candidate(layer.operation, layer.output) for layer in reversed(layers) if layer.output is not None),
            *(_Candidate(name, sample, is_around=True) for layer in layers for name, sample in layer.after),
        ]
        if path in self.named:
            outputs = [self.named[path]]
        return (inputs, outputs) if inputs or outputs else None

    def _run(self, ends: Callable[[str], _Ends | None], *, only_first: bool = False) -> Trace:
        watch = _Watch(ends, self.verify, unsure=self.unsure, only_first=only_first)
        device = next((tensor.device for tensor in self.module.state_dict().values()), torch.device("cpu"))
        with precision.full_float32(), as_it_was(self.module), contextlib.suppress(_Seen):
            *before, last = self.recording.draws[: self.recording.steps]
            for step in before:
                forward(self.module, step, self.verify, device, None)
            # As they are now: another one may stand in a module's place for this run.
            with watch.hooked(dict(self.module.named_modules())), watch:
                forward(self.module, last, self.verify, device, None)
        return Trace(tuple(watch.calls), tuple(watch.called), tuple(dict.fromkeys(watch.maps)))


def _occurrences(layers: Sequence[Layer]) -> int:
    """How often the original goes through a module: of its variables, one is taken so many times."""
    return min(Counter(name for layer in layers for name in layer.variables).values())


class _Seen(BaseException):
    """The first difference was seen: the rest of forward() is of no interest, and no `except Exception` stops this."""


class _Watch(TorchFunctionMode):
    """Looks at what modules take and give, and at what is flattened, while it is entered."""

    def __init__(
        self, ends: Callable[[str], _Ends | None], verify: Verify, *, unsure: Collection[str], only_first: bool
    ) -> None:
        super().__init__()
        self.ends, self.verify, self.unsure, self.only_first = ends, verify, unsure, only_first
        self.calls: list[Call] = []
        self.called: list[str] = []
        self.maps: list[Shape] = []
        self.counts: dict[str, int] = {}
        self.open: list[tuple[str, End | None]] = []

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if args and all(isinstance(one, torch.Tensor) and not one.is_nested for one in (args[0], made)):
            before, after = tuple(args[0].shape), tuple(made.shape)
            flattened = len(before) in {3, 4, 5} and len(after) == 2
            if flattened and after[0] == before[0] and after[1] == math.prod(before[1:]):
                self.maps.append(before[1:])
        return made

    @contextlib.contextmanager
    def hooked(self, paths: Mapping[str, nn.Module]) -> Iterator[None]:
        """Hooks on these modules, which are gone afterwards."""
        with contextlib.ExitStack() as stack:
            for path, module in paths.items():
                if isinstance(module, torch.jit.ScriptModule):
                    continue  # it takes no hooks
                before = module.register_forward_pre_hook(self._before(path), with_kwargs=True)
                after = module.register_forward_hook(self._after(path), with_kwargs=True)
                stack.callback(before.remove)
                stack.callback(after.remove)
            yield

    def _before(self, path: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: Any, kwargs: Any) -> None:
            self.called.append(path)
            expected = self.ends(path)
            if expected is None:
                return
            # Before the call: what happens in place would change it.
            self.open.append((path, self._closest(path, expected[0], _floating((args, kwargs)))))
            self._seen(self.open[-1][1])

        return hook

    def _after(self, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, returned: Any) -> None:  # noqa: ARG001 - torch passes them
            expected = self.ends(path)
            if expected is None:
                return
            # A call that failed, and whose error was caught, is still open.
            while self.open[-1][0] != path:
                self.open.pop()
            _, given = self.open.pop()
            number = self.counts[path] = self.counts.get(path, -1) + 1
            output = self._closest(path, expected[1], _floating(returned))
            self.calls.append(Call(path, number, type(module).__name__, given, output))
            self._seen(output)

        return hook

    def _closest(self, path: str, candidates: Sequence[_Candidate], own: Sequence[torch.Tensor]) -> End | None:
        """
        The first that agrees, else the one that differs least, else one that is unlike; None where there is none.

        Of those that differ, a layer's own tensors come before those around it.
        """
        best: tuple[tuple[bool, bool, float], End] | None = None
        for candidate in candidates:
            for tensor in own:
                end = _held(candidate.operation, candidate.sample, tensor, self.maps, self.verify)
                if end.verdict == "agrees":
                    return end
                rank = end.verdict == "unlike", candidate.is_around, _distance(end)
                if best is None or rank < best[0]:
                    best = rank, end
        if best is None:
            return None
        return replace(best[1], verdict="unlike") if path in self.unsure else best[1]

    def _seen(self, end: End | None) -> None:
        if self.only_first and end is not None and end.verdict == "differs":
            if self.open:  # an input: its call has no output yet
                path, given = self.open[-1]
                if given is end:
                    self.calls.append(Call(path, self.counts.get(path, -1) + 1, "", given, None))
            raise _Seen


def _floating(values: Any) -> list[torch.Tensor]:
    """The tensors of real floating numbers in whatever holds them."""
    found = []
    for leaf in pytree.tree_leaves(values):
        is_plain = isinstance(leaf, torch.Tensor) and not leaf.is_nested and leaf.layout == torch.strided
        if is_plain and leaf.is_floating_point():
            found.append(leaf)
    return found


def _distance(end: End) -> float:
    return end.max_delta / (end.scale or 1.0) if math.isfinite(end.max_delta) else math.inf


def _held(operation: str, sample: Sample, tensor: torch.Tensor, maps: Iterable[Shape], verify: Verify) -> End:
    tolerance = verify.abs + verify.rel * sample.scale
    own = tuple(tensor.shape)
    delta, closest = math.nan, None
    flat = tensor.detach().reshape(-1)
    expected = sample.values.astype(np.float64)
    # Some operations include the activation that follows them.
    is_rectified = bool(expected.size) and bool(expected.min() == 0)
    bounds = [None, (0.0, math.inf), (0.0, 6.0)] if is_rectified else [None]
    # What was a map before it was flattened may be one in another order.
    spread = [(*own[:-1], *shape) for shape in dict.fromkeys(maps) if own and own[-1] == math.prod(shape)]
    for places in itertools.chain.from_iterable(layouts(sample.shape, shape) for shape in (own, *spread)):
        taken = flat[torch.from_numpy(places).to(flat.device)].to("cpu", torch.float64).numpy()
        for bound in bounds:
            values = taken if bound is None else np.clip(taken, *bound)
            with np.errstate(invalid="ignore"):
                found = float(np.max(np.abs(values - expected), initial=0.0))
            if math.isnan(delta) or found < delta:
                delta, closest = found, Values(expected, values, places)
        if delta <= tolerance:
            return End(operation, sample.shape, own, delta, sample.scale, tolerance, "agrees", closest)
    is_like = math.prod(own) == math.prod(sample.shape)
    verdict: Verdict = "differs" if is_like else "unlike"
    return End(operation, sample.shape, own, delta, sample.scale, tolerance, verdict, closest)


def layouts(shape: Shape, own: Shape) -> Iterator[Array]:
    """
    Where the samples of a tensor of `shape` may lie in one of the shape `own`: flat positions, for each layout.

    First as it stands; then for each order of the axes of the one or of the other in which they have the same sizes,
    with neighbours merged or split. Nothing where the two have different numbers of elements.
    """
    size = math.prod(shape)
    if size != math.prod(own):
        return
    places = samples.positions(size)
    if size == 0:
        yield places
        return
    theirs = tuple(length for length in shape if length != 1)
    ours = tuple(length for length in own if length != 1)
    yield places
    if len(ours) <= MAX_RANK:
        for order in itertools.permutations(range(len(ours))):
            moved = tuple(ours[axis] for axis in order)
            if order != tuple(range(len(ours))) and _fit(moved, theirs):
                yield _flat([np.unravel_index(places, moved)[order.index(axis)] for axis in range(len(ours))], ours)
    if len(theirs) <= MAX_RANK and len(theirs) != len(ours):
        for order in itertools.permutations(range(len(theirs))):
            moved = tuple(theirs[axis] for axis in order)
            if order != tuple(range(len(theirs))) and _fit(moved, ours):
                indices = np.unravel_index(places, theirs)
                yield _flat([indices[axis] for axis in order], moved)


def _flat(indices: Sequence[Array], shape: Shape) -> Array:
    if not shape:
        return np.zeros(1, np.int64)
    return np.asarray(np.ravel_multi_index(tuple(indices), shape), np.int64)


def _fit(one: Shape, other: Shape) -> bool:
    """Whether one is the other with neighbouring axes merged."""
    first, second = (set(itertools.accumulate(shape, lambda a, b: a * b)) for shape in (one, other))
    return first <= second or second <= first
