"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Hundreds of processes import t2t: compiled once is enough.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

#: Real checkpoints that are not part of the repository, beside it.
SHARED_DATA = Path(__file__).resolve().parents[1] / "../shared/data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip("the real checkpoints (../shared/data) are not here")
    return SHARED_DATA.resolve()
