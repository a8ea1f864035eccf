"""The house rules that a tool can check: style, types, import contracts, the schema, the docs' tables."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).with_name(command[0])
    if not tool.exists() and not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    program = str(tool) if tool.exists() else command[0]
    return subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy",),
        ("lint-imports",),
        ("check-jsonschema", "--check-metaschema", "schemas/mapping.schema.json"),
        ("check-jsonschema", "--schemafile", "schemas/mapping.schema.json", "mappings/madry.yaml"),
        ("check-jsonschema", "--check-metaschema", "schemas/lock.schema.json"),
        ("check-jsonschema", "--schemafile", "schemas/lock.schema.json", "mappings/madry.lock.json"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_the_tool_finds_nothing(command: tuple[str, ...]) -> None:
    done = _run(*command)

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_file_has_its_layer_and_the_page_knows_them_all() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    page = (ROOT / "CONTRIBUTING.md").read_text().partition("siblings not each other:\n\n```\n")[2].partition("```")[0]

    assert page.splitlines() == [layer.replace("t2t.", "") for layer in layers]
    files = {path.stem for path in (ROOT / "t2t").glob("*.py")} | {
        p.parent.name for p in (ROOT / "t2t").glob("*/__init__.py")
    }
    assert {name for layer in page.splitlines() for name in layer.split(" | ")} == files - {
        "__init__",
        "__main__",
        "nn",
    }


def test_ruff_and_the_import_contracts_can_fail(tmp_path: Path) -> None:
    """A copy with an import against the direction, and an unused one, is refused: the checks above mean something."""
    shutil.copytree(ROOT / "t2t", tmp_path / "t2t", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    names = tmp_path / "t2t" / "names.py"
    names.write_text(names.read_text() + "\nfrom t2t import plan\nimport torch\n")
    tools = Path(sys.executable).parent

    def run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(tools / tool), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    if not (tools / "lint-imports").exists():
        pytest.skip("import-linter is not installed")
    contracts = run("lint-imports", "--no-cache")

    assert run("ruff", "check", "t2t/names.py").returncode == 1
    assert contracts.returncode == 1
    assert "one direction BROKEN" in contracts.stdout
    assert "torch stays at the rim BROKEN" in contracts.stdout


def test_every_code_in_the_source_is_in_the_table_and_the_other_way_round() -> None:
    from t2t.problems import CODES

    source = "".join(path.read_text() for path in (ROOT / "t2t").rglob("*.py") if path.name != "problems.py")
    used = set(re.findall(r"\bT2T\d{3}\b", source))

    assert used - set(CODES) == set()
    assert set(CODES) - used == set()


def test_the_documented_codes_are_the_table() -> None:
    from t2t.problems import CODES

    rows = dict(re.findall(r"^\| (T2T\d{3}) \| (.*) \|$", (ROOT / "docs" / "codes.md").read_text(), re.MULTILINE))

    assert rows == CODES


def test_no_model_stands_in_the_engine() -> None:
    """What is known about a model belongs into YAML."""
    for path in (ROOT / "t2t").rglob("*.py"):
        text = re.sub(r"mappings[/.]\S*madry\S*", "", path.read_text())  # the example's path may stand in a docstring

        assert not re.search(r"madry|bert|gpt|resnet|mobilenet|\bt5\b", text, re.IGNORECASE), path


def test_only_the_console_prints() -> None:
    for path in (ROOT / "t2t").rglob("*.py"):
        if path.name not in {"console.py", "original.py"}:
            assert "print(" not in path.read_text(), path
