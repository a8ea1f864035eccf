"""Recordings: what is in them, what they are keyed by, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2t.problems import CheckpointError, Location, MappingError, OutputError, Problem, T2TError
from t2t.proof import arrays, origin, recording
from t2t.proof.inputs import LIMIT
from t2t.proof.layers import Inside, Layer, Sample
from t2t.proof.recording import Draw, Recording
from t2t.verification import Input, Reference, Verify

VerifyOf = Callable[..., Verify]

PARTS = {"checkpoint", "inputs", "feed", "fetch", "draws", "labels", "graph"}


def npy(array: Any, **kwargs: Any) -> bytes:
    """The bytes of a .npy file, as numpy writes it."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), **kwargs)
    return file.getvalue()


def npz(path: Path, members: dict[str, bytes], **kwargs: Any) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **kwargs) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def message(error: pytest.ExceptionInfo[T2TError]) -> str:
    assert len(error.value.problems) == 1
    return str(error.value.problems[0])


def made_from(verify: Verify, digest: str = "d0") -> Recording:
    """A recording whose outputs stand for the original's."""
    draws = tuple(
        Draw(
            recording.inputs(verify, j), {name: np.full((2, 3), j + 0.5, np.float32) for name in verify.reference.fetch}
        )
        for j in range(verify.draws)
    )
    generated = frozenset(entry.name for entry in verify.inputs if not entry.path)
    made_by = {"t2t": "0.1.0", "tensorflow": "2.21.0", "numpy": "2.0.0"}
    made_from = origin.parts(verify, digest) | {"graph": "g0"}
    return Recording(made_from, draws, origin.labels(verify), made_by, generated)


def members_of(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def description(path: Path) -> dict[str, Any]:
    described: dict[str, Any] = json.loads(members_of(path)["recording"].tobytes())
    return described


def describe(path: Path, **changes: Any) -> None:
    """Rewrite what a recording says of itself."""
    members = members_of(path)
    text = json.dumps(description(path) | changes)
    members["recording"] = np.frombuffer(text.encode(), np.uint8)
    np.savez(path, **members)


# --- inputs ---


def test_a_seed_draws_by_the_documented_rule(verify_of: VerifyOf) -> None:
    verify = verify_of(inputs="{x: {shape: [4, 2], range: [-1, 3], seed: 7}}", draws="2")
    stream = int.from_bytes(hashlib.sha256(b"x").digest()[:8], "little")
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([7, 1, stream])))

    drawn = recording.inputs(verify, 1)["x"]

    assert drawn.dtype == np.float32
    np.testing.assert_array_equal(drawn, (-1 + 4 * generator.random((4, 2))).astype(np.float32))


def test_a_step_draws_by_the_documented_rule(verify_of: VerifyOf, tmp_path: Path) -> None:
    """The first step draws what a draw without steps does; files and constants stay."""
    np.save(tmp_path / "f.npy", np.arange(3.0))
    inputs = "{x: {shape: [4, 2], range: [-1, 3], seed: 7}, f: {file: f.npy}, c: {value: 2.0}}"
    names = 'x: "x:0", f: "f:0", c: "c:0"'
    verify = verify_of(inputs=inputs, reference=f'{{graph: g, feed: {{{names}}}, fetch: {{y: "y:0"}}}}', steps="3")
    stream = int.from_bytes(hashlib.sha256(b"x").digest()[:8], "little")
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([7, 1, stream, 2])))

    drawn = [recording.inputs(verify, 1, step) for step in range(3)]

    np.testing.assert_array_equal(drawn[0]["x"], recording.inputs(verify, 1)["x"])
    np.testing.assert_array_equal(drawn[2]["x"], (-1 + 4 * generator.random((4, 2))).astype(np.float32))
    assert len({run["x"].tobytes() for run in drawn}) == 3
    assert len({(run["f"].tobytes(), run["c"].tobytes()) for run in drawn}) == 1
    for run, known in zip(recording.runs(verify), drawn, strict=True):
        assert run.keys() == known.keys()


@pytest.mark.parametrize(
    ("spec", "digest"),
    [
        ("{shape: [64, 784], range: [0, 1]}", "3d4fdef35dc992f9"),
        ("{shape: [100], range: [-5, 5], dtype: int32, seed: 3}", "54adea33808712ca"),
        ("{shape: [100], values: [0, 1, 0.5], dtype: float64}", "b1f0aad32c79bb94"),
    ],
)
def test_a_seed_draws_the_same_numbers_for_ever(verify_of: VerifyOf, spec: str, digest: str) -> None:
    drawn = recording.inputs(verify_of(inputs=f"{{x: {spec}}}"), 0)["x"]

    assert hashlib.sha256(drawn.tobytes()).hexdigest()[:16] == digest


