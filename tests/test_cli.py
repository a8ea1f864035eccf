"""The command line: which stream says what, in which format, and which status a command ends with."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from tests.commands import ENVIRONMENT, ROOT, Done, Project, python, server, small, store, t2t

IMPORTING = "note: T2T700 importing small:Small\n"
CONVERTED = """\
4 parameters (23 elements): 4 from variables
4 variables: 4 mapped (23 elements)
wrote small.safetensors (700 B)
not proven: the mapping has no verify section
"""
NOT_CHECKED = (
    "small.yaml:5:1: T2T210 parameters not checked: no lock; t2t lock writes one, convert checks them by itself\n"
)
MISSING = (
    "nowhere.yaml:1:1: T2T602 the mapping cannot be read: No such file or directory; name a mapping, a .yaml file\n"
)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return small(tmp_path)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the embedded example, and beside it the same with a plain transpose behind the Flatten."""
    folder = tmp_path_factory.mktemp("example")
    shutil.copytree(ROOT / "mappings", folder / "mappings", ignore=shutil.ignore_patterns("__pycache__"))
    right = (folder / "mappings" / "madry.yaml").read_text()
    wrong = right.replace("axes: (h w c) o -> o (c h w), dims: {h: 7, w: 7}", "permute: [1, 0]")
    assert wrong != right
    wrong = wrong.replace("verify:\n", "verify:\n  recording: recordings/madry.npz\n")
    (folder / "mappings" / "wrong.yaml").write_text(wrong)
    return folder


def run(*arguments: str, at: Project | Path) -> Done:
    return server().run(*arguments, cwd=at.folder if isinstance(at, Project) else at)


# --- streams and statuses ---


def test_results_go_to_stdout_and_notes_to_stderr(project: Project) -> None:
    done = run("convert", "small.yaml", at=project)

    assert (done.code, done.out, done.err) == (0, CONVERTED, IMPORTING)


def test_a_mapping_where_a_command_would_stand_is_converted(project: Project) -> None:
    done = run("small.yaml", at=project)

    assert (done.code, done.out, done.err) == (0, CONVERTED, IMPORTING)
    assert load_file(project.output).keys() == project.state.keys()


def test_findings_go_to_stdout_and_end_with_1(project: Project) -> None:
    project.edit("axes: i o -> o i", "axes: i o -> i o")
    before = project.listing()

    done = run("small.yaml", at=project)

    assert (done.code, done.err) == (1, IMPORTING)
    assert done.out == (
        "small.yaml:6:54: T2T304 layers.0.weight: axes 'i o -> i o' turn dense_0/kernel [4, 3] into [i=4, o=3], "
        "but the parameter is [3, 4]\n"
        "small.yaml:8:54: T2T304 layers.1.weight: axes 'i o -> i o' turn dense_1/kernel [3, 2] into [i=3, o=2], "
        "but the parameter is [2, 3]\n"
    )
    assert project.listing() == before


def test_what_cannot_be_read_is_told_on_stderr_and_ends_with_3(project: Project) -> None:
    done = run("nowhere.yaml", at=project)

    assert (done.code, done.out, done.err) == (3, "", MISSING)


def test_what_check_finds_is_its_result_whatever_it_is(project: Project) -> None:
    """One file that cannot be read does not hide what is wrong with another."""
    project.edit("dense_1/bias", "dense_1/bais")

    done = run("check", "nowhere.yaml", "small.yaml", at=project)

    assert (done.code, done.err) == (3, "")
    assert done.out == (
        f"{MISSING}{NOT_CHECKED}"
        "small.yaml:9:8: T2T201 dense_1/bais is not a variable of the checkpoint; did you mean dense_1/bias, "
        "dense_0/bias, dense_1/kernel\n"
        "2 mappings checked: 2 errors, 1 note\n"
    )


def test_explain_says_its_words_on_stdout(project: Project) -> None:
    done = run("explain", "small.yaml", "layers.0.bias", at=project)

    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "layers.0.bias comes from the variable dense_0/bias, by small.yaml:7:3\n"
        "  the variable is float32 [3]\n"
        "  its elements stay in their order\n"
        "  the parameter becomes float32 [3]\n"
    )


def test_verify_without_a_verify_section_is_a_finding(project: Project) -> None:
    done = run("verify", "small.yaml", at=project)

    assert (done.code, done.err) == (1, IMPORTING)
    assert done.out == (
        "small.yaml: T2T503: there is no verify section: nothing to compare with; add verify with inputs and "
        "reference\n"
    )


