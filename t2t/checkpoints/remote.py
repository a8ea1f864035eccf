"""
Files at addresses such as gs://bucket/model.ckpt-700.index: read in ranges, and no byte of them that is not needed.

The one place that knows fsspec, and through it the libraries of the schemes (gcsfs, s3fs, aiohttp, ...). Credentials,
proxies and retries are those libraries' business. Everything here raises CheckpointError: T2T601 (nothing there),
T2T602 (no access, no answer, no ranges), T2T607 (the file ends before), T2T619 (a library is missing).
"""

from __future__ import annotations

import io
import mmap
from collections import OrderedDict
from typing import Any, BinaryIO, Literal, cast

import numpy as np

from t2t.checkpoints.files import File, Identity, reason, refusal
from t2t.names import shown
from t2t.problems import CheckpointError

#: Seconds without a connection, or without a byte, after which a server counts as gone.
CONNECT_PATIENCE, READ_PATIENCE = 30.0, 60.0
#: A server that gives no ranges is asked for the whole file, up to this size in bytes.
MAX_WHOLE = 64 * 2**20
#: Bytes that are asked for at once, at most.
PIECE = 16 * 2**20
#: What `stream` fetches at least, and how many such blocks it keeps.
BLOCK, BLOCKS = 2**20, 64

#: The library of a scheme. Whatever fsspec says itself stands for others.
_LIBRARIES = {
    "http": "aiohttp",
    "https": "aiohttp",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "s3": "s3fs",
    "s3a": "s3fs",
    "hf": "huggingface_hub",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "az": "adlfs",
    "adl": "adlfs",
    "hdfs": "pyarrow",
    "sftp": "paramiko",
    "ssh": "paramiko",
}
#: What tells one state of a file from the next, by whichever of the libraries.
_STATES = (
    "ETag",
    "etag",
    "Content-MD5",
    "Last-Modified",
    "LastModified",
    "VersionId",
    "generation",
    "updated",
    "md5Hash",
    "blob_id",
    "mtime",
    "modified",
    "created",
)
_FAILURES = range(300, 600)
_NOT_FOUND = (404, 410)
_NO_ACCESS = (401, 403)


