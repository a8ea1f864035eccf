"""The second opinion: TensorFlow's own reader in a process of its own, and what becomes of it when it goes wrong."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t2t import checkpoints
from t2t.checkpoints.via_tensorflow import ViaTensorFlow, cross_check
from t2t.problems import CheckpointError, T2TError, UsageError
from tests.checkpoints.writing import Fixed32, Tensor, bundle, floats, masked
from tests.commands import ROOT, t2t

pytest.importorskip("tensorflow", reason="needs TensorFlow")

MADRY = ROOT / "mappings/checkpoints/madry"

#: A package that stands in TensorFlow's place: it reads `a` and `b`, and `got` may do anything to what it reads.
FAKE = """\
import os, signal, time
import numpy as np

__version__ = "0.0"
{before}

class _Type:
    def __init__(self, name):
        self.name = name

string = _Type("string")
float32 = _Type({dtype!r})

class _Reader:
    def get_variable_to_shape_map(self):
        return {shapes!r}

    def get_variable_to_dtype_map(self):
        return dict.fromkeys({shapes!r}, float32)

    def get_tensor(self, key):
        value = np.array({{"a": [1, 2], "b": [3, np.nan]}}[key], np.float32)
        {got}
        return value

class train:
    @staticmethod
    def load_checkpoint(path):
        return _Reader()
