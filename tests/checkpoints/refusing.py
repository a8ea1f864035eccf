"""What a checkpoint is refused with, as text that does not depend on where the test runs."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from t2t.checkpoints.bundle import Bundle
from t2t.problems import CheckpointError

INDEX, SHARD = "x.index", "x.data-00000-of-00001"


def texts(caught: pytest.ExceptionInfo[CheckpointError], folder: Path) -> list[str]:
    """The problems as they are shown, with paths inside the test's folder."""
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def refused(prefix: Path | str) -> str:
    """The one problem of opening a bundle; found without a large allocation."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            Bundle(str(prefix))
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
    (text,) = texts(caught, Path(prefix).parent)
    return text


def unread(checkpoint: Bundle, name: str) -> list[str]:
    """The problem of reading a variable, the same by `read` and by `view`."""
    ref = checkpoint.inventory.variables[name]
    found = []
    for read in (checkpoint.read, checkpoint.view):
        with pytest.raises(CheckpointError) as caught:
            read(ref)
        found.append(texts(caught, Path(checkpoint.path).parent))
    assert found[0] == found[1]
    return found[0]
