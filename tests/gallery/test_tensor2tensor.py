"""
Tensor2Tensor's transformer: an embedding in 16 parts, which is the softmax, too, and no graph beside the checkpoint.

What it is compared with is a reimplementation in TensorFlow, see `mappings/originals/tensor2tensor.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import t2t
from mappings.modules.tensor2tensor import Transformer
from t2t.problems import MappingError
from tests.gallery.proving import counts, proven, refuted
from tests.gallery.shared import MAPPINGS, RECORDINGS, data, lines

NAME = "tensor2tensor"
PARTS = "transformer/symbol_modality_8190_16/shared/weights_"


def _checkpoint() -> Path:
    return data("t2t-transformer/tensorflow+tensor2tensor/transformer_test_ckpt/model.ckpt-1")


def test_every_variable_is_accounted_for_and_the_logits_are_the_reimplementations(tmp_path: Path) -> None:
    done = proven(NAME, _checkpoint(), tmp_path)

    assert counts(done) == (67, 81, 169)


def test_the_parts_are_joined_in_the_order_of_their_numbers_and_shared() -> None:
    module = t2t.load(MAPPINGS / f"{NAME}.yaml", checkpoint=_checkpoint())
    with t2t.open_checkpoint(_checkpoint()) as checkpoint:
        stored = [checkpoint.view(checkpoint.inventory.variables[f"{PARTS}{k}"]) for k in range(16)]

    assert isinstance(module, Transformer)
    assert [len(part) for part in stored] == [512] * 14 + [511] * 2
    np.testing.assert_array_equal(module.embedding.weight.numpy(force=True), np.concatenate(stored))
    assert module.softmax.weight is module.embedding.weight


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(
            {"  k: 0..15": "  k: [0, 1, 10, 11, 12, 13, 14, 15, 2, 3, 4, 5, 6, 7, 8, 9]"},
            id="parts in the order of text, ten before two",
        ),
        pytest.param({"axes: i o -> o i": "axes: i o -> i o"}, id="no transposes in the attentions"),
        pytest.param(
            {
                "  t a: [[encoder, self_attention], [decoder, [self_attention, encdec_attention]]]": """\
  t a c: [[encoder, self_attention, self_attention],
    [decoder, [self_attention, encdec_attention], [encdec_attention, self_attention]]]""",
                "layer_<i>/<a>/multihead": "layer_<i>/<c>/multihead",
            },
            id="the decoder's attentions exchanged",
        ),
    ],
)
def test_a_mistake_that_fits_every_shape_is_not_proven(mistake: dict[str, str], tmp_path: Path) -> None:
    refuted(NAME, _checkpoint(), tmp_path, mistake)


def test_a_part_that_nobody_reads_is_an_error(tmp_path: Path) -> None:
    text = (MAPPINGS / f"{NAME}.yaml").read_text(encoding="utf-8").replace("  k: 0..15", "  k: 0..14")
    (tmp_path / "short.yaml").write_text(text, encoding="utf-8")

    with pytest.raises(MappingError) as raised:
        t2t.convert(
            tmp_path / "short.yaml",
            tmp_path / "out.safetensors",
            checkpoint=_checkpoint(),
            recording=RECORDINGS / f"{NAME}.npz",
        )

    messages = [problem.message for problem in raised.value.problems]
    assert any(f"{PARTS}15" in message for message in messages), messages


def test_the_mapping_is_read_in_a_minute() -> None:
    assert lines(MAPPINGS / f"{NAME}.yaml") <= 45
