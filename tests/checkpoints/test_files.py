"""Opening files: the seam that local paths and addresses share, for local ones."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from t2t.checkpoints import files
from t2t.problems import CheckpointError

LOCAL = ["x", "./x", "C://x", "http:/x", "http:x", "://x", "1s://x", "a b://x", "/http://x"]
ADDRESSES = ["http://h/x", "gs://b/x", "s3://b", "memory://x", "hf://a/b", "s3+x.y-z://a"]


@pytest.mark.parametrize("path", LOCAL)
def test_a_path_is_no_address(path: str) -> None:
    assert not files.is_address(path)


@pytest.mark.parametrize("path", ADDRESSES)
def test_an_address_is_one(path: str) -> None:
    assert files.is_address(path)
    assert files.has_scheme(path)


def test_what_lies_here_under_an_address_name_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gs:").mkdir()
    Path("gs:/x").write_bytes(b"here")

    assert files.read_all("gs://x", 10)[0] == b"here"
    assert files.exists("gs://x")
    assert not files.exists("gs://y")


def test_a_file_is_read_at_any_place(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    file = files.open_file(str(path))
    out = np.zeros(4, np.uint8)

    assert (file.size, file.remote) == (10, False)
    assert file.identity == file.identity_now() == files.state_of(str(path)) == files.state_if_there(str(path))
    assert (file.read(2, 3), file.read(10, 0)) == (b"234", b"")
    assert (file.read_into(out, 8), bytes(out)) == (2, b"89\0\0")
    assert file.read_into(out, 10) == 0
    with file.stream() as stream:
        stream.seek(-2, os.SEEK_END)
        assert stream.read() == b"89"
    with pytest.raises(CheckpointError) as caught:
        file.read(8, 3)
    file.close()

    text = "bytes 8 to 11 are needed, but the file ends at 10; the file is cut off: copy it again"
    assert str(caught.value.problems[0]) == f"{path}: T2T607: {text}"


def test_what_is_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("gone")

    def told(name: str) -> tuple[bool, bool, bool]:
        path = str(tmp_path / name)
        return files.exists(path), files.is_file(path), files.is_folder(path)

    assert told("file") == (True, True, False)
    assert told(".") == (True, False, True)
    assert told("link") == (True, False, False)
    assert told("gone") == (False, False, False)
    assert files.state_if_there(str(tmp_path / "gone")) is None


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(11))

    with pytest.raises(CheckpointError) as caught:
        files.read_all(str(path), 10)

    assert str(caught.value.problems[0]) == f"{path}: T2T611: the file has 11 bytes, but at most 10 are read"
