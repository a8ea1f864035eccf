"""What the console makes of the facts: words, tables, colours; on a real terminal (a pty) and elsewhere."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from t2t import results
from t2t.console import Console, sized
from t2t.problems import Location, Problem, UsageError
from t2t.proof.compare import Comparison, OutputDelta
from t2t.proof.diagnosis import Diagnosis, Repair
from t2t.proof.difference import Call, End, Trace
from t2t.proof.layers import Inside, Layer
from t2t.proof.recording import Draw, Recording
from t2t.verification import Verify
from tests.checkpoints.writing import Tensor, bundle, floats
from tests.commands import ENVIRONMENT, Done, Project, server, small, store

#: A name that would be markup to rich, a command to a terminal, and two lines to whoever counts lines.
EVIL = "a[0]/[red]b[/red]/\x1b[31m\x9b2J\r\n:smile:"
SHOWN = r"a[0]/[red]b[/red]/\x1b[31m\x9b2J\r\n:smile:"
#: What a terminal may be told beside text: colours, and what a bar needs to draw itself again.
ALLOWED = re.compile(r"\x1b\[(?:[0-9;]*m|\?25[hl]|[12]?K|\d*A)|[\r\n]")


def on_a_terminal(
    *arguments: str, cwd: Path, terminals: Sequence[str] = ("stdout", "stderr"), env: Mapping[str, str] | None = None
) -> Done:
    """`python -m t2t` with a pty of its own for each of the streams named; the others are pipes."""
    ours, theirs = {}, {}
    for name in terminals:
        ours[name], theirs[name] = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "t2t", *arguments],
        cwd=cwd,
        env={**ENVIRONMENT, "TERM": "xterm-256color", "COLUMNS": "100", **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=theirs.get("stdout", subprocess.PIPE),
        stderr=theirs.get("stderr", subprocess.PIPE),
    )
    for fd in theirs.values():
        os.close(fd)
    told = {name: everything(fd) for name, fd in ours.items()}
    for name, stream in (("stdout", process.stdout), ("stderr", process.stderr)):
        if stream is not None:
            told[name] = stream.read().decode()
            stream.close()
    return Done(process.wait(timeout=60), told["stdout"], told["stderr"])


def everything(fd: int) -> str:
    text = b""
    while True:
        try:
            piece = os.read(fd, 4096)
        except OSError:  # how Linux says that the other side is closed
            piece = b""
        if not piece:
            os.close(fd)
            return text.decode().replace("\r\n", "\n")
        text += piece


def plain(text: str) -> str:
    """The text without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def first_column(text: str) -> str:
    """The name in a table of one variable, put together again where it was folded."""
    lines = plain(text).splitlines()
    rule = next(i for i, line in enumerate(lines) if line.strip() and not line.strip(" -─"))
    return "".join(line.strip().split("  ")[0] for line in lines[rule + 1 : -1])


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return small(tmp_path)


# --- a terminal ---


def test_a_terminal_gets_a_table(project: Project) -> None:
    done = on_a_terminal("inspect", "small.ckpt", cwd=project.folder)

    lines = [line.rstrip() for line in plain(done.out).splitlines() if line.strip()]
    assert (done.code, done.err) == (0, "")
    assert lines[0].split() == ["variable", "dtype", "shape", "elements", "size"]
    assert lines[2].split() == ["dense_0/bias", "float32", "[3]", "3", "12", "B"]
    assert lines[-1] == "all: 4 variables, 23 elements, 92 B"


def test_a_pipe_gets_lines(project: Project) -> None:
    done = server().run("inspect", "small.ckpt", cwd=project.folder)

    assert done.out.splitlines()[:3] == [
        "variable        dtype    shape   elements  size",
        "dense_0/bias    float32  [3]            3  12 B",
        "dense_0/kernel  float32  [4, 3]        12  48 B",
    ]
    assert "\x1b" not in done.out


@pytest.mark.parametrize("term", ["xterm-256color", "dumb", ""])
def test_a_name_is_text_whatever_it_holds(tmp_path: Path, term: str) -> None:
    """No markup, no emoji, no command reaches the terminal; the table has the name as a message has it."""
    store(tmp_path, {EVIL: np.zeros(2, np.float32)})
    wide = {"TERM": term, "COLUMNS": "150"}

    done = on_a_terminal("inspect", "small.ckpt", cwd=tmp_path, env=wide)

    assert done.code == 0
    assert first_column(done.out) == SHOWN
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", ALLOWED.sub("", done.out))


