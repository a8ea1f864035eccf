"""
What a team sets up, as it runs: pre-commit's hooks at `git commit`, and the action's step where GitHub would run it.

Both install t2t from a copy of these files with what the registry has for action/requirements.txt.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands import ENVIRONMENT, ROOT, Done
from tests.review.repository import GIT, Repository, make
from tests.test_formats import faults, results, understood

#: What a wheel of t2t and its users' machines need of this repository.
SHIPPED = ["t2t", "schemas", "docs/codes.md", "action", "action.yml", ".pre-commit-hooks.yaml"]
SHIPPED += ["pyproject.toml", "README.md", "LICENSE"]


@pytest.fixture(scope="module", autouse=True)
def registry(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where no package can be had."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(tmp_path_factory.mktemp("registry"))]
    if subprocess.run([*pip, "mdurl==0.1.2"], capture_output=True, check=False, timeout=120).returncode:
        pytest.skip("no package registry can be reached")


@pytest.fixture(scope="module")
def t2t(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """These files as a repository of one commit, which hooks and workflows name."""
    folder = tmp_path_factory.mktemp("t2t")
    for name in SHIPPED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    made = Repository(folder)
    made.git("init", "-q", "-b", "main")
    assert made.commit("t2t").code == 0
    return made


def packages(folder: Path) -> set[str]:
    """What is installed anywhere below a folder."""
    return {path.name.partition("-")[0].lower() for path in folder.rglob("site-packages/*.dist-info")}


# --- pre-commit ---


@pytest.fixture(scope="module")
def committing(t2t: Repository, tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, dict[str, str]]:
    """A team's repository with both hooks installed, and the environment that its commits run in."""
    program = Path(sys.executable).with_name("pre-commit")
    if not program.exists():
        pytest.skip("pre-commit is not installed")
    team = make(tmp_path_factory.mktemp("team") / "repository")
    hooks = [{"id": "t2t-check"}, {"id": "t2t-fmt"}]
    repository = {"repo": str(t2t.folder), "rev": t2t.git("rev-parse", "HEAD").strip(), "hooks": hooks}
    (team.folder / ".pre-commit-config.yaml").write_text(yaml.safe_dump({"repos": [repository]}), encoding="utf-8")
    env = {"PRE_COMMIT_HOME": str(tmp_path_factory.mktemp("pre-commit"))}
    assert team.run(str(program), "install", env=env).code == 0
    first = team.commit("the hooks", env)
    assert first.code == 0, first
    return team, env


def test_a_mapping_that_is_right_is_committed(committing: tuple[Repository, dict[str, str]]) -> None:
    team, env = committing
    team.edit("dense", "map:", "# Two layers.\nmap:")

    done = team.commit("a comment", env)

    assert done.code == 0, done
    assert re.search(r"^t2t check\.+Passed\nt2t fmt\.+Passed$", done.err, re.MULTILINE)
    assert team.git("log", "-1", "--format=%s") == "a comment\n"


def test_a_mapping_that_is_wrong_is_not_committed(committing: tuple[Repository, dict[str, str]]) -> None:
    team, env = committing
    team.edit("conv", "conv/kernel", "conv/kernal")

    done = team.commit("a mistake", env)
    team.git("reset", "-q", "--hard")

    assert done.code == 1
    assert "t2t check................................................................Failed" in done.err
    assert "mappings/conv.yaml:6:8: T2T201 conv/kernal is not a variable of the checkpoint; did you mean" in done.err
    assert "dense.yaml" not in done.err


def test_a_mapping_that_is_not_formatted_is_formatted_for_the_next_try(
    committing: tuple[Repository, dict[str, str]],
) -> None:
    team, env = committing
    right = team.mapping("dense").read_text("utf-8")
    team.edit("dense", "hidden/bias,   torch", "hidden/bias, torch")

    first = team.commit("crooked", env)
    mended = team.mapping("dense").read_text("utf-8")
    team.git("reset", "-q", "--hard")

    assert first.code == 1
    assert re.search(
        r"^t2t fmt\.+Failed\n- hook id: t2t-fmt\n- files were modified by this hook$", first.err, re.MULTILINE
    )
    assert mended == right


def test_what_is_no_mapping_costs_nothing(committing: tuple[Repository, dict[str, str]]) -> None:
    team, env = committing
    (team.folder / "notes.yaml").write_text("a: [\n", encoding="utf-8")

    done = team.commit("notes", env)

    assert done.code == 0
    assert done.err.count("Skipped") == 2


