"""
The flood-filling network's own graph (google/ffn, fib25), between its placeholders and its logits.

The whole graph reads sorted string tables and volumes with ops that never were in a public TensorFlow: only the network
itself can be imported.
"""

from __future__ import annotations

from mappings.originals.graph import Run, part


def original(checkpoint: str) -> Run:
    """
    The network of `checkpoint`, whose .meta file lies beside it.

    Inputs `patches` and `seed`, both [n, z, y, x, 1]; the output `logits` is of the same shape.
    """
    return part(checkpoint, {"patches": "patches:0", "seed": "seed:0"}, {"logits": "add:0"})
