"""
The mappings of published weights, against what another converter makes of the same checkpoints.

The other converter are the loaders of `transformers` 4.40.2 (published_oracle.py). Its results are stored as digests;
the checkpoints are written again, with the published names and small sizes (published.py).
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import t2t
from tests.gallery.published import CASES, MISSING, MODELS, digest, value
from tests.gallery.shared import MAPPINGS, ROOT, lines

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("tensorflow", "transformers")),
    reason="needs tensorflow and transformers",
)

TIME_LIMIT = 300
#: How many lines a reviewer reads at most.
LINES = {"bert_base": 32, "bert_large": 32, "mobilenet_v1": 35, "t5_small": 25}
#: Variables of the model itself, entries of the state_dict, elements of the parameters: at the published sizes.
PUBLISHED = {
    "bert_base": (206, 208, 110_106_428),
    "bert_large": (398, 400, 336_226_108),
    "gpt2": (148, 149, 124_439_808),
    "albert_base": (32, 34, 11_813_810),
    "electra_small": (402, 203, 13_549_057),
    "electra_small_generator": (402, 205, 13_546_682),
    "mobilenet_v1": (137, 164, 4_233_001),
    "mobilenet_v2": (262, 314, 3_506_153),
    "t5_small": (131, 134, 60_506_624),
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with every checkpoint of published.py, written by TensorFlow."""
    folder = tmp_path_factory.mktemp("published")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "tests.gallery.published", str(folder)]
    subprocess.run(command, check=True, env=environment, cwd=ROOT, timeout=TIME_LIMIT)
    return folder


@cache
def others(name: str) -> dict[str, str]:
    """What the loader made of the published checkpoint: digests by name."""
    digests: dict[str, str] = json.loads(Path(__file__).with_name("published").joinpath(f"{name}.json").read_text())
    return digests


def others_case(name: str) -> dict[str, Any]:
    """What it made of another one: `error`, or `untouched` and `changed`."""
    case: dict[str, Any] = others("cases")[name]  # type: ignore[assignment]
    return case


def small(name: str, folder: Path, *edits: tuple[str, str]) -> Path:
    """The published mapping with the small sizes, and these edits of its text."""
    text = MODELS[name].shrink((MAPPINGS / f"{name}.yaml").read_text("utf-8"))
    for old, new in edits:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the mapping"
        text = text.replace(old, new)
    place = folder / f"{name}.yaml"
    place.write_text(text, "utf-8")
    return place


def ours(mapping: Path, checkpoint: Path) -> dict[str, str]:
    """What t2t writes: digests by name."""
    from safetensors.numpy import load_file

    out = mapping.with_suffix(".safetensors")
    t2t.convert(mapping, out, checkpoint=checkpoint)
    return {name: digest(array) for name, array in load_file(out).items()}


def refusal(mapping: Path, checkpoint: Path) -> list[str]:
    """What t2t says against it, each problem from its line on."""
    with pytest.raises(t2t.MappingError) as caught:
        ours(mapping, checkpoint)
    return [str(problem).removeprefix(f"{mapping}:") for problem in caught.value.problems]


@pytest.mark.parametrize("name", MODELS)
def test_a_published_mapping_gives_bit_by_bit_what_another_converter_gave(
    name: str, checkpoints: Path, tmp_path: Path
) -> None:
    assert ours(small(name, tmp_path), checkpoints / name) == others(name)


@pytest.mark.parametrize("name", MODELS)
def test_at_the_published_sizes_every_variable_and_every_parameter_is_accounted_for(name: str) -> None:
    from t2t import module, places, plan
    from t2t.checkpoints.slots import with_slots
    from t2t.tensors import CheckpointInventory, TensorRef

    model = MODELS[name]
    read, problems = places.read_mapping(MAPPINGS / f"{name}.yaml")
    assert read is not None
    refs = {
        variable: TensorRef(variable, value(variable, ()).dtype.name, shape, 0, 0, 0)
        for variable, shape in model.stored(small=False).items()
    }
    assert read.arguments is not None
    built = module.build(read.model, read.arguments).module
    inventory = module.inventory(built)
    _, found = plan.make(read, CheckpointInventory(with_slots(refs)), inventory)

    assert [str(problem) for problem in [*problems, *found]] == []
    elements = sum(parameter.numel() for parameter in built.parameters())
    assert (len(model.variables(small=False)), len(inventory.parameters), elements) == PUBLISHED[name]


@pytest.mark.parametrize("name", LINES)
def test_a_published_mapping_is_short(name: str) -> None:
    assert lines(MAPPINGS / f"{name}.yaml") <= LINES[name]


