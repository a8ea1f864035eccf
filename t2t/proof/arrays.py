r"""
Arrays in .npy and .npz files, read as what they are: bytes from a stranger.

    .npy   "\x93NUMPY" | major minor | header's length (u16, from 2.0 on u32, little-endian) | header | the elements
    header {'descr': '<f4', 'fortran_order': False, 'shape': (64, 784), }
    .npz   a zip archive of them

Numbers only: what numpy would unpickle is refused by its dtype. The header is matched, never evaluated, and nothing is
allocated before its shape has been held against the size of the file. An archive may not grow without bounds either.
"""

from __future__ import annotations

import math
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import IO, Any, NoReturn, TypeVar

import numpy as np

from t2t.names import did_you_mean, shown
from t2t.problems import CheckpointError, Location, Problem

Array = np.ndarray[Any, np.dtype[Any]]
T = TypeVar("T")

#: An archive that unpacks to more than the first number of bytes and to more than the second times its size is a bomb.
UNPACKED_FLOOR = 256 * 2**20
UNPACKED_RATIO = 100

#: numpy's own headers are below 1000 bytes for what is read here.
HEADER_LIMIT = 65535

_MAGIC = b"\x93NUMPY"
_HEADER = re.compile(
    rb"\{\s*'descr':\s*'([^']*)',\s*'fortran_order':\s*(True|False),\s*'shape':\s*\(([0-9,L\s]*)\)\s*,?\s*\}\s*"
)
_NUMBER = re.compile(r"\|b1|\|[iu]1|[<>][iu][248]|[<>]f[248]")
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError)


def read(path: str, member: str | None = None) -> Array:
    """
    One array: a .npy file's, or a .npz archive's `member`, which may be None where the archive holds one array only.

    It is in C order and native byte order. Raises CheckpointError (T2T904).
    """

    def one(stream: IO[bytes]) -> Array:
        if _is_npy(stream):
            if member is not None:
                _refuse(path, f"{shown(path)} is a .npy file, which has no member {shown(member)}", "leave out member")
            return _array(stream, os.fstat(stream.fileno()).st_size, path, shown(path))
        with zipfile.ZipFile(stream) as archive:
            members = _members(archive, path)
            if member is None and len(members) != 1:
                held = ", ".join(map(shown, members)) or "nothing"
                _refuse(path, f"{shown(path)} holds {held}", "name one array with member")
            name = next(iter(members)) if member is None else member
            if name not in members:
                held = ", ".join(map(shown, members)) or "nothing"
                text = f"{shown(path)} has no member {shown(name)}, it holds {held}"
                _refuse(path, text, did_you_mean(name, members))
            return _member(archive, members[name], path, name)

    return _opened(path, one)


def read_all(path: str, only: str | None = None) -> dict[str, Array]:
    """
    Every array of a .npz archive by its name, or that of one name, if it is there. Raises CheckpointError (T2T904).
    """

    def every(stream: IO[bytes]) -> dict[str, Array]:
        with zipfile.ZipFile(stream) as archive:
            members = _members(archive, path).items()
            return {name: _member(archive, info, path, name) for name, info in members if only in (None, name)}

    return _opened(path, every)


def _opened(path: str, job: Callable[[IO[bytes]], T]) -> T:
    try:
        # A FIFO would never end to open, a directory opens and doesn't read.
        if not stat.S_ISREG(os.stat(path).st_mode):
            _refuse(path, f"{shown(path)} is not a regular file")
        with open(path, "rb") as stream:
            return job(stream)
    except FileNotFoundError:
        _refuse(path, f"no file at {shown(path)}")
    except OSError as error:
        _refuse(path, f"{shown(path)} cannot be read: {error.strerror or error}")
    except _BROKEN as error:
        _refuse(path, f"{shown(path)} is not a whole .npy or .npz file: {shown(str(error))}")


def _refuse(path: str, message: str, hint: str = "") -> NoReturn:
    raise CheckpointError(Problem("T2T904", message, Location(path), hint)) from None


def _is_npy(stream: IO[bytes]) -> bool:
    start = stream.read(len(_MAGIC))
    stream.seek(0)
    return start == _MAGIC


def _members(archive: zipfile.ZipFile, path: str) -> dict[str, zipfile.ZipInfo]:
    """The archive's members by name, without `.npy`; what they claim to unpack to is within the limit."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        # zipfile cuts a name at its first NUL and tells only here: two readers could see two names.
        if info.orig_filename != info.filename:
            _refuse(path, f"{shown(path)} has a member with the name {shown(info.orig_filename)}")
        if name in members:
            _refuse(path, f"{shown(path)} has two members {shown(name)}")
        if info.flag_bits & 1 or info.compress_type not in _PACKED:
            _refuse(path, f"{shown(name)} in {shown(path)} is encrypted or packed by another method than deflate")
        members[name] = info
    unpacked, packed = sum(info.file_size for info in members.values()), os.path.getsize(path)
    if unpacked > max(UNPACKED_FLOOR, UNPACKED_RATIO * packed):
        _refuse(path, f"{shown(path)} has {packed} bytes and claims to unpack to {unpacked}")
    return members


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str, name: str) -> Array:
    with archive.open(info) as stream:
        return _array(stream, info.file_size, path, f"{shown(name)} in {shown(path)}")


def _array(stream: IO[bytes], size: int, path: str, subject: str) -> Array:
    """The array in the next `size` bytes of the stream."""
    start = stream.read(8)
    if len(start) < 8 or start[:6] != _MAGIC or start[6:] not in (b"\1\0", b"\2\0"):
        _refuse(path, f"{subject} is not an array as numpy stores it (version 1.0 or 2.0)")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    header = stream.read(min(length, HEADER_LIMIT))
    match = _HEADER.fullmatch(header)
    dims = [dim.strip().removesuffix("L") for dim in match[3].decode().split(",") if dim.strip()] if match else []
    if match is None or length != len(header) or not all(dim.isdecimal() and len(dim) < 19 for dim in dims):
        text = shown(header.decode("ascii", "replace").strip())
        _refuse(path, f"{subject} has a header that cannot be read: {text}")
    descr = match[1].decode("ascii", "replace")
    if not _NUMBER.fullmatch(descr):
        _refuse(path, f"{subject} has dtype {shown(descr)}; only plain numbers are read, and nothing is unpickled")
    dtype, shape, left = np.dtype(descr), tuple(map(int, dims)), size - 8 - width - length
    if math.prod(shape) * dtype.itemsize != left or len(shape) > 32:
        _refuse(path, f"{subject} says {dtype.name} {list(shape)}, but {left} bytes of elements follow its header")
    data = stream.read(left)
    if len(data) != left:
        _refuse(path, f"{subject} ends after {len(data)} of {left} bytes")
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if match[2] == b"True" else "C")
    return np.ascontiguousarray(array, dtype.newbyteorder("=")).reshape(shape)
