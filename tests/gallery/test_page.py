"""docs/gallery.md: every mapping stands on it, with the lines that it has; and the lines are few."""

from __future__ import annotations

import re

import pytest

from tests.gallery.shared import MAPPINGS, ROOT, lines

ROWS = dict(
    re.findall(r"^\| \[\w+\]\(\.\./mappings/(\w+)\.yaml\) \| (\d+) \|", (ROOT / "docs/gallery.md").read_text(), re.M)
)

#: The most lines that a mapping of this kind of model may need, if the language is worth anything.
LIMITS = {
    "madry": 20,
    "bert_base": 32,
    "bert_large": 32,
    "mobilenet_v1": 35,
    "dtln": 30,
    "dtln_saved_model": 30,
    "t5_small": 25,
    "resnet50_slim": 25,
    "resnet50_official": 20,
    "efficientnet_b0": 35,
    "inception_v3": 35,
}


def test_every_mapping_is_on_the_page_with_the_lines_that_it_has() -> None:
    assert {name: int(count) for name, count in ROWS.items()} == {
        path.stem: lines(path) for path in MAPPINGS.glob("*.yaml")
    }


@pytest.mark.parametrize("name", LIMITS)
def test_a_mapping_is_as_short_as_a_reviewer_may_expect(name: str) -> None:
    assert lines(MAPPINGS / f"{name}.yaml") <= LIMITS[name]
