"""
The child process in which TensorFlow builds models for the tests of lint: `python with_graphs.py FOLDER`.

    vision.ckpt, .meta     TF1: convolutions of every kind, normalizations, a Flatten, dense layers, a loss, gradients
    lstm.ckpt, .meta       TF1: a recurrent cell that adds a forget bias, run twice
    frozen.pb              a part of vision, its variables constants
    functions              TF2, a SavedModel: the same kinds of layers, inside functions, a branch and a loop
    keras                  Keras 3, a SavedModel of model.export
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras  # type: ignore[import-untyped]
import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
random = np.random.default_rng(0)


def variable(name: str, *shape: int) -> Any:
    return v1.get_variable(name, initializer=random.normal(size=shape).astype(np.float32))


def normalized(x: Any, name: str, channels: int, *, is_fused: bool) -> Any:
    gamma, beta, mean = (variable(f"{name}/{part}", channels) for part in ("gamma", "beta", "moving_mean"))
    variance = v1.get_variable(f"{name}/moving_variance", initializer=random.random(channels).astype(np.float32))
    if not is_fused:
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 0.01)
    made, *_ = v1.nn.fused_batch_norm(x, gamma, beta, mean, variance, epsilon=0.001, is_training=False)
    return made


def vision() -> dict[str, Any]:
    x = v1.placeholder(tf.float32, [None, 12, 10, 3], name="x")
    y = tf.nn.conv2d(x, variable("conv1/kernel", 3, 3, 3, 6), 1, "SAME") + variable("conv1/bias", 6)
    y = tf.nn.relu(normalized(y, "norm1", 6, is_fused=True))
    y = tf.nn.conv2d(y, variable("conv2/kernel", 3, 3, 6, 6), 2, "SAME")
    y = tf.nn.relu(normalized(y, "norm2", 6, is_fused=False))
    y = tf.nn.depthwise_conv2d(y, variable("depthwise/kernel", 3, 3, 6, 2), [1, 1, 1, 1], "SAME")
    y = tf.nn.bias_add(y, variable("depthwise/bias", 12))
    y = tf.nn.conv2d(y, variable("dilated/kernel", 1, 3, 12, 4), 1, "VALID", dilations=[1, 2])
    y = tf.nn.conv2d_transpose(y, variable("up/kernel", 2, 2, 4, 4), [v1.shape(y)[0], 12, 2, 4], 2, "SAME")
    y = tf.nn.max_pool2d(y, 2, [2, 1], "SAME")
    y = tf.reshape(tf.nn.relu(y), [v1.shape(y)[0], 48], name="flat")
    y = tf.nn.dropout(y, rate=0.25 * v1.placeholder_with_default(0.0, []))
    y = tf.nn.relu(tf.matmul(y, variable("fc1/kernel", 48, 8)) + variable("fc1/bias", 8), name="hidden")
    y = tf.nn.relu(tf.nn.bias_add(tf.matmul(y, variable("fc2/kernel", 8, 8)), variable("fc2/bias", 8)))
    logits = tf.matmul(y, variable("fc3/weights", 8, 8), transpose_b=True, name="logits")
    line = v1.placeholder(tf.float32, [None, 9, 4], name="line")
    z = tf.nn.conv1d(line, variable("conv1d/kernel", 3, 4, 4), 1, "SAME")
    z = tf.tensordot(z, variable("each/kernel", 4, 4), 1)
    volume = tf.reshape(z, [-1, 3, 3, 2, 2])
    tf.nn.conv3d(volume, variable("conv3d/kernel", 3, 3, 3, 2, 2), [1] * 5, "SAME", name="volumes")
    aside = tf.matmul(y, variable("aside/kernel", 8, 8), name="aside")
    loss = tf.reduce_sum(logits) + tf.reduce_sum(aside)
    v1.train.GradientDescentOptimizer(0.1).minimize(loss)
    return {"logits": logits}


def lstm() -> None:
    x = v1.placeholder(tf.float32, [None, 3], name="x")
    kernel, bias = variable("cell/kernel", 7, 16), variable("cell/bias", 16)
    h = c = tf.zeros([v1.shape(x)[0], 4])
    for _ in range(2):
        total = tf.nn.bias_add(tf.matmul(tf.concat([x, h], 1), kernel), bias)
        i, j, f, o = tf.split(total, 4, 1)
        c = tf.sigmoid(f + 1.0) * c + tf.sigmoid(i) * tf.tanh(j)
        h = tf.sigmoid(o) * tf.tanh(c)
    tf.identity(h, name="h")


class Functions(tf.Module):  # type: ignore[misc]
    """Two layers of one name, one of them read in a branch, the other in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = tf.Variable(random.normal(size=(3, 3, 1, 4)).astype(np.float32), name="conv/kernel")
        self.one = tf.Variable(random.normal(size=(64, 64)).astype(np.float32), name="dense/kernel")
        self.two = tf.Variable(random.normal(size=(64, 64)).astype(np.float32), name="dense/kernel")
        self.head = tf.Variable(random.normal(size=(64, 64)).astype(np.float32), name="head/kernel")

    @tf.function(input_signature=[tf.TensorSpec([None, 4, 4, 1])])  # type: ignore[untyped-decorator]
    def __call__(self, x: Any) -> Any:
        y = tf.nn.relu(tf.nn.conv2d(x, self.conv, 1, "SAME"))
        y = tf.reshape(y, [tf.shape(y)[0], -1])
        y = tf.cond(tf.reduce_sum(y) > 0, lambda: tf.matmul(y, self.one), lambda: y)
        _, y = tf.while_loop(lambda i, _: i < 2, lambda i, y: (i + 1, tf.matmul(y, self.two)), (0, y))
        return tf.matmul(y, self.head)


def main(folder: Path) -> None:
    with v1.Graph().as_default() as graph, v1.Session() as session:
        vision()
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / "vision.ckpt"))
        frozen = v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ["logits"])
        (folder / "frozen.pb").write_bytes(frozen.SerializeToString())
    with v1.Graph().as_default(), v1.Session() as session:
        lstm()
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / "lstm.ckpt"))
    module = Functions()
    tf.saved_model.save(module, str(folder / "functions"))
    model = keras.Sequential(
        [
            keras.Input((8, 6, 2)),
            keras.layers.Conv2D(4, 3, strides=2, padding="same", name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Flatten(),
            keras.layers.Dense(12, name="dense"),
        ]
    )
    model.export(str(folder / "keras"), verbose=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
