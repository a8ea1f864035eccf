"""Words of a command line -> mappings."""

from __future__ import annotations

from pathlib import Path

import pytest

from t2t.problems import UsageError
from t2t.review import paths


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mappings/modules").mkdir(parents=True)
    for name in ("b.yaml", "a.yaml", "a.lock.json", "c.yml", "c.lock.json", "notes.md"):
        (tmp_path / "mappings" / name).touch()
    return tmp_path


def test_what_they_mean() -> None:
    every = ["mappings/a.yaml", "mappings/b.yaml", "mappings/c.yml"]
    assert paths.mappings([]) == every
    assert paths.mappings(["mappings"]) == every
    assert paths.mappings(["mappings/b.yaml", "mappings/"]) == ["mappings/b.yaml", "mappings/a.yaml", "mappings/c.yml"]
    assert paths.mappings(["mappings/c.lock.json"]) == ["mappings/c.yml"]
    assert paths.mappings(["mappings/a.lock.json"]) == ["mappings/a.yaml"]
    assert paths.mappings(["nowhere.yaml", "x.lock.json"]) == ["nowhere.yaml", "x.yaml"]


def test_a_directory_without_any(here: Path) -> None:
    with pytest.raises(UsageError) as caught:
        paths.mappings(["mappings/modules"])
    assert str(caught.value) == "T2T001 there are no mappings under mappings/modules/; name the mappings"
    for path in (here / "mappings").glob("*.y*ml"):
        path.unlink()
    with pytest.raises(UsageError) as caught:
        paths.mappings([])
    assert str(caught.value) == "T2T001 there are no mappings under mappings/; name the mappings"


def test_no_directory_at_all(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here / "mappings/modules")
    with pytest.raises(UsageError):
        paths.mappings([])