def test_a_long_name_folds_and_loses_nothing(tmp_path: Path) -> None:
    name = "/".join(f"block_{i}" for i in range(14))
    store(tmp_path, {name: np.zeros(2, np.float32)})

    done = on_a_terminal("inspect", "small.ckpt", cwd=tmp_path, env={"COLUMNS": "60"})

    assert first_column(done.out) == name


def test_numbers_are_never_broken_however_narrow_the_terminal(project: Project) -> None:
    """There is no table then, but the lines that a pipe gets."""
    piped = server().run("inspect", "small.ckpt", "--values", "**", cwd=project.folder)
    narrow, wide = (
        on_a_terminal("inspect", "small.ckpt", "--values", "**", cwd=project.folder, env={"COLUMNS": columns})
        for columns in ("60", "140")
    )

    assert plain(narrow.out).replace("\r", "") == piped.out
    assert [line.split() for line in plain(wide.out).splitlines() if "dense" in line] == [
        line.split() for line in piped.out.splitlines()[1:]
    ]


def test_a_problem_on_a_terminal_is_one_line_in_red(tmp_path: Path) -> None:
    """And `[0]` stays in it; the same text as in a pipe, details under it."""
    project = small(tmp_path)
    project.edit("tf: dense_0/bias", "tf: 'dense[0]/[red]bias'")
    piped = server().run("check", "small.yaml", cwd=tmp_path)

    done = on_a_terminal("check", "small.yaml", cwd=tmp_path)

    assert "dense[0]/[red]bias is not a variable of the checkpoint" in plain(done.out)
    assert plain(done.out) == piped.out
    assert re.search(r"\x1b\[31msmall.yaml:7:8: T2T201 ", done.out)


def test_findings_in_a_pipe_stay_plain_where_stderr_is_a_terminal(project: Project) -> None:
    project.edit("dense_0/bias", "dense_0/bais")

    done = on_a_terminal("small.yaml", cwd=project.folder, terminals=["stderr"])

    assert "\x1b" not in done.out
    assert done.out.startswith("small.yaml:7:8: T2T201 dense_0/bais is not")


def test_progress_goes_to_the_terminal_behind_stderr(tmp_path: Path) -> None:
    """The bar is drawn on stderr and wiped; stdout holds the results alone; in JSON there is none."""
    project = small(tmp_path, (256, 256))
    piped = server().run("small.yaml", cwd=tmp_path)

    done = on_a_terminal("small.yaml", cwd=tmp_path, terminals=["stderr"])
    document = on_a_terminal("small.yaml", "--format", "json", cwd=tmp_path, terminals=["stderr"])

    assert (done.code, done.out) == (0, piped.out)
    assert "converting" in plain(done.err)
    assert "note: T2T700 importing small:Small" in plain(done.err)
    assert (document.code, document.err) == (0, "")
    assert json.loads(document.out)["bytes"] == project.output.stat().st_size


# --- words ---


def test_explain_says_how_each_kind_of_row_fills_its_parameter(tmp_path: Path) -> None:
    project = small(tmp_path, (5, 4))
    (tmp_path / "small.py").write_text(
        f"{(tmp_path / 'small.py').read_text()}"
        "        self.again = self.layers[0]\n"
        "        self.norm = nn.BatchNorm1d(4)\n"
    )
    rows = [
        "- {torch: again.weight, tie: layers.0.weight}",
        "- {torch: norm.weight, fill: 1}",
        "- {torch: norm.num_batches_tracked, keep: init, why: counts steps}",
        "- {tf: dense_0/bias, torch: norm.bias, dtype: float64}",
    ]
    project.mapping.write_text(project.mapping.read_text() + "\n".join(rows) + "\n")
    project.edit("torch: layers.0.bias", "torch: layers.0.bias, reuse: true")
    project.edit("dtype: float64", "dtype: float64, reuse: true")
    expected = {
        "layers.0.weight": (
            "layers.0.weight comes from the variable dense_0/kernel, by small.yaml:6:3\n"
            "  the variable is float32 [5, 4]\n"
            "  its axes move: i o -> o i, where i = 5, o = 4\n"
            "  the parameter becomes float32 [4, 5]\n"
            "  again.weight is another name of it, by small.yaml:8:3\n"
        ),
        "again.weight": "again.weight is another name of the Parameter layers.0.weight, by small.yaml:8:3\n",
        "norm.weight": "norm.weight is filled with 1, by small.yaml:9:3\n",
        "norm.num_batches_tracked": (
            "norm.num_batches_tracked keeps the value that the module was built with, by small.yaml:10:3: counts "
            "steps\n"
        ),
        "norm.bias": (
            "norm.bias comes from the variable dense_0/bias, by small.yaml:11:3\n"
            "  the variable is float32 [4]\n"
            "  cast from float32 to float64\n"
            "  its elements stay in their order\n"
            "  the parameter becomes float64 [4]\n"
        ),
    }
    for parameter, words in expected.items():
        done = server().run("explain", "small.yaml", parameter, cwd=tmp_path)
        assert (done.code, done.out, done.err) == (0, words, "")


