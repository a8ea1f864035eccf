"""
What a graph says against rows, on models that TensorFlow wrote and on real ones: a right mapping has no finding, and
each mistake of it has its own.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from t2t import api, checkpoints
from t2t import plan as planning
from t2t.checkpoints import dataflow, graph
from t2t.places import read_mapping
from t2t.proof import lint
from t2t.tensors import TensorRef
from tests.checkpoints.graphs import Node, meta_graph, variable, write
from tests.commands import ROOT, store
from tests.given import read, variables

VISION = """\
t2t: 1
model: m:M
source: {checkpoint: vision.ckpt}
for: {n: [1, 2]}
map:
- {tf: conv1/kernel, torch: conv1.weight, axes: h w i o -> o i h w}
- {tf: conv1/bias, torch: conv1.bias}
- {tf: conv2/kernel, torch: conv2.weight, permute: [3, 2, 0, 1]}
- {tf: "norm<n>", torch: "norm<n>", use: batch_norm}
- {tf: depthwise/kernel, torch: depthwise.weight, axes: h w i m -> (i m) 1 h w}
- {tf: depthwise/bias, torch: depthwise.bias}
- {tf: dilated/kernel, torch: dilated.weight, axes: h w i o -> o i h w}
- {tf: up/kernel, torch: up.weight, axes: h w o i -> i o h w}
- {tf: fc1/kernel, torch: fc1.weight, axes: (h w c) o -> o (c h w), dims: {h: 6, w: 2}}
- {tf: fc1/bias, torch: fc1.bias}
- {tf: fc2, torch: fc2, use: dense}
- {tf: fc3/weights, torch: fc3.weight, axes: o i -> o i}
- {tf: conv1d, torch: conv1d, use: conv1d}
- {tf: each/kernel, torch: each.weight, axes: i o -> o i}
- {tf: conv3d/kernel, torch: conv3d.weight, axes: d h w i o -> o i d h w}
- {tf: aside/kernel, torch: aside.weight, axes: i o -> o i}
verify:
  inputs: {x: {shape: [2, 12, 10, 3], range: [0, 1]}, line: {shape: [2, 9, 4], range: [0, 1]}}
  reference:
    graph: vision.ckpt.meta
    feed: {x: "x:0", line: "line:0"}
    fetch: {logits: "logits:0", volumes: "volumes:0", aside: "aside:0"}
"""

LSTM = """\
t2t: 1
model: m:M
source: {checkpoint: lstm.ckpt}
map:
- {tf: cell, torch: lstm, use: tf1.lstm_cell, with: {suffix: l0, x: 3, forget: 1.0}}
"""

FUNCTIONS = """\
t2t: 1
model: m:M
source: {checkpoint: functions}
map:
- {tf: conv, torch: conv.weight, axes: h w i o -> o i h w}
- {tf: one, torch: one.weight, axes: (h w c) o -> o (c h w), dims: {h: 4, w: 4}}
- {tf: two, torch: two.weight, axes: i o -> o i}
- {tf: head, torch: head.weight, axes: i o -> o i}
verify:
  inputs: {x: {shape: [2, 4, 4, 1], range: [0, 1]}}
  reference: {saved_model: functions, fetch: {y: output_0}}
"""

KERAS = """\
t2t: 1
model: m:M
source: {checkpoint: keras, names: full_name}
map:
- {tf: sequential/conv, torch: conv, use: conv2d}
- {tf: sequential/norm, torch: norm, use: batch_norm}
- {tf: sequential/dense, torch: dense, use: flatten_dense, dims: {h: 4, w: 3}}
"""


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What with_graphs.py writes."""
    pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("graphs")
    script = Path(__file__).with_name("with_graphs.py")
    subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, check=True)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """The same, for one test."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return tmp_path


def checked(folder: Path, text: str, *changes: tuple[str, str]) -> list[str]:
    """What `check` finds but for the note that parameters are not checked; the file's name goes without saying."""
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    (folder / "m.yaml").write_text(text)
    found = api.check(folder / "m.yaml")
    return [
        str(problem).replace(f"{folder}/", "").removeprefix("m.yaml:")
        for problem in found
        if problem.at and problem.code != "T2T210"
    ]


@pytest.mark.parametrize("text", [VISION, LSTM, FUNCTIONS, KERAS], ids=["vision", "lstm", "functions", "keras"])
def test_a_right_mapping_has_no_finding(folder: Path, text: str) -> None:
    assert checked(folder, text) == []


def test_a_frozen_graph_says_the_same(folder: Path) -> None:
    """It has no sizes of maps, but says how many places there are."""
    head, rows = VISION[: VISION.index("- {tf: conv1d")], "graph: vision.ckpt.meta"
    text = f"""{head}ignore:
- {{tf: conv1d/kernel, why: elsewhere}}
- {{tf: each/kernel, why: elsewhere}}
- {{tf: conv3d/kernel, why: elsewhere}}
- {{tf: aside/kernel, why: elsewhere}}
verify:
  inputs: {{x: {{shape: [2, 12, 10, 3], range: [0, 1]}}}}
  reference: {{frozen: frozen.pb, feed: {{x: "x:0"}}, fetch: {{logits: "logits:0"}}}}
"""
    assert rows not in text
    assert checked(folder, text) == []
    assert checked(folder, text, ("axes: (h w c) o -> o (c h w), dims: {h: 6, w: 2}", "axes: i o -> o i")) == [
        "14:45: T2T504 fc1.weight: axes 'i o -> o i' ignore the flatten in front of it: fc1/kernel [48, 8] is the "
        "kernel (i o) of MatMul, whose inputs are the map (12 places) x 4 of MaxPool MaxPool2d, channels last; write "
        "axes: (h w c) o -> o (c h w), dims: {h: ?, w: ?}, or, where the module itself flattens h w c, axes: "
        "(h w c) o -> o (h w c); h x w is 12"
    ]
    (found,) = checked(folder, text, ("o (c h w), dims: {h: 6", "o (c w h), dims: {h: 6"))
    assert found.endswith("; h x w is 12; where it flattens as the row says, it is right as it is")


