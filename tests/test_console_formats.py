"""What the commands say to GitHub and as SARIF, with and without what a runner sets."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t2t.cli import main
from tests.commands import Project, small, store, t2t
from tests.test_formats import faults, results, understood

#: Two of a mapping's rows, and what becomes of them.
RIGHT = "- {tf: dense_0/kernel, torch: layers.0.weight, axes: i o -> o i}"
WRONG = "- {tf: dense_0/kernal, torch: layers.0.weight, axes: i o -> o i}"
UNKNOWN = (
    "dense_0/kernal is not a variable of the checkpoint; did you mean dense_0/kernel, dense_1/kernel, dense_0/bias"
)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    folder = tmp_path / "repository"
    folder.mkdir()
    return small(folder)


@pytest.fixture
def summary(tmp_path: Path) -> Path:
    place = tmp_path / "summary.md"
    place.touch()
    return place


def broken(project: Project, rows: int) -> None:
    """A mapping with as many unknown variables."""
    head = project.mapping.read_text("utf-8").partition("map:\n")[0]
    wrong = "".join(f"- {{tf: no_{number}, torch: layers.0.w{number}}}\n" for number in range(rows))
    project.mapping.write_text(
        f"{head}map:\n{wrong}ignore:\n- {{tf: dense_*/*, why: not of this test}}\n", encoding="utf-8"
    )


class Telling:
    """Runs commands in this process, in the project's folder, with what a runner sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch = monkeypatch
        self._streams = capsys

    def __call__(
        self, project: Project, *arguments: str, summary: Path | str = "", workspace: str = "", t2t_format: str = ""
    ) -> tuple[int, str, str]:
        self._patch.chdir(project.folder)
        for name, value in (
            ("GITHUB_STEP_SUMMARY", str(summary)),
            ("GITHUB_WORKSPACE", workspace),
            ("T2T_FORMAT", t2t_format),
        ):
            self._patch.setenv(name, value)
        status = main(arguments)
        sys.modules.pop("small", None)  # the model of this project alone
        out, err = self._streams.readouterr()
        return status, out, err


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Telling:
    return Telling(monkeypatch, capsys)


# --- github ---


def test_check_annotates_the_line_and_fills_the_summary(told: Telling, project: Project, summary: Path) -> None:
    project.edit(RIGHT, WRONG)

    code, out, err = told(project, "check", "small.yaml", "--format", "github", summary=summary)

    assert (code, err) == (1, "")
    commands = [command for command in map(understood, out.splitlines()) if command]
    first = next(command for command in commands if command.properties["title"] == "T2T201")
    assert first.name == "error"
    assert first.properties == {"file": "small.yaml", "line": "6", "col": "8", "title": "T2T201"}
    assert first.data == UNKNOWN
    assert out.splitlines()[-1].startswith("1 mapping checked: ")
    assert summary.read_text("utf-8").startswith("\n### t2t\n\n| | where | code | what |\n|---|---|---|---|\n| note | ")
    assert summary.read_text("utf-8").count("\n| ") == len(commands) + 1


def test_a_mapping_without_problems_says_so_and_leaves_the_summary_alone(
    told: Telling, project: Project, summary: Path
) -> None:
    code, out, err = told(project, "inspect", "small.ckpt", "--format", "github", summary=summary)

    assert (code, err) == (0, "")
    assert [understood(line) for line in out.splitlines() if line.startswith("::")] == []
    assert summary.read_text("utf-8") == ""


def test_what_github_would_not_show_is_in_the_summary(told: Telling, project: Project, summary: Path) -> None:
    broken(project, 25)

    code, out, _ = told(project, "check", "small.yaml", "--format", "github", summary=summary)

    assert code == 1
    assert out.count("::error ") == 10
    assert "\nand 15 more in the step's summary; --all shows them here\n" in out
    assert summary.read_text("utf-8").count("| error |") == 25


@pytest.mark.parametrize("flags", [["--all"], []])
def test_without_a_summary_or_with_all_every_problem_is_in_the_log(
    told: Telling, project: Project, summary: Path, flags: list[str]
) -> None:
    broken(project, 25)

    _, out, _ = told(project, "check", "small.yaml", "--format", "github", *flags, summary=summary if flags else "")

    assert out.count("::error ") == 25
    assert "more" not in out


def test_a_summary_that_is_full_takes_no_more_and_the_log_has_all(
    told: Telling, project: Project, summary: Path
) -> None:
    broken(project, 25)
    summary.write_bytes(b"#" * (1 << 20))

    _, out, _ = told(project, "check", "small.yaml", "--format", "github", summary=summary)

    assert out.count("::error ") == 25
    assert summary.stat().st_size == 1 << 20


def test_a_summary_that_cannot_be_written_is_an_error_and_nothing_is_lost(
    told: Telling, project: Project, tmp_path: Path
) -> None:
    broken(project, 25)

    code, out, _ = told(project, "check", "small.yaml", "--format", "github", summary=tmp_path)

    assert code == 3
    assert out.count(",title=T2T201::") == 25
    assert out.splitlines()[-1] == (
        f"::error title=T2T802::{tmp_path}: the step's summary cannot be written: Is a directory; "
        "GITHUB_STEP_SUMMARY names a file that this process may not write"
    )


