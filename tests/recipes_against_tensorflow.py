"""
The child process in which TensorFlow's own layers compute, for the built-in recipes to be compared with.

It takes requests on stdin and answers on stdout, both pickled: `(name, seed, dtype, arguments)`, where `name` is a
function of this file, gets an `Answer`: the layer's variables by the names that it gives them, drawn at random, some
inputs and what the layer makes of them; or the traceback of what went wrong. Every layer is called `layer`.

Where no installed library has the layer any more, TensorFlow's operations stand for it (TF-Slim), or a stranger's
conversion of its weights (CuDNN and Keras 1, in tf_keras).
"""

from __future__ import annotations

import importlib
import os
import pickle
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras  # type: ignore[import-untyped]
import numpy as np
import tensorflow as tf
import tf_keras  # type: ignore[import-untyped]
from tf_keras.src.layers.rnn import legacy_cells  # type: ignore[import-untyped]
from tf_keras.src.saving.legacy.hdf5_format import preprocess_weights_for_loading  # type: ignore[import-untyped]

Array = np.ndarray[Any, Any]
LIBRARIES = {"keras": keras, "tf_keras": tf_keras}


class Answer(NamedTuple):
    """`variables` by name, `inputs` and `outputs` in TensorFlow's layout."""

    variables: dict[str, Array]
    inputs: list[Array]
    outputs: list[Array]


class Draw:
    """Random numbers of one dtype."""

    def __init__(self, seed: int, dtype: str) -> None:
        self.random = np.random.default_rng(seed)
        self.dtype = dtype

    def __call__(self, *shape: int) -> Array:
        return np.asarray(self.random.standard_normal(shape)).astype(self.dtype)

    def of(self, name: str, shape: Sequence[int]) -> Array:
        """Values for a variable of this name: what has to be positive is."""
        if re.search("variance|std|average", name):
            return self.random.uniform(0.5, 2, shape).astype(self.dtype)
        return self(*shape)


def weights(layers: Sequence[Any], draw: Draw) -> dict[str, Array]:
    """Draws the layers' weights, sets them, and gives them by the names that they have in a checkpoint."""
    drawn = {}
    for layer in layers:
        for variable in layer.weights:
            # Keras 3 knows a path. tf_keras numbers cells through the process, which is of no interest here.
            name = getattr(variable, "path", None) or variable.name.removesuffix(":0")
            name = re.sub(r"^layer_\d+/", "layer/", re.sub(r"_cell_\d+/", "_cell/", name))
            assert name.startswith("layer"), name
            drawn[name] = draw.of(name, variable.shape)
            variable.assign(drawn[name])
    return drawn


def answer(layers: Sequence[Any], inputs: Sequence[Array], draw: Draw, **call: Any) -> Answer:
    """What Keras layers, one after the other, make of the inputs."""

    def run() -> list[Any]:
        values: list[Any] = [tf.constant(x) for x in inputs]
        for layer in layers:
            values = [layer(*values, **call)]
        return values

    run()
    drawn = weights(layers, draw)
    return Answer(drawn, list(inputs), [np.asarray(y) for y in run()])


# --- Keras ---


def dense(draw: Draw, library: str, inputs: Sequence[int], units: int, bias: bool) -> Answer:
    layer = LIBRARIES[library].layers.Dense(units, use_bias=bias, name="layer", dtype=draw.dtype)
    return answer([layer], [draw(*inputs)], draw)


def flatten_dense(draw: Draw, library: str, image: Sequence[int], units: int, bias: bool) -> Answer:
    layers = LIBRARIES[library].layers
    both = [layers.Flatten(dtype=draw.dtype), layers.Dense(units, use_bias=bias, name="layer", dtype=draw.dtype)]
    return answer(both, [draw(3, *image)], draw)


