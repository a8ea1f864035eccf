"""The safetensors file: what the library reads is what went in, and what can't be held is refused."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2t.execute import Block, Room
from t2t.problems import OutputError
from t2t.tensors import DTYPES
from t2t.writers import Entry
from t2t.writers import safetensors as writer
from t2t.writers.safetensors import write
from tests.given import OURS, Array, blocks, entries, put

STORABLE = [name for name, dtype in DTYPES.items() if dtype.safetensors]


def header(path: Path) -> tuple[dict[str, Any], int]:
    """The file's header as any program reads it, and where the data begin."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), 8 + length


def refused(place: Path, given: list[Entry], metadata: Mapping[str, str] = OURS) -> list[str]:
    """What cannot be held; nothing is asked for and nothing written."""

    def never(room: Room) -> Iterable[Block]:
        pytest.fail("nothing may be asked for")

    with pytest.raises(OutputError) as caught:
        write(str(place), given, metadata, never)
    assert os.listdir(place.parent) == []
    return [str(problem) for problem in caught.value.problems]


RANDOM = np.random.default_rng(0)
ARRAYS: dict[str, Array] = {
    "b": RANDOM.random(5, np.float32),
    "a": RANDOM.random((3, 2)),
    "flag": np.array([True, False, True]),
    "empty": np.empty((0, 3), np.float32),
    "scalar": np.array(7, np.int64),
    "half": np.arange(3).astype(np.float16),
}


def test_the_library_reads_what_went_in(tmp_path: Path) -> None:
    place = tmp_path / "f.safetensors"
    size = put(place, ARRAYS, {"t2t": "1", "größe": "7\n\x1b"})
    found = safetensors.numpy.load_file(place)

    assert size == place.stat().st_size
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
    with safetensors.safe_open(place, framework="np") as file:
        assert file.metadata() == {"t2t": "1", "größe": "7\n\x1b"}


@pytest.mark.parametrize("dtype", STORABLE)
def test_torch_reads_every_dtype(tmp_path: Path, dtype: str) -> None:
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(DTYPES[dtype].numpy)
    put(tmp_path / "f", {"x": array})
    found = safetensors.torch.load_file(tmp_path / "f")["x"]

    assert found.dtype == getattr(torch, dtype)
    assert found.reshape(-1).view(torch.uint8).numpy().tobytes() == array.tobytes()


def test_the_header_is_padded_and_every_tensor_aligned_without_a_gap(tmp_path: Path) -> None:
    for extra in range(9):
        arrays = {**ARRAYS, "n" * extra + "z": np.ones(3, np.uint8)}
        place = tmp_path / f"{extra}"
        put(place, arrays)
        entries_, base = header(place)
        entries_.pop("__metadata__")
        ends = 0

        assert base % 8 == 0
        for name, entry in sorted(entries_.items(), key=lambda item: item[1]["data_offsets"]):
            start, end = entry["data_offsets"]
            assert start == ends
            assert (base + start) % arrays[name].itemsize == 0
            ends = end
        assert base + ends == place.stat().st_size


