"""
Reading checkpoints: `open(path)` finds out what lies there and gives a `Checkpoint`.

    >>> with checkpoints.open("models/model.ckpt-700") as checkpoint:
    ...     for ref in checkpoint.inventory.variables.values():
    ...         values = checkpoint.read(ref)

No TensorFlow, no code from the file, and no bytes that were not checked. Nothing here knows of mappings or modules.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Literal, Protocol, Self

import numpy as np

from t2t.checkpoints.files import is_address
from t2t.checkpoints.locate import locate
from t2t.names import shown
from t2t.problems import Problem, UsageError
from t2t.tensors import CheckpointInventory, TensorRef

__all__ = ["READERS", "Checkpoint", "open"]


class Checkpoint(Protocol):
    """
    An open checkpoint, of whatever format.

    `path` is what was found, as people know it; `notes` what there is to say about opening it; `files` every file that
    is read. The variables of the inventory are sorted by name, numbers in names as numbers.
    """

    path: str
    notes: tuple[Problem, ...]
    files: tuple[str, ...]
    inventory: CheckpointInventory

    def read(self, ref: TensorRef, out: np.ndarray[tuple[int], np.dtype[np.uint8]] | None = None) -> np.ndarray:
        """
        The variable's values: `ref.shape`, its numpy dtype in native byte order, C order.

        `out` is a buffer of at least `ref.nbytes` bytes; the values then lie in it, and it may be used again.
        Raises CheckpointError: T2T602, T2T606 (unreadable), T2T607 (too short), T2T608 (checksum), T2T609 or T2T611.
        """
        ...

    def view(self, ref: TensorRef) -> np.ndarray:
        """The same, read-only; without a copy where the format and the alignment allow it. Outlives `close`."""
        ...

    def check_unchanged(self) -> None:
        """Raises CheckpointError T2T609 if a file was replaced or written to since the checkpoint was opened."""
        ...

    def close(self) -> None:
        """Closes every file. A checkpoint is also a context manager that does this."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...


#: Each format that `locate` finds, and what opens it: a module beside this one and its class or function, which takes
#: (path, notes from finding it, whether to check checksums). Imported when it is used: listing a checkpoint is quick.
READERS: dict[str, tuple[str, str]] = {
    "bundle": ("bundle", "Bundle"),
    "hdf5": ("hdf5", "HDF5"),
    "keras": ("archive", "Archive"),
    "keras_shards": ("shards", "Shards"),
    "npz": ("npz", "Npz"),
    "v1": ("v1", "V1"),
}


def open_index(path: str | os.PathLike[str]) -> Checkpoint | None:
    """
    The checkpoint without its data files, which may be missing: its inventory, by keys. None for a format that keeps
    all in one. Raises CheckpointError as `open` does.
    """
    found = locate(os.fspath(path))
    if found.format != "bundle":
        return None
    from t2t.checkpoints.bundle import Bundle

    return Bundle(found.path, found.notes, data=False)


def are_missing(problems: Sequence[Problem]) -> bool:
    """Whether all of these are data files that are not there, beside an index; not one that is cut off."""
    return all(p.code == "T2T607" and p.at is not None and not os.path.exists(p.at.path) for p in problems)


def open(  # noqa: A001 - `checkpoints.open` reads well
    path: str | os.PathLike[str],
    checksums: bool = True,
    reader: Literal["t2t", "tensorflow"] = "t2t",
    names: Literal["key", "full_name"] = "key",
) -> Checkpoint:
    """
    Opens the checkpoint that `path` means: a prefix, one of its files, a state file or a directory (see `locate`).

    With `checksums=False` the tensors' checksums are not checked; those of the index always are. With the reader
    "tensorflow" its values are read by TensorFlow, in a process of its own (see `ViaTensorFlow`). With the names
    "full_name" its variables go by what they were called in their model (see `by_full_name`).
    Raises CheckpointError with all the reasons, UsageError for a format that TensorFlow does not read.
    """
    found = locate(os.fspath(path))
    if reader == "tensorflow" and is_address(found.path):
        message = f"TensorFlow reads local files only, and this is an address: {shown(found.path)}"
        raise UsageError(Problem("T2T001", message, hint="copy the checkpoint here, or leave it to t2t's own reader"))
    module, name = READERS[found.format]
    make: Callable[[str, tuple[Problem, ...], bool], Checkpoint] = getattr(
        importlib.import_module(f"{__name__}.{module}"), name
    )
    opened = make(found.path, found.notes, checksums)
    try:
        if names == "full_name":
            from t2t.checkpoints.full_names import by_full_name

            opened.inventory = by_full_name(opened.inventory)
        if reader == "t2t":
            return opened
        from t2t.checkpoints.via_tensorflow import ViaTensorFlow

        return ViaTensorFlow(opened, found.format)
    except BaseException:
        opened.close()
        raise
