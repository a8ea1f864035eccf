"""What mistakes are made, which of them a recording catches, and that nothing is left of them in the module."""

from __future__ import annotations

import json
import random
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import t2t
from t2t import api
from t2t import mapping as mapping_file
from t2t.job import Job
from t2t.problems import MappingError, UsageError
from t2t.proof import origin
from t2t.proof import recording as recordings
from t2t.proof.mutate import Counts, Mutations, mutate
from t2t.proof.recording import Draw, Recording
from tests.checkpoints.writing import Tensor, bundle
from tests.commands import ROOT, server
from tests.gallery.shared import MAPPINGS, data

Array = np.ndarray[Any, Any]

#: Two square layers, and one that no output depends on; a probe that remembers what values it was run with.
MODELS = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, unused=False):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.register_buffer("calls", torch.zeros(1), persistent=False)
        if unused:
            self.unused = nn.Linear(3, 3)

    def forward(self, x):
        self.calls += 1
        self.last = torch.rand(2)
        return self.second(torch.relu(self.first(x)))


SEEN = []


class Probe(nn.Module):
    def __init__(self, layers={}, shapes={}, dtype=torch.float32):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape, dtype=dtype), requires_grad=False))

    def forward(self, x):
        SEEN.append({name: value.clone() for name, value in self.state_dict().items()})
        return x
"""

VERIFY = """\
verify:
  inputs: {x: {shape: [5, 3], range: [-1, 1]}}
  reference: {graph: gone.meta, feed: {x: "x:0"}, fetch: {y: "y:0"}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with models.py in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "models.py").write_text(MODELS)
    sys.modules.pop("models", None)
    yield tmp_path
    sys.modules.pop("models", None)


def write(name: str, model: str, rows: str, variables: Mapping[str, Array] | None = None) -> None:
    """`name`.yaml with these rows, over the checkpoint `c` with these variables."""
    if variables is not None:
        tensors = {key: Tensor(1, array.shape, array.astype(np.float32).tobytes()) for key, array in variables.items()}
        bundle(Path("c"), tensors)
    header = f"t2t: 1\nmodel: models:{model}\nsource: {{checkpoint: c}}\n"
    Path(f"{name}.yaml").write_text(header + textwrap.dedent(rows).rstrip() + "\n" + VERIFY)


def record(name: str, compute: Any) -> None:
    """The recording of `name`.yaml, its output computed by a function of numpy arrays."""
    read, problems = mapping_file.read(Path(f"{name}.yaml").read_bytes(), f"{name}.yaml")
    assert problems == []
    assert read is not None
    assert read.verify is not None
    with t2t.open_checkpoint("c") as checkpoint:
        made_from = origin.parts(read.verify, checkpoint.inventory.digest) | {"graph": "of a file that is gone"}
    inputs = recordings.inputs(read.verify, 0)
    made = Recording(made_from, (Draw(inputs, {"y": compute(inputs["x"])}),), None, {}, frozenset(inputs))
    recordings.save(read.verify.recording, made)


ROWS = """\
map:
- {tf: first/kernel, torch: first.weight, axes: i o -> o i}
- {tf: first/bias, torch: first.bias}
- {tf: second/kernel, torch: second.weight, axes: i o -> o i}
- {tf: second/bias, torch: second.bias}
"""
UNUSED = """\
- {tf: unused/kernel, torch: unused.weight, axes: i o -> o i}
- {tf: unused/bias, torch: unused.bias}
"""


def net(*, unused: bool = False, **changed: Array) -> None:
    """net.yaml with its checkpoint and its recording, which numpy computes; `changed` variables by layer_name."""
    draw = np.random.default_rng(1)
    layers = ["first", "second", *(["unused"] if unused else [])]
    variables = {f"{layer}/kernel": draw.normal(size=(3, 3)) for layer in layers}
    variables |= {f"{layer}/bias": draw.normal(size=3) for layer in layers}
    variables |= {name.replace("_", "/"): value for name, value in changed.items()}
    head = "with: {unused: true}\n" if unused else ""
    write("net", "Net", head + ROWS + (UNUSED if unused else ""), variables)
    v = {name: array.astype(np.float32) for name, array in variables.items()}
    record(
        "net",
        lambda x: np.maximum(x @ v["first/kernel"] + v["first/bias"], 0) @ v["second/kernel"] + v["second/bias"],
    )


