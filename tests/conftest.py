"""What every test may ask for."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Hundreds of processes import t2t: compiled once is enough.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A background job of a shell ignores SIGINT, and so would every process that is started here to be interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: Real checkpoints that are not part of the repository, beside it.
SHARED_DATA = Path(__file__).resolve().parents[1] / "../shared/data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip("the real checkpoints (../shared/data) are not here")
    return SHARED_DATA.resolve()


@pytest.fixture(autouse=True)
def _imports_are_forgotten(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """
    What a test imports from a folder of its own, and where from, is gone after it. (Packages that are installed stay,
    wherever that is: torch cannot be imported twice.)

    t2t leaves the current directory on sys.path, where the next test's module of the same name would be found.
    """
    path, modules = sys.path[:], set(sys.modules)
    yield
    sys.path[:] = path
    for name in sys.modules.keys() - modules:
        file = getattr(sys.modules[name], "__file__", None)
        if isinstance(file, str) and file.startswith(f"{tmp_path_factory.getbasetemp()}{os.sep}"):
            del sys.modules[name]
