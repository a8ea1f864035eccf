"""
XLNet's classes of the `transformers` package, called as XLNet's own code calls them.

Each layer's memory is an argument. The parameters keep the names that they have in `transformers`, so a converted file
fits those classes, too.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import XLNetConfig, XLNetLMHeadModel, XLNetModel

#: The toys' sizes. XLNet's "gelu" is the one with a tanh, which `transformers` calls gelu_new.
TOY = {
    "vocab_size": 31,
    "d_model": 6,
    "n_layer": 2,
    "n_head": 2,
    "d_inner": 12,
    "ff_activation": "gelu_new",
    "mem_len": 5,
}


class Encoder(XLNetModel):  # type: ignore[misc]
    """
    What is fine-tuned: the content stream alone.

    Token ids and segment ids [n, l], `permutation` [n, l, l] (1 where the first token may not see the second), the
    layers' memories [m, n, 6] and `padding` [n, l] (1 where there is no token) to hidden states [n, l, 6] and the
    layers' new memories [5, n, 6].
    """

    def __init__(self) -> None:
        super().__init__(XLNetConfig(**TOY))

    def forward(  # noqa: PLR0917 (they are the original's inputs)
        self,
        tokens: torch.Tensor,
        segments: torch.Tensor,
        permutation: torch.Tensor,
        memory_0: torch.Tensor | None = None,
        memory_1: torch.Tensor | None = None,
        padding: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        computed = super().forward(
            tokens,
            token_type_ids=segments,
            perm_mask=permutation,
            mems=[memory_0, memory_1],
            input_mask=padding,
            use_mems=True,
        )
        return (computed.last_hidden_state, *computed.mems)


class Pretrained(XLNetLMHeadModel):  # type: ignore[misc]
    """
    What is pretrained: both streams, and the head that guesses words.

    As `Encoder`, but with `query` [n, l] in place of padding: 1 where a token is to be guessed and the query stream
    starts at the mask's embedding, 0 where it starts at the token's own. (The class's own forward knows only ones.) The
    first result is the logits [n, l, 31].
    """

    def __init__(self) -> None:
        super().__init__(XLNetConfig(**TOY))

    def forward(  # noqa: PLR0917 (they are the original's inputs)
        self,
        tokens: torch.Tensor,
        segments: torch.Tensor,
        permutation: torch.Tensor,
        memory_0: torch.Tensor,
        memory_1: torch.Tensor,
        query: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        # In here the batch comes second, as in the original and in the layers of `transformers`.
        inner: Any = self.transformer
        batch, length = tokens.shape
        remembered = memory_0.shape[0]
        content = inner.word_embedding(tokens.T)
        asked = query.T[:, :, None]
        guess = asked * inner.mask_emb + (1 - asked) * content

        # Every token sees the memory; in the content stream it sees itself, too.
        unseen = torch.nn.functional.pad(permutation.permute(1, 2, 0), (0, 0, remembered, 0))[..., None]
        itself = torch.eye(length)[:, :, None, None]
        content_unseen = unseen - torch.nn.functional.pad(itself, (0, 0, 0, 0, remembered, 0))
        known = torch.nn.functional.pad(segments.T, (0, 0, remembered, 0))
        other_segment = (segments.T[:, None] != known[None, :]).long()
        other_segment = torch.nn.functional.one_hot(other_segment, 2).to(content.dtype)
        positions = inner.relative_positional_encoding(length, remembered + length, bsz=batch)

        memories = []
        for layer, memory in zip(inner.layer, (memory_0, memory_1), strict=True):
            memories.append(inner.cache_mem(content, memory))
            content, guess = layer(
                content,
                guess,
                attn_mask_h=(content_unseen > 0).to(content.dtype),
                attn_mask_g=(unseen > 0).to(content.dtype),
                r=positions,
                seg_mat=other_segment,
                mems=memory,
            )[:2]
        return (self.lm_loss(guess).transpose(0, 1), *memories)