def test_explain_of_a_row_that_does_not_fit_says_why_not(tmp_path: Path) -> None:
    """However the row is spread over lines."""
    small(tmp_path)
    header = (tmp_path / "small.yaml").read_text().partition("map:")[0]
    bad = {
        "- torch: layers.0.weight\n  axes: i o p -> o i p\n  tf: dense_0/kernel\n": (
            "small.yaml:7:9: T2T302 layers.0.weight: axes 'i o p -> o i p' are for rank 3, the variable has rank 2: "
            "[4, 3]; name each axis of the variable once on the left side\n"
        ),
        "- torch: layers.0.weight\n  axes: i o -> o i\n  tf: dense_9/kernel\n": (
            "small.yaml:8:7: T2T201 dense_9/kernel is not a variable of the checkpoint; did you mean dense_1/kernel, "
            "dense_0/kernel\n"
        ),
        "- torch: layers.0.weight\n  tf: dense_0/kernel\n  permute:\n  - 1\n  - x\n": (
            "small.yaml:10:5: T2T106 expected an integer, got 'x'\n"
        ),
    }
    for row, line in bad.items():
        (tmp_path / "small.yaml").write_text(f"{header}map:\n{row}")
        done = server().run("explain", "small.yaml", "layers.0.weight", cwd=tmp_path)
        assert (done.code, done.err) == (1, "")
        assert line in done.out
        assert "keeps the value" not in done.out


def test_a_parameter_that_no_row_writes_is_a_finding(project: Project) -> None:
    done = server().run("explain", "small.yaml", "layers.0.wieght", cwd=project.folder)

    assert (done.code, done.err) == (1, "")
    assert done.out == (
        "small.yaml: T2T202: 'layers.0.wieght' is written by no row; did you mean layers.0.weight, layers.1.weight, "
        "layers.0.bias\n"
    )


def test_every_element_of_both_sides_is_accounted_for(tmp_path: Path) -> None:
    project = small(tmp_path, (5, 4))
    (tmp_path / "small.py").write_text(
        f"{(tmp_path / 'small.py').read_text()}"
        "        self.again = self.layers[0]\n"
        "        self.norm = nn.BatchNorm1d(4)\n"
    )
    variables = {"dense_0/kernel": project.state["layers.0.weight"].T, "dense_0/bias": project.state["layers.0.bias"]}
    more = {"dense_0/bias/Adam": np.zeros(4, np.float32), "step_a": np.zeros(1, np.float32)}
    store(tmp_path, {**variables, **more, "step_b": np.zeros(1, np.float32)})
    rows = [f"- {{torch: again.{name}, tie: layers.0.{name}}}" for name in ("weight", "bias")]
    rows += [f"- {{torch: norm.{n}, fill: 1}}" for n in ("weight", "bias", "running_mean", "running_var")]
    rows += ["- {torch: norm.num_batches_tracked, keep: init, why: a counter}"]
    rows += ["ignore:", "- {slots: true, why: Adam's}", "- {tf: step_*, why: a counter}"]
    project.mapping.write_text(project.mapping.read_text() + "\n".join(rows) + "\n")

    done = server().run("small.yaml", cwd=tmp_path)

    assert (done.code, done.out.splitlines()[:2]) == (
        0,
        [
            "9 parameters (65 elements): 2 from variables, 2 tied, 4 filled, 1 kept",
            "5 variables: 2 mapped (24 elements), 1 ignored: Adam's, 2 ignored: a counter",
        ],
    )


