"""google/ffn's flood-filling network: 24 3-D convolutions, in a graph that no public TensorFlow imports whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gallery.proving import counts, proven, refuted
from tests.gallery.shared import MAPPINGS, data, lines


def _checkpoint() -> Path:
    return data("ffn-fib25/google+ffn/models/fib25/model.ckpt-27465036")


def test_every_variable_is_accounted_for_and_the_logits_are_the_originals(tmp_path: Path) -> None:
    done = proven("ffn", _checkpoint(), tmp_path)

    assert counts(done) == (50, 50, 4)


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(
            {"axes: d h w i o -> o i d h w": "axes: w h d i o -> o i d h w"},
            id="depth and width exchanged",
        ),
        pytest.param(
            {
                "i: 0..11,": "i j: [[0..11, [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]]],",
                "seed_update/conv<i>_<half>": "seed_update/conv<j>_<half>",
            },
            id="in the order of text, ten before two",
        ),
    ],
)
def test_a_mistake_that_fits_every_shape_is_not_proven(mistake: dict[str, str], tmp_path: Path) -> None:
    refuted("ffn", _checkpoint(), tmp_path, mistake)


def test_the_mapping_is_read_in_a_minute() -> None:
    assert lines(MAPPINGS / "ffn.yaml") <= 30