def test_exchanged_layers_of_one_shape_are_noticed(checkpoints: Path, tmp_path: Path) -> None:
    exchanged = small("bert_base", tmp_path, ("layer_<i>/intermediate", "layer_<1-i>/intermediate"))
    got = ours(exchanged, checkpoints / "bert_base")

    assert sorted(name for name in got if got[name] != others("bert_base")[name]) == [
        f"bert.encoder.layer.{i}.intermediate.dense.{part}" for i in range(2) for part in ("bias", "weight")
    ]


# --- what the loaders do with a checkpoint that is not as published ---


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_variable_left_the_other_converter_with_random_weights_and_is_refused(
    name: str, checkpoints: Path, tmp_path: Path
) -> None:
    variable, parameter = MISSING[name]

    assert others_case(f"{name}_missing") == {"untouched": [parameter], "changed": {}}
    (problem,) = refusal(small(name, tmp_path), checkpoints / f"{name}_missing")
    assert f"T2T201 {variable} is not a variable of the checkpoint; did you mean " in problem


@pytest.mark.parametrize("name", ["bert_base", "albert_base"])
def test_the_other_converter_took_the_moments_of_a_sparing_training_for_the_weights(
    name: str, checkpoints: Path, tmp_path: Path
) -> None:
    case = f"{name.removesuffix('_base')}_tuned"
    changed = others_case(case)["changed"]

    # Adam's slots of a LayerNorm are called gamma/Adam and gamma/Adam_1: the loader stepped over parts of a name that
    # the module has no attribute for, and stored what it held at the end. Matrices would have failed by their shapes.
    moments = [variable for variable in CASES[case].stored if variable.endswith("/Adam_1")]
    assert len(moments) == len(changed)
    assert sorted(changed.values()) == sorted(digest(value(name, CASES[case].stored[name])) for name in moments)
    assert ours(small(name, tmp_path), checkpoints / case) == others(name)


def test_the_other_converter_put_an_adapters_normalization_in_the_place_of_the_layers(
    checkpoints: Path, tmp_path: Path
) -> None:
    adapter = "bert/encoder/layer_1/output/adapter/LayerNorm"

    assert others_case("bert_adapter")["changed"] == {
        "bert.encoder.layer.1.output.LayerNorm.weight": digest(value(f"{adapter}/gamma", (8,))),
        "bert.encoder.layer.1.output.LayerNorm.bias": digest(value(f"{adapter}/beta", (8,))),
    }
    assert refusal(small("bert_base", tmp_path), checkpoints / "bert_adapter") == [
        f"13:1: T2T205 variable {adapter}/{part} (float32 [8], 8 elements) is used by no row; "
        "map it, or name it under ignore with a why"
        for part in ("beta", "gamma")
    ]


def test_a_layer_more_is_refused_by_both(checkpoints: Path, tmp_path: Path) -> None:
    layer = "bert/encoder/layer_2/attention/output"

    assert others_case("bert_layer_more") == {"error": "IndexError: index 2 is out of range"}
    assert refusal(small("bert_base", tmp_path), checkpoints / "bert_layer_more") == [
        f"13:1: T2T205 16 variables are used by no row: {layer}/LayerNorm/beta, {layer}/LayerNorm/gamma, "
        f"{layer}/dense/bias, ...; map them, or name them under ignore with a why"
    ]


def test_what_run_pretraining_saves_needs_one_line_more(checkpoints: Path, tmp_path: Path) -> None:
    checkpoint = checkpoints / "bert_trained"

    assert others_case("bert_trained") == {"untouched": [], "changed": {}}
    assert refusal(small("bert_base", tmp_path), checkpoint) == [
        "13:1: T2T205 variable global_step (int64 [], 1 element) is used by no row; "
        "map it, or name it under ignore with a why"
    ]
    more = ("why: Adam's moments}", "why: Adam's moments}\n- {tf: global_step, why: step counter}")
    assert ours(small("bert_base", tmp_path, more), checkpoint) == others("bert_base")


def test_the_other_converter_of_gpt2_fails_on_the_slots_of_a_training(checkpoints: Path, tmp_path: Path) -> None:
    # It cuts off six characters of every name, for "model/": beta1_power became "power".
    assert others_case("gpt2_trained") == {"error": "AttributeError: 'GPT2Model' object has no attribute 'power'"}
    assert ours(small("gpt2", tmp_path), checkpoints / "gpt2_trained") == others("gpt2")


