"""
A file that is there whole or not at all.

It is built in `.<name>.t2t-<pid>-<random>.tmp` beside its place, synced, and renamed over it; until then whatever stood
there stays as it was, and on any error the temporary file goes. A process that was killed leaves its temporary file
behind: the next one that writes to the same place removes it.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import google_crc32c
import numpy as np

from t2t.names import shown
from t2t.problems import Location, OutputError, Problem

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

#: Bytes after which a sync begins in the background.
SYNC_EVERY = 2**27

#: How a file is made that was not there.
NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC

#: One write call takes at most this much; Linux stops at 2 GiB.
_PIECE = 2**30

#: What is read back at a time.
_READ = 2**20


class Temporary:
    """
    The file while it is built. `place` is where it will be, as the caller named it.

    While it is written, what is there already is on its way to the disk in the background: the sync at the end then has
    little left to wait for.
    """

    def __init__(self, fd: int, path: str, place: str) -> None:
        self.fd = fd
        self.path = path
        self.place = place
        self._thread = ThreadPoolExecutor(1, "t2t-sync")
        self._syncing: Future[None] | None = None
        self._unsynced = 0

    def write(self, data: bytes | np.ndarray[Any, Any], offset: int) -> None:
        """Writes all of `data` at `offset`. Raises OutputError (T2T803 when the space is out, T2T802 otherwise)."""
        view = memoryview(data)  # type: ignore[arg-type]
        self._unsynced += len(view)
        try:
            fd = self._opened()
            while view:
                written = os.pwrite(fd, view[:_PIECE], offset)
                view, offset = view[written:], offset + written
            if self._unsynced >= SYNC_EVERY and (self._syncing is None or self._syncing.done()):
                self._finish_sync()
                self._syncing = self._thread.submit(os.fsync, fd)
                self._unsynced = 0
        except OSError as error:
            raise output_error(self.place, error) from None

    def read(self, offset: int, nbytes: int) -> bytes:
        """What the file has there now, less than `nbytes` at its end. Raises OutputError."""
        try:
            return os.pread(self._opened(), nbytes, offset)
        except OSError as error:
            raise output_error(self.place, error) from None

    def checksum(self, offset: int, nbytes: int) -> int:
        """The crc32c of what the file has there now, -1 where it ends before. Raises OutputError."""
        crc = 0
        buffer = np.empty(min(_READ, nbytes), np.uint8)
        try:
            for start in range(0, nbytes, _READ):
                piece = buffer[: min(_READ, nbytes - start)]
                if os.preadv(self._opened(), [piece.data], offset + start) != len(piece):
                    return -1
                crc = google_crc32c.extend(crc, piece)
        except OSError as error:
            raise output_error(self.place, error) from None
        return int(crc)

    def sync(self) -> None:
        """Waits until what was written is on the disk. Raises OutputError."""
        try:
            self._finish_sync()
            os.fsync(self._opened())
        except OSError as error:
            raise output_error(self.place, error) from None

    def rest(self) -> None:
        """Syncs the file and closes it until it is used again: open files are limited. Raises OutputError."""
        if self.fd >= 0:
            self.sync()
            fd, self.fd = self.fd, -1
            os.close(fd)

    def close(self) -> None:
        """Ends the background's work, and closes the file."""
        self._thread.shutdown(wait=True)
        if self.fd >= 0:
            os.close(self.fd)

    def _opened(self) -> int:
        if self.fd < 0:
            self.fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        return self.fd

    def _finish_sync(self) -> None:
        # An error of the disk is told to one sync only, so none may be lost.
        if self._syncing is not None:
            self._syncing.result()
            self._syncing = None


@contextmanager
def replacing(
    place: str,
    size: int,
    is_ours: Callable[[str], bool],
    *,
    force: bool = False,
    note: Callable[[Problem], None] = lambda problem: None,
) -> Iterator[Temporary]:
    """
    A temporary file of `size` bytes (zeros, until written) that takes its place when the block ends without an error.

    A file that stands there already is replaced if `is_ours` says that t2t wrote it, or with `force`. A symbolic link
    is followed: what it points to is replaced. Raises OutputError before anything is written where the place can't be
    used.
    """
    refuse_bytes(place)
    target = os.path.realpath(place)
    refuse_occupied(place, target, is_ours, force)
    path = temporary_path(place, target, size, note)
    fd = -1
    temporary = None
    try:
        try:
            # 0o666 and the umask: the mode that any other program's new file has.
            fd = os.open(path, NEW, 0o666)
            os.ftruncate(fd, size)
        except OSError as error:
            raise output_error(place, error) from None
        temporary = Temporary(fd, path, place)
        yield temporary
        temporary.sync()
        try:
            os.rename(path, target)
        except OSError as error:
            raise output_error(place, error) from None
    except BaseException:
        # A signal is raised when the call that it came in has returned: the file may have been made and `fd` not be
        # known, or it may be in its place already.
        with suppress(OSError):
            os.unlink(path)
        raise
    finally:
        if temporary is not None:
            temporary.close()
        elif fd >= 0:
            os.close(fd)
    sync_directory(os.path.dirname(target))


