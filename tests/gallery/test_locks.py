"""The gallery's locks: what they say is what the published weights give, and without the weights nothing is missed."""

from __future__ import annotations

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
from tests.gallery.shared import MAPPINGS, data, recorded

NAMES = sorted(path.name.removesuffix(".lock.json") for path in MAPPINGS.glob("*.lock.json"))
every_lock = pytest.mark.parametrize("name", NAMES)


def test_every_mapping_with_weights_has_a_lock() -> None:
    assert set(NAMES) == set(CHECKPOINTS)


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


@every_lock
def test_a_check_without_the_weights_finds_nothing_and_asks_nobody(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)

    assert api.check(MAPPINGS / f"{name}.yaml", locked=True) == []


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
