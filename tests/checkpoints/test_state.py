"""The text protobuf of a state file; Google's own parser is the oracle for what it means."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2t.checkpoints.state import newest
from t2t.problems import CheckpointError


def read(folder: Path, content: bytes) -> bytes:
    path = folder / "checkpoint"
    path.write_bytes(content)
    return os.fsencode(newest(str(path)))


def refused(folder: Path, content: bytes) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(folder, content)
    return str(caught.value).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("content", "path"),
    [
        (b'model_checkpoint_path: "x-1"\nall_model_checkpoint_paths: "x-0"\n', b"x-1"),
        (b'all_model_checkpoint_paths: "x-0" model_checkpoint_path: "x-1"', b"x-1"),
        (b"model_checkpoint_path:'x\"1'", b'x"1'),
        (b'model_checkpoint_path : "a" \'b\'\n  "c"  # a comment "d"\n', b"abc"),
        (b'# model_checkpoint_path: "no"\nmodel_checkpoint_path: "x", last_preserved_timestamp: -1.5e9;', b"x"),
        (b'all_model_checkpoint_timestamps: 1511471528.9 model_checkpoint_path: "x"', b"x"),
        (b'all_model_checkpoint_timestamps: inf model_checkpoint_path: "x"', b"x"),
        (b'model_checkpoint_path: "old" model_checkpoint_path: "new"', b"new"),
        (b'model_checkpoint_path: "\\"\\\'\\\\\\?\\n\\t\\303\\274\\x41\\X4a\\u00fc\\U0001F600 \xc3\xbc"', None),
    ],
)
def test_a_state_file_says_what_is_newest(tmp_path: Path, content: bytes, path: bytes | None) -> None:
    expected = "\"'\\?\n\tüAJü\U0001f600 ü".encode() if path is None else path

    assert read(tmp_path, content) == expected


@given(path=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_path_reads_as_google_writes_it(tmp_path: Path, path: str) -> None:
    text_format = pytest.importorskip("google.protobuf.text_format")
    struct_pb2 = pytest.importorskip("google.protobuf.struct_pb2")

    written = text_format.MessageToString(struct_pb2.Value(string_value=path), as_utf8=len(path) % 2 == 0)
    content = written.replace("string_value", "model_checkpoint_path").encode()

    assert read(tmp_path, content) == path.encode()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "checkpoint: T2T610: the state file is empty; give the checkpoint's prefix instead"),
        (b" \n", "checkpoint: T2T610: the state file is empty; give the checkpoint's prefix instead"),
        (
            b'all_model_checkpoint_paths: "x"',
            "checkpoint: T2T610: the state file has no model_checkpoint_path; give the checkpoint's prefix instead",
        ),
        (
            b'model_checkpoint_path: "\\q"',
            "checkpoint:1: T2T610 the escape \\q is unknown",
        ),
        *(
            (content, "checkpoint:2: T2T610 not a checkpoint state file (a text protobuf)")
            for content in (
                b"\n\x80\x02pickle",
                b'\nmodel_checkpoint_path: "no end',
                b'\nmodel_checkpoint_path "x"',
                b"\nmodel_checkpoint_path: : 1",
                b'\n"x"',
                b"\na: 1 2",
                b"\na { b: 1 }",
            )
        ),
    ],
)
def test_what_is_no_state_file_is_refused_with_the_line(tmp_path: Path, content: bytes, text: str) -> None:
    assert refused(tmp_path, content) == text


def test_a_hundred_thousand_checkpoints_are_read_at_once(tmp_path: Path) -> None:
    """With a time that grows with the square of the file's size it would take minutes."""
    lines = b"".join(b'all_model_checkpoint_paths: "model.ckpt-%d"\n' % i for i in range(100_000))
    started = time.monotonic()

    assert read(tmp_path, b'model_checkpoint_path: "model.ckpt-99999"\n' + lines) == b"model.ckpt-99999"
    assert refused(tmp_path, lines + b"?") == (
        "checkpoint:100001: T2T610 not a checkpoint state file (a text protobuf)"
    )
    assert time.monotonic() - started < 30


def test_a_state_file_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").touch()
    os.truncate(tmp_path / "checkpoint", 2**30)

    with pytest.raises(CheckpointError) as caught:
        newest(str(tmp_path / "checkpoint"))
    assert str(caught.value).endswith(": T2T611: the file has 1073741824 bytes, but at most 16777216 are read")


@given(content=st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_are_a_state_file_or_refused(tmp_path: Path, content: bytes) -> None:
    with contextlib.suppress(CheckpointError):
        read(tmp_path, content)
