"""
Projects to report on: one with everything that a row can do, and deep ones that are proven, all without TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from t2t import checkpoints
from t2t import mapping as mapping_file
from t2t.proof import origin
from t2t.proof import recording as recordings
from t2t.proof.layers import Inside, Layer
from t2t.proof.recording import Draw, Recording
from tests.checkpoints.writing import Tensor, bundle
from tests.given import Array
from tests.proof.layered import dense, drawn

NUMBERS = {"float32": 1, "float64": 2, "int64": 9}

VARIED = """\
import torch
from torch import nn


class Varied(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.head = nn.Linear(4 * 2 * 3, 5)
        self.tied = nn.Linear(24, 5, bias=False)
        self.tied.weight = self.head.weight
        self.cell = nn.LSTMCell(3, 2)
        self.joined = nn.Parameter(torch.zeros(6, 2))
        self.stacked = nn.Parameter(torch.zeros(6, 3, 2))
        self.scaled = nn.Parameter(torch.zeros(4))
        self.norm = nn.BatchNorm1d(3)
        self.halves = nn.Parameter(torch.zeros(4, 2))
        self.register_buffer("table", torch.arange(3.0))
"""

#: What stands in VARIED's mapping from line 5 on. Its names hold what HTML would read as its own.
ROWS = """\
- {tf: conv/kernel, torch: conv.weight, axes: h w i o -> o i h w, flip: [h, w]}
- {tf: conv/bias, torch: conv.bias, scale: 0.5, add: 1}
- {tf: head/kernel, torch: head.weight, axes: (h w c) o -> o (c h w), dims: {h: 2, w: 3}}
- {tf: '&quot;"onload=x/bias', torch: head.bias}
- {torch: tied.weight, tie: head.weight}
- {tf: cell/kernel, torch: cell.weight_ih, axes: x (g u) -> (g u) x, dims: {g: 4}, order: {g: icfo -> ifco}}
- {tf: cell/recurrent, torch: cell.weight_hh, axes: x (g u) -> (g u) x, dims: {g: 4}, order: {g: icfo -> ifco}}
- {tf: cell/bias, torch: cell.bias_ih, axes: (g u) -> (g u), dims: {g: 4}, order: {g: icfo -> ifco}, add: {g: {f: 1}}}
- {torch: cell.bias_hh, fill: 0}
- {tf: [part/0, part/1], torch: joined, join: a, axes: a b -> a b}
- {tf: [s/0, s/1, s/2, s/3, s/4, s/5], torch: stacked, join: n, axes: n a b -> n b a}
- {tf: long, torch: scaled, slice: ["1:5"], dtype: float32}
- {tf: norm/gamma, torch: norm.weight}
- {tf: norm/beta, torch: norm.bias}
- {tf: norm/mean, torch: norm.running_mean}
- {tf: norm/variance, torch: norm.running_var}
- {torch: norm.num_batches_tracked, fill: 0}
- {torch: table, keep: init, why: "a table of <script>alert(1)</script>"}
- {tf: half, torch: halves, into: ["0:2"], axes: [a b -> b a, x y -> y x]}
- {torch: halves, into: ["2:4"], fill: 0}
drop:
- {tf: long, slice: ["0:1"], why: "padding </style>"}
ignore:
- {slots: true, why: Adam's & slots}
- {tf: global_step, why: counter}
"""

LARGE = """\
import torch
from torch import nn


class Large(nn.Module):
    def __init__(self, depth, width):
        super().__init__()
        self.encoder = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))

    def forward(self, x):
        for layer in self.encoder:
            x = torch.tanh(layer(x))
        return x
"""


@dataclass(frozen=True)
class Made:
    """A folder with a mapping, its model and its checkpoint."""

    folder: Path
    mapping: Path

    def edit(self, old: str, new: str) -> None:
        """Changes the mapping's text, at the first place."""
        text = self.mapping.read_text("utf-8")
        assert old in text
        self.mapping.write_text(text.replace(old, new, 1), encoding="utf-8")


