"""
The two functions that Keras has called hard_sigmoid, and a table of activations by name.

    Keras 1 and 2, TF1's tf.keras     clip(0.2 x + 0.5, 0, 1)      0 from -2.5, 1 from 2.5
    Keras 3                           relu6(x + 3) / 6             0 from -3,   1 from 3; torch's hardsigmoid

Both are 0.5 at 0 and differ by up to 0.083. Which one a model means is a matter of the Keras that trained it.
Sources: hard_sigmoid in tensorflow/python/keras/backend.py and in keras/src/backend/tensorflow/nn.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn


def hard_sigmoid_keras2(x: Tensor) -> Tensor:
    """clip(0.2 x + 0.5, 0, 1), element by element: Keras 1 and 2."""
    return torch.clamp(0.2 * x + 0.5, 0, 1)


def hard_sigmoid_keras3(x: Tensor) -> Tensor:
    """relu6(x + 3) / 6, element by element: Keras 3, and torch's own."""
    return F.hardsigmoid(x)


class HardSigmoidKeras2(nn.Module):
    """clip(0.2 x + 0.5, 0, 1), element by element: "hard_sigmoid" in Keras 1 and 2. torch has no such module."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return hard_sigmoid_keras2(x)


class HardSigmoidKeras3(nn.Hardsigmoid):
    """relu6(x + 3) / 6, element by element: "hard_sigmoid" in Keras 3. torch.nn.Hardsigmoid, by a name that says so."""


#: What `activation` and `recurrent_activation` of the recurrent layers may be.
ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "hard_sigmoid_keras2": hard_sigmoid_keras2,
    "hard_sigmoid_keras3": hard_sigmoid_keras3,
    "relu": torch.relu,
    "linear": lambda x: x,
}
