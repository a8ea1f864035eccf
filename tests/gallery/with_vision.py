"""
The child process in which Keras and TensorFlow write checkpoints of vision models, for the tests to convert.

    python -m tests.gallery.with_vision FOLDER

resnet50.h5, inception_v3.h5 and efficientnet_b0.h5 are of keras.applications and have weights alone, under the names
that Keras 2 gave them: so they are published. resnet50.weights.h5, inception_v3.keras and efficientnet_b0_keras3.h5 are
the same weights as Keras 3 saves them. resnet_v1_50.ckpt has TF-Slim's names and is of TensorFlow's first format, as
the published one; official has the names of TF's official models. keras_as_official has the weights of resnet50.h5
under those names, keras_as_official.npz an image and what Keras computes from it.

All values are random, statistics and offsets too. Kernels and variances are small: so epsilons count.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import h5py
import keras  # type: ignore[import-untyped]
import numpy as np
import tensorflow as tf
from keras.src.legacy.saving import legacy_h5_format  # type: ignore[import-untyped]

from tests.gallery.resnet50 import Shapes, convolutions, official, slim

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


def drawn(shapes: Shapes) -> dict[str, Any]:
    """The variables of TF's own checkpoints, with values."""
    variables: dict[str, Any] = {}
    for name, shape in shapes.items():
        part = name.rpartition("/")[2]
        if name == "global_step":
            variables[name] = np.array(7)
        elif part == "mean_rgb":
            variables[name] = np.array([123.68, 116.78, 103.94], np.float32)
        elif part == "Momentum":
            variables[name] = np.zeros(shape, np.float32)
        else:
            variables[name] = value(part, shape, 1.0 if "/logits/" in name or "/dense/" in name else 1e-4)
    return variables


def keras_as_official(model: Any) -> dict[str, Any]:
    variables = {}
    for number, (conv, norm, _, _) in enumerate(convolutions(WIDTH)):
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
    save(folder / "resnet_v1_50.ckpt", drawn(slim(WIDTH)), version=1)
    save(folder / "official", drawn(official(WIDTH)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