def texts(done: Mutations) -> list[str]:
    return [survivor.mistake.text for survivor in done.survivors]


# --- caught, survived, equivalent, indistinguishable ---


def test_a_recording_that_depends_on_every_element_catches_every_mistake(folder: Path) -> None:
    net()

    done = t2t.mutate("net.yaml")

    assert done.counts == {"exchange": Counts(made=2, caught=2), "axes": Counts(made=2, caught=2)}
    assert (done.survivors, done.indistinguishable, done.problems()) == ((), (), [])
    assert (done.possible, done.total) == (4, Counts(made=4, caught=4))


def test_what_no_output_depends_on_survives_and_is_named_with_its_row(folder: Path) -> None:
    net(unused=True)

    done = t2t.mutate("net.yaml")

    assert texts(done) == ["unused.weight with axes 'i o -> i o' for 'i o -> o i'"]
    assert done.total == Counts(made=9, caught=8, survived=1)
    (problem,) = done.problems()
    assert (problem.severity, re.sub(r"(to|\|Δ\||<=) [0-9.e-]+", r"\1 #", str(problem))) == (
        "error",
        "net.yaml:10:3: T2T507 unused.weight with axes 'i o -> i o' for 'i o -> o i', values change by up to #, but y "
        "agrees: max|Δ| # <= #; fetch an output that depends on it, or feed inputs that show it",
    )
    assert done.survivors[0].max_delta <= done.survivors[0].tolerance


def test_two_tensors_of_the_same_bytes_are_indistinguishable_and_no_survivors(folder: Path) -> None:
    net(first_bias=np.ones(3), second_bias=np.ones(3))

    done = t2t.mutate("net.yaml", limit=1)

    assert [mistake.targets for mistake in done.indistinguishable] == [("first.bias", "second.bias")]
    assert done.total == Counts(made=2, caught=1, indistinguishable=1)
    assert [(str(problem), problem.severity) for problem in done.problems()] == [
        (
            "net.yaml:6:3: T2T507 first.bias and second.bias hold the same bytes: no value tells which is which; "
            "compare the names",
            "note",
        )
    ]


def test_a_mistake_that_changes_no_bit_is_equivalent(folder: Path) -> None:
    net(first_kernel=np.diag([1.0, 2.0, 3.0]))

    done = t2t.mutate("net.yaml")

    assert done.counts["axes"] == Counts(made=2, caught=1, equivalent=1)


def test_nothing_is_tried_where_the_mapping_itself_is_not_proven(folder: Path) -> None:
    net()
    text = Path("net.yaml").read_text().replace("first.weight, axes: i o -> o i", "first.weight, axes: i o -> i o")
    Path("net.yaml").write_text(text)

    with pytest.raises(MappingError) as raised:
        t2t.mutate("net.yaml")

    assert [problem.code for problem in raised.value.problems] == ["T2T501"]


def test_a_limit_below_one_makes_no_sense(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"^T2T001 limit is 0: that makes no mistake; give 1 or more$"):
        t2t.mutate("net.yaml", limit=0)


# --- which mistakes are made ---

LSTM = 'lstm: {new: "torch.nn:LSTM", with: {input_size: 2, hidden_size: 2}}'
CONV = 'conv: {new: "torch.nn:Conv2d", with: {in_channels: 3, out_channels: 4, kernel_size: [2, 2], bias: false}}'
TRANSPOSED = 'conv: {new: "torch.nn:ConvTranspose1d", with: {in_channels: 3, out_channels: 4, kernel_size: 2}}'
LSTM_ROWS = """\
- {tf: kernel, torch: lstm.weight_ih_l0, axes: x (g u) -> (g u) x, dims: {g: 4}}
- {tf: recurrent, torch: lstm.weight_hh_l0, axes: h (g u) -> (g u) h, dims: {g: 4}}
- {tf: bias, torch: lstm.bias_ih_l0, axes: (g u) -> (g u), dims: {g: 4}}
- {torch: lstm.bias_hh_l0, fill: 0}
"""
LSTM_SHAPES: dict[str, tuple[int, ...]] = {"kernel": (2, 8), "recurrent": (2, 8), "bias": (8,)}
GATE = "order: {g: abcd -> acbd}"

