"""Whether a file is ours: by its own words, read without unpickling, whatever else it holds."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from t2t.writers import writer
from t2t.writers.ours import RECORD, is_ours
from tests.given import blocks, entries


def framed(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (framed(b'{"__metadata__":{"t2t":"1"}}'), True),
        (framed(b'{"__metadata__":{"t2t":"1"}}') + b"data", True),
        (framed(b'{"__metadata__":{"format":"pt"}}'), False),
        (framed(b'{"__metadata__":"t2t"}'), False),
        (framed(b'{"t2t":{}}'), False),
        (framed(b'["t2t"]'), False),
        (framed(b"{" * 50), False),
        (framed(b'{"a":' * 100_000), False),
        (framed(b"\xff\xfe\xff"), False),
        (b"", False),
        (b"short", False),
        (struct.pack("<Q", 2**63) + b"{}", False),
        (struct.pack("<Q", 3) + b"{}", False),
        (struct.pack("<Q", 0), False),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_file_is_ours_if_its_metadata_says_so(tmp_path: Path, data: bytes, expected: bool) -> None:
    (tmp_path / "f").write_bytes(data)

    assert is_ours(str(tmp_path / "f")) is expected


@pytest.mark.parametrize("format_", ["pt", "safetensors"])
def test_what_a_writer_writes_is_ours(tmp_path: Path, format_: str) -> None:
    arrays = {"x": np.ones(3, np.float32), "y": np.ones(3, np.float32)}
    writer(format_)(str(tmp_path / "f"), entries(arrays), {"t2t": "1"}, blocks(arrays))
    writer(format_)(str(tmp_path / "g"), entries(arrays), {"other": "1"}, blocks(arrays))

    assert (is_ours(str(tmp_path / "f")), is_ours(str(tmp_path / "g"))) == (True, False)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"metadata": {"total_size": 1, "t2t": "1"}, "weight_map": {}}, True),
        ({"metadata": {"total_size": 1}, "weight_map": {}}, False),
        ({"metadata": ["t2t"]}, False),
        ({"t2t": "1"}, False),
    ],
)
def test_an_index_is_ours_if_its_metadata_say_so(tmp_path: Path, document: object, expected: bool) -> None:
    (tmp_path / "f").write_text(json.dumps(document))

    assert is_ours(str(tmp_path / "f")) is expected


def test_torchs_own_file_is_not_ours(tmp_path: Path) -> None:
    torch.save({"t2t": torch.ones(3)}, tmp_path / "f")

    assert not is_ours(str(tmp_path / "f"))


@pytest.mark.parametrize(
    ("name", "content", "method", "expected"),
    [
        (RECORD, b'{"t2t": "1"}', zipfile.ZIP_STORED, True),
        (RECORD, b'{"t2t": "1"}', zipfile.ZIP_DEFLATED, False),
        (RECORD, b'{"t2": "1"}', zipfile.ZIP_STORED, False),
        (RECORD, b'["t2t"]', zipfile.ZIP_STORED, False),
        (RECORD, b'{"t2t', zipfile.ZIP_STORED, False),
        ("archive/data.pkl", b'{"t2t": "1"}', zipfile.ZIP_STORED, False),
    ],
)
def test_an_archive_is_ours_if_its_first_record_says_so(
    tmp_path: Path, name: str, content: bytes, method: int, expected: bool
) -> None:
    with zipfile.ZipFile(tmp_path / "f", "w") as archive:
        archive.writestr(name, content, method)
        archive.writestr("archive/version", b"3\n")

    assert is_ours(str(tmp_path / "f")) is expected


def test_an_archive_that_is_cut_off_anywhere_is_not_ours_or_still_says_so(tmp_path: Path) -> None:
    """No length in it is believed: whatever the file ends with, the answer is one of two."""
    with zipfile.ZipFile(tmp_path / "f", "w") as archive:
        archive.writestr(RECORD, b'{"t2t": "1"}')
    whole = (tmp_path / "f").read_bytes()
    end = whole.index(b"}") + 1
    answers = []
    for length in range(len(whole)):
        os.truncate(tmp_path / "f", 0)
        (tmp_path / "f").write_bytes(whole[:length])
        answers.append(is_ours(str(tmp_path / "f")))

    assert answers == [False] * end + [True] * (len(whole) - end)


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    """An archive that names itself ours, with a data.pkl that would leave a trace."""

    class Trace:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "trace"),)

    torch.save({"x": Trace()}, tmp_path / "evil")
    with zipfile.ZipFile(tmp_path / "evil") as evil, zipfile.ZipFile(tmp_path / "f", "w") as archive:
        archive.writestr(RECORD, b'{"t2t": "1"}')
        for name in evil.namelist():
            archive.writestr(f"archive/{name.partition('/')[2]}", evil.read(name))
    arrays = {"x": np.ones(3, np.float32)}

    assert is_ours(str(tmp_path / "f"))
    writer("pt")(str(tmp_path / "f"), entries(arrays), {"t2t": "1"}, blocks(arrays))
    assert not (tmp_path / "trace").exists()
    assert list(torch.load(tmp_path / "f", weights_only=True)) == ["x"]
