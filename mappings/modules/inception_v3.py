"""
Inception v3 as keras.applications builds it: names of blocks and branches are those of its source.

Its batch normalization has no gamma (`scale=False`), which torch's fills with ones. Its epsilon is TensorFlow's, 1e-3,
and its average pooling doesn't count the pixels that it pads.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import nn

from t2t.nn import BatchNorm2d

Kernel = int | tuple[int, int]


class Unit(nn.Module):
    """A convolution, batch normalization, ReLU. `padding` is torch's and, for these odd kernels, TensorFlow's too."""

    def __init__(self, inputs: int, outputs: int, kernel: Kernel, stride: int = 1, padding: str = "same") -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(x)))


class Fork(nn.Sequential):
    """Its units one after the other but for the last two, which lie side by side."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        *units, left, right = self
        for unit in units:
            x = unit(x)
        return torch.cat([left(x), right(x)], 1)


class Mixed(nn.Module):
    """Branches side by side, in the order given."""

    def __init__(self, **branches: nn.Module) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.children()], 1)


class InceptionV3(nn.Module):
    """Images [n, 3, h, w] in [-1, 1], 299 x 299 as published, to logits [n, classes]."""

    def __init__(self, *, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.ModuleList(
            [
                Unit(3, 32, 3, stride=2, padding="valid"),
                Unit(32, 32, 3, padding="valid"),
                Unit(32, 64, 3),
                Unit(64, 80, 1, padding="valid"),
                Unit(80, 192, 3, padding="valid"),
            ]
        )
        self.mixed0 = _mixed_35(192, pool=32)
        self.mixed1 = _mixed_35(256, pool=64)
        self.mixed2 = _mixed_35(288, pool=64)
        self.mixed3 = Mixed(
            branch3x3=nn.Sequential(Unit(288, 384, 3, stride=2, padding="valid")),
            branch3x3dbl=nn.Sequential(Unit(288, 64, 1), Unit(64, 96, 3), Unit(96, 96, 3, stride=2, padding="valid")),
            branch_pool=nn.MaxPool2d(3, 2),
        )
        self.mixed4 = _mixed_17(128)
        self.mixed5 = _mixed_17(160)
        self.mixed6 = _mixed_17(160)
        self.mixed7 = _mixed_17(192)
        self.mixed8 = Mixed(
            branch3x3=nn.Sequential(Unit(768, 192, 1), Unit(192, 320, 3, stride=2, padding="valid")),
            branch7x7x3=nn.Sequential(
                *_chain([768, 192, 192, 192], [1, (1, 7), (7, 1)]), Unit(192, 192, 3, stride=2, padding="valid")
            ),
            branch_pool=nn.MaxPool2d(3, 2),
        )
        self.mixed9 = _mixed_8(1280)
        self.mixed10 = _mixed_8(2048)
        self.predictions = nn.Linear(2048, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second, third, fourth, fifth = self.stem
        x = F.max_pool2d(third(second(first(x))), 3, 2)
        x = F.max_pool2d(fifth(fourth(x)), 3, 2)
        for number in range(11):
            x = self.get_submodule(f"mixed{number}")(x)
        logits: torch.Tensor = self.predictions(x.mean((2, 3)))
        return logits


def _chain(channels: list[int], kernels: list[Any]) -> list[Unit]:
    """Units from channels to channels."""
    return [Unit(*ends, kernel) for ends, kernel in zip(pairwise(channels), kernels, strict=True)]


def _pooled(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.AvgPool2d(3, 1, padding=1, count_include_pad=False), Unit(inputs, outputs, 1))


def _mixed_35(inputs: int, *, pool: int) -> Mixed:
    """For images of 35 x 35."""
    return Mixed(
        branch1x1=nn.Sequential(Unit(inputs, 64, 1)),
        branch5x5=nn.Sequential(*_chain([inputs, 48, 64], [1, 5])),
        branch3x3dbl=nn.Sequential(*_chain([inputs, 64, 96, 96], [1, 3, 3])),
        branch_pool=_pooled(inputs, pool),
    )


def _mixed_17(width: int) -> Mixed:
    """For images of 17 x 17 with 768 channels."""
    high, wide = (7, 1), (1, 7)
    return Mixed(
        branch1x1=nn.Sequential(Unit(768, 192, 1)),
        branch7x7=nn.Sequential(*_chain([768, width, width, 192], [1, wide, high])),
        branch7x7dbl=nn.Sequential(*_chain([768, width, width, width, width, 192], [1, high, wide, high, wide])),
        branch_pool=_pooled(768, 192),
    )


def _mixed_8(inputs: int) -> Mixed:
    """For images of 8 x 8."""
    return Mixed(
        branch1x1=nn.Sequential(Unit(inputs, 320, 1)),
        branch3x3=Fork(Unit(inputs, 384, 1), Unit(384, 384, (1, 3)), Unit(384, 384, (3, 1))),
        branch3x3dbl=Fork(Unit(inputs, 448, 1), Unit(448, 384, 3), Unit(384, 384, (1, 3)), Unit(384, 384, (3, 1))),
        branch_pool=_pooled(inputs, 192),
    )
