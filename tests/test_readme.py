"""README does what it says: its commands are the ones that run, its session is a real one."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
_SESSION = re.compile(r"```console\n\$ ([^\n]*)\n(.*?)```", re.DOTALL)
SESSIONS = _SESSION.findall(README)
INSPECT = _SESSION.findall((ROOT / "docs" / "inspect.md").read_text(encoding="utf-8"))


def _without_figures(text: str) -> str:
    """Parity figures depend on the machine's arithmetic; everything else must stand as it is."""
    return re.sub(r"\b\d\.\de[-+]\d\d\b", "#", re.sub(r"max\|Δ\| \S+", "max|Δ| #", text))


def _run(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    assert command.startswith("python -m t2t ")
    arguments = [sys.executable, *command.split()[1:]]
    return subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, check=False, encoding="utf-8")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A directory with the example in it, where output may be written, and the plain transpose of it."""
    (tmp_path / "mappings").symlink_to(ROOT / "mappings", target_is_directory=True)
    (tmp_path / "changed.yaml").write_text(_plainly_transposed())
    return tmp_path


def _plainly_transposed() -> str:
    text = (ROOT / "mappings" / "madry.yaml").read_text()
    changed = text.replace("axes: (h w c) o -> o (c h w), dims: {h: 7, w: 7}", "permute: [1, 0]")
    assert changed != text
    return changed


REFUSED = [session for session in SESSIONS if "T2T501" in session[1]]
REAL = [*(session for session in SESSIONS if session not in REFUSED), *INSPECT]


@pytest.mark.parametrize(("command", "output"), REAL, ids=[command for command, _ in REAL])
def test_the_session_is_real(command: str, output: str, clone: Path) -> None:
    done = _run(command, clone)

    assert done.returncode == 0
    assert _without_figures(done.stdout) == _without_figures(output)


@pytest.mark.parametrize(("command", "output"), REFUSED, ids=["convert", "verify"])
def test_the_refusal_is_real(command: str, output: str, tmp_path: Path) -> None:
    """Two sessions are those with the plain transpose."""
    (tmp_path / "mappings").mkdir()
    for entry in (ROOT / "mappings").iterdir():
        (tmp_path / "mappings" / entry.name).symlink_to(entry)
    mapping = tmp_path / "mappings" / "madry.yaml"
    mapping.unlink()
    mapping.write_text(_plainly_transposed())

    done = _run(command, tmp_path)

    assert done.returncode == 1
    assert _without_figures(done.stdout) == _without_figures(output)
    assert not (tmp_path / "madry.safetensors").exists()


def test_ci_runs_the_test_command_of_the_readme() -> None:
    command = "pip install -c constraints.txt -e '.[dev]' && pip install --no-deps tf_keras && python -m pytest"

    assert command in README
    assert command in (ROOT / ".ci" / "run").read_text().replace("pip install -q", "pip install")
    assert command in (ROOT / "CONTRIBUTING.md").read_text()


def test_the_mapping_in_the_readme_is_the_one_that_runs() -> None:
    first, second, rows = (textwrap.dedent(text) for text in re.findall(r" *```yaml\n(.*?) *```", README, re.DOTALL))
    published = (ROOT / "mappings" / "bert_base.yaml").read_text().splitlines()

    assert f"{first}\n{second}" == (ROOT / "mappings" / "madry.yaml").read_text().partition("\n")[2]
    assert [line for line in rows.splitlines() if line not in published] == []
