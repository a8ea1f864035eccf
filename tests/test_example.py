"""The embedded example: its torch twin, the graph that trained its checkpoint, and the files that training wrote."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "mappings" / "checkpoints" / "madry"

#: What MadryLab's own checkpoints hold beside the slots, and `t2t`'s mapping for them names.
VARIABLES = {
    "Variable": [5, 5, 1, 32],
    "Variable_1": [32],
    "Variable_2": [5, 5, 32, 64],
    "Variable_3": [64],
    "Variable_4": [3136, 1024],
    "Variable_5": [1024],
    "Variable_6": [1024, 10],
    "Variable_7": [10],
    "beta1_power": [],
    "beta2_power": [],
    "global_step": [],
}

#: Describes the graph that train.py builds, the committed one, and the committed checkpoint, as TensorFlow sees them.
DESCRIBE = """
import json, sys
import tensorflow.compat.v1 as tf
from mappings.checkpoints.madry import train

def nodes(graph):
    return [[op.name, op.type, [x.name for x in op.inputs]] for op in graph.get_operations()]

tf.disable_v2_behavior()
with tf.Graph().as_default() as built:
    network = train.build()
    saved = {v.op.name: v.shape.as_list() for v in network.saver._var_list}
with tf.Graph().as_default() as committed:
    tf.train.import_meta_graph(sys.argv[1] + ".meta")
print(json.dumps({
    "built": nodes(built),
    "committed": nodes(committed),
    "saved": saved,
    "stored": tf.train.load_checkpoint(sys.argv[1]).get_variable_to_shape_map(),
    "feed": [network.x.name, network.x.shape.as_list()],
}))
"""

#: Lists the names and inputs of a graph's ops, without importing it: a graph of 2017 may not import for ever.
LIST = """
import json, sys
import tensorflow.compat.v1 as tf
with open(sys.argv[1], "rb") as file:
    graph = tf.MetaGraphDef.FromString(file.read()).graph_def
print(json.dumps([[node.name, list(node.input)] for node in graph.node]))
"""


def tensorflow_says(code: str, *arguments: Path) -> Any:
    """What a child with TensorFlow prints as JSON."""
    if importlib.util.find_spec("tensorflow") is None or importlib.util.find_spec("sklearn") is None:
        pytest.skip("train.py needs tensorflow and scikit-learn")
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def described() -> Any:
    return tensorflow_says(DESCRIBE, EXAMPLE / "checkpoint-700")


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("mappings.modules.madry").Madry()


def test_the_twin_has_eight_parameters_of_the_variables_sizes(twin: Any) -> None:
    assert {name: list(tensor.shape) for name, tensor in twin.state_dict().items()} == {
        "conv1.weight": [32, 1, 5, 5],
        "conv1.bias": [32],
        "conv2.weight": [64, 32, 5, 5],
        "conv2.bias": [64],
        "fc1.weight": [1024, 3136],
        "fc1.bias": [1024],
        "fc2.weight": [10, 1024],
        "fc2.bias": [10],
    }


def test_the_twin_turns_flat_pixels_into_ten_logits(twin: Any) -> None:
    import torch

    assert list(twin(torch.zeros(3, 784)).shape) == [3, 10]


def test_the_graph_saves_what_the_mapping_names_and_no_slots(described: dict[str, Any]) -> None:
    assert described["saved"] == VARIABLES
    assert described["stored"] == VARIABLES


def test_the_graph_is_fed_and_fetched_by_the_names_in_the_mapping(described: dict[str, Any]) -> None:
    assert described["feed"] == ["Placeholder:0", [None, 784]]
    assert ["add_3", "AddV2", ["MatMul_1:0", "Variable_7/read:0"]] in described["built"]


def test_the_committed_graph_is_the_one_that_train_builds(described: dict[str, Any]) -> None:
    """train.py adds the op that initialises the variables after `build`, and nothing else."""
    *same, last = described["committed"]

    assert same == described["built"]
    assert last[:2] == ["init", "NoOp"]


@pytest.mark.parametrize("name", ["checkpoint-700.meta", "checkpoint-99900.meta"])
def test_the_graph_computes_its_logits_from_the_ops_that_madrylabs_does(
    described: dict[str, Any], shared_data: Path, name: str
) -> None:
    theirs = tensorflow_says(LIST, shared_data / "madry" / name)
    ours = [(op, [tensor.removesuffix(":0") for tensor in tensors]) for op, _, tensors in described["built"]]

    assert ancestors("add_3", ours) == ancestors("add_3", theirs)


def ancestors(name: str, ops: Any) -> dict[str, list[str]]:
    """The ops that `name` is computed from, with their inputs."""
    inputs = dict(ops)
    found, waiting = {}, [name]
    while waiting:
        op = waiting.pop()
        found[op] = inputs[op]
        waiting += inputs[op]
    return found


def test_the_held_out_digits_are_pixels_and_labels() -> None:
    with np.load(EXAMPLE / "test.npz") as arrays:
        assert sorted(arrays) == ["labels", "x"]
        x, labels = arrays["x"], arrays["labels"]

    assert (x.dtype, x.shape) == (np.float32, (360, 784))
    assert (labels.dtype, labels.shape) == (np.int64, (360,))
    assert (x.min(), x.max()) == (0, 1)
    assert sorted(set(labels.tolist())) == list(range(10))


def test_the_checkpoint_state_is_relative() -> None:
    """The directory can be moved: TensorFlow would otherwise write the place it was trained in."""
    assert (EXAMPLE / "checkpoint").read_text() == (
        'model_checkpoint_path: "checkpoint-700"\nall_model_checkpoint_paths: "checkpoint-700"\n'
    )
