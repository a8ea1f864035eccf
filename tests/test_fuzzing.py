"""
Damaged input of every kind is read or refused: what `tests.fuzzing.run` does for hours, for seconds.

The seeds of `tests/fuzzing/corpus` are replayed, and damaged by rule; the same cases in every run.
"""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2t.checkpoints import hdf5
from t2t.problems import CheckpointError
from tests.fuzzing import targets
from tests.fuzzing.mutating import edited, mutated

CORPUS = Path(__file__).with_name("fuzzing") / "corpus"
SEEDS = [(path.parent.name, path) for path in sorted(CORPUS.glob("*/*"))]

#: How many damaged inputs a target gets, and the most seconds of processor time that one may take.
EXAMPLES = {"mapping": 400}
DEFAULT_EXAMPLES = 1000
MAX_SECONDS = 2.0

#: Targets that run libhdf5 in their own process, which not every damage lets live: only their seeds are replayed here.
IN_A_LIBRARY = {"hdf5", "keras_archive"}

#: Files that `tests.fuzzing.run` found: libhdf5 crashes on them, or reads without end.
DEADLY = sorted((Path(__file__).with_name("fuzzing") / "deadly").iterdir())


def test_every_target_has_seeds() -> None:
    assert {target for target, _ in SEEDS} == set(targets.TARGETS)


@pytest.mark.parametrize(("target", "path"), SEEDS, ids=[f"{target}-{path.name}" for target, path in SEEDS])
def test_a_seed_is_read_or_refused(target: str, path: Path, tmp_path: Path) -> None:
    targets.TARGETS[target](path.read_bytes(), tmp_path)


@pytest.mark.parametrize("target", sorted(set(targets.TARGETS) - IN_A_LIBRARY))
def test_damage_is_read_or_refused(target: str, tmp_path: Path) -> None:
    seeds = [path.read_bytes() for name, path in SEEDS if name == target]

    @settings(
        max_examples=EXAMPLES.get(target, DEFAULT_EXAMPLES),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(seeds), st.lists(st.integers(0, 2**32), min_size=1, max_size=4))
    def damaged(data: bytes, numbers: list[int]) -> None:
        for number in numbers:
            random = Random(number)
            data = mutated(target, data, random, lambda part: edited(part, random))  # noqa: B023 - called at once
        start = time.process_time()
        targets.TARGETS[target](data, tmp_path)
        assert time.process_time() - start < MAX_SECONDS

    damaged()


@pytest.mark.parametrize("path", DEADLY, ids=[path.name for path in DEADLY])
def test_a_file_that_libhdf5_does_not_survive_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What exactly is said depends on libhdf5: a later one may find the damage itself.
    monkeypatch.setattr(hdf5, "PATIENCE", 5.0)

    with pytest.raises(CheckpointError) as caught:
        hdf5.HDF5(str(path))

    (problem,) = caught.value.problems
    assert problem.code in ("T2T604", "T2T614")
