"""
Zip archives: what may be read from one that a stranger made, and which member of it is the checkpoint.

`.keras` (Keras 3) is a zip of `metadata.json`, `config.json` and `model.weights.h5` (or `model.weights.npz`). Any other
zip is read if exactly one of its members is an HDF5 or `.npz` file. Members are read by their exact names, never
extracted.
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from t2t.checkpoints.files import open_file, reason, refusal
from t2t.names import shown
from t2t.problems import CheckpointError, Problem

if TYPE_CHECKING:
    from t2t.checkpoints.reader import Reader

#: So many times its compressed size, and more than so many bytes, is a bomb.
MAX_RATIO = 100
MIN_BOMB = 64 * 2**20
MAX_MEMBERS = 1_000_000
MAX_CONFIG = 64 * 2**20
#: A compressed member that has to be in memory as a whole.
MAX_IN_MEMORY = 4 * 2**30

WEIGHTS = ("model.weights.h5", "model.weights.npz")
CONFIG = "config.json"
_ARRAYS = (".h5", ".hdf5", ".npz")
_NESTED = (".keras", ".zip")

#: A local file header without its name, and a member's record in the central directory: nothing can be smaller.
_LOCAL_HEADER = 30
_METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
_COPY_AGAIN = "the file is damaged: copy it again"


class Members:
    """
    The members of a zip archive, by name; each is a plain file within the archive, of a size that can be true.

    `path` is what messages name. Raises CheckpointError T2T604, T2T605, T2T606 or T2T611.
    """

    def __init__(self, stream: BinaryIO, size: int, path: str) -> None:
        self.path = path
        with self._guarded("the zip archive", "T2T604"):
            self._zip = zipfile.ZipFile(stream)
        self._stream = stream
        try:
            infos = self._zip.infolist()
            if len(infos) > MAX_MEMBERS:
                raise refusal("T2T611", f"{len(infos)} members, but at most {MAX_MEMBERS} are read", path)
            self.infos: dict[str, zipfile.ZipInfo] = {}
            for info in infos:
                if info.filename in self.infos:
                    raise refusal("T2T605", f"two members are named {shown(info.filename)}", path)
                self._check(info)
                self.infos[info.filename] = info
            self._check_places(size)
        except BaseException:
            self._zip.close()
            raise

    @contextmanager
    def opened(self, name: str) -> Iterator[BinaryIO]:
        """A member to read from its beginning on; whatever goes wrong meanwhile is a CheckpointError."""
        with self._guarded(f"member {shown(name)}", "T2T605"), self._zip.open(self.infos[name]) as member:
            yield member  # type: ignore[misc]

    def within(self, name: str) -> tuple[BinaryIO, int]:
        """A member that is an archive itself, as a file to seek in, and its size; this archive must stay open."""
        info = self.infos[name]
        if info.compress_type != zipfile.ZIP_STORED:
            return io.BytesIO(self.contents(name, MAX_IN_MEMORY)), info.file_size
        with self.opened(name):
            # zipfile has compared the local header with the directory, so its two lengths lead to the bytes.
            self._stream.seek(info.header_offset + _LOCAL_HEADER - 4)
            lengths = struct.unpack("<HH", self._stream.read(4))
        start = info.header_offset + _LOCAL_HEADER + sum(lengths)
        return io.BufferedReader(_Slice(self._stream, start, info.file_size)), info.file_size

    def contents(self, name: str, limit: int) -> bytes:
        """All bytes of one member; raises CheckpointError T2T611 above `limit`."""
        size = self.infos[name].file_size
        if size > limit:
            raise refusal("T2T611", f"member {shown(name)} has {size} bytes, but at most {limit} are read", self.path)
        with self.opened(name) as member:
            return member.read()

    def close(self) -> None:
        """Closes the archive; its stream belongs to whoever opened it."""
        self._zip.close()

    def _check(self, info: zipfile.ZipInfo) -> None:
        name = f"member {shown(info.filename)}"
        if info.filename != info.orig_filename:
            raise refusal("T2T605", f"{name}: its name is stored as {shown(info.orig_filename)}", self.path)
        if info.flag_bits & 0x1:
            raise refusal("T2T606", f"{name} is encrypted", self.path, "decrypt it first")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise refusal("T2T605", f"{name} is a symbolic link", self.path)
        if info.compress_type not in _METHODS:
            message = f"{name} is compressed by method {info.compress_type}; only stored and deflated ones are read"
            raise refusal("T2T606", message, self.path, "pack it again")
        if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
            message = f"{name} is stored as it is, but {info.compress_size} bytes are to be {info.file_size}"
            raise refusal("T2T605", message, self.path)
        if info.file_size > max(MIN_BOMB, MAX_RATIO * info.compress_size):
            message = f"{name}: {info.compress_size} bytes are to become {info.file_size}"
            raise refusal("T2T611", message, self.path, f"at most {MAX_RATIO} times as many are read")

    def _check_places(self, size: int) -> None:
        """Members lie in the file, one after the other: bytes that are several members' are how bombs are made."""
        last_end, last_name = 0, ""
        for info in sorted(self.infos.values(), key=lambda info: info.header_offset):
            end = info.header_offset + _LOCAL_HEADER + info.compress_size
            if info.header_offset < 0 or end > size:
                message = f"member {shown(info.filename)} lies at bytes {info.header_offset} to {end} of {size}"
                raise refusal("T2T605", message, self.path, _COPY_AGAIN)
            if info.header_offset < last_end:
                message = f"bytes of member {shown(info.filename)} are also those of {shown(last_name)}"
                raise refusal("T2T605", message, self.path)
            last_end, last_name = end, info.filename

    @contextmanager
    def _guarded(self, what: str, code: str) -> Iterator[None]:
        """The one place where what zipfile and zlib raise becomes a refusal."""
        try:
            yield
        except CheckpointError:
            raise
        except MemoryError as error:
            raise refusal("T2T611", f"{what}: no memory for it", self.path) from error
        except OSError as error:
            raise refusal("T2T602", f"{what} cannot be read: {reason(error)}", self.path) from error
        except EOFError as error:
            raise refusal("T2T607", f"{what} is cut off", self.path, _COPY_AGAIN) from error
        except zipfile.BadZipFile as error:
            if str(error).startswith("Bad CRC-32"):
                raise refusal("T2T608", f"{what}: checksum mismatch (crc32)", self.path, _COPY_AGAIN) from error
            raise refusal(code, f"{what} is damaged: {_told(error)}", self.path, _COPY_AGAIN) from error
        except (
            zlib.error,
            struct.error,
            ArithmeticError,
            AttributeError,
            LookupError,
            RuntimeError,  # also NotImplementedError and RecursionError
            TypeError,
            ValueError,
        ) as error:
            raise refusal(code, f"{what} is damaged: {_told(error)}", self.path, _COPY_AGAIN) from error


