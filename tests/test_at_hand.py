"""What a mapping's two sides are known from: the checkpoint, its index alone, the lock; and what stands in the way."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
import pytest

from t2t import api, checkpoints
from t2t import mapping as mapping_file
from t2t.at_hand import at_hand
from t2t.checkpoints.bundle import Bundle
from t2t.mapping import Mapping
from t2t.problems import CheckpointError
from tests.commands import Project, locked_small, small, store

NAMES = {"dense_0/kernel", "dense_0/bias", "dense_1/kernel", "dense_1/bias"}
MISSING = (
    "small.ckpt.data-00000-of-00001: T2T607: shard 0 of 1 missing: small.ckpt.data-00000-of-00001; "
    "the save or the copy is incomplete"
)
UNCHECKED = "small.yaml:5:1: T2T210 parameters not checked: no lock; t2t lock writes one, convert checks them by itself"
NOWHERE = (
    "small.yaml:4:1: T2T601 small.ckpt: no checkpoint there: neither small.ckpt.index nor small.ckpt exists; "
    "t2t lock, where the weights are, writes down what is needed of them"
)


VALUES_UNCHECKED = (
    "small.yaml:4:1: T2T502 values not checked: the lock is of names and shapes alone; "
    "run t2t lock small.yaml where the weights are"
)


def other_checkpoint(named: str) -> str:
    """What is said of a lock whose mapping now names another checkpoint."""
    return (
        f"small.yaml:4:1: T2T508 the lock is of the checkpoint small.ckpt, the mapping names {named}; "
        "if that is meant, run t2t lock small.yaml"
    )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """small.yaml in the current directory, and small.lock.json beside it."""
    yield from locked_small(tmp_path, monkeypatch)


def mapping() -> Mapping:
    read, problems = mapping_file.read(Path("small.yaml").read_bytes(), "small.yaml")
    assert (read is not None, problems) == (True, [])
    assert read is not None
    return read


def known(checkpoint: str | None = None, **options: Any) -> tuple[str, bool, list[str]]:
    """Where the variables are known from, whether the parameters are known, and what was wrong."""
    with at_hand(mapping(), checkpoint, **options) as hand:
        source = "nothing" if hand.checkpoint is None else "lock" if hand.opened is None else "checkpoint"
        if hand.checkpoint is not None:
            assert set(hand.checkpoint.variables) >= NAMES
        return source, hand.module is not None, [str(problem) for problem in hand.problems]


def no_lock() -> None:
    Path("small.lock.json").unlink()


def no_data() -> None:
    Path("small.ckpt.data-00000-of-00001").unlink()


def no_checkpoint() -> None:
    no_data()
    Path("small.ckpt.index").unlink()


def test_with_everything_the_checkpoint_speaks_for_itself_and_the_lock_for_the_module(project: Project) -> None:
    assert known() == ("checkpoint", True, [])
    assert api.check("small.yaml", locked=True) == []


def test_without_a_lock_nothing_is_known_of_the_module(project: Project) -> None:
    no_lock()

    assert known() == ("checkpoint", False, [])
    assert [str(problem) for problem in api.check("small.yaml")] == [UNCHECKED]


def test_the_index_alone_is_enough_for_names_and_shapes(project: Project) -> None:
    """With the lock nobody misses the data files; without it, that they are missing is told beside the rest."""
    no_data()
    assert known() == ("checkpoint", True, [])
    assert api.check("small.yaml") == []

    no_lock()
    project.edit("dense_0/bias", "dense_0/bais")

    assert known() == ("checkpoint", False, [MISSING])
    first, unchecked, unknown = (str(problem) for problem in api.check("small.yaml"))
    assert (first, unchecked) == (MISSING, UNCHECKED)
    assert unknown.startswith("small.yaml:7:8: T2T201 dense_0/bais is not a variable of the checkpoint; did you mean ")


def test_the_lock_alone_is_enough_too(project: Project) -> None:
    no_checkpoint()
    assert known() == ("lock", True, [])
    assert api.check("small.yaml", locked=True) == []

    project.edit("layers.0.bias", "layers.0.bais")

    (unknown,) = api.check("small.yaml")
    assert str(unknown) == (
        "small.yaml:7:29: T2T202 layers.0.bais is not a parameter or persistent buffer of the module; "
        "did you mean layers.0.bias, layers.1.bias, layers.0.weight"
    )


def test_what_the_lock_alone_explains_is_what_the_checkpoint_does(project: Project) -> None:
    before = api.explain("small.yaml", "layers.0.weight")
    no_checkpoint()
    after = api.explain("small.yaml", "layers.0.weight")

    assert before.rules == after.rules
    assert before.step is not None
    assert after.step is not None
    assert [ref.name for ref in before.step.sources] == [ref.name for ref in after.step.sources] == ["dense_0/kernel"]


def test_without_either_there_is_nothing(project: Project) -> None:
    no_checkpoint()
    no_lock()

    assert known() == ("nothing", False, [NOWHERE])
    assert [str(problem) for problem in api.check("small.yaml")] == [NOWHERE]


def test_where_a_lock_is_asked_for_there_must_be_one(project: Project) -> None:
    no_lock()
    told = "small.yaml: T2T509: there is no lock at small.lock.json; run t2t lock small.yaml"

    assert known(locked=True) == ("checkpoint", False, [told])
    assert [str(problem) for problem in api.check("small.yaml", locked=True)] == [told, UNCHECKED]


def severities(**options: Any) -> list[tuple[str, str]]:
    return [(str(problem), problem.severity) for problem in api.check("small.yaml", **options)]


def test_a_lock_of_names_and_shapes_is_made_from_the_index_alone(project: Project) -> None:
    no_data()
    made = api.lock("small.yaml", names_only=True)
    no_checkpoint_left = Path("small.ckpt.index")
    no_checkpoint_left.unlink()

    assert (made.is_of_names, made.outputs, made.proof.unproven) == (True, {}, "names and shapes alone")
    assert {ref.crc32c for ref in made.checkpoint.variables.values()} == {None}
    assert known() == ("lock", True, [])
    assert severities() == [(VALUES_UNCHECKED, "note")]
    assert severities(locked=True) == [(VALUES_UNCHECKED, "error")]


def test_a_lock_of_names_and_shapes_knows_what_was_done_to_each_parameter(project: Project) -> None:
    api.lock("small.yaml", names_only=True)
    no_checkpoint()
    project.edit("dense_0/bias, torch: layers.0.bias}", "dense_0/bias, torch: layers.0.bias, flip: [0]}")
    project.edit("layers.1.bias", "layers.1.bais")

    found = [str(problem).partition(";")[0] for problem in api.check("small.yaml")]

    assert found == [
        VALUES_UNCHECKED.partition(";")[0],
        "small.yaml:7:3: T2T508 layers.0.bias is not what it was when it was locked",
        "small.yaml:9:29: T2T202 layers.1.bais is not a parameter or persistent buffer of the module",
    ]


def test_a_lock_of_names_and_shapes_is_of_any_values_and_of_no_other_shapes(project: Project) -> None:
    with checkpoints.open("small.ckpt") as opened:
        arrays = {name: opened.read(ref) for name, ref in opened.inventory.variables.items()}
    api.lock("small.yaml", names_only=True)
    arrays["dense_1/kernel"][0, 0] += 1
    store(project.folder, arrays)
    assert severities() == [(VALUES_UNCHECKED, "note")]

    store(project.folder, {**arrays, "more": arrays["dense_1/bias"]})

    assert [told for told, _ in severities()][:2] == [
        "small.yaml:4:1: T2T508 the lock is of other weights: more differs; if that is meant, run t2t lock small.yaml",
        VALUES_UNCHECKED,
    ]


def test_a_lock_of_values_is_not_made_from_the_index_alone(project: Project) -> None:
    no_data()

    with pytest.raises(CheckpointError) as error:
        api.lock("small.yaml")

    assert str(error.value) == MISSING


def test_full_names_are_not_in_an_index(project: Project) -> None:
    project.edit("source: {checkpoint: small.ckpt}", "source: {checkpoint: small.ckpt, names: full_name}")
    no_data()

    with pytest.raises(CheckpointError) as error:
        api.lock("small.yaml", names_only=True)

    assert str(error.value) == MISSING


def test_a_mapping_without_a_source_has_the_lock_s(project: Project) -> None:
    project.edit("{checkpoint: small.ckpt}", "{}")
    assert known() == ("lock", True, [other_checkpoint("none")])

    no_lock()

    assert known() == ("nothing", False, ["small.yaml:1:1: T2T601 the mapping names no checkpoint; give --checkpoint"])


def test_a_checkpoint_that_is_given_is_opened_whatever_the_lock_says(project: Project) -> None:
    """It may be of other weights; but it must be there."""
    (project.folder / "other").mkdir()
    other = small(project.folder / "other", (4, 3, 3, 2))
    assert other.data.exists()

    assert known("other/small.ckpt") == ("checkpoint", True, [])
    told = "nowhere: T2T601: no checkpoint there: neither nowhere.index nor nowhere exists"
    assert known("nowhere") == ("nothing", True, [told])
    other.data.unlink()
    source, _, (problem,) = known("other/small.ckpt")
    assert (source, "T2T607" in problem) == ("checkpoint", True)


def test_other_weights_at_the_mapping_s_own_place_are_told(project: Project) -> None:
    store(project.folder, {name: np.zeros(3, np.float32) for name in NAMES})

    (source, _, (told,)) = known()

    assert source == "checkpoint"
    assert told == (
        "small.yaml:4:1: T2T508 the lock is of other weights: dense_0/bias, dense_0/kernel, dense_1/bias and 1 more "
        "differ; if that is meant, run t2t lock small.yaml"
    )


def test_an_address_is_not_asked_where_a_lock_knows(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(*arguments: Any, **_: Any) -> NoReturn:
        asked.append(arguments)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    project.edit("{checkpoint: small.ckpt}", "{checkpoint: 'http://127.0.0.1:9/small.ckpt'}")

    told = [other_checkpoint("http://127.0.0.1:9/small.ckpt")]
    assert known() == ("lock", True, told)
    assert [str(problem) for problem in api.check("small.yaml")] == told
    assert asked == []
    no_lock()
    source, _, (problem,) = known()
    assert (source, "T2T602" in problem, asked != []) == ("nothing", True, True)


def test_a_lock_that_cannot_be_read_is_told_and_the_checkpoint_speaks(project: Project) -> None:
    Path("small.lock.json").write_text('{"t2t.lock": 1,')
    damaged = (
        "small.lock.json:1:16: T2T620 not JSON: Expecting property name enclosed in double quotes; "
        "write it again with t2t lock"
    )
    assert known() == ("checkpoint", False, [damaged])
    assert [str(problem) for problem in api.check("small.yaml")] == [
        damaged,
        "small.yaml:5:1: T2T210 parameters not checked: the lock cannot be used",
    ]

    Path("small.lock.json").unlink()
    os.mkfifo("small.lock.json")

    assert known() == ("checkpoint", False, ["small.lock.json: T2T602: not a regular file"])
    no_checkpoint()
    assert known() == ("nothing", False, ["small.lock.json: T2T602: not a regular file", NOWHERE])


def test_a_lock_by_other_names_speaks_for_no_variables(project: Project) -> None:
    project.edit("{checkpoint: small.ckpt}", "{checkpoint: small.ckpt, names: full_name}")
    told = (
        "small.yaml:4:1: T2T508 the lock goes by the variables' key, the mapping by their full_name; "
        "if that is meant, run t2t lock small.yaml"
    )
    assert known() == ("checkpoint", False, [told])

    no_checkpoint()

    assert known() == ("nothing", False, [told])


def test_a_lock_of_another_model_speaks_for_no_parameters(project: Project) -> None:
    project.edit("small:Small", "small:Smaller")
    told = (
        "small.yaml:2:8: T2T508 the lock is of the model small:Small, the mapping says small:Smaller; "
        "if that is meant, run t2t lock small.yaml"
    )

    assert known() == ("checkpoint", False, [told])
    no_checkpoint()
    assert known() == ("lock", False, [told])


def test_a_file_that_is_cut_off_is_told_with_a_lock_too(project: Project) -> None:
    """It is there: whoever converts it should hear of it before."""
    with h5py.File("small.h5", "w") as file:
        for name in NAMES:
            file[name] = np.zeros(100, np.float32)
    project.edit("small.ckpt", "small.h5")
    data = Path("small.h5").read_bytes()
    Path("small.h5").write_bytes(data[:-100])

    source, _, (_, problem) = known()

    assert (source, problem.startswith("small.h5: T2T607: ")) == ("nothing", True)


def test_a_damaged_index_is_told_with_a_lock_too(project: Project) -> None:
    index = Path("small.ckpt.index")
    index.write_bytes(index.read_bytes()[:-10])

    source, _, (problem,) = known()

    assert (source, problem.startswith("small.ckpt.index: T2T604: ")) == ("nothing", True)


def test_the_checkpoint_is_closed_at_the_end(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    def close(self: Bundle) -> None:
        closed.append(self)

    monkeypatch.setattr(Bundle, "close", close)

    with at_hand(mapping()) as hand:
        assert closed == []

    assert closed == [hand.opened]
