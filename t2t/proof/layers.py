"""
The layers of an original as a recording holds them: which variables each operation takes, and samples of both its ends.

They tell where a wrong module first goes wrong, and prove nothing: a recording without them is as good a proof.

In a recording they are the keys `layers`, `named` and `samples` of its description, and one member:

    layers     [operation, kind, [variable, ...], input, output, before, after] for each: numbers of samples, or null;
               the last two are lists of [operation, number]
    named      a tensor's own name -> the number of its sample
    samples    [shape, scale] for each
    samples    the member: the elements of all samples, one after the other, float32 or float64

A tensor that two layers share is stored once.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from t2t.checkpoints import Checkpoint
from t2t.proof.arrays import Array
from t2t.proof.originals import samples
from t2t.proof.originals.original import MAX_LAYERS
from t2t.tensors import Shape, TensorRef

#: So many tensors before a layer are kept, and so many after it.
MAX_AROUND = 8


@dataclass(frozen=True, eq=False, slots=True)
class Sample:
    """
    A tensor of which `values` are kept: its elements at `samples.positions(size)`, in C order of its `shape`.

    `scale` is the largest finite magnitude in all of it.
    """

    shape: Shape
    scale: float
    values: Array


@dataclass(frozen=True, eq=False, slots=True)
class Layer:
    """
    One operation of the original, its type ("Conv2D"), and the checkpoint's variables that it takes.

    `input` is what it works on, `output` what it gives; None where the original could not be asked for it. `before` and
    `after` are tensors around it, each with its operation: what the whole of which it is a part may take and give.
    """

    operation: str
    kind: str
    variables: tuple[str, ...]
    input: Sample | None
    output: Sample | None
    before: tuple[tuple[str, Sample], ...] = ()
    after: tuple[tuple[str, Sample], ...] = ()


@dataclass(frozen=True, slots=True)
class Inside:
    """What is known of an original's inside: layers in the order of execution, and tensors by their own names."""

    layers: tuple[Layer, ...] = ()
    named: Mapping[str, Sample] = field(default_factory=dict)


def recognised(
    report: Mapping[str, Any],
    members: Mapping[str, Array],
    wanted: Mapping[str, str],
    checkpoint: Checkpoint | None,
    folded: Mapping[str, str] | None = None,
) -> Inside:
    """
    What a child process reports (see `originals/run.py`), under the checkpoint's names of its variables.

    Without a checkpoint only certain names count. `wanted` are the tensors that were asked for, by any keys. Layers
    none of whose variables is recognised are left out. `folded` names variables by the digest of a constant that is a
    variable with a normalization folded in: such a layer takes what the variable's takes, and gives something else.
    """
    known = _Variables(checkpoint)

    def sample(told: Mapping[str, Any] | None) -> Sample | None:
        return None if told is None else Sample(tuple(told["shape"]), float(told["scale"]), members[told["member"]])

    def around(told: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, Sample], ...]:
        return tuple((one["operation"], found) for one in told if (found := sample(one)) is not None)

    layers = []
    #: Of operations that are no layer here, what they work on: the layer behind one may begin there.
    passed: dict[str, tuple[tuple[str, Sample], ...]] = {}
    for told in report.get("layers", ()):
        variables = tuple(dict.fromkeys(filter(None, map(known.name, told["variables"]))))
        ends = sample(told["input"]), sample(told["output"])
        before = around(told["before"])
        before += tuple(one for operation, _ in before for one in passed.get(operation, ()))
        before = before[:MAX_AROUND]
        if variables:
            layers.append(Layer(told["operation"], told["kind"], variables, *ends, before, around(told["after"])))
            continue
        passed[told["operation"]] = (*([(told["operation"], ends[0])] if ends[0] is not None else []), *before)
        scaled = ((folded or {}).get(variable["digest"]) for variable in told["variables"])
        if variables := tuple(dict.fromkeys(filter(None, scaled))):
            layers.append(Layer(told["operation"], told["kind"], variables, sample(told["input"]), None))
    named = {wanted[key]: found for key, told in report.get("named", {}).items() if (found := sample(told))}
    return Inside(tuple(layers), named)


class _Variables:
    """The checkpoint's variables, by name and by what is in them."""

    def __init__(self, checkpoint: Checkpoint | None) -> None:
        self.checkpoint = checkpoint
        refs = checkpoint.inventory.variables.values() if checkpoint is not None else ()
        self.refs = [ref for ref in refs if ref.slot_of is None and not ref.unreadable and "float" in ref.dtype]
        self.digests: dict[str, str] = {}

    @cached_property
    def by_name(self) -> dict[str, list[TensorRef]]:
        """Those that go by a name, in the checkpoint or in their model."""
        found: dict[str, list[TensorRef]] = {}
        for ref in self.refs:
            for name in {ref.name, ref.full_name} - {None, ""}:
                found.setdefault(str(name), []).append(ref)
        return found

    def name(self, told: Mapping[str, Any]) -> str:
        """The checkpoint's name of a variable, "" where it cannot be told which one it is."""
        called = self.by_name.get(told["name"], [])
        if not told["digest"]:
            return called[0].name if len(called) == 1 else told["name"] if self.checkpoint is None else ""
        for among in (called, self.refs):
            same = [ref for ref in among if self._holds(ref, told)]
            if len(same) == 1:
                return same[0].name
        return ""

    def _holds(self, ref: TensorRef, told: Mapping[str, Any]) -> bool:
        if ref.elements != math.prod(told["shape"]):
            return False
        assert self.checkpoint is not None
        if ref.name not in self.digests:
            self.digests[ref.name] = samples.digest(self.checkpoint.read(ref))
        return self.digests[ref.name] == str(told["digest"])