def slots(folder: Path) -> None:
    """Two variables with an optimizer's slots and counter, and the graph's word on which is trained."""
    bundle(
        folder / "small.ckpt",
        {
            "a": floats(1, 2),
            "a/Adam": floats(1, 2),
            "a/Adam_1": floats(1, 2),
            "b": Tensor(3, (3, 1), bytes(12)),
            "beta1_power": floats(1, shape=()),
            "s": Tensor(7, (1,), b"\x01" + b"\0" * 4 + b"x"),
        },
    )


def test_slots_are_folded_and_totals_are_right(tmp_path: Path) -> None:
    slots(tmp_path)

    some = server().run("inspect", "small.ckpt", cwd=tmp_path)
    everything = server().run("inspect", "small.ckpt", "--all", cwd=tmp_path)

    assert some.out.splitlines() == [
        "variable  dtype    shape   elements  size",
        "a         float32  [2]            2   8 B",
        "b         int32    [3, 1]         3  12 B",
        "s         string   [1]            1   6 B",
        "float32: 4 variables, 7 elements, 28 B",
        "int32: 1 variable, 3 elements, 12 B",
        "string: 1 variable, 1 element, 6 B",
        "optimizer slots and counters: 3 variables, 5 elements, 20 B; --all lists them",
        "all: 6 variables, 11 elements, 46 B",
    ]
    assert [line.split()[0] for line in everything.out.splitlines()] == [
        "variable", "a", "a/Adam", "a/Adam_1", "b", "beta1_power", "s", "float32:", "int32:", "string:", "all:"
    ]  # fmt: skip


