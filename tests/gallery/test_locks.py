"""
The gallery's locks: what they say is what the published weights give, and without the weights nothing is missed.

Those of weights that are not here are of names and shapes alone; three of them are made again in test_vision.py.
"""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from benchmarks.gallery import CHECKPOINTS
from t2t import api, checkpoints
from t2t import mapping as mapping_file
from t2t import plan as planning
from t2t.review import lock as locks
from tests.commands import t2t
from tests.gallery.published_locks import BY_KERAS, BY_RULE, index, is_committed, write
from tests.gallery.shared import MAPPINGS, ROOT, data, recorded

every_lock = pytest.mark.parametrize("name", CHECKPOINTS)
every_lock_of_names = pytest.mark.parametrize("name", [*BY_RULE, *BY_KERAS])


def test_every_mapping_has_a_lock_and_those_with_weights_one_of_values() -> None:
    read = {path.name.removesuffix(".lock.json"): locks.read(str(path)) for path in MAPPINGS.glob("*.lock.json")}

    assert read.keys() == {path.stem for path in MAPPINGS.glob("*.yaml")}
    assert {name for name, lock in read.items() if not lock.is_of_names} == CHECKPOINTS.keys()
    assert {name for name, lock in read.items() if lock.is_of_names} == {*BY_RULE, *BY_KERAS}


@pytest.mark.parametrize("name", BY_RULE)
def test_one_of_names_is_made_again_from_the_published_names_and_shapes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers", reason="has the modules")
    monkeypatch.chdir(ROOT)

    made = write(name, index(tmp_path / "x.ckpt", BY_RULE[name]()), str(tmp_path / "again.lock.json"))

    assert is_committed(made, name)


@every_lock
def test_it_is_made_again_from_the_weights(name: str, tmp_path: Path) -> None:
    """Figures and versions are those of a machine; all else is not."""
    place = CHECKPOINTS[name]
    checkpoint = str(data(place)) if place else None

    made = api.lock(MAPPINGS / f"{name}.yaml", tmp_path / "again.lock.json", checkpoint=checkpoint)

    again, committed = locks.read(made.path), locks.read(str(MAPPINGS / f"{name}.lock.json"))
    for part in ("model", "arguments", "names", "source", "module", "steps", "outputs", "require"):
        assert getattr(again, part) == getattr(committed, part), part
    assert again.checkpoint == committed.checkpoint
    assert list(again.module.parameters) == list(committed.module.parameters)
    assert again.proof.made_from == committed.proof.made_from
    assert again.proof.accuracy == pytest.approx(committed.proof.accuracy)
    assert again.proof.outputs.keys() == committed.proof.outputs.keys()
    for output, figures in again.proof.outputs.items():
        assert figures.max_delta <= 1.1 * figures.tolerance  # both are rounded
        # Which run comes nearest to its tolerance is a matter of the last bits, and of the machine.
        draws = recorded(MAPPINGS / f"{name}.yaml").draws
        scales = {locks.rounded(float(np.abs(draw.outputs[output]).max())) for draw in draws}
        assert {figures.scale, committed.proof.outputs[output].scale} <= scales


def refuse(*_: Any, **__: Any) -> NoReturn:
    raise AssertionError("a connection was opened")


@every_lock
def test_a_check_without_the_weights_finds_nothing_and_asks_nobody(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)

    assert api.check(MAPPINGS / f"{name}.yaml", locked=True) == []


@every_lock_of_names
def test_a_check_by_names_alone_says_what_it_does_not_know(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)

    (found,) = api.check(MAPPINGS / f"{name}.yaml")

    assert (found.code, found.severity) == ("T2T502", "note")
    assert found.message == "values not checked: the lock is of names and shapes alone"


def test_a_check_of_all_of_them_ends_with_0_and_counts_what_only_the_locks_know() -> None:
    plain = t2t("check", cwd=ROOT)
    document = json.loads(t2t("check", "--format", "json", cwd=ROOT).out)

    assert (plain.code, plain.err) == (0, "")
    assert plain.out.splitlines()[-1] == "31 mappings checked, 30 by the lock alone: 14 notes"
    assert (len(document["checked"]), document["by_lock_alone"], len(document["problems"])) == (31, 30, 14)


@every_lock
def test_the_lock_knows_what_the_weights_would_say_of_mistakes(name: str) -> None:
    """A third of the rows are gone, and all that is ignored: the same is found, in the same words and order."""
    place = CHECKPOINTS[name]
    path = MAPPINGS / f"{name}.yaml"
    read, _ = mapping_file.read(path.read_bytes(), str(path))
    assert read is not None
    lock = locks.read(locks.place(str(path)))
    damaged = replace(read, ignore=(), rules=tuple(rule for i, rule in enumerate(read.rules) if i % 3))
    with checkpoints.open(data(place) if place else read.checkpoint, names=read.names) as opened:
        _, there = planning.make(damaged, opened.inventory, lock.module)

    _, here = planning.make(damaged, lock.checkpoint, lock.module)

    assert len(here) > 1
    assert here == there
