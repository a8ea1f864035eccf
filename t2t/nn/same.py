"""
Convolutions and pools with TensorFlow's padding="SAME".

SAME gives ceil(size / stride) outputs along each axis. The padding for that depends on the size of the input, and where
it is odd, the end gets one more than the start:

    outputs = ceil(size / stride)
    padding = max((outputs - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    before, after = padding // 2, padding - padding // 2

torch's `padding=k // 2` agrees for stride 1 and an odd kernel. With stride 2 on an even size its output has the same
shape and is computed from other pixels; `padding="same"` refuses any stride but 1. Sources: "Notes on padding" in
TensorFlow's documentation of tf.nn, tensorflow/core/framework/kernel_shape_util.cc.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn

#: One number for all axes, or one for each.
Size = int | tuple[int, ...]

_CONVOLUTIONS: tuple[Callable[..., Tensor], ...] = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED: tuple[Callable[..., Tensor], ...] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


def same_padding(size: int, kernel: int, stride: int = 1, dilation: int = 1) -> tuple[int, int]:
    """What SAME adds before and after an axis of this size."""
    outputs = -(-size // stride)
    padding = max((outputs - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return padding // 2, padding - padding // 2


def _padded(x: Tensor, pads: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """`x` with this much before and after its last axes; itself where that is nothing."""
    if not any(map(any, pads)):
        return x
    return F.pad(x, [amount for pad in reversed(pads) for amount in pad], value=value)


class _Same(nn.modules.conv._ConvNd):
    """Comes before torch's own class among the bases: its constructor without a padding, its forward with one."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        *,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        # torch's Conv1d, Conv2d or Conv3d comes next, which mypy cannot know here.
        options: dict[str, Any] = {"dilation": dilation, "groups": groups, "bias": bias}
        super().__init__(in_channels, out_channels, kernel_size, stride, device=device, dtype=dtype, **options)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, padding=SAME"  # type: ignore[no-untyped-call]


class _ConvSame(_Same):
    def forward(self, x: Tensor) -> Tensor:
        axes = len(self.kernel_size)
        pads = list(map(same_padding, x.shape[-axes:], self.kernel_size, self.stride, self.dilation))
        # An equal amount on both sides costs no copy of the input.
        equal = [before if before == after else 0 for before, after in pads]
        x = _padded(x, [(0, 0) if before == after else (before, after) for before, after in pads])
        return _CONVOLUTIONS[axes - 1](x, self.weight, self.bias, self.stride, equal, self.dilation, self.groups)


class Conv1dSame(_ConvSame, nn.Conv1d):
    """
    tf.nn.conv1d and Keras' Conv1D with padding="same": [n, in, t] -> [n, out, ceil(t / stride)].

    torch.nn.Conv1d's constructor and state_dict, without `padding`.
    """


class Conv2dSame(_ConvSame, nn.Conv2d):
    """
    tf.nn.conv2d, Keras' and TF-Slim's Conv2D with padding="same": [n, in, h, w] -> [n, out, ceil(h / stride), ...].

    torch.nn.Conv2d's constructor and state_dict, without `padding`. `groups=in_channels` twins a depthwise convolution:
    TensorFlow's output channel i * multiplier + m is torch's.
    """


class Conv3dSame(_ConvSame, nn.Conv3d):
    """
    tf.nn.conv3d and Keras' Conv3D with padding="same": [n, in, d, h, w] -> [n, out, ceil(d / stride), ...].

    torch.nn.Conv3d's constructor and state_dict, without `padding`.
    """