class _Slice(io.RawIOBase):
    """`size` bytes of a stream from `start` on."""

    def __init__(self, stream: BinaryIO, start: int, size: int) -> None:
        self._stream, self._start, self._size, self._at = stream, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + (0, self._at, self._size)[whence]
        if at < 0:
            raise ValueError(f"a place before the beginning: {at}")
        self._at = at
        return at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._stream.seek(self._start + self._at)
        data = self._stream.read(max(min(len(buffer), self._size - self._at), 0))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _told(error: Exception) -> str:
    return shown(str(error)) or type(error).__name__


def Archive(  # noqa: N802 - it stands where the readers' classes stand
    path: str, notes: tuple[Problem, ...] = (), checksums: bool = True
) -> Reader:
    """
    The reader of the one member of a zip that is the checkpoint. Nothing in `config.json` is ever run.

    Raises CheckpointError: T2T605 and T2T606 for an archive that is not as Keras writes it, whatever the reader raises.
    """
    with (
        closing(open_file(path)) as file,
        file.stream() as stream,
        closing(Members(stream, file.size, path)) as members,
    ):
        for name in members.infos:
            if "\\" in name or name.startswith("/") or name[1:2] == ":" or ".." in name.split("/"):
                raise refusal("T2T605", f"member {shown(name)}: its name leads out of the archive", path)
        member = _weights(list(members.infos), path)
        config = members.contents(CONFIG, MAX_CONFIG) if CONFIG in members.infos else None
    if member.endswith(".npz"):
        from t2t.checkpoints.npz import Npz

        return Npz(path, notes, checksums, member=member)
    from t2t.checkpoints.hdf5 import HDF5

    return HDF5(path, notes, checksums, member=member, config=config)


def _weights(names: list[str], path: str) -> str:
    """The member that holds the weights; raises CheckpointError T2T605, T2T606."""
    found = [name for name in names if name in WEIGHTS] or [name for name in names if name.endswith(_ARRAYS)]
    if len(found) == 1:
        return found[0]
    if found:
        message = f"several members may be the weights: {', '.join(map(shown, found[:5]))}"
        raise refusal("T2T605", message, path, "give the file of weights itself")
    if nested := [name for name in names if name.endswith(_NESTED)]:
        raise refusal("T2T606", f"the archive holds another one: {shown(nested[0])}", path, "unpack it first")
    message = f"none of its {len(names)} members is {' or '.join(WEIGHTS)}, nor another .h5 or .npz"
    raise refusal("T2T605", message, path)