def test_inputs_do_not_depend_on_each_other(verify_of: VerifyOf) -> None:
    both = verify_of(
        inputs="{w: {shape: [3], range: [0, 1]}, x: {shape: [3], range: [0, 1]}}",
        reference='{graph: g, feed: {w: "w:0", x: "x:0"}, fetch: {y: "y:0"}}',
    )
    alone = verify_of(inputs="{x: {shape: [3], range: [0, 1]}}")

    np.testing.assert_array_equal(recording.inputs(both, 0)["x"], recording.inputs(alone, 0)["x"])
    assert not np.array_equal(recording.inputs(both, 0)["x"], recording.inputs(both, 0)["w"])
    assert not np.array_equal(recording.inputs(alone, 0)["x"], recording.inputs(alone, 1)["x"])


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    low=st.integers(-1000, 1000) | st.floats(-1e4, 1e4, allow_nan=False),
    width=st.floats(1e-6, 1e4),
    dtype=st.sampled_from(["float64", "float32", "float16", "int64", "int32", "int16"]),
)
def test_a_range_never_reaches_its_end(verify_of: VerifyOf, low: float, width: float, dtype: str) -> None:
    high = low + width
    verify = verify_of()
    entry = Input("x", (50,), dtype, (low, high))
    drawing = dataclasses.replace(verify, inputs=(entry,))
    if "int" in dtype and math.ceil(low) >= math.ceil(high):
        with pytest.raises(MappingError, match=f"which holds no {dtype}"):
            recording.inputs(drawing, 0)
        return
    drawn = recording.inputs(drawing, 0)["x"]
    first, end = np.array([low, high], dtype if "float" in dtype else "float64")

    assert drawn.dtype == dtype
    assert (drawn >= first).all()
    assert (drawn < end).all() or first == end


def test_values_are_picked_from_and_constants_fill_their_shape(verify_of: VerifyOf) -> None:
    specs = {
        "v": "{shape: [200], values: [0, 3, 5], dtype: int64}",
        "c": "{shape: [2, 1], value: 1.5}",
        "s": "{value: 4}",
        "flag": "{value: true}",
        "off": "{value: false, dtype: bool}",
    }
    given = ", ".join(f"{name}: {spec}" for name, spec in specs.items())
    feed = ", ".join(f'{name}: "{name}:0"' for name in specs)
    reference = f'{{graph: g, feed: {{{feed}}}, fetch: {{y: "y:0"}}}}'
    made = recording.inputs(verify_of(inputs=f"{{{given}}}", reference=reference), 0)

    assert set(made["v"].tolist()) == {0, 3, 5}
    assert made["v"].dtype == np.int64
    np.testing.assert_array_equal(made["c"], np.array([[1.5], [1.5]], np.float32))
    for name, value in (("s", np.float32(4)), ("flag", np.bool_(True)), ("off", np.bool_(False))):
        np.testing.assert_array_equal(made[name], np.array(value), strict=True)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("{value: 300, dtype: uint8}", "x has the value 300, which uint8 cannot hold"),
        ("{value: 0.5, dtype: int32}", "x has the value 0.5, which int32 cannot hold"),
        ("{value: 2, dtype: bool}", "x has the value 2, which bool cannot hold"),
        ("{value: true, dtype: int32}", "x has the value true, which int32 cannot hold"),
        ("{value: 1e6, dtype: float16}", "x has the value 1000000.0, which float16 cannot hold"),
        ("{shape: [2], values: [1, -1], dtype: uint8}", "x has the value -1, which uint8 cannot hold"),
        ("{shape: [2], range: [0, 300], dtype: uint8}", "x has the value 299, which uint8 cannot hold"),
        ("{shape: [2], range: [1, 1]}", "x is drawn from the range [1, 1), which holds nothing"),
        ("{shape: [2], range: [0.1, 0.9], dtype: int8}", "x is drawn from the range [0.1, 0.9), which holds no int8"),
        (
            "{shape: [1000000, 1000000], range: [0, 1]}",
            f"x would take 4000000000000 bytes in 1 draws, the limit is {LIMIT}; "
            "a smaller shape or fewer draws prove as much",
        ),
        (
            "{shape: [0, 9999999999999999, 9999999999999999], range: [0, 1]}",
            f"x would take {4 * 9999999999999999**2} bytes in 1 draws, its empty axes not counted, the limit is "
            f"{LIMIT}; a smaller shape or fewer draws prove as much",
        ),
        (f"{{shape: {[1] * 70}, range: [0, 1]}}", "x has 70 axes, numpy arrays have at most 32"),
        (f"{{shape: {[1] * 33}, value: 1}}", "x has 33 axes, numpy arrays have at most 32"),
    ],
)
def test_an_impossible_input_is_refused(verify_of: VerifyOf, tmp_path: Path, spec: str, text: str) -> None:
    with pytest.raises(MappingError) as error:
        recording.inputs(verify_of(inputs=f"{{x: {spec}}}"), 0)

    assert message(error) == f"{tmp_path}/m.yaml:5:1: T2T503 {text}"


