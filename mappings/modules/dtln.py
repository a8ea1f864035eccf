"""
DTLN, the dual-signal transformation LSTM network for noise suppression (Westhausen and Meyer, 2020), as a torch module.

Two cores in a row each predict a mask: the first on the magnitudes of a frame's spectrum, the second on a learned
transformation of the frame. Sound is [n, samples] in both frameworks, and frames of it are [n, time, features].
"""

from __future__ import annotations

import torch
from torch import nn

FRAME = 512
HOP = 128
BINS = FRAME // 2 + 1
ENCODED = 256
UNITS = 128

State = tuple[torch.Tensor, torch.Tensor]


class Core(nn.Module):
    """Two LSTMs and a dense layer: features [n, t, inputs] to a mask [n, t, outputs] in (0, 1)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.rnn1 = nn.LSTM(inputs, UNITS, batch_first=True)
        self.dropout = nn.Dropout(0.25)
        self.rnn2 = nn.LSTM(UNITS, UNITS, batch_first=True)
        self.dense = nn.Linear(UNITS, outputs)

    def forward(self, x: torch.Tensor, state: torch.Tensor | None = None) -> torch.Tensor:
        """`state` [2, 2, 1, n, UNITS] holds h and c of either LSTM; it is read, and overwritten with theirs after x."""
        for layer, rnn in enumerate((self.rnn1, self.rnn2)):
            x, after = rnn(x if layer == 0 else self.dropout(x), None if state is None else tuple(state[layer]))
            if state is not None:
                state[layer].copy_(torch.stack(after).detach())
        mask: torch.Tensor = torch.sigmoid(self.dense(x))
        return mask


class DTLN(nn.Module):
    """
    Noisy speech at 16 kHz to clean speech.

    `log_norm` feeds the first core with normalized logarithms of the magnitudes, as the models named "norm" do. As it
    is, the module takes whole signals [n, samples] and gives [n, samples'], overlapped and added. With `stream` it
    takes frame after frame, [1, FRAME], gives each as [1, 1, FRAME], not yet added, and remembers the LSTMs' states.
    """

    state1: torch.Tensor | None
    state2: torch.Tensor | None

    def __init__(self, *, log_norm: bool = False, stream: bool = False) -> None:
        super().__init__()
        self.stream = stream
        self.norm = nn.LayerNorm(BINS, eps=1e-7) if log_norm else None
        self.sep1 = Core(BINS, BINS)
        self.encoder_conv1 = nn.Conv1d(FRAME, ENCODED, 1, bias=False)
        self.encoder_norm1 = nn.LayerNorm(ENCODED, eps=1e-7)
        self.sep2 = Core(ENCODED, ENCODED)
        self.decoder_conv1 = nn.Conv1d(ENCODED, FRAME, 1, bias=False)
        for name in ("state1", "state2"):
            self.register_buffer(name, torch.zeros(2, 2, 1, 1, UNITS) if stream else None, persistent=False)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.rfft(signal.unfold(-1, FRAME, HOP))
        magnitude = spectrum.abs()
        features = magnitude if self.norm is None else self.norm(torch.log(magnitude + 1e-7))
        # The original masks the magnitude and puts the phase back; that is the masked spectrum.
        frames = torch.fft.irfft(spectrum * self.sep1(features, self.state1))

        encoded = self.encoder_conv1(frames.mT).mT
        mask = self.sep2(self.encoder_norm1(encoded), self.state2)
        decoded: torch.Tensor = self.decoder_conv1((encoded * mask).mT).mT
        return decoded if self.stream else overlap_add(decoded)


def overlap_add(frames: torch.Tensor) -> torch.Tensor:
    """Frames [n, t, FRAME] to the signal [n, (t - 1) * HOP + FRAME]: each one begins HOP after the one before."""
    samples = (frames.shape[1] - 1) * HOP + FRAME
    return nn.functional.fold(frames.mT, (1, samples), (1, FRAME), stride=(1, HOP))[:, 0, 0]
