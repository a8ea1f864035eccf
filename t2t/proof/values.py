"""
Values that look wrong: what they say by themselves, whatever the original computes.

They are looked at as they come by, on their way into the module; nothing is read for it. A weight is looked at up to
its first element that is not zero; only vectors of normalizations, which are short, are looked at whole. Nothing of
this is an error: an untrained model, or a strange one, may be what was meant. NaN and Inf are, and are not told here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from t2t.names import shown
from t2t.plan import Step
from t2t.problems import Problem
from t2t.tensors import DTYPES, ModuleInventory, ParameterRef

Array = np.ndarray[Any, Any]
Role = Literal["scale", "offset", "mean", "variance"]

#: What the vectors of a normalization are called: in torch, and in ports that keep other names.
ROLES: dict[str, Role] = {
    "weight": "scale",
    "gamma": "scale",
    "scale": "scale",
    "bias": "offset",
    "beta": "offset",
    "offset": "offset",
    "running_mean": "mean",
    "moving_mean": "mean",
    "running_var": "variance",
    "running_variance": "variance",
    "moving_variance": "variance",
}

#: The signs of fewer values than so many may be chance.
FEW = 8

#: Elements that are searched at a time for one that is not zero.
PIECE = 4096


@dataclass(frozen=True, slots=True)
class Vector:
    """A vector of a normalization: the step that gave it, its figures as float64, how many are below 0."""

    step: Step
    least: float
    largest: float
    mean: float
    size: int
    negative: int

    def is_all(self, value: float) -> bool:
        """Whether every element is this number."""
        return self.least == self.largest == value

    @property
    def spans_zero(self) -> bool:
        """Whether it lies on both sides of 0, as a trained offset does (or is 0, as one begins)."""
        return self.least <= 0 <= self.largest

    def __str__(self) -> str:
        return f"{named(self.step)} lies around {self.mean:.3g} ({self.least:.3g} to {self.largest:.3g})"


def named(step: Step) -> str:
    """The step's target, and where it comes from."""
    first, *more = step.sources
    return f"{shown(step.target)} (from {shown(first.name)}{f' and {len(more)} more' if more else ''})"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two vectors of one normalization: its scale and offset, or its mean and variance."""

    owner: str
    first: Vector
    second: Vector


class Values:
    """What is known of the values so far: `see` each step's, then ask for `problems`."""

    def __init__(self, inventory: ModuleInventory) -> None:
        self._refs = inventory.parameters
        self._pairs = {
            roles: _pairs(self._refs, *roles) for roles in (("scale", "offset"), ("mean", "variance"))
        }  # owner -> both names
        self._watched = {name for pairs in self._pairs.values() for names in pairs.values() for name in names}
        self._vectors: dict[str, Vector] = {}
        self._weights = 0
        self._zero: list[Step] = []

    def see(self, step: Step, values: Array) -> None:
        """Looks at what variables give the step: its elements in the target's order, in whatever shape."""
        if not values.size or DTYPES[step.dtype].kind != "float":
            return
        if step.target in self._watched:
            self._vectors[step.target] = _vector(step, values)
        elif _is_weight(self._refs[step.target]):
            self._weights += 1
            if _is_zero(values):
                self._zero.append(step)

    def problems(self) -> list[Problem]:
        """A warning for each kind of what looks wrong: how many there are, and the first."""
        return [*self._zero_weights(), *self._statistics(), *self._affine()]

    def _zero_weights(self) -> Iterator[Problem]:
        if self._zero:
            text = f"{_of(self._zero, self._weights, 'weights')} all zero, the first is {named(self._zero[0])}"
            hint = "look whether the checkpoint is the one that was meant; zeros that a model begins with are harmless"
            yield _warning("T2T408", text, self._zero, hint)

    def _statistics(self) -> Iterator[Problem]:
        """Of means and variances."""
        pairs = self._known("mean", "variance")
        stale = [pair for pair in pairs if pair.first.is_all(0) and pair.second.is_all(1)]
        zero = [pair for pair in pairs if pair.second.is_all(0)]
        negative = [pair for pair in pairs if pair.second.negative]
        exchanged = [pair for pair in negative if _look_exchanged(pair)]
        negative = [pair for pair in negative if pair not in exchanged]
        if stale:
            text = f"{len(stale)} of {len(pairs)} normalizations have statistics that were never updated "
            text += f"(mean all 0, variance all 1), the first is {named(stale[0].first.step)}"
            hint = "in training, nothing ran the updates of the moving averages: the model may be right in training "
            yield _warning("T2T617", text, [pair.first.step for pair in stale], f"{hint}mode only")
        if zero:
            text = f"{_of(zero, len(pairs), 'variances')} all zero, the first is {named(zero[0].second.step)}"
            hint = "look whether the row reads the variance; a normalization divides by its root"
            yield _warning("T2T408", text, [pair.second.step for pair in zero], hint)
        if negative:
            worst = negative[0].second
            text = f"{_of(negative, len(pairs), 'variances')} below 0 somewhere, the first is {named(worst.step)}: "
            text += f"{worst.negative} of {worst.size} values, the least is {worst.least:.3g}"
            yield _warning(
                "T2T408", text, [pair.second.step for pair in negative], "look whether the row reads the variance"
            )
        if exchanged:
            mean, variance = exchanged[0].first, exchanged[0].second
            text = f"mean and variance look exchanged in {len(exchanged)} of {len(pairs)} normalizations, the first is "
            text += f"{shown(exchanged[0].owner)}: {named(variance.step)} has {variance.negative} of {variance.size} "
            text += f"values below 0, {named(mean.step)} has none"
            hint = "exchange the variables of their two rows"
            yield _warning("T2T408", text, [pair.second.step for pair in exchanged], hint)

    def _affine(self) -> Iterator[Problem]:
        """Of scales and offsets."""
        pairs = self._known("scale", "offset")
        new = [pair for pair in pairs if pair.first.is_all(1) and pair.second.is_all(0)]
        if len(new) == len(pairs) > 1:
            text = f"all {len(pairs)} normalizations have a scale of all 1 and an offset of all 0, the first is "
            text += named(new[0].first.step)
            hint = "look whether the checkpoint is a trained one: that is how they begin"
            yield _warning("T2T408", text, [pair.first.step for pair in new], hint)
        usual = [pair for pair in pairs if pair.first.least > 0 and pair.second.spans_zero]
        size = float(np.median([pair.first.mean for pair in usual])) if usual else 1.0
        turned = [pair for pair in pairs if _look_turned(pair, size)]
        others = len(pairs) - len(turned)
        # One that differs from most, or all alike: what lies between is no evidence.
        if turned and (max(1, others / 2) < len(usual) or len(turned) == len(pairs) > 1):
            first = turned[0]
            text = f"scale and offset look exchanged in {len(turned)} of {len(pairs)} normalizations, the first is "
            text += f"{shown(first.owner)}: {first.first}, {first.second}"
            text += f"; in {len(usual)} others it is the other way round" if others else ""
            hint = "exchange the variables of their two rows, unless the original has them like that"
            yield _warning("T2T408", text, [pair.first.step for pair in turned], hint)

    def _known(self, one: Role, other: Role) -> list[Pair]:
        """The pairs that came by, both of them finite."""
        found = []
        for owner, (first, second) in self._pairs[one, other].items():
            vectors = [self._vectors[name] for name in (first, second) if name in self._vectors]
            if len(vectors) == 2 and all(np.isfinite(vector.mean) for vector in vectors):
                found.append(Pair(owner, *vectors))
        return found


