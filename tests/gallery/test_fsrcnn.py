"""FSRCNN x2 and x3, as Saafke/FSRCNN_Tensorflow published them, converted and proven by the committed recordings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import t2t
from t2t.problems import MappingError
from tests.gallery.shared import MAPPINGS, RECORDINGS, data, lines, recorded

SCALES = (2, 3)
REPOSITORY = "fsrcnn/Saafke+FSRCNN_Tensorflow"

FROZEN = """
import sys, numpy as np, tensorflow.compat.v1 as tf
graph_def, stored = tf.GraphDef(), {}
graph_def.ParseFromString(open(sys.argv[1], "rb").read())
for node in graph_def.node:
    if node.op == "Const":
        stored[node.name] = tf.make_ndarray(node.attr["value"].tensor)
with tf.Graph().as_default(), tf.Session() as session:
    tf.import_graph_def(graph_def, name="")
    large = session.run("NHWC_output:0", {"IteratorGetNext:0": np.load(sys.argv[2])})
np.savez(sys.argv[3], **{"the picture": large}, **stored)
"""


def _mapping(scale: int) -> Path:
    return MAPPINGS / f"fsrcnn_x{scale}.yaml"


def _checkpoint(scale: int) -> Path:
    return data(REPOSITORY, "CKPT_dir", f"x{scale}", "fsrcnn_ckpt")


@pytest.mark.parametrize("scale", SCALES)
def test_the_published_checkpoint_is_converted_and_proven(scale: int, tmp_path: Path) -> None:
    done = t2t.convert(_mapping(scale), tmp_path / "out.safetensors", checkpoint=_checkpoint(scale))

    assert done.comparison is not None
    assert done.comparison.proven
    assert len(done.plan.steps) == 23


@pytest.mark.parametrize("scale", SCALES)
def test_the_frozen_graph_has_the_same_values_and_computes_what_was_recorded(scale: int, tmp_path: Path) -> None:
    """Its constants are the authors' own copy of the weights, its ops those that they deployed."""
    pytest.importorskip("tensorflow", reason="runs the frozen graph", exc_type=ImportError)
    draw = recorded(_mapping(scale)).draws[0]
    frozen = data(REPOSITORY, "models", f"FSRCNN_x{scale}.pb")
    np.save(tmp_path / "in.npy", draw.inputs["luma"])

    command = [sys.executable, "-c", FROZEN, str(frozen), str(tmp_path / "in.npy"), str(tmp_path / "out.npz")]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)

    done = t2t.convert(_mapping(scale), tmp_path / "out.safetensors", checkpoint=_checkpoint(scale))
    ours = load_file(done.path)
    with np.load(tmp_path / "out.npz") as theirs:
        np.testing.assert_allclose(draw.outputs["large"], theirs["the picture"], rtol=0, atol=1e-6)
        for i in range(1, 9):
            assert np.array_equal(ours[f"layers.conv{i}.weight"], theirs[f"f{i}"].transpose(3, 2, 0, 1)), i
        for i in range(1, 8):
            assert np.array_equal(ours[f"layers.conv{i}.bias"], theirs[f"b{i}"]), i
            assert np.array_equal(ours[f"layers.prelu{i}.weight"], theirs[f"alpha{i}"]), i
        assert np.array_equal(ours["bias"], theirs["b8"])


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        pytest.param('layers.prelu<i>.weight"}', 'layers.conv<i>.bias"}', id="biases and slopes exchanged"),
        pytest.param("h w i o -> o i h w", "w h i o -> o i h w", id="height and width exchanged"),
    ],
)
def test_a_mistake_that_fits_every_shape_is_not_proven(right: str, wrong: str, tmp_path: Path) -> None:
    text = _mapping(2).read_text()
    assert text.count(right) == 1
    changed = text.replace(right, "@").replace(wrong, right).replace("@", wrong)
    path = tmp_path / "wrong.yaml"
    path.write_text(changed)
    recording = RECORDINGS / "fsrcnn_x2.npz"

    with pytest.raises(MappingError) as raised:
        t2t.convert(path, tmp_path / "out.safetensors", checkpoint=_checkpoint(2), recording=recording)

    assert [problem.code for problem in raised.value.problems] == ["T2T501"]
    assert not (tmp_path / "out.safetensors").exists()


def test_one_class_and_one_set_of_rows_serve_both_scales() -> None:
    two, three = (_mapping(scale).read_text() for scale in SCALES)

    assert two.replace("x2", "x3").replace("scale: 2", "scale: 3") == three
    assert lines(_mapping(2)) == lines(_mapping(3)) <= 20
