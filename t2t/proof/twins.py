"""
What may be otherwise in the torch module where its weights are right: the attributes that twins most often get wrong.

    eps                a norm's epsilon: Keras says 1e-3, torch 1e-5, others 1e-6 or 1e-12
    padding            a convolution's or a pool's: TensorFlow's SAME, or none
    approximate        GELU by tanh, or exact
    negative_slope     of LeakyReLU: TensorFlow says 0.2, Keras 0.3, torch 0.01

Each is tried in the module itself, for one run, and undone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import nn

from t2t import nn as layers
from t2t.names import shown

EPSILONS = (1e-3, 1e-5, 1e-6, 1e-7, 1e-8, 1e-12)
SLOPES = (0.2, 0.3, 0.01)

#: torch's layers with a padding, and those that pad as TensorFlow's SAME does.
SAME: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    nn.Conv1d: lambda own: _convolution(layers.Conv1dSame, own),
    nn.Conv2d: lambda own: _convolution(layers.Conv2dSame, own),
    nn.Conv3d: lambda own: _convolution(layers.Conv3dSame, own),
    nn.ConvTranspose1d: lambda own: _convolution(layers.ConvTranspose1dSame, own),
    nn.ConvTranspose2d: lambda own: _convolution(layers.ConvTranspose2dSame, own),
    nn.ConvTranspose3d: lambda own: _convolution(layers.ConvTranspose3dSame, own),
    nn.MaxPool1d: lambda own: layers.MaxPool1dSame(own.kernel_size, own.stride),
    nn.MaxPool2d: lambda own: layers.MaxPool2dSame(own.kernel_size, own.stride),
    nn.AvgPool1d: lambda own: layers.AvgPool1dSame(own.kernel_size, own.stride),
    nn.AvgPool2d: lambda own: layers.AvgPool2dSame(own.kernel_size, own.stride),
}


@dataclass(frozen=True, slots=True)
class TwinChange:
    """One attribute of one module otherwise: `what` it is in words; inside `made()` the module is so."""

    what: str
    made: Callable[[], AbstractContextManager[None]]


def changes(root: nn.Module, path: str) -> Iterator[TwinChange]:
    """What may be otherwise in the module at `path` inside `root`, likeliest first."""
    module = root.get_submodule(path)
    kind = type(module).__name__
    own = vars(module).get("eps")
    if isinstance(own, float):
        for eps in EPSILONS:
            if eps != own:
                yield _attribute(module, "eps", eps, f"{shown(path)} ({kind}) with eps={eps:g} for {own:g}")
    if (same := SAME.get(type(module))) is not None:
        name = type(same(module)).__name__
        what = f"{shown(path)} ({kind}) with TensorFlow's padding SAME: t2t.nn.{name}"
        yield TwinChange(what, lambda: _replaced(root, path, same(module)))
    padding = getattr(module, "padding", None)
    if type(module) in SAME and padding not in (0, (0,), (0, 0), (0, 0, 0)) and not isinstance(padding, str):
        yield _attribute(module, "padding", _none(padding), f"{shown(path)} ({kind}) with padding=0 for {padding}")
    if isinstance(module, nn.GELU):
        other = "none" if module.approximate == "tanh" else "tanh"
        what = f"{shown(path)} (GELU) with approximate={other!r} for {module.approximate!r}"
        yield _attribute(module, "approximate", other, what)
    if isinstance(module, nn.LeakyReLU):
        for slope in SLOPES:
            if slope != module.negative_slope:
                what = f"{shown(path)} (LeakyReLU) with negative_slope={slope:g} for {module.negative_slope:g}"
                yield _attribute(module, "negative_slope", slope, what)


def _none(padding: Any) -> Any:
    return (0,) * len(padding) if isinstance(padding, tuple) else 0


def _attribute(module: nn.Module, name: str, value: Any, what: str) -> TwinChange:
    @contextlib.contextmanager
    def made() -> Iterator[None]:
        before = getattr(module, name)
        setattr(module, name, value)
        try:
            yield
        finally:
            setattr(module, name, before)

    return TwinChange(what, made)


@contextlib.contextmanager
def _replaced(root: nn.Module, path: str, other: nn.Module) -> Iterator[None]:
    parent_path, _, name = path.rpartition(".")
    parent = root.get_submodule(parent_path)
    before = parent._modules[name]
    parent._modules[name] = other.train(root.training)
    try:
        yield
    finally:
        parent._modules[name] = before


def _convolution(kind: Any, own: Any) -> nn.Module:
    """The other convolution over the same parameters."""
    options = {"dilation": own.dilation, "groups": own.groups, "bias": own.bias is not None, "device": "meta"}
    made: nn.Module = kind(own.in_channels, own.out_channels, own.kernel_size, own.stride, **options)
    made._parameters.update(own._parameters)
    return made
