"""A mapping from a stranger: nothing of it runs, prints raw or hangs, whatever a reviewer does with it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.commands import Done, server
from tests.review.repository import DENSE, GIT, Repository, make

#: What a terminal would act on; line ends and tabs are no harm.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

#: Leaves a file where it is imported.
EVIL = "open('it-ran', 'a').close()\n\n\nclass Model:\n    pass\n"

NAME = r'"hidden\e[2J\e]0;owned\a![x](y)&lt;`|%0A::error::\u202e/bias"'
WHY = r'"\e[31m<img src=x onerror=alert(1)>\u202e"'

HOSTILE = f"""\
t2t: 1
model: evil:Model
with: {{depth: {{new: "evil:Model"}}, other: {{get: "evil:Model"}}}}
source: {{checkpoint: ../checkpoints/dense.ckpt}}

map:
- {{tf: hidden/kernel, torch: hidden.weight, axes: i o -> o i}}
- {{tf: {NAME}, torch: {NAME}}}
- {{tf: out/kernel, torch: out.weight, axes: i o -> o i}}
- {{tf: out/bias, torch: out.bias}}

ignore:
- {{tf: hidden/bias, why: {WHY}}}

verify:
  inputs: {{x: {{shape: [1, 4], range: [0, 1]}}}}
  reference: {{call: "evil:Model", fetch: {{{NAME}: y}}}}
"""


@pytest.fixture(scope="module")
def cloned(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    team = make(tmp_path_factory.mktemp("stranger") / "repository")
    assert server().run("lock", "mappings/dense.yaml", cwd=team.folder).code == 0
    assert team.commit("the lock").code == 0
    (team.folder / "evil.py").write_text(EVIL)
    (team.folder / "yaml.py").write_text(EVIL)  # what t2t itself imports, too
    team.mapping("dense").write_text(HOSTILE)
    return team


COMMANDS = [
    ["check"],
    ["check", "--strict", "--locked"],
    ["check", "--format", "json"],
    ["check", "--format", "github"],
    ["check", "--format", "sarif"],
    ["check", "--fix"],
    ["check", "mappings/dense.lock.json"],
    ["fmt", "--check"],
    ["fmt", "--check", "--format", "github"],
    ["explain", "mappings/dense.yaml", "hidden.weight"],
    ["explain", "mappings/dense.yaml", "hidden.bias"],
    ["schema", "mappings/dense.yaml"],
    ["diff", "HEAD"],
    ["diff", "HEAD", "--markdown"],
    ["diff", "HEAD", "--format", "json"],
    ["diff", "HEAD", "--format", "github"],
]


def run(cloned: Repository, *arguments: str) -> Done:
    done = cloned.run(*python_m_t2t(), *arguments, env=GIT)
    assert not (cloned.folder / "it-ran").exists(), arguments
    return done


def python_m_t2t() -> list[str]:
    import sys

    return [sys.executable, "-m", "t2t"]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_nothing_of_it_runs_or_prints_raw(cloned: Repository, arguments: list[str]) -> None:
    done = run(cloned, *arguments)

    assert done.code in (0, 1, 3), done
    assert CONTROL.search(done.out + done.err) is None
    assert "Traceback" not in done.err
    if "markdown" in " ".join(arguments):
        assert "<img" not in done.out


def test_what_is_wrong_is_told_all_the_same(cloned: Repository) -> None:
    problems = json.loads(run(cloned, "check", "--format", "json", "mappings/dense.yaml").out)["problems"]

    assert {"T2T201", "T2T508"} <= {problem["code"] for problem in problems}


@pytest.mark.parametrize(
    "arguments",
    [["check"], ["check", "--fix"], ["fmt"], ["explain", "hidden.bias"], ["schema"], ["diff"]],
    ids=" ".join,
)
def test_ten_megabytes_of_rows_are_refused(cloned: Repository, tmp_path: Path, arguments: list[str]) -> None:
    huge = tmp_path / "huge.yaml"
    rows = "- {tf: out/bias, torch: out.bias}\n" * (10 * 2**20 // 34)
    huge.write_text(DENSE + rows)
    command, *more = arguments
    flags = [word for word in more if word.startswith("--")]
    words = [word for word in more if not word.startswith("--")]
    other = [str(cloned.mapping("conv"))] if command == "diff" else []

    done = server().run(command, *flags, *other, str(huge), *words, cwd=cloned.folder)

    text = done.out + done.err
    assert done.code == 1
    assert f"{huge}:1:1: T2T110 the file is larger than 1048576 bytes, the most that a mapping has" in text, text[:500]
    assert huge.stat().st_size > 10 * 2**20


def test_a_mapping_of_the_largest_size_ends(cloned: Repository, tmp_path: Path) -> None:
    """Twenty-five thousand rows, none of which is right."""
    large = tmp_path / "large.yaml"
    row = "- {tf: out/bias%05d, torch: out.b%05d}\n"
    large.write_text(DENSE + "".join(row % (i, i) for i in range((2**20 - len(DENSE)) // len(row % (0, 0)))))

    done = server().run("check", str(large), cwd=cloned.folder)

    assert done.code == 3  # no checkpoint, no lock
    assert done.out.count("\n") < 50
