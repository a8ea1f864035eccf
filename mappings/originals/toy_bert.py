"""
The pretraining graph of the toy BERT of CyberZHG/keras-bert, made with google-research/bert.

The graph trains, and its input pipeline uses an op that TensorFlow has dropped. Every keep_prob of its dropouts is set
to 1, and what the iterator would give is fed.
"""

from __future__ import annotations

from typing import Any

from mappings.originals.graph import Run, part

#: The graph's shapes are fixed: sequences in a batch, tokens in a sequence, masked positions of a sequence.
BATCH, TOKENS, MASKED = 32, 16, 20

#: Which output of IteratorGetNext is which feature: they are in alphabetical order.
FEATURES = {
    "input_ids": "IteratorGetNext:0",
    "input_mask": "IteratorGetNext:1",
    "masked_lm_positions": "IteratorGetNext:3",
    "segment_ids": "IteratorGetNext:6",
}

OUTPUTS = {
    "attention_0": "bert/encoder/layer_0/attention/self/Softmax:0",
    "attention_1": "bert/encoder/layer_1/attention/self/Softmax:0",
    "words": "cls/predictions/BiasAdd:0",
    "next": "cls/seq_relationship/BiasAdd:0",
}


def original(checkpoint: str) -> Run:
    """
    The graph of `checkpoint`, whose .meta file lies beside it.

    Inputs `input_ids`, `input_mask` and `segment_ids`, int32 [n, 16], where n divides 32: they are repeated to fill the
    batch. Outputs: each layer's attention [n, 4, 16, 16], and the logits `words` [n, 16, 15] and `next` [n, 2].
    """
    import numpy as np

    dropouts = ["bert/embeddings/dropout"]
    for layer in ("bert/encoder/layer_0", "bert/encoder/layer_1"):
        dropouts += [f"{layer}/attention/self/dropout", f"{layer}/attention/output/dropout", f"{layer}/output/dropout"]
    graph = part(checkpoint, FEATURES, OUTPUTS, {f"{dropout}/keep_prob:0": 1.0 for dropout in dropouts})
    # The graph predicts words at masked positions only. There is room for all of a sequence, and for four more.
    positions = np.tile(np.arange(MASKED, dtype=np.int32) % TOKENS, (BATCH, 1))

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        given = len(inputs["input_ids"])
        filled = {name: np.tile(array, (BATCH // given, 1)) for name, array in inputs.items()}
        outputs = graph({**filled, "masked_lm_positions": positions})
        outputs["words"] = outputs["words"].reshape(BATCH, MASKED, -1)[:, :TOKENS]
        return {name: array[:given] for name, array in outputs.items()}

    return run