def test_record_without_a_verify_section_is_a_finding(project: Project) -> None:
    done = run("record", "small.yaml", at=project)

    assert (done.code, done.err) == (1, "")
    assert done.out == (
        "small.yaml: T2T503: there is no verify section: nothing says which original to run; add verify with inputs "
        "and reference\n"
    )


def test_a_result_that_is_not_proven_is_not_written(example: Path) -> None:
    done = run("mappings/wrong.yaml", at=example)

    assert done.code == 1
    assert done.out.startswith("mappings/wrong.yaml:20:1: T2T501 logits: max|Δ| ")
    assert not (example / "wrong.safetensors").exists()


def test_verify_shows_the_figures_of_both_sides(example: Path) -> None:
    right, wrong = (run("verify", f"mappings/{name}.yaml", at=example) for name in ("madry", "wrong"))

    assert (right.code, wrong.code) == (0, 1)
    assert right.out.splitlines()[1:] == ["accuracy on 360 labelled inputs: TensorFlow 0.9694, torch 0.9694", "proven"]
    assert wrong.out.splitlines()[2] == "not proven"


FIGURE = re.compile(r"[0-9]\.[0-9]e[-+][0-9]{2}|(?<=\.[0-9]{2})[0-9]{3,}")
ROW = "{tf: Variable_4, torch: fc1.weight, axes: (h w c) o -> o (c h w), dims: {h: 7, w: 7}}"
FAILS = (
    "T2T501 logits: max|Δ| 22.6 exceeds 1.83e-04 (1e-06 + 1e-05 x 18.2 max|TF|), accuracy 0.0972 against "
    "TensorFlow's 0.9694; "
)

#: What verify says of the wrong mapping. What agrees does so to the last digits, which are another machine's own.
VERDICT = """\
logits [360, 10]: max|Δ| 22.6 exceeds 0.000183, where max|TF| is 18.2
accuracy on 360 labelled inputs: TensorFlow 0.9694, torch 0.0972
not proven
"""
DIAGNOSED = f"""\
{VERDICT}layer  class   TensorFlow  in               out
conv1  Conv2d  add         #          #
conv2  Conv2d  add_1       #          #
fc1    Linear  add_2       #          # differs  <- the first that differs
fc2    Linear  add_3       # differs  # differs
what passes:
  the axes of a Flatten of [7, 7, 64], in place of the row in line 11:
    - {ROW}
mappings/wrong.yaml:11:3: {FAILS}fc1 is the first layer that differs; what passes is {ROW}
"""
DETAIL = "    worst at [337, 0] of [360, 10], draw 0: tensorflow 15.32878, torch -7.252064\n"


@pytest.mark.parametrize(("shape", "more"), [("concise", ""), ("full", DETAIL)])
def test_verify_says_where_it_first_differs_and_what_passes(example: Path, shape: str, more: str) -> None:
    done = run("verify", "mappings/wrong.yaml", "--format", shape, at=example)

    assert FIGURE.sub("#", done.out) == FIGURE.sub("#", DIAGNOSED + more)
    importing, lint = done.err.splitlines()
    assert (done.code, importing) == (1, "note: T2T700 importing mappings.modules.madry:Madry")
    assert lint.startswith("error: mappings/wrong.yaml:11:48: T2T504 fc1.weight: axes 'a b -> b a' ignore the flatten")
    assert f"- {ROW}" in (example / "mappings" / "madry.yaml").read_text()


def test_the_row_that_passes_is_proven_where_it_is_pasted(example: Path) -> None:
    done = run("verify", "mappings/wrong.yaml", at=example)
    pasted = next(line.strip() for line in done.out.splitlines() if line.startswith("    - "))
    lines = (example / "mappings" / "wrong.yaml").read_text().splitlines()
    lines[11 - 1] = pasted
    (example / "mappings" / "mended.yaml").write_text("\n".join(lines))

    assert run("verify", "mappings/mended.yaml", at=example).out.splitlines()[-1] == "proven"


def test_verify_gives_only_the_verdict_where_that_is_asked_for(example: Path) -> None:
    done = run("verify", "mappings/wrong.yaml", "--no-diagnosis", at=example)

    hint = "t2t verify without --no-diagnosis finds the first layer that differs, and what would have passed"
    assert done.out == f"{VERDICT}mappings/wrong.yaml:20:1: {FAILS}{hint}\n"
    assert done.code == 1


