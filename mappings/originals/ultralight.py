"""
The ultra-light face detectors in plain TensorFlow ops, over the variables of the published checkpoints.

Those have no graph beside them. Written from the authors' description of the two models, by the names of their layers,
which the checkpoint's object graph holds; how wide the layers are, the variables say.

https://github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB/tree/master/tf/model
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Run = Callable[[dict[str, Any]], dict[str, Any]]

#: The steps of the chain that have stride 2, and those behind which one is predicted.
STRIDED = (2, 4, 8, 11)
PREDICTED = (7, 10, 12)


def rfb(checkpoint: str) -> Run:
    """RFB-320. Input `picture` [n, 240, 320, 3] in [-1, 1]; outputs `scores` [n, 4420, 2], `offsets` [n, 4420, 4]."""
    return _original(checkpoint, _receptive_fields)


def slim(checkpoint: str) -> Run:
    """slim-320, with the same inputs and outputs."""
    return _original(checkpoint, None)


class Layers:
    """Layers by their names, each a function of the picture; what they need is read from the checkpoint."""

    def __init__(self, checkpoint: str) -> None:
        import tensorflow as tf
        from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

        reader = tf.train.load_checkpoint(checkpoint)
        graph = TrackableObjectGraph.FromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
        attributes = [attribute for node in graph.nodes for attribute in node.attributes]
        self.tf = tf
        self.variables = {entry.full_name: reader.get_tensor(entry.checkpoint_key) for entry in attributes}

    def padded(self, x: Any, padding: int) -> Any:
        return self.tf.pad(x, [[0, 0], [padding, padding], [padding, padding], [0, 0]])

    def conv(self, x: Any, name: str, *, stride: int = 1, dilation: int = 1) -> Any:
        """Height and width stay as they are, but for the stride; a bias where there is one."""
        kernel = self.variables[f"{name}/kernel"]
        x = self.padded(x, dilation * (len(kernel) // 2))
        y = self.tf.nn.conv2d(x, kernel, stride, "VALID", dilations=dilation)
        return y + self.variables.get(f"{name}/bias", 0.0)

    def depthwise(self, x: Any, name: str, *, stride: int = 1) -> Any:
        kernel = self.variables[f"{name}/depthwise_kernel"]
        y = self.tf.nn.depthwise_conv2d(self.padded(x, 1), kernel, [1, stride, stride, 1], "VALID")
        return y + self.variables.get(f"{name}/bias", 0.0)

    def norm(self, x: Any, name: str) -> Any:
        mean, variance, beta, gamma = (
            self.variables[f"{name}/{part}"] for part in ("moving_mean", "moving_variance", "beta", "gamma")
        )
        return self.tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-5)

    def separable(self, x: Any, name: str, *, stride: int = 1) -> Any:
        relu = self.tf.nn.relu
        x = relu(self.norm(self.depthwise(x, f"{name}.0_dconv", stride=stride), f"{name}.1_bn"))
        return relu(self.norm(self.conv(x, f"{name}.3_conv"), f"{name}.4_bn"))

    def head(self, x: Any, name: str, *, stride: int = 1) -> Any:
        x = self.tf.nn.relu(self.depthwise(x, f"{name}_dconvbias", stride=stride))
        return self.conv(x, f"{name}_convbias")


def _receptive_fields(layers: Layers, x: Any, name: str) -> Any:
    tf = layers.tf

    def step(x: Any, part: str, dilation: int = 1, *, relu: bool = False) -> Any:
        x = layers.norm(layers.conv(x, f"{name}.{part}_conv", dilation=dilation), f"{name}.{part}_bn")
        return tf.nn.relu(x) if relu else x

    branches = []
    for branch, (last, dilation) in enumerate([(2, 2), (2, 3), (3, 5)]):
        y = step(x, f"branch{branch}.0")
        for number in range(1, last):
            y = step(y, f"branch{branch}.{number}", relu=True)
        branches.append(step(y, f"branch{branch}.{last}", dilation))
    return tf.nn.relu(step(tf.concat(branches, -1), "convlinear") + step(x, "shortcut"))


def _original(checkpoint: str, seventh: Callable[[Layers, Any, str], Any] | None) -> Run:
    import tensorflow as tf

    layers = Layers(checkpoint)

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        x = layers.conv(tf.constant(inputs["picture"]), "basenet.0.0_conv", stride=2)
        x = tf.nn.relu(layers.norm(x, "basenet.0.1_bn"))
        stages = []
        for number in range(1, 13):
            name = f"basenet.{number}"
            if number == 7 and seventh is not None:
                x = seventh(layers, x, name)
            else:
                x = layers.separable(x, name, stride=2 if number in STRIDED else 1)
            if number in PREDICTED:
                stages.append(x)
        x = tf.nn.relu(layers.conv(x, "extras_convbias"))
        stages.append(tf.nn.relu(layers.head(x, "extras_sep", stride=2)))

        def predicted(kind: str, values: int) -> Any:
            parts = [layers.head(stage, f"{kind}_{i}_sep") for i, stage in enumerate(stages[:3])]
            parts.append(layers.conv(stages[3], f"{kind}_3_convbias"))
            return tf.concat([tf.reshape(part, [len(x), -1, values]) for part in parts], 1)

        return {"scores": tf.nn.softmax(predicted("cls", 2)).numpy(), "offsets": predicted("reg", 4).numpy()}

    return run
