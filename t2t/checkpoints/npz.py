"""
NumPy's `.npz`: a zip with a `<name>.npy` for each array. No pickle is ever read.

A `.npy` is the magic, a version, the header's length and a Python literal that says dtype, order and shape; then the
bytes (numpy.lib.format). Its header must account for every byte of the member before any memory is asked for.
"""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from t2t.checkpoints.archive import Members
from t2t.checkpoints.files import open_file, refusal
from t2t.checkpoints.protobuf import Corrupt
from t2t.checkpoints.reader import MAX_NUMPY_BYTES, MAX_NUMPY_RANK, Bytes, Reader
from t2t.checkpoints.slots import with_slots
from t2t.names import OUTPUT_SUFFIX, natural, shown
from t2t.problems import Problem
from t2t.tensors import DTYPES, CheckpointInventory, TensorRef

MAGIC = b"\x93NUMPY"
ENDING = ".npy"
MAX_HEADER = 64 * 1024
PIECE = 2**20

#: The header's length by version: its bytes, and the text's encoding.
_VERSIONS = {(1, 0): (2, "latin1"), (2, 0): (4, "latin1"), (3, 0): (4, "utf-8")}

_DESCR = re.compile(r"([<>|=])([A-Za-z])([0-9]{0,9})(?:\[[0-9]*[A-Za-z]+\])?", re.ASCII)
_NUMBERS = {
    f"{dtype.numpy.kind}{dtype.numpy.itemsize}": name
    for name, dtype in DTYPES.items()
    if dtype.numpy is not None and dtype.kind != "other" and dtype.numpy.kind in "fiubc"
}
_TEXTS = {"U": 4, "S": 1, "a": 1}
#: What numpy writes for the dtypes of ml_dtypes: a width and nothing else.
_NAMELESS = ("V1", "V2")


@dataclass(frozen=True, slots=True)
class Header:
    """What a `.npy` says: where its values begin and how they lie. `unreadable` as in TensorRef."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    itemsize: int
    swapped: bool
    fortran: bool
    unreadable: str = ""


class Npz(Reader):
    """
    An open `.npz`. With `member` it is that member of the zip `path` which is the `.npz`.

    A zip holds a crc32 of each member; it is checked whenever a member is read, whatever `checksums` says.
    """

    def __init__(
        self,
        path: str,
        notes: tuple[Problem, ...] = (),
        checksums: bool = True,  # noqa: ARG002 - every reader is called alike
        *,
        member: str | None = None,
    ) -> None:
        self._file = open_file(path)
        super().__init__(path, {path: self._file.identity}, notes)
        self._stream: BinaryIO = self._file.stream()
        self._headers: dict[str, Header] = {}
        self._outer: Members | None = None
        self._members: Members | None = None
        try:
            size = self._file.size
            place, stream = path, self._stream
            if member is not None:
                self._outer = Members(stream, size, path)
                stream, size = self._outer.within(member)
                place = f"{path}: {shown(member)}"
            self._members = Members(stream, size, place)
            refs = [self._ref(key, name) for key, name in _names(list(self._members.infos)).items()]
            sorted_refs = {ref.name: ref for ref in sorted(refs, key=lambda ref: natural(ref.name))}
            self.inventory = CheckpointInventory(with_slots(sorted_refs), checksum=self.checksum)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the file."""
        if self._closed:
            return
        super().close()
        for members in (self._members, self._outer):
            if members is not None:
                members.close()
        self._stream.close()
        self._file.close()

    def place(self, ref: TensorRef) -> str:  # noqa: ARG002 - one archive holds them all
        """The archive that messages name."""
        return self.path if self._members is None else self._members.path

    def _ref(self, key: str, name: str) -> TensorRef:
        assert self._members is not None
        info = self._members.infos[key]
        if not key.endswith(ENDING):
            why = "it is no .npy array"
            return TensorRef(name, "bytes", (), 0, info.header_offset, info.file_size, unreadable=why, key=key)
        with self._members.opened(key) as member:
            try:
                header = read_header(member, info.file_size)
            except Corrupt as error:
                code = "T2T605" if error.code == "T2T604" else error.code
                raise refusal(code, f"{shown(name)}: {error}", self._members.path, error.hint) from error
        self._headers[key] = header
        return TensorRef(
            name,
            header.dtype,
            header.shape,
            0,
            info.header_offset,
            info.file_size - header.start,
            unreadable=header.unreadable,
            key=key,
        )

    def _fill(self, ref: TensorRef, out: Bytes) -> None:
        assert self._members is not None
        header = self._headers[ref.key]
        dtype = DTYPES[ref.dtype].numpy
        assert dtype is not None
        turned = header.fortran and sum(size > 1 for size in ref.shape) > 1
        with self._members.opened(ref.key) as member:
            stored = np.empty(out.size, np.uint8) if turned else out
            if len(member.read(header.start)) < header.start:
                raise EOFError
            at = 0
            while at < stored.size:
                count = member.readinto(stored[at : at + PIECE])  # type: ignore[attr-defined]
                if not count:
                    raise EOFError
                at += count
            member.read(1)  # zipfile checks the crc32 where it meets the end
        if turned:
            np.copyto(out.view(dtype).reshape(ref.shape), stored.view(dtype).reshape(ref.shape[::-1]).T)
        if header.swapped:
            out.view(dtype).byteswap(inplace=True)