def test_verify_has_the_whole_diagnosis_as_json(example: Path) -> None:
    done = run("verify", "mappings/wrong.yaml", "--format", "json", at=example)
    document = json.loads(done.out)
    found = document["diagnosis"]

    assert (document["proven"], [problem["line"] for problem in document["problems"]]) == (False, [11])
    assert {key: value for key, value in found.items() if key != "layers"} == {
        "place": "fc1",
        "passes": True,
        "recorded": True,
        "repairs": [{"what": "the axes of a Flatten of [7, 7, 64]", "module": "fc1", "targets": ["fc1.weight"]}],
        "lines": [ROW],
        "replaces": [11],
        "tried": ["the axes of a Flatten of [7, 7, 64]"],
        "cut": False,
    }
    assert [
        (layer["module"], layer["class"], layer["input"]["verdict"], layer["output"]["verdict"])
        for layer in found["layers"]
    ] == [
        ("conv1", "Conv2d", "agrees", "agrees"),
        ("conv2", "Conv2d", "agrees", "agrees"),
        ("fc1", "Linear", "agrees", "differs"),
        ("fc2", "Linear", "differs", "differs"),
    ]
    first = found["layers"][0]["input"]
    assert {key: first[key] for key in ("operation", "shape", "own_shape")} == {
        "operation": "Conv2D",
        "shape": [360, 28, 28, 1],
        "own_shape": [360, 1, 28, 28],
    }
    plain = run("verify", "mappings/wrong.yaml", "--no-diagnosis", "--format", "json", at=example)
    assert "diagnosis" not in json.loads(plain.out)


USAGE = "usage: t2t [-h] [--version] COMMAND ...\nt2t: error: "