def convolution(draw: Draw, library: str, kind: str, inputs: Sequence[int], **options: Any) -> Answer:
    layer = getattr(LIBRARIES[library].layers, kind)(**options, name="layer", dtype=draw.dtype)
    return answer([layer], [draw(*inputs)], draw)


def normalization(draw: Draw, library: str, kind: str, inputs: Sequence[int], **options: Any) -> Answer:
    layer = getattr(LIBRARIES[library].layers, kind)(**options, name="layer", dtype=draw.dtype)
    return answer([layer], [draw(*inputs)], draw)


def embedding(draw: Draw, library: str, words: int, width: int) -> Answer:
    layer = LIBRARIES[library].layers.Embedding(words, width, name="layer", dtype=draw.dtype)
    return answer([layer], [draw.random.integers(0, words, (3, 4))], draw)


def prelu(draw: Draw, library: str, inputs: Sequence[int]) -> Answer:
    layer = LIBRARIES[library].layers.PReLU(shared_axes=[1, 2], name="layer", dtype=draw.dtype)
    return answer([layer], [draw(*inputs)], draw)


def recurrent(
    draw: Draw, library: str, kind: str, inputs: Sequence[int], *, units: int, depth: int, both: bool, **options: Any
) -> Answer:
    """`depth` layers, layer0, layer1 ..., each in both directions if `both`."""
    layers = []
    for number in range(depth):
        name = f"layer{number}"
        made = getattr(LIBRARIES[library].layers, kind)(
            units, return_sequences=True, name="rnn" if both else name, dtype=draw.dtype, **options
        )
        layers.append(LIBRARIES[library].layers.Bidirectional(made, name=name, dtype=draw.dtype) if both else made)
    return answer(layers, [draw(*inputs)], draw)


def attention(draw: Draw, library: str, *, heads: int, width: int, queries: int, keys: int, bias: bool) -> Answer:
    """Of 2 x `queries` positions to 2 x `keys` others."""
    layer = LIBRARIES[library].layers.MultiHeadAttention(heads, width, use_bias=bias, name="layer", dtype=draw.dtype)
    return answer([layer], [draw(2, queries, heads * width), draw(2, keys, heads * width)], draw)


# --- older Keras: tf_keras converts the weights for a layer of its own ---


def converted(layer: Any, stored: Mapping[str, Array], inputs: Array, version: str) -> Answer:
    """What `layer` computes with weights that an older Keras stored."""
    layer(tf.constant(inputs))
    layer.set_weights(preprocess_weights_for_loading(layer, list(stored.values()), version, "tensorflow"))
    return Answer({f"layer/{name}": array for name, array in stored.items()}, [inputs], [np.asarray(layer(inputs))])


def cudnn(draw: Draw, kind: str, inputs: Sequence[int], units: int) -> Answer:
    """CuDNNLSTM or CuDNNGRU, whose layers need a GPU, as the LSTM or GRU that tf_keras makes of its weights."""
    gates = {"LSTM": 4, "GRU": 3}[kind] * units
    stored = {"kernel": draw(inputs[-1], gates), "recurrent_kernel": draw(units, gates), "bias": draw(2 * gates)}
    layer = getattr(tf_keras.layers, kind)(units, return_sequences=True, dtype=draw.dtype)
    return converted(layer, stored, draw(*inputs), "2")


def keras1(draw: Draw, kind: str, inputs: Sequence[int], shapes: Mapping[str, Sequence[int]], **options: Any) -> Answer:
    """A layer of Keras 1, its variables by the end of their names."""
    stored = {f"layer_{end}": draw.of(end, shape) for end, shape in shapes.items()}
    layer = getattr(tf_keras.layers, kind)(**options, dtype=draw.dtype)
    x = draw.random.integers(0, options["input_dim"], inputs) if kind == "Embedding" else draw(*inputs)
    return converted(layer, stored, x, "1")


# --- TF1's cells, which tf_keras still has ---


