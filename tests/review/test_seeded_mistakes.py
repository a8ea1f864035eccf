"""
What a machine knows that has the mappings and their locks: no weights, no TensorFlow, no torch.

Every mistake below fits the schema of YAML or the shapes, or looks as if it did; each is told at its line.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.commands import ENVIRONMENT, python
from tests.review.repository import MAPPINGS, Repository, make

#: A mapping, what is written instead of what, and where that is told: line and code.
MISTAKES: list[tuple[str, str, str, tuple[int, str]]] = [
    # What every shape lets through.
    ("dense", "hidden.weight, axes: i o -> o i", "hidden.weight, axes: i o -> i o", (6, "T2T508")),
    ("dense", "torch: hidden.bias}", "torch: hidden.bias, scale: 2}", (7, "T2T508")),
    ("dense", "torch: hidden.bias}", "torch: hidden.bias, add: 1}", (7, "T2T508")),
    ("dense", "torch: hidden.bias}", "torch: hidden.bias, flip: [0]}", (7, "T2T508")),
    ("conv", "h w i o -> o i h w", "h w i o -> o i w h", (6, "T2T508")),
    ("conv", "axes: h w i o -> o i h w", "permute: [3, 2, 1, 0]", (6, "T2T508")),
    ("conv", "h w i o -> o i h w", "h w i o -> o i h w, flip: [h, w]", (6, "T2T508")),
    ("conv", "dims: {h: 2, w: 2}", "dims: {h: 1, w: 2}", (9, "T2T508")),
    ("conv", "use: flatten_dense, dims: {h: 2, w: 2}", "use: dense", (9, "T2T508")),
    ("blocks", "block_<i>/query/bias,", "block_<i>/key/bias,  ", (10, "T2T206")),
    ("blocks", "blocks.<i>.norm.weight", "blocks.<i>.norm.bias", (14, "T2T203")),
    ("blocks", "block_<i>/norm/gamma", "block_<2-i>/norm/gamma", (13, "T2T508")),
    ("dense", "\nmap:", "output: {dtype: bfloat16}\n\nmap:", (7, "T2T508")),
    # What belongs to another model, other names, another module.
    ("dense", "models:Dense", "models:Conv", (2, "T2T508")),
    ("blocks", "with: {depth: 3}", "with: {depth: 4}", (2, "T2T508")),
    ("dense", "dense.ckpt}", "dense.ckpt, names: full_name}", (3, "T2T508")),
    ("dense", "\nmap:", 'require: [{torch: hidden, bias: true}]\n\nmap:', (4, "T2T508")),
    # Names.
    ("dense", "hidden/bias", "hidden/bais", (7, "T2T201")),
    ("dense", "hidden.bias", "hidden.bais", (7, "T2T202")),
    ("dense", "hidden/bias,", '"hidden/bias:0",', (7, "T2T109")),
    ("conv", "use: batch_norm", "use: batchnorm", (8, "T2T112")),
    ("blocks", "block_<i>/key/kernel", "block_<j>/key/kernel", (11, "T2T111")),
    ("blocks", "block_<i>/key/kernel", '"block_{i}/key/kernel"', (11, "T2T201")),
    # What is counted.
    ("dense", "- {tf: out/bias,      torch: out.bias}\n", "", (5, "T2T204")),
    ("dense", "- {tf: out/bias,      torch: out.bias}\n", "- {torch: out.bias, fill: 0}\n", (5, "T2T205")),
    ("blocks", "i: 0..2", "i: 0..1", (8, "T2T204")),
    ("blocks", "i: 0..2", "i: 0..3", (9, "T2T201")),
    ("blocks", "\nignore:\n- {tf: global_step, why: step counter}\n", "", (8, "T2T205")),
    ("blocks", "tf: global_step,", "tf: globalstep,", (17, "T2T208")),
    # Shapes.
    ("dense", "out.weight, axes: i o -> o i", "out.weight, axes: i o -> i o", (8, "T2T304")),
    ("dense", "out.weight, axes: i o -> o i", "out.weight", (8, "T2T305")),
    ("dense", "torch: hidden.bias}", 'torch: hidden.bias, slice: [":2"]}', (7, "T2T304")),
    ("conv", "dims: {h: 2, w: 2}", "dims: {h: 3, w: 2}", (9, "T2T303")),
    ("dense", "torch: hidden.bias}", "torch: hidden.bias, dtype: float16}", (7, "T2T401")),
    ("dense", "{tf: hidden/bias,   torch: hidden.bias}", "{torch: hidden.bias, tie: out.bias}", (7, "T2T404")),
    # The file.
    ("dense", "t2t: 1", "t2t: 2", (1, "T2T107")),
    ("dense", "out.weight, axes:", "out.weight, axis:", (8, "T2T104")),
    ("dense", "torch: hidden.bias}", "torch: hidden.bias, torch: out.bias}", (7, "T2T103")),
    ("dense", "map:", "map: &rows", (5, "T2T102")),
    ("dense", "torch: hidden.bias}", "torch: hidden.bias", (8, "T2T101")),
]  # fmt: skip

#: A torch and a tensorflow that leave a file wherever they are imported, and fail.
POISON = "open('poisoned', 'a').close()\nraise SystemExit('a framework was imported')\n"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The repository with its locks, as somebody clones it: the checkpoints are not in it."""
    made = make(tmp_path_factory.mktemp("seeded") / "repository")
    for name in MAPPINGS:
        done = python("-m", "t2t", "lock", f"mappings/{name}.yaml", cwd=made.folder)
        assert (done.code, done.out.splitlines()[-1]) == (0, "not proven: the mapping has no verify section"), done
    assert made.commit("locks").code == 0
    clone = tmp_path_factory.mktemp("seeded") / "clone"
    made.git("clone", "-q", str(made.folder), str(clone))
    for name in ("torch", "tensorflow"):
        (clone / "path" / name).mkdir(parents=True)
        (clone / "path" / name / "__init__.py").write_text(POISON)
    assert not (clone / "checkpoints").exists()
    return Repository(clone)


