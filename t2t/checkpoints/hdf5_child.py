"""
The process that reads HDF5 files: libhdf5 can crash on a damaged file, and then only this process is gone.

    python -P -m t2t.checkpoints.hdf5_child PATH [MEMBER]

PATH is a file or an address; with MEMBER it is a zip archive, and the HDF5 file is that member of it. The first answer
is the walk over all of the file, which follows no link and reads no values:

    {"datasets": [[path, dtype, shape, nbytes, offset, unreadable, band]...], "attributes": {group: {name: value}},
     "identity": [...]}

A question {"path", "start", "count"} is answered with those elements, in C order and native byte order. What cannot be
answered is {"error": {"code", "message", "hint"}}.

https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

from __future__ import annotations

import io
import math
import sys
import zipfile
from typing import Any, BinaryIO

import h5py
import numpy as np

from t2t.checkpoints.child import Answer, serve
from t2t.checkpoints.files import Identity, open_file
from t2t.checkpoints.protobuf import Corrupt
from t2t.names import shown
from t2t.problems import CheckpointError
from t2t.tensors import DTYPES

#: Limits: how many groups and datasets one file may have, how deep they may lie, how many bytes of attributes are read.
MAX_MEMBERS = 1_000_000
MAX_DEPTH = 100
MAX_ATTRIBUTES = 2**28

#: Values may be this many times as large as what is stored for them (deflate gets to 1032), or small anyway.
MAX_EXPANSION = 1100
SMALL = 2**26

#: The filters that are part of HDF5 or h5py, and need no plugin: H5Z_FILTER_DEFLATE, SHUFFLE, FLETCHER32; LZF.
FILTERS = {1, 2, 3, 32000}

#: The attributes of groups that Keras writes and t2t uses; long ones go on in `layer_names0`, `layer_names1`, ...
ATTRIBUTES = ("layer_names", "weight_names", "model_config", "keras_version", "backend", "name")

#: HDF5's dtypes that are read, by numpy's kind and size.
_BY_NUMPY = {
    (dtype.numpy.kind, dtype.itemsize): dtype.name
    for name in (
        *("float64", "float32", "float16", "int64", "int32", "int16", "int8"),
        *("uint64", "uint32", "uint16", "uint8", "bool", "complex64", "complex128"),
    )
    if (dtype := DTYPES[name]).numpy is not None
}

_REASONS = {
    h5py.h5t.STRING: "text",
    h5py.h5t.COMPOUND: "records",
    h5py.h5t.REFERENCE: "references to other members",
    h5py.h5t.VLEN: "lists of varying length",
    h5py.h5t.ENUM: "an enumeration",
    h5py.h5t.OPAQUE: "opaque bytes",
    h5py.h5t.BITFIELD: "bit fields",
    h5py.h5t.TIME: "times",
    h5py.h5t.ARRAY: "arrays in arrays",
}


class Walk:
    """Everything that is in the file: `datasets` as the first answer lists them, and `attributes` of groups."""

    def __init__(self, file: h5py.File, size: int) -> None:
        self.datasets: list[list[Any]] = []
        self.attributes: dict[str, dict[str, Any]] = {}
        self._size = size
        self._seen: dict[int, str] = {}
        self._members = 0
        self._attribute_bytes = 0
        self._group(file.id, "", 0)

    def _group(self, group: h5py.h5g.GroupID, path: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise Corrupt(f"{shown(path)} lies more than {MAX_DEPTH} groups deep", "T2T611")
        address = h5py.h5o.get_info(group).addr
        if (other := self._seen.setdefault(address, path)) != path or (depth and not path):
            where = shown(other) or "the file's root"
            raise Corrupt(f"the group {shown(path)} is {where} once more, a loop or a second name", "T2T606")
        if found := self._attributes(group):
            self.attributes[path] = found
        for name in group:
            self._member(group, name, path, depth)

    def _member(self, group: h5py.h5g.GroupID, name: bytes, path: str, depth: int) -> None:
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise Corrupt(f"the file has more than {MAX_MEMBERS} members", "T2T611")
        text = name.decode("utf-8", "surrogateescape")
        path = f"{path}/{text}" if path else text
        kind = group.links.get_info(name).type
        if kind != h5py.h5l.TYPE_HARD:
            what = {h5py.h5l.TYPE_SOFT: "a soft link", h5py.h5l.TYPE_EXTERNAL: "a link to another file"}.get(
                kind, "a link"
            )
            raise Corrupt(f"{shown(path)} is {what}, which t2t does not follow", "T2T606")
        member = h5py.h5o.open(group, name)
        if isinstance(member, h5py.h5g.GroupID):
            self._group(member, path, depth + 1)
        elif isinstance(member, h5py.h5d.DatasetID):
            self.datasets.append(self._dataset(member, path))

    def _dataset(self, dataset: h5py.h5d.DatasetID, path: str) -> list[Any]:
        space = dataset.get_space()
        dtype, unreadable = _dtype(dataset)
        if space.get_simple_extent_type() == h5py.h5s.NULL:
            return [path, dtype, [], 0, 0, "it has no values at all (a null dataspace)", 0]
        shape = [int(n) for n in space.get_simple_extent_dims()]
        nbytes = math.prod(shape) * DTYPES[dtype].itemsize
        created = dataset.get_create_plist()
        layout = created.get_layout()
        filters = [created.get_filter(i)[0] for i in range(created.get_nfilters())]
        band = shape[0] if shape else 1
        if layout == h5py.h5d.VIRTUAL:
            unreadable = "its values lie in other datasets (a virtual dataset)"
        elif layout == h5py.h5d.CONTIGUOUS and created.get_external_count():
            unreadable = "its values lie in other files (external storage)"
        elif other := [number for number in filters if number not in FILTERS]:
            unreadable = f"it is stored with the HDF5 filter {other[0]}, which t2t does not use"
        elif not unreadable:
            self._check_size(dataset, path, layout, nbytes)
            band = 1
            if layout == h5py.h5d.CHUNKED:
                chunk = created.get_chunk()
                if math.prod(chunk) * DTYPES[dtype].itemsize > max(SMALL, 2 * nbytes):
                    raise Corrupt(f"{shown(path)} has {nbytes} bytes, but pieces of {list(chunk)} elements", "T2T605")
                band = int(chunk[0])
        return [path, dtype, shape, nbytes, dataset.get_offset() or 0, unreadable, band]

    def _check_size(self, dataset: h5py.h5d.DatasetID, path: str, layout: int, nbytes: int) -> None:
        stored = dataset.get_storage_size()
        if stored > self._size:
            message = f"{shown(path)} claims {stored} stored bytes, but the file has {self._size}"
            raise Corrupt(message, "T2T607", "the file is cut off: copy it again")
        if (
            layout == h5py.h5d.CONTIGUOUS
            and stored < nbytes
            and dataset.get_space_status() == h5py.h5d.SPACE_STATUS_ALLOCATED
        ):
            raise Corrupt(f"{shown(path)} needs {nbytes} bytes, but has {stored}", "T2T605")
        if nbytes > SMALL and nbytes > MAX_EXPANSION * stored:
            raise Corrupt(f"{shown(path)} would be {nbytes} bytes, but only {stored} are stored", "T2T605")

    def _attributes(self, group: h5py.h5g.GroupID) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for i in range(h5py.h5a.get_num_attrs(group)):
            attribute = h5py.h5a.open(group, index=i)
            name = attribute.name.decode("utf-8", "surrogateescape")
            if name.rstrip("0123456789") not in ATTRIBUTES:
                continue
            self._attribute_bytes += math.prod(attribute.shape) * attribute.get_type().get_size() + 1
            if self._attribute_bytes > MAX_ATTRIBUTES:
                raise Corrupt(f"the file has more than {MAX_ATTRIBUTES} bytes of attributes", "T2T611")
            found[name] = self._texts(h5py.Group(group).attrs[name])
        return found

    def _texts(self, value: Any) -> Any:
        """A text or a list of texts; None for anything else."""
        if isinstance(value, (str, bytes)):
            self._attribute_bytes += len(value)
            return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")
        if isinstance(value, np.ndarray) and (value.size == 0 or value.dtype.kind in "SUO") and value.ndim == 1:
            return [self._texts(item) for item in value.tolist()]
        return None


def _dtype(dataset: h5py.h5d.DatasetID) -> tuple[str, str]:
    """The dtype as t2t calls it, and why its values cannot be read ("" where they can)."""
    kind = dataset.get_type()
    number = kind.get_class()
    try:
        dtype = kind.dtype
    except (TypeError, ValueError):
        dtype = np.dtype("V1")
    if number == h5py.h5t.OPAQUE and kind.get_size() == 2 and h5py.h5a.exists(dataset, b"dtype"):
        # Keras stores bfloat16 so. https://github.com/keras-team/keras/blob/master/keras/src/saving/saving_lib.py
        said = h5py.Dataset(dataset).attrs["dtype"]
        if said in ("bfloat16", b"bfloat16"):
            return "bfloat16", ""
    name = _BY_NUMPY.get((dtype.kind, dtype.itemsize))
    if name and (number != h5py.h5t.ENUM or name == "bool"):
        return name, ""
    if number in (h5py.h5t.INTEGER, h5py.h5t.FLOAT):
        return "variant", f"it holds numbers of {kind.get_size()} bytes ({dtype})"
    return "string" if number == h5py.h5t.STRING else "variant", f"it holds {_REASONS.get(number, 'something else')}"


def values(file: h5py.File, path: str, start: list[int], count: list[int]) -> memoryview:
    """So many elements from `start` on of each dimension; big-endian ones are turned round, as numpy has them."""
    dataset = file[path.encode("utf-8", "surrogateescape")].id
    name, _ = _dtype(dataset)
    dtype = DTYPES[name].numpy
    assert dtype is not None
    out = np.empty(count, dtype)
    stored = dataset.get_type() if name == "bfloat16" else h5py.h5t.py_create(dtype)
    if not out.size:
        return memoryview(b"")
    space = dataset.get_space()
    if count:
        space.select_hyperslab(tuple(start), tuple(count))
        memory = h5py.h5s.create_simple(tuple(count))
    else:
        memory = h5py.h5s.create(h5py.h5s.SCALAR)
    raw = out.view("V2") if name == "bfloat16" else out
    dataset.read(memory, space, raw, stored)
    return out.reshape(-1).view(np.uint8).data


def opened(path: str, member: str) -> tuple[BinaryIO, int, Identity]:
    """The HDF5 file's bytes as a stream, how many they are, and the identity of the file at `path`."""
    file = open_file(path)
    stream = file.stream()
    if not member:
        return stream, file.size, file.identity
    with zipfile.ZipFile(stream) as archive:
        found = archive.getinfo(member)
        if found.file_size > max(SMALL, MAX_EXPANSION * file.size):
            raise Corrupt(f"{shown(member)} would be {found.file_size} bytes in an archive of {file.size}", "T2T605")
        with archive.open(found) as content:
            data = content.read(found.file_size + 1)
    return io.BytesIO(data), len(data), file.identity