Case = tuple[str, str, dict[str, tuple[int, ...]], dict[str, str], str]

#: What is right (the module's arguments, rows, variables), which pieces are mistaken, and what the mistake is called.
MISTAKES: dict[str, Case] = {
    "the plain transpose behind a flatten": (
        "shapes: {w: [4, 12]}",
        "- {tf: a, torch: w, axes: (h w c) o -> o (c h w), dims: {h: 2, w: 3}}",
        {"a": (12, 4)},
        {"o (c h w)": "o (h w c)"},
        "w with axes '(h w c) o -> o (h w c)' for '(h w c) o -> o (c h w)'",
    ),
    "height and width": (
        f"layers: {{{CONV}}}",
        "- {tf: a, torch: conv.weight, axes: h w i o -> o i h w}",
        {"a": (2, 2, 3, 4)},
        {"o i h w": "o i w h"},
        "conv.weight with axes 'h w i o -> o i w h' for 'h w i o -> o i h w'",
    ),
    "a kernel turned round": (
        f"layers: {{{CONV}}}",
        "- {tf: a, torch: conv.weight, axes: h w i o -> o i h w}",
        {"a": (2, 2, 3, 4)},
        {"o i h w": "o i h w, flip: [h, w]"},
        "the kernel conv.weight turned round in space",
    ),
    "a kernel of one axis turned round": (
        f"layers: {{{TRANSPOSED}}}",
        "- {tf: a, torch: conv.weight, axes: k o i -> i o k}\n- {torch: conv.bias, fill: 0}",
        {"a": (2, 4, 3)},
        {"i o k": "i o k, flip: [k]"},
        "the kernel conv.weight turned round in space",
    ),
    "no flip": (
        "shapes: {w: [3, 2]}",
        "- {tf: a, torch: w, axes: i o -> o i, flip: [o]}",
        {"a": (2, 3)},
        {", flip: [o]": ""},
        "w without its flip",
    ),
    "the second of two steps": (
        "shapes: {w: [2, 2, 3]}",
        "- {tf: a, torch: w, axes: [(a b) c -> a b c, p q r -> p q r], dims: {a: 2}}",
        {"a": (4, 3)},
        {"-> p q r": "-> q p r"},
        "w with axes '[(a b) c -> a b c, p q r -> q p r]' for '[(a b) c -> a b c, p q r -> p q r]'",
    ),
    "the first of two steps": (
        "shapes: {w: [3, 2, 2]}",
        "- {tf: a, torch: w, axes: [(a b) c -> a b c, p q r -> r p q], dims: {a: 2}}",
        {"a": (4, 3)},
        {"-> a b c": "-> b a c"},
        "w with axes '[(a b) c -> b a c, p q r -> r p q]' for '[(a b) c -> a b c, p q r -> r p q]'",
    ),
    "no order": (
        "shapes: {w: [8, 3]}",
        "- {tf: a, torch: w, axes: x (g u) -> (g u) x, dims: {g: 4}, order: {g: icfo -> cfio}}",
        {"a": (3, 8)},
        {", order: {g: icfo -> cfio}": ""},
        "w without its order",
    ),
    "another order": (
        "shapes: {w: [8, 3]}",
        "- {tf: a, torch: w, axes: x (g u) -> (g u) x, dims: {g: 4}, order: {g: icfo -> ifco}}",
        {"a": (3, 8)},
        {"icfo -> ifco": "icfo -> cfio"},
        "entries i and c of w exchanged",
    ),
    "no scale": (
        "shapes: {w: [3]}",
        "- {tf: a, torch: w, scale: -2}",
        {"a": (3,)},
        {", scale: -2": ""},
        "w without its scale -2",
    ),
    "no scale, what is added stays": (
        "shapes: {w: [8]}",
        "- {tf: a, torch: w, axes: (g u) -> (g u), dims: {g: 4}, order: {g: icfo -> ifco}, scale: 2, add: {g: {f: 1}}}",
        {"a": (8,)},
        {"scale: 2, ": ""},
        "w without its scale 2",
    ),
    "no addend": (
        "shapes: {w: [3]}",
        "- {tf: a, torch: w, add: 1}",
        {"a": (3,)},
        {", add: 1": ""},
        "w without its add",
    ),
    "no forget bias": (
        "shapes: {w: [8]}",
        "- {tf: a, torch: w, axes: (g u) -> (g u), dims: {g: 4}, order: {g: icfo -> ifco}, add: {g: {f: 1}}}",
        {"a": (8,)},
        {", add: {g: {f: 1}}": ""},
        "w without its add",
    ),
    "joined in another order": (
        "shapes: {w: [6, 2]}",
        "- {tf: [a, b, c], torch: w, join: g, axes: g x u -> (g u) x}",
        {"a": (2, 2), "b": (2, 2), "c": (2, 2)},
        {"[a, b, c]": "[a, c, b]"},
        "b and c exchanged in w",
    ),
    "put together in another order": (
        "shapes: {w: [5, 2]}",
        "- {tf: [a, b, c], torch: w, join: i, axes: i o -> i o}",
        {"a": (1, 2), "b": (2, 2), "c": (2, 2)},
        {"[a, b, c]": "[a, c, b]"},
        "b and c exchanged in w",
    ),
    "the parts of a target": (
        "shapes: {w: [4, 2]}",
        """\
        - {tf: a, torch: w, into: [":2"], axes: o i -> o i}
        - {tf: b, torch: w, into: ["2:"], axes: o i -> o i}
        """,
        {"a": (2, 2), "b": (2, 2)},
        {'":2"': '"2:"', '"2:"': '":2"'},
        "[0:2, :] and [2:4, :] of w exchanged",
    ),
    "axes of a part": (
        "shapes: {w: [4, 2]}",
        """\
        - {tf: a, torch: w, into: [":2"], axes: o i -> o i}
        - {tf: b, torch: w, into: ["2:"], axes: o i -> i o}
        """,
        {"a": (2, 2), "b": (2, 2)},
        {"-> i o": "-> o i"},
        "w[2:4, :] with axes 'o i -> o i' for 'o i -> i o'",
    ),
    "targets of one module": (
        "shapes: {scale: [3], offset: [3]}",
        "- {tf: gamma, torch: scale}\n- {tf: beta, torch: offset}",
        {"gamma": (3,), "beta": (3,)},
        {"gamma": "beta", "beta": "gamma"},
        "scale and offset exchanged",
    ),
    "a gate in one tensor": (
        f"layers: {{{LSTM}}}",
        LSTM_ROWS,
        LSTM_SHAPES,
        {"(g u) h, dims: {g: 4}": f"(g u) h, dims: {{g: 4}}, {GATE}"},
        "gates 1 and 2 of lstm.weight_hh_l0 exchanged",
    ),
    "gates in all tensors": (
        f"layers: {{{LSTM}}}",
        LSTM_ROWS,
        LSTM_SHAPES,
        {"dims: {g: 4}": f"dims: {{g: 4}}, {GATE}"},
        "gates 1 and 2 of lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0 exchanged",
    ),
}


