"""
What is fuzzed: one function for each door through which a stranger's bytes come in.

Each takes the bytes and a folder of its own, in which it may leave files, and returns when the bytes were read, or
refused as they should be. Whatever else it raises is a bug.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import google_crc32c
import h5py
import numpy as np

from t2t import mapping as mappings
from t2t.checkpoints import (
    Checkpoint,
    dataflow,
    entries,
    full_names,
    hdf5,
    hdf5_child,
    keras,
    meta,
    object_graph,
    slices,
    state,
    table,
)
from t2t.checkpoints.archive import Archive
from t2t.checkpoints.bundle import Bundle
from t2t.checkpoints.files import refusal, state_of
from t2t.checkpoints.locate import locate
from t2t.checkpoints.npz import Npz
from t2t.checkpoints.protobuf import Corrupt
from t2t.checkpoints.shards import Shards
from t2t.checkpoints.v1 import V1
from t2t.problems import CODES, Problem, T2TError
from t2t.proof import uses
from t2t.review import lock as locks
from t2t.review import locking
from t2t.tensors import DTYPES, CheckpointInventory, TensorRef

Target = Callable[[bytes, Path], None]

#: A bundle is fuzzed as one input: so many bytes say, big-endian, how long its index is; behind that, its data.
SPLIT = 4


def index(data: bytes, folder: Path) -> None:
    """The decoders of an index, without any file."""
    with suppress(Corrupt):
        rows = table.entries(data)
        entries.header(next(rows, (b"", b""))[1])
        for key, value in rows:
            slices.part_of(key)
            with suppress(Corrupt):
                entries.entry(value)


def bundle(data: bytes, folder: Path) -> None:
    """A whole V2 checkpoint, of one shard or of two that hold the same."""
    end = SPLIT + int.from_bytes(data[:SPLIT], "big")
    (folder / "x.index").write_bytes(data[SPLIT:end])
    (folder / "x.data-00000-of-00001").write_bytes(data[end:])
    for shard in range(2):
        link = folder / f"x.data-0000{shard}-of-00002"
        if not link.is_symlink():
            link.symlink_to("x.data-00000-of-00001")
    with _only_refused(), Bundle(str(folder / "x")) as checkpoint:
        _read_everything(checkpoint, data[end:])


def graph_collections(data: bytes, folder: Path) -> None:
    """The file `.meta` of TF1."""
    path = folder / "x.meta"
    path.write_bytes(data)
    with _only_refused():
        meta.trainable(str(path))


def graph(data: bytes, folder: Path) -> None:
    """The graph in a file `.meta`, with every question that lint asks about it."""
    path = folder / "x.meta"
    path.write_bytes(data)
    with _only_refused():
        flow = dataflow.read("graph", str(path))
        needed = [None, flow.ancestors((position, 0) for position in flow.names.values())]
        for name, position in {**flow.variables, **flow.restored}.items():
            shape = flow.operations[position].numbers("shape") or ()
            for places in (uses.places(flow, name, name, shape), [position]):
                for place in places:
                    assert all(uses.uses(flow, place, shape, some) is not None for some in needed)


def state_file(data: bytes, folder: Path) -> None:
    """The file `checkpoint`."""
    path = folder / "checkpoint"
    path.write_bytes(data)
    with _only_refused():
        state.newest(str(path))


def mapping(data: bytes, folder: Path) -> None:
    """The text of a mapping."""
    found, problems = mappings.read(data, "m.yaml")
    _check_problems(problems)
    assert found is not None or problems, "no mapping, and no reason why"


def lock(data: bytes, folder: Path) -> None:
    """A mapping's lock."""
    path = folder / "m.lock.json"
    path.write_bytes(data)
    with _only_refused():
        written = locking.text(locks.read(str(path)))
        assert locking.text(locks.parse(written, str(path))) == written


def v1(data: bytes, folder: Path) -> None:
    """A V1 checkpoint."""
    _opened(V1, data, folder / "x.ckpt")


def npz(data: bytes, folder: Path) -> None:
    """NumPy's archive."""
    _opened(Npz, data, folder / "x.npz")


def keras_archive(data: bytes, folder: Path) -> None:
    """A zip with a checkpoint in it."""
    with patch.object(hdf5, "Child", _Here):
        _opened(Archive, data, folder / "x.keras")


def hdf5_file(data: bytes, folder: Path) -> None:
    """An HDF5 file. libhdf5 reads it in this process, which may not survive that; t2t has another for it."""
    with patch.object(hdf5, "Child", _Here):
        _opened(hdf5.HDF5, data, folder / "x.h5")


def keras_layout(data: bytes, folder: Path) -> None:
    """What Keras says in attributes and in JSON: {"datasets": {path: shape}, "attributes": {}, "config": text}."""
    try:
        given = json.loads(data)
        datasets = {
            path: keras.Dataset(path, "float32", (shape,), 4 * shape, 0, "")
            for path, shape in given["datasets"].items()
            if isinstance(shape, int) and shape >= 0
        }
        attributes = {
            group: {name: value for name, value in found.items() if _is_text_or_texts(value)}
            for group, found in given["attributes"].items()
        }
        config = json.dumps(given["config"]).encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        datasets = {"layers/dense/vars/0": keras.Dataset("layers/dense/vars/0", "float32", (2,), 8, 0, "")}
        attributes, config = {}, data
    with suppress(Corrupt):
        layout = keras.layout(datasets, attributes, config)
        _check_problems(layout.findings)
        layout.inventory(lambda ref: 0)


