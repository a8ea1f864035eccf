"""
Opening files that a stranger may have put there: regular files only, never waiting, with a known size.

And telling what a file is that is no TensorFlow checkpoint, from its first bytes.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from typing import BinaryIO

import numpy as np

from t2t.names import shown
from t2t.problems import CheckpointError, Location, Problem

#: What tells a file apart from one that was rewritten: device, inode, size in bytes, time of modification in ns.
Identity = tuple[int, int, int, int]

_NOT_YET = "this t2t reads TensorFlow V2 checkpoints"

#: (offset, bytes there, what the file then is, the way out). The first that fits is meant.
_SIGNATURES = (
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run git lfs pull"),
    (0, b"<!doctype html", "an HTML page", "download the file itself"),
    (0, b"<html", "an HTML page", "download the file itself"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, which is not supported yet", _NOT_YET),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (257, b"ustar", "a tar archive", "unpack it first"),
    (0, b"GGUF", "a GGUF file", _NOT_YET),
    (4, b"TFL3", "a TFLite model", _NOT_YET),
    (8, b'{"', "a safetensors file", _NOT_YET),
    (0, b"\x80\x02", "a Python pickle, which t2t never reads", _NOT_YET),
    (0, b"\x80\x03", "a Python pickle, which t2t never reads", _NOT_YET),
    (0, b"\x80\x04", "a Python pickle, which t2t never reads", _NOT_YET),
    (0, b"\x80\x05", "a Python pickle, which t2t never reads", _NOT_YET),
)

#: How many bytes `described` wants to see.
HEAD_SIZE = 512


def refusal(code: str, message: str, path: str, hint: str = "", line: int | None = None) -> CheckpointError:
    """The error that says what is wrong with one file."""
    return CheckpointError(Problem(code, message, Location(path, line), hint))


def open_regular(path: str) -> tuple[int, os.stat_result]:
    """
    A file descriptor to read from, and what it is open on; raises CheckpointError T2T602.

    A FIFO without a writer would wait for ever, hence O_NONBLOCK; it changes nothing for a regular file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise refusal("T2T602", "not a regular file", path) from error
        raise refusal("T2T602", f"cannot be opened: {reason(error)}", path) from error
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise refusal("T2T602", "not a regular file", path)
    return fd, found


class File:
    """
    One file that is open to be read at any place: `size` in bytes, and its `identity`.

    Raises CheckpointError T2T602 where it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd, found = open_regular(path)
        self.size = found.st_size
        self.identity = identity(found)

    def read_into(self, out: np.ndarray[tuple[int], np.dtype[np.uint8]], offset: int) -> int:
        """Reads up to `out.size` bytes from `offset` on; how many, 0 at the end of the file. Raises OSError."""
        return os.preadv(self._fd, [out.data], offset)

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on; raises CheckpointError T2T602, T2T607 (the file ends before)."""
        try:
            data = os.pread(self._fd, size, offset)
        except OSError as error:
            raise refusal("T2T602", f"cannot be read: {reason(error)}", self.path) from error
        if len(data) < size:
            message = f"bytes {offset} to {offset + size} are needed, but the file ends at {offset + len(data)}"
            raise refusal("T2T607", message, self.path, "the file is cut off: copy it again")
        return data

    def identity_now(self) -> Identity:
        """The same as `identity`, asked again."""
        return identity(os.fstat(self._fd))

    def map(self) -> mmap.mmap:
        """The whole file in memory's address space, read-only. Raises OSError."""
        return mmap.mmap(self._fd, 0, access=mmap.ACCESS_READ)

    def stream(self) -> BinaryIO:
        """The same file for a library that wants to read and seek for itself; to be closed by whoever asked."""
        return open(os.dup(self._fd), "rb")

    def close(self) -> None:
        """Closes the file."""
        os.close(self._fd)


def state_of(path: str, code: str = "T2T602") -> Identity:
    """What tells the file at `path` apart from another one; raises CheckpointError with `code`."""
    try:
        return identity(os.stat(path))
    except OSError as error:
        message = "the file changed while it was read" if code == "T2T609" else "cannot be opened"
        raise refusal(code, f"{message}: {reason(error)}", path) from error


def read_all(path: str, limit: int) -> tuple[bytes, os.stat_result]:
    """The whole file, and what it was read from; raises CheckpointError T2T602, or T2T611 above `limit` bytes."""
    fd, found = open_regular(path)
    with open(fd, "rb") as file:
        if found.st_size > limit:
            raise refusal("T2T611", f"the file has {found.st_size} bytes, but at most {limit} are read", path)
        try:
            # One byte more than it had: a file that grows while it is read is noticed, and not read without end.
            return file.read(found.st_size + 1), found
        except OSError as error:
            raise refusal("T2T602", f"cannot be read: {reason(error)}", path) from error


def names_in(folder: str) -> list[str]:
    """The names in a directory ("" is the current one), sorted; none where the system does not let us list it."""
    try:
        return sorted(os.listdir(folder or "."))
    except PermissionError:
        # Whoever may not list a directory may still read files in it by name.
        return []
    except OSError as error:
        raise refusal("T2T602", f"cannot be listed: {reason(error)}", folder) from error


def identity(found: os.stat_result) -> Identity:
    """What tells the file that was opened apart from one that took its place."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def reason(error: OSError) -> str:
    """What the system says, as a message may hold it."""
    return (error.strerror or str(error)).lower()


def described(head: bytes) -> tuple[str, str] | None:
    """What a file is that begins with `head`, and the way out; None where nothing is known about such a beginning."""
    text = head.lstrip()[:HEAD_SIZE].lower()
    for offset, signature, description, hint in _SIGNATURES:
        if head[offset:].startswith(signature) or (signature.startswith(b"<") and text.startswith(signature)):
            return description, hint
    if head.startswith(b"PK\x03\x04"):
        return _zip_described(head), _NOT_YET
    return None


def _zip_described(head: bytes) -> str:
    # A local file header: 30 bytes, of which bytes 26 and 27 are the length of the member's name that follows.
    member = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    if member.endswith((b"/data.pkl", b"/.format_version", b"/version", b"/byteorder")):
        return "a PyTorch file (a pickle), which t2t never reads"
    if member.endswith(b".npy"):
        return "a NumPy .npz archive, which is not supported yet"
    if member in (b"metadata.json", b"config.json", b"model.weights.h5"):
        return "a .keras archive, which is not supported yet"
    return f"a zip archive (its first member is {shown(member.decode('utf-8', 'surrogateescape'))})"
