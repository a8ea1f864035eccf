"""Convert a gallery's mapping with a checkpoint at hand, rightly and wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest

import t2t
from t2t.api import Conversion
from t2t.problems import MappingError
from tests.gallery.shared import MAPPINGS, RECORDINGS


def proven(name: str, checkpoint: Path, folder: Path) -> Conversion:
    """What converting `mappings/<name>.yaml` did, which the committed recording has proven."""
    done = t2t.convert(MAPPINGS / f"{name}.yaml", folder / f"{name}.safetensors", checkpoint=checkpoint)
    assert done.comparison is not None
    assert done.comparison.proven
    return done


def counts(done: Conversion) -> tuple[int, int, int]:
    """Parameters and buffers, variables that they come from, variables that are ignored."""
    return len(done.plan.steps), len(done.plan.sources), len(done.plan.ignored)


def refuted(name: str, checkpoint: Path, folder: Path, mistake: dict[str, str]) -> None:
    """With these texts of the mapping replaced everything still fits, but the comparison fails: nothing is written."""
    text = (MAPPINGS / f"{name}.yaml").read_text(encoding="utf-8")
    for right, wrong in mistake.items():
        assert text.count(right) == 1, right
        text = text.replace(right, wrong)
    mapping = folder / "wrong.yaml"
    mapping.write_text(text, encoding="utf-8")

    with pytest.raises(MappingError) as raised:
        t2t.convert(mapping, folder / "out.safetensors", checkpoint=checkpoint, recording=RECORDINGS / f"{name}.npz")

    assert {problem.code for problem in raised.value.problems} == {"T2T501"}
    assert not (folder / "out.safetensors").exists()
