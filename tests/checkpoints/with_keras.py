"""
The child process in which TensorFlow and Keras write checkpoints with object graphs and optimizers, and say what is in
them, for the tests to compare with.

    python with_keras.py FOLDER PREFIX...

For each prefix, given or written, FOLDER/manifest.json has what TensorFlow's own classes find: `full_names` and `slots`
by key, `sums` of the values by key; and for an optimizer of Keras 3 `keras`: by full name what Keras says it belongs to
(a full name, "" for what belongs to none) and in which list of the optimizer it stands.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import keras  # type: ignore[import-untyped]
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

v1 = tf.compat.v1
KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"


def write_keras(folder: Path) -> dict[str, dict[str, list[str]]]:
    written = {}
    options: dict[str, dict[str, Any]] = {
        "SGD": {"momentum": 0.9},
        "RMSprop": {"centered": True, "momentum": 0.9},
        "Adam": {"amsgrad": True, "use_ema": True},
        "Nadam": {},
        "Ftrl": {},
        "Adafactor": {},
    }
    for name, given in options.items():
        # A variable whose name is another's with more behind it.
        layers = [keras.layers.Dense(2, name="dense"), keras.layers.Dense(3, name="dense_kernel")]
        model = keras.Sequential([keras.Input((3,)), *layers, keras.layers.BatchNormalization(name="norm")], name="net")
        optimizer = getattr(keras.optimizers, name)(**given)
        model.compile(optimizer, "mse")
        model.fit(np.ones((4, 3)), np.zeros((4, 3)), verbose=0)
        prefix = tf.train.Checkpoint(model=model, trainer=optimizer).write(str(folder / name))
        trained = [variable.path for variable in optimizer._trainable_variables]
        said = {variable.path: ["", ""] for variable in optimizer.variables if variable.path not in trained}
        for attribute, found in vars(optimizer).items():
            if isinstance(found, list) and attribute != "_trainable_variables" and len(found) == len(trained):
                for path, variable in zip(trained, found, strict=True):
                    if getattr(variable, "path", None) in said:
                        said[variable.path] = [path, attribute]
        written[prefix] = said
        if name == "SGD":
            model.export(str(folder / "export"), verbose=False)
    written[str(folder / "export/variables/variables")] = {}
    return written


def write_modules(folder: Path) -> list[str]:
    root, child = tf.Module(), tf.Module()
    root.child, child.parent = child, root  # a cycle
    root.one = child.same = tf.Variable([1.0, 2.0], name="scope/one")
    root.b = tf.Variable([3.0], name="a")  # a full name that is another's key
    root.a = tf.Variable([4.0], name="")
    root.list = [tf.Variable(float(i), name="item") for i in range(12)]
    root.zeros = [tf.Variable([0.0, 0.0], name="zero") for _ in range(3)]
    setattr(root, "x.y/z", tf.Variable([5.0], name="odd"))
    return [tf.train.Checkpoint(root=root, top=root.one).write(str(folder / "modules"))]


def write_tf1(folder: Path) -> list[str]:
    written = []
    given: dict[str, dict[str, Any]] = {"Momentum": {"momentum": 0.9}, "RMSProp": {"centered": True}}
    for name in ["Adam", "Momentum", "RMSProp", "Adagrad", "Adadelta", "Ftrl", "ProximalAdagrad", "AdagradDA"]:
        with tf.Graph().as_default(), v1.Session() as session:
            a, b = v1.get_variable("s/w", [2, 3]), v1.Variable([1.0, 2.0], name="b")
            step = v1.train.get_or_create_global_step()
            rates = [0.1, step] if name == "AdagradDA" else [0.1]
            with tf.name_scope("training"):
                optimizer = getattr(v1.train, f"{name}Optimizer")(*rates, **given.get(name, {}))
                done = optimizer.minimize(tf.reduce_sum(a) + tf.reduce_sum(b), global_step=step)
            with tf.control_dependencies([done]):
                tf.train.ExponentialMovingAverage(0.9).apply([a, b])
            session.run(v1.global_variables_initializer())
            written.append(v1.train.Saver().save(session, str(folder / f"tf1-{name}"), write_meta_graph=False))
    return written


def described(prefix: str) -> dict[str, Any]:
    reader = tf.train.load_checkpoint(prefix)
    keys = [key for key in reader.get_variable_to_shape_map() if key != KEY]
    sums = {}
    for key in keys:
        value = np.asarray(reader.get_tensor(key))
        data = value.tobytes() if value.dtype != object else b"".join(value.reshape(-1))
        sums[key] = hashlib.sha256(f"{value.dtype} {value.shape} ".encode() + data).hexdigest()
    if not reader.has_tensor(KEY):
        return {"sums": sums, "full_names": {}, "slots": {}}
    nodes = TrackableObjectGraph.FromString(reader.get_tensor(KEY)).nodes
    slots = {}
    for node in nodes:
        for slot in node.slot_variables:
            of, own = nodes[slot.original_variable_node_id].attributes, nodes[slot.slot_variable_node_id].attributes
            if of and own:
                slots[own[0].checkpoint_key] = of[0].checkpoint_key
    full_names = {each.checkpoint_key: each.full_name for node in nodes for each in node.attributes if each.full_name}
    return {"sums": sums, "full_names": full_names, "slots": slots}


def main(folder: Path, prefixes: list[str]) -> None:
    written = write_keras(folder)
    manifest = {}
    for prefix in [*prefixes, *written, *write_modules(folder), *write_tf1(folder)]:
        manifest[prefix] = {**described(prefix), "keras": written.get(prefix, {})}
    (folder / "manifest.json").write_text(json.dumps(manifest))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
