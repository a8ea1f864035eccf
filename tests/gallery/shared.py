"""What the tests of the gallery's mappings share: real checkpoints, committed recordings, how long a mapping is."""

from __future__ import annotations

from pathlib import Path

import pytest

from t2t import mapping as mapping_file
from t2t.proof import recording
from t2t.proof.recording import Recording
from tests.conftest import SHARED_DATA

ROOT = Path(__file__).resolve().parents[2]
MAPPINGS = ROOT / "mappings"
RECORDINGS = MAPPINGS / "recordings"


def data(*parts: str) -> Path:
    """A file, folder or prefix of the real checkpoints beside the repository; skips the test where they are not."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real checkpoints (../shared/data) are not here")
    path = SHARED_DATA.resolve().joinpath(*parts)
    if not path.exists() and not any(path.parent.glob(f"{path.name}*")):
        pytest.skip(f"{'/'.join(parts)} is not among the real checkpoints (../shared/data)")
    return path


def lines(mapping: Path) -> int:
    """How many lines of a mapping a reviewer reads: those that are neither blank nor a comment."""
    stripped = (line.strip() for line in mapping.read_text(encoding="utf-8").splitlines())
    return sum(1 for line in stripped if line and not line.startswith("#"))


def recorded(mapping: Path) -> Recording:
    """The committed recording of a mapping, its inputs made again."""
    read, problems = mapping_file.read(mapping.read_bytes(), str(mapping))
    assert read is not None, problems
    assert read.verify is not None
    return recording.load(read.verify.recording, read.verify)
