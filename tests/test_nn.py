"""
The layers compute what TensorFlow computes: its operations, Keras' layers, and the cells of TF1, on the same numbers.

Most comparisons are in float64, where the order in which 100 products are summed is no excuse: the tolerance is 1e-12
of the largest output. What TensorFlow has in float32 alone, or sums nothing, is compared in float32 at 1e-6.
"""

from __future__ import annotations

import itertools
import random
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from t2t import nn as twins
from t2t.module import assign, build, inventory

Array = np.ndarray[Any, Any]

TOLERANCE = {np.dtype("float32"): 1e-6, np.dtype("float64"): 1e-12}


@pytest.fixture(scope="module")
def tf() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
        yield pytest.importorskip("tensorflow", reason="compares with TensorFlow", exc_type=ImportError)


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(0)


def numbers(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype)


def last(tensor: Tensor) -> Array:
    """Channels go last, as TensorFlow has them."""
    return tensor.detach().movedim(1, -1).numpy()


def kernel(weight: Tensor) -> Array:
    """OIHW as HWIO, for any number of axes."""
    return weight.detach().movedim((1, 0), (-2, -1)).numpy()


def agree(ours: Tensor, theirs: Any, case: object = "") -> None:
    expected = np.asarray(theirs)
    assert ours.detach().numpy().dtype == expected.dtype, case
    assert tuple(ours.shape) == expected.shape, case
    if expected.size:
        scale = max(np.abs(expected).max(), 1e-3)
        assert np.abs(ours.detach().numpy() - expected).max() <= TOLERANCE[expected.dtype] * scale, case


