"""Why a filled module does not compute what was recorded: the layer, the rows that pass, and what was tried."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import t2t
from t2t import nn as twins
from t2t.problems import CheckpointError, Problem
from t2t.proof.compare import Comparison, compare
from t2t.proof.diagnosis import MAX_TRIED, Diagnosis, Repair, _Change, _Search, diagnose
from t2t.proof.difference import Pairs
from t2t.proof.layers import Inside, Layer
from t2t.proof.recording import Draw, Recording
from t2t.verification import Verify
from tests.gallery.shared import MAPPINGS, RECORDINGS, data
from tests.given import Array
from tests.proof.layered import all_of, convolved, dense, drawn, filled, layer, recorded

VerifyOf = Callable[..., Verify]


def diagnosed(
    module: nn.Module, rows: Sequence[str], values: Mapping[str, Array], recording: Recording, verify: Verify
) -> Diagnosis:
    """The diagnosis of the module filled so, which is wrong, and is left bit for bit as it was."""
    plan, memory = filled(module, rows, values)
    assert not compare(module, recording, verify).proven
    module.eval()
    before = all_of(module)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index]
    told: list[tuple[int, int]] = []
    found = diagnose(module, plan, memory, recording, verify, tried=lambda done, total: told.append((done, total)))

    assert all_of(module) == before
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states  # type: ignore[index]
    assert told == [(number + 1, MAX_TRIED) for number in range(len(found.tried))]
    if found.passes and all(repair.rules for repair in found.repairs):
        filled(module, pasted(rows, found), values)
        assert compare(module, recording, verify).proven
    return found


def pasted(rows: Sequence[str], found: Diagnosis) -> list[str]:
    """The rows of the repairs in place of those that they are of."""
    kept = [row for number, row in enumerate(rows, 5) if number not in found.replaces]
    return [*kept, *found.lines]


def said(found: Diagnosis) -> list[str]:
    return [*found.lines, *(repair.what for repair in found.repairs if not repair.rules)]


# --- two dense layers ---

NAMES = ("first", "second")
X = drawn(0, 5, 4)


class Net(nn.Module):
    """Two square layers with a ReLU between."""

    def __init__(self, more: float = 0) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.more = more

    def forward(self, x: torch.Tensor) -> Any:
        return self.second(torch.relu(self.first(x)) + self.more)


def row(name: str, variable: str = "", axes: str = "i o -> o i") -> str:
    return f"{{tf: {variable or name}/kernel, torch: {name}.weight, axes: {axes}}}"


def bias(name: str, variable: str = "") -> str:
    return f"{{tf: {variable or name}/bias, torch: {name}.bias}}"


RIGHT = [row("first"), bias("first"), row("second"), bias("second")]


def original(x: Array = X) -> tuple[dict[str, Array], list[Layer], Array]:
    values = {f"{name}/kernel": drawn(n, 4, 4) for n, name in enumerate(NAMES, 1)}
    values |= {f"{name}/bias": drawn(n, 4) for n, name in enumerate(NAMES, 8)}
    one, hidden = dense("first", x, values["first/kernel"], values["first/bias"])
    two, y = dense("second", np.maximum(hidden, 0), values["second/kernel"], values["second/bias"])
    return values, [*one, *two], y


def test_a_tensor_that_layers_name_and_nobody_recorded_is_a_note(verify_of: VerifyOf) -> None:
    values, layers, y = original()
    verify = verify_of(layers='{first: "hidden:0", second: "\\e"}')
    module = Net()
    plan, memory = filled(module, [row("first", axes="i o -> i o"), *RIGHT[1:]], values)
    told: list[Problem] = []
    diagnose(module, plan, memory, recorded(X, y, layers), verify, note=told.append)

    text = r"the recording does not have what layers name: hidden:0, \x1b"
    assert told == [Problem("T2T503", text, verify.at, f"run t2t record {verify.at.path}", severity="note")]
    told.clear()
    diagnose(module, plan, memory, recorded(X, y, layers), verify_of(), note=told.append)
    assert told == []


@pytest.mark.parametrize(
    ("rows", "place", "right", "line"),
    [
        ([row("first", axes="i o -> i o"), *RIGHT[1:]], "first", [RIGHT[0]], 5),
        ([*RIGHT[:2], row("second", axes="a b -> a b"), bias("second")], "second", ["axes: b a -> a b"], 7),
        (
            [row("first"), bias("first", "second"), row("second"), bias("second", "first")],
            "first",
            [RIGHT[1], RIGHT[3]],
            6,
        ),
        (
            [row("first", "second"), bias("first"), row("second", "first"), bias("second")],
            "first",
            [RIGHT[0], RIGHT[2]],
            5,
        ),
        ([RIGHT[0], "{tf: first/bias, torch: first.bias, scale: 2}", *RIGHT[2:]], "first", [RIGHT[1]], 6),
    ],
    ids=["transposed", "transposed, later", "biases exchanged", "kernels exchanged", "scaled"],
)
def test_a_mistake_in_a_row_is_found_with_the_row_that_passes(
    verify_of: VerifyOf, rows: Sequence[str], place: str, right: Sequence[str], line: int
) -> None:
    values, layers, y = original()
    found = diagnosed(Net(), rows, values, recorded(X, y, layers), verify_of())

    assert (found.place, found.passes) == (place, True)
    assert all(any(text in told for told in said(found)) or _as_good(text, said(found)) for text in right)
    assert (found.at.path, found.at.line) == ("m.yaml", line)  # type: ignore[union-attr]
    assert found.hint == f"{place} is the first layer that differs; what passes is {', '.join(said(found))}"


def _as_good(right: str, told: Sequence[str]) -> bool:
    """Whether one of the rows says the same in other letters."""
    return any(one.replace("o i -> i o", "i o -> o i").replace("b a -> a b", "a b -> b a") == right for one in told)


def test_two_mistakes_at_once_are_mended_together(verify_of: VerifyOf) -> None:
    values, layers, y = original()
    rows = [row("first", axes="a b -> a b"), bias("first"), row("second", axes="a b -> a b"), bias("second")]
    found = diagnosed(Net(), rows, values, recorded(X, y, layers), verify_of())

    assert (found.place, found.passes, len(found.repairs)) == ("first", True, 2)
    assert [repair.rules[0].target for repair in found.repairs] == ["first.weight", "second.weight"]
    assert found.at.line == 5  # type: ignore[union-attr]
    assert found.hint == f"first is the first layer that differs; what passes is {', '.join(said(found))}"


def test_where_nothing_passes_it_says_what_was_tried(verify_of: VerifyOf) -> None:
    """The twin adds a half, and no row can take that back."""
    values, layers, y = original()
    found = diagnosed(Net(0.5), RIGHT, values, recorded(X, y, layers), verify_of())

    assert (found.passes, found.repairs, found.at) == (False, (), None)
    assert found.place == "second"
    assert len(found.tried) > 3
    assert all("second" in what or "axes" in what or "permute" in what for what in found.tried)
    assert found.hint == (
        f"second is the first layer that differs; {len(found.tried)} changes of rows and of the module tried, and none "
        "makes the outputs agree; look at what its forward() does around it"
    )


def test_what_is_mended_in_part_does_not_pass(verify_of: VerifyOf) -> None:
    values, layers, y = original()
    found = diagnosed(
        Net(0.5), [row("first", axes="a b -> a b"), *RIGHT[1:]], values, recorded(X, y, layers), verify_of()
    )

    assert (found.passes, found.at, found.place) == (False, None, "first")
    assert [repair.rules[0].target for repair in found.repairs] == ["first.weight"]
    assert found.hint == (
        f"first is the first layer that differs; {len(found.tried)} changes of rows and of the module tried, and none "
        "makes the outputs agree; look at what its forward() does around it"
    )


def test_a_name_of_verifys_that_is_not_recorded_is_noted(verify_of: VerifyOf) -> None:
    values, layers, y = original()
    net, verify = Net(0.5), verify_of(layers=r"""{first: 'hidden:0', second: "other\x1b:0"}""")
    plan, memory = filled(net, RIGHT, values)
    notes: list[Problem] = []
    diagnose(net, plan, memory, recorded(X, y, layers), verify, note=notes.append)

    (note,) = notes
    assert (note.code, note.severity, note.at) == ("T2T503", "note", verify.at)
    assert note.message == r"the recording does not have what layers name: hidden:0, other\x1b:0"
    assert note.hint == f"run t2t record {verify.at.path}"


def test_nothing_to_try_is_told(verify_of: VerifyOf) -> None:
    """One number is what it is."""

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.only = nn.Linear(1, 1, bias=False)

        def forward(self, x: torch.Tensor) -> Any:
            return self.only(x)

    x = drawn(0, 5, 1)
    values = {"kernel": np.ones((1, 1), np.float32)}
    made = recorded(x, 3 * x, [layer("MatMul", "kernel", x, 3 * x)])
    found = diagnosed(One(), ["{tf: kernel, torch: only.weight, axes: i o -> o i}"], values, made, verify_of())

    assert (found.passes, found.tried) == (False, ())
    assert found.hint == (
        "only is the first layer that differs; no known change of its rows or of the module fits; look at what its "
        "forward() does around it"
    )


class Broken(nn.Linear):
    """A layer with an attribute that cannot be set."""

    @property
    def eps(self) -> float:
        return 1e-5


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@pytest.mark.parametrize("kind", ["scripted", "read-only"])
def test_a_module_that_takes_no_hooks_and_no_attribute_is_passed_over(kind: str, verify_of: VerifyOf) -> None:
    """What cannot be looked at or changed stands in nobody's way."""
    values, layers, y = original()
    net = Net(0.5)
    net.second = torch.jit.script(nn.Linear(4, 4)) if kind == "scripted" else Broken(4, 4)  # type: ignore[assignment]
    plan, memory = filled(net, RIGHT, values)
    found = diagnose(net, plan, memory, recorded(X, y, layers), verify_of())

    assert found.passes is False
    assert [call.module for call in found.trace.calls] == (["first"] if kind == "scripted" else ["first", "second"])