def cell(draw: Draw, kind: str, inputs: Sequence[int], units: int, **options: Any) -> Answer:
    """A cell over all steps of time, from zeros."""
    made = getattr(legacy_cells, kind)(units, name="layer", dtype=draw.dtype, **options)
    x = draw(*inputs)

    def run() -> Array:
        state = made.zero_state(len(x), draw.dtype)
        outputs = []
        for step in range(x.shape[1]):
            output, state = made(tf.constant(x[:, step]), state)
            outputs.append(output)
        return np.stack(outputs, 1)

    run()
    drawn = weights([made], draw)
    return Answer(drawn, [x], [run()])


# --- TF-Slim: it doesn't run with this TensorFlow, its layers are these operations ---


def slim(draw: Draw, kind: str, inputs: Sequence[int], shapes: Mapping[str, Sequence[int]], strides: int = 1) -> Answer:
    x = draw(*inputs)
    drawn = {name: draw.of(name, shape) for name, shape in shapes.items()}
    y = tf.constant(x)
    if kind == "fully_connected":
        y = tf.matmul(y, drawn["weights"])
    elif kind == "conv2d":
        y = tf.nn.conv2d(y, drawn["weights"], strides, "VALID")
    elif kind == "conv2d_transpose":
        kernel = shapes["weights"]
        sizes = [(size - 1) * strides + max(strides, k) for size, k in zip(inputs[1:3], kernel[:2], strict=True)]
        y = tf.nn.conv2d_transpose(y, drawn["weights"], [len(x), *sizes, kernel[2]], strides, "VALID")
    elif kind == "separable_conv2d":
        y = tf.nn.depthwise_conv2d(y, drawn["depthwise_weights"], [1, strides, strides, 1], "VALID")
        if "pointwise_weights" in drawn:
            y = tf.nn.conv2d(y, drawn["pointwise_weights"], 1, "VALID")
    if "biases" in drawn:
        y = tf.nn.bias_add(y, drawn["biases"])
    return Answer({f"layer/{name}": array for name, array in drawn.items()}, [x], [np.asarray(y)])


# --- Sonnet 2 ---


def sonnet(draw: Draw, kind: str, inputs: Sequence[int], call: Mapping[str, Any], **options: Any) -> Answer:
    snt: Any = importlib.import_module("sonnet")
    if kind in {"LSTM", "GRU"}:
        options["dtype"] = tf.as_dtype(draw.dtype)
    made = getattr(snt, kind)(**options, name="layer")
    x = draw.random.integers(0, options["vocab_size"], inputs) if kind == "Embed" else draw(*inputs)

    def run() -> Array:
        if kind in {"LSTM", "GRU"}:
            outputs, _ = snt.dynamic_unroll(made, tf.constant(x.swapaxes(0, 1)), made.initial_state(len(x)))
            return np.asarray(outputs).swapaxes(0, 1)
        return np.asarray(made(tf.constant(x), **call))

    run()
    drawn = {}
    for variable in made.variables:
        name = variable.name.removesuffix(":0")
        if name.endswith(("/counter", "/hidden")):  # of the moving averages, which the result doesn't depend on
            continue
        drawn[name] = draw.of(name, variable.shape)
        variable.assign(drawn[name])
    return Answer(drawn, [x], [run()])


REQUESTS: dict[str, Callable[..., Answer]] = {
    function.__name__: function
    for function in (
        dense, flatten_dense, convolution, normalization, embedding, prelu, recurrent, attention,
        cudnn, keras1, cell, slim, sonnet,
    )
}  # fmt: skip


def main() -> None:
    """Answers until stdin ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else is printed
    warnings.simplefilter("ignore")
    while True:
        try:
            name, seed, dtype, options = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            made: tuple[Any, ...] | str = tuple(REQUESTS[name](Draw(seed, dtype), **options))
        except Exception:  # noqa: BLE001 - the test shows it
            made = traceback.format_exc()
        pickle.dump(made, answers)
        answers.flush()


if __name__ == "__main__":
    main()
