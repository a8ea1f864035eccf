"""
Layers that torch has under the same name and computes otherwise: every shape fits, and the outputs differ.

Keras' description of a model says which those are. Where there is none, the shapes of a recurrent layer's variables do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from t2t.names import shown
from t2t.problems import Problem
from t2t.tensors import TensorRef

_RESET = "torch's GRU resets after the product"

#: Classes, an option and its value, what torch does, the way out.
OPTIONS = (
    (("GRU", "GRUCell"), "reset_after", False, _RESET, "map it with the recipe gru.reset_before onto t2t.nn.GRU"),
    *(
        (
            ("GRU", "GRUCell", "LSTM", "LSTMCell"),
            option,
            "hard_sigmoid",
            "torch has sigmoid",
            "t2t.nn.LSTM and t2t.nn.GRU take a recurrent_activation",
        )
        for option in ("recurrent_activation", "inner_activation")
    ),
)

#: The layers of cuDNN: which of Keras' they are, and how many gates these have.
CUDNN = {"CuDNNLSTM": ("LSTM", 4), "CuDNNGRU": ("GRU", 3)}

#: The recipes that know what is special about a layer which is found by its shapes.
RECIPES = {"GRU": "gru.reset_before", "CuDNNLSTM": "cudnn.lstm", "CuDNNGRU": "cudnn.gru"}


def cudnn(name: str, kind: str) -> Problem:
    """The finding for a layer of cuDNN."""
    plain, gates = CUDNN[kind]
    message = (
        f"{name} is a {kind}, whose bias is torch's bias_ih and then bias_hh: {2 * gates} parts, where Keras' {plain}"
    )
    hint = f"map it with the recipe {RECIPES[kind]}"
    return Problem("T2T615", f"{message} has others", None, hint, "warning")


def by_shape(variables: Iterable[TensorRef]) -> Iterator[tuple[str, Problem]]:
    """
    A bias of each layer that is special, and the finding; from shapes alone.

    A cell has (n, g u), (u, g u) and a bias, of g u where nothing is special.
    """
    layers: dict[str, dict[str, TensorRef]] = {}
    for ref in variables:
        layer, _, name = (ref.full_name or ref.name).rpartition("/")
        layers.setdefault(layer, {})[name] = ref
    for layer, own in layers.items():
        if not {"kernel", "recurrent_kernel", "bias"} <= set(own) or len(own["recurrent_kernel"].shape) != 2:
            continue
        units, width = own["recurrent_kernel"].shape
        bias = own["bias"]
        if width == 3 * units and bias.shape == (width,):
            message = f"the GRU {shown(layer)} has a bias of {width}, hence reset_after=false, but {_RESET}"
            hint = f"map it with the recipe {RECIPES['GRU']} onto t2t.nn.GRU"
            yield bias.name, Problem("T2T615", message, None, hint, "warning")
        for kind, (_, gates) in CUDNN.items():
            if width == gates * units and bias.shape == (2 * width,):
                yield bias.name, cudnn(shown(layer), kind)
