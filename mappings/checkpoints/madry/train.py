"""
Trains the example's checkpoint: MadryLab's MNIST network, in TensorFlow 1 style, on scikit-learn's digits.

    python mappings/checkpoints/madry/train.py [--out DIR]

The graph is written as in MadryLab/mnist_challenge, with unnamed variables in the same order, so that one mapping fits
their checkpoints and this one (`Variable` to `Variable_7`, `Placeholder:0`, `add_3:0`). Training is plain, not
adversarial. The same machine writes the same bytes again.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, NamedTuple

# TensorFlow reads these when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("TF_DETERMINISTIC_OPS", "1")

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

STEPS = 700
BATCH = 50
SEED = 0
HELD_OUT = 360

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


class Network(NamedTuple):
    """The tensors and ops of the default graph that training needs."""

    x: Any
    labels: Any
    accuracy: Any
    train: Any
    saver: Any


def digits() -> tuple[Floats, Floats, Labels, Labels]:
    """Pixels [n, 784] and labels [n], for training and held out: x, held-out x, labels, held-out labels."""
    data = load_digits()
    labels = data.target.astype(np.int64)
    x_train, x_test, labels_train, labels_test = train_test_split(
        enlarged(data.images / 16), labels, test_size=HELD_OUT, random_state=SEED, stratify=labels
    )
    return x_train, x_test, labels_train, labels_test


def enlarged(images: NDArray[np.float64]) -> Floats:
    """Images [n, 8, 8] in [0, 1] as MNIST has them, [n, 784]: 20 by 20 in a border of 4, pixels rounded to 1/255."""
    weights = np.stack([np.interp(np.linspace(0, 7, 20), np.arange(8), row) for row in np.eye(8)], axis=1)
    pixels = np.round(weights @ images @ weights.T * 255) / 255
    return np.pad(pixels, ((0, 0), (4, 4), (4, 4))).reshape(-1, 28 * 28).astype(np.float32)


def parameters(*shape: int) -> tuple[Any, Any]:
    """A layer's two variables, without names of their own: TensorFlow counts them up."""
    kernel = tf.Variable(tf.truncated_normal(shape, stddev=0.1))
    return kernel, tf.Variable(tf.constant(0.1, shape=shape[-1:]))


def convolution(x: Any, inputs: int, outputs: int) -> Any:
    """Five by five, relu, and the larger of each two by two."""
    kernel, bias = parameters(5, 5, inputs, outputs)
    relu = tf.nn.relu(tf.nn.conv2d(x, kernel, strides=1, padding="SAME") + bias)
    return tf.nn.max_pool(relu, ksize=2, strides=2, padding="SAME")


def dense(x: Any, inputs: int, outputs: int) -> Any:
    kernel, bias = parameters(inputs, outputs)
    return tf.matmul(x, kernel) + bias


def build() -> Network:
    """Adds the network to the default graph; the order of the lines decides the variables' and ops' names."""
    tf.set_random_seed(SEED)
    global_step = tf.train.get_or_create_global_step()
    x = tf.placeholder(tf.float32, [None, 784])
    labels = tf.placeholder(tf.int64, [None])
    features = convolution(tf.reshape(x, [-1, 28, 28, 1]), 1, 32)
    features = convolution(features, 32, 64)
    hidden = tf.nn.relu(dense(tf.reshape(features, [-1, 7 * 7 * 64]), 7 * 7 * 64, 1024))
    logits = dense(hidden, 1024, 10)

    loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
    accuracy = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, 1), labels), tf.float32))
    optimizer = tf.train.AdamOptimizer(1e-4)
    train = optimizer.minimize(loss, global_step=global_step)

    # Adam's two slots per variable would make the file three times as large; its two counters stay.
    slots = {optimizer.get_slot(v, name) for v in tf.trainable_variables() for name in optimizer.get_slot_names()}
    saved = [v for v in tf.global_variables() if v not in slots]
    saver = tf.train.Saver(saved, save_relative_paths=True)
    return Network(x, labels, accuracy, train, saver)


def train(out: Path) -> float:
    """Trains, writes the checkpoint and `test.npz` into `out`, and returns the accuracy on the held-out digits."""
    x, x_test, labels, labels_test = digits()
    network = build()
    rng = np.random.default_rng(SEED)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for _ in range(STEPS):
            batch = rng.choice(len(x), BATCH, replace=False)
            session.run(network.train, {network.x: x[batch], network.labels: labels[batch]})
        accuracy = session.run(network.accuracy, {network.x: x_test, network.labels: labels_test})
        out.mkdir(parents=True, exist_ok=True)
        prefix = network.saver.save(session, str(out / "checkpoint"), global_step=STEPS, write_meta_graph=False)
        network.saver.export_meta_graph(f"{prefix}.meta", clear_devices=True, strip_default_attrs=True)
    np.savez_compressed(out / "test.npz", x=x_test, labels=labels_test)
    return float(accuracy)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Trains the example's checkpoint.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write (default: beside this)")
    arguments = parser.parse_args()
    tf.disable_v2_behavior()  # Graphs, and variables as TensorFlow 1 made them.
    print(f"accuracy on {HELD_OUT} held-out digits: {train(arguments.out):.4f}")