class _ConvTransposeSame(_Same):
    def forward(self, x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        axes = len(self.kernel_size)
        sizes = x.shape[-axes:]
        wanted = [size * stride for size, stride in zip(sizes, self.stride, strict=True)]
        if output_size is not None:
            least = [(size - 1) * stride + 1 for size, stride in zip(sizes, self.stride, strict=True)]
            if len(output_size) != axes or not all(map(_between, least, output_size, wanted)):
                raise ValueError(f"output_size is {list(output_size)}; here SAME gives {least} to {wanted}")
            wanted = list(output_size)
        before, beyond = [], []
        for size, kernel, stride, dilation, end in zip(
            sizes, self.kernel_size, self.stride, self.dilation, wanted, strict=True
        ):
            missing = end - ((size - 1) * stride + (kernel - 1) * dilation + 1)
            before.append(max(-missing, 0) // 2)
            beyond.append(max(missing, 0))
        y = _TRANSPOSED[axes - 1](x, self.weight, self.bias, self.stride, before, beyond, self.groups, self.dilation)
        # torch crops as much at the end as at the start; where TensorFlow crops one more there, one is left.
        for axis, end in enumerate(wanted, start=-axes):
            y = y.narrow(axis, 0, end)
        return y


def _between(low: int, value: int, high: int) -> bool:
    return low <= value <= high


class ConvTranspose1dSame(_ConvTransposeSame, nn.ConvTranspose1d):
    """
    tf.nn.conv1d_transpose and Keras' Conv1DTranspose with padding="same": [n, in, t] -> [n, out, t * stride].

    torch.nn.ConvTranspose1d's constructor and state_dict, without its paddings; see ConvTranspose2dSame.
    """


class ConvTranspose2dSame(_ConvTransposeSame, nn.ConvTranspose2d):
    """
    tf.nn.conv2d_transpose and Keras' Conv2DTranspose with padding="same": [n, in, h, w] -> [n, out, h * stride, ...].

    It is the gradient of the SAME convolution from the output's size to the input's, and crops what that one pads:
    max(kernel - stride, 0) // 2 at the start where the output is size * stride. `forward(x, output_size=[h, w])` gives
    the other sizes that TF1's `output_shape` allows, (size - 1) * stride + 1 to size * stride, and refuses the rest.

    torch.nn.ConvTranspose2d's constructor and state_dict, without `padding` and `output_padding`.
    """


class ConvTranspose3dSame(_ConvTransposeSame, nn.ConvTranspose3d):
    """
    tf.nn.conv3d_transpose and Keras' Conv3DTranspose with padding="same": [n, in, d, h, w] -> [n, out, d * stride, ..].

    torch.nn.ConvTranspose3d's constructor and state_dict, without its paddings; see ConvTranspose2dSame.
    """


class _Pool(nn.Module):
    """Comes before torch's own class among the bases, as _Same does."""

    axes: int
    kernel_size: Any
    stride: Any

    def __init__(self, kernel_size: Size, stride: Size | None = None) -> None:
        super().__init__(kernel_size, stride)

    def _pads(self, x: Tensor) -> list[tuple[int, int]]:
        kernels, strides = (
            (size,) * self.axes if isinstance(size, int) else size for size in (self.kernel_size, self.stride)
        )
        return list(map(same_padding, x.shape[-self.axes :], kernels, strides))

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding=SAME"


class _MaxPoolSame(_Pool):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(_padded(x, self._pads(x), -torch.inf))
        return y


class _AvgPoolSame(_Pool):
    def forward(self, x: Tensor) -> Tensor:
        pads = self._pads(x)
        y: Tensor = super().forward(_padded(x, pads))
        if any(map(any, pads)):
            # What share of each window lies in the input: TensorFlow divides by that part alone.
            inside = x.new_ones((1,) * (x.dim() - self.axes) + tuple(x.shape[-self.axes :]))
            y = y / super().forward(_padded(inside, pads))
        return y


class MaxPool1dSame(_MaxPoolSame, nn.MaxPool1d):
    """
    tf.nn.max_pool1d and Keras' MaxPooling1D with padding="same": [n, c, t] -> [n, c, ceil(t / stride)].

    `stride=None` is `kernel_size`, as in torch and in Keras. Padding never is the maximum, not among negative numbers.
    """

    axes = 1


class MaxPool2dSame(_MaxPoolSame, nn.MaxPool2d):
    """
    tf.nn.max_pool2d and Keras' MaxPooling2D with padding="same": [n, c, h, w] -> [n, c, ceil(h / stride), ...].

    `stride=None` is `kernel_size`, as in torch and in Keras. Padding never is the maximum, not among negative numbers.
    """

    axes = 2


class AvgPool1dSame(_AvgPoolSame, nn.AvgPool1d):
    """
    tf.nn.avg_pool1d and Keras' AveragePooling1D with padding="same": [n, c, t] -> [n, c, ceil(t / stride)].

    The average is over what a window has of the input: padding does not count, as with `count_include_pad=False`.
    """

    axes = 1


class AvgPool2dSame(_AvgPoolSame, nn.AvgPool2d):
    """
    tf.nn.avg_pool2d and Keras' AveragePooling2D with padding="same": [n, c, h, w] -> [n, c, ceil(h / stride), ...].

    The average is over what a window has of the input: padding does not count, as with `count_include_pad=False`.
    """

    axes = 2