CONV2 = "conv2/kernel [3, 3, 6, 6] is the kernel (h w i o) of Conv2D Conv2D_1; write axes: h w i o -> o i h w"
FC1 = (
    "fc1/kernel [48, 8] is the kernel (i o) of MatMul, whose inputs are the map 6 x 2 x 4 of MaxPool MaxPool2d, "
    "channels last; write axes: (h w c) o -> o (c h w), dims: {h: 6, w: 2}, or, where the module itself flattens h w "
    "c, axes: (h w c) o -> o (h w c)"
)


def otherwise(axes: str, kept: str) -> str:
    """The decision that an error names."""
    return f", or, where the module itself keeps {kept}, axes: {axes} -> {kept}"


def as_it_is(kept: str) -> str:
    """What a warning says of a row that names its axes right."""
    return f"; where the module itself keeps {kept}, it is right as it is"


MISTAKES = {
    "height and width": (
        ("permute: [3, 2, 0, 1]", "permute: [3, 2, 1, 0]"),
        "8:52: T2T504 conv2.weight: axes 'a b c d -> d c b a' exchange h and w: "
        + CONV2
        + otherwise("h w i o", "o i w h"),
    ),
    "height and width, by their names": (
        ("torch: conv2.weight, permute: [3, 2, 0, 1]", "torch: conv2.weight, axes: w h i o -> o i h w"),
        "8:49: T2T504 conv2.weight: axes 'w h i o -> o i h w' exchange h and w: "
        + CONV2
        + otherwise("h w i o", "o i w h"),
    ),
    "in and out": (
        ("torch: conv2.weight, permute: [3, 2, 0, 1]", "torch: conv2.weight, axes: h w o i -> o i h w"),
        "8:49: T2T504 conv2.weight: axes 'h w o i -> o i h w' exchange o and i: "
        + CONV2
        + otherwise("h w i o", "i o h w"),
    ),
    "everything": (
        ("permute: [3, 2, 0, 1]", "permute: [2, 3, 1, 0]"),
        "8:52: T2T504 conv2.weight: axes 'a b c d -> c d b a' exchange o and i, h and w: "
        + CONV2
        + otherwise("h w i o", "i o w h"),
    ),
    "depthwise: the multiplier first": (
        ("h w i m -> (i m) 1 h w", "h w i m -> (m i) 1 h w"),
        "10:57: T2T504 depthwise.weight: axes 'h w i m -> (m i) 1 h w' exchange i and m: depthwise/kernel [3, 3, 6, 2] "
        "is the kernel (h w i m) of DepthwiseConv2dNative depthwise; write axes: h w i m -> (i m) 1 h w"
        + as_it_is("(m i) 1 h w"),
    ),
    "depthwise as an ordinary convolution": (
        ("axes: h w i m -> (i m) 1 h w", "axes: h w i o -> o i h w"),
        "10:57: T2T504 depthwise.weight: axes 'h w i o -> o i h w' exchange i and m: depthwise/kernel [3, 3, 6, 2] is "
        "the kernel (h w i m) of DepthwiseConv2dNative depthwise; write axes: h w i m -> (i m) 1 h w"
        + otherwise("h w i m", "m i h w"),
    ),
    "a row for a column": (
        ("torch: dilated.weight, axes: h w i o -> o i h w", "torch: dilated.weight, axes: h w i o -> o i w h"),
        "12:53: T2T504 dilated.weight: axes 'h w i o -> o i w h' give [4, 12, 3, 1], not [4, 12, 1, 3]: dilated/kernel "
        "[1, 3, 12, 4] is the kernel (h w i o) of Conv2D Conv2D_2; write axes: h w i o -> o i h w"
        + as_it_is("o i w h"),
    ),
    "transposed, as if it were not": (
        ("h w o i -> i o h w", "h w i o -> o i w h"),
        "13:43: T2T504 up.weight: axes 'h w i o -> o i w h' exchange h and w: up/kernel [2, 2, 4, 4] is the kernel "
        "(h w o i) of Conv2DBackpropInput conv2d_transpose; write axes: h w o i -> i o h w"
        + otherwise("h w o i", "i o w h"),
    ),
    "transposed, in and out": (
        ("h w o i -> i o h w", "h w o i -> o i h w"),
        "13:43: T2T504 up.weight: axes 'h w o i -> o i h w' exchange i and o: up/kernel [2, 2, 4, 4] is the kernel "
        "(h w o i) of Conv2DBackpropInput conv2d_transpose; write axes: h w o i -> i o h w" + as_it_is("o i h w"),
    ),
    "one axis, in and out": (
        ("{tf: conv1d, torch: conv1d, use: conv1d}", "{tf: conv1d/kernel, torch: conv1d.weight, axes: k i o -> i o k}"),
        "18:51: T2T504 conv1d.weight: axes 'k i o -> i o k' exchange o and i: conv1d/kernel [3, 4, 4] is the kernel "
        "(k i o) of Conv2D conv1d; write axes: k i o -> o i k" + as_it_is("i o k"),
    ),
    "three axes": (
        ("d h w i o -> o i d h w", "w h d i o -> o i d h w"),
        "20:51: T2T504 conv3d.weight: axes 'w h d i o -> o i d h w' exchange d and w: conv3d/kernel [3, 3, 3, 2, 2] is "
        "the kernel (d h w i o) of Conv3D volumes; write axes: d h w i o -> o i d h w"
        + otherwise("d h w i o", "o i w h d"),
    ),
    "a flatten that is ignored": (
        ("axes: (h w c) o -> o (c h w), dims: {h: 6, w: 2}", "permute: [1, 0]"),
        f"14:48: T2T504 fc1.weight: axes 'a b -> b a' ignore the flatten in front of it: {FC1}",
    ),
    "a flatten of another map": (
        ("dims: {h: 6, w: 2}", "dims: {h: 2, w: 6}"),
        None,  # the order of places does not matter: h w stay together
    ),
    "a flatten of other channels": (
        ("dims: {h: 6, w: 2}", "dims: {h: 2, w: 2}"),
        "14:45: T2T504 fc1.weight: axes '(h w c) o -> o (c h w)' take the map in front of it for another: " + FC1,
    ),
    "a flatten with its places exchanged": (
        ("o (c h w), dims: {h: 6", "o (c w h), dims: {h: 6"),
        "14:45: T2T504 fc1.weight: axes '(h w c) o -> o (c w h)' take the map in front of it for another: "
        + FC1
        + "; where it flattens as the row says, it is right as it is",
    ),
    "stored as out and in": (
        ("axes: o i -> o i", "permute: [1, 0]"),
        None,  # without its module nobody knows whether fc3.weight is [in, out]
    ),
    "stored as out and in, by their names": (
        ("axes: o i -> o i", "axes: i o -> o i"),
        "17:46: T2T504 fc3.weight: axes 'i o -> o i' give i o: fc3/weights [8, 8] is the kernel (o i) of MatMul "
        "logits, which the row takes for i o; write axes: o i -> o i, or, where the module itself keeps i o, axes: "
        "o i -> i o",
    ),
    "stored as in and out": (
        ("torch: each.weight, axes: i o -> o i", "torch: each.weight, axes: o i -> o i"),
        "19:47: T2T504 each.weight: axes 'o i -> o i' give i o: each/kernel [4, 4] is the kernel (i o) of MatMul "
        "Tensordot/MatMul, which the row takes for o i; write axes: i o -> o i, or, where the module itself keeps "
        "i o, axes: i o -> i o",
    ),
}

