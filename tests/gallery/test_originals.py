"""Originals that need code of ours to run: what that takes of their graphs, and that it computes what is recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import t2t
from tests.gallery.shared import MAPPINGS, ROOT, data, recorded

PREFIXES = {
    "ffn": "ffn-fib25/google+ffn/models/fib25/model.ckpt-27465036",
    "tensor2tensor": "t2t-transformer/tensorflow+tensor2tensor/transformer_test_ckpt/model.ckpt-1",
    "toy_bert": "toy-transformers/CyberZHG+keras-bert/test_checkpoint/bert_model.ckpt",
}

#: Imports the whole graphs, then runs a part of one twice: as it trains, and with every keep_prob set to 1.
GRAPHS = """
import json, sys
import numpy as np
import tensorflow.compat.v1 as tf
from mappings.originals import toy_bert
from mappings.originals.graph import part

def failure(checkpoint):
    with tf.Graph().as_default():
        try:
            tf.train.import_meta_graph(checkpoint + ".meta", clear_devices=True)
        except Exception as error:
            return str(error).splitlines()[0]

ffn, bert = sys.argv[1:]
tokens = {name: np.ones([4, 16], np.int32) for name in ("input_ids", "input_mask", "segment_ids")}
whole = {**{name: np.ones([32, 16], np.int32) for name in tokens}, "masked_lm_positions": np.zeros([32, 20], np.int32)}
training = part(bert, toy_bert.FEATURES, {"words": toy_bert.OUTPUTS["words"]})
still = toy_bert.original(bert)
try:
    part(bert, {}, {"y": "nothing/there:0"})
except KeyError as error:
    unknown = str(error)
print(json.dumps({
    "failures": [failure(ffn), failure(bert)],
    "training is the same twice": bool((training(whole)["words"] == training(whole)["words"]).all()),
    "still is the same twice": bool((still(tokens)["words"] == still(tokens)["words"]).all()),
    "unknown": unknown,
}))
"""


def _needs_tensorflow() -> None:
    pytest.importorskip("tensorflow", reason="the originals run in TensorFlow", exc_type=ImportError)


@pytest.mark.parametrize("name", sorted(PREFIXES))
def test_the_original_computes_again_what_was_recorded(name: str, tmp_path: Path) -> None:
    _needs_tensorflow()
    mapping = MAPPINGS / f"{name}.yaml"
    committed = recorded(mapping)

    _, again = t2t.record(mapping, checkpoint=data(PREFIXES[name]), recording=tmp_path / "again.npz")

    assert again.made_from == committed.made_from
    for old, new in zip(committed.draws, again.draws, strict=True):
        assert sorted(old.outputs) == sorted(new.outputs)
        for output, array in old.outputs.items():
            np.testing.assert_allclose(new.outputs[output], array, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def graphs() -> dict[str, Any]:
    _needs_tensorflow()
    done = subprocess.run(
        [sys.executable, "-c", GRAPHS, data(PREFIXES["ffn"]), data(PREFIXES["toy_bert"])],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_the_whole_graphs_cannot_be_imported_any_more(graphs: dict[str, Any]) -> None:
    """Else a reference of the kind `graph` would do without code."""
    assert [str(failure).partition(" in binary")[0] for failure in graphs["failures"]] == [
        "Op type not registered 'SSTableReaderV2'",
        "Op type not registered 'MapAndBatchDatasetV2'",
    ]


def test_what_is_taken_of_a_training_graph_drops_out_unless_keep_prob_is_replaced(graphs: dict[str, Any]) -> None:
    assert graphs["training is the same twice"] is False
    assert graphs["still is the same twice"] is True


def test_a_tensor_that_the_graph_does_not_have_is_an_error(graphs: dict[str, Any]) -> None:
    assert graphs["unknown"] == "'nothing/there'"