def test_as_many_axes_as_numpy_has_are_drawn(verify_of: VerifyOf) -> None:
    verify = verify_of(inputs=f"{{x: {{shape: {[1] * 31 + [0]}, range: [0, 1]}}}}")

    assert recording.inputs(verify, 0)["x"].shape == (1,) * 31 + (0,)


# --- arrays in files ---


@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<f2", ">f4", ">i8", "<i4", "<i2", "|i1", "|u1", "<u2", "<u8", "|b1"])
@pytest.mark.parametrize("shape", [(), (0,), (0, 7), (1,), (3, 4, 5)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_what_numpy_writes_is_read(tmp_path: Path, dtype: str, shape: Any, order: Any, version: Any) -> None:
    array = np.asarray(np.arange(math.prod(shape)).reshape(shape) % 100, dtype, order=order)
    path = tmp_path / "a.npy"
    path.write_bytes(npy(array, version=version))

    read = arrays.read(str(path))

    assert read.dtype == np.dtype(dtype).newbyteorder("=")
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, array, strict=False)
    assert read.shape == shape


def test_an_array_is_read_from_an_archive_by_its_member_or_as_the_only_one(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "two.npz", a=np.arange(3), b=np.ones((2, 2), np.float32))
    np.savez(tmp_path / "one.npz", a=np.arange(3))

    np.testing.assert_array_equal(arrays.read(str(tmp_path / "two.npz"), "b"), np.ones((2, 2), np.float32))
    np.testing.assert_array_equal(arrays.read(str(tmp_path / "one.npz")), np.arange(3))


def header(text: str, rest: bytes = b"") -> bytes:
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode() + rest


HOSTILE: dict[str, tuple[bytes, str]] = {
    "objects": (
        npy(np.array([{}], object), allow_pickle=True),
        "{p} has dtype |O; only plain numbers are read, and nothing is unpickled",
    ),
    "text": (npy(np.array(["abc"])), "{p} has dtype <U3; only plain numbers are read, and nothing is unpickled"),
    "records": (
        npy(np.zeros(2, [("a", "<f4")])),
        "{p} has a header that cannot be read: {{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }}",
    ),
    "code": (
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (__import__('os'),), }"),
        "{p} has a header that cannot be read: "
        "{{'descr': '<f4', 'fortran_order': False, 'shape': (__import__('os'),), }}",
    ),
    "terabytes": (
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }", b"1234"),
        "{p} says float32 [1099511627776], but 4 bytes of elements follow its header",
    ),
    "nothing times everything": (
        header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': (0, {10**18 - 1}, {10**18 - 1}), }}"),
        "{p} is not a whole .npy or .npz file: array is too big; `arr.size * arr.dtype.itemsize` is larger than the "
        "maximum possible size.",
    ),
    "trailing bytes": (npy(np.arange(2)) + b"x", "{p} says int64 [2], but 17 bytes of elements follow its header"),
    "version 3": (b"\x93NUMPY\3\0abcd", "{p} is not an array as numpy stores it (version 1.0 or 2.0)"),
    "empty": (b"", "{p} is not a whole .npy or .npz file: File is not a zip file"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_array_is_refused(tmp_path: Path, case: str) -> None:
    content, text = HOSTILE[case]
    path = tmp_path / "a.npy"
    path.write_bytes(content)

    with pytest.raises(CheckpointError) as error:
        arrays.read(str(path))

    assert message(error) == f"{path}: T2T904: {text.format(p=path)}"


def test_an_archive_that_is_not_plain_is_refused(tmp_path: Path) -> None:
    one = npy(np.arange(3))

    def refusal(content: bytes | Path, member: str | None = None) -> str:
        path = tmp_path / "a.npz"
        if isinstance(content, bytes):
            path.write_bytes(content)
        with pytest.raises(CheckpointError) as error:
            arrays.read(str(path), member)
        assert str(error.value.problems[0].at) == str(path)
        return message(error).removeprefix(f"{path}: T2T904: ").replace(str(path), "PATH")

    two = npz(tmp_path / "a.npz", {"images.npy": one, "labels.npy": one})
    assert refusal(two, "image") == "PATH has no member image, it holds images, labels; did you mean images"
    assert refusal(two) == "PATH holds images, labels; name one array with member"
    assert refusal(npz(tmp_path / "a.npz", {})) == "PATH holds nothing; name one array with member"
    content = npz(tmp_path / "a.npz", {"a.npy": one, "b.npy": one}).read_bytes()
    assert refusal(content.replace(b"b.npy", b"a.npy"), "a") == "PATH has two members a"
    content = npz(tmp_path / "a.npz", {"aXb.npy": one}).read_bytes()
    assert refusal(content.replace(b"aXb", b"a\0b"), "a") == "PATH has a member with the name a\\x00b.npy"
    lzma = zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_LZMA)
    lzma.writestr("a.npy", one)
    lzma.close()
    assert refusal(tmp_path / "a.npz") == "a in PATH is encrypted or packed by another method than deflate"
    big = npy(np.zeros(40 * 2**20, np.float64))
    size = npz(tmp_path / "a.npz", {"a.npy": big}).stat().st_size
    assert refusal(tmp_path / "a.npz") == f"PATH has {size} bytes and claims to unpack to {len(big)}"
    assert refusal(npy(np.arange(2)), "a") == "PATH is a .npy file, which has no member a; leave out member"