class RemoteFile(File):
    """A file at an address. Its `identity` is what the server says of its state: an ETag or a time, and the size."""

    piece = PIECE
    remote = True

    def __init__(self, path: str) -> None:
        self.path = path
        self._system, self._place = _system(path)
        found = _info(path, self._system, self._place)
        if found.get("type") == "directory":
            raise refusal("T2T602", "not a regular file", path)
        self._whole: bytes | None = None
        if found.get("size") is None:
            self._whole = self._downloaded("does not say how large the file is")
            self.size = len(self._whole)
        else:
            self.size = int(found["size"])
            if found.get("partial") is False:
                self._whole = self._small("gives no parts of files")
        self.identity = _identity(found)
        self._file: Any = None

    def read_into(self, out: np.ndarray[tuple[int], np.dtype[np.uint8]], offset: int) -> int:
        """Reads the `out.size` bytes from `offset` on, in one request; how many, 0 at the end of the file."""
        data = self._range(offset, min(out.size, max(self.size - offset, 0)))
        out[: len(data)] = np.frombuffer(data, np.uint8)
        return len(data)

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, in one request."""
        data = self._range(offset, min(size, max(self.size - offset, 0)))
        if len(data) < size:
            raise _cut_off(self.path, offset, size, offset + len(data))
        return data

    def identity_now(self) -> Identity:
        """The same as `identity`, asked again."""
        return state_of(self.path, "T2T609")

    def map(self) -> mmap.mmap:
        """A remote file is no part of memory's address space."""
        raise OSError("a remote file cannot be mapped")

    def stream(self) -> BinaryIO:
        """The file for a library that reads and seeks for itself; blocks are kept, so that few are fetched twice."""
        return cast(BinaryIO, io.BufferedReader(_Blocks(self), 2**16))

    def close(self) -> None:
        """Closes the connection's file; the library keeps its connections."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _range(self, offset: int, size: int) -> bytes:
        if size <= 0:
            return b""
        if self._whole is None:
            try:
                data = self._asked(offset, size)
            except ValueError as error:
                if "range" not in str(error):
                    raise _refused(self.path, error) from error
                self._whole = self._small("gives no parts of files")
            except Exception as error:
                raise _refused(self.path, error) from error
            else:
                if len(data) != size:
                    raise _cut_off(self.path, offset, size, offset + min(len(data), size))
                return data
        return self._whole[offset : offset + size]

    def _asked(self, offset: int, size: int) -> bytes:
        if self._file is None:
            # The size is given where that saves asking for it again. Without a cache, a read is a request.
            more = {"size": self.size} if self.path.startswith(("http://", "https://")) else {}
            self._file = self._system.open(self._place, "rb", block_size=PIECE, cache_type="none", **more)
        self._file.seek(offset)
        return bytes(self._file.read(size))

    def _small(self, why: str) -> bytes:
        if self.size > MAX_WHOLE:
            message = f"the server {why}, and the file has {self.size} bytes, but at most {MAX_WHOLE} are fetched whole"
            raise refusal("T2T602", message, self.path, "download the file, and give the copy")
        whole = self._downloaded(why)
        if len(whole) != self.size:
            raise _cut_off(self.path, 0, self.size, len(whole))
        return whole

    def _downloaded(self, why: str) -> bytes:
        try:
            with self._system.open(self._place, "rb", block_size=0) as file:
                whole = bytearray()
                while len(whole) <= MAX_WHOLE and (piece := file.read(MAX_WHOLE + 1 - len(whole))):
                    whole += piece
        except Exception as error:
            raise _refused(self.path, error) from error
        if len(whole) > MAX_WHOLE:
            message = f"the server {why}, and more than {MAX_WHOLE} bytes are not fetched whole"
            raise refusal("T2T602", message, self.path, "download the file, and give the copy")
        return bytes(whole)


class _Blocks(io.RawIOBase):
    """A file that seeks, over requests for whole blocks; the last `BLOCKS` that were used are kept."""

    def __init__(self, file: RemoteFile) -> None:
        self._of = file
        self._at = 0
        self._kept: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        at = offset + (0, self._at, self._of.size)[whence]
        if at < 0:
            raise ValueError(f"a place before the file: {at}")
        self._at = at
        return at

    def readinto(self, buffer: Any) -> int:
        out = memoryview(buffer).cast("B")
        end = min(self._at + len(out), self._of.size)
        start = at = self._at
        while at < end:
            block = self._block(at // BLOCK, -(-end // BLOCK))
            piece = block[at % BLOCK : at % BLOCK + end - at]
            out[at - start : at - start + len(piece)] = piece
            at += len(piece)
        self._at = max(at, self._at)
        return max(at - start, 0)

    def _block(self, number: int, end: int) -> bytes:
        """The block; with it, in one request, those up to `end` (exclusive) that are missing too."""
        if number not in self._kept:
            behind = number + 1
            while behind < end and behind not in self._kept and behind - number < min(PIECE // BLOCK, BLOCKS):
                behind += 1
            at = number * BLOCK
            data = self._of.read(at, min(behind * BLOCK, self._of.size) - at)
            for fetched in range(number, behind):
                begin = (fetched - number) * BLOCK
                self._kept[fetched] = data[begin : begin + BLOCK]
            while len(self._kept) > BLOCKS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]


def state_of(path: str, code: str = "T2T602") -> Identity:
    """What the server says of the file's state now; raises CheckpointError with `code` where there is no such file."""
    system, place = _system(path)
    found = _info(path, system, place, code)
    if found.get("type") == "directory":
        raise refusal(code, "not a regular file", path)
    return _identity(found)


def kind(path: str) -> Literal["file", "folder", "page", ""]:
    """
    What lies at an address; "" for nothing, "page" for a web page, which can be how a server shows a folder.

    Without access there seems to be nothing: whoever reads the file then learns why.
    """
    system, place = _system(path)
    try:
        found = _found(system, place)
    except Exception as error:
        if _is_missing(error) or _is_forbidden(error):
            return ""
        raise _refused(path, error) from error
    if found.get("type") == "directory":
        return "folder"
    return "page" if found.get("mimetype") == "text/html" else "file"


def names_in(folder: str) -> list[str]:
    """The names in a folder, sorted; none on a web server, which has no listing that could be relied on."""
    if folder.startswith(("http://", "https://")):
        return []
    system, place = _system(folder)
    try:
        found = system.ls(place, detail=False)
    except Exception as error:
        if _is_forbidden(error):
            # Whoever may not list a folder may still read files in it by name.
            return []
        raise _refused(folder, error) from error
    return sorted(str(name).rstrip("/").rpartition("/")[2] for name in found)


