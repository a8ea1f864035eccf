"""
Checkpoints with the names under which known weights are published, at small sizes, written by TensorFlow.

    python -m tests.gallery.published FOLDER [NAME...]         # FOLDER/<name>.index and .data-00000-of-00001

Names and shapes follow by rule from a model's configuration, so that the same rule gives them at the published sizes.
A variable's values follow from its name alone (SHAKE-256), so that they are the same on every machine and in every
version of numpy: what another converter made of such a checkpoint elsewhere can be compared with what t2t makes of it
here. This file imports numpy only, and TensorFlow where it writes: it runs in the oracle's environment, too.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Shapes = dict[str, tuple[int, ...]]
Sizes = Mapping[str, Any]


@dataclass(frozen=True)
class Model:
    """
    A published model: `rule` gives its variables at given sizes, `training` what the file holds beside them.

    `sizes` are [as published, small], by the keyword of the configuration of `transformers`. The mapping has each as
    `keyword: value` once, and `layers`, a range of its `for`, likewise.
    """

    rule: Callable[[Sizes], Shapes]
    training: Callable[[Shapes], Shapes]
    sizes: Mapping[str, tuple[Any, Any]]
    layers: tuple[str, str] = ("", "")

    def variables(self, small: bool = True) -> Shapes:
        """The variables of the model itself."""
        return self.rule({name: values[small] for name, values in self.sizes.items()})

    def stored(self, small: bool = True) -> Shapes:
        """Every variable of the checkpoint."""
        variables = self.variables(small)
        return variables | self.training(variables)

    def shrink(self, mapping: str) -> str:
        """The mapping's text with the small sizes. Nothing but marked values changes."""
        edits = [(f"{name}: {published}", f"{name}: {small}") for name, (published, small) in self.sizes.items()]
        for old, new in [*edits, *([self.layers] if self.layers[0] else [])]:
            pattern = rf"\b{re.escape(old)}(?![\w.])"
            mapping, count = re.subn(pattern, new, mapping)
            assert count == 1, f"{old!r} stands {count} times in the mapping"
        return mapping


# --- what a layer is called ---


def dense(name: str, inputs: int, outputs: int) -> Shapes:
    """tf.layers.dense."""
    return {f"{name}/kernel": (inputs, outputs), f"{name}/bias": (outputs,)}


def layer_norm(name: str, size: int) -> Shapes:
    """contrib.layers.layer_norm."""
    return {f"{name}/beta": (size,), f"{name}/gamma": (size,)}


def embeddings(name: str, sizes: Sizes, width: int) -> Shapes:
    """The three tables of BERT and its successors, and their normalization."""
    return {
        f"{name}/word_embeddings": (sizes["vocab_size"], width),
        f"{name}/position_embeddings": (sizes["max_position_embeddings"], width),
        f"{name}/token_type_embeddings": (2, width),
        **layer_norm(f"{name}/LayerNorm", width),
    }


def encoder(name: str, sizes: Sizes) -> Shapes:
    """The layers of BERT and ELECTRA."""
    hidden, inner = sizes["hidden_size"], sizes["intermediate_size"]
    shapes: Shapes = {}
    for i in range(sizes["num_hidden_layers"]):
        for part in ("query", "key", "value"):
            shapes |= dense(f"{name}/layer_{i}/attention/self/{part}", hidden, hidden)
        shapes |= dense(f"{name}/layer_{i}/attention/output/dense", hidden, hidden)
        shapes |= layer_norm(f"{name}/layer_{i}/attention/output/LayerNorm", hidden)
        shapes |= dense(f"{name}/layer_{i}/intermediate/dense", hidden, inner)
        shapes |= dense(f"{name}/layer_{i}/output/dense", inner, hidden)
        shapes |= layer_norm(f"{name}/layer_{i}/output/LayerNorm", hidden)
    return shapes


def masked_words(name: str, hidden: int, width: int, vocabulary: int) -> Shapes:
    """The head that predicts words, in front of the embedding that it shares."""
    return {
        **dense(f"{name}/dense", hidden, width),
        **layer_norm(f"{name}/LayerNorm", width),
        f"{name.removesuffix('/transform')}/output_bias": (vocabulary,),
    }


def slim(name: str, weights: str, shape: tuple[int, ...], outputs: int) -> Shapes:
    """TF-Slim's convolution with a batch normalization."""
    norm = {f"{name}/BatchNorm/{part}": (outputs,) for part in ("beta", "gamma", "moving_mean", "moving_variance")}
    return {f"{name}/{weights}": shape, **norm}


