"""What has one answer is written in; everything else stays, byte for byte."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import t2t
from t2t import api
from t2t.problems import Location, Problem
from t2t.review import fix, lock
from tests.checkpoints.writing import Tensor, bundle
from tests.commands import server
from tests.review.repository import DENSE, Repository, make


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    team = make(tmp_path_factory.mktemp("fix") / "repository")
    done = server().run("lock", "mappings/dense.yaml", cwd=team.folder)
    assert done.code == 0, done
    return team


@pytest.fixture
def team(made: Repository, tmp_path: Path) -> Repository:
    """A copy of its own for each test."""
    made.git("clone", "-q", str(made.folder), str(tmp_path / "clone"))
    copy = Repository(tmp_path / "clone")
    for name in ("mappings/dense.lock.json", "mappings/dense.yaml"):
        (copy.folder / name).write_bytes((made.folder / name).read_bytes())
    (copy.folder / "checkpoints").symlink_to(made.folder / "checkpoints")
    return copy


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("out.weight, axes:", "out.weight, axis:", ["T2T104"]),
        ("hidden/bias,", '"hidden/bias:0",', ["T2T109"]),
        ("torch: hidden.bias", "torch: hidden.bais", ["T2T202"]),
        ("torch: hidden.bias", "torch: 'hidden.bais'", ["T2T202"]),
        ("tf: out/kernel", "tf: out/kernl", ["T2T201"]),
        ("source:", "sources:", ["T2T105", "T2T508", "T2T104"]),
    ],
)
def test_what_is_fixed(team: Repository, old: str, new: str, told: list[str]) -> None:
    team.edit("dense", old, new)
    path = team.mapping("dense")

    gone = api.fix(path)

    assert [problem.code for problem in gone] == told
    assert [problem for problem in api.check(path) if problem.severity == "error"] == []
    text = path.read_text()
    assert text.replace('"hidden/bias"', "hidden/bias").replace("'hidden.bias'", "hidden.bias") == DENSE


def test_several_at_a_time_and_what_is_said(team: Repository) -> None:
    team.edit("dense", "out.weight, axes:", "out.weight, axis:")
    team.edit("dense", "torch: hidden.bias", "torch: hidden.bais")

    done = server().run("check", "--fix", "mappings/dense.yaml", cwd=team.folder)

    assert (done.code, done.out) == (0, "1 mapping checked: no problems\n")
    assert done.err == (
        "note: mappings/dense.yaml:7:30: T2T202 fixed: hidden.bais -> hidden.bias\n"
        "note: mappings/dense.yaml:8:42: T2T104 fixed: axis -> axes\n"
    )
    assert team.mapping("dense").read_text() == DENSE


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # Two rows could be meant: both parameters are free.
        ("torch: hidden.bias}\n", "torch: hidden.bia}\n- {torch: hidden.weigh, fill: 0}\n"),
        # Nothing is like it.
        ("tf: out/kernel", "tf: something/else"),
        # Written with an escape: what stands there is not what it means.
        ("tf: hidden/bias,", 'tf: "hidden/b\\x61is",'),
        # The key that is meant is there already.
        ("axes: i o -> o i}\n- {tf: out/bias", "axes: i o -> o i, axis: o i -> i o}\n- {tf: out/bias"),
        # No YAML.
        ("map:", "map: ["),
    ],
)
def test_what_is_left_as_it_is(team: Repository, old: str, new: str) -> None:
    team.edit("dense", old, new)
    path = team.mapping("dense")
    before, found = path.read_bytes(), [p.code for p in api.check(path)]

    api.fix(path)

    assert found
    assert path.read_bytes() == before or "weigh," in new  # of two names one may be the only one left
    assert [p for p in api.check(path) if p.severity == "error"]


def test_an_edit_that_would_say_something_else_is_not_made() -> None:
    data = b"t2t: 1\nmodel: a:A\nsource: {}\nmap:\n- {tf: a, torch: b}\n"
    at = Location("m.yaml", 5, 8)
    harmless = Problem("T2T201", "a", at, fix=("a", "c"))

    assert fix.fixed(data, "m.yaml", [harmless]) == (data.replace(b"tf: a", b"tf: c"), [harmless])
    for new in ("c, tf: d", "c, flip: [0]", "&x", "c}", "'", "c: d"):
        assert fix.fixed(data, "m.yaml", [replace(harmless, fix=("a", new))]) == (data, []), new


def test_a_fix_of_another_file_or_without_a_place_is_not_this_one_s() -> None:
    data = b"t2t: 1\nmodel: a:A\nsource: {}\nmap:\n- {tf: a, torch: b}\n"
    for at in (None, Location("m.yaml"), Location("other.yaml", 5, 8), Location("m.yaml", 5, 1)):
        assert fix.fixed(data, "m.yaml", [Problem("T2T201", "a", at, fix=("a", "c"))]) == (data, [])


@pytest.mark.parametrize(
    ("ignore", "row"),
    [
        # A slot is nobody's weight, an ignored variable is left out on purpose.
        ("{slots: true, why: x}", "{tf: out/kernel_1, torch: out.bias, axes: a b -> a b}"),
        ("{tf: spare/kernel, why: pruned}", "{tf: spare/kernal, torch: out.bias, axes: a b -> a b}"),
        # Numbers are what tells layers apart.
        ("{slots: true, why: x}", "{tf: hidden/bias_2, torch: out.bias}"),
    ],
)
def test_a_name_that_may_mean_another_variable_is_left(tmp_path: Path, ignore: str, row: str) -> None:
    bundle(
        tmp_path / "m.ckpt",
        {
            name: Tensor(1, shape, bytes(4 * int(np.prod(shape))))
            for name, shape in {
                "hidden/bias": (4,),
                "hidden/bias_3": (4,),
                "out/kernel": (4, 3),
                "out/kernel/Momentum": (4, 3),
                "spare/kernel": (4, 3),
            }.items()
        },
    )
    path = tmp_path / "m.yaml"
    text = "t2t: 1\nmodel: a:A\nsource: {checkpoint: m.ckpt}\nmap:\n- {tf: out/kernel, torch: w, axes: a b -> a b}\n"
    path.write_text(f"{text}- {{tf: hidden/bias, torch: b}}\n- {row}\nignore:\n- {ignore}\n")

    assert "T2T201" in [problem.code for problem in api.check(path)]
    assert [problem.code for problem in api.fix(path)] == []
    assert row in path.read_text()


# --- the lock ---


def with_another_digest(team: Repository) -> Path:
    """The lock as another version of t2t might have written it."""
    path = team.folder / "mappings/dense.lock.json"
    text = path.read_text().replace(lock.read(str(path)).steps["out.bias"], "0" * 16)
    path.write_text(text.replace(f'"t2t": "{t2t.__version__}"', '"t2t": "0.0.1"'))
    return path


def test_digests_are_written_anew_where_what_comes_out_is_the_same(team: Repository) -> None:
    path = team.folder / "mappings/dense.lock.json"
    right = path.read_bytes()
    with_another_digest(team)
    assert [p.code for p in api.check(team.mapping("dense"))] == ["T2T508"]

    gone = api.fix(team.mapping("dense"))

    assert [problem.code for problem in gone] == ["T2T508"]
    assert path.read_bytes() == right


def test_digests_of_this_version_stay_whatever_comes_out(team: Repository) -> None:
    """Zeros are alike in any order: a row that changed may give the same bytes, and means something else."""
    path = with_another_digest(team)
    path.write_text(path.read_text().replace('"t2t": "0.0.1"', f'"t2t": "{t2t.__version__}"'))
    before = path.read_bytes()

    assert api.fix(team.mapping("dense")) == []
    assert path.read_bytes() == before


def test_digests_stay_where_something_else_comes_out(team: Repository) -> None:
    team.edit("dense", "torch: hidden.weight, axes: i o -> o i", "torch: hidden.weight, axes: i o -> i o")
    path = team.folder / "mappings/dense.lock.json"
    before = path.read_bytes()

    assert api.fix(team.mapping("dense")) == []
    assert path.read_bytes() == before
    assert [p.code for p in api.check(team.mapping("dense"))] == ["T2T508"]


def test_digests_stay_where_the_weights_are_not_here(team: Repository) -> None:
    path = with_another_digest(team)
    before = path.read_bytes()
    (team.folder / "checkpoints").unlink()

    assert api.fix(team.mapping("dense")) == []
    assert path.read_bytes() == before


def test_digests_stay_where_only_the_index_is_here(team: Repository) -> None:
    path = with_another_digest(team)
    before = path.read_bytes()
    there = (team.folder / "checkpoints").resolve()
    (team.folder / "checkpoints").unlink()
    (team.folder / "checkpoints").mkdir()
    (team.folder / "checkpoints/dense.ckpt.index").write_bytes((there / "dense.ckpt.index").read_bytes())

    assert api.fix(team.mapping("dense")) == []
    assert path.read_bytes() == before


def test_json_says_what_would_be_written(team: Repository) -> None:
    team.edit("dense", "out.weight, axes:", "out.weight, axis:")

    done = server().run("check", "--format", "json", "mappings/dense.yaml", cwd=team.folder)

    fixes = [problem.get("fix") for problem in json.loads(done.out)["problems"] if problem["code"] == "T2T104"]
    assert fixes == [{"old": "axis", "new": "axes"}]