@pytest.mark.parametrize("case", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_what_the_mistaken_mapping_would_give(folder: Path, case: Case) -> None:
    """Bit for bit, by converting that mapping. An output that depends on nothing notices none, so each is named."""
    arguments, rows, shapes, pieces, text = case
    draw = np.random.default_rng(0)
    variables = {name: draw.permutation(1000)[: np.prod(shape)].reshape(shape) for name, shape in shapes.items()}
    rows = textwrap.dedent(rows)
    head = f"with: {{{arguments}}}\nmap:\n"
    write("right", "Probe", head + rows, variables)
    record("right", lambda x: x)
    found = re.compile("|".join(map(re.escape, pieces)))
    write("wrong", "Probe", head + found.sub(lambda match: pieces[match[0]], rows))
    wrong = dict(t2t.iter_tensors("wrong.yaml"))
    right = dict(t2t.iter_tensors("right.yaml"))
    assert any(not np.array_equal(right[name], wrong[name]) for name in right)

    done = t2t.mutate("right.yaml", limit=1000)

    seen = sys.modules["models"].SEEN[-done.total.survived :]
    assert len(seen) == len(done.survivors)
    states = dict(zip(texts(done), seen, strict=True))
    assert len(states) == len(seen)
    assert {name: value.numpy().tobytes() for name, value in states[text].items()} == {
        name: array.tobytes() for name, array in wrong.items()
    }


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int32"])
def test_parameters_of_other_dtypes_are_mistaken_as_well(folder: Path, dtype: str) -> None:
    """What a row adds comes after its scale: without the one the other is still there."""
    rows = f"- {{tf: a, torch: w, axes: i o -> o i, scale: 3, add: 2, dtype: {dtype}}}\n"
    head = f'with: {{shapes: {{w: [2, 2]}}, dtype: {{get: "torch:{dtype}"}}}}\nmap:\n'
    write("right", "Probe", head + rows, {"a": np.array([[1, 2], [3, 4]])})
    record("right", lambda x: x)

    done = t2t.mutate("right.yaml")

    seen = [state["w"] for state in sys.modules["models"].SEEN[-3:]]
    assert all(str(value.dtype) == f"torch.{dtype}" for value in seen)
    assert dict(zip(texts(done), [value.tolist() for value in seen], strict=True)) == {
        "w with axes 'i o -> i o' for 'i o -> o i'": [[5, 8], [11, 14]],
        "w without its scale 3": [[3, 5], [4, 6]],
        "w without its add": [[3, 9], [6, 12]],
    }
    assert [survivor.change for survivor in done.survivors] == [3, 8, 2]


def test_which_of_two_added_biases_holds_the_bias_makes_no_difference(folder: Path) -> None:
    """torch.nn.LSTM has two where TensorFlow has one; a GRU uses one of them alone."""
    draw = np.random.default_rng(0)
    variables = {name: draw.normal(size=shape) for name, shape in LSTM_SHAPES.items()}
    write("right", "Probe", f"with: {{layers: {{{LSTM}}}}}\nmap:\n{LSTM_ROWS}", variables)
    record("right", lambda x: x)

    done = t2t.mutate("right.yaml")

    assert "lstm.bias_ih_l0 and lstm.bias_hh_l0 exchanged" not in texts(done)
    assert done.counts["exchange"] == Counts(made=2, survived=1, equivalent=1)
    assert done.counts["gates"] == Counts(made=24, survived=24)


def test_numbered_layers_are_exchanged_with_the_next_and_named_ones_with_each(folder: Path) -> None:
    layer = '{new: "torch.nn:Linear", with: {in_features: 1, out_features: 2, bias: false}}'
    names = ["0", "1", "10", "2"]
    for known, pairs in ((names, ["0 1", "1 2", "2 10"]), (["k", "q", "v"], ["k q", "k v", "q v"])):
        layers = ", ".join(f'"{name}": {layer}' for name in known)
        rows = "".join(f'- {{tf: "{name}", torch: "{name}.weight", axes: i o -> o i}}\n' for name in known)
        variables = {name: np.random.default_rng(int(name, 36)).normal(size=(1, 2)) for name in known}
        write("right", "Probe", f"with: {{layers: {{{layers}}}}}\nmap:\n{rows}", variables)
        Path("recordings/right.npz").unlink(missing_ok=True)
        record("right", lambda x: x)

        found = [" ".join(re.findall(r"(\w+)\.weight", text)) for text in texts(t2t.mutate("right.yaml"))]

        assert found == pairs


# --- how many, and which ---


def test_more_mistakes_than_the_limit_are_picked_by_the_seed_evenly_over_the_kinds(folder: Path) -> None:
    arguments, rows, shapes, _, _ = MISTAKES["gates in all tensors"]
    draw = np.random.default_rng(0)
    variables = {name: draw.normal(size=shape) for name, shape in shapes.items()}
    write("right", "Probe", f"with: {{{arguments}}}\nmap:\n{rows}", variables)
    record("right", lambda x: x)

    every = t2t.mutate("right.yaml", limit=1000)
    some, again, other = (t2t.mutate("right.yaml", limit=9, seed=seed) for seed in (0, 0, 1))

    assert {kind: counts.made for kind, counts in every.counts.items()} == {"exchange": 2, "axes": 7, "gates": 24}
    assert {kind: counts.made for kind, counts in some.counts.items()} == {"exchange": 2, "axes": 4, "gates": 3}
    assert texts(some) == texts(again)
    assert texts(some) != texts(other)
    assert set(texts(some)) | set(texts(other)) < set(texts(every))
    assert (some.possible, some.total.made, some.seed, other.seed) == (33, 9, 0, 1)


# --- nothing is left ---


def test_the_module_and_the_generators_are_as_they_were(folder: Path) -> None:
    net(unused=True)
    with Job("net.yaml", {}) as job:
        recording = job.recording(required=True)
        assert recording is not None
        assert job.mapping.verify is not None
        job.fill(job.torch_tensors())
        job.module.train()
        before = {name: value.clone() for name, value in job.module.state_dict().items()}
        objects = dict(job.module.named_parameters())
        attributes = set(vars(job.module))
        states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]
        heard: list[tuple[int, int]] = []

        done = mutate(job.module, job.plan, recording, job.mapping.verify, tried=lambda *given: heard.append(given))

        assert done.total.made == 9
        assert heard == [(number, 9) for number in range(1, 10)]
        assert all(torch.equal(before[name], value) for name, value in job.module.state_dict().items())
        assert all(objects[name] is value for name, value in job.module.named_parameters())
        assert dict(job.module.named_buffers())["calls"].item() == 0
        assert set(vars(job.module)) == attributes
        assert all(part.training for part in job.module.modules())
        assert random.getstate() == states[0]
        assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[index]
        assert torch.equal(torch.get_rng_state(), states[2])