def test_the_other_converter_filled_the_generator_with_the_discriminator(checkpoints: Path, tmp_path: Path) -> None:
    case = others_case("electra_generator_by_default")
    shapes = MODELS["electra_small"].variables()

    # `from_pretrained(..., from_tf=True)` of the generator's class leaves the loader at its default, the discriminator.
    for parameter, variable in {
        "electra.embeddings_project.weight": "embeddings_project/kernel",
        "electra.encoder.layer.0.attention.self.query.weight": "encoder/layer_0/attention/self/query/kernel",
        "electra.encoder.layer.1.output.dense.weight": "encoder/layer_1/output/dense/kernel",
    }.items():
        kernel = {name: value(name, shapes[name]) for name in (f"electra/{variable}", f"generator/{variable}")}
        assert case["changed"][parameter] == digest(kernel[f"electra/{variable}"].T)
        assert others("electra_small_generator")[parameter] == digest(kernel[f"generator/{variable}"].T)
    assert "electra.embeddings.word_embeddings.weight" in case["untouched"]
    got = ours(small("electra_small_generator", tmp_path), checkpoints / "electra_generator_by_default")
    assert got == others("electra_small_generator")


def test_one_line_chooses_between_weights_and_their_moving_averages(checkpoints: Path, tmp_path: Path) -> None:
    shapes = MODELS["mobilenet_v1"].variables()
    norm, average = "MobilenetV1/Conv2d_5_depthwise/BatchNorm", "/ExponentialMovingAverage"
    select = small("mobilenet_v1", tmp_path, ("_224.ckpt}", "_224.ckpt, select: /ExponentialMovingAverage}"))
    averages = ours(select, checkpoints / "mobilenet_v1")

    # Of two loaders one read averages where there are some, the other never; neither says so.
    for part, name in {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean"}.items():
        parameter, shape = f"mobilenet_v1.layer.8.normalization.{name}", shapes[f"{norm}/{part}"]
        assert others("mobilenet_v1")[parameter] == digest(value(f"{norm}/{part}", shape))
        assert averages[parameter] == digest(value(f"{norm}/{part}{average}", shape))
    stem = "MobilenetV2/Conv/BatchNorm/beta"
    shape = MODELS["mobilenet_v2"].variables()[stem]
    chosen = others("mobilenet_v2")["mobilenet_v2.conv_stem.first_conv.normalization.bias"]
    assert chosen == digest(value(f"{stem}{average}", shape))


def test_the_other_converter_mixed_weights_and_averages_where_one_average_is_missing(
    checkpoints: Path, tmp_path: Path
) -> None:
    variable = "MobilenetV2/expanded_conv_3/expand/weights"
    raw = value(variable, MODELS["mobilenet_v2"].variables()[variable])

    assert others_case("mobilenet_v2_mixed") == {
        "untouched": [],
        "changed": {"mobilenet_v2.layer.2.expand_1x1.convolution.weight": digest(raw.transpose(3, 2, 0, 1))},
    }
    assert refusal(small("mobilenet_v2", tmp_path), checkpoints / "mobilenet_v2_mixed") == [
        f"31:8: T2T214 source.select reads {variable}/ExponentialMovingAverage, which is not a variable of the "
        f"checkpoint; write select: none on the row, if the plain {variable} is meant"
    ]


def test_the_other_converter_dropped_the_output_layer_of_a_newer_t5(checkpoints: Path, tmp_path: Path) -> None:
    # From version 1.1 on T5 has an output layer of its own. With the default configuration it was stored into the
    # embedding's Parameter, and the embedding over it.
    assert others_case("t5_untied") == {"untouched": [], "changed": {}}
    assert others("t5_small")["lm_head.weight"] == others("t5_small")["shared.weight"]
    assert refusal(small("t5_small", tmp_path), checkpoints / "t5_untied") == [
        "16:1: T2T205 variable decoder/logits/kernel (float32 [8, 13], 104 elements) is used by no row; "
        "map it, or name it under ignore with a why"
    ]


# --- the checkpoints themselves ---


def test_every_result_of_the_other_converter_is_used() -> None:
    results = {path.stem for path in Path(__file__).with_name("published").glob("*.json")}

    assert results == {*MODELS, "cases"}
    assert set(others("cases")) == set(CASES)


def test_values_are_the_same_everywhere() -> None:
    values = value("bert/pooler/dense/bias", (3,))

    assert values.dtype == np.float32
    assert values.tolist() == [-0.7297213077545166, -0.575790286064148, 0.01638185977935791]


def test_no_two_variables_have_the_same_values() -> None:
    for name, model in MODELS.items():
        shapes = {variable: shape for variable, shape in model.stored().items() if variable != "global_step"}
        assert len({value(variable, shape).tobytes() for variable, shape in shapes.items()}) == len(shapes), name
