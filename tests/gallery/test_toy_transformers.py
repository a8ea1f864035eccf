"""
The toy BERT, GPT-2 and three XLNets that CyberZHG's Keras ports are tested with, onto the classes of `transformers`.

Models of 4, 15 and 6 units fit wherever they are put, and untrained ones compute nearly the same wherever that is: a
mistake shows only where the inputs make it show. XLNet's folders hold what XLNet's own code computed, too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import t2t
from tests.gallery.proving import counts, proven, refuted
from tests.gallery.shared import MAPPINGS, data, lines

pytest.importorskip("transformers", reason="the models are classes of transformers")

PREFIXES = {
    "toy_bert": "CyberZHG+keras-bert/test_checkpoint/bert_model.ckpt",
    "toy_gpt2": "CyberZHG+keras-gpt-2/toy_checkpoint/model.ckpt",
    "toy_xlnet_empty": "CyberZHG+keras-xlnet/test_checkpoint_empty/xlnet_model.ckpt",
    "toy_xlnet_pre": "CyberZHG+keras-xlnet/test_checkpoint_pre/xlnet_model.ckpt",
    "toy_xlnet_tune": "CyberZHG+keras-xlnet/test_checkpoint_tune/xlnet_model.ckpt",
}


def _checkpoint(name: str) -> Path:
    return data("toy-transformers", PREFIXES[name])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("toy_bert", (48, 46, 93)),
        ("toy_gpt2", (41, 40, 0)),
        ("toy_xlnet_empty", (36, 31, 0)),
        ("toy_xlnet_pre", (38, 33, 0)),
        ("toy_xlnet_tune", (36, 31, 0)),
    ],
)
def test_every_variable_is_accounted_for_and_the_outputs_are_the_originals(
    name: str, expected: tuple[int, int, int], tmp_path: Path
) -> None:
    done = proven(name, _checkpoint(name), tmp_path)

    assert counts(done) == expected


SQUARE = "recipes: {square: [{tf: kernel, torch: weight, axes: i o -> i o}, {tf: bias, torch: bias}]}"


@pytest.mark.parametrize(
    ("name", "mistake"),
    [
        pytest.param(
            "toy_bert",
            {"\nmap:\n": f"\n{SQUARE}\nmap:\n", "self.<p>, use: dense}": "self.<p>, use: square}"},
            id="BERT without transposes in its attention",
        ),
        pytest.param(
            "toy_bert",
            {"  p: [query, key, value]": "  p q: [[[query, key, value], [key, query, value]]]", "self/<p>": "self/<q>"},
            id="BERT with query and key exchanged",
        ),
        pytest.param(
            "toy_gpt2",
            {
                "p: [attn, mlp]}": "p: [mlp]}",
                "\nmap:\n": """
map:
- {tf: "model/h<i>/attn/c_proj/w", torch: transformer.h.<i>.attn.c_proj.weight, axes: 1 i o -> o i}
- {tf: "model/h<i>/attn/c_proj/b", torch: transformer.h.<i>.attn.c_proj.bias}
""",
            },
            id="GPT-2 with a transpose too many",
        ),
        pytest.param(
            "toy_xlnet_empty",
            {"p: [q, k, v, o, r]": "p t: [[[q, k, v, o, r], [r, k, v, o, q]]]", "rel_attn/<p>": "rel_attn/<t>"},
            id="XLNet with queries and positions exchanged",
        ),
        pytest.param(
            "toy_xlnet_pre",
            {"b: [r, s, w]": "b t: [[[r, s, w], [w, s, r]]]", "transformer/r_<b>_bias": "transformer/r_<t>_bias"},
            id="XLNet with biases exchanged",
        ),
        pytest.param(
            "toy_xlnet_tune",
            {"axes: 1 s h k -> s h k": "axes: 1 h s k -> s h k"},
            id="XLNet with segments and heads exchanged",
        ),
    ],
)
def test_a_mistake_that_fits_every_shape_is_not_proven(name: str, mistake: dict[str, str], tmp_path: Path) -> None:
    refuted(name, _checkpoint(name), tmp_path, mistake)


def _stored(name: str, array: str) -> torch.Tensor:
    """An array of XLNet's folder; numbers that are no indices are float32, the batch stands first."""
    loaded = torch.from_numpy(np.load(_checkpoint(name).parent / f"{array}.npy"))
    return loaded.float() if loaded.is_floating_point() else loaded


