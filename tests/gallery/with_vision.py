"""
The child process in which Keras and TensorFlow write checkpoints of vision models, for the tests to convert.

    python with_vision.py FOLDER

resnet50.h5, inception_v3.h5 and efficientnet_b0.h5 are of keras.applications and have weights alone, under the names
that Keras 2 gave them: so they are published. resnet50.weights.h5, inception_v3.keras and efficientnet_b0_keras3.h5 are
the same weights as Keras 3 saves them. resnet_v1_50.ckpt has TF-Slim's names and is of TensorFlow's first format, as
the published one; official has the names of TF's official models. keras_as_official has the weights of resnet50.h5
under those names, keras_as_official.npz an image and what Keras computes from it.

All values are random, statistics and offsets too. Kernels and variances are small: so epsilons count.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras  # type: ignore[import-untyped]
import numpy as np
import tensorflow as tf
from keras.src.legacy.saving import legacy_h5_format  # type: ignore[import-untyped]

UNITS = (3, 4, 6, 3)

#: An eighth of what is published, for speed.
WIDTH = 8

random = np.random.default_rng(7)


def value(name: str, shape: tuple[int, ...], variance: float) -> Any:
    """Random values of the size that a variable of this name has; `variance` is that of what is to be normalized."""
    if name in ("kernel", "weights", "depthwise_kernel"):
        inputs = np.prod(shape[:2] if shape[-1] == 1 else shape[:-1])
        array = random.standard_normal(shape) * np.sqrt(2 * variance / inputs)
    elif name in ("moving_variance", "variance"):
        array = random.uniform(0.5, 1.5, shape) * variance
    elif name == "gamma":
        array = random.uniform(0.5, 1.5, shape)
    elif name in ("moving_mean", "mean"):
        array = random.standard_normal(shape) * np.sqrt(variance) / 3
    else:
        array = random.standard_normal(shape) / 3
    return array.astype(np.float32)


def write_keras(folder: Path, name: str, model: Any, variance: float) -> None:
    for layer in model.layers:
        # What no batch normalization follows keeps its size.
        last = "_se_" in layer.name or layer.name in ("predictions", "normalization")
        for weight in layer.weights:
            if weight.name != "count":
                weight.assign(value(weight.name, weight.shape, 1.0 if last else variance))
    with h5py.File(folder / f"{name}.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
        for layer in model.layers:
            if isinstance(layer, keras.layers.DepthwiseConv2D):
                group = file[layer.name]
                group.move(f"{layer.name}/kernel", f"{layer.name}/depthwise_kernel")
                group.attrs["weight_names"] = [f"{layer.name}/depthwise_kernel".encode()]


def convolutions() -> Iterator[tuple[str, str, str, tuple[int, int, int, int]]]:
    """The name of each convolution at Keras, of its normalization there, its name at TF-Slim, its shape at WIDTH."""
    yield "conv1_conv", "conv1_bn", "conv1", (7, 7, 3, WIDTH)
    inputs = WIDTH
    for block, units in enumerate(UNITS):
        inside = WIDTH * 2**block
        for unit in range(1, units + 1):
            shapes = [(1, 1, inputs, 4 * inside), (1, 1, inputs, inside), (3, 3, inside, inside)]
            for number, shape in enumerate([*shapes, (1, 1, inside, 4 * inside)]):
                if number or unit == 1:
                    keras_name = f"conv{block + 2}_block{unit}_{number}"
                    scope = f"block{block + 1}/unit_{unit}/bottleneck_v1"
                    own = f"conv{number}" if number else "shortcut"
                    yield f"{keras_name}_conv", f"{keras_name}_bn", f"{scope}/{own}", shape
            inputs = 4 * inside


def slim() -> dict[str, Any]:
    net, variables = "resnet_v1_50", {}
    for _, _, name, shape in convolutions():
        variables[f"{net}/{name}/weights"] = value("weights", shape, 1e-4)
        for part in ("gamma", "beta", "moving_mean", "moving_variance"):
            variables[f"{net}/{name}/BatchNorm/{part}"] = value(part, shape[-1:], 1e-4)
    variables[f"{net}/logits/weights"] = value("weights", (1, 1, 32 * WIDTH, 1000), 1.0)
    variables[f"{net}/logits/biases"] = value("biases", (1000,), 1.0)
    slots = {f"{name}/Momentum": np.zeros_like(array) for name, array in variables.items() if "moving" not in name}
    mean = np.array([123.68, 116.78, 103.94], np.float32)
    return {**variables, **slots, f"{net}/mean_rgb": mean, "global_step": np.array(7)}


def official() -> dict[str, Any]:
    net, variables = "resnet_model", {}
    for number, (_, _, _, shape) in enumerate(convolutions()):
        suffix = f"_{number}" if number else ""
        variables[f"{net}/conv2d{suffix}/kernel"] = value("kernel", shape, 1e-4)
        for part in ("gamma", "beta", "moving_mean", "moving_variance"):
            variables[f"{net}/batch_normalization{suffix}/{part}"] = value(part, shape[-1:], 1e-4)
    variables[f"{net}/dense/kernel"] = value("kernel", (32 * WIDTH, 1001), 1.0)
    variables[f"{net}/dense/bias"] = value("bias", (1001,), 1.0)
    slots = {f"{name}/Momentum": np.zeros_like(array) for name, array in variables.items() if "moving" not in name}
    return {**variables, **slots, "global_step": np.array(7)}


def keras_as_official(model: Any) -> dict[str, Any]:
    variables = {}
    for number, (conv, norm, _, _) in enumerate(convolutions()):
        suffix = f"_{number}" if number else ""
        for layer, name in ((conv, "conv2d"), (norm, "batch_normalization")):
            for weight in model.get_layer(layer).weights:
                variables[f"resnet_model/{name}{suffix}/{weight.name}"] = weight.numpy()
    for weight in model.get_layer("predictions").weights:
        variables[f"resnet_model/dense/{weight.name}"] = weight.numpy()
    return {**variables, "global_step": np.array(7)}


def save(path: Path, variables: dict[str, Any], version: int = 2) -> None:
    names, arrays = list(variables), [tf.constant(array) for array in variables.values()]
    if version == 1:
        tf.raw_ops.Save(filename=str(path), tensor_names=names, data=arrays)
    else:
        tf.raw_ops.SaveV2(prefix=str(path), tensor_names=names, shape_and_slices=[""] * len(names), tensors=arrays)


def main(folder: Path) -> None:
    applications = keras.applications
    resnet = applications.ResNet50(weights=None, classifier_activation=None)
    write_keras(folder, "resnet50", resnet, 1e-4)
    resnet.save_weights(folder / "resnet50.weights.h5")
    save(folder / "keras_as_official", keras_as_official(resnet))
    image = random.uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)
    np.savez(folder / "keras_as_official.npz", image=image, logits=resnet(image, training=False).numpy())
    del resnet
    keras.backend.clear_session()
    inception = applications.InceptionV3(weights=None, classifier_activation=None)
    write_keras(folder, "inception_v3", inception, 1e-2)
    inception.save(folder / "inception_v3.keras")
    del inception
    keras.backend.clear_session()
    efficientnet = applications.EfficientNetB0(weights=None, classifier_activation=None)
    write_keras(folder, "efficientnet_b0", efficientnet, 1e-2)
    with h5py.File(folder / "efficientnet_b0_keras3.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, efficientnet)
    save(folder / "resnet_v1_50.ckpt", slim(), version=1)
    save(folder / "official", official())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