def _pairs(refs: Mapping[str, ParameterRef], one: Role, other: Role) -> dict[str, tuple[str, str]]:
    """The modules that have vectors of one shape for both roles, with their names."""
    found: dict[str, dict[Role, str]] = {}
    for name, ref in refs.items():
        owner, _, leaf = name.rpartition(".")
        if leaf in ROLES and ref.elements == max(ref.shape, default=0) and DTYPES[ref.dtype].kind == "float":
            found.setdefault(owner, {}).setdefault(ROLES[leaf], name)
    both = {owner: (names[one], names[other]) for owner, names in found.items() if one in names and other in names}
    return {owner: names for owner, names in both.items() if refs[names[0]].shape == refs[names[1]].shape}


def _vector(step: Step, values: Array) -> Vector:
    with np.errstate(all="ignore"):
        numbers = values.astype(np.float64)
        least, largest, mean = float(numbers.min()), float(numbers.max()), float(numbers.mean())
        return Vector(step, least, largest, mean, numbers.size, int((numbers < 0).sum()))


def _is_weight(ref: ParameterRef) -> bool:
    """Whether zeros would be no beginning for it: a trained matrix, neither a bias nor a buffer with a state."""
    return ref.kind == "parameter" and len(ref.shape) > 1 and ROLES.get(ref.name.rpartition(".")[2]) != "offset"


def _is_zero(values: Array) -> bool:
    """Whether all elements are zero; the first that is not ends the search."""
    if values.ndim > 1:
        return all(_is_zero(row) for row in values)
    flat = values.reshape(-1)
    # The first few first: of a transposed weight, each lies in a cache line of its own.
    return not (flat[:8].any() or any(flat[start : start + PIECE].any() for start in range(0, flat.size, PIECE)))


def _look_exchanged(pair: Pair) -> bool:
    """What should be the variance falls well below 0, as no rounding does, and what should be the mean nowhere."""
    mean, variance = pair.first, pair.second
    return mean.least >= 0 and -variance.least > 0.1 * variance.largest


def _look_turned(pair: Pair, size: float) -> bool:
    """What should be the offset is nowhere 0 and as large as a scale, which is around `size`, and the scale is not."""
    scale, offset = pair.first, pair.second
    known = scale.size >= FEW or (scale.is_all(0) and offset.is_all(1))
    is_scale = offset.least > 0 and size / 2 < offset.mean < size * 2
    return known and is_scale and scale.spans_zero and abs(scale.mean) < size / 2


def _of(found: Sequence[object], count: int, what: str) -> str:
    return f"{len(found)} of {count} {what} {'is' if len(found) == 1 else 'are'}"


def _warning(code: str, text: str, steps: Sequence[Step], hint: str) -> Problem:
    """About the first of these steps, at its row; the details name them all."""
    return Problem(code, text, steps[0].rule.place("tf"), hint, "warning", tuple(map(named, steps)))
