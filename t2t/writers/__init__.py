"""
Writers: one file per format, found in this table by the name that a mapping's `output.format` gives.

A writer knows names, dtypes and shapes before the first value comes, so that each value goes straight to its place. All
of them write under a temporary name, read back what is on the disk, have it proven, and only then put it in place.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from t2t.execute import Block, Room
from t2t.problems import Problem
from t2t.tensors import Shape

__all__ = ["WRITERS", "Entry", "Writer", "Written", "writer"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor: its name, dtype (torch's name) and shape. `tied_to` names the entry that it is the same as."""

    name: str
    dtype: str
    shape: Shape
    tied_to: str | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """
    What was written: the file that one loads (of shards, their index), and the bytes of all files together.

    `shards` is how many files the tensors are in beside the index, 0 where they are in the one that one loads.
    """

    path: str
    nbytes: int
    shards: int = 0


class Writer(Protocol):
    """What a format's `write` is."""

    def __call__(
        self,
        place: str,
        entries: Sequence[Entry],
        metadata: Mapping[str, str],
        blocks: Callable[[Room], Iterable[Block]],
        *,
        shard_size: int | None = None,
        force: bool = False,
        prove: Callable[[str], None] = ...,
        note: Callable[[Problem], None] = ...,
    ) -> Written:
        """
        Writes the entries at `place`, in several files where one would have more than `shard_size` bytes of tensors.

        `blocks` gives every entry in blocks, those of one entry in order, in the memory that its argument gives out.
        When all are on the disk they are read back and compared; `prove` is then called with the temporary path of what
        one loads, and whatever it raises leaves the old file in place.

        Raises OutputError: T2T804 before anything is written, T2T801-803 where the place or the disk says no, T2T805
        where the disk gives back something else.
        """
        ...


#: Each format and what writes it: a module beside this one and its function. Imported when it is used: one needs torch.
WRITERS: dict[str, tuple[str, str]] = {
    "pt": ("pt", "write"),
    "safetensors": ("safetensors", "write"),
}


def writer(format: str) -> Writer:  # noqa: A002 - the mapping's word for it
    """The writer of this format, a key of WRITERS."""
    module, name = WRITERS[format]
    found: Writer = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    return found
