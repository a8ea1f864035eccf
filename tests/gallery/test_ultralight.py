"""
The face detectors RFB-320 and slim-320: TF2 checkpoints without a graph, the authors' own .pth, .onnx and name tables.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import t2t
from t2t import mapping as mapping_file
from t2t.problems import MappingError
from tests.gallery.shared import MAPPINGS, RECORDINGS, data, lines, recorded

REPOSITORY = "ultralight-face/Linzaer+Ultra-Light-Fast-Generic-Face-Detector-1MB"
VARIANTS = ["RFB", "slim"]
#: Tensors that the authors' .pth has, without its counters of training steps.
TENSORS = {"RFB": 209, "slim": 159}


def _mapping(variant: str) -> Path:
    return MAPPINGS / f"ultralight_{variant.lower()}.yaml"


def _checkpoint(variant: str) -> Path:
    return data(REPOSITORY, "tf/export_models", variant)


def _theirs(variant: str) -> dict[str, torch.Tensor]:
    path = data(REPOSITORY, f"models/pretrained/version-{variant}-320.pth")
    stored: dict[str, torch.Tensor] = torch.load(path, weights_only=True, map_location="cpu")
    return {name: value for name, value in stored.items() if not name.endswith("num_batches_tracked")}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_published_checkpoint_is_converted_and_proven(variant: str, tmp_path: Path) -> None:
    done = t2t.convert(_mapping(variant), tmp_path / "out.safetensors", checkpoint=_checkpoint(variant))

    assert done.comparison is not None
    assert done.comparison.proven
    assert [delta.output for delta in done.comparison.outputs] == ["offsets", "scores"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_tensor_is_that_of_the_authors_pth_bit_for_bit(variant: str, tmp_path: Path) -> None:
    theirs = _theirs(variant)
    done = t2t.convert(_mapping(variant), tmp_path / "out.safetensors", checkpoint=_checkpoint(variant))

    ours = load_file(done.path)

    assert len(theirs) == TENSORS[variant]
    assert theirs.keys() == {name for name in ours if not name.endswith("num_batches_tracked")}
    assert [name for name, value in theirs.items() if not torch.equal(value, ours[name])] == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_row_agrees_with_the_authors_own_name_table(variant: str) -> None:
    """Values cannot tell equal variables apart; the table from layers to parameters can."""
    with data(REPOSITORY, f"tf/mapping_tables/{variant.lower()}_320.json").open(encoding="utf-8") as file:
        table = {entry["name"]: entry["weight"] for entry in json.load(file)}
    parts = {"bn": ["gamma", "beta", "moving_mean", "moving_variance"], "dconv": ["depthwise_kernel"]}
    parts |= {"conv": ["kernel"], "convbias": ["kernel", "bias"], "dconvbias": ["depthwise_kernel", "bias"]}
    expected = {
        parameter: f"{layer}/{part}"
        for layer, parameters in table.items()
        for part, parameter in zip(parts[layer.rpartition("_")[2]], parameters, strict=True)
    }

    read, problems = mapping_file.read(_mapping(variant).read_bytes(), str(_mapping(variant)))

    assert read is not None, problems
    assert len(expected) == TENSORS[variant]
    assert {rule.target: rule.sources[0] for rule in read.rules if rule.target in expected} == expected


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_authors_onnx_has_the_same_weights_and_computes_what_was_recorded(variant: str) -> None:
    """It was exported from torch: neither its ops nor its padding come from anybody here."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="runs the authors' .onnx")
    path = data(REPOSITORY, f"models/onnx/version-{variant}-320_without_postprocessing.onnx")
    stored = path.read_bytes()
    assert [name for name, value in _theirs(variant).items() if value.numpy().tobytes() not in stored] == []
    draw = recorded(_mapping(variant)).draws[0]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    scores, offsets = session.run(["scores", "boxes"], {"input": draw.inputs["picture"].transpose(0, 3, 1, 2)})

    np.testing.assert_allclose(draw.outputs["scores"], scores, rtol=0, atol=5e-6)
    np.testing.assert_allclose(draw.outputs["offsets"], offsets, rtol=0, atol=5e-5)


def _instead(variant: str, rows: dict[str, str], folder: Path) -> Path:
    """The mapping with rows replaced."""
    text = _mapping(variant).read_text()
    for row, instead in rows.items():
        assert text.count(row) == 1
        text = text.replace(row, instead)
    path = folder / "changed.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(("exchanged", "proven"), [(["beta"], True), (["beta", "gamma"], False)], ids=str)
def test_only_the_two_equal_offsets_can_be_exchanged_unseen(exchanged: list[str], proven: bool, tmp_path: Path) -> None:
    """They are equal byte for byte, as what they belong to is added up: the table of names vouches for those alone."""
    names = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    rows = {}
    for layer, other in (("ConvLinear", "shortcut"), ("shortcut", "ConvLinear")):
        start = f"- {{tf: basenet.7.{layer.lower()}_bn,"
        (row,) = (line for line in _mapping("RFB").read_text().splitlines() if line.startswith(start))
        bn = f"torch: base_net.7.{layer}.bn"
        instead = [f"- {{{bn}.num_batches_tracked, fill: 0}}"]
        for part, name in names.items():
            of = (other if part in exchanged else layer).lower()
            instead.append(f"- {{tf: basenet.7.{of}_bn/{part}, {bn}.{name}}}")
        rows[row] = "\n".join(instead)
    changed, recording = _instead("RFB", rows, tmp_path), RECORDINGS / "ultralight_rfb.npz"

    result = t2t.verify(changed, checkpoint=_checkpoint("RFB"), recording=recording, diagnose=False)

    assert result.proven is proven


@pytest.mark.parametrize(
    ("row", "instead"),
    [
        pytest.param(
            '- {tf: "basenet.<n>.0_dconv", torch: base_net.<n>.0, use: depthwise_conv2d}',
            """- tf: basenet.<n>.0_dconv/depthwise_kernel
  torch: base_net.<n>.0.weight
  axes: w h i m -> (i m) 1 h w""",
            id="height and width exchanged",
        ),
        pytest.param(
            '- {tf: "basenet.<n>.1_bn",    torch: base_net.<n>.1, use: batch_norm}',
            """- {tf: "basenet.<n>.1_bn/gamma",           torch: base_net.<n>.1.weight}
- {tf: "basenet.<n>.1_bn/moving_mean",     torch: base_net.<n>.1.bias}
- {tf: "basenet.<n>.1_bn/beta",            torch: base_net.<n>.1.running_mean}
- {tf: "basenet.<n>.1_bn/moving_variance", torch: base_net.<n>.1.running_var}
- {torch: base_net.<n>.1.num_batches_tracked, fill: 0}""",
            id="offsets and means exchanged",
        ),
    ],
)
def test_a_mistake_that_fits_every_shape_is_not_proven(row: str, instead: str, tmp_path: Path) -> None:
    wrong, recording = _instead("slim", {row: instead}, tmp_path), RECORDINGS / "ultralight_slim.npz"

    with pytest.raises(MappingError) as raised:
        t2t.convert(wrong, tmp_path / "out.safetensors", checkpoint=_checkpoint("slim"), recording=recording)

    assert {problem.code for problem in raised.value.problems} == {"T2T501"}
    assert not (tmp_path / "out.safetensors").exists()


def test_each_mapping_is_read_in_a_minute() -> None:
    assert lines(_mapping("slim")) <= 32
    assert lines(_mapping("RFB")) <= 40