#: What is unusual, and written down: a reviewer sees it, and so does lint.
DECISIONS = {
    "channels last": (
        "axes: (h w c) o -> o (c h w), dims: {h: 6, w: 2}",
        "axes: (h w c) o -> o (h w c), dims: {h: 6, w: 2}",
    ),
    "channels last, without h and w": (
        "axes: (h w c) o -> o (c h w), dims: {h: 6, w: 2}",
        "axes: (p c) o -> o (p c), dims: {c: 4}",
    ),
    "places as one axis": (
        "axes: (h w c) o -> o (c h w), dims: {h: 6, w: 2}",
        "axes: (p c) o -> o (c p), dims: {c: 4}",
    ),
    "a module that keeps the kernel as it is": ("permute: [3, 2, 0, 1]", "permute: [0, 1, 2, 3]"),
    "one that keeps in and out": ("torch: each.weight, axes: i o -> o i", "torch: each.weight, axes: i o -> i o"),
    "pictures that are turned": (
        "torch: conv2.weight, permute: [3, 2, 0, 1]}\n",
        "torch: conv2.kernel, permute: [3, 2, 1, 0]}\n",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found(folder: Path, name: str) -> None:
    change, message = MISTAKES[name]

    assert checked(folder, VISION, change) == ([message] if message else [])
    severities = {problem.severity for problem in api.check(folder / "m.yaml")} - {"note"}
    assert severities == ({"warning" if "as it is" in message else "error"} if message else set())


def test_the_decision_that_an_error_names_ends_it(folder: Path) -> None:
    """A module of its own keeps a kernel as it likes: what the hint offers is a warning at most."""
    named = [(change, text) for change, text in MISTAKES.values() if text and ", or, where the module itself" in text]
    assert len(named) == 12

    for (old, new), text in named:
        decision = text.rpartition(", axes: ")[2].partition(";")[0]
        dims = ", dims: {h: 6, w: 2}" if decision.startswith("(h w c)") else ""
        lines = VISION.replace(old, new).splitlines()
        at = int(text.partition(":")[0]) - 1
        lines[at] = re.sub(r"(axes|permute): .*", f"axes: {decision}{dims}}}", lines[at])
        checked(folder, "\n".join(lines))
        assert "error" not in {problem.severity for problem in api.check(folder / "m.yaml")}, decision


def test_the_decision_that_a_vector_has_another_name_is_believed(folder: Path) -> None:
    """A module of its own that calls its gamma bias, and its beta weight."""
    rows = "".join(
        f'- {{tf: "norm<n>/{name}", torch: "norm<n>.{target}", axes: {role} -> {role}}}\n'
        for name, target, role in [
            ("gamma", "bias", "gamma"),
            ("beta", "weight", "beta"),
            ("moving_mean", "running_var", "mean"),
            ("moving_variance", "running_mean", "variance"),
        ]
    )
    recipe = '- {tf: "norm<n>", torch: "norm<n>", use: batch_norm}\n'

    assert checked(folder, VISION, (recipe, rows)) == []
    assert len(checked(folder, VISION, (recipe, rows.replace("gamma -> gamma", "beta -> beta")))) == 2


@pytest.mark.parametrize("name", DECISIONS)
def test_a_decision_is_believed(folder: Path, name: str) -> None:
    assert checked(folder, VISION, DECISIONS[name]) == []


def test_pictures_that_are_turned_have_turned_kernels(folder: Path) -> None:
    torch_side = "verify:\n  torch: {axes: {x: n h w c -> n c w h}}\n"
    turned = ("permute: [3, 2, 0, 1]", "permute: [3, 2, 1, 0]")

    assert len(checked(folder, VISION, turned)) == 1
    assert checked(folder, VISION, turned, ("verify:\n", torch_side)) == []


@pytest.mark.parametrize(
    ("variable", "parameter", "what", "right"),
    [
        ("norm1/gamma", "norm1.bias", "gamma of FusedBatchNormV3", "norm1.weight"),
        ("norm1/beta", "norm1.weight", "beta of FusedBatchNormV3", "norm1.bias"),
        ("norm1/moving_mean", "norm1.running_var", "the moving mean of FusedBatchNormV3", "norm1.running_mean"),
        ("norm1/moving_variance", "norm1.running_mean", "the moving variance of FusedBatchNormV3", "norm1.running_var"),
        ("norm2/gamma", "norm2.bias", "gamma of Mul batchnorm/mul", "norm2.weight"),
        ("norm2/beta", "norm2.weight", "beta of Sub batchnorm/sub", "norm2.bias"),
        ("norm2/moving_mean", "norm2.running_var", "the moving mean of Mul batchnorm/mul_2", "norm2.running_mean"),
        ("norm2/moving_variance", "norm2.running_mean", "the moving variance of AddV2 batchnorm/add", "norm2.running_var"),  # noqa: E501
        ("conv1/bias", "norm1.weight", "the bias of AddV2 add", "norm1.bias"),
    ],
)  # fmt: skip
def test_a_vector_in_anothers_place(folder: Path, variable: str, parameter: str, what: str, right: str) -> None:
    rows = "".join(
        f"- {{tf: {name}, torch: {target}}}\n"
        for name, target in [
            ("conv1/bias", "conv1.bias"),
            *[(f"norm{n}/gamma", f"norm{n}.weight") for n in (1, 2)],
            *[(f"norm{n}/beta", f"norm{n}.bias") for n in (1, 2)],
            *[(f"norm{n}/moving_mean", f"norm{n}.running_mean") for n in (1, 2)],
            *[(f"norm{n}/moving_variance", f"norm{n}.running_var") for n in (1, 2)],
        ]
        if name != variable and target != parameter
    )
    text = VISION.replace('- {tf: "norm<n>", torch: "norm<n>", use: batch_norm}\n', "")
    text = text.replace("for: {n: [1, 2]}\n", "").replace("- {tf: conv1/bias, torch: conv1.bias}\n", rows)
    text = text.replace("map:\n", f"map:\n- {{tf: {variable}, torch: {parameter}}}\n")

    found = [line for line in checked(folder, text) if "T2T504" in line]

    column = len(f"- {{tf: {variable}, torch: ") + 1
    called, role = parameter.rpartition(".")[2], variable.rpartition("/")[2].removeprefix("moving_")
    assert found == [
        f"5:{column}: T2T504 {parameter} gets {variable}, which is {what}; write it to {right}, or, where the module "
        f"itself calls it {called}, axes: {role} -> {role}"
    ]


FORGETS = (
    "lstm.bias_ih_l0 gets cell/bias, the bias of an LSTM cell that adds 1 to its forget gate when it runs (add), but "
    "the row adds"
)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "{tf: cell, torch: lstm, use: tf1.lstm_cell, with: {suffix: l0, x: 3, forget: 0.5}}",
            f"5:3: T2T504 {FORGETS} 0.5; give the recipe tf1.lstm_cell that number, or write out its rows, with add: "
            "{g: {f: 1.0}}; where the module adds it itself, add: {g: {f: 0.0}}",
        ),
        ("{tf: cell, torch: lstm, use: tf1.lstm_cell, with: {suffix: l0, x: 3, forget: 0}}", None),
        (
            "{tf: cell/bias, torch: lstm.bias_ih_l0}",
            f"5:3: T2T504 {FORGETS} 0; write axes: (g u) -> (g u), dims: {{g: 4}}, order: {{g: icfo -> ifco}}, add: "
            "{g: {f: 1.0}}; where the module adds it itself, add: {g: {f: 0.0}}",
        ),
        (
            "{tf: cell/bias, torch: lstm.bias_ih_l0, axes: (g u) -> (g u), dims: {g: 4}, order: {g: ijfo -> ifjo}}",
            f"5:3: T2T504 {FORGETS} 0; write add: {{g: {{f: 1.0}}}}; where the module adds it itself, add: "
            "{g: {f: 0.0}}",
        ),
        (
            "{tf: cell/bias, torch: lstm.bias_ih_l0, axes: (g u) -> (g u), dims: {g: 4}, order: {g: icfo -> ifco}, "
            "add: {g: {o: 1.0}}}",
            f"5:110: T2T504 {FORGETS} 0; write add: {{g: {{f: 1.0}}}}; where the module adds it itself, add: "
            "{g: {f: 0.0}}",
        ),
        (
            "{tf: cell/bias, torch: lstm.bias_ih_l0, axes: (g u) -> (g u), dims: {g: 4}, order: {g: icfo -> ifco}, "
            "add: {g: {f: 0.0}}}",
            None,
        ),
        ("{tf: cell/bias, torch: lstm.bias}", None),
    ],
)  # fmt: skip
def test_a_forget_bias_that_is_forgotten(folder: Path, row: str, message: str | None) -> None:
    text = LSTM[: LSTM.index("- {tf")] + f"- {row}\n"

    assert [line for line in checked(folder, text) if "T2T504" in line] == ([message] if message else [])


