"""
A torch module with the parameters of BERT as it was pre-trained, by their usual names, and without a forward pass.
"""

from __future__ import annotations

from torch import nn


class BertShaped(nn.Module):
    """Embeddings, `layers` encoder layers of width `hidden`, the pooler, and the heads of pre-training."""

    def __init__(self, layers: int, hidden: int, vocabulary: int) -> None:
        super().__init__()
        embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(vocabulary, hidden),
                "position_embeddings": nn.Embedding(512, hidden),
                "token_type_embeddings": nn.Embedding(2, hidden),
                "LayerNorm": nn.LayerNorm(hidden),
            }
        )
        encoder = nn.ModuleDict({"layer": nn.ModuleList([_layer(hidden) for _ in range(layers)])})
        pooler = nn.ModuleDict({"dense": nn.Linear(hidden, hidden)})
        self.bert = nn.ModuleDict({"embeddings": embeddings, "encoder": encoder, "pooler": pooler})
        self.cls = nn.ModuleDict(
            {"predictions": Predictions(hidden, vocabulary), "seq_relationship": nn.Linear(hidden, 2)}
        )


class Predictions(nn.Module):
    """The head of the masked words, without its decoder: that is the word embeddings."""

    def __init__(self, hidden: int, vocabulary: int) -> None:
        super().__init__()
        self.bias = nn.Linear(1, vocabulary).bias
        self.transform = _dense_and_norm(hidden, hidden)


def _layer(hidden: int) -> nn.ModuleDict:
    heads = nn.ModuleDict({name: nn.Linear(hidden, hidden) for name in ("query", "key", "value")})
    return nn.ModuleDict(
        {
            "attention": nn.ModuleDict({"self": heads, "output": _dense_and_norm(hidden, hidden)}),
            "intermediate": nn.ModuleDict({"dense": nn.Linear(hidden, 4 * hidden)}),
            "output": _dense_and_norm(4 * hidden, hidden),
        }
    )


def _dense_and_norm(inputs: int, outputs: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(inputs, outputs), "LayerNorm": nn.LayerNorm(outputs)})