def packed(inside: Inside) -> tuple[dict[str, Any], Array | None]:
    """The keys of a recording's description, and its member; nothing where there is nothing."""
    if not inside.layers and not inside.named:
        return {}, None
    numbers: dict[Any, int] = {}
    stored: list[Sample] = []

    def number(sample: Sample | None) -> int | None:
        if sample is None:
            return None
        # As they come back: float32 beside float64 is stored as such.
        key = sample.shape, sample.scale, sample.values.astype(np.float64).tobytes()
        if key not in numbers:
            numbers[key] = len(stored)
            stored.append(sample)
        return numbers[key]

    layers = [
        [
            *(layer.operation, layer.kind, list(layer.variables), number(layer.input), number(layer.output)),
            *([[operation, number(sample)] for operation, sample in side] for side in (layer.before, layer.after)),
        ]
        for layer in inside.layers
    ]
    named = {name: number(sample) for name, sample in sorted(inside.named.items())}
    told = [[list(sample.shape), sample.scale] for sample in stored]
    dtype = np.float64 if any(sample.values.dtype == np.float64 for sample in stored) else np.float32
    values = np.concatenate([np.empty(0, dtype), *(sample.values for sample in stored)])
    return {"layers": layers, "named": named, "samples": told}, values


def unpacked(meta: Mapping[str, Any], values: Array | None) -> Inside:
    """What `packed` made. Raises ValueError, with what is wrong, for anything else."""
    if not meta.keys() & {"samples", "layers", "named"}:
        return Inside()
    told, layers, named = meta.get("samples"), meta.get("layers"), meta.get("named")
    if not isinstance(told, list) or not isinstance(layers, list) or not isinstance(named, dict):
        raise ValueError("its layers cannot be read")
    if len(layers) > MAX_LAYERS:
        raise ValueError(f"it has {len(layers)} layers, and {MAX_LAYERS} are the most")
    if values is None or values.ndim != 1 or values.dtype not in (np.float32, np.float64):
        raise ValueError("its layers have no samples")
    stored = _samples(told, values)

    def sample(number: Any) -> Sample | None:
        if number is None:
            return None
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(stored):
            raise ValueError("a layer names a sample that is not there")
        return stored[number]

    def around(told: Any) -> tuple[tuple[str, Sample], ...]:
        if not (_is_list(told) and all(_is_list(one) and len(one) == 2 and isinstance(one[0], str) for one in told)):
            raise ValueError("a layer cannot be read")
        if len(told) > MAX_AROUND:
            raise ValueError(f"a layer has more than {MAX_AROUND} tensors around it")
        return tuple((operation, taken) for operation, number in told if (taken := sample(number)) is not None)

    made = []
    for layer in layers:
        if not (_is_list(layer) and len(layer) == 7 and _is_list(layer[2])):
            raise ValueError("a layer cannot be read")
        operation, kind, variables, first, last, before, after = layer
        if not all(isinstance(text, str) for text in (operation, kind, *variables)):
            raise ValueError("a layer cannot be read")
        ends = sample(first), sample(last)
        made.append(Layer(operation, kind, tuple(variables), *ends, around(before), around(after)))
    found = {name: taken for name, number in named.items() if (taken := sample(number)) is not None}
    return Inside(tuple(made), found)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


#: No tensor that goes through a model has more elements or axes: positions in a larger one could not be computed.
MAX_ELEMENTS = 2**48
MAX_RANK = 64


def _samples(told: Sequence[Any], values: Array) -> list[Sample]:
    """The samples, cut out of the member that holds them one after the other."""
    made, at = [], 0
    for entry in told:
        if not (_is_list(entry) and len(entry) == 2 and _is_shape(entry[0])):
            raise ValueError("a sample cannot be read")
        shape, scale = tuple(entry[0]), entry[1]
        # Compared before anything is computed: an integer in JSON may be too large for a float.
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 <= scale <= sys.float_info.max:
            raise ValueError("a sample has no scale")
        size = math.prod(shape)
        if size > MAX_ELEMENTS:
            raise ValueError("a sample cannot be read")
        count = len(samples.positions(size))
        if at + count > values.size:
            raise ValueError("its samples are cut short")
        made.append(Sample(shape, float(scale), values[at : at + count]))
        at += count
    if at != values.size:
        raise ValueError("it holds more samples than it tells")
    return made


def _is_shape(value: Any) -> bool:
    return _is_list(value) and len(value) <= MAX_RANK and all(map(_is_size, value))


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ELEMENTS
