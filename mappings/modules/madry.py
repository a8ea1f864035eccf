"""
MadryLab's MNIST network (mnist_challenge, model.py) as a torch module: two convolutions, two dense layers.

TensorFlow keeps images as NHWC and torch as NCHW. With one channel the input's pixels lie in the same order in both; in
front of `fc1` they do not: there TensorFlow flattens (h, w, c) and torch (c, h, w), so `fc1.weight` needs more than a
transpose.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import nn


class Madry(nn.Module):
    """The classifier: pixels [n, 784] in [0, 1] to logits [n, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel_size=5, padding=2)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=5, padding=2)
        self.fc1 = nn.Linear(64 * 7 * 7, 1024)
        self.fc2 = nn.Linear(1024, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.view(-1, 1, 28, 28)
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        logits: torch.Tensor = self.fc2(x)
        return logits
