"""What is said of a mapping that is no longer what its lock says: every text, at its line; and what is not said."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from t2t import api, checkpoints
from t2t import mapping as mapping_file
from t2t.problems import MappingError
from t2t.proof import origin
from t2t.proof import recording as recordings
from t2t.proof.compare import Comparison, OutputDelta
from t2t.review import lock as locks
from t2t.review import locking
from tests.commands import small
from tests.given import lines
from tests.proof.test_mutate import Array, folder, record, write

__all__ = ["folder"]  # the fixture

HEAD = """\
with: {unused: false}
require:
- {torch: first, in_features: 3}
map:
"""
ROWS = "".join(
    f"- {{tf: {name}/{variable}, torch: {name}.{parameter}{axes}}}\n"
    for name in ("first", "second")
    for variable, parameter, axes in (("kernel", "weight", ", axes: i o -> o i"), ("bias", "bias", ""))
)
MEANT = "; if that is meant, run t2t lock m.yaml"
AGAIN = "; run t2t record m.yaml"


def drawn() -> dict[str, Array]:
    draw = np.random.default_rng(0).uniform(0.5, 1, (2, 4, 3)).astype(np.float32)
    return {f"{name}/{part}": draw[n, :3] if part == "kernel" else draw[n, 3]
            for n, name in enumerate(("first", "second")) for part in ("kernel", "bias")}  # fmt: skip


def net(values: dict[str, Array], x: Array) -> Array:
    hidden = np.maximum(x @ values["first/kernel"] + values["first/bias"], 0)
    return np.asarray(hidden @ values["second/kernel"] + values["second/bias"])


@pytest.fixture
def locked(folder: Path) -> Path:
    """m.yaml, proven and locked. Its rows stand in the lines 8 to 11, its verify section in 12 to 14."""
    values = drawn()
    write("m", "Net", HEAD + ROWS, values)
    record("m", lambda x: net(values, x))
    api.lock("m.yaml")
    return folder


def edit(old: str, new: str) -> None:
    text = Path("m.yaml").read_text()
    assert old in text
    Path("m.yaml").write_text(text.replace(old, new, 1))


def found() -> list[str]:
    return lines(api.check("m.yaml"))


def test_what_was_just_locked_is_not_stale(locked: Path) -> None:
    assert found() == []


STALE: dict[str, tuple[str, str, list[str]]] = {
    "a row": (
        "first.weight, axes: i o -> o i",
        "first.weight, axes: i o -> i o",
        [f"8:3: T2T508 first.weight is not what it was when it was locked{MEANT}"],
    ),
    "two rows": (
        "first.bias}\n- {tf: second/kernel, torch: second.weight, axes: i o -> o i}",
        "first.bias, flip: [0]}\n- {tf: second/kernel, torch: second.weight, permute: [1, 0], flip: [0]}",
        [
            f"9:3: T2T508 first.bias is not what it was when it was locked{MEANT}",
            f"10:3: T2T508 second.weight is not what it was when it was locked{MEANT}",
        ],
    ),
    "the dtype of the file": (
        "map:\n",
        "output: {dtype: bfloat16}\nmap:\n",
        [
            f"{line}:3: T2T508 {name} is not what it was when it was locked{MEANT}"
            for line, name in enumerate(("first.weight", "first.bias", "second.weight", "second.bias"), 9)
        ],
    ),
    "the model": (
        "models:Net",
        "models:Probe",
        [
            f"2:8: T2T508 the lock is of the model models:Net, the mapping says models:Probe{MEANT}",
            "7:1: T2T210 parameters not checked: the lock cannot be used",
        ],
    ),
    "an argument": (
        "unused: false",
        "unused: true",
        [
            f"2:8: T2T508 the lock is of a model built with another unused{MEANT}",
            "7:1: T2T210 parameters not checked: the lock cannot be used",
        ],
    ),
    "an argument that Python takes for the same": (
        "unused: false",
        "unused: 0",
        [
            f"2:8: T2T508 the lock is of a model built with another unused{MEANT}",
            "7:1: T2T210 parameters not checked: the lock cannot be used",
        ],
    ),
    "more arguments": (
        "unused: false",
        "e: 1, d: 1, c: 1, b: {x: [1]}",
        [
            f"2:8: T2T508 the lock is of a model built with another b, c, d and 2 more{MEANT}",
            "7:1: T2T210 parameters not checked: the lock cannot be used",
        ],
    ),
    "what variables go by": (
        "{checkpoint: c}",
        "{checkpoint: c, names: full_name}",
        [
            f"3:1: T2T508 the lock goes by the variables' key, the mapping by their full_name{MEANT}",
            "7:1: T2T210 parameters not checked: the lock cannot be used",
        ],
    ),
    "a requirement that is not met": (
        "in_features: 3",
        "in_features: 4",
        ["6:31: T2T505 first.in_features was 3 when it was locked, but require says 4; build it so and run t2t lock "
         "m.yaml"],
    ),
    "an attribute that the lock does not know": (
        "in_features: 3",
        "in_features: 3, out_features: 3",
        [f"6:48: T2T508 the lock knows no out_features of first{MEANT}"],
    ),
    "a requirement that the lock does not know": (
        "torch: first, in_",
        "torch: '*', in_",
        [f"6:11: T2T508 the lock knows nothing of require *{MEANT}"],
    ),
    "inputs": (
        "[-1, 1]",
        "[-1, 2]",
        [
            f"12:1: T2T508 the lock's proof was made from other inputs{MEANT}",
            f"12:1: T2T502 recording recordings/m.npz was made from other inputs{AGAIN}",
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "said"), STALE.values(), ids=STALE)
def test_what_changed_is_told_at_its_line(locked: Path, old: str, new: str, said: list[str]) -> None:
    edit(old, new)

    assert found() == said


NOT_STALE = {
    "a comment": ("map:\n", "# of a reviewer\nmap:  # and here\n"),
    "other names of axes": ("i o -> o i", "x y -> y x"),
    "a permutation": ("axes: i o -> o i", "permute: [1, 0]"),
    "a dtype that is the same": ("first.bias}", "first.bias, dtype: float32}"),
    "another order": (ROWS, "".join(reversed(ROWS.splitlines(keepends=True)))),
    "a recipe": (
        "- {tf: first/kernel, torch: first.weight, axes: i o -> o i}\n- {tf: first/bias, torch: first.bias}\n",
        "- {tf: first, torch: first, use: dense}\n",
    ),
    "letters": (f"map:\n{ROWS}", "for: {n: [first, second]}\nmap:\n- {tf: <n>, torch: <n>, use: dense}\n"),
    "a requirement less": ("require:\n- {torch: first, in_features: 3}\n", ""),
    "a tolerance that was loosened": ("verify:\n", "verify:\n  rel: 0.1\n"),
    "what runs at the module": ("reference:", "torch: {arguments: {x: x}}\n  reference:"),
}


@pytest.mark.parametrize(("old", "new"), NOT_STALE.values(), ids=NOT_STALE)
def test_what_means_the_same_is_not_stale(locked: Path, old: str, new: str) -> None:
    edit(old, new)

    assert found() == []


def test_a_tolerance_that_was_tightened_below_what_was_found(locked: Path) -> None:
    figures = locks.read("m.lock.json").proof.outputs["y"]
    assert 0 < figures.max_delta < figures.tolerance
    edit("verify:\n", f"verify:\n  rel: 0.0\n  abs: {2 * figures.max_delta!r}\n")
    loose = found()
    edit(f"abs: {2 * figures.max_delta!r}", "abs: 1.0e-15")

    was = f"max|Δ| was {figures.max_delta:g} when it was locked"
    assert loose == []
    assert found() == [f"12:1: T2T508 y: {was}, now 1e-15 is asked for{MEANT}"]


def test_figures_near_their_tolerance_are_not_stale_for_being_rounded(locked: Path) -> None:
    """max|Δ| 1.06e-6 <= 1.094e-6 is written as 1.1e-06 where max|TF| is 1, and 0.45e-7 + 1e-6 x 1 is 1.0e-06."""
    edit("verify:\n", "verify:\n  rel: 1.0e-6\n  abs: 4.5e-8\n")
    lock = locks.read("m.lock.json")
    delta = OutputDelta("y", 0, (1,), 1.06e-6, 1.049, 1.094e-6, (0,), 0.0, 0.0, holds=True)
    made_from: Any = SimpleNamespace(made_from=lock.proof.made_from)
    read, _ = mapping_file.read(Path("m.yaml").read_bytes(), "m.yaml")
    assert read is not None
    assert read.verify is not None
    locking.save(replace(lock, proof=locking.proof(made_from, Comparison((delta,), None, read.verify))))

    assert locks.read("m.lock.json").proof.outputs["y"].max_delta == 1.1e-6
    assert found() == []


def test_a_proof_of_a_mapping_that_asks_for_none_and_none_of_one_that_does(locked: Path) -> None:
    text = Path("m.yaml").read_text()
    Path("m.yaml").write_text(text.partition("verify:")[0])
    without = found()
    api.lock("m.yaml")
    Path("m.yaml").write_text(text)

    assert without == [f"7:1: T2T508 the lock holds a proof, the mapping has no verify section{MEANT}"]
    assert found() == [
        "12:1: T2T502 the lock is not proven: the mapping has no verify section; run t2t lock m.yaml where its "
        "recording is"
    ]
    assert [problem.severity for problem in api.check("m.yaml")] == ["warning"]


def test_other_weights(locked: Path) -> None:
    """By their checksums, dtypes and shapes, without reading one; the recording is of the weights before."""
    values = drawn()
    write("m", "Net", HEAD + ROWS, {**values, "first/kernel": values["first/kernel"] + 1})
    recording = f"12:1: T2T502 recording recordings/m.npz was made from another checkpoint{AGAIN}"

    assert found() == [f"3:1: T2T508 the lock is of other weights: first/kernel differs{MEANT}", recording]
    write(
        "m",
        "Net",
        HEAD + ROWS,
        {f"{name}": value + 1 for name, value in [*values.items(), ("z", values["first/bias"])]},
    )
    several, unused, *_ = found()
    assert several == (
        f"3:1: T2T508 the lock is of other weights: first/bias, first/kernel, second/bias and 2 more differ{MEANT}"
    )
    assert " T2T205 variable z " in unused
    details = next(problem.details for problem in api.check("m.yaml") if problem.code == "T2T508")
    assert details == ("first/bias", "first/kernel", "second/bias", "second/kernel", "z")


def test_a_row_of_many_parameters_names_three_and_many_rows_are_one_problem(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = small(folder, [2] * 7)
    sys.modules.pop("small", None)
    api.lock("small.yaml")
    written = project.mapping.read_text()
    rows = "for: {i: 0..5}\nmap:\n- {tf: dense_<i>/kernel, torch: layers.<i>.weight}\n"
    rows += "- {tf: dense_<i>/bias, torch: layers.<i>.bias, scale: 2}\n"
    project.mapping.write_text(written.partition("map:")[0] + rows.replace("weight}", "weight, axes: i o -> o i}"))

    (problem,) = api.check("small.yaml")
    project.mapping.write_text(written.replace("map:", "output: {dtype: float16}\nmap:"))
    (whole,) = api.check("small.yaml")

    meant = "; if that is meant, run t2t lock small.yaml"
    assert str(problem) == (
        "small.yaml:8:3: T2T508 layers.0.bias, layers.1.bias, layers.2.bias and 3 more are not what they were when "
        f"locked{meant}"
    )
    assert problem.details == tuple(f"layers.{i}.bias" for i in range(6))
    assert str(whole) == (
        "small.yaml:6:1: T2T508 12 of 12 parameters are not what they were when they were locked: layers.0.weight, "
        f"layers.0.bias, layers.1.weight and 9 more{meant}"
    )
    assert len(whole.details) == 12


# --- inputs and recordings ---


def with_files() -> None:
    """m.yaml with an input and labels from files, recorded and locked."""
    np.savez("x.npz", x=np.ones((5, 3), np.float32), labels=np.zeros(5, np.int64))
    labels = "  labels: {file: x.npz, member: labels, metric: accuracy}\n"
    write("m", "Net", HEAD + ROWS, drawn())
    edit("{shape: [5, 3], range: [-1, 1]}", "{file: x.npz, member: x}")
    Path("m.yaml").write_text(Path("m.yaml").read_text() + labels)
    read, _ = mapping_file.read(Path("m.yaml").read_bytes(), "m.yaml")
    assert read is not None
    assert read.verify is not None
    with checkpoints.open("c") as opened:
        made_from = origin.parts(read.verify, opened.inventory.digest) | {"graph": "of a file that is gone"}
    x = np.ones((5, 3), np.float32)
    draw = recordings.Draw({"x": x}, {"y": net(drawn(), x)})
    recordings.save("recordings/m.npz", recordings.Recording(made_from, (draw,), np.zeros(5, np.int64), {}))
    api.lock("m.yaml")


def test_inputs_that_are_not_here_are_not_checked_and_other_ones_are_stale(folder: Path) -> None:
    with_files()
    before = found()
    Path("recordings/m.npz").unlink()
    np.savez("x.npz", x=np.zeros((5, 3), np.float32), labels=np.ones(5, np.int64))
    other = found()
    Path("x.npz").unlink()
    gone = found()

    assert before == []
    assert other == [f"12:1: T2T508 the lock's proof was made from other inputs and other labels{MEANT}"]
    assert gone == ["12:1: T2T904 whether the lock's proof is of these inputs is not checked: no file at x.npz"]
    assert [problem.severity for problem in api.check("m.yaml")] == ["note"]


def test_labels_that_are_no_numbers_of_classes_are_told_once(folder: Path) -> None:
    with_files()
    np.savez("x.npz", x=np.ones((5, 3), np.float32), labels=np.zeros(5, np.float32))

    assert found() == [
        "12:1: T2T503 labels in x.npz are float32 [5], not integers; a label is the number of the right class"
    ]


def test_a_recording_that_is_none(locked: Path) -> None:
    Path("recordings/m.npz").write_bytes(b"")

    (said,) = found()

    assert said.startswith("recordings/m.npz: T2T904: ")


# --- the module that was built ---


def test_another_module_under_the_same_name(locked: Path) -> None:
    meant = f"m.yaml:2:8: T2T508 the lock is of another models:Net: {{}}{MEANT}"
    models = Path("models.py").read_text()
    for old, new, told in (
        ("nn.Linear(3, 3), nn.Linear(3, 3)", "nn.Linear(3, 3), nn.Linear(3, 3, bias=False)", "second.bias differs"),
        ("self.first, self.second = nn", "self.second, self.first = nn", "its order differs"),
        (
            "if unused:",
            "self.more = nn.Linear(3, 3)\n        self.third = nn.Linear(3, 3)\n        if unused:",
            "more.weight, more.bias, third.weight and 1 more differ",
        ),
    ):
        assert old in models
        Path("models.py").write_text(models.replace(old, new, 1))
        for name in ("models",):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        with pytest.raises(MappingError) as error:
            api.load("m.yaml", locked=True)
        assert str(error.value) == meant.format(told)


def test_another_checkpoint_is_told_by_its_name(locked: Path) -> None:
    """What lies there may not be here: a machine without the weights sees the name alone."""
    edit("{checkpoint: c}", "{checkpoint: other.npz}")

    assert found() == [f"3:1: T2T508 the lock is of the checkpoint c, the mapping names other.npz{MEANT}"]


def test_an_unproven_lock_is_an_error_where_a_lock_is_asked_for(locked: Path) -> None:
    api.lock("m.yaml", verify=False)
    told = "12:1: T2T502 the lock is not proven: --unproven; run t2t lock m.yaml where its recording is"

    assert [(str(p).partition(":")[2], p.severity) for p in api.check("m.yaml")] == [(told, "warning")]
    assert [(str(p).partition(":")[2], p.severity) for p in api.check("m.yaml", locked=True)] == [(told, "error")]


def test_a_checkpoint_that_is_given_is_no_way_round_the_lock(locked: Path) -> None:
    edit("first.weight, axes: i o -> o i", "first.weight, axes: i o -> o i, scale: 2")
    told = f"8:3: T2T508 first.weight is not what it was when it was locked{MEANT}"

    assert lines(api.check("m.yaml", checkpoint="c")) == []
    assert lines(api.check("m.yaml", checkpoint="c", locked=True)) == [told]


def test_a_slip_in_verify_is_no_verify_section_less(locked: Path) -> None:
    edit("verify:", "verfy:")

    assert [line.split()[1] for line in found()] == ["T2T104"]


def test_of_several_runs_the_lock_knows_one(locked: Path) -> None:
    """A tolerance that is tightened may be too tight for the others."""
    lock = locks.read("m.lock.json")
    figures = lock.proof.outputs["y"]
    edit("verify:\n", f"verify:\n  draws: 2\n  rel: 0.0\n  abs: {2 * figures.max_delta!r}\n")

    tightened = [line for line in found() if "is asked for" in line]

    was = f"y: max|Δ| was {figures.max_delta:g} when it was locked, now {2 * figures.max_delta:g} is asked for"
    assert tightened == [f"12:1: T2T508 {was}{MEANT}"]
