"""The benchmark of mistakes makes those that it says, each of which fits and changes values; and counts fairly."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from benchmarks.mistaken_rules import Mistake, mistakes
from benchmarks.mistakes import are_as_good, is_place
from t2t import execute
from t2t import mapping as mapping_file
from t2t import module as modules
from t2t import plan as planning
from tests import given
from tests.gallery.shared import MAPPINGS
from tests.given import Array, Memory


def checkpoint(**shapes: tuple[int, ...]) -> Memory:
    """Variables in which no number stands twice; `__` stands for /."""
    start = itertools.count(1, 100_000)
    return Memory({
        name.replace("__", "/"): np.arange(n := next(start), n + np.prod(shape, dtype=int), dtype=np.float32)
        .reshape(shape) for name, shape in shapes.items()
    })  # fmt: skip


def made(
    module: nn.Module, memory: Memory, rows: Sequence[str], more: str = ""
) -> tuple[dict[str, Mistake], dict[str, dict[str, Array]]]:
    """Every mistake in these rows by its words, and the values that it changes, if it fits."""
    inventory = modules.inventory(module)
    plan = given.planned("".join(f"- {row}\n" for row in rows), memory, inventory, more)
    right = dict(execute.tensors(plan, memory, {}))
    found = {mistake.what: mistake for mistake in mistakes(module, plan)}
    changed = {}
    for what, mistake in found.items():
        wrong = {id(rule): instead for rule, instead in mistake.rules}
        mapping = replace(plan.mapping, rules=tuple(wrong.get(id(rule), rule) for rule in plan.mapping.rules))
        other, problems = planning.make(mapping, memory.inventory, inventory)
        if not problems:
            values = dict(execute.tensors(other, memory, {}))
            changed[what] = {name: values[name] for name in values if values[name].tobytes() != right[name].tobytes()}
            assert changed[what].keys() <= set(mistake.targets)
    return found, changed


class Small(nn.Module):
    """One of each layer that a kind of mistake is about."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 2, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm1d(3, track_running_stats=True) for _ in range(2))
        self.cell = nn.LSTM(2, 3)
        self.dense = nn.Linear(8, 4, bias=False)
        self.square = nn.Linear(2, 2, bias=False)
        self.joined = nn.Linear(3, 3, bias=False)


SHAPES = {"conv__kernel": (2, 2, 2, 3), "dense__kernel": (8, 4), "square__kernel": (2, 2), "lstm__bias": (12,)}
SHAPES |= {f"join__{i}": (3,) for i in range(3)} | {"lstm__kernel": (2, 12), "lstm__recurrent_kernel": (3, 12)}
SHAPES |= {f"bn{i}__{leaf}": (3,) for i in range(2) for leaf in ("gamma", "beta", "moving_mean", "moving_variance")}

ROWS = (
    "{tf: conv, torch: conv, use: conv2d}",
    '{tf: "bn<n>", torch: norms.<n>, use: batch_norm}',
    "{tf: lstm, torch: cell, use: lstm, with: {suffix: l0}}",
    "{tf: dense/kernel, torch: dense.weight, axes: (h w c) o -> o (c h w), dims: {h: 2, w: 2}}",
    "{tf: square/kernel, torch: square.weight, axes: i o -> o i, flip: [i], scale: 2}",
    "{tf: [join/0, join/1, join/2], torch: joined.weight, join: j, axes: j d -> j d}",
)


