"""
MLPerf Tiny's image classifier as a torch module: a ResNet of eight layers for 32 x 32 pictures (CIFAR-10).

Only the first convolution of a stage has a stride. There TensorFlow's SAME pads nothing above and one row below, where
torch's padding=1 would pad both.
"""

from __future__ import annotations

import torch
from torch import nn

from t2t.nn import Conv2dSame

#: Keras' default; torch's is 1e-5.
EPSILON = 1e-3


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, which is a 1 x 1 convolution without a norm where the size changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = Conv2dSame(inputs, outputs, 3, stride=stride)
        self.norm1 = nn.BatchNorm2d(outputs, eps=EPSILON)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(outputs, eps=EPSILON)
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        return torch.relu(self.shortcut(x) + y)


class ResNet8(nn.Module):
    """Pixels [n, 3, 32, 32] in [0, 255] to probabilities of ten classes [n, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16, eps=EPSILON)
        self.stages = nn.Sequential(Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2))
        self.dense = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stages(self.norm(self.conv(x)).relu())
        # The pool covers all 8 x 8: the original's Flatten mixes nothing.
        probabilities: torch.Tensor = self.dense(x.mean((2, 3))).softmax(-1)
        return probabilities
