"""
FSRCNN (Dong, Loy and Tang, 2016), super-resolution of the luma channel, as a torch module.

Eight convolutions, all "SAME" with stride 1, which torch pads alike. The last one gives scale x scale channels for each
pixel, which depth_to_space and PixelShuffle put in the same order where the picture has one channel; with more
channels they would not: TensorFlow reads them as (y, x, channel), torch as (channel, y, x).
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

FEATURES = 56
SHRUNK = 12


class FSRCNN(nn.Module):
    """Luma [n, 1, h, w] in [0, 1] to [n, 1, scale * h, scale * w]."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        widths = [1, FEATURES, *[SHRUNK] * 5, FEATURES]
        layers: dict[str, nn.Module] = {}
        for i, kernel in enumerate([5, 1, 3, 3, 3, 3, 1]):
            layers[f"conv{i + 1}"] = nn.Conv2d(widths[i], widths[i + 1], kernel, padding=kernel // 2)
            layers[f"prelu{i + 1}"] = nn.PReLU(widths[i + 1])
        layers["conv8"] = nn.Conv2d(FEATURES, scale * scale, 1, bias=False)
        layers["shuffle"] = nn.PixelShuffle(scale)
        self.layers = nn.Sequential(OrderedDict(layers))
        self.bias = nn.Parameter(torch.zeros(1))  # it is added to the large picture, the same for all of its pixels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        large: torch.Tensor = self.layers(x) + self.bias
        return large
