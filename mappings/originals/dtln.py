"""
DTLN as its author trained it, from Keras' layers and TensorFlow's signal functions.

The published .h5 has weights and no model: what is done with them stands in the author's DTLN_model.py, and here.

https://github.com/breizhn/DTLN/blob/master/DTLN_model.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Run = Callable[[dict[str, Any]], dict[str, Any]]


def original(checkpoint: str) -> Run:
    """
    The model with the weights of the .h5 file `checkpoint`. Input `noisy` [n, samples], output `clean` [n, samples'].

    Raises KeyError for a layer or a weight that the file does not have, ValueError for one of another shape.
    """
    import h5py
    import keras  # type: ignore[import-untyped]
    import numpy as np
    import tensorflow as tf

    layers = keras.layers
    lstm, lstm_1, lstm_2, lstm_3 = (layers.LSTM(128, return_sequences=True) for _ in range(4))
    dense, dense_1 = layers.Dense(257, activation="sigmoid"), layers.Dense(256, activation="sigmoid")
    conv1d, conv1d_1 = layers.Conv1D(256, 1, use_bias=False), layers.Conv1D(512, 1, padding="causal", use_bias=False)
    normalization = layers.LayerNormalization(epsilon=1e-7)

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        spectrum = tf.signal.rfft(tf.signal.frame(tf.constant(inputs["noisy"]), 512, 128))
        magnitude, phase = tf.abs(spectrum), tf.math.angle(spectrum)
        masked = magnitude * dense(lstm_1(lstm(magnitude)))
        frames = tf.signal.irfft(tf.cast(masked, tf.complex64) * tf.exp(1j * tf.cast(phase, tf.complex64)))
        encoded = conv1d(frames)
        mask = dense_1(lstm_3(lstm_2(normalization(encoded))))
        return {"clean": tf.signal.overlap_and_add(conv1d_1(encoded * mask), 128).numpy()}

    run({"noisy": np.zeros((1, 512), np.float32)})  # layers have weights once they were called
    named = {
        "lstm": lstm,
        "lstm_1": lstm_1,
        "dense": dense,
        "conv1d": conv1d,
        "layer_normalization": normalization,
        "lstm_2": lstm_2,
        "lstm_3": lstm_3,
        "dense_1": dense_1,
        "conv1d_1": conv1d_1,
    }
    with h5py.File(checkpoint) as file:
        for name, layer in named.items():
            for weight in layer.weights:
                weight.assign(file[f"{name}/{name}/{weight.name}:0"][()])
    return run
