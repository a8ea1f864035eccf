"""
ResNet-50 in plain TensorFlow ops, over the variables of a checkpoint with the published names: TF-Slim's (v1) and that
of TF's official models (v1.5).

Written from the two architectures as they were published, for people who have a checkpoint and no longer the program
that trained it. In TensorFlow's layout, NHWC; how wide the layers are, the variables say.

https://github.com/tensorflow/models/blob/master/research/slim/nets/resnet_v1.py
https://github.com/tensorflow/models/blob/v1.13.0/official/resnet/resnet_model.py
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

Run = Callable[[dict[str, Any]], dict[str, Any]]

#: Units in each of the four blocks.
UNITS = (3, 4, 6, 3)

EPSILON = 1e-5


def slim(checkpoint: str) -> Run:
    """
    TF-Slim's resnet_v1_50. Input `image` [n, h, w, 3], output `logits` [n, classes].

    A block has its stride in its last unit, whose shortcut then is each second pixel; the last block has none.
    """
    import tensorflow as tf

    get = _variables(checkpoint)

    def conv(x: Any, name: str, stride: int = 1, *, relu: bool = True) -> Any:
        x = _normalized(_conv(x, get(f"{name}/weights"), stride), lambda part: get(f"{name}/BatchNorm/{part}"))
        return tf.nn.relu(x) if relu else x

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        net = "resnet_v1_50"
        x = conv(tf.constant(inputs["image"]), f"{net}/conv1", 2)
        x = tf.nn.max_pool2d(x, 3, 2, "SAME")
        for block, units in enumerate(UNITS, 1):
            for unit in range(1, units + 1):
                scope = f"{net}/block{block}/unit_{unit}/bottleneck_v1"
                stride = 2 if unit == units and block < len(UNITS) else 1
                if unit == 1:
                    shortcut = conv(x, f"{scope}/shortcut", stride, relu=False)
                else:
                    shortcut = tf.nn.max_pool2d(x, 1, stride, "VALID")
                y = conv(x, f"{scope}/conv1")
                y = conv(y, f"{scope}/conv2", stride)
                y = conv(y, f"{scope}/conv3", relu=False)
                x = tf.nn.relu(shortcut + y)
        x = tf.reduce_mean(x, [1, 2], keepdims=True)
        x = tf.nn.conv2d(x, get(f"{net}/logits/weights"), 1, "SAME") + get(f"{net}/logits/biases")
        return {"logits": tf.squeeze(x, [1, 2]).numpy()}

    return run


def official(checkpoint: str) -> Run:
    """
    TF's official ResNet-50, version 1. Input `image` [n, h, w, 3], output `logits` [n, classes].

    Layers have no names, only the numbers in which they were made: a block's projection comes before its convolutions.
    The first block of a stage has the stride, in its 3 x 3.
    """
    import tensorflow as tf

    get = _variables(checkpoint)

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        numbers = count()

        def conv(x: Any, stride: int = 1, *, relu: bool = True) -> Any:
            number = next(numbers)
            suffix = f"_{number}" if number else ""
            x = _conv(x, get(f"resnet_model/conv2d{suffix}/kernel"), stride)
            x = _normalized(x, lambda part: get(f"resnet_model/batch_normalization{suffix}/{part}"))
            return tf.nn.relu(x) if relu else x

        x = conv(tf.constant(inputs["image"]), 2)
        x = tf.nn.max_pool2d(x, 3, 2, "SAME")
        for stage, blocks in enumerate(UNITS):
            for block in range(blocks):
                stride = 2 if block == 0 and stage > 0 else 1
                shortcut = conv(x, stride, relu=False) if block == 0 else x
                x = tf.nn.relu(conv(conv(conv(x), stride), relu=False) + shortcut)
        x = tf.reduce_mean(x, [1, 2])
        return {"logits": (x @ get("resnet_model/dense/kernel") + get("resnet_model/dense/bias")).numpy()}

    return run


def _variables(checkpoint: str) -> Callable[[str], Any]:
    import tensorflow as tf

    reader = tf.train.load_checkpoint(checkpoint)
    return lambda name: tf.constant(reader.get_tensor(name))


def _conv(x: Any, kernel: Any, stride: int) -> Any:
    """Both originals pad a convolution with a stride by the kernel's size, not by the image's as SAME would."""
    import tensorflow as tf

    if stride == 1:
        return tf.nn.conv2d(x, kernel, 1, "SAME")
    whole = kernel.shape[0] - 1
    ends = [whole // 2, whole - whole // 2]
    return tf.nn.conv2d(tf.pad(x, [[0, 0], ends, ends, [0, 0]]), kernel, stride, "VALID")


def _normalized(x: Any, get: Callable[[str], Any]) -> Any:
    """The fused operation, which both originals ask for. (TensorFlow 1 had it take 1.001e-5 for a smaller epsilon.)"""
    import tensorflow as tf

    parts = (get(part) for part in ("gamma", "beta", "moving_mean", "moving_variance"))
    return tf.compat.v1.nn.fused_batch_norm(x, *parts, epsilon=EPSILON, is_training=False)[0]
