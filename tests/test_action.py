"""
The hooks, the action and the workflow that docs/review.md shows: laid out as pre-commit and GitHub want them, safe, and
installing what is needed and no more.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.commands import ROOT, python

REQUIREMENTS = ROOT / "action" / "requirements.txt"
HOOKS = ROOT / ".pre-commit-hooks.yaml"
ACTION = ROOT / "action.yml"
PAGE = ROOT / "docs" / "review.md"

#: What t2t depends on and neither hook nor action imports.
LEFT_OUT = {"torch", "safetensors"}

#: The Pythons that GitHub's machines and people have.
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name(name)
    if not program.exists():
        pytest.skip(f"{name} is not installed")
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False, cwd=ROOT)


@cache
def pinned() -> dict[str, Requirement]:
    lines = [line for line in REQUIREMENTS.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(one.name): one for one in map(Requirement, lines)}


@cache
def declared() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return {canonicalize_name(one.name): one for one in map(Requirement, project["dependencies"])}


# --- what is installed ---


def test_the_list_has_every_dependency_at_one_version_that_t2t_takes() -> None:
    assert set(declared()) - LEFT_OUT <= set(pinned())
    assert LEFT_OUT & set(pinned()) == set()
    for name, requirement in pinned().items():
        (version,) = requirement.specifier
        assert version.operator == "=="
        if name in declared():
            assert declared()[name].specifier.contains(version.version), requirement


@pytest.mark.parametrize("version", PYTHONS)
def test_the_list_is_closed(version: str) -> None:
    """--no-deps installs nothing that the list does not have: what its packages need is in it, and no package more."""
    needed = set(declared()) - LEFT_OUT
    todo = sorted(needed)
    while todo:
        for text in metadata.requires(todo.pop()) or ():
            requirement = Requirement(text)
            environment = {"python_version": version, "python_full_version": f"{version}.0", "extra": ""}
            if requirement.marker is None or requirement.marker.evaluate(environment):
                name = canonicalize_name(requirement.name)
                todo += [name] if name not in needed else []
                needed.add(name)

    assert needed <= set(pinned())
    if version == PYTHONS[0]:
        assert needed == set(pinned())


def test_check_and_fmt_import_nothing_that_is_left_out(tmp_path: Path) -> None:
    """The list says so to pip; here those packages end whoever imports them."""
    for name in LEFT_OUT:
        (tmp_path / "poison" / name).mkdir(parents=True)
        (tmp_path / "poison" / name / "__init__.py").write_text("raise SystemExit('left out')\n")
    program = "import sys; sys.path.insert(0, 'poison'); from t2t.cli import main; sys.exit(main(sys.argv[1:]))"

    for arguments in (["check"], ["fmt", "--check"], ["check", "--format", "sarif"]):
        mapping = str(ROOT / "mappings" / "madry.yaml")
        done = python("-c", program, *arguments, mapping, cwd=tmp_path)
        assert (done.code, done.err) == (0, ""), done
    assert python("-c", f"{program.partition('from')[0]}import torch", cwd=tmp_path).err == "left out\n"


# --- the hooks ---


def test_the_hooks_are_laid_out_as_pre_commit_wants_them() -> None:
    done = tool("pre-commit", "validate-manifest", str(HOOKS))

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_hooks_are_commands_with_an_environment_of_their_own() -> None:
    from t2t.commands import COMMANDS

    hooks = yaml.safe_load(HOOKS.read_text("utf-8"))

    assert [hook["id"] for hook in hooks] == ["t2t-check", "t2t-fmt"]
    for hook in hooks:
        program, command = hook["entry"].split()
        assert (program, hook["language"]) == ("t2t", "python")
        assert command in COMMANDS
        assert hook["additional_dependencies"] == ["--no-deps", f"--requirement={REQUIREMENTS.relative_to(ROOT)}"]


# --- the action ---


def test_the_action_is_laid_out_as_github_wants_it() -> None:
    done = tool("check-jsonschema", "--builtin-schema", "vendor.github-actions", str(ACTION))

    assert done.returncode == 0, done.stdout + done.stderr


def test_no_input_becomes_a_part_of_a_command() -> None:
    """An expression in `run` is pasted into the script before bash reads it; in `env` it is a value."""
    text = yaml.safe_load(ACTION.read_text("utf-8"))
    (step,) = text["runs"]["steps"]

    assert "${{" not in step["run"]
    assert step["env"] == {f"INPUT_{name.upper()}": f"${{{{ inputs.{name} }}}}" for name in text["inputs"]}
    for name in step["env"]:
        assert name.removeprefix("INPUT_") in (ROOT / "action" / "run").read_text("utf-8")


def test_shellcheck_finds_nothing_in_the_script() -> None:
    done = tool("shellcheck", "action/run")

    assert (done.returncode, done.stdout) == (0, "")


def test_shellcheck_would_find_a_variable_that_splits(tmp_path: Path) -> None:
    script = tmp_path / "run"
    script.write_text((ROOT / "action" / "run").read_text("utf-8") + "echo $INPUT_BASE\n", encoding="utf-8")

    assert "SC2086" in tool("shellcheck", str(script)).stdout


# --- the page ---


def workflows() -> list[dict[str, Any]]:
    blocks = re.findall(r"^```yaml\n(name: .*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    # YAML 1.1 reads `on` as true.
    return [{"on" if key is True else key: value for key, value in yaml.safe_load(block).items()} for block in blocks]


def test_the_workflows_are_laid_out_as_github_wants_them(tmp_path: Path) -> None:
    assert len(workflows()) == 2
    for number, workflow in enumerate(workflows()):
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps(workflow), encoding="utf-8")
        done = tool("check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(file))
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflows_can_be_trusted_with_a_stranger_s_pull_request() -> None:
    for workflow in workflows():
        assert set(workflow["on"]) == {"pull_request"}
        assert workflow["permissions"] == {"contents": "read"}
        for job in workflow["jobs"].values():
            uses_sarif = any(step.get("with", {}).get("sarif") for step in job["steps"])
            more = {"security-events": "write"} if uses_sarif else {}
            assert {**workflow["permissions"], **job.get("permissions", {})} == {"contents": "read", **more}
            assert not any("run" in step for step in job["steps"])
            (checkout,) = [step for step in job["steps"] if step["uses"].startswith("actions/checkout@")]
            assert checkout["with"]["persist-credentials"] is False
            assert "ref" not in checkout["with"]


def test_the_page_knows_every_input() -> None:
    inputs = yaml.safe_load(ACTION.read_text("utf-8"))["inputs"]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE.read_text("utf-8").partition("## What can be")[0], re.MULTILINE)
    used = {name for workflow in workflows() for job in workflow["jobs"].values() for name in given(job)}

    assert [name for name, _ in rows] == list(inputs)
    assert used <= set(inputs)


def given(job: dict[str, Any]) -> set[str]:
    return {name for step in job["steps"] if step["uses"].startswith("OWNER/t2t@") for name in step["with"]}


def test_the_page_knows_every_format_and_the_hooks_lists() -> None:
    from t2t.console import FORMATS

    text = PAGE.read_text("utf-8")
    hooks = yaml.safe_load(HOOKS.read_text("utf-8"))
    (config,) = re.findall(r"^```yaml\n(repos:.*?)^```$", text, re.MULTILINE | re.DOTALL)

    assert re.findall(r"^\| `(\w+)` \| ", text.partition("## The formats")[2], re.MULTILINE) == list(FORMATS)
    assert [hook["id"] for hook in yaml.safe_load(config)["repos"][0]["hooks"]] == [hook["id"] for hook in hooks]
    assert f"`[{', '.join(hooks[0]['additional_dependencies'])}]`" in text
