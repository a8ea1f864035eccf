"""
Tensor2Tensor's transformer as a torch module: the sizes of its `transformer_test`, its other defaults of 2018.

Norms come before each sublayer and once more at the end; positions are a fixed signal of sines and cosines; inputs,
targets and the output share one embedding. Token 0 is padding.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import nn

VOCABULARY, SPACES, HIDDEN, FILTER, HEADS, LAYERS = 8190, 32, 16, 8, 2, 2


class Attention(nn.Module):
    """`x` [n, t, 16], normalized, attends to `memory` [n, l, 16] or itself where `seen` [..., t, l] is true."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(HIDDEN, eps=1e-6)
        self.q, self.k, self.v, self.output_transform = (nn.Linear(HIDDEN, HIDDEN, bias=False) for _ in range(4))

    def forward(self, x: torch.Tensor, seen: torch.Tensor, memory: torch.Tensor | None = None) -> torch.Tensor:
        normalized = self.norm(x)
        memory = normalized if memory is None else memory
        q, k, v = (
            layer(y).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for layer, y in ((self.q, normalized), (self.k, memory), (self.v, memory))
        )
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        y: torch.Tensor = self.output_transform(attended.transpose(1, 2).flatten(2))
        return x + y


class FeedForward(nn.Module):
    """Two dense layers with a ReLU between them: "conv" is what the original calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(HIDDEN, eps=1e-6)
        self.conv1 = nn.Linear(HIDDEN, FILTER)
        self.conv2 = nn.Linear(FILTER, HIDDEN)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv2(self.conv1(self.norm(x)).relu())
        return x + y


class Layer(nn.Module):
    """A layer of the encoder or, with attention to the encoder's result, of the decoder."""

    def __init__(self, *, decodes: bool) -> None:
        super().__init__()
        self.self_attention = Attention()
        self.encdec_attention = Attention() if decodes else None
        self.ffn = FeedForward()

    def forward(
        self,
        x: torch.Tensor,
        seen: torch.Tensor,
        encoded: torch.Tensor | None = None,
        encoded_seen: torch.Tensor | None = None,
    ) -> torch.Tensor:
        x = self.self_attention(x, seen)
        if self.encdec_attention is not None:
            x = self.encdec_attention(x, encoded_seen, encoded)
        result: torch.Tensor = self.ffn(x)
        return result


class Stack(nn.Module):
    """Layers, and the norm behind them."""

    def __init__(self, *, decodes: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(decodes=decodes) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(HIDDEN, eps=1e-6)

    def forward(self, x: torch.Tensor, *attended: torch.Tensor) -> torch.Tensor:
        x = x + timing(x.shape[1]).to(x)
        for layer in self.layers:
            x = layer(x, *attended)
        result: torch.Tensor = self.norm(x)
        return result


class Transformer(nn.Module):
    """Tokens `inputs` [n, l] and `targets` [n, t], the number of the targets' `space`, to logits [n, t, 8190]."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, HIDDEN)
        self.target_space = nn.Embedding(SPACES, HIDDEN)
        self.encoder = Stack(decodes=False)
        self.decoder = Stack(decodes=True)
        self.softmax = nn.Linear(HIDDEN, VOCABULARY, bias=False)
        self.softmax.weight = self.embedding.weight

    def embedded(self, tokens: torch.Tensor) -> torch.Tensor:
        """Embeddings [n, l, 16], zero where there is padding."""
        vectors: torch.Tensor = self.embedding(tokens) * math.sqrt(HIDDEN)
        return vectors * (tokens != 0)[..., None]

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor, space: torch.Tensor) -> torch.Tensor:
        inputs_seen = (inputs != 0)[:, None, None, :]
        encoded = self.encoder(self.embedded(inputs) + self.target_space(space), inputs_seen)
        # Each target is guessed from those before it.
        before = F.pad(self.embedded(targets), (0, 0, 1, -1))
        length = targets.shape[1]
        targets_seen = torch.ones(length, length, dtype=torch.bool, device=targets.device).tril()
        logits: torch.Tensor = self.softmax(self.decoder(before, targets_seen, encoded, inputs_seen))
        return logits


def timing(length: int) -> torch.Tensor:
    """What tells positions apart [length, 16]: sines, then cosines, of wavelengths from 2 pi to 20000 pi."""
    half = HIDDEN // 2
    rates = torch.exp(torch.arange(half) * (-math.log(1e4) / (half - 1)))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