def _memory(name: str, array: str) -> torch.Tensor:
    """A memory, where the batch stands second."""
    return _stored(name, array).transpose(0, 1)


def _later(*, or_same: bool = False) -> torch.Tensor:
    """What XLNet's left to right may not see: each later token, in the query stream the same one, too."""
    return torch.ones(2, 5, 5).triu(0 if or_same else 1)


def _assert_same(computed: torch.Tensor, stored: torch.Tensor) -> None:
    torch.testing.assert_close(computed, stored, rtol=0, atol=1e-6)


def test_an_xlnet_without_memories_gives_the_stored_output() -> None:
    name = "toy_xlnet_empty"
    model = t2t.load(MAPPINGS / f"{name}.yaml", checkpoint=_checkpoint(name))

    with torch.inference_mode():
        hidden, *_ = model(_stored(name, "input_ids"), _stored(name, "seg_ids"), _later())

    _assert_same(hidden, _stored(name, "empty_output"))


def test_a_fine_tuned_xlnet_gives_the_stored_output_and_memories() -> None:
    name = "toy_xlnet_tune"
    model = t2t.load(MAPPINGS / f"{name}.yaml", checkpoint=_checkpoint(name))
    memories = _memory(name, "mems_0"), _memory(name, "mems_1")

    with torch.inference_mode():
        hidden, *new = model(_stored(name, "input_ids"), _stored(name, "seg_ids"), _later(), *memories)

    _assert_same(hidden, _stored(name, "tune_output"))
    _assert_same(new[0], _memory(name, "tune_new_mems_0"))
    _assert_same(new[1], _memory(name, "tune_new_mems_1"))


def test_a_pretrained_xlnet_gives_the_stored_probabilities_and_memories() -> None:
    name = "toy_xlnet_pre"
    model = t2t.load(MAPPINGS / f"{name}.yaml", checkpoint=_checkpoint(name))
    arguments = _stored(name, "input_ids"), _stored(name, "seg_ids"), _later(or_same=True)
    memories = _memory(name, "mems_0"), _memory(name, "mems_1")

    with torch.inference_mode():
        logits, *new = model(*arguments, *memories, _stored(name, "input_query"))

    _assert_same(logits.softmax(-1), _stored(name, "pre_output"))
    _assert_same(new[0], _memory(name, "pre_new_mems_0"))
    _assert_same(new[1], _memory(name, "pre_new_mems_1"))


def test_a_converted_xlnet_fits_the_class_of_transformers_which_gives_the_stored_memories(tmp_path: Path) -> None:
    from transformers import XLNetConfig, XLNetLMHeadModel

    from mappings.modules.toy_xlnet import TOY

    name = "toy_xlnet_pre"
    model = XLNetLMHeadModel(XLNetConfig(**TOY)).eval()
    model.load_state_dict(load_file(proven(name, _checkpoint(name), tmp_path).path), strict=True)

    with torch.inference_mode():
        computed = model(
            _stored(name, "input_ids"),
            token_type_ids=_stored(name, "seg_ids"),
            perm_mask=_later(),
            mems=[_memory(name, "mems_0"), _memory(name, "mems_1")],
            use_mems=True,
        )

    _assert_same(computed.mems[0], _memory(name, "pre_new_mems_0"))
    _assert_same(computed.mems[1], _memory(name, "pre_new_mems_1"))


@pytest.mark.parametrize("name", sorted(PREFIXES))
def test_each_mapping_is_read_in_a_minute(name: str) -> None:
    assert lines(MAPPINGS / f"{name}.yaml") <= 50