def temporary_path(place: str, target: str, size: int, note: Callable[[Problem], None]) -> str:
    """
    A name beside `target` that nobody else has, where `size` bytes are free; what killed runs left there is removed.

    Raises OutputError, by the name `place`.
    """
    directory, name = os.path.split(target)
    try:
        _remove_stale(directory, name, note)
        free = os.statvfs(directory)
        if free.f_bavail * free.f_frsize < size:
            message = f"no space: the file needs {size} bytes, {free.f_bavail * free.f_frsize} are free"
            raise OutputError(Problem("T2T803", message, Location(place), "free some, or choose another place"))
    except OSError as error:
        raise output_error(place, error) from None
    return os.path.join(directory, f".{name}.t2t-{os.getpid()}-{secrets.token_hex(4)}.tmp")


def refuse_bytes(place: str) -> None:
    """Raises OutputError (T2T802) for a path that UTF-8 cannot hold: its bytes come as halves of surrogate pairs."""
    if any("\ud800" <= c <= "\udfff" for c in place):
        message = "the output's path is not UTF-8, which the library that reads it back needs"
        raise OutputError(Problem("T2T802", message, Location(place), "choose another place"))


def output_error(place: str, error: OSError) -> OutputError:
    """What the system said, as ours."""
    reason = error.strerror or str(error)
    if error.errno in _NO_SPACE:
        return OutputError(Problem("T2T803", f"no space: {reason}", Location(place), "nothing was written"))
    hint = {
        errno.ENOENT: "make its directory first",
        errno.ENOTDIR: "its directory is a file",
        errno.EACCES: "choose another place",
        errno.EROFS: "choose another place",
        errno.ENAMETOOLONG: "choose a shorter name",
    }.get(error.errno or 0, "nothing was written")
    return OutputError(Problem("T2T802", f"cannot be written: {reason}", Location(place), hint))


def refuse_occupied(place: str, target: str, is_ours: Callable[[str], bool], force: bool) -> None:
    """Raises OutputError (T2T801, T2T802) where something stands at `target` that may not be replaced."""
    try:
        mode = os.stat(target).st_mode
        is_file = stat.S_ISREG(mode)
        may_go = is_file and (force or is_ours(target))
    except FileNotFoundError:
        return
    except OSError as error:
        raise output_error(place, error) from None
    if not is_file:
        what = "a directory" if stat.S_ISDIR(mode) else "something that is not a regular file"
        raise OutputError(Problem("T2T801", f"{what} stands there", Location(place), "name a file"))
    if not may_go:
        message = "a file that t2t did not write stands there"
        raise OutputError(
            Problem("T2T801", message, Location(place), "give --force to replace it, or choose another place")
        )


def _remove_stale(directory: str, name: str, note: Callable[[Problem], None]) -> None:
    """Removes what a killed run left at this very place: our pattern, our user, a process that is gone."""
    pattern = re.compile(re.escape(f".{name}.t2t-") + r"(\d+)-[0-9a-f]{8}\.tmp")
    for entry in os.scandir(directory):
        match = pattern.fullmatch(entry.name)
        if match is None or _is_alive(int(match[1])):
            continue
        # Another run may be faster, at removing it or at putting its own file in place.
        with suppress(FileNotFoundError):
            if entry.stat(follow_symlinks=False).st_uid == os.getuid():
                if entry.is_dir(follow_symlinks=False):
                    remove_directory(entry.path)
                else:
                    os.unlink(entry.path)
                message = f"removed {shown(entry.name)}, left by process {match[1]}, which is gone"
                note(Problem("T2T806", message, Location(directory), severity="note"))


def remove_directory(path: str) -> None:
    """Removes a directory of files. (shutil.rmtree closes a file twice when a signal comes in between.)"""
    for name in os.listdir(path):
        os.unlink(os.path.join(path, name))
    os.rmdir(path)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def sync_directory(directory: str) -> None:
    """Makes the rename itself last. The file is in place by now, so a file system that can't do it is no error."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF}:
            raise output_error(directory, error) from None
    finally:
        os.close(fd)
