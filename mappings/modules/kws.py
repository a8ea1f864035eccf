"""
MLPerf Tiny's keyword spotter as a torch module: a depthwise separable network (DS-CNN) over 49 x 10 MFCCs.

The first kernel is [10, 4] with stride 2 and TensorFlow's SAME padding: 4 rows above and 5 below, which `padding=`
cannot say.
"""

from __future__ import annotations

import torch
from torch import nn

from t2t.nn import Conv2dSame

#: Keras' default; torch's is 1e-5.
EPSILON = 1e-3


class Separable(nn.Module):
    """A 3 x 3 convolution of each channel and a 1 x 1 one across them, each normalized: [n, 64, h, w] to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.depthwise_norm = nn.BatchNorm2d(channels, eps=EPSILON)
        self.pointwise = nn.Conv2d(channels, channels, 1)
        self.pointwise_norm = nn.BatchNorm2d(channels, eps=EPSILON)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise_norm(self.depthwise(x)).relu()
        y: torch.Tensor = self.pointwise_norm(self.pointwise(x))
        return y.relu()


class KeywordSpotter(nn.Module):
    """MFCCs [n, 1, 49, 10] to probabilities of twelve words [n, 12]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = Conv2dSame(1, 64, (10, 4), stride=2)
        self.norm = nn.BatchNorm2d(64, eps=EPSILON)
        self.blocks = nn.Sequential(*(Separable(64) for _ in range(4)))
        self.dense = nn.Linear(64, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.norm(self.conv(x)).relu())
        # What is pooled has one row and one column: the original's Flatten mixes nothing.
        probabilities: torch.Tensor = self.dense(x.mean((2, 3))).softmax(-1)
        return probabilities