def error(problem: Exception, code: str = "T2T604") -> dict[str, Any]:
    """What is told to the parent, as an answer; `code` is for what the library says."""
    if isinstance(problem, CheckpointError):
        first = problem.problems[0]
        return {"error": {"code": first.code, "message": first.message, "hint": first.hint}}
    if isinstance(problem, Corrupt):
        return {"error": {"code": problem.code, "message": str(problem), "hint": problem.hint}}
    text = " ".join(str(problem.args[0] if problem.args else problem).split()) or type(problem).__name__
    if "file signature not found" in text:
        return {"error": {"code": "T2T603", "message": "not an HDF5 file", "hint": ""}}
    hint = "the file is damaged: copy it again"
    if "truncated file" in text:
        code, hint = "T2T607", "the file is cut off: copy it again"
    elif "filter returned failure" in text:
        code = "T2T608"  # deflate and fletcher32 both have a checksum
    return {"error": {"code": code, "message": f"the HDF5 library: {shown(text)}", "hint": hint}}


def start(path: str, member: str) -> tuple[dict[str, Any], Answer | None]:
    """The walk over the file, and what answers questions about it."""
    try:
        stream, size, identity = opened(path, member)
        file = h5py.File(stream, "r", rdcc_nbytes=SMALL)
        walk = Walk(file, size)
    except Exception as problem:  # noqa: BLE001 - whatever h5py raises is said to whoever asked
        return error(problem), None

    def answer(question: dict[str, Any]) -> tuple[dict[str, Any], memoryview | bytes]:
        try:
            return {}, values(file, question["path"], question["start"], question["count"])
        except Exception as problem:  # noqa: BLE001 - the same
            return error(problem, "T2T605"), b""

    return {"datasets": walk.datasets, "attributes": walk.attributes, "identity": identity}, answer


if __name__ == "__main__":
    serve(lambda: start(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""))