"""

Fake = Callable[..., None]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    def write(got: str = "pass", before: str = "", dtype: str = "float32", shapes: object = None) -> None:
        package = tmp_path / "fake/tensorflow"
        package.mkdir(parents=True)
        shapes = {"a": [2], "b": [2]} if shapes is None else shapes
        text = FAKE.format(got=got, before=before, dtype=dtype, shapes=shapes)
        (package / "__init__.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path / "fake"))

    return write


@pytest.fixture
def small(x: Path) -> str:
    return bundle(x, {"a": floats(1, 2), "b": floats(3, float("nan"))})


def problems(path: str) -> list[str]:
    return [str(problem).replace(f"{Path(path).parent}/", "") for problem in cross_check(path).problems]


def failure(path: str, patience: float = 60) -> str:
    own = checkpoints.open(path)
    with pytest.raises(T2TError) as caught, own:
        ViaTensorFlow(own, "bundle", patience)
    return str(caught.value).replace(f"{Path(path).parent}/", "")


def test_tensorflow_reads_the_same(x: Path) -> None:
    strings = [b"", b"\xff\0b", b"x" * 300]
    lengths = b"\x00\x03\xac\x02"
    checksum = struct.pack("<I", masked(struct.pack("<III", 0, 3, 300)))
    data = lengths + checksum + b"".join(strings)
    crc = masked(struct.pack("<III", 0, 3, 300) + checksum + b"".join(strings))
    tensors = {
        "nan": floats(float("nan"), 1),
        "half": Tensor(14, (2, 1), b"\x80\x3f\x00\x40"),
        "empty": Tensor(1, (0, 3), b""),
        "text": Tensor(7, (3,), data),
        "variant": Tensor(21, (), b"\0"),
    }
    path = bundle(x, tensors, fields={"text": [(6, Fixed32(crc))]})

    with checkpoints.open(path, reader="tensorflow") as theirs, checkpoints.open(path) as ours:
        for name in ("nan", "half", "empty", "text"):
            ref = ours.inventory.variables[name]
            value = theirs.read(ref)
            assert (value.dtype, value.shape) == (ours.read(ref).dtype, ref.shape)
            assert value.tolist() == ours.read(ref).tolist() or name == "nan"
            buffer = np.empty(64, np.uint8)
            if name != "text":
                assert theirs.read(ref, buffer).tobytes() == ours.read(ref).tobytes()
                assert np.shares_memory(theirs.read(ref, buffer), buffer) or not ref.nbytes
        assert not theirs.view(ours.inventory.variables["half"]).flags.writeable
        with pytest.raises(CheckpointError, match="T2T606: variant: "):
            theirs.read(ours.inventory.variables["variant"])
        theirs.check_unchanged()

    checked = cross_check(path)
    assert (checked.equal, checked.nbytes, checked.problems) == (4, 8 + 4 + len(data), ())
    assert list(checked.not_compared) == ["variant"]


def test_the_command_says_what_is_equal(tmp_path: Path) -> None:
    done = t2t("inspect", "--cross-check", str(MADRY), cwd=tmp_path)

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("11 variables equal in TensorFlow ")
    assert done.out.endswith(" (13.1 MB), 0 not compared\n")


def test_a_conversion_reads_through_tensorflow(tmp_path: Path) -> None:
    example = str(ROOT / "mappings/madry.yaml")
    for reader in ("t2t", "tensorflow"):
        done = t2t("convert", example, "--reader", reader, "-o", str(tmp_path / reader), cwd=ROOT)
        assert done.code == 0, done.err
    assert (tmp_path / "t2t").read_bytes() == (tmp_path / "tensorflow").read_bytes()


def test_one_bit_that_differs_is_found(small: str, fake: Fake) -> None:
    fake("value.view(np.uint32)[1] ^= 1")

    assert problems(small) == [
        f"x: T2T506: {name}: 1 of 2 elements differ between t2t and TensorFlow; "
        "one of the two readers is wrong: please report it with the checkpoint"
        for name in ("a", "b")
    ]


def test_equal_bytes_are_equal_even_where_they_are_no_number(small: str, fake: Fake) -> None:
    fake()

    checked = cross_check(small)

    assert (checked.version, checked.equal, checked.nbytes, checked.problems) == ("0.0", 2, 16, ())


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"a": [2]}, ["x: T2T506: b: TensorFlow lists no such variable"]),
        (
            {"a": [2], "b": [2], "c": [7]},
            ["x: T2T506: c: only TensorFlow lists this variable (float32 [7])"],
        ),
    ],
)
def test_another_set_of_names_is_found(small: str, fake: Fake, shapes: object, expected: list[str]) -> None:
    fake(shapes=shapes)

    assert problems(small) == expected


@pytest.mark.parametrize(
    ("theirs", "told"),
    [
        ({"dtype": "int32"}, "int32 [2]"),
        ({"shapes": {"a": [3], "b": [3]}}, "float32 [3]"),
        ({"got": "value = value.reshape(2, 1)"}, "float32 [2, 1]"),
    ],
)
def test_another_dtype_or_shape_is_found(small: str, fake: Fake, theirs: dict[str, Any], told: str) -> None:
    fake(**theirs)

    assert problems(small) == [
        f"x: T2T506: {name}: t2t reads float32 [2], TensorFlow {told}; "
        "one of the two readers is wrong: please report it"
        for name in ("a", "b")
    ]


def test_what_tensorflow_cannot_read_is_not_called_equal(small: str, fake: Fake) -> None:
    fake("raise ValueError('no fp8 here')")

    checked = cross_check(small)

    assert (checked.equal, checked.problems) == (0, ())
    assert set(checked.not_compared.values()) == {"TensorFlow says ValueError: no fp8 here"}


def test_its_death_is_one_problem_and_the_rest_is_compared(small: str, fake: Fake) -> None:
    fake("if key == 'a': os.kill(os.getpid(), signal.SIGABRT)")

    checked = cross_check(small)

    assert checked.equal == 1
    assert problems(small) == [
        "x: T2T614: a: TensorFlow died with SIGABRT; the file is damaged, or that library is",
    ]


def test_a_conversion_through_a_reader_that_dies_is_refused(small: str, fake: Fake) -> None:
    fake("os.kill(os.getpid(), signal.SIGSEGV)")

    with checkpoints.open(small, reader="tensorflow") as theirs, pytest.raises(CheckpointError) as caught:
        theirs.read(theirs.inventory.variables["a"])

    assert "T2T614: a: TensorFlow died with SIGSEGV" in str(caught.value)


def test_a_reader_that_hangs_is_ended(small: str, fake: Fake) -> None:
    fake(before="time.sleep(100)")

    assert failure(small, patience=0.5).startswith("x: T2T614: TensorFlow gave no answer for ")


def test_a_reader_that_cannot_start_says_why(small: str, fake: Fake) -> None:
    fake(before="raise RuntimeError('poisoned')")

    assert failure(small) == "x: T2T614: TensorFlow says RuntimeError: poisoned"


def test_without_tensorflow_it_says_what_to_install(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    assert failure(small) == ("x: T2T614: TensorFlow is not installed; pip install tensorflow, or leave its reader out")


def test_other_formats_are_not_shown_to_tensorflow(small: str) -> None:
    own = checkpoints.open(small)
    with own, pytest.raises(UsageError) as caught:
        ViaTensorFlow(own, "hdf5")

    assert str(caught.value).replace(f"{Path(small).parent}/", "") == (
        "x: T2T001: this is neither a V1 nor a V2 checkpoint, and TensorFlow's reader reads no other; "
        "leave it to t2t's own reader"
    )


def test_what_the_child_prints_is_no_answer(small: str, fake: Fake) -> None:
    fake(before="print('noise', flush=True); os.write(1, b'more noise')")

    assert cross_check(small).equal == 2
