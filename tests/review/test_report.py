"""What a report says: the same as verify, whatever stands in the way, and nothing of the machine."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import t2t
from t2t import api
from t2t.job import Job
from t2t.problems import MappingError, OutputError, Problem, T2TError, UsageError
from t2t.review import page
from t2t.review import report as reports
from t2t.review.report import Report
from tests.commands import ROOT, Done, server
from tests.review.projects import Made, large, varied


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is current, and where Python finds modules."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def right(folder: Path) -> Made:
    return large(folder, 6)


@pytest.fixture
def wrong(folder: Path) -> Made:
    return large(folder, 6, wrong=4)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded example, and beside it the same with a plain transpose behind the Flatten."""
    folder = tmp_path_factory.mktemp("example")
    shutil.copytree(ROOT / "mappings", folder / "mappings", ignore=shutil.ignore_patterns("__pycache__"))
    text = (folder / "mappings" / "madry.yaml").read_text()
    assert "axes: (h w c) o -> o (c h w), dims: {h: 7, w: 7}" in text
    text = text.replace("axes: (h w c) o -> o (c h w), dims: {h: 7, w: 7}", "permute: [1, 0]")
    text = text.replace("verify:\n", "verify:\n  recording: recordings/madry.npz\n")
    (folder / "mappings" / "wrong.yaml").write_text(text)
    return folder


def run(*arguments: str, at: Path) -> Done:
    return server().run("report", *arguments, cwd=at)


def made(mapping: Path, **options: object) -> Report:
    return api.report(mapping, "report.html", **options)[1]  # type: ignore[arg-type]


# --- the verdict ---


def test_it_says_what_verify_says(wrong: Made) -> None:
    report, comparison = made(wrong.mapping), api.verify(wrong.mapping)

    assert report.verdict == "differs"
    assert report.problems == tuple(comparison.problems())
    assert [output.worst for output in report.outputs] == list(comparison.outputs)
    assert comparison.diagnosis is not None
    assert report.diagnosis is not None
    assert report.diagnosis.lines == comparison.diagnosis.lines
    assert report.trace == comparison.diagnosis.trace
    assert report.first == comparison.diagnosis.first == 4
    assert report.why == ""


def test_layers_are_there_when_everything_agrees_too(right: Made) -> None:
    report = made(right.mapping)

    assert report.verdict == "proven"
    assert report.problems == ()
    assert report.first is None
    assert report.trace is not None
    assert [call.module for call in report.trace.calls] == [f"encoder.{i}" for i in range(6)]
    assert report.diagnosis is None
    assert len(report.looked) == reports.MAX_LOOKED


def test_of_a_report_that_differs_only_what_differs_is_looked_at(wrong: Made) -> None:
    report = made(wrong.mapping)

    assert [one.number for one in report.looked] == [4, 5]
    assert all(one.channels is not None and one.channels.count == 8 for one in report.looked)


def test_lines_that_a_diagnosis_replaces_are_quoted(wrong: Made) -> None:
    report = made(wrong.mapping)
    assert report.diagnosis is not None
    text = wrong.mapping.read_text().splitlines()

    assert [number for number, _ in report.quoted] == list(report.diagnosis.replaces)
    assert all(text[number - 1] == line for number, line in report.quoted)
    assert "axes: a b -> a b" in report.quoted[0][1]


def test_the_diagnosis_can_be_left_out(wrong: Made) -> None:
    report = made(wrong.mapping, diagnose=False)

    assert report.verdict == "differs"
    assert report.diagnosis is None
    assert report.first == 4
    assert report.quoted == ()


def test_without_verify_it_is_not_proven_and_no_finding(folder: Path) -> None:
    report = made(varied(folder).mapping)

    assert (report.verdict, report.why) == ("unproven", "the mapping has no verify section")
    assert (report.problems, report.outputs, report.trace) == ((), (), None)
    assert len(report.rows) == 20


def test_a_recording_that_is_missing_is_a_finding_and_there_is_a_report(right: Made) -> None:
    shutil.rmtree(right.folder / "recordings")
    report = made(right.mapping)
    place = right.folder / "recordings" / "large.npz"

    assert report.verdict == "unproven"
    assert [str(problem) for problem in report.problems] == [
        f"{right.mapping}:18:1: T2T502 not proven: no recording at {place}; run t2t record {right.mapping}"
    ]
    assert report.why == "no recording at large.npz"
    assert [(one.message, one.hint) for one in report.findings] == [
        (f"not proven: {report.why}", "run t2t record large.yaml")
    ]


