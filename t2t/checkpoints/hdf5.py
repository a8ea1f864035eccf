"""
HDF5 files, read in a process of their own (`hdf5_child`), with Keras' layouts in them or none (`keras`).

    model.h5            Keras 1 to 3, a whole model or only its weights
    model.weights.h5    Keras 3; also inside of .keras archives

HDF5 has no checksums that one could compare with (`fletcher32` apart, which libhdf5 checks).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from t2t.checkpoints import keras
from t2t.checkpoints.child import Child
from t2t.checkpoints.files import refusal
from t2t.checkpoints.protobuf import Corrupt
from t2t.checkpoints.reader import Bytes, Reader
from t2t.names import shown
from t2t.problems import CheckpointError, Location, Problem
from t2t.tensors import DTYPES, TensorRef

#: The environment of the child: no plugins, which are code, and no locks, which some file systems do not have.
ENVIRONMENT = {"HDF5_PLUGIN_PATH": "/nonexistent", "HDF5_USE_FILE_LOCKING": "FALSE"}

#: Seconds without a byte after which the library counts as hanging: the walk over a million members takes 90.
PATIENCE = 120.0

#: How many bytes are asked for at once.
PIECE = 2**26


class HDF5(Reader):
    """
    An HDF5 file that is open to be read; with `member`, that member of the zip archive at `path`.

    `config` is Keras' own description of the model, JSON, where the archive has one: data, from which names are taken.
    `datasets` and `attributes` are what `keras.layout` takes; `identities` is the file, as it was when opened.
    Raises CheckpointError T2T602 to T2T607, T2T611, or T2T614 where the HDF5 library crashes on the file.
    """

    def __init__(
        self,
        path: str,
        notes: tuple[Problem, ...] = (),
        checksums: bool = True,  # noqa: ARG002 - what every reader takes; this format has none
        member: str = "",
        config: bytes | None = None,
    ) -> None:
        self._member = member
        self._child = Child(
            "t2t.checkpoints.hdf5_child",
            path,
            "the HDF5 library",
            ENVIRONMENT,
            PATIENCE,
            arguments=[member] if member else [],
        )
        try:
            hello = self._child.hello
            first, second, size, last = hello["identity"]
            self.identities = {path: (first, second, size, last)}
            super().__init__(path, self.identities, notes)
            self.datasets = {
                key: keras.Dataset(key, dtype, tuple(shape), nbytes, offset, unreadable)
                for key, dtype, shape, nbytes, offset, unreadable, _ in hello["datasets"]
            }
            self.attributes: keras.Attributes = hello["attributes"]
            self._bands = {row[0]: row[6] for row in hello["datasets"]}
            layout = keras.layout(self.datasets, self.attributes, config)
        except Corrupt as error:
            self._child.close()
            raise refusal(error.code, str(error), path, error.hint) from error
        except BaseException:
            self._child.close()
            raise
        self.inventory = layout.inventory(self.checksum)
        self.notes += tuple(replace(finding, at=Location(path)) for finding in layout.findings)

    def close(self) -> None:
        """Ends the process that reads."""
        super().close()
        self._child.close()

    def _fill(self, ref: TensorRef, out: Bytes) -> None:
        width = DTYPES[ref.dtype].itemsize
        at = 0
        for start, count in pieces(ref.shape, width, self._bands[ref.key]):
            size = math.prod(count) * width
            question = {"path": ref.key, "start": start, "count": count}
            try:
                self._child.ask(question, out[at : at + size])
            except CheckpointError as error:
                problem = error.problems[0]
                message = f"{shown(ref.name)}: {problem.message}"
                raise refusal(problem.code, message, self.path, problem.hint) from error
            at += size


def pieces(shape: Sequence[int], width: int, band: int) -> Iterator[tuple[list[int], list[int]]]:
    """
    (start, count) of blocks that lie one behind the other in C order, of at most PIECE bytes where that can be.

    Each has whole `band`s of rows but the last: chunks are then unpacked once. One band is never divided.
    """
    if not shape or 0 in shape:
        yield [0] * len(shape), list(shape)
        return
    row = math.prod(shape[1:]) * width
    if row > PIECE and band == 1 and len(shape) > 1:
        for i in range(shape[0]):
            for start, count in pieces(shape[1:], width, 1):
                yield [i, *start], [1, *count]
        return
    rows = max(PIECE // (row * band), 1) * band
    for first in range(0, shape[0], rows):
        yield [first, *[0] * (len(shape) - 1)], [min(rows, shape[0] - first), *shape[1:]]