def test_a_file_that_is_not_there_or_not_a_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, text in (
        ("gone", f"no file at {tmp_path}/gone"),
        ("fifo", f"{tmp_path}/fifo is not a regular file"),
        (".", f"{tmp_path}/. is not a regular file"),
    ):
        with pytest.raises(CheckpointError) as error:
            arrays.read(f"{tmp_path}/{name}")
        assert message(error) == f"{tmp_path}/{name}: T2T904: {text}"


# --- the key ---


def key_of(verify: Verify, digest: str) -> str:
    return Recording(origin.parts(verify, digest), (), None, {}).key


def test_another_graph_makes_a_recording_stale_and_a_missing_one_does_not(verify_of: VerifyOf, tmp_path: Path) -> None:
    verify, graph = verify_of(), tmp_path / "g.meta"
    graph.write_bytes(b"one graph")
    made = made_from(verify)
    made_with = {**made.made_from, "graph": origin.original_digest(verify.reference, str(graph)) or ""}
    recording.save(verify.recording, dataclasses.replace(made, made_from=made_with))
    moved = tmp_path / "moved.meta"

    assert isinstance(recording.find(verify.recording, verify, "d0", str(graph), "again"), Recording)
    assert isinstance(recording.find(verify.recording, verify, "d0", str(moved), "again"), Recording)
    moved.write_bytes(b"another graph")
    assert recording.find(verify.recording, verify, "d0", str(moved), "again") == Problem(
        "T2T502",
        f"not proven: recording {verify.recording} was made from another graph",
        verify.at,
        "again",
    )