def test_inspect_says_which_variables_are_trained(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[1] / "mappings" / "checkpoints" / "madry"

    done = server().run("inspect", str(root), cwd=tmp_path)
    document = json.loads(server().run("inspect", str(root), "--format", "json", cwd=tmp_path).out)

    assert "trainable: 8 variables, 3,274,634 elements, 13.1 MB" in done.out.splitlines()
    trained = {entry["name"]: entry["trainable"] for entry in document["variables"]}
    assert trained["Variable_7"] is True
    assert trained["global_step"] is False
    assert {entry["name"]: entry["slot_of"] for entry in document["variables"]}["beta1_power"] == ""


def test_json_has_any_name_as_it_is(tmp_path: Path) -> None:
    """A name that is not UTF-8 too: JSON's escapes hold what Python makes of it."""
    names = [EVIL, "größe", "\udcff\udc80"]
    store(tmp_path, {name: np.zeros(2, np.float32) for name in names})

    done = server().run("inspect", "small.ckpt", "--format", "json", cwd=tmp_path)

    assert sorted(entry["name"] for entry in json.loads(done.out)["variables"]) == sorted(names)


@pytest.mark.parametrize(
    ("nbytes", "size"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (12_845_056, "12.8 MB"), (5 * 10**12, "5000.0 GB")],
)
def test_sizes_are_in_decimal_units(nbytes: int, size: str) -> None:
    assert sized(nbytes) == size


# --- the console itself ---


def problem(number: int, severity: str = "error") -> Problem:
    return Problem("T2T201", f"fact {number}", Location("m.yaml", number, 1), "", severity, ("one", "two"))  # type: ignore[arg-type]


def test_findings_are_counted_by_severity(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console("concise")
    console.findings([problem(1), problem(2, "warning"), problem(3, "warning"), problem(4, "note")], ["m.yaml"])
    console.findings([], ["m.yaml", "n.yaml"])

    out = capsys.readouterr().out.splitlines()
    assert out[4:] == ["1 mapping checked: 1 error, 2 warnings, 1 note", "2 mappings checked: no problems"]


def test_full_shows_details_and_concise_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    Console("concise").problems([problem(1)])
    concise = capsys.readouterr()
    Console("full").problems([problem(1)])
    full = capsys.readouterr()

    assert (concise.out, concise.err) == ("m.yaml:1:1: T2T201 fact 1\n", "")
    assert (full.out, full.err) == ("m.yaml:1:1: T2T201 fact 1\n    one\n    two\n", "")


@pytest.mark.parametrize(("count", "told"), [(0, ""), (1, ", 1 layer"), (1200, ", 1,200 layers")])
def test_a_recording_is_told_with_how_many_layers_it_has(
    capsys: pytest.CaptureFixture[str], count: int, told: str
) -> None:
    draw = Draw({"x": np.zeros(2)}, {"y": np.zeros((2, 3))})
    inside = Inside((Layer("o", "Add", ("v",), None, None),) * count)
    made = Recording({}, (draw, draw), None, {"tensorflow": "2.21.0", "t2t": "0.1.0"}, steps=2, inside=inside)
    results.recording(Console("concise"), "r.npz", made)
    results.recording(Console("json"), "r.npz", made)
    concise, document = capsys.readouterr().out.split("\n", 1)

    assert concise == f"wrote r.npz: 1 draw, 2 steps each, of y [2, 3]{told}, by tensorflow 2.21.0, t2t 0.1.0"
    assert json.loads(document) == {
        "recording": "r.npz",
        "key": made.key,
        "draws": 1,
        "steps": 2,
        "outputs": {"y": [2, 3]},
        "layers": count,
    }


def test_what_could_not_be_read_takes_everything_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    unreadable = Problem("T2T602", "cannot be opened", Location("c.index"))
    Console("concise").problems([problem(1), unreadable])

    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "m.yaml:1:1: T2T201 fact 1\nc.index: T2T602: cannot be opened\n")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(UsageError) as error:
        Console("yaml")

    assert str(error.value) == "T2T001 unknown format yaml; formats are full, concise, json, github, sarif"


# --- a diagnosis ---


def compared(diagnosis: Diagnosis | None) -> Comparison:
    """An output that fails, and why."""
    verify = Verify(Location("m.yaml", 9, 1), (), None, (), {}, {}, 1, 1e-5, 1e-6, None, "")  # type: ignore[arg-type]
    fails = OutputDelta("y", 0, (1,), 1.0, 1.0, 1e-5, (0,), 0.0, 1.0, holds=False)
    return Comparison((fails,), None, verify, diagnosis=diagnosis)


def diagnosed(count: int = 1) -> Diagnosis:
    """Nothing but evil names."""
    end = End(EVIL, (2,), (2,), 0.5, 1.0, 1e-5, "differs")
    calls = tuple(Call(EVIL, number, "Linear", None, end) for number in range(count))
    return Diagnosis(EVIL, Trace(calls, (), ()), (Repair(EVIL),), True, (EVIL,))


@pytest.mark.parametrize("shape", ["concise", "full", "json"])
@pytest.mark.parametrize("passes", [True, False])
def test_no_name_of_a_diagnosis_is_a_command(capsys: pytest.CaptureFixture[str], shape: str, passes: bool) -> None:
    comparison = compared(replace(diagnosed(), passes=passes))
    results.comparison(Console(shape), comparison, comparison.problems())
    told = capsys.readouterr()

    assert told.err == ""
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", told.out)
    if shape == "json":
        found = json.loads(told.out)["diagnosis"]
        assert (found["place"], found["tried"], found["layers"][0]["output"]["operation"]) == (EVIL, [EVIL], EVIL)
    else:
        assert told.out.splitlines()[3].split("  ")[0] == SHOWN
        assert told.out.count(SHOWN) >= 4


def test_concise_shows_the_layers_around_and_full_all(capsys: pytest.CaptureFixture[str]) -> None:
    comparison = compared(diagnosed(12))
    results.comparison(Console("concise"), comparison, [])
    concise = capsys.readouterr().out
    results.comparison(Console("full"), comparison, [])
    full = capsys.readouterr().out

    assert (concise.count("differs"), concise.count("...")) == (5, 1)
    assert (full.count("differs"), full.count("...")) == (13, 0)


def test_without_a_diagnosis_there_is_the_verdict_alone(capsys: pytest.CaptureFixture[str]) -> None:
    results.comparison(Console("full"), compared(None), [])
    assert capsys.readouterr().out == "y [1]: max|Δ| 1 exceeds 1e-05, where max|TF| is 1\nnot proven\n"
    results.comparison(Console("json"), compared(None), [])
    assert "diagnosis" not in json.loads(capsys.readouterr().out)