# --- the models ---


def bert(sizes: Sizes) -> Shapes:
    """google-research/bert, run_pretraining.py."""
    hidden = sizes["hidden_size"]
    return {
        **embeddings("bert/embeddings", sizes, hidden),
        **encoder("bert/encoder", sizes),
        **dense("bert/pooler/dense", hidden, hidden),
        **masked_words("cls/predictions/transform", hidden, hidden, sizes["vocab_size"]),
        "cls/seq_relationship/output_weights": (2, hidden),
        "cls/seq_relationship/output_bias": (2,),
    }


def albert(sizes: Sizes) -> Shapes:
    """google-research/albert, run_pretraining.py: one group of one layer, which is run many times."""
    width, hidden, inner = sizes["embedding_size"], sizes["hidden_size"], sizes["intermediate_size"]
    layer = "bert/encoder/transformer/group_0/inner_group_0"
    shapes = {
        **embeddings("bert/embeddings", sizes, width),
        **dense("bert/encoder/embedding_hidden_mapping_in", width, hidden),
    }
    for part in ("query", "key", "value"):
        shapes |= dense(f"{layer}/attention_1/self/{part}", hidden, hidden)
    return {
        **shapes,
        **dense(f"{layer}/attention_1/output/dense", hidden, hidden),
        **layer_norm(f"{layer}/LayerNorm", hidden),
        **dense(f"{layer}/ffn_1/intermediate/dense", hidden, inner),
        **dense(f"{layer}/ffn_1/intermediate/output/dense", inner, hidden),
        **layer_norm(f"{layer}/LayerNorm_1", hidden),
        **dense("bert/pooler/dense", hidden, hidden),
        **masked_words("cls/predictions/transform", hidden, width, sizes["vocab_size"]),
        "cls/seq_relationship/output_weights": (2, hidden),
        "cls/seq_relationship/output_bias": (2,),
    }


def electra(sizes: Sizes) -> Shapes:
    """google-research/electra: two networks in one file; in ELECTRA-Small the generator is as large as the other."""
    width, hidden = sizes["embedding_size"], sizes["hidden_size"]
    return {
        **embeddings("electra/embeddings", sizes, width),
        **dense("electra/embeddings_project", width, hidden),
        **encoder("electra/encoder", sizes),
        **dense("discriminator_predictions/dense", hidden, hidden),
        **dense("discriminator_predictions/dense_1", hidden, 1),
        **dense("generator/embeddings_project", width, hidden),
        **encoder("generator/encoder", sizes),
        **masked_words("generator_predictions", hidden, width, sizes["vocab_size"]),
    }


def gpt2(sizes: Sizes) -> Shapes:
    """openai/gpt-2: a convolution over one position stands for each dense layer."""
    width = sizes["n_embd"]
    shapes: Shapes = {"model/wte": (sizes["vocab_size"], width), "model/wpe": (sizes["n_positions"], width)}

    def convolution(name: str, inputs: int, outputs: int) -> Shapes:
        return {f"{name}/w": (1, inputs, outputs), f"{name}/b": (outputs,)}

    def norm(name: str) -> Shapes:
        return {f"{name}/g": (width,), f"{name}/b": (width,)}

    for i in range(sizes["n_layer"]):
        shapes |= convolution(f"model/h{i}/attn/c_attn", width, 3 * width)
        shapes |= convolution(f"model/h{i}/attn/c_proj", width, width)
        shapes |= convolution(f"model/h{i}/mlp/c_fc", width, 4 * width)
        shapes |= convolution(f"model/h{i}/mlp/c_proj", 4 * width, width)
        shapes |= norm(f"model/h{i}/ln_1") | norm(f"model/h{i}/ln_2")
    return shapes | norm("model/ln_f")


def mobilenet_v1(sizes: Sizes) -> Shapes:
    """slim/nets/mobilenet_v1.py."""
    outputs = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)

    def channels(count: int) -> int:
        return max(int(count * sizes["depth_multiplier"]), 8)

    before = channels(32)
    shapes = slim("MobilenetV1/Conv2d_0", "weights", (3, 3, 3, before), before)
    for i, count in enumerate(outputs, start=1):
        after = channels(count)
        shapes |= slim(f"MobilenetV1/Conv2d_{i}_depthwise", "depthwise_weights", (3, 3, before, 1), before)
        shapes |= slim(f"MobilenetV1/Conv2d_{i}_pointwise", "weights", (1, 1, before, after), after)
        before = after
    classes = sizes["num_labels"]
    logits = "MobilenetV1/Logits/Conv2d_1c_1x1"
    return shapes | {f"{logits}/weights": (1, 1, before, classes), f"{logits}/biases": (classes,)}


