"""What the tests of the readers may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def x(tmp_path: Path) -> Path:
    """The prefix of a bundle that a test writes."""
    return tmp_path / "x"
