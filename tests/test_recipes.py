"""Every built-in recipe against TensorFlow's own layer, over many shapes; what the rows move, moved back; the docs."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import t2t.nn
from t2t import axes as notation
from t2t.axes import Transform, parse, parse_order
from t2t.execute import tensors
from t2t.module import assign, inventory, to_torch
from t2t.names import template
from t2t.plan import make
from t2t.recipes import builtin
from tests.given import HEAD, Array, Memory, read

ROOT = Path(__file__).resolve().parents[1]
RECIPES: dict[str, list[dict[str, Any]]] = builtin().tree["recipes"]

#: The largest difference that may be, as a share of the largest output.
REL = 1e-6

EXAMPLES = 15  # of each layer

Options = dict[str, Any]
needs_tensorflow = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("tensorflow", "keras", "tf_keras")),
    reason="needs tensorflow, keras and tf_keras",
)


# --- TensorFlow's side ---


class Original:
    """The child process in which TensorFlow's layers compute."""

    def __init__(self) -> None:
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
        environment |= {"CUDA_VISIBLE_DEVICES": "", "KERAS_BACKEND": "tensorflow"}
        script = Path(__file__).with_name("recipes_against_tensorflow.py")
        self.process = subprocess.Popen(
            [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )

    def __call__(
        self, name: str, seed: int, dtype: str, options: Options
    ) -> tuple[dict[str, Array], list[Array], list[Array]]:
        """Variables by name, inputs, outputs."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        pickle.dump((name, seed, dtype, options), self.process.stdin)
        self.process.stdin.flush()
        answer: tuple[dict[str, Array], list[Array], list[Array]] | str = pickle.load(self.process.stdout)
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def original() -> Iterator[Original]:
    made = Original()
    yield made
    made.close()


# --- torch's side ---


@dataclass(frozen=True, slots=True)
class Case:
    """
    A recipe beside a layer: `name` is the layer's function in the child process, `arguments` makes its arguments of the
    drawn `options`, `twin` the torch module, `forward` what that computes of the inputs, in TensorFlow's layout.

    `rows` are the prefix of each row's variables, and what else stands in the row. Both sides compute in `dtype`, which
    is float64 where float32's rounding adds up: in recurrent layers, attention, normalization by the input's variance.
    """

    name: str
    options: st.SearchStrategy[Options]
    arguments: Callable[[Options], Options]
    twin: Callable[[Options], nn.Module]
    forward: Callable[..., Tensor] = lambda twin, x: twin(x)
    rows: Callable[[Options], Sequence[tuple[str, Options]]] = lambda o: [("layer", {})]
    dtype: str = "float32"
    needs: str = "tensorflow"


def sizes(most: int = 5) -> st.SearchStrategy[int]:
    return st.integers(1, most)


def drawn(**options: st.SearchStrategy[Any] | Any) -> st.SearchStrategy[Options]:
    """Options, each drawn from its strategy or as it is."""
    return st.fixed_dictionaries(
        {key: value if isinstance(value, st.SearchStrategy) else st.just(value) for key, value in options.items()}
    )


LIBRARY = st.sampled_from(["keras", "tf_keras"])
BIAS = st.booleans()
EPSILON = st.sampled_from([1e-3, 1e-5, 0.3])


def channels_first(module: nn.Module, x: Tensor) -> Tensor:
    # A real copy: given a view of one channel, torch 2.13's Conv2d with strides (1, 2) leaves outputs unwritten.
    y: Tensor = module(x.movedim(-1, 1).clone(memory_format=torch.contiguous_format))
    return y.movedim(1, -1)


def sequence(module: nn.Module, x: Tensor) -> Tensor:
    """What a recurrent module gives for each step of time."""
    y: Tensor = module(x)[0]
    return y


# Convolutions: `kernel` and `strides` have an entry for each axis, `more` is how much longer the input is than needed.


def convolutions(rank: int, **options: Any) -> st.SearchStrategy[Options]:
    def made(o: Options) -> Options:
        if o["dilated"]:
            o["dilation"], o["strides"] = o["strides"], (1,) * rank
        else:
            o["dilation"] = (1,) * rank
        return o

    several = st.tuples(*[sizes(3)] * rank)
    more = st.tuples(*[st.integers(0, 3)] * rank)
    shapes = drawn(n=2, i=sizes(4), o=sizes(4), kernel=several, strides=several, more=more, bias=BIAS, **options)
    return shapes.map(made)


def image(o: Options, channels: int) -> tuple[int, ...]:
    reach = [(k - 1) * d + 1 + more for k, d, more in zip(o["kernel"], o["dilation"], o["more"], strict=True)]
    return (o["n"], *reach, channels)


def convolution(kind: str, **more: Any) -> Callable[[Options], Options]:
    def arguments(o: Options) -> Options:
        given = {"filters": o["o"] * o.get("groups", 1), "kernel_size": o["kernel"], "strides": o["strides"]}
        given |= {"dilation_rate": o["dilation"], "use_bias": o["bias"]}
        if "groups" in o:
            given["groups"] = o["groups"]
        if "m" in o:
            given["depth_multiplier"] = o["m"]
            if kind == "DepthwiseConv2D":
                del given["filters"]
        return {"library": o["library"], "kind": kind, "inputs": image(o, o["i"] * o.get("groups", 1)), **given}

    return arguments


def conv(rank: int) -> Callable[[Options], nn.Module]:
    kinds: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}

    def twin(o: Options) -> nn.Module:
        groups = o.get("groups", 1)
        return kinds[rank](
            o["i"] * groups,
            o["o"] * groups,
            o["kernel"],
            o["strides"],
            dilation=o["dilation"],
            groups=groups,
            bias=o["bias"],
        )

    return twin


def conv_transpose(rank: int, reaching: bool = False) -> Callable[[Options], nn.Module]:
    kinds: dict[int, type[nn.Module]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}

    def twin(o: Options) -> nn.Module:
        # TensorFlow's output reaches to the end of the last stride, where the kernel doesn't; Sonnet's always does.
        padding = tuple(max(s - (1 if reaching else k), 0) for s, k in zip(o["strides"], o["kernel"], strict=True))
        return kinds[rank](o["i"], o["o"], o["kernel"], o["strides"], output_padding=padding, bias=o["bias"])

    return twin


def depthwise(o: Options, bias: bool | None = None) -> nn.Module:
    has_bias = o["bias"] if bias is None else bias
    i, m = o["i"], o["m"]
    return nn.Conv2d(i, i * m, o["kernel"], o["strides"], dilation=o["dilation"], groups=i, bias=has_bias)


def separable(o: Options) -> nn.Module:
    twin = nn.Sequential()
    twin.add_module("depthwise", depthwise(o, bias=False))
    twin.add_module("pointwise", nn.Conv2d(o["i"] * o["m"], o["o"], 1, bias=o["bias"]))
    return twin


def even(o: Options) -> Options:
    """TensorFlow's depthwise convolutions have one stride for both axes."""
    return {**o, "strides": (o["strides"][0],) * 2, "dilation": (o["dilation"][0],) * 2}


DEPTHWISE = convolutions(2, dilated=st.booleans(), m=sizes(3)).map(even)


def keras_conv(kind: str, rank: int, **options: Any) -> Case:
    strategy = convolutions(rank, library=LIBRARY, dilated=st.booleans(), **options)
    return Case("convolution", strategy, convolution(kind), conv(rank), channels_first)


def keras_conv_transpose(kind: str, rank: int) -> Case:
    strategy = convolutions(rank, library=LIBRARY, dilated=False)
    return Case("convolution", strategy, convolution(kind), conv_transpose(rank), channels_first)


# Normalization: `lead` are the axes before the channels.

LEAD = st.lists(sizes(4), min_size=1, max_size=3).map(lambda lead: (3, *lead[1:]))


def normalization(kind: str, *keys: str) -> Callable[[Options], Options]:
    def arguments(o: Options) -> Options:
        given = {key: o[key] for key in ("epsilon", *keys)}
        return {"library": o["library"], "kind": kind, "inputs": (*o["lead"], o["c"]), **given}

    return arguments


def batch_norm(o: Options) -> nn.Module:
    kind = nn.BatchNorm2d if len(o["lead"]) == 3 else nn.BatchNorm1d
    return kind(o["c"], eps=o["epsilon"], affine=o["scale"] or o["center"])


def batch_norm_case(scale: bool, center: bool) -> Case:
    options = drawn(library=LIBRARY, lead=LEAD, c=sizes(), epsilon=EPSILON, scale=scale, center=center)
    if scale and center:  # the recipe that leaves out either both or none
        both = st.booleans()
        options = options.flatmap(lambda o: both.map(lambda is_on: {**o, "scale": is_on, "center": is_on}))
    arguments = normalization("BatchNormalization", "scale", "center")
    return Case("normalization", options, arguments, batch_norm, channels_first)


# Recurrent layers: `n` sequences of `t` steps with `x` features, `u` units.


def recurrences(**options: Any) -> st.SearchStrategy[Options]:
    return drawn(n=sizes(3), t=sizes(4), x=sizes(4), u=sizes(4), **options)


def recurrent(kind: str, **more: Any) -> Callable[[Options], Options]:
    def arguments(o: Options) -> Options:
        given = {"units": o["u"], "depth": o["depth"], "both": o["both"], "use_bias": o["bias"], **more}
        return {"library": o["library"], "kind": kind, "inputs": (o["n"], o["t"], o["x"]), **given}

    return arguments


def layers(cell: str) -> Callable[[Options], Sequence[tuple[str, Options]]]:
    """The rows of some layers, each of one direction or of both."""

    def rows(o: Options) -> Sequence[tuple[str, Options]]:
        found: list[tuple[str, Options]] = []
        for number in range(o["depth"]):
            if o["both"]:
                for direction, end in (("forward", ""), ("backward", "_reverse")):
                    name = f"layer{number}/{direction}_rnn/{cell}"
                    found.append((name, {"with": {"suffix": f"l{number}{end}"}}))
            else:
                found.append((f"layer{number}/{cell}", {"with": {"suffix": f"l{number}"}}))
        return found

    return rows


def stacked(kind: type[nn.Module]) -> Callable[[Options], nn.Module]:
    def twin(o: Options) -> nn.Module:
        return kind(o["x"], o["u"], o["depth"], bias=o["bias"], batch_first=True, bidirectional=o["both"])

    return twin


def keras_recurrent(kind: str, cell: str, twin: type[nn.Module], **more: Any) -> Case:
    options = recurrences(library=LIBRARY, depth=st.integers(1, 2), both=st.booleans(), bias=BIAS)
    return Case("recurrent", options, recurrent(kind, **more), stacked(twin), sequence, layers(cell), "float64")


def single(**letters: str) -> Callable[[Options], Sequence[tuple[str, Options]]]:
    """The row of one layer, with these letters, by the options that they are."""
    return lambda o: [
        ("layer", {"with": {"suffix": "l0", **{key: o.get(name, name) for key, name in letters.items()}}})
    ]


def inputs(o: Options) -> tuple[int, ...]:
    return (o["n"], o["t"], o["x"])


def one_lstm(o: Options) -> nn.Module:
    return nn.LSTM(o["x"], o["u"], batch_first=True)


def one_gru(o: Options) -> nn.Module:
    return t2t.nn.GRU(o["x"], o["u"], batch_first=True)


def attention(twin: nn.Module, queries: Tensor, keys: Tensor) -> Tensor:
    y: Tensor = twin(queries, keys, keys, need_weights=False)[0]
    return y


# TF-Slim, Keras 1 and Sonnet: layers that the child is told the variables' shapes of.


def slim(kind: str, **shapes: str) -> Callable[[Options], Options]:
    """`shapes` are of the options' letters: `k` stands for the kernel."""

    def arguments(o: Options) -> Options:
        found = {name: spelt(o, letters) for name, letters in shapes.items() if o["bias"] or name != "biases"}
        shape = (o["n"], o["i"]) if kind == "fully_connected" else image(o, o["i"])
        more = {} if kind == "fully_connected" else {"strides": o["strides"][0]}
        return {"kind": kind, "inputs": shape, "shapes": found, **more}

    return arguments


def spelt(o: Options, letters: str) -> tuple[int, ...]:
    shape: list[int] = []
    for letter in letters.split():
        if letter == "k":
            shape += o["kernel"]
        else:
            shape.append(math.prod(o[part] if part.isalpha() else int(part) for part in letter.split("*")))
    return tuple(shape)


def keras1(
    kind: str, inputs: Callable[[Options], Sequence[int]], given: Callable[[Options], Options], **shapes: str
) -> Callable[[Options], Options]:
    def arguments(o: Options) -> Options:
        found = {end: spelt(o, letters) for end, letters in shapes.items() if end != "b" or o["bias"]}
        return {"kind": kind, "inputs": inputs(o), "shapes": found, **given(o)}

    return arguments


KERAS1: Callable[[Options], Sequence[tuple[str, Options]]] = lambda o: [("layer", {"with": {"layer": "layer"}})]  # noqa: E731
SMALL = drawn(n=st.integers(2, 4), i=sizes(), o=sizes(), bias=BIAS)
STILL = convolutions(2, dilated=False).map(even)


def sonnet(
    kind: str,
    inputs: Callable[[Options], Sequence[int]],
    given: Callable[[Options], Options],
    call: Options | None = None,
) -> Callable[[Options], Options]:
    return lambda o: {"kind": kind, "inputs": inputs(o), "call": call or {}, **given(o)}


def sonnet_conv(kind: str, rank: int) -> Case:
    def given(o: Options) -> Options:
        more = {} if "Transpose" in kind else {"rate": o["dilation"]}
        common = {"kernel_shape": o["kernel"], "stride": o["strides"], "padding": "VALID", "with_bias": o["bias"]}
        return {"output_channels": o["o"], **common, **more}

    options = convolutions(rank, dilated=False if "Transpose" in kind else st.booleans())
    twin = conv_transpose(rank, reaching=True) if "Transpose" in kind else conv(rank)
    arguments = sonnet(kind, lambda o: image(o, o["i"]), given)
    return Case("sonnet", options, arguments, twin, channels_first, needs="sonnet")


def sonnet_norm(o: Options) -> Options:
    """Over the last axis, or over groups of two channels, which always have an offset here, as in torch."""
    given = {"create_scale": True, "create_offset": o["offset"] or o["kind"] == "GroupNorm", "eps": o["epsilon"]}
    given |= {"axis": -1} if o["kind"] == "LayerNorm" else {"groups": o["groups"]}
    return {"kind": o["kind"], "inputs": (*o["lead"], 2 * o["groups"]), "call": {}, **given}


GATES = {"LSTM": "icfo", "GRU": "zrh"}


def keras1_recurrent(kind: str, twin: type[nn.Module]) -> Case:
    shapes = {f"{w}_{gate}": f"{a}u" for gate in GATES[kind] for w, a in (("W", "x "), ("U", "u "), ("b", ""))}
    given = {"return_sequences": True, "recurrent_activation": "hard_sigmoid"}
    if kind == "GRU":
        given["reset_after"] = False
    arguments = keras1(kind, inputs, lambda o: {"units": o["u"], **given}, **shapes)

    def made(o: Options) -> nn.Module:
        return twin(o["x"], o["u"], batch_first=True, recurrent_activation="hard_sigmoid_keras2")

    return Case("keras1", recurrences(), arguments, made, sequence, single(layer="layer"), "float64")


CASES: dict[str, Case] = {
    "dense": Case(
        "dense",
        drawn(library=LIBRARY, lead=LEAD, i=sizes(), o=sizes(), bias=BIAS),
        lambda o: {"library": o["library"], "inputs": (*o["lead"], o["i"]), "units": o["o"], "bias": o["bias"]},
        lambda o: nn.Linear(o["i"], o["o"], bias=o["bias"]),
    ),
    "flatten_dense": Case(
        "flatten_dense",
        drawn(library=LIBRARY, h=sizes(4), w=sizes(4), c=sizes(4), o=sizes(), bias=BIAS),
        lambda o: {
            "library": o["library"], "image": (o["h"], o["w"], o["c"]), "units": o["o"], "bias": o["bias"],
        },
        lambda o: nn.Linear(o["h"] * o["w"] * o["c"], o["o"], bias=o["bias"]),
        lambda twin, x: twin(x.movedim(-1, 1).flatten(1)),
        lambda o: [("layer", {"dims": {"h": o["h"], "w": o["w"]}})],
    ),
    "conv1d": keras_conv("Conv1D", 1),
    "conv2d": keras_conv("Conv2D", 2, groups=st.sampled_from([1, 1, 2])),
    "conv3d": keras_conv("Conv3D", 3),
    "depthwise_conv2d": Case(
        "convolution",
        DEPTHWISE.map(lambda o: {**o, "library": "tf_keras"}),
        convolution("DepthwiseConv2D"),
        depthwise,
        channels_first,
    ),
    "keras3.depthwise_conv2d": Case(
        "convolution",
        DEPTHWISE.map(lambda o: {**o, "library": "keras"}),
        convolution("DepthwiseConv2D"),
        depthwise,
        channels_first,
    ),
    "separable_conv2d": Case(
        "convolution",
        st.tuples(DEPTHWISE, LIBRARY).map(lambda both: {**both[0], "library": both[1]}),
        convolution("SeparableConv2D"),
        separable,
        channels_first,
    ),
    "conv1d_transpose": keras_conv_transpose("Conv1DTranspose", 1),
    "conv2d_transpose": keras_conv_transpose("Conv2DTranspose", 2),
    "conv3d_transpose": keras_conv_transpose("Conv3DTranspose", 3),
    "batch_norm": batch_norm_case(True, True),
    "batch_norm.no_gamma": batch_norm_case(False, True),
    "batch_norm.no_beta": batch_norm_case(True, False),
    "layer_norm": Case(
        "normalization",
        drawn(library=LIBRARY, lead=LEAD, c=st.integers(2, 6), epsilon=EPSILON, center=BIAS),
        normalization("LayerNormalization", "center"),
        lambda o: nn.LayerNorm(o["c"], eps=o["epsilon"], bias=o["center"]),
        dtype="float64",
    ),
    "group_norm": Case(
        "normalization",
        drawn(library=LIBRARY, lead=LEAD, groups=sizes(3), of=st.integers(2, 4), epsilon=EPSILON).map(
            lambda o: {**o, "c": o["groups"] * o["of"]}
        ),
        normalization("GroupNormalization", "groups"),
        lambda o: nn.GroupNorm(o["groups"], o["c"], eps=o["epsilon"]),
        channels_first,
        dtype="float64",
    ),
    "embedding": Case(
        "embedding",
        drawn(library=LIBRARY, words=sizes(), width=sizes()),
        lambda o: o,
        lambda o: nn.Embedding(o["words"], o["width"]),
    ),
    "prelu": Case(
        "prelu",
        drawn(library=LIBRARY, lead=st.tuples(*[sizes(4)] * 3), c=sizes()),
        lambda o: {"library": o["library"], "inputs": (*o["lead"], o["c"])},
        lambda o: nn.PReLU(o["c"]),
        channels_first,
    ),
    "simple_rnn": keras_recurrent("SimpleRNN", "simple_rnn_cell", nn.RNN),
    "lstm": keras_recurrent("LSTM", "lstm_cell", nn.LSTM),
    "cudnn.lstm": Case(
        "cudnn",
        recurrences(),
        lambda o: {"kind": "LSTM", "inputs": inputs(o), "units": o["u"]},
        one_lstm,
        sequence,
        single(u="u"),
        dtype="float64",
    ),
    "gru": keras_recurrent("GRU", "gru_cell", nn.GRU),
    "cudnn.gru": Case(
        "cudnn",
        recurrences(),
        lambda o: {"kind": "GRU", "inputs": inputs(o), "units": o["u"]},
        lambda o: nn.GRU(o["x"], o["u"], batch_first=True),
        sequence,
        single(u="u"),
        dtype="float64",
    ),
    "gru.reset_before": Case(
        "recurrent",
        recurrences(library=LIBRARY, depth=1, both=st.booleans(), bias=BIAS),
        recurrent("GRU", reset_after=False),
        lambda o: t2t.nn.GRU(o["x"], o["u"], bias=o["bias"], batch_first=True, bidirectional=o["both"]),
        sequence,
        layers("gru_cell"),
        dtype="float64",
    ),
    "tf1.lstm_cell": Case(
        "cell",
        recurrences(kind=st.sampled_from(["BasicLSTMCell", "LSTMCell"]), forget=st.sampled_from([1.0, 0.0, 0.25])),
        lambda o: {"kind": o["kind"], "inputs": inputs(o), "units": o["u"], "forget_bias": o["forget"]},
        one_lstm,
        sequence,
        single(x="x", forget="forget"),
        dtype="float64",
    ),
    "tf1.gru_cell": Case(
        "cell",
        recurrences(),
        lambda o: {"kind": "GRUCell", "inputs": inputs(o), "units": o["u"]},
        one_gru,
        sequence,
        single(x="x", u="u"),
        dtype="float64",
    ),
    "multi_head_attention": Case(
        "attention",
        # Not of heads with one feature: Keras 3.15 adds their bias to the positions, if these are as many as the heads.
        drawn(library=LIBRARY, heads=sizes(4), width=st.integers(2, 4), queries=sizes(4), keys=sizes(4), bias=BIAS),
        lambda o: o,
        lambda o: nn.MultiheadAttention(o["heads"] * o["width"], o["heads"], bias=o["bias"], batch_first=True),
        attention,
        dtype="float64",
    ),
    "slim.dense": Case(
        "slim", SMALL, slim("fully_connected", weights="i o", biases="o"),
        lambda o: nn.Linear(o["i"], o["o"], bias=o["bias"]),
    ),
    "slim.conv2d": Case("slim", STILL, slim("conv2d", weights="k i o", biases="o"), conv(2), channels_first),
    "slim.conv2d_dense": Case(
        "slim",
        STILL.map(lambda o: {**o, "kernel": (1, 1), "strides": (1, 1), "more": (0, 0)}),
        slim("conv2d", weights="k i o", biases="o"),
        lambda o: nn.Linear(o["i"], o["o"], bias=o["bias"]),
    ),
    "slim.depthwise_conv2d": Case(
        "slim",
        convolutions(2, dilated=False, m=sizes(3)).map(even),
        slim("separable_conv2d", depthwise_weights="k i m", biases="i*m"),
        depthwise,
        channels_first,
    ),
    "slim.separable_conv2d": Case(
        "slim",
        convolutions(2, dilated=False, m=sizes(3)).map(even),
        slim("separable_conv2d", depthwise_weights="k i m", pointwise_weights="1 1 i*m o", biases="o"),
        separable,
        channels_first,
    ),
    "slim.conv2d_transpose": Case(
        "slim", STILL, slim("conv2d_transpose", weights="k o i", biases="o"), conv_transpose(2), channels_first
    ),
    "sonnet.linear": Case(
        "sonnet",
        SMALL,
        sonnet("Linear", lambda o: (o["n"], o["i"]), lambda o: {"output_size": o["o"], "with_bias": o["bias"]}),
        lambda o: nn.Linear(o["i"], o["o"], bias=o["bias"]),
        needs="sonnet",
    ),
    "sonnet.conv1d": sonnet_conv("Conv1D", 1),
    "sonnet.conv2d": sonnet_conv("Conv2D", 2),
    "sonnet.conv3d": sonnet_conv("Conv3D", 3),
    "sonnet.depthwise_conv2d": Case(
        "sonnet",
        DEPTHWISE,
        sonnet(
            "DepthwiseConv2D",
            lambda o: image(o, o["i"]),
            lambda o: {
                "kernel_shape": o["kernel"], "channel_multiplier": o["m"], "stride": o["strides"],
                "rate": o["dilation"], "padding": "VALID", "with_bias": o["bias"],
            },
        ),
        depthwise,
        channels_first,
        needs="sonnet",
    ),
    "sonnet.conv2d_transpose": sonnet_conv("Conv2DTranspose", 2),
    "sonnet.batch_norm": Case(
        "sonnet",
        drawn(lead=st.tuples(*[sizes(4)] * 3), c=sizes(), epsilon=EPSILON, scale=BIAS, center=BIAS),
        sonnet(
            "BatchNorm",
            lambda o: (*o["lead"], o["c"]),
            lambda o: {"create_scale": o["scale"], "create_offset": o["center"], "eps": o["epsilon"]},
            {"is_training": False},
        ),
        lambda o: nn.BatchNorm2d(o["c"], eps=o["epsilon"]),
        channels_first,
        needs="sonnet",
    ),
    "sonnet.layer_norm": Case(
        "sonnet",
        drawn(
            kind=st.sampled_from(["LayerNorm", "GroupNorm"]), lead=LEAD, groups=sizes(3), epsilon=EPSILON, offset=BIAS
        ),
        sonnet_norm,
        lambda o: (
            nn.LayerNorm(2 * o["groups"], eps=o["epsilon"], bias=o["offset"])
            if o["kind"] == "LayerNorm"
            else nn.GroupNorm(o["groups"], 2 * o["groups"], eps=o["epsilon"])
        ),
        lambda twin, x: twin(x) if isinstance(twin, nn.LayerNorm) else channels_first(twin, x),
        needs="sonnet",
        dtype="float64",
    ),
    "sonnet.embed": Case(
        "sonnet",
        drawn(n=sizes(), words=sizes(), width=sizes()),
        sonnet("Embed", lambda o: (o["n"],), lambda o: {"vocab_size": o["words"], "embed_dim": o["width"]}),
        lambda o: nn.Embedding(o["words"], o["width"]),
        needs="sonnet",
    ),
    "sonnet.lstm": Case(
        "sonnet",
        recurrences(),
        sonnet("LSTM", inputs, lambda o: {"hidden_size": o["u"]}),
        one_lstm,
        sequence,
        single(),
        needs="sonnet",
        dtype="float64",
    ),
    "sonnet.gru": Case(
        "sonnet",
        recurrences(),
        sonnet("GRU", inputs, lambda o: {"hidden_size": o["u"]}),
        one_gru,
        sequence,
        single(u="u"),
        needs="sonnet",
        dtype="float64",
    ),
    "keras1.dense": Case(
        "keras1",
        SMALL,
        keras1(
            "Dense",
            lambda o: (o["n"], o["i"]),
            lambda o: {"units": o["o"], "use_bias": o["bias"]},
            W="i o",
            b="o",
        ),
        lambda o: nn.Linear(o["i"], o["o"], bias=o["bias"]),
        rows=KERAS1,
    ),
    "keras1.conv1d": Case(
        "keras1",
        convolutions(1, dilated=False),
        keras1(
            "Conv1D",
            lambda o: image(o, o["i"]),
            lambda o: {
                "filters": o["o"], "kernel_size": o["kernel"], "strides": o["strides"], "use_bias": o["bias"],
            },
            W="k 1 i o",
            b="o",
        ),
        conv(1),
        channels_first,
        KERAS1,
    ),
    "keras1.conv2d": Case(
        "keras1",
        STILL,
        keras1(
            "Conv2D",
            lambda o: image(o, o["i"]),
            lambda o: {
                "filters": o["o"], "kernel_size": o["kernel"], "strides": o["strides"], "use_bias": o["bias"],
            },
            W="k i o",
            b="o",
        ),
        conv(2),
        channels_first,
        KERAS1,
    ),
    "keras1.batch_norm": Case(
        "keras1",
        drawn(lead=LEAD, c=sizes(), epsilon=EPSILON, scale=True, center=True),
        keras1(
            "BatchNormalization",
            lambda o: (*o["lead"], o["c"]),
            lambda o: {"epsilon": o["epsilon"]},
            gamma="c",
            beta="c",
            running_mean="c",
            running_std="c",
        ),
        batch_norm,
        channels_first,
        KERAS1,
    ),
    "keras1.embedding": Case(
        "keras1",
        drawn(n=sizes(), words=sizes(), width=sizes()),
        keras1(
            "Embedding",
            lambda o: (o["n"],),
            lambda o: {"input_dim": o["words"], "output_dim": o["width"]},
            W="words width",
        ),
        lambda o: nn.Embedding(o["words"], o["width"]),
        rows=KERAS1,
    ),
    "keras1.lstm": keras1_recurrent("LSTM", t2t.nn.LSTM),
    "keras1.gru": keras1_recurrent("GRU", t2t.nn.GRU),
}  # fmt: skip


def difference(original: Original, recipe: str, options: Options, more: str = "", use: str = "") -> float:
    """
    The largest difference between the layer's output and its twin's, as a share of the largest output.

    `use` is another recipe in the recipe's place, which `more` of the mapping has; it may be warned of.
    """
    case = CASES[recipe]
    variables, given, outputs = original(case.name, 0, case.dtype, case.arguments(options))
    twin = nn.ModuleDict({"twin": case.twin(options)}).to(getattr(torch, case.dtype)).eval()
    rows = [{"tf": tf, "torch": "twin", "use": use or recipe, **extra} for tf, extra in case.rows(options)]
    checkpoint = Memory(variables)
    text = HEAD + "".join(f"- {json.dumps(row)}\n" for row in rows) + more
    plan, problems = make(read(text), checkpoint.inventory, inventory(twin))
    assert [str(problem) for problem in problems if not use or problem.severity == "error"] == []
    assert all(is_undone(part.transforms) for step in plan.steps for part in step.parts)
    assign(twin, {name: to_torch(array, array.dtype.name) for name, array in tensors(plan, checkpoint, {})})
    with torch.inference_mode():
        found = case.forward(twin["twin"], *(torch.from_numpy(x) for x in given)).numpy()
    (expected,) = outputs
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype == case.dtype
    largest = float(np.abs(expected).max())
    assert largest > 0
    return float(np.abs(found.astype(np.float64) - expected).max()) / largest


def is_undone(transforms: Sequence[Transform]) -> bool:
    """Whether the inverses, last to first, give back what the transforms move: elements that are all different."""
    if not transforms:
        return True
    source = np.arange(math.prod(transforms[0].input)).reshape(transforms[0].input)
    moved = source
    for transform in transforms:
        moved = transform.apply(moved)
    for transform in reversed(transforms):
        moved = transform.inverse.apply(moved)
    return np.array_equal(moved, source)


# --- what the rows say ---


def test_every_recipe_has_a_layer_to_be_compared_with() -> None:
    assert set(CASES) == set(RECIPES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_its_rows_are_rows_of_the_language(recipe: str) -> None:
    schema = json.loads((ROOT / "schemas" / "mapping.schema.json").read_text(encoding="utf-8"))
    rows = jsonschema.Draft7Validator({"definitions": schema["definitions"], "$ref": "#/definitions/row"})

    assert [error.message for row in RECIPES[recipe] for error in rows.iter_errors(row)] == []
    assert list(rows.iter_errors({**RECIPES[recipe][0], "axis": "a -> a"}))


MOVES = [
    pytest.param(row, id=f"{recipe} {row['torch']}")
    for recipe, rows in RECIPES.items()
    for row in rows
    if "axes" in row
]


@pytest.mark.parametrize("row", MOVES)
def test_what_a_row_moves_is_moved_back(row: dict[str, Any]) -> None:
    texts = [row["axes"]] if isinstance(row["axes"], str) else row["axes"]
    steps = [parse(text) for text in texts]
    orders = {axis: parse_order(text) for axis, text in row.get("order", {}).items()}

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
    @given(st.data())
    def back(data: st.DataObject) -> None:
        dims = {name: data.draw(sizes(), name) for name in steps[0].names} | row.get("dims", {})
        shape = tuple(math.prod(dims[name] for name in group) for group in steps[0].left)

        assert is_undone(notation.resolve(steps, shape, dims, row.get("flip", ()), orders))

    back()


def test_what_is_not_moved_back_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    order = {"g": parse_order("zrh -> rhz")}
    transforms = notation.resolve([parse("(g u) x -> x (g u)")], (6, 2), {"g": 3}, order=order)
    right = Transform.inverse.fget  # type: ignore[attr-defined]

    def forgetting(transform: Transform) -> Transform:
        inverse: Transform = right(transform)
        return replace(inverse, orders={})

    assert is_undone(transforms)

    monkeypatch.setattr(Transform, "inverse", property(forgetting))

    assert not is_undone(transforms)


# --- against TensorFlow ---


@needs_tensorflow
@pytest.mark.parametrize("recipe", CASES)
def test_the_twin_computes_what_tensorflows_layer_computes(recipe: str, original: Original) -> None:
    case = CASES[recipe]
    if importlib.util.find_spec(case.needs) is None:
        pytest.skip(f"needs {case.needs}")

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
    @given(case.options)
    def compare(options: Options) -> None:
        assert difference(original, recipe, options) <= REL

    compare()


SEQUENCES = {"library": "keras", "n": 2, "t": 3, "x": 3, "u": 3, "depth": 1, "both": False, "bias": True}
SQUARE = {"library": "tf_keras", "n": 2, "i": 2, "o": 2, "kernel": (2, 2), "strides": (1, 1), "dilation": (1, 1)}
SQUARE |= {"more": (1, 1), "bias": True}

#: A recipe, options for which its shapes fit all the same, and what is wrong with it.
WRONG: list[tuple[str, Options, str, str]] = [
    ("dense", {"library": "keras", "lead": (3,), "i": 3, "o": 3, "bias": True}, "i o -> o i", "i o -> i o"),
    (
        "flatten_dense", {"library": "keras", "h": 2, "w": 2, "c": 3, "o": 2, "bias": True},
        "(h w c) o -> o (c h w)", "(h w c) o -> o (h w c)",
    ),
    ("conv2d", SQUARE, "h w i o -> o i h w", "h w i o -> o i w h"),
    ("conv2d_transpose", SQUARE, "h w o i -> i o h w", "h w o i -> o i h w"),
    ("depthwise_conv2d", {**SQUARE, "m": 3}, "h w i m -> (i m) 1 h w", "h w i m -> (m i) 1 h w"),
    (
        "lstm", SEQUENCES, '"x gates -> gates x"',
        '"x (g u) -> (g u) x", "dims": {"g": 4}, "order": {"g": "ifco -> icfo"}',
    ),
    ("cudnn.lstm", SEQUENCES, '["x (g u) -> g (x u)", "g (u x) -> (g u) x"]', '"x (g u) -> (g u) x"'),
    ("gru", SEQUENCES, "zrh -> rzh", "zrh -> zrh"),
    ("tf1.lstm_cell", {**SEQUENCES, "kind": "LSTMCell", "forget": 1.0}, "icfo -> ifco", "icfo -> icfo"),
    ("tf1.lstm_cell", {**SEQUENCES, "kind": "LSTMCell", "forget": 1.0}, '{"f": "<forget>"}', '{"i": "<forget>"}'),
    (
        "multi_head_attention",
        {"library": "keras", "heads": 2, "width": 2, "queries": 3, "keys": 4, "bias": True},
        '["query/kernel", "key/kernel", "value/kernel"]', '["query/kernel", "value/kernel", "key/kernel"]',
    ),
    ("keras1.gru", SEQUENCES, '"<layer>_W_r", "<layer>_W_z"', '"<layer>_W_z", "<layer>_W_r"'),
]  # fmt: skip


@needs_tensorflow
@pytest.mark.parametrize(("recipe", "options", "right", "wrong"), WRONG, ids=[f"{case[0]} {case[3]}" for case in WRONG])
def test_a_recipe_that_is_wrong_is_found(
    recipe: str, options: Options, right: str, wrong: str, original: Original
) -> None:
    """Axes or gates that are exchanged fit every shape: only the outputs tell."""
    text = json.dumps(RECIPES[recipe])
    assert right in text
    more = f"recipes: {{wrong: {text.replace(right, wrong)}}}\n"

    assert difference(original, recipe, options) <= REL
    assert difference(original, recipe, options, more, "wrong") > 1e-3


# --- docs/recipes.md ---


def documented() -> dict[str, list[str]]:
    """The cells of the tables in docs/recipes.md, by the recipe in the first."""
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")
    ]
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0].strip("`"): row[1:] for row in rows}


def test_the_documented_recipes_are_those_that_there_are() -> None:
    assert set(documented()) == set(RECIPES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_documentation_names_its_variables_and_letters(recipe: str) -> None:
    _, variables, _, letters, _ = documented()[recipe]
    rows = RECIPES[recipe]
    read = [name for row in rows for name in ([row["tf"]] if isinstance(row.get("tf"), str) else row.get("tf", []))]
    used = set().union(*(template(text).letters for text in re.findall(r"<[^>]+>", json.dumps(rows))))

    assert set(re.findall("`([^`]+)`", variables)) == set(read)
    assert set(re.findall("`([^`]+)`", letters)) == used