def test_who_wants_no_proof_gets_none(right: Made) -> None:
    report = made(right.mapping, verify=False)

    assert (report.verdict, report.why, report.problems) == ("unproven", "--unproven", ())


def test_what_cannot_be_compared_is_an_error_and_no_report(right: Made) -> None:
    right.edit("torch: {arguments: [x]}", "torch: {arguments: [x], outputs: {y: {at: z}}}")

    with pytest.raises(MappingError, match="T2T503"):
        made(right.mapping)
    assert not (right.folder / "report.html").exists()


def test_layers_that_cannot_be_held_against_anything_take_no_verdict_away(right: Made) -> None:
    right.edit("torch: {arguments: [x]}", 'torch: {arguments: [x]}\n  layers: {nowhere: "y:0"}')
    heard: list[Problem] = []
    report = made(right.mapping, note=heard.append)
    text = "layers name nowhere, and no part of the module has this path"

    assert report.verdict == "proven"
    assert report.trace is None
    assert report.looked == ()
    assert [(note.severity, note.message) for note in report.notes] == [("warning", text)]
    assert text in [note.message for note in heard]


def test_what_is_not_finite_is_said(right: Made) -> None:
    with Job(right.mapping, {}) as job:
        recording = job.recording()
        assert recording is not None
        assert job.mapping.verify is not None
        job.fill(job.torch_tensors())
        with torch.no_grad():
            job.module.state_dict()["encoder.5.bias"][3] = math.nan
        verify = job.mapping.verify
        keep = {"diagnosed": lambda comparison: comparison, "note": lambda problem: None}
        found = reports.evidence(job.module, job.plan, recording, verify, **keep)
        report = reports.make(job.plan, job.inventory, found, reports.Surroundings(job.checkpoint))

    assert report.verdict == "differs"
    assert report.outputs[0].spread.nonfinite == 4
    assert report.outputs[0].spread.channels is not None
    assert report.outputs[0].spread.channels.largest[3] == math.inf
    assert [one.number for one in report.looked] == [5]
    assert report.looked[0].values.nonfinite == (0, 4)
    assert "max|Δ| is not finite" in page.html(report)


