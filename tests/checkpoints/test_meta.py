from __future__ import annotations

from pathlib import Path

import pytest

from t2t import checkpoints
from t2t.checkpoints import meta
from t2t.problems import CheckpointError
from tests.checkpoints.writing import message


def graph(*variables: bytes, name: bytes = b"trainable_variables") -> bytes:
    """A MetaGraphDef: a graph that is not looked at, two collections, a signature."""
    other = message((1, b"losses"), (2, message((1, message((1, b"l:0"))))))
    collection = message((1, name), (2, message((2, message(*((1, variable) for variable in variables))))))
    return message((1, b""), (2, b"\xff" * 1000), (4, other), (4, collection), (5, b"\xff"), (9, 1))


def variable(name: bytes, part_of: bytes = b"") -> bytes:
    return message((1, name), (2, b"init"), *([(4, message((1, part_of)))] if part_of else []))


def read(folder: Path, content: bytes) -> frozenset[str] | None:
    (folder / "x.meta").write_bytes(content)
    return meta.trainable(str(folder / "x.meta"))


def refused(folder: Path, content: bytes) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(folder, content)
    return str(caught.value).replace(f"{folder}/", "")


def test_the_trainable_variables_are_named_as_in_the_checkpoint(tmp_path: Path) -> None:
    content = graph(variable(b"a:0"), variable(b"b/part_0:0", b"b"), variable(b"b/part_1:0", b"b"))

    assert read(tmp_path, content) == frozenset({"a", "b"})


def test_an_empty_collection_is_not_a_missing_one(tmp_path: Path) -> None:
    assert read(tmp_path, graph()) == frozenset()
    assert read(tmp_path, graph(name=b"variables")) is None
    assert read(tmp_path, b"") is None
    assert meta.trainable(str(tmp_path / "y.meta")) is None


HINT = "the weights do not need this file: move it away, or copy it again"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\x0a\x7f", "protobuf field 1 claims 127 bytes, but 0 are left"),
        (b"\x0a", "the number at byte 1 has no end"),
        (b"\x0b\x00", "protobuf field 1 has the wire type 3, but needs 0"),
        (message((4, message((1, 5)))), "protobuf field 1 has the wire type 0, but needs 2"),
        (graph(message((1, 5))), "protobuf field 1 has the wire type 0, but needs 2"),
        (graph(b"\x0a\x7f"), "protobuf field 1 claims 127 bytes, but 0 are left"),
    ],
)
def test_a_graph_that_is_none_is_refused(tmp_path: Path, content: bytes, text: str) -> None:
    assert refused(tmp_path, content) == f"x.meta: T2T604: not the graph of a checkpoint: {text}; {HINT}"


def test_a_collection_over_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = graph(variable(b"a:0"))
    monkeypatch.setattr(meta, "MAX_COLLECTION", 20)

    text = "not the graph of a checkpoint: a collection has 38 bytes, but at most 20 are read"
    assert refused(tmp_path, content) == f"x.meta: T2T611: {text}; {HINT}"


def test_it_is_refused_or_reads_when_cut_off_at_any_byte(tmp_path: Path) -> None:
    content = graph(variable(b"a:0"))
    for size in range(len(content)):
        try:
            assert read(tmp_path, content[:size]) in (None, frozenset({"a"}))
        except CheckpointError:
            continue


def test_the_trainable_variables_of_a_real_graph(shared_data: Path) -> None:
    """TensorFlow names eight trainable variables of this one; the others are Adam's and the step."""
    with checkpoints.open(shared_data / "madry/checkpoint-700") as checkpoint:
        assert checkpoint.inventory.trainable == frozenset({"Variable", *(f"Variable_{i}" for i in range(1, 8))})
        assert checkpoint.files[-1].endswith("checkpoint-700.meta")
