"""
MLPerf Tiny's reference models: a keyword spotter (SavedModel), an image classifier and a person detector (Keras .h5).

The SavedModel is recorded from its own graph, the others from the .tflite files beside them, whose convolutions have
taken in the norms.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gallery.proving import counts, proven, refuted
from tests.gallery.shared import MAPPINGS, data, lines

FILES = {
    "kws": "keyword_spotting/trained_models/kws_ref_model",
    "resnet8": "image_classification/trained_models/pretrainedResnet.h5",
    "vww": "visual_wake_words/trained_models/vww_96.h5",
}


def _checkpoint(name: str) -> Path:
    return data("mlperf-tiny/mlcommons+tiny", FILES[name])


@pytest.mark.parametrize(
    ("name", "expected"), [("kws", (65, 56, 84)), ("resnet8", (55, 48, 69)), ("vww", (191, 164, 221))]
)
def test_every_variable_is_accounted_for_and_the_outputs_are_the_originals(
    name: str, expected: tuple[int, int, int], tmp_path: Path
) -> None:
    done = proven(name, _checkpoint(name), tmp_path)

    assert counts(done) == expected


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        pytest.param(
            "kws",
            '"batch_normalization<_2i+1>", torch: blocks.<i>.depthwise_norm',
            '"batch_normalization<_7-2i>", torch: blocks.<i>.depthwise_norm',
            id="the depthwise norms in reverse order",
        ),
        pytest.param(
            "kws",
            "- {tf: batch_normalization, torch: norm, use: batch_norm}",
            """- {tf: batch_normalization/gamma, torch: norm.weight}
- {tf: batch_normalization/beta, torch: norm.bias}
- {tf: batch_normalization/moving_variance, torch: norm.running_mean}
- {tf: batch_normalization/moving_mean, torch: norm.running_var}
- {torch: norm.num_batches_tracked, fill: 0}""",
            id="mean and variance exchanged",
        ),
        pytest.param(
            "resnet8",
            '- {tf: "conv2d_<p+1>",              torch: stages.<s>.conv2,    use: conv2d}',
            """- {tf: "conv2d_<p+1>/kernel", torch: stages.<s>.conv2.weight, axes: w h i o -> o i h w}
- {tf: "conv2d_<p+1>/bias", torch: stages.<s>.conv2.bias}""",
            id="height and width exchanged",
        ),
        pytest.param(
            "vww",
            '- {tf: "depthwise_conv2d<_i>",       torch: blocks.<i>.depthwise,      use: depthwise_conv2d}',
            """- {tf: "depthwise_conv2d<_i>/bias", torch: blocks.<i>.depthwise.bias}
- tf: "depthwise_conv2d<_i>/depthwise_kernel"
  torch: blocks.<i>.depthwise.weight
  axes: w h i m -> (i m) 1 h w""",
            id="height and width of depthwise kernels exchanged",
        ),
    ],
)
def test_a_mistake_that_fits_every_shape_is_not_proven(name: str, right: str, wrong: str, tmp_path: Path) -> None:
    refuted(name, _checkpoint(name), tmp_path, {right: wrong})


@pytest.mark.parametrize("name", sorted(FILES))
def test_each_mapping_is_read_in_a_minute(name: str) -> None:
    assert lines(MAPPINGS / f"{name}.yaml") <= 30
