"""The table of writers: every format is there, and torch is imported for the one that needs it only."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from t2t.writers import WRITERS, pt, safetensors, writer
from tests.commands import ROOT, python


def test_each_format_has_its_writer() -> None:
    assert {format_: writer(format_) for format_ in WRITERS} == {"pt": pt.write, "safetensors": safetensors.write}


@pytest.mark.parametrize(("format_", "expected"), [("safetensors", "False"), ("pt", "True")])
def test_torch_is_imported_by_the_writer_named_after_it_only(format_: str, expected: str) -> None:
    code = f"import sys; from t2t.writers import writer; writer('{format_}'); print('torch' in sys.modules)"

    assert python("-c", code, cwd=ROOT).out == f"{expected}\n"


def test_the_contract_finds_a_writer_that_imports_the_one_with_torch(tmp_path: Path) -> None:
    """A copy in which the safetensors writer does is refused."""
    import shutil

    tool = Path(sys.executable).with_name("lint-imports")
    if not tool.exists():
        pytest.skip("import-linter is not installed")
    shutil.copytree(ROOT / "t2t", tmp_path / "t2t", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    module = tmp_path / "t2t" / "writers" / "safetensors.py"
    module.write_text(f"{module.read_text()}\nfrom t2t.writers import pt\n")

    done = python(str(tool), "--no-cache", cwd=tmp_path)

    assert done.code == 1
    assert "torch stays at the rim BROKEN" in done.out
    assert "t2t.writers.safetensors -> t2t.writers.pt" in done.out
