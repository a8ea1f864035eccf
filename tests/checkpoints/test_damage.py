"""
A small checkpoint that TensorFlow 2.21 wrote (data/small: 30 tensors of 6 dtypes), damaged at every place.

Whatever happens to its bytes, t2t either gives the right values or refuses with a CheckpointError; no other exception,
no wrong value.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from t2t import checkpoints
from t2t.problems import CheckpointError, Problem

DATA = Path(__file__).parent / "data"
INDEX, SHARD = "small.index", "small.data-00000-of-00001"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in (INDEX, SHARD):
        shutil.copy(DATA / name, tmp_path / name)
    return tmp_path


def read(folder: Path) -> dict[str, bytes]:
    with checkpoints.open(folder / "small") as checkpoint:
        refs = checkpoint.inventory.variables.values()
        return {ref.name: checkpoint.read(ref).tobytes() for ref in refs if not ref.unreadable}


def is_refused(folder: Path, right: dict[str, bytes]) -> bool:
    """Whether the damage is found; if it is not, the values have to be right."""
    problems: tuple[Problem, ...] = ()
    try:
        assert read(folder) == right
    except CheckpointError as error:
        problems = error.problems
    assert all(problem.at and problem.at.path.startswith(str(folder)) for problem in problems)
    return bool(problems)


def test_undamaged_it_reads(copy: Path) -> None:
    assert len(read(copy)) == 30


@pytest.mark.parametrize("name", [INDEX, SHARD])
def test_it_is_refused_when_cut_off_at_any_byte(copy: Path, name: str) -> None:
    right = read(copy)
    data = (copy / name).read_bytes()

    for size in range(len(data)):
        (copy / name).write_bytes(data[:size])
        assert is_refused(copy, right), f"cut off at {size}"


def test_any_flipped_bit_of_the_index_is_refused(copy: Path) -> None:
    right = read(copy)
    data = bytearray((copy / INDEX).read_bytes())

    with (copy / INDEX).open("r+b", buffering=0) as file:
        for bit in range(len(data) * 8):
            file.seek(bit // 8)
            file.write(bytes([data[bit // 8] ^ 1 << bit % 8]))
            assert is_refused(copy, right), f"bit {bit}"
            file.seek(bit // 8)
            file.write(bytes([data[bit // 8]]))


def test_any_flipped_bit_of_the_values_is_refused(copy: Path) -> None:
    right = read(copy)
    data = bytearray((copy / SHARD).read_bytes())

    with (copy / SHARD).open("r+b", buffering=0) as file:
        for bit in range(len(data) * 8):
            file.seek(bit // 8)
            file.write(bytes([data[bit // 8] ^ 1 << bit % 8]))
            assert is_refused(copy, right), f"bit {bit}"
            file.seek(bit // 8)
            file.write(bytes([data[bit // 8]]))


def test_without_checksums_a_flipped_bit_of_the_values_goes_unseen(copy: Path) -> None:
    """The tests above can fail."""
    with checkpoints.open(copy / "small") as checkpoint:
        ref = checkpoint.inventory.variables["layer_0/bias"]
        right = checkpoint.read(ref).tobytes()
    with (copy / SHARD).open("r+b") as file:
        file.seek(ref.offset)
        file.write(bytes([right[0] ^ 1]))

    with checkpoints.open(copy / "small", checksums=False) as checkpoint:
        assert checkpoint.read(ref).tobytes() == bytes([right[0] ^ 1]) + right[1:]
        assert checkpoint.view(ref).tobytes() == bytes([right[0] ^ 1]) + right[1:]