def expected(arrays: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """What numpy makes of the variables, a mistake of each kind."""
    conv, dense, square = (arrays[f"{name}/kernel"] for name in ("conv", "dense", "square"))
    kernel, recurrent, bias = (arrays[f"lstm/{name}"] for name in ("kernel", "recurrent_kernel", "bias"))

    def cell(array: Array) -> Array:
        """Gates that are i f c o, taken for TF1's i c f o."""
        gates = np.split(array, 4, axis=-1)
        return np.concatenate([gates[0], gates[2], gates[1], gates[3]], axis=-1)

    forgetting = bias.copy()
    forgetting[3:6] += 1
    return {
        "conv.weight: axes h w i o -> o i w h": {"conv.weight": conv.transpose(3, 2, 1, 0)},
        "conv.weight: flip h w": {"conv.weight": conv.transpose(3, 2, 0, 1)[:, :, ::-1, ::-1]},
        "dense.weight: axes (h w c) o -> o (h w c)": {"dense.weight": dense.T},
        "square.weight: axes i o -> i o": {"square.weight": 2 * square[::-1]},
        "square.weight: without flip": {"square.weight": 2 * square.T},
        "square.weight: without scale": {"square.weight": square[::-1].T},
        "joined.weight: joined in the order [2, 1, 0]": {
            "joined.weight": np.stack([arrays[f"join/{i}"] for i in (2, 1, 0)])
        },
        "norms.0.weight and norms.0.bias exchanged": {
            "norms.0.weight": arrays["bn0/beta"],
            "norms.0.bias": arrays["bn0/gamma"],
        },
        "norms.1.bias and norms.1.running_mean exchanged": {
            "norms.1.bias": arrays["bn1/moving_mean"],
            "norms.1.running_mean": arrays["bn1/beta"],
        },
        "running_mean and running_var exchanged in all 2 like norms.0.running_mean": {
            f"norms.{i}.{leaf}": arrays[f"bn{i}/{name}"]
            for i in range(2)
            for leaf, name in (("running_mean", "moving_variance"), ("running_var", "moving_mean"))
        },
        "norms.0.bias and norms.1.bias exchanged": {
            "norms.0.bias": arrays["bn1/beta"],
            "norms.1.bias": arrays["bn0/beta"],
        },
        "cell.weight_hh_l0: gates icfo -> ifco": {"cell.weight_hh_l0": cell(recurrent).T},
        "cell, _l0: gates icfo -> ifco": {
            "cell.weight_ih_l0": cell(kernel).T,
            "cell.weight_hh_l0": cell(recurrent).T,
            "cell.bias_ih_l0": cell(bias),
        },
        "cell.bias_ih_l0: a forget bias added": {"cell.bias_ih_l0": forgetting},
    }


def test_each_kind_of_mistake_is_what_its_words_say() -> None:
    memory = checkpoint(**SHAPES)
    wanted = expected(memory.arrays)

    found, changed = made(Small(), memory, ROWS, "for: {n: 0..1}\n")

    assert {found[what].kind for what in wanted} == {mistake.kind for mistake in found.values()}
    for what, values in wanted.items():
        assert changed[what].keys() == values.keys(), what
        assert all(np.array_equal(changed[what][name], array) for name, array in values.items()), what


def test_layers_are_counted_one_off_or_in_the_order_of_text() -> None:
    memory = checkpoint(**{f"d{i}__kernel": (2, 3) for i in range(11)})
    module = nn.Module()
    module.layers = nn.ModuleList(nn.Linear(2, 3, bias=False) for _ in range(11))

    found, changed = made(module, memory, ['{tf: "d<i>", torch: layers.<i>, use: dense}'], "for: {i: 0..10}\n")

    one_off, as_text = (what for what, mistake in found.items() if mistake.kind == "numbering")
    for what, source in ((one_off, lambda i: (i - 1) % 11), (as_text, [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 2].__getitem__)):
        values = {f"layers.{i}.weight": memory.arrays[f"d{source(i)}/kernel"].T for i in range(11) if source(i) != i}
        assert changed[what].keys() == values.keys()
        assert all(np.array_equal(changed[what][name], array) for name, array in values.items())


def test_gates_and_a_forget_bias_that_the_row_gives_are_taken_away() -> None:
    memory = checkpoint(c__kernel=(5, 12), c__bias=(12,))
    right = memory.arrays["c/bias"].reshape(4, 3)[[0, 2, 1, 3]]
    module = nn.Module()
    module.cell = nn.LSTM(2, 3)

    row = "{tf: c, torch: cell, use: tf1.lstm_cell, with: {suffix: l0, x: 2, forget: 1.0}}"
    _, changed = made(module, memory, [row])

    assert np.array_equal(changed["cell.bias_ih_l0: without add"]["cell.bias_ih_l0"], right.reshape(-1))
    bias = changed["cell, _l0: gates ifco -> ifco"]["cell.bias_ih_l0"].reshape(4, 3)
    assert np.array_equal(bias[[0, 3]], memory.arrays["c/bias"].reshape(4, 3)[[0, 3]])
    assert np.array_equal(bias[2], memory.arrays["c/bias"].reshape(4, 3)[2])


@pytest.mark.parametrize(
    ("place", "is_right"),
    [("a.b", True), ("a.b.c", True), ("a", True), ("a.bb", False), ("a.d", False), ("", False), ("e", True)],
)
def test_a_place_is_right_if_it_owns_a_target_or_lies_above_or_below(place: str, is_right: bool) -> None:
    assert is_place(place, ["a.b.weight", "e.bias"]) is is_right


def test_the_module_itself_owns_what_has_no_other_owner() -> None:
    assert is_place("", ["bias"])


def test_values_within_the_tolerance_and_two_biases_that_are_added_are_as_good() -> None:
    path = MAPPINGS / "madry.yaml"
    read, _ = mapping_file.read(path.read_bytes(), str(path))
    assert read is not None
    assert read.verify is not None
    verify, module = read.verify, nn.Module()
    module.cell = nn.LSTM(1, 1)
    right = {"cell.bias_ih_l0": np.full(4, 3.0, np.float32), "cell.bias_hh_l0": np.full(4, 0.5, np.float32)}

    def good(ih: float, hh: float = 0.0) -> bool:
        changes = zip(right.items(), (ih, hh), strict=True)
        return are_as_good(module, right, {name: array + np.float32(by) for (name, array), by in changes}, verify)

    assert good(0)
    assert good(7e-5)  # 2 x (1e-6 + 1e-5 x 3.5)
    assert not good(8e-5)
    assert good(1, -1)
    assert are_as_good(module, {"a": np.zeros(2)}, {"a": np.full(2, 2.1e-5)}, verify)
    assert not are_as_good(module, {"a": np.zeros(2)}, {"a": np.full(2, 2.3e-5)}, verify)
    assert not good(1, 1)