def some(count: int, *ranges: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Of all combinations these many, drawn by a fixed seed."""
    return random.Random(0).sample(list(itertools.product(*ranges)), count)


# --- SAME convolutions ---


def test_more_is_padded_at_the_end_and_as_much_as_the_size_needs() -> None:
    """The figures of TensorFlow's notes on padding, and ResNet's first layer, where torch's padding=3 is another."""
    assert twins.same_padding(13, 6, 5) == (1, 2)
    assert twins.same_padding(224, 7, 2) == (2, 3)
    assert twins.same_padding(225, 7, 2) == (3, 3)
    assert twins.same_padding(9, 3, 1, 2) == (2, 2)
    assert twins.same_padding(5, 1, 3) == (0, 0)


def test_a_convolution_of_one_axis_pads_as_tensorflow(tf: Any) -> None:
    for size, width, stride, dilation in itertools.product((1, 2, 4, 5, 8), (1, 2, 3, 4, 7), (1, 2, 3), (1, 2, 3)):
        ours: Any = twins.Conv1dSame(2, 3, width, stride, dilation=dilation, bias=False, dtype=torch.float64)
        x = numbers(2, 2, size)
        theirs = tf.nn.conv1d(last(x), kernel(ours.weight), stride, "SAME", dilations=dilation)
        agree(ours(x).movedim(1, -1), theirs, (size, width, stride, dilation))


def test_a_convolution_of_two_axes_pads_each_as_tensorflow(tf: Any) -> None:
    pairs = list(itertools.product((1, 2, 3), (1, 2, 3)))
    for sizes, widths, strides, dilations, groups in some(
        100, list(itertools.product((4, 5, 8), (3, 6, 7))), [(1, 1), (2, 3), (3, 3), (5, 4)], pairs, pairs, (1, 2)
    ):
        ours: Any = twins.Conv2dSame(4, 6, widths, strides, dilation=dilations, groups=groups, dtype=torch.float64)
        x = numbers(2, 4, *sizes)
        theirs = tf.nn.conv2d(last(x), kernel(ours.weight), strides, "SAME", dilations=dilations) + last(
            ours.bias[None]
        )
        agree(ours(x).movedim(1, -1), theirs, (sizes, widths, strides, dilations, groups))


def test_a_convolution_of_three_axes_pads_each_as_tensorflow(tf: Any) -> None:
    """Without dilation, which TensorFlow does not compute on a CPU."""
    sizes = list(itertools.product((2, 3), (4, 5), (5, 6)))
    for size, widths, strides in some(30, sizes, [(1, 2, 3), (3, 3, 3), (2, 4, 5)], [(1, 1, 1), (2, 2, 2), (1, 2, 3)]):
        ours = twins.Conv3dSame(2, 3, widths, strides, bias=False, dtype=torch.float64)
        x = numbers(1, 2, *size)
        theirs = tf.nn.conv3d(last(x), kernel(ours.weight), [1, *strides, 1], "SAME")
        agree(ours(x).movedim(1, -1), theirs, (size, widths, strides))


def test_a_depthwise_convolution_is_one_with_as_many_groups_as_channels(tf: Any) -> None:
    for sizes, widths, (stride, dilation), multiplier in some(
        40, [(5, 6), (8, 7), (4, 4)], [(3, 3), (2, 5)], [(1, 1), (2, 1), (3, 1), (1, 2), (1, 3)], (1, 2, 3)
    ):
        ours = twins.Conv2dSame(
            3, 3 * multiplier, widths, stride, dilation=dilation, groups=3, bias=False, dtype=torch.float64
        )
        x = numbers(2, 3, *sizes)
        weight = ours.weight.detach().reshape(3, multiplier, *widths).permute(2, 3, 0, 1).numpy()
        theirs = tf.nn.depthwise_conv2d(last(x), weight, [1, stride, stride, 1], "SAME", dilations=[dilation] * 2)
        agree(ours(x).movedim(1, -1), theirs, (sizes, widths, stride, dilation, multiplier))


def test_torchs_own_padding_has_the_same_shape_and_other_values(tf: Any) -> None:
    x = numbers(1, 3, 8, 8)
    ours: Any = twins.Conv2dSame(3, 4, 3, stride=2, dtype=torch.float64)
    torchs = nn.Conv2d(3, 4, 3, stride=2, padding=1, dtype=torch.float64)
    torchs.load_state_dict(ours.state_dict())
    theirs = tf.keras.layers.Conv2D(4, 3, 2, "same", dtype="float64")
    theirs.build((None, 8, 8, 3))
    theirs.set_weights([kernel(ours.weight), ours.bias.detach().numpy()])

    agree(ours(x).movedim(1, -1), theirs(last(x)))
    assert torchs(x).shape == ours(x).shape
    with pytest.raises(AssertionError):
        agree(torchs(x).movedim(1, -1), theirs(last(x)))


def test_float32_agrees_too(tf: Any) -> None:
    for size, stride in itertools.product((5, 6, 7), (1, 2, 3)):
        ours = twins.Conv2dSame(2, 3, 3, stride, bias=False)
        x = numbers(1, 2, size, size, dtype=torch.float32)
        agree(ours(x).movedim(1, -1), tf.nn.conv2d(last(x), kernel(ours.weight), stride, "SAME"), (size, stride))


def test_an_image_without_a_batch_is_padded_too() -> None:
    layer = twins.Conv2dSame(2, 3, 3, stride=2)
    pool = twins.AvgPool2dSame(3, 2)
    x = numbers(2, 6, 7, dtype=torch.float32)

    torch.testing.assert_close(layer(x), layer(x[None])[0])
    torch.testing.assert_close(pool(x), pool(x[None])[0])


# --- SAME transposed convolutions ---


def spread(weight: Tensor, dilations: Sequence[int]) -> Tensor:
    """The kernel that does with dilation 1 what this one does with more: zeros between its elements."""
    for axis, dilation in enumerate(dilations, start=2):
        wide = weight.new_zeros(
            [*weight.shape[:axis], (weight.shape[axis] - 1) * dilation + 1, *weight.shape[axis + 1 :]]
        )
        wide.movedim(axis, 0)[::dilation] = weight.movedim(axis, 0)
        weight = wide
    return weight


def test_a_transposed_convolution_of_one_axis_crops_as_tensorflow(tf: Any) -> None:
    for size, width, stride, dilation in itertools.product((1, 2, 4), (1, 2, 3, 4, 5), (1, 2, 3), (1, 2)):
        ours = twins.ConvTranspose1dSame(2, 3, width, stride, dilation=dilation, bias=False, dtype=torch.float64)
        x = numbers(2, 2, size)
        wide = kernel(spread(ours.weight.detach(), [dilation]))
        for end in range((size - 1) * stride + 1, size * stride + 1):
            theirs = tf.nn.conv1d_transpose(last(x), wide, [2, end, 3], stride, "SAME")
            agree(ours(x, [end]).movedim(1, -1), theirs, (size, width, stride, dilation, end))
        agree(ours(x).movedim(1, -1), theirs, (size, width, stride, dilation))


def test_a_transposed_convolution_of_two_axes_crops_each_as_tensorflow(tf: Any) -> None:
    for sizes, widths, strides in some(
        40,
        [(3, 4), (1, 5), (2, 2)],
        list(itertools.product((1, 2, 3, 4), (2, 5))),
        list(itertools.product((1, 2, 3), (2, 3))),
    ):
        ours: Any = twins.ConvTranspose2dSame(2, 3, widths, strides, dtype=torch.float64)
        x = numbers(2, 2, *sizes)
        ends = [size * stride for size, stride in zip(sizes, strides, strict=True)]
        theirs = tf.nn.conv2d_transpose(last(x), kernel(ours.weight), [2, *ends, 3], strides, "SAME")
        agree(ours(x).movedim(1, -1), theirs + ours.bias.detach().numpy(), (sizes, widths, strides))


def test_a_transposed_convolution_of_three_axes_crops_each_as_tensorflow(tf: Any) -> None:
    for widths, strides in itertools.product([(1, 2, 3), (4, 3, 2), (5, 5, 5)], [(1, 1, 1), (2, 2, 2), (3, 2, 1)]):
        ours = twins.ConvTranspose3dSame(2, 3, widths, strides, bias=False, dtype=torch.float64)
        x = numbers(1, 2, 2, 3, 4)
        ends = [size * stride for size, stride in zip((2, 3, 4), strides, strict=True)]
        theirs = tf.nn.conv3d_transpose(last(x), kernel(ours.weight), [1, *ends, 3], [1, *strides, 1], "SAME")
        agree(ours(x).movedim(1, -1), theirs, (widths, strides))


def test_keras_transposed_convolution_is_the_same_and_torchs_usual_padding_is_not(tf: Any) -> None:
    """Kernel 3 and stride 2: torch's padding=1, output_padding=1 crops at the start, TensorFlow at the end."""
    x = numbers(1, 3, 5, 6)
    ours: Any = twins.ConvTranspose2dSame(3, 4, 3, stride=2, dtype=torch.float64)
    torchs = nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1, dtype=torch.float64)
    torchs.load_state_dict(ours.state_dict())
    theirs = tf.keras.layers.Conv2DTranspose(4, 3, 2, "same", dtype="float64")
    theirs.build((None, 5, 6, 3))
    theirs.set_weights([kernel(ours.weight), ours.bias.detach().numpy()])

    agree(ours(x).movedim(1, -1), theirs(last(x)))
    assert torchs(x).shape == ours(x).shape
    with pytest.raises(AssertionError):
        agree(torchs(x).movedim(1, -1), theirs(last(x)))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([10, 13], "output_size is [10, 13]; here SAME gives [9, 11] to [10, 12]"),
        ([8, 12], "output_size is [8, 12]; here SAME gives [9, 11] to [10, 12]"),
        ([10], "output_size is [10]; here SAME gives [9, 11] to [10, 12]"),
    ],
)
def test_an_output_size_that_same_does_not_give_is_refused(asked: list[int], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared
        twins.ConvTranspose2dSame(1, 1, 3, stride=2)(torch.zeros(1, 1, 5, 6), asked)
    assert str(caught.value) == message


# --- SAME pools ---


def test_pools_of_one_axis_pad_as_tensorflow(tf: Any) -> None:
    for size, width, stride in itertools.product((1, 2, 4, 5, 8), (1, 2, 3, 4, 7), (1, 2, 3)):
        x = numbers(2, 3, size)
        for pool, theirs in ((twins.MaxPool1dSame, tf.nn.max_pool1d), (twins.AvgPool1dSame, tf.nn.avg_pool1d)):
            agree(pool(width, stride)(x).movedim(1, -1), theirs(last(x), width, stride, "SAME"), (size, width, stride))


def test_pools_of_two_axes_pad_each_as_tensorflow(tf: Any) -> None:
    for sizes, widths, strides in some(
        60,
        list(itertools.product((1, 4, 5), (5, 8))),
        list(itertools.product((1, 2, 3, 4), (2, 3))),
        [(1, 1), (2, 2), (3, 2)],
    ):
        x = numbers(2, 3, *sizes)
        x_last = tf.constant(last(x))  # TensorFlow takes numpy's float64 for float32 here
        for pool, theirs in ((twins.MaxPool2dSame, tf.nn.max_pool2d), (twins.AvgPool2dSame, tf.nn.avg_pool2d)):
            agree(
                pool(widths, strides)(x).movedim(1, -1),
                theirs(x_last, widths, strides, "SAME"),
                (sizes, widths, strides),
            )


def test_padding_is_no_maximum_and_no_part_of_an_average(tf: Any) -> None:
    """All numbers are negative: a zero of the padding would show."""
    x = -numbers(1, 2, 5, 7, dtype=torch.float32).abs() - 1
    keras = tf.keras.layers

    agree(twins.MaxPool2dSame(3, 2)(x).movedim(1, -1), keras.MaxPooling2D(3, 2, "same")(last(x)))
    agree(twins.AvgPool2dSame(3, 2)(x).movedim(1, -1), keras.AveragePooling2D(3, 2, "same")(last(x)))
    agree(twins.AvgPool2dSame(2)(x).movedim(1, -1), keras.AveragePooling2D(2, padding="same")(last(x)))
    with pytest.raises(AssertionError):
        agree(nn.AvgPool2d(3, 2, padding=1)(x).movedim(1, -1), keras.AveragePooling2D(3, 2, "same")(last(x)))


# --- batch normalization ---

AXES: dict[int, type[Any]] = {2: twins.BatchNorm1d, 3: twins.BatchNorm1d, 4: twins.BatchNorm2d, 5: twins.BatchNorm3d}


@pytest.mark.parametrize("rank", AXES)
def test_batch_normalization_has_keras_defaults_and_averages(tf: Any, rank: int) -> None:
    """Trained for three steps, then evaluated: outputs and running averages, those of biased variances in Keras 3."""
    ours = AXES[rank](4, dtype=torch.float64)
    theirs = tf.keras.layers.BatchNormalization(dtype="float64")
    shape = (5, 4, 3, 2, 3)[:rank]
    theirs.build(last(numbers(*shape)).shape)
    with torch.no_grad():
        ours.weight.copy_(numbers(4))
        ours.bias.copy_(numbers(4))
    theirs.set_weights([ours.state_dict()[name].numpy() for name in ("weight", "bias", "running_mean", "running_var")])

    for _ in range(3):
        x = 3 * numbers(*shape) + 1
        agree(ours.train()(x).movedim(1, -1), theirs(last(x), training=True))
    agree(ours.running_mean, theirs.moving_mean)
    agree(ours.running_var, theirs.moving_variance)
    assert ours.num_batches_tracked == 3
    x = numbers(*shape)
    agree(ours.eval()(x).movedim(1, -1), theirs(last(x), training=False))

    torchs = type(ours).__mro__[2](4, eps=1e-3, momentum=0.01, dtype=torch.float64)
    torchs(3 * x)
    torchs(3 * x)
    biased = AXES[rank](4, dtype=torch.float64)
    biased(3 * x)
    assert not np.allclose(torchs.running_var.numpy(), biased.running_var.numpy(), rtol=1e-6)


def test_batch_normalization_that_is_not_biased_averages_as_the_fused_operation(tf: Any) -> None:
    ours: Any = twins.BatchNorm2d(3, biased=False)
    x = numbers(2, 3, 4, 5, dtype=torch.float32)
    scale, offset = (ours.state_dict()[name].numpy() for name in ("weight", "bias"))
    mean, variance = tf.Variable(tf.zeros(3)), tf.Variable(tf.ones(3))
    y, mean, variance = tf.compat.v1.nn.fused_batch_norm(
        last(x), scale, offset, mean, variance, epsilon=1e-3, exponential_avg_factor=0.01
    )

    agree(ours(x).movedim(1, -1), y)
    agree(ours.running_mean, mean)
    agree(ours.running_var, variance)


def test_a_cumulative_average_is_of_biased_variances_too() -> None:
    """momentum=None is torch's word for the plain average of all batches."""
    ours: Any = twins.BatchNorm1d(2, momentum=None, dtype=torch.float64)
    batches = [numbers(5, 2) for _ in range(4)]
    for batch in batches:
        ours(batch)

    agree(ours.running_var, np.mean([batch.numpy().var(axis=0) for batch in batches], axis=0))


def test_batch_normalization_without_running_averages_normalizes_every_batch() -> None:
    ours: Any = twins.BatchNorm1d(2, track_running_stats=False, affine=False, dtype=torch.float64)
    x = numbers(5, 2)

    values = x.numpy()
    for training in (True, False):
        agree(ours.train(training)(x), (values - values.mean(axis=0)) / np.sqrt(values.var(axis=0) + 1e-3))


# --- activations and channels ---


def test_both_hard_sigmoids_are_those_of_their_keras(tf: Any) -> None:
    from tensorflow.python.keras import backend as keras2

    x = torch.linspace(-4, 4, 801)

    for ours in (twins.hard_sigmoid_keras2, twins.HardSigmoidKeras2()):
        agree(ours(x), keras2.hard_sigmoid(tf.constant(x.numpy())))
    for ours in (twins.hard_sigmoid_keras3, twins.HardSigmoidKeras3()):
        agree(ours(x), tf.keras.activations.hard_sigmoid(x.numpy()))
    assert (twins.hard_sigmoid_keras2(x) - twins.hard_sigmoid_keras3(x)).abs().max() > 0.08


def test_channels_become_pixels_in_tensorflows_order(tf: Any) -> None:
    for block, channels, height, width in itertools.product((1, 2, 3), (1, 2, 3), (1, 2), (1, 3)):
        deep = numbers(2, block * block * channels, height, width)
        wide = numbers(2, channels, height * block, width * block)

        if block > 1:
            agree(twins.DepthToSpace(block)(deep).movedim(1, -1), tf.nn.depth_to_space(last(deep), block))
            agree(twins.SpaceToDepth(block)(wide).movedim(1, -1), tf.nn.space_to_depth(last(wide), block))
        assert torch.equal(twins.SpaceToDepth(block)(twins.DepthToSpace(block)(deep)), deep)
        same = torch.equal(nn.PixelShuffle(block)(deep), twins.DepthToSpace(block)(deep))
        assert same == (block == 1 or channels == 1)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (
            twins.DepthToSpace(2),
            (1, 6, 2, 2),
            "the input is [1, 6, 2, 2]; DepthToSpace(2) takes [n, a multiple of 4, h, w]",
        ),
        (
            twins.SpaceToDepth(2),
            (1, 6, 2, 3),
            "the input is [1, 6, 2, 3]; SpaceToDepth(2) takes [n, c, h, w], h and w multiples of 2",
        ),
        (twins.DepthToSpace(2), (8, 2, 2), "the input is [8, 2, 2]; DepthToSpace(2) takes [n, a multiple of 4, h, w]"),
    ],
    ids=["channels", "width", "rank"],
)
def test_a_shape_without_whole_blocks_is_refused(layer: nn.Module, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared
        layer(torch.zeros(shape))
    assert str(caught.value) == message


# --- recurrent layers ---

#: Where torch's gates are among TensorFlow's: r z n in z r h, i f g o in i c f o and in Keras' i f c o.
ZRH, ICFO, IFCO = (1, 0, 2), (0, 2, 1, 3), (0, 1, 2, 3)


def gates(stored: Any, order: Sequence[int]) -> Tensor:
    """TensorFlow's [x, gates * u] or [gates * u] as torch's [gates * u, x], the gates in torch's order."""
    parts = np.split(np.asarray(stored), len(order), axis=-1)
    return torch.from_numpy(np.concatenate([parts[index] for index in order], axis=-1).T.copy())


def fill_like_keras(layer: Any, weights: Sequence[Any], order: Sequence[int], suffix: str) -> None:
    """Keras' kernel, recurrent_kernel and bias into torch's parameters."""
    values = dict(zip(("weight_ih", "weight_hh", "bias_ih"), (gates(weight, order) for weight in weights), strict=True))
    with torch.no_grad():
        for name, value in values.items():
            getattr(layer, name + suffix).copy_(value)
        if hasattr(layer, f"bias_hh{suffix}"):
            getattr(layer, f"bias_hh{suffix}").zero_()


def random_weights(layer: Any, shape: Sequence[int | None]) -> list[Array]:
    """Builds the Keras layer and gives it random weights, the biases too."""
    layer.build(shape)
    layer.set_weights([numbers(*weight.shape).numpy() for weight in layer.get_weights()])
    return list(layer.get_weights())


HARD = {"sigmoid": "sigmoid", "hard_sigmoid": "hard_sigmoid_keras3"}


@pytest.mark.parametrize("recurrent_activation", HARD)
@pytest.mark.parametrize("activation", ["tanh", "relu", "linear"])
def test_a_gru_with_the_reset_before_is_keras(tf: Any, activation: str, recurrent_activation: str) -> None:
    options = {"activation": activation, "recurrent_activation": recurrent_activation}
    theirs = tf.keras.layers.GRU(
        4, reset_after=False, return_sequences=True, return_state=True, dtype="float64", **options
    )
    ours: Any = twins.GRU(
        3,
        4,
        batch_first=True,
        activation=activation,
        recurrent_activation=HARD[recurrent_activation],
        dtype=torch.float64,
    )
    fill_like_keras(ours, random_weights(theirs, (None, 6, 3)), ZRH, "_l0")
    x, start = numbers(2, 6, 3), numbers(2, 4)

    for initial, ours_initial in ((None, None), (start.numpy(), start[None])):
        outputs, state = theirs(x.numpy(), initial_state=initial)
        output, h_n = ours(x, ours_initial)
        agree(output, outputs)
        agree(h_n[0], state)


def test_torchs_gru_computes_something_else_from_the_same_weights() -> None:
    ours = twins.GRU(3, 4)
    torchs = nn.GRU(3, 4)
    torchs.load_state_dict({**ours.state_dict(), "bias_hh_l0": torch.zeros(12)})
    x = numbers(5, 2, 3, dtype=torch.float32)

    assert (ours(x)[0] - torchs(x)[0]).abs().max() > 1e-3
    # The first step starts from zeros, which a reset gate leaves as they are: it does not tell them apart.
    torch.testing.assert_close(ours(x[:1])[0], torchs(x[:1])[0])


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_both_directions_are_keras_bidirectional(tf: Any, kind: str) -> None:
    options = {"reset_after": False} if kind == "GRU" else {}
    inner = getattr(tf.keras.layers, kind)(4, return_sequences=True, dtype="float64", **options)
    theirs = tf.keras.layers.Bidirectional(inner, dtype="float64")
    weights = random_weights(theirs, (None, 6, 3))
    ours = getattr(twins, kind)(3, 4, batch_first=True, bidirectional=True, dtype=torch.float64)
    order = ZRH if kind == "GRU" else IFCO
    fill_like_keras(ours, weights[:3], order, "_l0")
    fill_like_keras(ours, weights[3:], order, "_l0_reverse")
    x = numbers(2, 6, 3)

    agree(ours(x)[0], theirs(x.numpy()))


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_the_defaults_of_keras_2_are_hard(tf: Any, kind: str) -> None:
    """The Keras inside TensorFlow still has its first GRU and LSTM: the reset before, the first hard_sigmoid."""
    from tensorflow.python.keras.layers import recurrent

    theirs = getattr(recurrent, kind)(4, return_sequences=True, dtype="float64")
    x = numbers(2, 6, 3)
    weights = random_weights(theirs, (None, 6, 3))
    ours = getattr(twins, kind)(3, 4, batch_first=True, recurrent_activation="hard_sigmoid_keras2", dtype=torch.float64)
    fill_like_keras(ours, weights, ZRH if kind == "GRU" else IFCO, "_l0")
    agree(ours(x)[0], theirs(x.numpy()))

    ours.recurrent_activation = "hard_sigmoid_keras3"
    with pytest.raises(AssertionError):
        agree(ours(x)[0], theirs(x.numpy()))


def run_tf1(cell: Any, x: Tensor, state: Any) -> tuple[Array, Any]:
    """A cell of TF1 over time [t, n, x], with random weights: outputs and last state."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # building them warns that Keras' will replace them
        cell.build((None, x.shape[2]))
    cell.set_weights([numbers(*weight.shape).numpy() for weight in cell.get_weights()])
    outputs = []
    for step in x:
        output, state = cell(step.numpy(), state)
        outputs.append(np.asarray(output))
    return np.stack(outputs), state


def tf1_cell(name: str, *arguments: Any, **options: Any) -> Any:
    from tensorflow.python.keras.layers.legacy_rnn import rnn_cell_impl

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it is deprecated
        return getattr(rnn_cell_impl, name)(*arguments, dtype="float64", **options)


@pytest.mark.usefixtures("tf")
def test_a_gru_is_tf1s_gru_cell_with_its_kernels_apart() -> None:
    x, start = numbers(5, 2, 3), numbers(2, 4)
    cell = tf1_cell("GRUCell", 4)
    outputs, state = run_tf1(cell, x, start.numpy())
    gate, gate_bias, candidate, candidate_bias = cell.get_weights()
    ours: Any = twins.GRU(3, 4, dtype=torch.float64)
    one: Any = twins.GRUCell(3, 4, dtype=torch.float64)
    for layer, suffix in ((ours, "_l0"), (one, "")):
        joined = np.concatenate([gate, candidate], axis=1)  # r u c: torch's r z n
        weights = (joined[:3], joined[3:], np.concatenate([gate_bias, candidate_bias]))
        fill_like_keras(layer, weights, (0, 1, 2), suffix)

    output, h_n = ours(x, start[None])

    agree(output, outputs)
    agree(h_n[0], state)
    h = start
    for step, expected in zip(x, outputs, strict=True):
        h = one(step, h)
        agree(h, expected)


@pytest.mark.parametrize("recurrent_activation", HARD)
def test_an_lstm_is_keras(tf: Any, recurrent_activation: str) -> None:
    theirs = tf.keras.layers.LSTM(
        4, recurrent_activation=recurrent_activation, return_sequences=True, return_state=True, dtype="float64"
    )
    ours: Any = twins.LSTM(3, 4, batch_first=True, recurrent_activation=HARD[recurrent_activation], dtype=torch.float64)
    fill_like_keras(ours, random_weights(theirs, (None, 6, 3)), IFCO, "_l0")
    x, h, c = numbers(2, 6, 3), numbers(2, 4), numbers(2, 4)

    outputs, last_h, last_c = theirs(x.numpy(), initial_state=[h.numpy(), c.numpy()])
    output, (h_n, c_n) = ours(x, (h[None], c[None]))

    agree(output, outputs)
    agree(h_n[0], last_h)
    agree(c_n[0], last_c)


OPTIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "forget_bias": {"forget_bias": 1.5},
    "peepholes": {"use_peepholes": True},
    "projection": {"num_proj": 3},
    "clips": {"cell_clip": 0.3, "num_proj": 3, "proj_clip": 0.2},
    "everything": {"use_peepholes": True, "cell_clip": 0.3, "num_proj": 5, "proj_clip": 0.2, "activation": "relu"},
}
OURS = {"use_peepholes": "peepholes", "num_proj": "proj_size"}


@pytest.mark.usefixtures("tf")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_an_lstm_is_tf1s_lstm_cell(options: dict[str, Any]) -> None:
    """The forget bias is 1 where TF1's cell is not told otherwise."""
    size = options.get("num_proj", 4)
    x, h, c = numbers(5, 2, 3), numbers(2, size), numbers(2, 4)
    cell = tf1_cell("LSTMCell", 4, **options)
    outputs, state = run_tf1(cell, x, (c.numpy(), h.numpy()))
    stored = {
        weight.name.partition("/")[2].removesuffix(":0"): value
        for weight, value in zip(cell.weights, cell.get_weights(), strict=True)
    }
    chosen = {"forget_bias": 1.0, **{OURS.get(name, name): value for name, value in options.items()}}
    ours: Any = twins.LSTM(3, 4, **chosen, dtype=torch.float64)
    one: Any = twins.LSTMCell(3, 4, **chosen, dtype=torch.float64)
    for layer, suffix in ((ours, "_l0"), (one, "")):
        fill_like_keras(layer, (stored["kernel"][:3], stored["kernel"][3:], stored["bias"]), ICFO, suffix)
        values = {
            name: torch.from_numpy(stored[name]) for name in ("w_i_diag", "w_f_diag", "w_o_diag") if name in stored
        }
        if "projection/kernel" in stored:
            values["weight_hr"] = torch.from_numpy(stored["projection/kernel"].T)
        layer.load_state_dict({**layer.state_dict(), **{name + suffix: value for name, value in values.items()}})

    output, (h_n, c_n) = ours(x, (h[None], c[None]))

    agree(output, outputs)
    agree(h_n[0], state[1])
    agree(c_n[0], state[0])
    for step, expected in zip(x, outputs, strict=True):
        h, c = one(step, (h, c))
        agree(h, expected)
    agree(c, state[0])


@pytest.mark.usefixtures("tf")
def test_an_lstm_with_a_forget_bias_is_tf1s_basic_lstm_cell() -> None:
    x = numbers(5, 2, 3)
    cell = tf1_cell("BasicLSTMCell", 4)
    zeros = np.zeros((2, 4))
    outputs, _ = run_tf1(cell, x, (zeros, zeros))
    kernels, bias = cell.get_weights()
    ours: Any = twins.LSTM(3, 4, forget_bias=1.0, dtype=torch.float64)
    fill_like_keras(ours, (kernels[:3], kernels[3:], bias), ICFO, "_l0")

    agree(ours(x)[0], outputs)


@pytest.mark.parametrize("proj_size", [0, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_an_lstm_with_nothing_special_is_torchs(proj_size: int, bidirectional: bool, bias: bool) -> None:
    """With torch's state_dict, as it is."""
    options: Any = {"proj_size": proj_size, "bidirectional": bidirectional, "bias": bias, "batch_first": True}
    torchs = nn.LSTM(3, 4, **options).double()
    ours = twins.LSTM(3, 4, **options).double()
    ours.load_state_dict(torchs.state_dict())
    x = numbers(2, 6, 3)

    (output, (h_n, c_n)), (expected, (h, c)) = ours(x), torchs(x)

    for one, other in ((output, expected), (h_n, h), (c_n, c)):
        agree(one, other.detach())


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared
        call()
    return str(caught.value)


def test_a_recurrent_layer_says_what_it_cannot_take() -> None:
    """Wrong shapes above all that would be broadcast: a state without its first axis."""
    gru, lstm, cell = twins.GRU(3, 4), twins.LSTM(3, 4, proj_size=2, batch_first=True), twins.LSTMCell(3, 4)
    x = torch.zeros(2, 5, 3)

    assert refusal(lambda: gru(x, torch.zeros(5, 4))) == "the state is [5, 4]; it has to be [1, 5, 4]"
    assert refusal(lambda: lstm(x, (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)))) == (
        "the state is [1, 2, 4] and [1, 2, 4]; it has to be [1, 2, 2] and [1, 2, 4]"
    )
    assert refusal(lambda: cell(x[0], (torch.zeros(4), torch.zeros(4)))) == (
        "the state is [4] and [4]; it has to be [5, 4] and [5, 4]"
    )
    assert refusal(lambda: gru(x[0])) == "the input is [5, 3]; it has to be [time, batch, 3], with a time step"
    assert refusal(lambda: lstm(x[:, :0])) == "the input is [2, 0, 3]; it has to be [batch, time, 3], with a time step"
    assert refusal(lambda: cell(x)) == "the input is [2, 5, 3]; it has to be [batch, 3]"
    assert refusal(lambda: twins.GRU(3, 4, recurrent_activation="hard_sigmoid")) == (
        "recurrent_activation is 'hard_sigmoid'; "
        "it may be tanh, sigmoid, hard_sigmoid_keras2, hard_sigmoid_keras3, relu, linear"
    )
    assert refusal(lambda: twins.LSTM(3, 4, proj_clip=0.5)) == (
        "proj_clip is 0.5 without a projection; give proj_size, too"
    )


# --- as modules ---

#: One of each with torch's own, whose names of parameters and buffers it has.
LIKE: list[tuple[nn.Module, nn.Module]] = [
    (twins.Conv1dSame(4, 6, 3, 2, groups=2), nn.Conv1d(4, 6, 3, 2, groups=2)),
    (twins.Conv2dSame(4, 6, (3, 2), bias=False), nn.Conv2d(4, 6, (3, 2), bias=False)),
    (twins.Conv3dSame(4, 6, 3), nn.Conv3d(4, 6, 3)),
    (twins.ConvTranspose1dSame(4, 6, 3, 2, groups=2), nn.ConvTranspose1d(4, 6, 3, 2, groups=2)),
    (twins.ConvTranspose2dSame(4, 6, 3), nn.ConvTranspose2d(4, 6, 3)),
    (twins.ConvTranspose3dSame(4, 6, 3), nn.ConvTranspose3d(4, 6, 3)),
    (twins.BatchNorm1d(4), nn.BatchNorm1d(4)),
    (twins.BatchNorm2d(4), nn.BatchNorm2d(4)),
    (twins.BatchNorm3d(4), nn.BatchNorm3d(4)),
    (twins.LSTM(3, 4, bidirectional=True), nn.LSTM(3, 4, bidirectional=True)),
    (twins.LSTM(3, 4, proj_size=2), nn.LSTM(3, 4, proj_size=2)),
    (twins.LSTMCell(3, 4), nn.LSTMCell(3, 4)),
]


@pytest.mark.parametrize(("ours", "torchs"), LIKE, ids=lambda layer: type(layer).__name__)
def test_the_state_dict_is_that_of_torchs_layer_and_in_its_order(ours: nn.Module, torchs: nn.Module) -> None:
    def shapes(layer: nn.Module) -> list[Any]:
        return [(name, tensor.shape, tensor.dtype) for name, tensor in layer.state_dict().items()]

    assert shapes(ours) == shapes(torchs)


def test_a_gru_lacks_torchs_second_bias() -> None:
    torchs = nn.GRU(3, 4, bidirectional=True).state_dict()
    ours = twins.GRU(3, 4, bidirectional=True).state_dict()

    assert {name: value.shape for name, value in ours.items()} == {
        name: value.shape for name, value in torchs.items() if not name.startswith("bias_hh")
    }
    assert list(twins.GRUCell(3, 4, bias=False).state_dict()) == ["weight_ih", "weight_hh"]


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (
            twins.Conv2dSame(4, 6, 3, stride=2, groups=2),
            "Conv2dSame(4, 6, kernel_size=(3, 3), stride=(2, 2), groups=2, padding=SAME)",
        ),
        (twins.ConvTranspose1dSame(4, 6, 3), "ConvTranspose1dSame(4, 6, kernel_size=(3,), stride=(1,), padding=SAME)"),
        (twins.MaxPool2dSame(3, 2), "MaxPool2dSame(kernel_size=3, stride=2, padding=SAME)"),
        (twins.AvgPool1dSame(3), "AvgPool1dSame(kernel_size=(3,), stride=(3,), padding=SAME)"),
        (twins.DepthToSpace(2), "DepthToSpace(2)"),
        (twins.GRU(3, 4), "GRU(3, 4)"),
        (
            twins.LSTM(3, 4, batch_first=True, forget_bias=1.0, recurrent_activation="hard_sigmoid_keras2"),
            "LSTM(3, 4, batch_first=True, recurrent_activation=hard_sigmoid_keras2, forget_bias=1.0)",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_layers_repr_says_what_it_does(layer: nn.Module, text: str) -> None:
    assert repr(layer) == text


def test_batch_normalizations_repr_says_its_numbers() -> None:
    assert repr(twins.BatchNorm2d(4)).startswith("BatchNorm2d(4, eps=0.001, momentum=0.01, affine=True")
    assert "biased=True" in repr(twins.BatchNorm2d(4))
    assert repr(twins.BatchNorm2d(4, biased=False)).endswith("biased=False)")


def test_a_padding_is_no_argument() -> None:
    """A padding beside SAME would be added in silence."""
    classes: list[Any] = [twins.Conv2dSame, twins.ConvTranspose2dSame]
    for layer in classes:
        with pytest.raises(TypeError, match="unexpected keyword argument 'padding'"):
            layer(1, 1, 3, padding=1)
    pool: Any = twins.MaxPool2dSame
    with pytest.raises(TypeError, match="unexpected keyword argument 'padding'"):
        pool(3, padding=1)


BUILT: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "Conv2dSame": ({"in_channels": 4, "out_channels": 6, "kernel_size": 3, "stride": 2}, (1, 4, 6, 6)),
    "ConvTranspose2dSame": ({"in_channels": 4, "out_channels": 6, "kernel_size": 3, "stride": 2}, (1, 4, 6, 6)),
    "BatchNorm2d": ({"num_features": 4}, (1, 4, 6, 6)),
    "GRU": ({"input_size": 4, "hidden_size": 3, "bidirectional": True}, (5, 1, 4)),
    "LSTM": ({"input_size": 4, "hidden_size": 3, "peepholes": True, "proj_size": 2}, (5, 1, 4)),
}


@pytest.mark.parametrize("name", BUILT)
def test_a_layer_is_built_without_its_weights_and_filled(name: str) -> None:
    arguments, shape = BUILT[name]
    reference = getattr(twins, name)(**arguments).eval()
    built = build(f"t2t.nn:{name}", arguments)

    assert built.on_meta
    assert built.notes == ()
    assert list(inventory(built.module).parameters) == list(reference.state_dict())
    assign(built.module, {name: tensor.clone() for name, tensor in reference.state_dict().items()})
    x = numbers(*shape, dtype=torch.float32)
    torch.testing.assert_close(built.module.eval()(x), reference(x), rtol=0, atol=0)


def test_a_layer_learns() -> None:
    """Every parameter of every layer gets a gradient that is not zero."""
    layers: list[tuple[Any, tuple[int, ...]]] = [
        (twins.GRU(4, 3, bidirectional=True), (5, 2, 4)),
        (twins.LSTM(4, 3, peepholes=True, proj_size=2, cell_clip=9.0, proj_clip=9.0), (5, 2, 4)),
        (twins.Conv2dSame(4, 2, 3, 2), (1, 4, 6, 6)),
        (twins.ConvTranspose2dSame(4, 2, 3, 2), (1, 4, 6, 6)),
        (twins.BatchNorm2d(4), (2, 4, 6, 6)),
    ]
    for layer, shape in layers:
        y = layer(numbers(*shape, dtype=torch.float32))
        y = y if isinstance(y, Tensor) else y[0]
        (y * torch.rand_like(y)).sum().backward()
        for name, parameter in layer.named_parameters():
            assert parameter.grad is not None, (layer, name)
            assert parameter.grad.abs().max() > 0, (layer, name)


def test_every_public_name_is_exported_and_needs_torch_alone() -> None:
    """In a process of its own: whoever copies a twin elsewhere needs no other part of t2t."""
    code = (
        "import sys, t2t.nn; print(sorted(n for n in sys.modules if n.startswith('t2t.')), 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    files = ["t2t.nn", *(f"t2t.nn.{name}" for name in ("activations", "depth", "normalization", "recurrent", "same"))]
    assert done.stdout == f"{files} False\n"
    assert all(hasattr(twins, name) for name in twins.__all__)


def test_the_page_names_every_layer_and_its_example_runs() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "nn.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)

    assert [name for name in twins.__all__ if not re.search(rf"`[^`]*\b{name}\b[^`]*`", page)] == []
    exec(example, {})