def test_the_values_are_put_back_when_it_is_interrupted(folder: Path) -> None:
    net()
    with Job("net.yaml", {}) as job:
        recording = job.recording(required=True)
        assert recording is not None
        assert job.mapping.verify is not None
        job.fill(job.torch_tensors())
        before = {name: value.clone() for name, value in job.module.state_dict().items()}

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        job.module.register_forward_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            mutate(job.module, job.plan, recording, job.mapping.verify)

        assert all(torch.equal(before[name], value) for name, value in job.module.state_dict().items())


def test_a_mistake_that_makes_forward_fail_is_caught(folder: Path) -> None:
    net()
    with Job("net.yaml", {}) as job:
        recording = job.recording(required=True)
        assert recording is not None
        assert job.mapping.verify is not None
        job.fill(job.torch_tensors())
        right = job.module.state_dict()["first.weight"].clone()

        def refuse(module: Any, _: object) -> None:
            if not torch.equal(module.first.weight, right):
                raise ValueError("these are no weights")

        job.module.register_forward_pre_hook(refuse)
        # With a tolerance that lets everything through, only the failure tells.
        done = mutate(job.module, job.plan, recording, replace(job.mapping.verify, abs=1e9))

        assert done.total == Counts(made=4, caught=2, survived=2)
        assert sorted(texts(done)) == [
            "first.bias and second.bias exchanged",
            "second.weight with axes 'i o -> i o' for 'i o -> o i'",
        ]