def _system(path: str) -> tuple[Any, str]:
    """The file system of an address (fsspec keeps one for each server and scheme), and the address as that wants it."""
    import fsspec  # most checkpoints are local

    scheme = path.partition("://")[0]
    options: dict[str, Any] = {}
    try:
        if scheme in ("http", "https"):
            import aiohttp

            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_PATIENCE, sock_read=READ_PATIENCE)
            # A compressed answer would have other offsets than the file.
            headers = {"Accept-Encoding": "identity"}
            options["client_kwargs"] = {"timeout": timeout, "headers": headers, "trust_env": True}
        system, place = fsspec.core.url_to_fs(path, **options)
    except ImportError as error:
        library = _LIBRARIES.get(scheme)
        if library is None:
            raise refusal("T2T619", f"{scheme}:// needs a library: {_first_line(error)}", path) from error
        raise refusal("T2T619", f"{scheme}:// needs {library}", path, f"pip install {library}") from error
    except Exception as error:
        raise _refused(path, error) from error
    return system, str(place)


def _found(system: Any, place: str) -> dict[str, Any]:
    """What is known of a file now, and not when somebody asked before."""
    system.invalidate_cache(place)
    return dict(system.info(place))


def _info(path: str, system: Any, place: str, code: str = "T2T602") -> dict[str, Any]:
    try:
        return _found(system, place)
    except Exception as error:
        raise _refused(path, error, code) from error


def _identity(found: dict[str, Any]) -> Identity:
    state = "; ".join(f"{key}={found[key]}" for key in _STATES if found.get(key) is not None)
    size = found.get("size")
    return "remote", state, -1 if size is None else int(size), 0


def _cut_off(path: str, offset: int, size: int, end: int) -> CheckpointError:
    message = f"bytes {offset} to {offset + size} are needed, but the file ends at {end}"
    return refusal("T2T607", message, path, "the file is cut off: copy it again")


def _status(error: BaseException) -> int | None:
    """The status of an HTTP answer, which some libraries hide behind errors of their own."""
    seen: BaseException | None = error
    while seen is not None:
        answer = getattr(seen, "response", None)
        status = getattr(seen, "status", None) or getattr(seen, "code", None) or getattr(answer, "status_code", None)
        # aiohttp gives an answer that it cannot read a status of its own.
        is_answer = not type(seen).__module__.endswith(".http_exceptions")
        if is_answer and isinstance(status, int) and status in _FAILURES:
            return status
        seen = seen.__cause__
    return None


def _is_missing(error: BaseException) -> bool:
    status = _status(error)
    if status is not None:
        return status in _NOT_FOUND
    return isinstance(error, FileNotFoundError) and not _is_disguised(error)


def _is_disguised(error: BaseException) -> bool:
    """Whether something else failed: fsspec's HTTP says "not found" of whatever it is, and the cause is what it was."""
    cause = error.__cause__
    if isinstance(cause, FileNotFoundError):
        return False
    return isinstance(cause, OSError | TimeoutError) or type(cause).__module__.startswith("aiohttp")


def _is_forbidden(error: BaseException) -> bool:
    return isinstance(error, PermissionError) or _status(error) in _NO_ACCESS


def _refused(path: str, error: BaseException, code: str = "T2T602") -> CheckpointError:
    """The error for whatever a library raised."""
    if isinstance(error, CheckpointError):
        return error
    changed = "the file changed while it was read: " if code == "T2T609" else ""
    if _is_missing(error):
        return refusal("T2T601" if code == "T2T602" else code, changed + "there is no such file", path)
    status = _status(error)
    if status is not None:
        said = getattr(error.__cause__ or error, "message", "") or ""
        return refusal(code, f"{changed}the server answers {status} {shown(str(said))}".rstrip(), path)
    cause = error
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        cause = error.__cause__
    if isinstance(cause, PermissionError):
        return refusal(code, f"{changed}no access: {_first_line(cause)}", path)
    if isinstance(cause, TimeoutError):
        return refusal(code, f"{changed}the server gives no answer ({type(cause).__name__})", path)
    said = reason(cause) if type(cause) is OSError else f"{type(cause).__name__}: {_first_line(cause)}".rstrip(": ")
    return refusal(code, f"{changed}cannot be read: {said}", path)


def _first_line(error: BaseException) -> str:
    return shown(next(iter(str(error).strip().splitlines()), ""))
