"""A recording stands in for TensorFlow: what was recorded once is proven where there is no TensorFlow."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from tests.commands import ENVIRONMENT, ROOT, Done, python

#: Runs a command, and writes down which modules of TensorFlow it asked for, and which of them it then had.
WATCHED = """\
import json, sys
asked = []
def watch(event, arguments):
    if event == "import" and arguments[0].partition(".")[0] == "tensorflow":
        asked.append(arguments[0])
sys.addaudithook(watch)
{before}
from t2t.__main__ import main
status = main()
had = sorted(name for name in sys.modules if name.partition(".")[0] == "tensorflow")
with open("seen.json", "w") as file:
    json.dump([asked, had, "torch" in sys.modules], file)
sys.exit(status)
"""

#: A tensorflow that leaves a file wherever it is imported, in this process or in another one, and fails.
POISON = "open('poisoned', 'a').close()\nraise SystemExit('tensorflow was imported')\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The example, and a poisoned package before whatever tensorflow there is."""
    (tmp_path / "mappings").symlink_to(ROOT / "mappings")
    (tmp_path / "path/tensorflow").mkdir(parents=True)
    (tmp_path / "path/tensorflow/__init__.py").write_text(POISON)
    return tmp_path


def run(folder: Path, *arguments: str, before: str = "") -> tuple[Done, Any]:
    path = os.pathsep.join(filter(None, [str(folder / "path"), ENVIRONMENT.get("PYTHONPATH")]))
    done = python("-c", WATCHED.format(before=before), *arguments, cwd=folder, env={"PYTHONPATH": path})
    return done, json.loads((folder / "seen.json").read_text())


def test_the_example_is_verified_from_its_recording(folder: Path) -> None:
    done, seen = run(folder, "verify", "mappings/madry.yaml")

    assert (done.code, done.out.splitlines()[-1]) == (0, "proven")
    assert done.err == "note: T2T700 importing mappings.modules.madry:Madry\n"
    assert seen == [[], [], True]
    assert not (folder / "poisoned").exists()


def test_what_is_wrong_is_found_from_the_recording(folder: Path) -> None:
    (folder / "mappings").unlink()
    (folder / "mappings").mkdir()
    for name in ("modules", "checkpoints", "recordings"):
        (folder / "mappings" / name).symlink_to(ROOT / "mappings" / name)
    text = (ROOT / "mappings" / "madry.yaml").read_text()
    right = "axes: (h w c) o -> o (c h w), dims: {h: 7, w: 7}"
    (folder / "mappings" / "madry.yaml").write_text(text.replace(right, "permute: [1, 0]"))
    done, seen = run(folder, "verify", "mappings/madry.yaml")

    row = f"{{tf: Variable_4, torch: fc1.weight, {right}}}"
    last = done.out.splitlines()[-1]
    assert done.code == 1
    assert last.startswith("mappings/madry.yaml:11:3: T2T501 ")
    assert last.endswith(f"; fc1 is the first layer that differs; what passes is {row}")
    assert seen == [[], [], True]
    assert not (folder / "poisoned").exists()


def test_the_example_is_converted_and_proven_by_its_recording(folder: Path) -> None:
    done, seen = run(folder, "convert", "mappings/madry.yaml")

    assert (done.code, done.out.splitlines()[-1]) == (0, "proven")
    assert done.err == "note: T2T700 importing mappings.modules.madry:Madry\n"
    assert seen == [[], [], True]
    assert not (folder / "poisoned").exists()
    assert len(load_file(folder / "madry.safetensors")) == 8


@pytest.mark.parametrize(
    ("before", "asked", "had"),
    [
        ("try:\n    import tensorflow.keras\nexcept SystemExit:\n    pass", ["tensorflow.keras", "tensorflow"], []),
        ("import types\nsys.modules['tensorflow'] = types.ModuleType('tensorflow')", [], ["tensorflow"]),
    ],
    ids=["an import that fails", "a module that is put there"],
)
def test_the_tests_above_can_fail(folder: Path, before: str, asked: list[str], had: list[str]) -> None:
    """An attempt is seen, whatever becomes of it, and so is what comes another way."""
    done, seen = run(folder, "check", "mappings/madry.yaml", before=before)

    assert (done.code, seen) == (0, [asked, had, False])
    assert (folder / "poisoned").exists() == bool(asked)
