"""
What all readers do alike: memory for values, refusing what cannot be read, noticing files that change, closing.

A reader derives from `Reader`, sets `inventory` and fills a buffer with one variable's values. See
`t2t.checkpoints.Checkpoint` for what its members promise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import google_crc32c
import numpy as np

from t2t.checkpoints.files import Identity, refusal, state_of
from t2t.names import OUTPUT_SUFFIX, VALUE_SUFFIX, shown
from t2t.problems import CheckpointError, Problem
from t2t.tensors import DTYPES, CheckpointInventory, TensorRef, memory

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]
Array = np.ndarray[Any, Any]

#: The lowest limits of the numpy versions that t2t supports.
MAX_NUMPY_RANK = 32
MAX_NUMPY_BYTES = 2**63 - 1


class Reader:
    """
    An open checkpoint of some format; `identities` are the files that must not change, as they were when opened.

    Not for several threads at once.
    """

    inventory: CheckpointInventory

    def __init__(self, path: str, identities: Mapping[str, Identity], notes: tuple[Problem, ...] = ()) -> None:
        self.path = path
        self.files: tuple[str, ...] = tuple(identities)
        self.notes = notes
        self._identities = dict(identities)
        self._closed = False

    def read(self, ref: TensorRef, out: Bytes | None = None) -> Array:
        """The variable's values, over the beginning of `out` or over memory of their own; strings as bytes objects."""
        if self._closed:
            raise ValueError("the checkpoint is closed")
        if ref.unreadable:
            raise refusal("T2T606", f"{shown(ref.name)}: {ref.unreadable}", self.place(ref))
        dtype = DTYPES[ref.dtype].numpy
        if dtype is None:
            return self._strings(ref)
        if out is not None and (out.dtype != np.uint8 or out.ndim != 1 or out.size < ref.nbytes):
            raise ValueError(f"out has {out.size} elements of {out.dtype}, but {ref.nbytes} bytes are needed")
        if out is None:
            try:
                out = memory(ref.nbytes)
            except MemoryError as error:
                message = f"{shown(ref.name)}: no memory for its {ref.nbytes} bytes"
                raise refusal("T2T611", message, self.place(ref)) from error
        out = out[: ref.nbytes]
        self._fill(ref, out)
        check_bools(ref, out, self.place(ref))
        return out.view(dtype).reshape(ref.shape)

    def view(self, ref: TensorRef) -> Array:
        """The variable's values, read-only."""
        array = self.read(ref)
        array.flags.writeable = False
        return array

    def place(self, ref: TensorRef) -> str:  # noqa: ARG002 - some readers have several files
        """The file that a message about this variable's bytes names."""
        return self.path

    def check_unchanged(self) -> None:
        """Raises CheckpointError T2T609 if a file that was opened is another one by now, or has been written to."""
        for path, before in self._identities.items():
            if state_of(path, "T2T609") != before:
                raise changed(path)

    def checksum(self, ref: TensorRef) -> int:
        """The crc32c of the variable's values, little-endian and in C order: what a V2 checkpoint stores."""
        array = self.read(ref)
        if DTYPES[ref.dtype].numpy is None:
            return int(google_crc32c.value(b"".join(len(item).to_bytes(8, "little") + item for item in array.flat)))
        return int(google_crc32c.value(np.ascontiguousarray(array).reshape(-1).view(np.uint8)))

    def close(self) -> None:
        """Closes every file. Views stay valid."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fill(self, ref: TensorRef, out: Bytes) -> None:
        """Puts the values into `out` (exactly `ref.nbytes`): C order, native byte order, checked against checksums."""
        raise NotImplementedError

    def _strings(self, ref: TensorRef) -> Array:
        """The values of a string variable: an array of `bytes` objects."""
        raise NotImplementedError


def changed(path: str) -> CheckpointError:
    """The error for a file that is not what it was when the checkpoint was opened."""
    return refusal("T2T609", "the file changed while it was read", path, "wait until the save is complete")


def check_bools(ref: TensorRef, stored: Bytes, path: str) -> None:
    """Raises CheckpointError T2T606 if a bool is neither 0 nor 1: torch and numpy would not agree on what it is."""
    if ref.dtype == "bool" and stored.size and (largest := int(stored.max())) > 1:
        message = f"{shown(ref.name)}: a bool is stored as the byte {largest}, but can only be 0 or 1"
        raise refusal("T2T606", message, path)


def short_names(keys: list[str]) -> list[str]:
    """The keys without the suffixes that say nothing, as far as names stay unique."""
    short = [key.removesuffix(OUTPUT_SUFFIX).removesuffix(VALUE_SUFFIX) or key for key in keys]
    count = Counter(short)
    taken = set(keys)
    return [
        name if name == key or (count[name] == 1 and name not in taken) else key
        for key, name in zip(keys, short, strict=True)
    ]
