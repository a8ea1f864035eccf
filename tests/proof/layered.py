"""
Recordings with layers, made by hand from arrays, and modules that rows fill: what goes on inside, without TensorFlow.

The originals are numpy, in TensorFlow's layouts; where numpy has no such layer, torch computes it there and back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from t2t import execute
from t2t import module as modules
from t2t.plan import Plan
from t2t.problems import Location
from t2t.proof.layers import Inside, Layer, Sample
from t2t.proof.originals.samples import positions
from t2t.proof.recording import Draw, Recording
from tests import given
from tests.given import Array, Memory


def drawn(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def sample(values: Array) -> Sample:
    flat = np.asarray(values, np.float32).reshape(-1)
    return Sample(values.shape, float(np.max(np.abs(flat), initial=0.0)), flat[positions(flat.size)])


def layer(
    operation: str,
    variables: str | Sequence[str],
    before: Array | None,
    after: Array | None,
    *,
    around: tuple[Mapping[str, Array], Mapping[str, Array]] = ({}, {}),
) -> Layer:
    """One operation: its variables, what it works on and what it gives; `around` are other tensors before and after."""
    names = (variables,) if isinstance(variables, str) else tuple(variables)
    ends = [None if values is None else sample(values) for values in (before, after)]
    sides = [tuple((name, sample(values)) for name, values in side.items()) for side in around]
    return Layer(operation, "Op", names, ends[0], ends[1], *sides)


def dense(name: str, x: Array, kernel: Array, bias: Array) -> tuple[list[Layer], Array]:
    """A dense layer as TensorFlow has it, a MatMul and a BiasAdd, over `name`/kernel and `name`/bias."""
    made = x @ kernel + bias
    return [
        layer(f"{name}/MatMul", f"{name}/kernel", x, made),
        layer(f"{name}/BiasAdd", f"{name}/bias", x, made),
    ], made


def recorded(x: Array, y: Array, layers: Sequence[Layer] = (), named: Mapping[str, Array] | None = None) -> Recording:
    """One draw, from `x` to `y`."""
    inside = Inside(tuple(layers), {name: sample(values) for name, values in (named or {}).items()})
    return Recording({}, (Draw({"x": x}, {"y": y}),), None, {}, inside=inside)


def filled(module: nn.Module, rows: Sequence[str], arrays: Mapping[str, Array]) -> tuple[Plan, Memory]:
    """Fills the module by these rows, and how."""
    memory = Memory(arrays)
    plan = given.planned("".join(f"- {row}\n" for row in rows), memory, modules.inventory(module, Location("m.yaml")))
    kept = modules.values(module, [step.target for step in plan.steps if step.rule.keep])
    dtypes = {step.target: step.dtype for step in plan.steps}
    made = execute.tensors(plan, memory, kept)
    modules.assign(module, {name: modules.to_torch(array, dtypes[name]) for name, array in made})
    return plan, memory


def convolved(x: Array, kernel: Array, bias: Array, convolution: Any = nn.functional.conv2d, **options: Any) -> Array:
    """A convolution of x [n, h, w, c] by a kernel [h, w, in, out]."""
    planes = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    weight = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
    made = convolution(planes, weight, torch.from_numpy(bias), **options)
    return np.ascontiguousarray(made.numpy().transpose(0, 2, 3, 1))


def all_of(module: nn.Module) -> list[Any]:
    """Whatever a module holds, its hooks among them, bit for bit."""
    found: list[Any] = []
    for path, part in module.named_modules():
        for name, value in sorted(vars(part).items()):
            entries = dict(value) if isinstance(value, dict) else {"": value}
            for key, entry in entries.items():
                held = (entry.dtype, entry.numpy(force=True).tobytes()) if isinstance(entry, torch.Tensor) else None
                found.append(
                    (path, name, key, id(entry) if isinstance(entry, torch.Tensor | nn.Module) else entry, held)
                )
    return found