def test_a_change_that_is_not_needed_in_the_end_is_left_out(verify_of: VerifyOf) -> None:
    """Kept on the way, it led farther; without it the outputs agree, too."""
    values, layers, y = original()
    rows = [row("first", axes="i o -> i o"), *RIGHT[1:]]
    net, verify = Net(), verify_of()
    plan, memory = filled(net, rows, values)
    made = recorded(X, y, layers)
    with contextlib.ExitStack() as undo:
        search = _Search(net, plan, memory, made, verify, Pairs(net, plan, made, verify), lambda *_: None, undo)
        assert search.run(search.pairs.trace(only_first=True))
        (needed,) = search.kept
        search.kept.insert(0, _Change(Repair("nothing"), contextlib.nullcontext))

    assert search.prune()
    assert search.kept == [needed]
    search.kept.clear()
    assert not search.prune()


def test_a_checkpoint_that_cannot_be_read_is_no_change_that_failed(
    verify_of: VerifyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, layers, y = original()
    net = Net()
    plan, memory = filled(net, [row("first", axes="i o -> i o"), *RIGHT[1:]], values)
    gone = CheckpointError(Problem("T2T602", "gone"))
    monkeypatch.setattr(memory, "view", lambda *_: (_ for _ in ()).throw(gone))
    monkeypatch.setattr(memory, "read", lambda *_: (_ for _ in ()).throw(gone))

    with pytest.raises(CheckpointError, match="gone"):
        diagnose(net, plan, memory, recorded(X, y, layers), verify_of())


def test_without_layers_all_rows_are_tried(verify_of: VerifyOf) -> None:
    """As an old recording is."""
    values, layers, y = original()
    rows = [*RIGHT[:2], row("second", axes="a b -> a b"), bias("second")]
    whole = recorded(X, y, layers)
    found = diagnosed(Net(), rows, values, replace(whole, inside=Inside()), verify_of())

    assert (found.place, found.trace.calls, found.passes) == ("second", (), True)
    assert found.repairs[0].rules[0].target == "second.weight"
    assert found.at.line == 7  # type: ignore[union-attr]
    assert found.hint == f"what passes is {said(found)[0]}"
    with_layers = diagnosed(Net(), rows, values, whole, verify_of())
    assert len(found.tried) > len(with_layers.tried)
    assert (found.is_recorded, with_layers.is_recorded) == (False, True)


class Branches(nn.Module):
    """`first` for what is positive, else `second`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        return self.first(x) if x.sum() > 0 else self.second(x)


@pytest.mark.parametrize(
    "wrong", [[row("second", axes="a b -> a b"), bias("second")], [row("second"), bias("second")[:-1] + ", scale: 2}"]]
)
def test_a_mistake_that_draw_0_does_not_show_is_looked_for_everywhere(
    verify_of: VerifyOf, wrong: Sequence[str]
) -> None:
    """All that is recorded agrees: what differs is in another draw, and there alone it is seen what passes."""
    values, _, _ = original()
    x = np.abs(X)
    one, y = dense("first", x, values["first/kernel"], values["first/bias"])
    _, other = dense("second", -x, values["second/kernel"], values["second/bias"])
    made = replace(recorded(x, y, one), draws=(Draw({"x": x}, {"y": y}), Draw({"x": -x}, {"y": other})))
    found = diagnosed(Branches(), [*RIGHT[:2], *wrong], values, made, verify_of(draws="2"))

    assert found.trace.first is None
    assert len(found.trace.calls) == 1
    assert (found.place, found.passes) == ("", True)
    assert [rule.target for repair in found.repairs for rule in repair.rules] == [
        "second.bias" if "scale" in wrong[1] else "second.weight"
    ]


def test_a_repair_has_to_hold_in_every_draw(verify_of: VerifyOf) -> None:
    """What passes is what gives all outputs: in draw 0 both square layers get nothing."""
    values, _, _ = original()
    nothing = np.zeros((5, 4), np.float32)
    layers, y = dense("first", nothing, values["first/kernel"], values["first/bias"])
    more, y = dense("second", np.maximum(y, 0), values["second/kernel"], values["second/bias"])
    _, _, other = original()
    draws = (Draw({"x": nothing}, {"y": y}), Draw({"x": X}, {"y": other}))
    rows = [row("first", axes="a b -> a b"), *RIGHT[1:]]
    made = replace(recorded(nothing, y, [*layers, *more]), draws=draws)
    found = diagnosed(Net(), rows, values, made, verify_of(draws="2"))

    assert (found.trace.first, found.passes) == (None, True)
    assert found.repairs[0].rules[0].target == "first.weight"


# --- the twin ---


class Normed(nn.Module):
    def __init__(self, eps: float) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(4, 4), nn.LayerNorm(4, eps=eps), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        return self.second(self.norm(self.first(x)))


NORM = ["{tf: norm/gamma, torch: norm.weight}", "{tf: norm/beta, torch: norm.bias}"]


def normed() -> tuple[dict[str, Array], Recording]:
    """A normalization as Keras has it, with an epsilon of 1e-3."""
    values, layers, _ = original()
    values |= {"norm/gamma": drawn(20, 4), "norm/beta": drawn(21, 4)}
    hidden = X @ values["first/kernel"] + values["first/bias"]
    normal = (hidden - hidden.mean(-1, keepdims=True)) / np.sqrt(hidden.var(-1, keepdims=True) + 1e-3)
    made = normal * values["norm/gamma"] + values["norm/beta"]
    norm = layer("norm/add", ["norm/gamma", "norm/beta"], hidden, made)
    more, y = dense("second", made, values["second/kernel"], values["second/bias"])
    return values, recorded(X, y, [*layers[:2], norm, *more])


def test_another_epsilon_is_the_twins_fault(verify_of: VerifyOf) -> None:
    values, made = normed()
    found = diagnosed(Normed(1e-5), [*RIGHT, *NORM], values, made, verify_of())

    assert (found.place, found.passes, found.at) == ("norm", True, None)
    assert said(found) == ["norm (LayerNorm) with eps=0.001 for 1e-05"]
    assert (found.repairs[0].rules, found.lines, found.replaces) == ((), (), ())
    assert found.hint == (
        "norm is the first layer that differs; what passes is norm (LayerNorm) with eps=0.001 for 1e-05"
    )


def test_a_row_and_the_twin_are_mended_together(verify_of: VerifyOf) -> None:
    values, made = normed()
    rows = [*RIGHT[:2], row("second", axes="a b -> a b"), bias("second"), *NORM]
    found = diagnosed(Normed(1e-5), rows, values, made, verify_of())

    assert (found.place, found.passes, len(found.repairs)) == ("norm", True, 2)
    assert found.repairs[0].what == "norm (LayerNorm) with eps=0.001 for 1e-05"
    assert found.repairs[1].rules[0].target == "second.weight"
    assert found.at.line == 7  # type: ignore[union-attr]


class Images(nn.Module):
    """Convolutions of stride 2, padded the same on both sides."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(2, 2, 3, stride=2, padding=1) for _ in range(count))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv in self.convs:
            x = torch.relu(conv(x))
        return x


@pytest.mark.parametrize("count", [1, 2, 3])
def test_symmetric_padding_for_tensorflows_same_is_the_twins_fault(verify_of: VerifyOf, count: int) -> None:
    """In each of the convolutions: TensorFlow pads on the right and at the bottom where the size is even."""
    x = y = drawn(0, 2, 16, 16, 2)
    values, layers, rows = {}, [], []
    for n in range(count):
        kernel, own = values[f"{n}/kernel"], values[f"{n}/bias"] = drawn(n + 1, 3, 3, 2, 2), drawn(n + 5, 2)
        padded = np.pad(y, ((0, 0), (0, 1), (0, 1), (0, 0)))
        made = convolved(padded, kernel, own, stride=2)
        layers.append(layer(f"conv{n}/Conv2D", [f"{n}/kernel", f"{n}/bias"], y, made))
        rows.append(f"{{tf: {n}/kernel, torch: convs.{n}.weight, axes: h w i o -> o i h w}}")
        rows.append(f"{{tf: {n}/bias, torch: convs.{n}.bias}}")
        y = np.maximum(made, 0)
    verify = verify_of(torch="{axes: {x: n h w c -> n c h w}, outputs: {y: {axes: n h w c -> n c h w}}}")
    found = diagnosed(Images(count), rows, values, recorded(x, y, layers), verify)

    assert (found.place, found.passes) == ("convs.0", True)
    assert said(found) == [
        f"convs.{n} (Conv2d) with TensorFlow's padding SAME: t2t.nn.{twins.Conv2dSame.__name__}" for n in range(count)
    ]


# --- the gallery ---

FLATTEN = ("axes: (h w c) o -> o (c h w), dims: {h: 7, w: 7}", "permute: [1, 0]")


def verified(folder: Path, name: str, checkpoint: str, *mistakes: tuple[str, str]) -> Comparison:
    """What becomes of a gallery's mapping with these texts replaced."""
    options = {"checkpoint": data(*checkpoint.split("/"))} if checkpoint else {}
    text = (MAPPINGS / f"{name}.yaml").read_text(encoding="utf-8")
    for right, wrong in mistakes:
        assert text.count(right) == 1, right
        text = text.replace(right, wrong)
    (folder / "checkpoints").symlink_to(MAPPINGS / "checkpoints")
    (folder / "wrong.yaml").write_text(text, encoding="utf-8")
    return t2t.verify(folder / "wrong.yaml", recording=RECORDINGS / f"{name}.npz", **options)  # type: ignore[arg-type]


def test_the_plain_transpose_behind_a_flatten_is_told_with_the_row_to_paste(tmp_path: Path) -> None:
    comparison = verified(tmp_path, "madry", "", FLATTEN)
    found = comparison.diagnosis
    assert found is not None

    right = "{tf: Variable_4, torch: fc1.weight, axes: (h w c) o -> o (c h w), dims: {h: 7, w: 7}}"
    assert (found.place, found.passes, said(found)) == ("fc1", True, [right])
    assert f"- {right}" in (MAPPINGS / "madry.yaml").read_text()
    (problem,) = comparison.problems()
    assert str(problem.at) == f"{tmp_path}/wrong.yaml:11:3"
    assert problem.hint == f"fc1 is the first layer that differs; what passes is {right}"


LSTM = '- {tf: "lstm<_2s+r>/lstm_cell<_2s+r>", torch: "sep<s+1>.rnn<r+1>", use: lstm, with: {suffix: l0}}\n'
GATES = "dims: {g: 4}, order: {g: abcd -> acbd}"
WRONG_GATES = "".join(
    f'- {{tf: "lstm<_2s+r>/lstm_cell<_2s+r>/{variable}", torch: "sep<s+1>.rnn<r+1>.{parameter}_l0", {axes}, {GATES}}}\n'
    for variable, parameter, axes in (
        ("kernel", "weight_ih", "axes: i (g u) -> (g u) i"),
        ("recurrent_kernel", "weight_hh", "axes: i (g u) -> (g u) i"),
        ("bias", "bias_ih", "axes: (g u) -> (g u)"),
    )
)
WRONG_GATES += '- {torch: "sep<s+1>.rnn<r+1>.bias_hh_l0", fill: 0}\n'

NORM_ROW = "- {tf: batch_normalization, torch: norm, use: batch_norm}\n"
WRONG_NORM = """\
- {tf: batch_normalization/gamma, torch: norm.bias}
- {tf: batch_normalization/beta, torch: norm.weight}
- {tf: batch_normalization/moving_mean, torch: norm.running_mean}
- {tf: batch_normalization/moving_variance, torch: norm.running_var}
- {torch: norm.num_batches_tracked, fill: 0}
"""

KERNELS = '- {tf: "model/transformer/layer_<i>/rel_attn/<p>/kernel", torch: transformer.layer.<i>.rel_attn.<p>, '
QUERIES = KERNELS.replace("/<p>/", "/q/").replace("rel_attn.<p>", "rel_attn.k") + "axes: d h k -> d h k}\n"
KEYS = KERNELS.replace("/<p>/", "/k/").replace("rel_attn.<p>", "rel_attn.q") + "axes: d h k -> d h k}\n"

RECIPE = "  - {tf: g, torch: weight}\n  - {tf: b, torch: bias}\n"
WRONG_RECIPE = "  - {tf: b, torch: weight}\n  - {tf: g, torch: bias}\n"

GALLERY = {
    "gates of recurrent layers": (
        "dtln_saved_model",
        "dtln/breizhn+DTLN/DTLN_norm_40h_saved_model",
        [(LSTM, WRONG_GATES)],
        "sep1.rnn1",
        14,
    ),
    "gamma and beta": (
        "kws",
        "mlperf-tiny/mlcommons+tiny/keyword_spotting/trained_models/kws_ref_model",
        [(NORM_ROW, WRONG_NORM)],
        "norm",
        12,
    ),
    "neighbours": (
        "toy_xlnet_pre",
        "toy-transformers/CyberZHG+keras-xlnet/test_checkpoint_pre/xlnet_model.ckpt",
        [(KERNELS, QUERIES + KEYS + KERNELS), ("p: [q, k, v, o, r]", "p: [v, o, r]")],
        "transformer.layer.0.rel_attn",
        10,
    ),
    "height and width": (
        "fsrcnn_x2",
        "fsrcnn/Saafke+FSRCNN_Tensorflow/CKPT_dir/x2/fsrcnn_ckpt",
        [("axes: h w i o -> o i h w", "axes: h w i o -> o i w h")],
        "layers.conv1",
        11,
    ),
    "a recipe of the file's own": (
        "toy_gpt2",
        "toy-transformers/CyberZHG+keras-gpt-2/toy_checkpoint/model.ckpt",
        [(RECIPE, WRONG_RECIPE)],
        "transformer.h.0.ln_1",
        15,  # the recipe's own row
    ),
    "two at once": (
        "madry",
        "",
        [FLATTEN, ("torch: conv2.weight, permute: [3, 2, 0, 1]", "torch: conv2.weight, permute: [3, 2, 1, 0]")],
        "conv2",
        9,
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", GALLERY)
def test_a_mistake_of_each_family_is_found_in_the_gallerys_mappings(tmp_path: Path, mistake: str) -> None:
    """And what passes, pasted in place of the rows that it names, is proven."""
    name, checkpoint, replaced, place, line = GALLERY[mistake]
    comparison = verified(tmp_path, name, checkpoint, *replaced)
    found = comparison.diagnosis
    assert found is not None

    assert (found.place, found.passes) == (place, True)
    assert {problem.at.line for problem in comparison.problems() if problem.at} == {line}
