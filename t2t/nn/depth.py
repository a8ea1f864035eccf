"""
Pixels into channels and back, with TensorFlow's order of channels.

The channels of one block are (row, column, channel) in TensorFlow and (channel, row, column) in torch's pixel_shuffle.
With one channel they agree; with more, every shape fits, and colours and pixels are mixed up. Source: the documentation
of tf.nn.depth_to_space and tf.nn.space_to_depth.
"""

from __future__ import annotations

from torch import Tensor, nn


class _Blocks(nn.Module):
    def __init__(self, block_size: int) -> None:
        super().__init__()
        self.block_size = block_size

    def extra_repr(self) -> str:
        return f"{self.block_size}"


class DepthToSpace(_Blocks):
    """
    tf.nn.depth_to_space: [n, b * b * c, h, w] -> [n, c, h * b, w * b], where b is `block_size`.

    y[n, c, h * b + i, w * b + j] = x[n, (i * b + j) * C + c, h, w], where C is the number of channels of y.
    """

    def forward(self, x: Tensor) -> Tensor:
        """ValueError where b * b does not divide the channels."""
        b = self.block_size
        if x.dim() != 4 or x.shape[1] % (b * b):
            raise ValueError(f"the input is {list(x.shape)}; DepthToSpace({b}) takes [n, a multiple of {b * b}, h, w]")
        n, channels, h, w = x.shape
        x = x.reshape(n, b, b, channels // (b * b), h, w).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(n, channels // (b * b), h * b, w * b)


class SpaceToDepth(_Blocks):
    """
    tf.nn.space_to_depth: [n, c, h * b, w * b] -> [n, b * b * c, h, w], where b is `block_size`; DepthToSpace undoes it.

    y[n, (i * b + j) * C + c, h, w] = x[n, c, h * b + i, w * b + j], where C is the number of channels of x.
    """

    def forward(self, x: Tensor) -> Tensor:
        """ValueError where b does not divide the height and the width."""
        b = self.block_size
        if x.dim() != 4 or x.shape[2] % b or x.shape[3] % b:
            raise ValueError(
                f"the input is {list(x.shape)}; SpaceToDepth({b}) takes [n, c, h, w], h and w multiples of {b}"
            )
        n, channels, h, w = x.shape
        x = x.reshape(n, channels, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4)
        return x.reshape(n, b * b * channels, h // b, w // b)