def keras_shards(data: bytes, folder: Path) -> None:
    """The map `.weights.json`, beside two files that it may name."""
    for name in ("a.weights.h5", "b.weights.h5"):
        if not (folder / name).exists():
            with h5py.File(folder / name, "w") as file:
                file[f"layers/{name[0]}/vars/0"] = np.ones(2, np.float32)
    with patch.object(hdf5, "Child", _Here):
        _opened(Shards, data, folder / "x.weights.json")


def graph_of_objects(data: bytes, folder: Path) -> None:
    """The object graph of a TF2 checkpoint."""
    with suppress(Corrupt):
        graph = object_graph.decode(data)
        refs = {
            key: TensorRef(key, "float32", (), 0, 0, 4, crc32c=i % 2, key=key) for i, key in enumerate(graph.full_names)
        }
        full_names.by_full_name(CheckpointInventory(full_names.with_full_names(refs, graph)))


def any_file(data: bytes, folder: Path) -> None:
    """A file of which nobody said what it is."""
    path = folder / "file"
    path.write_bytes(data)
    with _only_refused():
        locate(str(path))


TARGETS: dict[str, Target] = {
    "index": index,
    "bundle": bundle,
    "v1": v1,
    "npz": npz,
    "keras_archive": keras_archive,
    "keras_layout": keras_layout,
    "keras_shards": keras_shards,
    "hdf5": hdf5_file,
    "object_graph": graph_of_objects,
    "graph": graph,
    "meta": graph_collections,
    "state": state_file,
    "mapping": mapping,
    "lock": lock,
    "any_file": any_file,
}


def _opened(reader: Callable[[str, tuple[Problem, ...], bool], Checkpoint], data: bytes, path: Path) -> None:
    path.write_bytes(data)
    with _only_refused(), reader(str(path), (), True) as checkpoint:
        _read_everything(checkpoint)


class _InMemory:
    """A file for the child, which leaves closing to the end of its process."""

    def __init__(self, path: str) -> None:
        self._data = Path(path).read_bytes()
        self.size = len(self._data)
        self.identity = state_of(path)

    def stream(self) -> io.BytesIO:
        return io.BytesIO(self._data)


class _Here:
    """What `child.Child` does for HDF5, in this process: a child for each input would be too slow."""

    def __init__(self, module: str, path: str, *_: object, arguments: Sequence[str] = ()) -> None:
        self.path = path
        with patch.object(hdf5_child, "open_file", _InMemory):
            hello, self._reply = hdf5_child.start(path, *(arguments or [""]))
        self.hello = self._checked(hello)

    def ask(self, question: dict[str, Any], out: np.ndarray[Any, Any]) -> None:
        assert self._reply is not None
        answer, data = self._reply(question)
        self._checked(answer)
        assert len(data) == out.size
        out[:] = np.frombuffer(data, np.uint8)

    def close(self) -> None:
        self._reply = None

    def _checked(self, answer: dict[str, Any]) -> dict[str, Any]:
        answer = json.loads(json.dumps(answer))
        if error := answer.get("error"):
            raise refusal(error["code"], error["message"], self.path, error["hint"])
        return answer


def _is_text_or_texts(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


class _only_refused(suppress):  # noqa: N801 - it reads as what it does
    """Lets T2TErrors pass whose problems can be shown."""

    def __init__(self) -> None:
        super().__init__(T2TError)

    def __exit__(self, kind, value, trace):  # type: ignore[no-untyped-def]
        if isinstance(value, T2TError):
            assert value.problems, "an error without a problem"
            _check_problems(value.problems)
        return super().__exit__(kind, value, trace)


def _check_problems(problems: Iterable[Problem]) -> None:
    for problem in problems:
        assert problem.code in CODES, problem.code
        assert str(problem).isprintable(), f"not one printable line: {problem!s:.500}"


def _read_everything(checkpoint: Checkpoint, stored: bytes = b"") -> None:
    """Each variable is refused, or read twice to the same bytes; in `stored` they are those its checksum is of."""
    _check_problems(checkpoint.notes)
    for name, ref in checkpoint.inventory.variables.items():
        assert ref.name == name
        with _only_refused():
            values = checkpoint.read(ref)
            assert values.shape == ref.shape, (values.shape, ref.shape)
            if DTYPES[ref.dtype].numpy is None:
                continue
            assert values.dtype == DTYPES[ref.dtype].numpy, (values.dtype, ref.dtype)
            assert values.nbytes == ref.nbytes, (values.nbytes, ref.nbytes)
            assert np.array_equal(_bytes(checkpoint.view(ref)), _bytes(values)), "read and view differ"
            own = stored[ref.offset : ref.offset + ref.nbytes]
            if own and DTYPES[ref.dtype].kind != "other" and google_crc32c.value(own) == ref.crc32c:
                turned = values.byteswap().tobytes()  # of a big-endian checkpoint
                assert own in (values.tobytes(), turned), "other values than those that are stored"
    checkpoint.check_unchanged()


def _bytes(values: np.ndarray) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