def mobilenet_v2(sizes: Sizes) -> Shapes:
    """slim/nets/mobilenet/mobilenet_v2.py: the first of the blocks has no expansion, and no number."""
    outputs = (24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320)

    def channels(count: float) -> int:
        wanted = count * sizes["depth_multiplier"]
        divisible = max(8, int(wanted + 4) // 8 * 8)
        return divisible + 8 if divisible < 0.9 * wanted else divisible

    before, after = channels(32), channels(16)
    shapes = slim("MobilenetV2/Conv", "weights", (3, 3, 3, before), before)
    block = "MobilenetV2/expanded_conv"
    shapes |= slim(f"{block}/depthwise", "depthwise_weights", (3, 3, before, 1), before)
    shapes |= slim(f"{block}/project", "weights", (1, 1, before, after), after)
    before = after
    for i, count in enumerate(outputs, start=1):
        wide, after = 6 * before, channels(count)
        shapes |= slim(f"{block}_{i}/expand", "weights", (1, 1, before, wide), wide)
        shapes |= slim(f"{block}_{i}/depthwise", "depthwise_weights", (3, 3, wide, 1), wide)
        shapes |= slim(f"{block}_{i}/project", "weights", (1, 1, wide, after), after)
        before = after
    shapes |= slim("MobilenetV2/Conv_1", "weights", (1, 1, before, 1280), 1280)
    classes = sizes["num_labels"]
    logits = "MobilenetV2/Logits/Conv2d_1c_1x1"
    return shapes | {f"{logits}/weights": (1, 1, 1280, classes), f"{logits}/biases": (classes,)}


def t5(sizes: Sizes) -> Shapes:
    """Mesh TensorFlow's Transformer as google-research/text-to-text-transfer-transformer configures it."""
    width, heads = sizes["d_model"], sizes["num_heads"]
    inner = heads * sizes["d_kv"]
    shapes: Shapes = {"shared/embedding": (sizes["vocab_size"], width)}

    def attention(name: str) -> Shapes:
        return {**{f"{name}/{part}": (width, inner) for part in "qkv"}, f"{name}/o": (inner, width)}

    for side in ("encoder", "decoder"):
        for i in range(sizes["num_layers"]):
            names = ["SelfAttention", *(["EncDecAttention"] if side == "decoder" else []), "DenseReluDense"]
            for j, name in enumerate(names):
                layer = f"{side}/block_{i:03}/layer_{j:03}"
                shapes[f"{layer}/layer_norm/scale"] = (width,)
                if name == "DenseReluDense":
                    shapes[f"{layer}/{name}/wi/kernel"] = (width, sizes["d_ff"])
                    shapes[f"{layer}/{name}/wo/kernel"] = (sizes["d_ff"], width)
                else:
                    shapes |= attention(f"{layer}/{name}")
        bias = f"{side}/block_000/layer_000/SelfAttention/relative_attention_bias"
        shapes[bias] = (heads, sizes["relative_attention_num_buckets"])
        shapes[f"{side}/final_layer_norm/scale"] = (width,)
    return shapes


# --- what training leaves beside them ---


def nothing(variables: Shapes) -> Shapes:
    """Published without it."""
    return {}


def step(variables: Shapes) -> Shapes:
    """The step counter alone."""
    return {"global_step": ()}


def adam_weight_decay(variables: Shapes) -> Shapes:
    """The AdamWeightDecayOptimizer of BERT, ALBERT and ELECTRA."""
    slots = {f"{name}/{slot}": shape for name, shape in variables.items() for slot in ("adam_m", "adam_v")}
    return slots | step(variables)


def adam(variables: Shapes) -> Shapes:
    """tf.compat.v1.train.AdamOptimizer."""
    slots = {f"{name}/{slot}": shape for name, shape in variables.items() for slot in ("Adam", "Adam_1")}
    return slots | {"beta1_power": (), "beta2_power": ()}


def electra_training(variables: Shapes) -> Shapes:
    """What run_pretraining.py saves, and a variable of older versions, the temperature of the generator's samples."""
    return adam_weight_decay(variables) | {"generator_predictions/temperature": ()}


def slim_training(variables: Shapes) -> Shapes:
    """TF-Slim with RMSProp and moving averages: an average of every model variable, slots of the trainable ones."""
    slots: Shapes = {}
    for name, shape in variables.items():
        slots[f"{name}/ExponentialMovingAverage"] = shape
        if "/moving_" not in name:
            slots |= {f"{name}/RMSProp": shape, f"{name}/RMSProp_1": shape}
    return slots | step(variables)


def adafactor(variables: Shapes) -> Shapes:
    """Mesh TensorFlow's Adafactor: of matrices the sums over rows and over columns, unless they are narrow."""
    slots: Shapes = {}
    for name, shape in variables.items():
        if len(shape) == 2 and not name.endswith("relative_attention_bias"):
            slots |= {f"{name}_slot_vr": shape[:1], f"{name}_slot_vc": shape[1:]}
        else:
            slots[f"{name}_slot_v"] = shape
    return slots | step(variables)


def _bert_sizes(hidden: int, layers: int, heads: int, small_layers: int) -> dict[str, tuple[int, int]]:
    return {
        "vocab_size": (30522, 13),
        "hidden_size": (hidden, 8),
        "num_hidden_layers": (layers, small_layers),
        "num_attention_heads": (heads, 2),
        "intermediate_size": (4 * hidden, 12),
        "max_position_embeddings": (512, 6),
    }


_ELECTRA = {
    "vocab_size": (30522, 13),
    "embedding_size": (128, 4),
    "hidden_size": (256, 8),
    "num_hidden_layers": (12, 2),
    "num_attention_heads": (4, 2),
    "intermediate_size": (1024, 12),
    "max_position_embeddings": (512, 6),
}

#: By the name of the mapping.
MODELS = {
    "bert_base": Model(bert, nothing, _bert_sizes(768, 12, 12, 2), ("i: 0..11", "i: 0..1")),
    "bert_large": Model(bert, nothing, _bert_sizes(1024, 24, 16, 3), ("i: 0..23", "i: 0..2")),
    "gpt2": Model(
        gpt2,
        nothing,
        {
            "vocab_size": (50257, 13),
            "n_positions": (1024, 6),
            "n_embd": (768, 8),
            "n_layer": (12, 2),
            "n_head": (12, 2),
        },
        ("i: 0..11", "i: 0..1"),
    ),
    "albert_base": Model(
        albert,
        step,
        {
            "vocab_size": (30000, 13),
            "embedding_size": (128, 4),
            "hidden_size": (768, 8),
            "num_hidden_layers": (12, 2),
            "num_attention_heads": (12, 2),
            "intermediate_size": (3072, 12),
            "max_position_embeddings": (512, 6),
        },
    ),
    "electra_small": Model(electra, electra_training, _ELECTRA, ("i: 0..11", "i: 0..1")),
    "electra_small_generator": Model(electra, electra_training, _ELECTRA, ("i: 0..11", "i: 0..1")),
    "mobilenet_v1": Model(mobilenet_v1, slim_training, {"depth_multiplier": (1.0, 0.125), "num_labels": (1001, 5)}),
    "mobilenet_v2": Model(mobilenet_v2, slim_training, {"depth_multiplier": (1.0, 0.25), "num_labels": (1001, 5)}),
    "t5_small": Model(
        t5,
        adafactor,
        {
            "vocab_size": (32128, 13),
            "d_model": (512, 8),
            "d_kv": (64, 3),
            "d_ff": (2048, 12),
            "num_layers": (6, 2),
            "num_heads": (8, 2),
            "relative_attention_num_buckets": (32, 5),
        },
        ("i: 0..5", "i: 0..1"),
    ),
}


@dataclass(frozen=True)
class Case:
    """A checkpoint for the mapping `model` that is not as published. `options` are the other converter's, if any."""

    model: str
    stored: Shapes
    options: Mapping[str, str] = field(default_factory=dict)


#: For each loader, a variable that the file has not (nor its slots), and the name of the state_dict that it belongs to.
MISSING = {
    "bert_base": ("cls/seq_relationship/output_weights", "cls.seq_relationship.weight"),
    "gpt2": ("model/h1/mlp/c_fc/w", "transformer.h.1.mlp.c_fc.weight"),
    "albert_base": ("bert/pooler/dense/kernel", "albert.pooler.weight"),
    "electra_small": ("electra/embeddings/position_embeddings", "electra.embeddings.position_embeddings.weight"),
    "mobilenet_v1": ("MobilenetV1/Conv2d_3_pointwise/weights", "mobilenet_v1.layer.5.convolution.weight"),
    "mobilenet_v2": ("MobilenetV2/Conv_1/BatchNorm/moving_mean", "mobilenet_v2.conv_1x1.normalization.running_mean"),
    "t5_small": (
        "decoder/block_001/layer_001/EncDecAttention/k",
        "decoder.block.1.layer.1.EncDecAttention.k.weight",
    ),
}


def _with(name: str, training: Callable[[Shapes], Shapes]) -> Shapes:
    """As published, and what such a training adds."""
    model = MODELS[name]
    return model.stored() | training(model.variables())


def _without(name: str, start: str) -> Shapes:
    """As published, without the variables whose names start so."""
    return {variable: shape for variable, shape in MODELS[name].stored().items() if not variable.startswith(start)}


def _tuned(variables: Shapes) -> Shapes:
    """Adam's slots of the normalizations: all that a sparing fine-tuning trains."""
    return {name: shape for name, shape in adam(variables).items() if "/LayerNorm" in name}


def _adapter(variables: Shapes) -> Shapes:
    """A normalization inside an adapter."""
    return layer_norm("bert/encoder/layer_1/output/adapter/LayerNorm", 8)


def _logits(variables: Shapes) -> Shapes:
    """The output layer that T5 has from version 1.1 on."""
    return {"decoder/logits/kernel": variables["shared/embedding"][::-1]}


#: Each of them shows something about the loaders of `transformers`: see test_published.py.
CASES = {
    **{f"{name}_missing": Case(name, _without(name, variable)) for name, (variable, _) in MISSING.items()},
    "bert_trained": Case("bert_base", _with("bert_base", adam_weight_decay)),
    "bert_tuned": Case("bert_base", _with("bert_base", _tuned)),
    "bert_adapter": Case("bert_base", _with("bert_base", _adapter)),
    "bert_layer_more": Case("bert_base", MODELS["bert_large"].stored()),
    "albert_tuned": Case("albert_base", _with("albert_base", _tuned)),
    "gpt2_trained": Case("gpt2", _with("gpt2", adam)),
    "electra_generator_by_default": Case(
        "electra_small_generator", MODELS["electra_small_generator"].stored(), {"as": "discriminator"}
    ),
    "mobilenet_v2_mixed": Case(
        "mobilenet_v2",
        _without("mobilenet_v2", "MobilenetV2/expanded_conv_3/expand/weights/ExponentialMovingAverage"),
    ),
    "t5_untied": Case("t5_small", _with("t5_small", _logits)),
}


def checkpoints() -> dict[str, Shapes]:
    """Every checkpoint that is written, by its name."""
    return {
        **{name: model.stored() for name, model in MODELS.items()},
        **{name: case.stored for name, case in CASES.items()},
    }


# --- values, and what is compared of them ---


def value(name: str, shape: tuple[int, ...]) -> Array:
    """
    The values of the variable of this name: float32 in [-1, 1), multiples of 2**-23, for which no rounding is needed.

    A step counter is int64, and 1000.
    """
    if name == "global_step":
        return np.array(1000, np.int64)
    count = int(np.prod(shape, dtype=np.int64))
    drawn = np.frombuffer(hashlib.shake_256(name.encode()).digest(4 * count), "<u4") >> 8
    return (drawn.astype(np.float64) * 2.0**-23 - 1).astype(np.float32).reshape(shape)


def digest(array: Array) -> str:
    """SHA-256 over dtype, shape and the bytes in C order."""
    head = f"{array.dtype.name} {list(array.shape)}\n".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


def write(prefix: Path, shapes: Shapes) -> None:
    """One V2 checkpoint with exactly these variables, written by TensorFlow."""
    import tensorflow as tf

    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(shapes),
        shape_and_slices=[""] * len(shapes),
        tensors=[tf.constant(value(name, shape)) for name, shape in shapes.items()],
    )


def write_all(folder: Path, names: Iterable[str] = ()) -> None:
    """The checkpoints of these names, or every one, as `folder`/<name>."""
    os.makedirs(folder, exist_ok=True)
    known = checkpoints()
    for name in names or known:
        write(folder / name, known[name])


if __name__ == "__main__":
    write_all(Path(sys.argv[1]), sys.argv[2:])