# --- the command ---


def test_the_command_names_survivors_and_ends_with_1(folder: Path) -> None:
    net(unused=True, first_bias=np.ones(3), second_bias=np.ones(3))

    done = server().run("mutate", "net.yaml", cwd=folder)
    full = server().run("mutate", "net.yaml", "--format", "full", "--limit", "3", "--seed", "4", cwd=folder)

    first, second, last = done.out.splitlines()
    assert (done.code, done.err) == (1, "note: T2T700 importing models:Net\n")
    assert first.startswith("net.yaml:10:3: T2T507 unused.weight with axes 'i o -> i o' for 'i o -> o i', values ")
    assert second.startswith("net.yaml:7:3: T2T507 first.bias and second.bias hold the same bytes")
    assert last == "7 of 8 mistakes caught (1 indistinguishable pair)"
    assert full.out.splitlines()[-1].endswith("; made 4 of 9 that are possible, by seed 4")
    assert full.out.splitlines()[-4].split() == [
        *("mistakes", "made", "caught", "survived", "equivalent", "indistinguishable")
    ]


def test_the_command_ends_with_0_where_every_mistake_is_caught(folder: Path) -> None:
    net()

    done = server().run("mutate", "net.yaml", cwd=folder)

    assert (done.code, done.out) == (0, "4 of 4 mistakes caught\n")