def check(repository: Repository, *mappings: str) -> tuple[int, dict[str, Any]]:
    path = os.pathsep.join(filter(None, [str(repository.folder / "path"), ENVIRONMENT.get("PYTHONPATH")]))
    done = python("-m", "t2t", "check", "--format", "json", *mappings, cwd=repository.folder, env={"PYTHONPATH": path})
    assert not (repository.folder / "poisoned").exists()
    return done.code, json.loads(done.out)


def test_the_clean_ones_have_no_problem(locked: Repository) -> None:
    code, told = check(locked)

    assert (code, told["problems"]) == (0, [])
    assert told["checked"] == [f"mappings/{name}.yaml" for name in sorted(MAPPINGS)]


@pytest.fixture(scope="module")
def told(locked: Repository, tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[tuple[int, str, str]]]:
    """What one run of check says of every mistake: line, code, message."""
    folder = locked.folder / "mistakes"
    folder.mkdir()
    for number, (name, old, new, _) in enumerate(MISTAKES):
        text = MAPPINGS[name]
        assert old in text, old
        (folder / f"{number:02}.yaml").write_text(text.replace(old, new))
        shutil.copy(locked.folder / f"mappings/{name}.lock.json", folder / f"{number:02}.lock.json")
    code, document = check(locked, *(f"mistakes/{number:02}.yaml" for number in range(len(MISTAKES))))
    assert code == 1, document
    found: dict[int, list[tuple[int, str, str]]] = {number: [] for number in range(len(MISTAKES))}
    for problem in document["problems"]:
        found[int(Path(problem["path"]).stem)].append((problem["line"], problem["code"], problem["message"]))
    return found


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=lambda n: f"{MISTAKES[n][0]}-{MISTAKES[n][3][1]}-{n}")
def test_a_mistake_is_told_at_its_line(told: dict[int, list[tuple[int, str, str]]], number: int) -> None:
    assert MISTAKES[number][3] in [(line, code) for line, code, _ in told[number]], told[number]


def test_each_alone_ends_with_1(locked: Repository, told: dict[int, list[tuple[int, str, str]]]) -> None:
    from t2t import api
    from t2t.problems import exit_code

    for number in range(len(MISTAKES)):
        problems = api.check(locked.folder / f"mistakes/{number:02}.yaml")
        assert exit_code(problems) == 1, MISTAKES[number]
