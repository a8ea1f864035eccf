"""What may be otherwise in a twin: each change is what torch, or TensorFlow, makes of it; and it is undone."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from t2t import nn as layers
from t2t.proof import twins
from t2t.proof.twins import EPSILONS, SAME, TwinChange


class Placed:
    """A module at `inner.part` of a larger one; `changes` by what follows its path."""

    def __init__(self, module: nn.Module) -> None:
        self.root = nn.ModuleDict({"inner": nn.ModuleDict({"part": module})})
        found = twins.changes(self.root, "inner.part")
        self.changes = {change.what.removeprefix("inner.part "): change for change in found}

    @property
    def now(self) -> nn.Module:
        """What stands there."""
        return self.root.get_submodule("inner.part")


def changes(module: nn.Module) -> dict[str, TwinChange]:
    """What may be otherwise in a module."""
    return Placed(module).changes


# --- attributes ---


@pytest.mark.parametrize(
    ("module", "shape", "right"),
    [
        (nn.LayerNorm(6), (2, 6), lambda m, x, eps: functional.layer_norm(x, (6,), m.weight, m.bias, eps)),
        (nn.GroupNorm(2, 6), (2, 6, 4), lambda m, x, eps: functional.group_norm(x, 2, m.weight, m.bias, eps)),
        (
            nn.BatchNorm2d(6).eval(),
            (2, 6, 4, 3),
            lambda m, x, eps: functional.batch_norm(x, m.running_mean, m.running_var, m.weight, m.bias, eps=eps),
        ),
        (
            layers.BatchNorm2d(6).eval(),
            (2, 6, 4, 3),
            lambda m, x, eps: functional.batch_norm(x, m.running_mean, m.running_var, m.weight, m.bias, eps=eps),
        ),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, nn.Module) else "",
)
def test_an_epsilon_is_another_one_inside_and_its_own_afterwards(module: Any, shape: Any, right: Any) -> None:
    x, own, kind = torch.randn(shape) / 100, module.eps, type(module).__name__
    found = changes(module)

    assert list(found) == [f"({kind}) with eps={eps:g} for {own:g}" for eps in EPSILONS if eps != own]
    for eps in EPSILONS:
        if eps == own:
            continue
        with found[f"({kind}) with eps={eps:g} for {own:g}"].made():
            torch.testing.assert_close(module(x), right(module, x, eps))
            assert (module(x) - right(module, x, own)).abs().max() > 0
        torch.testing.assert_close(module(x), right(module, x, own))
        assert module.eps == own


def test_a_gelu_is_the_other_one() -> None:
    x = torch.linspace(-3, 3, 50)
    exact, by_tanh = nn.GELU(), nn.GELU(approximate="tanh")
    for module, other, what in (
        (exact, by_tanh, "(GELU) with approximate='tanh' for 'none'"),
        (by_tanh, exact, "(GELU) with approximate='none' for 'tanh'"),
    ):
        mine, theirs = module(x), other(x)
        ((said, change),) = changes(module).items()
        assert said == what
        with change.made():
            assert torch.equal(module(x), theirs)
        assert torch.equal(module(x), mine)
        assert not torch.equal(mine, theirs)


def test_a_leaky_relu_has_the_slopes_of_the_other_libraries() -> None:
    x, module = torch.linspace(-3, 3, 50), nn.LeakyReLU(0.3)
    found = changes(module)

    assert list(found) == [f"(LeakyReLU) with negative_slope={slope} for 0.3" for slope in (0.2, 0.01)]
    for slope, change in zip((0.2, 0.01), found.values(), strict=True):
        with change.made():
            assert torch.equal(module(x), functional.leaky_relu(x, slope))
        assert torch.equal(module(x), functional.leaky_relu(x, 0.3))


# --- paddings ---

CONVOLUTIONS = [
    (nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 9)),
    (nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, bias=False), (2, 4, 9, 8)),
    (nn.Conv2d(4, 6, 3, padding=2, dilation=2), (2, 4, 9, 8)),
    (nn.Conv3d(4, 6, 3, stride=2, padding=1), (2, 4, 5, 6, 7)),
    (nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 9)),
    (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1), (2, 4, 9, 8)),
    (nn.ConvTranspose3d(4, 6, 3, stride=2, padding=1), (2, 4, 4, 3, 5)),
]
POOLS = [
    (nn.MaxPool1d(3, 2, padding=1), (2, 4, 9)),
    (nn.MaxPool2d(3, 2, padding=1), (2, 4, 9, 8)),
    (nn.MaxPool2d(2, 2), (2, 4, 9, 8)),
    (nn.AvgPool1d(3, 2, padding=1), (2, 4, 9)),
    (nn.AvgPool2d(3, 2, padding=1), (2, 4, 9, 8)),
]


def named(given: Any) -> str:
    return type(given).__name__ if isinstance(given, nn.Module) else ""


def test_every_kind_with_a_padding_is_tried_here() -> None:
    assert {type(module) for module, _ in (*CONVOLUTIONS, *POOLS)} == SAME.keys()


@pytest.mark.parametrize(("module", "shape"), CONVOLUTIONS, ids=named)
def test_a_convolution_pads_as_tensorflows_same_over_the_same_parameters(module: Any, shape: Any) -> None:
    x, kind = torch.randn(shape), type(module).__name__
    mine = module(x)
    placed = Placed(module)
    change = placed.changes[f"({kind}) with TensorFlow's padding SAME: t2t.nn.{kind}Same"]
    own = getattr(layers, f"{kind}Same")
    options = {"dilation": module.dilation, "groups": module.groups, "bias": module.bias is not None}
    right = own(4, 6, module.kernel_size, module.stride, **options)
    right.load_state_dict(module.state_dict())
    with change.made():
        other = placed.now
        assert type(other) is own
        assert (other.weight is module.weight, other.bias is module.bias) == (True, True)
        assert torch.equal(other(x), right(x))
        assert other.training is placed.root.training
    assert placed.now is module
    assert torch.equal(module(x), mine)


@pytest.mark.parametrize(("module", "shape"), POOLS, ids=named)
def test_a_pool_pads_as_tensorflows_same(module: Any, shape: Any) -> None:
    x, kind = torch.randn(shape), type(module).__name__
    placed = Placed(module)
    change = placed.changes[f"({kind}) with TensorFlow's padding SAME: t2t.nn.{kind}Same"]
    right = getattr(layers, f"{kind}Same")(module.kernel_size, module.stride)
    with change.made():
        assert type(placed.now) is type(right)
        assert torch.equal(placed.now(x), right(x))
    assert placed.now is module


def test_same_is_what_tensorflow_computes() -> None:
    tf = pytest.importorskip("tensorflow")
    module = nn.Conv2d(3, 4, 3, stride=2, padding=1)
    x = torch.randn(2, 3, 8, 11)
    placed = Placed(module)
    change = placed.changes["(Conv2d) with TensorFlow's padding SAME: t2t.nn.Conv2dSame"]
    with torch.no_grad(), change.made():
        made = placed.now(x)
        mine = module(x)
    kernel = module.weight.detach().permute(2, 3, 1, 0).numpy()
    theirs = tf.nn.conv2d(x.permute(0, 2, 3, 1).numpy(), kernel, 2, "SAME").numpy() + module.bias.detach().numpy()  # type: ignore[union-attr]

    np.testing.assert_allclose(made.permute(0, 2, 3, 1).numpy(), theirs, atol=1e-5)
    assert mine.shape == made.shape
    assert (mine - made).abs().max() > 0.1


@pytest.mark.parametrize(
    ("module", "none", "shape"),
    [
        (nn.Conv2d(4, 6, 3, padding=1), "(1, 1)", (2, 4, 9, 8)),
        (nn.Conv1d(4, 6, 3, padding=(1,)), "(1,)", (2, 4, 9)),
        (nn.MaxPool2d(3, 2, padding=1), "1", (2, 4, 9, 8)),
    ],
    ids=named,
)
def test_a_padding_is_left_out(module: Any, none: str, shape: Any) -> None:
    x, kind = torch.randn(shape), type(module).__name__
    mine, bare = module(x), copy.deepcopy(module)
    bare.padding = 0 if none == "1" else (0,) * len(module.padding)
    change = changes(module)[f"({kind}) with padding=0 for {none}"]
    with change.made():
        assert torch.equal(module(x), bare(x))
        assert module(x).shape != mine.shape
    assert torch.equal(module(x), mine)


def test_what_has_no_padding_or_torchs_same_is_not_tried_without() -> None:
    for module in (nn.Conv2d(3, 3, 3), nn.MaxPool2d(2), nn.Conv1d(3, 3, 3, padding="same"), nn.AvgPool2d(3, padding=0)):
        assert [what.partition(": ")[0] for what in changes(module)] == [
            f"({type(module).__name__}) with TensorFlow's padding SAME"
        ]


# --- what is no change ---


@pytest.mark.parametrize(
    "module", [nn.Linear(3, 3), nn.ReLU(), nn.RMSNorm(3), layers.Conv2dSame(3, 3, 3), nn.LSTM(3, 3)]
)
def test_what_has_none_of_it_has_no_change(module: nn.Module) -> None:
    """RMSNorm's eps is None, torch's own for the dtype, unless it is given."""
    assert changes(module) == {}


def test_a_subclass_is_not_replaced_by_what_it_is_not() -> None:
    class Own(nn.Conv2d):
        pass

    assert changes(Own(3, 3, 3, padding=1)) == {}


@pytest.mark.parametrize(
    "module", [nn.LayerNorm(4), nn.GELU(), nn.Conv2d(3, 3, 3, padding=1), nn.MaxPool2d(3, padding=1)]
)
def test_a_change_is_undone_where_the_run_fails(module: nn.Module) -> None:
    before = dict(vars(module))
    placed = Placed(module)
    for change in placed.changes.values():
        with pytest.raises(ZeroDivisionError), change.made():
            raise ZeroDivisionError
        assert placed.now is module
    assert vars(module) == before


def test_names_are_shown() -> None:
    root = nn.ModuleDict({"a\x1b[31m": nn.GELU()})

    assert [change.what for change in twins.changes(root, "a\x1b[31m")] == [
        r"a\x1b[31m (GELU) with approximate='tanh' for 'none'"
    ]
