"""
The flood-filling network of google/ffn (fib25) as a torch module: twelve pairs of 3-D convolutions that grow a segment.

One step of the network: it looks at a volume and at what is filled so far (`seed`, logits) and says what to add.
"""

from __future__ import annotations

import torch
from torch import nn


class Pair(nn.Module):
    """Two 3 x 3 x 3 convolutions with a ReLU between them."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.a = nn.Conv3d(inputs, 32, 3, padding=1)
        self.b = nn.Conv3d(32, 32, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.b(self.a(x).relu())
        return result


class FloodFilling(nn.Module):
    """Image `patches` and `seed`, both [n, 1, z, y, x], to the seed's new logits, of the same shape."""

    def __init__(self, depth: int = 12) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Pair(2 if i == 0 else 32) for i in range(depth))
        self.lom = nn.Conv3d(32, 1, 1)  # the logit of the object mask

    def forward(self, patches: torch.Tensor, seed: torch.Tensor) -> torch.Tensor:
        first, *residuals = self.convs
        x = first(torch.cat([patches, seed], dim=1))
        for pair in residuals:
            x = x + pair(x.relu())
        logits: torch.Tensor = seed + self.lom(x.relu())
        return logits
