"""What the tests of the proof share: a `verify` section of a mapping's text, read as a mapping is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from t2t import mapping
from t2t.verification import Verify

HEAD = """\
t2t: 1
model: a:B
source: {checkpoint: ckpt}
map: [{tf: a, torch: b}]
verify:
"""


@pytest.fixture
def verify_of(tmp_path: Path) -> Callable[..., Verify]:
    """The verify section of `m.yaml`, from its lines by key; the paths in it are relative to tmp_path."""

    def verify_of(**changes: str | None) -> Verify:
        lines = {
            "inputs": "{x: {shape: [2, 3], range: [0, 1]}}",
            "reference": '{graph: g.meta, feed: {x: "x:0"}, fetch: {y: "y:0"}}',
        } | changes
        text = HEAD + "".join(f"  {key}: {value}\n" for key, value in lines.items() if value is not None)
        read, problems = mapping.read(text.encode(), str(tmp_path / "m.yaml"))
        assert problems == []
        assert read is not None
        assert read.verify is not None
        return read.verify

    return verify_of