def test_the_hooks_do_without_torch(committing: tuple[Repository, dict[str, str]]) -> None:
    installed = packages(Path(committing[1]["PRE_COMMIT_HOME"]))

    assert {"t2t", "numpy", "jsonschema"} <= installed
    assert installed & {"torch", "tensorflow", "safetensors"} == set()


# --- the action ---


@dataclass(frozen=True)
class Step:
    """How the action's step ended, and what it left in the files that GitHub reads."""

    done: Done
    summary: str
    outputs: str


class Runner:
    """As much of a GitHub runner as a composite action sees."""

    def __init__(self, action: Path, temporary: Path) -> None:
        self.action = action
        self.temporary = temporary
        self.text: dict[str, Any] = yaml.safe_load((action / "action.yml").read_text("utf-8"))

    def run(self, workspace: Path, inputs: Mapping[str, str] | None = None, **more: str) -> Step:
        """The one step, in a workspace, with these inputs and more in its environment."""
        known = {name: about.get("default", "") for name, about in self.text["inputs"].items()}
        assert set(inputs or {}) <= set(known)
        known |= inputs or {}
        (step,) = self.text["runs"]["steps"]
        given = {
            name: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda m: known[m[1]], v) for name, v in step["env"].items()
        }
        files = {name: self.temporary / name for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")}
        for file in files.values():
            file.write_bytes(b"")
        script = self.temporary / "step.sh"
        script.write_text(step["run"], encoding="utf-8")
        assert step["shell"] == "bash"
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=workspace,
            env={
                **ENVIRONMENT,
                **GIT,
                "GITHUB_ACTIONS": "true",
                "GITHUB_ACTION_PATH": str(self.action),
                "GITHUB_WORKSPACE": str(workspace),
                "RUNNER_TEMP": str(self.temporary),
                **{name: str(file) for name, file in files.items()},
                **given,
                **more,
            },
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=600,
            check=False,
        )
        told = {name: file.read_text("utf-8") for name, file in files.items()}
        ended = Done(done.returncode, done.stdout, done.stderr)
        return Step(ended, told["GITHUB_STEP_SUMMARY"], told["GITHUB_OUTPUT"])