def test_a_variable_that_nothing_fetched_depends_on(folder: Path) -> None:
    """A warning: it is converted as the row says, and not proven."""
    fetched = ('{logits: "logits:0", volumes: "volumes:0", aside: "aside:0"}', '{logits: "logits:0"}')
    found = checked(folder, VISION, fetched)

    hint = "no result that verify fetches depends on (logits:0); the proof says nothing about it: fetch what it goes "
    hint += "into, too"
    assert found == [
        f"18:8: T2T504 conv1d.weight gets conv1d/kernel, which {hint}",
        f"19:8: T2T504 each.weight gets each/kernel, which {hint}",
        f"20:8: T2T504 conv3d.weight gets conv3d/kernel, which {hint}",
        f"21:8: T2T504 aside.weight gets aside/kernel, which {hint}",
    ]
    assert {problem.severity for problem in api.check(folder / "m.yaml")} == {"note", "warning"}


def test_those_of_one_row_are_one_warning(folder: Path) -> None:
    fetched = ('{logits: "logits:0", volumes: "volumes:0", aside: "aside:0"}', '{x: "x:0"}')
    (found, *_) = [line for line in checked(folder, VISION, fetched) if line.startswith("9:")]

    assert found == (
        "9:8: T2T504 no result that verify fetches (x:0) depends on 8 variables of this row: norm1/gamma, norm2/gamma, "
        "norm1/beta, ...; the proof says nothing about it: fetch what it goes into, too"
    )