@pytest.mark.parametrize(
    ("arguments", "last"),
    [
        ([], f"{USAGE}the following arguments are required: COMMAND\n"),
        (["--frobnicate"], f"{USAGE}the following arguments are required: COMMAND\n"),
        (
            ["frobnicate", "small.yaml"],
            "T2T001 frobnicate is neither a command nor a file; t2t help lists the commands\n",
        ),
        (["chekc", "small.yaml"], "T2T001 chekc is neither a command nor a file; did you mean check\n"),
        (["small.yaml", "--frobnicate"], f"{USAGE}unrecognized arguments: --frobnicate\n"),
        (["small.yaml", "--forc"], f"{USAGE}unrecognized arguments: --forc\n"),
        (["inspect"], "t2t inspect: error: the following arguments are required: CHECKPOINT\n"),
        (["check"], "T2T001 there are no mappings under mappings/; name the mappings\n"),
        (
            ["check", "small.yaml", "--format", "xml"],
            "t2t check: error: argument --format: invalid choice: xml "
            "(choose from full, concise, json, github, sarif)\n",
        ),
        (["record", "small.yaml", "--timeout", "soon"], "argument --timeout: invalid float value: 'soon'\n"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_call_that_makes_no_sense_ends_with_2(project: Project, arguments: list[str], last: str) -> None:
    done = run(*arguments, at=project)

    assert (done.code, done.out) == (2, "")
    # Python 3.12 and later put no quotes around choices.
    assert done.err.replace("'", "").endswith(last.replace("'", ""))


def test_check_takes_every_mapping_under_mappings(project: Project) -> None:
    (project.folder / "mappings").mkdir()
    text = project.mapping.read_text().replace("checkpoint: ", "checkpoint: ../")
    for name in ("one.yaml", "two.yaml"):
        (project.folder / "mappings" / name).write_text(text)

    done = run("check", at=project)

    assert (done.code, done.out.splitlines()[-1]) == (0, "2 mappings checked: 2 notes")


def test_what_has_no_end_is_not_read(project: Project) -> None:
    os.mkfifo(project.folder / "pipe.yaml")
    for name in ("pipe.yaml", "/dev/zero"):
        done = run("check", name, at=project)

        line = f"{name}:1:1: T2T602 the mapping cannot be read: Not a regular file; name a mapping, a .yaml file"
        assert (done.code, done.out.splitlines()[0]) == (3, line)


def test_a_directory_that_is_gone_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    script = 'cd gone && rmdir ../gone && exec "$0" -m t2t --version'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["sh", "-c", script, sys.executable], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("t2t: the current directory does not exist any more\n")
    assert "Traceback" not in done.stderr


def test_a_file_with_a_commands_name_is_converted_by_another_spelling(project: Project) -> None:
    (project.folder / "check").write_text(project.mapping.read_text())

    for arguments in (["./check"], ["convert", "check"]):
        done = run(*arguments, at=project)
        assert (done.code, "wrote check.safetensors (700 B)\n" in done.out) == (0, True)
    assert run("check", at=project).code == 2


def in_process(code: str, *arguments: str, cwd: Path) -> Done:
    """The command line with some code run before it."""
    script = f"import sys\nimport t2t.api, t2t.cli, t2t.static\n{code}\nsys.exit(t2t.cli.main(sys.argv[1:]))"
    return python("-c", script, *arguments, cwd=cwd)


BUG = "def broken(*_, **__): raise ValueError('a\\x1b[31m value')\nt2t.static.checked = broken"


def test_a_bug_ends_with_70_and_one_line(project: Project) -> None:
    done = in_process(BUG, "check", "small.yaml", cwd=project.folder)

    line = "t2t: this is a bug in t2t: ValueError: a\\x1b[31m value; --debug shows where\n"
    assert (done.code, done.out, done.err) == (70, "", line)


def test_a_traceback_is_shown_with_debug_and_only_then(project: Project) -> None:
    """For a bug as for a finding; it comes first, so that the reason stands last."""
    bug = in_process(BUG, "check", "small.yaml", "--debug", cwd=project.folder)
    finding = run("verify", "small.yaml", "--debug", at=project)
    plain = run("verify", "small.yaml", at=project)

    assert (bug.code, finding.code) == (70, 1)
    for done, last in ((bug, "ValueError: a"), (finding, "t2t.problems.MappingError: small.yaml: T2T503")):
        assert "Traceback (most recent call last):\n" in done.err
        assert last in done.err
    assert bug.err.endswith("t2t: this is a bug in t2t: ValueError: a\\x1b[31m value; --debug shows where\n")
    assert finding.out == plain.out
    assert "Traceback" not in plain.out + plain.err


def test_a_path_reaches_no_terminal_as_a_command(project: Project) -> None:
    written = run("small.yaml", "-o", "a\x1b[31m.safetensors", at=project)
    refused = run("a\x1b[31m.yaml", at=project)

    assert (written.code, "wrote a\\x1b[31m.safetensors (700 B)\n" in written.out) == (0, True)
    assert (refused.code, refused.err.startswith("a\\x1b[31m.yaml:1:1: T2T602 ")) == (3, True)


def test_no_memory_is_no_bug(project: Project) -> None:
    code = "def full(*_, **__): raise MemoryError\nt2t.static.checked = full"

    done = in_process(code, "check", "small.yaml", cwd=project.folder)

    assert (done.code, done.err) == (3, "t2t: out of memory; nothing was written\n")


def test_warnings_count_when_asked_to(project: Project) -> None:
    shutil.copy(project.data, project.folder / "small.ckpt.data-00000-of-00007")
    warning = (
        "small.ckpt.index: T2T613: data files of another save (of 7 shards) lie beside those of this checkpoint (of 1 "
        "shards); they are not read: remove them\n"
    )

    for arguments in (["check", "small.yaml"], ["inspect", "small.ckpt"]):
        lax, strict = run(*arguments, at=project), run(*arguments, "--strict", at=project)
        assert (lax.code, strict.code) == (0, 1)
        assert warning in lax.out + lax.err
        assert lax.out == strict.out


# --- flags ---


def test_the_output_is_named_by_a_flag(project: Project) -> None:
    for flag in ("-o", "--output"):
        done = run("small.yaml", flag, "other.safetensors", at=project)
        assert (done.code, "wrote other.safetensors (700 B)\n" in done.out) == (0, True)
    assert not project.output.exists()


def test_another_checkpoint_is_named_by_a_flag(project: Project) -> None:
    (project.folder / "other").mkdir()
    other = small(project.folder / "other")
    store(other.folder, {name: np.zeros(2, np.float32) for name in ("dense_1/bias",)})
    finding = "small.yaml:9:8: T2T201 dense_1/bias is not a variable"

    for command in (["check"], [], ["explain"]):
        row = ["layers.0.bias"] if command == ["explain"] else []
        done = run(*command, "small.yaml", *row, "--checkpoint", "other/small.ckpt", at=project)
        assert done.code == 1
        assert (
            "small.yaml:7:8: T2T201 dense_0/bias is not a variable of the checkpoint; did you mean dense_1/bias"
            in done.out
        )
        assert finding not in done.out


def test_checksums_are_tested_unless_told_otherwise(project: Project) -> None:
    data = bytearray(project.data.read_bytes())
    data[0] ^= 1
    project.data.write_bytes(data)

    tested, told = run("small.yaml", at=project), run("small.yaml", "--checksums", at=project)
    untested = run("small.yaml", "--no-checksums", at=project)

    assert (tested.code, told.code, untested.code) == (3, 3, 0)
    assert "T2T608: dense_0/kernel: checksum mismatch" in tested.err
    assert load_file(project.output)["layers.0.weight"].tobytes() != project.state["layers.0.weight"].tobytes()


def test_imports_are_limited_by_a_flag_or_the_environment(project: Project) -> None:
    """A prefix is whole names: `sma` does not allow `small`."""
    refusal = (
        "small.yaml:2:8: T2T705 small:Small may not be imported: small is not under sma; "
        "--allow-import small allows it\n"
    )

    flag = run("small.yaml", "--allow-import", "sma", at=project)
    variable = t2t("small.yaml", cwd=project.folder, env={"T2T_ALLOW_IMPORT": "sma"})
    both = t2t("small.yaml", "--allow-import", "small", cwd=project.folder, env={"T2T_ALLOW_IMPORT": "sma"})

    assert (flag.code, flag.out, variable.code, variable.out) == (1, refusal, 1, refusal)
    assert both.code == 0


def test_nan_passes_only_when_asked_to(project: Project) -> None:
    values = {f"dense_{i}/{name}": a for i in (0, 1) for name, a in layer(project, i).items()}
    values["dense_1/bias"] = np.array([np.nan, np.inf], np.float32)
    store(project.folder, values)
    before = project.listing()

    done = run("small.yaml", at=project)

    assert done.code == 1
    assert done.out == (
        "small.yaml:9:8: T2T403 dense_1/bias holds 1 NaN and 1 Inf among 2 elements; if that is meant, give "
        "--allow-nonfinite\n"
    )
    assert project.listing() == before
    assert run("small.yaml", "--allow-nonfinite", at=project).code == 0
    assert load_file(project.output)["layers.1.bias"].tobytes() == values["dense_1/bias"].tobytes()


def layer(project: Project, i: int) -> dict[str, np.ndarray]:
    return {
        "kernel": np.ascontiguousarray(project.state[f"layers.{i}.weight"].T),
        "bias": project.state[f"layers.{i}.bias"],
    }


def test_an_unproven_file_says_so(example: Path) -> None:
    done = run("mappings/wrong.yaml", "--unproven", "-o", "unproven.safetensors", at=example)
    proven = run("mappings/madry.yaml", "-o", "proven.safetensors", at=example)

    assert (done.code, done.out.splitlines()[-1]) == (0, "not proven: --unproven")
    assert (proven.code, proven.out.splitlines()[-1]) == (0, "proven")
    assert metadata(example / "unproven.safetensors")["t2t.proof"] == "not proven: --unproven"
    assert metadata(example / "proven.safetensors")["t2t.proof"] == "proven"


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="np") as file:
        found: dict[str, str] = file.metadata()
        return found


def test_another_recording_is_named_by_a_flag(example: Path) -> None:
    done = run("verify", "mappings/madry.yaml", "--recording", "nowhere.npz", at=example)

    assert (done.code, done.out.splitlines()[0][:43]) == (1, "mappings/madry.yaml:20:1: T2T502 not proven")
    shutil.copy(example / "mappings" / "recordings" / "madry.npz", example / "copy.npz")
    assert run("verify", "mappings/madry.yaml", "--recording", "copy.npz", at=example).code == 0


# --- formats ---


def thirty_problems(project: Project) -> None:
    rows = "".join(f"- {{tf: missing_{i}, torch: layers.0.bias{i}}}\n" for i in range(30))
    project.mapping.write_text(project.mapping.read_text().partition("map:")[0] + f"map:\n{rows}")


def test_twenty_problems_are_shown_and_the_rest_counted(project: Project) -> None:
    thirty_problems(project)

    some, everything = (run("check", "small.yaml", *flags, at=project) for flags in ([], ["--all"]))

    assert some.out.splitlines()[20:] == ["and 15 more; --all shows them", "1 mapping checked: 34 errors, 1 note"]
    assert len(everything.out.splitlines()) == 36
    assert everything.out.splitlines()[:20] == some.out.splitlines()[:20]


def test_json_has_every_problem_and_its_whole_text(project: Project) -> None:
    thirty_problems(project)

    done = run("check", "small.yaml", "--format", "json", at=project)

    document = json.loads(done.out)
    assert (done.code, done.err, len(document["problems"])) == (1, "", 35)
    assert document["checked"] == ["small.yaml"]
    assert {
        "code": "T2T201",
        "severity": "error",
        "path": "small.yaml",
        "line": 6,
        "column": 8,
        "message": "missing_0 is not a variable of the checkpoint",
        "hint": "",
        "details": [],
    } in document["problems"]


def test_details_are_shown_in_full(example: Path) -> None:
    concise, full = (run("mappings/wrong.yaml", "--format", name, at=example) for name in ("concise", "full"))

    first, *details = full.out.splitlines()
    assert [first] == concise.out.splitlines()
    assert len(details) == 1
    assert details[0].startswith("    worst at [")


def codes(document: dict[str, Any]) -> list[str]:
    return [problem["code"] for problem in document["problems"]]


#: Arguments, what to look at in the document, and what has to be there.
JSON: dict[str, tuple[list[str], Callable[[dict[str, Any]], object], object]] = {
    "convert": (["mappings/madry.yaml"], lambda d: (d["output"], d["parameters"]), ("madry.safetensors", 8)),
    "proven": (["mappings/madry.yaml"], lambda d: d["proof"]["proven"], True),
    "unproven": (["mappings/madry.yaml", "--unproven"], lambda d: d["proof"], {"unproven": "--unproven"}),
    "refused": (["mappings/wrong.yaml"], codes, ["T2T501"]),
    "inspect": (["inspect", "mappings/checkpoints/madry"], lambda d: d["variables"][4]["shape"], [3136, 1024]),
    "check": (["check", "mappings/madry.yaml"], codes, []),
    "explain": (
        ["explain", "mappings/madry.yaml", "fc1.weight"],
        lambda d: d["parts"][0]["axes"],
        ["(h w c) o -> o (c h w)"],
    ),
    "verify": (["verify", "mappings/madry.yaml"], lambda d: (d["proven"], d["metric"]["count"]), (True, 360)),
    "verified": (["verify", "mappings/madry.yaml"], codes, []),
    "verify, wrong": (["verify", "mappings/wrong.yaml"], lambda d: (d["proven"], codes(d)), (False, ["T2T501"])),
    "mutate": (["mutate", "mappings/madry.yaml"], lambda d: (d["caught"], d["survived"], codes(d)), (9, 0, [])),
    "unreadable": (["nowhere.yaml"], codes, ["T2T602"]),
}


@pytest.mark.parametrize(("arguments", "picked", "expected"), JSON.values(), ids=JSON)
def test_json_is_one_document_on_stdout_and_nothing_else(
    example: Path, arguments: list[str], picked: Callable[[dict[str, Any]], object], expected: object
) -> None:
    done = run(*arguments, "--format", "json", at=example)

    assert done.err == ""
    assert picked(json.loads(done.out)) == expected
    assert done.code == run(*arguments, at=example).code


@pytest.mark.parametrize(
    ("env", "flags", "is_json"),
    [
        ({}, [], False),
        ({"T2T_FORMAT": "json"}, [], True),
        ({"T2T_FORMAT": "concise"}, ["--format", "json"], True),
        ({"T2T_FORMAT": "json"}, ["--format", "concise"], False),
        ({"T2T_FORMAT": ""}, [], False),
    ],
)
def test_the_environment_gives_a_format_and_the_flag_wins(
    project: Project, env: Mapping[str, str], flags: list[str], is_json: bool
) -> None:
    done = t2t("check", "small.yaml", *flags, cwd=project.folder, env=env)

    assert (done.code, done.out.startswith("{\n")) == (0, is_json)


def test_an_unknown_format_in_the_environment_is_a_usage_error(project: Project) -> None:
    done = t2t("check", "small.yaml", cwd=project.folder, env={"T2T_FORMAT": "xml"})

    assert (done.code, done.out) == (2, "")
    assert done.err == "T2T001 unknown format xml; formats are full, concise, json, github, sarif\n"


# --- help ---


def test_the_version_is_the_packages(tmp_path: Path) -> None:
    import t2t as package

    done = t2t("--version", cwd=tmp_path)

    assert (done.code, done.out) == (0, f"t2t {package.__version__}\n")


def test_the_console_script_is_the_same_command(project: Project) -> None:
    script = Path(sys.executable).with_name("t2t")
    if not script.exists():
        pytest.skip("t2t is not installed as a script")
    done = subprocess.run(
        [script, "check", "small.yaml"], cwd=project.folder, env=ENVIRONMENT, capture_output=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == f"{NOT_CHECKED}1 mapping checked: 1 note\n"