def test_json_has_the_counts_and_the_survivors(folder: Path) -> None:
    net(unused=True)

    done = server().run("mutate", "net.yaml", "--format", "json", cwd=folder)

    document = json.loads(done.out)
    (survivor,) = document["survivors"]
    assert (done.code, done.err) == (1, "")
    assert (document["caught"], document["survived"], document["possible"], document["seed"]) == (8, 1, 9, 0)
    assert document["kinds"]["axes"] == {
        "made": 3,
        "caught": 2,
        "survived": 1,
        "equivalent": 0,
        "indistinguishable": 0,
    }
    assert (survivor["kind"], survivor["targets"], survivor["at"]) == ("axes", ["unused.weight"], "net.yaml:10:3")
    assert survivor["max_delta"] <= survivor["tolerance"]
    assert [problem["code"] for problem in document["problems"]] == ["T2T507"]


# --- real models ---


def test_the_examples_recording_catches_every_mistake() -> None:
    done = api.mutate(MAPPINGS / "madry.yaml")

    assert done.counts == {"axes": Counts(made=7, caught=7), "flip": Counts(made=2, caught=2)}


def test_the_speech_models_recording_catches_every_mistake_that_is_one() -> None:
    checkpoint = data("dtln/breizhn+DTLN", "model.h5")

    done = api.mutate(MAPPINGS / "dtln.yaml", checkpoint=checkpoint)

    assert done.total.caught >= 100
    assert (done.survivors, done.indistinguishable) == ((), ())


def test_the_face_detectors_two_equal_offsets_are_indistinguishable() -> None:
    """Two betas that no value check can tell apart, among four hundred mistakes, of which few are made here."""
    repository = "ultralight-face/Linzaer+Ultra-Light-Fast-Generic-Face-Detector-1MB"
    checkpoint = data(repository, "tf/export_models/RFB")

    done = api.mutate(MAPPINGS / "ultralight_rfb.yaml", checkpoint=checkpoint, limit=24)

    assert [mistake.targets for mistake in done.indistinguishable] == [
        ("base_net.7.ConvLinear.bn.bias", "base_net.7.shortcut.bn.bias")
    ]
    assert done.survivors == ()
    assert done.total == Counts(made=25, caught=24, indistinguishable=1)


def test_the_documented_session_is_real() -> None:
    sessions = re.findall(
        r"```console\n\$ python -m t2t ([^\n]*)\n(.*?)```", (ROOT / "docs/proof.md").read_text(), re.S
    )
    assert sessions

    for command, output in sessions:
        done = server().run(*command.split(), cwd=ROOT)

        assert re.sub(r"max\|Δ\| \S+", "max|Δ| #", done.out) == re.sub(r"max\|Δ\| \S+", "max|Δ| #", output)