def read_header(stream: BinaryIO, size: int) -> Header:
    """
    The header of a `.npy` of `size` bytes in all, the stream standing behind it; raises Corrupt.

    Objects (pickles) and structures are refused; text and nameless bytes have a reason to be `unreadable`.
    """
    start = stream.read(len(MAGIC) + 2)
    if len(start) < len(MAGIC) + 2 or not start.startswith(MAGIC):
        raise Corrupt("it does not begin as a .npy does")
    version = start[-2], start[-1]
    if version not in _VERSIONS:
        raise Corrupt(f"its .npy version is {version[0]}.{version[1]}, but there are only 1.0, 2.0 and 3.0")
    width, encoding = _VERSIONS[version]
    length = int.from_bytes(stream.read(width), "little")
    if length > MAX_HEADER:
        raise Corrupt(f"its header has {length} bytes, but at most {MAX_HEADER} are read", "T2T611")
    text = stream.read(length)
    begin = len(start) + width + length
    if len(text) < length or begin > size:
        raise Corrupt(f"its header ends at byte {begin}, but it has {size}")
    descr, fortran, shape = _literal(text, encoding)
    dtype, itemsize, swapped, unreadable = _dtype(descr)
    nbytes = math.prod(shape) * itemsize
    if begin + nbytes != size:
        raise Corrupt(f"{size - begin} bytes are stored, but {dtype} {shown(str(list(shape)))} needs {nbytes}")
    if len(shape) > MAX_NUMPY_RANK or math.prod(filter(None, shape)) * itemsize > MAX_NUMPY_BYTES:
        unreadable = unreadable or "its shape is one that numpy arrays cannot have"
    return Header(dtype, shape, begin, itemsize, swapped, fortran, unreadable)


def _literal(text: bytes, encoding: str) -> tuple[str, bool, tuple[int, ...]]:
    try:
        found = ast.literal_eval(text.decode(encoding).strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise Corrupt("its header is not a dictionary of descr, fortran_order and shape") from error
    if not isinstance(found, dict) or set(found) != {"descr", "fortran_order", "shape"}:
        raise Corrupt("its header is not a dictionary of descr, fortran_order and shape")
    descr, fortran, shape = found["descr"], found["fortran_order"], found["shape"]
    if isinstance(descr, list | tuple):
        raise Corrupt("an array of structures is not read", "T2T606")
    if not isinstance(descr, str) or not isinstance(fortran, bool) or not isinstance(shape, tuple):
        raise Corrupt("its header has a descr, fortran_order or shape of the wrong kind")
    if not all(type(axis) is int and axis >= 0 for axis in shape):
        raise Corrupt(f"its shape is {shown(str(shape))}")
    return descr, fortran, shape


def _dtype(descr: str) -> tuple[str, int, bool, str]:
    """Our name of the dtype, its width in bytes, whether the bytes are in foreign order, why it is unreadable."""
    match = _DESCR.fullmatch(descr)
    if match is None:
        raise Corrupt(f"its dtype is {shown(descr)!r}, which is none of numpy's")
    order, kind, digits = match.groups()
    width = int(digits or 0)
    if kind == "O":
        message = "an array of Python objects (a pickle), which t2t never reads"
        raise Corrupt(message, "T2T606", "save it as an array of numbers")
    if name := _NUMBERS.get(kind + digits):
        native = "<" if np.little_endian else ">"
        return name, width, order in "<>" and order != native and width > 1, ""
    if kind in _TEXTS:
        return "string", width * _TEXTS[kind], False, "text is not read"
    if kind + digits in _NAMELESS:
        why = f"its dtype is {descr}, {width} bytes of which numpy does not say what they are"
        return f"void{8 * width}", width, False, f"{why}: save it as float32"
    if kind in "fiucmM":
        return (
            np.dtype(f"{kind}{digits}").name if kind in "mM" else f"{kind}{digits}",
            width,
            False,
            (f"values of dtype {descr} are not read"),
        )
    raise Corrupt(f"values of dtype {shown(descr)!r} are not read", "T2T606")


def _names(keys: list[str]) -> dict[str, str]:
    """Each member's name for a mapping: without `.npy`, and without `:0`, as far as names stay unique."""
    whole = {key: key.removesuffix(ENDING) or key for key in keys}
    count = Counter(whole.values())
    whole = {key: name if count[name] == 1 else key for key, name in whole.items()}
    short = {key: name.removesuffix(OUTPUT_SUFFIX) or name for key, name in whole.items()}
    count, taken = Counter(short.values()), set(whole.values())
    return {
        key: short[key] if short[key] == name or (count[short[key]] == 1 and short[key] not in taken) else name
        for key, name in whole.items()
    }
