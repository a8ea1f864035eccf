"""
The ultra-light face detectors RFB-320 and slim-320 (Linzaer, 1.1 MB each) as one torch module.

A chain of depthwise separable convolutions; boxes and scores are predicted from four of its stages. All convolutions
are padded alike on both sides, in TensorFlow by layers of their own. Submodules are named as in the authors' .pth.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

#: Channels of the separable convolutions 1 to 12; which of them have stride 2, and behind which one is predicted.
WIDTHS = (32, 32, 32, 64, 64, 64, 64, 128, 128, 128, 256, 256)
STRIDED = (2, 4, 8, 11)
PREDICTED = (7, 10, 12)
#: Boxes for each place of the four stages, from the finest to the coarsest.
PRIORS = (3, 2, 2, 3)
CLASSES = 2


class Convolution(nn.Module):
    """A convolution that keeps height and width, with a batch normalization and perhaps a ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1, *, relu: bool = False) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.activation = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.activation(self.bn(self.conv(x)))
        return y


class ReceptiveFields(nn.Module):
    """RFB: three branches, of which the last convolutions have dilations 2, 3 and 5, joined, and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        thin, wide = channels // 8, channels // 4
        self.branch0 = nn.Sequential(
            Convolution(channels, thin),
            Convolution(thin, wide, 3, relu=True),
            Convolution(wide, wide, 3, dilation=2),
        )
        self.branch1 = nn.Sequential(
            Convolution(channels, thin),
            Convolution(thin, wide, 3, relu=True),
            Convolution(wide, wide, 3, dilation=3),
        )
        self.branch2 = nn.Sequential(
            Convolution(channels, thin),
            Convolution(thin, thin // 2 * 3, 3, relu=True),
            Convolution(thin // 2 * 3, wide, 3, relu=True),
            Convolution(wide, wide, 3, dilation=5),
        )
        self.ConvLinear = Convolution(3 * wide, channels)
        self.shortcut = Convolution(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([self.branch0(x), self.branch1(x), self.branch2(x)], dim=1)
        return torch.relu(self.ConvLinear(joined) + self.shortcut(x))


def separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A step of the chain: a convolution of each channel, then one across channels, each normalized."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def head(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """The same with biases in the place of normalizations."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 1)
    )


class UltraLight(nn.Module):
    """
    Pictures [n, 3, 240, 320] in [-1, 1] to scores [n, 4420, 2] and offsets [n, 4420, 4].

    Scores are probabilities (background, face), offsets those of the prior boxes. What the original does after that
    (boxes from offsets, a threshold, non-maximum suppression) depends on no weight.
    """

    def __init__(self, variant: Literal["RFB", "slim"]) -> None:
        super().__init__()
        first = nn.Sequential(nn.Conv2d(3, 16, 3, 2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        steps: list[nn.Module] = [first]
        for number, width in enumerate(WIDTHS, start=1):
            before = 16 if number == 1 else WIDTHS[number - 2]
            steps.append(separable(before, width, 2 if number in STRIDED else 1))
        if variant == "RFB":
            steps[7] = ReceptiveFields(64)
        self.base_net = nn.Sequential(*steps)
        self.extras = nn.Sequential(nn.Sequential(nn.Conv2d(256, 64, 1), nn.ReLU(), head(64, 256, stride=2), nn.ReLU()))

        def heads(values: int) -> nn.ModuleList:
            of = [boxes * values for boxes in PRIORS]
            last = nn.Conv2d(256, of[3], 3, padding=1)
            return nn.ModuleList([head(64, of[0]), head(128, of[1]), head(256, of[2]), last])

        self.classification_headers = heads(CLASSES)
        self.regression_headers = heads(4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        stages = []
        for number, step in enumerate(self.base_net):
            x = step(x)
            if number in PREDICTED:
                stages.append(x)
        stages.append(self.extras(x))
        scores = self.predicted(self.classification_headers, stages, CLASSES).softmax(dim=-1)
        return scores, self.predicted(self.regression_headers, stages, 4)

    @staticmethod
    def predicted(heads: nn.ModuleList, stages: list[torch.Tensor], values: int) -> torch.Tensor:
        """[n, 4420, values], in TensorFlow's order: by stage, row, column, and box of the place."""
        parts = [head(stage).permute(0, 2, 3, 1) for head, stage in zip(heads, stages, strict=True)]
        return torch.cat([part.reshape(len(part), -1, values) for part in parts], dim=1)