def test_the_worst_run_speaks_for_an_output(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(example)
    report = made(Path("mappings/wrong.yaml"), diagnose=False)
    comparison = api.verify("mappings/wrong.yaml", diagnose=False)
    (output,) = report.outputs

    assert (output.runs, output.holds) == (len(comparison.outputs), False)
    assert output.worst.max_delta == comparison.max_delta
    assert output.spread.elements == sum(math.prod(delta.shape) for delta in comparison.outputs)
    assert report.metric == comparison.metric


# --- the same input, the same page ---


def test_the_same_files_give_the_same_bytes_wherever_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = []
    for name in ("one", "another/place"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        monkeypatch.syspath_prepend(folder)
        project = large(folder, 4, wrong=2)
        monkeypatch.chdir(folder if name == "one" else tmp_path)
        mapping = Path("large.yaml") if name == "one" else project.mapping
        place, _ = api.report(mapping, folder / "x.html")
        pages.append(Path(place).read_bytes())

    assert pages[0] == pages[1]


def test_no_path_of_the_machine_and_no_time_is_in_it(wrong: Made) -> None:
    text = Path(api.report(wrong.mapping, checkpoint=wrong.folder / "large.ckpt")[0]).read_text()

    assert str(wrong.folder) not in text
    assert os.path.basename(wrong.folder) not in text
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b|\d\d:\d\d:\d\d", text)


def test_notes_and_findings_lose_their_paths(right: Made) -> None:
    right.edit("torch: {arguments: [x]}", 'torch: {arguments: [x]}\n  layers: {encoder.0: "z:0"}')
    right.edit("axes: i o -> o i", "axes: i o -> i o")
    heard: list[Problem] = []
    report = made(right.mapping, note=heard.append)
    told = next(note for note in heard if "layers name" in note.message)
    note = next(note for note in report.notes if "layers name" in note.message)

    assert told.hint == f"run t2t record {right.mapping}"
    assert note.hint == "run t2t record large.yaml"
    assert note.at is not None
    assert note.at.path == "large.yaml"


def test_where_everything_is_from(right: Made) -> None:
    origin = dict(made(right.mapping).origin)
    with api.open_checkpoint(right.folder / "large.ckpt") as opened:
        digest = opened.inventory.digest

    assert origin["checkpoint"] == "large.ckpt"
    assert origin["its files"] == "large.ckpt.index, large.ckpt.data-00000-of-00001"
    assert origin["its digest"] == digest
    assert origin["original"] == "graph g.meta"
    assert origin["tolerance"] == "1e-06 + 1e-05 x max|TF|"
    assert origin["recorded with"] == "numpy 2.0.0, t2t 0.1.0, tensorflow 2.21.0"
    assert origin["compared with"] == f"t2t {t2t.__version__}, torch {torch.__version__}, numpy {np.__version__}"


# --- the file ---


def test_the_default_place_is_the_mappings_name_here(right: Made) -> None:
    place, _ = api.report(right.mapping)

    assert place == "large.html"
    assert (right.folder / "large.html").read_text().startswith("<!doctype html>")


def test_an_older_report_is_replaced_and_nothing_else(right: Made) -> None:
    place = right.folder / "large.html"
    place.write_text("<!doctype html>\n<p>mine</p>\n")

    with pytest.raises(OutputError, match="T2T801: a file that t2t did not write stands there"):
        api.report(right.mapping)
    assert place.read_text() == "<!doctype html>\n<p>mine</p>\n"

    api.report(right.mapping, force=True)
    first = place.read_bytes()
    api.report(right.mapping)
    assert place.read_bytes() == first
    assert reports.is_report(str(place))


def test_an_input_is_never_replaced(right: Made) -> None:
    for name in ("large.yaml", "large.ckpt.index", "recordings/large.npz", "x.npz"):
        before = (right.folder / name).read_bytes()
        with pytest.raises(UsageError, match=r"T2T001 the output .* is an input"):
            api.report(right.mapping, right.folder / name, force=True)
        assert (right.folder / name).read_bytes() == before


def test_a_place_that_is_not_there_is_an_error(right: Made) -> None:
    with pytest.raises(OutputError, match="T2T802: cannot be written: No such file or directory"):
        api.report(right.mapping, "nowhere/large.html")


@pytest.mark.parametrize("content", [b"", b"<!doctype html>", b"\xff" * 300])
def test_what_is_no_report_is_told_from_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)

    assert not reports.is_report(str(tmp_path / "x"))


# --- the command ---


def test_a_proven_mapping_ends_with_0(right: Made) -> None:
    done = run("large.yaml", at=right.folder)

    assert re.fullmatch(r"wrote large\.html: proven, max\|Δ\| \S+ <= \S+\n", done.out)
    assert done.code == 0


def test_a_failing_one_is_reported_and_ends_with_1(wrong: Made) -> None:
    done = run("large.yaml", "-o", "r.html", at=wrong.folder)
    finding, wrote = done.out.splitlines()

    assert re.match(
        r"large\.yaml:14:3: T2T501 y: max\|Δ\| \S+ exceeds .*; encoder\.4 is the first layer that differs", finding
    )
    assert re.fullmatch(r"wrote r\.html: differs, max\|Δ\| \S+ exceeds \S+", wrote)
    assert done.code == 1
    assert "Differs" in (wrong.folder / "r.html").read_text()


def test_one_without_verify_ends_with_0_and_says_so(folder: Path) -> None:
    varied(folder)
    done = run("varied.yaml", at=folder)

    assert done.out == "wrote varied.html: not proven: the mapping has no verify section\n"
    assert done.code == 0


def test_one_without_its_recording_ends_with_1(right: Made) -> None:
    shutil.rmtree(right.folder / "recordings")
    done = run("large.yaml", at=right.folder)

    assert done.out == (
        "large.yaml:18:1: T2T502 not proven: no recording at recordings/large.npz; run t2t record large.yaml\n"
        "wrote large.html: not proven: no recording at large.npz\n"
    )
    assert done.code == 1
    assert run("large.yaml", "--unproven", at=right.folder).code == 0


def test_the_same_for_programs(wrong: Made) -> None:
    done = run("large.yaml", "--no-diagnosis", "--format", "json", at=wrong.folder)
    told = json.loads(done.out)

    assert (told["report"], told["verdict"], told["why"]) == ("large.html", "differs", None)
    (problem,) = told["problems"]
    assert (problem["code"], problem["severity"], problem["path"]) == ("T2T501", "error", "large.yaml")
    assert done.code == 1


def test_what_is_in_the_way_ends_with_3_and_usage_with_2(right: Made) -> None:
    (right.folder / "large.html").write_text("mine")

    assert run("large.yaml", at=right.folder).code == 3
    assert run("large.yaml", "-o", "large.yaml", "--force", at=right.folder).code == 2
    assert run("large.yaml", "--force", at=right.folder).code == 0


def test_a_mapping_that_does_not_fit_has_no_report(right: Made) -> None:
    right.edit("torch: encoder.0.weight", "torch: encoder.0.wait")

    with pytest.raises(T2TError, match="T2T202"):
        made(right.mapping)
    assert not (right.folder / "report.html").exists()