@pytest.mark.parametrize("name", ["fifo", "/dev/zero", "directory"])
def test_a_graph_that_is_no_file_is_refused_without_waiting(verify_of: VerifyOf, tmp_path: Path, name: str) -> None:
    """Whoever reads a FIFO waits for ever, and /dev/zero never ends."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    verify, graph = verify_of(), str(tmp_path / name)
    recording.save(verify.recording, made_from(verify))

    with pytest.raises(CheckpointError) as error:
        recording.find(verify.recording, verify, "d0", graph, "again")

    assert message(error) == f"{graph}: T2T602: not a regular file"


def test_the_key_changes_with_everything_that_decides_the_outputs(verify_of: VerifyOf, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 3), np.float32), labels=np.array([0, 1]))
    np.savez(tmp_path / "b.npz", x=np.ones((2, 3), np.float32), labels=np.array([0, 2]))
    np.savez(tmp_path / "c.npz", x=np.zeros((3, 2), np.float32))
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 3), np.int32))
    variants = [
        {},
        {"inputs": "{x: {shape: [2, 3], range: [0, 1], seed: 1}}"},
        {"inputs": "{x: {shape: [2, 4], range: [0, 1]}}"},
        {"inputs": "{x: {shape: [2, 3], range: [0, 2]}}"},
        {"inputs": "{x: {shape: [2, 3], values: [0, 1]}}"},
        {"inputs": "{x: {shape: [2, 3], value: 1}}"},
        {"inputs": "{x: {shape: [2, 3], range: [0, 1], dtype: float64}}"},
        *({"inputs": f"{{x: {{file: {name}.npz, member: x}}}}"} for name in "abcd"),
        {"reference": '{graph: g.meta, feed: {x: "z:0"}, fetch: {y: "y:0"}}'},
        {"reference": '{graph: g.meta, feed: {x: "x:0"}, fetch: {y: "z:0"}}'},
        {"reference": '{graph: g.meta, feed: {x: "x:0"}, fetch: {y: "y:0", z: "z:0"}}'},
        {"draws": "2"},
        {"labels": "{file: a.npz, member: labels, metric: accuracy}"},
        {"labels": "{file: b.npz, member: labels, metric: accuracy}"},
    ]
    keys = [key_of(verify_of(**variant), "d0") for variant in variants] + [key_of(verify_of(), "d1")]

    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {64}


def test_the_key_does_not_change_with_what_leaves_the_outputs_alone(verify_of: VerifyOf, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 3), np.float32), other=np.zeros(1))
    np.save(tmp_path / "b.npy", np.asfortranarray(np.zeros((2, 3), ">f4")))
    np.save(tmp_path / "labels.npy", np.array([0, 1]))
    reference = '{graph: g, feed: {w: "w:0", x: "x:0"}, fetch: {y: "y:0", z: "z:0"}}'
    drawn, read = "w: {shape: [2], range: [0, 1]}", "x: {file: a.npz, member: x}"
    labels = "{file: labels.npy, metric: accuracy, output: y}"
    plain = verify_of(inputs=f"{{{drawn}, {read}}}", reference=reference, labels=labels)
    same = [
        verify_of(inputs=f"{{{read}, {drawn}}}", reference=reference, labels=labels),
        verify_of(inputs=f"{{{drawn}, x: {{file: b.npy}}}}", reference=reference, labels=labels),
        verify_of(inputs=f"{{{drawn}, {read}}}", reference=reference, labels=labels, rel="1e-3", abs="0.5"),
        verify_of(inputs=f"{{{drawn}, {read}}}", reference=reference, labels=labels.replace("y}", "z}")),
        verify_of(
            inputs=f"{{{drawn}, {read}}}",
            reference='{graph: g, feed: {x: "x:0", w: "w:0"}, fetch: {z: "z:0", y: "y:0"}}',
            labels=labels,
            torch='{arguments: {a: x, b: w}, axes: {x: a b -> b a}, outputs: {y: {at: "0", axes: a b -> b a}}}',
            recording="elsewhere.npz",
        ),
        dataclasses.replace(plain, at=Location("other.yaml", 9, 9)),
    ]

    assert {key_of(verify, "d0") for verify in same} == {key_of(plain, "d0")}


# --- the file ---


@pytest.fixture
def whole(verify_of: VerifyOf, tmp_path: Path) -> Verify:
    """A verify section with a drawn, a constant and a stored input, two outputs, three draws and labels."""
    np.savez(tmp_path / "data.npz", x=np.arange(6, dtype=np.int32).reshape(2, 3), labels=np.array([0, 2]))
    return verify_of(
        inputs="{d: {shape: [2], range: [0, 1]}, k: {value: 2}, x: {file: data.npz, member: x}}",
        reference='{graph: g, feed: {d: "d:0", k: "k:0", x: "x:0"}, fetch: {y: "y:0", "z/\\0": "z:0"}}',
        draws="3",
        labels="{file: data.npz, member: labels, metric: accuracy, output: y}",
    )


def test_a_recording_comes_back_as_it_was(whole: Verify, tmp_path: Path) -> None:
    made = made_from(whole)
    recording.save(whole.recording, made)
    found = recording.find(whole.recording, whole, "d0", "", "again")

    assert isinstance(found, Recording)
    assert (found.key, found.made_by, found.generated) == (made.key, made.made_by, frozenset({"d", "k"}))
    assert len(found.draws) == 3
    for ours, theirs in zip(found.draws, made.draws, strict=True):
        for one, other in ((ours.inputs, theirs.inputs), (ours.outputs, theirs.outputs)):
            assert one.keys() == other.keys()
            for name in one:
                np.testing.assert_array_equal(one[name], other[name], strict=True)
    assert found.labels is not None
    np.testing.assert_array_equal(found.labels, [0, 2])


def test_numpy_alone_can_read_what_is_stored(whole: Verify) -> None:
    recording.save(whole.recording, made_from(whole))
    members = members_of(Path(whole.recording))

    assert sorted(members) == sorted(
        ["input_2", "labels", "recording", *(f"output_{i}_draw_{j}" for i in range(2) for j in range(3))]
    )
    np.testing.assert_array_equal(members["output_0_draw_2"], np.full((2, 3), 2.5, np.float32), strict=True)


def test_the_same_recording_has_the_same_bytes(whole: Verify, tmp_path: Path) -> None:
    """Whatever the file is called, in whatever order names come, and however the arrays lie in memory."""
    made = made_from(whole)
    shuffled = dataclasses.replace(
        made,
        made_by=dict(sorted(made.made_by.items(), reverse=True)),
        draws=tuple(
            Draw(
                dict(sorted(draw.inputs.items(), reverse=True)),
                {name: np.asfortranarray(array) for name, array in sorted(draw.outputs.items(), reverse=True)},
            )
            for draw in made.draws
        ),
    )
    recording.save(str(tmp_path / "one.npz"), made)
    recording.save(str(tmp_path / "two.npz"), shuffled)
    recording.save(str(tmp_path / "three.npz"), recording.load(str(tmp_path / "one.npz"), whole))
    first = (tmp_path / "one.npz").read_bytes()

    assert (tmp_path / "two.npz").read_bytes() == first
    assert (tmp_path / "three.npz").read_bytes() == first
    assert str(tmp_path).encode() not in first


def test_a_recording_with_layers_has_the_same_bytes_too(whole: Verify, tmp_path: Path) -> None:
    """In whatever order the tensors come that go by a name."""
    ends = [Sample((3,), 2.0, np.array(values, np.float32)) for values in ([0, 1, 2], [2, 0, 0])]
    layers = (
        Layer("o", "MatMul", ("v",), ends[0], ends[1], (("x", ends[0]),)),
        Layer("p", "Add", ("w",), ends[0], ends[1]),
    )
    inside = Inside(layers, {"a": ends[0], "b": ends[1]})
    made = dataclasses.replace(made_from(whole), inside=inside)
    other = dataclasses.replace(made, inside=Inside(layers, {"b": ends[1], "a": ends[0]}))
    recording.save(str(tmp_path / "one.npz"), made)
    recording.save(str(tmp_path / "two.npz"), other)
    recording.save(str(tmp_path / "three.npz"), recording.load(str(tmp_path / "one.npz"), whole))
    first = (tmp_path / "one.npz").read_bytes()

    assert (tmp_path / "two.npz").read_bytes() == first
    assert (tmp_path / "three.npz").read_bytes() == first
    np.testing.assert_array_equal(
        members_of(tmp_path / "one.npz")["samples"], np.array([0, 1, 2, 2, 0, 0], np.float32), strict=True
    )
    described = description(tmp_path / "one.npz")
    assert described["layers"] == [["o", "MatMul", ["v"], 0, 1, [["x", 0]], []], ["p", "Add", ["w"], 0, 1, [], []]]
    assert described["samples"] == [[[3], 2.0], [[3], 2.0]]


def test_a_recording_without_layers_is_what_it_always_was(whole: Verify) -> None:
    """One of an older t2t has none of this, and is as good."""
    recording.save(whole.recording, made_from(whole))

    assert not {"layers", "named", "samples"} & {
        *description(Path(whole.recording)),
        *members_of(Path(whole.recording)),
    }
    found = recording.load(whole.recording, whole)
    assert (found.inside.layers, found.inside.named) == ((), {})


def test_layers_are_no_part_of_which_recording_it_is(verify_of: VerifyOf) -> None:
    """Whether they are there, and which tensors the mapping names, leaves a recording as good as it was."""
    verify = verify_of()
    end = Sample((1,), 2.0, np.array([2], np.float32))
    made = made_from(verify)
    inside = Inside((Layer("o", "MatMul", ("v",), end, end),), {"conv:0": end})
    recording.save(verify.recording, dataclasses.replace(made, inside=inside))
    named, other = verify_of(layers="{conv: conv:0}"), verify_of(layers="{a.0: x, conv: y}")

    assert dataclasses.replace(made, inside=inside).key == made.key
    for one in (verify, named, other):
        assert origin.parts(one, "d0") == origin.parts(verify, "d0")
        found = recording.find(verify.recording, one, "d0", "", "again")
        assert isinstance(found, Recording)
        assert list(found.inside.named) == ["conv:0"]


def test_each_draw_is_a_recording_of_its_own(whole: Verify) -> None:
    """With its steps and with the layers, without labels."""
    end = Sample((1,), 2.0, np.array([2], np.float32))
    inside = Inside((Layer("o", "MatMul", ("v",), end, end),))
    made = dataclasses.replace(made_from(whole), inside=inside)
    single, stepped = recording.by_draw(made), recording.by_draw(dataclasses.replace(made, steps=3))

    assert [one.draws for one in single] == [(draw,) for draw in made.draws]
    assert [one.draws for one in stepped] == [made.draws]
    for one in (*single, *stepped):
        assert one.labels is None
        assert one.inside is inside
        assert one.made_from == made.made_from
    assert made.labels is not None


def test_generated_inputs_that_come_out_otherwise_are_refused(whole: Verify) -> None:
    path = Path(whole.recording)
    recording.save(whole.recording, made_from(whole))
    hashes = description(path)["inputs"]
    describe(path, inputs=hashes | {"d": [hashes["d"][0], "00", hashes["d"][2]]})

    with pytest.raises(CheckpointError) as error:
        recording.load(whole.recording, whole)

    assert message(error) == (
        f"{path}: T2T904: d of draw 1 is not what was recorded: numpy {np.__version__} makes other numbers than "
        "numpy 2.0.0 did"
    )


def test_a_stored_input_that_was_changed_is_refused(whole: Verify) -> None:
    path = Path(whole.recording)
    recording.save(whole.recording, made_from(whole))
    np.savez(path, **members_of(path) | {"input_2": np.zeros((2, 3), np.int32)})

    with pytest.raises(CheckpointError) as error:
        recording.load(whole.recording, whole)

    assert message(error) == (
        f"{path}: T2T904: x of draw 0 is not what was recorded: it was changed after it was recorded"
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"t2t_recording": 2}, "{p} is not a recording of version 1: it says 2"),
        ({"made_from": 5}, "{p} is a recording whose description is not whole"),
        ({"made_from": {}}, "{p} is a recording whose description is not whole"),
        *(
            ({"made_from": dict.fromkeys(PARTS - {part}, "")}, "{p} is a recording whose description is not whole")
            for part in sorted(PARTS)
        ),
        ({"draws": 0}, "{p} is a recording whose description is not whole"),
        ({"draws": True}, "{p} is a recording whose description is not whole"),
        ({"draws": 10**9}, "{p} is a recording whose description is not whole"),
        ({"inputs": {"d": []}}, "{p} is a recording whose description is not whole"),
        ({"inputs": [], "made_by": []}, "{p} is a recording whose description is not whole"),
        ({"outputs": "y"}, "{p} is a recording whose description is not whole"),
        ({"labels": False}, "labels is not a part of the recording"),
        ({"outputs": ["a", "b", "y"]}, "output_2_draw_0 is missing in the recording"),
        (
            {"outputs": ["a", "y"]},
            "the recording holds the outputs a, y, the mapping names y, z/\\x00",
        ),
    ],
)
def test_a_description_that_does_not_hold_is_refused(whole: Verify, changes: dict[str, Any], text: str) -> None:
    path = Path(whole.recording)
    recording.save(whole.recording, made_from(whole))
    describe(path, **changes)

    with pytest.raises(CheckpointError) as error:
        recording.load(whole.recording, whole)

    assert message(error) == f"{path}: T2T904: {text.format(p=path, m=whole.at.path)}"
    if "made_from" in changes:
        with pytest.raises(CheckpointError, match="description is not whole"):
            origin.stored_parts(whole.recording)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"[" * 100_000, "{p} is not a recording of t2t: its description is not JSON"),
        (b"\xff", "{p} is not a recording of t2t: its description is not JSON"),
        (b"[]", "{p} is not a recording of version 1: it says None"),
        (None, "{p} is not a recording of t2t"),
    ],
)
def test_another_archive_is_not_a_recording(verify_of: VerifyOf, tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "a.npz"
    name = "x.npy" if content is None else "recording.npy"
    npz(path, {name: npy(np.frombuffer(content or b"{}", np.uint8))})

    for job in (recording.load, lambda path, verify: recording.find(path, verify, "d0", "", "again")):
        with pytest.raises(CheckpointError) as error:
            job(str(path), verify_of())
        assert message(error) == f"{path}: T2T904: {text.format(p=path)}"


def test_a_recording_cut_anywhere_is_refused(verify_of: VerifyOf, tmp_path: Path) -> None:
    path, verify = tmp_path / "a.npz", verify_of()
    recording.save(str(path), made_from(verify))
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            recording.load(str(path), verify)


def test_a_flipped_bit_gives_the_same_recording_or_a_refusal(verify_of: VerifyOf, tmp_path: Path) -> None:
    path, verify = tmp_path / "a.npz", verify_of()
    made = made_from(verify)
    recording.save(str(path), made)
    content = path.read_bytes()
    refused = 0
    for position in range(len(content)):
        for bit in (0, 3, 7):
            flipped = bytearray(content)
            flipped[position] ^= 1 << bit
            path.write_bytes(flipped)
            try:
                read = recording.load(str(path), verify)
            except CheckpointError:
                refused += 1
            else:
                np.testing.assert_array_equal(read.draws[0].outputs["y"], made.draws[0].outputs["y"], strict=True)
                assert read.key == made.key

    assert refused > len(content)


# --- which recording applies ---


def test_no_recording_is_a_problem_that_says_what_to_run(verify_of: VerifyOf, tmp_path: Path) -> None:
    assert recording.find("recordings/gone.npz", verify_of(), "d0", "", "again") == Problem(
        "T2T502",
        "not proven: no recording at recordings/gone.npz",
        Location(f"{tmp_path}/m.yaml", 5, 1),
        "again",
    )


def test_a_recording_of_another_checkpoint_does_not_apply(verify_of: VerifyOf, tmp_path: Path) -> None:
    verify = verify_of()
    recording.save(verify.recording, made_from(verify))
    path = verify.recording
    inputs = verify_of(inputs="{x: {shape: [2, 4], range: [0, 1]}}")
    fetch = verify_of(reference='{graph: g.meta, feed: {x: "x:0"}, fetch: {y: "z:0"}}')

    for asked, digest, other in (
        (verify, "d1", "another checkpoint"),
        (inputs, "d0", "other inputs"),
        (fetch, "d2", "another checkpoint and another fetch"),
    ):
        assert recording.find(path, asked, digest, "", "again") == Problem(
            "T2T502", f"not proven: recording {path} was made from {other}", verify.at, "again"
        )
    assert isinstance(recording.find(verify.recording, verify_of(rel="0.5"), "d0", "", "again"), Recording)


def test_labels_are_integers_with_one_for_each_row(verify_of: VerifyOf, tmp_path: Path) -> None:
    np.savez(tmp_path / "l.npz", floats=np.zeros(2), three=np.zeros(3, np.int64))
    with pytest.raises(MappingError) as error:
        origin.labels(verify_of(labels="{file: l.npz, member: floats, metric: accuracy}"))
    assert message(error) == (
        f"{tmp_path}/m.yaml:5:1: T2T503 labels in l.npz are float64 [2], not integers; "
        "a label is the number of the right class"
    )
    verify = verify_of(labels="{file: l.npz, member: three, metric: accuracy}")
    with pytest.raises(MappingError) as error:
        recording.check_labels(verify, made_from(verify))
    assert message(error) == (
        f"{tmp_path}/m.yaml:5:1: T2T503 labels are [3], but y is [2, 3]; "
        "the output has one axis more than the labels, the classes, and it comes last"
    )


# --- writing ---


def test_a_file_that_is_no_recording_is_only_replaced_by_force(verify_of: VerifyOf, tmp_path: Path) -> None:
    verify, path = verify_of(), tmp_path / "a.npz"
    np.savez(path, x=np.arange(3))
    before = path.read_bytes()
    with pytest.raises(OutputError) as error:
        recording.save(str(path), made_from(verify))
    assert message(error) == (
        f"{path}: T2T801: a file that t2t did not write stands there; give --force to replace it, "
        "or choose another place"
    )
    assert path.read_bytes() == before
    recording.save(str(path), made_from(verify), force=True)
    recording.save(str(path), made_from(verify))
    assert isinstance(recording.find(str(path), verify, "d0", "", "again"), Recording)
    assert os.listdir(tmp_path) == ["a.npz"]


def test_what_is_not_a_regular_file_is_never_replaced(verify_of: VerifyOf, tmp_path: Path) -> None:
    """A FIFO stands for a device too: a test that fails must not replace one of the machine's."""
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    for name, what in (("fifo", "something that is not a regular file"), ("directory", "a directory")):
        path = str(tmp_path / name)
        with pytest.raises(OutputError) as error:
            recording.save(path, made_from(verify_of()), force=True)
        assert message(error) == f"{path}: T2T801: {what} stands there; name a file"