@pytest.fixture(scope="module")
def runner(t2t: Repository, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(t2t.folder, tmp_path_factory.mktemp("runner"))


@pytest.fixture
def team(tmp_path: Path) -> Repository:
    return make(tmp_path / "repository")


def test_mappings_that_are_right_pass(runner: Runner, team: Repository) -> None:
    step = runner.run(team.folder)

    assert (step.done.code, step.done.err, step.outputs) == (0, "", "")
    commands = [understood(line) for line in step.done.out.splitlines()[:-1]]
    assert [command.properties["title"] for command in commands if command] == ["T2T210"] * 3
    assert step.done.out.splitlines()[-1] == "3 mappings checked: 3 notes"
    assert packages(runner.temporary) & {"torch", "tensorflow", "safetensors"} == set()


def test_a_mistake_is_annotated_summed_up_and_in_the_log(runner: Runner, team: Repository) -> None:
    team.edit("conv", "conv/kernel", "conv/kernal")
    team.mapping("dense").rename(team.mapping("dense layers"))

    step = runner.run(team.folder, {"mappings": "mappings/c*.yaml\n\nmappings/dense l*.yaml\n", "sarif": "true"})

    assert (step.done.code, step.done.err) == (1, "")
    assert step.outputs == f"sarif={runner.temporary}/t2t.sarif\n"
    line = next(line for line in step.done.out.splitlines() if line.startswith("::error "))
    command = understood(line)
    assert command is not None
    assert command.properties == {"file": "mappings/conv.yaml", "line": "6", "col": "8", "title": "T2T201"}
    assert step.done.out.splitlines()[-1].startswith("2 mappings checked: ")
    assert "mappings/conv&#46;yaml&#58;6&#58;8" in step.summary
    assert f"\n{line}\n" in (ROOT / "docs" / "review.md").read_text("utf-8")
    document = json.loads((runner.temporary / "t2t.sarif").read_text("utf-8"))
    assert faults(document) == []
    assert "T2T201" in {result["ruleId"] for result in results(document)}


def test_strict_lets_no_warning_through_and_locked_no_mapping_without_a_lock(runner: Runner, team: Repository) -> None:
    (team.folder / "checkpoints" / "dense.ckpt.data-00000-of-00002").touch()

    lenient = runner.run(team.folder, {"mappings": "mappings/dense.yaml"})
    strict = runner.run(team.folder, {"mappings": "mappings/dense.yaml", "strict": "true"})
    locked = runner.run(team.folder, {"mappings": "mappings/conv.yaml", "locked": "true"})

    assert "::warning title=T2T613::checkpoints/dense.ckpt.index: data files of another save" in strict.done.out
    assert (lenient.done.code, strict.done.code, locked.done.code) == (0, 1, 1)
    assert "title=T2T509::" in locked.done.out


def test_what_changes_in_the_weights_is_in_the_log_and_in_the_summary(runner: Runner, team: Repository) -> None:
    base = team.git("rev-parse", "HEAD").strip()
    team.edit("blocks", "block_<i>/query/kernel", "block_<i>/KEY/kernel")
    team.edit("blocks", "block_<i>/key/kernel,  ", "block_<i>/query/kernel,")
    team.edit("blocks", "KEY", "key")
    assert team.commit("exchanged").code == 0

    step = runner.run(team.folder, {"base": base})
    unknown = runner.run(team.folder, {"base": "--no-such-revision"})

    assert (step.done.code, step.done.err) == (0, "")
    assert "query.weight" in step.done.out
    assert "query&#46;weight" in step.summary or "query.weight" in step.summary
    assert unknown.done.code == 2
    assert "::error title=T2T001::" in unknown.done.out


def test_whoever_removes_the_last_mapping_is_told_that_nothing_is_left_to_check(
    runner: Runner, team: Repository
) -> None:
    """And what goes: a step that checks nothing is no success."""
    base = team.git("rev-parse", "HEAD").strip()
    for mapping in (team.folder / "mappings").iterdir():
        mapping.unlink()
    assert team.commit("removed").code == 0

    step = runner.run(team.folder, {"base": base})

    assert (step.done.code, step.done.err) == (2, "")
    assert "::error title=T2T001::there are no mappings under mappings/" in step.done.out
    assert step.done.out.splitlines()[-1] == "3 of 3 mappings changed"
    assert "removed" in step.summary


def test_a_stranger_s_repository_runs_nothing(runner: Runner, team: Repository) -> None:
    """Neither by what its files are, nor by what they are called, nor by what they say."""
    stray = f"open({str(team.folder / 'run')!r}, 'w').close()\n"
    for name in ("yaml", "numpy", "t2t", "pip", "venv", "sitecustomize", "encodings", "models"):
        (team.folder / f"{name}.py").write_text(stray, encoding="utf-8")
    (team.folder / "setup.py").write_text(stray, encoding="utf-8")
    names = [
        "-x.yaml",
        "--debug.yaml",
        "$(touch run).yaml",
        "`touch run`.yaml",
        "a;touch run;.yaml",
        "::error::\n ::x.yaml",
    ]
    for name in names:
        (team.folder / name).write_text(team.mapping("dense").read_text("utf-8").replace("../", ""), encoding="utf-8")

    step = runner.run(
        team.folder,
        {"mappings": "*.yaml\nmappings/$(touch run).yaml\n", "base": "$(touch run)", "folders": "`touch run`"},
        PYTHONPATH=str(team.folder),
    )

    assert (step.done.code, step.done.err) == (3, "")
    assert not (team.folder / "run").exists()
    assert f"\n{len(names) + 1} mappings checked: 1 error" in step.done.out
    read = [understood(line) for line in step.done.out.splitlines()]
    assert {command.name for command in read if command} == {"error", "notice"}
    assert {command.properties.get("title") for command in read if command} == {"T2T001", "T2T210", "T2T602"}


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"strict": "yes"}, "the input strict is neither true nor false"),
        ({"sarif": "a\nsarif=b"}, "the input sarif is neither true nor false"),
        ({"mappings": "nowhere/*.yaml"}, "a glob among the input mappings matches no file"),
        ({"python": "python-that-is-none"}, "the input python runs no Python 3.11 or later"),
    ],
    ids=["strict", "sarif", "mappings", "python"],
)
def test_inputs_that_make_no_sense_are_refused(
    runner: Runner, team: Repository, inputs: dict[str, str], said: str
) -> None:
    step = runner.run(team.folder, inputs)

    assert (step.done.code, step.outputs) == (2, "")
    assert step.done.out == f"::error title=t2t::{said}\n"