def test_tensors_may_come_in_any_order_and_in_pieces(tmp_path: Path) -> None:
    put(tmp_path / "whole", ARRAYS)
    backwards = dict(reversed(ARRAYS.items()))
    write(str(tmp_path / "pieces"), entries(backwards), OURS, blocks(backwards, 2))

    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6).filter(lambda n: n != "__metadata__"),
        st.tuples(
            st.sampled_from(["float64", "float32", "int16", "bool", "complex64"]),
            st.lists(st.integers(0, 3), max_size=3),
        ),
        max_size=6,
    ),
    st.integers(1, 5),
)
def test_whatever_the_names_and_shapes_are_the_library_reads_them(
    tmp_path: Path, given_: dict[str, tuple[str, list[int]]], step: int
) -> None:
    arrays = {
        name: np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape)
        for name, (dtype, shape) in given_.items()
    }
    place = tmp_path / "f"
    write(str(place), entries(arrays), OURS, blocks(arrays, step))
    found = safetensors.numpy.load_file(place)

    assert found.keys() == arrays.keys()
    assert all(found[name].tobytes() == arrays[name].tobytes() for name in arrays)
    assert all(found[name].shape == arrays[name].shape for name in arrays)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    code = """
import sys
import numpy as np
from tests.given import put
from pathlib import Path
names = {"b", "a", "ccc", "größe"}
put(Path(sys.argv[1]), {name: np.ones(3, np.float32) for name in names}, {"t2t": "1", "z": "1", "a": "2"})
"""
    root = Path(__file__).resolve().parents[2]
    files = []
    for seed, locale in (("1", "C"), ("2", "C.UTF-8"), ("3", "C")):
        place = tmp_path / seed
        environment = {**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": locale}
        subprocess.run([sys.executable, "-c", code, str(place)], cwd=root, check=True, env=environment)
        files.append(place.read_bytes())

    assert files[0] == files[1] == files[2]


def test_a_file_of_ours_is_replaced_and_anothers_is_not(tmp_path: Path) -> None:
    place = tmp_path / "f"
    put(place, ARRAYS)
    put(place, {"x": np.ones(3, np.float32)})

    assert list(safetensors.numpy.load_file(place)) == ["x"]

    safetensors.numpy.save_file({"y": np.ones(3, np.float32)}, place, {"format": "pt"})
    with pytest.raises(OutputError) as caught:
        put(place, ARRAYS)

    assert str(caught.value) == (
        f"{place}: T2T801: a file that t2t did not write stands there; "
        "give --force to replace it, or choose another place"
    )
    assert list(safetensors.numpy.load_file(place)) == ["y"]

    put(place, ARRAYS, force=True)

    assert safetensors.numpy.load_file(place).keys() == ARRAYS.keys()


def test_what_the_format_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    place = tmp_path / "f"
    given_ = [
        Entry("z\x1b", "complex128", (2,)),
        Entry("__metadata__", "float32", (2,)),
        Entry("", "float32", (2,)),
        Entry("half \ud83d", "float32", (2,)),
        Entry("good", "float32", (2,)),
    ]

    assert refused(place, given_) == [
        rf"{place}: T2T804: z\x1b: safetensors cannot hold complex128; leave it out of the module, or cast it",
        f"{place}: T2T804: safetensors cannot hold a tensor named ''; rename it in the module",
        f"{place}: T2T804: safetensors cannot hold a tensor named '__metadata__'; rename it in the module",
        rf"{place}: T2T804: safetensors cannot hold a tensor named 'half \ud83d'; rename it in the module",
    ]


def test_a_header_over_the_formats_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "f"
    monkeypatch.setattr(writer, "MAX_HEADER", 88)
    given_ = [Entry("x", "float32", (2,))]

    assert refused(place, [*given_, Entry("yy", "float32", (2,))]) == [
        f"{place}: T2T804: the header has 136 bytes, safetensors allows 88"
    ]

    write(str(place), given_, OURS, blocks({"x": np.ones(2, np.float32)}))

    assert header(place)[1] == 8 + 88


def test_the_formats_limit_is_the_librarys() -> None:
    assert writer.MAX_HEADER == 100_000_000


def test_a_proof_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    place = tmp_path / "f"
    put(place, {"x": np.zeros(3, np.float32)})
    before = place.read_bytes()
    proven: list[dict[str, Array]] = []

    def prove(path: str) -> None:
        proven.append(safetensors.numpy.load_file(path))
        raise ValueError("not proven")

    with pytest.raises(ValueError, match="not proven"):
        put(place, ARRAYS, prove=prove)

    assert proven[0].keys() == ARRAYS.keys()
    assert place.read_bytes() == before
    assert os.listdir(tmp_path) == ["f"]


def test_an_error_while_tensors_come_leaves_nothing(tmp_path: Path) -> None:
    def torn(room: Room) -> Iterator[Block]:
        yield from blocks({"x": np.ones(3, np.float32)})(room)
        raise OSError("the checkpoint is torn")

    with pytest.raises(OSError, match="torn"):
        write(str(tmp_path / "f"), entries({"x": np.ones(3, np.float32), "y": np.ones(3)}), OURS, torn)

    assert os.listdir(tmp_path) == []


def damaged(place: Path, arrays: Mapping[str, Array], damage: Callable[[Any], None]) -> str:
    """What is said when the temporary file is changed, through a descriptor of its own, after the last tensor."""

    def changed(room: Room) -> Iterator[Block]:
        yield from blocks(arrays)(room)
        (temporary,) = place.parent.glob(".*.tmp")
        with temporary.open("r+b") as file:
            damage(file)

    with pytest.raises(OutputError) as caught:
        write(str(place), entries(arrays), OURS, changed, prove=lambda path: pytest.fail("it is not proven"))
    assert os.listdir(place.parent) == []
    return str(caught.value)


def test_bytes_that_read_back_otherwise_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "f"
    array = np.ones(3, np.float32)
    flipped = array.copy()
    flipped[2] = 2

    def damage(file: Any) -> None:
        file.seek(-4, os.SEEK_END)
        file.write(struct.pack("<f", 2))

    assert damaged(place, {"x": array}, damage) == (
        f"{place}: T2T805: x reads back as ('F32', [3]) with checksum {google_crc32c.value(flipped.tobytes()):08x}, "
        f"written was ('F32', [3]) with {google_crc32c.value(array.tobytes()):08x}; the disk may be failing"
    )


def test_a_header_that_reads_back_otherwise_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "f"
    array = np.ones(3, np.float32)
    crc = google_crc32c.value(array.tobytes())

    def damage(file: Any) -> None:
        data = file.read()
        file.seek(data.index(b"F32"))
        file.write(b"I")

    assert damaged(place, {"x": array}, damage) == (
        f"{place}: T2T805: x reads back as ('I32', [3]) with checksum {crc:08x}, "
        f"written was ('F32', [3]) with {crc:08x}; the disk may be failing"
    )


@pytest.mark.parametrize("cut", [0, 4, 100])
def test_a_file_that_the_library_refuses_is_refused_with_its_words(tmp_path: Path, cut: int) -> None:
    place = tmp_path / "f"
    found = damaged(place, {"x": np.ones(30, np.float32)}, lambda file: file.truncate(cut))

    said = f"{place}: T2T805: the safetensors library {safetensors.__version__} refuses the file: "
    assert re.fullmatch(re.escape(said) + r"[^\n]+; a newer one may read it", found)


def test_damage_in_any_tensor_is_found(tmp_path: Path) -> None:
    """Every single byte of the data, in turn."""
    arrays = {"a": np.arange(3, dtype=np.int16), "b": np.arange(2.0), "c": np.array([True])}
    size = sum(array.nbytes for array in arrays.values())

    def at(position: int) -> Callable[[Any], None]:
        def damage(file: Any) -> None:
            file.seek(-1 - position, os.SEEK_END)
            byte = file.read(1)
            file.seek(-1 - position, os.SEEK_END)
            file.write(bytes([byte[0] ^ 1]))

        return damage

    for position in range(size):
        assert "reads back as" in damaged(tmp_path / "f", arrays, at(position))


def test_a_large_tensor_is_compared_to_its_last_byte(tmp_path: Path) -> None:
    """Longer than what is read at a time."""
    array = np.ones(2**20 + 5, np.uint8)

    def damage(file: Any) -> None:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x02")

    assert "reads back as" in damaged(tmp_path / "f", {"x": array}, damage)
    assert put(tmp_path / "f", {"x": array}) > array.size


def test_two_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    code = """
import sys
import numpy as np
from pathlib import Path
from tests.given import put
for _ in range(20):
    put(Path(sys.argv[1]), {"x": np.full(5000, int(sys.argv[2]), np.float32)})
"""
    root = Path(__file__).resolve().parents[2]
    place = tmp_path / "f"
    running = [subprocess.Popen([sys.executable, "-c", code, str(place), n], cwd=root) for n in "12"]

    assert [process.wait() for process in running] == [0, 0]
    found = safetensors.numpy.load_file(place)["x"]
    assert found.shape == (5000,)
    assert len(np.unique(found)) == 1
    assert os.listdir(tmp_path) == ["f"]