def test_paths_count_from_the_workspace_where_there_is_one(told: Telling, project: Project) -> None:
    project.edit(RIGHT, WRONG)

    _, out, _ = told(project, "check", "small.yaml", "--format", "github", workspace=str(project.folder.parent))

    assert "::error file=repository/small.yaml,line=6," in out


def test_a_problem_without_a_line_names_its_file(told: Telling, project: Project) -> None:
    code, out, _ = told(project, "inspect", "nowhere.ckpt", "--format", "github")

    assert (code, out) == (
        3,
        "::error title=T2T601::nowhere.ckpt: no checkpoint there: neither nowhere.ckpt.index nor nowhere.ckpt exists\n",
    )


def test_no_name_in_a_table_is_a_command(tmp_path: Path) -> None:
    """The list of a checkpoint's variables is text, whatever they are called."""
    names = ["::add-mask::a", "  ::error::b", "x ##[error]c", "::stop-commands::d"]
    store(tmp_path, {name: np.zeros(2, np.float32) for name in names})

    done = t2t("inspect", "small.ckpt", "--format", "github", cwd=tmp_path)
    concise = t2t("inspect", "small.ckpt", "--format", "concise", cwd=tmp_path)

    assert done.code == 0
    assert [command for command in map(understood, done.out.splitlines()) if command] == []
    assert len([command for command in map(understood, concise.out.splitlines()) if command]) == 4
    assert r"\x3a:add-mask::a" in done.out


def test_notes_are_notices(told: Telling, project: Project, summary: Path) -> None:
    code, out, err = told(project, "small.yaml", "--format", "github", summary=summary)

    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "::notice title=T2T700::importing small:Small"
    assert summary.read_text("utf-8").count("| note |") == 1


def test_a_result_that_tells_its_problems_has_them_beside_their_lines_too(told: Telling, project: Project) -> None:
    project.mapping.write_text("t2t: [\n", encoding="utf-8")

    code, out, _ = told(project, "fmt", "small.yaml", "--format", "github")

    commands = [command for command in map(understood, out.splitlines()) if command]
    assert code == 1
    assert [(command.name, command.properties["title"]) for command in commands] == [("error", "T2T101")]


# --- sarif ---


def log(told: Telling, project: Project, *arguments: str, t2t_format: str = "") -> tuple[int, dict[str, Any]]:
    code, out, err = told(project, *arguments, t2t_format=t2t_format)
    document = json.loads(out)

    assert err == ""
    assert faults(document) == []

    return code, document


def notifications(document: dict[str, Any]) -> list[dict[str, Any]]:
    return list(document["runs"][0]["invocations"][0]["toolExecutionNotifications"])


def test_check_is_one_log(told: Telling, project: Project) -> None:
    project.edit(RIGHT, WRONG)

    code, document = log(told, project, "check", "small.yaml", "--format", "sarif")

    first = next(result for result in results(document) if result["ruleId"] == "T2T201")
    assert code == 1
    assert (first["level"], first["message"]["text"]) == ("error", UNKNOWN)
    assert first["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "small.yaml", "uriBaseId": "%SRCROOT%"},
        "region": {"startLine": 6, "startColumn": 8},
    }


@pytest.mark.parametrize(
    ("arguments", "code", "codes"),
    [
        (["check", "nowhere.yaml"], 3, ["T2T602"]),
        (["inspect", "small.ckpt"], 0, []),
        (["inspect", "small.ckpt", "--checksums"], 0, []),
        (["inspect", "nowhere.ckpt"], 3, ["T2T601"]),
        (["verify", "small.yaml"], 1, ["T2T503"]),
    ],
    ids=["mapping", "list", "checksums", "no checkpoint", "verify"],
)
def test_every_command_with_findings_gives_a_log(
    told: Telling, project: Project, arguments: list[str], code: int, codes: list[str]
) -> None:
    ended, document = log(told, project, *arguments, "--format", "sarif")

    assert ended == code
    assert [result["ruleId"] for result in results(document)] == codes


def test_notes_go_with_them(told: Telling, project: Project) -> None:
    code, document = log(told, project, "small.yaml", "--format", "sarif")

    assert code == 0
    assert project.output.exists()
    assert [one["message"]["text"] for one in notifications(document)] == ["importing small:Small"]


@pytest.mark.parametrize("command", [["explain", "small.yaml", "layers.0.weight"], ["recipes"]])
def test_a_command_without_findings_is_refused(told: Telling, project: Project, command: list[str]) -> None:
    """Rather than to leave out all that it has to say."""
    code, document = log(told, project, *command, t2t_format="sarif")

    assert code == 2
    assert notifications(document) == [
        {
            "descriptor": {"id": "T2T001"},
            "level": "error",
            "message": {"text": f"{command[0]} looks for no problems, and sarif holds nothing else; use --format json"},
        }
    ]
