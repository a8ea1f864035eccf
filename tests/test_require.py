"""Requirements: attributes of the real module, held against what the mapping says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from t2t.mapping import Require
from t2t.problems import Location
from t2t.require import unmet
from tests.given import lines

FIX = "build it so, or change the requirement"
AT = Location("m.yaml", 7, 3)


class Twin(nn.Module):
    """Two blocks and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Conv2d(1, 1, 3, stride=2, padding=(1, 1)) for _ in range(2))
        self.norm = nn.BatchNorm2d(1, eps=0.001)
        self.act = nn.functional.relu
        self.head = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
        self.scale = torch.ones(2)


def told(pattern: str, **attributes: Any) -> list[str]:
    places = {key: Location("m.yaml", 7, 20) for key in attributes}
    return lines(unmet(Twin(), [Require(pattern, attributes, AT, places)]))


@pytest.mark.parametrize(
    ("pattern", "attributes"),
    [
        ("norm", {"eps": 1e-3, "affine": True}),
        ("blocks.*", {"stride": 2, "padding": [1, 1], "kernel_size": [3, 3], "padding_mode": "zeros"}),
        ("blocks.*", {"class": "torch.nn.Conv2d"}),
        ("head.1", {"class": "torch.nn.modules.activation.ReLU"}),
        ("**", {"training": True}),
        ("head.0", {"bias.requires_grad": True}),
    ],
)
def test_what_is_there_is_no_problem(pattern: str, attributes: dict[str, Any]) -> None:
    assert told(pattern, **attributes) == []


def test_the_module_itself_and_functions_by_name() -> None:
    assert told("**", training=True) == []
    assert lines(unmet(nn.Sequential(nn.ReLU()), [Require("0", {"class": "torch.nn.ReLU"}, AT, {"class": AT})])) == []
    twin = Twin()
    assert unmet(twin, [Require("head", {"1": "ReLU"}, AT, {"1": AT})]) == []


@pytest.mark.parametrize(
    ("pattern", "attributes", "problems"),
    [
        (
            "norm",
            {"eps": 1e-5},
            ["7:20: T2T505 norm.eps is 0.001, but require says 1e-05; build it so, or change the requirement"],
        ),
        (
            "blocks.*",
            {"stride": 1},
            [
                f"7:20: T2T505 blocks.{i}.stride is (2, 2), but require says 1; build it so, or change the requirement"
                for i in range(2)
            ],
        ),
        (
            "norm",
            {"affine": 1},
            ["7:20: T2T505 norm.affine is True, but require says 1; build it so, or change the requirement"],
        ),
        ("norm", {"epz": 1}, ["7:20: T2T505 norm (BatchNorm2d) has no attribute epz; did you mean eps"]),
        ("nrom", {"eps": 1}, ["7:3: T2T208 require pattern nrom matches no module; did you mean norm"]),
        (
            "norm",
            {"class": "torch.nn.BatchNorm1d"},
            [
                "7:20: T2T505 norm is a torch.nn.modules.batchnorm.BatchNorm2d, but require says torch.nn.BatchNorm1d; "
                "build it so, or change the requirement"
            ],
        ),
    ],
)
def test_what_differs_is_told_with_both_sides(pattern: str, attributes: dict[str, Any], problems: list[str]) -> None:
    assert told(pattern, **attributes) == problems


def test_a_class_that_nothing_imported_is_not_imported(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "canary.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)

    assert told("norm", **{"class": "canary.Norm"})[0].startswith("7:20: T2T505 norm is a torch")
