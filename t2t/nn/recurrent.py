"""
GRU and LSTM as Keras and TF1 compute them where torch's own cannot: reset before, hard sigmoids, peepholes, clipping.

Parameters have torch's names, shapes and order of gates, so that a mapping's rows are those for torch.nn.LSTM:

    GRU     gates r z n      weight_ih_l0 [3u, x], weight_hh_l0 [3u, u], bias_ih_l0 [3u]
    LSTM    gates i f g o    weight_ih_l0 [4u, x], weight_hh_l0 [4u, u], bias_ih_l0 [4u], bias_hh_l0 [4u]

`_l0_reverse` is the other direction; the cells, which take one step, have no suffix. One layer each: stack them in the
twin. They loop over time in Python: an LSTM with nothing special is torch.nn.LSTM, and faster. There is neither a mask
nor a PackedSequence: what TF1's sequence_length or Keras' mask does, the twin does around them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypedDict, Unpack

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn

from t2t.nn.activations import ACTIVATIONS

#: The state of an LSTM: its output h and its cell c.
State = tuple[Tensor, Tensor]


class _Activations(TypedDict, total=False):
    """What GRU and GRUCell take by name."""

    bias: bool
    activation: str
    recurrent_activation: str
    device: Any
    dtype: Any


class _Options(_Activations, total=False):
    """What LSTM and LSTMCell take by name."""

    forget_bias: float
    peepholes: bool
    proj_size: int
    cell_clip: float | None
    proj_clip: float | None


class _Recurrent(nn.Module):
    """Parameters by torch's names, and the loop over time. A state is a tuple of tensors, the first is the output."""

    #: What repr leaves out: the options that are as usual.
    usual: ClassVar[Mapping[str, object]] = {
        "bias": True,
        "batch_first": False,
        "bidirectional": False,
        "activation": "tanh",
        "recurrent_activation": "sigmoid",
    }
    batch_first = False
    bidirectional = False

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool, activation: str, recurrent_activation: str
    ) -> None:
        super().__init__()
        for argument, name in (("activation", activation), ("recurrent_activation", recurrent_activation)):
            if name not in ACTIVATIONS:
                raise ValueError(f"{argument} is {name!r}; it may be {', '.join(ACTIVATIONS)}")
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        self.activation = activation
        self.recurrent_activation = recurrent_activation

    def _register(
        self, suffixes: Sequence[str], shapes: Mapping[str, tuple[int, ...]], device: Any, dtype: Any
    ) -> None:
        for suffix in suffixes:
            for name, shape in shapes.items():
                self.register_parameter(name + suffix, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fill every parameter evenly within 1 / sqrt(hidden_size), as torch's recurrent layers do."""
        bound = self.hidden_size**-0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def _weight(self, name: str) -> Tensor:
        weight: Tensor = getattr(self, name)
        return weight

    def _state_sizes(self) -> tuple[int, ...]:
        raise NotImplementedError

    def _step(self, from_x: Tensor, state: tuple[Tensor, ...], suffix: str) -> tuple[Tensor, ...]:
        """The next state, from what the input adds to the gates [n, gates * u] and the last state."""
        raise NotImplementedError

    def _from_x(self, x: Tensor, suffix: str) -> Tensor:
        bias = self._weight(f"bias_ih{suffix}") if self.bias else None
        return F.linear(x, self._weight(f"weight_ih{suffix}"), bias)

    def _state(self, x: Tensor, given: tuple[Tensor, ...] | None, *sizes: int) -> tuple[Tensor, ...]:
        """The state to start from: zeros, or what is given. A wrong shape would be broadcast without a word."""
        wanted = [(*sizes, size) for size in self._state_sizes()]
        if given is None:
            return tuple(x.new_zeros(shape) for shape in wanted)
        shapes = [tuple(tensor.shape) for tensor in given]
        if shapes != wanted:
            raise ValueError(f"the state is {_listed(shapes)}; it has to be {_listed(wanted)}")
        return given

    def _one_step(self, x: Tensor, given: tuple[Tensor, ...] | None) -> tuple[Tensor, ...]:
        if x.dim() != 2 or x.shape[1] != self.input_size:
            raise ValueError(f"the input is {list(x.shape)}; it has to be [batch, {self.input_size}]")
        return self._step(self._from_x(x, ""), self._state(x, given, len(x)), "")

    def _over_time(self, x: Tensor, given: tuple[Tensor, ...] | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        if x.dim() != 3 or x.shape[2] != self.input_size or not x.shape[1 if self.batch_first else 0]:
            order = "batch, time" if self.batch_first else "time, batch"
            raise ValueError(
                f"the input is {list(x.shape)}; it has to be [{order}, {self.input_size}], with a time step"
            )
        x = x.transpose(0, 1) if self.batch_first else x
        suffixes = ("_l0", "_l0_reverse") if self.bidirectional else ("_l0",)
        starts = self._state(x, given, len(suffixes), x.shape[1])
        outputs, ends = [], []
        for direction, suffix in enumerate(suffixes):
            state = tuple(tensor[direction] for tensor in starts)
            steps: list[Tensor] = []
            for from_x in self._from_x(x.flip(0) if direction else x, suffix):
                state = self._step(from_x, state, suffix)
                steps.append(state[0])
            outputs.append(torch.stack(steps[::-1] if direction else steps))
            ends.append(state)
        output = torch.cat(outputs, dim=2)
        last = tuple(torch.stack(parts) for parts in zip(*ends, strict=True))
        return output.transpose(0, 1) if self.batch_first else output, last

    def extra_repr(self) -> str:
        said = {name: getattr(self, name) for name, value in self.usual.items() if getattr(self, name) != value}
        return ", ".join([f"{self.input_size}, {self.hidden_size}", *(f"{name}={said[name]}" for name in said)])


def _listed(shapes: Sequence[tuple[int, ...]]) -> str:
    return " and ".join(str(list(shape)) for shape in shapes)


class _GRU(_Recurrent):
    def __init__(
        self,
        suffixes: Sequence[str],
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        activation: str = "tanh",
        recurrent_activation: str = "sigmoid",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, activation, recurrent_activation)
        gates = 3 * hidden_size
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (gates, input_size), "weight_hh": (gates, hidden_size)}
        if bias:
            shapes["bias_ih"] = (gates,)
        self._register(suffixes, shapes, device, dtype)

    def _state_sizes(self) -> tuple[int, ...]:
        return (self.hidden_size,)

    def _step(self, from_x: Tensor, state: tuple[Tensor, ...], suffix: str) -> tuple[Tensor, ...]:
        (h,) = state
        u = self.hidden_size
        recurrent = self._weight(f"weight_hh{suffix}")
        gates = ACTIVATIONS[self.recurrent_activation](from_x[:, : 2 * u] + F.linear(h, recurrent[: 2 * u]))
        r, z = gates.chunk(2, dim=1)
        n = ACTIVATIONS[self.activation](from_x[:, 2 * u :] + F.linear(r * h, recurrent[2 * u :]))
        return (z * h + (1 - z) * n,)


class GRUCell(_GRU):
    """
    One step of a GRU: x [n, input_size], h [n, hidden_size] or None for zeros -> h [n, hidden_size].

    Parameters weight_ih, weight_hh and bias_ih, as torch.nn.GRUCell's; the formula and options are GRU's.
    """

    def __init__(self, input_size: int, hidden_size: int, **options: Unpack[_Activations]) -> None:
        super().__init__(("",), input_size, hidden_size, **options)

    def forward(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """From x and h, zeros without one, the next h. ValueError for a wrong shape."""
        return self._one_step(x, None if h is None else (h,))[0]


class GRU(_GRU):
    """
    A GRU that resets before the recurrent product: Keras' GRU(reset_after=False), TF1's GRUCell in dynamic_rnn.

        r = sigmoid(W_r x + U_r h + b_r)
        z = sigmoid(W_z x + U_z h + b_z)                     (TF1 calls it u)
        n = tanh(W_n x + U_n (r * h) + b_n)                  torch.nn.GRU: tanh(W_n x + b_n + r * (U_n h + b'_n))
        h = z * h + (1 - z) * n

    x [t, n, input_size], or [n, t, input_size] if `batch_first`; h_0 [directions, n, hidden_size] or None for zeros.
    Returns the outputs [t, n, directions * hidden_size], in time order for both directions, and h_n as h_0.

    Keras stores kernel [x, 3u], recurrent_kernel [u, 3u] and bias [3u], in the order z r n (recipe gru.reset_before).
    TF1 stores W_r W_z over U_r U_z as gates/kernel [x + u, 2u] and W_n over U_n as candidate/kernel [x + u, u] (recipe
    tf1.gru_cell). There is one bias, so no bias_hh.

    `activation` and `recurrent_activation` are names: tanh, sigmoid, hard_sigmoid_keras2, hard_sigmoid_keras3, relu,
    linear. recurrent_activation="hard_sigmoid" was the default of keras 1.0 to 2.2 and TF1's tf.keras. Sources:
    keras/src/layers/rnn/gru.py, tensorflow/python/keras/layers/legacy_rnn/rnn_cell_impl.py.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        batch_first: bool = False,
        bidirectional: bool = False,
        **options: Unpack[_Activations],
    ) -> None:
        super().__init__(("_l0", "_l0_reverse") if bidirectional else ("_l0",), input_size, hidden_size, **options)
        self.batch_first = batch_first
        self.bidirectional = bidirectional

    def forward(self, x: Tensor, h_0: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The outputs and the last state. ValueError for a wrong shape."""
        output, (h_n,) = self._over_time(x, None if h_0 is None else (h_0,))
        return output, h_n


class _LSTM(_Recurrent):
    usual: ClassVar[Mapping[str, object]] = {
        **_Recurrent.usual,
        "forget_bias": 0.0,
        "peepholes": False,
        "proj_size": 0,
        "cell_clip": None,
        "proj_clip": None,
    }

    def __init__(
        self,
        suffixes: Sequence[str],
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        activation: str = "tanh",
        recurrent_activation: str = "sigmoid",
        forget_bias: float = 0.0,
        peepholes: bool = False,
        proj_size: int = 0,
        cell_clip: float | None = None,
        proj_clip: float | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, activation, recurrent_activation)
        if proj_clip is not None and not proj_size:
            raise ValueError(f"proj_clip is {proj_clip} without a projection; give proj_size, too")
        self.forget_bias = forget_bias
        self.peepholes = peepholes
        self.proj_size = proj_size
        self.cell_clip = cell_clip
        self.proj_clip = proj_clip
        gates = 4 * hidden_size
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (gates, input_size)}
        shapes["weight_hh"] = (gates, proj_size or hidden_size)
        if bias:
            shapes |= {"bias_ih": (gates,), "bias_hh": (gates,)}
        if proj_size:
            shapes["weight_hr"] = (proj_size, hidden_size)
        if peepholes:
            shapes |= {f"w_{gate}_diag": (hidden_size,) for gate in "ifo"}
        self._register(suffixes, shapes, device, dtype)

    def _state_sizes(self) -> tuple[int, ...]:
        return self.proj_size or self.hidden_size, self.hidden_size

    def _step(self, from_x: Tensor, state: tuple[Tensor, ...], suffix: str) -> tuple[Tensor, ...]:
        h, c = state
        act, gate = ACTIVATIONS[self.activation], ACTIVATIONS[self.recurrent_activation]
        bias = self._weight(f"bias_hh{suffix}") if self.bias else None
        i, f, g, o = (from_x + F.linear(h, self._weight(f"weight_hh{suffix}"), bias)).chunk(4, dim=1)
        if self.peepholes:
            i = i + self._weight(f"w_i_diag{suffix}") * c
            f = f + self._weight(f"w_f_diag{suffix}") * c
        c = gate(f + self.forget_bias) * c + gate(i) * act(g)
        if self.cell_clip is not None:
            c = c.clamp(-self.cell_clip, self.cell_clip)
        if self.peepholes:
            o = o + self._weight(f"w_o_diag{suffix}") * c
        h = gate(o) * act(c)
        if self.proj_size:
            h = F.linear(h, self._weight(f"weight_hr{suffix}"))
            if self.proj_clip is not None:
                h = h.clamp(-self.proj_clip, self.proj_clip)
        return h, c


class LSTMCell(_LSTM):
    """
    One step of an LSTM: x [n, input_size], (h, c) or None for zeros -> (h, c).

    h [n, proj_size or hidden_size], c [n, hidden_size]. Parameters weight_ih, weight_hh, bias_ih and bias_hh, as
    torch.nn.LSTMCell's; the formula and options are LSTM's.
    """

    def __init__(self, input_size: int, hidden_size: int, **options: Unpack[_Options]) -> None:
        super().__init__(("",), input_size, hidden_size, **options)

    def forward(self, x: Tensor, state: State | None = None) -> State:
        """From x and (h, c), zeros without them, the next (h, c). ValueError for a wrong shape."""
        h, c = self._one_step(x, state)
        return h, c


class LSTM(_LSTM):
    """
    An LSTM with what Keras and TF1 have and torch.nn.LSTM lacks: Keras' LSTM, TF1's BasicLSTMCell and LSTMCell.

        i = sigmoid(W_i x + U_i h + b_i [+ w_i_diag * c])
        f = sigmoid(W_f x + U_f h + b_f + forget_bias [+ w_f_diag * c])
        c = f * c + i * tanh(W_g x + U_g h + b_g)            [clipped to +-cell_clip]
        o = sigmoid(W_o x + U_o h + b_o [+ w_o_diag * c])    of the new c
        h = o * tanh(c)                                      [W_hr h, clipped to +-proj_clip]

    x [t, n, input_size], or [n, t, input_size] if `batch_first`; (h_0, c_0), which are [directions, n, proj_size or
    hidden_size] and [directions, n, hidden_size], or None for zeros. Returns the outputs [t, n, directions * h's size],
    in time order for both directions, and (h_n, c_n).

    `forget_bias` is added when it runs: 1.0 by default in TF1's cells, which do not store it. Give it here, or let the
    mapping add it to the bias (recipe tf1.lstm_cell: `forget`), never both. Keras' unit_forget_bias is in its bias.
    `peepholes` adds w_i_diag_l0, w_f_diag_l0 and w_o_diag_l0 [u], TF1's names; `proj_size` adds weight_hr_l0 [proj, u],
    torch's name, for TF1's projection/kernel [u, proj]. TensorFlow has one bias: fill bias_hh_l0 with 0.

    `activation` and `recurrent_activation` are names: tanh, sigmoid, hard_sigmoid_keras2, hard_sigmoid_keras3, relu,
    linear. recurrent_activation="hard_sigmoid" was the default of keras 1.0 to 2.2 and TF1's tf.keras. Sources:
    keras/src/layers/rnn/lstm.py, tensorflow/python/keras/layers/legacy_rnn/rnn_cell_impl.py.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        batch_first: bool = False,
        bidirectional: bool = False,
        **options: Unpack[_Options],
    ) -> None:
        super().__init__(("_l0", "_l0_reverse") if bidirectional else ("_l0",), input_size, hidden_size, **options)
        self.batch_first = batch_first
        self.bidirectional = bidirectional

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The outputs and the last state. ValueError for a wrong shape."""
        output, (h_n, c_n) = self._over_time(x, state)
        return output, (h_n, c_n)
