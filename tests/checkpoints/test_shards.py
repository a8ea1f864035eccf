"""Keras' weights in several files: what the map may say. What Keras writes is in test_keras."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from t2t.checkpoints.protobuf import Corrupt
from t2t.checkpoints.shards import Shards, file_names
from t2t.problems import CheckpointError

MAP = "x.weights.json"


def writes(folder: Path, files: dict[str, list[str]], groups: dict[str, Any]) -> Path:
    for name, members in files.items():
        with h5py.File(folder / name, "w") as file:
            for i, member in enumerate(members):
                file[member] = np.full(3, i, "f4")
                file[member].parent.attrs["name"] = member.split("/")[1]
    path = folder / MAP
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": groups}))
    return path


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        Shards(str(path))
    (problem,) = caught.value.problems
    return str(problem).replace(f"{path.parent}/", "")


def test_a_layer_may_be_spread_over_files(tmp_path: Path) -> None:
    files = {"0.h5": ["layers/p/vars/0", "layers/q/vars/0"], "1.h5": ["layers/q/vars/1"]}
    path = writes(tmp_path, files, {"/layers/p/vars": "0.h5", "/layers/q/vars": ["0.h5", "1.h5"]})
    with Shards(str(path)) as reader:
        assert [Path(file).name for file in reader.files] == [MAP, "0.h5", "1.h5"]
        refs = reader.inventory.variables
        assert {name: (ref.shard, reader.read(ref).tolist()) for name, ref in refs.items()} == {
            "layers/p/vars/0": (0, [0.0] * 3),
            "layers/q/vars/0": (0, [1.0] * 3),
            "layers/q/vars/1": (1, [0.0] * 3),
        }
        assert Path(reader.place(refs["layers/q/vars/1"])).name == "1.h5"
        reader.check_unchanged()
        (tmp_path / "1.h5").write_bytes(b"")
        with pytest.raises(CheckpointError, match=r"1\.h5: T2T609: the file changed while it was read"):
            reader.check_unchanged()


@pytest.mark.parametrize(
    ("files", "groups", "expected"),
    [
        (
            {"0.h5": ["layers/p/vars/0"]},
            {"/layers/p/vars": "0.h5", "/layers/q/vars": "0.h5"},
            f"{MAP}: T2T605: no file has layers/q/vars, which the map names; the save or the copy is incomplete",
        ),
        (
            {"0.h5": ["layers/p/vars/0", "layers/q/vars/0"]},
            {"/layers/p/vars": "0.h5"},
            f"{MAP}: T2T605: 0.h5 has layers/q/vars/0, but the map does not say so; files of several saves lie here",
        ),
        (
            {"0.h5": ["layers/p/vars/0"], "1.h5": ["layers/p/vars/0"]},
            {"/layers/p/vars": ["0.h5", "1.h5"]},
            f"{MAP}: T2T605: 0.h5 and 1.h5 both have layers/p/vars/0",
        ),
        ({}, {"/layers/p/vars": "0.h5"}, "0.h5: T2T602: cannot be opened: no such file or directory"),
    ],
)
def test_files_that_do_not_fit_the_map(
    tmp_path: Path, files: dict[str, list[str]], groups: dict[str, Any], expected: str
) -> None:
    assert refused(writes(tmp_path, files, groups)) == expected


@pytest.mark.parametrize(
    "name", ["../x.h5", "/etc/passwd", "https://example.com/x.h5", "a/b.h5", "..", ".", "a\\b.h5", "a\0b", "file:///x"]
)
def test_a_name_that_leads_elsewhere_is_not_followed(tmp_path: Path, name: str) -> None:
    as_shown = name.replace("\0", "\\x00")
    assert refused(writes(tmp_path, {}, {"/layers/p/vars": [name]})) == (
        f"{MAP}: T2T605: /layers/p/vars lies in {as_shown}, which is no name of a file beside this one; "
        "t2t follows only names of files in the same directory"
    )


def test_at_an_address_fewer_characters_are_only_a_name() -> None:
    for name in ("a?b", "a#b", "a%2f..", "c:d"):
        content = json.dumps({"weight_map": {"p": name}}).encode()
        assert file_names(content, address=False) == {"p": [name]}
        with pytest.raises(Corrupt, match="no name of a file beside this one"):
            file_names(content, address=True)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "T2T603: the file is not JSON"),
        ("[" * 100_000, "T2T603: the file is not JSON"),
        ("\udcff", "T2T603: the file is not JSON"),
        ("[]", "T2T603: the file has no weight_map, which Keras' .weights.json has"),
        ('{"weight_map": {}}', "T2T603: the file has no weight_map, which Keras' .weights.json has"),
        ('{"weight_map": {"p": 3}}', "T2T605: p lies in 3, which is no file's name"),
        ('{"weight_map": {"p": [""]}}', 'T2T605: p lies in "", which is no file\'s name'),
        (
            json.dumps({"weight_map": {"p": [str(i) for i in range(1001)]}}),
            "T2T611: the map names 1001 files, but at most 1000 are read",
        ),
    ],
)
def test_a_map_that_is_none(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / MAP
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert refused(path) == f"{MAP}: {expected}"
