"""
MLPerf Tiny's person detector (visual wake words) as a torch module: MobileNet v1 of a quarter of the width.

Where a convolution has a stride, TensorFlow's SAME pads nothing above and one row below.
"""

from __future__ import annotations

import torch
from torch import nn

from t2t.nn import Conv2dSame

#: Keras' default; torch's is 1e-5.
EPSILON = 1e-3

#: The thirteen blocks: channels that come out, and the stride.
BLOCKS = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *((128, 1),) * 5, (256, 2), (256, 1))


class Separable(nn.Module):
    """A 3 x 3 convolution of each channel and a 1 x 1 one across them, each normalized."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depthwise = Conv2dSame(inputs, inputs, 3, stride=stride, groups=inputs)
        self.depthwise_norm = nn.BatchNorm2d(inputs, eps=EPSILON)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)
        self.pointwise_norm = nn.BatchNorm2d(outputs, eps=EPSILON)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise_norm(self.depthwise(x)).relu()
        y: torch.Tensor = self.pointwise_norm(self.pointwise(x))
        return y.relu()


class PersonDetector(nn.Module):
    """Pixels [n, 3, 96, 96] in [0, 1] to the probabilities of no person and of one [n, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = Conv2dSame(3, 8, 3, stride=2)
        self.norm = nn.BatchNorm2d(8, eps=EPSILON)
        self.blocks = nn.Sequential()
        inputs = 8
        for outputs, stride in BLOCKS:
            self.blocks.append(Separable(inputs, outputs, stride))
            inputs = outputs
        self.dense = nn.Linear(256, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.norm(self.conv(x)).relu())
        # The pool covers all 3 x 3: the original's Flatten mixes nothing.
        probabilities: torch.Tensor = self.dense(x.mean((2, 3))).softmax(-1)
        return probabilities
