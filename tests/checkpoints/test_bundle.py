"""What is read from a bundle, what is listed, and what that costs."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2t import checkpoints
from t2t.checkpoints import bundle as bundle_module
from t2t.checkpoints import entries
from t2t.checkpoints.bundle import Bundle
from t2t.checkpoints.files import File
from t2t.problems import CheckpointError
from t2t.tensors import DTYPES
from tests.checkpoints.refusing import INDEX, refused, unread
from tests.checkpoints.writing import (
    Fixed32,
    Tensor,
    bundle,
    entry,
    floats,
    header,
    masked,
    message,
)

# What is read.


def test_a_bundle_reads_as_written(x: Path) -> None:
    bundle(x, {"b": floats(1, 2, 3, 4, shape=(2, 2)), "a": Tensor(9, (), struct.pack("<q", -7))})

    with Bundle(str(x)) as checkpoint:
        a, b = checkpoint.inventory.variables.values()
        assert (a.name, a.dtype, a.shape, a.shard, a.offset, a.nbytes) == ("a", "int64", (), 0, 16, 8)
        assert (b.name, b.dtype, b.shape, b.shard, b.offset, b.nbytes) == ("b", "float32", (2, 2), 0, 0, 16)
        assert b.crc32c == google_crc32c.value(struct.pack("<4f", 1, 2, 3, 4))
        assert checkpoint.read(a) == -7
        assert checkpoint.read(b).tolist() == [[1, 2], [3, 4]]
        assert checkpoint.inventory.trainable is None
        assert checkpoint.notes == ()
        assert checkpoint.files == (f"{x}.index", f"{x}.data-00000-of-00001")


NUMBERS = {name: key for key, name in entries.DTYPE_NAMES.items() if DTYPES[name].kind not in ("other", "bool")}


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_any_bundle_reads_as_written(tmp_path: Path, data: st.DataObject) -> None:
    shards = data.draw(st.integers(1, 3))
    # Not the two suffixes that are taken off: names that end like that have tests of their own.
    names = st.text(min_size=1, max_size=30).filter(lambda name: not name.endswith((":0", "VARIABLE_VALUE")))
    sources = {}
    for name in data.draw(st.sets(names, max_size=8)):
        dtype = data.draw(st.sampled_from(sorted(NUMBERS)))
        shape = data.draw(st.lists(st.integers(0, 4), max_size=4).map(tuple))
        size = int(np.prod(shape, dtype=int)) * DTYPES[dtype].itemsize
        content = data.draw(st.binary(min_size=size, max_size=size))
        sources[name] = dtype, Tensor(NUMBERS[dtype], shape, content, data.draw(st.integers(0, shards - 1)))
    tensors = {name: tensor for name, (_, tensor) in sources.items()}
    blocks, compression = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 1))
    prefix = bundle(tmp_path / "x", tensors, shards=shards, blocks=blocks, compression=compression)
    for path in tmp_path.glob("x.data-*"):
        if not path.name.endswith(f"-of-{shards:05}"):
            path.unlink()

    with checkpoints.open(prefix) as checkpoint:
        assert set(checkpoint.inventory.variables) == set(sources)
        for name, (dtype, tensor) in sources.items():
            ref = checkpoint.inventory.variables[name]
            for values in (checkpoint.read(ref), checkpoint.view(ref)):
                assert (values.dtype, values.shape) == (DTYPES[dtype].numpy, tensor.shape)
                assert values.tobytes() == tensor.data


def test_read_fills_the_buffer_it_is_given(x: Path) -> None:
    bundle(x, {"a": floats(1, 2), "b": floats(3)})
    out = np.full(12, 255, np.uint8)

    with Bundle(str(x)) as checkpoint:
        a, b = checkpoint.inventory.variables.values()
        values = checkpoint.read(a, out)
        assert values.tolist() == [1, 2]
        assert np.shares_memory(values, out)
        assert checkpoint.read(b, out).tolist() == [3]
        assert values.tolist() == [3, 2], "the buffer is reused"
        assert out[8:].tolist() == [255] * 4


@pytest.mark.parametrize("out", [np.empty(7, np.uint8), np.empty(8, np.int8), np.empty((2, 4), np.uint8)])
def test_a_buffer_that_does_not_fit_is_refused(x: Path, out: np.ndarray) -> None:
    bundle(x, {"a": floats(1, 2)})

    with Bundle(str(x)) as checkpoint, pytest.raises(ValueError, match="but 8 bytes are needed"):
        checkpoint.read(checkpoint.inventory.variables["a"], out)


def test_a_tensor_of_many_pieces_reads(x: Path) -> None:
    content = np.random.default_rng(0).bytes(2 * File.piece + 13)
    bundle(x, {"a": Tensor(4, (len(content),), content)})

    with Bundle(str(x)) as checkpoint:
        assert checkpoint.read(checkpoint.inventory.variables["a"]).tobytes() == content


def test_a_view_is_read_only_and_copies_only_what_is_not_aligned(x: Path) -> None:
    bundle(x, {"a": floats(1, 2), "b": Tensor(4, (1,), b"\7"), "c": floats(3)})

    with Bundle(str(x)) as checkpoint:
        views = {name: checkpoint.view(ref) for name, ref in checkpoint.inventory.variables.items()}
    assert {name: view.tolist() for name, view in views.items()} == {"a": [1, 2], "b": [7], "c": [3]}
    assert not any(view.flags.writeable for view in views.values())
    assert {name: is_mapped(view) for name, view in views.items()} == {"a": True, "b": True, "c": False}
    assert all(view.flags.aligned for view in views.values())


def is_mapped(array: np.ndarray) -> bool:
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner is not None


def test_a_view_outlives_the_checkpoint(x: Path) -> None:
    bundle(x, {"a": floats(1, 2)})
    checkpoint = Bundle(str(x))
    view = checkpoint.view(checkpoint.inventory.variables["a"])
    checkpoint.close()
    checkpoint.close()

    assert view.tolist() == [1, 2]


def test_a_closed_checkpoint_is_not_read(x: Path) -> None:
    bundle(x, {"a": floats(1, 2)})
    with Bundle(str(x)) as checkpoint:
        ref = checkpoint.inventory.variables["a"]

    with pytest.raises(ValueError, match="the checkpoint is closed"):
        checkpoint.read(ref)


@pytest.mark.parametrize("shape", [(), (0,), (0, 7), (16, 0, 18), (1,), (0, 2**62)])
def test_scalars_and_empty_tensors_keep_their_shape(x: Path, shape: tuple[int, ...]) -> None:
    bundle(x, {"a": Tensor(4, shape, b"" if 0 in shape else b"\1")})

    with Bundle(str(x)) as checkpoint:
        ref = checkpoint.inventory.variables["a"]
        assert checkpoint.read(ref).shape == checkpoint.view(ref).shape == ref.shape == shape


def test_five_thousand_shards_read_with_few_open_files(x: Path) -> None:
    count = 5000
    bundle(x, {f"v{i}": Tensor(3, (), struct.pack("<i", i), shard=i) for i in range(count)}, shards=count)

    with Bundle(str(x)) as checkpoint:
        for ref in checkpoint.inventory.variables.values():
            assert checkpoint.read(ref) == ref.shard
            assert checkpoint.view(ref) == ref.shard
        assert len(os.listdir("/proc/self/fd")) < 3 * bundle_module.MAX_OPEN


def test_the_last_field_counts_and_unknown_fields_are_skipped(x: Path) -> None:
    dim = message((1, 2), (2, b"name of the axis"))
    tensor = Tensor(2, (), struct.pack("<2f", 5, 6))
    bundle(x, {"a": tensor}, fields={"a": [(1, 1), (2, message((2, dim))), (99, 5), (98, b"new"), (97, Fixed32(1))]})

    with Bundle(str(x)) as checkpoint:
        assert checkpoint.read(checkpoint.inventory.variables["a"]).tolist() == [5, 6]


def test_bytes_between_and_behind_tensors_are_nobodys(x: Path) -> None:
    tensors = {"a": floats(1), "b": floats(2)}
    bundle(x, tensors, rows={b"b": entry(tensors["b"], 64)})
    Path(f"{x}.data-00000-of-00001").write_bytes(tensors["a"].data.ljust(64, b"?") + tensors["b"].data + b"behind")

    with Bundle(str(x)) as checkpoint:
        assert [float(checkpoint.read(ref)[0]) for ref in checkpoint.inventory.variables.values()] == [1, 2]


# Names.


def test_variables_are_sorted_with_numbers_as_numbers(x: Path) -> None:
    names = ["a", "a/2/b", "a/10/b", "a/010/b", "b1", "b" + "9" * 5000, "b" + "1" * 5001]
    bundle(x, {name: floats() for name in names})

    with Bundle(str(x)) as checkpoint:
        assert list(checkpoint.inventory.variables) == [
            *("a", "a/2/b", "a/010/b", "a/10/b", "b1"),
            *("b" + "9" * 5000, "b" + "1" * 5001),
        ]


VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (["a" + VALUE, "b:0"], ["a", "b"]),
        (["a", "a" + VALUE], ["a", "a" + VALUE]),
        (["a:0", "a" + VALUE], ["a" + VALUE, "a:0"]),
        (["a", "a:0", "a:0:0"], ["a", "a:0", "a:0:0"]),
        (["a/.ATTRIBUTES/OBJECT_CONFIG_JSON"], ["a/.ATTRIBUTES/OBJECT_CONFIG_JSON"]),
        ([VALUE, ":0"], [VALUE, ":0"]),
    ],
)
def test_suffixes_are_taken_off_where_names_stay_unique(x: Path, keys: list[str], names: list[str]) -> None:
    bundle(x, {key: floats() for key in keys})

    with Bundle(str(x)) as checkpoint:
        assert list(checkpoint.inventory.variables) == names


def test_any_bytes_can_be_a_name(x: Path) -> None:
    names = ["\0\1\2", "\x1b[31m\n", " ", "\udcff\udcfe", "k" * 70_000]
    bundle(x, {name: floats(i) for i, name in enumerate(names)})

    with Bundle(str(x)) as checkpoint:
        assert [float(checkpoint.read(checkpoint.inventory.variables[name])[0]) for name in names] == [0, 1, 2, 3, 4]


def test_names_are_escaped_in_messages(x: Path) -> None:
    bundle(x, {"\x1b[31m\n\udcff": floats(1)}, fields={"\x1b[31m\n\udcff": [(5, 9)]})

    assert refused(x) == (f"{INDEX}: T2T605: \\x1b[31m\\n\\udcff: 9 bytes are stored, but float32 [1] needs 4")


def test_the_object_graph_is_no_variable(x: Path) -> None:
    bundle(x, {"_CHECKPOINTABLE_OBJECT_GRAPH": Tensor(7, (), b"\0....", shard=0), "a": floats(1)})

    with Bundle(str(x)) as checkpoint:
        assert list(checkpoint.inventory.variables) == ["a"]


# What is listed and not read.


@pytest.mark.parametrize(
    ("tensor", "dtype", "reason"),
    [
        (Tensor(20, (), b""), "resource", "its dtype is resource, whose values mean nothing outside of TensorFlow"),
        (Tensor(21, (), b"????"), "variant", "its dtype is variant, whose values mean nothing outside of TensorFlow"),
        (Tensor(0, (1,), b"1234"), "unknown(0)", "its dtype is unknown(0), which TensorFlow does not have"),
        (Tensor(99, (1,), b"1234"), "unknown(99)", "its dtype is unknown(99), which TensorFlow does not have"),
        (Tensor(101, (1,), b"1234"), "unknown(101)", "its dtype is unknown(101), which TensorFlow does not have"),
        (Tensor(1, (1,) * 33, b"1234"), "float32", "its shape is one that numpy arrays cannot have"),
        (Tensor(1, (0, 2**32, 2**32), b""), "float32", "its shape is one that numpy arrays cannot have"),
        (Tensor(1, (2**32, 2**32, 0), b""), "float32", "its shape is one that numpy arrays cannot have"),
    ],
)
def test_what_cannot_be_read_is_listed_with_the_reason(x: Path, tensor: Tensor, dtype: str, reason: str) -> None:
    bundle(x, {"a": tensor, "b": floats(1)})

    with Bundle(str(x)) as checkpoint:
        ref = checkpoint.inventory.variables["a"]
        assert (ref.dtype, ref.shape, ref.unreadable) == (dtype, tensor.shape, reason)
        assert unread(checkpoint, "a") == [f"{INDEX}: T2T606: a: {reason}"]
        assert checkpoint.read(checkpoint.inventory.variables["b"]) == 1


@pytest.mark.parametrize(("dtype", "kind"), [(1, "f4"), (2, "f8"), (5, "i2"), (8, "c8"), (18, "c16"), (6, "i1")])
def test_a_big_endian_bundle_reads(x: Path, dtype: int, kind: str) -> None:
    values = np.array([1, 2, 100]).astype(f">{kind}")
    bundle(x, {"a": Tensor(dtype, (3,), values.tobytes())}, first=header(1, (2, 1)))

    with Bundle(str(x)) as checkpoint:
        ref = checkpoint.inventory.variables["a"]
        for found in (checkpoint.read(ref), checkpoint.view(ref)):
            assert (found.dtype, found.tolist()) == (np.dtype(kind), [1, 2, 100])


# What it costs.


def test_slow_checksums_are_noted_once(x: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle(x, {"a": floats(1)})
    monkeypatch.setattr(google_crc32c, "implementation", "python")

    with Bundle(str(x)) as checkpoint:
        (note,) = checkpoint.notes
    assert (note.severity, note.code) == ("warning", "T2T612")
    assert note.message == "checksums are computed by the python version of google-crc32c, very slowly"
    with Bundle(str(x), checksums=False) as checkpoint:
        assert checkpoint.notes == ()


def imported(code: str) -> set[str]:
    """Which packages a fresh interpreter has imported after `code`."""
    script = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    )


HEAVY = {"torch", "tensorflow", "cramjam", "rich", "yaml"}


def test_opening_imports_nothing_that_it_does_not_need(x: Path) -> None:
    bundle(x, {"a": floats(1)})

    assert not imported(f"from t2t import checkpoints\ncheckpoints.open({str(x)!r})") & HEAVY


def test_a_needless_import_would_be_seen(x: Path) -> None:
    """The test above can fail: snappy is imported for a compressed index."""
    bundle(x, {"a": floats(1)}, compression=1)

    assert imported(f"from t2t import checkpoints\ncheckpoints.open({str(x)!r})") & HEAVY == {"cramjam"}


def test_an_index_lists_without_its_data(x: Path) -> None:
    bundle(x, {"a": floats(1)})
    with checkpoints.open(x) as whole:
        listed = whole.inventory.variables
    x.with_name(f"{x.name}.data-00000-of-00001").unlink()

    alone = checkpoints.open_index(x)

    assert alone is not None
    assert alone.inventory.variables == listed
    with pytest.raises(CheckpointError, match="T2T602: cannot be opened: no such file or directory"):
        alone.read(listed["a"])


def test_a_format_that_keeps_all_in_one_has_no_index(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros(2))

    assert checkpoints.open_index(tmp_path / "x.npz") is None


def test_masked_is_what_unmasked_undoes() -> None:
    """The writer of these tests and the reader agree with a published value."""
    assert masked(b"123456789") == 0xC78AB0E5