def test_the_file_has_the_umasks_mode_and_a_link_stays_one(verify_of: VerifyOf, tmp_path: Path) -> None:
    verify, target = verify_of(), tmp_path / "store" / "a.npz"
    link = tmp_path / "link.npz"
    link.symlink_to(target)
    before = os.umask(0o027)
    try:
        recording.save(str(link), made_from(verify))
    finally:
        os.umask(before)

    assert link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert os.listdir(target.parent) == ["a.npz"]


def test_a_directory_that_cannot_be_made_is_told(verify_of: VerifyOf, tmp_path: Path) -> None:
    path = tmp_path / "gone" / "too" / "a.npz"
    with pytest.raises(OutputError) as error:
        recording.save(str(path), made_from(verify_of()))
    assert message(error) == f"{path}: T2T802: cannot be written: No such file or directory; make its directory first"


def test_a_full_disk_leaves_the_old_recording(verify_of: VerifyOf, tmp_path: Path) -> None:
    """The kernel refuses the write in the middle, as it does without space."""
    path, verify = tmp_path / "a.npz", verify_of()
    recording.save(str(path), made_from(verify))
    before = path.read_bytes()
    script = f"""
import resource, sys
from t2t.problems import Location, OutputError
from t2t.proof import recording
import numpy as np
draw = recording.Draw({{}}, {{"y": np.random.default_rng(0).random(9999)}})
made = recording.Recording(dict.fromkeys({sorted(PARTS)!r}, ""), (draw,), None, {{}})
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    recording.save({str(path)!r}, made)
except OutputError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)

    assert ran.stdout == f"{path}: T2T803: no space: File too large; nothing was written\n"
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.npz"]


def test_recordings_need_neither_torch_nor_tensorflow() -> None:
    script = "import sys, t2t.proof.recording, t2t.proof.record; print({'torch', 'tensorflow'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "set()\n"


def test_a_reference_is_made_of_what_the_mapping_says(verify_of: VerifyOf, tmp_path: Path) -> None:
    assert verify_of().reference == Reference("g.meta", f"{tmp_path}/g.meta", {"x": "x:0"}, {"y": "y:0"})


def test_a_functions_file_is_found_in_packages_with_and_without_an_init_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, regular = tmp_path / "plainpackage" / "below", tmp_path / "regularpackage"
    plain.mkdir(parents=True)
    regular.mkdir()
    (plain / "original.py").write_text("raise SystemExit\n")
    (regular / "__init__.py").write_text("raise SystemExit\n")
    (regular / "original.py").write_text("raise SystemExit\n")
    monkeypatch.chdir(tmp_path)

    assert origin._source_file("plainpackage.below.original") == str(plain / "original.py")
    assert origin._source_file("regularpackage.original") == str(regular / "original.py")
    assert origin._source_file("plainpackage.nowhere") is None