def test_layers_of_one_name_are_told_apart(folder: Path) -> None:
    """Both are called dense/kernel: what the graph reads each key into says which of them is behind the Flatten."""
    plain = ("axes: (h w c) o -> o (c h w), dims: {h: 4, w: 4}", "axes: a b -> b a")

    (found,) = checked(folder, FUNCTIONS, plain)

    assert found.startswith(
        "6:38: T2T504 one.weight: axes 'a b -> b a' ignore the flatten in front of it: one [64, 64] "
    )
    assert checked(folder, FUNCTIONS, ("axes: i o -> o i}\n- {tf: head", "axes: a b -> b a}\n- {tf: head")) == []


def test_keras_copies_are_told_apart(folder: Path) -> None:
    (found,) = checked(folder, KERAS, ("use: flatten_dense, dims: {h: 4, w: 3}", "use: dense"))

    # Of two signatures that call the same functions, either may come first.
    assert [re.sub(r"StatefulPartitionedCall(_1)?/StatefulPartitionedCall", "CALL", found)] == [
        "7:3: T2T504 dense.weight: axes 'i o -> o i' ignore the flatten in front of it: sequential/dense/kernel [48, "
        "12] is the kernel (i o) of MatMul CALL/sequential_1/dense_1/MatMul, "
        "whose inputs are the map 4 x 3 x 4 of Conv2D CALL/sequential_1/"
        "conv_1/convolution, channels last; write axes: (h w c) o -> o (c h w), dims: {h: 4, w: 3}, or, where the "
        "module itself flattens h w c, axes: (h w c) o -> o (h w c)"
    ]


SELECT = """\
t2t: 1
model: m:M
source: {checkpoint: small.ckpt, select: /average}
map:
- {tf: k, torch: conv.weight, axes: w h i o -> o i h w}
"""


def test_an_average_is_what_its_variable_is(tmp_path: Path) -> None:
    """The graph computes with the variable, and keeps the average aside."""
    store(tmp_path, {name: np.zeros((3, 3, 2, 2), np.float32) for name in ("k", "k/average")})
    nodes = [*variable("k", 3, 3, 2, 2), *variable("k/average", 3, 3, 2, 2), Node("x", "Placeholder")]
    write(tmp_path / "small.ckpt.meta", meta_graph([*nodes, Node("y", "Conv2D", ["x", "k/read"])]))

    assert checked(tmp_path, SELECT) == [
        "5:37: T2T504 conv.weight: axes 'w h i o -> o i h w' exchange h and w: k/average [3, 3, 2, 2] is the kernel "
        "(h w i o) of Conv2D y; write axes: h w i o -> o i h w" + otherwise("h w i o", "o i w h")
    ]


# --- what no weight bounds ---


