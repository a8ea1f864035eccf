"""Small mappings, inventories, checkpoints and files, made from Python values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from t2t import mapping, plan
from t2t.execute import Block, Room
from t2t.mapping import Mapping as MappingFile
from t2t.plan import Plan
from t2t.problems import Problem
from t2t.tensors import CheckpointInventory, ModuleInventory, ParameterRef, TensorRef
from t2t.writers import Entry
from t2t.writers.safetensors import write

Array = np.ndarray[Any, Any]

#: The rows of a mapping stand from line 5.
HEAD = "t2t: 1\nmodel: m:M\nsource: {checkpoint: c}\nmap:\n"


def lines(problems: Iterable[Problem]) -> list[str]:
    """The problems as text, one line each; `m.yaml` goes without saying."""
    return [str(problem).removeprefix("m.yaml:") for problem in problems]


def read(text: str) -> MappingFile:
    """A mapping that has no problem of its own."""
    made, problems = mapping.read(text.encode(), "m.yaml")

    assert lines(problems) == []
    assert made is not None

    return made


def variables(*refs: TensorRef) -> CheckpointInventory:
    """A checkpoint's inventory."""
    return CheckpointInventory({ref.name: ref for ref in refs})


def parameters(*refs: ParameterRef) -> ModuleInventory:
    """A module's inventory."""
    return ModuleInventory({ref.name: ref for ref in refs})


class Memory:
    """
    A checkpoint whose variables are numpy arrays, stored in their order or as `shards` (name -> shard, offset) says.

    `reads` are the names that were read, in order.
    """

    path = "memory"
    notes: tuple[Problem, ...] = ()
    files: tuple[str, ...] = ()

    def __init__(self, arrays: Mapping[str, Array], shards: Mapping[str, tuple[int, int]] | None = None) -> None:
        self.arrays = arrays
        self.reads: list[str] = []
        self.checks = 0
        refs = []
        offset = 0
        for name, array in arrays.items():
            shard, start = (shards or {}).get(name, (0, offset))
            refs.append(TensorRef(name, array.dtype.name, array.shape, shard, start, array.nbytes))
            offset += array.nbytes
        self.inventory = variables(*refs)

    def read(self, ref: TensorRef, out: np.ndarray[tuple[int], np.dtype[np.uint8]] | None = None) -> Array:
        self.reads.append(ref.name)
        values = self.arrays[ref.name]
        if out is None:
            return values.copy()
        out[: values.nbytes] = np.frombuffer(values.tobytes(), np.uint8)
        return out[: values.nbytes].view(values.dtype).reshape(values.shape)

    def view(self, ref: TensorRef) -> Array:
        return self.arrays[ref.name]

    def check_unchanged(self) -> None:
        self.checks += 1

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def planned(rows: str, checkpoint: Memory, module: ModuleInventory, more: str = "") -> Plan:
    """The plan of these rows, which fits."""
    made, problems = plan.make(read(HEAD + rows + more), checkpoint.inventory, module)

    assert lines(problems) == []

    return made


#: The metadata of a file that t2t wrote.
OURS = {"t2t": "1"}


def entries(arrays: Mapping[str, Array]) -> list[Entry]:
    """What a file of these arrays holds."""
    return [Entry(name, array.dtype.name, array.shape) for name, array in arrays.items()]


def blocks(arrays: Mapping[str, Array], step: int = 1000) -> Callable[[Room], Iterator[Block]]:
    """The arrays in blocks of `step` elements."""

    def given_out(room: Room) -> Iterator[Block]:
        for name, array in arrays.items():
            flat = array.reshape(-1)
            for start in range(0, max(flat.size, 1), step):
                part = flat[start : start + step]
                values = room(None, start, part.size, part.dtype)  # type: ignore[arg-type]
                values[...] = part
                yield Block(name, start, values)

    return given_out


def put(place: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str] = OURS, **options: Any) -> int:
    """Writes a safetensors file of these arrays; its size."""
    return write(str(place), entries(arrays), metadata, blocks(arrays), **options).nbytes
