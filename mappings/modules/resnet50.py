"""
ResNet-50 (v1), as its three TensorFlow originals compute it.

They agree in the names of nothing and differ in what no shape shows: where a stage halves its images, what the first
pooling pads, the biases, the epsilon. So the module has no defaults for these: its user says them.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import nn

from t2t.nn import BatchNorm2d, MaxPool2dSame

Stride = Literal["first_1x1", "first_3x3", "last_3x3"]

#: Blocks in each of the four stages.
BLOCKS = (3, 4, 6, 3)


class Bottleneck(nn.Module):
    """
    1 x 1 to `width` channels, 3 x 3, 1 x 1 to 4 x `width`, beside a shortcut.

    `strides` are those of the 1 x 1 and the 3 x 3. With as many channels in as out the shortcut is the input itself,
    or, where the block has a stride, each second pixel of it.
    """

    def __init__(self, inputs: int, width: int, strides: tuple[int, int], *, bias: bool, eps: float) -> None:
        super().__init__()
        outputs = 4 * width
        self.stride = strides[0] * strides[1]
        self.conv1 = nn.Conv2d(inputs, width, 1, strides[0], bias=bias)
        self.bn1 = BatchNorm2d(width, eps)
        self.conv2 = nn.Conv2d(width, width, 3, strides[1], padding=1, bias=bias)
        self.bn2 = BatchNorm2d(width, eps)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=bias)
        self.bn3 = BatchNorm2d(outputs, eps)
        if inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, self.stride, bias=bias)
            self.downsample = nn.Sequential(projection, BatchNorm2d(outputs, eps))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        shortcut = self.downsample(x) if hasattr(self, "downsample") else x[..., :: self.stride, :: self.stride]
        return F.relu(y + shortcut)


class ResNet50(nn.Module):
    """
    Images [n, 3, h, w] to logits [n, classes]; h and w are even.

    `stride` is where a stage halves its images: in the first block's 1 x 1 (keras.applications), in its 3 x 3 (TF's
    official models, "v1.5"), or in the 3 x 3 of the last block, in all stages but the last one (TF-Slim). `pool` is
    what the first pooling pads: both sides, or as TF's SAME does. `width` is 64 in everything published.
    """

    def __init__(
        self,
        *,
        stride: Stride,
        pool: Literal["both", "same"],
        bias: bool,
        eps: float,
        classes: int = 1000,
        width: int = 64,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=bias)
        self.bn1 = BatchNorm2d(width, eps)
        # Behind a ReLU it is all the same whether zeros are padded or nothing.
        self.pool = {"both": nn.MaxPool2d(3, 2, padding=1), "same": MaxPool2dSame(3, 2)}[pool]
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _layer(stage, width, stride, bias=bias, eps=eps) for stage in range(len(BLOCKS))
        )
        self.fc = nn.Linear(32 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: torch.Tensor = self.fc(x.mean((2, 3)))
        return logits


def _layer(stage: int, width: int, stride: Stride, *, bias: bool, eps: float) -> nn.Sequential:
    """A stage's blocks, each `width` x 2 ** stage wide inside."""
    inside = width * 2**stage
    inputs = [2 * inside if stage else width, *[4 * inside] * (BLOCKS[stage] - 1)]
    return nn.Sequential(
        *(
            Bottleneck(channels, inside, _strides(stride, stage, block), bias=bias, eps=eps)
            for block, channels in enumerate(inputs)
        )
    )


def _strides(stride: Stride, stage: int, block: int) -> tuple[int, int]:
    """The strides of the block's 1 x 1 and 3 x 3."""
    first, last = block == 0 and stage > 0, block == BLOCKS[stage] - 1 and stage < len(BLOCKS) - 1
    return {
        "first_1x1": (2 if first else 1, 1),
        "first_3x3": (1, 2 if first else 1),
        "last_3x3": (1, 2 if last else 1),
    }[stride]