def of_rows(rows: int, fetch: str = "y:0") -> list[str]:
    """What is said of a kernel of so many rows behind a Flatten: nothing but the graph and the index claims them."""
    text = f"""\
t2t: 1
model: m:M
source: {{checkpoint: c}}
map:
- {{tf: k, torch: fc.weight, axes: a b -> b a}}
verify:
  inputs: {{x: {{shape: [1, 2], range: [0, 1]}}}}
  reference: {{graph: c.meta, feed: {{x: "x:0"}}, fetch: {{y: "{fetch}"}}}}
"""
    nodes = [
        Node("x", "Placeholder"),
        Node("p", "MaxPool", ["x"], {"_output_shapes": [(-1, rows // 4, 1, 4)]}),
        Node("f", "Reshape", ["p", "x"], {"_output_shapes": [(-1, rows)]}),
        *variable("k", rows, 2),
        Node("y", "MatMul", ["f", "k/read"]),
    ]
    flow = dataflow.connected(graph.decode("graph", meta_graph(nodes)))
    plan, _ = planning.make(read(text), variables(TensorRef("k", "float32", (rows, 2), 0, 0, 8 * rows)), None)
    return [problem.message[:65] for problem in lint.compared(plan, flow, is_original=True)]


def test_a_shape_takes_no_memory() -> None:
    ignored = ["fc.weight: axes 'a b -> b a' ignore the flatten in front of it: k"]

    assert of_rows(8) == of_rows(4096) == ignored
    assert of_rows(10**12) == []  # its rows alone would be 8 TB of numbers


@pytest.mark.parametrize("output", ["9" * 5000, "9" * 9, "x"])
def test_a_result_that_is_no_number_is_none(output: str) -> None:
    """What the original has no result for, the proof says; the rows are compared as without verify."""
    assert len(of_rows(8, f"y:{output}")) == 1


# --- which graph ---


def test_without_a_graph_nothing_is_said(folder: Path) -> None:
    wrong = ("permute: [3, 2, 0, 1]", "permute: [3, 2, 1, 0]")
    assert len(checked(folder, VISION, wrong)) == 1
    (folder / "vision.ckpt.meta").unlink()

    assert checked(folder, VISION, wrong) == []


def test_the_graph_beside_the_checkpoint_is_used_where_verify_names_none(folder: Path) -> None:
    text = VISION[: VISION.index("verify:")]

    assert checked(folder, text) == []
    assert checked(folder, text, ("permute: [3, 2, 0, 1]", "permute: [3, 2, 1, 0]")) == [
        MISTAKES["height and width"][1]
    ]


def test_a_graph_that_cannot_be_read_is_a_warning(folder: Path) -> None:
    (folder / "broken.pb").write_bytes(b"\x0a\x7f")
    text = VISION.replace("graph: vision.ckpt.meta", "frozen: broken.pb")

    assert checked(folder, text) == [
        "broken.pb: T2T604: not a graph that t2t reads: protobuf field 1 claims 127 bytes, but 0 are left; no row is "
        "compared with it: move it away, or copy it again"
    ]
    assert {problem.severity for problem in api.check(folder / "m.yaml")} == {"note", "warning"}


def test_the_checkpoint_that_is_given_brings_its_own_graph(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for ending in (".index", ".meta", ".data-00000-of-00001"):
        (folder / f"vision.ckpt{ending}").rename(tmp_path / f"other/x{ending}")
    (folder / "m.yaml").write_text(VISION.replace("permute: [3, 2, 0, 1]", "permute: [3, 2, 1, 0]"))

    found = api.check(folder / "m.yaml", checkpoint=str(tmp_path / "other/x"))

    assert [problem.code for problem in found] == ["T2T210", "T2T504"]


# --- real graphs ---

REAL = {
    "madry": "madry/checkpoint-700",
    "fsrcnn_x2": "fsrcnn/Saafke+FSRCNN_Tensorflow/CKPT_dir/x2/fsrcnn_ckpt",
    "fsrcnn_x3": "fsrcnn/Saafke+FSRCNN_Tensorflow/CKPT_dir/x3/fsrcnn_ckpt",
    "ffn": "ffn-fib25/google+ffn/models/fib25/model.ckpt-27465036",
    "toy_bert": "toy-transformers/CyberZHG+keras-bert/test_checkpoint/bert_model.ckpt",
    "toy_gpt2": "toy-transformers/CyberZHG+keras-gpt-2/toy_checkpoint/model.ckpt",
    "toy_xlnet_empty": "toy-transformers/CyberZHG+keras-xlnet/test_checkpoint_empty/xlnet_model.ckpt",
    "toy_xlnet_pre": "toy-transformers/CyberZHG+keras-xlnet/test_checkpoint_pre/xlnet_model.ckpt",
    "toy_xlnet_tune": "toy-transformers/CyberZHG+keras-xlnet/test_checkpoint_tune/xlnet_model.ckpt",
    "kws": "mlperf-tiny/mlcommons+tiny/keyword_spotting/trained_models/kws_ref_model",
    "dtln_saved_model": "dtln/breizhn+DTLN/DTLN_norm_40h_saved_model",
}


def found_in(mapping: Path, checkpoint: Path) -> list[str]:
    return [str(problem) for problem in api.check(mapping, checkpoint=str(checkpoint)) if problem.code != "T2T210"]


@pytest.mark.parametrize("name", REAL)
def test_the_gallery_has_no_finding(name: str, shared_data: Path) -> None:
    assert found_in(ROOT / f"mappings/{name}.yaml", shared_data / REAL[name]) == []


#: A mistake in a mapping of the gallery, and what is then said of how many of its parameters.
REAL_MISTAKES = {
    "fsrcnn_x2": ("axes: h w i o -> o i h w", "axes: w h i o -> o i h w", "exchange h and w", 5),
    "fsrcnn_x3": ("axes: h w i o -> o i h w", "axes: h w o i -> o i h w", "is the kernel (h w i o) of Conv2D", 8),
    "ffn": ("axes: d h w i o -> o i d h w", "axes: d w h i o -> o i d h w", "exchange h and w", 24),
    "toy_bert": ("axes: o i -> o i", "axes: i o -> o i", "give i o", 1),
    "toy_gpt2": ("{tf: g, torch: weight}", "{tf: b, torch: weight}", "which is beta of", 7),
    "toy_xlnet_pre": (
        'torch: "transformer.layer.<i>.rel_attn.layer_norm", use: layer_norm',
        'torch: "transformer.layer.<i>.rel_attn.layer_norm", use: swapped',
        "which is gamma of",
        2,
    ),
    "kws": ("torch: norm, use: batch_norm", "torch: norm, use: swapped", "which is gamma of", 1),
    "dtln_saved_model": ("torch: norm,          use: layer_norm", "torch: norm, use: swapped", "which is gamma of", 1),
}
SWAPPED = "\nrecipes:\n  swapped: [{tf: gamma, torch: bias}]\n\nmap:\n"


@pytest.mark.parametrize("name", REAL_MISTAKES)
def test_a_mistake_in_a_real_mapping_is_found(name: str, shared_data: Path, tmp_path: Path) -> None:
    old, new, says, count = REAL_MISTAKES[name]
    text = (ROOT / f"mappings/{name}.yaml").read_text()
    changed = text.replace(old, new).replace(old.replace('"', ""), new.replace('"', ""))
    assert changed != text
    if "swapped" in changed:
        changed = changed.replace("\nmap:\n", SWAPPED)
    (tmp_path / "m.yaml").write_text(changed)

    found = [line for line in found_in(tmp_path / "m.yaml", shared_data / REAL[name]) if "T2T504" in line]

    assert len(found) == count, found
    assert all(says in line for line in found)


def test_a_plain_transpose_behind_a_flatten_is_found_without_any_weights(shared_data: Path, tmp_path: Path) -> None:
    """The stranger's real graph and index of 2017; its weights are not public here."""
    for ending in (".index", ".meta"):
        shutil.copy(shared_data / f"madry/checkpoint-99900{ending}", tmp_path)
    text = (ROOT / "mappings/madry.yaml").read_text()
    plain = text.replace("axes: (h w c) o -> o (c h w), dims: {h: 7, w: 7}", "permute: [1, 0]")
    assert plain != text
    (tmp_path / "m.yaml").write_text(plain)
    (tmp_path / "right.yaml").write_text(text)

    missing, *found = found_in(tmp_path / "m.yaml", tmp_path / "checkpoint-99900")

    assert "T2T607: shard 0 of 1 missing" in missing
    assert found == [
        f"{tmp_path}/m.yaml:11:48: T2T504 fc1.weight: axes 'a b -> b a' ignore the flatten in front of it: Variable_4 "
        "[3136, 1024] is the kernel (i o) of MatMul, whose inputs are the map 7 x 7 x 64 of MaxPool MaxPool_1, "
        "channels last; write axes: (h w c) o -> o (c h w), dims: {h: 7, w: 7}, or, where the module itself flattens "
        "h w c, axes: (h w c) o -> o (h w c)"
    ]
    assert found_in(tmp_path / "right.yaml", tmp_path / "checkpoint-99900") == [missing]


def test_a_real_cells_forget_bias(shared_data: Path, tmp_path: Path) -> None:
    """A BasicLSTMCell of TensorFlow's own, of 2016."""
    checkpoint = shared_data / "v1-single-file/KennyCandy+HAR/_module123/HAR_v4_2/model.ckpt"
    with checkpoints.open(checkpoint) as opened:
        name = next(name for name in opened.inventory.variables if name.endswith("BasicLSTMCell/Linear/Bias"))
    head = "t2t: 1\nmodel: m:M\nsource: {checkpoint: c}\nmap:\n"
    (tmp_path / "m.yaml").write_text(f"{head}- {{tf: {name}, torch: lstm.bias_ih_l0}}\n")

    (found,) = [line for line in found_in(tmp_path / "m.yaml", checkpoint) if "T2T504" in line]

    assert re.search(
        r"the bias of an LSTM cell that adds 1 to its forget gate when it runs \(\S+/BasicLSTMCell/add", found
    )


# --- modules ---


def compared(folder: Path, text: str, modules: dict[str, nn.Module], *changes: tuple[str, str]) -> list[str]:
    """What the graph says of the rows and of these modules, by their paths."""
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "m.yaml").write_text(text)
    read, problems = read_mapping(folder / "m.yaml")
    assert problems == []
    assert read is not None
    with checkpoints.open(read.checkpoint, names=read.names) as opened:
        plan, _ = planning.make(read, opened.inventory, None)
        original = read.verify.reference.path if read.verify else ""
        settings = {path: lint.attributes(module) for path, module in modules.items()}
        found = lint.findings(plan, opened.path, original, settings)
    return [str(problem).replace(f"{folder}/", "").removeprefix("m.yaml:") for problem in found]


RIGHT = {
    "conv1": nn.Conv2d(3, 6, 3, padding=1),
    "conv2": nn.Conv2d(6, 6, 3, stride=2, padding="valid"),  # and pads elsewhere
    "norm1": nn.BatchNorm2d(6, eps=1e-3),
    "norm2": nn.BatchNorm2d(6, eps=1e-2),
    "depthwise": nn.Conv2d(6, 12, 3, padding="same", groups=6),
    "dilated": nn.Conv2d(12, 4, (1, 3), dilation=(1, 2)),
    "up": nn.ConvTranspose2d(4, 4, 2, stride=2),
    "fc1": nn.Linear(48, 8),
    "fc2": nn.Linear(8, 8),
    "fc3": nn.Linear(8, 8),
    "conv1d": nn.Conv1d(4, 4, 3, padding=1),
    "each": nn.Linear(4, 4),
    "conv3d": nn.Conv3d(2, 2, 3, padding=1),
    "aside": nn.Linear(8, 8),
}
BUILD = "build it as the original was"


def test_modules_that_are_set_as_the_operations_are(folder: Path) -> None:
    assert compared(folder, VISION, RIGHT) == []


@pytest.mark.parametrize(
    ("path", "module", "message"),
    [
        ("conv1", nn.Conv2d(3, 6, 3, stride=2, padding=1), "6:29: {} stride [2, 2], but Conv2D has [1, 1]"),
        ("conv2", nn.Conv2d(6, 6, 3), "8:29: {} stride [1, 1], but Conv2D Conv2D_1 has [2, 2]"),
        (
            "conv2",
            nn.Conv2d(6, 6, 3, stride=2, padding=1),
            "8:29: {} padding [1, 1] on both sides, but Conv2D Conv2D_1 has SAME, which is 0 before and 1 after, 0 "
            "before and 1 after",
        ),
        (
            "conv1",
            nn.Conv2d(3, 6, 3, padding=2),
            "6:29: {} padding [2, 2] on both sides, but Conv2D has SAME, which is 1 before and 1 after, 1 before and "
            "1 after",
        ),
        (
            "dilated",
            nn.Conv2d(12, 4, (1, 3), padding=(0, 2), dilation=(1, 2)),
            "12:31: {} padding [0, 2], but Conv2D Conv2D_2 has none",
        ),
        ("dilated", nn.Conv2d(12, 4, (1, 3)), "12:31: {} dilation [1, 1], but Conv2D Conv2D_2 has [1, 2]"),
        (
            "depthwise",
            nn.Conv2d(6, 12, 3, padding=1),
            "10:33: {} groups 1, but DepthwiseConv2dNative depthwise has one for each of 6 channels",
        ),
        (
            "up",
            nn.ConvTranspose2d(4, 4, 2),
            "13:26: {} stride [1, 1], but Conv2DBackpropInput conv2d_transpose has [2, 2]",
        ),
        ("norm1", nn.BatchNorm2d(6), "9:26: {} eps 1e-05, but FusedBatchNormV3 has the epsilon 0.001"),
        ("norm2", nn.BatchNorm2d(6), "9:26: {} eps 1e-05, but AddV2 batchnorm/add has the epsilon 0.01"),
    ],
)  # fmt: skip
def test_a_module_that_is_set_otherwise(folder: Path, path: str, module: nn.Module, message: str) -> None:
    """A warning: the proof decides."""
    place, _, text = message.format(f"{path} has the").partition(" ")

    assert compared(folder, VISION, {**RIGHT, path: module}) == [f"{place} T2T504 {text}; {BUILD}"]


def test_a_square_kernel_is_as_its_module_keeps_it(folder: Path) -> None:
    """Where the module is known, a permutation is no decision: it is right or wrong."""
    kept = ("axes: o i -> o i", "permute: [1, 0]")
    each = ("torch: each.weight, axes: i o -> o i", "torch: each.weight, axes: i o -> i o")

    assert compared(folder, VISION, RIGHT, kept, each) == [
        "17:49: T2T504 fc3.weight: axes 'a b -> b a' give i o: fc3/weights [8, 8] is the kernel (o i) of MatMul "
        "logits, of which a Linear keeps o i; write axes: o i -> o i",
        "19:47: T2T504 each.weight: axes 'i o -> i o' give i o: each/kernel [4, 4] is the kernel (i o) of MatMul "
        "Tensordot/MatMul, of which a Linear keeps o i; write axes: i o -> o i",
    ]


def test_a_square_kernel_of_the_module_that_keeps_in_and_out(folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    conv1d = {**RIGHT, "each": transformers.pytorch_utils.Conv1D(4, 4)}

    assert [line[:45] for line in compared(folder, VISION, conv1d)] == ["19:47: T2T504 each.weight: axes 'i o -> o i' "]
    assert compared(folder, VISION, conv1d, ("each.weight, axes: i o -> o i", "each.weight, axes: i o -> i o")) == []


def test_a_forget_bias_is_added_once(folder: Path) -> None:
    from t2t.nn import LSTM as OWN

    zero, own = ("forget: 1.0", "forget: 0"), OWN(3, 4, forget_bias=1.0)
    says = f"5:3: T2T504 {FORGETS}"
    way = "give the recipe tf1.lstm_cell that number, or write out its rows, with add: {g: {f: 1.0}}"

    assert compared(folder, LSTM, {"lstm": nn.LSTM(3, 4)}) == []
    assert compared(folder, LSTM, {"lstm": own}, zero) == []
    assert compared(folder, LSTM, {"lstm": nn.LSTM(3, 4)}, zero) == [f"{says} 0; {way}"]
    assert compared(folder, LSTM, {"lstm": own}) == [f"{says} 1 and the module 1; {way}"]


def test_the_paddings_are_torchs(folder: Path) -> None:
    """What is called right gives what TensorFlow's SAME gives, and what is called wrong does not."""
    x = torch.rand(1, 6, 12, 10)
    wrong, kernel = nn.Conv2d(6, 6, 3, stride=2, padding=1, bias=False), torch.rand(6, 6, 3, 3)
    wrong.weight.data = kernel
    padded = nn.functional.conv2d(nn.functional.pad(x, (0, 1, 0, 1)), kernel, stride=2)

    tf = pytest.importorskip("tensorflow")
    turned = tf.nn.conv2d(x.permute(0, 2, 3, 1).numpy(), kernel.permute(2, 3, 1, 0).numpy(), 2, "SAME")
    same = torch.from_numpy(turned.numpy()).permute(0, 3, 1, 2)

    torch.testing.assert_close(padded, same)
    assert not torch.allclose(wrong(x), same, atol=1e-2)
