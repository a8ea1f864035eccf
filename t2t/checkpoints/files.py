"""
Opening files that a stranger may have put there: regular files only, never waiting, with a known size.

A path may be an address, scheme://...: everything here then asks remote.py.
"""

from __future__ import annotations

import errno
import mmap
import os
import re
import stat
from typing import BinaryIO

import numpy as np

from t2t.problems import CheckpointError, Location, Problem

#: What tells a file apart from one that was rewritten: device, inode, size in bytes, time of modification in ns; or,
#: at an address, "remote", what the server says of its state, its size (-1 unknown), 0.
Identity = tuple[int | str, int | str, int, int]

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://")


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


def is_address(path: str) -> bool:
    """Whether a path is scheme://...; not if a directory of that name lies here, which makes it a path like others."""
    return has_scheme(path) and not os.path.lexists(path.partition("/")[0])


def has_scheme(path: str) -> bool:
    """Whether a text reads like an address, whatever lies here."""
    return _ADDRESS.match(path) is not None


def open_file(path: str) -> File:
    """The file at a path or an address; raises CheckpointError T2T602 where it cannot be opened, T2T619."""
    if is_address(path):
        from t2t.checkpoints.remote import RemoteFile

        return RemoteFile(path)
    return File(path)


class File:
    """
    One file that is open to be read at any place: `size` in bytes, and its `identity`.

    Raises CheckpointError T2T602 where it cannot be opened.
    """

    #: How many bytes it is good to ask for at once: local ones are used while they are in the processor's cache.
    piece = 2**18
    #: Whether it lies at an address, and cannot be mapped.
    remote = False
    size: int
    identity: Identity

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
        """
        The same file for a library that wants to read and seek for itself; to be closed by whoever asked.

        Raises CheckpointError T2T602.
        """
        try:
            return open(os.dup(self._fd), "rb")
        except OSError as error:
            raise refusal("T2T602", f"cannot be opened: {reason(error)}", self.path) from error

    def close(self) -> None:
        """Closes the file."""
        os.close(self._fd)


def state_of(path: str, code: str = "T2T602") -> Identity:
    """What tells the file at `path` apart from another one; raises CheckpointError with `code`."""
    if is_address(path):
        from t2t.checkpoints import remote

        return remote.state_of(path, code)
    try:
        return identity(os.stat(path))
    except OSError as error:
        message = "the file changed while it was read" if code == "T2T609" else "cannot be opened"
        raise refusal(code, f"{message}: {reason(error)}", path) from error


def state_if_there(path: str) -> Identity | None:
    """
    What tells the regular file at `path` apart from another one, None where nothing is there.

    Raises CheckpointError T2T602.
    """
    if is_address(path):
        try:
            return state_of(path)
        except CheckpointError as error:
            if error.problems[0].code == "T2T601":
                return None
            raise
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refusal("T2T602", f"cannot be opened: {reason(error)}", path) from error
    if not stat.S_ISREG(found.st_mode):
        raise refusal("T2T602", "not a regular file", path)
    return identity(found)


def exists(path: str) -> bool:
    """Whether anything is there. A dangling link counts: opening it then says what is wrong with it."""
    return _remote_kind(path) != "" if is_address(path) else os.path.lexists(path)


def is_file(path: str) -> bool:
    """Whether a regular file is there, or a link to one."""
    return _remote_kind(path) in ("file", "page") if is_address(path) else os.path.isfile(path)


def is_folder(path: str) -> bool:
    """Whether a directory is there. A web server's page counts, for it may be how the server shows a directory."""
    return _remote_kind(path) in ("folder", "page") if is_address(path) else os.path.isdir(path)


def _remote_kind(path: str) -> str:
    from t2t.checkpoints import remote

    return remote.kind(path)


def read_all(path: str, limit: int) -> tuple[bytes, Identity]:
    """The whole file, and what it was read from; raises CheckpointError T2T602, or T2T611 above `limit` bytes."""
    file = open_file(path)
    try:
        if file.size > limit:
            raise refusal("T2T611", f"the file has {file.size} bytes, but at most {limit} are read", path)
        if file.remote:
            return file.read(0, file.size), file.identity
        with file.stream() as stream:
            # One byte more than it had: a file that grows while it is read is noticed, and not read without end.
            return stream.read(file.size + 1), file.identity
    except OSError as error:
        raise refusal("T2T602", f"cannot be read: {reason(error)}", path) from error
    finally:
        file.close()


def names_in(folder: str) -> list[str]:
    """The names in a directory ("" is the current one), sorted; none where the system does not let us list it."""
    if is_address(folder):
        from t2t.checkpoints import remote

        return remote.names_in(folder)
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
