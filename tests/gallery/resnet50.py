"""The names and shapes of ResNet-50's variables, as TF-Slim and TF's official models save them, at any width."""

from __future__ import annotations

from collections.abc import Iterator

Shapes = dict[str, tuple[int, ...]]

UNITS = (3, 4, 6, 3)

#: As published.
WIDTH = 64


def convolutions(width: int) -> Iterator[tuple[str, str, str, tuple[int, int, int, int]]]:
    """The name of each convolution at Keras, of its normalization there, its name at TF-Slim, its shape."""
    yield "conv1_conv", "conv1_bn", "conv1", (7, 7, 3, width)
    inputs = width
    for block, units in enumerate(UNITS):
        inside = width * 2**block
        for unit in range(1, units + 1):
            shapes = [(1, 1, inputs, 4 * inside), (1, 1, inputs, inside), (3, 3, inside, inside)]
            for number, shape in enumerate([*shapes, (1, 1, inside, 4 * inside)]):
                if number or unit == 1:
                    keras_name = f"conv{block + 2}_block{unit}_{number}"
                    scope = f"block{block + 1}/unit_{unit}/bottleneck_v1"
                    own = f"conv{number}" if number else "shortcut"
                    yield f"{keras_name}_conv", f"{keras_name}_bn", f"{scope}/{own}", shape
            inputs = 4 * inside


def slim(width: int = WIDTH) -> Shapes:
    """slim/nets/resnet_v1.py; the mean is what was subtracted from an image before."""
    net = "resnet_v1_50"
    shapes: Shapes = {}
    for _, _, name, shape in convolutions(width):
        shapes |= {f"{net}/{name}/weights": shape, **_norm(f"{net}/{name}/BatchNorm", shape[-1])}
    shapes |= {f"{net}/logits/weights": (1, 1, 32 * width, 1000), f"{net}/logits/biases": (1000,)}
    return {**_trained(shapes), f"{net}/mean_rgb": (3,)}


def official(width: int = WIDTH) -> Shapes:
    """official/resnet/resnet_model.py."""
    net = "resnet_model"
    shapes: Shapes = {}
    for number, (_, _, _, shape) in enumerate(convolutions(width)):
        suffix = f"_{number}" if number else ""
        norm = _norm(f"{net}/batch_normalization{suffix}", shape[-1])
        shapes |= {f"{net}/conv2d{suffix}/kernel": shape, **norm}
    return _trained(shapes | {f"{net}/dense/kernel": (32 * width, 1001), f"{net}/dense/bias": (1001,)})


def _norm(name: str, size: int) -> Shapes:
    return {f"{name}/{part}": (size,) for part in ("gamma", "beta", "moving_mean", "moving_variance")}


def _trained(variables: Shapes) -> Shapes:
    """With the slots of the trainable variables, and the step counter."""
    slots = {f"{name}/Momentum": shape for name, shape in variables.items() if "/moving_" not in name}
    return {**variables, **slots, "global_step": ()}