def _stored(folder: Path, name: str, arrays: dict[str, Array]) -> None:
    tensors = {key: Tensor(NUMBERS[array.dtype.name], array.shape, array.tobytes()) for key, array in arrays.items()}
    bundle(folder / name, tensors)


def varied(folder: Path) -> Made:
    """Each thing that a row can do, once; nothing is proven."""
    shapes: dict[str, Sequence[int]] = {
        "conv/kernel": (3, 3, 2, 4),
        "conv/bias": (4,),
        "head/kernel": (24, 5),
        '&quot;"onload=x/bias': (5,),
        "cell/kernel": (3, 8),
        "cell/recurrent": (2, 8),
        "cell/bias": (8,),
        "part/0": (2, 2),
        "part/1": (4, 2),
        **{f"s/{i}": (2, 3) for i in range(6)},
        **{f"norm/{leaf}": (3,) for leaf in ("gamma", "beta", "mean", "variance")},
        "half": (2, 2),
        "head/kernel/Adam": (24, 5),
    }
    arrays = {name: drawn(number, *shape) for number, (name, shape) in enumerate(shapes.items())}
    arrays["norm/variance"] = np.abs(arrays["norm/variance"])
    arrays["long"] = drawn(99, 5).astype(np.float64)
    arrays["global_step"] = np.asarray(7, np.int64)
    _stored(folder, "varied.ckpt", arrays)
    (folder / "varied_model.py").write_text(VARIED)
    head = "t2t: 1\nmodel: varied_model:Varied\nsource: {checkpoint: varied.ckpt}\nmap:\n"
    (folder / "varied.yaml").write_text(head + ROWS)
    return Made(folder, folder / "varied.yaml")


def large(folder: Path, depth: int, width: int = 8, *, wrong: int | None = None) -> Made:
    """Dense layers, one behind the other, with a recording; the kernel of `wrong` is not transposed."""
    x = drawn(0, 4, width)
    arrays: dict[str, Array] = {}
    layers: list[Layer] = []
    y = x
    for i in range(depth):
        name = f"transformer/encoder/layer_{i}/intermediate/dense"
        arrays[f"{name}/kernel"] = drawn(2 * i + 1, width, width) / np.float32(width**0.5)
        arrays[f"{name}/bias"] = drawn(2 * i + 2, width)
        made, y = dense(name, y, arrays[f"{name}/kernel"], arrays[f"{name}/bias"])
        layers += made
        y = np.tanh(y)
    _stored(folder, "large.ckpt", arrays)
    (folder / "large_model.py").write_text(LARGE)
    np.savez(folder / "x.npz", x=x)
    rows = [
        f"{{tf: transformer/encoder/layer_{i}/intermediate/dense/{leaf}, torch: encoder.{i}.{own}{axes}}}"
        for i in range(depth)
        for leaf, own, axes in (
            ("kernel", "weight", ", axes: a b -> a b" if i == wrong else ", axes: i o -> o i"),
            ("bias", "bias", ""),
        )
    ]
    text = (
        f"t2t: 1\nmodel: large_model:Large\nwith: {{depth: {depth}, width: {width}}}\n"
        "source: {checkpoint: large.ckpt}\nmap:\n"
        + "".join(f"- {row}\n" for row in rows)
        + "verify:\n  inputs: {x: {file: x.npz, member: x}}\n"
        '  reference: {graph: g.meta, feed: {x: "x:0"}, fetch: {y: "y:0"}}\n  torch: {arguments: [x]}\n'
    )
    mapping = folder / "large.yaml"
    mapping.write_text(text)
    read, problems = mapping_file.read(text.encode(), str(mapping))
    assert problems == []
    assert read is not None
    assert read.verify is not None
    with checkpoints.open(str(folder / "large.ckpt")) as opened:
        made_from = {**origin.parts(read.verify, opened.inventory.digest), "graph": "0"}
    made_by = {"tensorflow": "2.21.0", "numpy": "2.0.0", "t2t": "0.1.0"}
    recording = Recording(made_from, (Draw({"x": x}, {"y": y}),), None, made_by, inside=Inside(tuple(layers)))
    recordings.save(read.verify.recording, recording)
    return Made(folder, mapping)
