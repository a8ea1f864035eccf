"""
EfficientNet-B0 as keras.applications builds it, which pads its strided convolutions as TF's SAME does.

A block's layers have the names that they have there, without the block's: `block2a_dwconv` is `blocks.1.0.dwconv`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import nn

from t2t.nn import BatchNorm2d, Conv2dSame

#: For each stage: blocks, channels out, kernel, stride of the first block, expansion.
STAGES = (
    (1, 16, 3, 1, 1),
    (2, 24, 3, 2, 6),
    (2, 40, 5, 2, 6),
    (3, 80, 3, 2, 6),
    (3, 112, 5, 1, 6),
    (4, 192, 5, 2, 6),
    (1, 320, 3, 1, 6),
)


class Normalization(nn.Module):
    """Pixels in [0, 255] less the mean, over the deviation, of pixels in [0, 1]; then times `rescale`, where given."""

    mean: torch.Tensor
    variance: torch.Tensor

    def __init__(self, rescale: Sequence[float] | None) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("variance", torch.ones(3))
        self.rescale = rescale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x / 255 - self.mean[:, None, None]) / self.variance.sqrt()[:, None, None]
        return x if self.rescale is None else x * x.new_tensor(self.rescale)[:, None, None]


class Block(nn.Module):
    """An inverted residual block with squeeze and excitation; a quarter of `inputs` is what it squeezes to."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inside, squeezed = inputs * expansion, max(1, inputs // 4)
        self.residual = stride == 1 and inputs == outputs
        if expansion > 1:
            self.expand_conv = nn.Conv2d(inputs, inside, 1, bias=False)
            self.expand_bn = BatchNorm2d(inside)
        self.dwconv = Conv2dSame(inside, inside, kernel, stride, groups=inside, bias=False)
        self.bn = BatchNorm2d(inside)
        self.se_reduce = nn.Conv2d(inside, squeezed, 1)
        self.se_expand = nn.Conv2d(squeezed, inside, 1)
        self.project_conv = nn.Conv2d(inside, outputs, 1, bias=False)
        self.project_bn = BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor
        y = F.silu(self.expand_bn(self.expand_conv(x))) if hasattr(self, "expand_conv") else x
        y = F.silu(self.bn(self.dwconv(y)))
        gate = self.se_expand(F.silu(self.se_reduce(y.mean((2, 3), keepdim=True)))).sigmoid()
        y = self.project_bn(self.project_conv(y * gate))
        return x + y if self.residual else y


class EfficientNetB0(nn.Module):
    """
    Images [n, 3, h, w] with pixels in [0, 255], 224 x 224 as published, to logits [n, classes].

    `rescale` is a factor for each channel. The published weights need 1 / sqrt(0.229), 1 / sqrt(0.224),
    1 / sqrt(0.225): their variances are the deviations that the network was trained with.
    """

    def __init__(self, *, rescale: Sequence[float] | None = None, classes: int = 1000) -> None:
        super().__init__()
        self.normalization = Normalization(rescale)
        self.stem_conv = Conv2dSame(3, 32, 3, 2, bias=False)
        self.stem_bn = BatchNorm2d(32)
        self.blocks = nn.ModuleList()
        inputs = 32
        for count, outputs, kernel, stride, expansion in STAGES:
            stage = nn.Sequential(Block(inputs, outputs, kernel, stride, expansion))
            stage.extend(Block(outputs, outputs, kernel, 1, expansion) for _ in range(count - 1))
            self.blocks.append(stage)
            inputs = outputs
        self.top_conv = nn.Conv2d(inputs, 1280, 1, bias=False)
        self.top_bn = BatchNorm2d(1280)
        self.predictions = nn.Linear(1280, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.silu(self.stem_bn(self.stem_conv(self.normalization(x))))
        for stage in self.blocks:
            x = stage(x)
        x = F.silu(self.top_bn(self.top_conv(x)))
        logits: torch.Tensor = self.predictions(x.mean((2, 3)))
        return logits
