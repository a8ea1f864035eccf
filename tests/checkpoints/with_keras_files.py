"""
The child process in which Keras writes its files, for the tests to compare with.

    python with_keras_files.py FOLDER

It writes FOLDER/NAME.keras, .weights.h5, .h5 and, for some, .weights.json; FOLDER/values.npz has what Keras' layers
give for each of their weights, as NAME/PATH.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras  # type: ignore[import-untyped]
import numpy as np
from keras import layers


def everything() -> Any:
    """Most of Keras' layers that have weights."""
    image = layers.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="stem")(image)
    x = layers.BatchNormalization(name="bn", scale=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Conv2D(4, 1, use_bias=False)(x)
    x = layers.DepthwiseConv2D(3)(x)
    x = layers.SeparableConv2D(4, 3)(x)
    x = layers.Conv2DTranspose(4, 3)(x)
    x = layers.PReLU()(x)
    x = layers.LayerNormalization()(x)
    x = layers.LayerNormalization(center=False, name="no_beta")(x)
    x = layers.RMSNormalization()(x)
    x = layers.GroupNormalization(2)(x)
    x = layers.Reshape((-1, 4))(x)
    x = layers.Conv1D(4, 1)(x)
    x = layers.MultiHeadAttention(2, 2, name="mha", dropout=0.1)(x, x)
    x = layers.Bidirectional(layers.LSTM(5, return_sequences=True))(x)
    x = layers.GRU(5, return_sequences=True, name="g", dropout=0.1)(x)
    x = layers.SimpleRNN(3, return_sequences=True)(x)
    x = layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], return_sequences=True)(x)
    x = layers.TimeDistributed(layers.Dense(3), name="td")(x)
    x = layers.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d")(x)
    x = layers.EinsumDense("abc,cd->abd", (None, 5), name="no_bias")(x)
    x = layers.GlobalAveragePooling1D()(x)
    inside = [layers.Dense(4, name="first"), layers.Dense(2, name="second"), layers.Dropout(0.3)]
    x = keras.Sequential(inside, name="seq")(x)
    words = layers.Input((3,))
    y = layers.Flatten()(layers.Embedding(7, 2)(words))
    return keras.Model([image, words], layers.Concatenate()([x, y]), name="everything")


class Own(keras.Model):  # type: ignore[misc]
    """A model whose parts are attributes, whose names say nothing of their classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = layers.Dense(3, use_bias=False, name="embedding_of_patches")
        self.first = layers.Dense(4)
        self.blocks = [layers.Dense(4), layers.LayerNormalization()]

    def call(self, x: Any) -> Any:
        """Through all of them."""
        x = self.first(self.embedding(x))
        for block in self.blocks:
            x = block(x)
        return x


def special() -> Any:
    """Recurrent layers that torch computes otherwise."""
    x = sequence = layers.Input((4, 3))
    x = layers.GRU(2, reset_after=False, return_sequences=True, name="before")(x)
    x = layers.Bidirectional(layers.LSTM(2, recurrent_activation="hard_sigmoid", return_sequences=True))(x)
    return keras.Model(sequence, layers.GRU(2, name="fine")(x), name="special")


def main(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    values: dict[str, Any] = {}
    own = Own()
    own(np.ones((2, 5), "float32"))
    low = keras.Sequential([layers.Input((3,)), layers.Dense(4, dtype="bfloat16"), layers.Dense(2)], name="low")
    trained = keras.Sequential([layers.Input((3,)), layers.Dense(4), layers.Dense(2)], name="trained")
    trained.compile("adam", "mse")
    trained.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    models = {"everything": everything(), "own": own, "special": special(), "low": low, "trained": trained}
    for name, model in models.items():
        for weight in model.weights:
            weight.assign(np.random.default_rng(len(values)).standard_normal(weight.shape))
            # Keras puts some models' own names before those of their layers, and others' not.
            path = weight.path.removeprefix(f"{model.name}/")
            values[f"{name}/{path}"] = keras.ops.convert_to_numpy(keras.ops.cast(weight, "float32"))
        model.save_weights(folder / f"{name}.weights.h5")
        model.save(folder / f"{name}.keras")
        if name not in ("own", "low"):
            model.save(folder / f"{name}.h5")
            model.save_weights(folder / f"{name}.weights.json", max_shard_size=2e-6)
    np.savez(folder / "values.npz", **values)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
